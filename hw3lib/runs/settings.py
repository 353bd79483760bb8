"""What names a run, and what computing it gives."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

Arrays = Mapping[str, NDArray[Any]]


class RunError(RuntimeError):
    """A stored run is unreadable, incomplete, or not what was asked for."""


class NotInstalledError(RunError):
    """A stored run is of an experiment that no installed package has."""


class OutOfTime(Exception):
    """The time budget ends before the next step would; what is done is in the checkpoint."""


@dataclass(frozen=True)
class Context:
    """How to compute a run; nothing in here changes the result.

    Attributes:
        device: torch's name of the device; None picks one.
        checkpoint: file that an interrupted computation resumes from.
        deadline: `time.monotonic()` by which to stop.
    """

    device: str | None = None
    checkpoint: Path | None = None
    deadline: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What a computation returns, before it is stored.

    Attributes:
        results: numbers, strings and lists that JSON can hold; numbers may be NumPy's or torch's.
        arrays: larger tables.
        weights: model weights.
        data: checksum of the data set.
        device: name of the device that computed it.
        seconds: time over all resumptions, where the computation knows it.
    """

    results: dict[str, Any]
    arrays: Arrays = field(default_factory=dict)
    weights: Arrays = field(default_factory=dict)
    data: str = ""
    device: str = ""
    seconds: float | None = None


class Settings(BaseModel, ABC):
    """Everything that a result depends on. Subclasses are the experiments.

    Example:
        >>> class Toss(Settings):
        ...     experiment = "toss"
        ...     seed: int = 0
        ...     throws: int = 10
        ...     def compute(self, context):
        ...         return Outcome({"heads": 4}, data="", device="cpu")
        ...     def canary(self):
        ...         return [0.4]
        >>> Toss(throws=20).describe()
        'toss(throws=20)'
        >>> Toss(throws=20).key == Toss(throws=20, seed=0).key != Toss(throws=21).key
        True
        >>> Toss(throw=20)
        Traceback (most recent call last):
            ...
        pydantic_core._pydantic_core.ValidationError: ...
        >>> _ = Settings.registry.pop("toss")  # nobody else needs it
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    experiment: ClassVar[str]
    registry: ClassVar[dict[str, type[Settings]]] = {}
    # Settings that came later: unwritten at their defaults, so that older runs keep their keys.
    # Dataclasses among the settings, such as attacks, may name theirs in the same way.
    added_later: ClassVar[tuple[str, ...]] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_bool(cls, value: Any, info: ValidationInfo) -> Any:
        """Yes and no are no numbers, though pydantic takes them for 1 and 0."""
        kinds = list(_kinds(cls.model_fields[str(info.field_name)].annotation))
        if _has_bool(value) and bool not in kinds and (int in kinds or float in kinds):
            raise ValueError("Input should be a number")
        return value

    @field_validator("*")
    @classmethod
    def _has_one_zero(cls, value: Any) -> Any:
        """-0.0 equals 0.0, so that both have one key."""
        return _unsigned(value)

    @field_validator("seed", check_fields=False)
    @classmethod
    def _is_a_seed(cls, value: int) -> int:
        """NumPy takes no others, so that a run with one would end after its training."""
        if value < 0:
            raise ValueError("Input should be greater than or equal to 0")
        return value

    @model_validator(mode="after")
    def _has_a_name(self) -> Self:
        """Else it would be given the runs of the experiment that it is derived from."""
        if "experiment" not in vars(type(self)):
            raise ValueError(f"{type(self).__qualname__} has no `experiment` of its own, its name")
        return self

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "experiment" not in vars(cls):
            return
        name = cls.experiment
        other = Settings.registry.get(name)
        if other and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(
                f"{cls.__qualname__} has the name {name!r}, as {other.__qualname__} of "
                f"{other.__module__} does, so it would be given the runs of that one; set another "
                "`experiment`"
            )
        Settings.registry[name] = cls

    @staticmethod
    def named(experiment: str) -> type[Settings]:
        """The kind of settings that has this name, also if nothing has imported its module yet.

        An installed package names its modules by entry points of the group `hw3lib.experiments`.

        Raises:
            ValueError: there is none.
        """
        if experiment not in Settings.registry:
            for module in entry_points(group="hw3lib.experiments"):
                module.load()
        if experiment not in Settings.registry:
            known = ", ".join(sorted(Settings.registry))
            raise ValueError(f"no experiment {experiment!r}; there are {known}")
        return Settings.registry[experiment]

    @abstractmethod
    def compute(self, context: Context) -> Outcome:
        """Compute the result."""

    @abstractmethod
    def canary(self) -> list[float]:
        """A few losses of the same computation on embedded data, on the CPU.

        A change of the code that changes what is learnt or measured changes them.
        """

    def data_checksum(self) -> str | None:
        """Checksum of the data set as it is now; None if there is none, or it is not known."""
        return None

    def remarks(self) -> dict[str, str]:
        """What the provenance of a run says besides; such as how an attack looked at its model."""
        return {}

    def environment(self) -> contextlib.AbstractContextManager[None]:
        """What `compute` is run in."""
        return contextlib.nullcontext()

    def written(self) -> dict[str, Any]:
        """The settings as they are stored, without those `added_later` that have their defaults."""
        content: dict[str, Any] = _written(self, self.model_dump(mode="json"))
        return content

    def canonical(self) -> str:
        """The settings as JSON with sorted keys."""
        content = {"experiment": self.experiment, "settings": self.written()}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @property
    def key(self) -> str:
        """Sixteen hex digits that name the settings."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]

    @property
    def checkpoint_key(self) -> str:
        """Names the checkpoint; settings that differ only in how far they go may share it."""
        return self.key

    def describe(self) -> str:
        """The experiment and the settings that differ from their defaults.

        A run that one of its runs starts from is named by the beginning of its key.
        """
        return _called(self.experiment, self, _described)

    def reseeded(self, seed: int) -> Self:
        """The same settings with another seed; some reseed what they measure, too."""
        return self.changed(seed=seed)

    def changed(self, **changes: Any) -> Self:
        """The same settings with some replaced; unlike `model_copy`, they are validated."""
        return type(self)(**dict(self) | changes)


