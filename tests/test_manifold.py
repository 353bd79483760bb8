import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from hw3lib import runs
from hw3lib.experiments.part1 import manifold
from hw3lib.experiments.part1.classifier import TrainClassifier, digit_logits, load_classifier
from hw3lib.experiments.part1.manifold import PlaneMap
from hw3lib.experiments.part1.vae_training import TrainVAE, load_vae

PLANE = TrainVAE(dataset="digits", latent_dim=2, num_filters=2, epochs=1)
READER = TrainClassifier(dataset="digits", epochs=1)
MAPS = arrays(np.int64, st.tuples(st.integers(2, 8), st.integers(2, 8)), elements=st.integers(0, 4))


def test_a_known_map():
    classes = [[0, 0, 1], [0, 2, 1], [0, 2, 0]]
    assert manifold.equal_neighbours(classes) == pytest.approx(5 / 12)
    assert manifold.num_regions(classes, 4).tolist() == [2, 1, 1, 0]
    assert manifold.largest_region_share(classes) == pytest.approx(8 / 9)


@settings(deadline=None)
@given(MAPS)
def test_turning_and_mirroring_the_map_changes_nothing(classes):
    for other in (classes.T, classes[::-1], np.rot90(classes)):
        assert manifold.equal_neighbours(other) == manifold.equal_neighbours(classes)
        assert manifold.num_regions(other).tolist() == manifold.num_regions(classes).tolist()
        assert manifold.largest_region_share(other) == manifold.largest_region_share(classes)


@settings(deadline=None)
@given(MAPS)
def test_one_region_of_each_class_means_that_the_largest_cover_everything(classes):
    whole = manifold.num_regions(classes).max() == 1
    assert (manifold.largest_region_share(classes) == 1) == whole


def test_random_order_agrees_as_often_as_the_formula_says():
    classes = np.repeat(np.arange(4), [10, 20, 30, 40]).reshape(10, 10)
    measured = [manifold.equal_neighbours(manifold.shuffled(classes, seed)) for seed in range(400)]
    expected = manifold.equal_neighbours_at_random(classes)
    assert np.mean(measured) == pytest.approx(expected, abs=4 * np.std(measured) / 20)
    assert manifold.equal_neighbours(classes) > expected


@settings(deadline=None)
@given(MAPS, st.integers(0, 99))
def test_shuffling_keeps_the_tiles(classes, seed):
    mixed = manifold.shuffled(classes, seed)
    assert mixed.shape == classes.shape
    assert sorted(mixed.ravel()) == sorted(classes.ravel())


def test_distances_of_tiles_that_are_known():
    """Tiles that are constant images: 0, 1, 2 from left to right."""
    tiles = np.arange(3.0)[None, :, None, None] * np.ones((3, 1, 4, 4))
    near = manifold.neighbour_distances(tiles)
    assert sorted(near) == [0] * 6 + [1] * 6
    far = manifold.random_pair_distances(tiles, num=4000)
    # Of the 36 pairs of tiles 9 are equal, 18 differ by 1 and 9 by 2.
    assert far.mean() == pytest.approx(1.0, abs=0.05)


def test_random_pairs_are_pairs_of_different_tiles():
    tiles = np.arange(4.0).reshape(2, 2, 1, 1) * np.ones((1, 1, 2, 2))
    assert manifold.random_pair_distances(tiles).min() > 0


@pytest.mark.parametrize("degrees", [0, 40, 215])
@pytest.mark.parametrize("mirror", [1, -1])
def test_an_order_is_found_in_any_direction(degrees, mirror):
    ranks = [0, 1, 1, 2, 2, 3, 4, 5]
    points = np.stack([np.array(ranks, float), np.random.default_rng(0).normal(size=8)], axis=1)
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    order = manifold.best_order(points * [1, mirror] @ turn, ranks, trials=99)
    assert order.correlation == manifold.best_order(points, ranks, trials=1).correlation
    assert order.p_value <= 0.02
    along = points @ np.array([1.0, 0.0])
    assert (np.diff(along[np.argsort(ranks, kind="stable")]) >= 0).all()


def test_a_strict_order_has_correlation_one_along_the_right_angle():
    points = np.arange(6)[:, None] * np.array([[0.0, 1.0]])
    order = manifold.best_order(points, list(range(6)), trials=99)
    assert order.correlation == 1
    assert 0 < order.angle < 180


def test_p_values_of_random_orders_are_not_small():
    rng = np.random.default_rng(0)
    p = [
        manifold.best_order(rng.normal(size=(9, 2)), [0, 1, 1, 2, 2, 2, 2, 3, 4], trials=49).p_value
        for _ in range(60)
    ]
    assert np.mean(np.array(p) <= 0.1) < 0.25
    assert 0.35 < np.mean(p) < 0.65


def test_linear_share_of_what_is_linear_and_of_noise():
    rng = np.random.default_rng(0)
    position, groups = rng.normal(size=(4000, 2)), rng.integers(0, 5, 4000)
    plane = position @ [1.0, -2.0] + 10.0 * groups
    assert manifold.linear_share(plane, position, groups) == pytest.approx(1)
    assert manifold.linear_share(rng.normal(size=4000), position, groups) < 0.01
    noisy = plane + rng.normal(size=4000) * np.sqrt(5)
    assert manifold.linear_share(noisy, position, groups) == pytest.approx(0.5, abs=0.05)
    assert manifold.linear_share(groups.astype(float), position, groups) == 0


def test_the_map_is_the_manifold_and_what_the_classifier_reads_on_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HW3_CACHE", str(tmp_path))
    stored = runs.compute(PlaneMap(vae=PLANE, classifier=READER, size=5), device="cpu")
    _, tiles = load_vae(PLANE).manifold(5)
    np.testing.assert_allclose(stored.arrays["tiles"] / 17, tiles.numpy(), atol=0.5 / 17 + 1e-6)
    read = digit_logits(load_classifier(READER), tiles.flatten(0, 1)).argmax(1).view(5, 5)
    assert torch.equal(torch.from_numpy(stored.arrays["classes"]).long(), read)
    assert stored.verify() < 1e-6
    assert stored.provenance["data"] == runs.find(PLANE).provenance["data"]


def test_twenty_dimensions_have_no_map():
    with pytest.raises(ValueError, match="latent_dim=2"):
        PlaneMap(vae=PLANE.changed(latent_dim=20), classifier=READER).canary()


def test_a_style_that_follows_the_plane_is_linear_in_it():
    size = 6
    z = norm.ppf((np.arange(size) + 0.5) / size)
    across, up = np.meshgrid(z, z[::-1])
    classes = np.arange(size * size).reshape(size, size) % 2
    level = 5 + across - 2 * up + 3 * classes  # the class is taken out, the rest is a plane
    tiles = np.broadcast_to(level[..., None, None], (size, size, 28, 28))
    share = manifold.style_share(tiles, classes, lambda x: np.asarray(x).mean((1, 2)))
    assert share == pytest.approx(1)
    noise = np.random.default_rng(0).standard_normal(size * size)
    assert manifold.style_share(tiles, classes, lambda _: noise) < 0.3
