"""The notebooks as students get them: without answers, with functions to write and their tests.

All is derived from the text of the pages. A cell tagged `solution` holds functions that a student
writes, defined there or shown by `show_source`; a cell tagged `test` holds `test_NAME` for each.
Places for answers are marked as nbgrader does it, which can grade them.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

QUESTIONS = "q[12]_*.md"
TODO = "# YOUR CODE HERE\nraise NotImplementedError()"
ANSWER = '+++ {"tags": ["answer"]}\n\nYOUR ANSWER HERE\n\n+++\n'
PREDICTION = "+++\n\nYOUR PREDICTION HERE, before you go on\n\n+++\n"
KINDS: dict[str, dict[str, Any]] = {
    "solution": {"grade": False, "solution": True, "locked": False, "task": False},
    "test": {"grade": True, "solution": False, "locked": True, "task": False},
    "answer": {"grade": True, "solution": True, "locked": False, "task": False},
}
"""What nbgrader has to know of a cell, who writes it and whether it earns points."""
POINTS = {"test": {"points": 1}, "answer": {"points": 1}}
FENCE = r"^(?P<fence>`{3,}|:{3,})"
OPENING = re.compile(
    FENCE + r"(?P<head>\{admonition\}[^\n]*\n:class: question\n).*?^(?P=fence)$", re.M | re.S
)
PREDICT = re.compile(FENCE + r"\{admonition\} Predict, then reveal\n.*?^(?P=fence)\n", re.M | re.S)
REVEAL = re.compile(FENCE + r"\{dropdown\} Reveal\n.*?^(?P=fence)\n", re.M | re.S)
SOLUTION = re.compile(
    FENCE
    + r"\{solution(?:\}.*?|-start\}.*?^(?P=fence)\n.*?^(?P=fence)\{solution-end\}\n)^(?P=fence)\n",
    re.M | re.S,
)
SUMMARY = re.compile(r"^## Summary\n.*?(?=^## )", re.M | re.S)
TASK = "You answer this at the end, under Summary."


def write(book: Path, folder: Path) -> list[Path]:
    """Write the student edition of all questions into a folder that is new or empty.

    Args:
        book: the folder of the book, with the pages' text in `text/`.
        folder: where the notebooks go.

    Raises:
        ValueError: the folder is not empty, or there is no book.
    """
    import nbformat

    if not (texts := sorted(book.glob(f"text/{QUESTIONS}"))):
        raise ValueError(f"{book} is not the book: it has no text/{QUESTIONS}; give --book")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder; name a new one")
    made = {text.stem: edition(text.read_text(encoding="utf-8"), text.stem) for text in texts}
    folder.mkdir(parents=True, exist_ok=True)
    for name, notebook in made.items():
        nbformat.write(notebook, folder / f"{name}.ipynb")
    return [folder / f"{name}.ipynb" for name in made]


def edition(text: str, name: str, *, solved: bool = False) -> Any:
    """A page's notebook without answers, with the functions that students write left open.

    Args:
        text: of the page, in MyST.
        name: of the page, with which nbgrader's names of its cells begin.
        solved: keep the bodies of these functions.

    Raises:
        ValueError: a solution holds something else than functions, or one without a test.
    """
    import jupytext

    notebook = jupytext.reads(without_answers(text), fmt="md:myst")
    functions = Functions(notebook.cells)
    notebook.cells = [cell for cell in notebook.cells if _keep(cell, functions, solved)]
    del notebook.metadata["jupytext"]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name}-{number}"
        for kind in KINDS.keys() & cell.metadata.get("tags", []):
            mark = KINDS[kind] | {"grade_id": cell.id, "schema_version": 3}
            cell.metadata["nbgrader"] = mark | POINTS.get(kind, {})
    return notebook


def without_answers(text: str) -> str:
    """The text of a page with a place for one's own in place of each answer."""
    text = OPENING.sub(rf"\g<fence>\g<head>\n{TASK}\n\g<fence>", text)
    text = PREDICT.sub(lambda box: f"{REVEAL.sub('', box[0])}\n{PREDICTION}", text)
    text = SOLUTION.sub(ANSWER, text)
    return SUMMARY.sub(f"## Summary\n\n{ANSWER}\n", text)


class Functions:
    """The functions of a notebook that students write.

    Args:
        cells: of the whole notebook, with its imports and its tests.
    """

    def __init__(self, cells: Sequence[Any]) -> None:
        code = [cell for cell in cells if cell.cell_type == "code"]
        self.tested = {
            name for cell in code if is_test(cell) for name in self.tests_in(cell.source)
        }
        self.origins = {
            alias.asname or alias.name: (node.module, alias.name)
            for cell in code
            if "import" in cell.source and not cell.source.lstrip().startswith("%")
            for node in ast.parse(cell.source).body
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }

    @staticmethod
    def tests_in(source: str) -> list[str]:
        """Names of the functions that a cell tests."""
        return re.findall(r"^def test_(\w+)\(", source, re.MULTILINE)

    def of(self, source: str) -> Iterator[str]:
        """Source of the functions in a solution, without annotations.

        What it only shows, and nothing tests, is left out.
        """
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.FunctionDef):
                if statement.name not in self.tested:
                    raise ValueError(f"the solution {statement.name} has no test_{statement.name}")
                yield ast.get_source_segment(source, statement) or ""
            elif (shown := _shown(statement)) is not None:
                yield from (self._library(name) for name in shown if name in self.tested)
            else:
                raise ValueError(f"a solution holds functions only, not {ast.unparse(statement)}")

    def _library(self, name: str) -> str:
        module, original = self.origins[name]
        function = getattr(importlib.import_module(module), original)
        return textwrap.dedent(inspect.getsource(function))


def _shown(statement: ast.stmt) -> list[str] | None:
    """The names in a call of `show_source`."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(call, ast.Call) and ast.unparse(call.func) == "show_source":
        return [ast.unparse(argument) for argument in call.args]
    return None


def is_test(cell: Any) -> bool:
    """Whether a cell tests what students write."""
    return "test" in cell.metadata.get("tags", [])


def _keep(cell: Any, functions: Functions, solved: bool) -> bool:
    """Open a solution; whether anything is left of the cell."""
    if "solution" in cell.metadata.get("tags", []):
        parts = [opened(source, solved=solved) for source in functions.of(cell.source)]
        cell.source = "\n\n\n".join(parts)
    return bool(cell.source.strip())


def opened(source: str, *, solved: bool = False) -> str:
    """A function's signature and docstring, and in place of its body what is to do.

    Args:
        source: of a function with a docstring.
        solved: keep the body.
    """
    (function,) = ast.parse(source).body
    if not isinstance(function, ast.FunctionDef) or ast.get_docstring(function) is None:
        raise ValueError(f"a solution needs a docstring that says what to write: {source[:60]!r}")
    rest = source.splitlines()[function.body[0].end_lineno :]
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    function.returns, function.body = None, function.body[:1]
    body = "\n".join(rest) if solved else textwrap.indent(TODO, "    ")
    return f"{ast.unparse(function)}\n{body}"
