import pytest
from nbformat.v4 import new_code_cell

from hw3lib.runs.store import PUBLISHED
from tests.book.notebooks import (
    NOTEBOOKS,
    QUESTIONS,
    code_cells,
    execution_faults,
    figure_faults,
    layout_faults,
    parameter_faults,
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
def test_parameters_are_looked_at_before_the_page_loads_anything_else(path):
    assert parameter_faults(code_cells(read(path))) == []


@pytest.mark.parametrize("late", ["import torch", "seed = 0", "print(seed)"])
def test_parameters_that_are_looked_at_too_late_are_noticed(late):
    first = new_code_cell("from hw3lib.book.parameters import Seed, check_parameters")
    cells = [
        first,
        new_code_cell("seed: Seed = 0", metadata={"tags": ["parameters"]}),
        new_code_cell("check_parameters(globals())"),
    ]
    assert parameter_faults(cells) == []
    where = {"import torch": first, "seed = 0": cells[1], "print(seed)": cells[2]}[late]
    where.source = f"{late}\n{where.source}"
    assert len(parameter_faults(cells)) == 1


@every_notebook
def test_every_figure_has_caption_and_alt_text(path):
    assert figure_faults(read(path)) == []


@every_notebook
def test_every_figure_and_table_names_its_source(path):
    stored = [run.stem for run in PUBLISHED.glob("*/*.json")]
    assert source_faults(read(path), stored) == []
