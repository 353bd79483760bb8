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
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.experiments.part2.networks import networks
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.experiments.part2.side_by_side import OTHERS, counterpart
from hw3lib.robust.attacks import FGSM, PGD, Look
from hw3lib.robust.defenses import ImageObjective, JoinedBatch, Standard
from hw3lib.robust.evaluate import eps_curve, step_curve, withstood
from hw3lib.robust.resnet import ResNet
from hw3lib.runs import Context
from hw3lib.training.precision import bfloat16_pays
from hw3lib.vae.objective import evaluate_elbo

EIGHT, TWO = 8 / 255, 2 / 255
STEPS = 10

ATTACKS, SHORT = 2, 5
"""Rounds of an attack, each on its own part of the images, and of work that takes seconds."""


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

    def images(self, num: int) -> tuple[Tensor, Tensor]:
        """Pixels and labels of the first test images."""
        return data.to_pixels(self.pictures.x_test[:num]), self.pictures.y_test[:num]

    def parts(self, num: int, quick: int, rounds: int = ATTACKS) -> list[tuple[Tensor, Tensor]]:
        """So many test images, or the other number of them, a part for each round."""
        x, y = self.images(quick if self.quick else num)
        return list(zip(x.chunk(rounds), y.chunk(rounds), strict=True))

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
        num = 2560 if self.quick else 25600
        defense = JoinedBatch(PGD(EIGHT, steps=3))
        objective = ImageObjective(
            (self.pictures.x_train[:num], self.pictures.y_train[:num]),
            (self.pictures.x_test[:8], self.pictures.y_test[:8]),
            defense,
            augmented=True,
        )
        model = copy.deepcopy(self.undefended).requires_grad_(True)
        settings = TrainResNet(epochs=1, learning_rate=0.01, schedule="constant")
        settings.fit(model, objective, Context())
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


def goal(bfloat16: float) -> float:
    """The ratio to reach: where bfloat16 does not pay, only to be no slower than the rival."""
    return bfloat16 if bfloat16_pays(torch.device("cpu")) else 1.0


def vae_epoch(bench: Bench) -> Row:
    """One pass of training of the VAE of question 1.8."""
    settings = TrainVAE(epochs=1)
    images = bench.digits[: 2560 if bench.quick else 12800]
    held_out = data.quantize(bench.digits[-1000:])
    noise = torch.randn(1000, settings.latent_dim, generator=data.generator(0, "benchmark"))

    def score(model: torch.nn.Module) -> float:
        return evaluate_elbo(model, held_out, noise)["bpd"]  # type: ignore[arg-type]

    def ours(_round: int) -> float:
        model, optimizer = settings.build(torch.device("cpu"))
        objective = settings.objective(data.quantize(images), held_out[:8])
        train(model, objective, optimizer, select="bpd")
        return score(model)

    def theirs(_round: int) -> float:
        torch.manual_seed(0)
        model = settings.build(torch.device("cpu"))[0].to(memory_format=torch.contiguous_format)
        textbook.vae_epoch(model, images, settings.batch_size, settings.learning_rate)
        return score(model)

    outcomes = alternate(ours, theirs, bench.trainings if bench.quick else SHORT)
    return Row(
        "VAE, training",
        f"{len(images):,} images",
        "textbook loop",
        *outcomes,
        within=0.05,
        target=goal(1.4),
    )


def resnet_epoch(bench: Bench) -> Row:
    """One pass of training of ResNet-18 with augmentation."""
    num = 512 if bench.quick else 2560
    return _classifier_row(bench, Standard(), None, "ResNet-18, training", num, target=goal(1.7))


