"""What one GPU does in so many seconds: trainings with their validation, and an attack."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks import textbook
from benchmarks.rows import train
from benchmarks.timing import seconds
from hw3lib import data
from hw3lib.experiments.base import repeatable
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.experiments.part2.networks import networks
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet, pretraining
from hw3lib.robust.attacks import PGD
from hw3lib.robust.defenses import ImageObjective
from hw3lib.robust.evaluate import withstood
from hw3lib.runs.settings import Context

GPU = "cuda"

VAE, SCRATCH, DEFENDED = TrainVAE(seed=1), networks().scratch, networks().pgd_defense

SEEDS, SEED_EPOCHS = 5, 10
"""VAEs that share the GPU, and for how long."""


@dataclass(frozen=True)
class GpuRow:
    """A piece of work, and what it may take on one GPU of the H100 class.

    Attributes:
        limit: in `unit`; None where the work is only there to compare with.
    """

    measure: Callable[[], float]
    limit: float | None
    unit: str = "s"


def training_seconds(
    settings: TrainVAE | TrainResNet, epochs: int, timed: int | None = None
) -> float:
    """What `epochs` epochs with their validation take, from the first `timed` of them.

    The slow first steps count as often as those are repeated, so this is rather too much. No
    stored run is read or written, since stored ones may have shared their GPU.
    """
    timed = timed or epochs
    with repeatable():
        outcome = settings.changed(epochs=timed).compute(Context(GPU))
    return float(outcome.seconds or 0) * epochs / timed


def seeds_at_once() -> float:
    """Times as long as one VAE takes, until the last of several is trained.

    They share the GPU well where NVIDIA's Multi-Process Service runs, and take turns elsewhere.
    """
    alone = training_seconds(VAE, SEED_EPOCHS)
    context = multiprocessing.get_context("spawn")  # a fork would share the GPU's state
    with ProcessPoolExecutor(SEEDS, context) as pool:
        trained = [
            pool.submit(training_seconds, VAE.changed(seed=seed), SEED_EPOCHS)
            for seed in range(SEEDS)
        ]
        return max(task.result() for task in trained) / alone


def attack_seconds() -> float:
    """PGD-10 at 8/255 on all test images, on the published network."""
    model = load_resnet(pretraining(), torch.device(GPU))
    found = data.load("cifar10").to(GPU)
    x, y = data.to_pixels(found.x_test), found.y_test
    attack = PGD(8 / 255, steps=10)
    with repeatable():
        withstood(model, attack, x[:500], y[:500])  # the first call chooses algorithms
        return seconds(lambda: withstood(model, attack, x, y).sum().item())  # reading it waits


def textbook_seconds() -> float:
    """One epoch of the plain loop on the VAE."""
    model = VAE.build(torch.device(GPU))[0].to(memory_format=torch.contiguous_format)
    images = data.load("mnist").x_train[:54000]
    return seconds(lambda: textbook.vae_epoch(model, images, VAE.batch_size, VAE.learning_rate))


RECIPE_EPOCHS = sum(pretraining().stages)

ROWS = {
    "VAE, 80 epochs": GpuRow(partial(training_seconds, VAE, 80), 20),
    "VAE, 5 seeds at once": GpuRow(seeds_at_once, 2, "times one"),
    "VAE, one epoch of the textbook loop": GpuRow(textbook_seconds, None),
    "ResNet-18 from scratch, 30 epochs": GpuRow(partial(training_seconds, SCRATCH, 30, 5), 40),
    f"ResNet-18, our recipe, {RECIPE_EPOCHS} epochs": GpuRow(
        partial(training_seconds, pretraining().first, RECIPE_EPOCHS, 6), 60
    ),
    "PGD-10 defence, 30 epochs": GpuRow(partial(training_seconds, DEFENDED, 30, 3), 90),
    "PGD-10 on 10,000 images": GpuRow(attack_seconds, 1.5),
}


def measure() -> dict[str, Any]:
    """All rows, None each without a GPU, and where the time of a step goes."""
    there = torch.cuda.is_available()
    return {
        "rows": {
            name: {"value": row.measure() if there else None, "limit": row.limit, "unit": row.unit}
            for name, row in ROWS.items()
        },
        "profiles": {name: profile(of) for name, of in PROFILED.items()} if there else {},
    }


PROFILED: dict[str, TrainVAE | TrainResNet] = {
    "VAE": VAE,
    "ResNet-18": SCRATCH,
    "PGD-10 defence": DEFENDED,
}

STEPS = 40
"""Steps of a profile."""

KINDS = {
    "pooling": ("max_pool",),
    "batch norm": ("batch_norm",),
    "convolutions": ("xmma", "cutlass", "convolve", "gemm", "nhwc", "Nhwc"),
    "sums": ("reduce",),
    "optimizer": ("multi_tensor", "FusedOptimizer"),
    "copies and casts": ("copy", "Memcpy", "Memset", "memset", "Fill"),
}
"""Kernels by parts of their names; the first kind that fits counts."""


def profile(settings: TrainVAE | TrainResNet) -> dict[str, float]:
    """Microseconds of a training step by kind of kernel, and how many kernels a step launches."""
    fit = _short_training(settings)
    with repeatable():
        fit()  # the first one chooses algorithms and loads kernels
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            fit()
            torch.cuda.synchronize()
    spent, launched = Counter[str](), 0
    for kernel in profiler.key_averages():
        names = (kind for kind, parts in KINDS.items() if any(p in kernel.key for p in parts))
        spent[next(names, "the rest")] += kernel.self_device_time_total / STEPS
        launched += kernel.count
    return {"kernels": launched / STEPS} | dict(spent.most_common())


def _short_training(settings: TrainVAE | TrainResNet) -> Callable[[], object]:
    """A training of few steps with hardly a validation."""
    num, device = STEPS * settings.batch_size, torch.device(GPU)
    found = data.load(settings.dataset).to(device)
    if isinstance(settings, TrainResNet):
        objective = ImageObjective(
            (found.x_train[:num], found.y_train[:num]),
            (found.x_test[:8], found.y_test[:8]),
            settings.defense,
            augmented=settings.augmented,
        )
        network = settings.build(device)
        return partial(
            train, network, objective, settings.optimizer(network, STEPS)[0], select="error"
        )
    model, optimizer = settings.build(device)
    images = data.quantize(found.x_train[:num])
    return partial(train, model, settings.objective(images, images[:8]), optimizer, select="bpd")
