"""Runs: results that are found by their settings, or computed and kept. Knows no torch.

Example:
    What ships is found by its settings, and nothing is computed.

    >>> from hw3lib import TrainVAE, runs
    >>> ours = runs.run(TrainVAE())
    >>> runs.run(ours.settings).key == runs.find(ours.settings).key == ours.key
    True
    >>> [copy.published for copy in runs.copies(ours.settings)][0]
    True
    >>> ours.path in runs.stored_files(runs.PUBLISHED), ours in runs.stored_runs(runs.PUBLISHED)
    (True, True)
    >>> runs.read(ours.path) == ours
    True
    >>> runs.source(ours).startswith(f"Run {ours.key[:8]}")
    True
    >>> runs.checkpoint_path(ours.settings, ours.canary).is_relative_to(runs.cache_dir())
    True
    >>> [one.settings.seed for one in runs.published_seeds(TrainVAE())][:3]
    [0, 1, 2]
    >>> runs.compute(TrainVAE(dataset="digits", epochs=0, num_filters=4)).published
    False
    >>> runs.publish(TrainVAE(seed=987), weights=False)
    Traceback (most recent call last):
        ...
    hw3lib.runs.settings.RunError: vae_training(seed=987) is not in ...; compute it first
    >>> runs.Context().device, runs.Outcome({"mean": 0.5}).arrays
    (None, {})
    >>> issubclass(runs.RunError, RuntimeError), issubclass(runs.OutOfTime, RuntimeError)
    (True, False)
    >>> runs.expected_seconds(ours.settings, [ours], ours.provenance["device"]) is not None
    True
"""

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
