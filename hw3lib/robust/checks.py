"""Checks of what attacks and evaluations are given, with messages that say what to do."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from hw3lib.data import to_pixels
from hw3lib.robust.balls import Norm, Radius, distance, like
from hw3lib.robust.modes import Classifier, evaluating

BY_CHANCE = 20
"""So few outputs may all lie in [0, 1] though they are logits."""


@contextlib.contextmanager
def checked(
    model: Classifier, x: Tensor, y: Tensor, eps: Radius = 0.0, *, probe: bool = True
) -> Iterator[Tensor]:
    """Check an attack's arguments, and run the block with the model in evaluation mode.

    Args:
        model, x, y, eps: the arguments.
        probe: look at the logits of the first images; not needed where the block checks its own.

    Yields:
        The images without the caller's graph, outside of inference mode.
    """
    if not callable(model) or isinstance(model, type):
        name = getattr(model, "__name__", type(model).__name__)
        raise TypeError(f"a model is called with pixels and returns logits; this is a {name}")
    check_batch(x, y, eps)
    weight = first_weight(model)
    if weight is not None and weight.device != x.device:
        raise ValueError(
            f"the model is on {weight.device}, x on {x.device}; move one of them with .to()"
        )
    with torch.inference_mode(False), evaluating(model):
        x = x.clone() if x.is_inference() else x.detach()
        if probe:
            check_logits(answers(model, x[:4]), y, len(x[:4]))
        yield x


def check_batch(x: Tensor, y: Tensor, eps: Radius = 0.0) -> None:
    """Refuse what are no images (N, ...) in [0, 1] with their labels (N,)."""
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
    if not isinstance(y, Tensor):
        raise TypeError(f"labels are a {type(y).__name__}; they must be a tensor (torch.as_tensor)")
    if y.shape != (len(x),):
        hint = "; if they are one-hot, pass y.argmax(1)" if y.ndim == 2 else ""
        raise ValueError(
            f"{len(x)} images, but labels of shape {tuple(y.shape)}; need one each{hint}"
        )
    if y.dtype != torch.int64:
        raise TypeError(f"labels are {y.dtype}; they must be int64 class numbers (y.long())")


def first_weight(model: Classifier) -> Tensor | None:
    """One of a network's parameters, which tells where and in what precision it computes."""
    return next(model.parameters(), None) if isinstance(model, nn.Module) else None


def answers(model: Classifier, x: Tensor) -> Tensor:
    """What a model makes of a copy of images, without a graph; an error says what it was given."""
    try:
        with torch.no_grad():
            return model(x.clone())  # a copy, for models that work in place
    except Exception as error:
        error.add_note(_given(model, x))
        raise


def _given(model: Classifier, x: Tensor) -> str:
    hint, weight = "", first_weight(model)
    if x.ndim == 3:
        hint = " (no channels; models take N, C, H, W: pass x[:, None])"
    elif x.shape[-1] in (1, 3):
        hint = " (channels last; models take N, C, H, W: pass x.movedim(-1, 1))"
    told = f"This came from the model, given pixels of shape {tuple(x.shape)}{hint}."
    if weight is None or weight.dtype == x.dtype:
        return told
    ways = {torch.float32: "x.float()", torch.float64: "x.double()"}
    way = ways.get(weight.dtype, "model.float(), and let it compute in half by torch.autocast")
    return f"{told} Images are {x.dtype}, the model's weights {weight.dtype}: pass {way}."


