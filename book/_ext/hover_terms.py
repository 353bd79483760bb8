"""What a term means, where it is used: a link to the glossary shows the entry's first sentence."""

from html import escape

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

GLOSSARY = "glossary"


def meanings(app: Sphinx) -> dict[str, str]:
    """The first sentence of each entry by its anchor."""
    found = {}
    for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        text = next(item.findall(nodes.paragraph)).deepcopy()
        for link in list(text.findall(addnodes.pending_xref)):
            link.parent.remove(link)
        for term in item.findall(nodes.term):
            sentence = " ".join(text.astext().split()).replace(" ()", "")
            found |= dict.fromkeys(term["ids"], sentence)
    return found


def explain(app: Sphinx, doctree: nodes.document, _page: str) -> None:
    """Give references to terms their tooltip, which opens on hover, focus and touch."""
    used = [
        reference
        for reference in doctree.findall(nodes.reference)
        if any("std-term" in inline["classes"] for inline in reference.findall(nodes.inline))
    ]
    known = meanings(app) if used else {}
    for reference in used:
        anchor = reference.get("refid") or reference["refuri"].partition("#")[2]
        link = (
            f'<a class="term" href="{escape(reference.get("refuri") or "#" + anchor)}"'
            f' data-bs-toggle="tooltip" title="{escape(known[anchor])}">'
            f"{escape(reference.astext())}</a>"
        )
        reference.replace_self(nodes.raw("", link, format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("doctree-resolved", explain)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
