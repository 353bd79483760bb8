"""The command line: `hw3 run`, `runs`, `data`, `book`, `notebook`, `summary`, `reproduce`.

Modules that take long to import are imported inside the commands, so that `hw3 --help` is quick.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

if TYPE_CHECKING:
    from hw3lib.experiments.catalog import Published
    from hw3lib.runs.settings import Settings
    from hw3lib.runs.store import Run


class Terminated(KeyboardInterrupt):
    """SIGTERM, which batch systems and containers send before they kill."""


class Commands(typer.core.TyperGroup):
    """Commands whose known errors become one line, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            if (ending := _ending(error)) is None:
                raise
            code, message = ending
            typer.echo(f"hw3: {message}", err=True)
            sys.exit(code)


# Plain help: with markup it would import a Markdown reader first.
plain = partial(typer.Typer, no_args_is_help=True, rich_markup_mode=None)
app = plain(cls=Commands, add_completion=False, help=__doc__.split("\n")[0])
runs_app = plain(help="Look at stored runs and verify them.")
data_app = plain(help="Fetch and check the data sets.")
book_app = plain(help="Editions of the book, from a copy of its repository.")
app.add_typer(runs_app, name="runs")
app.add_typer(data_app, name="data")
app.add_typer(book_app, name="book")

EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")

RESERVE_SECONDS = 20.0
"""Part of a time budget kept for evaluating and storing the run in hand."""

Device = Annotated[str | None, typer.Option(help="torch's name of the device, such as cuda or cpu")]
ROOT = Path(__file__).parents[1]
"""Of the repository, where the package is used from a copy of it."""
Book = Annotated[Path, typer.Option(help="the folder `book` of a copy of the repository")]
Keys = Annotated[list[str] | None, typer.Argument(help="keys or their beginnings; default all")]


@app.command("run")
def run_command(
    experiment: Annotated[
        str, typer.Argument(help="such as vae_training; `hw3 run '?'` names all that there are")
    ],
    settings: Annotated[list[str] | None, typer.Argument(help="name=value, such as beta=4")] = None,
    device: Device = None,
    weights: Annotated[bool, typer.Option(help="insist on stored weights")] = False,
    output: Annotated[Path | None, typer.Option(help="also copy the result's JSON there")] = None,
) -> None:
    """Find the run with these settings, or compute and store it."""
    from hw3lib import runs
    from hw3lib.files import write_whole

    wanted = _parse(experiment, settings or [])
    stored = runs.run(wanted, device=_usable(device), weights=weights)
    _show(stored)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, partial(shutil.copyfile, stored.path))


@app.command("notebook")
def notebook_command(
    notebook: Annotated[Path, typer.Argument(help="such as book/q1_08_training.ipynb")],
    output: Annotated[Path, typer.Argument(help="where the executed notebook goes")],
    parameters: Annotated[
        list[str] | None, typer.Argument(help="name=value, such as seed=3")
    ] = None,
) -> None:
    """Execute a notebook with other parameters; one that it does not have is an error."""
    from hw3lib.book import notebooks

    typer.echo(notebooks.execute(notebook, output, _assignments(parameters or [])))


@app.command("summary")
def summary_command(
    notebooks: Annotated[list[Path], typer.Argument(help="executed notebooks, one or more seeds")],
    output: Annotated[Path | None, typer.Option(help="a CSV file; default the screen")] = None,
) -> None:
    """Mean and interval over seeds of every number that the notebooks quote."""
    from hw3lib.book.notebooks import summary

    table = summary(notebooks).to_csv(float_format="%.6g")
    if output:
        output.write_text(table, encoding="utf-8")
    else:
        typer.echo(table)


@runs_app.command("list")
def list_command(
    text: Annotated[str, typer.Argument(help="runs whose description contains this")] = "",
) -> None:
    """Stored runs: published ones first, then those in the user's cache."""
    from rich.console import Console
    from rich.table import Table

    from hw3lib import runs

    table = Table()
    for column in (columns := ("key", "run", "data", "device", "seconds", "where")):
        table.add_column(column, overflow="fold")
    rows = [
        (
            stored.key,
            stored.settings.describe(),
            stored.provenance["data"],
            stored.provenance["device"],
            f"{stored.provenance['seconds']:g}",
            "published" if stored.published else "cache",
        )
        for stored in runs.stored_runs()
        if text in stored.settings.describe()
    ]
    if sys.stdout.isatty():
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    else:  # for other programs, whole
        typer.echo("\n".join("\t".join(row) for row in [columns, *rows]))


