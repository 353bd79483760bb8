"""3 x 3 convolutions with fewer multiplications than the definition, where a CPU gains by it.

On GPUs, and on CPUs that multiply bfloat16, the libraries' own convolutions are faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

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

TILES_AT_ONCE = 128
"""So many, with all their channels, fit into the cache of one core and fill a matrix product."""

# Lavin and Gray (2016), F(4 x 4, 3 x 3): correlation of six inputs d with three taps g is
# A^T [(G g) * (B^T d)], which takes six products where the definition takes twelve.
_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float32,
)
_TAPS = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
    dtype=torch.float32,
) / 24  # fmt: skip
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float32,
)


Kind = Literal["input", "output"]


class Conv3x3(nn.Conv2d):
    """A 3 x 3 convolution with stride and padding 1, without bias.

    It gives what `nn.Conv2d` gives up to rounding, which in `winograd` is some six times as large.
    Where neither of the two ways below pays, it is `nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and len(x) >= MIN_IMAGES:
            if x.shape[2:] == (2, 2):
                return dense(x, self.weight)
            if self._pays(x):
                return winograd(x, self.weight)
        return super().forward(x)

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


def dense(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution on 2 x 2 maps as one matrix product.

    On so small a map every output sees every input, and five ninths of a convolution's products
    are with padding.

    Args:
        x: (N, in, 2, 2).
        weight: (out, in, 3, 3).
    """
    n, channels = len(x), len(weight)
    taps = weight.permute(2, 3, 0, 1)  # (3, 3, out, in)
    # Output (a, b) takes input (c, d) by the tap (c - a + 1, d - b + 1): (a, b, c, d, out, in).
    windows = [[taps[1 - a : 3 - a, 1 - b : 3 - b] for b in (0, 1)] for a in (0, 1)]
    matrix = torch.stack([torch.stack(row) for row in windows])
    matrix = matrix.permute(2, 3, 5, 0, 1, 4).reshape(4 * x.shape[1], 4 * channels)
    out = x.permute(0, 2, 3, 1).reshape(n, -1) @ matrix
    return out.view(n, 2, 2, channels).permute(0, 3, 1, 2)


def winograd(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution by tiles of 4 x 4 outputs, each with 36 products a channel instead of 144.

    Args:
        x: (N, in, height, width), float32; both sizes are multiples of four.
        weight: (out, in, 3, 3).
    """
    channels_out, channels = weight.shape[:2]
    taps = torch.kron(_TAPS, _TAPS) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    taps = taps.view(POINTS**2, channels, channels_out)
    out: Tensor = _Tiled.apply(x.permute(0, 2, 3, 1), taps)
    return out.permute(0, 3, 1, 2)


class _Tiled(torch.autograd.Function):
    """Images (N, height, width, in) and transformed taps (36, in, out) to (N, height, width, out).

    Autograd would find the same gradients, but lay every chunk out once more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor) -> Tensor:
        n, height, width, _ = x.shape
        out = x.new_empty(n, height, width, taps.shape[2])
        chunks = []
        for images, results in _chunks(x, out):
            chunks.append(_to_points(images, "input"))
            _from_points(chunks[-1] @ taps, "output", results)
        ctx.save_for_backward(taps, *chunks)
        ctx.shape = x.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        taps, *chunks = ctx.saved_tensors
        for_x, for_taps = ctx.needs_input_grad
        grad_x = gradient.new_empty(ctx.shape) if for_x else None
        grad_taps = torch.zeros_like(taps) if for_taps else None
        target = gradient if grad_x is None else grad_x
        for points, (part, result) in zip(chunks, _chunks(gradient, target), strict=True):
            back = _to_points(part, "output")
            if grad_taps is not None:
                grad_taps.baddbmm_(points.transpose(1, 2), back)
            if grad_x is not None:
                _from_points(back @ taps.transpose(1, 2), "input", result)
        return grad_x, grad_taps


def _chunks(x: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and their results, as many at a time as fit into the cache."""
    images = max(TILES_AT_ONCE * TILE**2 // (x.shape[1] * x.shape[2]), 1)
    return zip(x.split(images), out.split(images), strict=True)


def _to_points(images: Tensor, kind: Kind) -> Tensor:
    """Images (N, height, width, channels) to the points of their tiles, (36, N tiles, channels)."""
    n, height, width, channels = images.shape
    rows, columns = height // TILE, width // TILE
    points = _left(_axis(kind, rows), images.reshape(n, height, -1))
    points = _left(_axis(kind, columns), points.view(-1, width, channels))
    points = points.view(n, rows, POINTS, columns, POINTS, channels)
    return points.permute(2, 4, 0, 1, 3, 5).reshape(POINTS**2, -1, channels)


def _from_points(points: Tensor, kind: Kind, out: Tensor) -> None:
    """Points (36, N tiles, channels) to the pixels of `out`, (N, height, width, channels)."""
    n, height, width, channels = out.shape
    rows, columns = height // TILE, width // TILE
    points = points.view(POINTS, POINTS, n, rows, columns, channels)
    points = points.permute(2, 3, 0, 4, 1, 5).reshape(-1, columns * POINTS, channels)
    pixels = _left(_axis(kind, columns).T, points).view(n, rows * POINTS, -1)
    matrix = _axis(kind, rows).T
    torch.bmm(matrix.expand(n, -1, -1), pixels, out=out.view(n, height, -1))


def _left(matrix: Tensor, batch: Tensor) -> Tensor:
    """The matrix times each of a batch."""
    return torch.bmm(matrix.expand(len(batch), -1, -1), batch)


@lru_cache
def _axis(kind: Kind, tiles: int) -> Tensor:
    """Pixels of an axis to the points of its tiles, (6 tiles, 4 tiles).

    Of "input": tiles overlap by two pixels, and the padding is left out. Of "output": the
    transpose of what makes pixels from points.
    """
    if kind == "output":
        blocks: Tensor = torch.block_diag(*[_OUTPUT.T] * tiles)
        return blocks
    points = torch.zeros(tiles, POINTS, TILE * tiles + 2)
    for tile in range(tiles):
        points[tile, :, TILE * tile : TILE * tile + POINTS] = _INPUT
    return points.flatten(0, 1)[:, 1:-1].contiguous()
