"""Why the sign of the gradient: what a linear expansion predicts, and what happens (2.1b)."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Len
from torch import Tensor

from hw3lib import data
from hw3lib.experiments.part2 import canary
from hw3lib.experiments.part2.base import Block, Study
from hw3lib.robust.attacks import FGSM, cross_entropy, input_gradient
from hw3lib.robust.modes import Classifier


class GradientSign(Study):
    """Loss and correctness along the sign of the gradient and along random signs.

    Attributes:
        eps_values: radii, in pixels of [0, 1].
        draws: random sign patterns for each image.
        seed: of the random signs.
    """

    experiment: ClassVar[str] = "gradient_sign"

    images: Annotated[int, Ge(2)] = 500
    eps_values: Annotated[tuple[float, ...], Len(1)] = tuple(
        k / 255 for k in (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16)
    )
    draws: Annotated[int, Ge(1)] = 4
    seed: int = 0

    def canary(self) -> list[float]:
        """Means of all that is measured, on embedded images with an untrained network."""
        table = self.measure(*canary.images(self.model))
        return canary.means(table[name] for name in sorted(table))

    def blocks(self, model: Classifier, x: Tensor, y: Tensor) -> list[Block]:
        return [partial(self.measure, model, x, y)]

    def stored(self, parts: list[Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"eps_values": list(self.eps_values)}, parts[0]

    def measure(self, model: Classifier, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Gains of the loss in nats, correctness, and cosines with the gradient.

        Returns:
            `predicted` (N, E), the linear gain eps times the 1-norm of the gradient;
            `fgsm_gain`, `noise_gain` (N, E), the true ones, that of noise a mean over its draws;
            `fgsm_right` (N, E), `noise_right` (N, E), share of draws that leave the image right;
            `sign_cosine` (N,), `noise_cosine` (N, draws) with the gradient.
        """
        gradient, logits = input_gradient(model, x, y)
        clean = cross_entropy(logits, y)
        flat = gradient.flatten(1)
        l1, l2 = flat.abs().sum(1), flat.norm(dim=1).clamp(min=1e-30)
        rng = data.generator(self.seed, "random signs")
        signs = [2 * torch.randint(0, 2, x.shape, generator=rng) - 1 for _ in range(self.draws)]
        directions = torch.stack([sign.to(x) for sign in signs])
        columns = []
        for eps in self.eps_values:
            noisy = (x + eps * directions).clamp(0, 1)
            losses, rights = zip(*(_outcome(model, images, y) for images in noisy), strict=True)
            fgsm_loss, fgsm_right = _outcome(model, FGSM(eps)(model, x, y), y)
            columns.append(
                {
                    "predicted": eps * l1,
                    "fgsm_gain": fgsm_loss - clean,
                    "fgsm_right": fgsm_right,
                    "noise_gain": torch.stack(losses).mean(0) - clean,
                    "noise_right": torch.stack(rights).mean(0),
                }
            )
        return {name: torch.stack([c[name] for c in columns], 1) for name in columns[0]} | {
            "sign_cosine": l1 / (l2 * flat.shape[1] ** 0.5),
            "noise_cosine": torch.cosine_similarity(directions.flatten(2), flat, 2, 1e-30).T,
        }


@torch.no_grad()
def _outcome(model: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Loss in nats and correctness, (N,) each."""
    logits = torch.cat([model(part) for part in x.split(500)])
    return cross_entropy(logits, y), (logits.argmax(1) == y).float()
