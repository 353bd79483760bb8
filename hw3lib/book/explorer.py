"""A page element with which a reader moves over a latent plane: arrays in, HTML out.

It needs no network and no library: one picture with all tiles, embedded, and a few lines of script.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

TEMPLATE = Path(__file__).with_suffix(".html")
"""The element, with NAME, SETTINGS and SHEET to be filled in."""

GREYS = 16
"""Grey levels of the embedded picture; more would not be seen and make it larger."""


def explorer(
    tiles: ArrayLike,
    axes: tuple[Sequence[float], Sequence[float]],
    captions: Sequence[str],
    *,
    name: str,
    vmax: float = 15,
) -> str:
    """HTML of an explorer of decoded tiles.

    Args:
        tiles: (R, C, H, W) images in 0..vmax; row 0 is drawn at the top.
        axes: the C values of z_1 from left to right, and the R values of z_2 from top to bottom.
        captions: R * C short texts, row by row, that say what each tile shows.
        name: of the element, unique on the page; letters, digits and hyphens.
        vmax: the grey level drawn white.

    Raises:
        ValueError: the shapes do not fit together, or the name has other characters.
    """
    x = np.asarray(tiles, dtype=np.float64)
    rows, columns = x.shape[:2]
    if (len(axes[0]), len(axes[1]), len(captions)) != (columns, rows, rows * columns):
        raise ValueError(
            f"{rows} x {columns} tiles need {columns} and {rows} axis values and "
            f"{rows * columns} captions, got {len(axes[0])}, {len(axes[1])} and {len(captions)}"
        )
    if not name.replace("-", "").isalnum():
        raise ValueError(f"name={name!r}: use letters, digits and hyphens")
    settings: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "size": list(x.shape[2:]),
        "z1": [round(float(v), 2) for v in axes[0]],
        "z2": [round(float(v), 2) for v in axes[1]],
        "captions": [html.escape(caption) for caption in captions],
    }
    page = TEMPLATE.read_text(encoding="utf-8").replace("NAME", name)
    page = page.replace(
        "SETTINGS", json.dumps(settings, separators=(",", ":")).replace("<", "\\u003c")
    )
    return page.replace("SHEET", sprite_sheet(x, vmax))


def sprite_sheet(tiles: ArrayLike, vmax: float = 15) -> str:
    """All tiles (R, C, H, W) in one PNG of 16 greys, as base64 text."""
    greys = quantise(tiles, vmax)
    sheet = greys.swapaxes(1, 2).reshape(greys.shape[0] * greys.shape[2], -1)
    picture = Image.fromarray(sheet, mode="P")
    picture.putpalette([level * 255 // (GREYS - 1) for level in range(GREYS) for _ in range(3)])
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True, bits=4)
    return base64.b64encode(file.getvalue()).decode()


def quantise(tiles: ArrayLike, vmax: float = 15) -> NDArray[np.uint8]:
    """Grey levels 0..vmax to the nearest of the sheet's 16 greys."""
    scaled = np.asarray(tiles, dtype=np.float64) / vmax * (GREYS - 1)
    greys: NDArray[np.uint8] = scaled.round().clip(0, GREYS - 1).astype(np.uint8)
    return greys
