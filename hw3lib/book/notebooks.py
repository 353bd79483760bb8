"""Notebooks executed with other parameters, and their glued numbers over several seeds."""

from __future__ import annotations

import ast
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hw3lib.book.glue import MIME_PREFIX
from hw3lib.stats import mean_interval


def execute(notebook: Path, output: Path, parameters: Mapping[str, Any]) -> Path:
    """Execute a notebook with papermill; the output appears once it is whole.

    Args:
        notebook: with a cell tagged `parameters`.
        output: where the executed notebook goes.
        parameters: values in place of the defaults.

    Raises:
        ValueError: the file is no notebook, or it has no parameter of such a name.
        RuntimeError: a cell failed; what was executed lies beside `output`.
    """
    import papermill

    _check_notebook(notebook)
    known = papermill.inspect_notebook(str(notebook))
    if unknown := sorted(parameters.keys() - known.keys()):
        raise ValueError(
            f"{notebook.name} has no parameter {', '.join(unknown)}; it has "
            f"{', '.join(known) or 'none'}"
        )
    if output.is_dir():
        raise IsADirectoryError(f"{output} is a folder; name a file in it")
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
            extra_arguments=["--log-level=ERROR"],  # of the kernel, whose warnings nobody asked for
        )
    except papermill.PapermillExecutionError as error:
        said, *_ = error.evalue.split("For further information")  # pydantic's, on several lines
        raise RuntimeError(
            f"{notebook.name} failed in cell {error.exec_count} ({error.ename}: "
            f"{' '.join(said.split())}); {part} shows how far it came"
        ) from error
    os.replace(part, output)
    return output


def _check_notebook(path: Path) -> None:
    """Papermill fails on other files in many ways, deep inside."""
    import nbformat

    try:
        with warnings.catch_warnings(action="ignore"):  # cells without a name are cells
            nbformat.validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, AttributeError, TypeError, nbformat.ValidationError) as error:
        (reason, *_) = str(error).splitlines() or [""]
        raise ValueError(f"{path} is not a notebook ({reason})") from error


def glued(notebook: Path) -> dict[str, str]:
    """The numbers and words that an executed notebook quotes in its prose, by name.

    Raises:
        ValueError: the file is not a notebook that papermill executed.
    """
    return _read(notebook)[2]


def summary(notebooks: Iterable[Path]) -> pd.DataFrame:
    """Mean and 95% interval over seeds of every number that the notebooks quote.

    A value with an interval of its own, "0.51 [0.50, 0.52]", counts with its estimate, and one in
    per cent as a share. Words are left out.

    Returns:
        One row for each notebook and name, with `mean`, `low`, `high` (NaN for one seed) and `n`.

    Raises:
        ValueError: a file is unreadable, no number is quoted, or two are the same notebook with
            the same parameters, or with others that differ in more than the seed, or quotes NaN.
    """
    values: dict[tuple[str, str], list[float]] = {}
    seen: dict[tuple[str, str], Path] = {}
    settings: dict[str, dict[str, Any]] = {}
    for path in notebooks:
        origin, parameters, quoted = _read(path)
        if twin := seen.get((origin, parameters)):
            raise ValueError(f"{path} and {twin} are the same execution; leave one out")
        seen[origin, parameters] = path
        apart = {k: v for k, v in json.loads(parameters).items() if k != "seed"}
        if (others := settings.setdefault(origin, apart)) != apart:
            raise ValueError(
                f"{path} was executed with {apart}, another of {origin} with {others}; an interval "
                "over seeds is of executions that differ in nothing else"
            )
        for name, text in quoted.items():
            if (number := _number(text)) is not None:
                if not math.isfinite(number):
                    raise ValueError(f"{path} quotes {name} = {text}, which has no mean")
                values.setdefault((origin, name), []).append(number)
    if not values:
        raise ValueError(f"no number is quoted in {', '.join(map(str, seen.values()))}")
    rows = {key: vars(mean_interval(found)) for key, found in sorted(values.items())}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "n"])
    table.index = pd.MultiIndex.from_tuples(table.index, names=["notebook", "name"])
    return table.rename(columns={"value": "mean"})


def _number(text: str) -> float | None:
    """What a glued text says, if it is a number; of an interval its estimate."""
    estimate = text.split(" [")[0].replace(",", "").replace("\N{MINUS SIGN}", "-")
    try:
        return float(estimate.removesuffix("%")) / (100 if estimate.endswith("%") else 1)
    except ValueError:
        return None


def _read(path: Path) -> tuple[str, str, dict[str, str]]:
    """Which notebook was executed, with which parameters (as JSON), and what it quotes."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = content["metadata"]["papermill"]
        origin = Path(record["input_path"]).stem
        parameters = json.dumps(record["parameters"], sort_keys=True)
        outputs = [output for cell in content["cells"] for output in cell.get("outputs", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a readable notebook that papermill executed ({error}); execute it again"
        ) from error
    quoted = {}
    for output in outputs:
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        text = output.get("data", {}).get(f"{MIME_PREFIX}text/plain")
        if name and text:
            quoted[name] = str(ast.literal_eval("".join(text)))
    return origin, parameters, quoted
