import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw3lib import data
from hw3lib.experiments.part1 import strokes


def bar(top, left, height, width, size=28, level=15):
    image = np.zeros((size, size))
    image[top : top + height, left : left + width] = level
    return image


def line(slope, width=1, rows=20, size=28):
    """A stroke that moves `slope` pixels to the right for each pixel up."""
    image = np.zeros((size, size))
    for step in range(rows):
        column = size // 2 + round(slope * (step - rows / 2))
        image[(size + rows) // 2 - 1 - step, column : column + width] = 15
    return image


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_long_straight_stroke_has_its_width(width):
    images = np.stack([bar(0, 10, 200, width, 200), bar(10, 0, width, 200, 200)])
    np.testing.assert_allclose(strokes.stroke_width(images), width, rtol=0.03)


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.3, 1.0])
def test_slant_is_pixels_right_for_each_pixel_up(slope):
    assert strokes.slant(line(slope)[None])[0] == pytest.approx(slope, abs=0.02)


@settings(deadline=None, max_examples=25)
@given(st.integers(-6, 6), st.integers(-6, 6))
def test_nothing_depends_on_where_the_digit_stands(down, right):
    image = np.zeros((1, 28, 28), dtype=np.uint8)
    image[:, 8:20, 8:20] = data.quantize(data.load("digits").x_test[:1])[:, 4:16, 8:20].numpy()
    moved = np.roll(image, (down, right), (1, 2))
    for measure in (
        strokes.ink, strokes.stroke_width, strokes.pieces, strokes.slant, strokes.height,
        strokes.breadth,
    ):  # fmt: skip
        np.testing.assert_allclose(measure(moved), measure(image), rtol=1e-9, atol=1e-9)


def test_mirroring_reverses_the_slant_and_turning_swaps_height_and_breadth():
    images = data.quantize(data.load("digits").x_test[:50]).numpy()
    np.testing.assert_allclose(
        strokes.slant(images[:, :, ::-1]), -strokes.slant(images), rtol=0, atol=1e-9
    )
    upright = np.stack([bar(3, 12, 20, 4)])
    turned = upright.swapaxes(1, 2)
    np.testing.assert_allclose(strokes.height(upright), strokes.breadth(turned))
    # A bar of n pixels has variance (n^2 - 1) / 12.
    np.testing.assert_allclose(strokes.height(upright), np.sqrt((20**2 - 1) / 12))


def test_slanting_a_digit_leaves_its_breadth():
    wide = line(0, width=6)
    np.testing.assert_allclose(
        strokes.breadth(line(0.5, width=6)[None]), strokes.breadth(wide[None]), rtol=0.03
    )


def test_pieces_counts_each_image_by_itself_and_leaves_out_specks():
    one, two = bar(2, 2, 10, 2), bar(2, 2, 10, 2) + bar(2, 20, 10, 2)
    speck = one + bar(20, 20, 2, 2)
    diagonal = bar(2, 2, 5, 5) + bar(7, 7, 5, 5)
    blank = np.zeros((28, 28))
    images = np.stack([one, two, blank, speck, diagonal, two])
    assert strokes.pieces(images).tolist() == [1, 2, 0, 1, 1, 2]


def test_ink_is_the_upper_half_of_the_grey_levels():
    levels = np.arange(16).repeat(49).reshape(1, 28, 28)
    assert strokes.ink(levels)[0] == 0.5


def test_a_blank_image_has_no_stroke():
    blank = np.zeros((2, 28, 28))
    for measure in (strokes.ink, strokes.stroke_width, strokes.slant, strokes.height):
        assert measure(blank).tolist() == [0, 0]


def test_neighbours_correlate_in_pictures_and_not_in_noise():
    noise = np.random.default_rng(0).integers(0, 16, (200, 28, 28))
    assert abs(strokes.spatial_autocorrelation(noise)) < 0.01
    assert strokes.spatial_autocorrelation(data.quantize(data.load("digits").x_test)) > 0.8
    assert strokes.spatial_autocorrelation(np.tile([0, 15], (3, 4, 7))) == pytest.approx(-1)


def test_a_single_image_without_its_batch_axis_is_refused():
    with pytest.raises(ValueError, match="shape"):
        strokes.ink(np.zeros((28, 28)))


def test_the_background_is_what_lies_off_the_strokes():
    digit = bar(4, 10, 20, 3)
    faint, speck, near = digit.copy(), digit.copy(), digit.copy()
    faint[8:12, 20:24] = 1  # 16 grey pixels far from the stroke
    speck[10, 22] = 15  # as bright as ink, and too small for a piece
    near[10, 14] = 7  # the soft edge of a stroke is no dirt
    sizes = strokes.background(np.stack([digit, faint, speck, near])) * (28 * 28 - 24 * 7)
    np.testing.assert_allclose(sizes, [0, 16, 1, 0], atol=1e-9)
    assert strokes.background(np.full((1, 28, 28), 15.0)).tolist() == [0]
    assert strokes.background(np.full((1, 28, 28), 1.0)).tolist() == [1]


def test_an_image_that_is_all_ink_is_one_piece():
    images = np.stack([np.full((6, 6), 15), np.zeros((6, 6))])
    assert strokes.pieces(images[:1]).tolist() == [1]
    assert strokes.pieces(images).tolist() == [1, 0]
