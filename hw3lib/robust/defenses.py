"""Defences: what a classifier minimises on a batch, and the objective that feeds it.

`Standard` sees clean images, `AdversarialLoss` (question 2.2) adds the loss of attacked ones, and
`JoinedBatch` (question 2.3) puts both into one batch. They differ in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, autocast, nn

from hw3lib.data import augment, draw_augmentation, draw_squares, erase, to_pixels
from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.modes import evaluating, keeping_statistics

GradientAttack = Annotated[FGSM | PGD, Field(discriminator="kind")]


AttackMode = Literal["eval", "train"]
"""How batch norm behaves while the attack is made: running or batch statistics.

Neither changes the running statistics. "eval" attacks the network that is tested later.
"""


@dataclass(frozen=True)
class Standard:
    """Cross-entropy of the clean images."""

    label_smoothing: float = 0.0
    kind: Literal["standard"] = field(default="standard", repr=False)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss in nats and the clean logits (N, classes), for pixels x and labels y."""
        logits = model(x).float()
        return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing), logits.detach()


@dataclass(frozen=True)
class AdversarialLoss:
    """alpha J(x) + (1 - alpha) J(x_adv) (Goodfellow et al. 2015), one forward pass for each.

    In training mode each pass normalises with the statistics of its own images.
    """

    attack: GradientAttack
    alpha: float = 0.5
    attack_mode: AttackMode = "eval"
    kind: Literal["adversarial_loss"] = field(default="adversarial_loss", repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: the weight of the clean loss lies in [0, 1]")

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss in nats and the clean logits (N, classes), for pixels x and labels y."""
        attacked = attacked_batch(self.attack, model, x, y, self.attack_mode)
        logits = model(x).float()
        clean = F.cross_entropy(logits, y)
        adversarial = F.cross_entropy(model(attacked).float(), y)
        loss: Tensor = self.alpha * clean + (1 - self.alpha) * adversarial
        return loss, logits.detach()


@dataclass(frozen=True)
class JoinedBatch:
    """Cross-entropy of the batch joined with its adversarial examples, in one forward pass.

    In training mode both halves share their statistics.
    """

    attack: GradientAttack
    attack_mode: AttackMode = "eval"
    kind: Literal["joined_batch"] = field(default="joined_batch", repr=False)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss in nats and the clean logits (N, classes), for pixels x and labels y."""
        attacked = attacked_batch(self.attack, model, x, y, self.attack_mode)
        logits = model(torch.cat([x, attacked])).float()
        return F.cross_entropy(logits, y.repeat(2)), logits[: len(x)].detach()


Defense = Annotated[Standard | AdversarialLoss | JoinedBatch, Field(discriminator="kind")]


def attacked_batch(
    attack: FGSM | PGD, model: nn.Module, x: Tensor, y: Tensor, mode: AttackMode = "eval"
) -> Tensor:
    """Adversarial images for a model in training, whose state stays as it was.

    The attack is made in float32 where the training itself may not be.
    """
    mode_of = evaluating if mode == "eval" else keeping_statistics
    with mode_of(model), autocast(x.device.type, enabled=False):
        return attack.perturb(model, x, y)


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
        defense: Standard | AdversarialLoss | JoinedBatch,
        *,
        augmented: bool,
        erased: int = 0,
    ) -> None:
        self.train, self.train_labels = train
        self.val, self.val_labels = val
        self.defense, self.augmented, self.erased = defense, augmented, erased
        self.num_examples = len(self.train)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Flip and offsets of each training image, and what to erase of it, (N, 3) or (N, 5)."""
        draws = draw_augmentation(self.num_examples, generator)
        if self.erased:
            height, width = self.train.shape[2:]
            squares = draw_squares(self.num_examples, (height, width), generator)
            draws = torch.cat([draws, squares], dim=1)
        return draws

    def loss(self, model: nn.Module, index: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of a batch in nats; sums of the loss and of the clean errors over it."""
        x, y = self.train[index], self.train_labels[index]
        pixels = to_pixels(augment(x, draws[:, :3]) if self.augmented else x)
        if self.erased:
            pixels = erase(pixels, draws[:, 3:], self.erased)
        loss, logits = self.defense.loss(model, pixels, y)
        wrong = (logits.argmax(1) != y).sum()
        return loss, torch.stack([loss.detach() * len(y), wrong])

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean cross-entropy in nats and share of errors on clean validation images."""
        return scores(predict(model, self.val), self.val_labels)


def scores(logits: Tensor, y: Tensor) -> dict[str, float]:
    """Mean cross-entropy in nats and share of errors of logits (N, classes)."""
    wrong = (logits.argmax(1) != y).double().mean()
    return {"cross_entropy": float(F.cross_entropy(logits, y)), "error": float(wrong)}


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Logits (N, classes) of uint8 images (N, 3, H, W), on the model in the mode it is in."""
    return torch.cat([model(to_pixels(part)).float() for part in images.split(batch_size)])
