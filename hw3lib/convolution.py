"""3 x 3 convolutions with fewer multiplications than the definition, where a CPU gains by it.

On GPUs, and on CPUs that multiply bfloat16, the libraries' own convolutions are faster.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import skip_init

MIN_IMAGES = 32
"""Of fewer images the transformed weights would cost more than they save."""

MIN_CHANNELS = 64
"""With fewer channels the transforms of the images would."""

TILE = 4
"""Outputs of a tile along each axis."""

POINTS = TILE + 2
"""Inputs of a tile along each axis, and products."""

# What becomes of three taps along an axis (Lavin and Gray 2016); `tiles` has the rest.
_TAPS = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
    dtype=torch.float32,
) / 24  # fmt: skip

_TWO_INPUTS = torch.tensor([[1, 0], [0, 1], [1, 1]], dtype=torch.float32)
_TWO_TAPS = torch.tensor([[1, -1, 0], [0, -1, 1], [0, 1, 0]], dtype=torch.float32)
_TWO_OUTPUTS = torch.tensor([[0, 1, 1], [1, 0, 1]], dtype=torch.float32)


class Conv3x3(nn.Conv2d):
    """A 3 x 3 convolution with stride and padding 1.

    It gives what `nn.Conv2d` gives up to rounding, which in `winograd` is some six times as large.
    Where neither of the two ways below pays, it is `nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and len(x) >= MIN_IMAGES:
            if x.shape[2:] == (2, 2):
                return self._shifted(toeplitz(x, self.weight))
            if self._pays(x):
                return self._shifted(winograd(x, self.weight))
        return super().forward(x)

    def _shifted(self, out: Tensor) -> Tensor:
        return out if self.bias is None else out + self.bias[:, None, None]

    def _pays(self, x: Tensor) -> bool:
        """Whether these maps can be tiled, and the transforms are worth it and exact enough."""
        tiled = x.shape[2] % TILE == 0 and x.shape[3] % TILE == 0
        exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return tiled and exact and min(self.in_channels, self.out_channels) >= MIN_CHANNELS

    @classmethod
    def like(cls, conv: nn.Conv2d) -> Conv3x3:
        """The same convolution with the same weights."""
        size = (conv.in_channels, conv.out_channels)
        twin: Conv3x3 = skip_init(cls, *size, 3, padding=1, bias=False)
        twin.weight = conv.weight
        return twin


def has_bfloat16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 matrices natively, so that it is worth using."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(probe())


def toeplitz(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution on 2 x 2 maps with nine products a channel instead of sixteen.

    Along an axis it is [[g1, g2], [g0, g1]] d, a Toeplitz matrix: both outputs share g1 (d0 + d1).

    Args:
        x: (N, in, 2, 2).
        weight: (out, in, 3, 3).
    """
    n, channels = len(x), len(weight)
    inputs, taps, outputs = (torch.kron(m, m).to(x) for m in (_TWO_INPUTS, _TWO_TAPS, _TWO_OUTPUTS))
    pixels = x.permute(0, 2, 3, 1).reshape(n, 4, -1)
    points = (inputs.expand(n, -1, -1) @ pixels).transpose(0, 1)  # (9, N, in)
    products = points @ (taps @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(9, -1, channels)
    out = outputs.expand(n, -1, -1) @ products.transpose(0, 1)  # (N, 4, out)
    return out.view(n, 2, 2, channels).permute(0, 3, 1, 2)


def winograd(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution by tiles of 4 x 4 outputs, each with 36 products a channel instead of 144.

    Args:
        x: (N, in, height, width), float32; both sizes are multiples of four.
        weight: (out, in, 3, 3).
    """
    channels_out, channels = weight.shape[:2]
    taps = torch.kron(_TAPS, _TAPS) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    taps = taps.view(POINTS, POINTS, channels, channels_out)
    out: Tensor = _Tiled.apply(x.permute(0, 2, 3, 1), taps)
    return out.permute(0, 3, 1, 2)


class _Tiled(torch.autograd.Function):
    """Images (N, height, width, in) and taps (6, 6, in, out) to (N, height, width, out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor) -> Tensor:
        points = _transform("to_windows", x, _points_of(x))
        ctx.save_for_backward(points, taps)
        out = x.new_empty(*x.shape[:3], taps.shape[3])
        return _transform("from_results", points @ taps, out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        points, taps = ctx.saved_tensors
        for_x, for_taps = ctx.needs_input_grad
        back = _transform("to_results", gradient, _points_of(gradient))
        grad_x = grad_taps = None
        if for_taps:
            grad_taps = points.mT @ back
        if for_x:
            grad_x = gradient.new_empty(*gradient.shape[:3], taps.shape[2])
            _transform("from_windows", back @ taps.mT, grad_x)
        return grad_x, grad_taps


def _points_of(images: Tensor) -> Tensor:
    """Room for the points (6, 6, tiles, channels) of images (N, height, width, channels)."""
    n, height, width, channels = images.shape
    return images.new_empty(POINTS, POINTS, n * height * width // TILE**2, channels)


def _transform(name: str, source: Tensor, target: Tensor) -> Tensor:
    """Fill and return `target` by a function of `hw3lib.tiles`, with as many threads as torch."""
    import numba  # takes half a second, and most of the library convolves nothing

    from hw3lib import tiles

    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    getattr(tiles, name)(source.detach().contiguous().numpy(), target.numpy())
    return target
