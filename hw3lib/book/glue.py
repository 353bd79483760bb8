"""Put a number or a figure of a notebook where its prose can quote it.

The output has the format that the `glue` roles of MyST-NB read; MyST-NB itself is not needed, so
that the notebooks run in Colab with nothing but this package.
"""

from __future__ import annotations

import ast
import html
import inspect
import textwrap
from typing import Any

MIME_PREFIX = "application/papermill.record/"


def glue(name: str, value: Any, spec: str = "") -> None:
    """Store `value` in the notebook as `name`, which the role `glue:text` shows in a text cell.

    Args:
        name: unique within the notebook.
        value: a number, a string, or anything that `spec` can format.
        spec: format specification, as in `format(value, spec)`.
    """
    from IPython.display import display

    text = format(value, spec)
    metadata = {"scrapbook": {"name": name, "mime_prefix": MIME_PREFIX}}
    display({f"{MIME_PREFIX}text/plain": repr(text)}, raw=True, metadata=metadata)


def show_table(table: Any, source: str) -> None:
    """Show a table, and below it a fold that says where its numbers come from.

    Args:
        table: a data frame, or whatever a notebook can show.
        source: such as `hw3lib.runs.source` gives.
    """
    from IPython.display import display

    display(table)
    fold = f"<summary>Source</summary>{html.escape(source)}"
    line = f'<details class="source">{fold}</details>'
    display({"text/plain": source, "text/html": line}, raw=True)


def show_source(*objects: Any) -> None:
    """Show the library's own code of functions, methods or classes, highlighted.

    Docstrings and checks of arguments are left out; a fold below holds the whole.
    """
    from IPython.display import Markdown, display

    whole = [textwrap.dedent(inspect.getsource(obj)).strip() for obj in objects]
    core = [without_checks(source) for source in whole]
    display(Markdown(_as_code(core)))
    if core != whole:
        fold = '<details class="fold"><summary>With docstrings and checks</summary>'
        display(Markdown(f"{fold}\n\n{_as_code(whole)}\n\n</details>"))


def without_checks(source: str) -> str:
    """The source of a function or class without its docstrings and checks of arguments.

    A check is a statement of a function that can only raise: an `if` whose body is one `raise`, or
    the call of a function `check_...`.
    """
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        text = node.body[:1] if ast.get_docstring(node, clean=False) is not None else []
        dropped = text + [statement for statement in node.body if _is_check(statement)]
        for statement in dropped if len(dropped) < len(node.body) else ():
            for number in range(statement.lineno - 1, statement.end_lineno or statement.lineno):
                lines[number] = _DROPPED
            if lines[number + 1 : number + 2] == [""]:
                lines[number + 1] = _DROPPED
    return "\n".join(line for line in lines if line is not _DROPPED)


_DROPPED = "# dropped"


def _is_check(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return [type(s) for s in statement.body] == [ast.Raise] and not statement.orelse
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1].startswith("check_")


def _as_code(parts: list[str]) -> str:
    return "```python\n" + "\n\n".join(parts) + "\n```"
