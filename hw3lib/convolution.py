"""3 x 3 convolutions with fewer multiplications than the definition, where a CPU gains by it.

On GPUs, and on CPUs that multiply bfloat16, the libraries' own convolutions are faster.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

MIN_IMAGES = 32
"""Of fewer images the transformed weights would cost more than they save."""

MIN_CHANNELS = 64
"""With fewer channels the transforms of the images would."""

TILE = 4
"""Outputs of a tile along each axis; it reads TILE + 2 inputs."""

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
    rows, columns = (size // TILE for size in x.shape[2:])
    points = TILE + 2
    taps = torch.kron(_TAPS, _TAPS) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    taps = taps.view(points**2, channels, channels_out)
    (down, down_back), (along, along_back) = _transforms(rows), _transforms(columns)
    outputs = []
    for part in x.permute(0, 2, 3, 1).split(max(TILES_AT_ONCE // (rows * columns), 1)):
        n = len(part)
        tiles = _left(down, part.reshape(n, TILE * rows, -1))
        tiles = _left(along, tiles.view(-1, TILE * columns, channels))
        tiles = tiles.view(n, rows, points, columns, points, channels)
        tiles = tiles.permute(2, 4, 0, 1, 3, 5).reshape(points**2, -1, channels)
        tiles = torch.bmm(tiles, taps).view(points, points, n, rows, columns, channels_out)
        tiles = tiles.permute(2, 3, 0, 4, 1, 5).reshape(-1, points * columns, channels_out)
        out = _left(along_back, tiles).view(n, points * rows, -1)
        out = _left(down_back, out)
        outputs.append(out.view(n, TILE * rows, TILE * columns, channels_out))
    return torch.cat(outputs).permute(0, 3, 1, 2)


def _left(matrix: Tensor, batch: Tensor) -> Tensor:
    """The matrix times each of a batch."""
    return torch.bmm(matrix.expand(len(batch), -1, -1), batch)


@lru_cache
def _transforms(tiles: int) -> tuple[Tensor, Tensor]:
    """An axis of pixels to the points of its tiles, and the points of results back to pixels.

    The padding is left out of the first: (6 tiles, 4 tiles), and (4 tiles, 6 tiles).
    """
    there = torch.zeros(tiles, TILE + 2, TILE * tiles + 2)
    for tile in range(tiles):
        there[tile, :, TILE * tile : TILE * (tile + 1) + 2] = _INPUT
    there = there.flatten(0, 1)[:, 1:-1].contiguous()
    return there, torch.block_diag(*[_OUTPUT] * tiles)
