"""Defences: what a classifier minimises on a batch, and the objective that feeds it.

`Standard` sees clean images, `AdversarialLoss` (question 2.2) adds the loss of attacked ones,
`JoinedBatch` (question 2.3) puts both into one batch, and `TRADES` asks that both are answered
alike. They differ in nothing else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_args

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, autocast, nn

from hw3lib.augmentation import augment, draw_augmentation, draw_squares, erase
from hw3lib.data import to_pixels
from hw3lib.robust.attacks import FGSM, PGD, SignNoise
from hw3lib.robust.checks import check_choice, check_number
from hw3lib.robust.modes import evaluating, keeping_statistics

GradientAttack = Annotated[FGSM | PGD, Field(discriminator="kind")]


AttackMode = Literal["eval", "train"]
"""How batch norm behaves while the attack is made, by running or batch statistics.

Neither changes the running statistics. "eval" attacks the network that is tested later.
"""


@dataclass(frozen=True)
class Standard:
    """Cross-entropy of the clean images.

    Example:
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> loss, logits = Standard(label_smoothing=0.1).loss(model, x, y)
        >>> loss.ndim, logits.shape
        (0, torch.Size([4, 3]))
    """

    label_smoothing: float = 0.0
    kind: Literal["standard"] = field(default="standard", repr=False)

    def __post_init__(self) -> None:
        check_number("label_smoothing", self.label_smoothing, "the share of all classes", 1)

    def loss(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator | None = None,  # noqa: ARG002 - nothing is random here
    ) -> tuple[Tensor, Tensor]:
        """Mean loss in nats and the clean logits (N, classes), for pixels x and labels y."""
        logits = logits_of(model, x)
        return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing), logits.detach()


@dataclass(frozen=True)
class AdversarialLoss:
    """alpha J(x) + (1 - alpha) J(x_adv) (Goodfellow et al. 2015), one forward pass for each.

    alpha=0 is the adversarial training of Madry et al. (2018), the loss of attacked images alone,
    but that the running statistics of batch norm are those of clean images, too: in training mode
    each pass normalises with the statistics of its own images.

    Example:
        >>> AdversarialLoss(FGSM(8 / 255), alpha=0.5).attack_mode
        'eval'
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> loss, logits = AdversarialLoss(FGSM(0.1)).loss(model, x, y)
        >>> bool(loss > Standard().loss(model, x, y)[0])
        True
    """

    attack: GradientAttack
    alpha: float = 0.5
    attack_mode: AttackMode = "eval"
    kind: Literal["adversarial_loss"] = field(default="adversarial_loss", repr=False)

    def __post_init__(self) -> None:
        _check_attack(self.attack, self.attack_mode)
        check_number("alpha", self.alpha, "the weight of the clean loss", 1)

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean loss in nats and the clean logits (N, classes), for pixels x and labels y."""
        attacked = attacked_batch(self.attack, model, x, y, self.attack_mode, generator)
        logits = logits_of(model, x)
        clean = F.cross_entropy(logits, y)
        adversarial = F.cross_entropy(logits_of(model, attacked), y)
        loss: Tensor = self.alpha * clean + (1 - self.alpha) * adversarial
        return loss, logits.detach()


@dataclass(frozen=True)
class JoinedBatch:
    """Cross-entropy of the batch joined with its adversarial examples, in one forward pass.

    In training mode both halves share their statistics.

    Example:
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> loss, logits = JoinedBatch(PGD(0.1)).loss(model, x, y)
        >>> logits.shape  # of the clean images alone
        torch.Size([4, 3])
    """

    attack: GradientAttack
    attack_mode: AttackMode = "eval"
    kind: Literal["joined_batch"] = field(default="joined_batch", repr=False)

    def __post_init__(self) -> None:
        _check_attack(self.attack, self.attack_mode)

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean loss in nats and the clean logits (N, classes), for pixels x and labels y."""
        attacked = attacked_batch(self.attack, model, x, y, self.attack_mode, generator)
        logits = logits_of(model, torch.cat([x, attacked]))
        return F.cross_entropy(logits, y.repeat(2)), logits[: len(x)].detach()


@dataclass(frozen=True)
class TRADES:
    """J(x) + beta KL(p(x) || p(x_adv)), where x_adv maximises the divergence (Zhang et al. 2019).

    The attack looks at no labels, so the images need not be classified rightly to be kept stable.

    Attributes:
        attack: `PGD` with a random start, since at the image itself the divergence has no
            gradient. Its steps follow the divergence.
        beta: weight of the divergence; the paper's 1 / lambda.
        attack_mode: see `AttackMode`.

    Example:
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> defense = TRADES(PGD(0.1, random_start=True), beta=6.0)
        >>> loss, logits = defense.loss(model, x, y, torch.Generator().manual_seed(0))
        >>> bool(loss > Standard().loss(model, x, y)[0])
        True
    """

    attack: PGD
    beta: float = 6.0
    attack_mode: AttackMode = "eval"
    kind: Literal["trades"] = field(default="trades", repr=False)

    def __post_init__(self) -> None:
        _check_attack(self.attack, self.attack_mode)
        check_number("beta", self.beta, "the weight of the divergence", math.inf)
        if not (isinstance(self.attack, PGD) and self.attack.random_start):
            raise ValueError(
                f"{self.attack} begins at the image itself, where the divergence has no gradient; "
                "pass a PGD with random_start=True"
            )
        attack = self.attack
        if (attack.loss, attack.keep, attack.restarts) != ("cross_entropy", "last", 1):
            raise ValueError(
                f"{self.attack}: in TRADES an attack follows the divergence in one run to its "
                "last point; leave loss, keep and restarts as they are"
            )

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean loss in nats and the clean logits (N, classes), for pixels x and labels y."""
        with _attacking(model, x, self.attack_mode), torch.no_grad():
            clean = model(x)
        attack = replace(self.attack, loss=divergence)
        attacked = attacked_batch(attack, model, x, clean, self.attack_mode, generator)
        logits = logits_of(model, x)
        apart = divergence(logits_of(model, attacked), logits).mean()
        return F.cross_entropy(logits, y) + self.beta * apart, logits.detach()


