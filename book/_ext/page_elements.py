"""What a notebook's cells become on a page: named folds, source lines, figures for phone and dark.

- The fold of a cell that is tagged `hide-*` says what it holds: the `code_prompt_show` under the
  `mystnb` of the cell, else "Code of Fig. 31", "Parameters", "Imports" or "Code of the table".
- The line "Source: …" that `hw3lib.book.figures.sign` prints becomes a fold below the figure.
- A table scrolls in a box of its own where it is too wide; its empty corner is a plain cell, or has
  the name of the index, and columns of numbers are aligned to the right, with their heads.
- A hyphen before a number that a cell made is a minus sign, as in the formulas around it.
- An SVG of `hw3lib.book.picture` is shown by the view that fits the column and the colour scheme.
"""

import ast
import re
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.writers.html5 import HTML5Translator

DEFAULT = "Show code cell {type}"  # MyST-NB's, which says nothing
UNNAMED = "Code"
SOURCE = "Source: "
HYPHEN = re.compile(r"(?<![\w.-])-(?=\.?\d)")  # not of a date, a range or 1e-05
CELL = re.compile(r"(<td[^>]*>)([^<]*)")
NUMBER = re.compile(r"[-−+]?[.\d][^a-zA-Z]*[a-zA-Z]{0,4}[^a-zA-Z]*")  # with its unit or interval
NOTHING = ("", "–", "nan", "NaN")
SIZES = re.compile(r'viewBox="0 0 (\S+) (\S+)" data-narrow="(\S+) (\S+)"')


class NameFolds(SphinxPostTransform):
    """Give each fold its name, before MyST-NB makes the folds."""

    default_priority = 150
    formats = ("html",)

    def run(self, **_kwargs: object) -> None:
        """Name the folds of all cells."""
        for cell in self.document.findall(nodes.container):
            if cell.get("nb_element") == "cell_code" and cell.get("hide_mode"):
                name = cell["prompt_show"]
                cell["prompt_show"] = self.name_of(cell) if name == DEFAULT else name

    def name_of(self, cell: nodes.container) -> str:
        """What the fold of a cell without a name of its own holds."""
        figure = next(cell.findall(nodes.figure), None)
        if figure is not None and figure["ids"]:
            numbers = self.env.toc_fignumbers[self.env.docname].get("figure", {})
            number = ".".join(map(str, numbers.get(figure["ids"][0], ())))
            return f"Code of Fig. {number}"
        if "tag_parameters" in cell["classes"]:
            return "Parameters"
        if _only_imports(cell):
            return "Imports"
        tables = (raw for raw in cell.findall(nodes.raw) if 'class="dataframe"' in raw.astext())
        return "Code of the table" if next(tables, None) is not None else UNNAMED


def _only_imports(cell: nodes.container) -> bool:
    """Whether a cell only imports; it may also call functions such as `use_style()`."""
    source = next(cell.findall(nodes.literal_block)).astext()
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a line magic
        return False
    return all(
        isinstance(s, ast.Import | ast.ImportFrom)
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Call) and not s.value.args)
        for s in statements
    )


class FoldSources(SphinxPostTransform):
    """Fold the line that says where a figure comes from."""

    default_priority = 151
    formats = ("html",)

    def run(self, **_kwargs: object) -> None:
        """Replace the printed lines of a page."""
        for block in list(self.document.findall(nodes.literal_block)):
            if "stream" in block["classes"] and block.astext().startswith(SOURCE):
                text = block.astext().removeprefix(SOURCE).strip()
                fold = f'<details class="source"><summary>Source</summary>{escape(text)}</details>'
                block.parent.replace(block, nodes.raw("", fold, format="html"))


class MinusSigns(SphinxPostTransform):
    """Set the glued numbers of the prose, and those of tables, with a minus sign."""

    default_priority = 153
    formats = ("html",)

    def run(self, **_kwargs: object) -> None:
        """Replace the hyphens of a page."""
        glued = (
            node for node in self.document.findall(nodes.inline) if "pasted-text" in node["classes"]
        )
        for place in [*glued, *self.document.findall(nodes.entry)]:
            for text in list(place.findall(nodes.Text)):
                if not isinstance(text.parent, nodes.math | nodes.literal):
                    text.parent.replace(text, nodes.Text(with_minus(text.astext())))


def with_minus(text: str) -> str:
    """The text with a minus sign before each negative number."""
    return HYPHEN.sub("−", text)


