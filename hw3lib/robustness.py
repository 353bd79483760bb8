"""What classifiers still get right under attack.

Almost every function returns masks (N,), true where an image is classified rightly before and after
the attack. An image that is wrong before is not attacked and counts as wrong, and shares are of all
images. `accuracy` turns a mask into a share with its interval.

Our attacks look at a model's `approximation()` where it has one, as `hw3lib.resnet.ResNet` does;
which images are fooled is always for the model itself to say.

Random numbers come from a generator keyed by (seed, restart), handed to the images that are still
right, in their order. So nothing depends on `batch_size` (where it does, the function says so), but
which random start an image gets depends on which images before it are still right.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from hw3lib import memory
from hw3lib.attacks import (
    FGSM,
    PGD,
    Attack,
    Classifier,
    Radius,
    SignNoise,
    approximated,
    bounds,
    check_logits,
    checked,
    evaluating,
    input_gradient,
)
from hw3lib.data import generator
from hw3lib.stats import Interval, proportion

OwnAttack = FGSM | PGD | SignNoise
"""An attack of which copies with other settings can be made."""

# Accuracy under attack


def accuracy(mask: Tensor) -> Interval:
    """Share of true entries with its Wilson interval; over all test images the honest protocol.

    Raises:
        ValueError: the mask is empty.
    """
    return proportion(int(mask.sum()), len(mask))


def course_accuracy(mask: Tensor, index: Tensor) -> Interval:
    """The course's protocol: the same over the test part of the course's split alone.

    Args:
        mask: (10000,) over the official test images.
        index: (2500,) which of them the course tests on.
    """
    return accuracy(mask[index])


def correct(model: Classifier, x: Tensor, y: Tensor, *, batch_size: int = 500) -> Tensor:
    """Where the largest logit is that of the label, (N,) bool, in evaluation mode.

    Args:
        model: pixels to logits.
        x: (N, C, H, W) pixels in [0, 1].
        y: (N,) int64 labels.
        batch_size: images that are classified at a time.

    Raises:
        ValueError, TypeError: what `hw3lib.attacks.checked` refuses.
    """
    with checked(model, x, y, 0.0, None, "", probe=False), torch.no_grad():
        logits = torch.cat([model(batch) for batch in x.split(batch_size)])
        check_logits(logits, y)
    return logits.argmax(1) == y


def withstood(
    model: Classifier,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    batch_size: int = 500,
) -> Tensor:
    """Where the model is right before and after the attack, (N,) bool.

    Args:
        model, x, y, batch_size: as in `correct`.
        attack: untargeted. `PGD(keep="best")` leaves an image alone as soon as a step fools it.
        seed: of the attack's random numbers.

    Raises:
        ValueError: the attack is targeted.
    """
    return restart_curve(model, attack, x, y, seed=seed, batch_size=batch_size)[-1]


@memory.kept()
def restart_curve(
    model: Classifier,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    batch_size: int = 500,
) -> Tensor:
    """`withstood` after 0, 1, ..., restarts runs, (restarts + 1, N); it never rises.

    Row r equals `withstood` with r restarts, and row 0 is `correct`.
    """
    right = correct(model, x, y, batch_size=batch_size)
    return torch.stack([right, *_runs(model, attack, x, y, right, seed, batch_size)])


@memory.kept()
def step_curve(
    model: Classifier, attack: PGD, x: Tensor, y: Tensor, *, seed: int = 0, batch_size: int = 500
) -> Tensor:
    """Where the model is right after each of 0, ..., steps steps, (steps + 1, N); it never rises.

    One run of the longest attack gives all rows: row k equals `withstood` with k steps of the same
    size and keep="best", but for an image that its k-th step fools and the model's approximation
    misses. Row 0 is `correct`, less what a random start by itself fools.

    Raises:
        ValueError: the attack has restarts (they are several runs) or is targeted.
    """
    _check_untargeted(attack)
    if attack.restarts > 1:
        raise ValueError(
            f"restarts={attack.restarts}: the curve over steps belongs to one run; set restarts=1, "
            "or take restart_curve"
        )
    taken = torch.zeros_like(y)
    draws, seen = generator(seed, "attack"), approximated(model)
    for batch in _batches(correct(model, x, y, batch_size=batch_size), batch_size):
        images, labels = x[batch], y[batch]
        taken[batch] = attack.steps_to_fool(seen, images, labels, generator=draws, judge=model)
    return taken > torch.arange(attack.steps + 1, device=y.device)[:, None]


@memory.kept()
def eps_curve(
    model: Classifier,
    attack: OwnAttack,
    x: Tensor,
    y: Tensor,
    eps_values: Sequence[Radius],
    *,
    seed: int = 0,
    batch_size: int = 500,
) -> Tensor:
    """Where the model withstands the attack at each radius, (len(eps_values), N); it never rises.

    A ball contains every smaller one, so only images that all smaller radii leave are attacked.
    Radius 0 gives `correct`. A step that is not set follows the radius; one that is set stays.

    Args:
        model, x, y, seed, batch_size: as in `withstood`.
        attack: its own radius is not used.
        eps_values: ascending radii.

    Raises:
        ValueError: there are no radii, or they descend.
    """
    _check_ascending(eps_values)
    right = correct(model, x, y, batch_size=batch_size)
    rows = []
    for eps in eps_values:
        if torch.tensor(eps).any():
            *_, right = _runs(model, replace(attack, eps=eps), x, y, right, seed, batch_size)
        rows.append(right)
    return torch.stack(rows)


# Several models, several attacks


@memory.kept()
def cross_matrix(
    models: Mapping[str, Classifier],
    attacks: Mapping[str, Attack],
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    batch_size: int = 500,
) -> dict[str, dict[str, Tensor]]:
    """`withstood` for every model and attack: `matrix[model][attack]` is a mask (N,)."""
    return {
        name: {
            label: withstood(model, attack, x, y, seed=seed, batch_size=batch_size)
            for label, attack in attacks.items()
        }
        for name, model in models.items()
    }


def worst_case(masks: Mapping[str, Tensor]) -> Tensor:
    """Where a model withstands every attack, (N,), from its row of the cross matrix."""
    return torch.stack(list(masks.values())).all(0)


@dataclass(frozen=True)
class Transfer:
    """What images made on one model do to another.

    Attributes:
        shown: (N,) where both models classify the original image rightly.
        fooled: (N,) where the second then misclassifies the adversarial one.
    """

    shown: Tensor
    fooled: Tensor

    @property
    def share(self) -> Interval:
        """Share of the shown images that fool, with its interval.

        Raises:
            ValueError: there is no image that both models classify rightly.
        """
        return accuracy(self.fooled[self.shown])


@memory.kept()
def transfer_matrix(
    models: Mapping[str, Classifier],
    attack: Attack,
    x: Tensor,
    y: Tensor,
    *,
    noise: SignNoise | None = None,
    seed: int = 0,
    batch_size: int = 500,
) -> dict[str, dict[str, Transfer]]:
    """`matrix[source][target]`: adversarial images made on one model, shown to each.

    With restarts an attack draws all starts of a batch at once, so that here the starts depend on
    `batch_size`.

    Args:
        models: they classify the same images.
        attack: untargeted.
        x, y, seed, batch_size: as in `withstood`.
        noise: adds a source "noise", for which `shown` is where the target is right.

    Raises:
        ValueError: the attack is targeted, or a model has the name of the noise.
    """
    if noise is not None and "noise" in models:
        raise ValueError('a model is named "noise", as is the row of the noise; rename the model')
    right = {name: correct(model, x, y, batch_size=batch_size) for name, model in models.items()}
    sources = [(name, attack, model, right[name]) for name, model in models.items()]
    if noise is not None:  # it looks at no model, so any will do
        sources.append(("noise", noise, sources[0][2], torch.ones_like(sources[0][3])))
    matrix = {}
    for name, maker, source, made in sources:
        wrong = _misled(models, maker, source, x, y, made, seed, batch_size)
        shown = {target: made & right[target] for target in models}
        matrix[name] = {
            target: Transfer(shown[target], shown[target] & wrong[target]) for target in models
        }
    return matrix


# The evaluation checklist

SIGNIFICANCE = 0.01
"""Level at which a weaker attack counts as the stronger one."""

LARGE_EPS = 0.5
"""A radius that reaches the uniformly grey image from every other."""

LEFT_AT_LARGE_EPS = 0.005
"""Largest accuracy that passes there: what is printed as 0 %."""

ZERO_GRADIENTS = 0.01
"""Largest share of images without a gradient that passes."""


@dataclass(frozen=True)
class Finding:
    """One point of the checklist.

    Attributes:
        claim: what holds for a model whose gradients show the way.
        passed: whether it holds here.
        numbers: what this was decided on.
    """

    claim: str
    passed: bool
    numbers: dict[str, float]


@memory.kept()
def gradient_masking(
    model: Classifier,
    attack: PGD,
    x: Tensor,
    y: Tensor,
    *,
    surrogate: Classifier | None = None,
    seed: int = 0,
    batch_size: int = 500,
) -> dict[str, Finding]:
    """Signs that an attack fails because gradients mislead it, and not because the model is robust.

    The checklists of Athalye et al. (2018) and Carlini et al. (2019). A weaker attack that fools
    more images than a stronger one is a sign, whether the model is to blame or the attack's own
    settings; the two are compared on the images on which they differ, by the one-sided sign test at
    level `SIGNIFICANCE`.

    Args:
        model, x, y, seed, batch_size: as in `withstood`.
        attack: the white-box attack that is examined.
        surrogate: another model, on which images are made for a transfer attack.

    Returns:
        Findings by name: steps, restarts, large_eps, one_step, noise, zero_gradients, and transfer
        if there is a surrogate.

    Raises:
        ValueError: the model classifies no image rightly, or the attack is targeted.
    """
    right = correct(model, x, y, batch_size=batch_size)
    if not right.any():
        raise ValueError("the model classifies none of these images rightly, so none is attacked")

    @cache
    def left(other: OwnAttack, seed: int) -> Tensor:
        return withstood(model, other, x, y, seed=seed, batch_size=batch_size)

    # Other random numbers for the stronger one: with the same, restarts could not do worse.
    findings = {
        name: _not_stronger(claim, left(weaker, seed), left(stronger, seed + 1))
        for name, (claim, weaker, stronger) in _comparisons(attack).items()
    }
    if surrogate is not None:
        wrong = _misled({"": model}, attack, surrogate, x, y, right, seed, batch_size)[""]
        claim = "images made on another model do not fool more than those made on this one"
        findings["transfer"] = _not_stronger(claim, right & ~wrong, left(attack, seed + 1))
    large = replace(attack, eps=LARGE_EPS, step=None, keep="best")
    findings["large_eps"] = _nothing_left(left(large, seed))
    findings["zero_gradients"] = _gradients_exist(model, attack, x[right], y[right], batch_size)
    return findings


def catastrophic_overfitting(fgsm_accuracy: float, pgd_accuracy: float) -> bool:
    """Whether a model trained against FGSM has learnt to mislead it (Wong et al. 2020).

    The threshold: under PGD of the same radius it keeps less than half of its accuracy under FGSM.

    Raises:
        ValueError: an accuracy is not a share in [0, 1].
    """
    for value in (fgsm_accuracy, pgd_accuracy):
        if not 0 <= value <= 1:
            raise ValueError(
                f"an accuracy of {value} is no share in [0, 1]; divide per cent by 100"
            )
    return pgd_accuracy < fgsm_accuracy / 2


# An outside referee


def autoattack(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    seed: int = 0,
    batch_size: int = 500,
    steps: int = 100,
    queries: int = 5000,
) -> Tensor:
    """Where the model withstands the standard AutoAttack (Croce and Hein 2020), (N,) bool.

    The attacks are those of the package torchattacks, one after another on what is left; their
    images are put back into the ball and judged here. They draw their starts for a batch at a time,
    so the mask depends on `batch_size` as on `seed`.

    Args:
        model, x, y, batch_size: as in `correct`; four or more classes.
        eps: one radius for all channels.
        seed: of the attacks' random numbers.
        steps, queries: of each gradient attack, of the random search; by default the paper's.

    Raises:
        ImportError: torchattacks is not installed.
        TypeError: eps differs between channels.
        ValueError: there are too few classes, or eps is no radius.
    """
    package = _torchattacks()
    _check_one_radius(eps)
    right = correct(model, x, y, batch_size=batch_size)
    # The package seeds the global generators.
    devices = range(torch.cuda.device_count())
    with checked(model, x, y, eps, None, ""), torch.random.fork_rng(devices):
        attack = _standard_attacks(package, model, x, eps, seed, steps, queries)
        for batch in _batches(right, batch_size):
            # It takes views, which the layout channels_last does not have.
            images = attack(x[batch].float().contiguous(), y[batch]).to(x)
            images = images.clamp(*bounds(x[batch], eps))
            right[batch] = correct(model, images, y[batch], batch_size=batch_size)
    return right


# Helpers


def _batches(mask: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Indices of the true entries, `batch_size` at a time; nothing if there are none."""
    if mask.any():
        yield from mask.nonzero().squeeze(1).split(batch_size)