@runs_app.command("show")
def show_command(key: str) -> None:
    """Settings, results and provenance of one run."""
    from hw3lib import runs

    distinct = {path.stem: path for path in reversed(_select([key]))}  # published ones win
    if len(distinct) > 1:
        raise ValueError(f"{len(distinct)} runs begin with {key}: {', '.join(sorted(distinct))}")
    _show(runs.read(*distinct.values()))


@runs_app.command("verify")
def verify_command(keys: Keys = None) -> None:
    """Recompute canaries: does the code still compute what made these runs? Are they whole?"""
    from hw3lib import runs
    from hw3lib.runs.settings import NotInstalledError

    bad = 0
    for path in _select(keys):
        word = "BROKEN"
        try:
            stored = runs.read(path)
            word = "STALE"
            with _quiet():
                difference = stored.verify()
            typer.echo(f"ok     {stored.key}  {stored.settings.describe()}  ({difference:.1e})")
        except NotInstalledError:
            bad += 1
            typer.echo(f"OTHER  {path.stem}  {path.parent.name} is not installed")
        except runs.RunError as error:
            bad += 1
            typer.echo(f"{word:6} {path.stem}  {error}")
    if bad:
        raise typer.Exit(1)


@data_app.command("fetch")
def fetch_command(name: Annotated[str, typer.Argument(help="mnist or cifar10")]) -> None:
    """Download a data set; it appears only once it is whole and verified."""
    from hw3lib import data

    typer.echo(f"{name} is in {data.download(name)}")


@data_app.command("check")
def check_command(
    names: Annotated[
        list[str] | None, typer.Argument(help="mnist, cifar10, digits or shapes; default all")
    ] = None,
) -> None:
    """Read data sets and compare every byte of those in files with its checksum."""
    from hw3lib import data

    bad = 0
    for name in names or data.CLASSES:
        try:
            found = data.load(name)
        except data.DataError as error:
            bad += 1
            typer.echo(f"{name}: {error}", err=True)
            continue
        sizes = f"{len(found.x_train):,} training and {len(found.x_test):,} test images"
        typer.echo(f"{name}: {sizes}, checksum {found.checksum}")
    if bad:
        raise typer.Exit(1)


@book_app.command("student")
def student_command(
    folder: Annotated[Path, typer.Argument(help="new or empty; where the notebooks go")],
    book: Book = ROOT / "book",
) -> None:
    """Write the notebooks without answers, with functions to write and their tests."""
    from hw3lib.book import student

    written = student.write(book, folder)
    typer.echo(f"{len(written)} notebooks are in {folder}")


@book_app.command("set-repository")
def set_repository_command(
    url: Annotated[
        str | None, typer.Argument(help="default, in GitHub Actions: the repository that runs them")
    ] = None,
    book: Book = ROOT / "book",
) -> None:
    """Write the repository's address wherever the book names it."""
    from hw3lib.book import repository

    if url is None:
        server, name = (os.environ.get(f"GITHUB_{word}") for word in ("SERVER_URL", "REPOSITORY"))
        if not server or not name:
            raise ValueError("give the URL; only in GitHub Actions does the environment name one")
        url = f"{server}/{name}"
    changed = repository.set_address(book.resolve().parent, url)
    typer.echo(f"{url}: {len(changed)} files changed")


