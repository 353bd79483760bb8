"""What canaries of part 2 look at: a small untrained network, and embedded images."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

import torch
from torch import Tensor

from hw3lib import data
from hw3lib.experiments.base import CPU
from hw3lib.experiments.part2.resnet_training import TrainResNet
from hw3lib.robust.attacks import FGSM, PGD, SignNoise, cross_entropy
from hw3lib.robust.modes import Classifier


def _shapes(num: int) -> tuple[Tensor, Tensor]:
    """Pixels (num, 3, 32, 32) and labels of the first embedded test shapes.

    In float64: the sign of a gradient must not hang on rounding, which every processor makes anew.
    """
    dataset = data.load("shapes")
    return data.to_pixels(dataset.x_test[:num]).double(), dataset.y_test[:num]


def images(model: TrainResNet) -> tuple[Classifier, Tensor, Tensor]:
    """An untrained small network and a few embedded images, in float64 for the sign's sake."""
    small = model.changed(dataset="shapes", network="small", start=None)
    network = small.build(CPU).double().eval().requires_grad_(False)
    return network, *_shapes(8)


def guesses(model: TrainResNet) -> tuple[Classifier, Tensor, Tensor]:
    """The network of `images`, images, and what it takes them for; of every fourth that is wrong.

    So it is right on some, and attacks turn some of these.
    """
    network, *_ = images(model)
    x, _ = _shapes(16)
    answers = network(x).argmax(1)
    wrong = torch.arange(len(x)) % 4 == 3
    return network, x, torch.where(wrong, (answers + 1) % 10, answers)


def losses(
    model: TrainResNet,
    attacks: Iterable[FGSM | PGD | SignNoise],
    generators: Iterable[torch.Generator] | None = None,
) -> list[float]:
    """Loss of an untrained network on embedded images after each attack."""
    network, x, y = images(model)
    rngs = generators or repeat(torch.Generator().manual_seed(0))
    attacked = (a(network, x, y, generator=rng) for a, rng in zip(attacks, rngs, strict=False))
    return means(cross_entropy(network(image), y) for image in attacked)


def means(tensors: Iterable[Tensor]) -> list[float]:
    """The mean of each tensor, such as the share of a mask."""
    return [float(tensor.double().mean()) for tensor in tensors]
