"""The face of the book: what its first page, a link to it and a browser's tab show."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from hw3lib.book import figures
from hw3lib.experiments.catalog import named
from hw3lib.runs.store import Run, run

CARD_ALT = (
    "On the left a square of handwritten digits that change gradually into one another; on the"
    " right small photographs, a pattern of noise, and the same photographs with wrong names."
)
CARD = (1200, 630)  # pixels, as OpenGraph asks for
EXAMPLES = 3


def cover_runs(seed: int = 0) -> tuple[Run, Run]:
    """The map of the latent plane, and the attacked pictures."""
    asked = named(seed)
    return run(asked["plane_map"]), run(asked["pictures"])  # type: ignore[arg-type]


def cover(plane: Run, pictures: Run, width: float = 9.0) -> Figure:
    """What a VAE draws over its latent plane, beside pictures that an attack has changed.

    Args:
        plane: of `PlaneMap`.
        pictures: of `AdversarialPictures`.
        width: inches.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(width, 0.55 * width))
    tiles = plane.arrays["tiles"]
    left.imshow(figures.tile(tiles.reshape(-1, *tiles.shape[2:]), tiles.shape[1], pad=0))
    left.set_title("What a VAE draws")
    left.set_axis_off()
    _attacked(right, pictures)
    right.set_title("A picture, plus a little, is something else")
    return fig


def _attacked(ax: Axes, pictures: Run) -> None:
    """Rows of a picture, the change times a number, and the sum, each named by the network."""
    names, shown = pictures.results["classes"], pictures.arrays
    surest = np.argsort(-shown["after"].max(1))[:EXAMPLES]
    change = shown["adversarial"] - shown["original"]
    amplified = 0.5 + 0.5 * change / np.abs(change).max()
    for row, i in enumerate(surest):
        for column, part in enumerate((shown["original"], amplified, shown["adversarial"])):
            left, bottom = 1.25 * column, -1.4 * row
            picture = part[i].transpose(1, 2, 0).clip(0, 1)
            ax.imshow(picture, extent=(left, left + 1, bottom, bottom + 1))
            ax.text(left - 0.125, bottom + 0.5, ("", "+", "=")[column], ha="center", va="center")
        for left, chances in ((0, shown["before"][i]), (2.5, shown["after"][i])):
            text = f"{names[chances.argmax()]}, {chances.max():.0%}"
            ax.text(left + 0.5, bottom - 0.06, text, ha="center", va="top", fontsize=10)
    ax.set(xlim=(-0.1, 3.6), ylim=(-1.4 * (EXAMPLES - 1) - 0.35, 1.1))
    ax.set_axis_off()


def write_card(path: Path) -> None:
    """The picture that a link to the book shows elsewhere, as a PNG."""
    dpi = 100
    with plt.rc_context():
        figures.use_style()
        fig = cover(*cover_runs(), width=CARD[0] / dpi)
        fig.set_size_inches(CARD[0] / dpi, CARD[1] / dpi)
        fig.savefig(path, dpi=dpi, bbox_inches=None)
    plt.close(fig)


def write_icon(path: Path, size: int = 64) -> None:
    """A digit from the middle of the plane, for a browser's tab."""
    tiles = cover_runs()[0].arrays["tiles"]
    tile = tiles[tiles.shape[0] // 2, tiles.shape[1] // 4]
    grey = np.uint8(np.clip(np.round(17 * tile), 0, 255))
    Image.fromarray(grey).resize((size, size), Image.Resampling.BICUBIC).save(path)
