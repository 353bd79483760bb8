"""The rows of the table: each does the same work twice, with hw3lib and with its rival."""

from __future__ import annotations

import copy
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from benchmarks import textbook
from benchmarks.timing import Row, alternate, seconds
from hw3lib import data, training
from hw3lib.attacks import FGSM, PGD
from hw3lib.defenses import ImageObjective, JoinedBatch, Standard
from hw3lib.experiments.networks import networks
from hw3lib.experiments.resnet_training import TrainResNet, load_resnet
from hw3lib.experiments.side_by_side import OTHERS, counterpart
from hw3lib.experiments.vae_training import TrainVAE
from hw3lib.resnet import ResNet
from hw3lib.robustness import eps_curve, step_curve, withstood
from hw3lib.vae import evaluate_elbo

EIGHT, TWO = 8 / 255, 2 / 255
STEPS = 10

ATTACKS = 2
"""Rounds of an attack."""


@dataclass(frozen=True)
class Bench:
    """Data, networks and sizes that the rows share.

    Attributes:
        quick: small sizes and two rounds.
    """

    quick: bool

    @property
    def trainings(self) -> int:
        """Rounds of a training, whose times scatter more than those of an attack."""
        return 2 if self.quick else 3

    @cached_property
    def digits(self) -> Tensor:
        """Training images of MNIST, or of the embedded digits where it is missing."""
        return _first_of("mnist", "digits").x_train

    @cached_property
    def pictures(self) -> data.Dataset:
        """CIFAR-10, or the drawn shapes where it is missing."""
        return _first_of("cifar10", "shapes")

    @cached_property
    def attacked(self) -> tuple[Tensor, Tensor]:
        """Pixels and labels of the test images that are attacked."""
        found = data.load(self.undefended_settings.dataset)
        num = 48 if self.quick else 1000
        return data.to_pixels(found.x_test[:num]), found.y_test[:num]

    @property
    def swept(self) -> tuple[Tensor, Tensor]:
        """Fewer of them, for curves, whose rivals take eight or ten runs."""
        x, y = self.attacked
        num = 16 if self.quick else 250
        return x[:num], y[:num]

    @cached_property
    def undefended_settings(self) -> TrainResNet:
        """The published network, or a ResNet-18 for shapes, which trains in a minute."""
        if self.pictures.name == "cifar10":
            return networks("cifar10").pretrained
        return TrainResNet(
            dataset="shapes", augmented=True, epochs=3, batch_size=64, learning_rate=0.02
        )

    @cached_property
    def undefended(self) -> ResNet:
        return load_resnet(self.undefended_settings)

    @cached_property
    def defended(self) -> ResNet:
        """The undefended network after some steps of the PGD defence, enough to resist."""
        num = 3200 if self.quick else 25600
        defense = JoinedBatch(PGD(EIGHT, steps=3))
        objective = ImageObjective(
            (self.pictures.x_train[:num], self.pictures.y_train[:num]),
            (self.pictures.x_test[:8], self.pictures.y_test[:8]),
            defense,
            augmented=True,
        )
        model = copy.deepcopy(self.undefended).requires_grad_(True)
        settings = TrainResNet(epochs=1, learning_rate=0.01, schedule="constant")
        settings.fit(model, objective)
        return model.eval().requires_grad_(False)


def _first_of(*names: str) -> data.Dataset:
    for name in names[:-1]:
        try:
            return data.load(name)
        except data.DataError:
            continue
    return data.load(names[-1])


def train(
    model: torch.nn.Module,
    objective: training.Objective,
    optimizer: torch.optim.Optimizer,
    *,
    select: str,
    epochs: int = 1,
) -> training.Progress:
    """Our loop with the course's batch size."""
    return training.fit(
        model, objective, optimizer, epochs=epochs, batch_size=128, seed=0, select=select
    )


