"""One training loop for every model of the book and for one's own: seeded and resumable.

Every random number comes from (seed, purpose, epoch): the order of the examples and the noise from
CPU generators of their own, so that a run does not depend on the device; what a model, a data
loader or a data set draws from the global generators of torch, NumPy and Python, such as dropout,
from these, seeded for the epoch and put back after it. So a run that is interrupted and resumed
equals one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import random
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR
from tqdm.auto import tqdm

from hw3lib.data import generator
from hw3lib.runs.settings import OutOfTime
from hw3lib.training.checkpoint import ANOTHER_FILE, Keeper
from hw3lib.training.objective import Objective, Streamed
from hw3lib.training.passes import Passes
from hw3lib.training.progress import Parts, Progress, cpu_state

logger = logging.getLogger("hw3lib")

CPU = torch.device("cpu")

Every = Literal["batch", "epoch"]
Row = dict[str, float | None]


def fit(
    model: nn.Module,
    objective: Objective | Streamed,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    seed: int,
    batch_size: int | None = None,
    select: str | None = None,
    scheduler: LRScheduler | None = None,
    scheduler_every: Every = "batch",
    snapshots: Collection[int] = (),
    checkpoint: Path | str | None = None,
    checkpoint_seconds: float = 10.0,
    deadline: float | None = None,
    label: str = "training",
    on_epoch: Callable[[Row], object] | None = None,
) -> Progress:
    """Minimise an objective, leave the last weights in the model, and return the best ones.

    `fit(...).load_best(model)` puts the best ones into the model.

    Args:
        model, objective, optimizer: on the device that computes; where bfloat16 pays, in autocast.
        epochs: passes over the examples.
        seed: fixes the order of the examples, the noise, and what model, loader and data set draw
            from global generators while they train; not the weights that the model has before.
        batch_size: examples of a step, the last of an epoch apart; None if the objective knows.
        select: the validation score of which the lowest is the best; by default the last one.
        scheduler, scheduler_every: of the learning rate, and what it counts: "batch", as
            `OneCycleLR` does, or "epoch", as `StepLR(optimizer, 30)` usually does.
        snapshots: epochs after which the weights are kept (0 is before training).
        checkpoint: file to resume from, also with more epochs, and to write, also when interrupted.
        checkpoint_seconds, label: write no more often than this; what bar and log call the run.
        deadline: `time.monotonic()` by which to stop; see `OutOfTime`.
        on_epoch: is called with the row of the history after each epoch that is computed.

    Raises:
        OutOfTime: another epoch would not end before `deadline`.
        FloatingPointError: a metric is not finite, or the selected score of no epoch is a number.
        TypeError, ValueError: an argument is impossible, or the checkpoint is of another training.

    Example:
        >>> from hw3lib.robust import Classification
        >>> images, labels = torch.rand(8, 3, 4, 4), torch.arange(8) % 2
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> objective = Classification((images, labels), (images, labels))
        >>> progress = fit(model, objective, optimizer, epochs=3, seed=0, batch_size=4)
        >>> progress.epoch, sorted(progress.history[1])
        (3, ['epoch', 'train_error', 'train_loss', 'val_cross_entropy', 'val_error'])
    """
    parts = Parts(model, optimizer, scheduler)
    passes = Passes(parts, objective, batch_size, seed)
    parts.check()
    _check_scheduler(scheduler, scheduler_every, epochs, passes.num_batches)
    asked: dict[str, Any] = {"seed": seed, "batch size": batch_size, "score": select}
    asked["scheduler_every"] = scheduler_every if scheduler else None
    identity = getattr(objective, "identity", {}) if checkpoint else {}
    keeper = Keeper(checkpoint, parts, epochs, checkpoint_seconds, asked | identity)
    return _Training(
        parts, objective, epochs, seed, select, scheduler_every, snapshots, label, on_epoch
    ).run(passes, keeper, deadline)


def _check_scheduler(
    scheduler: LRScheduler | None, every: str, epochs: int, batches: int | None
) -> None:
    """Refuse a schedule that would fail in the midst of a training."""
    if every not in get_args(Every):
        raise ValueError(f"scheduler_every={every!r}: choose 'batch' or 'epoch'")
    if isinstance(scheduler, ReduceLROnPlateau):
        raise TypeError(
            "ReduceLROnPlateau wants scores, which fit gives to no scheduler; choose another one"
        )
    steps = epochs if every == "epoch" else batches and epochs * batches
    if isinstance(scheduler, OneCycleLR) and steps and steps > scheduler.total_steps:
        raise ValueError(
            f"OneCycleLR has total_steps={scheduler.total_steps}, and this training steps it up to "
            f"{steps} times, once every {every}; make it with total_steps={steps}"
        )
    if isinstance(scheduler, StepLR) and every == "batch" and scheduler.step_size < (batches or 0):
        logger.warning(
            "StepLR counts batches, so the learning rate falls after every %d of an epoch's %d; "
            "scheduler_every='epoch' lets it count epochs", scheduler.step_size, batches,
        )  # fmt: skip


@dataclass(frozen=True)
class _Training:
    """A training as `fit` was asked for it."""

    parts: Parts
    objective: Objective | Streamed
    epochs: int
    seed: int
    select: str | None
    scheduler_every: Every
    snapshots: Collection[int]
    label: str
    on_epoch: Callable[[Row], object] | None

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"epochs={self.epochs}: need at least 0")

    def run(self, passes: Passes, keeper: Keeper, deadline: float | None) -> Progress:
        """All epochs that are left."""
        with keeper.guarding(self.label):
            progress = keeper.resume() or self._start()
            self._check_snapshots(progress, keeper)
            with self._seeded(0):
                passes.check_last_batch()
            with self._bar(progress.epoch, passes.num_batches) as bar:
                while progress.epoch < self.epochs:
                    started = time.monotonic()
                    progress = self._epoch(progress, passes, bar)
                    took = time.monotonic() - started
                    progress = dataclasses.replace(progress, seconds=progress.seconds + took)
                    done = progress.epoch == self.epochs
                    late = deadline is not None and started + 2.2 * took > deadline and not done
                    keeper.keep(progress, now=late or done)
                    if self.on_epoch:
                        self.on_epoch(dict(progress.history[-1]))
                    if late:
                        raise OutOfTime(f"{self.label}: stopped in time. {keeper.told()}")
            if self.epochs and not progress.best_epoch:
                name = self.select or list(progress.history[0])[-1].removeprefix("val_")
                raise FloatingPointError(f"no epoch has a validation {name} to compare.")
        return progress

    def _check_snapshots(self, progress: Progress, keeper: Keeper) -> None:
        past = {epoch for epoch in self.snapshots if epoch <= progress.epoch}
        if missing := sorted(past - progress.snapshots.keys()):
            raise ValueError(
                f"{keeper.path} is past epochs {missing}, and did not keep their weights; "
                f"{ANOTHER_FILE}"
            )

    def _start(self) -> Progress:
        """Row 0 of the history: the scores before training."""
        with self._seeded(0):
            return self._recorded(Progress(), {}, self._validate())

    def _epoch(self, progress: Progress, passes: Passes, bar: tqdm[Any]) -> Progress:
        """One pass over the examples, and a validation."""
        epoch = progress.epoch + 1
        with self._seeded(epoch):
            train = passes.train(epoch, partial(self._after_step, bar))
            val = self._validate()
        if self.scheduler_every == "epoch":
            self.parts.advance()
        name = self._selected(val)
        bar.set_postfix({"epoch": epoch, name: f"{val[name]:.4f}"})
        logger.info("%s: epoch %d/%d, %s %.4f", self.label, epoch, self.epochs, name, val[name])
        if not math.isfinite(val[name]):
            logger.warning(
                "%s: epoch %d cannot be the best: its %s is %s", self.label, epoch, name, val[name]
            )
        return self._recorded(dataclasses.replace(progress, epoch=epoch), train, val)

    def _after_step(self, bar: tqdm[Any]) -> None:
        if self.scheduler_every == "batch":
            self.parts.advance()
        bar.update()

    def _validate(self) -> dict[str, float]:
        self.parts.model.eval()
        return self.objective.validate(self.parts.model)

    def _recorded(
        self, progress: Progress, train: dict[str, float], val: dict[str, float]
    ) -> Progress:
        """With an epoch's row in the history, and its weights if they are the best or asked for."""
        epoch, name = progress.epoch, self._selected(val)
        row: Row = {"epoch": epoch}
        row |= {f"train_{key}": value for key, value in train.items()}
        row |= {f"val_{key}": value for key, value in val.items()}
        # What a run starts from is no result of it, even if training makes the score worse.
        best = progress.history[progress.best_epoch] if progress.best_epoch else {}
        if best and f"val_{name}" not in best:
            raise ValueError(f"the epochs so far have no validation {name}; {ANOTHER_FILE}")
        lowest: Any = best.get(f"val_{name}", math.inf)
        changes: dict[str, Any] = {"history": [*progress.history, row]}
        if not epoch or val[name] < lowest:  # which is never true of NaN
            changes |= {"best_epoch": epoch, "best_state": cpu_state(self.parts.model)}
        if epoch in self.snapshots:
            changes["snapshots"] = progress.snapshots | {epoch: cpu_state(self.parts.model)}
        return dataclasses.replace(progress, **changes)

    def _selected(self, val: dict[str, float]) -> str:
        """The name of the score that selects."""
        name = self.select or list(val)[-1]
        for known in (name, name.removeprefix("val_")):  # or as the history calls it
            if known in val:
                return known
        raise ValueError(f"select={name!r}: the validation scores are {', '.join(val)}")

    def _seeded(self, epoch: int) -> contextlib.AbstractContextManager[None]:
        return seeded(self.seed, "model", epoch, self.parts.device)

    def _bar(self, done: int, batches: int | None) -> tqdm[Any]:
        """A bar that counts batches; it shows if somebody watches: a terminal or a notebook."""
        watched = sys.stderr.isatty() or "ipykernel" in sys.modules
        off = bool(os.environ.get("TQDM_DISABLE"))
        return tqdm(
            total=batches and batches * self.epochs,
            initial=done * (batches or 0),
            desc=self.label,
            unit="batch",
            disable=off or not watched,
        )


