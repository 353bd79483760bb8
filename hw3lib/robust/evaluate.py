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

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn  # noqa: F401 - the examples build networks
from torch.utils import data as loading
from tqdm import tqdm

from hw3lib.data import generator
from hw3lib.robust import checks
from hw3lib.robust.attacks import FGSM, PGD, Attack, SignNoise
from hw3lib.robust.balls import Norm, Radius, wide
from hw3lib.robust.modes import Classifier, evaluating
from hw3lib.stats import Interval, proportion

OwnAttack = FGSM | PGD | SignNoise
"""An attack of which copies with other settings can be made."""

OtherAttack = Callable[[Tensor, Tensor], Tensor]
"""An attack of another library, which holds its model, from images and labels to images."""

Attacker = Attack | OtherAttack
"""An attack of this library, of one's own, or of another library."""

Within = tuple[Radius, Norm]
"""A ball, for attacks that have none of their own, such as `(8 / 255, "linf")`."""

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images and labels a batch at a time, such as a `torch.utils.data.DataLoader` gives."""


# Accuracy under attack


def accuracy(mask: Tensor) -> Interval:
    """Share of true entries with its Wilson interval; over all test images the honest protocol.

    Raises:
        ValueError: the mask is empty, or no mask (N,) of true and false.

    Example:
        >>> f"{accuracy(torch.tensor([True] * 90 + [False] * 10)):.2f}"
        '0.90 [0.83, 0.94]'
    """
    if mask.ndim != 1 or mask.dtype != torch.bool:
        raise ValueError(
            f"a mask of shape {tuple(mask.shape)} and {mask.dtype}: need (N,) of true and false; "
            "take one row of a curve"
        )
    return proportion(int(mask.sum()), len(mask))


def course_accuracy(mask: Tensor, index: Tensor) -> Interval:
    """The course's protocol: the same over the test part of the course's split alone.

    Args:
        mask: (10000,) over the official test images.
        index: (2500,) which of them the course tests on.

    Example:
        >>> mask = torch.arange(10_000) < 5_000
        >>> course_accuracy(mask, torch.arange(2_500)).value
        1.0
    """
    return accuracy(mask[index])


def correct(
    model: Classifier, x: Tensor | Batches, y: Tensor | None = None, *, batch_size: int = 500
) -> Tensor:
    """Where the largest logit is that of the label, (N,) bool, in evaluation mode.

    Args:
        model: pixels to logits.
        x: (N, C, H, W) pixels in [0, 1], or uint8; or batches of images and labels, in a fixed
            order, which are moved to the model's device.
        y: (N,) int64 labels; none with batches.
        batch_size: images that are classified at a time.

    Raises:
        ValueError, TypeError: what `hw3lib.robust.checks.checked` refuses; a loader shuffles.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> correct(model, x, model(x).argmax(1))
        tensor([True, True, True, True, True])
    """
    if y is None or not isinstance(x, Tensor):
        return torch.cat([correct(model, *batch) for batch in _loaded(model, x, y)])
    with checks.checked(model, checks.as_pixels(x), y, probe=False) as pixels:
        batches = pixels.split(batch_size)
        found = [checks.answers(model, batch) for batch in batches]
        for batch, logits in zip(batches, found, strict=True):
            checks.check_logits(logits, y, len(batch))
        right: Tensor = torch.cat(found).argmax(1) == y
    return right


def withstood(
    model: Classifier,
    attack: Attacker,
    x: Tensor | Batches,
    y: Tensor | None = None,
    *,
    within: Within | None = None,
    seed: int = 0,
    batch_size: int = 500,
) -> Tensor:
    """Where the model is right before and after the attack, (N,) bool.

    Args:
        model, x, y, batch_size: as in `correct`; of batches that are loaded the size is theirs.
        attack: untargeted. `PGD(keep="best")` leaves an image alone as soon as a step fools it. An
            attack of another library, which holds its model, is called with images and labels.
        within: radius and norm of the ball in which such an attack counts: an image that it takes
            further is not fooled, as is right for attacks that look for the smallest change.
            Without it how far images go is for the caller to know.
        seed: of the attack's random numbers, where it takes a generator.

    Raises:
        ValueError: the attack is targeted, or leaves its ball or the pixel range; it has a ball of
            its own beside `within`; a loader shuffles.
        TypeError: a batch is no pair of images and labels, or the attack is none.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> y = model(x).argmax(1)
        >>> withstood(model, PGD(0.5, keep="best"), x, y).shape
        torch.Size([5])
        >>> far = lambda x, y: 1 - x  # no attack that stays close
        >>> bool(withstood(model, far, x, y, within=(0.0, "linf")).all())
        True
    """
    attack, draws = _usable(attack, within), _draws(attack, seed)
    if y is None or not isinstance(x, Tensor):
        loaded = _loaded(model, x, y)
        return torch.cat([_curve(model, attack, *b, draws, len(b[1]))[-1] for b in loaded])
    return _curve(model, attack, x, y, draws, batch_size)[-1]


def report(
    model: Classifier,
    attacks: Mapping[str, Attacker],
    x: Tensor | Batches,
    y: Tensor | None = None,
    *,
    within: Within | None = None,
    seed: int = 0,
    batch_size: int = 500,
) -> dict[str, Interval]:
    """Shares that are right before ("clean"), after each attack, and after all ("worst case").

    Args:
        model, x, y, seed, batch_size: as in `withstood`; batches can be gone through repeatedly.
        attacks: by name.
        within: as in `withstood`, for those of the attacks that have no ball of their own.

    Raises:
        ValueError: an attack has the name of another row; see `withstood`.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> shares = report(model, {"FGSM": FGSM(0.1), "PGD": PGD(0.1)}, x, model(x).argmax(1))
        >>> f"{shares['clean']:.2f}", list(shares)
        ('1.00 [0.57, 1.00]', ['clean', 'FGSM', 'PGD', 'worst case'])
    """
    if taken := {"clean", "worst case"} & set(attacks):
        raise ValueError(f"an attack is named {min(taken)!r}, as is a row of the report; rename it")
    masks = {"clean": correct(model, x, y, batch_size=batch_size)}
    for name, attack in attacks.items():
        ball = within if isinstance(_usable(attack), _Held) else None
        masks[name] = withstood(model, attack, x, y, within=ball, seed=seed, batch_size=batch_size)
    masks["worst case"] = torch.stack([*masks.values()]).all(0)
    return {name: accuracy(mask) for name, mask in masks.items()}


def restart_curve(
    model: Classifier,
    attack: Attack,
    x: Tensor | Batches,
    y: Tensor | None = None,
    *,
    seed: int = 0,
    batch_size: int = 500,
) -> Tensor:
    """`withstood` after 0, 1, ..., restarts runs, (restarts + 1, N); it never rises.

    Row r equals `withstood` with r restarts, and row 0 is `correct`.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> attack = PGD(0.1, random_start=True, restarts=3)
        >>> restart_curve(model, attack, x, model(x).argmax(1)).shape
        torch.Size([4, 5])
    """
    return _curve(model, attack, *gathered(model, x, y), _draws(attack, seed), batch_size)


def step_curve(
    model: Classifier,
    attack: PGD,
    x: Tensor | Batches,
    y: Tensor | None = None,
    *,
    seed: int = 0,
    batch_size: int = 500,
) -> Tensor:
    """Where the model is right after each of 0, ..., steps steps, (steps + 1, N); it never rises.

    One run of the longest attack gives all rows: row k equals `withstood` with k steps of the same
    size and keep="best". Row 0 is `correct`, less what a random start by itself fools.

    Raises:
        ValueError: the attack has restarts (they are several runs) or is targeted.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> left = step_curve(model, PGD(0.1, steps=10), x, model(x).argmax(1)).sum(1)
        >>> len(left), int(left[0])
        (11, 5)
    """
    _usable(attack)
    if not isinstance(attack, PGD):
        raise TypeError(f"{attack}: a curve over steps is of PGD, the only one that makes several")
    if attack.restarts > 1:
        raise ValueError(
            f"restarts={attack.restarts}: the curve over steps belongs to one run; set restarts=1, "
            "or take restart_curve"
        )
    x, y = gathered(model, x, y)
    taken = torch.zeros_like(y)
    draws = generator(seed, "attack")
    for batch in _batches(correct(model, x, y, batch_size=batch_size), batch_size):
        images, labels = x[batch], y[batch]
        taken[batch] = attack.steps_to_fool(model, images, labels, generator=draws)
    return taken > torch.arange(attack.steps + 1, device=y.device)[:, None]


def eps_curve(
    model: Classifier,
    attack: OwnAttack,
    x: Tensor | Batches,
    y: Tensor | None,
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

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> eps_curve(model, FGSM(0.1), x, model(x).argmax(1), [0.0, 0.1, 0.2]).sum(1)[0]
        tensor(5)
    """
    _check_ascending(eps_values)
    x, y = gathered(model, x, y)
    right = correct(model, x, y, batch_size=batch_size)
    rows = []
    for eps in eps_values:
        if torch.tensor(eps).any():
            scaled = replace(attack, eps=eps)
            *_, right = _runs(model, scaled, x, y, right, _draws(scaled, seed), batch_size)
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
    x: Tensor | Batches,
    y: Tensor | None = None,
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

    Example:
        >>> one, two = (nn.Sequential(nn.Flatten(), nn.Linear(12, 3)) for _ in range(2))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> matrix = transfer_matrix({"one": one, "two": two}, FGSM(0.1), x, one(x).argmax(1))
        >>> matrix["one"]["two"].fooled.shape
        torch.Size([5])
    """
    if not models:
        raise ValueError("there are no models")
    if noise is not None and "noise" in models:
        raise ValueError('a model is named "noise", as is the row of the noise; rename the model')
    x, y = gathered(next(iter(models.values())), x, y)
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


def gathered(
    model: Classifier, x: Tensor | Batches, y: Tensor | None, num: int | None = None
) -> tuple[Tensor, Tensor]:
    """All images, or the first of them, and their labels as tensors, loaded if need be."""
    if isinstance(x, Tensor) and y is not None:
        return checks.as_pixels(x[:num]), y[:num]
    batches, count = [], 0
    for batch in _loaded(model, x, y):
        batches.append(batch)
        count += len(batch[1])
        if num is not None and count >= num:
            break
    images, labels = (torch.cat(parts)[:num] for parts in zip(*batches, strict=True))
    return checks.as_pixels(images), labels


def _loaded(
    model: Classifier, batches: Tensor | Batches, y: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches on the model's device, with a progress bar on a terminal where it takes long."""
    _check_loadable(batches, y)
    weight = checks.first_weight(model)
    bar = tqdm(batches, unit="batch", leave=False, delay=2, disable=None)
    with torch.random.fork_rng(devices=[]):  # a loader draws from the global numbers as it starts
        loaded = iter(bar)
        first = next(loaded, None)
    if first is None:
        raise ValueError("there are no batches: the loader is empty, or an iterator at its end")
    for images, labels in map(checks.checked_pair, itertools.chain([first], loaded)):
        device = images.device if weight is None else weight.device
        yield images.to(device), labels.to(device)


