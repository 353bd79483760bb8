"""Every built page, as its reader gets it: `make pages`."""

import os
import re
from copy import copy
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

from hw3lib.book.picture import PHONE, SMALLEST
from tests.book.notebooks import ROOT

HTML = ROOT / "_build" / "html"
# What Sphinx makes for itself, and the redirect to the first page.
GENERATED = {"genindex.html", "py-modindex.html", "search.html", "index.html", "prf-prf.html"}
PAGES = sorted(path for path in HTML.glob("*.html") if path.name not in GENERATED)
# MyST, LaTeX or reST that reached the reader unprocessed.
RAW_MARKUP = re.compile(
    r"\{(?:eq|ref|numref|doc|cite|glue|math|code-cell|exercise|solution)[^}]*\}`?|\$\$|^:::|```|"
    r"\]\(#|unresolved|\?\?\?",
    re.MULTILINE,
)

pytestmark = pytest.mark.browser


def test_the_book_is_built():
    assert PAGES, "there are no pages in _build/html: run `make book`"


@pytest.fixture(params=PAGES, ids=lambda path: path.stem)
def page(request):
    return request.param


@cache
def article_of(page):
    """To be looked at, not changed: to parse a page takes longer than to test it."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    return soup.select_one("article.bd-article")


@cache
def anchors(page):
    return set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))


@pytest.fixture
def article(page):
    return article_of(page)


def test_no_raw_markup(article):
    # A role within backticks reaches the reader as code.
    roles = [code.get_text() for code in article.select("code")]
    assert [text for text in roles if re.fullmatch(r"\{[a-z:]+\}", text)] == []
    prose = copy(article)
    for code in prose.select("pre, code, script, .math"):
        code.decompose()
    assert RAW_MARKUP.findall(prose.get_text()) == []
    assert not article.select(".problematic, .system-message, .xref.broken")


def test_a_negative_number_of_a_notebook_has_a_minus_sign(article):
    found = [cell.get_text() for cell in article.select(".pasted-text, .cell_output td")]
    assert [text for text in found if re.search(r"(?<![\w.-])-\.?\d", text)] == []


def test_a_table_has_one_row_of_heads_and_these_stand_over_their_columns(article):
    for table in article.select(".cell_output table.dataframe"):
        heads = [row.find_all(["th", "td"]) for row in table.select("thead tr")]
        rows = [row.find_all("td") for row in table.select("tbody tr")]
        if not rows or not rows[0]:
            continue
        if len(heads) == 1:
            width = len(rows[0])
            for column in range(-width, 0):
                cells = [heads[0][column], *(row[column] for row in rows)]
                assert len({tuple(cell.get("class", ())) for cell in cells}) == 1, cells[0]
        else:
            # The corner already names the columns, or there are several rows of these.
            assert heads[0][0].get_text() or any(cell.get_text() for cell in heads[-1][1:]), table


def test_a_reference_shows_no_value_of_the_machine_that_built_it(article):
    shown = " ".join(dt.get_text() for dt in article.select("dl.py dt, dl.py .field-list"))
    for noise in ("PosixPath", "<factory>", "<function", "FieldInfo", "Annotated", "~torch"):
        assert noise not in shown, noise


def test_every_image_exists_and_is_described(page, article):
    for image in article.select("img"):
        source = urlsplit(image["src"])
        if not source.scheme:
            assert (page.parent / unquote(source.path)).is_file(), image
        if "thumbnail" in image.get("class", []):
            assert image["alt"] == ""  # the title beside it says where it leads
            continue
        # Without an alt text Sphinx repeats the file's name.
        assert image.get("alt", "").strip(), image
        assert not image["alt"].endswith((".png", ".svg", ".jpg")), image


def test_every_link_within_the_book_has_its_target(page, article):
    for link in article.select("a[href]"):
        href = urlsplit(link["href"])
        if href.scheme or href.netloc:
            continue
        target = page.parent / unquote(href.path) if href.path else page
        assert target.is_file(), link
        if href.fragment and target.suffix == ".html":
            assert unquote(href.fragment) in anchors(target), link


SCREENS = {390: 844, 1440: 900}
"""Height of a phone's and of a desk's screen by its width, in CSS pixels."""
CONTRAST_ONCE = bool(os.environ.get("HW3_CONTRAST_ONCE"))
"""Measure the contrasts of each scheme at one width alone; nothing takes as long."""
SHARED, FORMULAS, ONE_PICTURE = 350_000, 900_000, 500_000
"""Bytes of what all pages load, of what sets formulas, and of one picture."""

NOT_LOADED = """async images => {
  const seen = images.filter(i => i.checkVisibility());
  for (const i of seen) i.loading = "eager";
  await Promise.all(seen.map(i => i.decode().catch(() => 0)));
  return seen.filter(i => !i.naturalWidth).map(i => i.src);
}"""
CUT = """boxes => boxes.filter(b => b.checkVisibility() && b.scrollWidth > b.clientWidth + 1)
  .map(b => b.textContent.trim().slice(0, 80))"""
WIDER = """formulas => {
  document.querySelectorAll("details").forEach(fold => fold.open = true);
  document.querySelectorAll(".toggle-hidden").forEach(
    fold => fold.classList.remove("toggle-hidden"));
  const right = box => box.getBoundingClientRect().right;
  const glyphs = f => f.querySelector("svg, mjx-math") ?? f;
  return formulas.filter(f => f.checkVisibility() && !f.closest("table, pre"))
    .filter(f => right(glyphs(f)) > right(f.parentElement) + 1)
    .map(f => f.textContent.trim().slice(0, 80));
}"""
FIRST_PICTURE = """images => images.filter(i => i.checkVisibility())
  .map(i => i.getBoundingClientRect().top + scrollY).sort((a, b) => a - b)[0]"""


class Visit:
    """A page in a browser, with all that it says and asks for."""

    def __init__(self, browser, page, width):
        self.context = browser.new_context(
            viewport={"width": width, "height": SCREENS[width]}, reduced_motion="reduce"
        )
        self.context.set_offline(True)
        self.tab = self.context.new_page()
        self.said, self.asked, self.failed = [], set(), []
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("request", lambda request: self.asked.add(request.url))
        self.tab.on("requestfailed", lambda request: self.failed.append(request.url))
        self.tab.goto(page.as_uri())
        self.tab.wait_for_function(
            "!window.MathJax || MathJax.startup?.promise?.then(() => true)", timeout=60_000
        )

    def all(self, selector, script):
        return self.tab.locator(f"article.bd-article {selector}").evaluate_all(script)

    def files(self):
        paths = {Path(unquote(urlsplit(url).path)) for url in self.asked if url.startswith("file:")}
        return {path: path.stat().st_size for path in paths if path.is_file()}


@pytest.fixture(params=SCREENS, ids=lambda width: f"{width}px")
def visit(request, browser, page):
    visit = Visit(browser, page, request.param)
    yield visit
    visit.context.close()


def test_page_in_a_browser(visit, page):
    """On a phone and a desk, light and dark, it shows all of itself and needs nothing else."""
    tab, width = visit.tab, visit.tab.viewport_size["width"]
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        tab.wait_for_function(f"document.documentElement.dataset.theme == '{scheme}'")
        assert visit.all("img", NOT_LOADED) == []
        # Colours follow the scheme, not the width; but claims are cards on a phone.
        once = CONTRAST_ONCE and page.stem != "claims"
        contrast = not once or (scheme == "light") == (width < 1000)
        assert violations(tab, contrast=contrast, rest=scheme == "light") == []
        # A table, a formula or code that is too wide scrolls in a box of its own.
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator("mjx-merror").count() == 0
    if width > 1000:
        assert visit.all("pre", CUT) == []
        assert visit.all("div.math, mjx-container[display]", CUT) == []
    else:
        widths = visit.all("img.figure", "seen => seen.map(i => i.getBoundingClientRect().width)")
        # By this width the figures tell how large their smallest text is.
        assert all(width == pytest.approx(PHONE, abs=1) for width in widths if width)
    if page.stem.startswith("q") or page.stem == "intro":
        assert visit.all("img", FIRST_PICTURE) < 2 * SCREENS[width]
    # Last, for it opens all folds: a formula in a line of text cannot scroll.
    assert visit.all("span.math", WIDER) == []
    assert visit.said == []
    assert visit.failed == []
    assert [url for url in visit.asked if not url.startswith(("file:", "data:"))] == []
    assert weight_faults(page, visit.files()) == []


def violations(tab, *, contrast, rest):
    """What axe-core finds, of contrasts, which take it longest, and of all the rest.

    docutils' own markup of citations is not ours to change.
    """
    if not contrast and not rest:
        return []
    # Without `preload` axe asks for all style sheets anew, which a browser refuses between files.
    options = {"preload": False, "resultTypes": ["violations"]}
    if not rest:
        options["runOnly"] = ["color-contrast"]
    options["rules"] = {"color-contrast": {"enabled": contrast}}
    found = Axe().run(tab, context="article.bd-article", options=options)
    return [
        (violation["id"], node["html"][:200])
        for violation in found.response["violations"]
        for node in violation["nodes"]
        if 'class="citation-list"' not in node["html"]
    ]


def weight_faults(page, files):
    pictures = {file: size for file, size in files.items() if "_images" in file.parts}
    formulas = {file: size for file, size in files.items() if "mathjax" in file.parts}
    shared = sum(files.values()) - sum(pictures.values()) - sum(formulas.values())
    shared -= page.stat().st_size
    return [
        *(
            f"{file.name} has {size:,} bytes"
            for file, size in pictures.items()
            if size > ONE_PICTURE
        ),
        *([f"formulas take {n:,} bytes"] if (n := sum(formulas.values())) > FORMULAS else []),
        *([f"the page loads {shared:,} bytes beside its own"] if shared > SHARED else []),
    ]


def test_every_figure_can_be_read_on_a_phone(page, article):
    for image in article.select("img.figure"):
        head = (page.parent / urlsplit(image["src"]).path).read_text(encoding="utf-8")[:500]
        assert float(re.search(r'data-text="([\d.]+)"', head)[1]) >= SMALLEST, image["alt"]


def test_every_figure_is_of_the_book_and_tells_its_source(article):
    """Of a notebook's pictures each has a view for the dark, and a fold below it."""
    for figure in article.select("div.cell_output figure"):
        assert figure.select("img.figure"), figure
        assert figure.find_parent("div", class_="cell_output").select("details.source"), figure


