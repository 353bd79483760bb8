"""The evaluation checklist: signs that gradients mislead an attack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from scipy.stats import binomtest
from torch import Tensor

from hw3lib.robust.attacks import FGSM, PGD, SignNoise, input_gradient
from hw3lib.robust.evaluate import OwnAttack, accuracy, correct, misled, withstood
from hw3lib.robust.modes import Classifier, evaluating

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
        wrong = misled({"": model}, attack, surrogate, x, y, right, seed, batch_size)[""]
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
