"""The doors of the library: what may import what, and what a door says is public."""

import importlib
import pkgutil
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
