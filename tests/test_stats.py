"""Intervals cover as often as they say, and agree with closed forms."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from hw3lib import stats


def test_the_mean_interval_covers_at_its_rate():
    rng = np.random.default_rng(0)
    covered = [0.0 in stats.mean_interval(rng.normal(size=5)) for _ in range(4000)]
    assert np.mean(covered) == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 4000))


def test_one_value_has_no_interval():
    one = stats.mean_interval([0.5])
    assert (one.value, one.n) == (0.5, 1)
    assert np.isnan([one.low, one.high]).all()
    assert f"{one:.2f}" == "0.50"


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_wilson_interval_holds_its_share_and_stays_between_0_and_1(counts):
    k, n = counts
    share = stats.proportion(k, n)
    assert share.value == k / n
    assert -1e-12 <= share.low <= share.value + 1e-12
    assert share.value - 1e-12 <= share.high <= 1 + 1e-12
    z = 1.959963984540054  # Wilson (1927): the roots of (p - k/n)^2 = z^2 p (1 - p) / n
    for p in (share.low, share.high):
        assert (p - k / n) ** 2 == pytest.approx(z**2 * p * (1 - p) / n, abs=1e-9)


def test_the_bootstrap_agrees_with_the_t_interval_on_many_values():
    values = np.random.default_rng(1).normal(3, 2, size=2000)
    boot, exact = stats.bootstrap_interval(values), stats.mean_interval(values)
    assert boot.value == pytest.approx(exact.value)
    assert boot.low == pytest.approx(exact.low, abs=0.02)
    assert boot.high == pytest.approx(exact.high, abs=0.02)
    assert boot == stats.bootstrap_interval(values)


@given(st.floats(-3, 3), st.floats(0.1, 10))
def test_the_slope_of_a_power_law_is_its_exponent(exponent, factor):
    x = np.array([1.0, 10, 100, 1000])
    slope = stats.log_log_slope(x, factor * x**exponent)
    assert slope.value == pytest.approx(exponent, abs=1e-6)


def test_an_interval_prints_with_its_ends():
    assert f"{stats.Interval(0.5, 0.4, 0.6, 5):.2f}" == "0.50 [0.40, 0.60]"


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_no_interval_without_finite_values(values):
    with pytest.raises(ValueError, match="finite"):
        stats.mean_interval(values)


def test_chi_square_is_scipys_where_nothing_is_rare():
    counts, probs = np.array([18.0, 22, 60]), np.array([0.2, 0.3, 0.5])
    statistic, freedom = stats.chi_square(counts, probs)
    assert statistic == pytest.approx(scipy.stats.chisquare(counts, 100 * probs).statistic)
    assert freedom == 2


def test_chi_square_pools_rare_cells_until_they_expect_enough():
    counts, probs = np.array([3, 1, 6, 90]), np.array([0.02, 0.02, 0.06, 0.9])
    # 2 + 2 expected are still too few, so the next one joins them: 10 of 10.
    statistic, freedom = stats.chi_square(counts, probs)
    assert statistic == pytest.approx(0)
    assert freedom == 1


@given(st.integers(0, 1000))
def test_chi_square_does_not_depend_on_the_order_of_cells_or_rows(seed):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(6, 0.3), size=4)
    counts = rng.multinomial(50, probs)
    cells, rows = rng.permutation(6), rng.permutation(4)
    one = stats.chi_square(counts, probs)
    other = stats.chi_square(counts[rows][:, cells], probs[rows][:, cells])
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a[rows], b, atol=1e-9)


def test_a_row_of_one_certain_outcome_has_nothing_to_test():
    statistic, freedom = stats.chi_square([[50, 0, 0]], [[1.0, 0.0, 0.0]])
    assert statistic.tolist() == [0]
    assert freedom.tolist() == [0]


def test_p_values_of_a_true_hypothesis_are_uniform():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(16), size=2000)
    statistic, freedom = stats.chi_square(rng.multinomial(1000, probs), probs)
    p = scipy.stats.chi2.sf(statistic, freedom)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001
    wrong, freedom = stats.chi_square(rng.multinomial(1000, probs[:, ::-1]), probs)
    assert np.median(scipy.stats.chi2.sf(wrong, freedom)) < 1e-6


def test_mcnemar_counts_the_images_on_which_two_classifiers_differ():
    a = np.array([True] * 9 + [False] * 1 + [True] * 50 + [False] * 40)
    b = np.array([False] * 9 + [True] * 1 + [True] * 50 + [False] * 40)
    assert stats.mcnemar(a, b) == pytest.approx(2 * (1 + 10) / 2**10)  # binomial tails by hand
    assert stats.mcnemar(b, a) == stats.mcnemar(a, b)
    assert stats.mcnemar(a, a) == 1


def test_mcnemar_is_calibrated_for_equal_classifiers():
    rng = np.random.default_rng(0)
    pairs = rng.random((2, 400, 200)) < 0.7
    small = [stats.mcnemar(a, b) < 0.05 for a, b in zip(*pairs, strict=True)]
    assert 0.005 < np.mean(small) < 0.06  # exact tests err on the safe side


def test_mcnemar_refuses_other_images():
    with pytest.raises(ValueError, match="must be the same"):
        stats.mcnemar([True, False], [True])
