"""A few pictures under attacks of growing radius, and what several networks make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le, Len
from torch import Tensor

from hw3lib import data, runs
from hw3lib.experiments.base import Experiment, device_of, outcome
from hw3lib.experiments.part2 import canary
from hw3lib.experiments.part2.attacked import AdversarialPictures
from hw3lib.experiments.part2.base import EIGHT, AnyAttack
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.robust.attacks import FGSM, PGD, SignNoise
from hw3lib.robust.modes import Classifier
from hw3lib.runs.settings import Context, Outcome

SmallRadius = Annotated[float, Ge(0), Le(127 / 255)]
"""A change is kept in 255ths, as int8."""


class PicturesByRadius(Experiment):
    """What attacks of each radius do to a few pictures, for one network or several.

    Attributes:
        pictures: which ones; their network is the first that is attacked.
        others: more networks of the same data set.
        attacks: their own radii are not used.
        eps_values: radii, in pixels of [0, 1].
        seed: of the attacks' noise, which is the same at every radius.
    """

    experiment: ClassVar[str] = "pictures_by_radius"

    pictures: AdversarialPictures
    others: tuple[TrainResNet, ...] = ()
    attacks: Annotated[tuple[AnyAttack, ...], Len(1)] = (
        FGSM(EIGHT),
        PGD(EIGHT, keep="best"),
        SignNoise(EIGHT),
    )
    eps_values: Annotated[tuple[SmallRadius, ...], Len(1)] = tuple(
        k / 255 for k in (1, 2, 4, 8, 16, 32)
    )
    seed: int = 0

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        chosen = runs.run(self.pictures)
        x, y = (torch.from_numpy(chosen.arrays[name]).to(device) for name in ("original", "label"))
        parts = [self.attacked(load_resnet(model, device), x, y) for model in self.models]
        arrays = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        arrays |= {"original": (255 * x).round().byte(), "label": y}
        return outcome({"classes": chosen.results["classes"]}, arrays, device=device)

    def canary(self) -> list[float]:
        """Sizes of the changes, and probabilities of the labels, on embedded images."""
        model, x, y = canary.images(self.pictures.model)
        found = self.attacked(model, x, y)
        sure = found["probabilities"][..., torch.arange(len(y)), y]
        return canary.means([*found["change"].abs().flatten(0, 1), *sure.flatten(0, 1)])

    @property
    def models(self) -> tuple[TrainResNet, ...]:
        """The networks, in the order of the stored arrays."""
        return (self.pictures.model, *self.others)

    @torch.no_grad()
    def attacked(self, model: Classifier, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Pictures x (P, 3, H, W) of labels y (P,) after every attack of every radius.

        Returns:
            "change" (attacks, radii, P, 3, H, W), int8, in 255ths and rounded; "probabilities"
            (attacks, radii, P, classes) of the pictures as attacked; "clean" (P, classes).
        """
        made = [[self._under(attack, eps, model, x, y) for eps in self.eps_values]
                for attack in self.attacks]  # fmt: skip
        images = torch.stack([torch.stack(row) for row in made])
        chances = model(images.flatten(0, 2)).softmax(1)
        return {
            "change": (255 * (images - x)).round().to(torch.int8),
            "probabilities": chances.view(*images.shape[:3], -1),
            "clean": model(x).softmax(1),
        }

    def _under(
        self, attack: AnyAttack, eps: float, model: Classifier, x: Tensor, y: Tensor
    ) -> Tensor:
        rng = data.generator(self.seed, "pictures by radius")
        with torch.enable_grad():
            return replace(attack, eps=eps)(model, x, y, generator=rng)
