"""The bibliography: each entry is found by what the text calls it, "Kingma and Welling, 2014"."""

from collections.abc import Iterable, Iterator
from typing import Any

from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.unsrt import Style
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.template import field, href
from sphinx.application import Sphinx

NAME = "author_year"


class AuthorYear(BaseLabelStyle):
    """Labels as the references of the text are written."""

    def format_labels(self, sorted_entries: Iterable[Entry]) -> Iterator[str]:
        """The label of each entry."""
        for entry in sorted_entries:
            names = [" ".join(one.last_names) for one in entry.persons["author"]]
            few = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
            yield f"{few}, {entry.fields['year']}"


class Entries(Style):
    """Entries in the order of their authors, with bare links."""

    default_sorting_style = "author_year_title"
    default_label_style = AuthorYear

    def format_url(self, e: Any) -> Any:  # noqa: ARG002
        """A link needs no word that it is one."""
        url = field("url", raw=True)
        return href(url)[url]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    register_plugin("pybtex.style.formatting", NAME, Entries)
    app.setup_extension("sphinxcontrib.bibtex")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
