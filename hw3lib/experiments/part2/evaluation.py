"""How far a network's robustness can be trusted: curves over the radius, and the checklist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Len
from torch import Tensor

from hw3lib.experiments.base import Experiment, device_of, outcome, resumable_blocks
from hw3lib.experiments.part2.attacked import (
    AnyAttack,
    canary_guesses,
    canary_images,
    canary_losses,
    test_images,
)
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.robust.attacks import FGSM, PGD, SignNoise
from hw3lib.robust.checklist import Finding, gradient_masking
from hw3lib.robust.evaluate import eps_curve
from hw3lib.robust.modes import Classifier
from hw3lib.runs.settings import Context, Outcome

EIGHT = 8 / 255
"""The radius at which CIFAR-10 defences are usually compared."""


class RadiusCurves(Experiment):
    """Where a network stays right under attacks of growing radius.

    Attributes:
        model: the network.
        attacks: their own radii are not used.
        eps_values: ascending radii, in pixels of [0, 1].
        images: how many of the course's test images.
        seed: of the attacks' noise.
    """

    experiment: ClassVar[str] = "radius_curves"

    model: TrainResNet
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

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        dataset, index, x, y = test_images(self.model, "course", device, self.images)
        network = load_resnet(self.model, device)
        curves, spent = resumable_blocks(self.blocks(network, x, y), context, self.describe())
        return outcome(
            {"attacks": [attack.kind for attack in self.attacks]},
            {"right": torch.stack(curves), "index": index},
            dataset=dataset,
            device=device,
            seconds=spent,
        )

    def canary(self) -> list[float]:
        """Loss of an untrained network on embedded images after each attack, and its curves."""
        model = canary_images(self.model)[0]
        curves = [block() for block in self.blocks(model, *canary_guesses(model))]
        shares = torch.stack(curves).double().mean(-1).flatten()
        return canary_losses(self.model, self.attacks) + shares.tolist()

    def blocks(self, model: Classifier, x: Tensor, y: Tensor) -> list[Callable[[], Tensor]]:
        """What gives the curve (radii, N) of each attack."""
        return [
            partial(eps_curve, model, attack, x, y, self.eps_values, seed=self.seed)
            for attack in self.attacks
        ]


class Checklist(Experiment):
    """Seven checks of `hw3lib.robust.gradient_masking` on a network.

    Attributes:
        model: the network.
        surrogate: another one, on which images are made for a transfer attack.
        attack: the attack that is examined.
        images: how many of the course's test images.
        seed: of the attacks' noise.
    """

    experiment: ClassVar[str] = "checklist"

    model: TrainResNet
    surrogate: TrainResNet
    attack: PGD = PGD(EIGHT)
    images: Annotated[int, Ge(1)] = 500
    seed: int = 0

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        dataset, _, x, y = test_images(self.model, "course", device, self.images)
        findings = self.findings(
            load_resnet(self.model, device), load_resnet(self.surrogate, device), x, y
        )
        return outcome(
            {name: asdict(finding) for name, finding in findings.items()},
            dataset=dataset,
            device=device,
        )

    def canary(self) -> list[float]:
        """Loss of an untrained network on embedded images after the attack, and the findings."""
        network, surrogate = (canary_images(one)[0] for one in (self.model, self.surrogate))
        findings = self.findings(network, surrogate, *canary_guesses(network))
        numbers = [value for finding in findings.values() for value in finding.numbers.values()]
        return canary_losses(self.model, (self.attack,)) + numbers

    def findings(
        self, model: Classifier, surrogate: Classifier, x: Tensor, y: Tensor
    ) -> dict[str, Finding]:
        """What is stored of the checklist: the checks that it had when the first run was made."""
        found = gradient_masking(model, self.attack, x, y, surrogate=surrogate, seed=self.seed)
        return {name: found[name] for name in found if name not in ("direction", "deterministic")}
