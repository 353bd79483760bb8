"""Many runs: those that others are made from come first, and several are computed at a time."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from functools import partial
from graphlib import TopologicalSorter
from typing import Any

from hw3lib.runs.settings import OutOfTime, Settings, within
from hw3lib.runs.store import Run, compute

logger = logging.getLogger("hw3lib")


def needed(settings: Settings) -> set[Settings]:
    """The runs that a run is made from: settings within its settings, at any depth."""
    return {one for part in within(settings) for one in (part, *needed(part))}


def compute_all(
    wanted: Sequence[Settings],
    *,
    jobs: int = 1,
    device: str | None = None,
    deadline: float | None = None,
) -> Iterator[Run]:
    """Compute runs and yield each as soon as it is stored in the user's cache.

    A small network keeps neither a GPU nor several cores busy, so several processes at a time are
    faster than one. No run is started before those that it is made from are done.

    Args:
        wanted: those that others need before them.
        jobs: processes; 1 computes in this one. They share the cores.
        device: torch's name of the device; None picks one.
        deadline: `time.monotonic()` by which to stop.

    Raises:
        OutOfTime: the deadline came first; what could be finished was yielded.
        ValueError: `jobs` is below 1.
        Exception: what the first run to fail raised. It comes last, after all runs that are not
            made from one that failed.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: need at least one process")
    task = partial(_compute, device=device, deadline=deadline)
    if jobs == 1:
        yield from _side_by_side(_Here(), jobs, wanted, task)
        return
    context = multiprocessing.get_context("spawn")  # a fork would share the GPU's state
    with _shared_cores(jobs), ProcessPoolExecutor(jobs, context, initializer=_follow) as pool:
        try:
            yield from _side_by_side(pool, jobs, wanted, task)
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def expected_seconds(settings: Settings, stored: Iterable[Run], device: str) -> float | None:
    """Seconds of the stored run that differs in the fewest settings, in proportion to the epochs.

    Settings within settings count one by one, so an attack makes more difference than a rate.
    None if a device of this name, as their provenance has it, has computed nothing of the kind.
    """

    def lines(one: Settings) -> set[str]:
        told = one.model_dump(mode="json", exclude={"seed", "epochs"})
        return set(json.dumps(told, indent=1).splitlines())

    def differing(other: Run) -> int:
        return len(lines(settings) ^ lines(other.settings))

    alike = [
        one
        for one in stored
        if one.settings.experiment == settings.experiment and one.provenance["device"] == device
    ]
    if not alike:
        return None
    nearest = min(alike, key=differing)
    ours, theirs = (getattr(s, "epochs", 1) for s in (settings, nearest.settings))
    return float(nearest.provenance["seconds"]) * max(ours, 1) / max(theirs, 1)


class _Here(Executor):
    """Computes at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(function(*args, **options))
        except Exception as error:
            done.set_exception(error)
        return done


def _side_by_side(
    pool: Executor,
    jobs: int,
    wanted: Sequence[Settings],
    compute: Callable[[Settings], Run],
) -> Iterator[Run]:
    """Runs as they finish, `jobs` at a time; a failed one keeps back those that need it."""
    order = TopologicalSorter({one: needed(one) & {*wanted} for one in wanted})
    order.prepare()
    ready: list[Settings] = []
    running: dict[Future[Run], Settings] = {}
    failed: list[Exception] = []
    late: OutOfTime | None = None
    while True:
        ready = sorted([*ready, *order.get_ready()], key=wanted.index)
        for settings in [] if late else list(ready):
            in_use = {one.checkpoint_key for one in running.values()}
            if len(running) < jobs and settings.checkpoint_key not in in_use:
                ready.remove(settings)
                running[pool.submit(compute, settings)] = settings
        if not running:
            break
        for task in wait(running, return_when=FIRST_COMPLETED).done:
            settings = running.pop(task)
            try:
                stored = task.result()
            except OutOfTime as error:
                late = error
            except Exception as error:
                logger.exception("%s failed", settings.describe())
                failed.append(error)
            else:
                order.done(settings)
                yield stored
    if failed:
        raise failed[0]
    if late:
        raise late


def _compute(settings: Settings, device: str | None, deadline: float | None) -> Run:
    if deadline is not None and time.monotonic() > deadline:
        raise OutOfTime("the time budget is used up")
    return compute(settings, device=device, deadline=deadline)


class _Stopped(KeyboardInterrupt, SystemExit):
    """Ends a process of the pool: a training keeps what is done, an idle one leaves quietly."""


def _follow() -> None:
    """A process of the pool stops when its parent says so, and never outlives it.

    Ctrl-C reaches all processes of a terminal; that it is left to the parent saves them from being
    interrupted twice, the second time while they store what is done.
    """

    def stop(*_: object) -> None:
        raise _Stopped

    def leave() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=leave, daemon=True).start()


@contextlib.contextmanager
def _shared_cores(jobs: int) -> Iterator[None]:
    """Processes that are started in the block take their share of the cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