def vae_epoch(bench: Bench) -> Row:
    """One pass of training of the VAE of question 1.8."""
    settings = TrainVAE(epochs=1)
    images = bench.digits[: 2560 if bench.quick else 12800]
    held_out = data.quantize(bench.digits[-1000:])
    noise = torch.randn(1000, settings.latent_dim, generator=data.generator(0, "benchmark"))

    def score(model: torch.nn.Module) -> float:
        return evaluate_elbo(model, held_out, noise)["bpd"]  # type: ignore[arg-type]

    def ours() -> float:
        model, optimizer = settings.build(torch.device("cpu"))
        objective = settings.objective(data.quantize(images), held_out[:8])
        train(model, objective, optimizer, select="bpd")
        return score(model)

    def theirs() -> float:
        torch.manual_seed(0)
        model = settings.build(torch.device("cpu"))[0].to(memory_format=torch.contiguous_format)
        textbook.vae_epoch(model, images, settings.batch_size, settings.learning_rate)
        return score(model)

    outcomes = alternate(ours, theirs, bench.trainings)
    return Row(
        "VAE, training",
        f"{len(images):,} images",
        "textbook loop",
        *outcomes,
        within=0.05,
        target=1.4,
    )


def resnet_epoch(bench: Bench) -> Row:
    """One pass of training of ResNet-18 with augmentation."""
    num = 512 if bench.quick else 5120
    return _classifier_row(bench, Standard(), None, "ResNet-18, training", num, target=1.7)


def defense_epoch(bench: Bench) -> Row:
    """One pass of the PGD defence."""

    def attack(model: torch.nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return textbook.pgd(model, x, y, EIGHT, 2.5 * EIGHT / STEPS, STEPS)

    defense = JoinedBatch(PGD(EIGHT, steps=STEPS))
    num = 128 if bench.quick else 1024
    return _classifier_row(bench, defense, attack, "PGD-10 defence, training", num, target=2.3)


def _classifier_row(
    bench: Bench,
    defense: Standard | JoinedBatch,
    attack: Callable[[torch.nn.Module, Tensor, Tensor], Tensor] | None,
    name: str,
    num: int,
    target: float,
) -> Row:
    settings = TrainResNet(augmented=True, defense=defense, learning_rate=0.01)
    images, labels = bench.pictures.x_train[:num], bench.pictures.y_train[:num]
    held_out = (bench.pictures.x_test[:8], bench.pictures.y_test[:8])

    def ours() -> float:
        model = settings.build(torch.device("cpu"))
        objective = ImageObjective((images, labels), held_out, defense, augmented=True)
        steps = -(-num // settings.batch_size)
        optimizer, _ = settings.optimizer(model, steps)
        progress = train(model, objective, optimizer, select="error")
        return float(progress.history[-1]["train_loss"] or 0)

    def theirs() -> float:
        torch.manual_seed(0)
        model = settings.build(torch.device("cpu")).to(memory_format=torch.contiguous_format)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=settings.learning_rate, momentum=settings.momentum
        )
        return textbook.classifier_epoch(
            model, images, labels, settings.batch_size, optimizer, attack
        )

    outcomes = alternate(ours, theirs, bench.trainings)
    return Row(name, f"{num:,} images", "textbook loop", *outcomes, within=0.25, target=target)


def course_evaluation(bench: Bench, attack: FGSM | PGD, name: str) -> Row:
    """The course's evaluation, image by image, against masks of whole batches."""
    x, y = bench.swept if bench.quick else bench.attacked
    model = bench.undefended
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format).requires_grad_(True)
    steps = attack.steps if isinstance(attack, PGD) else 1
    eps = float(attack.eps)  # type: ignore[arg-type]
    step = eps if steps == 1 else 2.5 * eps / steps

    def ours() -> float:
        return float(withstood(model, attack, x, y).sum())

    def theirs() -> float:
        return float(textbook.course_count(plain, x, y, eps, step, steps))

    outcomes = alternate(ours, theirs, ATTACKS if bench.quick else 1)
    return Row(
        f"course's evaluation, {name}", f"{len(y):,} images", "one image at a time", *outcomes,
        within=0.002 * len(y), target=15,
    )  # fmt: skip


def library(bench: Bench, rival: str, defended: bool, eps: float, target: float) -> Row:
    """PGD-10 without a random start, against an attack library."""
    model, (x, y) = bench.defended if defended else bench.undefended, bench.attacked
    attack = PGD(eps, steps=STEPS, keep="best")

    def ours() -> float:
        return float(withstood(model, attack, x, y).double().mean())

    theirs = partial(accuracy_by(rival, model, x, y), eps)
    outcomes = alternate(ours, theirs, ATTACKS)
    which = "defended" if defended else "undefended"
    name = f"PGD-10, eps {255 * eps:g}/255, {which}"
    # One image of a small sample is more than the two tenths of a point that are allowed.
    within = max(0.002, 1 / len(y))
    return Row(name, f"{len(y):,} images", rival, *outcomes, within=within, target=target)


