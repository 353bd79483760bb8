"""What is minimised: a loss with its data, by index or as a stream of batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


class Scored(Protocol):
    """What every objective has."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the sums that `loss` returns."""
        ...

    def validate(self, model: Any) -> dict[str, float]:
        """Scores on held-out data, by name; lower is better."""
        ...


class Objective(Scored, Protocol):
    """What `fit` minimises. The data live in it, on the model's device."""

    num_examples: int

    def draw(self, generator: torch.Generator) -> Tensor:
        """All random numbers of one epoch, a row for each example."""
        ...

    def loss(self, model: Any, index: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """The batch loss, and the sums of the metrics over the batch."""
        ...


Batch = tuple[Tensor, Tensor, Tensor]
"""Inputs and targets, a row for each example, and the random numbers of the batch."""


@runtime_checkable
class Streamed(Scored, Protocol):
    """An objective that makes its own batches, such as those of a `DataLoader`."""

    def num_batches(self, batch_size: int | None) -> int | None:
        """Batches of an epoch; None if nobody knows.

        Raises:
            ValueError: the batch size is missing, or not for the caller to choose.
        """
        ...

    def batches(self, batch_size: int | None, generator: torch.Generator) -> Iterable[Batch]:
        """The batches of one epoch, on any device; the generator is the epoch's."""
        ...

    def loss(
        self, model: Any, inputs: Tensor, targets: Tensor, draws: Tensor, /
    ) -> tuple[Tensor, Tensor]:
        """The batch loss, and the sums of the metrics over the batch."""
        ...
