"""Crops, flips and blanked squares are torchvision's, for every draw and layout."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as reference

from hw3lib import augmentation, data

few = settings(max_examples=25, deadline=None)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def naive_augment(x, draws):
    """Image by image with torchvision's functions."""
    images = []
    for image, (flip, row, column) in zip(x, draws.tolist(), strict=True):
        padded = reference.pad(image, [4, 4, 4, 4])
        cropped = reference.crop(padded, row, column, *image.shape[1:])
        images.append(reference.horizontal_flip(cropped) if flip else cropped)
    return torch.stack(images)


@given(
    num=st.integers(1, 6),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    dtype=st.sampled_from([torch.uint8, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
@few
def test_augmentation_is_torchvisions(num, channels, height, width, dtype, seed):
    x = torch.randint(1, 256, (num, channels, height, width), generator=rng(seed)).to(dtype)
    draws = augmentation.draw_augmentation(num, rng(seed))
    before = x.clone()
    augmented = augmentation.augment(x, draws)
    assert augmented.dtype == dtype
    assert torch.equal(augmented, naive_augment(x, draws))
    assert torch.equal(x, before)


def test_augmentation_is_torchvisions_for_every_draw_and_layout():
    draws = torch.cartesian_prod(torch.arange(2), torch.arange(9), torch.arange(9))
    x = torch.randint(1, 256, (len(draws), 3, 32, 32), generator=rng(), dtype=torch.uint8)
    expected = naive_augment(x, draws)
    assert torch.equal(augmentation.augment(x, draws), expected)
    assert torch.equal(augmentation.augment(x, draws.to(torch.int8)), expected)
    assert torch.equal(
        augmentation.augment(x.contiguous(memory_format=torch.channels_last), draws), expected
    )


def test_the_middle_crop_is_the_image_itself():
    x = torch.rand(2, 3, 32, 32, generator=rng())
    assert torch.equal(augmentation.augment(x, torch.tensor([[0, 4, 4]] * 2)), x)
    assert torch.equal(augmentation.augment(x, torch.tensor([[1, 4, 4]] * 2)), x.flip(-1))
    assert augmentation.augment(x[:0], torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3, 32, 32)


def test_draws_are_uniform_and_independent():
    num = 162 * 200
    draws = augmentation.draw_augmentation(num, rng())
    cells = draws[:, 0] * 81 + draws[:, 1] * 9 + draws[:, 2]
    counts = cells.bincount(minlength=162)
    assert len(counts) == 162
    # Chi-square with 161 degrees of freedom: mean 161, standard deviation 18.
    assert 100 < (counts - 200).square().sum().item() / 200 < 230
    assert torch.equal(draws[:10], augmentation.draw_augmentation(num, rng())[:10])


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    side=st.integers(0, 14),
    seed=st.integers(0, 1000),
)
@few
def test_erasing_blanks_one_square_cut_at_the_border(height, width, side, seed):
    x = torch.rand(3, 2, height, width, generator=rng(seed))
    centres = augmentation.draw_squares(3, (height, width), rng(seed))
    expected = x.clone()
    for image, (row, column) in zip(expected, centres.tolist(), strict=True):
        colour = image.mean((1, 2), keepdim=True)
        top, left = row - side // 2, column - side // 2
        image[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = colour
    assert torch.equal(augmentation.erase(x, centres, side), expected)


def test_squares_lie_anywhere():
    centres = augmentation.draw_squares(5000, (2, 3), rng())
    assert set(map(tuple, centres.tolist())) == {(i, j) for i in range(2) for j in range(3)}


@pytest.mark.parametrize("draw", [[2, 4, 4], [-1, 4, 4], [0, 9, 4], [0, 4, 9], [1, -1, 0]])
def test_impossible_draws_are_refused(draw):
    with pytest.raises(ValueError, match=r"flip must be 0 or 1, row and column between 0 and 8"):
        augmentation.augment(torch.rand(2, 3, 32, 32), torch.tensor([[0, 4, 4], draw]))


@pytest.mark.parametrize(("x", "draws"), [((2, 32, 32), (2, 3)), ((2, 3, 8, 8), (3, 3))])
def test_shapes_that_do_not_fit_are_refused(x, draws):
    with pytest.raises(ValueError, match=r"they need \(N, C, H, W\) and \(N, 3\)"):
        augmentation.augment(torch.zeros(x), torch.zeros(draws, dtype=torch.int64))


@pytest.mark.gpu
def test_a_gpu_makes_the_same_pixels_without_waiting():
    x = torch.randint(0, 256, (128, 3, 32, 32), generator=rng(), dtype=torch.uint8)
    draws = augmentation.draw_augmentation(len(x), rng())
    on_gpu = x.cuda(), draws.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pixels = data.to_pixels(augmentation.augment(*on_gpu))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(pixels.cpu(), data.to_pixels(augmentation.augment(x, draws)))
