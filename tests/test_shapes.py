"""Drawn pictures: every class equally often, the same everywhere, told apart by outline alone."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from hw3lib import data, shapes


@pytest.fixture(scope="module")
def dataset():
    return data.load("shapes")


def test_classes_come_in_turn():
    images, labels = shapes.draw(23, seed=0)
    assert images.shape == (23, 32, 32, 3)
    assert images.dtype == labels.dtype == torch.uint8
    assert labels.tolist() == [*range(10), *range(10), 0, 1, 2]


def test_the_data_set_is_balanced_and_no_picture_comes_twice(dataset):
    assert dataset.x_train.shape == (4000, 3, 32, 32)
    assert dataset.y_train.bincount().tolist() == [400] * 10
    assert dataset.y_test.bincount().tolist() == [100] * 10
    pictures = {x.numpy().tobytes() for x in itertools.chain(dataset.x_train, dataset.x_test)}
    assert len(pictures) == 5000


def test_the_data_set_has_the_same_bytes_on_every_machine(dataset):
    """Pinned: stored runs name this checksum. A change of the drawing makes them stale."""
    assert dataset.checksum == "c0f07cf77d83755b"


@pytest.mark.parametrize("setting", ["ATEN_CPU_CAPABILITY=default", "MKL_CBWR=COMPATIBLE"])
def test_the_bytes_do_not_depend_on_the_vector_library(setting):
    """Roots of torch do: whole processors, and settings of one, round them differently."""
    name, value = setting.split("=")
    code = "from hw3lib import data; print(data.load('shapes').checksum)"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {name: value}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout.strip() == "c0f07cf77d83755b"


def test_lengths_are_rounded_correctly():
    """A float64 root rounded once is the nearest float32; torch's own is not on every processor."""
    rng = np.random.default_rng(0)
    u, v = (torch.from_numpy(rng.normal(size=10**6).astype(np.float32)) for _ in range(2))
    squares = (u * u + v * v).numpy()
    exact = np.sqrt(squares.astype(np.float64)).astype(np.float32)
    assert np.array_equal(shapes._length(u, v).numpy(), exact)


def test_a_seed_fixes_the_pictures_whatever_torchs_state():
    state = torch.get_rng_state()
    images, _ = shapes.draw(400, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(shapes.draw(400, seed=3)[0], images)
    finally:
        torch.set_default_dtype(torch.float32)
    assert not (shapes.draw(400, seed=4)[0] == images).flatten(1).all(1).any()


@pytest.mark.parametrize("num", [0, 1, 9])
def test_fewer_pictures_than_classes(num):
    images, labels = shapes.draw(num, seed=0)
    assert (len(images), labels.tolist()) == (num, list(range(num)))


def test_integers_of_numpy_draw_the_same():
    (ours, labels), (theirs, others) = shapes.draw(10, 3), shapes.draw(np.int64(10), np.int64(3))
    assert torch.equal(ours, theirs)
    assert torch.equal(labels, others)


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="num=-1"):
        shapes.draw(-1, seed=0)


# Outlines


def plane(degrees=0.0, size=1.0, num=201):
    """Points (u, v) of a square around the unit circle, turned and scaled."""
    line = torch.linspace(-1.5, 1.5, num)
    v, u = torch.meshgrid(line, line, indexing="ij")
    cos, sin = torch.tensor(degrees).deg2rad().cos(), torch.tensor(degrees).deg2rad().sin()
    return (u * cos + v * sin) / size, (v * cos - u * sin) / size


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_a_shape_fills_the_unit_circle_roughly(name):
    u, v = plane()
    inside = shapes.OUTLINES[name](u, v) < 0
    reach = (u.square() + v.square()).sqrt()[inside].max()
    assert 0.8 < reach < 1.15
    assert inside.double().mean() * 9 > 0.7  # area; the whole circle has 3.1


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_distances_from_an_outline_are_lengths(name):
    """They grow by no more than the way one goes, and at the edge by just that much.

    So edges are one pixel wide at every size of a shape.
    """
    points = torch.rand(2, 20_000, generator=torch.Generator().manual_seed(0)).double() * 3 - 1.5
    outline = shapes.OUTLINES[name]
    first, second = outline(*points), outline(*points.flip(1))
    way = (points - points.flip(1)).square().sum(0).sqrt()
    assert ((first - second).abs() <= way + 1e-6).all()

    points.requires_grad_()
    distance = outline(*points)
    slope = torch.autograd.grad(distance.sum(), points)[0].square().sum(0).sqrt()
    edge = distance.abs() < 0.05
    assert edge.sum() > 100
    torch.testing.assert_close(slope[edge], torch.ones_like(slope[edge]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pair", [*itertools.combinations(shapes.CLASSES, 2)], ids="-".join)
def test_no_two_outlines_are_alike_at_any_angle_and_size(pair):
    first, second = (shapes.OUTLINES[name] for name in pair)
    inside = first(*plane(num=61)) < 0
    for degrees in range(-60, 61, 10):
        for size in (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4):
            other = second(*plane(float(degrees), size, num=61)) < 0
            overlap = (inside & other).sum() / (inside | other).sum()
            assert overlap < 0.9


def test_a_shape_stands_out_from_its_ground(monkeypatch):
    """Without texture, noise and marks each channel differs by what `CONTRAST` promises."""
    monkeypatch.setattr(shapes, "SWING", 0)
    monkeypatch.setattr(shapes, "NOISE", 0)
    monkeypatch.setattr(shapes, "_mark", lambda num, bits: torch.zeros(num, 1, 32, 32))
    for image in shapes.draw(60, seed=0)[0]:
        colours, counts = image.view(-1, 3).unique(dim=0, return_counts=True)
        (ground, figure), pixels = colours[counts.topk(2).indices].int(), counts.topk(2).values
        assert (ground - figure).abs().min() >= shapes.CONTRAST[0] - 1
        assert pixels.min() > 20
        assert pixels.sum() > 0.75 * 32 * 32


def test_no_linear_map_of_coarse_pictures_tells_the_class(dataset):
    """The best one hardly beats guessing, which is right one time in ten."""

    def features(x):
        coarse = torch.nn.functional.avg_pool2d(x.float() / 255 - 0.5, 4).flatten(1)
        return torch.cat([coarse, torch.ones(len(x), 1)], dim=1)

    targets = torch.nn.functional.one_hot(dataset.y_train).float()
    weights = torch.linalg.lstsq(features(dataset.x_train), targets).solution
    right = (features(dataset.x_test) @ weights).argmax(1) == dataset.y_test
    assert right.double().mean() < 0.2
