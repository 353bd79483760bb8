"""What more steps, other step sizes and restarts buy, and what they cost (question 2.3c)."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Len
from torch import Tensor

from hw3lib.experiments.part2 import canary
from hw3lib.experiments.part2.base import EIGHT, Block, Study
from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.balls import Radius
from hw3lib.robust.evaluate import correct, restart_curve, step_curve, withstood
from hw3lib.robust.modes import Classifier

TIMED_IMAGES = 128
"""Images of a timed attack, one batch of the course."""


class AttackStrength(Study):
    """Accuracy of a network against steps, step size and restarts of PGD.

    Attributes:
        eps: radius, in pixels of [0, 1].
        steps: numbers of steps, ascending.
        jump: a step beyond the ball, such as the course's.
        restarts: of PGD with the second number of steps.
        seed: of the random starts.
    """

    experiment: ClassVar[str] = "attack_strength"

    eps: Radius = EIGHT
    images: Annotated[int, Ge(2)] = 500
    steps: Annotated[tuple[int, ...], Len(2)] = (1, 2, 5, 10, 20, 50)
    jump: Annotated[float, Gt(0)] = 0.5
    restarts: Annotated[int, Ge(2)] = 5
    seed: int = 0

    def canary(self) -> list[float]:
        """Losses and all that is measured, with few steps, on embedded images."""
        attacks = [PGD(self.eps, steps=2), PGD(self.eps, steps=3, step=self.jump)]
        short, guesses = self.changed(steps=(1, 3)), canary.guesses(self.model)
        measured = [short.measure(*guesses, name) for name in short.attacks()]
        return canary.losses(self.model, attacks) + canary.means(measured)

    def blocks(self, model: Classifier, x: Tensor, y: Tensor) -> list[Block]:
        first = x[:TIMED_IMAGES], y[:TIMED_IMAGES]
        measured = [partial(self.measure, model, x, y, name) for name in self.attacks()]
        return [*measured, partial(self._seconds, model, *first)]

    def stored(self, parts: list[Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        *measured, seconds = parts
        return {"seconds": seconds}, dict(zip(self.attacks(), measured, strict=True))

    def attacks(self) -> dict[str, PGD]:
        """The attacks by name: `last k` and `best k` with steps of 2.5 eps / k, and the others."""
        most, few = max(self.steps), self.steps[1]
        scaled = {
            f"{keep} {k}": PGD(self.eps, steps=k, keep=keep)
            for k in self.steps
            for keep in ("last", "best")
        }
        return scaled | {
            "clean": PGD(0.0, steps=1),
            "jump curve": PGD(self.eps, steps=most, step=self.jump),
            **{f"jump {k}": PGD(self.eps, steps=k, step=self.jump) for k in self.steps},
            "restarts": PGD(
                self.eps, steps=few, keep="best", random_start=True, restarts=self.restarts
            ),
        }

    def measure(self, model: Classifier, x: Tensor, y: Tensor, name: str) -> Tensor:
        """Where the model stays right: (N,), or (rows, N) for a curve over steps or restarts."""
        attack = self.attacks()[name]
        if name == "clean":
            return correct(model, x, y)
        curves = {"jump curve": step_curve, "restarts": restart_curve}
        return curves.get(name, withstood)(model, attack, x, y, seed=self.seed)

    def _seconds(self, model: Classifier, x: Tensor, y: Tensor) -> dict[str, float]:
        """Fastest of three timings of each attack on one batch."""
        timed: dict[str, FGSM | PGD] = {"FGSM": FGSM(self.eps)}
        timed |= {f"PGD-{k}": PGD(self.eps, steps=k) for k in self.steps if k <= 20}
        return {name: _time(partial(a.perturb, model, x, y)) for name, a in timed.items()}


def _time(attack: Callable[[], Tensor]) -> float:
    # Reading a number waits for the device.
    return min(timeit.repeat(lambda: attack().sum().item(), number=1, repeat=3))
