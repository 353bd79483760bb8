import json

import nbformat
import numpy as np
import pytest

from hw3lib.book import notebooks

SOURCE = """
from hw3lib.book.glue import glue
glue("double", 2 * seed, ".1f")
glue("share", f"{seed / 10} [0.0, 1.0]")
glue("word", "holds")
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("notebooks") / "small.ipynb"
    defaults = nbformat.v4.new_code_cell("seed = 1", metadata={"tags": ["parameters"]})
    content = nbformat.v4.new_notebook(cells=[defaults, nbformat.v4.new_code_cell(SOURCE)])
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content.metadata["kernelspec"] = kernel
    nbformat.write(content, path)
    return path


@pytest.fixture(scope="module")
def executed(notebook):
    return [
        notebooks.execute(notebook, notebook.parent / f"{seed}.ipynb", {"seed": seed})
        for seed in (3, 5)
    ]


def test_glued_numbers_are_read_back(executed):
    assert notebooks.glued(executed[0]) == {
        "double": "6.0",
        "share": "0.3 [0.0, 1.0]",
        "word": "holds",
    }


def test_the_summary_is_over_seeds_and_leaves_words_out(executed):
    table = notebooks.summary(executed)
    assert list(table.index) == [("small", "double"), ("small", "share")]
    double = table.loc[("small", "double")]
    assert (double["mean"], double["n"]) == (8, 2)
    assert double["low"] < 6 < 10 < double["high"]
    assert table.loc[("small", "share"), "mean"] == pytest.approx(0.4)
    assert np.isnan(notebooks.summary(executed[:1])["low"]).all()


def test_executions_that_differ_in_more_than_the_seed_are_told_apart(executed, tmp_path):
    other = tmp_path / "other.ipynb"
    content = json.loads(executed[0].read_text())
    content["metadata"]["papermill"]["parameters"]["dataset"] = "digits"
    other.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"other\.ipynb was executed with .*digits.*nothing else"):
        notebooks.summary([executed[1], other])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("93.0%", 0.93),
        ("82% [80, 84]", 0.82),
        ("+1.2 [0.4, 2.0]", 1.2),
        ("\N{MINUS SIGN}0.017", -0.017),
        ("1,024", 1024),
        ("p < 0.001", None),
        ("holds", None),
    ],
)
def test_numbers_are_read_as_they_are_quoted(text, number):
    found = notebooks._number(text)
    assert found == (number if number is None else pytest.approx(number))


def test_a_folder_as_output_is_refused_before_anything_runs(notebook, tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        notebooks.execute(notebook, tmp_path, {"seed": 3})


def test_an_execution_is_counted_once(executed, tmp_path):
    copy = tmp_path / "copy.ipynb"
    copy.write_bytes(executed[0].read_bytes())
    with pytest.raises(ValueError, match="the same execution"):
        notebooks.summary([*executed, copy])


def test_a_misspelt_parameter_is_refused_before_anything_runs(notebook, tmp_path):
    with pytest.raises(ValueError, match="has no parameter sede; it has seed"):
        notebooks.execute(notebook, tmp_path / "out.ipynb", {"sede": 3})
    assert not list(tmp_path.iterdir())


def test_a_failed_notebook_says_where_and_leaves_no_output(notebook, tmp_path):
    with pytest.raises(RuntimeError, match=r"failed in cell 3 .*out\.part\.ipynb shows"):
        notebooks.execute(notebook, tmp_path / "out.ipynb", {"seed": "three"})
    assert [path.name for path in tmp_path.iterdir()] == ["out.part.ipynb"]


@pytest.mark.parametrize("content", ["", "{", json.dumps({"cells": 3}), json.dumps([])])
def test_an_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "broken.ipynb"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"broken\.ipynb"):
        notebooks.summary([path])
