"""The directive `{question-map}`: a card for each question, with picture and time to read.

All of it is taken from the pages themselves: the question is the title of the box with the class
`question`, the picture the small one of the page's first figure.
"""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

TOC = Path(__file__).parents[2] / "_toc.yml"
WORDS_A_MINUTE = 130
FIGURE, FORMULA = 0.5, 0.25  # minutes
STEP = 5  # minutes


class question_map(nodes.General, nodes.Element):
    """Where the map goes once all pages are read."""


class QuestionMap(Directive):
    """Place the map."""

    def run(self) -> list[nodes.Node]:
        """Leave a mark."""
        return [question_map()]


def parts() -> Iterator[tuple[str, list[str]]]:
    """Captions of the parts with questions, and the names of their pages."""
    for part in yaml.safe_load(TOC.read_text(encoding="utf-8"))["parts"]:
        pages = [chapter["file"] for chapter in part["chapters"] if chapter["file"].startswith("q")]
        if pages:
            yield part["caption"], pages


def minutes(page: nodes.document) -> int:
    """Time to read a page, in steps of five minutes; folded code is not read."""
    words = sum(len(text.astext().split()) for text in page.findall(nodes.paragraph))
    figures = len(list(page.findall(nodes.figure)))
    formulas = len(list(page.findall(nodes.math_block)))
    spent = words / WORDS_A_MINUTE + FIGURE * figures + FORMULA * formulas
    return max(STEP, STEP * round(spent / STEP))


def thumbnail(page: nodes.document) -> nodes.image | None:
    """The first picture of a page that is not drawn by a browser."""
    for figure in page.findall(nodes.figure):
        for image in figure.findall(nodes.image):
            if image["uri"].endswith(".png"):
                small = deepcopy(image)
                small["alt"] = ""  # the title beside it says where it leads
                small["classes"] = ["thumbnail"]
                return small
    return None


def card(app: Sphinx, here: str, page: str) -> nodes.container:
    """A link to a page with its picture, question and time."""
    doctree = app.env.get_doctree(page)
    boxes = (box for box in doctree.findall(nodes.admonition) if "question" in box["classes"])
    box = next(boxes, None)
    question = deepcopy((box[0] if box else next(doctree.findall(nodes.paragraph))).children)
    link = nodes.reference("", "", internal=True, refuri=app.builder.get_relative_uri(here, page))
    picture = thumbnail(doctree)
    link += [picture] if picture is not None else []
    link += nodes.inline("", app.env.titles[page].astext(), classes=["card-name"])
    time = nodes.inline("", f"{minutes(doctree)} min", classes=["card-time"])
    space = nodes.Text(" ")
    text = nodes.paragraph("", "", *question, space, time, classes=["card-question"])
    return nodes.container("", nodes.paragraph("", "", link), text, classes=["question-card"])


def resolve(app: Sphinx, doctree: nodes.document, here: str) -> None:
    """Put the map where its mark is."""
    for mark in list(doctree.findall(question_map)):
        found: list[nodes.Node] = []
        for caption, pages in parts():
            found.append(nodes.rubric("", caption))
            cards = [card(app, here, page) for page in pages]
            found.append(nodes.container("", *cards, classes=["question-map"]))
        mark.replace_self(found)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_node(question_map)
    app.add_directive("question-map", QuestionMap)
    app.connect("doctree-resolved", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
