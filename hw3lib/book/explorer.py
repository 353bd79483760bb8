"""A page element with which a reader moves over a latent plane: arrays in, HTML out.

It needs no network and no library: one picture with all tiles, embedded, and a few lines of script.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

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
    page = _TEMPLATE.replace("NAME", name)
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


_TEMPLATE = """\
<div id="NAME" class="latent-explorer">
<style>
#NAME { display: grid; grid-template-columns: minmax(0, 22rem) minmax(11rem, 1fr);
  gap: 1.25rem; align-items: start; padding: .75rem; }
@media (max-width: 40rem) { #NAME { grid-template-columns: minmax(0, 1fr); } }
.cell_output .text_html:has(.latent-explorer) { color: inherit !important;
  background: none !important; }
#NAME .plane { position: relative; width: 100%; aspect-ratio: 1; cursor: crosshair;
  touch-action: none; overflow: hidden; background: #000; }
#NAME .plane:focus-visible { outline: 3px solid #e69f00; outline-offset: 3px; }
#NAME .plane img { width: 100%; height: 100%; display: block; margin: 0; image-rendering: auto; }
#NAME .here { position: absolute; border: 2px solid #e69f00; box-sizing: border-box;
  pointer-events: none; }
#NAME canvas { width: 11rem; height: 11rem; image-rendering: pixelated; background: #000;
  display: block; }
#NAME output { display: block; margin-top: .5rem; font-variant-numeric: tabular-nums;
  min-height: 4.5em; line-height: 1.5; }
#NAME p { margin: .5rem 0 0; font-size: .9em; }
</style>
<div>
<div class="plane" tabindex="0" role="application" aria-roledescription="latent plane"
  aria-label="Latent plane. Arrow keys move by one tile, Page Up and Page Down by five rows,
 Home and End to the ends of a row." aria-describedby="NAME-out">
<img alt="All decoded tiles, side by side" src="data:image/png;base64,SHEET"
  draggable="false"><div class="here"></div></div>
<p>Move the pointer over the plane, touch it, or focus it and use the arrow keys.</p>
</div>
<div><canvas role="img" aria-label="The decoded digit, enlarged"></canvas>
<output id="NAME-out" aria-live="polite"></output></div>
<script>
(function () {
  const s = SETTINGS;
  const root = document.getElementById("NAME");
  const plane = root.querySelector(".plane"), sheet = root.querySelector("img");
  const mark = root.querySelector(".here"), canvas = root.querySelector("canvas");
  const out = root.querySelector("output"), pen = canvas.getContext("2d");
  const [h, w] = s.size;
  let row = Math.floor(s.rows / 2), column = Math.floor(s.columns / 2);
  canvas.width = w; canvas.height = h;
  const within = (v, n) => Math.max(0, Math.min(n - 1, v));
  const number = v => v.toFixed(2).replace("-", "\\u2212");
  function show(r, c) {
    row = within(r, s.rows); column = within(c, s.columns);
    pen.drawImage(sheet, column * w, row * h, w, h, 0, 0, w, h);
    mark.style.cssText = "left:" + 100 * column / s.columns + "%;top:" + 100 * row / s.rows +
      "%;width:" + 100 / s.columns + "%;height:" + 100 / s.rows + "%";
    const caption = s.captions[row * s.columns + column];
    out.innerHTML = "z<sub>1</sub> = " + number(s.z1[column]) + ", z<sub>2</sub> = " +
      number(s.z2[row]) + "<br>" + caption;
    canvas.setAttribute("aria-label", "The decoded digit, enlarged. " + caption);
  }
  function point(event) {
    const box = plane.getBoundingClientRect();
    show(Math.floor((event.clientY - box.top) / box.height * s.rows),
         Math.floor((event.clientX - box.left) / box.width * s.columns));
  }
  const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    PageUp: [-5, 0], PageDown: [5, 0], Home: [0, -s.columns], End: [0, s.columns]};
  plane.addEventListener("pointermove", point);
  plane.addEventListener("pointerdown", point);
  plane.addEventListener("keydown", function (event) {
    const move = moves[event.key];
    if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault(); event.stopPropagation();
    show(row + move[0], column + move[1]);
  });
  if (sheet.complete) show(row, column);
  sheet.addEventListener("load", function () { show(row, column); });
})();
</script>
<noscript>This explorer needs scripts; the figures on this page show the same plane.</noscript>
</div>
"""
