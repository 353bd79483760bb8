"""Runs: results that are found by their settings, or computed and kept. Knows no torch."""

from hw3lib.runs.provenance import source
from hw3lib.runs.schedule import expected_seconds
from hw3lib.runs.settings import Context, Outcome, OutOfTime, RunError, Settings
from hw3lib.runs.store import (
    PUBLISHED,
    Run,
    cache_dir,
    checkpoint_path,
    compute,
    copies,
    find,
    publish,
    published_seeds,
    read,
    run,
    stored_files,
    stored_runs,
)

__all__ = [
    "PUBLISHED",
    "Context",
    "OutOfTime",
    "Outcome",
    "Run",
    "RunError",
    "Settings",
    "cache_dir",
    "checkpoint_path",
    "compute",
    "copies",
    "expected_seconds",
    "find",
    "publish",
    "published_seeds",
    "read",
    "run",
    "source",
    "stored_files",
    "stored_runs",
]
