"""What the ledger of claims can name: the published runs, and functions of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from hw3lib import runs, stats
from hw3lib.book import claims, report
from hw3lib.book.claims import Claim, Judgement, Measurement
from hw3lib.experiments.catalog import Named, named
from hw3lib.experiments.part1 import manifold, strokes
from hw3lib.experiments.part1.beta_sweep import excess_alignment
from hw3lib.experiments.part1.kl_estimates import kl_errors, mixture_saving, quadrature_errors
from hw3lib.experiments.part1.sample_quality import blocks_of, early_excess, images_of
from hw3lib.experiments.part2.attacked import SUITE, outcomes
from hw3lib.experiments.part2.evaluation import RadiusCurves
from hw3lib.runs.store import Run
from hw3lib.stats import Interval
from hw3lib.vae.bounds import bits_per_dim

SEEDS = range(10)
"""Seeds whose runs are looked for."""


def ledger(path: str | Path, seeds: Iterable[int] = SEEDS) -> list[Judgement]:
    """All claims of a file, judged on the published runs.

    Raises:
        ValueError: a claim names something unknown, or its runs for seed 0 are not published.
    """
    return [judge(claim, seeds) for claim in claims.load(path)]


def judge(claim: Claim, seeds: Iterable[int] = SEEDS) -> Judgement:
    """Judge a claim on every seed whose runs are all published; raises as `usable` does."""
    return Judgement(claim, measure(claim.evidence, seeds))


def measure(expression: str, seeds: Iterable[int] = SEEDS) -> Measurement:
    """What an expression is on every seed whose runs are all published.

    Raises:
        ValueError: it names something unknown, or its runs for seed 0 are not published.
    """
    lookups = [partial(lookup, seed=seed) for seed in usable(expression, seeds)]
    return claims.measure(expression, lookups)


@dataclass(frozen=True)
class Comparison:
    """A number of the report beside ours.

    Attributes:
        name: of the number in `hw3lib.book.report`.
        measured: what our runs give, see `claims.measure`; None if they are not published.
        used: the runs of all seeds.
    """

    name: str
    measured: Measurement | None = None
    used: tuple[Run, ...] = ()

    @property
    def ours(self) -> Interval | None:
        """Our number with its interval."""
        return self.measured.quantity if self.measured else None

    @property
    def seeds(self) -> int:
        """Trainings that it rests on."""
        return self.measured.seeds if self.measured else 0

    @property
    def difference(self) -> Interval | None:
        """Ours less the report's, with an interval that holds the errors of both.

        The report's number has the error of the images that it counts and of the digits that it
        prints (`report.interval`), and rests on one training: where we have several, theirs is
        taken to scatter as ours do. None where ours has no interval.
        """
        if self.measured is None or not self.measured.quantity.known:
            return None
        theirs, scatter = report.interval(self.name), 0.0
        if self.seeds > 1:  # Student's t times the spread: how far one training may be off
            mean = stats.mean_interval(self.measured.trainings)
            scatter = (mean.high - mean.value) * self.seeds**0.5
        low = theirs.value - float(np.hypot(theirs.value - theirs.low, scatter))
        high = theirs.value + float(np.hypot(theirs.high - theirs.value, scatter))
        return stats.difference(self.measured.quantity, Interval(theirs.value, low, high, theirs.n))

    @property
    def outside(self) -> bool | None:
        """Whether the two differ by more than these errors; None if there is no interval."""
        return None if self.difference is None else 0 not in self.difference


def comparisons(seeds: Iterable[int] = SEEDS) -> list[Comparison]:
    """Every number of the report that our runs can be compared with."""
    found = []
    for name, expression in report.evidence().items():
        if available := usable(expression, seeds):
            measured = measure(expression, available)
            asked = claims.free_names(expression) - FUNCTIONS.keys()
            used = [lookup(run, seed) for seed in available for run in sorted(asked)]
            found.append(Comparison(name, measured, tuple(used)))
        else:
            found.append(Comparison(name))
    return found


def usable(expression: str, seeds: Iterable[int] = SEEDS) -> list[int]:
    """The seeds for which every run that an expression names is published.

    Runs that do not depend on the seed are the same for all; they count once.

    Raises:
        ValueError: it names something unknown.
    """
    asked = claims.free_names(expression) - FUNCTIONS.keys()
    if unknown := asked - named(0).keys():
        raise ValueError(f"{expression!r} names {', '.join(sorted(unknown))}: no run or function")
    distinct: dict[tuple[str, ...], int] = {}
    for seed in seeds:
        runs_of_seed = [named(seed)[name] for name in sorted(asked)]
        if all(_stored(one) for one in runs_of_seed):
            distinct.setdefault(tuple(map(_key, runs_of_seed)), seed)
    return list(distinct.values())


def lookup(name: str, seed: int) -> Any:
    """A function by its name, or the run of that name for a seed, or the tuple of them."""
    return FUNCTIONS[name] if name in FUNCTIONS else _stored(named(seed)[name])


def _key(asked: Named) -> str:
    return "/".join(one.key for one in asked) if isinstance(asked, tuple) else asked.key


def _stored(asked: Named) -> Run | tuple[Run, ...] | None:
    """The published run or runs, or None if one is missing."""
    if not isinstance(asked, tuple):
        return _published(asked)
    found = [_published(one) for one in asked]
    return tuple(run for run in found if run) if all(found) else None


@lru_cache(maxsize=1024)
def _published(settings: runs.Settings) -> Run | None:
    stored = runs.find(settings)
    return stored if stored and stored.published else None


def history(run: Run, column: str) -> NDArray[np.float64]:
    """A column of a training's history, from epoch 0, before training, to the last."""
    rows = run.results["history"]
    return np.array([row.get(column, np.nan) for row in rows], dtype=np.float64)


