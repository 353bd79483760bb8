import pytest

from hw3lib.runs.store import PUBLISHED
from tests.book.notebooks import (
    NOTEBOOKS,
    QUESTIONS,
    execution_faults,
    figure_faults,
    layout_faults,
    read,
    source_faults,
)

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_question = pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)


@every_notebook
def test_notebook_was_executed_in_order_and_without_errors(path):
    assert execution_faults(read(path)) == []


@every_question
def test_notebook_has_its_fixed_parts(path):
    assert layout_faults(read(path)) == []


@every_notebook
def test_every_figure_has_caption_and_alt_text(path):
    assert figure_faults(read(path)) == []


@every_notebook
def test_every_figure_and_table_names_its_source(path):
    stored = [run.stem for run in PUBLISHED.glob("*/*.json")]
    assert source_faults(read(path), stored) == []
