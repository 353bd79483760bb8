"""What a data set gives away without a neural network: counts and simple codes (question 1.8)."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from hw3lib import data
from hw3lib.data import GREY_LEVELS
from hw3lib.experiments.base import Experiment, outcome
from hw3lib.experiments.part1.sampling import level_counts
from hw3lib.runs import Context, Outcome
from hw3lib.vae import bits_per_dim

EXAMPLES_PER_CLASS = 8
"""Training images of each class that are stored with the facts."""


class DatasetFacts(Experiment):
    """Class counts, example images, and bits per dimension of models that only count.

    Every model is fitted to the course's training split and scored on the test set.

    Attributes:
        dataset: "mnist" or "digits".
        smoothing: added to every count, so that no grey level has probability zero.
    """

    experiment: ClassVar[str] = "dataset_facts"

    dataset: Literal["mnist", "digits"] = "mnist"
    smoothing: Annotated[float, Gt(0)] = 1.0

    def compute(self, context: Context) -> Outcome:  # noqa: ARG002 - counting needs no device
        dataset = data.load(self.dataset)
        images, test = data.quantize(dataset.x_train), data.quantize(dataset.x_test)
        train, val = data.train_val_split(len(images))
        images, labels = images[train], dataset.y_train[train]
        splits = {"train": labels, "validation": dataset.y_train[val], "test": dataset.y_test}
        probs = pixel_probs(images, self.smoothing)
        results: dict[str, Any] = {
            "sizes": {name: len(y) for name, y in splits.items()},
            "bpd": counting_models(images, labels, test, self.smoothing),
            "class_counts": {k: y.bincount(minlength=10).tolist() for k, y in splits.items()},
        }
        examples = [images[labels == digit][:EXAMPLES_PER_CLASS] for digit in range(10)]
        arrays = {
            "examples": torch.stack(examples),
            "histogram": level_probs(images, self.smoothing),
            "pixel_entropy": -(probs * probs.log2()).sum(0),
        }
        return outcome(results, arrays)

    def canary(self) -> list[float]:
        """The scores on the embedded digits."""
        digits = data.load("digits")
        train, test = data.quantize(digits.x_train), data.quantize(digits.x_test)
        return list(counting_models(train, digits.y_train, test, self.smoothing).values())


def counting_models(
    train: Tensor, labels: Tensor, test: Tensor, smoothing: float
) -> dict[str, float]:
    """Bits per dimension on `test` of four models that are fitted by counting.

    "uniform", "histogram" (one for all pixels), "pixels" (one for each), and "classes", a mixture
    of ten independent-pixel models, one a class, so a model with one discrete latent.
    """
    dims = test[0].numel()
    per_class = [pixel_probs(train[labels == digit], smoothing) for digit in range(10)]
    log_joint = torch.stack([log_likelihood(test, probs) for probs in per_class], dim=1)
    log_joint += (labels.bincount(minlength=10).double() / len(labels)).log()
    histogram = level_probs(train, smoothing)[:, None, None].expand(-1, *test.shape[1:])
    log_lik = {
        "histogram": log_likelihood(test, histogram),
        "pixels": log_likelihood(test, pixel_probs(train, smoothing)),
        "classes": log_joint.logsumexp(1),
    }
    scores = {name: bits_per_dim(-float(nats.mean()), dims) for name, nats in log_lik.items()}
    return {"uniform": math.log2(GREY_LEVELS), **scores}


def level_probs(images: Tensor, smoothing: float) -> Tensor:
    """Relative frequency of each grey level over all pixels of all images, (16,) float64."""
    counts = level_counts(images).sum((0, 1)).double() + smoothing
    return counts / counts.sum()


def pixel_probs(images: Tensor, smoothing: float) -> Tensor:
    """Relative frequency of each grey level at each pixel, (16, H, W) float64."""
    counts = level_counts(images).movedim(-1, 0).double()
    return (counts + smoothing) / (len(images) + GREY_LEVELS * smoothing)


def log_likelihood(images: Tensor, probs: Tensor) -> Tensor:
    """log p(x) in nats, (N,), of images (N, H, W) with independent pixels of probs (16, H, W)."""
    return probs.log().flatten(1).gather(0, images.flatten(1).long()).sum(1)
