"""Winograd's transforms of 4 x 4 tiles (Lavin and Gray 2016, F(4 x 4, 3 x 3)), compiled by numba.

With six inputs d and three taps g along an axis, the four correlations are Aᵀ [(G g) * (Bᵀ d)]: six
products where the definition takes twelve. Here are Bᵀ and Aᵀ along both axes, and their
transposes, which the gradients need. All of it is memory traffic: a tile's channels stay in the
cache of one core between the axes. Channels are always taken by whole indices, since numba knows
only of such rows that they are contiguous.

Images are (N, height, width, channels) and their points (6, 6, tiles, channels), all float32 and
contiguous; tiles are counted row by row, image after image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

TWO, FOUR, FIVE, EIGHT = (np.float32(value) for value in (2, 4, 5, 8))  # ints would give float64

compiled: Any = njit(cache=True, error_model="numpy", inline="always")
parallel: Any = njit(cache=True, error_model="numpy", parallel=True)


@compiled
def windows(d0, d1, d2, d3, d4, d5, p0, p1, p2, p3, p4, p5):
    """Bᵀ d of all channels: six inputs to six points."""
    for c in range(len(d0)):
        even, odd = d4[c] - FOUR * d2[c], d3[c] - FOUR * d1[c]
        outer, inner = d4[c] - d2[c], TWO * (d3[c] - d1[c])
        p0[c] = FOUR * d0[c] - FIVE * d2[c] + d4[c]
        p1[c] = even + odd
        p2[c] = even - odd
        p3[c] = outer + inner
        p4[c] = outer - inner
        p5[c] = FOUR * d1[c] - FIVE * d3[c] + d5[c]


@compiled
def windows_back(p0, p1, p2, p3, p4, p5, d0, d1, d2, d3, d4, d5):
    """B p of all channels: six points to six inputs."""
    for c in range(len(p0)):
        near, far = p1[c] + p2[c], p3[c] + p4[c]
        skew, twist = p1[c] - p2[c], TWO * (p3[c] - p4[c])
        d0[c] = FOUR * p0[c]
        d1[c] = FOUR * (p5[c] - skew) - twist
        d2[c] = -FIVE * p0[c] - FOUR * near - far
        d3[c] = skew + twist - FIVE * p5[c]
        d4[c] = p0[c] + near + far
        d5[c] = p5[c]


@compiled
def results(p0, p1, p2, p3, p4, p5, y0, y1, y2, y3):
    """Aᵀ p of all channels: six products to four outputs."""
    for c in range(len(p0)):
        near, far = p1[c] + p2[c], p3[c] + p4[c]
        skew, twist = p1[c] - p2[c], p3[c] - p4[c]
        y0[c] = p0[c] + near + far
        y1[c] = skew + TWO * twist
        y2[c] = near + FOUR * far
        y3[c] = skew + EIGHT * twist + p5[c]


@compiled
def results_back(y0, y1, y2, y3, p0, p1, p2, p3, p4, p5):
    """A y of all channels: four outputs to six products."""
    for c in range(len(y0)):
        even, odd = y0[c] + y2[c], y1[c] + y3[c]
        far, twist = y0[c] + FOUR * y2[c], TWO * y1[c] + EIGHT * y3[c]
        p0[c] = y0[c]
        p1[c] = even + odd
        p2[c] = even - odd
        p3[c] = far + twist
        p4[c] = far - twist
        p5[c] = y3[c]


@compiled
def place(tile, images):
    """Image, and row and column of the first pixel, of a tile."""
    rows, columns = images.shape[1] // 4, images.shape[2] // 4
    return tile // (rows * columns), 4 * (tile // columns % rows), 4 * (tile % columns)


@parallel
def to_windows(images, points):
    """Fill `points` from the overlapping 6 x 6 windows of `images`, padded by zeros."""
    _, height, width, channels = images.shape
    for tile in prange(points.shape[2]):
        n, top, left = place(tile, images)
        half = np.empty((6, 6, channels), np.float32)
        zero = np.zeros(channels, np.float32)
        for b in range(6):
            x = left + b - 1
            inside = 0 <= x < width
            d0 = images[n, top - 1, x] if inside and top > 0 else zero
            d1 = images[n, top, x] if inside else zero
            d2 = images[n, top + 1, x] if inside else zero
            d3 = images[n, top + 2, x] if inside else zero
            d4 = images[n, top + 3, x] if inside else zero
            d5 = images[n, top + 4, x] if inside and top + 4 < height else zero
            windows(
                d0, d1, d2, d3, d4, d5,
                half[0, b], half[1, b], half[2, b], half[3, b], half[4, b], half[5, b],
            )  # fmt: skip
        for a in range(6):
            h, p = half[a], points[a]
            windows(
                h[0], h[1], h[2], h[3], h[4], h[5],
                p[0, tile], p[1, tile], p[2, tile], p[3, tile], p[4, tile], p[5, tile],
            )  # fmt: skip


@parallel
def from_windows(points, images):
    """Add up in `images` the windows that `points` stand for: the transpose of `to_windows`."""
    num, height, width, channels = images.shape
    tiles = points.shape[2] // num
    for n in prange(num):
        images[n] = np.float32(0)
        half = np.empty((6, 6, channels), np.float32)
        line = np.empty((6, channels), np.float32)
        for tile in range(n * tiles, (n + 1) * tiles):
            _, top, left = place(tile, images)
            for b in range(6):
                windows_back(
                    points[0, b, tile], points[1, b, tile], points[2, b, tile],
                    points[3, b, tile], points[4, b, tile], points[5, b, tile],
                    half[0, b], half[1, b], half[2, b], half[3, b], half[4, b], half[5, b],
                )  # fmt: skip
            for a in range(6):
                y = top + a - 1
                if not 0 <= y < height:
                    continue
                h = half[a]
                windows_back(
                    h[0], h[1], h[2], h[3], h[4], h[5],
                    line[0], line[1], line[2], line[3], line[4], line[5],
                )  # fmt: skip
                first, last = max(left - 1, 0), min(left + 5, width)
                images[n, y, first:last] += line[first - left + 1 : last - left + 1]


@parallel
def from_results(points, images):
    """Fill the 4 x 4 tiles of `images` from the products in `points`."""
    channels = images.shape[3]
    for tile in prange(points.shape[2]):
        n, top, left = place(tile, images)
        half = np.empty((4, 6, channels), np.float32)
        for b in range(6):
            results(
                points[0, b, tile], points[1, b, tile], points[2, b, tile],
                points[3, b, tile], points[4, b, tile], points[5, b, tile],
                half[0, b], half[1, b], half[2, b], half[3, b],
            )  # fmt: skip
        for a in range(4):
            h, line = half[a], images[n, top + a]
            results(
                h[0], h[1], h[2], h[3], h[4], h[5],
                line[left], line[left + 1], line[left + 2], line[left + 3],
            )  # fmt: skip


@parallel
def to_results(images, points):
    """Fill `points` from the 4 x 4 tiles of `images`: the transpose of `from_results`."""
    channels = images.shape[3]
    for tile in prange(points.shape[2]):
        n, top, left = place(tile, images)
        half = np.empty((6, 4, channels), np.float32)
        for b in range(4):
            x = left + b
            results_back(
                images[n, top, x], images[n, top + 1, x], images[n, top + 2, x],
                images[n, top + 3, x],
                half[0, b], half[1, b], half[2, b], half[3, b], half[4, b], half[5, b],
            )  # fmt: skip
        for a in range(6):
            h, p = half[a], points[a]
            results_back(
                h[0], h[1], h[2], h[3],
                p[0, tile], p[1, tile], p[2, tile], p[3, tile], p[4, tile], p[5, tile],
            )  # fmt: skip
