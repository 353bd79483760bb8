"""The evaluation checklist: signs that gradients mislead an attack, and two ways around."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import scipy
import torch
from torch import Tensor, nn

from hw3lib.data import generator
from hw3lib.robust.attacks import FGSM, PGD, NoGradientError, SignNoise, input_gradient, margin
from hw3lib.robust.checks import checked, checked_count
from hw3lib.robust.evaluate import (
    Batches,
    OwnAttack,
    accuracy,
    correct,
    gathered,
    misled,
    withstood,
)
from hw3lib.robust.modes import Classifier

SIGNIFICANCE = 0.01
"""Level at which a weaker attack counts as the stronger one."""

LARGE_EPS = 0.5
"""A radius that reaches the uniformly grey image from every other."""

LEFT_AT_LARGE_EPS = 0.005
"""Largest accuracy that passes there, which is printed as 0 %."""

ZERO_GRADIENTS = 0.01
"""Largest share of images without a gradient that passes."""

CLIMBS = 0.75
"""Smallest share of images that passes on which the gradient shows further up than chance does."""

SAME_ANSWER = 1e-3
"""Largest difference of two answers to one image that passes, as a share of the logits' range."""

CLAIMS = {
    "steps": "four times the steps do not help the defender",
    "restarts": "five random starts do not help the defender",
    "one_step": "one step does not fool more than many",
    "noise": "random signs do not fool more than gradients",
    "transfer": "images made on another model do not fool more than those made on this one",
    "large_eps": f"at eps = {LARGE_EPS} the attack leaves 0 %",
    "zero_gradients": "the loss of every rightly classified image has a gradient",
    "direction": "a step along the gradient's signs leads further up than one along random signs",
    "deterministic": "the model answers alike when asked twice",
}
"""What holds for a model whose gradients show the way."""


@dataclass(frozen=True)
class Finding:
    """One point of the checklist: its claim, whether it holds, and what that was decided on.

    Example:
        >>> Finding("more steps fool more", passed=True, numbers={"p": 0.5}).passed
        True
    """

    claim: str
    passed: bool
    numbers: dict[str, float]


class Findings(dict[str, Finding]):
    """The findings by name, shown as a table.

    Example:
        >>> Findings({"zero_gradients": Finding("none is zero", False, {"share": 0.25})})
        zero_gradients  NO  none is zero (share 0.25)
    """

    def __repr__(self) -> str:
        return "\n".join(
            f"{name:14}  {'ok' if found.passed else 'NO'}  {found.claim} "
            f"({', '.join(f'{key} {value:.3g}' for key, value in found.numbers.items())})"
            for name, found in self.items()
        )


def gradient_masking(
    model: Classifier,
    attack: PGD,
    x: Tensor | Batches,
    y: Tensor | None = None,
    *,
    num_images: int | None = None,
    surrogate: Classifier | None = None,
    seed: int = 0,
    batch_size: int = 500,
) -> Findings:
    """Signs that an attack fails because gradients mislead it, and not because the model is robust.

    The checklists of Athalye et al. (2018) and Carlini et al. (2019). A weaker attack that fools
    more images than a stronger one is a sign, whether the model is to blame or the attack's own
    settings; the two are compared on the images on which they differ, by the one-sided sign test at
    level `SIGNIFICANCE`. A model that cuts its gradient is examined as one whose gradient is 0.

    Args:
        model, x, y, seed, batch_size: as in `withstood`.
        attack: the white-box attack that is examined.
        num_images: only the first so many are looked at.
        surrogate: another model, on which images are made for a transfer attack.

    Returns:
        The findings by name, those of `CLAIMS`; transfer only if there is a surrogate.

    Raises:
        ValueError: the model classifies no image rightly, or the attack is targeted.
        TypeError: the attack is no PGD.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x = torch.rand(50, 3, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> findings = gradient_masking(model, PGD(0.1), x, model(x).argmax(1))
        >>> findings["zero_gradients"].passed
        True
    """
    if not isinstance(attack, PGD):
        raise TypeError(f"{attack}: the list asks for more steps and restarts, so it needs a PGD")
    num = None if num_images is None else checked_count("num_images", num_images)
    x, y = gathered(model, x, y, num)
    right = correct(model, x, y, batch_size=batch_size)
    if not right.any():
        raise ValueError("the model classifies none of these images rightly, so none is attacked")
    with checked(model, x, y, attack.eps, probe=False) as x:
        seen = _traced(model, x[right][:1], y[right][:1])

        @cache
        def left(other: OwnAttack, seed: int) -> Tensor:
            return withstood(seen, other, x, y, seed=seed, batch_size=batch_size)

        # Other random numbers for the stronger one: with the same, restarts could not do worse.
        compared = {
            name: (left(weaker, seed), left(stronger, seed + 1))
            for name, (weaker, stronger) in _pairs(attack, x[0].numel()).items()
        }
        if surrogate is not None:
            wrong = misled({"": seen}, attack, surrogate, x, y, right, seed, batch_size)[""]
            compared["transfer"] = right & ~wrong, left(attack, seed + 1)
        findings = {name: _not_stronger(CLAIMS[name], *masks) for name, masks in compared.items()}
        reach = LARGE_EPS * (x[0].numel() ** 0.5 if attack.norm == "l2" else 1)
        share = accuracy(left(replace(attack, eps=reach, step=None, keep="best"), seed)).value
        findings["large_eps"] = Finding(
            CLAIMS["large_eps"], share <= LEFT_AT_LARGE_EPS, {"accuracy": share}
        )
        findings |= _local_findings(seen, attack, x[right], y[right], seed, batch_size)
        return Findings(findings)


