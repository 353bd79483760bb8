"""Every built page, as its reader gets it: `make pages`."""

import re
import shutil
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

from tests.book.notebooks import ROOT

HTML = ROOT / "_build" / "html"
# What Sphinx makes for itself, and the redirect to the first page.
GENERATED = {"genindex.html", "py-modindex.html", "search.html", "index.html", "prf-prf.html"}
PAGES = sorted(path for path in HTML.glob("*.html") if path.name not in GENERATED)
CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)
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


@pytest.fixture
def article(page):
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    return soup.select_one("article.bd-article")


def test_no_raw_markup(article):
    # A role within backticks reaches the reader as code.
    roles = [code.get_text() for code in article.select("code")]
    assert [text for text in roles if re.fullmatch(r"\{[a-z:]+\}", text)] == []
    for code in article.select("pre, code, script, .math"):
        code.decompose()
    assert RAW_MARKUP.findall(article.get_text()) == []
    assert not article.select(".problematic, .system-message, .xref.broken")


def test_every_image_exists_and_is_described(page, article):
    for image in article.select("img"):
        source = urlsplit(image["src"])
        if not source.scheme:
            assert (page.parent / unquote(source.path)).is_file(), image
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
            anchor = re.escape(unquote(href.fragment))
            assert re.search(f'id="{anchor}"', target.read_text(encoding="utf-8")), link


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_in_a_browser(browser, page, scheme):
    """It renders without a network and without errors, and axe-core finds nothing serious."""
    context = browser.new_context(color_scheme=scheme, reduced_motion="reduce")
    context.set_offline(True)
    tab = context.new_page()
    errors = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(page.as_uri())
    tab.wait_for_function("!window.MathJax || MathJax.startup.promise.then(() => true)")

    # The theme declares this constant twice on every page; nothing on the pages uses it.
    assert [error for error in errors if "THEBE_JS_URL" not in error] == []
    assert tab.locator("html").get_attribute("data-theme") == scheme
    assert tab.locator("mjx-merror").count() == 0
    broken = "images => images.filter(i => !i.naturalWidth).map(i => i.src)"
    assert tab.locator("article.bd-article img").evaluate_all(broken) == []
    # Of what axe-core finds, docutils' own markup of citations is not ours to change.
    violations = Axe().run(tab, context="article.bd-article").response["violations"]
    assert [
        (violation["id"], node["html"][:200])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
        if 'class="citation-list"' not in node["html"]
    ] == []
    context.close()
