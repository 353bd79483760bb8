"""One training loop for every model of the book: seeded, resumable, without per-step waiting.

Data stay on the device. The order of the examples and all noise of an epoch are drawn on the CPU
from (seed, purpose, epoch), so a run does not depend on the device's generator, and a run that
is interrupted and resumed equals one that was not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hw3lib.data import generator
from hw3lib.runs.settings import OutOfTime
from hw3lib.training.precision import bfloat16_pays
from hw3lib.training.replay import Replayed

logger = logging.getLogger("hw3lib")


State = dict[str, Tensor]


class Objective(Protocol):
    """What `fit` minimises. The data live in it."""

    num_examples: int

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the sums that `loss` returns."""
        ...

    def draw(self, generator: torch.Generator) -> Tensor:
        """All random numbers of one epoch, a row for each example."""
        ...

    def loss(self, model: Any, index: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """The batch loss, and the sums of the metrics over the batch."""
        ...

    def validate(self, model: Any) -> dict[str, float]:
        """Scores on held-out data."""
        ...


@dataclass
class Progress:
    """What a run has reached after an epoch; all that a resumed run needs.

    Attributes:
        epoch: epochs completed.
        history: one row an epoch, row 0 before training: training metrics (`train_…`, the mean
            over the epoch's examples, None before training) and validation scores (`val_…`).
        best_epoch: the epoch with the lowest selected score; 0, the start, only if there is no
            other.
        best_state: the model's state at that epoch, on the CPU.
        snapshots: the model's states at the asked-for epochs, on the CPU.
        seconds: time spent training, over all resumptions.
    """

    epoch: int = 0
    history: list[dict[str, float | None]] = field(default_factory=list)
    best_epoch: int = 0
    best_state: State = field(default_factory=dict)
    snapshots: dict[int, State] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Parts:
    """What training changes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None

    def state(self) -> dict[str, Any]:
        """The states of all parts, by name."""
        return {name: part.state_dict() for name, part in vars(self).items() if part}

    def descend(self, loss: Tensor) -> None:
        """One step down the gradient of a loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def advance(self) -> None:
        """Move the learning rate on by one step."""
        if self.scheduler:
            self.scheduler.step()

    def load(self, state: dict[str, Any]) -> None:
        """Put the parts back into a state."""
        for name, part in vars(self).items():
            if part:
                part.load_state_dict(state[name])


def fit(
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    select: str,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    snapshots: Collection[int] = (),
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 10.0,
    deadline: float | None = None,
    label: str = "training",
) -> Progress:
    """Minimise an objective over `epochs` passes, and keep the best weights.

    Args:
        model: on its device; holds the last weights afterwards.
        objective: the loss, the data and the validation.
        optimizer: over the model's parameters.
        epochs, batch_size: the last batch of an epoch may be smaller.
        seed: fixes the order of the examples and the noise.
        select: the validation score whose lowest value marks the best epoch.
        scheduler: of the learning rate, stepped after every batch.
        snapshots: epochs after which the weights are kept (0 is before training).
        checkpoint: file to resume from and to write to; None neither reads nor writes. A run of
            more epochs goes on where a shorter one with the same file ended.
        checkpoint_seconds: write the checkpoint no more often than this.
        deadline: `time.monotonic()` by which to stop; see `OutOfTime`.
        label: what the progress bar and the log call the run.

    Raises:
        OutOfTime: another epoch would not end before `deadline`.
        FloatingPointError: the loss of an epoch is not finite.
        ValueError: `epochs` is negative or `batch_size` is below 1.
    """
    if epochs < 0 or batch_size < 1:
        raise ValueError(f"epochs={epochs}, batch_size={batch_size}: need at least 0 and 1")
    device = next(model.parameters()).device
    if checkpoint and _epochs_in(checkpoint) > epochs:
        checkpoint = None  # a longer run's; it cannot be shortened, and must not be overwritten
    resumable = checkpoint and checkpoint.exists()
    parts = Parts(model, optimizer, scheduler)
    state = _resume(checkpoint, parts) if checkpoint and resumable else Progress()
    if not state.history:
        _record(state, model, {}, _validate(model, objective), select, snapshots)
    passes = _Passes(parts, objective, device)
    bar = tqdm(total=epochs, initial=state.epoch, desc=label, unit="epoch", disable=not _visible())
    saved = time.monotonic()
    try:
        while state.epoch < epochs:
            started = time.monotonic()
            epoch = state.epoch + 1
            order = torch.randperm(
                objective.num_examples, generator=generator(seed, "order", epoch)
            )
            draws = objective.draw(generator(seed, "noise", epoch))
            train = passes.train(order, draws, batch_size)
            val = _validate(model, objective)
            state.epoch = epoch
            _record(state, model, train, val, select, snapshots)
            now = time.monotonic()
            state.seconds += now - started
            late = deadline is not None and now + 1.2 * (now - started) > deadline
            stop = late and epoch < epochs
            if checkpoint and (stop or epoch == epochs or now - saved > checkpoint_seconds):
                save(checkpoint, {"progress": vars(state)} | parts.state())
                saved = now
            bar.set_postfix({select: f"{val[select]:.4f}"})
            bar.update()
            logger.info("%s: epoch %d/%d, %s %.4f", label, epoch, epochs, select, val[select])
            if stop:
                raise OutOfTime(f"{label}: {epoch} of {epochs} epochs are done and kept")
    except KeyboardInterrupt:
        kept = f"kept in {checkpoint}" if checkpoint and checkpoint.exists() else "not kept"
        print(
            f"\n{label}: interrupted after {state.epoch} of {epochs} epochs, which are {kept}. "
            "Run the same command again to resume.",
            file=sys.stderr,
        )
        raise
    finally:
        bar.close()
    return state


def first_losses(
    parts: Parts, objective: Objective, draws: Tensor, steps: int, batch_size: int
) -> list[float]:
    """The losses of the first steps in plain order and full precision: what canaries are made of.

    Args:
        parts: what is trained, in the mode it is in.
        objective: the loss of a batch; it has at least steps * batch_size examples.
        draws: its random numbers, a row for each example.
        steps, batch_size: how many batches of how many examples.
    """
    losses = []
    for index in torch.arange(steps * batch_size).split(batch_size):
        loss, _ = objective.loss(parts.model, index, draws[index])
        parts.descend(loss)
        parts.advance()
        losses.append(loss.item())
    return losses


@contextlib.contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's global CPU generator for a block, and put its state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, purpose).initial_seed())
        yield


def save(path: Path, content: Any) -> None:
    """`torch.save` that leaves the old file or the new one, whole, whenever it is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    torch.save(content, part)
    os.replace(part, path)


class _Passes:
    """Passes over the training examples.

    The step is the same object in all of them, so that a GPU records it once.
    """

    def __init__(self, parts: Parts, objective: Objective, device: torch.device) -> None:
        self.parts, self.objective, self.device = parts, objective, device
        self.totals = torch.zeros(len(objective.metrics), device=device, dtype=torch.float64)
        on_gpu = device.type == "cuda"
        self.step = Replayed(self._step, parts.optimizer, device) if on_gpu else self._step

    def train(self, order: Tensor, draws: Tensor, batch_size: int) -> dict[str, float]:
        """One pass; returns the means of the metrics over its examples."""
        self.parts.model.train()
        self.totals.zero_()
        # Both uploads happen once an epoch; the steps below never wait for the device.
        order, draws = order.to(self.device), draws.to(self.device)
        for batch in zip(order.split(batch_size), draws.split(batch_size), strict=True):
            self.step(*batch)
            self.parts.advance()
        values = (self.totals / self.objective.num_examples).tolist()
        means = dict(zip(self.objective.metrics, values, strict=True))
        if not all(abs(value) < float("inf") for value in values):
            raise FloatingPointError(
                f"the training metrics are {means}; the run diverged. Lower the learning rate."
            )
        return means

    def _step(self, index: Tensor, draws: Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16_pays(self.device)):
            loss, sums = self.objective.loss(self.parts.model, index, draws)
        self.parts.descend(loss)
        self.totals += sums


def _validate(model: nn.Module, objective: Objective) -> dict[str, float]:
    model.eval()
    return objective.validate(model)


def _record(
    state: Progress,
    model: nn.Module,
    train: dict[str, float],
    val: dict[str, float],
    select: str,
    snapshots: Collection[int],
) -> None:
    """Add an epoch's row to the history; keep the weights if they are the best or asked for."""
    row: dict[str, float | None] = {"epoch": state.epoch}
    row |= {f"train_{key}": value for key, value in train.items()}
    row |= {f"val_{key}": value for key, value in val.items()}
    # What a run starts from is no result of it, even if training makes the score worse.
    trained = state.best_epoch > 0
    best = state.history[state.best_epoch][f"val_{select}"] if trained else None
    state.history.append(row)
    if best is None or val[select] < best:
        state.best_epoch, state.best_state = state.epoch, cpu_state(model)
    if state.epoch in snapshots:
        state.snapshots[state.epoch] = cpu_state(model)


def cpu_state(model: nn.Module) -> State:
    """A copy of the model's state on the CPU, row by row whatever the layout it trains in."""
    return {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }


def _resume(path: Path, parts: Parts) -> Progress:
    device = next(parts.model.parameters()).device
    stored = torch.load(path, map_location=device, weights_only=True)
    parts.load(stored)
    progress = Progress(**stored["progress"])
    progress.best_state = {key: value.cpu() for key, value in progress.best_state.items()}
    return progress


def _epochs_in(path: Path) -> int:
    """Epochs that a checkpoint holds, 0 if there is none."""
    if not path.exists():
        return 0
    stored = torch.load(path, map_location="meta", weights_only=True)
    return int(stored["progress"]["epoch"])


def _visible() -> bool:
    """Whether somebody watches: a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
