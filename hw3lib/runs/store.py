"""The run store: a result is found by its settings, or computed and kept.

A run is made by a frozen `Settings` object. Its key is a hash of the settings; its result is a
JSON file, with arrays beside it in an .npz and weights in a .safetensors. The file holds the
digests of those two and of itself, so that no altered number is read. Results that ship with the
package lie in `hw3lib/published`, all others in the user's cache. This module knows neither torch
nor models.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from hw3lib.files import acquire, remove_parts, sealed, sha256, unsealed, user_folder, write_whole
from hw3lib.runs.provenance import commit, provenance
from hw3lib.runs.settings import (
    Context,
    NotInstalledError,
    Outcome,
    OutOfTime,
    RunError,
    Settings,
)

logger = logging.getLogger("hw3lib")

PUBLISHED = Path(__file__).parents[1] / "published"

CANARY_TOLERANCE = 1e-3
"""Largest relative difference that processors and torch versions may make to a canary."""

REMEDY = "rerun it with `hw3 reproduce` if it ships, with `runs.compute(settings)` if not"
"""For a run that is stale."""

_outer: ContextVar[Context | None] = ContextVar("outer", default=None)
"""Of the run that is being computed, for those that it needs on its way."""


@dataclass(frozen=True)
class Run:
    """A stored result.

    Attributes:
        settings: what it was asked for with.
        results: its numbers.
        provenance: version, commit, data, device, seconds, time.
        canary: see `Settings.canary`, as of when it was computed.
        path: its JSON file.
        files: SHA-256 of the files beside it, by suffix.
    """

    settings: Settings
    results: dict[str, Any]
    provenance: dict[str, Any]
    canary: list[float]
    path: Path
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.settings.key

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays stored beside the results."""
        if "npz" not in self.files:
            return {}
        with np.load(self.path.with_suffix(".npz"), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    @property
    def has_weights(self) -> bool:
        return "safetensors" in self.files

    @cached_property
    def weights(self) -> dict[str, NDArray[Any]]:
        """The stored weights.

        Raises:
            RunError: this run was stored without them.
        """
        if not self.has_weights:
            raise RunError(
                f"{self.settings.describe()} is stored without weights; get it with "
                "`run(settings, weights=True)`, which computes them"
            )
        return load_file(self.path.with_suffix(".safetensors"))

    @property
    def published(self) -> bool:
        """Whether it ships with the package."""
        return self.path.is_relative_to(PUBLISHED)

    def verify(self) -> float:
        """Recompute the canary; returns the largest relative difference.

        Raises:
            RunError: the code now computes something else than what made this run, or its data set
                has other bytes now.
        """
        data, made_from = self.settings.data_checksum(), self.provenance.get("data")
        if data and made_from and data != made_from:
            raise RunError(
                f"{self.settings.describe()} is stale: it was made from data with checksum "
                f"{made_from}, which are now {data}; {REMEDY}"
            )
        now = np.asarray(self.settings.canary())
        then = np.asarray(self.canary)
        if now.shape != then.shape:
            raise RunError(f"{self.settings.describe()} is stale: its canary has another length")
        difference = float(np.max(np.abs(now - then) / np.maximum(np.abs(then), 1e-12), initial=0))
        if not difference <= CANARY_TOLERANCE:
            raise RunError(
                f"{self.settings.describe()} is stale: the canary was {then.tolist()} and is now "
                f"{now.tolist()}. The code computes something else than when the run was stored; "
                f"{REMEDY}, or undo the change"
            )
        return difference


def cache_dir() -> Path:
    """The folder of the user's own runs: `HW3_CACHE`, else the user's cache directory."""
    return user_folder("HW3_CACHE", "runs")


def find(settings: Settings, *, weights: bool = False) -> Run | None:
    """The stored run with these settings, published or cached, or None; see `copies`."""
    return next(copies(settings, weights=weights), None)


def copies(settings: Settings, *, weights: bool = False) -> Iterator[Run]:
    """The stored runs with these settings: the published one, then the cached one.

    With `weights` only those that are stored with their weights.
    """
    for root in (PUBLISHED, cache_dir()):
        path = _path(root, settings)
        if path.exists():
            try:
                found = read(path)
            except RunError as error:
                logger.warning("%s; it is left out", error)
                continue
            if found.has_weights or not weights:
                yield found


def run(
    settings: Settings,
    *,
    weights: bool = False,
    device: str | None = None,
    deadline: float | None = None,
) -> Run:
    """The stored run with these settings; computed and stored if there is none.

    Args:
        settings: what to run.
        weights: a run stored without weights does not do.
        device: torch's name of the device; None picks one. Runs that are computed on the way take
            the same, and stop by the same deadline.
        deadline: `time.monotonic()` by which to stop.

    Raises:
        RunError: there are no weights, since the experiment gave none; else as `compute`.

    Example:
        >>> from hw3lib import TrainVAE
        >>> trained = run(TrainVAE(seed=0))  # ships with the package
        >>> trained.settings.seed, trained.published
        (0, True)
    """
    # Where a run is published its weights may be left out; one in the cache has all that it gave.
    found = find(settings, weights=weights) or next(
        (one for one in copies(settings) if weights and not one.published), None
    )
    found = found or compute(settings, device=device, deadline=deadline)
    if weights and not found.has_weights:
        raise RunError(f"{settings.describe()} has no weights: its experiment gave none")
    return found


def compute(settings: Settings, *, device: str | None = None, deadline: float | None = None) -> Run:
    """Compute a run, whether or not it is stored, and store it in the user's cache.

    If another process is computing it, its result is waited for and taken.

    Raises:
        OutOfTime: the deadline came first.
        RunError: the result cannot be stored; whether the folder can be written is tried before
            anything is computed.
        TypeError: the experiment's `compute` returned no `Outcome`.
    """
    path = _path(cache_dir(), settings)
    canary = settings.canary()
    checkpoint, name = checkpoint_path(settings, canary), settings.describe()
    if outer := _outer.get():
        device = outer.device if device is None else device
        deadline = outer.deadline if deadline is None else deadline
    left = -1 if deadline is None else max(0.0, deadline - time.monotonic())
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock, waited = acquire(checkpoint.with_suffix(".lock"), f"computes {name}", left)
        except TimeoutError as error:
            raise OutOfTime(f"another process still computes {name}") from error
    with lock:
        if waited and path.exists() and (theirs := read(path)).canary == canary:
            return theirs
        remove_parts(path)
        remove_parts(checkpoint)
        started, code = time.monotonic(), commit()
        context = Context(device, checkpoint, deadline)
        outcome = copy_context().run(_computed, settings, context)
        seconds = outcome.seconds or time.monotonic() - started
        made = provenance(outcome, seconds, code)
        made["data"] = outcome.data or settings.data_checksum() or ""
        with _writing(path, checkpoint):
            _store(settings, outcome, canary, made, path)
        if settings.checkpoint_key == settings.key:
            # No longer run goes on from it, and a later computation must not take it for its own.
            checkpoint.unlink(missing_ok=True)
    return read(path)


def _computed(settings: Settings, context: Context) -> Outcome:
    """What a run gives; those that it needs on its way find its context in `_outer`."""
    _outer.set(context)
    with settings.environment():
        outcome = settings.compute(context)
    if not isinstance(outcome, Outcome):
        raise TypeError(
            f"{type(settings).__name__}.compute returned {type(outcome).__name__}; a run is stored "
            'from an `Outcome`, such as `runs.Outcome({"mean": 0.5})`'
        )
    return outcome


@contextmanager
def _writing(path: Path, checkpoint: Path | None = None) -> Iterator[None]:
    """Says what to do where a file cannot be written."""
    try:
        yield
    except OSError as error:
        done = checkpoint and checkpoint.exists()
        kept = f"; what is done is kept in {checkpoint}" if done else ""
        raise RunError(
            f"{path} cannot be written ({error}){kept}. Make room or set HW3_CACHE to a folder "
            "that can be written, then run the same again"
        ) from error


def checkpoint_path(settings: Settings, canary: list[float]) -> Path:
    """Where an interrupted computation is kept.

    The name holds the canary: code that computes something else does not resume from it.
    """
    code = hashlib.sha256(json.dumps(canary).encode()).hexdigest()[:8]
    return (
        cache_dir() / "checkpoints" / f"{settings.experiment}-{settings.checkpoint_key}-{code}.pt"
    )


def _store(
    settings: Settings, outcome: Outcome, canary: list[float], made: dict[str, Any], path: Path
) -> None:
    """Write a result; the JSON comes last, so that what can be found is whole."""
    files = {}
    if outcome.arrays:
        arrays: dict[str, Any] = dict(outcome.arrays)
        files["npz"] = write_whole(
            path.with_suffix(".npz"), lambda part: np.savez_compressed(part, **arrays)
        )
    if outcome.weights:
        files["safetensors"] = write_whole(
            path.with_suffix(".safetensors"), lambda part: save_file(dict(outcome.weights), part)
        )
    try:
        text = sealed(
            {
                "experiment": settings.experiment,
                "settings": settings.written(),
                "results": _plain(outcome.results, "results"),
                "canary": canary,
                "provenance": made | settings.remarks(),
                "sha256": files,
            }
        )
    except (TypeError, ValueError) as error:
        raise RunError(f"{settings.describe()} gave what no JSON file holds: {error}") from error
    write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))


