"""The directive `{downloads}`: what a reader can take away, all notebooks and the PDF.

The archive is made with the pages. The PDF is printed from them (`edition`), and its line stays
hidden until there is one.
"""

from html import escape
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

BOOK = Path(__file__).parents[1]
ARCHIVE = "hw3lib-notebooks.zip"
PDF = "hw3lib-book.pdf"
WITH_NOTEBOOKS = [BOOK / "claims.yml", BOOK.parent / "LICENSE"]


class Downloads(Directive):
    """A list of two links."""

    def run(self) -> list[nodes.Node]:
        """The list, as HTML."""
        lines = [
            _line(ARCHIVE, "All notebooks with their outputs, as an archive"),
            _line(PDF, "The whole book for paper, as a PDF", " hidden"),
        ]
        return [nodes.raw("", f"<ul>{''.join(lines)}</ul>", format="html")]


def _line(file: str, text: str, state: str = "") -> str:
    return f'<li class="download"{state}><a href="{file}" download>{escape(text)}</a></li>'


def offer_pdf(folder: Path) -> None:
    """Show the line of the PDF, the only one that is hidden, on the pages that have it."""
    for page in folder.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        shown = text.replace('<li class="download" hidden>', '<li class="download">')
        if shown != text:
            page.write_text(shown, encoding="utf-8")


def write_archive(path: Path) -> None:
    """All notebooks, and what they read, with the same bytes at every build."""
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for file in (*sorted(BOOK.glob("*.ipynb")), *WITH_NOTEBOOKS):
            entry = ZipInfo(f"{path.stem}/{file.name}")
            entry.compress_type = ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())


def finish(app: Sphinx, error: Exception | None) -> None:
    """Make the archive once the pages are written."""
    if error is None and app.builder.format == "html":
        write_archive(Path(app.outdir) / ARCHIVE)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_directive("downloads", Downloads)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
