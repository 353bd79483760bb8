"""The page of all claims, as its reader filters it."""

import re

import pytest
from bs4 import BeautifulSoup

from hw3lib.book import claims
from tests.book.notebooks import BOOK
from tests.book.test_pages import HTML, Visit

LEDGER = claims.load(BOOK / "claims.yml")
PAGE = HTML / "claims.html"

pytestmark = pytest.mark.browser


@pytest.fixture(params=[390, 1440], ids=lambda width: f"{width}px")
def tab(request, browser):
    visit = Visit(browser, PAGE, request.param)
    yield visit.tab
    assert visit.said == []
    visit.context.close()


def field(tab, label):
    return tab.locator("form.claims-filter").get_by_label(label, exact=True)


def rows(tab):
    return tab.locator("table.claims tbody tr:visible")


def counted(tab):
    return int(re.match(r"\d+", tab.locator("form.claims-filter output").inner_text())[0])


def test_all_claims_are_shown_at_first(tab):
    assert rows(tab).count() == counted(tab) == len(LEDGER)


@pytest.mark.parametrize(
    ("menu", "choice", "belongs"),
    [
        ("Part", "2", lambda claim: claim.question.startswith("2")),
        ("Said by", "report", lambda claim: claim.source == "report"),
    ],
)
def test_a_menu_filters(tab, menu, choice, belongs):
    field(tab, menu).select_option(choice)
    expected = [claim.claim for claim in LEDGER if belongs(claim)]
    assert rows(tab).count() == counted(tab) == len(expected) < len(LEDGER)


def test_verdicts_share_the_claims_out_and_stay_visible(tab):
    found = 0
    for verdict in ("holds", "fails", "undecided"):
        field(tab, "Verdict").select_option(verdict)
        found += rows(tab).count()
        cells = rows(tab).locator("td:nth-child(6)")
        assert {text.split()[-1] for text in cells.all_inner_texts()} == {verdict}
        for box in (cells.first.bounding_box(), cells.last.bounding_box()):
            assert 0 <= box["x"] <= tab.viewport_size["width"] - box["width"]
    assert found == len(LEDGER)


def test_search_by_keyboard_finds_all_words(tab):
    field(tab, "Search").focus()
    tab.keyboard.type("PGD  network")
    found = [text.lower() for text in rows(tab).all_inner_texts()]
    assert 0 < len(found) == counted(tab) < len(LEDGER)
    assert all("pgd" in text and "network" in text for text in found)
    empty = tab.locator("table.claims:visible").evaluate_all(
        "tables => tables.filter(t => ![...t.tBodies[0].rows].some(r => !r.hidden)).length"
    )
    assert empty == 0
    tab.get_by_role("button", name="Show all").press("Enter")
    tab.wait_for_function("document.querySelectorAll('tr[hidden]').length == 0")
    assert counted(tab) == len(LEDGER)


def test_a_link_can_ask_for_some(browser):
    visit = Visit(browser, PAGE, 1440)
    visit.tab.goto(f"{PAGE.as_uri()}?verdict=fails&part=2")
    assert 0 < rows(visit.tab).count() < len(LEDGER)
    assert field(visit.tab, "Verdict").input_value() == "fails"
    visit.context.close()


def test_without_script_everything_is_shown(browser):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(PAGE.as_uri())
    assert rows(tab).count() == len(LEDGER)
    assert not tab.locator("form.claims-filter").is_visible()
    context.close()


def test_every_row_says_what_it_is():
    soup = BeautifulSoup(PAGE.read_text(encoding="utf-8"), "html.parser")
    for row in soup.select("table.claims tbody tr"):
        kinds = {name.partition("-")[0] for name in row["class"]}
        assert {"verdict", "by", "part"} <= kinds
