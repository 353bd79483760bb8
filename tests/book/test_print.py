"""The book on paper: `make pages` prints it first."""

import re
from urllib.parse import unquote
from zipfile import ZipFile

import pytest
import yaml
from bs4 import BeautifulSoup
from pypdf import PdfReader
from pypdf.generic import Destination

from tests.book.notebooks import NOTEBOOKS, ROOT
from tests.book.test_pages import HTML, RAW_MARKUP, Visit
from tests.book.test_toc import files_in

PDF = HTML / "hw3lib-book.pdf"
ON_THE_WEB = {"api_experiments", "api_part1", "api_part2", "api_book"}
FILES = files_in(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
CHAPTERS = [page for page in FILES if page not in ON_THE_WEB]

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pdf():
    assert PDF.is_file(), "there is no PDF of the book: run `make pdf`"
    return PdfReader(PDF)


@pytest.fixture(scope="module")
def pages(pdf):
    return [page.extract_text() for page in pdf.pages]


def title(page):
    soup = BeautifulSoup((HTML / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
    soup.select_one("h1 .headerlink").decompose()
    return " ".join(soup.h1.get_text().split())


def chapters(pdf):
    """Titles and first pages, from the second level of the outline."""
    return [
        (entry.title, pdf.get_destination_page_number(entry))
        for part in pdf.outline
        if isinstance(part, list)
        for entry in part
        if isinstance(entry, Destination)
    ]


def squeezed(text):
    return re.sub(r"\s", "", text)


def test_the_outline_lists_every_chapter_in_order(pdf):
    assert [name for name, _ in chapters(pdf)] == [title(page) for page in CHAPTERS]


def test_the_contents_tell_on_which_page_a_chapter_begins(pdf, pages):
    contents = squeezed("".join(pages[: chapters(pdf)[0][1]]))
    for name, page in chapters(pdf):
        assert squeezed(f"{name}{page + 1}") in contents
        assert squeezed(name) in squeezed(pages[page])


def test_every_page_but_the_first_has_its_number(pages):
    for number, text in enumerate(pages[1:], 2):
        assert str(number) in text.split(), f"page {number}"


def test_every_link_leads_to_a_place_in_the_book_or_to_the_web(pdf):
    places, inside = pdf.named_destinations, 0
    for number, page in enumerate(pdf.pages, 1):
        for one in page.get("/Annots", []):
            link = one.get_object()
            where = link.get("/Dest") or link["/A"].get("/D")
            if where is None:
                assert link["/A"]["/URI"].startswith(("https://", "http://")), number
            else:
                inside += 1
                assert str(where) in places, (number, unquote(str(where)))
    assert inside > 800


def test_a_link_to_another_chapter_tells_its_page(pdf, pages):
    begins = {name: page + 1 for name, page in chapters(pdf)}
    told = re.findall(r"(\d\.\d+)\s?,\s?p\.\s(\d+)\)", "".join(pages))  # "(1.2, p. 15)"
    assert len(told) > 4
    for number, page in told:
        assert int(page) in [at for name, at in begins.items() if name.startswith(f"{number} ")]
    assert "p. 000" not in " ".join(pages)


def test_the_machine_that_printed_is_not_named(pages):
    text = squeezed("".join(pages))
    assert "PosixPath" not in text
    assert str(ROOT) not in text
    assert "FieldInfo" not in text


def test_no_raw_markup_reached_the_paper(pages):
    for number, text in enumerate(pages, 1):
        code = re.sub(r"(?m)^.*[`\"']\{.*$", "", text)  # code quotes markup
        assert RAW_MARKUP.findall(code) == [], f"page {number}"
        assert "\\(" not in text
        assert "Math input error" not in text


def test_every_figure_is_printed(pages):
    text = " ".join(pages)
    shown = {int(n) for n in re.findall(r"Fig\. (\d+)", text)}
    assert shown == set(range(1, max(shown) + 1))
    notebooks = [HTML / f"{page}.html" for page in CHAPTERS]
    assert max(shown) == sum(page.read_text("utf-8").count("<figcaption>") for page in notebooks)


def test_a_printed_page_opens_what_a_screen_folds(browser):
    visit = Visit(browser, HTML / "q1_01_sampling.html", 1440)
    tab = visit.tab
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function("document.documentElement.dataset.theme == 'dark'")
    before = tab.locator("article.bd-article").inner_html()
    tab.emulate_media(media="print", color_scheme="dark")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("article details:not(.fold, [open])").count() == 0
    assert tab.locator("article details.fold:visible").count() == 0
    last = tab.locator("article > :last-child")
    assert last.locator("h2").inner_text() == "Solutions"
    assert last.locator(".solution").count() == tab.locator(".solution").count() > 0
    assert tab.locator(".solution > section:visible").count() > 0
    assert tab.evaluate("document.documentElement.dataset.theme") == "light"
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("article.bd-article").inner_html() == before
    visit.context.close()


def test_the_archive_holds_every_notebook():
    with ZipFile(HTML / "hw3lib-notebooks.zip") as archive:
        held = {name.split("/")[1]: archive.read(name) for name in archive.namelist()}
    assert {name for name in held if name.endswith(".ipynb")} == {path.name for path in NOTEBOOKS}
    assert all(held[path.name] == path.read_bytes() for path in NOTEBOOKS)


@pytest.mark.parametrize("page", ["intro", "how-to-run"])
def test_pages_offer_both(page):
    soup = BeautifulSoup((HTML / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
    offered = [line.a["href"] for line in soup.select("li.download:not([hidden])")]
    assert offered == ["hw3lib-notebooks.zip", "hw3lib-book.pdf"]