def _runs(
    model: Classifier,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    right: Tensor,
    seed: int,
    batch_size: int,
) -> Iterator[Tensor]:
    """Which of the images that are right stay so, after each restart; a run attacks no others."""
    _check_untargeted(attack)
    restarts, run = 1, attack
    if isinstance(attack, PGD):
        restarts, run = attack.restarts, replace(attack, restarts=1)
    seen = approximated(model) if isinstance(attack, FGSM | PGD) else model
    for restart in range(restarts):
        right, draws = right.clone(), generator(seed, "attack", restart)
        for batch in _batches(right, batch_size):
            right[batch] = _survives(model, seen, run, x[batch], y[batch], draws)
        yield right


def _survives(
    model: Classifier,
    seen: Classifier,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    draws: torch.Generator,
) -> Tensor:
    """Where one run on what is seen leaves the model right, (N,), for images right before."""
    if isinstance(attack, PGD) and attack.keep == "best":
        return attack.steps_to_fool(seen, x, y, generator=draws, judge=model) > attack.steps
    return correct(model, attack(seen, x, y, generator=draws), y, batch_size=len(x))


def _misled(
    targets: Mapping[str, Classifier],
    attack: Attack,
    source: Classifier,
    x: Tensor,
    y: Tensor,
    made: Tensor,
    seed: int,
    batch_size: int,
) -> dict[str, Tensor]:
    """Where each target is wrong on what the attack makes on the source of the images `made`."""
    _check_untargeted(attack)
    wrong = {name: torch.zeros_like(made) for name in targets}
    draws = generator(seed, "attack")
    for batch in _batches(made, batch_size):
        images = attack(source, x[batch], y[batch], generator=draws)
        for name, model in targets.items():
            wrong[name][batch] = ~correct(model, images, y[batch], batch_size=batch_size)
    return wrong


