"""Curves with a mark at the state that is shown. Matplotlib lays them out, the page draws them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from numpy.typing import ArrayLike, NDArray

from hw3lib.book.explorers.panels import by_state

WIDTH, HEIGHT = 340, 230
"""Of the drawing, in its own units, in which its text is 12 high."""

LEFT, RIGHT, TOP, BOTTOM = 68, 328, 10, 190
"""Where the axes lie in it."""


@dataclass(frozen=True)
class Chart:
    """Curves over the values of one control, one for each state of the others.

    Attributes:
        ax: empty axes that give scales, ticks, labels, and limits unless these are to follow from
            the points; their figure is closed.
        x, y: (...) of every state.
        along: the control whose values a curve joins.

    Raises:
        ValueError: a point lies outside of the limits.
    """

    ax: Axes
    x: ArrayLike
    y: ArrayLike
    along: int

    def __post_init__(self) -> None:
        x, y = np.broadcast_arrays(self.x, self.y)
        self.ax.plot(x.ravel(), y.ravel())
        for name, values in (("x", x), ("y", y)):
            low, high = sorted(getattr(self.ax, f"get_{name}lim")())
            if values.min() < low or values.max() > high:
                raise ValueError(
                    f"{name}: some points lie outside of the limits {low:g} to {high:g}"
                )

    def html(self) -> str:
        curves = np.moveaxis(self._points(), self.along, -2)
        paths = "".join(
            f'<path class="curve" d="M{" ".join(f"{x:.1f},{y:.1f}" for x, y in curve)}"/>'
            for curve in curves.reshape(-1, *curves.shape[-2:])
        )
        drawing = (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{html.escape(self._alt())}">{self._frame()}{paths}'
            '<circle class="mark" r="5.5"/></svg>'
        )
        plt.close(self.ax.figure)  # type: ignore[arg-type]
        return drawing

    def settings(self, dims: Sequence[int]) -> dict[str, Any]:
        points, strides = by_state(self._points().round(1), dims, 1)
        others = [
            1 if i == self.along else have for i, have in enumerate(self._points().shape[:-1])
        ]
        _, of_curve = by_state(np.empty(others), dims, 0)
        return {"kind": "chart", "points": points.tolist(), "strides": [strides, of_curve]}

    def _points(self) -> NDArray[np.float64]:
        """Where each state lies in the drawing, (..., 2)."""
        x, y = np.broadcast_arrays(np.asarray(self.x, float), np.asarray(self.y, float))
        return self._place(np.stack([x, y], axis=-1))

    def _place(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = values.reshape(-1, 2)
        u, v = (self.ax.transData + self.ax.transAxes.inverted()).transform(flat).T
        placed = np.stack([LEFT + u * (RIGHT - LEFT), BOTTOM - v * (BOTTOM - TOP)], axis=-1)
        return placed.reshape(values.shape)

    def _frame(self) -> str:
        """The axes with their ticks and labels."""
        low = [limits[0] for limits in (self.ax.get_xlim(), self.ax.get_ylim())]
        parts = [f'<path class="axes" d="M{LEFT},{TOP}V{BOTTOM}H{RIGHT}"/>']
        for value, text in _ticks(self.ax.xaxis):
            x, _ = self._place(np.array([value, low[1]]))
            parts.append(f'<path class="axes" d="M{x:.1f},{BOTTOM}v4"/>')
            parts.append(f'<text x="{x:.1f}" y="{BOTTOM + 17}" text-anchor="middle">{text}</text>')
        for value, text in _ticks(self.ax.yaxis):
            _, y = self._place(np.array([low[0], value]))
            parts.append(f'<path class="axes" d="M{LEFT},{y:.1f}h-4"/>')
            parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        middle = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
        x_label, y_label = (html.escape(axis.get_label_text()) for axis in _axes(self.ax))
        parts.append(
            f'<text x="{middle[0]}" y="{HEIGHT - 4}" text-anchor="middle">{x_label}</text>'
        )
        turned = f'transform="translate(12,{middle[1]})rotate(-90)" text-anchor="middle"'
        return "".join([*parts, f"<text {turned}>{y_label}</text>"])

    def _alt(self) -> str:
        x_label, y_label = (axis.get_label_text() for axis in _axes(self.ax))
        return f"{y_label} over {x_label}, with a mark at what is chosen"


def _axes(ax: Axes) -> tuple[Axis, Axis]:
    return ax.xaxis, ax.yaxis


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    """The major ticks within the limits, with what stands at them."""
    low, high = sorted(axis.get_view_interval())
    inside = [float(place) for place in axis.get_majorticklocs() if low <= place <= high]
    return [(place, f"{place:,.6g}".replace("-", "\N{MINUS SIGN}")) for place in inside]
