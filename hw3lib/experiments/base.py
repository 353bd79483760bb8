"""What experiments repeat: device, blocks, training, outcome, the inputs of a canary."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from annotated_types import Ge, Gt
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from hw3lib import data, training
from hw3lib.runs import Context, Outcome, OutOfTime, Settings
from hw3lib.runs.settings import Arrays, within
from hw3lib.training import device_name, load, pick_device, save

CPU = torch.device("cpu")

Floats = NDArray[np.float64]

_Model = TypeVar("_Model", bound=nn.Module)


class Experiment(Settings):
    """Settings of a run that torch computes."""

    def data_checksum(self) -> str | None:
        """Checksum of the data set that these settings, or those within them, name."""
        name = _dataset_name(self)
        return data.checksum(name) if name else None

    def remarks(self) -> dict[str, str]:
        """Says so where an attack followed another gradient than that of the network itself."""
        if '"look":"fast"' not in self.canonical():
            return {}
        how = "the gradient of an approximation (folded batch norm, bfloat16 where it pays)"
        return {"look": f"attacks followed {how}; the network itself judged"}

    def environment(self) -> contextlib.AbstractContextManager[None]:
        return repeatable()


class Training(Experiment):
    """Settings of a training.

    Attributes:
        epochs, batch_size, learning_rate: of the optimizer.
        seed: of the initial weights, the order of the examples, and all noise.
    """

    epochs: Annotated[int, Ge(0)]
    batch_size: Annotated[int, Ge(1)] = 128
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    seed: int = 0

    @property
    def checkpoint_key(self) -> str:
        """Runs that differ only in their epochs share a checkpoint; the longer one goes on."""
        return self.changed(epochs=0).key

    def loop(
        self,
        model: nn.Module,
        objective: training.Objective,
        optimizer: torch.optim.Optimizer,
        context: Context,
        **options: Any,
    ) -> training.Progress:
        """`hw3lib.training.fit` with these settings; `options` go to it."""
        own = {name: getattr(self, name) for name in ("epochs", "batch_size", "seed")}
        own |= {"checkpoint": context.checkpoint, "deadline": context.deadline}
        options = {"label": self.describe(), **own, **options}
        return training.fit(model, objective, optimizer, **options)

    def first_losses(
        self,
        model: nn.Module,
        objective: training.Objective,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        *,
        steps: int = 10,
    ) -> list[float]:
        """Losses of the first batches of 32 examples, for canaries."""
        parts = training.Parts(model, optimizer, scheduler)
        noise = data.generator(self.seed, "noise", 1)
        return training.first_losses(parts, objective, noise, steps, 32)


def course_of(progress: training.Progress, model: nn.Module) -> dict[str, Any]:
    """What every training stores of its course."""
    return {
        "history": progress.history,
        "best_epoch": progress.best_epoch,
        "num_parameters": sum(p.numel() for p in model.parameters()),
    }


def tensors(weights: Arrays) -> dict[str, Tensor]:
    """Stored weights as a state of a model."""
    return {name: torch.from_numpy(value) for name, value in weights.items()}


def restored(model: _Model, weights: Arrays) -> _Model:
    """A model with stored weights, in evaluation mode and frozen."""
    model.load_state_dict(tensors(weights))
    return model.eval().requires_grad_(False)


def repeatable() -> contextlib.AbstractContextManager[None]:
    """On a GPU, the same bits in every run, and float32 where float32 is asked for."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def device_of(context: Context) -> torch.device:
    """Where a run is computed."""
    return pick_device(context.device)


def outcome(
    results: dict[str, Any],
    arrays: Mapping[str, Tensor | ArrayLike] | None = None,
    *,
    device: torch.device = CPU,
    weights: Mapping[str, Tensor] | None = None,
    seconds: float | None = None,
) -> Outcome:
    """The `Outcome` of a computation: tensors as arrays, and the name of the device."""
    return Outcome(
        results,
        {name: _array(value) for name, value in (arrays or {}).items()},
        {name: _array(value) for name, value in (weights or {}).items()},
        device=device_name(device),
        seconds=seconds,
    )


def resumable_blocks(
    blocks: Sequence[Callable[[], Any]], context: Context, label: str
) -> tuple[list[Any], float]:
    """Compute block after block, keeping what is done, and resume where it stopped.

    Returns:
        What the blocks return (tensors, or tuples, lists or dictionaries of them), and the seconds
        spent on them, over all resumptions.

    Raises:
        OutOfTime: another block would not end before the deadline; the checkpoint has the others.
    """
    # To where the other blocks will leave theirs.
    kept = load(context.checkpoint, device_of(context)) if context.checkpoint else None
    parts, spent = kept or ([], 0.0)
    for block in blocks[len(parts) :]:
        started = time.monotonic()
        parts.append(block())
        seconds = time.monotonic() - started
        spent += seconds
        if context.checkpoint:
            save(context.checkpoint, (parts, spent))
        late = context.deadline is not None and time.monotonic() + 1.2 * seconds > context.deadline
        if late and len(parts) < len(blocks):
            raise OutOfTime(f"{label}: {len(parts)} of {len(blocks)} blocks are done and kept")
    return parts, spent


def embedded_digits(num: int) -> Tensor:
    """Grey levels (num, 28, 28) of the first embedded test digits, for canaries."""
    return data.quantize(data.load("digits").x_test[:num])


def _dataset_name(settings: Settings) -> str | None:
    """The data set of settings, or of the first of those within them that has one."""
    if hasattr(settings, "dataset"):
        return str(settings.dataset)
    found = (_dataset_name(part) for part in within(settings))
    return next((name for name in found if name), None)


def _array(value: Tensor | ArrayLike) -> np.ndarray[Any, Any]:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
