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
        labels = dataset.y_train[train]
        probs = pixel_probs(images[train], self.smoothing)
        results: dict[str, Any] = {
            "sizes": {"train": len(train), "validation": len(val), "test": len(test)},
            "bpd": counting_models(images[train], labels, test, self.smoothing),
            "class_counts": {
                "train": labels.bincount(minlength=10).tolist(),
                "validation": dataset.y_train[val].bincount(minlength=10).tolist(),
                "test": dataset.y_test.bincount(minlength=10).tolist(),
            },
        }
        examples = [images[train][labels == digit][:EXAMPLES_PER_CLASS] for digit in range(10)]
        arrays = {
            "examples": torch.stack(examples),
            "histogram": level_probs(images[train], self.smoothing),
            "pixel_entropy": -(probs * probs.log2()).sum(0),
        }
        return outcome(results, arrays, dataset=dataset)

    def canary(self) -> list[float]:
        """The scores on the embedded digits."""
        digits = data.load("digits")
        train, test = data.quantize(digits.x_train), data.quantize(digits.x_test)
        return list(counting_models(train, digits.y_train, test, self.smoothing).values())


def counting_models(
    train: Tensor, labels: Tensor, test: Tensor, smoothing: float
) -> dict[str, float]:
    """Bits per dimension on `test` of four models that are fitted by counting.

    Args:
        train, test: (N, H, W) uint8 grey levels 0..15.
        labels: (N,) classes 0..9 of the training images.
        smoothing: added to every count.

    Returns:
        "uniform", "histogram" (one for all pixels), "pixels" (one for each), and "classes", a
        mixture of ten independent-pixel models, one a class, so a model with one discrete latent.
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
    counts = images.flatten().long().bincount(minlength=GREY_LEVELS).double() + smoothing
    return counts / counts.sum()


def pixel_probs(images: Tensor, smoothing: float) -> Tensor:
    """Relative frequency of each grey level at each pixel, (16, H, W) float64."""
    pixels = images[0].numel()
    counts = torch.zeros(pixels * GREY_LEVELS, dtype=torch.int64)
    first_bin = GREY_LEVELS * torch.arange(pixels)
    for part in images.flatten(1).split(4000):
        counts += (part + first_bin).flatten().bincount(minlength=len(counts))
    table = counts.view(*images.shape[1:], GREY_LEVELS).permute(2, 0, 1).double()
    return (table + smoothing) / (len(images) + GREY_LEVELS * smoothing)


def log_likelihood(images: Tensor, probs: Tensor) -> Tensor:
    """log p(x) in nats, (N,), of images (N, H, W) with independent pixels of probs (16, H, W)."""
    return probs.log().flatten(1).gather(0, images.flatten(1).long()).sum(1)