def _comparisons(attack: PGD) -> dict[str, tuple[str, OwnAttack, OwnAttack]]:
    """Claims with an attack that should be the weaker and one that should be the stronger."""
    last = replace(attack, keep="last", restarts=1)
    start = replace(attack, random_start=True, restarts=1)
    return {
        "steps": (
            "four times the steps do not help the defender",
            last,
            replace(last, steps=4 * attack.steps),
        ),
        "restarts": (
            "five random starts do not help the defender",
            start,
            replace(start, restarts=5),
        ),
        "one_step": (
            "one step does not fool more than many",
            FGSM(attack.eps, loss=attack.loss),
            attack,
        ),
        "noise": (
            "random signs do not fool more than gradients",
            SignNoise(attack.eps),
            attack,
        ),
    }


def _not_stronger(claim: str, weaker: Tensor, stronger: Tensor) -> Finding:
    """Compare what two attacks leave, by the one-sided sign test on images that differ."""
    only_weaker, only_stronger = int((stronger & ~weaker).sum()), int((weaker & ~stronger).sum())
    differ = only_weaker + only_stronger
    p = binomtest(only_weaker, differ, alternative="greater").pvalue if differ else 1.0
    numbers = {
        "accuracy_weaker": accuracy(weaker).value,
        "accuracy_stronger": accuracy(stronger).value,
        "fooled_by_weaker_only": only_weaker,
        "fooled_by_stronger_only": only_stronger,
        "p_value": float(p),
    }
    return Finding(claim, numbers["p_value"] >= SIGNIFICANCE, numbers)


