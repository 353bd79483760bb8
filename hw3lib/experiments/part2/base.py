"""What the studies of part 2 repeat: a network, test images, blocks that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from hw3lib import data
from hw3lib.experiments.base import Experiment, device_of, outcome, resumable_blocks
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.robust.attacks import FGSM, PGD, SignNoise
from hw3lib.robust.modes import Classifier
from hw3lib.runs.settings import Context, Outcome

AnyAttack = Annotated[FGSM | PGD | SignNoise, Field(discriminator="kind")]

COURSE_FGSM = FGSM.from_normalized(0.1)
"""The course's FGSM, with eps = 0.1 in units of the normalised input."""

COURSE_PGD = PGD.from_normalized(0.01, step=2.0, steps=10)
"""The course's PGD, with eps = 0.01 and steps of 2, which leave the ball at once, ten times."""

EIGHT = 8 / 255
"""The radius at which CIFAR-10 defences are usually compared."""

Block = Callable[[], Any]
"""Computes a part of a study; a run is resumed, and stops for a deadline, between two."""


class Study(Experiment):
    """What is measured on a network and the course's test images.

    Subclasses give the blocks, and say what becomes of their parts.

    Attributes:
        model: the network.
        images: how many of the course's test images, at most.
    """

    model: TrainResNet
    images: int

    def blocks(self, model: Classifier, x: Tensor, y: Tensor) -> Sequence[Block]:
        """What is measured on the network, for pixels x (N, 3, H, W) and labels y (N,)."""
        raise NotImplementedError

    def stored(self, parts: list[Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Results and arrays, from what the blocks returned; by default masks, a row each."""
        return {}, {"right": torch.stack(parts)}

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        _, index, x, y = test_images(self.model, "course", device, self.images)
        blocks = self.blocks(load_resnet(self.model, device), x, y)
        parts, seconds = resumable_blocks(blocks, context, self.describe())
        results, arrays = self.stored(parts)
        arrays["index"] = index
        return outcome(results, arrays, device=device, seconds=seconds)


def test_images(
    model: TrainResNet,
    images: Literal["all", "course"],
    device: torch.device,
    num: int | None = None,  # noqa: PT028
) -> tuple[data.Dataset, Tensor, Tensor, Tensor]:
    """A network's data set, indices of test images, and these images as pixels with their labels.

    They are the first `num`, if there are more, of "all" test images or of the "course"'s quarter.
    """
    dataset = data.load(model.dataset)
    index = torch.arange(len(dataset.y_test))
    if images == "course":
        index = data.test_split(len(index))[1]
    index = index[:num]
    x = data.to_pixels(dataset.x_test[index]).to(device)
    return dataset, index, x, dataset.y_test[index].to(device)
