"""How far a network's robustness can be trusted: curves over the radius, and the checklist."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Len
from torch import Tensor

from hw3lib.experiments.part2 import canary
from hw3lib.experiments.part2.base import EIGHT, AnyAttack, Block, Study
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.robust.attacks import FGSM, PGD, SignNoise
from hw3lib.robust.checklist import gradient_masking
from hw3lib.robust.evaluate import eps_curve
from hw3lib.robust.modes import Classifier


class RadiusCurves(Study):
    """Where a network stays right under attacks of growing radius.

    Attributes:
        attacks: their own radii are not used.
        eps_values: ascending radii, in pixels of [0, 1].
        seed: of the attacks' noise.
    """

    experiment: ClassVar[str] = "radius_curves"

    attacks: Annotated[tuple[AnyAttack, ...], Len(1)] = (
        SignNoise(EIGHT),
        FGSM(EIGHT),
        PGD(EIGHT, keep="best"),
    )
    eps_values: Annotated[tuple[float, ...], Len(1)] = tuple(
        k / 255 for k in (0, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
    )
    images: Annotated[int, Ge(1)] = 500
    seed: int = 0

    def canary(self) -> list[float]:
        """Loss of an untrained network on embedded images after each attack, and its curves."""
        curves = [block() for block in self.blocks(*canary.guesses(self.model))]
        shares = torch.stack(curves).double().mean(-1).flatten()
        return canary.losses(self.model, self.attacks) + shares.tolist()

    def blocks(self, model: Classifier, x: Tensor, y: Tensor) -> list[Block]:
        """What gives the curve (radii, N) of each attack."""
        return [
            partial(eps_curve, model, attack, x, y, self.eps_values, seed=self.seed)
            for attack in self.attacks
        ]

    def stored(self, parts: list[Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        kinds = [attack.kind for attack in self.attacks]
        return {"attacks": kinds}, {"right": torch.stack(parts)}


class Checklist(Study):
    """Seven checks of `hw3lib.robust.gradient_masking` on a network.

    Attributes:
        surrogate: another one, on which images are made for a transfer attack.
        attack: the attack that is examined.
        seed: of the attacks' noise.
    """

    experiment: ClassVar[str] = "checklist"

    surrogate: TrainResNet
    attack: PGD = PGD(EIGHT)
    images: Annotated[int, Ge(1)] = 500
    seed: int = 0

    def canary(self) -> list[float]:
        """Loss of an untrained network on embedded images after the attack, and the findings."""
        network, *guesses = canary.guesses(self.model)
        findings = self._findings(network, canary.images(self.surrogate)[0], *guesses)
        numbers = [value for finding in findings.values() for value in finding["numbers"].values()]
        return canary.losses(self.model, (self.attack,)) + numbers

    def blocks(self, model: Classifier, x: Tensor, y: Tensor) -> list[Block]:
        return [partial(self._findings, model, load_resnet(self.surrogate, x.device), x, y)]

    def stored(self, parts: list[Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return parts[0], {}

    def _findings(
        self, model: Classifier, surrogate: Classifier, x: Tensor, y: Tensor
    ) -> dict[str, dict[str, Any]]:
        """What is stored of the checklist: the checks that it had when the first run was made."""
        found = gradient_masking(model, self.attack, x, y, surrogate=surrogate, seed=self.seed)
        later = {"direction", "deterministic"}
        return {name: asdict(found[name]) for name in found if name not in later}
