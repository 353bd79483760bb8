"""A matplotlib figure as one SVG file that fits wide and narrow columns, light and dark pages.

The file holds two layouts of the figure, and a page picks one of four views by the fragment of the
address: `#light`, `#dark`, `#light-narrow`, `#dark-narrow`. Views have no ground of their own, and
the dark ones turn greys around. Without a fragment, as in Jupyter, it is the wide layout on white.
"""

from __future__ import annotations

import base64
import io
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape, unescape

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

WIDE = 6.0
"""Inches of a figure of one panel."""
SMALLEST = 9
"""CSS pixels below which text on a phone is too small to read."""
NARROW = 4.4
"""Inches of the layout for a phone."""
PHONE = 358
"""CSS pixels of a column on a phone that is 390 wide."""
GROUND = "#fefefe"
"""A grey that stands for the page behind the figure, as a legend's ground does."""
MANY_POINTS = 2_000
"""Points of a line or scatter from which on it is drawn as pixels."""

MANY_COLUMNS = 4
"""Columns of panels up to which each panel stands in a row of its own on a phone."""
HIGHEST = 0.7
"""Height of a panel of curves on a phone, as a share of its width; two fit on a screen."""
THUMBNAIL = 360
"""Pixels across of the small picture of a figure."""

GREY = re.compile(r"(fill|stroke): #([0-9a-f]{2})\2\2")
ROOT = re.compile(r'<svg [^>]*viewBox="([^"]+)"[^>]*>(.*)</svg>', re.DOTALL)
EMBEDDED = re.compile(r"(data:image/png;base64,)([^\"]+)")
CLOCK_AND_AUTHOR = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Layout:
    """One way to lay out a figure.

    Attributes:
        body: what stands inside its SVG element, greys as variables.
        width, height: points.
        text: CSS pixels of its smallest text in a column of `PHONE` pixels.
    """

    body: str
    width: float
    height: float
    text: float

    @property
    def size(self) -> str:
        """Width and height, as in a view box."""
        return f"{self.width:g} {self.height:g}"

    def nested(self, name: str) -> str:
        """An SVG element of this class, as large as the layout."""
        fixed = f'width="{self.width:g}" height="{self.height:g}"'
        return f'<svg class="{name}" {fixed} viewBox="0 0 {self.size}">{self.body}</svg>'


def as_svg(fig: Figure, source: str, columns: int | None = None) -> str:
    """The figure as a file with a wide and, if that is too small on a phone, a narrow layout.

    Args:
        fig: stays as it is.
        source: kept in the file's metadata.
        columns: panels side by side in the narrow layout; default one, but as many as they are if
            there are more than four.
    """
    wide = _layout(fig, "wide")
    narrow = _layout(_narrowed(fig, columns), "narrow") if wide.text < SMALLEST else wide
    levels = sorted(
        {level for part in (wide, narrow) for level in re.findall(r"--g(\w\w)", part.body)}
    )
    kind = "" if narrow is wide else ' class="narrow"'
    views = "".join(
        f'<view id="{scheme}{suffix}"{kind} viewBox="0 0 {part.size}"/>'
        for suffix, kind, part in (("", "", wide), ("-narrow", kind, narrow))
        for scheme in ("light", "dark")
    )
    layouts = wide.nested("wide") + (narrow.nested("narrow") if narrow is not wide else "")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' width="{wide.width:g}pt" height="{wide.height:g}pt" viewBox="0 0 {wide.size}"'
        f' data-narrow="{narrow.size}" data-text="{narrow.text:.1f}">'
        f"<metadata>{escape(source)}</metadata>{views}<style>{_style(levels)}</style>"
        f'<rect class="ground" width="100%" height="100%" fill="white"/>{layouts}</svg>\n'
    )


