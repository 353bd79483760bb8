import jupytext
import pytest
from jupytext.compare import compare_notebooks

from tests.book.notebooks import BOOK, NOTEBOOKS, read


def test_every_text_has_its_notebook_and_every_notebook_its_text():
    assert {path.stem for path in NOTEBOOKS} == {path.stem for path in BOOK.glob("text/*.md")}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_and_text_agree(path):
    text = jupytext.read(BOOK / "text" / f"{path.stem}.md")
    compare_notebooks(read(path), text, fmt="md:myst", allow_expected_differences=True)
