"""What one GPU does in so many seconds: trainings with their validation, and an attack."""

from __future__ import annotations

import torch

from benchmarks import textbook
from benchmarks.timing import seconds
from hw3lib import data, runs
from hw3lib.attacks import PGD
from hw3lib.experiments.networks import networks
from hw3lib.experiments.resnet_training import load_resnet, pretraining
from hw3lib.experiments.vae_training import TrainVAE
from hw3lib.robustness import withstood
from hw3lib.runs import Settings
from hw3lib.schedule import needed

TRAININGS: dict[str, tuple[Settings, ...]] = {
    "VAE, 80 epochs": (TrainVAE(seed=1),),
    "ResNet-18 from scratch, 30 epochs": (networks().scratch,),
    "ResNet-18, our recipe": (pretraining(), *needed(pretraining())),
    "PGD-10 defence, 30 epochs": (networks().pgd_defense,),
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

    A training that a GPU like this has stored counts with the seconds that are stored with it;
    another is computed and stored.
    """
    if not torch.cuda.is_available():
        return None
    if name in TRAININGS:
        return sum(_training_seconds(settings) for settings in TRAININGS[name])
    return _attack_seconds() if name == ATTACK else _textbook_seconds()


def _training_seconds(settings: Settings) -> float:
    here = torch.cuda.get_device_name()
    stored = (run for run in runs.copies(settings) if run.provenance["device"] == here)
    run = next(stored, None) or runs.compute(settings, device="cuda")
    return float(run.provenance["seconds"])


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
