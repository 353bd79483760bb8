"""Notebooks executed with other parameters, and their glued numbers over several seeds."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hw3lib.glue import MIME_PREFIX
from hw3lib.stats import mean_interval


def execute(notebook: Path, output: Path, parameters: Mapping[str, Any]) -> Path:
    """Execute a notebook with papermill; the output appears once it is whole.

    Args:
        notebook: with a cell tagged `parameters`.
        output: where the executed notebook goes.
        parameters: values in place of the defaults.

    Raises:
        ValueError: the notebook has no parameter of such a name.
        RuntimeError: a cell failed; what was executed lies beside `output`.
    """
    import papermill

    known = papermill.inspect_notebook(str(notebook))
    if unknown := sorted(parameters.keys() - known.keys()):
        raise ValueError(
            f"{notebook.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f"{output.stem}.part.ipynb").resolve()
    try:
        papermill.execute_notebook(
            str(notebook),
            str(part),
            parameters=dict(parameters),
            kernel_name="python3",
            cwd=str(notebook.parent),
            progress_bar=False,
        )
    except papermill.PapermillExecutionError as error:
        raise RuntimeError(
            f"{notebook.name} failed in cell {error.exec_count} ({error.ename}: {error.evalue}); "
            f"{part} shows how far it came"
        ) from error
    os.replace(part, output)
    return output


def glued(notebook: Path) -> dict[str, str]:
    """The numbers and words that an executed notebook quotes in its prose, by name.

    Raises:
        ValueError: the file is not an executed notebook.
    """
    try:
        content = json.loads(notebook.read_text(encoding="utf-8"))
        outputs = [o for cell in content["cells"] for o in cell.get("outputs", [])]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{notebook} is not a readable notebook ({error}); execute it again"
        ) from error
    found = {}
    for output in outputs:
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        text = output.get("data", {}).get(f"{MIME_PREFIX}text/plain")
        if name and text:
            found[name] = str(ast.literal_eval("".join(text)))
    return found


def summary(notebooks: Iterable[Path]) -> pd.DataFrame:
    """Mean and 95 % interval over seeds of every number that the notebooks quote.

    A value with an interval of its own, "0.51 [0.50, 0.52]", counts with its estimate. Words are
    left out.

    Returns:
        One row for each notebook and name: `mean`, `low`, `high` (NaN for one seed) and `n`.

    Raises:
        ValueError: a file is unreadable, or two are the same notebook with the same parameters.
    """
    values: dict[tuple[str, str], list[float]] = {}
    seen: dict[str, Path] = {}
    for path in notebooks:
        identity = _identity(path)
        if identity in seen:
            raise ValueError(f"{path} and {seen[identity]} are the same execution; leave one out")
        seen[identity] = path
        for name, text in glued(path).items():
            number = pd.to_numeric(text.split(" [")[0].replace(",", ""), errors="coerce")
            if pd.notna(number):
                values.setdefault((_origin(path), name), []).append(float(number))
    rows = {key: vars(mean_interval(found)) for key, found in sorted(values.items())}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "n"])
    table.index = pd.MultiIndex.from_tuples(table.index, names=["notebook", "name"])
    return table.rename(columns={"value": "mean"})


def _papermill(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))["metadata"]["papermill"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} was not made by papermill; execute it again") from error
    return record


def _origin(path: Path) -> str:
    return Path(_papermill(path)["input_path"]).stem


def _identity(path: Path) -> str:
    return json.dumps([_origin(path), _papermill(path)["parameters"]], sort_keys=True)
