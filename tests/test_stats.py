"""Intervals cover as often as they say, and agree with closed forms."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

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


def test_the_bootstrap_resamples_rows_and_needs_a_finite_statistic():
    pairs = np.random.default_rng(0).normal(size=(200, 2))
    found = stats.bootstrap_interval(pairs, lambda rows: np.corrcoef(rows.T)[0, 1])
    assert found.value == np.corrcoef(pairs.T)[0, 1]
    assert found.low < found.value < found.high
    with pytest.raises(ValueError, match="statistic of some sample of these values is nan"):
        stats.bootstrap_interval([1.0, 2], lambda x: np.nan if np.ptp(x) == 0 else 1.0)


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


@pytest.mark.filterwarnings("error")
def test_a_row_without_counts_has_nothing_to_test():
    statistic, freedom = stats.chi_square([[0, 0], [5, 5]], [[0.5, 0.5], [0.5, 0.5]])
    assert statistic.tolist() == [0, 0]
    assert freedom.tolist() == [0, 1]


def test_p_values_of_a_true_hypothesis_are_uniform():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(16), size=2000)
    statistic, freedom = stats.chi_square(rng.multinomial(1000, probs), probs)
    p = scipy.stats.chi2.sf(statistic, freedom)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001
    wrong, freedom = stats.chi_square(rng.multinomial(1000, probs[:, ::-1]), probs)
    assert np.median(scipy.stats.chi2.sf(wrong, freedom)) < 1e-6


# Seeds and images at once


def right_and_wrong(rng, seeds, images, level, by_seed, by_image):
    """Masks of networks and images that differ, as logits of being right, and their true share."""
    network, image = rng.normal(0, by_seed, (seeds, 1)), rng.normal(0, by_image, (1, images))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    share = expit(level + np.hypot(by_seed, by_image) * nodes) @ weights / weights.sum()
    return rng.random((seeds, images)) < expit(level + network + image), share


NETWORKS = {
    "seeds differ": (5, 400, 1.0, 0.5, 1.0),
    "images differ": (5, 400, 1.0, 0.0, 3.0),
    "both": (3, 400, 2.0, 0.1, 2.0),
    "hardly any is right": (5, 400, -5.0, 0.2, 1.0),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_the_two_way_interval_covers_at_its_rate(case):
    rng, repeats = np.random.default_rng(0), 500
    covered = 0
    for _ in range(repeats):
        masks, share = right_and_wrong(rng, *NETWORKS[case])
        covered += share in stats.two_way_interval(masks)
    # Three standard errors of the count, and two points for few seeds and a discrete share.
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / repeats) - 0.02 < covered / repeats < 0.99


def test_neither_spread_alone_holds_the_error_over_both():
    rng, repeats = np.random.default_rng(1), 400
    over_seeds, over_images, over_both = 0, 0, 0
    for _ in range(repeats):
        masks, share = right_and_wrong(rng, 5, 300, 1.0, 0.2, 3.0)
        over_seeds += share in stats.mean_interval(masks.mean(1))
        over_images += share in stats.mean_interval(masks[0])
        over_both += share in stats.two_way_interval(masks)
    assert over_seeds / repeats < 0.85
    assert over_images / repeats < 0.93
    assert over_both / repeats > 0.93


def test_the_two_way_interval_is_resamplings_where_there_are_many_seeds():
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1, (60, 1)) + rng.normal(0, 2, (1, 80)) + rng.normal(0, 1, (60, 80))
    rows, columns = rng.integers(60, size=(2000, 60, 1)), rng.integers(80, size=(2000, 1, 80))
    means = [values[i, j].mean() for i, j in zip(rows, columns, strict=True)]
    low, high = np.quantile(means, [0.025, 0.975])
    ours = stats.two_way_interval(values)
    assert ours.value == values.mean()
    assert ours.high - ours.low == pytest.approx(high - low, rel=0.08)


@given(st.integers(0, 10_000), st.floats(0.5, 0.99))
def test_with_one_factor_the_two_way_interval_is_students(seed, confidence):
    x = np.random.default_rng(seed).normal(size=6)
    expected = stats.mean_interval(x, confidence)
    for table in (x[None], x[:, None], np.tile(x, (4, 1)), np.tile(x, (4, 1)).T):
        found = stats.two_way_interval(table, confidence)
        assert [found.value, found.low, found.high] == pytest.approx(
            [expected.value, expected.low, expected.high]
        )


@given(st.integers(0, 10_000))
def test_seeds_that_differ_less_than_chance_add_nothing(seed):
    image, rest = np.random.default_rng(seed).normal(size=(2, 30))
    image, rest = 3 * image, rest - rest.mean()  # so that both seeds have the same mean
    ours = stats.two_way_interval([image + rest, image - rest])
    expected = stats.mean_interval(image)
    assert [ours.low, ours.high] == pytest.approx([expected.low, expected.high])


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 6))
def test_seeds_and_images_are_treated_alike(seed, rows, columns):
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    shuffled = values[::-1, ::-1].T
    ours, other = stats.two_way_interval(values), stats.two_way_interval(shuffled)
    assert [ours.low, ours.high] == pytest.approx([other.low, other.high])


TIED = [
    ["01011010", "10111101", "00001110"],  # the mean squares of seeds and of the rest are equal
    ["1110101", "0110001", "0111111", "1101100"],  # all three are
]


@pytest.mark.parametrize("rows", TIED)
def test_the_order_of_images_does_not_matter_where_rounding_would_decide(rows):
    masks, rng = np.array([[*row] for row in rows]) == "1", np.random.default_rng(0)
    orders = [rng.permutation(masks.shape[1]) for _ in range(20)]
    ends = [(i.low, i.high) for i in (stats.two_way_interval(masks[:, order]) for order in orders)]
    np.testing.assert_allclose(ends, [ends[0]] * 20, rtol=1e-9)


@given(st.integers(1, 5), st.integers(1, 60), st.booleans())
def test_networks_that_all_do_the_same_have_the_wilson_interval_of_their_images(s, n, right):
    ours = stats.two_way_interval(np.full((s, n), right))
    wilson = stats.proportion(n * right, n)
    assert [ours.low, ours.high] == pytest.approx([wilson.low, wilson.high], abs=1e-9)


def test_a_mask_of_one_network_has_nearly_the_wilson_interval_of_its_images():
    mask = np.arange(2500) < 700
    ours, wilson = stats.two_way_interval(mask[None]), stats.proportion(700, 2500)
    assert [ours.low, ours.high] == pytest.approx([wilson.low, wilson.high], abs=2e-5)


NEWCOMBE = [  # Newcombe (1998), table II, method 10
    ((56, 70), (48, 80), (0.0524, 0.3339)),
    ((9, 10), (3, 10), (0.1705, 0.8090)),
    ((6, 7), (2, 7), (0.0582, 0.8062)),
    ((5, 56), (0, 29), (-0.0381, 0.1926)),
    ((0, 10), (0, 20), (-0.1611, 0.2775)),
    ((10, 10), (0, 10), (0.6075, 1.0000)),
]


@pytest.mark.parametrize(("first", "second", "ends"), NEWCOMBE)
def test_the_difference_of_two_shares_is_newcombes(first, second, ends):
    found = stats.difference(stats.proportion(*first), stats.proportion(*second))
    assert (found.low, found.high) == pytest.approx(ends, abs=6e-5)
    turned = stats.difference(stats.proportion(*second), stats.proportion(*first))
    assert (-turned.high, -turned.low) == pytest.approx((found.low, found.high))


def test_the_difference_of_two_shares_covers_at_its_rate():
    """Summed over all outcomes of two binomials, not simulated."""
    (n, p), (m, q) = (30, 0.8), (40, 0.55)
    chance = np.outer(
        scipy.stats.binom.pmf(range(n + 1), n, p), scipy.stats.binom.pmf(range(m + 1), m, q)
    )
    shares = [[stats.proportion(k, size) for k in range(size + 1)] for size in (n, m)]
    covered = [[p - q in stats.difference(a, b) for b in shares[1]] for a in shares[0]]
    assert (chance * covered).sum() == pytest.approx(0.95, abs=0.01)


def test_the_difference_of_two_means_is_welchs_for_many_values():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 400), rng.normal(0, 2, 500)
    found = stats.difference(stats.mean_interval(a), stats.mean_interval(b))
    welch = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high), abs=2e-3)


# What is not known is not claimed

ONE = stats.mean_interval([0.5])
INTERVALS = {
    "mean": lambda confidence: stats.mean_interval([1.0, 2, 4], confidence),
    "share": lambda confidence: stats.proportion(3, 7, confidence),
    "slope": lambda confidence: stats.slope([1.0, 2, 3], [1.0, 2, 4], confidence),
    "exponent": lambda confidence: stats.log_log_slope([1.0, 2, 3], [1.0, 2, 4], confidence),
    "bootstrap": lambda confidence: stats.bootstrap_interval([1.0, 2, 4], confidence=confidence),
    "two ways": lambda confidence: stats.two_way_interval([[1.0, 2], [3, 5]], confidence),
}
VALUES = {"mean": 3, "share": 7, "slope": 3, "exponent": 3, "bootstrap": 3, "two ways": 4}


@pytest.mark.parametrize("name", INTERVALS)
@pytest.mark.parametrize("confidence", [95, 1, 0, -0.5, float("nan"), 1.5])
def test_a_confidence_that_is_no_share_is_refused(name, confidence):
    with pytest.raises(ValueError, match="a share between 0 and 1"):
        INTERVALS[name](confidence)


@pytest.mark.parametrize("name", INTERVALS)
def test_an_interval_grows_with_its_confidence(name):
    wide, narrow = INTERVALS[name](0.99), INTERVALS[name](0.5)
    assert wide.low < narrow.low
    assert narrow.high < wide.high


@pytest.mark.parametrize("name", INTERVALS)
def test_an_interval_says_how_many_values_it_rests_on(name):
    assert INTERVALS[name](0.95).n == VALUES[name]


def test_a_value_without_an_interval_decides_nothing():
    assert not ONE.known
    assert not stats.two_way_interval([[0.5]]).known
    assert stats.mean_interval([1.0, 2]).known
    with pytest.raises(ValueError, match=r"no interval \(n = 1\)"):
        _ = 0.5 in ONE
    with pytest.raises(ValueError, match="neither has a difference"):
        stats.difference(ONE, stats.proportion(1, 2))


def test_a_slope_has_two_degrees_of_freedom_less_than_points():
    x, y = np.arange(5.0), np.array([0.1, 0.9, 2.2, 2.8, 4.1])
    fit = scipy.stats.linregress(x, y)
    half = fit.stderr * scipy.stats.t(df=3).ppf(0.975)
    interval = stats.slope(x, y)
    assert (interval.high - interval.value) == pytest.approx(half, rel=1e-9)


def test_the_bootstrap_takes_as_many_resamplings_as_asked():
    x = np.random.default_rng(0).normal(size=30)
    few, many = (stats.bootstrap_interval(x, resamples=num) for num in (3, 3000))
    assert few.value == many.value
    assert few.high - few.low < many.high - many.low


def test_the_two_way_interval_of_two_images_or_of_one_is_students():
    assert stats.two_way_interval([[0.0, 1.0]]) == stats.mean_interval([0.0, 1.0])
    alone = stats.two_way_interval([[3.0]])
    assert (alone.value, alone.known) == (3.0, False)
