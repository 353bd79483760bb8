"""Two ways to do the same work, timed in turn on the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What one way gave, and how long it took in each round.

    Attributes:
        seconds: one a round.
        value: what it computed, an accuracy or a loss, the mean over the rounds.
    """

    seconds: tuple[float, ...]
    value: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: the work.
        size: how much of it one round did.
        rival: what hw3lib is compared with.
        ours, theirs: both outcomes.
        within: by how much the values may differ.
        target: the ratio to reach.
    """

    name: str
    size: str
    rival: str
    ours: Outcome
    theirs: Outcome
    within: float
    target: float

    @property
    def ratios(self) -> list[float]:
        """How many times as fast hw3lib was, round by round."""
        pairs = zip(self.theirs.seconds, self.ours.seconds, strict=True)
        return [theirs / ours for theirs, ours in pairs]

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    @property
    def difference(self) -> float:
        """Of the values, ours less theirs."""
        return self.ours.value - self.theirs.value

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= self.within * (1 + 1e-9)  # one image of 48 may be just that

    @property
    def wins(self) -> bool:
        """Whether the values agree and the ratio is reached."""
        return self.agrees and self.ratio >= self.target


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternate(
    ours: Callable[[int], float], theirs: Callable[[int], float], rounds: int
) -> tuple[Outcome, Outcome]:
    """Time both in turn; who begins changes from round to round, so that a drift cancels.

    Args:
        ours, theirs: do the work of a round, given its number, and return what it computed.
        rounds: how often each does.
    """
    ways = {"ours": ours, "theirs": theirs}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    values: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds):
        for name in sorted(ways, reverse=bool(i % 2)):
            started = time.perf_counter()
            values[name].append(ways[name](i))
            spent[name].append(time.perf_counter() - started)
    first, second = (Outcome(tuple(spent[n]), statistics.mean(values[n])) for n in ways)
    return first, second
