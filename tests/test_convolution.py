"""The faster ways to convolve give what `nn.Conv2d` gives."""

import pytest
import torch

from hw3lib import convolution
from hw3lib.convolution import MIN_CHANNELS, MIN_IMAGES, Conv3x3

MANY, FEW = MIN_IMAGES, MIN_IMAGES - 1
WIDE, NARROW = (MIN_CHANNELS, MIN_CHANNELS + 8), (5, 7)


def conv2d(channels, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.nn.Conv2d(*channels, 3, padding=1, bias=False, dtype=dtype)


def largest_differences(plain, x):
    """Relative to the largest entry: of the output, the input's and the weights' gradient."""
    ours = Conv3x3.like(plain)
    outputs = [conv(x.requires_grad_()) for conv in (plain, ours)]
    direction = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad(y, (x, plain.weight), direction) for y in outputs]
    pairs = [outputs, *zip(*gradients, strict=True)]
    return [float(((a - b).abs().max() / a.abs().max()).detach()) for a, b in pairs]


@pytest.mark.parametrize("size", [(2 * MANY, 2), (MANY + 1, 2), (MANY, 4), (FEW, 2)], ids=str)
def test_on_small_maps_it_is_that_convolution(size):
    num, side = size
    x = torch.randn(num, NARROW[0], side, side, dtype=torch.float64)
    assert max(largest_differences(conv2d(NARROW, torch.float64), x)) < 1e-12


@pytest.mark.parametrize("shape", [(4, 4), (8, 8), (16, 16), (4, 12)], ids=str)
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format], ids=str)
def test_tiled_it_is_that_convolution_up_to_rounding(shape, memory):
    # One image more than a whole number of chunks.
    x = torch.randn(MANY + 1, WIDE[0], *shape).to(memory_format=memory)
    assert max(largest_differences(conv2d(WIDE), x)) < 1e-5


@pytest.mark.parametrize("frozen", ["weights", "images"])
def test_a_gradient_that_is_not_needed_changes_nothing(frozen):
    plain = conv2d(WIDE)
    x = torch.randn(MANY, WIDE[0], 4, 4, requires_grad=True)
    needed = x if frozen == "weights" else plain.weight
    both = torch.autograd.grad(Conv3x3.like(plain)(x).square().sum(), needed)
    (plain.weight if frozen == "weights" else x).requires_grad_(False)
    alone = torch.autograd.grad(Conv3x3.like(plain)(x).square().sum(), needed)
    assert torch.equal(*both, *alone)


@pytest.mark.parametrize(
    ("num", "channels", "side", "dtype", "way"),
    [
        (MANY, NARROW, 2, torch.float32, "toeplitz"),
        (MANY, WIDE, 4, torch.float32, "winograd"),
        (FEW, WIDE, 4, torch.float32, None),
        (FEW, NARROW, 2, torch.float32, None),
        (MANY, NARROW, 4, torch.float32, None),
        (MANY, WIDE, 6, torch.float32, None),
        (MANY, WIDE, 4, torch.float64, None),
    ],
)
def test_which_way_is_taken(monkeypatch, num, channels, side, dtype, way):
    taken = []
    for name in ("toeplitz", "winograd"):
        original = getattr(convolution, name)
        spy = lambda *args, name=name, original=original: taken.append(name) or original(*args)  # noqa: E731
        monkeypatch.setattr(convolution, name, spy)
    Conv3x3.like(conv2d(channels, dtype))(torch.zeros(num, channels[0], side, side, dtype=dtype))
    assert taken == ([way] if way else [])


def test_half_precision_is_left_to_the_library(monkeypatch):
    monkeypatch.delattr(convolution, "winograd")
    with torch.autocast("cpu", torch.bfloat16):
        y = Conv3x3.like(conv2d(WIDE))(torch.zeros(MANY, WIDE[0], 4, 4))
    assert y.dtype == torch.bfloat16


def test_making_one_draws_no_random_numbers():
    conv = conv2d((2, 2))
    before = torch.get_rng_state()
    Conv3x3.like(conv)
    assert torch.equal(before, torch.get_rng_state())