@app.command("reproduce")
def reproduce_command(
    seeds: Annotated[str, typer.Option(help="such as 0, 0-4 or 0,2,5")] = "0",
    only: Annotated[str, typer.Option(help="runs whose description contains this")] = "",
    device: Device = None,
    jobs: Annotated[int, typer.Option(min=1, help="processes; 2 or more also pay on one GPU")] = 1,
    time_budget: Annotated[float | None, typer.Option(help="seconds; stops before")] = None,
    publish: Annotated[bool, typer.Option(help="copy the results into the package")] = False,
    planned: Annotated[
        bool, typer.Option(help="the runs that wait for a GPU instead, in the order of their worth")
    ] = False,
    plan: Annotated[
        bool, typer.Option(help="only say what would run and how long it takes")
    ] = False,
) -> None:
    """Compute every published run that is missing or stale; resumes where it stopped.

    Whether a run is stale is found by its canary, a few steps of the same computation; with all
    runs of a seed this takes minutes before anything else happens, also with `--plan`.
    """
    from hw3lib.runs import schedule
    from hw3lib.runs.settings import OutOfTime

    entries, device = _wanted(_seeds(seeds), only, planned), _usable(device)
    deadline = _deadline(time_budget)
    typer.echo(f"checking {len(entries)} canaries", err=True)
    if plan:
        _show_plan(entries, device)
        return
    report = _reporter(len(entries), publish)
    missing = {}
    for entry in entries:
        if stored := _fresh(entry):
            report(entry, stored, "stored")
        else:
            missing[entry.settings] = entry
    try:
        for run in schedule.compute_all([*missing], jobs=jobs, device=device, deadline=deadline):
            note = f"computed in {run.provenance['seconds']:g} s"
            report(missing.pop(run.settings), run, note)
    except OutOfTime as stop:
        raise OutOfTime(f"{stop}; {len(missing)} of {len(entries)} runs are left") from stop


def main() -> None:
    """Entry point of `hw3` and of `python -m hw3lib`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    signal.signal(signal.SIGTERM, _terminate)
    app()


def _terminate(_signal: int, _frame: Any) -> None:
    raise Terminated


def _ending(error: BaseException) -> tuple[int, str] | None:
    """Exit code and message of a known error, which says in one line what to do."""
    again = "run the same command again to go on"
    if isinstance(error, KeyboardInterrupt):
        killed = isinstance(error, Terminated)
        return (143, f"terminated; {again}") if killed else (130, f"interrupted; {again}")
    from hw3lib.runs.settings import OutOfTime

    if isinstance(error, OutOfTime):
        return 3, f"{error}; {again}"
    if isinstance(error, ModuleNotFoundError):
        return 1, f"{error}; this command takes what `pip install 'hw3lib[book]'` brings"
    known = isinstance(error, (ValueError, OSError, RuntimeError, ArithmeticError))
    return (
        (1, _one_line(error))
        if known and not isinstance(error, (typer.Exit, typer.Abort))
        else None
    )


def _one_line(error: BaseException) -> str:
    """What an error says, in one line; pydantic's by the name of each setting."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    faults = [
        f"{'.'.join(map(str, fault['loc']))}={fault['input']!r}: {fault['msg']}"
        for fault in error.errors(include_url=False)
    ]
    return f"{error.title}: {'; '.join(faults)}"


def _parse(experiment: str, assignments: Sequence[str]) -> Settings:
    """Settings from name=value words; the values are validated by the settings themselves."""
    from hw3lib.runs.settings import Settings

    kind, values = Settings.named(experiment), _assignments(assignments)
    if unknown := values.keys() - kind.model_fields.keys():
        known = ", ".join(kind.model_fields)
        raise ValueError(
            f"{experiment} has no setting {', '.join(sorted(unknown))}; it has {known}"
        )
    return kind(**values)


def _usable(device: str | None) -> str | None:
    """The name of a device that can compute."""
    if device is not None:
        import torch

        try:
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError) as error:
            (reason, *_) = str(error).splitlines()
            raise ValueError(f"--device {device} cannot be used here: {reason}") from error
    return device


def _assignments(words: Sequence[str]) -> dict[str, Any]:
    """Names and values of words such as seed=3 or defense={kind: standard}; values are YAML."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """YAML 1.1 wants a point in 1e-3; papermill takes it for a number, too."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, [*"+-0123456789"])
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ValueError(f"{word!r} is not name=value")
        if name in values:
            raise ValueError(f"{name} is given twice")
        try:
            values[name] = Loader(value).get_single_data()
        except yaml.YAMLError as error:
            raise ValueError(f"{word!r}: its value is not YAML ({error})") from error
    return values


def _select(keys: Sequence[str] | None) -> list[Path]:
    """The files of all runs, or of those whose keys begin so; broken ones, too."""
    from hw3lib import runs

    files = list(runs.stored_files())
    if not keys:
        return files
    if "" in keys:
        raise ValueError("a key, or its beginning, has one hex digit or more; see `hw3 runs list`")
    missing = [key for key in keys if not any(path.stem.startswith(key) for path in files)]
    if missing:
        raise ValueError(f"no stored run begins with {', '.join(missing)}; see `hw3 runs list`")
    return [path for path in files if path.stem.startswith(tuple(keys))]


