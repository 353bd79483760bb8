"""One pass over the training examples, without waiting for the device between its steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from hw3lib.data import generator
from hw3lib.training.objective import Objective, Streamed
from hw3lib.training.precision import bfloat16_pays
from hw3lib.training.progress import Parts
from hw3lib.training.replay import Replayed


class Passes:
    """Passes over the training examples.

    The step is the same object in all of them, so that a GPU records it once. The step of a
    streamed objective is not recorded: it may be anybody's, and do what a recording would miss.

    Args:
        parts: what is trained.
        objective: the loss and the data.
        batch_size: None where the objective chooses it.
        seed: fixes the order of the examples and the noise.

    Raises:
        ValueError: the batch size is missing, impossible or not ours to choose, or the last batch
            has one example, which the model cannot train on.
    """

    def __init__(
        self, parts: Parts, objective: Objective | Streamed, batch_size: int | None, seed: int
    ) -> None:
        self.parts, self.objective, self.device = parts, objective, parts.device
        self.batch_size, self.seed = batch_size, seed
        self.sums: Tensor | None = None  # of the last step; it stays where it is
        self.num_batches = self._num_batches()
        recorded = self.device.type == "cuda" and not isinstance(objective, Streamed)
        self.step = Replayed(self._step, parts.optimizer, self.device) if recorded else self._step

    def train(self, epoch: int, after_step: Callable[[], object] = bool) -> dict[str, float]:
        """One pass; returns the means of the metrics over its examples.

        Raises:
            FloatingPointError: a metric is not finite.
            ValueError: there are no examples.
        """
        self.parts.model.train()
        rows, examples = [], 0
        for batch in self._batches(epoch):
            self.step(*batch)
            assert self.sums is not None
            rows.append(self.sums.clone())
            examples += len(batch[0])
            after_step()
        if not examples:
            raise ValueError(f"epoch {epoch} has no batch: no examples, or an iterator used up")
        # All that is read from the device, once an epoch; float64 on the host, which not every
        # device has.
        return self._means(torch.stack(rows).tolist(), examples, epoch)

    def check_last_batch(self) -> None:
        """Refuse a last batch of one example that the model cannot train on.

        Raises:
            ValueError: such as of batch norm, which needs more than one value.
        """
        if isinstance(self.objective, Streamed) or self.batch_size is None:
            return
        num = self.objective.num_examples
        if num % self.batch_size != 1 and self.batch_size != 1:
            return
        draws = self.objective.draw(generator(self.seed, "noise", 1))[:1].to(self.device)
        model = copy.deepcopy(self.parts.model).train()
        try:
            self.objective.loss(model, torch.zeros(1, dtype=torch.long, device=self.device), draws)
        except ValueError as error:
            raise ValueError(
                f"{num} examples in batches of {self.batch_size} leave one alone in the last "
                f"batch, which this model cannot train on ({error}); choose another batch_size, "
                "or leave an example out"
            ) from error

    def _num_batches(self) -> int | None:
        if isinstance(self.objective, Streamed):
            return self.objective.num_batches(self.batch_size)
        if self.batch_size is None or self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: need at least 1 example in a step")
        return -(-self.objective.num_examples // self.batch_size)

    def _batches(self, epoch: int) -> Iterable[tuple[Tensor, ...]]:
        """The batches of an epoch, on the device."""
        rng = generator(self.seed, "order", epoch)
        if isinstance(self.objective, Streamed):
            for batch in self.objective.batches(self.batch_size, rng):
                yield tuple(part.to(self.device) for part in batch)
            return
        assert self.batch_size is not None
        order = torch.randperm(self.objective.num_examples, generator=rng)
        draws = self.objective.draw(generator(self.seed, "noise", epoch))
        # Both uploads happen once an epoch; the steps never wait for the device.
        order, draws = order.to(self.device), draws.to(self.device)
        yield from zip(order.split(self.batch_size), draws.split(self.batch_size), strict=True)

    def _step(self, *batch: Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16_pays(self.device)):
            loss, sums = self.objective.loss(self.parts.model, *batch)
        self.parts.descend(loss)
        if self.sums is None:
            self.sums = torch.empty_like(sums)
        self.sums.copy_(sums)

    def _means(
        self, sums: Sequence[Sequence[float]], examples: int, epoch: int
    ) -> dict[str, float]:
        """Means over examples of the sums (steps, metrics)."""
        names = self.objective.metrics
        for step, row in enumerate(sums, 1):
            if not all(map(math.isfinite, row)):
                raise FloatingPointError(
                    f"the run diverged: step {step} of epoch {epoch} is the first whose metrics "
                    f"are not finite ({dict(zip(names, row, strict=True))}). Lower the learning "
                    "rate, or look for NaN in the data."
                )
        columns = zip(*sums, strict=True)
        return {n: math.fsum(c) / examples for n, c in zip(names, columns, strict=True)}
