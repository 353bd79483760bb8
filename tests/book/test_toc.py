import re
from pathlib import Path

import yaml

from tests.book.notebooks import BOOK, NOTEBOOKS, ROOT


def files_in(toc: dict) -> list[str]:
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(chapter["file"] for chapter in chapters)]


def test_copy_of_the_table_of_contents_is_equal():
    assert (ROOT / "_toc.yml").read_bytes() == (BOOK / "_toc.yml").read_bytes()


def test_table_of_contents_lists_every_page_once():
    files = files_in(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    pages = {path.stem for path in [*NOTEBOOKS, *BOOK.glob("*.md")]}
    assert len(files) == len(set(files))
    assert set(files) == pages


def test_api_pages_document_every_public_module():
    """All but the command line, which documents itself with --help."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in Path(ROOT / "hw3lib").rglob("*.py")
        if not path.name.startswith("_") and path.name != "cli.py"
    }
    pages = "".join(page.read_text() for page in sorted(BOOK.glob("api*.md")))
    documented = re.findall(r"^\.\. automodule:: (\S+)", pages, re.M)
    assert len(documented) == len(set(documented))
    assert modules <= set(documented)