class Tables(SphinxPostTransform):
    """A box in which a table scrolls; an empty header in its corner becomes a plain cell."""

    default_priority = 152
    formats = ("html",)

    def run(self, **_kwargs: object) -> None:
        """Wrap the tables of a page."""
        for raw in list(self.document.findall(nodes.raw)):
            if "<table" in raw.astext():
                table = re.sub(r"<th( class=.number.)?></th>", "<td></td>", tidy(raw.astext()))
                table = CELL.sub(lambda cell: cell[1] + with_minus(cell[2]), table)
                # The theme lets a keyboard reach boxes of this class while they scroll.
                html = f'<div class="pst-scrollable-table-container">{table}</div>'
                raw.parent.replace(raw, nodes.raw("", html, format=raw["format"]))


def tidy(html: str) -> str:
    """A data frame's table with one row of heads less where that only names the index."""
    soup = BeautifulSoup(html, "html.parser")
    tables = soup.select("table.dataframe")
    for table in tables:
        rows = [row.find_all("td") for row in table.select("tbody tr")]
        width = max(map(len, rows), default=0)
        if width:
            heads = [row.find_all(["th", "td"]) for row in table.select("thead tr")]
            _name_index(heads, width)
            _align(rows, heads, width)
    return str(soup) if tables else html


def _name_index(heads: list[list[Tag]], width: int) -> None:
    """Move the names of the index into the corner above them, if nothing else stands there."""
    if len(heads) < 2 or len(heads[-1]) != len(heads[-2]):
        return
    above, names = heads[-2:]
    if any(cell.get_text() for cell in [*above[:-width], *names[-width:]]):
        return
    for cell, name in zip(above[:-width], names, strict=False):
        cell.string = name.get_text()
    names[0].parent.decompose()
    heads.pop()


def _align(rows: list[list[Tag]], heads: list[list[Tag]], width: int) -> None:
    """Mark the columns of numbers, which the style sheet aligns to the right."""
    for column in range(-width, 0):
        cells = [row[column] for row in rows if len(row) == width]
        texts = [text for cell in cells if (text := cell.get_text().strip()) not in NOTHING]
        if texts and all(map(NUMBER.fullmatch, texts)):
            above = [row[column] for row in heads if len(row) >= width]
            for cell in [*cells, *(head for head in above if "colspan" not in head.attrs)]:
                cell["class"] = "number"


def visit_fold(self: HTML5Translator, node: HideCodeCellNode) -> None:
    """A fold with one name, open or not."""
    name = escape(node["prompt_show"])
    self.body.append(f'<details class="fold">\n<summary>{name}</summary>\n')


def depart_fold(self: HTML5Translator, _node: HideCodeCellNode) -> None:
    """The end of the fold."""
    self.body.append("</details>\n")


def visit_image(self: HTML5Translator, node: nodes.image) -> None:
    """An image, or the four views of a figure of this book."""
    file = Path(self.builder.srcdir, node["uri"].lstrip("/"))
    head = file.read_text(encoding="utf-8")[:500] if file.suffix == ".svg" and file.exists() else ""
    sizes = SIZES.search(head)
    if sizes is None:
        HTML5Translator.visit_image(self, node)
        return
    address = f"{self.builder.imgpath}/{self.builder.images[node['uri']]}"
    wide, narrow = f"{sizes[1]}/{sizes[2]}", f"{sizes[3]}/{sizes[4]}"
    style = f"--width:{sizes[1]}pt;--wide:{wide};--narrow:{narrow}"
    for scheme in ("light", "dark"):
        self.body.append(
            f'<picture class="in-{scheme}">'
            f'<source media="(max-width: 640px)" srcset="{address}#{scheme}-narrow">'
            f'<img class="figure" src="{address}#{scheme}" alt="{escape(node.get("alt", ""))}"'
            f' style="{style}" loading="lazy"></picture>\n'
        )


def visit_citation(self: HTML5Translator, node: nodes.citation) -> None:
    """An entry of the list that docutils puts around citations, by the role of one."""
    start = len(self.body)
    HTML5Translator.visit_citation(self, node)
    entry = "".join(self.body[start:]).replace('role="doc-biblioentry"', 'role="listitem"')
    self.body[start:] = [entry]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_post_transform(NameFolds)
    app.add_post_transform(FoldSources)
    app.add_post_transform(Tables)
    app.add_post_transform(MinusSigns)
    app.add_node(HideCodeCellNode, override=True, html=(visit_fold, depart_fold))
    app.add_node(nodes.image, override=True, html=(visit_image, lambda _self, _node: None))
    cited = (visit_citation, HTML5Translator.depart_citation)
    app.add_node(nodes.citation, override=True, html=cited)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
