"""Intervals and comparisons; SciPy does the mathematics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval.

    `format(interval, ".3f")` gives "0.512 [0.508, 0.516]"; without an interval (n = 1) the
    estimate alone.
    """

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        if np.isnan(self.low):
            return format(self.value, spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean with Student's t interval, for a few independent values such as one a seed.

    One value has no interval: its ends are NaN.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    x = _finite(values)
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, np.nan, np.nan, 1)
    error = float(scipy.stats.sem(x))
    half = error * float(scipy.stats.t.ppf((1 + confidence) / 2, len(x) - 1))
    return Interval(mean, mean - half, mean + half, len(x))


def proportion(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """A share with its Wilson interval.

    Raises:
        ValueError: not 0 <= successes <= n, or n is 0.
    """
    result = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(successes / n, float(result.low), float(result.high), n)


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Exact p-value that two classifiers are right equally often on the same images.

    Only the images on which they differ count: under the null hypothesis each is as likely to be
    the one that is right (McNemar 1947).

    Args:
        a, b: (N,) bool, right or wrong on each image.

    Raises:
        ValueError: the lengths differ.
    """
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"shapes {first.shape} and {second.shape}: the images must be the same")
    alone = int((first & ~second).sum())
    differ = int((first ^ second).sum())
    return float(scipy.stats.binomtest(alone, differ).pvalue) if differ else 1.0


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """A statistic of many independent values with its percentile bootstrap interval.

    Args:
        values: (n,) or (n, k); rows are resampled.
        statistic: maps resampled values to a number, along axis 0.
        confidence: coverage.
        resamples: bootstrap samples.
        seed: of the resampling.
    """
    x = _finite(values)
    resampled = scipy.stats.bootstrap(
        [np.arange(len(x))],
        lambda rows: statistic(x[rows]),
        vectorized=False,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = resampled.confidence_interval
    return Interval(float(statistic(x)), float(low), float(high), len(x))


def slope(x: ArrayLike, y: ArrayLike, confidence: float = 0.95) -> Interval:
    """Slope of the least-squares line through points, with its t interval."""
    fit = scipy.stats.linregress(_finite(x), _finite(y))
    n = len(np.asarray(x))
    half = float(fit.stderr) * float(scipy.stats.t.ppf((1 + confidence) / 2, n - 2))
    return Interval(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half, n)


def log_log_slope(x: ArrayLike, y: ArrayLike, confidence: float = 0.95) -> Interval:
    """The exponent a of y = c x^a by least squares on logarithms, with its t interval."""
    return slope(np.log(_finite(x)), np.log(_finite(y)), confidence)


def chi_square(
    counts: ArrayLike, probs: ArrayLike, min_expected: float = 5.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pearson's goodness-of-fit statistic of each row of counts, with its degrees of freedom.

    The rarest cells of a row are pooled until the pool and every other cell expect at least
    `min_expected`. A row of which one cell is left has 0 degrees of freedom and statistic 0.

    Args:
        counts: (..., K) how often each of K outcomes was seen.
        probs: (..., K) their supposed probabilities; each row sums to 1.
        min_expected: smallest expected count of a cell.

    Returns:
        Statistics and degrees of freedom, (...) each. `scipy.stats.chi2.sf` gives the p-values.
    """
    observed, p = np.asarray(counts, dtype=np.float64), np.asarray(probs, dtype=np.float64)
    expected = p * observed.sum(-1, keepdims=True)
    order = np.argsort(expected, axis=-1)
    observed = np.take_along_axis(observed, order, -1)
    expected = np.take_along_axis(expected, order, -1)
    rare = (expected < min_expected).sum(-1)
    needed = (expected.cumsum(-1) < min_expected).sum(-1) + 1
    pooled = np.where(rare > 0, np.maximum(rare, needed), 0)
    in_pool = np.arange(p.shape[-1]) < pooled[..., None]
    terms = (observed - expected) ** 2 / np.where(in_pool, 1.0, expected)
    excess = np.where(in_pool, observed - expected, 0.0).sum(-1)
    total = np.where(in_pool, expected, 0.0).sum(-1)
    statistic = np.where(in_pool, 0.0, terms).sum(-1) + excess**2 / np.where(pooled, total, 1.0)
    freedom = np.maximum(p.shape[-1] - pooled + (pooled > 0) - 1, 0)
    return np.where(freedom > 0, statistic, 0.0), freedom


def _finite(values: ArrayLike) -> np.ndarray[Any, np.dtype[np.float64]]:
    x = np.asarray(values, dtype=np.float64)
    if not len(x) or not np.isfinite(x).all():
        raise ValueError(f"need one or more finite values, got {values!r}")
    return x
