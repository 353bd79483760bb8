"""What one GPU does in so many seconds: trainings with their validation, and an attack."""

from __future__ import annotations

import torch

from benchmarks import textbook
from benchmarks.timing import seconds
from hw3lib import data, runs
from hw3lib.attacks import PGD
from hw3lib.experiments.networks import networks
from hw3lib.experiments.resnet_training import TrainResNet, load_resnet, pretraining
from hw3lib.experiments.vae_training import TrainVAE
from hw3lib.robustness import withstood
from hw3lib.runs import Settings


def _stages(last: TrainResNet) -> tuple[TrainResNet, ...]:
    """A training and those that it starts from, the first one first."""
    return (*_stages(last.start), last) if last.start else (last,)


TRAININGS: dict[str, tuple[Settings, ...]] = {
    "VAE, 80 epochs": (TrainVAE(seed=1),),
    "ResNet-18 from scratch, 30 epochs": (networks().scratch,),
    "ResNet-18, our recipe": _stages(pretraining()),
    "PGD-10 defence, 30 epochs": (networks().pgd_defense.changed(epochs=30),),
}
ATTACK, TEXTBOOK = "PGD-10 on 10,000 images", "VAE, one epoch of the textbook loop"

LIMITS: dict[str, float | None] = {
    "VAE, 80 epochs": 20.0,
    "ResNet-18 from scratch, 30 epochs": 40.0,
    "ResNet-18, our recipe": 60.0,
    "PGD-10 defence, 30 epochs": 90.0,
    ATTACK: 1.5,
    TEXTBOOK: None,
}
"""Seconds on one GPU of the H100 class; None where this is only to compare with."""


def seconds_on_gpu(name: str) -> float | None:
    """How long that takes here, or None without a GPU.

    Trainings are computed although they may be stored, since those may have shared their GPU, and
    go to the user's cache.
    """
    if not torch.cuda.is_available():
        return None
    if name in TRAININGS:
        trained = [runs.compute(settings, device="cuda") for settings in TRAININGS[name]]
        return sum(float(run.provenance["seconds"]) for run in trained)
    return _attack_seconds() if name == ATTACK else _textbook_seconds()


def _attack_seconds() -> float:
    model = load_resnet(pretraining(), torch.device("cuda"))
    found = data.load("cifar10").to("cuda")
    x, y = data.to_pixels(found.x_test), found.y_test
    attack = PGD(8 / 255, steps=10)
    withstood(model, attack, x[:500], y[:500])  # the first call chooses algorithms
    return seconds(lambda: withstood(model, attack, x, y).sum().item())  # reading it waits


def _textbook_seconds() -> float:
    settings = TrainVAE()
    model = settings.build(torch.device("cuda"))[0].to(memory_format=torch.contiguous_format)
    images = data.load("mnist").x_train[:54000]
    return seconds(
        lambda: textbook.vae_epoch(model, images, settings.batch_size, settings.learning_rate)
    )