def _seeds(text: str) -> list[int]:
    """Seeds of a text such as "0-2,5", which means 0, 1, 2 and 5."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"--seeds {text!r}: give seeds such as 0, 0-4 or 0,2,5")
        if int(last or first) < int(first):
            raise ValueError(f"--seeds {text!r}: {part} runs backwards; write {last}-{first}")
        seeds += range(int(first), int(last or first) + 1)
    if twice := [seed for seed, times in Counter(seeds).items() if times > 1]:
        raise ValueError(f"--seeds {text!r}: {twice[0]} is given twice")
    return seeds


def _wanted(seeds: Sequence[int], only: str, planned: bool) -> list[Published]:
    """The published runs of these seeds, or the planned ones, whose description contains a text."""
    from hw3lib.experiments import catalog

    listed = catalog.planned(seeds) if planned else catalog.published(seeds)
    entries = [entry for entry in listed if only in entry.settings.describe()]
    if not entries:
        kind = "planned" if planned else "published"
        raise ValueError(
            f"no {kind} run of these seeds contains --only {only!r}; "
            "`hw3 reproduce --plan` and `hw3 runs list` show descriptions"
        )
    return entries


def _deadline(budget: float | None) -> float | None:
    """`time.monotonic()` by which to stop computing."""
    if budget is None:
        return None
    if not budget > RESERVE_SECONDS:
        raise ValueError(
            f"--time-budget {budget:g}: {RESERVE_SECONDS:g} s are kept for storing, so give more"
        )
    return time.monotonic() + budget - RESERVE_SECONDS


def _reporter(total: int, publish: bool) -> Callable[[Published, Run, str], None]:
    """Counts runs that are there, publishes them if asked, and says so."""
    from hw3lib import runs

    done = 0

    def report(entry: Published, stored: Run, note: str) -> None:
        nonlocal done
        done += 1
        if publish and not stored.published:
            runs.publish(entry.settings, weights=entry.weights)
            note += ", published"
        typer.echo(f"{done}/{total}  {stored.key}  {entry.settings.describe()}: {note}")

    return report


def _fresh(entry: Published) -> Run | None:
    """The stored run, published or cached, that the code as it is would make again."""
    from hw3lib import runs

    for stored in runs.copies(entry.settings, weights=entry.weights):
        try:
            with _quiet():
                stored.verify()
        except runs.RunError as error:
            logging.getLogger("hw3lib").warning("%s", error)
        else:
            return stored
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """A canary says nothing of its own, which would look like a training."""
    logger = logging.getLogger("hw3lib")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _show_plan(entries: Sequence[Published], device: str | None) -> None:
    """A line for each run that is missing or stale, and how long all of them will take."""
    from tqdm import tqdm

    from hw3lib import runs, training

    name = training.device_name(training.pick_device(device))
    stored = list(runs.stored_runs())
    bar = tqdm(entries, unit="canary", leave=False, disable=None)  # where there is a screen
    left = [entry.settings for entry in bar if not _fresh(entry)]
    expected = [runs.expected_seconds(settings, stored, name) for settings in left]
    for settings, seconds in zip(left, expected, strict=True):
        note = "unknown" if seconds is None else f"{seconds:,.0f} s"
        typer.echo(f"{settings.key}  {settings.describe()}: {note}")
    known = [seconds for seconds in expected if seconds is not None]
    typer.echo(
        f"{len(entries) - len(left)} of {len(entries)} runs are stored, {len(left)} are left: "
        f"{sum(known) / 60:,.1f} min on {name}"
        + (
            f" and {len(left) - len(known)} runs of unknown length"
            if len(known) < len(left)
            else ""
        )
    )


def _show(stored: Run) -> None:
    from rich.console import Console

    console = Console()
    console.print(f"[bold]{stored.settings.describe()}[/bold]  {stored.key}")
    console.print_json(data={"settings": stored.settings.model_dump(mode="json")})
    results = {k: v for k, v in stored.results.items() if k != "history"}
    console.print_json(data={"results": results, "provenance": stored.provenance})
    files = [p.name for p in sorted(Path(stored.path.parent).glob(f"{stored.key}.*"))]
    console.print(f"files in {stored.path.parent}: {', '.join(files)}")