Defense = Annotated[Standard | AdversarialLoss | JoinedBatch | TRADES, Field(discriminator="kind")]


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (N, classes) in float32.

    Raises:
        TypeError: the model returns something else, perhaps only in training mode.
    """
    logits = model(x)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model returns a {type(logits).__name__} in training; need a tensor of logits "
            "(N, classes): wrap it in a module whose forward picks it"
        )
    return logits.float()


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """KL(p(x) || p(x_adv)) in nats, (N,), of the attacked and the clean logits (N, classes)."""
    return F.kl_div(
        logits.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True
    ).sum(1)


def attacked_batch(
    attack: FGSM | PGD,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    mode: AttackMode = "eval",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Adversarial images for a model in training, whose state stays as it was.

    The attack is made in float32 where the training itself may not be. The generator draws its
    random starts.
    """
    with _attacking(model, x, mode):
        return attack.perturb(model, x, y, generator=generator)


@contextlib.contextmanager
def _attacking(model: nn.Module, x: Tensor, mode: AttackMode) -> Iterator[None]:
    mode_of = evaluating if mode == "eval" else keeping_statistics
    with mode_of(model), autocast(x.device.type, enabled=False):
        yield


def random_starts(defense: Any) -> bool:
    """Whether the attack of a defence begins at a random point."""
    return bool(getattr(getattr(defense, "attack", None), "random_start", False))


def _check_attack(attack: Any, mode: str) -> None:
    if not hasattr(attack, "perturb") or isinstance(attack, type | SignNoise):
        raise TypeError(f"attack={attack!r}: a defence needs an FGSM or PGD, such as PGD(8 / 255)")
    if getattr(attack, "targeted", False):
        raise ValueError(
            f"{attack} is targeted, so it would move the images towards their true labels; "
            "pass an untargeted attack"
        )
    check_choice("attack_mode", mode, get_args(AttackMode))


class ImageObjective:
    """A defence on augmented images, as an objective for `hw3lib.training.fit`.

    Args:
        train, val: (N, 3, H, W) uint8, on the model's device.
        train_labels, val_labels: (N,) int64.
        defense: the loss of a batch.
        augmented: flip and crop the training images at random.
        erased: side of the square of each training image that `erase` blanks; 0 blanks none.
    """

    metrics: tuple[str, ...] = ("loss", "error")

    def __init__(
        self,
        train: tuple[Tensor, Tensor],
        val: tuple[Tensor, Tensor],
        defense: Defense,
        *,
        augmented: bool,
        erased: int = 0,
    ) -> None:
        self.train, self.train_labels = train
        self.val, self.val_labels = val
        self.defense, self.augmented, self.erased = defense, augmented, erased
        self.num_examples = len(self.train)
        self._random = random_starts(defense)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Flip and offsets of each training image, and what to erase of it, (N, 3) or (N, 5).

        The last column is a seed for the random starts of its batch, if there are any.
        """
        draws = draw_augmentation(self.num_examples, generator)
        if self.erased:
            height, width = self.train.shape[2:]
            squares = draw_squares(self.num_examples, (height, width), generator)
            draws = torch.cat([draws, squares], dim=1)
        if random_starts(self.defense):
            draws = torch.cat([draws, draw_seeds(self.num_examples, generator)], dim=1)
        return draws

    def loss(self, model: nn.Module, index: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of a batch in nats; sums of the loss and of the clean errors over it."""
        x, y = self.train[index], self.train_labels[index]
        pixels = to_pixels(augment(x, draws[:, :3]) if self.augmented else x)
        if self.erased:
            pixels = erase(pixels, draws[:, 3:5], self.erased)
        return defended(self.defense, model, pixels, y, draws[0, -1])

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean cross-entropy in nats and share of errors on clean validation images."""
        return scores(predict(model, self.val), self.val_labels)


def draw_seeds(num: int, generator: torch.Generator) -> Tensor:
    """Seeds for `defended`, (num, 1) int64."""
    return torch.randint(2**62, (num, 1), generator=generator)


def defended(
    defense: Any, model: nn.Module, x: Tensor, y: Tensor, seed: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean loss of a batch of pixels, and the sums of the loss and of the clean errors over it.

    The seed, which is waited for, is that of the random starts on the CPU, if there are any.
    """
    starts = torch.Generator().manual_seed(int(seed)) if random_starts(defense) else None
    loss, logits = defense.loss(model, x, y, starts)
    return loss, torch.stack([loss.detach() * len(y), (logits.argmax(1) != y).sum()])


def scores(logits: Tensor, y: Tensor) -> dict[str, float]:
    """Mean cross-entropy in nats and share of errors of logits (N, classes)."""
    wrong = int((logits.argmax(1) != y).sum())
    return {"cross_entropy": float(F.cross_entropy(logits, y)), "error": wrong / len(y)}


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Logits (N, classes) of uint8 images (N, C, H, W), on the model in the mode it is in."""
    return torch.cat([model(to_pixels(part)).float() for part in images.split(batch_size)])
