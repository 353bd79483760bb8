"""Checks of what attacks and evaluations are given, with messages that say what to do."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hw3lib.robust.modes import Classifier, evaluating

Radius = float | tuple[float, ...]
"""One number for all channels, or one for each."""


@contextlib.contextmanager
def checked(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    eps: Radius,
    generator: torch.Generator | None,
    why: str,
    *,
    probe: bool = True,
) -> Iterator[None]:
    """Check an attack's arguments, and run the block with the model in evaluation mode.

    Args:
        model, x, y, eps, generator: the arguments.
        why: what the generator is needed for; "" if nothing is random.
        probe: look at the logits of the first images; not needed where the block checks its own.

    Raises:
        ValueError: see the messages.
        TypeError: images or labels have the wrong dtype.
    """
    _check_images(x, eps)
    _check_labels(x, y)
    if why and generator is None:
        raise ValueError(f"{why} need a generator; pass generator=torch.Generator().manual_seed(0)")
    if isinstance(model, nn.Module):
        _check_device(model, x)
    with evaluating(model):
        if probe:
            with torch.no_grad():
                check_logits(model(x[:4]), y)
        yield


def _check_images(x: Tensor, eps: Radius) -> None:
    if not x.is_floating_point():
        raise TypeError(
            f"x is {x.dtype}; attacks take float pixels in [0, 1] "
            "(hw3lib.data.to_pixels makes them from uint8)"
        )
    if x.ndim < 2 or not len(x):
        raise ValueError(f"x has shape {tuple(x.shape)}: need a batch of at least one image")
    low, high = (value.item() for value in x.aminmax())
    if not math.isfinite(low + high):
        raise ValueError("x has pixels that are NaN or infinite")
    if low < 0 or high > 1:
        hint = (
            "so it looks normalised; pixels must be in [0, 1] (the model normalises by itself)"
            if low < 0
            else "but pixels must be in [0, 1]; divide 8-bit pixels by 255"
        )
        raise ValueError(f"x spans [{low:.3g}, {high:.3g}], {hint}")
    if isinstance(eps, tuple) and (x.ndim != 4 or len(eps) != x.shape[1]):
        raise ValueError(f"eps has {len(eps)} channels, x has shape {tuple(x.shape)}")


def _check_labels(x: Tensor, y: Tensor) -> None:
    if y.dtype != torch.int64:
        raise TypeError(f"labels are {y.dtype}; they must be int64 class numbers (y.long())")
    if y.shape != (len(x),):
        raise ValueError(f"{len(x)} images, but labels of shape {tuple(y.shape)}; need one each")


def _check_device(model: nn.Module, x: Tensor) -> None:
    parameter = next(model.parameters(), None)
    if parameter is not None and parameter.device != x.device:
        raise ValueError(
            f"the model is on {parameter.device}, x on {x.device}; move one of them with .to()"
        )


def check_logits(logits: Tensor, y: Tensor) -> None:
    """Check what a model returns.

    Args:
        logits: of some images.
        y: labels, of these or more images.

    Raises:
        ValueError: see the messages.
    """
    classes = logits.shape[-1]
    if logits.ndim != 2 or classes < 2:
        raise ValueError(
            f"the model returns shape {tuple(logits.shape)}; need logits (N, classes) of two or "
            "more classes"
        )
    if not logits.isfinite().all():
        raise ValueError("the model returns NaN or infinite logits for these images")
    if (logits >= 0).all() and (logits.float().sum(1) - 1).abs().max() < 1e-4:
        raise ValueError(
            "the model's outputs sum to one, so they are probabilities, whose gradients vanish "
            "where the model is sure; pass a model that returns logits (leave the softmax out)"
        )
    low, high = (value.item() for value in y.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(f"labels span [{low}, {high}], but the model has {classes} classes")


def check_radius(name: str, eps: Radius) -> None:
    """Refuse what is no radius in pixels of [0, 1].

    Raises:
        ValueError: it is negative, NaN, or 1 or more.
    """
    for value in eps if isinstance(eps, tuple) else (eps,):
        if not value >= 0:
            raise ValueError(f"{name}={eps}: a radius cannot be negative or NaN")
        if value >= 1:
            raise ValueError(
                f"{name}={eps}: pixels lie in [0, 1], so this allows any image; "
                f"did you mean {value:g}/255?"
            )


def check_step(step: Radius) -> None:
    """Refuse what is no size of a step.

    Raises:
        ValueError: it is not positive and finite.
    """
    for value in step if isinstance(step, tuple) else (step,):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"step={step}: the size of a step must be positive and finite")
