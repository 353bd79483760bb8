"""Many runs: those that others are made from come first, and several are computed at a time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

import torch

from hw3lib import runs
from hw3lib.runs import Run, Settings
from hw3lib.training import OutOfTime

logger = logging.getLogger("hw3lib")


def needed(settings: Settings) -> set[Settings]:
    """The runs that a run is made from: settings within its settings, at any depth."""
    found: set[Settings] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Settings):
                found |= {part} | needed(part)
    return found


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
        Exception: what the first run to fail raised. With several processes it comes last, after
            all runs that are not made from one that failed.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: need at least one process")
    if jobs == 1:
        for settings in wanted:
            yield _compute(settings, device, deadline)
        return
    left, running = list(wanted), dict[Future[Run], Settings]()
    late: OutOfTime | None = None
    failed: list[Exception] = []
    context = multiprocessing.get_context("spawn")  # a fork would share the GPU's state
    with ProcessPoolExecutor(jobs, context, initializer=_share_cores, initargs=(jobs,)) as pool:
        while (left and not late) or running:
            unfinished = {*left, *running.values()}
            for settings in [] if late else list(left):
                lines = {one.line for one in running.values()}  # two would share a checkpoint
                if len(running) == jobs:
                    break
                if needed(settings) & unfinished or settings.line in lines:
                    continue
                left.remove(settings)
                task = pool.submit(_compute, settings, device, deadline)
                running[task] = settings
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for task in finished:
                settings = running.pop(task)
                try:
                    yield task.result()
                except OutOfTime as error:
                    late = error
                except Exception as error:
                    logger.exception("%s failed", settings.describe())
                    failed.append(error)
                    left = [other for other in left if settings not in needed(other)]
    if failed:
        raise failed[0]
    if late:
        raise late


def _compute(settings: Settings, device: str | None, deadline: float | None) -> Run:
    if deadline is not None and time.monotonic() > deadline:
        raise OutOfTime("the time budget is used up")
    return runs.compute(settings, device=device, deadline=deadline)


def _share_cores(jobs: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