def _kinds(annotation: Any) -> Iterator[Any]:
    """What an annotation is made of, such as `int` in `tuple[int, ...]`."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def _has_bool(value: Any) -> bool:
    return (
        any(map(_has_bool, value)) if isinstance(value, list | tuple) else isinstance(value, bool)
    )


def _unsigned(value: Any) -> Any:
    """The same with 0.0 for -0.0, also within tuples."""
    if type(value) is tuple:
        return tuple(map(_unsigned, value))
    return value + 0.0 if isinstance(value, float) else value


def within(settings: Settings) -> Iterator[Settings]:
    """The settings among settings: the runs that a run is made from."""
    for _, value in settings:
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Settings):
                yield part


def _written(value: Any, dumped: Any) -> Any:
    """What JSON made of a value, without the fields `added_later` that have their defaults."""
    if isinstance(value, tuple):
        return [_written(one, part) for one, part in zip(value, dumped, strict=True)]
    defaults = _defaults(value)
    later = getattr(value, "added_later", ())
    return (
        {
            name: _written(getattr(value, name), dumped[name])
            for name in defaults
            if not (name in later and getattr(value, name) == defaults[name])
        }
        if defaults
        else dumped
    )


def _defaults(value: Any) -> dict[str, Any]:
    """Default by field of settings or of a dataclass; empty for everything else."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {name: info.get_default(call_default_factory=True) for name, info in fields.items()}
    if dataclasses.is_dataclass(value):
        return {field.name: field.default for field in dataclasses.fields(value)}
    return {}


def _called(name: str, value: Any, describe: Callable[[Any], str]) -> str:
    """A name with the fields that differ from their defaults, as a call is written."""
    changed = {
        field: describe(getattr(value, field))
        for field, default in _defaults(value).items()
        if getattr(value, field) != default
    }
    return f"{name}({', '.join(f'{field}={text}' for field, text in changed.items())})"


def _described(value: Any, *, inner: bool = False) -> str:
    """A setting in words; `inner` runs, which are runs of runs, only by the key."""
    if isinstance(value, Settings) and inner:
        return f"{value.experiment} {value.key[:8]}"
    within = partial(_described, inner=inner or isinstance(value, Settings))
    if isinstance(value, tuple):
        return f"({', '.join(map(within, value))})"
    if isinstance(value, Settings):
        return _called(value.experiment, value, within)
    if dataclasses.is_dataclass(value):
        return _called(type(value).__name__, value, within)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
