"""Do images made on one network fool another (2.1c)?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from annotated_types import Len
from pydantic import model_validator
from torch import Tensor

from hw3lib.experiments.base import Experiment, device_of, outcome
from hw3lib.experiments.part2 import canary
from hw3lib.experiments.part2.base import COURSE_FGSM, AnyAttack, test_images
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.robust.attacks import SignNoise, input_gradient
from hw3lib.robust.evaluate import transfer_matrix
from hw3lib.robust.modes import Classifier
from hw3lib.runs.settings import Context, Outcome


class TransferStudy(Experiment):
    """Adversarial images of every network shown to every other, and how their gradients agree.

    Attributes:
        models: networks for the same classes.
        attacks: what the images are made with.
        noise: random signs, as the row to compare with.
        seed: of the attacks' noise.
    """

    experiment: ClassVar[str] = "transfer"

    models: Annotated[tuple[TrainResNet, ...], Len(2)]
    attacks: Annotated[tuple[AnyAttack, ...], Len(1)]
    noise: SignNoise = SignNoise(COURSE_FGSM.eps)
    seed: int = 0

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        if len(names := {model.dataset for model in self.models}) > 1:
            raise ValueError(
                f"the models classify {' and '.join(sorted(names))}; give one data set"
            )
        return self

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        _, index, x, y = test_images(self.models[0], "course", device)
        networks = [load_resnet(model, device) for model in self.models]
        arrays = self.measure(networks, x, y) | {"index": index}
        attacks = [repr(attack) for attack in self.attacks]
        return outcome({"attacks": attacks}, arrays, device=device)

    def canary(self) -> list[float]:
        """Cosines and shares for untrained networks on embedded images."""
        _, x, _ = canary.images(self.models[0])
        networks = [canary.images(m.changed(seed=i))[0] for i, m in enumerate(self.models)]
        table = self.measure(networks, x, networks[0](x).argmax(1))
        return canary.means(table[name] for name in sorted(table))

    def measure(self, networks: Sequence[Classifier], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Which images transfer, and the cosine of the gradients of each pair.

        Returns:
            `shown`, `fooled` (attacks, models + 1, models, N) bool, the last source is the noise;
            `cosine` (pairs, N) for pairs in the order of `itertools.combinations`.
        """
        named = {str(i): network for i, network in enumerate(networks)}
        sources = [*named, "noise"]
        shown, fooled = [], []
        for attack in self.attacks:
            matrix = transfer_matrix(named, attack, x, y, noise=self.noise, seed=self.seed)
            cells = [matrix[source][target] for source in sources for target in named]
            shown += [cell.shown for cell in cells]
            fooled += [cell.fooled for cell in cells]
        shape = (len(self.attacks), len(sources), len(named), -1)
        parts = list(zip(x.split(500), y.split(500), strict=True))
        gradients = [
            torch.cat([input_gradient(network, *part)[0].flatten(1) for part in parts])
            for network in networks
        ]
        cosines = [F.cosine_similarity(a, b) for a, b in combinations(gradients, 2)]
        masks = {"shown": torch.stack(shown).view(shape), "fooled": torch.stack(fooled).view(shape)}
        return masks | {"cosine": torch.stack(cosines)}
