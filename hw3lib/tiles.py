"""Winograd's transforms of 4 x 4 tiles (Lavin and Gray 2016, F(4 x 4, 3 x 3)), compiled by numba.

With six inputs d and three taps g along an axis, the four correlations are Aᵀ [(G g) * (Bᵀ d)]: six
products where the definition takes twelve. Here are Bᵀ and Aᵀ along both axes, and their
transposes, which the gradients need. All of it is memory traffic: a tile's channels stay in the
cache of one core between the axes.

Images are (N, height, width, channels) and their points (6, 6, N, height / 4, width / 4, channels),
all float32 and contiguous.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

TWO, FOUR, FIVE, EIGHT = (np.float32(value) for value in (2, 4, 5, 8))  # ints would give float64

compiled: Any = njit(cache=True, error_model="numpy")
parallel: Any = njit(cache=True, error_model="numpy", parallel=True)


@compiled
def windows(d0, d1, d2, d3, d4, d5):
    """Bᵀ d: six inputs to six points."""
    even, odd = d4 - FOUR * d2, d3 - FOUR * d1
    outer, inner = d4 - d2, TWO * (d3 - d1)
    return (
        FOUR * d0 - FIVE * d2 + d4,
        even + odd,
        even - odd,
        outer + inner,
        outer - inner,
        FOUR * d1 - FIVE * d3 + d5,
    )


@compiled
def windows_back(p0, p1, p2, p3, p4, p5):
    """B p: six points to six inputs."""
    near, far = p1 + p2, p3 + p4
    skew, twist = p1 - p2, TWO * (p3 - p4)
    return (
        FOUR * p0,
        FOUR * (p5 - skew) - twist,
        -FIVE * p0 - FOUR * near - far,
        skew + twist - FIVE * p5,
        p0 + near + far,
        p5,
    )


@compiled
def results(p0, p1, p2, p3, p4, p5):
    """Aᵀ p: six products to four outputs."""
    near, far = p1 + p2, p3 + p4
    skew, twist = p1 - p2, p3 - p4
    return p0 + near + far, skew + TWO * twist, near + FOUR * far, skew + EIGHT * twist + p5


@compiled
def results_back(y0, y1, y2, y3):
    """A y: four outputs to six products."""
    even, odd = y0 + y2, y1 + y3
    far, twist = y0 + FOUR * y2, TWO * y1 + EIGHT * y3
    return y0, even + odd, even - odd, far + twist, far - twist, y3


@parallel
def to_windows(images, points):
    """Fill `points` from the overlapping 6 x 6 windows of `images`, padded by zeros."""
    num, height, width, channels = images.shape
    rows, columns = height // 4, width // 4
    for tile in prange(num * rows * columns):
        n, i, j = tile // (rows * columns), tile // columns % rows, tile % columns
        zero = np.zeros(channels, np.float32)
        half = np.empty((6, 6, channels), np.float32)
        for b in range(6):
            x = 4 * j + b - 1
            inside = 0 <= x < width
            d0 = images[n, 4 * i - 1, x] if inside and i > 0 else zero
            d1 = images[n, 4 * i, x] if inside else zero
            d2 = images[n, 4 * i + 1, x] if inside else zero
            d3 = images[n, 4 * i + 2, x] if inside else zero
            d4 = images[n, 4 * i + 3, x] if inside else zero
            d5 = images[n, 4 * i + 4, x] if inside and i < rows - 1 else zero
            h0, h1, h2 = half[0, b], half[1, b], half[2, b]
            h3, h4, h5 = half[3, b], half[4, b], half[5, b]
            for c in range(channels):
                h0[c], h1[c], h2[c], h3[c], h4[c], h5[c] = windows(
                    d0[c], d1[c], d2[c], d3[c], d4[c], d5[c]
                )
        for a in range(6):
            d0, d1, d2 = half[a, 0], half[a, 1], half[a, 2]
            d3, d4, d5 = half[a, 3], half[a, 4], half[a, 5]
            p0, p1, p2 = points[a, 0, n, i, j], points[a, 1, n, i, j], points[a, 2, n, i, j]
            p3, p4, p5 = points[a, 3, n, i, j], points[a, 4, n, i, j], points[a, 5, n, i, j]
            for c in range(channels):
                p0[c], p1[c], p2[c], p3[c], p4[c], p5[c] = windows(
                    d0[c], d1[c], d2[c], d3[c], d4[c], d5[c]
                )


@parallel
def from_windows(points, images):
    """Add up in `images` the windows that `points` stand for: the transpose of `to_windows`."""
    num, height, width, channels = images.shape
    rows, columns = height // 4, width // 4
    for n in prange(num):
        images[n] = np.float32(0)
        half = np.empty((6, 6, channels), np.float32)
        outside = np.empty(channels, np.float32)
        for tile in range(rows * columns):
            i, j = tile // columns, tile % columns
            for b in range(6):
                p0, p1, p2 = points[0, b, n, i, j], points[1, b, n, i, j], points[2, b, n, i, j]
                p3, p4, p5 = points[3, b, n, i, j], points[4, b, n, i, j], points[5, b, n, i, j]
                h0, h1, h2 = half[0, b], half[1, b], half[2, b]
                h3, h4, h5 = half[3, b], half[4, b], half[5, b]
                for c in range(channels):
                    h0[c], h1[c], h2[c], h3[c], h4[c], h5[c] = windows_back(
                        p0[c], p1[c], p2[c], p3[c], p4[c], p5[c]
                    )
            for a in range(6):
                y = 4 * i + a - 1
                if not 0 <= y < height:
                    continue
                p0, p1, p2 = half[a, 0], half[a, 1], half[a, 2]
                p3, p4, p5 = half[a, 3], half[a, 4], half[a, 5]
                d0 = images[n, y, 4 * j - 1] if j > 0 else outside
                d1, d2 = images[n, y, 4 * j], images[n, y, 4 * j + 1]
                d3, d4 = images[n, y, 4 * j + 2], images[n, y, 4 * j + 3]
                d5 = images[n, y, 4 * j + 4] if j < columns - 1 else outside
                for c in range(channels):
                    g0, g1, g2, g3, g4, g5 = windows_back(p0[c], p1[c], p2[c], p3[c], p4[c], p5[c])
                    d0[c] += g0
                    d1[c] += g1
                    d2[c] += g2
                    d3[c] += g3
                    d4[c] += g4
                    d5[c] += g5


@parallel
def from_results(points, images):
    """Fill the 4 x 4 tiles of `images` from the products in `points`."""
    num, height, width, channels = images.shape
    rows, columns = height // 4, width // 4
    for tile in prange(num * rows * columns):
        n, i, j = tile // (rows * columns), tile // columns % rows, tile % columns
        half = np.empty((4, 6, channels), np.float32)
        for b in range(6):
            p0, p1, p2 = points[0, b, n, i, j], points[1, b, n, i, j], points[2, b, n, i, j]
            p3, p4, p5 = points[3, b, n, i, j], points[4, b, n, i, j], points[5, b, n, i, j]
            h0, h1, h2, h3 = half[0, b], half[1, b], half[2, b], half[3, b]
            for c in range(channels):
                h0[c], h1[c], h2[c], h3[c] = results(p0[c], p1[c], p2[c], p3[c], p4[c], p5[c])
        for a in range(4):
            p0, p1, p2 = half[a, 0], half[a, 1], half[a, 2]
            p3, p4, p5 = half[a, 3], half[a, 4], half[a, 5]
            y0, y1 = images[n, 4 * i + a, 4 * j], images[n, 4 * i + a, 4 * j + 1]
            y2, y3 = images[n, 4 * i + a, 4 * j + 2], images[n, 4 * i + a, 4 * j + 3]
            for c in range(channels):
                y0[c], y1[c], y2[c], y3[c] = results(p0[c], p1[c], p2[c], p3[c], p4[c], p5[c])


@parallel
def to_results(images, points):
    """Fill `points` from the 4 x 4 tiles of `images`: the transpose of `from_results`."""
    num, height, width, channels = images.shape
    rows, columns = height // 4, width // 4
    for tile in prange(num * rows * columns):
        n, i, j = tile // (rows * columns), tile // columns % rows, tile % columns
        half = np.empty((6, 4, channels), np.float32)
        for b in range(4):
            y0, y1 = images[n, 4 * i, 4 * j + b], images[n, 4 * i + 1, 4 * j + b]
            y2, y3 = images[n, 4 * i + 2, 4 * j + b], images[n, 4 * i + 3, 4 * j + b]
            h0, h1, h2 = half[0, b], half[1, b], half[2, b]
            h3, h4, h5 = half[3, b], half[4, b], half[5, b]
            for c in range(channels):
                h0[c], h1[c], h2[c], h3[c], h4[c], h5[c] = results_back(y0[c], y1[c], y2[c], y3[c])
        for a in range(6):
            y0, y1, y2, y3 = half[a, 0], half[a, 1], half[a, 2], half[a, 3]
            p0, p1, p2 = points[a, 0, n, i, j], points[a, 1, n, i, j], points[a, 2, n, i, j]
            p3, p4, p5 = points[a, 3, n, i, j], points[a, 4, n, i, j], points[a, 5, n, i, j]
            for c in range(channels):
                p0[c], p1[c], p2[c], p3[c], p4[c], p5[c] = results_back(y0[c], y1[c], y2[c], y3[c])