def test_every_fold_says_what_it_holds(article):
    names = [summary.get_text() for summary in article.select("details.fold > summary")]
    assert not {"Code", "Show code cell source", "Code of Fig. "} & set(names)


@pytest.mark.parametrize("name", ["description", "og:title", "og:image", "og:description"])
def test_a_link_to_a_page_can_say_what_it_is(page, name):
    head, _, _ = page.read_text(encoding="utf-8").partition("</head>")
    soup = BeautifulSoup(head, "html.parser")
    field = "property" if name.startswith("og:") else "name"
    (meta,) = soup.select(f'meta[{field}="{name}"]')
    assert meta["content"].strip()
    if name == "og:image":
        assert (HTML / "_static" / meta["content"].rsplit("/", 1)[1]).is_file()


@pytest.mark.parametrize("name", ["genindex", "py-modindex"])
def test_an_index_fits_a_phone(browser, name):
    visit = Visit(browser, HTML / f"{name}.html", 390)
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= 390
    visit.context.close()


def test_a_term_shows_what_it_means(browser):
    """With the pointer and with the keyboard."""
    page = next(path for path in PAGES if path.stem == "notation")
    visit = Visit(browser, page, 1440)
    term = visit.tab.locator("a.term").first
    for way in (term.hover, term.focus):
        way()
        tip = visit.tab.locator(".tooltip")
        tip.wait_for()
        assert "logarithm" in tip.inner_text() or "Negative" in tip.inner_text()
        visit.tab.mouse.move(0, 0)
        term.blur()
        tip.wait_for(state="detached")
    visit.context.close()


def test_the_map_leads_to_every_question():
    soup = BeautifulSoup((HTML / "intro.html").read_text(encoding="utf-8"), "html.parser")
    cards = soup.select(".question-card")
    leads = [card.select_one("a")["href"] for card in cards]
    assert leads == sorted(page.name for page in PAGES if page.name.startswith("q"))
    for card in cards:
        assert card.select_one("img.thumbnail"), card
        assert re.search(r"\d+ min$", card.get_text().strip()), card
