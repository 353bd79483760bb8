"""The whole book as one PDF, printed by Chromium from the built pages: `make pdf`.

The pages in `_build/html` become the chapters of one document: anchors get the name of their page,
links between pages lead to them, and headings go one level down, below those of the parts. How it
looks is said in `edition.css`, and by the pages' own sheet for paper, `_static/print.css`.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import date
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from downloads import PDF, offer_pdf
from playwright.sync_api import sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, TextStringObject

import hw3lib

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
DOCUMENT = ROOT / "_build" / "pdf" / "book.html"
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
NOT_ON_PAPER = "script, button, .headerlink, details.fold, picture.in-dark, .not-on-paper"
INTERACTIVE = "iframe, [class$=explorer]"
LOADED = {"img": "src", "source": "srcset", "link": "href", "script": "src"}
"""Where an element names a file that it loads."""
IDS = ("id", "for", "aria-labelledby", "aria-describedby", "headers")
READY = """async () => {
  await MathJax.startup.promise;
  await Promise.all([...document.images].map(image => image.decode()));
  await document.fonts.ready;
}"""
NUMBER = """pages => {
  for (const [name, page] of Object.entries(pages))
    document.querySelector(`[data-page="${name}"]`).textContent = page;
}"""
HEADINGS = "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(h => h.textContent)"


def main() -> None:
    """Print the book, with page numbers in its contents, and offer it on its pages."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
    DOCUMENT.write_text(compose(config, list(parts(toc))), encoding="utf-8")
    headings = print_pdf(DOCUMENT, HTML / PDF)
    finish(HTML / PDF, headings, config)
    offer_pdf(HTML)
    print(f"The book on paper: {HTML / PDF}")


