"""One training loop for every model of the book and for one's own: seeded and resumable.

Every random number comes from (seed, purpose, epoch): the order of the examples and the noise from
CPU generators of their own, so that a run does not depend on the device; what a model or a data
loader draws from torch's global generators, such as dropout, from these, seeded for the epoch and
put back after it. So a run that is interrupted and resumed equals one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hw3lib.data import generator
from hw3lib.runs.settings import OutOfTime
from hw3lib.training.checkpoint import ANOTHER_FILE, Keeper
from hw3lib.training.objective import Objective, Streamed
from hw3lib.training.passes import Passes
from hw3lib.training.progress import Parts, Progress, cpu_state

logger = logging.getLogger("hw3lib")

CPU = torch.device("cpu")


def fit(
    model: nn.Module,
    objective: Objective | Streamed,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    seed: int,
    batch_size: int | None = None,
    select: str | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    snapshots: Collection[int] = (),
    checkpoint: Path | str | None = None,
    checkpoint_seconds: float = 10.0,
    deadline: float | None = None,
    label: str = "training",
) -> Progress:
    """Minimise an objective, leave the last weights in the model, and return the best ones.

    Args:
        model, objective, optimizer: on the device that computes; where bfloat16 pays, in autocast.
        epochs: passes over the examples.
        seed: fixes the order of the examples and all that is random.
        batch_size: examples of a step, the last of an epoch apart; None if the objective knows.
        select: the validation score of which the lowest is the best; by default the last one.
        scheduler: of the learning rate, stepped after every batch.
        snapshots: epochs after which the weights are kept (0 is before training).
        checkpoint: file to resume from, also with more epochs, and to write, also when interrupted.
        checkpoint_seconds, label: write no more often than this; what bar and log call the run.
        deadline: `time.monotonic()` by which to stop; see `OutOfTime`.

    Raises:
        OutOfTime: another epoch would not end before `deadline`.
        FloatingPointError: a metric is not finite, or the selected score of no epoch is a number.
        ValueError: an argument is impossible, or the checkpoint is of another training.

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
    asked = {"seed": seed, "batch size": batch_size, "score": select}
    keeper = Keeper(checkpoint, parts, epochs, checkpoint_seconds, asked)
    return _Training(parts, objective, epochs, seed, select, snapshots, label).run(
        Passes(parts, objective, batch_size, seed), keeper, deadline
    )


@dataclass(frozen=True)
class _Training:
    """A training as `fit` was asked for it."""

    parts: Parts
    objective: Objective | Streamed
    epochs: int
    seed: int
    select: str | None
    snapshots: Collection[int]
    label: str

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
            train = passes.train(epoch, bar.update)
            val = self._validate()
        name = self._selected(val)
        bar.set_postfix({"epoch": epoch, name: f"{val[name]:.4f}"})
        logger.info("%s: epoch %d/%d, %s %.4f", self.label, epoch, self.epochs, name, val[name])
        if not math.isfinite(val[name]):
            logger.warning(
                "%s: epoch %d cannot be the best: its %s is %s", self.label, epoch, name, val[name]
            )
        return self._recorded(dataclasses.replace(progress, epoch=epoch), train, val)

    def _validate(self) -> dict[str, float]:
        self.parts.model.eval()
        return self.objective.validate(self.parts.model)

    def _recorded(
        self, progress: Progress, train: dict[str, float], val: dict[str, float]
    ) -> Progress:
        """With an epoch's row in the history, and its weights if they are the best or asked for."""
        epoch, name = progress.epoch, self._selected(val)
        row: dict[str, float | None] = {"epoch": epoch}
        row |= {f"train_{key}": value for key, value in train.items()}
        row |= {f"val_{key}": value for key, value in val.items()}
        # What a run starts from is no result of it, even if training makes the score worse.
        started = progress.best_epoch > 0
        lowest: Any = progress.history[progress.best_epoch][f"val_{name}"] if started else math.inf
        changes: dict[str, Any] = {"history": [*progress.history, row]}
        if not epoch or val[name] < lowest:  # which is never true of NaN
            changes |= {"best_epoch": epoch, "best_state": cpu_state(self.parts.model)}
        if epoch in self.snapshots:
            changes["snapshots"] = progress.snapshots | {epoch: cpu_state(self.parts.model)}
        return dataclasses.replace(progress, **changes)

    def _selected(self, val: dict[str, float]) -> str:
        """The name of the score that selects."""
        name = self.select or list(val)[-1]
        if name not in val:
            raise ValueError(f"select={name!r}: the validation scores are {', '.join(val)}")
        return name

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
    parts: Parts, objective: Objective, draws: Tensor, steps: int, batch_size: int
) -> list[float]:
    """The losses of the first steps in plain order and full precision: what canaries are made of.

    Args:
        parts: what is trained, in the mode it is in.
        objective: the loss of a batch; it has at least steps * batch_size examples.
        draws: its random numbers, a row for each example.
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
    losses = []
    for index in torch.arange(steps * batch_size).split(batch_size):
        loss, _ = objective.loss(parts.model, index, draws[index])
        parts.descend(loss)
        parts.advance()
        losses.append(loss.item())
    return losses


@contextlib.contextmanager
def seeded(seed: int, purpose: str, epoch: int = 0, device: torch.device = CPU) -> Iterator[None]:
    """Seed torch's global generators, that of the CPU and the device's own, for a block.

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
    with torch.random.fork_rng(own, device_type=device.type if own else "cuda"):
        torch.default_generator.manual_seed(number)
        if own:
            torch.get_device_module(device).manual_seed(number)
        yield
