"""How far a network's robustness can be trusted: curves over the radius, and the checklist."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Len
from torch import Tensor

from hw3lib import training
from hw3lib.experiments.base import resumable_blocks
from hw3lib.experiments.part2.attacked import AnyAttack, canary_images, test_images
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.robust.attacks import FGSM, PGD, SignNoise, cross_entropy
from hw3lib.robust.checklist import gradient_masking
from hw3lib.robust.evaluate import eps_curve
from hw3lib.runs.settings import Context, Outcome, Settings

EIGHT = 8 / 255
"""The radius at which CIFAR-10 defences are usually compared."""


class RadiusCurves(Settings):
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
        device = training.pick_device(context.device)
        dataset, index, x, y = test_images(self.model, "course", device, self.images)
        network = load_resnet(self.model, device)
        curves, spent = resumable_blocks(
            [
                partial(eps_curve, network, attack, x, y, self.eps_values, seed=self.seed)
                for attack in self.attacks
            ],
            context,
            self.describe(),
        )
        return Outcome(
            {"attacks": [attack.kind for attack in self.attacks]},
            {"right": torch.stack(curves).cpu().numpy(), "index": index.numpy()},
            data=dataset.checksum,
            device=training.device_name(device),
            seconds=spent,
        )

    def canary(self) -> list[float]:
        """Loss of an untrained network on embedded images after each attack at its own radius."""
        return _canary(self.model, self.attacks)


class Checklist(Settings):
    """The checks of `robustness.gradient_masking` on a network.

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
        device = training.pick_device(context.device)
        dataset, _, x, y = test_images(self.model, "course", device, self.images)
        findings = gradient_masking(
            load_resnet(self.model, device),
            self.attack,
            x,
            y,
            surrogate=load_resnet(self.surrogate, device),
            seed=self.seed,
        )
        return Outcome(
            {name: asdict(finding) for name, finding in findings.items()},
            data=dataset.checksum,
            device=training.device_name(device),
        )

    def canary(self) -> list[float]:
        """Loss of an untrained network on embedded images after the attack."""
        return _canary(self.model, (self.attack,))


def _canary(model: TrainResNet, attacks: tuple[FGSM | PGD | SignNoise, ...]) -> list[float]:
    network, x, y = canary_images(model)
    rng = torch.Generator().manual_seed(0)
    attacked: list[Tensor] = [attack(network, x, y, generator=rng) for attack in attacks]
    return [cross_entropy(network(images), y).mean().item() for images in attacked]
