"""What the reference of the library leaves out, and how it lists fields.

- The signature of settings has neither types, which stand in the list below it, nor long defaults.
- Fields that a docstring describes together are listed one by one, as their types are.
- A table that would fill the screen is no value to print.
- The fields of a named tuple stand in its signature, not once more as members.
"""

import inspect
import re
from typing import Any

from docutils import nodes
from pydantic import BaseModel
from sphinx import addnodes
from sphinx.application import Sphinx

LONG = 40  # characters of a default
SEVERAL = re.compile(r"^:ivar (\w+(?:, \w+)+):(.*(?:\n +.*)*)", re.MULTILINE)
TABLE = 400  # characters of a constant


class _Dots:
    def __repr__(self) -> str:
        return "…"


def shortened(
    _app: Sphinx, what: str, _name: str, obj: Any, _options: Any, _arguments: str, returned: str
) -> tuple[str, str] | None:
    """The names and defaults of the fields of a pydantic model; None leaves others as they are."""
    if what != "class" or not (isinstance(obj, type) and issubclass(obj, BaseModel)):
        return None
    fields = [
        field.replace(
            annotation=field.empty,
            default=_Dots() if len(repr(field.default)) > LONG else field.default,
        )
        for field in inspect.signature(obj).parameters.values()
    ]
    return str(inspect.Signature(fields)), returned


def one_by_one(
    _app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]
) -> None:
    """Repeat what napoleon made of "width, height: points" for each of the names."""

    def repeated(fields: re.Match[str]) -> str:
        names, text = fields.groups()
        return "\n".join(f":ivar {name}:{text}" for name in names.split(", "))

    lines[:] = SEVERAL.sub(repeated, "\n".join(lines)).split("\n")


def is_field(
    _app: Sphinx, _what: str, _name: str, obj: Any, _skip: bool, _options: Any
) -> bool | None:
    """Whether a member is a field of a named tuple; None leaves the decision to autodoc."""
    return True if (inspect.getdoc(obj) or "").startswith("Alias for field number") else None


def without_tables(_app: Sphinx, document: nodes.document) -> None:
    """Show no value that is a long table."""
    for value in document.findall(addnodes.desc_annotation):
        if value.astext().startswith(" = ") and len(value.astext()) > TABLE:
            value.children = [nodes.Text(" = …")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-signature", shortened)
    app.connect("autodoc-process-docstring", one_by_one, priority=600)  # after napoleon
    app.connect("autodoc-skip-member", is_field)
    app.connect("doctree-read", without_tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
