"""The book's notebooks, and what is wrong with one as it is committed."""

import ast
import re
import shutil
from collections.abc import Collection
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from hw3lib.book.picture import SMALLEST, source_of

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
QUESTIONS = [path for path in NOTEBOOKS if path.stem.startswith("q")]
CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)
GLUED = "application/papermill.record/"
# Of what no run gave: computed in the notebook, or timed by the benchmarks.
OTHER_SOURCE = r"Computed on this page · hw3lib \S+|Timed on .+ · torch \S+ · hw3lib \S+"


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def outputs_of(code: str) -> list[NotebookNode]:
    """What a cell of a notebook shows."""
    notebook = NotebookClient(new_notebook(cells=[new_code_cell(code)])).execute()
    outputs: list[NotebookNode] = notebook.cells[0].outputs
    return outputs


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def prose(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def glued_values(path: Path) -> dict[str, str]:
    """What the committed notebook glued, by name."""
    outputs = [output for cell in code_cells(read(path)) for output in cell.outputs]
    return {
        output.metadata.scrapbook.name: ast.literal_eval(output.data[f"{GLUED}text/plain"])
        for output in outputs
        if f"{GLUED}text/plain" in output.get("data", {})
    }


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def execution_faults(notebook: NotebookNode) -> list[str]:
    """nbval passes a notebook that was never run, and one that was run with errors allowed."""
    cells = code_cells(notebook)
    faults = []
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        faults.append("the code cells were not executed once each, from the first to the last")
    for cell in cells:
        where = f"cell {cell.execution_count}"
        for output in cell.outputs:
            if output.output_type == "error":
                faults.append(f"{where} ends with {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                faults.append(f"{where} writes to stderr: {output.text.strip()[:80]}")
    return faults


def layout_faults(notebook: NotebookNode) -> list[str]:
    """The parts of a question's notebook, in the form that the book and papermill rely on."""
    cells, text = code_cells(notebook), prose(notebook)
    faults = []
    if not cells or "remove-cell" not in tags(cells[0]):
        faults.append("the first code cell (it installs hw3lib in Colab) is not tagged remove-cell")
    if sum("parameters" in tags(cell) for cell in cells) != 1:
        faults.append("there is not exactly one cell tagged parameters")
    faults += parameter_faults(cells)
    if not re.search(r"\{exercise(-start)?\}", text):
        faults.append("there is no exercise")
    solutions = re.findall(r"\{solution(?:-start)?\}[^\n]*\n(?::[^\n]*\n)*", text)
    if not solutions:
        faults.append("there is no solution")
    if not all(re.search(r"^:class:.*\bdropdown\b", head, re.MULTILINE) for head in solutions):
        faults.append("a solution is not folded (`:class: dropdown`)")
    return faults


def parameter_faults(cells: list[NotebookNode]) -> list[str]:
    """Parameters say what they may be, and are looked at before anything that takes long."""
    place = next((i for i, cell in enumerate(cells) if "parameters" in tags(cell)), None)
    if place is None:
        return []
    faults = []
    for line in ast.parse(cells[place].source).body:
        if not isinstance(line, ast.AnnAssign):
            faults.append(f"the parameter in {ast.unparse(line)!r} does not say what it may be")
    checked = cells[place + 1].source.startswith("check_parameters(globals())")
    before = [cell.source for cell in cells[:place] if "install" not in cell.source]
    imported = [line for source in before for line in ast.parse(source).body]
    if not checked or [getattr(line, "module", "") for line in imported] != [
        "hw3lib.book.parameters"
    ]:
        faults.append("the parameters are not looked at before anything else is imported")
    return faults


def figure_faults(notebook: NotebookNode) -> list[str]:
    """Every figure has a caption, an alt text that is a sentence, and text that a phone shows."""
    text, faults = prose(notebook), []
    for cell in code_cells(notebook):
        if {"remove-cell", "remove-output"} & set(tags(cell)):
            continue
        render = cell.metadata.get("mystnb", {})
        stray = any(
            output.output_type == "execute_result" and set(output.data) == {"text/plain"}
            for output in cell.outputs
        )
        if stray and "figure" in render:
            faults.append(
                f"cell {cell.execution_count} shows its last value beside its figure: end with ;"
            )
        for output in cell.outputs:
            data = output.get("data", {})
            if any(mime.startswith("image/") for mime in data):
                caption = render.get("figure", {}).get("caption", "")
                alt = render.get("image", {}).get("alt", "")
                where = f"the figure of cell {cell.execution_count}"
                faults += caption_and_alt_faults(where, caption, alt)
                size = re.search(r'data-text="([\d.]+)"', data.get("image/svg+xml", ""))
                if size and float(size[1]) < SMALLEST:
                    faults.append(f"{where} has text of {size[1]} pixels on a phone")
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        if any(mime.startswith(f"{GLUED}image/") for mime in output.get("data", {})):
            name = output.metadata.scrapbook.name
            faults += glued_figure_faults(name, text)
    return faults


def source_faults(notebook: NotebookNode, stored: Collection[str]) -> list[str]:
    """Every figure and table names its source; the runs that it names are among the stored keys."""
    faults = []
    for cell in code_cells(notebook):
        where = f"cell {cell.execution_count}"
        if "remove-cell" in tags(cell):
            continue
        datas = [output.get("data", {}) for output in cell.outputs]
        for data, following in zip(datas, [*datas, {}][1:], strict=True):
            if "image/svg+xml" in data:
                source = source_of(data["image/svg+xml"])
            elif "image/png" in data:
                source = ""
            elif 'class="dataframe"' in data.get("text/html", ""):
                source = following.get("text/plain", "")
            else:
                continue
            named = re.match(r"Runs? ([0-9a-f, ]+) ·", source)
            if not named and not re.match(OTHER_SOURCE, source):
                faults.append(f"{where} shows a figure or table without its source")
            for key in named[1].split(", ") if named else ():
                if not any(name.startswith(key) for name in stored):
                    faults.append(f"{where} names the run {key}, which is not published")
    return faults


def glued_figure_faults(name: str, text: str) -> list[str]:
    shown = re.search(
        rf"^(`{{3,}}|:{{3,}})\{{glue:figure\}} {re.escape(name)}$(.*?)^\1", text, re.M | re.S
    )
    if not shown:
        return [f"the glued figure {name} is not shown with {{glue:figure}}"]
    alt = re.search(r"^:alt: (.*)$", shown[2], re.MULTILINE)
    caption = re.sub(r"^:.*$", "", shown[2], flags=re.MULTILINE).strip()
    return caption_and_alt_faults(f"the glued figure {name}", caption, alt[1] if alt else "")


def caption_and_alt_faults(where: str, caption: str, alt: str) -> list[str]:
    faults = []
    if not caption.strip():
        faults.append(f"{where} has no caption")
    if not alt.strip().endswith("."):
        faults.append(f"{where} has no alt text that is a sentence")
    return faults