def train_bpd(run: Run) -> NDArray[np.float64]:
    """Bits per dimension on the training images in each epoch; none before the first."""
    return bits_per_dim(history(run, "train_nll") + history(run, "train_kl"))


def withstands(
    attacked: Run, attack: str, images: Literal["all", "course"] = "all"
) -> NDArray[np.float64]:
    """For each test image 1 if it is classified rightly before and after an attack, else 0.

    Args:
        attacked: a run of `UnderAttack`.
        attack: "clean", or an attack of `attacked.SUITE`.
        images: all test images, or the quarter that the course tests on.
    """
    asked = {} if attack == "clean" else {attack: SUITE[attack]}
    right = outcomes(attacked, asked)[attack].astype(np.float64)
    return right if images == "all" else right[attacked.arrays["in_course"]]


def with_habits(deviations: Run, *habits: str) -> NDArray[np.float64]:
    """The same for an attack written with these habits, see `deviations.Habits`."""
    row = deviations.results["combinations"].index(list(habits))
    left: NDArray[np.bool_] = deviations.arrays["right"][row]
    return left.astype(np.float64)


def less_report(share: NDArray[np.float64], name: str) -> Interval:
    """A share of images less a number of the report, with the error of both.

    Args:
        share: for each image 1 or 0.
        name: of the number in `hw3lib.book.report`.
    """
    ours = stats.proportion(int(share.sum()), share.size)
    return stats.difference(ours, report.interval(name))


def ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> Interval:
    """The mean of one quantity of the images over that of another, with its bootstrap interval."""
    return stats.bootstrap_interval(
        np.stack([above, below], axis=1), lambda pairs: np.divide(*pairs.mean(0))
    )


def at_radius(curves: Run, attack: str, radius: float) -> NDArray[np.float64]:
    """For each test image 1 if it is still classified rightly at a radius, in steps of 1/255."""
    row = curves.results["attacks"].index(attack)
    column = cast(RadiusCurves, curves.settings).eps_values.index(radius / 255)
    left: NDArray[np.bool_] = curves.arrays["right"][row, column]
    return left.astype(np.float64)


def best_validation_accuracy(training: Run) -> Interval:
    """The highest accuracy on clean validation images after any epoch, of all images (Wilson)."""
    results = training.results
    images = results["test_accuracy"]["n"] - results["course_accuracy"]["n"]
    return stats.proportion(round(images * (1 - history(training, "val_error")[1:].min())), images)


def scores_of(sweep: Sequence[Run], name: str) -> NDArray[np.float64]:
    """A test score ("nll", "kl" or "bpd") of each run."""
    return np.array([run.results["test"][name] for run in sweep])


def class_codes(plane: Run, *classes: int) -> NDArray[np.float64]:
    """Posterior means (N, D) of the stored test images of these classes."""
    codes: NDArray[np.float64] = plane.arrays["test_mean"].astype(np.float64)
    return codes[np.isin(plane.arrays["test_labels"], classes)]


def order_correlation(plane: Run, ranks: Mapping[int, int]) -> float:
    """Of `manifold.best_order` for the centres of the classes; `ranks` gives each its place."""
    centres = [class_codes(plane, k).mean(0) for k in ranks]
    return manifold.best_order(centres, list(ranks.values())).correlation


def style_share(plane_map: Run, measure: str) -> float:
    """Of `manifold.style_share`, for a measure of `strokes` such as "slant"."""
    tiles = plane_map.arrays["tiles"] / 17
    return manifold.style_share(tiles, plane_map.arrays["classes"], getattr(strokes, measure))


FUNCTIONS: dict[str, Callable[..., Any] | Any] = {
    function.__name__: function
    for function in (
        at_radius, best_validation_accuracy, blocks_of, class_codes, early_excess,
        excess_alignment, history, images_of, kl_errors, less_report, mixture_saving,
        order_correlation, quadrature_errors, ratio, scores_of, style_share, train_bpd, with_habits,
        withstands,
    )
} | {
    "np": np,
    "slope": stats.slope,
    "manifold": manifold,
    "strokes": strokes,
    "report": report.value,
    "bpd": bits_per_dim,
    "len": len,
}  # fmt: skip
"""What an expression can call."""
