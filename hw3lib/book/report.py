"""The figures of the course report that the book sets out to regenerate, from one file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from hw3lib.runs.store import PUBLISHED

REPORT_NAMES = {
    "pretrained": "ResNet-18, pretrained",
    "scratch": "ResNet-18 from scratch",
    "augmented": "ResNet-18 from scratch, augmented",
    "fgsm_defense": "FGSM defence",
    "pgd_defense": "PGD defence",
}
"""Rows of the report's table, as its numbers are called in this module."""

REPORT_ATTACKS = {"clean": "clean", "fgsm": "FGSM", "pgd": "PGD"}
"""Its columns, and what they are called in `attacked.SUITE`."""


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


def reported(networks: Iterable[str]) -> dict[tuple[str, str], float]:
    """The report's accuracies of these networks, by network and attack, as far as it has them."""
    return {
        (network, attack): value(key)
        for network in networks
        for column, attack in REPORT_ATTACKS.items()
        if (key := f"q2.{network}.{column}") in evidence()
    }


@lru_cache(maxsize=1)
def _numbers() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PUBLISHED / "report.json").read_text())
    return content
