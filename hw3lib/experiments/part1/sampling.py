"""Drawing images from a decoder (question 1.1): the loop, fast ways, and what tells them apart."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Len
from numpy.typing import NDArray
from torch import Tensor

from hw3lib import data
from hw3lib.data import GREY_LEVELS
from hw3lib.experiments.base import Experiment, outcome
from hw3lib.runs import Context, Outcome
from hw3lib.vae.model import IMAGE_SIZE, sample_pixels

Sampler = Callable[..., Tensor]


def sample_pixels_naive(logits: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """What `hw3lib.vae.sample_pixels` draws, one pixel and one grey level at a time.

    Args:
        logits: (N, 16, H, W).
        generator: CPU generator of the uniform numbers, one a pixel.

    Returns:
        (N, H, W) uint8.
    """
    n, levels, height, width = logits.shape
    u = torch.rand(n, 1, height, width, generator=generator)
    x = torch.empty(n, height, width, dtype=torch.uint8)
    for i, row, column in product(range(n), range(height), range(width)):
        probs = logits[i, :, row, column].softmax(0).tolist()
        threshold = u[i, 0, row, column].item()
        level, cumulative = 0, probs[0]
        while threshold >= cumulative and level < levels - 1:
            level += 1
            cumulative += probs[level]
        x[i, row, column] = level
    return x


def sample_pixels_categorical(
    logits: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """The same distribution through `torch.multinomial`, one row a pixel; (N, H, W) uint8."""
    rows = logits.softmax(1).movedim(1, -1)
    drawn = torch.multinomial(rows.flatten(0, -2), 1, generator=generator)
    return drawn.view(rows.shape[:-1]).to(torch.uint8)


def sample_pixels_gumbel(logits: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """The same distribution as the largest of logits plus Gumbel noise; (N, H, W) uint8."""
    exponential = torch.empty(logits.shape).exponential_(generator=generator)
    return (logits - exponential.log()).argmax(1).to(torch.uint8)


SAMPLERS: dict[str, Sampler] = {
    "naive": sample_pixels_naive,
    "inverse": sample_pixels,
    "multinomial": sample_pixels_categorical,
    "gumbel": sample_pixels_gumbel,
}
"""Four ways to draw the pixels; all take logits (N, 16, H, W) and a generator."""


def mode_image(logits: Tensor) -> Tensor:
    """The most probable grey level of each pixel, (N, H, W) uint8, for logits (N, 16, H, W)."""
    return logits.argmax(1).to(torch.uint8)


def draw_many(
    sampler: Sampler, logits: Tensor, draws: int, generator: torch.Generator, *, block: int = 500
) -> Tensor:
    """Images (draws, H, W) of one code, whose logits are (16, H, W); `block` at a time."""
    sizes = [min(block, draws - first) for first in range(0, draws, block)]
    return torch.cat(
        [sampler(logits.expand(size, *logits.shape), generator=generator) for size in sizes]
    )


def level_counts(x: Tensor) -> Tensor:
    """How often each pixel of images (N, H, W) has each grey level: (H, W, 16) int64."""
    pixels = x[0].numel()
    counts = torch.zeros(pixels * GREY_LEVELS, dtype=torch.int64)
    first_bin = GREY_LEVELS * torch.arange(pixels)
    for part in x.flatten(1).split(4000):
        counts += (part + first_bin).flatten().bincount(minlength=len(counts))
    return counts.view(*x.shape[1:], GREY_LEVELS)


def correlation_across_images(x: Tensor, min_share: float = 0.05) -> Tensor:
    """Correlation of each pixel with its right neighbour over images (N, H, W).

    Only pairs are kept in which both pixels leave their commonest grey level in at least
    `min_share` of the images; the others hardly vary.
    """
    varies = 1 - level_counts(x).amax(-1) / len(x) >= min_share
    pairs = varies[:, :-1] & varies[:, 1:]
    scores = x.double() - x.double().mean(0)
    scores = scores / scores.square().mean(0).sqrt().clamp_min(1e-12)
    return (scores[:, :, :-1] * scores[:, :, 1:]).mean(0)[pairs]


def variance_shares(logits: Tensor) -> tuple[float, float]:
    """The variance of E[x|z] over codes z from the prior, and the mean of Var[x|z].

    The two parts of the variance of a pixel over all samples, summed over pixels, in squared grey
    levels; for logits (N, 16, H, W).
    """
    levels = torch.arange(GREY_LEVELS, dtype=torch.float64)
    probs = logits.double().softmax(1)
    mean = torch.einsum("nlhw,l->nhw", probs, levels)
    square = torch.einsum("nlhw,l->nhw", probs, levels.square())
    between = mean.var(0, correction=0).sum()
    within = (square - mean.square()).mean(0).sum()
    return float(between), float(within)


class SamplingTime(Experiment):
    """Seconds that each sampler of `SAMPLERS` takes to draw pixels from given logits, on the CPU.

    Attributes:
        batch_sizes: images drawn by one call.
        naive_up_to: the loop is not timed on larger batches.
        repeats: calls timed, after one that is not.
        seed: of the logits.
    """

    experiment: ClassVar[str] = "sampling_time"

    batch_sizes: Annotated[tuple[int, ...], Len(1)] = (1, 4, 16, 64, 256, 1024)
    naive_up_to: Annotated[int, Ge(1)] = 16
    repeats: Annotated[int, Ge(1)] = 7
    seed: int = 0

    def compute(self, context: Context) -> Outcome:  # noqa: ARG002 - always on the CPU
        """Times (repeats,) a sampler and batch size."""
        arrays = {}
        for size in self.batch_sizes:
            logits = self._logits(size)
            for name, sampler in SAMPLERS.items():
                if name != "naive" or size <= self.naive_up_to:
                    arrays[f"{name}.{size}"] = self._time(sampler, logits)
        fastest = {name: float(times.min()) for name, times in arrays.items()}
        return outcome({"seconds": fastest}, arrays)

    def canary(self) -> list[float]:
        """The mean grey level that each sampler draws."""
        logits = self._logits(2)
        return [
            sampler(logits, generator=data.generator(self.seed, "canary")).double().mean().item()
            for sampler in SAMPLERS.values()
        ]

    def per_image(self, results: dict[str, Any], sampler: str) -> list[tuple[int, float]]:
        """Batch sizes at which a sampler was timed, each with the milliseconds for one image.

        The fastest call counts: whatever else a machine does can only make a call slower.
        """
        seconds = {size: results["seconds"].get(f"{sampler}.{size}") for size in self.batch_sizes}
        return [(size, 1e3 * value / size) for size, value in seconds.items() if value is not None]

    def _logits(self, size: int) -> Tensor:
        shape = (size, GREY_LEVELS, IMAGE_SIZE, IMAGE_SIZE)
        return 3 * torch.randn(shape, generator=data.generator(self.seed, "logits"))

    def _time(self, sampler: Sampler, logits: Tensor) -> NDArray[np.float64]:
        draw = partial(sampler, logits, generator=data.generator(self.seed, "timing"))
        return np.array(timeit.repeat(draw, number=1, repeat=self.repeats + 1)[1:])
