"""What the parameters of a notebook may be: looked at before its page loads torch (3 s) or more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

Seed = NonNegativeInt
"""Of trainings and noise."""

Count = PositiveInt
"""Of images, samples, steps or epochs."""

Place = NonNegativeInt
"""Of an image in the test set."""

EpochsOrDefault = NonNegativeInt
"""Passes over the training images, 0 for what the data set needs."""

DigitData = Literal["mnist", "digits"]
"""Data sets of part 1."""

PictureData = Literal["cifar10", "shapes"]
"""Data sets of part 2."""

Verified = Literal["kinds", "all"]
"""Which runs `status` computes again, one of each kind or all."""

Positive = PositiveFloat
"""A step of an attack, a weight of the KL term."""

WIDEST_RADIUS = 3.8
"""What normalised CIFAR-10 images span at least, 1 / 0.261 in the channel with most spread."""


def _narrow_enough(eps: float) -> float:
    if eps >= WIDEST_RADIUS:
        raise ValueError(f"normalised pixels span {WIDEST_RADIUS}, so this allows any image")
    return eps


Radius = Annotated[NonNegativeFloat, AfterValidator(_narrow_enough)]
"""Of an attack, in units of the normalised input."""


def _between_0_and_1(alpha: float) -> float:
    if not 0 <= alpha <= 1:
        raise ValueError("the weight of the clean loss lies in [0, 1]")
    return alpha


Share = Annotated[float, AfterValidator(_between_0_and_1)]
"""Weight of the clean loss in an adversarial loss."""


def check_parameters(page: Mapping[str, Any]) -> None:
    """Refuse what the annotations of a notebook's parameters do not allow, before anything runs.

    Args:
        page: the notebook's `globals()`.

    Raises:
        ValueError: names the parameter, its value, and what would be right.

    Example:
        >>> check_parameters({"__annotations__": {"draws": Count}, "draws": 0})
        Traceback (most recent call last):
            ...
        ValueError: draws=0: Input should be greater than 0
    """
    for name, kind in page["__annotations__"].items():
        try:
            TypeAdapter(kind).validate_python(page[name], strict=True)
        except ValidationError as error:
            (first, *_) = error.errors()
            place = "".join(f"[{index}]" for index in first["loc"])
            reason = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"{name}{place}={first['input']!r}: {reason}") from None
