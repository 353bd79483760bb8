"""What an explorer shows of each state of its controls.

The first axes of a panel's arrays, written "..." below, are those of the controls, in their order;
an axis of length 1 says that the panel does not depend on that control.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hw3lib.book.explorers.sheet import GREYS, columns_of, quantise, sheet


class Panel(Protocol):
    """A part of an explorer."""

    def html(self) -> str:
        """Its element, as it is before the script fills it."""
        ...

    def settings(self, dims: Sequence[int]) -> dict[str, Any]:
        """What the script needs, for controls with so many values; see explorer.js."""
        ...


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        label: stands above it.
        images: (..., H, W) grey levels 0..vmax, which are shown in 16 greys.
        vmax: the grey level drawn white.
        width: of the element, in CSS.
    """

    label: str
    images: ArrayLike
    vmax: float = GREYS - 1
    width: str = "11rem"

    def html(self) -> str:
        return canvas(self.label, self.width)

    def settings(self, dims: Sequence[int]) -> dict[str, Any]:
        images, strides = by_state(quantise(self.images, self.vmax), dims, 2)
        return {"kind": "picture", "sheet": _packed(images), "strides": strides}


@dataclass(frozen=True)
class Attacked:
    """A change of a picture, amplified, and the picture with it.

    Attributes:
        original: (..., H, W, 3) RGB, uint8.
        change: (..., H, W, 3), whole numbers from -127 to 127; the sum is a picture again.
    """

    original: NDArray[np.uint8]
    change: NDArray[np.int8]

    def html(self) -> str:
        return canvas("Change, amplified", "9rem") + canvas("Attacked picture", "9rem")

    def settings(self, dims: Sequence[int]) -> dict[str, Any]:
        original, of_original = by_state(self.original, dims, 3)
        change, of_change = by_state(np.asarray(self.change, np.int16), dims, 3)
        changed = self.original.astype(np.int16) + self.change
        if np.abs(change).max() > 127 or changed.min() < 0 or changed.max() > 255:
            raise ValueError("the changes must be -127..127, and their sums with pictures 0..255")
        return {
            "kind": "attacked",
            "original": _packed(original),
            "change": _packed(_wide(change), 256),
            "strides": [of_original, of_change],
        }


@dataclass(frozen=True)
class Bars:
    """Probabilities of classes.

    Attributes:
        labels: names of the K classes.
        shares: (..., K), in 0..1; shown in tenths of a per cent.
        truth: (...), the right class.
    """

    labels: Sequence[str]
    shares: ArrayLike
    truth: ArrayLike

    def html(self) -> str:
        rows = (
            f'<li><span>{html.escape(label)}</span><span class="bar"></span><span></span></li>'
            for label in self.labels
        )
        return f'<ol class="bars" aria-label="Probabilities">{"".join(rows)}</ol>'

    def settings(self, dims: Sequence[int]) -> dict[str, Any]:
        shares, strides = by_state(np.asarray(self.shares, np.float64), dims, 1)
        truth, of_truth = by_state(np.asarray(self.truth), dims, 0)
        if shares.shape[1] != len(self.labels) or shares.min() < 0 or shares.max() > 1 + 1e-6:
            raise ValueError(f"{len(self.labels)} classes need as many shares in 0..1 each")
        return {
            "kind": "bars",
            "shares": (1000 * shares).round().astype(int).tolist(),
            "truth": truth.tolist(),
            "strides": [strides, of_truth],
        }


def canvas(label: str, width: str) -> str:
    """An empty picture under its label."""
    name = html.escape(label)
    return (
        f'<div class="picture" style="--width:{width}"><span>{name}</span>'
        f'<canvas role="img" aria-label="{name}"></canvas></div>'
    )


def by_state(
    values: NDArray[Any], dims: Sequence[int], inner: int
) -> tuple[NDArray[Any], list[int]]:
    """Values (N, ...) without the axes of the controls, and how far apart neighbours lie in N.

    Args:
        values: the axes of the controls, which may have the length 1, and `inner` more.
        dims: how many values each control has.
        inner: axes after those of the controls.

    Raises:
        ValueError: another shape.
    """
    outer = values.shape[: len(dims)]
    fits = values.ndim == len(dims) + inner and all(
        have in (1, want) for have, want in zip(outer, dims, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{values.shape} does not fit controls with {tuple(dims)} values and "
            f"{inner} axes more; an axis of a control may also have the length 1"
        )
    steps = [int(np.prod(outer[i + 1 :])) if have > 1 else 0 for i, have in enumerate(outer)]
    return values.reshape(-1, *values.shape[len(dims) :]), steps


def _wide(change: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Changes (N, H, W, 3) with the colours side by side, (N, H, 3 W), 128 for none."""
    return (change + 128).astype(np.uint8).reshape(*change.shape[:2], -1)


def _packed(images: NDArray[np.uint8], levels: int = GREYS) -> dict[str, Any]:
    """A sheet of pictures (N, H, W) or (N, H, W, 3), and where each lies in it."""
    return {
        "png": sheet(images, levels=levels),
        "columns": columns_of(len(images)),
        "size": list(images.shape[1:3]),
    }
