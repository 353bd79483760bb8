"""The whole book as one PDF, printed by Chromium from the built pages: `make pdf`.

The pages in `_build/html` become the chapters of one document: anchors get the name of their page,
links between pages lead to them and say on which page of paper, and headings go one level down,
below those of the parts. How it looks is said in `edition.css`, and by the pages' own sheet for
paper, `_static/print.css`.
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
from urllib.parse import unquote, urlsplit

import numpy as np
import yaml
from bs4 import BeautifulSoup, Tag
from downloads import PDF, offer_pdf
from PIL import Image
from playwright.sync_api import sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, TextStringObject

import hw3lib
from hw3lib.book import figures
from hw3lib.book.cover import cover_runs

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
DOCUMENT = ROOT / "_build" / "pdf" / "book.html"
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
PICTURE, WIDE = "plane.png", 2400  # pixels
NOT_ON_PAPER = "script, button, .headerlink, details.fold, picture.in-dark, .not-on-paper"
ON_THE_WEB = {"api_experiments", "api_part1", "api_part2", "api_book"}
"""What only those look up who change the book."""
REFERENCE = "api_"
INTERACTIVE = "iframe, [class$=explorer]"
NO_PAGE = "table a, .question-map a, a.term, a:has(code)"
"""Links that no page number of paper follows."""
LOADED = {"img": "src", "source": "srcset", "link": "href", "script": "src"}
"""Where an element names a file that it loads."""
IDS = ("id", "for", "aria-labelledby", "aria-describedby", "headers")
READY = """async () => {
  await MathJax.startup.promise;
  await Promise.all([...document.images].map(image => image.decode()));
  await document.fonts.ready;
}"""
NUMBER = """pages => {
  for (const place of document.querySelectorAll("[data-page]"))
    place.textContent = pages[place.dataset.page];
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
        files = [chapter["file"] for chapter in part["chapters"]]
        yield part["caption"], [name for name in files if name not in ON_THE_WEB]


def compose(config: Mapping[str, Any], book: list[tuple[str, list[str]]]) -> str:
    """The one document of all pages."""
    names = [name for _, pages in book for name in pages]
    chapters = {name: chapter(name, names, config["html"]["baseurl"]) for name in names}
    titles = {name: " ".join(one.h2.get_text().split()) for name, one in chapters.items()}
    running = {**titles, REFERENCE: book[-1][0]}
    for caption, (first, *_) in book:
        chapters[first].insert(0, markup(f'<h1 class="part">{escape(caption)}</h1>'))
    heads = "".join(
        f"@page {name} {{ @top-left {{ content: {json.dumps(title, ensure_ascii=False)} }} }}\n"
        for name, title in running.items()
    )
    style = Path(__file__).with_name("edition.css").read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en" data-theme="light">\n<head><meta charset="utf-8">'
        f"<title>{escape(config['title'])}</title>{head(names[0])}"
        f"<style>{style}{heads}</style></head>\n"
        f'<body><main class="bd-content">{cover(config)}{contents(book, titles, config)}'
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
        cell = one.find_parent("div", class_="cell") or one
        cell.replace_with(markup(f"<p><em>The {link} has an interactive figure here.</em></p>"))
    for one in article.select(".highlight-yaml"):
        one.replace_with(markup(citation(address)))
    if name.startswith(REFERENCE):
        name_modules(article)
    for image in article.find_all("img"):
        del image["loading"]
    for attribute in IDS:
        for one in article.select(f"[{attribute}]"):
            values = one[attribute] if isinstance(one[attribute], list) else one[attribute].split()
            one[attribute] = " ".join(f"{name}--{value}" for value in values)
    unnumbered = set(map(id, article.select(NO_PAGE)))
    for link in article.select("a[href]"):
        link["href"] = target(link["href"], name, pages, address)
        place = link["href"].removeprefix("#")
        elsewhere = place != link["href"] and place.partition("--")[0] not in (name, "bibliography")
        if elsewhere and id(link) not in unnumbered and not name.startswith(REFERENCE):
            tell_page(link, place)
    for one in article.find_all(re.compile(r"^h[1-5]$")):
        one.name = f"h{int(one.name[1]) + 1}"
    page = REFERENCE if name.startswith(REFERENCE) else name
    article["id"], article["style"] = name, f"page: {page}"
    return article


def tell_page(link: Tag, place: str) -> None:
    """Say behind a link to another chapter on which page that is; `print_pdf` fills it in."""
    number = f'<span data-page="{escape(place)}">000</span>'  # as wide as what it becomes
    text, before = link.get_text(), link.previous_sibling
    equation = re.fullmatch(r"(\(\S+)\)", text)
    if equation:
        link.string = equation[1]
        link.insert_after(markup(f"<span>, p. {number})</span>"))
    elif isinstance(before, str) and before.endswith("("):
        link.insert_after(markup(f"<span>, p. {number}</span>"))
    else:
        link.insert_after(markup(f"<span> (p. {number})</span>"))


def name_modules(article: Tag) -> None:
    """Name each module once, above what it says of itself, not before each of its names."""
    module = ""
    for one in article.select("dt.sig > .sig-prename"):
        named = one.get_text().rstrip(".")
        if named != module:
            module, first = named, one.find_parent("dl")
            while _is_text_before(before := first.find_previous_sibling()):
                first = before
            first.insert_before(markup(f'<p class="module"><code>{escape(module)}</code></p>'))
        one.decompose()


def _is_text_before(one: Tag | None) -> bool:
    """Whether it belongs to the text above the first name of a module."""
    return one is not None and not re.match("h[1-6]|section", one.name) and not one.select("dt.sig")


def citation(address: str) -> str:
    """How to cite the book, in a line that a reader of paper can use."""
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    authors = " and ".join(one["name"] for one in told["authors"])
    return (
        f"<p>{escape(authors)}. <em>{escape(told['title'])}</em>. Version {told['version']}. "
        f'<a href="{address}">{address}</a>.</p>'
    )


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
    write_picture(DOCUMENT.with_name(PICTURE))
    return (
        f'<section class="cover"><p class="title">{escape(config["title"])}</p>'
        f'<img alt="" src="{PICTURE}">'
        f"<p>{escape(config['author'])}</p><p>hw3lib {hw3lib.__version__}, printed on "
        f"{date.today():%-d %B %Y} from <a href='{config['html']['baseurl']}'>"
        f"{config['html']['baseurl'].removeprefix('https://')}</a>. There, code is "
        "folded under each figure, and the explorers move.</p></section>"
    )


def write_picture(file: Path) -> None:
    """What a VAE draws over its latent plane, large enough for a title page."""
    tiles = cover_runs()[0].arrays["tiles"]
    plane = figures.tile(tiles.reshape(-1, *tiles.shape[2:]), tiles.shape[1], pad=0)
    grey = Image.fromarray(np.uint8(255.0 * plane / plane.max()))
    grey.resize((WIDE, WIDE * grey.height // grey.width), Image.Resampling.BICUBIC).save(file)


def contents(
    book: list[tuple[str, list[str]]], titles: Mapping[str, str], config: Mapping[str, Any]
) -> str:
    """The list of the chapters; `print_pdf` fills in where they are."""
    rows = []
    for caption, pages in book:
        rows.append(f'<p class="toc-part">{escape(caption)}</p>')
        rows += [
            f'<p><a href="#{name}">{escape(titles[name])}</a><span data-page="{name}"></span></p>'
            for name in pages
        ]
    site = f'<a href="{config["html"]["baseurl"]}">web site</a>'
    note = f"The reference of the experiments and of the book is on the {site} alone."
    rows.append(f'<p class="toc-web">{note}</p>')
    return f'<nav class="toc-of-book"><h1>Contents</h1>{"".join(rows)}</nav>'


def markup(html: str) -> Tag:
    """One element."""
    return BeautifulSoup(html, "html.parser").contents[0]


def print_pdf(document: Path, pdf: Path) -> list[str]:
    """Print, and return the headings.

    It takes two prints or three: only a print tells on which page a place is, and to say so may
    move the next.
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
        told: dict[str, int] = {}
        for _ in range(3):
            tab.pdf(path=pdf, prefer_css_page_size=True, outline=True, tagged=True)
            if told == (pages := places(pdf)):
                break
            tab.evaluate(NUMBER, told := pages)
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        headings = tab.evaluate(HEADINGS)
        browser.close()
    return [" ".join(heading.split()) for heading in headings]


def places(pdf: Path) -> dict[str, int]:
    """The page on which each chapter of a PDF begins, and each place that a link leads to."""
    reader = PdfReader(pdf)
    return {
        unquote(name.lstrip("/")): reader.get_destination_page_number(place) + 1
        for name, place in reader.named_destinations.items()
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
