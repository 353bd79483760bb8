"""The tables of the page `claims`, as what a reader can search and filter.

Rows get classes for verdict, source and part, by which the style sheet colours them and
`_static/claims.js` filters. The form is hidden where no script runs, and all rows are shown.
"""

from docutils import nodes
from sphinx.application import Sphinx

PAGE = "claims"
COLUMNS = ("Claim", "Said by", "Measured", "n", "Holds if", "Verdict", "Shown in")
SOURCE, VERDICT = COLUMNS.index("Said by"), COLUMNS.index("Verdict")
CHOICES = {
    "verdict": ("Verdict", {"holds": "holds", "fails": "fails", "undecided": "is undecided"}),
    "part": ("Part", {"1": "1", "2": "2"}),
    "by": ("Said by", {"report": "the report", "book": "this book"}),
}


def form() -> str:
    """The form above the first table."""
    fields = "".join(
        f'<p><label for="claims-{name}">{label}</label>'
        f'<select id="claims-{name}" name="{name}"><option value="">all</option>'
        + "".join(f'<option value="{value}">{text}</option>' for value, text in choices.items())
        + "</select></p>"
        for name, (label, choices) in CHOICES.items()
    )
    return (
        '<form class="claims-filter not-on-paper" role="search" aria-label="Claims" hidden>'
        '<p><label for="claims-words">Search</label>'
        '<input type="search" id="claims-words" name="words" autocomplete="off"></p>'
        f'{fields}<button type="reset">Show all</button><output aria-live="polite"></output></form>'
    )


def mark(_app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Name what the rows are, and put the form before them."""
    if page != PAGE:
        return
    tables = [table for table in doctree.findall(nodes.table) if _columns(table) == COLUMNS]
    for table in tables:
        table["classes"].append("claims")
        title = table.parent[table.parent.index(table) - 1]
        title["classes"].append("claims-question")
        part = title.astext().removeprefix("Question ").partition(".")[0]
        for row in next(table.findall(nodes.tbody)).findall(nodes.row):
            cells = [cell.astext() for cell in row.findall(nodes.entry)]
            row["classes"] += [
                f"verdict-{cells[VERDICT]}",
                f"by-{cells[SOURCE]}",
                f"part-{part}",
            ]
    if tables:
        first = tables[0].parent
        first.insert(first.index(tables[0]) - 1, nodes.raw("", form(), format="html"))


def _columns(table: nodes.table) -> tuple[str, ...]:
    head = next(table.findall(nodes.thead), None)
    return () if head is None else tuple(cell.astext() for cell in head.findall(nodes.entry))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("doctree-resolved", mark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
