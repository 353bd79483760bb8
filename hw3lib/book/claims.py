"""The ledger: what the report and this book claim, the evidence in stored runs, and the verdict.

A claim says that a quantity lies between two ends. The quantity is an expression over stored runs;
the ends are written down with it. Nobody writes a verdict: `decide` computes it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hw3lib.stats import Interval, mean_interval, two_way_interval

Word = Literal["holds", "fails", "undecided"]

Names = Callable[[str], Any]
"""Looks up what a name in an expression stands for."""

SYNTAX = (
    ast.Expression, ast.expr_context, ast.Name, ast.Constant, ast.Attribute, ast.Call, ast.keyword,
    ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Dict, ast.ListComp, ast.comprehension,
    ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
"""What an expression over runs is made of."""

OF_RUNS = {"arrays", "results", "settings", "value"}
OF_ARRAYS = {
    "abs", "astype", "delete", "diff", "exp", "float64", "linalg", "log", "log10", "log2", "max",
    "mean", "median", "min", "nan_to_num", "norm", "ravel", "square", "unique", "var",
}  # fmt: skip
OF_MODULES = {
    "background", "equal_neighbours", "equal_neighbours_at_random", "neighbour_distances",
    "num_regions", "random_pair_distances",
}  # fmt: skip
ATTRIBUTES = OF_RUNS | OF_ARRAYS | OF_MODULES
"""What an expression may ask of an object. None of these reads or writes a file.

Of `settings` it may read each field, and call nothing.
"""


class Claim(BaseModel):
    """A statement that can turn out to be wrong.

    Attributes:
        question: of the homework, such as "1.8".
        source: who says it, the "report" or this "book".
        claim: the statement, one sentence.
        figure: label "fig-..." of the figure that shows the evidence, or the name of the page whose
            text or table does; None if no page does.
        evidence: Python expression over the names of stored runs, see `parse`. It is a number, an
            array of independent values (one an image, or a block of images), or an `Interval`.
        above, below: the ends between which the quantity has to lie; one may be missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Annotated[str, Field(pattern=r"^[12]\.\d+$")]
    source: Literal["report", "book"]
    claim: Annotated[str, Field(min_length=1)]
    figure: Annotated[str | None, Field(min_length=1)] = None
    evidence: str
    above: float | None = None
    below: float | None = None

    @field_validator("evidence")
    @classmethod
    def _is_expression(cls, text: str, info: ValidationInfo) -> str:
        try:
            parse(text)
        except ValueError as error:
            raise ValueError(f"claim {info.data.get('claim')!r}: {error}") from error
        return text

    @model_validator(mode="after")
    def _has_ends(self) -> Self:
        low, high = self.ends
        if not low < high or (np.isinf(low) and np.isinf(high)):
            raise ValueError(f"above={self.above}, below={self.below}: no quantity can decide this")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends, infinite where there is none."""
        low = -np.inf if self.above is None else self.above
        return low, np.inf if self.below is None else self.below

    @property
    def rule(self) -> str:
        """The ends in words."""
        if self.above is None:
            return f"below {self.below:g}"
        if self.below is None:
            return f"above {self.above:g}"
        return f"between {self.above:g} and {self.below:g}"


@dataclass(frozen=True)
class Measurement:
    """A quantity as our runs give it.

    Attributes:
        quantity: with a 95% interval, see `measure`; a single number has none.
        trainings: its value for each seed of the trainings.
    """

    quantity: Interval
    trainings: tuple[float, ...]

    @property
    def seeds(self) -> int:
        """Trainings that it rests on."""
        return len(self.trainings)


@dataclass(frozen=True)
class Judgement:
    """A claim with what was measured, and the verdict."""

    claim: Claim
    measured: Measurement

    @property
    def verdict(self) -> Word:
        """Whether the interval lies between the ends, outside them, or on one of them."""
        return decide(self.measured.quantity, *self.claim.ends)


def load(path: str | Path) -> list[Claim]:
    """The claims of a YAML file.

    Raises:
        ValueError: an entry lacks its evidence or its ends, or has a field of its own, such as a
            verdict.
        OSError: there is no such file.
    """
    return TypeAdapter(list[Claim]).validate_python(yaml.safe_load(Path(path).read_text("utf-8")))


def decide(quantity: Interval, low: float, high: float) -> Word:
    """Verdict on "the quantity lies between low and high".

    With an interval: it holds if all of the interval does, fails if none of it does. A quantity
    without one is taken as exact.
    """
    exact = (quantity.value, quantity.value)
    bottom, top = (quantity.low, quantity.high) if quantity.known else exact
    if low < bottom and top < high:
        return "holds"
    return "fails" if top <= low or bottom >= high else "undecided"


def measure(evidence: str, seeds: Sequence[Names]) -> Measurement:
    """A quantity with its interval, and its value for each seed.

    The interval is over images or blocks of them where there is one seed, and over both where
    several seeds are scored on the same ones (`stats.two_way_interval`). Where each seed gives an
    interval of its own, the error that it holds is added in square to Student's t over the seeds.

    Args:
        evidence: an expression, as in `Claim`.
        seeds: for each seed of the trainings, what the names in the evidence stand for.

    Raises:
        ValueError: there is no seed, or the evidence is not a finite quantity.
    """
    found = [evaluate(evidence, names) for names in seeds]
    if not found:
        raise ValueError(f"no evidence for {evidence!r}: its runs are not stored")
    centres = tuple(_centre(value) for value in found)
    if not np.isfinite(centres).all():
        raise ValueError(f"the evidence {evidence!r} is {centres}")
    intervals = [value for value in found if isinstance(value, Interval)]
    if intervals:
        return Measurement(_shared_error(intervals), centres)
    tables = [np.asarray(value, dtype=np.float64) for value in found]
    if tables[0].ndim and len({table.shape for table in tables}) == 1:
        table = np.stack(tables)
        return Measurement(two_way_interval(_as_mask(table)), centres)
    return Measurement(mean_interval(centres), centres)


def _shared_error(each: Sequence[Interval]) -> Interval:
    """The mean of one interval a seed, whose error the seeds share: that of the same images."""
    if len(each) == 1:
        return each[0]
    seeds = mean_interval([one.value for one in each])
    low = np.mean([one.value - one.low for one in each])
    high = np.mean([one.high - one.value for one in each])
    below = float(np.hypot(seeds.value - seeds.low, low))
    above = float(np.hypot(seeds.high - seeds.value, high))
    return Interval(seeds.value, seeds.value - below, seeds.value + above, seeds.n)


def _as_mask(table: NDArray[np.float64]) -> NDArray[Any]:
    """Zeros and ones as right and wrong, which have Wilson's interval; others stay numbers."""
    return table.astype(bool) if np.isin(table, (0, 1)).all() else table


