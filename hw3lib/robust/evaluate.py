"""What classifiers still get right under attack.

Almost every function returns masks (N,), true where an image is classified rightly before and after
the attack. An image that is wrong before is not attacked and counts as wrong, and shares are of all
images. `accuracy` turns a mask into a share with its interval.

Which images are fooled is for the model itself to say, also where an attack looks at something else
(`look="fast"`).

Random numbers come from a generator keyed by (seed, restart), handed to the images that are still
right, in their order. So nothing depends on `batch_size` (where it does, the function says so), but
which random start an image gets depends on which images before it are still right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from hw3lib.data import generator
from hw3lib.robust.attacks import FGSM, PGD, Attack, SignNoise
from hw3lib.robust.checks import Radius, check_logits, checked
from hw3lib.robust.modes import Classifier
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
        ValueError, TypeError: what `hw3lib.robust.checks.checked` refuses.
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


def step_curve(
    model: Classifier, attack: PGD, x: Tensor, y: Tensor, *, seed: int = 0, batch_size: int = 500
) -> Tensor:
    """Where the model is right after each of 0, ..., steps steps, (steps + 1, N); it never rises.

    One run of the longest attack gives all rows: row k equals `withstood` with k steps of the same
    size and keep="best". Row 0 is `correct`, less what a random start by itself fools.

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
    draws = generator(seed, "attack")
    for batch in _batches(correct(model, x, y, batch_size=batch_size), batch_size):
        images, labels = x[batch], y[batch]
        taken[batch] = attack.steps_to_fool(model, images, labels, generator=draws)
    return taken > torch.arange(attack.steps + 1, device=y.device)[:, None]


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


# Several models


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
        wrong = misled(models, maker, source, x, y, made, seed, batch_size)
        shown = {target: made & right[target] for target in models}
        matrix[name] = {
            target: Transfer(shown[target], shown[target] & wrong[target]) for target in models
        }
    return matrix


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
    for restart in range(restarts):
        right, draws = right.clone(), generator(seed, "attack", restart)
        for batch in _batches(right, batch_size):
            right[batch] = _survives(model, run, x[batch], y[batch], draws)
        yield right


def _survives(
    model: Classifier, attack: Attack, x: Tensor, y: Tensor, draws: torch.Generator
) -> Tensor:
    """Where one run leaves the model right, (N,), for images right before."""
    if isinstance(attack, PGD) and attack.keep == "best":
        return attack.steps_to_fool(model, x, y, generator=draws) > attack.steps
    return correct(model, attack(model, x, y, generator=draws), y, batch_size=len(x))


def misled(
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
