import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw3lib.experiments.part1 import distances
from hw3lib.stats import mean_interval

BOTH = [distances.kernel_distance, distances.frechet_distance]


def normal(seed, n, dim=8, mean=0.0, std=1.0):
    return mean + std * np.random.default_rng(seed).standard_normal((n, dim))


def test_kernel_distance_is_its_definition_pair_by_pair():
    x, y = normal(0, 12), normal(1, 9, mean=0.5)

    def k(a, b):
        return (a @ b / 8 + 1) ** 3

    def within(s):
        return np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j])

    expected = within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert distances.kernel_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_sets_with_known_moments():
    """Diagonal covariances: |m - n|^2 + sum (s - t)^2."""
    directions = np.concatenate([np.eye(3), -np.eye(3)]) * np.sqrt(2.5)  # covariance I exactly
    s, t, shift = np.array([1.0, 2, 3]), np.array([2.0, 2, 0.5]), np.array([1.0, 0, -2])
    expected = 5 + ((s - t) ** 2).sum()
    assert distances.frechet_distance(directions * s, directions * t + shift) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("distance", BOTH)
def test_distances_are_symmetric_and_grow_with_a_shift(distance):
    x, y = normal(0, 300), normal(1, 300)
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-9)
    shifted = [distance(x, y + step) for step in (0, 0.3, 0.6, 1.2)]
    assert shifted == sorted(shifted)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_frechet_distance_is_not_negative_and_does_not_see_rotations(seed):
    x, y = normal(seed, 20), normal(seed + 1, 30, std=1.5)
    turn = np.linalg.qr(normal(seed + 2, 8))[0]
    value = distances.frechet_distance(x, y)
    assert value > 0
    assert distances.frechet_distance(x @ turn, y @ turn) == pytest.approx(value, rel=1e-8)
    assert distances.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_unbiased_for_equal_distributions():
    values = [distances.kernel_distance(normal(i, 20), normal(1000 + i, 20)) for i in range(200)]
    assert 0 in mean_interval(values, confidence=0.999)
    assert min(values) < 0 < max(values)


def test_a_dead_feature_does_not_break_the_frechet_distance():
    x, y = normal(0, 50), normal(1, 50)
    x[:, 3] = y[:, 3] = 0
    keep = [i for i in range(8) if i != 3]
    expected = distances.frechet_distance(x[:, keep], y[:, keep])
    assert distances.frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_kernel_blocks_are_the_distances_of_the_blocks():
    x, y = normal(0, 43), normal(1, 40)
    blocks = distances.kernel_distance_blocks(x, y, 4)
    assert blocks[1] == pytest.approx(distances.kernel_distance(x[10:20], y[10:20]))


def test_jackknife_of_the_frechet_distance_takes_bias_away():
    """Equal distributions: the plain estimate is biased upwards, the jackknife much less."""
    plain, corrected = [], []
    for i in range(8):
        x, y = normal(i, 200), normal(1000 + i, 200)
        plain.append(distances.frechet_distance(x, y))
        corrected.append(distances.frechet_distance_blocks(x, y, 10).mean())
    assert abs(np.mean(corrected)) < 0.25 * np.mean(plain)


def test_jackknife_values_of_a_mean_would_be_the_block_means():
    """Where covariances vanish, the distance is |mean difference|^2, here linear in the blocks."""
    x = np.repeat(np.arange(4.0), 5)[:, None] * np.ones(3)
    values = distances.frechet_distance_blocks(x, x + 2, 4)
    np.testing.assert_allclose(values, 12, rtol=1e-9)


def test_intervals_from_blocks_cover_the_truth():
    """The squared distance of the means is 8 * 0.25 = 2 here."""
    hits = 0
    for i in range(20):
        x, y = normal(i, 400), normal(1000 + i, 400, mean=0.5)
        hits += 2 in mean_interval(distances.frechet_distance_blocks(x, y, 10))
    assert hits >= 16


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("distance", BOTH)
def test_too_few_rows_are_refused(distance, rows):
    with pytest.raises(ValueError, match="two or more rows"):
        distance(normal(0, rows), normal(1, 10))


@pytest.mark.parametrize(("rows", "blocks"), [(10, 1), (10, 6)])
def test_blocks_that_cannot_be_made_are_refused(rows, blocks):
    with pytest.raises(ValueError, match="blocks"):
        distances.kernel_distance_blocks(normal(0, rows), normal(1, rows), blocks)
