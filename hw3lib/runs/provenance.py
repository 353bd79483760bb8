"""What made a result: versions, commit, device, time; and the line that says so under a figure."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hw3lib
from hw3lib.runs.settings import Outcome

if TYPE_CHECKING:
    from hw3lib.runs.store import Run


def provenance(outcome: Outcome, seconds: float, commit: str) -> dict[str, Any]:
    """What is stored with a result about its making."""
    return {
        "version": hw3lib.__version__,
        "commit": commit,
        "data": outcome.data,
        "device": outcome.device,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "seconds": round(seconds, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit of the checkout that this package runs from, "-dirty" if it was changed.

    To be asked before a long computation: at its end the checkout may have moved on.
    """
    here = Path(hw3lib.__file__).parents[1]
    if not (here / ".git").exists():  # installed; what lies around it is somebody else's
        return "released"
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "released"
    return answer.stdout.strip()


def source(*used: Run) -> str:
    """One line for the foot of a figure or table: which runs, seeds, devices and versions.

    Without runs it says that the numbers were computed where they are shown.
    """
    if not used:
        return f"Computed on this page · hw3lib {hw3lib.__version__}"
    keys = list(dict.fromkeys(run.key[:8] for run in used))
    seeds = {run.settings.seed for run in used if hasattr(run.settings, "seed")}
    devices = {run.provenance["device"] for run in used}
    versions = {run.provenance["version"] for run in used}
    looks = {run.provenance["look"] for run in used if "look" in run.provenance}
    parts = [
        f"Run{'s' * (len(keys) > 1)} {', '.join(keys)}",
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))}" if seeds else "",
        "; ".join(sorted(devices)).replace(", 1 threads", ", 1 thread"),
        f"hw3lib {', '.join(sorted(versions))}",
        f"{'Of some of them: ' * (len(keys) > 1)}{'; '.join(sorted(looks))}" if looks else "",
    ]
    return " · ".join(part for part in parts if part)
