"""The figures of the course report that the book sets out to regenerate, from one file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from hw3lib.experiments.part2.attacked import intervals
from hw3lib.experiments.part2.base import AnyAttack
from hw3lib.files import unsealed
from hw3lib.runs.store import PUBLISHED, Run
from hw3lib.stats import Interval, difference, proportion

REPORT_ATTACKS = {"clean": "clean", "fgsm": "FGSM", "pgd": "PGD"}
"""Its columns, and what they are called in `attacked.SUITE`."""

SHORT_NAMES = {
    "pretrained": "pretrained",
    "scratch": "from scratch",
    "augmented": "augmented",
    "fgsm_defense": "FGSM defence",
    "fgsm_short": "FGSM defence, short",
    "pgd_defense": "PGD defence",
    "best_val": "best validation",
    "epoch3_bpd": "epoch 3",
    "train_bpd": "training",
    "val_bpd": "validation",
    "test_bpd": "test",
}
"""Parts of the names of the report's numbers as tables show them."""


def label(key: str) -> str:
    """A short name of a number, such as "FGSM defence, best validation"."""
    question, *parts = key.split(".")
    row, column = ("VAE", parts[-1]) if question == "q1" else parts
    names = SHORT_NAMES | REPORT_ATTACKS
    return f"{names.get(row, row)}, {names[column]}"


def value(key: str) -> float:
    """A number of the report or of the public anchors, such as `value("q1.8.test_bpd")`.

    Raises:
        KeyError: the report has no number of that name; the message lists those it has.
    """
    numbers = _numbers()
    if key not in numbers:
        raise KeyError(f"the report has no {key!r}; it has {', '.join(sorted(numbers))}")
    return float(numbers[key]["value"])


def printed(key: str) -> str:
    """A number with the digits that the report prints: "93%", "40.16%", "0.56"."""
    number = _numbers()[key]
    digits = round(-math.log10(number["unit"]))
    return f"{value(key):.{digits - 2}%}" if key.startswith("q2") else f"{value(key):.{digits}f}"


def interval(key: str) -> Interval:
    """A number of the report with what it may stand for, and the error of the images it counts.

    The ends are those of the printed digits, and of Wilson's 95% intervals at these. Accuracies in
    whole per cent were cut off, not rounded, by the course's code; its validation accuracies are
    divided by more images than there are (`divided_by`), which is put right here.
    """
    number = _numbers()[key]
    printed, unit = number["value"], number["unit"]
    below, above = (0.0, unit) if number.get("cut_off") else (unit / 2, unit / 2)
    low, high = printed - below, printed + above
    if "images" not in number:
        return Interval(printed, low, high, 1)
    images, divisor = number["images"], number.get("divided_by", number["images"])
    fewest, most = math.ceil(round(low * divisor, 6)), math.ceil(round(high * divisor, 6)) - 1
    ends = proportion(fewest, images).low, proportion(most, images).high
    return Interval(round(printed * divisor) / images, *ends, images)


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
        for attack, key in _accuracies(network).items()
    }


def beside_ours(
    network: str, run: Run, attacks: Mapping[str, AnyAttack]
) -> dict[str, dict[str, str]]:
    """The report's accuracies of a network beside ours, by `label`.

    Args:
        network: as the names of the report's numbers have it, such as "fgsm_defense".
        run: of `UnderAttack`.
        attacks: the run's, by the names of `attacked.SUITE`.

    Returns:
        What the report prints, ours on the course's images and on all test images, and whether
        the interval of the difference, over images and printed digits, contains zero.
    """
    rows, found = {}, intervals(run, attacks)
    for attack, key in _accuracies(network).items():
        ours = found[attack]["course"]
        rows[label(key)] = {
            "report": printed(key),
            "ours": f"{ours.value:.1%}",
            "all images": f"{found[attack]['honest']:.1%}",
            "agrees": "yes" if 0 in difference(ours, interval(key)) else "no",
        }
    return rows


def _accuracies(network: str) -> dict[str, str]:
    """By attack, the names of the report's accuracies of a network, as far as it has them."""
    keys = {attack: f"q2.{network}.{column}" for column, attack in REPORT_ATTACKS.items()}
    return {attack: key for attack, key in keys.items() if key in evidence()}


@lru_cache(maxsize=1)
def _numbers() -> dict[str, Any]:
    """The numbers; raises ValueError if the file is damaged or was altered."""
    path = PUBLISHED / "report.json"
    try:
        return unsealed(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
