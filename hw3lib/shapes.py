"""Ten classes of drawn shapes: colour pictures for part 2 that need no file and no network.

A picture shows one coloured, textured shape at a random place, in a random size and slightly
turned, on a textured ground, with small marks under and over it and noise on all. Neither colour
nor place nor brightness tells the class; the outline does. A horizontal flip keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from torch import Tensor

Outline = Callable[[Tensor, Tensor], Tensor]

SIZE = 32
"""Height and width of a picture in pixels."""

RADIUS = (8.0, 12.0)
"""Smallest and largest radius of the circle around a shape, in pixels."""

TILT = 30
"""Largest angle by which a shape is turned either way, in degrees."""

CONTRAST = (56, 200)
"""By how many of 256 levels each channel of a shape's colour differs from that of its ground."""

SWING = 28
"""Largest amplitude of a texture, in levels of a channel."""

NOISE = 20
"""Largest deviation of a pixel by noise in the noisiest picture, in levels."""

MARKS = 2
"""Small dots and strokes under the shape; one more lies over it."""

# Cosines of whole degrees, rounded: libraries of mathematics differ in the last digit.
COS = torch.arange(360).double().deg2rad().cos().round(decimals=6).float()
SIN = COS.roll(90)


def _length(u: Tensor, v: Tensor) -> Tensor:
    # How a float32 root is rounded depends on the processor; a wider one, rounded once, does not.
    square = u * u + v * v
    return square.double().sqrt().to(square.dtype)


def _box(u: Tensor, v: Tensor, width: float, height: float) -> Tensor:
    return torch.maximum(u.abs() - width, v.abs() - height)


def _star(u: Tensor, v: Tensor) -> Tensor:
    # A pentagram: the points inside at least four of five half planes, so that the second
    # largest distance from their borders decides.
    first = second = torch.full_like(u, -torch.inf)
    for degrees in range(18, 360, 72):
        side = u * COS[degrees] + v * SIN[degrees]
        first, second = first.maximum(side), second.maximum(first.minimum(side))
    return second - 0.35


def _heart(u: Tensor, v: Tensor) -> Tensor:
    # A square on its corner, with a half disc on both upper sides.
    left, right = (-u - v) * COS[45] + 0.18, (u - v) * COS[45] + 0.18
    lobes = torch.minimum(_length(left - 0.55, right), _length(left, right - 0.55)) - 0.55
    return lobes.minimum(_box(left, right, 0.55, 0.55))


def _arrow(u: Tensor, v: Tensor) -> Tensor:
    head = torch.maximum(-u, (u - 0.95 + v.abs()) * COS[45])
    return head.minimum(_box(u + 0.45, v, 0.5, 0.19))


OUTLINES: dict[str, Outline] = {
    "disc": lambda u, v: _length(u, v) - 0.85,
    "ring": lambda u, v: (_length(u, v) - 0.72).abs() - 0.2,
    "square": lambda u, v: _box(u, v, 0.72, 0.72),
    "frame": lambda u, v: _box(u, v, 0.6, 0.6).abs() - 0.18,
    "triangle": lambda u, v: torch.maximum(v, u.abs() * COS[30] - v * SIN[30]) - 0.5,
    "cross": lambda u, v: torch.minimum(_box(u, v, 0.95, 0.28), _box(u, v, 0.28, 0.95)),
    "star": _star,
    "crescent": lambda u, v: torch.maximum(_length(u, v) - 0.92, 0.75 - _length(u - 0.48, v)),
    "heart": _heart,
    "arrow": _arrow,
}
"""For each class the signed distance of points (u, v) from its outline, negative inside; u points
right, v down, and the shape fills a circle of about radius 1."""

CLASSES: tuple[str, ...] = tuple(OUTLINES)
"""Names of the classes, in the order of their labels."""


def is_whole(number: object) -> bool:
    """Whether it is an integer of Python or NumPy; yes and no are none."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def draw(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw pictures of all classes in turn: picture i shows class i modulo 10.

    Equal arguments give equal bytes on every machine. The random numbers are the raw bits of
    PCG64, a stream that NumPy keeps, and the arithmetic is single operations of IEEE 754, each of
    which is rounded correctly.

    Returns:
        Pictures (num, 32, 32, 3) and labels (num,), both uint8.

    Raises:
        ValueError: `num` or `seed` is negative or no integer.
    """
    if not (is_whole(num) and is_whole(seed) and num >= 0 and seed >= 0):
        raise ValueError(f"num={num}, seed={seed}: both must be integers, 0 or more")
    images = torch.empty(int(num), SIZE, SIZE, 3, dtype=torch.uint8)
    labels = torch.arange(num).remainder(len(CLASSES)).to(torch.uint8)
    bits = np.random.PCG64(seed)
    for label, name in enumerate(CLASSES):
        part = images[label :: len(CLASSES)]
        part[:] = _paint(OUTLINES[name], len(part), bits).movedim(1, -1)
    return images, labels