def first_losses(
    parts: Parts,
    objective: Objective | Streamed,
    draws: Tensor | torch.Generator,
    steps: int,
    batch_size: int | None,
) -> list[float]:
    """The losses of the first steps in full precision: what canaries are made of.

    Args:
        parts: what is trained, in the mode it is in.
        objective: the loss of a batch; it has at least steps * batch_size examples, which are taken
            in plain order, or makes its own batches.
        draws: its random numbers, a row for each example, or the generator that draws them.
        steps, batch_size: how many batches of how many examples.

    Example:
        >>> from hw3lib.vae import VAE, ElboObjective
        >>> images = torch.zeros(8, 28, 28, dtype=torch.uint8)
        >>> objective = ElboObjective(images, images, torch.zeros(8, 2))
        >>> model = VAE(latent_dim=2, num_filters=4)
        >>> parts = Parts(model, torch.optim.Adam(model.parameters()))
        >>> len(first_losses(parts, objective, torch.zeros(8, 2), steps=2, batch_size=4))
        2
    """
    batches: Iterable[tuple[Tensor, ...]]
    if isinstance(objective, Streamed):
        batches = objective.batches(batch_size, cast(torch.Generator, draws))
    else:
        rows = draws if isinstance(draws, Tensor) else objective.draw(draws)
        index = torch.arange(len(rows)).split(batch_size or len(rows))
        batches = ((part, rows[part]) for part in index)
    losses = []
    for batch in islice(batches, steps):
        loss, _ = objective.loss(parts.model, *(part.to(parts.device) for part in batch))
        parts.descend(loss)
        parts.advance()
        losses.append(loss.item())
    return losses


@contextlib.contextmanager
def seeded(seed: int, purpose: str, epoch: int = 0, device: torch.device = CPU) -> Iterator[None]:
    """Seed the global generators for a block: Python's, NumPy's, and torch's of CPU and device.

    Their state is put back afterwards.

    Example:
        >>> with seeded(0, "weights"):
        ...     one = torch.rand(3)
        >>> with seeded(0, "weights"):
        ...     two = torch.rand(3)
        >>> bool((one == two).all())
        True
    """
    number = generator(seed, purpose, epoch).initial_seed()
    own = [] if device.type == "cpu" else [device]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one
    try:
        with torch.random.fork_rng(own, device_type=device.type if own else "cuda"):
            random.seed(number)
            np.random.seed(number % 2**32)  # noqa: NPY002
            torch.default_generator.manual_seed(number)
            if own:
                torch.get_device_module(device).manual_seed(number)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