def _traced(model: Classifier, x: Tensor, y: Tensor) -> Classifier:
    """The model; if it cuts its gradient, the same answers with a gradient of 0."""
    try:
        input_gradient(model, x, y)
    except NoGradientError:
        return lambda x: model(x) + 0 * x.flatten(1).sum(1, keepdim=True)
    return model


class Averaged(nn.Module):
    """The mean logits of several answers, `draws`, of a model that draws random numbers.

    An attack on them follows the expectation of the gradient (Athalye et al. 2018): images that
    are made on these are then for the model itself to judge. Logits, and not the probabilities
    that the paper averages, so that no softmax hides the gradient of a model that is sure.

    Raises:
        TypeError, ValueError: `draws` is no whole number of 1 or more.

    Example:
        >>> linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> noisy = lambda x: linear(x + 0.1 * torch.randn_like(x))
        >>> x, y = torch.rand(5, 3, 2, 2), torch.zeros(5, dtype=torch.long)
        >>> images = FGSM(0.1)(Averaged(noisy, draws=20), x, y)
        >>> correct(noisy, images, y).shape
        torch.Size([5])
    """

    def __init__(self, model: Classifier, draws: int = 20) -> None:
        super().__init__()
        self.model, self.draws = model, checked_count("draws", draws)

    def forward(self, x: Tensor) -> Tensor:
        """Mean logits (N, classes) of pixels x."""
        return torch.stack([self.model(x) for _ in range(self.draws)]).mean(0)


def catastrophic_overfitting(fgsm_accuracy: float, pgd_accuracy: float) -> bool:
    """Whether a model trained against FGSM has learnt to mislead it (Wong et al. 2020).

    They describe it, high accuracy under FGSM with almost none under PGD of the same radius, and
    name no threshold. Ours: more than half of the images under FGSM, and less than a tenth of that
    under PGD.

    Raises:
        ValueError: an accuracy is not a share in [0, 1].

    Example:
        >>> catastrophic_overfitting(fgsm_accuracy=0.86, pgd_accuracy=0.0)
        True
    """
    for value in (fgsm_accuracy, pgd_accuracy):
        if not 0 <= value <= 1:
            raise ValueError(
                f"an accuracy of {value} is no share in [0, 1]; divide per cent by 100"
            )
    return fgsm_accuracy > 0.5 and pgd_accuracy < 0.1 * fgsm_accuracy


def _pairs(attack: PGD, num_pixels: int) -> dict[str, tuple[OwnAttack, OwnAttack]]:
    """Attacks of which the first should be the weaker one."""
    last = replace(attack, keep="last", restarts=1)
    start = replace(attack, random_start=True, restarts=1)
    signs = attack.eps
    if attack.norm == "l2":  # as long a change, spread over all pixels
        assert not isinstance(signs, tuple)
        signs = min(signs / num_pixels**0.5, LARGE_EPS)
    one_step = FGSM(attack.eps, loss=attack.loss, look=attack.look, norm=attack.norm)
    return {
        "steps": (last, replace(last, steps=4 * attack.steps)),
        "restarts": (start, replace(start, restarts=5)),
        "one_step": (one_step, attack),
        "noise": (SignNoise(signs), attack),
    }


def _not_stronger(claim: str, weaker: Tensor, stronger: Tensor) -> Finding:
    """Compare what two attacks leave, by the one-sided sign test on images that differ."""
    only_weaker, only_stronger = int((stronger & ~weaker).sum()), int((weaker & ~stronger).sum())
    differ = only_weaker + only_stronger
    p = scipy.stats.binomtest(only_weaker, differ, alternative="greater").pvalue if differ else 1.0
    numbers = {
        "accuracy_weaker": accuracy(weaker).value,
        "accuracy_stronger": accuracy(stronger).value,
        "fooled_by_weaker_only": only_weaker,
        "fooled_by_stronger_only": only_stronger,
        "p_value": float(p),
    }
    return Finding(claim, numbers["p_value"] >= SIGNIFICANCE, numbers)


def _local_findings(
    model: Classifier, attack: PGD, x: Tensor, y: Tensor, seed: int, batch_size: int
) -> dict[str, Finding]:
    """What gradients and repeated answers tell about images that are classified rightly."""
    draws = generator(seed, "directions")
    parts = [
        _looked_at(model, attack, *batch, draws)
        for batch in zip(x.split(batch_size), y.split(batch_size), strict=True)
    ]
    still, climbs, other = (accuracy(torch.cat(masks)).value for masks in zip(*parts, strict=True))
    found = {
        "zero_gradients": (still <= ZERO_GRADIENTS, still),
        "direction": (climbs >= CLIMBS, climbs),
        "deterministic": (other == 0, other),
    }
    return {
        name: Finding(CLAIMS[name], passed, {"share": share, "images": len(x)})
        for name, (passed, share) in found.items()
    }


def _looked_at(
    model: Classifier, attack: PGD, x: Tensor, y: Tensor, draws: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Where there is no gradient, where it climbs further than chance, and where answers differ."""
    gradient, logits = input_gradient(model, x, y, attack.loss)
    noise = SignNoise(attack.eps if attack.norm == "linf" else 2 / 255)
    chance = noise.perturb(model, x, y, generator=draws)
    along = (x + (chance - x).abs() * gradient.sign()).clamp(0, 1)
    with torch.no_grad():
        higher = margin(model(along), y) > margin(model(chance), y)
        change = (model(x.clone()) - logits).abs().amax(1)
    still = (gradient == 0).flatten(1).all(1)
    return still, higher & ~still, change > SAME_ANSWER * (logits.amax(1) - logits.amin(1))