def _nothing_left(mask: Tensor) -> Finding:
    left = accuracy(mask).value
    claim = f"at eps = {LARGE_EPS} the attack leaves 0 %"
    return Finding(claim, left <= LEFT_AT_LARGE_EPS, {"accuracy": left})


def _gradients_exist(
    model: Classifier, attack: PGD, x: Tensor, y: Tensor, batch_size: int
) -> Finding:
    with evaluating(model):
        gradients = [
            input_gradient(model, *batch, attack.loss)[0].flatten(1)
            for batch in zip(x.split(batch_size), y.split(batch_size), strict=True)
        ]
    share = accuracy(torch.cat([(gradient == 0).all(1) for gradient in gradients])).value
    claim = "the loss of every rightly classified image has a gradient"
    return Finding(claim, share <= ZERO_GRADIENTS, {"share": share, "images": len(x)})


def _check_untargeted(attack: Attack) -> None:
    if getattr(attack, "targeted", False):
        raise ValueError(
            f"{attack} is targeted, so it would take the true labels for those to reach; "
            "pass an untargeted attack"
        )


def _check_ascending(eps_values: Sequence[Radius]) -> None:
    if not eps_values:
        raise ValueError("eps_values is empty; pass at least one radius")
    for smaller, larger in pairwise(eps_values):
        if not (torch.tensor(smaller) <= torch.tensor(larger)).all():
            raise ValueError(
                f"eps_values go from {smaller} to {larger}, but they must ascend: an image that a "
                "radius fools is not attacked at later ones; sort them"
            )


