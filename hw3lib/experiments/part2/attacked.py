"""Trained networks under attack: which test images stand, and what the attacks look like (2.1a)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
import torch
from annotated_types import Ge, Len
from numpy.typing import NDArray
from torch import Tensor

from hw3lib import data
from hw3lib.experiments.base import Experiment, device_of, outcome, resumable_blocks
from hw3lib.experiments.part2 import canary
from hw3lib.experiments.part2.base import (
    COURSE_FGSM,
    COURSE_PGD,
    EIGHT,
    AnyAttack,
    Block,
    test_images,
)
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.robust.attacks import FGSM, PGD, SignNoise
from hw3lib.robust.evaluate import accuracy, correct, course_accuracy, withstood
from hw3lib.robust.modes import Classifier
from hw3lib.runs import Context, Outcome, Run
from hw3lib.stats import Interval, two_way_interval


def suite(fgsm: FGSM = COURSE_FGSM, pgd: PGD = COURSE_PGD) -> dict[str, FGSM | PGD | SignNoise]:
    """What a network is attacked with, by name; random signs and strong PGD have FGSM's radius."""
    return {
        "random signs": SignNoise(fgsm.eps),
        "FGSM": fgsm,
        "PGD": pgd,
        "strong PGD": PGD(fgsm.eps, 20, keep="best", random_start=True, restarts=2),
        "PGD 8/255": PGD(EIGHT, keep="best"),
    }


SUITE = suite()
"""What every network of the book is attacked with."""

STEP_SIZES = (0.25, 0.5, 1.0, 2.0, 200.0)
"""Steps of PGD in units of its radius, from the usual one of ten to the course's."""


class UnderAttack(Experiment):
    """Which test images a network classifies rightly before and after each attack.

    Attributes:
        model: the network.
        attacks: what it is attacked with.
        images: "all" test images, or the "course"'s quarter of them.
        num: only the first so many of these; 0 takes all.
        seed: of the attacks' noise.
    """

    experiment: ClassVar[str] = "under_attack"
    added_later: ClassVar[tuple[str, ...]] = ("num",)

    model: TrainResNet
    attacks: Annotated[tuple[AnyAttack, ...], Len(1)] = tuple(SUITE.values())
    images: Literal["all", "course"] = "all"
    num: Annotated[int, Ge(0)] = 0
    seed: int = 0

    def reseeded(self, seed: int) -> UnderAttack:
        return self.changed(model=self.model.reseeded(seed), seed=seed)

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        dataset, index, x, y = test_images(self.model, self.images, device, self.num or None)
        in_course = torch.isin(index, data.test_split(len(dataset.y_test))[1])
        if not in_course.any():
            raise ValueError(
                f"num={self.num}: none of these images is among the course's; give more"
            )
        blocks = self.blocks(load_resnet(self.model, device), x, y)
        masks, seconds = resumable_blocks(blocks, context, self.describe())
        right = torch.stack(masks).cpu()
        results = {"attacks": ["none", *map(repr, self.attacks)], **counted(right, in_course)}
        arrays = {"right": right, "index": index, "in_course": in_course}
        return outcome(results, arrays, device=device, seconds=seconds)

    def canary(self) -> list[float]:
        """Loss of an untrained small network on embedded images after each attack, and counts."""
        rngs = (data.generator(self.seed, "canary") for _ in self.attacks)
        losses = canary.losses(self.model, self.attacks, rngs)
        model, x, y = canary.guesses(self.model)
        right = torch.stack([block() for block in self.blocks(model, x, y)])
        table = counted(right, torch.arange(len(y)) % 2 == 0)
        return losses + [row["value"] for rows in table.values() for row in rows]

    def blocks(self, model: Classifier, x: Tensor, y: Tensor) -> list[Block]:
        """What gives the masks (N,): right before any attack, and after each."""
        measure = partial(withstood, model, x=x, y=y, seed=self.seed)
        under = [partial(measure, attack=attack) for attack in self.attacks]
        return [partial(correct, model, x, y), *under]


def briefly(
    model: TrainResNet, attacks: Mapping[str, AnyAttack] = SUITE, seed: int = 0
) -> UnderAttack:
    """One of many networks under attack: on CIFAR-10 less, in minutes on a CPU; else everything.

    Of the attacks FGSM and strong PGD, of the course's test images the first thousand.
    """
    if model.dataset != "cifar10":
        return UnderAttack(model=model, attacks=tuple(attacks.values()), seed=seed)
    two = (attacks["FGSM"], attacks["strong PGD"])
    return UnderAttack(model=model, attacks=two, images="course", num=1000, seed=seed)


