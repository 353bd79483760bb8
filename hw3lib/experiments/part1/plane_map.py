"""What a VAE with two latent dimensions draws where, and which digit it is (question 1.10)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from hw3lib import data
from hw3lib.experiments.part1.classifier import (
    DigitClassifier,
    TrainClassifier,
    load_classifier,
    predict,
)
from hw3lib.experiments.part1.vae_training import TrainVAE, load_vae
from hw3lib.runs.settings import Context, Outcome, Settings
from hw3lib.runs.store import Run
from hw3lib.runs.store import run as get_run
from hw3lib.vae.model import VAE


class PlaneMap(Settings):
    """The decoder's mean images on the grid of `VAE.manifold`, and the class of each.

    Attributes:
        vae: a training with two latent dimensions.
        classifier: reads the digits.
        size: tiles along each side.
    """

    experiment: ClassVar[str] = "plane_map"

    vae: TrainVAE
    classifier: TrainClassifier
    size: Annotated[int, Ge(2)] = 20

    def compute(self, context: Context) -> Outcome:  # noqa: ARG002 - takes a second on any device
        tiles, classes = self.draw(load_vae(self.vae), load_classifier(self.classifier))
        stored: Run = get_run(self.vae)
        arrays = {"tiles": (tiles * (255 / 15)).round().byte(), "classes": classes.byte()}
        return Outcome(
            {},
            {name: tensor.numpy() for name, tensor in arrays.items()},
            data=stored.provenance["data"],
            device="cpu",
        )

    def canary(self) -> list[float]:
        """Means of the tiles of an untrained VAE, and the logits of an untrained classifier."""
        cpu = torch.device("cpu")
        model, _ = self.vae.changed(dataset="digits").build(cpu)
        classifier = self.classifier.build(cpu).eval()
        small = self.changed(size=4)
        tiles, _ = small.draw(model.eval(), classifier)
        logits = predict(classifier, data.quantize(data.load("digits").x_test[:8]))
        return [*tiles.mean((2, 3)).flatten().tolist(), float(logits.detach().abs().mean())]

    @torch.no_grad()
    def draw(self, vae: VAE, classifier: DigitClassifier) -> tuple[Tensor, Tensor]:
        """Tiles (size, size, 28, 28) in 0..15 from top to bottom, and their classes, (size, size).

        Raises:
            ValueError: the latent space is not two-dimensional.
        """
        _, tiles = vae.manifold(self.size)
        logits = predict(classifier, tiles.flatten(0, 1))
        return tiles, logits.argmax(1).view(self.size, self.size)
