"""Put a number or a figure of a notebook where its prose can quote it.

The output has the format that the `glue` roles of MyST-NB read; MyST-NB itself is not needed, so
that the notebooks run in Colab with nothing but this package.
"""

from __future__ import annotations

import html
import inspect
import textwrap
from typing import Any

from IPython.display import Markdown, display

MIME_PREFIX = "application/papermill.record/"


def glue(name: str, value: Any, spec: str = "") -> None:
    """Store `value` in the notebook as `name`, which the role `glue:text` shows in a text cell.

    Args:
        name: unique within the notebook.
        value: a number, a string, or anything that `spec` can format.
        spec: format specification, as in `format(value, spec)`.
    """
    text = format(value, spec)
    metadata = {"scrapbook": {"name": name, "mime_prefix": MIME_PREFIX}}
    display({f"{MIME_PREFIX}text/plain": repr(text)}, raw=True, metadata=metadata)


def show_table(table: Any, source: str) -> None:
    """Show a table, and below it in small print where its numbers come from.

    Args:
        table: a data frame, or whatever a notebook can show.
        source: such as `hw3lib.runs.source` gives.
    """
    display(table)
    line = f'<p class="source">{html.escape(source)}</p>'
    display({"text/plain": source, "text/html": line}, raw=True)


def show_source(*objects: Any) -> None:
    """Show the library's own code of functions, methods or classes, highlighted."""
    parts = (textwrap.dedent(inspect.getsource(obj)).strip() for obj in objects)
    display(Markdown("```python\n" + "\n\n".join(parts) + "\n```"))
