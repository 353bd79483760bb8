"""Other libraries on our networks: do they count the same, and do stronger attacks leave less?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Len
from torch import Tensor, nn

from hw3lib import data, training
from hw3lib.experiments.part2 import canary
from hw3lib.experiments.part2.base import Block, Study
from hw3lib.robust.attacks import PGD
from hw3lib.robust.evaluate import Attacker, correct, withstood
from hw3lib.robust.modes import Classifier

OTHERS = ("torchattacks", "foolbox")
"""Libraries that people would use instead; neither is needed for anything else."""


class SideBySide(Study):
    """Where a network withstands PGD without a random start, as each library runs it.

    Attributes:
        eps_values: radii, in pixels of [0, 1].
        steps: of size 2.5 eps / steps; the last point counts.
    """

    experiment: ClassVar[str] = "side_by_side"

    eps_values: Annotated[tuple[float, ...], Len(1)] = (0.5 / 255, 2 / 255, 8 / 255)
    steps: Annotated[int, Ge(1)] = 10
    images: Annotated[int, Ge(1)] = 1000

    def canary(self) -> list[float]:
        """Loss of an untrained network after our attack at each radius, and what it leaves."""
        model, *guesses = canary.guesses(self.model)
        masks = [withstood(model, attack, *guesses) for attack in self.attacks]
        return canary.losses(self.model, self.attacks) + canary.means(masks)

    @property
    def attacks(self) -> list[PGD]:
        """PGD at each radius."""
        return [PGD(eps, steps=self.steps) for eps in self.eps_values]

    def blocks(self, model: Classifier, x: Tensor, y: Tensor) -> list[Block]:
        """What gives the masks (N,) of each attack: by our library, then by the others."""
        assert isinstance(model, nn.Module)  # the other libraries ask for one
        ways: list[Attacker] = []
        for attack in self.attacks:
            ways += [attack, *(counterpart(name, model, attack) for name in OTHERS)]
        return [partial(withstood, model, way, x, y) for way in ways]

    def stored(self, parts: list[Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        libraries = ["hw3lib", *OTHERS]
        right = torch.stack(parts).view(len(self.eps_values), len(libraries), -1)
        return {"libraries": libraries}, {"right": right}


class Referee(Study):
    """Where a network withstands our strong PGD, and AutoAttack as torchattacks runs it.

    AutoAttack (Croce and Hein 2020) is four attacks after each other, each on the images that the
    last one left: two with steps that adapt themselves, one that looks for the nearest border, and
    one that sees no gradient.

    Attributes:
        eps: radius, in pixels of [0, 1].
        seed: of the noise of both.
    """

    experiment: ClassVar[str] = "referee"

    eps: Annotated[float, Gt(0)] = 4 / 255
    images: Annotated[int, Ge(1)] = 200
    seed: int = 0

    def canary(self) -> list[float]:
        """Loss of an untrained network after our attack, and what that leaves."""
        model, *guesses = canary.guesses(self.model)
        left = withstood(model, self.ours, *guesses, seed=self.seed)
        rng = data.generator(self.seed, "canary")
        return canary.losses(self.model, [self.ours], [rng]) + canary.means([left])

    @property
    def ours(self) -> PGD:
        """Twenty steps from each of two random starts; the best point counts."""
        return PGD(self.eps, 20, keep="best", random_start=True, restarts=2)

    def blocks(self, model: Classifier, x: Tensor, y: Tensor) -> list[Block]:
        """What gives the masks (N,): right before, after our attack, and after AutoAttack."""

        def judged() -> Tensor:
            from torchattacks import AutoAttack

            with training.seeded(self.seed, "autoattack", device=x.device):
                attack = AutoAttack(model, eps=self.eps, seed=self.seed)
                return withstood(model, attack, x, y)

        ours = partial(withstood, model, self.ours, x, y, seed=self.seed)
        return [partial(correct, model, x, y), ours, judged]


def counterpart(library: str, model: nn.Module, attack: PGD) -> Callable[[Tensor, Tensor], Tensor]:
    """Another library's PGD with our radius, steps and size of steps, from images and labels.

    Raises:
        ImportError: the library is not installed.
        ValueError: the library is unknown, or the attack does what the others do not.
    """
    eps, step = attack.eps, attack.step_size
    if isinstance(eps, tuple) or isinstance(step, tuple) or attack != PGD(eps, attack.steps):
        raise ValueError(f"{attack}: the libraries share one radius, and steps of 2.5 eps / steps")
    if library == "torchattacks":
        import torchattacks

        return torchattacks.PGD(model, eps=eps, alpha=step, steps=attack.steps, random_start=False)
    if library == "foolbox":
        from foolbox.attacks import LinfPGD
        from foolbox.models import PyTorchModel  # type: ignore[attr-defined]

        wrapped = PyTorchModel(model, bounds=(0, 1))
        linf = LinfPGD(abs_stepsize=step, steps=attack.steps, random_start=False)
        return lambda x, y: linf(wrapped, x, y, epsilons=eps)[1]
    raise ValueError(f"library={library!r}: there are {', '.join(OTHERS)}")
