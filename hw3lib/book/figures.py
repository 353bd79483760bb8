"""Arrays in, matplotlib figures out. Nothing in here knows a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from string import ascii_lowercase
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython.core.getipython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import ArrayLike, NDArray

from hw3lib.book.picture import GROUND, WIDE, as_svg, as_thumbnail
from hw3lib.stats import Interval

FIXED_WHITE, FIXED_BLACK = "#fffffe", "#000001"
"""Inks of text on coloured cells; they are no greys, which a dark page turns around."""

ATTACK_COLOURS = {
    "clean": "C0",
    "FGSM": "C1",
    "PGD": "C2",
    "PGD-10": "C2",
    "strong PGD": "C2",
    "random signs": "C4",
}
"""One colour an attack where attacks are drawn beside each other; PGD has one at any strength."""


def use_style() -> None:
    """The look of all figures of the book: no ground of their own, and colours for everybody."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.figsize": (WIDE, 3.6),
            "figure.dpi": 110,
            "savefig.facecolor": "white",
            "savefig.bbox": "tight",  # as notebooks do
            "figure.constrained_layout.use": True,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
            "axes.facecolor": "none",
            "patch.force_edgecolor": False,  # seaborn's white edges cut bars into strips
            "patch.edgecolor": "none",
            "axes.titlesize": "medium",
            "legend.facecolor": GROUND,
            "legend.fontsize": 10,
        }
    )


def sign(fig: Figure, source: str, columns: int | None = None) -> None:
    """Show a finished figure, and below it where it comes from.

    In a notebook this displays the figure as an SVG (see `hw3lib.book.picture`), with a small PNG
    for lists of figures, and prints the source; the book makes a fold of the latter. Elsewhere it
    only notes the source for the metadata of a file that the figure is saved to.

    Args:
        fig: the figure, once it has its final size.
        source: such as `hw3lib.runs.source` gives.
        columns: panels side by side on a phone; default one.
    """
    # Notebooks and `savefig` both write images through this method.
    fig.canvas.print_figure = partial(fig.canvas.print_figure, metadata={"Source": source})  # type: ignore[method-assign]
    if get_ipython() is None:
        return
    shown = {"image/svg+xml": as_svg(fig, source, columns), "image/png": as_thumbnail(fig)}
    display({**shown, "text/plain": repr(fig)}, raw=True)
    print(f"Source: {source}")
    plt.close(fig)


def letter(fig: Figure) -> None:
    """Name the panels (a), (b), … for captions: on a phone they stand one below the other."""
    panels: dict[Any, Axes] = {}
    for ax in fig.axes:
        if (place := ax.get_subplotspec()) is not None:
            panels.setdefault(place, ax)  # two axes that share one panel have one name
    for name, ax in zip(ascii_lowercase, panels.values(), strict=False):
        ax.set_title(f"({name})", loc="left")


