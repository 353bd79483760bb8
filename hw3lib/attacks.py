"""Attacks on classifiers within an L-infinity ball around each image.

An attack is a frozen setting; images and labels come at the call: `PGD(eps=8/255)(model, x, y)`.
Pixels lie in [0, 1] and so do radii; `from_normalized` takes the course's units. What the caller
owns stays as it was: parameters and their gradients, modes of modules, buffers, the tensors, and
global random state, also after an exception.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw3lib import memory
from hw3lib.resnet import CIFAR10_STD

Classifier = Callable[[Tensor], Tensor]
"""Pixels (N, C, H, W) in [0, 1] to logits (N, classes)."""

Radius = float | tuple[float, ...]
"""One number for all channels, or one for each."""


class Attack(Protocol):
    """What makes adversarial images."""

    @property
    def eps(self) -> Radius:
        """Largest change of a pixel."""
        ...

    def __call__(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial images (N, C, H, W), after checking the arguments."""
        ...

    def perturb(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The same without checks, on the model in the mode it is in; for inner loops."""
        ...


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest logit of another class less that of `y`, (N,): positive where it is wrong."""
    others = logits.scatter(1, y[:, None], -math.inf).amax(1)
    return others - logits.gather(1, y[:, None]).squeeze(1)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy in nats, (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


def negative_logit(logits: Tensor, y: Tensor) -> Tensor:
    """Less the logit of `y`, (N,): what the negative log-likelihood is of raw logits."""
    return -logits.gather(1, y[:, None]).squeeze(1)


LOSSES = {"cross_entropy": cross_entropy, "margin": margin, "negative_logit": negative_logit}
Loss = Literal["cross_entropy", "margin", "negative_logit"]


def input_gradient(
    model: Classifier, x: Tensor, y: Tensor, loss: Loss = "cross_entropy"
) -> tuple[Tensor, Tensor]:
    """Gradient of each image's loss with respect to its pixels, (N, C, H, W), and the logits.

    One forward and one backward pass that leaves the parameters out.

    Raises:
        ValueError: the logits carry no gradient.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        if not logits.requires_grad:
            raise ValueError(
                "the model's logits carry no gradient, and the attack follows the gradient; "
                "take torch.no_grad, inference_mode or detach out of the model"
            )
        (gradient,) = torch.autograd.grad(LOSSES[loss](logits.float(), y).sum(), x)
    return gradient, logits.detach()


@dataclass(frozen=True)
class SignNoise:
    """Random signs of size eps on every pixel: what an attack has to beat."""

    eps: Radius
    kind: Literal["sign_noise"] = field(default="sign_noise", repr=False)

    def __post_init__(self) -> None:
        _check_radius("eps", self.eps)

    @classmethod
    def from_normalized(cls, eps: float, std: Sequence[float] = CIFAR10_STD) -> Self:
        """The same change in units of the normalised input."""
        return cls(eps=_to_pixels(eps, std))

    def __call__(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Noisy images; see `Attack`."""
        with checked(model, x, y, self.eps, generator, "random signs"):
            return self.perturb(model, x, y, generator=generator)

    def perturb(
        self,
        model: Classifier,  # noqa: ARG002 - noise looks at no model
        x: Tensor,
        y: Tensor,  # noqa: ARG002
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Noisy images without checks."""
        signs = torch.randint(0, 2, x.shape, generator=generator, dtype=torch.int8)
        return (x + _like(self.eps, x) * (2 * signs.to(x.device) - 1)).clamp(0, 1)


@dataclass(frozen=True)
class PGD:
    """Projected gradient steps of equal size (Madry et al. 2018).

    Attributes:
        eps: radius of the ball.
        steps: gradient steps.
        step: their size; by default 2.5 eps / steps.
        random_start: begin at a uniform point of the ball instead of the image.
        restarts: runs from different starts, of which each image keeps its best.
        keep: "last" returns the last point of a run, "best" the one with the largest margin of
            a wrong class, so that more steps never help the defender.
        targeted: the labels are those to reach.
        loss: what the steps increase (decrease, if targeted).
    """

    eps: Radius
    steps: int = 10
    step: Radius | None = None
    random_start: bool = False
    restarts: int = 1
    keep: Literal["last", "best"] = "last"
    targeted: bool = False
    loss: Loss = "cross_entropy"
    kind: Literal["pgd"] = field(default="pgd", repr=False)

    def __post_init__(self) -> None:
        _check_radius("eps", self.eps)
        if self.step is not None:
            _check_step(self.step)
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: an attack needs at least 1")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                f"restarts={self.restarts} from the same start would all be equal; "
                "set random_start=True"
            )

    @classmethod
    def from_normalized(
        cls,
        eps: float,
        *,
        step: float | None = None,
        std: Sequence[float] = CIFAR10_STD,
        **options: Any,
    ) -> Self:
        """Radius and step in units of the normalised input: a pixel changes by eps * std."""
        size = None if step is None else _to_pixels(step, std)
        return cls(eps=_to_pixels(eps, std), step=size, **options)

    @property
    def step_size(self) -> Radius:
        """The size of a step that is used."""
        if self.step is not None:
            return self.step
        if isinstance(self.eps, tuple):
            return tuple(2.5 * eps / self.steps for eps in self.eps)
        return 2.5 * self.eps / self.steps

    def __call__(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial images; see `Attack`. The generator draws the random starts."""
        needed = "random starts" if self.random_start else ""
        with checked(model, x, y, self.eps, generator, needed):
            return self.perturb(model, x, y, generator=generator)

    def perturb(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial images without checks, on the model in the mode it is in."""
        best, highest = x, torch.full((len(x),), -math.inf, device=x.device)
        for _ in range(self.restarts):
            for point, logits in self._candidates(model, x, y, generator):
                if logits is None:
                    return point
                gain = self._gain(logits, y)
                better = gain > highest
                best = torch.where(better[:, None, None, None], point, best)
                highest = torch.where(better, gain, highest)
        return best.detach()

    def steps_to_fool(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        judge: Classifier | None = None,
    ) -> Tensor:
        """How many steps fool the model on each image, (N,) int64, whatever `keep` says.

        0 where it is wrong before the first step, `steps + 1` where no step of any restart fools
        it. An image that is fooled is not attacked further, so this is cheaper than `__call__`.

        Args:
            model, x, y, generator: as in `__call__`.
            judge: another model, which has to be fooled besides, and alone by the last step.
        """
        needed = "random starts" if self.random_start else ""
        last = model if judge is None else judge
        with checked(model, x, y, self.eps, generator, needed), evaluating(last):
            taken = torch.full((len(x),), self.steps + 1, device=x.device)
            for _ in range(self.restarts):
                start = self._start(x, generator)
                active = (taken > self.steps).nonzero().squeeze(1)
                taken[active] = self._race(model, x[active], y[active], start[active], last)
            return taken

    def _race(
        self, model: Classifier, x: Tensor, y: Tensor, start: Tensor, judge: Classifier
    ) -> Tensor:
        """Steps that fool each image from these starts; images drop out once they are fooled."""
        taken = torch.full((len(x),), self.steps + 1, device=x.device)
        lower, upper = bounds(x, self.eps)
        active, point = torch.arange(len(x), device=x.device), start
        for count in range(self.steps + 1):
            if not len(active):
                break
            if count < self.steps:
                gradient, logits = input_gradient(model, point, y, self.loss)
            else:
                with torch.no_grad():
                    logits = judge(point)
            # Not the sign of the gain: rounded logits can tie, and argmax decides ties.
            fooled = (logits.argmax(1) == y) == self.targeted
            if judge is not model and count < self.steps and fooled.any():
                with torch.no_grad():
                    verdict = judge(point[fooled]).argmax(1)
                fooled[fooled.clone()] = (verdict == y[fooled]) == self.targeted
            taken[active[fooled]] = count
            if count < self.steps:
                stays = ~fooled
                active, y, lower, upper = active[stays], y[stays], lower[stays], upper[stays]
                point = self._move(point[stays], gradient[stays], lower, upper)
        return taken

    def _candidates(
        self, model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Points of one run that may be returned, with their logits where these are compared."""
        lower, upper = bounds(x, self.eps)
        point = self._start(x, generator)
        for _ in range(self.steps):
            gradient, logits = input_gradient(model, point, y, self.loss)
            if self.keep == "best":
                yield point, logits
            point = self._move(point, gradient, lower, upper)
        if self.keep == "last" and self.restarts == 1:
            yield point, None
        else:
            with torch.no_grad():
                yield point, model(point)

    def _start(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.random_start:
            return x
        uniform = 2 * torch.rand(x.shape, generator=generator).to(x) - 1
        return (x + _like(self.eps, x) * uniform).clamp(0, 1)

    def _move(self, x: Tensor, gradient: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        direction = -gradient.sign() if self.targeted else gradient.sign()
        x = x + _like(self.step_size, x) * direction
        return x.clamp(lower, upper)

    def _gain(self, logits: Tensor, y: Tensor) -> Tensor:
        """Positive where the attack has what it wants."""
        gap = margin(logits.float(), y)
        return -gap if self.targeted else gap


@dataclass(frozen=True)
class FGSM:
    """One step to the corner of the ball that the gradient's sign names (Goodfellow et al. 2015).

    Attributes:
        eps, targeted, loss: as in `PGD`, which this is with one step of size eps.
    """

    eps: Radius
    targeted: bool = False
    loss: Loss = "cross_entropy"
    kind: Literal["fgsm"] = field(default="fgsm", repr=False)

    def __post_init__(self) -> None:
        _check_radius("eps", self.eps)

    @classmethod
    def from_normalized(
        cls, eps: float, *, std: Sequence[float] = CIFAR10_STD, **options: Any
    ) -> Self:
        """The same change in units of the normalised input: a pixel changes by eps * std."""
        return cls(eps=_to_pixels(eps, std), **options)

    def __call__(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial images; see `Attack`. Nothing is random here."""
        return self._as_pgd(model, x, y, generator=generator)

    def perturb(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial images without checks, on the model in the mode it is in."""
        return self._as_pgd.perturb(model, x, y, generator=generator)

    def steps_to_fool(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """0 where the model is wrong before the step, 1 where the step fools it, else 2, (N,)."""
        return self._as_pgd.steps_to_fool(model, x, y, generator=generator)

    @property
    def _as_pgd(self) -> PGD:
        # A step of 1 leaves the ball from everywhere in it, and is projected to its corner.
        return PGD(self.eps, steps=1, step=1.0, targeted=self.targeted, loss=self.loss)


def bounds(x: Tensor, eps: Radius) -> tuple[Tensor, Tensor]:
    """Least and greatest allowed pixels: the ball around x, cut by [0, 1]."""
    size = _like(eps, x)
    return (x - size).clamp(min=0), (x + size).clamp(max=1)


@contextlib.contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """Put a module and all its parts into evaluation mode, and each back into its own."""
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def approximated(model: Classifier) -> Classifier:
    """What attacks look at: a model's own `approximation()` if it has one, else the model."""
    own = getattr(model, "approximation", None)
    return own() if own else model


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
    with memory.kept(), evaluating(model):
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


def _check_radius(name: str, eps: Radius) -> None:
    for value in eps if isinstance(eps, tuple) else (eps,):
        if not value >= 0:
            raise ValueError(f"{name}={eps}: a radius cannot be negative or NaN")
        if value >= 1:
            raise ValueError(
                f"{name}={eps}: pixels lie in [0, 1], so this allows any image; "
                f"did you mean {value:g}/255?"
            )


def _check_step(step: Radius) -> None:
    for value in step if isinstance(step, tuple) else (step,):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"step={step}: the size of a step must be positive and finite")


def _to_pixels(size: float, std: Sequence[float]) -> tuple[float, ...]:
    return tuple(size * channel for channel in std)


def _like(size: Radius, x: Tensor) -> Tensor:
    """A radius as a tensor that broadcasts over images x (N, C, H, W)."""
    return _uploaded(size, x.dtype, x.device)


@lru_cache(maxsize=64)  # an upload waits for the device
def _uploaded(size: Radius, dtype: torch.dtype, device: torch.device) -> Tensor:
    tensor = torch.tensor(size, dtype=dtype, device=device)
    return tensor.view(-1, 1, 1) if tensor.ndim else tensor