def accuracy_by(
    rival: str, model: torch.nn.Module, x: Tensor, y: Tensor
) -> Callable[[float], float]:
    """What another library's PGD-10 leaves of a model's accuracy, as a function of the radius."""
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    batches = list(zip(x.split(250), y.split(250), strict=True))

    def accuracy(eps: float) -> float:
        foreign = counterpart(rival, plain, PGD(eps, steps=STEPS))
        return textbook.accuracy_under(foreign, plain, batches)

    return accuracy


RADII = tuple(k / 255 for k in (0.25, 0.5, 1, 2, 4, 8, 16, 32))


def radius_sweep(bench: Bench, rival: str = "") -> Row:
    """A curve over eight radii in one call, against a run for each, by us or another library."""
    model, (x, y) = bench.undefended, bench.swept
    attack = PGD(EIGHT, steps=STEPS, keep="best")

    def ours() -> float:
        return float(eps_curve(model, attack, x, y, RADII).double().mean())

    def alone(eps: float) -> float:
        return float(withstood(model, PGD(eps, steps=STEPS, keep="best"), x, y).double().mean())

    one_run = accuracy_by(rival, model, x, y) if rival else alone

    def theirs() -> float:
        return statistics.mean(map(one_run, RADII))

    outcomes = alternate(ours, theirs, ATTACKS)
    return Row(
        "curve over eight radii",
        f"{len(y):,} images",
        f"eight runs, {rival or 'hw3lib'}",
        *outcomes,
        # One image at one radius of a small sample is more than half a point.
        within=max(0.005, 1 / (len(RADII) * len(y))),
        target=3,
    )


def steps_sweep(bench: Bench) -> Row:
    """A curve over ten numbers of steps in one call, against a run for each."""
    model, (x, y) = bench.undefended, bench.swept
    attack = PGD(TWO, steps=STEPS, step=TWO / 4, keep="best")

    def ours() -> float:
        return float(step_curve(model, attack, x, y)[1:].double().mean())

    def theirs() -> float:
        counts = range(1, STEPS + 1)
        runs = [withstood(model, PGD(TWO, k, step=TWO / 4, keep="best"), x, y) for k in counts]
        return float(torch.stack(runs).double().mean())

    outcomes = alternate(ours, theirs, ATTACKS)
    return Row(
        "curve over ten numbers of steps", f"{len(y):,} images", "ten runs", *outcomes, within=0.0,
        target=3,
    )  # fmt: skip


def seconds_of(code: list[str], rounds: int) -> float:
    """Least seconds of a Python process: what else the machine does can only add to it."""

    def start() -> None:
        subprocess.run([sys.executable, *code], check=True, capture_output=True)

    return min(seconds(start) for _ in range(rounds))


def startup(rounds: int) -> dict[str, float]:
    """Seconds that importing hw3lib adds to importing torch, and of `hw3 --help`."""
    plain = seconds_of(["-c", "import torch"], rounds)
    both = seconds_of(["-c", "import torch, hw3lib"], rounds)
    return {
        "import hw3lib over import torch": both - plain,
        "hw3 --help": seconds_of(["-m", "hw3lib.cli", "--help"], rounds),
    }


def all_rows(bench: Bench) -> dict[str, Callable[[], Row]]:
    """Every row by a short name."""
    rows: dict[str, Callable[[], Row]] = {
        "vae": partial(vae_epoch, bench),
        "resnet": partial(resnet_epoch, bench),
        "defense": partial(defense_epoch, bench),
        "course-fgsm": partial(course_evaluation, bench, FGSM(TWO), "FGSM"),
        "course-pgd": partial(course_evaluation, bench, PGD(TWO, steps=STEPS), "PGD-10"),
        "radii": partial(radius_sweep, bench),
        "radii-torchattacks": partial(radius_sweep, bench, "torchattacks"),
        "steps": partial(steps_sweep, bench),
    }
    for rival in OTHERS:
        rows[f"{rival}-small"] = partial(library, bench, rival, False, TWO, 1.8)
        rows[f"{rival}-large"] = partial(library, bench, rival, False, EIGHT, 3.0)
        rows[f"{rival}-defended"] = partial(library, bench, rival, True, EIGHT, 1.8)
    return rows