def parse(evidence: str) -> ast.Expression:
    """The syntax tree of an expression over runs; nothing is executed.

    Raises:
        ValueError: it is no expression, or does what no expression over runs has to: it is made of
            other than `SYNTAX`, or asks for other than `ATTRIBUTES`.
    """
    try:
        tree = ast.parse(evidence, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # all that it raises
        raise ValueError(f"evidence {evidence!r} is not an expression: {error}") from error
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in ast.walk(tree):
        if not isinstance(node, SYNTAX):
            kind = type(node).__name__
            raise ValueError(f"evidence {evidence!r} has a {kind}: see hw3lib.book.claims.SYNTAX")
        if isinstance(node, ast.Attribute) and not (
            node.attr in ATTRIBUTES or (_is_field(node) and node not in called)
        ):
            where = "see hw3lib.book.claims.ATTRIBUTES"
            raise ValueError(f"evidence {evidence!r} uses .{node.attr}: {where}")
        if isinstance(node, ast.Name) and node.id.startswith("_"):
            raise ValueError(f"evidence {evidence!r} uses {node.id}: no run is called so")
    return tree


def _is_field(node: ast.Attribute) -> bool:
    """Whether this is `….settings.name`."""
    of = node.value
    return isinstance(of, ast.Attribute) and of.attr == "settings" and node.attr[0] != "_"


def free_names(evidence: str) -> set[str]:
    """The names in an expression that it does not bind itself; raises as `parse` does."""
    nodes = [node for node in ast.walk(parse(evidence)) if isinstance(node, ast.Name)]
    bound = {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
    return {node.id for node in nodes} - bound


def evaluate(evidence: str, names: Names) -> Any:
    """The value of an expression; it knows the names given, no built-in ones.

    Raises:
        ValueError: as `parse` does.
    """
    known = {name: names(name) for name in free_names(evidence)}
    built_in = {"__import__": __import__}  # NumPy's own code looks for it in the caller's frame
    code = compile(parse(evidence), "<evidence>", "eval")
    return eval(code, {"__builtins__": built_in} | known)  # `parse` limits it  # nosec B307


def as_table(judgements: Sequence[Judgement]) -> str:
    """The judgements as a Markdown table, with references as MyST writes them."""
    head = ["Claim", "Said by", "Measured", "n", "Holds if", "Verdict", "Shown in"]
    rows = [
        [
            j.claim.claim,
            j.claim.source,
            _with_powers(format((found := j.measured).quantity, ".3g")),
            f"{found.seeds} seeds" if found.seeds > 1 else str(found.quantity.n),
            _with_powers(j.claim.rule),
            f"**{j.verdict}**",
            _shown_in(j.claim),
        ]
        for j in judgements
    ]
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _with_powers(text: str) -> str:
    """The text with "1e-09" as a power of ten."""
    return re.sub(
        r"e([+-]\d+)", lambda power: f" · 10{str(int(power[1])).translate(_RAISED)}", text
    )


def _shown_in(claim: Claim) -> str:
    if claim.figure is None:
        return "–"
    if claim.figure.startswith("fig-"):
        return f"{{numref}}`{claim.figure}`"
    return f"{{doc}}`{claim.question} <{claim.figure}>`"


def _centre(value: Any) -> float:
    return value.value if isinstance(value, Interval) else float(np.mean(value))