def check_logits(logits: Tensor, y: Tensor, num: int) -> None:
    """Check what a model returns for so many images, whose labels are among y.

    Warns where all are in [0, 1], as those of a sigmoid.
    """
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model returns a {type(logits).__name__}; need a tensor of logits (N, classes): "
            f"pass a function that picks it, such as lambda x: {_picked(logits)}"
        )
    classes = logits.shape[-1]
    if logits.ndim != 2 or classes < 2:
        raise ValueError(
            f"the model returns shape {tuple(logits.shape)}; need logits (N, classes) of two or "
            "more classes"
        )
    if len(logits) != num:
        raise ValueError(f"the model returns logits of {len(logits)} images for {num}")
    low, high = (value.item() for value in logits.aminmax())
    if not math.isfinite(low + high):
        raise ValueError("the model returns NaN or infinite logits for these images")
    if low >= 0 and (logits.float().sum(1) - 1).abs().max() < 1e-4:
        raise ValueError(
            "the model's outputs sum to one, so they are probabilities, whose gradients vanish "
            "where the model is sure; pass a model that returns logits (leave the softmax out)"
        )
    if low >= 0 and high <= 1 and logits.numel() >= BY_CHANCE:
        warnings.warn(
            "all outputs of the model lie in [0, 1]; if they come from a sigmoid, its gradients "
            "vanish where the model is sure, and it looks robust: pass a model that leaves it out",
            stacklevel=2,
        )
    low, high = (value.item() for value in y.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(f"labels span [{low}, {high}], but the model has {classes} classes")


def _picked(answer: object) -> str:
    """An expression that may pick the logits from what a model returns."""
    if hasattr(answer, "logits"):
        return "model(x).logits"
    if isinstance(answer, Mapping):
        key = next(iter(answer), "logits")
        return f"model(x)[{'logits' if 'logits' in answer else key!r}]"
    return "torch.as_tensor(model(x))" if isinstance(answer, np.ndarray) else "model(x)[0]"


def inside(x: Tensor, images: Tensor, eps: Radius, norm: Norm) -> Tensor:
    """Where images (N, ...) are in the ball around x, but for rounding, (N,) bool."""
    return (_changes(x, images, eps, norm) <= like(eps, x).flatten() * (1 + 1e-5) + 1e-6).all(1)


def check_inside(x: Tensor, images: Tensor, eps: Radius, norm: Norm, attack: object) -> None:
    """Refuse what an attack makes outside of the pixel range, or of its ball (ValueError)."""
    low, high = (value.item() for value in images.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{attack} made images that span [{low:.3g}, {high:.3g}]; pixels are in [0, 1]"
        )
    if not inside(x, images, eps, norm).all():
        far = _changes(x, images, eps, norm).amax(0).tolist()
        change, allowed = max(zip(far, _each(eps), strict=True), key=lambda two: two[0] - two[1])
        raise ValueError(
            f"{attack} changed an image by {change:.4g}, but its radius is {allowed:.4g}; "
            "what leaves the ball proves nothing about it"
        )


def _changes(x: Tensor, images: Tensor, eps: Radius, norm: Norm) -> Tensor:
    """How far images moved, (N, 1), or each of their channels, (N, C)."""
    if isinstance(eps, tuple):
        return (images - x).abs().amax((2, 3))
    return distance(x, images, norm)[:, None]


def as_pixels(x: Tensor) -> Tensor:
    """Images without a graph of the caller's; those of 8 bits as pixels in [0, 1]."""
    return to_pixels(x) if x.dtype == torch.uint8 else x.detach()


def needed(generator: torch.Generator | None, why: str) -> torch.Generator:
    """The generator, where something is random."""
    if generator is None:
        raise ValueError(f"{why} need a generator; pass generator=torch.Generator().manual_seed(0)")
    return generator


def checked_pair(batch: Any) -> tuple[Tensor, Tensor]:
    """A batch of a loader as images and labels (TypeError if it is something else)."""
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not (pair and all(isinstance(part, Tensor) for part in batch) and batch[1].ndim):
        raise TypeError(
            "a batch has to be a pair of tensors, images (N, C, H, W) and labels (N,), such as a "
            f"DataLoader gives; this is {_seen(batch)}"
        )
    return batch[0], batch[1]


def _seen(batch: Any) -> str:
    if isinstance(batch, Mapping):
        pair = ", ".join(f"batch[{key!r}]" for key in list(batch)[:2])
        keys = ", ".join(map(str, batch))
        return f"a dict with keys {keys}; pass [({pair}) for batch in loader]"
    if isinstance(batch, tuple | list):
        kinds = ", ".join(type(part).__name__ for part in batch)
        way = "[batch[:2] for batch in loader]" if len(batch) > 2 else "a DataLoader of them"
        return f"a {type(batch).__name__} of something else ({kinds}); pass {way}"
    return f"a {type(batch).__name__}"


def checked_norm(norm: Any) -> Norm:
    """A norm, also if it is written with capitals (ValueError for any other)."""
    name = norm.lower() if isinstance(norm, str) else norm
    check_choice("norm", name, ("linf", "l2"))
    return cast(Norm, name)


def checked_radius(eps: Any, norm: Norm = "linf") -> Radius:
    """A radius in pixels of [0, 1] as a number, or one number a channel."""
    size = _numbers("eps", eps, norm)
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
    """The size of a step, or one for each channel of the radius; warns if it is large."""
    size = _numbers("step", step, norm)
    if not all(0 < value < math.inf for value in _each(size)):
        raise ValueError(f"step={size}: the size of a step must be positive and finite")
    if norm == "linf" and max(_each(size)) >= 1:
        warnings.warn(
            f"step={size}: pixels lie in [0, 1], so each step crosses all of them; "
            f"did you mean {max(_each(size)):g}/255?",
            stacklevel=2,
        )
    if isinstance(size, tuple) and isinstance(eps, tuple) and len(size) != len(eps):
        raise ValueError(f"step={size} has {len(size)} channels, eps={eps} has {len(eps)}")
    return size


def checked_count(name: str, value: object) -> int:
    """A whole number of at least 1, also one of NumPy's (else TypeError or ValueError)."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}: it must be a whole number")
    if value < 1:
        raise ValueError(f"{name}={value}: an attack needs at least 1")
    return int(value)


def check_number(name: str, value: object, what: str, highest: float) -> None:
    """Refuse what is no finite number from 0 to the highest (TypeError or ValueError)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r}: it must be a number")
    if not (0 <= float(value) <= highest and math.isfinite(value)):
        raise ValueError(f"{name}={value}: {what} lies in [0, {highest:g}]")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False (TypeError)."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: it must be True or False")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse what is not among the choices (ValueError)."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, choices))}")


def _each(size: Radius) -> tuple[float, ...]:
    return size if isinstance(size, tuple) else (size,)


def _numbers(name: str, size: Any, norm: Norm) -> Radius:
    """A number, or one for each channel of an L-infinity ball; from tensors and arrays, too."""
    array = np.asarray(size.detach().cpu() if isinstance(size, Tensor) else size)
    if array.ndim > 1 or not array.size or array.dtype.kind not in "fiu":
        raise TypeError(f"{name}={size!r}: it must be a number, or one number for each channel")
    if array.ndim and norm == "l2":
        raise ValueError(f"{name}={size}: in L2 it is one length, not one for each channel")
    numbers: Any = array.tolist()
    return tuple(numbers) if array.ndim else numbers
