"""Distances between two sets of images, on a network's features (questions 1.9 and 1.11).

Arrays in, numbers out. Both distances are 0 for equal distributions. Their intervals come from
cutting both sets into blocks: each function that ends in `_blocks` returns one value a block, the
mean of which is the estimate. So `hw3lib.stats.mean_interval` gives its interval, and also that of
a difference, if two sets of samples were made from the same random numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hw3lib.experiments.base import Floats


def kernel_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Unbiased squared kernel distance of features (N, D) and (M, D) (Binkowski et al. 2018).

    The kernel is scikit-learn's polynomial one, (x.y / D + 1)^3. Unbiased means that the distance
    may come out slightly negative.

    Raises:
        ValueError: a set has fewer than two rows.
    """
    from sklearn.metrics.pairwise import polynomial_kernel

    x, y = _features(x), _features(y)
    within = _off_diagonal_mean(polynomial_kernel(x)) + _off_diagonal_mean(polynomial_kernel(y))
    return within - 2 * float(polynomial_kernel(x, y).mean())


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets of features, (N, D) and (M, D).

    `|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))` (Heusel et al. 2017). It is biased upwards
    for few rows.

    Raises:
        ValueError: a set has fewer than two rows.
    """
    x, y = _features(x), _features(y)
    shift = x.mean(0) - y.mean(0)
    root_x, root_y = _covariance_root(x), _covariance_root(y)
    # tr (C_x C_y)^(1/2) is the sum of the singular values of the product of the roots.
    common = np.linalg.svd(root_x.T @ root_y, compute_uv=False).sum()
    return float(shift @ shift + (root_x**2).sum() + (root_y**2).sum() - 2 * common)


def kernel_distance_blocks(x: ArrayLike, y: ArrayLike, blocks: int) -> Floats:
    """The kernel distance of each pair of blocks, (blocks,): independent and unbiased."""
    parts = zip(_blocks(x, blocks), _blocks(y, blocks), strict=True)
    return np.array([kernel_distance(a, b) for a, b in parts])


def frechet_distance_blocks(x: ArrayLike, y: ArrayLike, blocks: int) -> Floats:
    """Jackknife values of the Fréchet distance, (blocks,).

    A block by itself is too small to estimate a covariance, so each value compares the distance of
    everything with the distance of all but one block. Their mean has lost the 1/N part of the bias.
    """
    xs, ys = _blocks(x, blocks), _blocks(y, blocks)
    whole = frechet_distance(np.concatenate(xs), np.concatenate(ys))
    without = [
        frechet_distance(np.concatenate(xs[:i] + xs[i + 1 :]), np.concatenate(ys[:i] + ys[i + 1 :]))
        for i in range(blocks)
    ]
    return blocks * whole - (blocks - 1) * np.array(without)


def _features(x: ArrayLike) -> Floats:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"features have shape {values.shape}; two or more rows (N, D) are needed")
    return values


def _blocks(x: ArrayLike, blocks: int) -> list[Floats]:
    """Equal blocks of the rows; rows that are left over are not used."""
    values = _features(x)
    size = len(values) // blocks
    if blocks < 2 or size < 2:
        raise ValueError(f"{len(values)} rows do not make {blocks} blocks of 2 or more")
    return np.split(values[: size * blocks], blocks)


def _off_diagonal_mean(k: Floats) -> float:
    n = len(k)
    return float((k.sum() - np.trace(k)) / (n * (n - 1)))


def _covariance_root(x: Floats) -> Floats:
    """A matrix R (D, D) with R R^T = the covariance of the rows of x."""
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    return vectors * np.sqrt(np.maximum(values, 0))
