"""The report's attacks as they may have been written: which habit explains which number (2.1a)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

import torch
from annotated_types import Ge, MinLen
from torch import Tensor

from hw3lib.experiments.part2 import canary
from hw3lib.experiments.part2.base import Block, Study
from hw3lib.robust.attacks import LOSSES, input_gradient
from hw3lib.robust.balls import CIFAR10_MEAN, CIFAR10_STD, like
from hw3lib.robust.modes import Classifier, evaluating, keeping_statistics
from hw3lib.robust.resnet import ResNet
from hw3lib.runs.store import Run
from hw3lib.stats import Interval, proportion

Kind = Literal["fgsm", "pgd"]
Loss = Literal["cross_entropy", "negative_logit"]
Clamp = Literal["pixels", "none", "unit"]
Mode = Literal["eval", "train"]


class Habits(NamedTuple):
    """How an attack is written: its kind, its loss, where it cuts, and the mode of batch norm.

    The attack is one step or the course's ten. Images are cut, in normalised units, at the ends of
    the pixel range, nowhere, or at 0 and 1 as if they were pixels ("unit"). Batch norm takes its
    running statistics while the attack is made, or those of the batch.
    """

    attack: Kind
    loss: Loss
    clamp: Clamp
    mode: Mode


CUT_ALONE: dict[str, Any] = {
    "losses": ("cross_entropy",),
    "clamps": ("pixels", "unit"),
    "modes": ("eval",),
}
"""Settings of a study of our attack and the same with the cut at 0 and 1, without other habits."""

CUTS: dict[Clamp, str] = {"pixels": "pixel range", "none": "nowhere", "unit": "0 and 1"}
"""Where the normalised image is cut, in words."""

WRITINGS: dict[tuple[Loss, Mode], str] = {
    ("cross_entropy", "eval"): "cross-entropy, evaluation mode",
    ("cross_entropy", "train"): "cross-entropy, training mode",
    ("negative_logit", "eval"): "minus the logit, evaluation mode",
    ("negative_logit", "train"): "minus the logit, training mode",
}
"""The other habits, loss and mode, in words."""


class Deviations(Study):
    """Accuracy under the course's attacks in all combinations of habits.

    Attributes:
        fgsm_eps, pgd_eps, pgd_step, pgd_steps: the course's, in normalised units.
        batch_size: images attacked together; it matters where batch norm uses their statistics.
        losses, clamps, modes: the habits that are tried; by default all.
    """

    experiment: ClassVar[str] = "deviations"
    added_later: ClassVar[tuple[str, ...]] = ("losses", "clamps", "modes")

    images: Annotated[int, Ge(1)] = 1000
    fgsm_eps: float = 0.1
    pgd_eps: float = 0.01
    pgd_step: float = 2.0
    pgd_steps: Annotated[int, Ge(1)] = 10
    batch_size: Annotated[int, Ge(1)] = 100
    losses: Annotated[tuple[Loss, ...], MinLen(1)] = get_args(Loss)
    clamps: Annotated[tuple[Clamp, ...], MinLen(1)] = get_args(Clamp)
    modes: Annotated[tuple[Mode, ...], MinLen(1)] = get_args(Mode)

    @property
    def combinations(self) -> list[Habits]:
        """All these habits with each other; ours come first."""
        tried = product(get_args(Kind), self.losses, self.clamps, self.modes)
        return [Habits(*habits) for habits in tried]

    def canary(self) -> list[float]:
        """Loss of an untrained network after every variant, and what that leaves."""
        model, x, y = canary.images(self.model)
        attacked = [self.perturb(model, normalized(x), y, habits) for habits in self.combinations]
        losses = canary.means(LOSSES["cross_entropy"](model(pixels(z)), y) for z in attacked)
        blocks = self.blocks(*canary.guesses(self.model))
        return losses + canary.means(block() for block in blocks)

    def blocks(self, model: Classifier, x: Tensor, y: Tensor) -> list[Block]:
        return [partial(self.right, model, x, y, habits) for habits in self.combinations]

    def stored(self, parts: list[Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        names = {
            "axes": list(Habits._fields),
            "combinations": [list(row) for row in self.combinations],
        }
        return names, {"right": torch.stack(parts)}

    def right(self, model: Classifier, x: Tensor, y: Tensor, habits: Habits) -> Tensor:
        """Where the network is right before and after this variant, (N,) bool."""
        masks = []
        batches = zip(normalized(x).split(self.batch_size), y.split(self.batch_size), strict=True)
        for z, labels in batches:
            attacked = self.perturb(model, z, labels, habits)
            with torch.no_grad():
                before, after = (model(pixels(part)).argmax(1) for part in (z, attacked))
            masks.append((before == labels) & (after == labels))
        return torch.cat(masks)

    def perturb(self, model: Classifier, z: Tensor, y: Tensor, habits: Habits) -> Tensor:
        """The textbook loop on normalised images z, with these habits."""
        fgsm = habits.attack == "fgsm"
        eps, steps = (self.fgsm_eps, 1) if fgsm else (self.pgd_eps, self.pgd_steps)
        size = eps if fgsm else self.pgd_step
        point = z
        with _batch_norm(model, habits.mode):
            for _ in range(steps):
                gradient, _ = input_gradient(lambda z: model(pixels(z)), point, y, habits.loss)
                moved = point + size * gradient.sign()
                point = _clamped(moved.clamp(z - eps, z + eps), habits.clamp)
        return point


def shares(run: Run) -> dict[Habits, Interval]:
    """What each variant leaves, with a 95% interval (Wilson)."""
    masks = zip(run.results["combinations"], run.arrays["right"], strict=True)
    return {Habits(*row): proportion(int(mask.sum()), len(mask)) for row, mask in masks}


def by_writing(run: Run, attack: Kind) -> dict[str, dict[str, Interval]]:
    """The shares of one attack in words, by loss and mode and then by the cut."""
    left = shares(run)
    return {
        label: {place: left[Habits(attack, loss, cut, mode)] for cut, place in CUTS.items()}
        for (loss, mode), label in WRITINGS.items()
    }


def normalized(x: Tensor) -> Tensor:
    """Pixels in [0, 1] in the units of the network's first layer."""
    return (x - like(CIFAR10_MEAN, x)) / like(CIFAR10_STD, x)


def pixels(z: Tensor) -> Tensor:
    """The inverse of `normalized`."""
    return z * like(CIFAR10_STD, z) + like(CIFAR10_MEAN, z)


def _clamped(z: Tensor, clamp: str) -> Tensor:
    if clamp == "none":
        return z
    if clamp == "unit":
        return z.clamp(0, 1)
    return z.clamp(normalized(torch.zeros_like(z)), normalized(torch.ones_like(z)))


@contextlib.contextmanager
def _batch_norm(model: Classifier, mode: str) -> Iterator[None]:
    """Batch norm with its running statistics, or with those of the attacked batch."""
    with evaluating(model):
        if mode == "eval" or not isinstance(model, ResNet):
            yield
        else:
            model.train()
            with keeping_statistics(model):
                yield
