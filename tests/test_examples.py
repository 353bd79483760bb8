"""The examples of the documentation run, and every public name has one."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest
import torch

import hw3lib

DOORS = ["hw3lib", "hw3lib.robust", "hw3lib.runs", "hw3lib.training", "hw3lib.vae"]
# The book explains itself on its pages.
MODULES = [
    module.name
    for module in pkgutil.walk_packages(hw3lib.__path__, "hw3lib.")
    if not module.name.startswith(("hw3lib.book", "hw3lib.cli", "hw3lib.__main__"))
]
PUBLIC = [(door, name) for door in DOORS for name in importlib.import_module(door).__all__]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HW3_CACHE", str(tmp_path))
    monkeypatch.setenv("HW3_PRECISION", "float32")
    torch.manual_seed(0)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.failed == 0


def documentation(thing):
    """The docstrings of a name, and those of its methods if it is a class."""
    own = inspect.getdoc(thing) or ""
    parts = vars(thing).values() if inspect.isclass(thing) else ()
    return own + "".join(inspect.getdoc(part) or "" for part in parts if callable(part))


@pytest.mark.parametrize(("door", "name"), PUBLIC, ids=lambda value: value)
def test_every_public_name_has_an_example(door, name):
    """In its own docstring, or in that of the package that it stands in."""
    module = importlib.import_module(door)
    shown = [line for line in inspect.getdoc(module).splitlines() if ">>>" in line]
    assert ">>>" in documentation(getattr(module, name)) or re.search(
        rf"\b{name}\b", "\n".join(shown)
    ), f"{door}.{name} has no example"
