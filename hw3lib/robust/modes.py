"""What a computation borrows from a caller's model and puts back: modes and batch statistics."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

Classifier = Callable[[Tensor], Tensor]
"""Pixels (N, C, H, W) in [0, 1] to logits (N, classes)."""

_lock = threading.Lock()
_borrowed: dict[nn.Module, tuple[int, bool]] = {}
"""Modules that are in use, by how many blocks, and their modes before the first."""


@contextlib.contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """Put a module and all its parts into evaluation mode, and each back into its own.

    Of a function these are the modules that it names (its closure, its globals, its defaults, its
    owner, arguments of a `functools.partial`), of another object those that it holds, also in a
    list or a dictionary; what they call besides is switched just before its forward pass. Of what
    several threads use, the last of them puts each part back.
    """
    with contextlib.ExitStack() as borrowed:

        def borrow(module: nn.Module) -> None:
            parts = list(module.modules())
            _borrow(parts)
            borrowed.callback(_give_back, parts)

        for module in _modules(model):
            borrow(module)
        if not isinstance(model, nn.Module):
            borrowed.enter_context(_before_each_forward(borrow))
        yield


@contextlib.contextmanager
def _before_each_forward(borrow: Callable[[nn.Module], None]) -> Iterator[None]:
    """Borrow each module in training mode that this thread is about to call."""
    thread = threading.get_ident()

    def switch(module: nn.Module, _inputs: object) -> None:
        if module.training and threading.get_ident() == thread:
            borrow(module)

    hook = register_module_forward_pre_hook(switch)
    try:
        yield
    finally:
        hook.remove()


def _borrow(parts: Sequence[nn.Module]) -> None:
    with _lock:
        for part in parts:  # a frozen script has no mode
            users, mode = _borrowed.get(part, (0, getattr(part, "training", False)))
            _borrowed[part] = users + 1, mode
        _evaluate(parts)


def _give_back(parts: Sequence[nn.Module]) -> None:
    with _lock:
        for part in parts:
            users, mode = _borrowed.pop(part)
            if users > 1:
                _borrowed[part] = users - 1, mode
            # By its own method, which may switch more than the flag; parts come after wholes.
            elif getattr(part, "training", False) != mode:
                part.train(mode)
        _evaluate(part for part in parts if part in _borrowed)


def _evaluate(parts: Iterable[nn.Module]) -> None:
    for part in parts:
        if getattr(part, "training", False):
            part.eval()


def _modules(model: object) -> list[nn.Module]:
    """The modules that a classifier is, names or holds."""
    if isinstance(model, nn.Module):
        return [model]
    if isinstance(model, functools.partial):
        inner = _modules(model.func)
        named = [*model.args, *model.keywords.values()]
    elif inspect.ismethod(model):
        inner, named = _modules(model.__self__), []
    elif inspect.isfunction(model):
        inner, used = [], inspect.getclosurevars(model)
        named = [*used.nonlocals.values(), *used.globals.values()]
        named += [*(model.__defaults__ or ()), *(model.__kwdefaults__ or {}).values()]
    else:
        inner, named = [], list(getattr(model, "__dict__", {}).values())
    return list(dict.fromkeys([*inner, *_held(named)]))


def _held(values: Iterable[object]) -> list[nn.Module]:
    """Those of the values that are modules, or lists or dictionaries of some."""
    lists = (
        value.values() if isinstance(value, dict)
        else value if isinstance(value, list | tuple)
        else [value]
        for value in values
    )  # fmt: skip
    return [one for many in lists for one in many if isinstance(one, nn.Module)]


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
