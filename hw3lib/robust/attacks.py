"""Attacks on classifiers within an L-infinity ball around each image.

An attack is a frozen setting; images and labels come at the call: `PGD(eps=8/255)(model, x, y)`.
Pixels lie in [0, 1] and so do radii; `from_normalized` takes the course's units. What the caller
owns stays as it was: parameters and their gradients, modes of modules, buffers, the tensors, and
global random state, also after an exception.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from hw3lib.robust.checks import Radius, check_radius, check_step, checked
from hw3lib.robust.modes import Classifier
from hw3lib.robust.resnet import CIFAR10_STD, Approximation


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

Look = Literal["exact", "fast"]
"""At the model itself, or at an approximation that is faster."""


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
        check_radius("eps", self.eps)

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


class _Shown:
    """Shows the fields of a dataclass; those `added_later` only where they are not the default."""

    added_later: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        values = [(part, getattr(self, part.name)) for part in fields(self) if part.repr]  # type: ignore[arg-type]
        shown = [
            f"{part.name}={value!r}"
            for part, value in values
            if part.name not in self.added_later or value != part.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class PGD(_Shown):
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
        look: "exact" follows the gradient of the model itself; "fast" that of its approximation
            (`hw3lib.robust.resnet.Approximation`). What is fooled is for the model to say.
    """

    added_later: ClassVar[tuple[str, ...]] = ("look",)

    eps: Radius
    steps: int = 10
    step: Radius | None = None
    random_start: bool = False
    restarts: int = 1
    keep: Literal["last", "best"] = "last"
    targeted: bool = False
    loss: Loss = "cross_entropy"
    look: Look = "exact"
    kind: Literal["pgd"] = field(default="pgd", repr=False)

    def __post_init__(self) -> None:
        check_radius("eps", self.eps)
        if self.step is not None:
            check_step(self.step)
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
        model = self._seen(model)
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
    ) -> Tensor:
        """How many steps fool the model on each image, (N,) int64, whatever `keep` says.

        0 where it is wrong before the first step, `steps + 1` where no step of any restart fools
        it. An image that is fooled is not attacked further, so this is cheaper than `__call__`.
        """
        needed = "random starts" if self.random_start else ""
        with checked(model, x, y, self.eps, generator, needed):
            seen = self._seen(model)
            taken = torch.full((len(x),), self.steps + 1, device=x.device)
            for _ in range(self.restarts):
                start = self._start(x, generator)
                active = (taken > self.steps).nonzero().squeeze(1)
                taken[active] = self._race(seen, x[active], y[active], start[active], model)
            return taken

    def _race(
        self, model: Classifier, x: Tensor, y: Tensor, start: Tensor, judge: Classifier
    ) -> Tensor:
        """Steps that fool each image from these starts; images drop out once they are fooled.

        The judge has to be fooled besides the model that is looked at, and alone by the last step.
        """
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

    def _seen(self, model: Classifier) -> Classifier:
        """The model whose gradient is followed."""
        return model if self.look == "exact" else Approximation(model)

    def _move(self, x: Tensor, gradient: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        direction = -gradient.sign() if self.targeted else gradient.sign()
        x = x + _like(self.step_size, x) * direction
        return x.clamp(lower, upper)

    def _gain(self, logits: Tensor, y: Tensor) -> Tensor:
        """Positive where the attack has what it wants."""
        gap = margin(logits.float(), y)
        return -gap if self.targeted else gap


@dataclass(frozen=True, repr=False)
class FGSM(_Shown):
    """One step to the corner of the ball that the gradient's sign names (Goodfellow et al. 2015).

    Attributes:
        eps, targeted, loss, look: as in `PGD`, which this is with one step of size eps.
    """

    added_later: ClassVar[tuple[str, ...]] = ("look",)

    eps: Radius
    targeted: bool = False
    loss: Loss = "cross_entropy"
    look: Look = "exact"
    kind: Literal["fgsm"] = field(default="fgsm", repr=False)

    def __post_init__(self) -> None:
        check_radius("eps", self.eps)

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
        pgd = PGD(self.eps, steps=1, step=1.0, targeted=self.targeted)
        return replace(pgd, loss=self.loss, look=self.look)


def bounds(x: Tensor, eps: Radius) -> tuple[Tensor, Tensor]:
    """Least and greatest allowed pixels: the ball around x, cut by [0, 1]."""
    size = _like(eps, x)
    return (x - size).clamp(min=0), (x + size).clamp(max=1)


def _to_pixels(size: float, std: Sequence[float]) -> tuple[float, ...]:
    return tuple(size * channel for channel in std)


def _like(size: Radius, x: Tensor) -> Tensor:
    """A radius as a tensor that broadcasts over images x (N, C, H, W)."""
    return _uploaded(size, x.dtype, x.device)


@lru_cache(maxsize=64)  # an upload waits for the device
def _uploaded(size: Radius, dtype: torch.dtype, device: torch.device) -> Tensor:
    tensor = torch.tensor(size, dtype=dtype, device=device)
    return tensor.view(-1, 1, 1) if tensor.ndim else tensor
