"""A classifier of one's own: any network, any size of images, from tensors or from a loader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from hw3lib.robust import defenses
from hw3lib.robust.checks import as_pixels, check_batch, check_logits, checked, checked_pair
from hw3lib.robust.evaluate import Attacker, withstood

Images = tuple[Tensor, Tensor] | Iterable[Any]
"""Images and their labels, or what yields batches of these, such as a `DataLoader`."""


class Classification:
    """A defence on one's own images, as an objective for `hw3lib.training.fit`.

    Images are (N, C, H, W), uint8 or pixels in [0, 1], and labels (N,) int64, on any device. The
    model takes pixels; one that wants them normalised has `Normalize` in front of it.

    Args:
        train, val: tensors, or loaders, whose batches are taken in their own size and order. A
            batch of one image is left out of training: batch norm cannot take it.
        defense: the loss of a batch; one of these, or an object of your own with such a method.
        attack: adds the score `attacked_error`, the share of validation images that are wrong
            before or after this attack. It is the last score, by which `fit` selects. Any attack
            that `withstood` takes.

    A loader's workers get their random numbers from `fit`'s seed in every epoch, unless they
    persist: then a run that is resumed differs from one that was not interrupted.

    Raises:
        TypeError, ValueError: see the messages.

    Example:
        >>> from hw3lib.robust import FGSM, AdversarialLoss
        >>> from hw3lib.training import fit
        >>> images = torch.randint(256, (8, 3, 4, 4), dtype=torch.uint8)
        >>> labels = torch.arange(8) % 3
        >>> defense = AdversarialLoss(FGSM(8 / 255))
        >>> objective = Classification((images, labels), (images, labels), defense)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> progress = fit(model, objective, optimizer, epochs=2, seed=0, batch_size=4)
        >>> len(progress.history)  # row 0 is before training
        3
    """

    metrics: tuple[str, ...] = ("loss", "error")

    def __init__(
        self,
        train: Images,
        val: Images,
        defense: defenses.Defense | None = None,
        *,
        attack: Attacker | None = None,
    ) -> None:
        self.train, self.val, self.attack = train, val, attack
        self.defense = defenses.Standard() if defense is None else defense
        self._begins = False  # the next batch is the first of its epoch
        _check_images("train", train)
        _check_images("val", val)
        _check_defense(self.defense)
        if attack is not None and (isinstance(attack, type) or not callable(attack)):
            raise TypeError(f"attack={attack!r}: need an attack, such as attack=PGD(8 / 255)")

    @property
    def identity(self) -> dict[str, str]:
        """What it is, as far as that is quickly told; `fit` compares it with a checkpoint's."""
        return {
            "defense": _told(self.defense),
            "validation attack": _told(self.attack),
            "training data": _described(self.train),
            "validation data": _described(self.val),
        }

    def num_batches(self, batch_size: int | None) -> int | None:
        """Batches of an epoch, None if the loader does not know.

        Raises:
            ValueError: a batch size is missing for tensors, or given beside a loader.
        """
        if _are_tensors(self.train):
            if batch_size is None or batch_size < 2:
                raise ValueError(f"batch_size={batch_size}: need at least 2 images in a step")
            full, rest = divmod(len(self.train[0]), batch_size)
            return full + (rest > 1)
        if batch_size is not None:
            raise ValueError(f"batch_size={batch_size}: the loader has its own; leave this out")
        try:
            return len(self.train)  # type: ignore[arg-type]
        except TypeError:
            return None

    def batches(
        self, batch_size: int | None, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of an epoch: images, labels, and a seed for the random starts, (1,).

        The generator draws the order of tensors. It seeds a loader's own generator, if that has
        one; otherwise loaders draw from torch's global generator, which `fit` seeds.
        """
        if _are_tensors(self.train):
            order = torch.randperm(len(self.train[0]), generator=generator)
            parts: Iterable[Any] = (
                tuple(tensor[index.to(tensor.device)] for tensor in self.train)
                for index in order.split(batch_size or len(order))
            )
        else:
            if own := getattr(self.train, "generator", None):
                own.manual_seed(generator.initial_seed())
            parts = self.train
        sizes: set[int] = set()
        for batch in parts:
            x, y = checked_pair(batch)
            if not sizes:
                check_batch(as_pixels(x), y)
            if len(y) > 1:
                self._begins = sizes <= {1}
                yield x, y, defenses.draw_seeds(1, generator)[0]
            sizes.add(len(y))
        if sizes == {1}:
            raise ValueError(
                "every batch has one image, which batch norm cannot take; choose larger batches"
            )

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of a batch in nats; sums of the loss and of the clean errors over it."""
        pixels = as_pixels(x)
        if self._begins:
            self._begins = False
            with checked(model, pixels, y):  # looks at the model's answers, too
                pass
        return defenses.defended(self.defense, model, pixels, y, seed)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean cross-entropy in nats, share of errors, and that under attack if there is one."""
        device = next(model.parameters()).device
        answers, right, val = [], 0, self.val
        if _are_tensors(val):
            val = zip(*(tensor.split(500) for tensor in val), strict=True)
        for number, batch in enumerate(val):
            x, y = (part.to(device) for part in checked_pair(batch))
            with checked(model, as_pixels(x), y, probe=False) as pixels:
                logits = model(pixels.clone())
                check_logits(logits, y, len(x))
                if not number and _are_tensors(self.train):
                    check_logits(logits, self.train[1], len(x))
            answers.append((logits.float(), y))
            if self.attack:
                with torch.enable_grad():  # which attacks of other libraries take for granted
                    right += int(withstood(model, self.attack, pixels, y, seed=number).sum())
        if not answers:
            raise ValueError("there are no validation images: none, or an iterator used up")
        logits, y = (torch.cat(parts) for parts in zip(*answers, strict=True))
        attacked = {"attacked_error": 1 - right / len(y)} if self.attack else {}
        return defenses.scores(logits, y) | attacked


def _are_tensors(images: Any) -> TypeGuard[tuple[Tensor, ...]]:
    pair = isinstance(images, tuple | list) and len(images) == 2
    return pair and all(isinstance(part, Tensor) for part in images)


def _check_images(name: str, images: Any) -> None:
    """Refuse what gives no batches: a data set, arrays, a single tensor, a name."""
    if _are_tensors(images):
        check_batch(as_pixels(images[0]), images[1])
        return
    parts = images if isinstance(images, tuple | list) else [images]
    single = any(isinstance(part, str) or hasattr(part, "shape") for part in parts)
    by_index = isinstance(images, Dataset) and not isinstance(images, IterableDataset)
    if single or by_index or not hasattr(images, "__iter__"):
        kinds = " of ".join({type(part).__name__: 0 for part in (images, *parts)})
        raise TypeError(
            f"{name} is a {kinds}: pass a pair of tensors (torch.as_tensor), images and labels; or "
            "wrap a data set in a DataLoader"
        )


def _check_defense(defense: Any) -> None:
    if hasattr(defense, "perturb") and not isinstance(defense, type):
        raise TypeError(f"defense is a {type(defense).__name__}: wrap it, JoinedBatch({defense!r})")
    if isinstance(defense, type) or not callable(getattr(defense, "loss", None)):
        raise TypeError(
            f"defense={defense!r}: need Standard(), JoinedBatch(PGD(8 / 255)) or another object "
            "with a method loss(model, x, y, generator)"
        )


def _told(part: Any) -> str:
    """What it is, in words that are the same in another process."""
    return type(part).__name__ if " at 0x" in repr(part) else repr(part)


def _described(images: Any) -> str:
    """Shape and checksum of tensors, the first images' and all labels'; how many a loader has."""
    if _are_tensors(images):
        parts = (255 * as_pixels(images[0][:64])).round().byte(), images[1]
        content = b"".join(part.cpu().contiguous().numpy().tobytes() for part in parts)
        digest = hashlib.sha256(content).hexdigest()[:8]
        return f"{tuple(images[0].shape)} with checksum {digest}"
    try:
        return f"{len(images.dataset)} images in {len(images)} batches"
    except (AttributeError, TypeError, NotImplementedError):
        return "batches"
