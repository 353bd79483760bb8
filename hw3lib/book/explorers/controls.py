"""What a reader moves: the native inputs, so that mouse, touch, keys and screen readers work."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw3lib.book.explorers.sheet import png


@dataclass(frozen=True)
class Slider:
    """An ordered quantity.

    Attributes:
        label: its name.
        values: its values, in words.
        start: the position that is shown first.
    """

    label: str
    values: Sequence[str]
    start: int = 0

    def html(self, name: str) -> str:
        """The input, with `name` as its id."""
        return (
            f'<div class="slider"><label for="{name}">{html.escape(self.label)}</label>'
            f'<span class="value">{html.escape(self.values[self.start])}</span>'
            f'<input type="range" id="{name}" max="{len(self.values) - 1}" value="{self.start}">'
            "</div>"
        )


@dataclass(frozen=True)
class Choice:
    """One of a few things.

    Attributes:
        label: what is chosen.
        values: what there is to choose from.
        start: the position that is chosen first.
        icons: (N, H, W, 3) RGB pictures to show in place of the words.
    """

    label: str
    values: Sequence[str]
    start: int = 0
    icons: NDArray[np.uint8] | None = None

    def html(self, name: str) -> str:
        """The inputs, which share `name`."""
        inputs = [
            f'<label><input type="radio" name="{name}"{" checked" * (i == self.start)}>'
            f"{self._face(i)}</label>"
            for i in range(len(self.values))
        ]
        legend = f"<legend>{html.escape(self.label)}</legend>"
        return f"<fieldset>{legend}{''.join(inputs)}</fieldset>"

    def _face(self, i: int) -> str:
        word = html.escape(self.values[i])
        if self.icons is None:
            return f"<span>{word}</span>"
        return f'<img alt="{word}" title="{word}" src="data:image/png;base64,{png(self.icons[i])}">'


Control = Slider | Choice
