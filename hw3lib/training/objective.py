"""What is minimised: a loss with its data, by index or as a stream of batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


class Scored(Protocol):
    """What every objective has.

    It may have an attribute `identity`, too: what it is, as a dictionary of plain values, such as
    {"defense": "Standard()"}. `fit` goes on from a checkpoint only if they are the same.
    """

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the sums that `loss` returns."""
        ...

    def validate(self, model: Any) -> dict[str, float]:
        """Scores on held-out data, by name; lower is better."""
        ...


class Objective(Scored, Protocol):
    """What `fit` minimises. The data live in it, on the model's device.

    Example:
        The mean of some numbers, as the minimum of a squared error.

        >>> import torch
        >>> from hw3lib.training import fit
        >>> class Mean:
        ...     metrics = ("loss",)
        ...     num_examples = 4
        ...     data = torch.arange(4.0)
        ...     def draw(self, generator):
        ...         return torch.zeros(4, 1)
        ...     def loss(self, model, index, draws):
        ...         loss = (self.data[index, None] - model.bias).square().mean()
        ...         return loss, loss.detach()[None] * len(index)
        ...     def validate(self, model):
        ...         return {"error": float((model.bias.detach() - 1.5).abs())}
        >>> model = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> objective: Objective = Mean()
        >>> fit(model, objective, optimizer, epochs=1, seed=0, batch_size=4).history[1]["val_error"]
        0.0
    """

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
    """An objective that makes its own batches, such as those of a `DataLoader`.

    Example:
        `Classification` is one; its loader says how many batches there are.

        >>> import torch
        >>> from hw3lib.robust import Classification
        >>> images, labels = torch.rand(6, 3, 4, 4), torch.zeros(6, dtype=torch.long)
        >>> data = torch.utils.data.TensorDataset(images, labels)
        >>> loader = torch.utils.data.DataLoader(data, batch_size=2)
        >>> objective = Classification(loader, loader)
        >>> isinstance(objective, Streamed), objective.num_batches(None)
        (True, 3)
    """

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
