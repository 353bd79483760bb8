"""Pages that load only what they use, from nowhere else, and say nothing in the console.

The theme brings an icon script of 1.5 MB, style rules for thousands of things that are not on any
page, MathJax with a menu, a search index on each page, and scripts that would run cells on another
host. What a page does not use is taken out of the built book, here and in `_templates/layout.html`.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from docutils import nodes
from fontTools import subset, ttLib
from sphinx.application import Sphinx

from hw3lib.book import cover

DESCRIPTION = 300  # characters
# MathJax without its menu and its speech engine; formulas stay readable for assistive software.
MATHJAX = ["input/tex", "output/chtml", "a11y/assistive-mml"]
MATHJAX_FILES = ["startup.js", "core.js", *(f"{part}.js" for part in MATHJAX)]
MATHJAX_FOLDERS = ("output/chtml/fonts/", "input/tex/extensions/")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
STRING = r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\''
NAME = re.compile(r"[.#]((?:\\.|[\w-])+)")
CHOICE = re.compile(r":(?:not|is|where|has)\([^()]*(?:\([^()]*\)[^()]*)*\)")
FONT = re.compile(r'url\(([^)]*/(fa-[\w-]+))\.woff2\) format\("woff2"\),url\([^)]*\)[^,;}]*')
ICON = re.compile(r"\\([ef][0-9a-f]{3})|([\ue000-\uf8ff])", re.IGNORECASE)


def configure(app: Sphinx, config: Any) -> None:
    """Ask for no script from elsewhere."""
    config.nb_ipywidgets_js = {}
    config.mathjax_path = "mathjax/startup.js"
    config.mathjax3_config = {"loader": {"load": MATHJAX}}
    for event, listeners in app.events.listeners.items():
        app.events.listeners[event] = [
            listener
            for listener in listeners
            if not listener.handler.__module__.startswith("sphinx_thebe")
        ]


def describe(
    app: Sphinx,
    _page: str,
    _template: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Give the page's head its description, and each script once."""
    scripts = {repr(_identity(script)): script for script in context["script_files"]}
    context["script_files"] = list(scripts.values())
    context["css_files"] = [css for css in context["css_files"] if "thebe" not in str(css.filename)]
    context["card"] = f"{app.config.html_baseurl}/_static/card.png"
    context["card_alt"] = cover.CARD_ALT
    if doctree is not None:
        context["description"] = description_of(doctree)


def _identity(script: Any) -> tuple[str, str]:
    return str(script), str(getattr(script, "attributes", {}).get("body", ""))


def description_of(doctree: nodes.document) -> str:
    """The page's question and answer, or its first paragraph, cut at a sentence or word."""
    boxes = (box for box in doctree.findall(nodes.admonition) if "question" in box["classes"])
    parts = next(boxes, None) or list(doctree.findall(nodes.paragraph))[:1]
    text = " ".join(" ".join(part.astext().split()) for part in parts)
    if len(text) <= DESCRIPTION:
        return text
    cut = text[:DESCRIPTION]
    end = cut.rfind(". ")
    return cut[: end + 1] if end > DESCRIPTION // 2 else cut[: cut.rfind(" ")] + " …"


def trim(app: Sphinx, error: Exception | None) -> None:
    """Take out of the built book what no page uses."""
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    static = out / "_static"
    for unused in ("locales", "scripts/fontawesome.js", "sphinx-thebe.js", "sphinx-thebe.css"):
        _remove(static / unused)
    for beside in (*static.rglob("*.map"), *static.rglob("*.LICENSE.txt")):
        beside.unlink()
    _trim_mathjax(static / "mathjax")
    for script in [static / "scripts/pydata-sphinx-theme.js", static / "togglebutton.js"]:
        # They report what they do; the value of `void (…)` is that of such a call.
        text = script.read_text(encoding="utf-8")
        script.write_text(text.replace("console.log(", "void ("), encoding="utf-8")
    known = names_in([*out.glob("*.html"), *static.rglob("*.js")])
    sheets = list(static.rglob("*.css"))
    for sheet in sheets:
        sheet.write_text(purge(sheet.read_text(encoding="utf-8"), known), encoding="utf-8")
    _subset_icons(sheets)
    cover.write_card(static / "card.png")
    cover.write_icon(static / "favicon.png")


