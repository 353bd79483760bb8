"""The doors of the library: what may import what, and what a door says is public."""

import ast
import importlib
import itertools
import pkgutil
import re
import subprocess
import sys

import pytest

import hw3lib
from tests.book.notebooks import ROOT

DOORS = ["hw3lib", *(f"hw3lib.{name}" for name in ("vae", "robust", "training", "runs"))]


def test_imports_go_one_way_and_in_no_circle():
    """The contracts in pyproject.toml, which are the picture in ARCHITECTURE.md."""
    # In a process of its own: the tool switches off the loggers that it finds.
    code = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout


@pytest.mark.parametrize("name", DOORS)
def test_a_door_says_what_is_public_and_has_it(name):
    door = importlib.import_module(name)
    assert len(set(door.__all__)) == len(door.__all__)
    for public in door.__all__:
        assert getattr(door, public) is not None
    assert set(door.__all__) <= set(dir(door))


def test_the_face_is_quick_and_has_nothing_else():
    code = "import sys, hw3lib; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'fgsm'"):
        _ = hw3lib.fgsm


def test_every_module_says_what_it_is_about():
    modules = [m.name for m in pkgutil.walk_packages(hw3lib.__path__, "hw3lib.")]
    assert len(modules) > 50
    assert all(importlib.import_module(name).__doc__ for name in modules)


def is_text(statement):
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def texts_of_values(tree):
    """Docstrings of properties, texts below assignments, and what is returned, of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield from re.findall(r"Returns:\n +(.*)", ast.get_docstring(node) or "")
        if isinstance(node, ast.FunctionDef) and "property" in map(
            ast.unparse, node.decorator_list
        ):
            yield ast.get_docstring(node) or ""
        body = getattr(node, "body", None)
        for value, text in itertools.pairwise(body) if isinstance(body, list) else ():
            if isinstance(value, ast.Assign | ast.AnnAssign) and is_text(text):
                yield str(text.value.value)


def test_no_value_is_described_with_a_colon():
    """The pages of the API would take what stands before it for the value's type."""
    trees = [ast.parse(path.read_text("utf-8")) for path in ROOT.glob("hw3lib/**/*.py")]
    first_lines = [text.strip().split("\n")[0] for tree in trees for text in texts_of_values(tree)]
    assert len(first_lines) > 100
    assert [line for line in first_lines if ": " in line] == []
