"""Print the table of ratios, and write it as JSON."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

import hw3lib
from benchmarks import gpu, growth
from benchmarks.rows import Bench, all_rows, startup
from benchmarks.timing import Row
from hw3lib import training
from hw3lib.training.precision import bfloat16_pays, processor

LIMIT_IMPORT, LIMIT_HELP = 0.3, 1.0


def main(
    quick: Annotated[
        bool, typer.Option(help="small sizes, under four minutes on two cores")
    ] = False,
    only: Annotated[
        str, typer.Option(help="rows whose short name contains this; the file keeps its others")
    ] = "",
    gpu_alone: Annotated[
        bool, typer.Option("--gpu", help="what one GPU takes, and nothing else")
    ] = False,
    output: Annotated[Path, typer.Option(help="where the JSON goes")] = Path("benchmarks.json"),
) -> None:
    """Time hw3lib and what a user would pick instead, in turn, on this machine."""
    # A file has no width of its own; the table needs this much.
    console = Console(width=None if sys.stdout.isatty() else 150)
    started, bench = time.monotonic(), Bench(quick)
    content = _content(quick, output if only else None)
    table = Table(
        "work", "amount", "against", "ratio", "rounds", "to reach", "values differ by", ""
    )
    for name, measure in ({} if gpu_alone else all_rows(bench)).items():
        if only in name:
            with console.status(name):
                row = measure()
            content["rows"][name] = describe(row)
            table.add_row(*cells(row))
    if not gpu_alone:
        console.print(table)
    if not only and not gpu_alone:
        content["startup"] = startup(2 if quick else 3)
        content["growth"] = growth.attack_growth(bench) | {"epochs": growth.epoch_growth(bench)}
        content["passes"] = growth.passes(bench)
        sizes, rounds = ((200, 400), 1) if quick else ((500, 8000), 2)
        content["peak memory"] = growth.peak_memory(sizes, rounds)
        console.print(rest(content))
    if gpu_alone or not only:
        content["gpu"] = gpu.measure()
        console.print(on_gpu(content["gpu"]["rows"]))
        content["seconds"] = round(time.monotonic() - started, 1)
    output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    console.print(f"{time.monotonic() - started:.1f} s; {output}")


def _content(quick: bool, kept: Path | None) -> dict[str, Any]:
    """What the table is of, and the rows of the kept file, if there is one.

    Raises:
        typer.BadParameter: that file is of another machine, version or size.
    """
    about = {
        "version": hw3lib.__version__,
        "torch": torch.__version__,
        "machine": f"{processor()}, {torch.get_num_threads()} threads",
        "device": training.device_name(training.pick_device()),
        "bfloat16": bfloat16_pays(torch.device("cpu")),
        "quick": quick,
    }
    if kept is None or not kept.exists():
        return about | {"rows": {}}
    content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    other = [
        f"{name} {content.get(name)}, here {here}"
        for name, here in about.items()
        if content.get(name) != here
    ]
    if other:
        raise typer.BadParameter(
            f"{kept} was measured otherwise ({'; '.join(other)}), so its rows do not compare with "
            "new ones; pass another --output"
        )
    return content


def describe(row: Row) -> dict[str, Any]:
    """A row for the JSON, with what follows from it."""
    return asdict(row) | {"ratio": row.ratio, "agrees": row.agrees, "wins": row.wins}


def cells(row: Row) -> list[str]:
    """A row for the screen."""
    low, high = min(row.ratios), max(row.ratios)
    verdict = "reached" if row.wins else "values differ" if not row.agrees else "falls short"
    return [
        row.name,
        row.size,
        row.rival,
        f"{row.ratio:.2f}",
        f"{low:.2f}-{high:.2f}",
        f"{row.target:g}",
        f"{row.difference:+.4f}",
        verdict,
    ]


def rest(content: dict[str, Any]) -> Table:
    """Start-up, growth and memory."""
    table = Table("measured", "value")
    limits = {"import hw3lib over import torch": LIMIT_IMPORT, "hw3 --help": LIMIT_HELP}
    for name, seconds in content["startup"].items():
        table.add_row(name, f"{seconds:.2f} s (at most {limits[name]:g} s)")
    for name, points in content["growth"].items():
        table.add_row(f"seconds by {name}", ", ".join(f"{k}: {v:.2f}" for k, v in points.items()))
    for name, images in content["passes"].items():
        table.add_row(f"images through the network, {name}", f"{images:,}")
    points = content["peak memory"]
    table.add_row(
        "MB above the data by images", ", ".join(f"{k}: {v:.0f}" for k, v in points.items())
    )
    return table


def on_gpu(rows: dict[str, Any]) -> Table:
    """What one GPU takes."""
    table = Table("on one GPU", "measured", "at most")
    for name, row in rows.items():
        unit = row["unit"]
        shown = "unmeasured, needs a GPU" if row["value"] is None else f"{row['value']:.1f} {unit}"
        table.add_row(name, shown, "" if row["limit"] is None else f"{row['limit']:g} {unit}")
    return table


if __name__ == "__main__":
    typer.run(main)
