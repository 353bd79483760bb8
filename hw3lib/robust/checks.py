"""Checks of what attacks and evaluations are given, with messages that say what to do."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hw3lib.robust.balls import Norm, Radius, distance
from hw3lib.robust.modes import Classifier, evaluating


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
) -> Iterator[Tensor]:
    """Check an attack's arguments, and run the block with the model in evaluation mode.

    Args:
        model, x, y, eps, generator: the arguments.
        why: what the generator is needed for; "" if nothing is random.
        probe: look at the logits of the first images; not needed where the block checks its own.

    Yields:
        The images without the caller's graph, outside of inference mode.

    Raises:
        ValueError: see the messages.
        TypeError: images or labels are no tensors, or have the wrong dtype.
    """
    _check_images(x, eps)
    _check_labels(x, y)
    if why and generator is None:
        raise ValueError(f"{why} need a generator; pass generator=torch.Generator().manual_seed(0)")
    if isinstance(model, nn.Module):
        _check_device(model, x)
    with torch.inference_mode(False), evaluating(model):
        x = x.clone() if x.is_inference() else x.detach()
        if probe:
            _check_answers(model, x[:4], y)
        yield x


def _check_images(x: Tensor, eps: Radius) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}; attacks take tensors (torch.as_tensor)")
    if not x.is_floating_point():
        raise TypeError(
            f"x is {x.dtype}; attacks take float pixels in [0, 1] "
            "(hw3lib.data.to_pixels makes them from uint8)"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"x is {x.dtype}, whose steps near 1 are as large as the radii of attacks; pass "
            "x.float(), and let the model compute in half precision by torch.autocast"
        )
    if x.ndim < 2 or not len(x):
        raise ValueError(f"x has shape {tuple(x.shape)}: need a batch of at least one image")
    low, high = (value.item() for value in x.detach().aminmax())
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
    if not isinstance(y, Tensor):
        raise TypeError(f"labels are a {type(y).__name__}; they must be a tensor (torch.as_tensor)")
    if y.shape != (len(x),):
        hint = "; if they are one-hot, pass y.argmax(1)" if y.ndim == 2 else ""
        raise ValueError(
            f"{len(x)} images, but labels of shape {tuple(y.shape)}; need one each{hint}"
        )
    if y.dtype != torch.int64:
        raise TypeError(f"labels are {y.dtype}; they must be int64 class numbers (y.long())")


def _check_device(model: nn.Module, x: Tensor) -> None:
    parameter = next(model.parameters(), None)
    if parameter is not None and parameter.device != x.device:
        raise ValueError(
            f"the model is on {parameter.device}, x on {x.device}; move one of them with .to()"
        )


def _check_answers(model: Classifier, x: Tensor, y: Tensor) -> None:
    try:
        with torch.no_grad():
            logits = model(x.clone())
    except Exception as error:
        last = " (channels last; models take N, C, H, W)" if x.shape[-1] in (1, 3) else ""
        error.add_note(f"This came from the model, given pixels of shape {tuple(x.shape)}{last}.")
        raise
    check_logits(logits, y, len(x))


def check_logits(logits: Tensor, y: Tensor, num: int | None = None) -> None:
    """Check what a model returns.

    Args:
        logits: of some images.
        y: labels, of these or more images.
        num: how many images the model was given, where that is known.

    Raises:
        TypeError: it is no tensor.
        ValueError: see the messages.
    """
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model returns a {type(logits).__name__}; need a tensor of logits (N, classes): "
            "pass a function that picks it, such as lambda x: model(x)[0]"
        )
    classes = logits.shape[-1]
    if logits.ndim != 2 or classes < 2:
        raise ValueError(
            f"the model returns shape {tuple(logits.shape)}; need logits (N, classes) of two or "
            "more classes"
        )
    if num is not None and len(logits) != num:
        raise ValueError(f"the model returns logits of {len(logits)} images for {num}")
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


def check_inside(x: Tensor, images: Tensor, eps: Radius, norm: Norm, attack: object) -> None:
    """Refuse what an attack of the caller's own makes outside of its ball.

    Raises:
        ValueError: the change of an image, or of a channel of one, exceeds the radius.
    """
    if isinstance(eps, tuple):
        changes = (images - x).abs().amax((0, 2, 3)).tolist()
    else:
        changes = [float(distance(x, images, norm).max())]
    for change, allowed in zip(changes, _each(eps), strict=True):
        if not change <= allowed * (1 + 1e-5) + 1e-6:
            raise ValueError(
                f"{attack} changed an image by {change:.4g}, but its radius is {allowed:.4g}; "
                "what leaves the ball proves nothing about it"
            )


def checked_pair(batch: Any) -> tuple[Tensor, Tensor]:
    """A batch of a loader as images and labels.

    Raises:
        TypeError: it is something else.
    """
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not (pair and all(isinstance(part, Tensor) for part in batch) and batch[1].ndim):
        raise TypeError(
            "a batch has to be a pair of tensors, images (N, C, H, W) and labels (N,), such as a "
            f"DataLoader gives; this is a {type(batch).__name__} of something else"
        )
    return batch[0], batch[1]


def checked_radius(eps: Any, norm: Norm = "linf") -> Radius:
    """A radius in pixels of [0, 1] as a number, or one number a channel.

    Raises:
        TypeError: it is neither.
        ValueError: it is negative, NaN, or so large that it allows any image.
    """
    size = _numbers("eps", eps)
    if norm == "l2" and isinstance(size, tuple):
        raise ValueError(f"eps={size}: an L2 ball has one radius, not one for each channel")
    for value in _each(size):
        if not 0 <= value < math.inf:
            raise ValueError(f"eps={size}: a radius cannot be negative or NaN")
        if value >= 1 and norm == "linf":
            raise ValueError(
                f"eps={size}: pixels lie in [0, 1], so this allows any image; "
                f"did you mean {value:g}/255?"
            )
    return size


def checked_step(step: Any, eps: Radius, norm: Norm = "linf") -> Radius:
    """The size of a step as a number, or one number for each channel of the radius.

    Raises:
        TypeError: it is neither.
        ValueError: it is not positive and finite, or has other channels than the radius.
    """
    size = _numbers("step", step)
    if norm == "l2" and isinstance(size, tuple):
        raise ValueError(f"step={size}: an L2 step has one length, not one for each channel")
    for value in _each(size):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"step={size}: the size of a step must be positive and finite")
    if isinstance(size, tuple) and isinstance(eps, tuple) and len(size) != len(eps):
        raise ValueError(f"step={size} has {len(size)} channels, eps={eps} has {len(eps)}")
    return size


def checked_count(name: str, value: object) -> int:
    """A whole number of at least 1, also one of NumPy's.

    Raises:
        TypeError, ValueError: see the messages.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}: it must be a whole number")
    if value < 1:
        raise ValueError(f"{name}={value}: an attack needs at least 1")
    return int(value)


def check_number(name: str, value: object, what: str, highest: float) -> None:
    """Refuse what is no finite number from 0 to the highest.

    Raises:
        TypeError, ValueError: see the messages.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r}: it must be a number")
    if not (0 <= float(value) <= highest and math.isfinite(value)):
        raise ValueError(f"{name}={value}: {what} lies in [0, {highest:g}]")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: it must be True or False")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse what is not among the choices.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, choices))}")


def _each(size: Radius) -> tuple[float, ...]:
    return size if isinstance(size, tuple) else (size,)


def _numbers(name: str, size: Any) -> Radius:
    """A number, or a tuple of some; from tensors and arrays, too."""
    if isinstance(size, float | int) and not isinstance(size, bool):
        return size
    try:
        values = np.asarray(size.detach().cpu() if isinstance(size, Tensor) else size)
        if values.ndim < 2 and values.size and values.dtype.kind in "fiu":
            numbers: Any = values.astype(np.float64).tolist()
            return numbers if values.ndim == 0 else tuple(numbers)
    except (TypeError, ValueError):
        pass  # told below, as anything else that is no number
    raise TypeError(f"{name}={size!r}: it must be a number, or one number for each channel")