class AdversarialPictures(Experiment):
    """A few test images that a network gets right and an attack turns.

    Attributes:
        model: the network.
        attack: what turns them.
        num: how many, one of a class as long as there are classes; fewer if fewer are turned.
        seed: of the attack's noise.
    """

    experiment: ClassVar[str] = "adversarial_pictures"

    model: TrainResNet
    attack: AnyAttack
    num: Annotated[int, Ge(1)] = 5
    seed: int = 0

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        _, index, x, y = test_images(self.model, "course", device, 500)
        arrays = self.pictures(load_resnet(self.model, device), x, y)
        arrays["index"] = index[arrays["index"]]
        results = {"classes": list(data.CLASSES[self.model.dataset])}
        return outcome(results, arrays, device=device)

    def canary(self) -> list[float]:
        """Sizes of the changes and confidences on embedded images, untrained network."""
        model, x, _ = canary.images(self.model)
        chosen = self.pictures(model, x, model(x).argmax(1))
        change = (chosen["adversarial"] - chosen["original"]).abs().mean()
        sure = chosen["after"].amax(1).mean()
        return [float(value.nan_to_num()) for value in (change, sure)]  # where none is turned

    @torch.no_grad()
    def pictures(self, model: Classifier, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Originals and adversarial images, (K, 3, H, W), and both probabilities, (K, classes)."""
        rng = data.generator(self.seed, "pictures")
        with torch.enable_grad():
            attacked = self.attack(model, x, y, generator=rng)
        before, after = model(x).softmax(1), model(attacked).softmax(1)
        turned = (before.argmax(1) == y) & (after.argmax(1) != y)
        chosen = turned.nonzero().squeeze(1)
        # The first of each class, then the second of each, and so on.
        earlier = [int((y[chosen[:i]] == y[k]).sum()) for i, k in enumerate(chosen)]
        rank = torch.tensor(earlier, dtype=torch.long, device=chosen.device)
        chosen = chosen[rank.argsort(stable=True)][: self.num]
        values = {"original": x, "adversarial": attacked, "before": before, "after": after}
        picked = {name: value[chosen].float() for name, value in values.items()}
        return picked | {"label": y[chosen], "index": chosen.cpu()}


def counted(right: Tensor, in_course: Tensor) -> dict[str, list[dict[str, Any]]]:
    """Accuracies of masks (K, N) in both protocols, as they are stored."""
    return {
        "course": [vars(course_accuracy(mask, in_course)) for mask in right],
        "honest": [vars(accuracy(mask)) for mask in right],
    }


def outcomes(run: Run, attacks: Mapping[str, AnyAttack] = SUITE) -> dict[str, NDArray[np.bool_]]:
    """Where the network is right, (N,) each, before ("clean") and after each of these attacks."""
    return {name: run.arrays["right"][row] for name, row in _rows(run, attacks).items()}


def intervals(run: Run, attacks: Mapping[str, AnyAttack] = SUITE) -> dict[str, dict[str, Interval]]:
    """Accuracies in both protocols: `intervals(run)["FGSM"]["course"]`, or "honest"."""
    return {
        name: {kind: Interval(**run.results[kind][row]) for kind in ("course", "honest")}
        for name, row in _rows(run, attacks).items()
    }


def honest(run: Run, attacks: Mapping[str, AnyAttack] = SUITE) -> dict[str, Interval]:
    """Accuracies on all images that the run was made on, by attack."""
    return {name: both["honest"] for name, both in intervals(run, attacks).items()}


def over_seeds(
    trained: Sequence[Run], attacks: Mapping[str, AnyAttack] = SUITE
) -> dict[str, Interval]:
    """Mean accuracies of networks of several seeds on all test images, by attack.

    The intervals are over seeds and images at once, see `stats.two_way_interval`.
    """
    found = [outcomes(run, attacks) for run in trained]
    return {name: two_way_interval(np.stack([one[name] for one in found])) for name in found[0]}


def _rows(run: Run, attacks: Mapping[str, AnyAttack]) -> dict[str, int]:
    """Which row of a run is which attack, as its settings say."""
    asked = cast(UnderAttack, run.settings).attacks
    if missing := [name for name, attack in attacks.items() if attack not in asked]:
        raise ValueError(
            f"the run has no {', '.join(missing)}; it has {', '.join(map(repr, asked))}"
        )
    return {"clean": 0} | {name: 1 + asked.index(attack) for name, attack in attacks.items()}
