"""A classifier of one's own: any network, any size of images, from tensors or from a loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from hw3lib.data import to_pixels
from hw3lib.robust import defenses
from hw3lib.robust.attacks import Attack
from hw3lib.robust.checks import check_batch, check_logits, checked, checked_pair
from hw3lib.robust.evaluate import withstood

Images = tuple[Tensor, Tensor] | Iterable[Any]
"""Images and their labels, or what yields batches of these, such as a `DataLoader`."""


class Classification:
    """A defence on one's own images, as an objective for `hw3lib.training.fit`.

    Images are (N, C, H, W), uint8 or pixels in [0, 1], and labels (N,) int64, on any device. The
    model takes pixels; one that wants them normalised has `Normalize` in front of it.

    Args:
        train, val: tensors, or loaders, whose batches are taken in their own size and order. A
            batch of one image is left out of training: batch norm cannot take it.
        defense: the loss of a batch.
        attack: adds the score `attacked_error`, the share of validation images that are wrong
            before or after this attack. It is the last score, by which `fit` selects.

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
        attack: Attack | None = None,
    ) -> None:
        self.train, self.val, self.attack = train, val, attack
        self.defense = defense or defenses.Standard()
        self._random = defenses.random_starts(self.defense)
        for images in (train, val):
            if _are_tensors(images):
                check_batch(_pixels(images[0]), images[1])

    def num_batches(self, batch_size: int | None) -> int | None:
        """Batches of an epoch, None if the loader does not know.

        Raises:
            ValueError: a batch size is missing for tensors, or given beside a loader.
        """
        if _are_tensors(self.train):
            if batch_size is None or batch_size < 1:
                raise ValueError(f"batch_size={batch_size}: need at least 1")
            return -(-len(self.train[0]) // batch_size)
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
        for number, batch in enumerate(parts):
            x, y = checked_pair(batch)
            if not number:
                check_batch(_pixels(x), y)
            if len(y) > 1:
                yield x, y, defenses.draw_seeds(1, generator)[0]

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of a batch in nats; sums of the loss and of the clean errors over it."""
        starts = defenses.seeded_by(seed) if self._random else None
        loss, logits = self.defense.loss(model, _pixels(x), y, starts)
        return loss, defenses.sums(loss, logits, y)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean cross-entropy in nats, share of errors, and that under attack if there is one."""
        device = next(model.parameters()).device
        answers, right = [], 0
        for number, batch in enumerate(self._held_out()):
            x, y = (part.to(device) for part in checked_pair(batch))
            with checked(model, _pixels(x), y, probe=False):
                logits = model(_pixels(x)).float()
                check_logits(logits, y, len(x))
            answers.append((logits, y))
            if self.attack:
                right += int(withstood(model, self.attack, _pixels(x), y, seed=number).sum())
        if not answers:
            raise ValueError("there are no validation images")
        logits, y = (torch.cat(parts) for parts in zip(*answers, strict=True))
        attacked = {"attacked_error": 1 - right / len(y)} if self.attack else {}
        return defenses.scores(logits, y) | attacked

    def _held_out(self) -> Iterable[Any]:
        if _are_tensors(self.val):
            return zip(*(tensor.split(500) for tensor in self.val), strict=True)
        return self.val


def _are_tensors(images: Any) -> TypeGuard[tuple[Tensor, ...]]:
    pair = isinstance(images, tuple | list) and len(images) == 2
    return pair and all(isinstance(part, Tensor) for part in images)


def _pixels(x: Tensor) -> Tensor:
    return to_pixels(x) if x.dtype == torch.uint8 else x
