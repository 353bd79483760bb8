"""Many small pictures of one size as one PNG: one file to decode, and it compresses better."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

GREYS = 16
"""Grey levels of an embedded picture; more would not be seen and make it larger."""


def quantise(images: ArrayLike, vmax: float = GREYS - 1) -> NDArray[np.uint8]:
    """Grey levels 0..vmax to the nearest of 16, as 0..15."""
    scaled = np.asarray(images, dtype=np.float64) / vmax * (GREYS - 1)
    greys: NDArray[np.uint8] = scaled.round().clip(0, GREYS - 1).astype(np.uint8)
    return greys


def columns_of(num: int) -> int:
    """In how many columns a sheet holds so many pictures."""
    return math.ceil(math.sqrt(num))


def sheet(images: NDArray[np.uint8], columns: int | None = None, levels: int = GREYS) -> str:
    """Pictures side by side, row by row, in a PNG, as base64 text.

    Args:
        images: (N, H, W), a number below `levels` for each pixel, see `quantise`; or (N, H, W, 3)
            RGB.
        columns: pictures in a row; default `columns_of` them.
        levels: greys from black to white, 16 or 256.
    """
    num, height, width = images.shape[:3]
    columns = columns or columns_of(num)
    rows = -(-num // columns)
    full = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    full[:num] = images
    grid = full.reshape(rows, columns, *images.shape[1:]).swapaxes(1, 2)
    return png(grid.reshape(rows * height, columns * width, *images.shape[3:]), levels)


def png(pixels: NDArray[np.uint8], levels: int = GREYS) -> str:
    """One picture as base64 text: (H, W) of so many greys, or (H, W, 3) RGB."""
    file = io.BytesIO()
    if pixels.ndim == 3:
        Image.fromarray(pixels, mode="RGB").save(file, "PNG", optimize=True)
    else:
        # Pictures with a palette are not filtered, which would make noise larger.
        picture = Image.fromarray(pixels, mode="P")
        step = 255 // (levels - 1)
        picture.putpalette([level * step for level in range(levels) for _ in range(3)])
        bits = levels.bit_length() - 1
        picture.save(file, "PNG", optimize=True, bits=bits)
    return base64.b64encode(file.getvalue()).decode()