def names_in(files: Iterable[Path]) -> set[str]:
    """Whatever could be a class or an id in these pages and scripts."""
    texts = (file.read_text(encoding="utf-8") for file in files if "mathjax" not in file.parts)
    return {name for text in texts for name in re.findall(r"[\w-]+", text)}


def purge(css: str, known: set[str]) -> str:
    """A style sheet without the rules whose classes and ids are not known."""
    kept = []
    for head, body in _rules(COMMENT.sub("", css)):
        if body is None:
            kept.append(head)
        elif head.startswith(("@media", "@supports")):
            inner = purge(body, known)
            kept += [f"{head}{{{inner}}}"] if inner.strip() else []
        elif head.startswith("@"):
            kept.append(f"{head}{{{body}}}")
        else:
            selectors = [s for s in _split(head) if _names(s) <= known]
            kept += [f"{','.join(selectors)}{{{body.strip()}}}"] if selectors else []
    return "\n".join(kept)


def _names(selector: str) -> set[str]:
    """The names without which a selector matches nothing."""
    plain = CHOICE.sub("", re.sub(STRING, "", selector))
    return {name.replace("\\", "") for name in NAME.findall(plain)}


def _split(head: str) -> list[str]:
    """The selectors of a rule; a comma within brackets separates none."""
    parts = re.findall(
        rf"(?:{STRING}|\([^()]*(?:\([^()]*\)[^()]*)*\)|\[[^\]]*\]|\\.|[^,\"'])+", head
    )
    return [part.strip() for part in parts]


def _rules(css: str) -> Iterator[tuple[str, str | None]]:
    """Statements of a style sheet: head and body of a block, or a line without a block."""
    depth, start, head = 0, 0, ""
    for token in re.finditer(rf"{STRING}|\\.|[{{}};]", css):
        if token[0] == "{":
            depth += 1
            if depth == 1:
                head, start = css[start : token.start()].strip(), token.end()
        elif token[0] == "}":
            depth -= 1
            if depth == 0:
                yield head, css[start : token.start()]
                start = token.end()
        elif token[0] == ";" and depth == 0:
            yield css[start : token.end()].strip(), None
            start = token.end()


def _subset_icons(sheets: list[Path]) -> None:
    """Icon fonts with the icons that the style sheets name, and nothing else."""
    texts = {sheet: sheet.read_text(encoding="utf-8") for sheet in sheets}
    icons = {
        int(code, 16) if code else ord(char)
        for text in texts.values()
        for code, char in ICON.findall(text)
    }
    for sheet, text in texts.items():
        for path, _ in set(FONT.findall(text)):
            font = (sheet.parent / path).resolve()
            if font.with_suffix(".ttf").exists():
                font.with_suffix(".woff").write_bytes(_subset(font.with_suffix(".ttf"), icons))
                _remove(font.with_suffix(".ttf"))
                _remove(font.with_suffix(".woff2"))
        sheet.write_text(FONT.sub(r'url(\1.woff) format("woff")', text), encoding="utf-8")


def _subset(file: Path, codes: set[int]) -> bytes:
    font = ttLib.TTFont(file)
    options = subset.Options(notdef_outline=True, layout_features=[])
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=codes)
    subsetter.subset(font)
    font.flavor = "woff"
    font.save(stream := BytesIO())
    return stream.getvalue()


def _trim_mathjax(folder: Path) -> None:
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name not in MATHJAX_FILES and not name.startswith(MATHJAX_FOLDERS):
            file.unlink()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension; it configures after the others, and trims what they copied."""
    app.connect("config-inited", configure, priority=900)
    app.connect("html-page-context", describe, priority=900)
    app.connect("build-finished", trim, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
