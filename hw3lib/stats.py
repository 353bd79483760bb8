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
    if not (0 <= successes <= n and n > 0 and successes == int(successes) and n == int(n)):
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
    table = _Table.of(values)
    seeds, images = table.shape
    return table.interval(1 / seeds, 1 / images, 1 / (seeds * images), confidence)


def prediction_interval(
    masks: ArrayLike,
    images: int,
    *,
    step: float = 0.0,
    truncated: bool = False,
    confidence: float = 0.95,
) -> Interval:
    """Where the share that another training, judged on other images, prints would lie.

    A number that lies outside was not made in the same way: the interval holds the error of our
    mean, one new seed, the new images, and how the number was cut for printing. Two seeds say
    little about a third: there 95% are some 90%.

    Args:
        masks: (seeds, images) bool, or 0 and 1: right and wrong of ours, two seeds or more.
        images: on which the other one was judged.
        step: of the printed number, such as 0.01 for whole percents; 0 if it is exact.
        truncated: whether it was cut off, not rounded: then 0.93 stands for [0.93, 0.94).
        confidence: coverage.

    Raises:
        ValueError: there is one seed, or `images` or `step` make no sense.
    """
    table = _Table.of(_mask(masks))
    seeds, ours = table.shape
    if seeds < 2:
        raise ValueError("one seed does not say how much another differs; give two or more")
    if images < 1 or not 0 <= step < 1:
        raise ValueError(f"images={images}, step={step}: need 1 image or more, and 0 <= step < 1")
    new = 1 / images
    share = table.interval(1 + 1 / seeds, new + 1 / ours, new + 1 / (seeds * ours), confidence)
    # Whole images are right, so the ends move out to the next share that can be seen.
    counts = np.round([share.low * images, share.high * images], 9)  # 99.9999999 is 100
    low, high = np.clip([np.floor(counts[0]), np.ceil(counts[1])], 0, images) / images
    low, high = (_printed(float(end), step, truncated) for end in (low, high))
    return Interval(share.value, low, high, share.n)


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
    _check_confidence(confidence)
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


@dataclass(frozen=True)
class _Table:
    """A two-way table with random rows (seeds) and columns (images), and its variances."""

    values: NDArray[np.float64]
    is_mask: bool

    @classmethod
    def of(cls, values: ArrayLike) -> _Table:
        return cls(_finite(values, ndim=(2,)), np.asarray(values).dtype == bool)

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.values.shape
        return rows, columns

    def variance(self, row: float, column: float, rest: float) -> tuple[float, float]:
        """A weighted sum of the variances of rows, columns and the rest; degrees of freedom.

        An estimate that would be negative counts as 0, so that the sum is never below that of the
        rows or the columns alone.
        """
        rows, columns = self.shape
        squares, freedom = self.mean_squares()
        weights = np.array([row / columns, column / rows, rest])
        weights[:2] *= squares[:2] > squares[2]
        weights[2] -= weights[:2].sum()
        terms = weights * squares
        total = float(terms.sum())
        if total <= 0:
            return 0.0, np.inf
        # Where a small difference of large terms is left, Satterthwaite's would fall below any.
        return total, max(total**2 / float((terms**2 / freedom).sum()), min(rows, columns) - 1, 1)

    def mean_squares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean squares of rows, columns and the rest, with their degrees of freedom."""
        x, (rows, columns) = self.values, self.shape
        by_row, by_column = x.mean(1, keepdims=True), x.mean(0, keepdims=True)
        rest = x - by_row - by_column + x.mean()
        sums = [
            columns * np.square(by_row - x.mean()).sum(),
            rows * np.square(by_column - x.mean()).sum(),
            np.square(rest).sum(),
        ]
        freedom = np.array([rows - 1, columns - 1, (rows - 1) * (columns - 1)], dtype=np.float64)
        freedom = np.maximum(freedom, 1.0)  # where it is 0, so is the sum of squares
        return np.array(sums) / freedom, freedom

    def interval(self, row: float, column: float, rest: float, confidence: float) -> Interval:
        """The mean with the interval of `variance`; Wilson's for a mask, so that 0 has one too."""
        variance, freedom = self.variance(row, column, rest)
        quantile = _t_quantile(confidence, freedom)
        mean = middle = float(self.values.mean())
        if self.values.size == 1 and not self.is_mask:
            return Interval(mean, np.nan, np.nan, 1)
        square, shrink = variance, 1.0
        if self.is_mask:  # as if so many independent images had this variance
            images = mean * (1 - mean) / variance if variance else 1 / column
            middle, shrink = mean + quantile**2 / (2 * images), 1 + quantile**2 / images
            square += (quantile / (2 * images)) ** 2
        half = quantile * np.sqrt(square)
        low, high = float(middle - half) / shrink, float(middle + half) / shrink
        return Interval(mean, low, high, self.values.size)


def _printed(share: float, step: float, truncated: bool) -> float:
    """A share as it is printed, in whole steps."""
    if not step:
        return share
    steps = round(share / step, 9)  # 0.29 / 0.01 is not 29
    return float(np.floor(steps) if truncated else np.round(steps)) * step


def _t_quantile(confidence: float, freedom: float) -> float:
    """The quantile of Student's t that leaves as much above it as below its negative."""
    _check_confidence(confidence)
    return float(scipy.stats.t.ppf((1 + confidence) / 2, freedom))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: a share between 0 and 1, such as 0.95")


def _mask(values: ArrayLike) -> NDArray[np.bool_]:
    x = np.asarray(values)
    if x.dtype != bool and not np.isin(x, (0, 1)).all():
        raise ValueError(f"right and wrong are bool, or 0 and 1, not {x.dtype} such as {x.flat[0]}")
    return x.astype(bool)


def _finite(values: ArrayLike, ndim: tuple[int, ...] = (1,)) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if not x.size or not np.isfinite(x).all():
        raise ValueError(f"need one or more finite values, got {values!r}")
    if x.ndim not in ndim:
        wanted = " or ".join(f"{n}" for n in ndim)
        raise ValueError(f"values of shape {x.shape}: need an array of {wanted} dimensions")
    return x