def tile(images: ArrayLike, columns: int, pad: int = 1) -> NDArray[Any]:
    """Lay images (N, H, W) out on one canvas, row by row, `pad` pixels of the maximum between.

    A last row that is not full is filled with the minimum.
    """
    x = np.asarray(images)
    n, h, w = x.shape
    rows = -(-n // columns)
    canvas = np.full((rows * columns, h + pad, w + pad), x.max(), dtype=x.dtype)
    canvas[:, :h, :w] = x.min()
    canvas[:n, :h, :w] = x
    grid = canvas.reshape(rows, columns, h + pad, w + pad).swapaxes(1, 2)
    return grid.reshape(rows * (h + pad), columns * (w + pad))[: -pad or None, : -pad or None]


def show_images(
    ax: Axes, images: ArrayLike, columns: int, title: str = "", vmax: float = 15
) -> None:
    """Draw images (N, H, W) with grey levels 0..vmax as a grid into one axes."""
    ax.imshow(tile(images, columns), vmin=0, vmax=vmax)
    ax.set_title(title)
    ax.set_axis_off()


def image_panels(
    panels: Sequence[tuple[str, ArrayLike]], columns: int, vmax: float = 15, width: float = 3.2
) -> Figure:
    """Grids of images side by side, each under its title.

    Args:
        panels: (title, images (N, H, W)) from left to right.
        columns: images in a row of each panel.
        vmax: the grey level drawn white.
        width: inches of one panel.
    """
    first = tile(panels[0][1], columns)
    height = width * first.shape[0] / first.shape[1] + 0.3
    fig, axes = plt.subplots(1, len(panels), figsize=(width * len(panels), height), squeeze=False)
    for ax, (title, images) in zip(axes[0], panels, strict=True):
        show_images(ax, images, columns, title, vmax)
    return fig


def steps_of_colour(count: int) -> NDArray[Any]:
    """Colours (count, 4) from light to dark for curves of an ordered quantity.

    They are the middle of a map, for its ends vanish on white or on dark pages. Few of them differ
    clearly, so curves need another mark or a name as well.
    """
    return plt.get_cmap("viridis_r")(np.linspace(0.42, 0.64, count))


def band(ax: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, **style: Any) -> None:
    """Shade an interval around a curve in the colour of the last line drawn."""
    colour = style.pop("color", ax.lines[-1].get_color())
    ax.fill_between(np.asarray(x), low, high, color=colour, alpha=0.2, lw=0, **style)


def error_bars(ax: Axes, x: ArrayLike, intervals: Sequence[Interval], **style: Any) -> None:
    """Draw estimates over x, joined by a line, each with its interval as a bar.

    Args:
        ax: where to.
        x: positions.
        intervals: one a position.
        style: of `Axes.errorbar`.
    """
    values, low, high = np.array([(i.value, i.low, i.high) for i in intervals]).T
    bars = np.nan_to_num(np.stack([values - low, high - values]))
    options: dict[str, Any] = {"marker": "o", "ms": 5, "capsize": 3} | style
    ax.errorbar(x, values, yerr=bars, **options)


def percent(axis: Axis, label: str) -> None:
    """Write the shares along an axis as per cent: `percent(ax.yaxis, "Accuracy")`."""
    axis.set_major_formatter(_as_percent)
    axis.set_label_text(f"{label} (%)")


def _as_percent(share: float, _position: float) -> str:
    return f"{100 * share:.4g}"


def grouped(
    ax: Axes,
    series: Mapping[str, Mapping[str, Interval]],
    marks: Mapping[tuple[str, str], float] | None = None,
) -> None:
    """Draw the estimates of several series side by side at named places, with their intervals.

    Args:
        ax: where to.
        series: estimates by series and place; all series have the same places.
        marks: values by series and place, drawn as crosses.
    """
    for i, (name, found) in enumerate(series.items()):
        x = np.arange(len(found)) + 0.12 * (i - (len(series) - 1) / 2)
        error_bars(ax, x, list(found.values()), ls="none", label=name, color=f"C{i}")
        crosses = [(marks or {}).get((name, place), np.nan) for place in found]
        ax.plot(x, crosses, "x", color=f"C{i}", ms=9, mew=2)
        ax.set_xticks(range(len(found)), [fill(place, 8) for place in found])
        ax.set_xlim(-0.5, len(found) - 0.5)


def gaussian_contours(
    ax: Axes, mean: ArrayLike, std: ArrayLike, shares: Sequence[float], **style: Any
) -> None:
    """Ellipses that hold these shares of the mass of a Gaussian in the plane.

    Args:
        ax: where to draw; its limits stay as they are.
        mean, std: (2,) of the two independent coordinates.
        shares: between 0 and 1.
        style: of the patches, such as `edgecolor`.
    """
    for share in shares:
        width, height = 2 * np.sqrt(-2 * np.log1p(-share)) * np.asarray(std)
        ax.add_patch(Ellipse(tuple(np.asarray(mean)), width, height, fill=False, **style))
