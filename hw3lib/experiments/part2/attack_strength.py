"""What more steps, other step sizes and restarts buy, and what they cost (question 2.3c)."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Len
from torch import Tensor

from hw3lib.experiments.base import Experiment, device_of, outcome, resumable_blocks
from hw3lib.experiments.part2.attacked import (
    canary_guesses,
    canary_images,
    canary_losses,
    test_images,
)
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.balls import Radius
from hw3lib.robust.evaluate import correct, restart_curve, step_curve, withstood
from hw3lib.robust.modes import Classifier
from hw3lib.runs.settings import Context, Outcome

TIMED_IMAGES = 128
"""Images of a timed attack: one batch of the course."""


class AttackStrength(Experiment):
    """Accuracy of a network against steps, step size and restarts of PGD.

    Attributes:
        model: the network.
        eps: radius, in pixels of [0, 1].
        images: how many of the course's test images.
        steps: numbers of steps, ascending.
        jump: a step beyond the ball, such as the course's.
        restarts: of PGD with the second number of steps.
        seed: of the random starts.
    """

    experiment: ClassVar[str] = "attack_strength"

    model: TrainResNet
    eps: Radius = 8 / 255
    images: Annotated[int, Ge(2)] = 500
    steps: Annotated[tuple[int, ...], Len(2)] = (1, 2, 5, 10, 20, 50)
    jump: Annotated[float, Ge(0)] = 0.5
    restarts: Annotated[int, Ge(2)] = 5
    seed: int = 0

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        dataset, index, x, y = test_images(self.model, "course", device, self.images)
        network = load_resnet(self.model, device)
        names = list(self.attacks())
        parts, spent = resumable_blocks(
            [partial(self.measure, network, x, y, name) for name in names],
            context,
            self.describe(),
        )
        arrays = dict(zip(names, parts, strict=True))
        return outcome(
            {"seconds": self._seconds(network, x[:TIMED_IMAGES], y[:TIMED_IMAGES])},
            arrays | {"index": index},
            dataset=dataset,
            device=device,
            seconds=spent,
        )

    def canary(self) -> list[float]:
        """Losses and all that is measured, with few steps, on embedded images."""
        attacks = [PGD(self.eps, steps=2), PGD(self.eps, steps=3, step=self.jump)]
        network = canary_images(self.model)[0]
        short, guesses = self.changed(steps=(1, 3)), canary_guesses(network)
        shares = [
            short.measure(network, *guesses, name).double().mean() for name in short.attacks()
        ]
        return canary_losses(self.model, attacks) + torch.stack(shares).tolist()

    def attacks(self) -> dict[str, PGD]:
        """The attacks by name: `last k` and `best k` with steps of 2.5 eps / k, and the others."""
        most = max(self.steps)
        scaled = {
            f"{keep} {k}": PGD(self.eps, steps=k, keep=keep)
            for k in self.steps
            for keep in ("last", "best")
        }
        restarts = PGD(
            self.eps, steps=self.steps[1], keep="best", random_start=True, restarts=self.restarts
        )
        return scaled | {
            "clean": PGD(0.0, steps=1),
            "jump curve": PGD(self.eps, steps=most, step=self.jump),
            **{f"jump {k}": PGD(self.eps, steps=k, step=self.jump) for k in self.steps},
            "restarts": restarts,
        }

    def measure(self, model: Classifier, x: Tensor, y: Tensor, name: str) -> Tensor:
        """Where the model stays right: (N,), or (rows, N) for a curve over steps or restarts."""
        attack = self.attacks()[name]
        if name == "clean":
            return correct(model, x, y)
        if name == "jump curve":
            return step_curve(model, attack, x, y, seed=self.seed)
        if name == "restarts":
            return restart_curve(model, attack, x, y, seed=self.seed)
        return withstood(model, attack, x, y, seed=self.seed)

    def _seconds(self, model: Classifier, x: Tensor, y: Tensor) -> dict[str, float]:
        """Fastest of three timings of each attack on one batch."""
        timed: dict[str, FGSM | PGD] = {"FGSM": FGSM(self.eps)}
        timed |= {f"PGD-{k}": PGD(self.eps, steps=k) for k in self.steps if k <= 20}
        return {name: min(_time(a, model, x, y) for _ in range(3)) for name, a in timed.items()}


def _time(attack: FGSM | PGD, model: Classifier, x: Tensor, y: Tensor) -> float:
    started = time.perf_counter()
    attack.perturb(model, x, y).sum().item()  # reading a number waits for the device
    return time.perf_counter() - started
