"""A training step that is recorded once and then replayed, for GPUs.

A step of a small network is hundreds of kernels, and to launch each from Python takes longer than
it runs. A CUDA graph holds all of them and is launched as one. What changes from step to step, the
batch and the learning rates, lies in buffers that stay where they are.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

logger = logging.getLogger("hw3lib")

WARM_UP = 3
"""Steps before the recording; libraries choose their algorithms, the optimizer makes its state."""


def cuda_graph(body: Callable[[], None]) -> Callable[[], None]:
    """Record the kernels that a function launches, without running them."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay


class Replayed:
    """A step that is recorded after `WARM_UP` calls and replayed from then on.

    A batch of another shape than the first, such as the ragged last one of an epoch, is computed
    step by step, and so is everything if the recording fails; the log says why.

    Args:
        body: the step on the tensors of a batch; it calls `optimizer.step()`, and everything else
            that it reads and writes stays where it is.
        optimizer: its learning rates may change between steps, as plain numbers.
        device: of the batches.
        record: from a function, which it need not call, to what replays it.
    """

    def __init__(
        self,
        body: Callable[..., None],
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        record: Callable[[Callable[[], None]], Callable[[], None]] = cuda_graph,
    ) -> None:
        self._body, self._optimizer, self._record = body, optimizer, record
        self._rates = [torch.zeros((), device=device) for _ in optimizer.param_groups]
        self._buffers: tuple[Tensor, ...] = ()
        self._replay: Callable[[], None] | None = None
        self._left = WARM_UP  # calls before the recording

    def __call__(self, *batch: Tensor) -> None:
        for rate, group in zip(self._rates, self._optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        if not self._buffers:
            self._buffers = tuple(part.clone() for part in batch)
        if [part.shape for part in batch] != [part.shape for part in self._buffers]:
            self._eagerly(batch)
        elif self._replay:
            for buffer, part in zip(self._buffers, batch, strict=True):
                buffer.copy_(part)
            self._replay()
        else:
            self._eagerly(batch)
            self._left -= 1
            if self._left == 0:  # once
                self._try_to_record()

    def _eagerly(self, batch: tuple[Tensor, ...]) -> None:
        with self._rates_on_device(), _beside():
            self._body(*batch)

    def _try_to_record(self) -> None:
        try:
            with self._rates_on_device():
                self._replay = self._record(lambda: self._body(*self._buffers))
        except RuntimeError as error:
            logger.warning("steps are not recorded, and so slower: %s", error)

    @contextlib.contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        """Let the optimizer read its learning rates from the buffers."""
        groups = self._optimizer.param_groups
        numbers = [group["lr"] for group in groups]
        try:
            for group, rate in zip(groups, self._rates, strict=True):
                group["lr"] = rate
                if "capturable" in group and rate.is_cuda:
                    group["capturable"] = True
            yield
        finally:
            for group, number in zip(groups, numbers, strict=True):
                group["lr"] = number


@contextlib.contextmanager
def _beside() -> Iterator[None]:
    """Work on another stream than the current one, as a recording will."""
    if not torch.cuda.is_available():
        yield
        return
    here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        yield
    here.wait_stream(beside)
