"""The figures of the course report that the book sets out to regenerate, from one file."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from hw3lib.runs.store import PUBLISHED


def value(key: str) -> float:
    """A number of the report or of the public anchors, such as `value("q1.8.test_bpd")`.

    Raises:
        KeyError: the report has no number of that name; the message lists those it has.
    """
    numbers = _numbers()
    if key not in numbers:
        raise KeyError(f"the report has no {key!r}; it has {', '.join(sorted(numbers))}")
    return float(numbers[key]["value"])


def meaning(key: str) -> str:
    """What that number is, in words."""
    return str(_numbers()[key]["meaning"])


def evidence() -> dict[str, str]:
    """How our own runs measure the same: for each number, an expression as in the ledger of claims.

    Numbers that are not the report's have none.
    """
    return {k: number["evidence"] for k, number in _numbers().items() if "evidence" in number}


@lru_cache(maxsize=1)
def _numbers() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PUBLISHED / "report.json").read_text())
    return content