def _paint(outline: Outline, num: int, bits: np.random.PCG64) -> Tensor:
    """Pictures of one class, (num, 3, 32, 32) uint8."""
    ground = _colour(num, bits)
    # Past the end of the scale it goes on at 0: a shape is as often darker as brighter.
    figure = (ground + _uniform(bits, *CONTRAST, num, 3)) % 256
    picture = ground + _texture(num, bits)
    for _ in range(MARKS):
        picture = _over(picture, _colour(num, bits), _mark(num, bits))
    picture = _over(picture, figure + _texture(num, bits), _shape(outline, num, bits))
    picture = _over(picture, _colour(num, bits), _mark(num, bits))
    return (picture + _noise(num, bits)).round().clamp(0, 255).to(torch.uint8)


def _shape(outline: Outline, num: int, bits: np.random.PCG64) -> Tensor:
    """The share of each pixel that a shape covers, (num, 1, 32, 32)."""
    radius = _uniform(bits, *RADIUS, num, 1)
    place = _uniform(bits, -1, 1, 2, num, 1) * (SIZE / 2 - 0.9 * radius)
    u, v = _grid(place, _uniform(bits, -TILT, TILT + 1, num, 1))
    return _coverage(outline(u / radius, v / radius) * radius)


def _mark(num: int, bits: np.random.PCG64) -> Tensor:
    """The share of each pixel that a small dot or stroke covers, (num, 1, 32, 32)."""
    place = _uniform(bits, -SIZE / 2, SIZE / 2, 2, num, 1)
    u, v = _grid(place, _uniform(bits, 0, 360, num, 1))
    beyond = (u.abs() - _uniform(bits, -3, 4, num, 1).clamp(min=0)).clamp(min=0)
    return _coverage(_length(beyond, v) - _uniform(bits, 0.5, 2, num, 1))


def _texture(num: int, bits: np.random.PCG64) -> Tensor:
    """What stripes, a checker board or blotches add to a colour, (num, 3, 32, 32)."""
    u, v = _grid(_uniform(bits, 0, 50, 2, num, 1), _uniform(bits, 0, 360, num, 1))
    pitch = _uniform(bits, 0.02, 0.2, num, 1)  # periods a pixel
    stripes = _wave(u * pitch)
    checker = (stripes - _wave(v * pitch)).abs()
    kind = _uniform(bits, 0, 3, num, 1)
    level = torch.where(kind < 1, stripes, torch.where(kind < 2, checker, _blotches(num, bits)))
    edges = _uniform(bits, 1, 5, num, 1)  # from soft to hard
    return ((level - 0.5) * edges).clamp(-1, 1) * _uniform(bits, -SWING, SWING, num, 3)


def _wave(phase: Tensor) -> Tensor:
    """A triangle wave of period 1 between 0 and 1."""
    return (2 * (phase - phase.floor()) - 1).abs()


def _blotches(num: int, bits: np.random.PCG64) -> Tensor:
    """Random levels between 0 and 1 on a grid of 6 x 6, interpolated, (num, 1, 32, 32)."""
    knots = 6
    levels = _uniform(bits, 0, 1, num, knots, knots).view(num, 1, knots, knots)
    place = torch.arange(SIZE, dtype=torch.float32) * ((knots - 1) / SIZE)
    knot, share = place.long(), place.frac()
    above, below = levels[:, :, knot], levels[:, :, knot + 1]
    rows = above + (below - above) * share[:, None]
    left, right = rows[..., knot], rows[..., knot + 1]
    return left + (right - left) * share


def _noise(num: int, bits: np.random.PCG64) -> Tensor:
    """Deviations with a triangular distribution, (num, 3, 32, 32)."""
    raw = bits.random_raw(num * 3 * SIZE * SIZE // 4).astype("<u8", copy=False)
    draws = torch.from_numpy(raw.view(np.uint8)).view(2, num, 3, SIZE, SIZE)
    return (draws[0].float() - draws[1]) * _uniform(bits, 0, NOISE / 255, num, 1)


def _colour(num: int, bits: np.random.PCG64) -> Tensor:
    return _uniform(bits, 0, 255, num, 3)


def _over(below: Tensor, above: Tensor, coverage: Tensor) -> Tensor:
    return below + (above - below) * coverage


def _coverage(distance: Tensor) -> Tensor:
    """Anti-aliasing: an edge is one pixel wide."""
    return (0.5 - distance).clamp(0, 1)


def _grid(place: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (num, 1, 32, 32) of the pixels around a place, in axes turned by an angle.

    Args:
        place: (2, num, 1, 1, 1) the origin, right of the picture's centre and below it.
        degrees: (num, 1, 1, 1), rounded down.
    """
    centres = torch.arange(SIZE, dtype=torch.float32) - (SIZE - 1) / 2
    x, y = centres - place[0], centres[:, None] - place[1]
    angle = degrees.floor().long() % 360
    cos, sin = COS[angle], SIN[angle]
    return x * cos + y * sin, y * cos - x * sin


def _uniform(bits: np.random.PCG64, low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers between `low` and `high`, the same for all pixels: (*shape, 1, 1)."""
    raw = bits.random_raw(prod(shape)) >> np.uint64(40)
    unit = torch.from_numpy(raw.astype(np.float32)) * 2**-24
    return (unit * (high - low) + low).view(*shape, 1, 1)