def defense_epoch(bench: Bench) -> Row:
    """One pass of the PGD defence."""

    def attack(model: torch.nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return textbook.pgd(model, x, y, EIGHT, 2.5 * EIGHT / STEPS, STEPS)

    defense = JoinedBatch(PGD(EIGHT, steps=STEPS))
    num = 64 if bench.quick else 384
    return _classifier_row(
        bench, defense, attack, "PGD-10 defence, training", num, target=goal(2.3)
    )


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

    def ours(_round: int) -> float:
        model = settings.build(torch.device("cpu"))
        objective = ImageObjective((images, labels), held_out, defense, augmented=True)
        steps = -(-num // settings.batch_size)
        optimizer, _ = settings.optimizer(model, steps)
        progress = train(model, objective, optimizer, select="error")
        return float(progress.history[-1]["train_loss"] or 0)

    def theirs(_round: int) -> float:
        torch.manual_seed(0)
        model = textbook.network(settings.build(torch.device("cpu")))
        optimizer = torch.optim.SGD(
            model.parameters(), lr=settings.learning_rate, momentum=settings.momentum
        )
        return textbook.classifier_epoch(
            model, images, labels, settings.batch_size, optimizer, attack
        )

    outcomes = alternate(ours, theirs, bench.trainings)
    return Row(name, f"{num:,} images", "textbook loop", *outcomes, within=0.25, target=target)


def attack_row(
    parts: list[tuple[Tensor, Tensor]],
    ours: Callable[[Tensor, Tensor], float],
    theirs: Callable[[Tensor, Tensor], float],
    *,
    name: str,
    rival: str,
    target: float,
    within: float = 0.002,
    curve: int = 1,
) -> Row:
    """A row of shares of images that stay right, which may differ by two tenths of a point.

    Args:
        parts: pixels and labels for each round.
        ours, theirs: from pixels and labels to the share.
        name, rival, target, within: of the row.
        curve: points of the curve of which the share is the mean.
    """
    num = sum(len(y) for _, y in parts)
    outcomes = alternate(lambda i: ours(*parts[i]), lambda i: theirs(*parts[i]), len(parts))
    # One image at one point of the curve may differ, of a small sample, too.
    within = max(within, 1 / (curve * num))
    return Row(name, f"{num:,} images", rival, *outcomes, within=within, target=target)


def share_left(model: torch.nn.Module, attack: FGSM | PGD, x: Tensor, y: Tensor) -> float:
    """What our attack leaves of a model's accuracy."""
    return float(withstood(model, attack, x, y).double().mean())


def course_evaluation(bench: Bench, attack: FGSM | PGD, name: str) -> Row:
    """The course's evaluation, image by image, against masks of whole batches."""
    model = bench.undefended
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format).requires_grad_(True)
    steps = attack.steps if isinstance(attack, PGD) else 1
    eps = float(attack.eps)  # type: ignore[arg-type]
    step = eps if steps == 1 else 2.5 * eps / steps

    def theirs(x: Tensor, y: Tensor) -> float:
        return textbook.course_count(plain, x, y, eps, step, steps) / len(y)

    return attack_row(
        bench.parts(2500, 40, SHORT) if steps == 1 else bench.parts(800, 24),
        partial(share_left, model, attack),
        theirs,
        name=f"course's evaluation, {name}",
        rival="one image at a time",
        target=goal(15),
    )


def library(
    bench: Bench, rival: str, defended: bool, eps: float, look: Look = "exact", target: float = 1
) -> Row:
    """PGD-10 without a random start, against an attack library, which looks at the network."""
    model = bench.defended if defended else bench.undefended
    which = "defended" if defended else "undefended"
    return attack_row(
        # Rounding decides images that end near the boundary, a larger share of few than of many.
        bench.parts(2500 if eps == TWO else 1000, 80),
        partial(share_left, model, PGD(eps, steps=STEPS, keep="best", look=look)),
        partial(share_left_by(rival, model), eps=eps),
        name=f"PGD-10, eps {255 * eps:g}/255, {which}" + (", fast look" * (look == "fast")),
        rival=rival,
        target=target,
    )


def share_left_by(rival: str, model: torch.nn.Module) -> Callable[..., float]:
    """The same by another library's PGD-10: a function of pixels, labels and the radius."""
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)

    def share(x: Tensor, y: Tensor, eps: float) -> float:
        foreign = counterpart(rival, plain, PGD(eps, steps=STEPS))
        return textbook.accuracy_under(
            foreign, plain, list(zip(x.split(250), y.split(250), strict=True))
        )

    return share


RADII = tuple(k / 255 for k in (0.25, 0.5, 1, 2, 4, 8, 16, 32))


def radius_sweep(bench: Bench, rival: str = "") -> Row:
    """A curve over eight radii in one call, against a run for each, by us or another library."""
    model, attack = bench.undefended, PGD(EIGHT, steps=STEPS, keep="best")

    def ours(x: Tensor, y: Tensor) -> float:
        return float(eps_curve(model, attack, x, y, RADII).double().mean())

    def alone(x: Tensor, y: Tensor, eps: float) -> float:
        return share_left(model, PGD(eps, steps=STEPS, keep="best"), x, y)

    one_run = share_left_by(rival, model) if rival else alone

    def theirs(x: Tensor, y: Tensor) -> float:
        return statistics.mean(one_run(x, y, eps) for eps in RADII)

    return attack_row(
        bench.parts(250, 24),
        ours,
        theirs,
        name="curve over eight radii",
        rival=f"eight runs, {rival or 'hw3lib'}",
        target=goal(3),
        within=0.005,
        curve=len(RADII),
    )


def steps_sweep(bench: Bench) -> Row:
    """A curve over ten numbers of steps in one call, against a run for each."""
    model, step, counts = bench.undefended, TWO / 4, range(1, STEPS + 1)

    def ours(x: Tensor, y: Tensor) -> float:
        attack = PGD(TWO, steps=STEPS, step=step, keep="best")
        return float(step_curve(model, attack, x, y)[1:].double().mean())

    def theirs(x: Tensor, y: Tensor) -> float:
        return statistics.mean(
            share_left(model, PGD(TWO, k, step=step, keep="best"), x, y) for k in counts
        )

    return attack_row(
        bench.parts(250, 24),
        ours,
        theirs,
        name="curve over ten numbers of steps",
        rival="ten runs",
        target=3,
        within=0.0,
        curve=STEPS,
    )


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
        rows[f"{rival}-small"] = partial(library, bench, rival, False, TWO)
        rows[f"{rival}-large"] = partial(library, bench, rival, False, EIGHT)
        rows[f"{rival}-defended"] = partial(library, bench, rival, True, EIGHT)
    fast = partial(library, bench, "torchattacks", look="fast")
    rows["fast-small"] = partial(fast, False, TWO, target=goal(1.8))
    rows["fast-large"] = partial(fast, False, EIGHT, target=goal(3.0))
    rows["fast-defended"] = partial(fast, True, EIGHT, target=goal(1.8))
    return rows
