"""Intervals and comparisons; SciPy does the mathematics.

A confidence is a share between 0 and 1, such as 0.95; any other raises a ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval.

    `format(interval, ".3f")` gives "0.512 [0.508, 0.516]"; without an interval (n = 1) the
    estimate alone.

    Raises:
        ValueError: the ends are in the wrong order, or one of them is missing. `value in interval`
            raises it, too, where both are missing: nothing is known, so neither answer is true.

    Example:
        >>> f"{Interval(0.5, 0.4, 0.6, n=20):.2f}"
        '0.50 [0.40, 0.60]'
    """

    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        if not (self.low <= self.high or (np.isnan(self.low) and np.isnan(self.high))):
            raise ValueError(f"an interval cannot go from {self.low} to {self.high}")

    @property
    def known(self) -> bool:
        """Whether there is an interval, not an estimate alone."""
        return not np.isnan(self.low)

    def __format__(self, spec: str) -> str:
        if not self.known:
            return format(self.value, spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __contains__(self, value: float) -> bool:
        if not self.known:
            raise ValueError(f"{self.value} has no interval (n = {self.n}), so nothing lies in it")
        return self.low <= value <= self.high


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean with Student's t interval, for a few independent values such as one a seed.

    One value has no interval: its ends are NaN.

    Raises:
        ValueError: there are no values, or one is not finite.

    Example:
        >>> f"{mean_interval([1.0, 2.0, 3.0]):.2f}"
        '2.00 [-0.48, 4.48]'
    """
    x = _finite(values)
    _check_confidence(confidence)
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, np.nan, np.nan, 1)
    half = float(scipy.stats.sem(x)) * _t_quantile(confidence, len(x) - 1)
    return Interval(mean, mean - half, mean + half, len(x))


def proportion(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """A share with its Wilson interval.

    Raises:
        ValueError: not 0 <= successes <= n, n is 0, or they are not whole numbers.

    Example:
        >>> f"{proportion(90, 100):.3f}"
        '0.900 [0.826, 0.945]'
    """
    _check_confidence(confidence)
    whole = float(successes).is_integer() and float(n).is_integer()
    if not (whole and 0 <= successes <= n and n > 0):
        raise ValueError(f"{successes} of {n} is no share: need whole numbers, 0 <= successes <= n")
    result = scipy.stats.binomtest(int(successes), int(n)).proportion_ci(confidence, "wilson")
    return Interval(successes / n, float(result.low), float(result.high), int(n))


def difference(a: Interval, b: Interval) -> Interval:
    """a - b of two independent quantities, with the interval that follows from theirs.

    The ends are squared and added on each side (MOVER, Zou & Donner 2008). For two proportions
    with Wilson intervals this is Newcombe's interval (1998, method 10).

    Raises:
        ValueError: one of them has no interval.

    Example:
        >>> f"{difference(proportion(90, 100), proportion(80, 100)):.2f}"
        '0.10 [0.00, 0.20]'
    """
    for one in (a, b):
        if not one.known:
            raise ValueError(
                f"{one.value} has no interval (n = {one.n}), so neither has a difference"
            )
    value = a.value - b.value
    below = np.hypot(a.value - a.low, b.high - b.value)
    above = np.hypot(a.high - a.value, b.value - b.low)
    return Interval(value, float(value - below), float(value + above), a.n + b.n)


def two_way_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean over seeds and images, with the interval that holds the error over both.

    All seeds are judged on the same images, so neither the spread over seeds nor that over images
    holds the other. Their variances are those of a two-way table with random rows and columns; the
    degrees of freedom are Satterthwaite's (1946). Resampling rows and columns instead (Owen 2007)
    gives the same for many seeds, but for five its percentiles cover too rarely.

    Args:
        values: (seeds, images). Masks of right and wrong (bool) get a Wilson interval with as many
            images as their variance stands for; differences of two masks, or other numbers, a t
            interval. With one seed it is the interval over images of that network alone.
        confidence: coverage.

    Raises:
        ValueError: the table is not of this shape, or a value is not finite.
    """
    x, is_mask = _finite(values, ndim=(2,)), np.asarray(values).dtype == bool
    mean, by_seed, by_image = float(x.mean()), x.mean(1, keepdims=True), x.mean(0, keepdims=True)
    rest = x - by_seed - by_image + mean
    seeds, images = x.shape
    # A source that does not vary has one degree of freedom here, and a mean square of 0.
    freedom = np.maximum([seeds - 1, images - 1, (seeds - 1) * (images - 1)], 1)
    sums = [images * (by_seed - mean) ** 2, seeds * (by_image - mean) ** 2, rest**2]
    squares = np.array([part.sum() for part in sums]) / freedom
    # A variance of seeds or images whose estimate would be negative counts as 0, and so does one
    # that rounding alone makes positive.
    kept = squares[:2] > squares[2] * (1 + 1e-9)
    terms = squares * [*kept, 1 - kept.sum()] / x.size
    variance, degrees = float(terms.sum()), np.inf
    if variance:  # Satterthwaite's are too few where a small difference of large terms is left
        degrees = max(variance**2 / (terms**2 / freedom).sum(), min(seeds, images) - 1, 1)
    quantile = _t_quantile(confidence, degrees)
    if x.size == 1 and not is_mask:
        return Interval(mean, np.nan, np.nan, 1)
    middle, square, shrink = mean, variance, 1.0
    if is_mask:  # Wilson's, as if so many independent images had this variance: 0 has one, too
        n = mean * (1 - mean) / variance if variance else images
        middle, shrink = mean + quantile**2 / (2 * n), 1 + quantile**2 / n
        square += (quantile / (2 * n)) ** 2
    half = quantile * np.sqrt(square)
    return Interval(mean, float(middle - half) / shrink, float(middle + half) / shrink, x.size)


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
        resamples, seed: bootstrap samples, and the seed that they are drawn from.

    Raises:
        ValueError: there is one value or none, or the statistic of some sample is not finite.

    Example:
        >>> f"{bootstrap_interval([1.0, 2.0, 3.0, 4.0], np.median):.1f}"
        '2.5 [1.0, 4.0]'
    """
    x = _finite(values, ndim=(1, 2))
    _check_confidence(confidence)
    if len(x) < 2 or resamples < 1:
        raise ValueError(f"{len(x)} values and {resamples} resamples: need at least 2 and 1")

    def of(rows: NDArray[np.int64]) -> Any:
        if not np.isfinite(found := statistic(x[rows])):
            raise ValueError(f"the statistic of some sample of these values is {found}")
        return found

    rows = np.arange(len(x))
    resampled = scipy.stats.bootstrap(
        [rows],
        of,
        vectorized=False,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = map(float, resampled.confidence_interval)
    return Interval(float(of(rows)), low, high, len(x))


def slope(x: ArrayLike, y: ArrayLike, confidence: float = 0.95) -> Interval:
    """Slope of the least-squares line through points, with its t interval.

    Raises:
        ValueError: there are fewer than three points, which leave no error to estimate, or all
            have the same x, or there are not as many x as y.
    """
    across, up = _finite(x), _finite(y)
    if len(across) != len(up) or len(up) < 3 or np.ptp(across) == 0:
        raise ValueError(
            f"{len(across)} x and {len(up)} y: a slope with its interval needs three points or "
            "more, not all of the same x"
        )
    fit = scipy.stats.linregress(across, up)
    half = float(fit.stderr) * _t_quantile(confidence, len(up) - 2)
    return Interval(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half, len(up))


def log_log_slope(x: ArrayLike, y: ArrayLike, confidence: float = 0.95) -> Interval:
    """The exponent a of y = c x^a by least squares on logarithms, with its t interval.

    Raises:
        ValueError: a value is not positive; else as `slope`.

    Example:
        >>> round(log_log_slope([1, 10, 100], [1.0, 0.1, 0.01]).value, 6)
        -1.0
    """
    across, up = _finite(x), _finite(y)
    if not (across > 0).all() or not (up > 0).all():
        raise ValueError("only positive values have logarithms; use `slope` for others")
    return slope(np.log(across), np.log(up), confidence)


FEWEST_EXPECTED = 5.0
"""Counts that a cell of a chi-square test has to expect; rarer ones are pooled."""


def chi_square(
    counts: ArrayLike, probs: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pearson's goodness-of-fit statistic of each row of counts, with its degrees of freedom.

    The rarest cells of a row are pooled until the pool and every other cell expect at least
    `FEWEST_EXPECTED`. A row of which one cell is left has 0 degrees of freedom and statistic 0.

    Args:
        counts: (..., K) how often each of K outcomes was seen.
        probs: (..., K) their supposed probabilities; each row sums to 1.

    Returns:
        Statistics and degrees of freedom, (...) each. `scipy.stats.chi2.sf` gives the p-values.

    Raises:
        ValueError: the shapes differ, a count is negative, or a row is no distribution.
    """
    observed, p = np.asarray(counts, dtype=np.float64), np.asarray(probs, dtype=np.float64)
    if observed.shape != p.shape or not (observed >= 0).all():
        shapes = f"{observed.shape} and probabilities {p.shape}"
        raise ValueError(f"counts {shapes}: need the same shape, and no negative or missing count")
    if not ((p >= 0).all() and np.allclose(p.sum(-1), 1, atol=1e-6)):
        raise ValueError("the probabilities of each row must be 0 or more, and sum to 1")
    expected = p * observed.sum(-1, keepdims=True)
    order = np.argsort(expected, axis=-1)
    observed = np.take_along_axis(observed, order, -1)
    expected = np.take_along_axis(expected, order, -1)
    rare = (expected < FEWEST_EXPECTED).sum(-1)
    needed = (expected.cumsum(-1) < FEWEST_EXPECTED).sum(-1) + 1
    pooled = np.where(rare > 0, np.maximum(rare, needed), 0)
    in_pool = np.arange(p.shape[-1]) < pooled[..., None]
    terms = (observed - expected) ** 2 / np.where(in_pool, 1.0, expected)
    excess = np.where(in_pool, observed - expected, 0.0).sum(-1)
    total = np.where(in_pool, expected, 0.0).sum(-1)
    statistic = np.where(in_pool, 0.0, terms).sum(-1) + excess**2 / np.where(total > 0, total, 1.0)
    freedom = np.maximum(p.shape[-1] - pooled + (pooled > 0) - 1, 0)
    return np.where(freedom > 0, statistic, 0.0), freedom


def _t_quantile(confidence: float, freedom: float) -> float:
    """The quantile of Student's t that leaves as much above it as below its negative."""
    _check_confidence(confidence)
    return float(scipy.stats.t.ppf((1 + confidence) / 2, freedom))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: a share between 0 and 1, such as 0.95")


def _finite(values: ArrayLike, ndim: tuple[int, ...] = (1,)) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if not x.size or not np.isfinite(x).all():
        raise ValueError(f"need one or more finite values, got {values!r}")
    if x.ndim not in ndim:
        wanted = " or ".join(f"{n}" for n in ndim)
        raise ValueError(f"values of shape {x.shape}: need an array of {wanted} dimensions")
    return x