def as_thumbnail(fig: Figure) -> str:
    """The figure as a small PNG on white, in base64; panels stay where `as_svg` left them."""
    file = io.BytesIO()
    dpi = THUMBNAIL / fig.get_figwidth()
    engine = fig.get_layout_engine()
    fig.set_layout_engine("none")
    fig.savefig(file, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    fig.set_layout_engine(engine)
    return base64.b64encode(file.getvalue()).decode()


def source_of(svg: str) -> str:
    """What `as_svg` was told about the source of the figure; empty for another file."""
    found = re.search(r"<metadata>([^<]*)</metadata>", svg)
    return unescape(found[1]) if found else ""


def _style(levels: list[str]) -> str:
    light = "".join(f"--g{level}:#{level * 3};" for level in levels)
    dark = "".join(f"--g{level}:{_turned(level)};" for level in levels)
    return (
        "*{stroke-linejoin:round;stroke-linecap:butt}"
        f"svg{{{light}--ink:#000;fill:var(--ink)}}svg.narrow{{display:none}}"
        "view:target~.ground,view.narrow:target~svg.wide{display:none}"
        "view.narrow:target~svg.narrow{display:inline}"
        f"#dark:target~svg,#dark-narrow:target~svg{{{dark}--ink:{_turned('00')}}}"
    )


def _turned(level: str) -> str:
    """A grey on a light page as the grey of the same weight on a dark one."""
    if f"#{level * 3}" == GROUND:
        return "#14181e"
    grey = round(232 - 0.76 * int(level, 16))
    return f"#{grey:02x}{grey:02x}{grey:02x}"


def _layout(fig: Figure, salt: str) -> Layout:
    file = io.StringIO()
    with (
        _as_pixels(fig),
        _boxes_on_ground(fig),
        plt.rc_context({"svg.hashsalt": salt, "svg.fonttype": "path"}),
    ):
        fig.savefig(
            file, format="svg", dpi=200, bbox_inches="tight", facecolor="none",
            metadata=CLOCK_AND_AUTHOR,
        )  # fmt: skip
    found = ROOT.search(file.getvalue())
    assert found is not None
    width, height = map(float, found[1].split()[2:])
    body = re.sub(
        r"<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->", "", found[2], flags=re.DOTALL
    )
    body = GREY.sub(lambda m: m[0] if m[2] == "ff" else f"{m[1]}: var(--g{m[2]})", body)
    body = EMBEDDED.sub(lambda m: m[1] + _packed(m[2]), body)
    sizes = [float(t.get_fontsize()) for t in fig.findobj(Text) if t.get_visible() and t.get_text()]
    return Layout(body.strip(), width, height, min(sizes, default=99.0) * PHONE / width)


def _packed(png: str) -> str:
    """The same image in fewer bytes: without a channel for what is all opaque or grey."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    pixels = np.asarray(image)
    if (pixels[..., 3] == 255).all():
        grey = (pixels[..., :2] == pixels[..., 1:3]).all()
        image = image.convert("L" if grey else "RGB")
    image.save(file := io.BytesIO(), format="png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


@contextmanager
def _as_pixels(fig: Figure) -> Iterator[None]:
    """Draw crowds as one image, and images with their own pixels, which a screen enlarges."""
    crowds = [artist for artist in fig.findobj(_is_dense) if not artist.get_rasterized()]
    images = [
        image for ax in fig.axes for image in ax.images if image.get_interpolation() == "nearest"
    ]
    for artist in crowds:
        artist.set_rasterized(True)
    for image in images:
        image.set_interpolation("none")
    try:
        yield
    finally:
        for artist in crowds:
            artist.set_rasterized(False)
        for image in images:
            image.set_interpolation("nearest")


@contextmanager
def _boxes_on_ground(fig: Figure) -> Iterator[None]:
    """Draw white boxes around texts in the colour of the page behind them."""
    boxes = [box for text in fig.findobj(Text) if (box := text.get_bbox_patch())]
    white = [(box, box.get_facecolor()) for box in boxes if box.get_facecolor()[:3] == (1, 1, 1)]
    for box, _ in white:
        box.set_facecolor(GROUND)
    try:
        yield
    finally:
        for box, colour in white:
            box.set_facecolor(colour)


def _is_dense(artist: Artist) -> bool:
    if isinstance(artist, Line2D):
        return len(np.atleast_1d(artist.get_xdata())) > MANY_POINTS
    if isinstance(artist, PathCollection):
        return len(np.asarray(artist.get_offsets())) > MANY_POINTS
    return isinstance(artist, QuadMesh)


def _narrowed(fig: Figure, columns: int | None) -> Figure:
    """A copy that is `NARROW` wide, its panels in fewer columns; the figure has been drawn."""
    copy: Figure = pickle.loads(pickle.dumps(fig))  # our own bytes  # nosec B301
    plt.close(copy)  # a figure of pyplot would be shown on its own
    places = [(ax, spec) for ax in copy.axes if (spec := ax.get_subplotspec()) is not None]
    places.sort(key=lambda place: (place[1].rowspan.start, place[1].colspan.start))
    across = max((spec.get_gridspec().ncols for _, spec in places), default=1)
    columns = columns or (across if across > MANY_COLUMNS else 1)
    if columns < across:
        _stack(copy, [ax for ax, _ in places], columns)
    else:
        shrunk = NARROW / fig.get_figwidth()
        copy.set_size_inches(
            NARROW, fig.get_figheight() * (max(shrunk, 0.8) if across == 1 else shrunk)
        )
    for legend in copy.legends:
        legend.set_loc("outside lower center")
    _turn_crowded_labels(copy)
    return copy


def _turn_crowded_labels(fig: Figure) -> None:
    """Set the labels along an axis upright where they would run into each other."""
    fig.draw_without_rendering()
    for ax in fig.axes:
        labels = [label for label in ax.get_xticklabels() if label.get_text()]
        boxes = [label.get_window_extent() for label in labels if label.get_visible()]
        boxes.sort(key=lambda box: box.x0)
        if any(right.x0 < left.x1 for left, right in pairwise(boxes)):
            ax.tick_params(axis="x", labelrotation=90)


def _stack(fig: Figure, panels: list[Axes], columns: int) -> None:
    """Lay panels out anew, each about as high for its width as it is, but curves not too high."""
    width, height = fig.get_size_inches()
    labels = 0.75 if columns == 1 else 0.35  # inches of ticks, labels and titles
    across = NARROW / columns - labels
    heights = []
    for ax in panels:
        place, highest = ax.get_position(), HIGHEST if ax.get_aspect() == "auto" else 1.1
        ratio = place.height * height / (place.width * width)
        heights.append(round(across * min(ratio, highest) + labels, 2))  # without rounding errors
    by_row = [max(heights[start : start + columns]) for start in range(0, len(panels), columns)]
    fig.set_size_inches(NARROW, sum(by_row))
    grid = GridSpec(len(by_row), columns, figure=fig, height_ratios=by_row)
    for number, ax in enumerate(panels):
        _lend_labels(ax, panels)
        ax.set_subplotspec(grid[number // columns, number % columns])


def _lend_labels(ax: Axes, panels: list[Axes]) -> None:
    """Show the labels that a panel left to the one that it shares an axis with."""
    for other in panels:
        if ax.get_shared_y_axes().joined(ax, other):
            ax.tick_params(labelleft=True)
            ax.set_ylabel(ax.get_ylabel() or other.get_ylabel())
        if ax.get_shared_x_axes().joined(ax, other):
            ax.tick_params(labelbottom=True)
            ax.set_xlabel(ax.get_xlabel() or other.get_xlabel())