def _check_loadable(batches: Any, y: Tensor | None) -> None:
    if isinstance(batches, Tensor):
        raise TypeError("images came without labels; pass both, or batches of both")
    if y is not None:
        raise TypeError(
            f"images are a {type(batches).__name__}; with labels beside them they must be a tensor "
            "(torch.as_tensor), and batches of images and labels come alone"
        )
    listed = isinstance(batches, tuple | list)
    if listed and len(batches) == 2 and all(isinstance(part, Tensor) for part in batches):
        raise TypeError("images and labels came as one; pass x, y as two arguments")
    random = loading.RandomSampler, loading.SubsetRandomSampler, loading.WeightedRandomSampler
    for holder in (batches, getattr(batches, "batch_sampler", None)):
        if isinstance(getattr(holder, "sampler", None), random):
            raise ValueError(
                "the loader shuffles, so masks of two calls are not of the same images; "
                "make it with shuffle=False"
            )


def _batches(mask: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Indices of the true entries, `batch_size` at a time; nothing if there are none."""
    if mask.any():
        yield from mask.nonzero().squeeze(1).split(batch_size)


def _draws(attack: Attacker, seed: int) -> list[torch.Generator]:
    """The random numbers of each restart."""
    restarts = attack.restarts if isinstance(attack, PGD) else 1
    return [generator(seed, "attack", restart) for restart in range(restarts)]


def _curve(
    model: Classifier,
    attack: Attacker,
    x: Tensor,
    y: Tensor,
    draws: list[torch.Generator],
    batch_size: int,
) -> Tensor:
    """Where the model is right after 0, 1, ... restarts, (restarts + 1, N)."""
    x = checks.as_pixels(x)
    right = correct(model, x, y, batch_size=batch_size)
    return torch.stack([right, *_runs(model, attack, x, y, right, draws, batch_size)])


def _runs(
    model: Classifier,
    attack: Attacker,
    x: Tensor,
    y: Tensor,
    right: Tensor,
    draws: list[torch.Generator],
    batch_size: int,
) -> Iterator[Tensor]:
    """Which of the images that are right stay so, after each restart; a run attacks no others."""
    attack = _usable(attack)
    run = replace(attack, restarts=1) if isinstance(attack, PGD) else attack
    for numbers in draws:
        right = right.clone()
        for batch in _batches(right, batch_size):
            right[batch] = _survives(model, run, x[batch], y[batch], numbers)
        yield right


def _survives(
    model: Classifier, attack: Attacker, x: Tensor, y: Tensor, draws: torch.Generator
) -> Tensor:
    """Where one run leaves the model right, (N,), for images right before."""
    if isinstance(attack, PGD) and attack.keep == "best":
        return attack.steps_to_fool(model, x, y, generator=draws) > attack.steps
    return correct(model, attacked(model, attack, x, y, draws), y, batch_size=len(x))


def attacked(
    model: Classifier, attack: Attacker, x: Tensor, y: Tensor, draws: torch.Generator
) -> Tensor:
    """Adversarial images (N, C, H, W) by any attack, after checks that they are."""
    own = _usable(attack)
    images = own(model, x, y, generator=draws)
    if not isinstance(images, Tensor) or images.shape != x.shape:
        seen = tuple(getattr(images, "shape", ())) or f"a {type(images).__name__}"
        raise _no_attack(attack, f"returned {seen} for images {tuple(x.shape)}")
    images = images.detach()
    if isinstance(own, _Held) and own.within:
        images = images.where(wide(checks.inside(x, images, *own.within), x), x)
    norm = checks.checked_norm(getattr(own, "norm", "linf"))
    checks.check_inside(x, images, own.eps, norm, attack)
    return images


@dataclass(frozen=True)
class _Held:
    """An attack that holds its model as one that is told it, of any radius."""

    attack: OtherAttack
    within: Within | None

    eps: ClassVar[float] = math.inf

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,  # noqa: ARG002 - it has random numbers of its own
    ) -> Tensor:
        with evaluating(model), torch.inference_mode(False), torch.enable_grad():
            return self.attack(x.clone(), y.clone())

    def __str__(self) -> str:
        return str(self.attack)


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
    attack = _usable(attack)
    if isinstance(attack, _Held):
        raise ValueError(
            f"{attack} holds its model, so its images are made on that one and not on each source; "
            "pass an attack that is called with the model"
        )
    wrong = {name: torch.zeros_like(made) for name in targets}
    draws = generator(seed, "attack")
    for batch in _batches(made, batch_size):
        images = attacked(source, attack, x[batch], y[batch], draws)
        for name, model in targets.items():
            wrong[name][batch] = ~correct(model, images, y[batch], batch_size=batch_size)
    return wrong


def _usable(attack: Attacker, within: Within | None = None) -> Attack:
    """An attack that is told its model, after checks of what can be known beforehand."""
    if not callable(attack) or isinstance(attack, type):
        raise _no_attack(attack, f"is a {type(attack).__name__}")
    if getattr(attack, "targeted", False):
        raise ValueError(
            f"{attack} is targeted, so it would take the true labels for those to reach; "
            "pass an untargeted attack"
        )
    if getattr(attack, "cut", "pixels") != "pixels":
        raise ValueError(
            f"{attack} cuts images in a way that leaves its ball, and what leaves the ball proves "
            "nothing about it; hw3lib.experiments.part2.deviations tells what such a cut does"
        )
    signature = inspect.signature(attack)
    if "generator" not in signature.parameters:
        try:
            signature.bind(None, None)
        except TypeError:
            raise _no_attack(attack, f"takes {', '.join(signature.parameters)}") from None
        ball = None if within is None else _checked_ball(within)
        return _Held(cast(OtherAttack, attack), ball)
    if not hasattr(attack, "eps"):
        raise _no_attack(attack, "has no eps")
    if within is not None:
        raise ValueError(f"{attack} has a ball of its own; within= is for attacks that have none")
    return cast(Attack, attack)


def _checked_ball(within: Any) -> Within:
    if not isinstance(within, tuple | list) or len(within) != 2:
        raise TypeError(f'within={within!r}: give a radius and a norm, such as (8 / 255, "linf")')
    norm = checks.checked_norm(within[1])
    return checks.checked_radius(within[0], norm), norm


def _no_attack(attack: object, seen: str) -> TypeError:
    """What to raise of something that is no attack, with what was seen of it."""
    return TypeError(
        f"{attack} {seen}; an attack that holds its model, as those of other libraries do, is "
        "called as attack(x, y), any other has a radius eps and is called as "
        "attack(model, x, y, generator=...), and both return images of the same shape, such as "
        "lambda x, y: attack(x, y)[1] picks from several results"
    )


def _check_ascending(eps_values: Sequence[Radius]) -> None:
    if len(eps_values) == 0:
        raise ValueError("eps_values is empty; pass at least one radius")
    for smaller, larger in itertools.pairwise(eps_values):
        if not (torch.tensor(smaller) <= torch.tensor(larger)).all():
            raise ValueError(
                f"eps_values go from {smaller} to {larger}, but they must ascend: an image that a "
                "radius fools is not attacked at later ones; sort them"
            )
