"""Sliders and choices, and what belongs to each of their states."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import HTML

from hw3lib.book.explorers.controls import Control
from hw3lib.book.explorers.panels import Panel, by_state

HERE = Path(__file__).parent


def explorer(
    name: str,
    controls: Sequence[Control],
    panels: Sequence[Panel],
    captions: Any = None,
) -> HTML:
    """An explorer, as a notebook shows it.

    Args:
        name: of the element, unique on the page; letters, digits and hyphens.
        controls: what the reader moves.
        panels: what is shown, from left to right; see `hw3lib.book.explorers.panels`.
        captions: (...) texts, one for each state of the controls; an axis may have length 1.

    Raises:
        ValueError: the arrays do not fit the controls, or the name has other characters.
    """
    dims = [len(control.values) for control in controls]
    settings: dict[str, Any] = {
        "start": [control.start for control in controls],
        "values": [list(control.values) for control in controls],
        "panels": [panel.settings(dims) for panel in panels],
    }
    if captions is not None:
        texts, strides = by_state(np.asarray(captions, dtype=np.str_), dims, 0)
        settings["captions"] = {"texts": texts.tolist(), "strides": strides}
    inputs = "".join(control.html(f"{name}-{i}") for i, control in enumerate(controls))
    shown = "".join(f'<div class="panel">{panel.html()}</div>' for panel in panels)
    body = (
        f'<div class="controls">{inputs}</div><div class="panels">{shown}</div>'
        '<output aria-live="polite"></output>'
    )
    return element(name, body, "explorer.js", settings)


def element(name: str, body: str, script: str, settings: dict[str, Any]) -> HTML:
    """An element with the style of all explorers, which a script of this folder fills.

    Raises:
        ValueError: the name has other characters than letters, digits and hyphens.
    """
    if not name.replace("-", "").isalnum():
        raise ValueError(f"name={name!r}: use letters, digits and hyphens")
    data = json.dumps(settings, separators=(",", ":")).replace("<", "\\u003c")
    style, code = ((HERE / file).read_text(encoding="utf-8") for file in ("style.css", script))
    return HTML(
        f'<div id="{name}" class="explorer">\n<style>\n{style}</style>\n{body}\n'
        f'<script>\n(function (root, s) {{\n{code}}})(document.getElementById("{name}"), {data});\n'
        "</script>\n<noscript>This explorer needs scripts.</noscript>\n</div>\n"
    )
