"""Random changes of images in training: crops, flips and blanked squares, drawn beforehand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 4
"""Zero pixels around an image from which `augment` crops."""


def draw_augmentation(num: int, generator: torch.Generator) -> Tensor:
    """Random draws for `augment`, (num, 3) int64: flip 0 or 1, first row and column 0..8."""
    flip = torch.randint(2, (num, 1), generator=generator)
    corner = torch.randint(2 * PADDING + 1, (num, 2), generator=generator)
    return torch.cat([flip, corner], dim=1)


def augment(x: Tensor, draws: Tensor) -> Tensor:
    """Crop each image from its copy with four zero pixels around it, then flip it or not.

    The augmentation that residual networks are trained with on CIFAR-10 (He et al., 2016): the
    same as torchvision's `RandomCrop(padding=4)` and `RandomHorizontalFlip`, one gather for the
    whole batch on its device.

    Args:
        x: (N, C, H, W), any type.
        draws: (N, 3) integers on the device of x, a row an image: flip 0 or 1, then the row and
            column 0..8 of the padded image where the crop begins (4, 4: unmoved).

    Raises:
        ValueError: the shapes do not fit together, or a draw is out of range (looked at on the
            CPU only: a GPU would have to be waited for).
    """
    _check(x, draws)
    n, c, h, w = x.shape
    flip, top, left = draws.long().unsqueeze(2).unbind(1)  # (N, 1) each
    columns = torch.arange(w, device=x.device)
    columns = left + torch.where(flip > 0, columns.flip(0), columns)
    rows = top + torch.arange(h, device=x.device)
    # Positions in the flattened image: indexing by rows and columns is several times slower.
    index = (rows[:, :, None] * (w + 2 * PADDING) + columns[:, None, :]).view(n, 1, h * w)
    padded = F.pad(x, (PADDING,) * 4).flatten(2)
    return padded.gather(2, index.expand(n, c, h * w)).view(n, c, h, w)


def draw_squares(num: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Random draws for `erase`, (num, 2) int64: row and column of a pixel of the image."""
    return torch.cat([torch.randint(s, (num, 1), generator=generator) for s in size], dim=1)


def erase(x: Tensor, centres: Tensor, side: int) -> Tensor:
    """Put the image's mean colour into a square of each image (cutout, DeVries & Taylor 2017).

    Args:
        x: (N, C, H, W) float.
        centres: (N, 2) integers on the device of x, row and column of the square's centre; what
            lies beyond the border is cut off.
        side: of the square, in pixels.

    Raises:
        ValueError: the shapes do not fit together, or `side` is negative.
    """
    if x.ndim != 4 or centres.shape != (len(x), 2) or side < 0:
        raise ValueError(
            f"images {tuple(x.shape)}, centres {tuple(centres.shape)}, side={side}: need "
            "(N, C, H, W), (N, 2) with the same N (draw_squares makes them), and 0 pixels or more"
        )
    distances = (
        torch.arange(size, device=x.device) - centre[:, None] + side // 2
        for size, centre in zip(x.shape[2:], centres.unbind(1), strict=True)
    )
    rows, columns = ((d >= 0) & (d < side) for d in distances)
    inside = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
    return torch.where(inside, x.mean((2, 3), keepdim=True), x)


def _check(x: Tensor, draws: Tensor) -> None:
    if x.ndim != 4 or draws.shape != (len(x), 3):
        raise ValueError(
            f"images have shape {tuple(x.shape)} and draws {tuple(draws.shape)}; they need "
            "(N, C, H, W) and (N, 3) with the same N (draw_augmentation makes the draws)"
        )
    # Reading the values of a device tensor would make the host wait for it.
    if draws.device.type == "cpu":
        wrong = (draws < 0) | (draws > torch.tensor([1, 2 * PADDING, 2 * PADDING]))
        if wrong.any():
            raise ValueError(
                f"draws {draws[wrong.any(1)][0].tolist()}: flip must be 0 or 1, row and column "
                f"between 0 and {2 * PADDING}"
            )
