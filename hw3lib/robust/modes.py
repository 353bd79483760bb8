"""What a computation borrows from a caller's model and puts back: modes and batch statistics."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

Classifier = Callable[[Tensor], Tensor]
"""Pixels (N, C, H, W) in [0, 1] to logits (N, classes)."""

_lock = threading.Lock()
_borrowed: dict[nn.Module, tuple[int, list[tuple[nn.Module, bool]]]] = {}
"""Modules that are in use, by how many blocks, and the modes of their parts before the first."""


@contextlib.contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """Put a module and all its parts into evaluation mode, and each back into its own.

    Of a function these are the modules that it names (its closure, its globals, its owner), also in
    a list. Where several threads use a module, the last of them puts it back.
    """
    with contextlib.ExitStack() as borrowed:
        for module in _modules(model):
            _borrow(module)
            borrowed.callback(_give_back, module)
        yield


def _borrow(module: nn.Module) -> None:
    with _lock:
        users, modes = _borrowed.get(module, (0, []))
        if not users:
            # A frozen script has no mode.
            modes = [(part, getattr(part, "training", False)) for part in module.modules()]
            if any(training for _, training in modes):
                module.eval()
        _borrowed[module] = users + 1, modes


def _give_back(module: nn.Module) -> None:
    with _lock:
        users, modes = _borrowed.pop(module)
        if users > 1:
            _borrowed[module] = users - 1, modes
            return
        for part, training in modes:
            # By its own method, which may switch more than the flag; parts come after wholes.
            if getattr(part, "training", False) != training:
                part.train(training)


def _modules(model: Classifier) -> list[nn.Module]:
    """The modules that a classifier is, or names."""
    while isinstance(model, functools.partial):
        model = model.func
    if isinstance(model, nn.Module):
        return [model]
    if inspect.ismethod(model) and isinstance(model.__self__, nn.Module):
        return [model.__self__]
    if not inspect.isfunction(model):
        return []
    named = inspect.getclosurevars(model)
    values = [*named.nonlocals.values(), *named.globals.values()]
    lists = [value if isinstance(value, list | tuple) else [value] for value in values]
    return list(dict.fromkeys(one for many in lists for one in many if isinstance(one, nn.Module)))


@contextlib.contextmanager
def keeping_statistics(model: nn.Module) -> Iterator[None]:
    """Let norms use the statistics of each batch without learning them, and keep all buffers."""
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    learnt = {buffer for norm in norms for buffer in norm.buffers()}
    others = [(buffer, buffer.clone()) for buffer in model.buffers() if buffer not in learnt]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm, was_tracked in zip(norms, tracked, strict=True):
            norm.track_running_stats = was_tracked
        with torch.no_grad():
            for buffer, before in others:
                buffer.copy_(before)
