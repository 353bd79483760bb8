"""The balls that attacks stay in: L-infinity and L2 around each image, cut by the pixel range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Self

import torch
from torch import Tensor

Radius = float | tuple[float, ...]
"""One number for all channels, or one for each (of an L-infinity ball)."""

Norm = Literal["linf", "l2"]
"""Measures the change of an image by its largest pixel, or by the root of its squares' sum."""

Cut = Literal["pixels", "normalized"]
"""Where a moved image is cut, at the ends of the pixel range, or where it is 0 and 1 if normalised.

The latter leaves the ball: whatever is darker than the mean of its channel (CIFAR-10's), or
brighter than the mean plus one standard deviation, is gone. It is there to ask what that slip does.
"""

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)

CIFAR10_STD = (0.247, 0.243, 0.261)


@dataclass(frozen=True)
class LinfBall:
    """Each pixel of images x (N, ...) changes by at most eps."""

    x: Tensor
    eps: Radius
    lower: Tensor
    upper: Tensor

    def start(self, generator: torch.Generator) -> Tensor:
        """A uniform point of each ball, cut by the pixel range."""
        uniform = 2 * torch.rand(self.x.shape, generator=generator).to(self.x) - 1
        return (self.x + like(self.eps, self.x) * uniform).clamp(0, 1)

    def move(self, point: Tensor, gradient: Tensor, step: Radius) -> Tensor:
        """One step of the given size that climbs most steeply in this norm, put back inside."""
        return (point + like(step, point) * gradient.sign()).clamp(self.lower, self.upper)

    def __getitem__(self, kept: Tensor) -> Self:
        return type(self)(self.x[kept], self.eps, self.lower[kept], self.upper[kept])


@dataclass(frozen=True)
class L2Ball:
    """The change of each of the images x (N, ...), as one vector, is at most eps long."""

    x: Tensor
    eps: float

    def start(self, generator: torch.Generator) -> Tensor:
        # Without two of its coordinates, a uniform point of a sphere is a uniform point of the
        # ball in two dimensions less (Voelker et al. 2017). An image at a time, so that a start
        # does not depend on which images come with it.
        size = self.x[0].numel() + 2
        drawn = [torch.randn(size, generator=generator) for _ in self.x]
        share = _unit(torch.stack(drawn).to(self.x))[:, :-2]
        return (self.x + self.eps * share.view_as(self.x)).clamp(0, 1)

    def move(self, point: Tensor, gradient: Tensor, step: Radius) -> Tensor:
        change = point + like(step, point) * _unit(gradient) - self.x
        smallest = max(self.eps, torch.finfo(change.dtype).tiny)
        # Cutting brings each pixel nearer to the image's own, so that it leads out of no ball.
        return (self.x + change * (self.eps / _length(change).clamp(min=smallest))).clamp(0, 1)

    def __getitem__(self, kept: Tensor) -> Self:
        return type(self)(self.x[kept], self.eps)


Ball = LinfBall | L2Ball
"""What an attack may reach, one ball for each image."""


def around(x: Tensor, eps: Radius, norm: Norm, cut: Cut = "pixels") -> Ball:
    """The balls of radius eps around images x (N, ...).

    Raises:
        ValueError: `cut="normalized"` is of another number of channels than the images.
    """
    if norm == "l2":
        assert not isinstance(eps, tuple)
        return L2Ball(x, eps)
    low: Radius = 0.0
    high: Radius = 1.0
    if cut == "normalized":
        low = CIFAR10_MEAN
        high = tuple(mean + std for mean, std in zip(CIFAR10_MEAN, CIFAR10_STD, strict=True))
    size, ends = like(eps, x), (like(low, x), like(high, x))
    lower = (x - size).clamp(*ends)
    if lower.shape != x.shape:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; radius and range are of {lower.shape[1]} channels"
        )
    return LinfBall(x, eps, lower, (x + size).clamp(*ends))


def distance(x: Tensor, other: Tensor, norm: Norm) -> Tensor:
    """How far images (N, ...) are apart in a norm, (N,)."""
    change = (other - x).flatten(1)
    return change.abs().amax(1) if norm == "linf" else change.norm(dim=1)


def to_pixels(size: float, std: Sequence[float]) -> tuple[float, ...]:
    """A size in units of the normalised input in pixels, for each channel."""
    return tuple(size * channel for channel in std)


def like(size: Radius, x: Tensor) -> Tensor:
    """A radius as a tensor that broadcasts over images x (N, C, H, W)."""
    return _uploaded(size, x.dtype, x.device)


@lru_cache(maxsize=64)  # an upload waits for the device
def _uploaded(size: Radius, dtype: torch.dtype, device: torch.device) -> Tensor:
    tensor = torch.tensor(size, dtype=dtype, device=device)
    return tensor.view(-1, 1, 1) if tensor.ndim else tensor


def wide(values: Tensor, x: Tensor) -> Tensor:
    """One value an image, (N,), as a tensor that broadcasts over images x (N, ...)."""
    return values.view(-1, *(1,) * (x.ndim - 1))


def _length(x: Tensor) -> Tensor:
    return wide(x.flatten(1).norm(dim=1), x)


def _unit(x: Tensor) -> Tensor:
    """Each image as a vector of length 1; what is 0 stays so."""
    tiny = torch.finfo(x.dtype).tiny
    # By the largest entry first: the squares of a small gradient would all be 0.
    x = x / wide(x.flatten(1).abs().amax(1), x).clamp(min=tiny)
    return x / _length(x).clamp(min=tiny)
