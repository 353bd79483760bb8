"""What the reference of the library leaves out, and how it lists fields.

- The signature of settings has neither types, which stand in the list below it, nor long defaults.
- Fields that a docstring describes together are listed one by one, as their types are.
- A table that would fill the screen is no value to print, nor is a path of the machine that builds
  the book, a pattern, or an object without a notation; a number has six digits.
- A type is written as the source does: an array without its dimensions, no checks of pydantic's.
- The fields of a named tuple stand in its signature, not once more as members.
"""

import ast
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
NO_VALUE = re.compile(r"Path\(|re\.compile\(")
CHECKER = re.compile(r", AfterValidator\(func=\w+\)")
MODULE = re.compile(r"\b(?:torch|typing|collections\.abc|hw3lib(?:\.\w+)*)\.(?=[A-Z])")
LONG_NUMBER = re.compile(r"\d+\.\d{7,}")
FACTORY = "<factory>"  # of a dataclass's field
ARRAY = re.compile(
    r"~?numpy\.ndarray\[tuple\[~?(?:typing\.)?Any, \.\.\.\], ~?numpy\.dtype\[([^\[\]]+)\]\]"
)
ANNOTATED = re.compile(r"~?(?:typing\.|types\.)?Annotated\[")


class _Dots:
    def __repr__(self) -> str:
        return "…"


def shortened(
    _app: Sphinx, what: str, _name: str, obj: Any, _options: Any, arguments: str, returned: str
) -> tuple[str, str] | None:
    """The names and defaults of a pydantic model's fields; of others, types as one reads them."""
    if what != "class" or not (isinstance(obj, type) and issubclass(obj, BaseModel)):
        return arguments and as_written(arguments), returned and as_written(returned)
    fields = [
        field.replace(
            annotation=field.empty,
            default=_Dots() if len(repr(field.default)) > LONG else field.default,
        )
        for field in inspect.signature(obj).parameters.values()
    ]
    return str(inspect.Signature(fields)), returned


def as_written(types: str) -> str:
    """Types and defaults without what only Python sees."""
    types = ARRAY.sub(r"NDArray[\1]", types.replace(FACTORY, "..."))
    while (found := ANNOTATED.search(types)) is not None:
        first, end = _arguments(types, found.end())
        types = types[: found.start()] + first + types[end:]
    return types


def _arguments(text: str, start: int) -> tuple[str, int]:
    """The first of the arguments in a bracket, and where the text behind that bracket begins."""
    depth, first = 0, ""
    for place in range(start, len(text)):
        if depth == 0 and text[place] in ",]" and not first:
            first = text[start:place]
        if depth == 0 and text[place] == "]":
            return first, place + 1
        depth += (text[place] in "[(") - (text[place] in "])")
    return text[start:], len(text)


def one_by_one(
    _app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]
) -> None:
    """Repeat what napoleon made of "width, height: points" for each name; tidy the types."""

    def repeated(fields: re.Match[str]) -> str:
        names, text = fields.groups()
        return "\n".join(f":ivar {name}:{text}" for name in names.split(", "))

    lines[:] = SEVERAL.sub(repeated, "\n".join(lines)).split("\n")
    lines[:] = [as_written(line) if line.startswith(":vartype") else line for line in lines]


def is_field(
    _app: Sphinx, _what: str, _name: str, obj: Any, _skip: bool, _options: Any
) -> bool | None:
    """Whether a member is a field of a named tuple; None leaves the decision to autodoc."""
    return True if (inspect.getdoc(obj) or "").startswith("Alias for field number") else None


def readable_values(_app: Sphinx, document: nodes.document) -> None:
    """Show the values of constants that tell a reader something."""
    for value in document.findall(addnodes.desc_annotation):
        text = value.astext()
        if not text.startswith(" = "):
            continue
        if len(text) > TABLE or NO_VALUE.search(text) or not _is_python(text.removeprefix(" = ")):
            value.children = [nodes.Text(" = …")]
        else:
            shown = LONG_NUMBER.sub(lambda n: f"{float(n[0]):.6g}", MODULE.sub("", text))
            value.children = [nodes.Text(shown)]


def without_checkers(_app: Sphinx, document: nodes.document) -> None:
    """Say of what type an alias is, not which private function checks it."""
    for paragraph in list(document.findall(nodes.paragraph)):
        text = paragraph.astext()
        if text.startswith("alias of Annotated[") and CHECKER.search(text):
            paragraph.children = [nodes.Text(CHECKER.sub("", text))]


def _is_python(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:  # <function _arrow>
        return False
    return True


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-signature", shortened)
    app.connect("autodoc-process-docstring", one_by_one, priority=600)  # after napoleon
    app.connect("autodoc-skip-member", is_field)
    app.connect("doctree-read", readable_values)
    app.connect("doctree-read", without_checkers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
