"""What one GPU has to do in so many seconds, with validation, data and start included."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch

from benchmarks.timing import seconds
from hw3lib import data
from hw3lib.attacks import PGD
from hw3lib.defenses import JoinedBatch
from hw3lib.experiments.resnet_training import TrainResNet, pretraining
from hw3lib.experiments.vae_training import TrainVAE
from hw3lib.robustness import withstood
from hw3lib.runs import Context, Settings

ATTACK = PGD(8 / 255, steps=10)

LIMITS = {
    "VAE, 80 epochs": 20.0,
    "ResNet-18 from scratch, 30 epochs": 40.0,
    "ResNet-18, our recipe": 60.0,
    "PGD-10 defence, 30 epochs": 90.0,
    "PGD-10 on 10,000 images": 1.5,
}
"""Seconds on one GPU of the H100 class."""


def seconds_on_gpu(name: str) -> float | None:
    """How long that takes here, or None without a GPU."""
    if not torch.cuda.is_available():
        return None
    trainings: dict[str, Settings] = {
        "VAE, 80 epochs": TrainVAE(),
        "ResNet-18 from scratch, 30 epochs": TrainResNet(),
        "ResNet-18, our recipe": pretraining(),
        "PGD-10 defence, 30 epochs": TrainResNet(augmented=True, defense=JoinedBatch(ATTACK)),
    }
    if name in trainings:
        with TemporaryDirectory() as cache, patch.dict(os.environ, HW3_CACHE=cache):
            # With what it starts from.
            return seconds(lambda: trainings[name].compute(Context(device="cuda")))
    model = pretraining().build(torch.device("cuda")).eval().requires_grad_(False)
    found = data.load("cifar10").to("cuda")
    x, y = data.to_pixels(found.x_test), found.y_test

    def attack() -> None:
        withstood(model, ATTACK, x, y)
        torch.cuda.synchronize()

    withstood(model, ATTACK, x[:500], y[:500])  # the first call chooses algorithms
    torch.cuda.synchronize()
    return seconds(attack)