# The adapter to torchattacks


def _torchattacks() -> Any:
    try:
        return importlib.import_module("torchattacks")
    except ImportError as error:
        raise ImportError(
            "AutoAttack needs the package torchattacks, which is not installed; install it with "
            "`pip install --no-deps torchattacks==3.5.1` (its own pin of requests conflicts with "
            "other packages, and it does not use it)"
        ) from error


def _standard_attacks(
    package: Any, model: Classifier, x: Tensor, eps: float, seed: int, steps: int, queries: int
) -> Any:
    # The package's own class AutoAttack takes a tenth of the paper's steps.
    adapter = _Adapter(model, x)
    common = {"eps": eps, "norm": "Linf", "seed": seed}
    targeted = {"steps": steps, "n_classes": _classes(model, x)}
    return package.MultiAttack(
        [
            package.APGD(adapter, steps=steps, loss="ce", **common),
            package.APGDT(adapter, **targeted, **common),
            package.FAB(adapter, multi_targeted=True, **targeted, **common),
            package.Square(adapter, n_queries=queries, resc_schedule=False, **common),
        ]
    )


def _check_one_radius(eps: float) -> None:
    if isinstance(eps, tuple):
        raise TypeError(
            f"eps={eps} differs between channels, but AutoAttack takes one radius for all; "
            "pass a float"
        )
    FGSM(eps)  # refuses what is no radius


def _classes(model: Classifier, x: Tensor) -> int:
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    if classes < 4:
        raise ValueError(f"AutoAttack's losses compare four logits; the model has {classes}")
    return classes


class _Adapter(nn.Module):
    """A classifier as torchattacks wants it: float32, on a device that its parameter names."""

    def __init__(self, model: Classifier, x: Tensor) -> None:
        super().__init__()
        self.anchor = nn.Parameter(x.new_zeros(()))
        # Held in a tuple, so that train() and eval() do not reach the caller's modules.
        self.held, self.dtype = (model,), x.dtype

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = _InputGradient.apply(x.to(self.dtype), self.held[0])
        return logits.float()


class _InputGradient(torch.autograd.Function):
    """A classifier through which `backward` reaches the input and no parameter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Classifier) -> Tensor:
        with torch.set_grad_enabled(ctx.needs_input_grad[0]):
            ctx.x = x.detach().requires_grad_()
            ctx.logits = logits = model(ctx.x)
        return logits.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (result,) = torch.autograd.grad(ctx.logits, ctx.x, gradient, retain_graph=True)
        return result, None