def _plain(value: Any, name: str) -> Any:
    """A result as JSON holds it; `name` says in an error which it is."""
    if isinstance(value, Mapping):
        return {key: _plain(one, f"{name}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, f"{name}[{place}]") for place, one in enumerate(value)]
    if getattr(value, "ndim", None) == 0:  # a number of NumPy or of torch
        value = value.item()
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} is {value!r} ({error})") from None
    return value


def publish(settings: Settings, *, weights: bool) -> Run:
    """Copy a run from the user's cache to the published ones, with or without its weights.

    Raises:
        RunError: the run is not in the cache, or was altered there.
    """
    source, target = _path(cache_dir(), settings), _path(PUBLISHED, settings)
    if not source.exists():
        raise RunError(f"{settings.describe()} is not in {cache_dir()}; compute it first")
    kept = {k: v for k, v in read(source).files.items() if weights or k != "safetensors"}
    content = unsealed(source) | {"sha256": kept}
    target.parent.mkdir(parents=True, exist_ok=True)
    with acquire(cache_dir() / "publish.lock", "publishes")[0]:
        remove_parts(target)
        for suffix in kept:
            write_whole(
                target.with_suffix(f".{suffix}"),
                partial(shutil.copyfile, source.with_suffix(f".{suffix}")),
            )
        write_whole(target, partial(Path.write_text, data=sealed(content), encoding="utf-8"))
        for suffix in {"npz", "safetensors"} - kept.keys():  # of an earlier publication
            target.with_suffix(f".{suffix}").unlink(missing_ok=True)
    return read(target)


def read(path: str | Path) -> Run:
    """Read a stored run.

    Raises:
        RunError: the file is damaged or was altered, a file beside it is missing or was altered,
            or its settings are not of this version.
        NotInstalledError: no installed package has its experiment.
    """
    path = Path(path)
    try:
        content = unsealed(path)
        try:
            kind = Settings.named(content["experiment"])
        except ValueError as error:
            raise NotInstalledError(f"{path} is of another package: {error}") from error
        settings = kind(**content["settings"])
        results, made, canary = (content[k] for k in ("results", "provenance", "canary"))
        stored = Run(settings, results, made, canary, path, content["sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} is not a readable run ({type(error).__name__}: {error})") from error
    if settings.key != path.stem:
        raise RunError(f"{path} holds the settings of {settings.key}; it was renamed")
    for suffix, digest in stored.files.items():
        beside = path.with_suffix(f".{suffix}")
        if not beside.exists() or sha256(beside) != digest:
            raise RunError(f"{beside} is missing or altered")
    return stored


def published_seeds(settings: Settings, seeds: Iterable[int] = range(10)) -> list[Run]:
    """The run with these settings, computed if need be, then the published ones of other seeds.

    What only this machine has in its cache is left out, so that the list is the same everywhere.
    """
    asked = run(settings)
    others = (settings.reseeded(seed) for seed in seeds)
    found = (find(other) for other in others if other != settings)
    return [asked, *(other for other in found if other and other.published)]


def stored_files(root: str | Path | None = None) -> Iterator[Path]:
    """The files of `stored_runs`, readable or not."""
    if root and not Path(root).is_dir():
        raise RunError(f"there is no folder {root}")
    for folder in [Path(root)] if root else [PUBLISHED, cache_dir()]:
        yield from sorted(folder.glob("*/[!.]*.json"))


def stored_runs(root: str | Path | None = None) -> Iterator[Run]:
    """All readable runs below `root`; default all that are published, then all cached ones.

    Raises:
        RunError: there is no such folder.
    """
    foreign: list[str] = []
    for path in stored_files(root):
        try:
            yield read(path)
        except NotInstalledError:
            foreign.append(path.parent.name)
        except RunError as error:
            logger.warning("%s", error)
    if foreign:
        names = ", ".join(sorted({*foreign}))
        logger.warning(
            "%d runs of experiments that are not installed (%s): see \"Your own experiment\"",
            len(foreign), names,
        )  # fmt: skip


def _path(root: Path, settings: Settings) -> Path:
    if not isinstance(settings, Settings):
        raise TypeError(f"{settings!r} is not settings of a run, such as `TrainVAE(beta=4)`")
    return root / settings.experiment / f"{settings.key}.json"