def parts(toc: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Captions of the parts with the names of their pages; the root is a part of its own."""
    yield "Introduction", [toc["root"]]
    for part in toc["parts"]:
        yield part["caption"], [chapter["file"] for chapter in part["chapters"]]


def compose(config: Mapping[str, Any], book: list[tuple[str, list[str]]]) -> str:
    """The one document of all pages."""
    names = [name for _, pages in book for name in pages]
    chapters = {name: chapter(name, names, config["html"]["baseurl"]) for name in names}
    titles = {name: " ".join(one.h2.get_text().split()) for name, one in chapters.items()}
    for caption, (first, *_) in book:
        chapters[first].insert(0, markup(f'<h1 class="part">{escape(caption)}</h1>'))
    running = "".join(
        f"@page {name} {{ @top-left {{ content: {json.dumps(title, ensure_ascii=False)} }} }}\n"
        for name, title in titles.items()
    )
    style = Path(__file__).with_name("edition.css").read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en" data-theme="light">\n<head><meta charset="utf-8">'
        f"<title>{escape(config['title'])}</title>{head(names[0])}"
        f"<style>{style}{running}</style></head>\n"
        f'<body><main class="bd-content">{cover(config)}{contents(book, titles)}'
        f"{''.join(map(str, chapters.values()))}</main></body></html>\n"
    )


def read(name: str) -> BeautifulSoup:
    """A built page, its files named from where the document lies."""
    soup = BeautifulSoup((HTML / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    for element, attribute in LOADED.items():
        for found in soup.select(f"{element}[{attribute}]"):
            if not urlsplit(found[attribute]).scheme:
                found[attribute] = f"../html/{found[attribute]}"
    return soup


def head(name: str) -> str:
    """Style sheets and formulas of a page, and what it does when printed."""
    kept = "link[rel=stylesheet], script[src*=mathjax], script[src*='print.js']"
    soup = read(name)
    settings = [one for one in soup.head.find_all("script") if "window.MathJax" in one.text]
    return "".join(map(str, [*settings, *soup.head.select(kept)]))


def chapter(name: str, pages: list[str], address: str) -> Tag:
    """The article of a page as a part of the document."""
    article = read(name).select_one("article.bd-article")
    for one in article.select(NOT_ON_PAPER):
        one.decompose()
    for one in article.select(INTERACTIVE):
        cell = one.find_parent(class_="cell")
        for source in cell.select("details.source") if cell else ():
            source.decompose()
        link = f'<a href="{address}/{name}.html">web page</a>'
        one.replace_with(markup(f"<p><em>The {link} has an interactive figure here.</em></p>"))
    for image in article.find_all("img"):
        del image["loading"]
    for attribute in IDS:
        for one in article.select(f"[{attribute}]"):
            values = one[attribute] if isinstance(one[attribute], list) else one[attribute].split()
            one[attribute] = " ".join(f"{name}--{value}" for value in values)
    for link in article.select("a[href]"):
        link["href"] = target(link["href"], name, pages, address)
    for one in article.find_all(re.compile(r"^h[1-5]$")):
        one.name = f"h{int(one.name[1]) + 1}"
    article["id"], article["style"] = name, f"page: {name}"
    return article


def target(href: str, here: str, pages: list[str], address: str) -> str:
    """Where a link of a page leads in the document, or on the web."""
    url = urlsplit(href)
    if url.scheme or url.netloc:
        return href
    page = url.path.removesuffix(".html") if url.path else here
    if page not in pages:
        return f"{address}/{href}"
    return f"#{page}--{url.fragment}" if url.fragment else f"#{page}"


def cover(config: Mapping[str, Any]) -> str:
    """The title page."""
    return (
        f'<section class="cover"><p class="title">{escape(config["title"])}</p>'
        f'<img alt="" src="../html/_static/card.png">'
        f"<p>{escape(config['author'])}</p><p>hw3lib {hw3lib.__version__}, printed on "
        f"{date.today():%-d %B %Y} from <a href='{config['html']['baseurl']}'>"
        f"{config['html']['baseurl'].removeprefix('https://')}</a>. There, code is "
        "folded under each figure, and the explorers move.</p></section>"
    )


def contents(book: list[tuple[str, list[str]]], titles: Mapping[str, str]) -> str:
    """The list of the chapters; `number_pages` fills in where they are."""
    rows = []
    for caption, pages in book:
        rows.append(f'<p class="toc-part">{escape(caption)}</p>')
        rows += [
            f'<p><a href="#{name}">{escape(titles[name])}</a><span data-page="{name}"></span></p>'
            for name in pages
        ]
    return f'<nav class="toc-of-book"><h1>Contents</h1>{"".join(rows)}</nav>'


def markup(html: str) -> Tag:
    """One element."""
    return BeautifulSoup(html, "html.parser").contents[0]


def print_pdf(document: Path, pdf: Path) -> list[str]:
    """Print, and return the headings.

    It takes two prints: only the first tells on which page a chapter begins.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise SystemExit(f"No browser to print with: install one of {', '.join(BROWSERS)}.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        tab = browser.new_page()
        tab.set_default_timeout(0)
        tab.emulate_media(media="print")  # formulas take the size of the text around them
        tab.goto(document.as_uri())
        tab.evaluate(READY)
        for _ in range(2):
            tab.pdf(path=pdf, prefer_css_page_size=True, outline=True, tagged=True)
            tab.evaluate(NUMBER, first_pages(pdf))
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        headings = tab.evaluate(HEADINGS)
        browser.close()
    return [" ".join(heading.split()) for heading in headings]


def first_pages(pdf: Path) -> dict[str, int]:
    """The page on which each chapter of a PDF begins, by the chapter's name."""
    reader = PdfReader(pdf)
    return {
        name.lstrip("/"): reader.get_destination_page_number(place) + 1
        for name, place in reader.named_destinations.items()
        if "--" not in name
    }


def finish(pdf: Path, headings: list[str], config: Mapping[str, Any]) -> None:
    """Write whole headings into the outline, where Chromium drops spaces at the ends of lines."""
    # Chromium counts its objects too low, which pypdf mends and tells.
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    writer = PdfWriter(clone_from=pdf)
    entries = list(flat(writer.outline))
    for entry, heading in zip(entries, headings, strict=True):
        entry.node[NameObject("/Title")] = TextStringObject(heading)
    writer.add_metadata({"/Title": config["title"], "/Author": config["author"]})
    writer.write(pdf)


def flat(outline: list[Any]) -> Iterator[Any]:
    """The entries of an outline, from first to last."""
    for entry in outline:
        if isinstance(entry, list):
            yield from flat(entry)
        else:
            yield entry


if __name__ == "__main__":
    main()
