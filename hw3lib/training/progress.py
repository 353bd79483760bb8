"""What training changes, and what it has reached."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger("hw3lib")

State = dict[str, Tensor]


@dataclass(frozen=True)
class Progress:
    """What a run has reached after an epoch; all that a resumed run needs besides its parts.

    Attributes:
        epoch: epochs completed.
        history: one row an epoch, row 0 before training: training metrics (`train_…`, the mean
            over the epoch's examples, None before training) and validation scores (`val_…`).
        best_epoch: the epoch with the lowest selected score; 0, the start, only if there is no
            other.
        best_state: the model's state at that epoch, on the CPU.
        snapshots: the model's states at the asked-for epochs, on the CPU.
        seconds: time spent training, over all resumptions.

    Example:
        >>> Progress(epoch=0, history=[{}], best_epoch=0, best_state={}, snapshots={}).seconds
        0.0
    """

    epoch: int = 0
    history: list[dict[str, float | None]] = field(default_factory=list)
    best_epoch: int = 0
    best_state: State = field(default_factory=dict)
    snapshots: dict[int, State] = field(default_factory=dict)
    seconds: float = 0.0

    def load_best(self, model: nn.Module) -> None:
        """Give a model the weights of the best epoch; `fit` leaves the last ones in it."""
        model.load_state_dict(self.best_state)


@dataclass(frozen=True)
class Parts:
    """What training changes.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> parts = Parts(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> sorted(parts.state()), parts.device
        (['model', 'optimizer'], device(type='cpu'))
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is.

        Raises:
            ValueError: it has no parameters.
        """
        first = next(self.model.parameters(), None)
        if first is None:
            raise ValueError("the model has no parameters, so there is nothing to train")
        return first.device

    def check(self) -> None:
        """Warn of parameters that the optimizer lacks.

        Raises:
            ValueError: it lacks all that are not frozen.
        """
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        free = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        lacking = [name for name, parameter in free.items() if id(parameter) not in held]
        if len(lacking) == len(free):
            raise ValueError(
                "the optimizer has none of this model's parameters that require a gradient, so "
                "nothing would be trained; unfreeze some, and pass model.parameters() to it"
            )
        if lacking:
            told = f"{len(lacking)} of the model's {len(free)} trainable parameters"
            logger.warning("the optimizer lacks %s, such as %s: they stay", told, lacking[0])

    def state(self) -> dict[str, Any]:
        """The states of all parts, by name."""
        return {name: part.state_dict() for name, part in self._present()}

    def _present(self) -> list[tuple[str, Any]]:
        """Model, optimizer and scheduler if there is one; a model without parts counts as false."""
        return [(name, part) for name, part in vars(self).items() if part is not None]

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
        for name, part in self._present():
            part.load_state_dict(state[name])
        if self.device.type == "cpu":  # where a recorded step, which needs it, is no option
            for group in self.optimizer.param_groups:
                if "capturable" in group:
                    group["capturable"] = False


def cpu_state(model: nn.Module) -> State:
    """A copy of the model's state on the CPU, row by row whatever the layout it trains in.

    Example:
        >>> {name: tuple(value.shape) for name, value in cpu_state(nn.Linear(2, 1)).items()}
        {'weight': (1, 2), 'bias': (1,)}
    """
    return {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }
