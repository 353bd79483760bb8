"""Attacks on classifiers within a ball around each image.

An attack is a frozen setting; images and labels come at the call: `PGD(eps=8/255)(model, x, y)`.
Pixels lie in [0, 1] and so do radii; `from_normalized` takes the course's units. What the caller
owns stays as it was: parameters and their gradients, modes of modules, buffers, the tensors, and
global random state, also after an exception.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from hw3lib.robust.balls import CIFAR10_STD, Ball, Cut, Norm, Radius, around, like, to_pixels, wide
from hw3lib.robust.checks import (
    answers,
    check_choice,
    check_flag,
    checked,
    checked_count,
    checked_norm,
    checked_radius,
    checked_step,
    needed,
)
from hw3lib.robust.modes import Classifier
from hw3lib.robust.resnet import Approximation


class Attack(Protocol):
    """What makes adversarial images."""

    @property
    def eps(self) -> Radius:
        """Radius of the ball, the largest change of a pixel, or in L2 of the image."""
        ...

    def __call__(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial images (N, C, H, W), after checking the arguments."""
        ...


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest logit of another class less that of `y`, (N,): positive where it is wrong.

    Example:
        >>> margin(torch.tensor([[3.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 0]))
        tensor([-2.,  2.])
    """
    others = logits.scatter(1, y[:, None], -math.inf).amax(1)
    return others - logits.gather(1, y[:, None]).squeeze(1)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy in nats, (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


def negative_logit(logits: Tensor, y: Tensor) -> Tensor:
    """Less the logit of `y`, (N,): what the negative log-likelihood is of raw logits."""
    return -logits.gather(1, y[:, None]).squeeze(1)


UNDERFLOW = 87.0
"""Where all other classes are so many nats behind, their float32 probabilities are 0."""


def followed_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy, (N,), or the margin where its gradient would underflow to 0.

    Without it a network whose logits are large would look robust, since nothing would move.
    """
    gap = margin(logits, y)
    return torch.where(gap < -UNDERFLOW, gap, cross_entropy(logits, y))


LOSSES = {
    "cross_entropy": followed_cross_entropy,
    "margin": margin,
    "negative_logit": negative_logit,
}

Loss = Literal["cross_entropy", "margin", "negative_logit"] | Callable[[Tensor, Tensor], Tensor]
"""One of `LOSSES`, or a function of logits (N, classes) and labels (N,) that gives (N,)."""

Look = Literal["exact", "fast"]
"""At the model itself, or at an approximation that is faster."""


class NoGradientError(ValueError):
    """A model cuts the way from its pixels to its logits, so that no gradient leads through."""


def input_gradient(
    model: Classifier, x: Tensor, y: Tensor, loss: Loss = "cross_entropy"
) -> tuple[Tensor, Tensor]:
    """Gradient of each image's loss with respect to its pixels, (N, C, H, W), and the logits.

    One forward and one backward pass that leaves the parameters out.

    Raises:
        NoGradientError: the logits carry no gradient of the pixels.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(5, 3, 2, 2), torch.zeros(5, dtype=torch.long)
        >>> gradient, logits = input_gradient(model, x, y)
        >>> gradient.shape, logits.shape
        (torch.Size([5, 3, 2, 2]), torch.Size([5, 3]))
    """
    x = x.detach().requires_grad_()
    if y.is_inference():  # such labels cannot be part of a graph
        y = y.clone()
    with torch.enable_grad():
        logits = model(x.clone())  # a copy, for models that work in place
        values = (loss if callable(loss) else LOSSES[loss])(logits.float(), y)
        gradient: Tensor | None = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), x, allow_unused=True)
    if gradient is None:
        raise NoGradientError(
            "the model's logits carry no gradient of the pixels, and the attack follows it; take "
            "torch.no_grad, inference_mode, detach, NumPy and thresholds out of the model, or "
            "attack through `hw3lib.robust.StraightThrough`"
        )
    return gradient, logits.detach()


class _Setting:
    """What all attacks share: how they are shown, called, and given in other units."""

    added_later: ClassVar[tuple[str, ...]] = ("look", "norm", "cut")

    eps: Radius
    perturb: Callable[..., Tensor]

    @classmethod
    def from_normalized(
        cls, eps: float, *, std: Sequence[float] = CIFAR10_STD, **options: Any
    ) -> Self:
        """Radius, and step if given, in units of the normalised input.

        A pixel changes by eps * std, with the standard deviation of its channel.
        """
        if options.get("step") is not None:
            options["step"] = to_pixels(options["step"], std)
        return cls(eps=to_pixels(eps, std), **options)  # type: ignore[call-arg]

    def __call__(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial images; see `Attack`. The generator draws what is random."""
        with checked(model, x, y, self.eps) as pixels:
            return self.perturb(model, pixels, y, generator=generator)

    def __repr__(self) -> str:
        return self._shown(always=True)

    def __str__(self) -> str:
        """What differs from the defaults, for messages."""
        return self._shown(always=False)

    def _shown(self, *, always: bool) -> str:
        values = [(part, getattr(self, part.name)) for part in fields(self) if part.repr]  # type: ignore[arg-type]
        shown = [
            f"{part.name}={value!r}"
            for part, value in values
            if value != part.default or (always and part.name not in self.added_later)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _set(self, **values: Any) -> None:
        """Replace fields of a frozen dataclass by what they were checked to mean."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, repr=False)
class SignNoise(_Setting):
    """Random signs of size eps on every pixel: what an attack has to beat.

    Example:
        >>> x, y = torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, dtype=torch.long)
        >>> rng = torch.Generator().manual_seed(0)
        >>> SignNoise(0.25)(torch.nn.Flatten(), x, y, generator=rng).unique()
        tensor([0.2500, 0.7500])
    """

    eps: Radius
    kind: Literal["sign_noise"] = field(default="sign_noise", repr=False)

    def __post_init__(self) -> None:
        self._set(eps=checked_radius(self.eps))

    def perturb(
        self,
        model: Classifier,  # noqa: ARG002 - noise looks at no model
        x: Tensor,
        y: Tensor,  # noqa: ARG002
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        rng = needed(generator, "random signs")
        signs = torch.randint(0, 2, x.shape, generator=rng, dtype=torch.int8)
        return (x + like(self.eps, x) * (2 * signs.to(x.device) - 1)).clamp(0, 1)


@dataclass(frozen=True, repr=False)
class PGD(_Setting):
    """Projected gradient steps of equal size (Madry et al. 2018).

    Attributes:
        eps: radius of the ball.
        steps: gradient steps.
        step: their size; by default 2.5 eps / steps.
        random_start: begin at a uniform point of the ball instead of the image.
        restarts: runs from different starts, of which each image keeps its best.
        keep: "last" returns the last point of a run, "best" the one with the largest margin of
            a wrong class (of what is looked at), so that more steps never help the defender.
        targeted: the labels are those to reach.
        loss: what the steps increase (decrease, if targeted).
        look: "exact" follows the gradient of the model itself; "fast" that of its approximation
            (`hw3lib.robust.resnet.Approximation`). What is fooled is for the model to say.
        norm: of the ball. A step goes along the gradient's signs in "linf", along the gradient
            itself in "l2".
        cut: where images are cut after each step; see `hw3lib.robust.balls.Cut`.

    Raises:
        TypeError, ValueError: a setting is not what it can be.

    Warns:
        UserWarning: a step in "linf" is as large as the range of pixels.

    Example:
        >>> attack = PGD(8 / 255, steps=20, random_start=True)
        >>> round(255 * attack.step_size, 2)
        1.0
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(5, 3, 2, 2), torch.zeros(5, dtype=torch.long)
        >>> attacked = attack(model, x, y, generator=torch.Generator().manual_seed(0))
        >>> bool((attacked - x).abs().max() <= 8 / 255 + 1e-6)
        True
        >>> PGD(eps=8)  # forgot to divide by 255
        Traceback (most recent call last):
            ...
        ValueError: ...
    """

    eps: Radius
    steps: int = 10
    step: Radius | None = None
    random_start: bool = False
    restarts: int = 1
    keep: Literal["last", "best"] = "last"
    targeted: bool = False
    loss: Loss = "cross_entropy"
    look: Look = "exact"
    norm: Norm = "linf"
    cut: Cut = "pixels"
    kind: Literal["pgd"] = field(default="pgd", repr=False)

    def __post_init__(self) -> None:
        if not callable(self.loss):
            check_choice("loss", self.loss, tuple(LOSSES))
        check_choice("keep", self.keep, ("last", "best"))
        check_choice("look", self.look, ("exact", "fast"))
        check_choice("cut", self.cut, ("pixels", "normalized"))
        for name in ("random_start", "targeted"):
            check_flag(name, getattr(self, name))
        self._set(norm=checked_norm(self.norm))
        self._set(eps=checked_radius(self.eps, self.norm))
        if self.step is not None:
            self._set(step=checked_step(self.step, self.eps, self.norm))
        for name in ("steps", "restarts"):
            self._set(**{name: checked_count(name, getattr(self, name))})
        if self.cut != "pixels" and self.norm != "linf":
            raise ValueError(f"cut={self.cut!r} is a slip of attacks in the L-infinity ball alone")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                f"restarts={self.restarts} from the same start would all be equal; "
                "set random_start=True"
            )

    @property
    def step_size(self) -> Radius:
        """The size of a step that is used."""
        if self.step is not None:
            return self.step
        if isinstance(self.eps, tuple):
            return tuple(2.5 * eps / self.steps for eps in self.eps)
        return 2.5 * self.eps / self.steps

    def perturb(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        seen, ball = self._seen(model), around(x, self.eps, self.norm, self.cut)
        best, highest = x, torch.full((len(x),), -math.inf, device=x.device)
        for _ in range(self.restarts):
            for point, logits in self._candidates(seen, ball, y, generator):
                if logits is None:
                    return point
                gain = self._gain(logits, y)
                better = gain > highest
                best = torch.where(wide(better, x), point, best)
                highest = torch.where(better, gain, highest)
        return best.detach()

    def steps_to_fool(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """How many steps fool the model on each image, (N,) int64, whatever `keep` says.

        0 where it is wrong before the first step, `steps + 1` where no step of any restart fools
        it. An image that is fooled is not attacked further, so this is cheaper than `__call__`.
        """
        with checked(model, x, y, self.eps) as pixels:
            ball = around(pixels, self.eps, self.norm, self.cut)
            taken = torch.full((len(x),), self.steps + 1, device=x.device)
            for _ in range(self.restarts):
                start = self._start(ball, generator)
                active = (taken > self.steps).nonzero().squeeze(1)
                taken[active] = self._race(model, ball[active], y[active], start[active])
            return taken

    def _race(self, model: Classifier, ball: Ball, y: Tensor, point: Tensor) -> Tensor:
        """Steps that fool each image from these starts; images drop out once they are fooled.

        The model has to be fooled besides what is looked at, and alone by the last step.
        """
        seen = self._seen(model)
        taken = torch.full((len(y),), self.steps + 1, device=y.device)
        active = torch.arange(len(y), device=y.device)
        for count in range(self.steps):
            if not len(active):
                return taken
            gradient, logits = input_gradient(seen, point, y, self.loss)
            fooled = self._fooled(logits, y)
            if seen is not model and fooled.any():
                fooled[fooled.clone()] = self._fooled(answers(model, point[fooled]), y[fooled])
            taken[active[fooled]] = count
            stays = ~fooled
            active, y, ball = active[stays], y[stays], ball[stays]
            point = self._move(ball, point[stays], gradient[stays])
        if len(active):
            taken[active[self._fooled(answers(model, point), y)]] = self.steps
        return taken

    def _fooled(self, logits: Tensor, y: Tensor) -> Tensor:
        # Not the sign of the gain: rounded logits can tie, and argmax decides ties.
        return (logits.argmax(1) == y) == self.targeted

    def _candidates(
        self, model: Classifier, ball: Ball, y: Tensor, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Points of one run that may be returned, with their logits where these are compared."""
        point = self._start(ball, generator)
        for _ in range(self.steps):
            gradient, logits = input_gradient(model, point, y, self.loss)
            if self.keep == "best":
                yield point, logits
            point = self._move(ball, point, gradient)
        if self.keep == "last" and self.restarts == 1:
            yield point, None
        else:
            yield point, answers(model, point)

    def _start(self, ball: Ball, generator: torch.Generator | None) -> Tensor:
        return ball.start(needed(generator, "random starts")) if self.random_start else ball.x

    def _seen(self, model: Classifier) -> Classifier:
        """The model whose gradient is followed."""
        return model if self.look == "exact" else Approximation(model)

    def _move(self, ball: Ball, point: Tensor, gradient: Tensor) -> Tensor:
        return ball.move(point, -gradient if self.targeted else gradient, self.step_size)

    def _gain(self, logits: Tensor, y: Tensor) -> Tensor:
        """Positive where the attack has what it wants."""
        gap = margin(logits.float(), y)
        return -gap if self.targeted else gap


@dataclass(frozen=True, repr=False)
class FGSM(_Setting):
    """One step to the corner of the ball that the gradient's sign names (Goodfellow et al. 2015).

    In L2 it is the step along the gradient to the surface of the ball (Miyato et al. 2017).

    Attributes:
        eps, targeted, loss, look, norm, cut: as in `PGD`, which this is with one step of size eps.

    Raises:
        TypeError, ValueError: a setting is not what it can be.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.full((2, 3, 2, 2), 0.5), torch.zeros(2, dtype=torch.long)
        >>> FGSM(0.25)(model, x, y).unique()
        tensor([0.2500, 0.7500])
    """

    eps: Radius
    targeted: bool = False
    loss: Loss = "cross_entropy"
    look: Look = "exact"
    norm: Norm = "linf"
    cut: Cut = "pixels"
    kind: Literal["fgsm"] = field(default="fgsm", repr=False)

    def __post_init__(self) -> None:
        pgd = self._as_pgd  # which checks all of them
        self._set(eps=pgd.eps, norm=pgd.norm)

    def perturb(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self._as_pgd.perturb(model, x, y, generator=generator)

    def steps_to_fool(
        self, model: Classifier, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """0 where the model is wrong before the step, 1 where the step fools it, else 2, (N,)."""
        return self._as_pgd.steps_to_fool(model, x, y, generator=generator)

    @property
    def _as_pgd(self) -> PGD:
        # One step by default leaves the ball, and is put back on its surface.
        return PGD(
            self.eps, steps=1, targeted=self.targeted, loss=self.loss, look=self.look,
            norm=self.norm, cut=self.cut,
        )  # fmt: skip
