"""The tiles of a latent plane, under the pointer, with layers over them and a walk across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from IPython.display import HTML
from numpy.typing import ArrayLike, NDArray

from hw3lib.book.explorers.element import element
from hw3lib.book.explorers.panels import canvas
from hw3lib.book.explorers.sheet import GREYS, quantise, sheet


@dataclass(frozen=True)
class Codes:
    """Points on the plane.

    Attributes:
        places: (N, 2) from 0 to 1, from left to right and from bottom to top.
        labels: (N,) classes 0..9.
    """

    places: NDArray[np.float64]
    labels: ArrayLike


LAYERS = {
    "none": "pictures alone",
    "classes": "class of each tile",
    "codes": "codes of test images",
}
"""What can lie over the pictures."""

BODY = f"""<div class="controls">
<fieldset class="layers"><legend>Over the plane</legend>{{layers}}</fieldset></div>
<div class="panels"><div class="plane" tabindex="0" role="application"
 aria-roledescription="latent plane" aria-label="Latent plane. Arrow keys move by one tile,
 Page Up and Page Down by five rows, Home and End to the ends of a row; Enter keeps a tile."
 ><canvas class="tiles"></canvas><canvas class="layer"></canvas><div class="here"></div></div>
<div class="beside">{canvas("The digit here", "11rem")}
<output aria-live="polite"></output></div></div>
<div class="controls walk"><button type="button">Start the walk here</button>
<button type="button">End it here</button>
<div class="slider"><label for="{{name}}-walk">Along the walk</label><span class="value"></span>
<input type="range" id="{{name}}-walk" max="20" value="0"></div></div>
<canvas class="strip" role="img" aria-label="Digits along the walk"></canvas>
<p>A click on a tile, or Enter, holds it. A second click or Enter lets it go.</p>"""


def plane(
    tiles: ArrayLike,
    axes: tuple[Sequence[float], Sequence[float]],
    captions: Sequence[str],
    *,
    name: str,
    classes: ArrayLike,
    codes: Codes,
    vmax: float = GREYS - 1,
) -> HTML:
    """An explorer of decoded tiles, as a notebook shows it.

    Args:
        tiles: (R, C, H, W) images in 0..vmax; row 0 is drawn at the top.
        axes: the C values of z_1 from left to right, and the R values of z_2 from top to bottom.
        captions: R * C short texts, row by row, that say what each tile shows.
        name: of the element, unique on the page; letters, digits and hyphens.
        classes: (R, C) what each tile is read as, 0..9.
        codes: of test images.
        vmax: the grey level drawn white.

    Raises:
        ValueError: the shapes do not fit together, or the name has other characters.
    """
    x, read = np.asarray(tiles, dtype=np.float64), np.asarray(classes)
    rows, columns = x.shape[:2]
    found = len(axes[0]), len(axes[1]), len(captions), read.shape
    if found != (columns, rows, rows * columns, (rows, columns)):
        raise ValueError(
            f"{rows} x {columns} tiles need {columns} and {rows} axis values, {rows * columns} "
            f"captions and as many classes, got {', '.join(map(str, found))}"
        )
    if codes.places.shape != (len(np.asarray(codes.labels)), 2):
        raise ValueError(f"codes: {codes.places.shape} places for {len(np.asarray(codes.labels))}")
    settings: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "size": list(x.shape[2:]),
        "z1": [round(float(v), 2) for v in axes[0]],
        "z2": [round(float(v), 2) for v in axes[1]],
        "captions": list(captions),
        "classes": read.ravel().tolist(),
        "codes": [*codes.places.round(3).T.tolist(), np.asarray(codes.labels).tolist()],
        "png": sheet(quantise(x.reshape(-1, *x.shape[2:]), vmax), columns),
    }
    layers = "".join(
        f'<label><input type="radio" name="{name}-layer" value="{value}"'
        f"{' checked' * (value == 'none')}><span>{text}</span></label>"
        for value, text in LAYERS.items()
    )
    return element(name, BODY.format(name=name, layers=layers), "plane.js", settings)
