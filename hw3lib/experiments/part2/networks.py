"""The networks of part 2, from one seed: what each question trains, attacks and compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hw3lib.experiments.part2.base import COURSE_FGSM, COURSE_PGD
from hw3lib.experiments.part2.resnet_training import RECIPE, TrainResNet, pretraining
from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.checks import check_choice
from hw3lib.robust.defenses import AdversarialLoss, JoinedBatch, Standard


@dataclass(frozen=True)
class Networks:
    """Settings of every network; they share data set, architecture and seed.

    Attributes:
        pretrained: our own recipe, in place of the course's ready-made network.
        scratch, augmented: the course's settings, without and with flips and crops.
        fgsm_defense, pgd_defense: questions 2.2 and 2.3, both from `pretrained`.
        half_a, half_b: on disjoint halves of the data, from the same initial weights.
        half_c: as `half_b`, from other initial weights.
        smooth, sharp: `pretrained` trained on for a little, alike but for smoothed labels.
        fgsm_short, pgd_short: as the defences, but for so few epochs on CIFAR-10 that a CPU can
            train them for the studies that need their weights.
        fgsm_cut, pgd_cut: as these, but their attacks cut the normalised image at 0 and 1 while
            they train, as those of the report seem to; on CIFAR-10 for a few steps alone.
    """

    pretrained: TrainResNet
    scratch: TrainResNet
    augmented: TrainResNet
    fgsm_defense: TrainResNet
    pgd_defense: TrainResNet
    half_a: TrainResNet
    half_b: TrainResNet
    half_c: TrainResNet
    smooth: TrainResNet
    sharp: TrainResNet
    fgsm_short: TrainResNet
    pgd_short: TrainResNet
    fgsm_cut: TrainResNet
    pgd_cut: TrainResNet


TRAINING_EPOCHS: dict[str, dict[str, int | None]] = {
    "cifar10": {
        "pretrained": None, "scratch": 30, "fgsm_defense": 26, "pgd_defense": 8, "half": 16,
        "longer": 2, "fgsm_short": 4, "pgd_short": 1, "cut": 1,
    },
    "shapes": {
        "pretrained": 16, "scratch": 8, "fgsm_defense": 5, "pgd_defense": 5, "half": 16,
        "longer": 2, "fgsm_short": 5, "pgd_short": 5, "cut": 5,
    },
}  # fmt: skip
"""Passes over the training images; None is that of `pretraining`. The course's networks make 30,
and divide the learning rate by ten after every seventh."""

CUT_IMAGES = {"cifar10": 200 * 128, "shapes": 0}
"""Training images of the defences with the cut; of CIFAR-10 200 steps, an hour on two CPU cores."""

OTHER_SEED = 1000
"""Added to a seed where a network needs other initial weights."""


def networks(
    dataset: str = "cifar10",
    seed: int = 0,
    epochs: int | None = None,
    *,
    fgsm: FGSM = COURSE_FGSM,
    pgd: PGD = COURSE_PGD,
    alpha: float = 0.5,
) -> Networks:
    """The networks for one data set and seed.

    Args:
        dataset: "cifar10" with the course's settings, or "shapes" with a small network and larger
            steps, so that everything trains on a CPU in a minute.
        seed: of all; as in the course, there is only one ready-made network for CIFAR-10.
        epochs: of every training; None takes the data set's defaults.
        fgsm, alpha: the attack that the FGSM defence trains on, and its weight of the clean loss.
        pgd: the attack that the PGD defence trains on.

    Raises:
        ValueError: there is no such data set.
    """
    check_choice("dataset", dataset, tuple(TRAINING_EPOCHS))
    number = TRAINING_EPOCHS[dataset]
    if epochs is not None:
        number = dict.fromkeys(number, epochs)
    scratch = TrainResNet(seed=seed).changed(epochs=number["scratch"])
    ready = pretraining(number["pretrained"])
    # The best epoch on clean images is the least defended one.
    last: dict[str, Any] = {"keep": "last"}
    if dataset == "shapes":
        small: dict[str, Any] = {"dataset": "shapes", "network": "small", "batch_size": 64}
        scratch = scratch.changed(learning_rate=0.02, **small)
        ready = RECIPE.changed(epochs=number["pretrained"], seed=seed, **small)
        last = {}
    fgsm_defense = scratch.changed(start=ready, defense=AdversarialLoss(fgsm, alpha=alpha))
    pgd_defense = scratch.changed(start=ready, defense=JoinedBatch(pgd), augmented=True)
    fgsm_short = fgsm_defense.changed(epochs=number["fgsm_short"], **last)
    pgd_short = pgd_defense.changed(epochs=number["pgd_short"])
    few_steps = {"epochs": number["cut"], "keep": "last", "train_images": CUT_IMAGES[dataset]}
    fgsm_cut = AdversarialLoss(replace(fgsm, cut="normalized"), alpha=alpha)
    pgd_cut = JoinedBatch(replace(pgd, cut="normalized"))
    # Blanked squares cost more than they give in so few epochs.
    half = ready.first.changed(seed=seed, epochs=number["half"], erased=0)
    longer = ready.changed(
        start=ready, seed=seed, epochs=number["longer"], erased=0, learning_rate=0.01,
        schedule="linear",
    )  # fmt: skip
    return Networks(
        pretrained=ready,
        scratch=scratch,
        augmented=scratch.changed(augmented=True),
        fgsm_defense=fgsm_defense.changed(epochs=number["fgsm_defense"]),
        pgd_defense=pgd_defense.changed(epochs=number["pgd_defense"]),
        half_a=half.changed(half="a"),
        half_b=half.changed(half="b"),
        half_c=half.changed(half="b", seed=seed + OTHER_SEED),
        smooth=longer.changed(defense=Standard(label_smoothing=0.1)),
        sharp=longer.changed(defense=Standard()),
        fgsm_short=fgsm_short,
        pgd_short=pgd_short,
        fgsm_cut=fgsm_short.changed(defense=fgsm_cut, **few_steps),
        pgd_cut=pgd_short.changed(defense=pgd_cut, **few_steps),
    )


def first_steps(training: TrainResNet, steps: int = 40) -> TrainResNet:
    """The same training, but for its first steps alone, on as many images as they need."""
    return training.changed(epochs=1, keep="last", train_images=steps * training.batch_size)


def over_alpha(nets: Networks, alphas: Sequence[float]) -> dict[float, TrainResNet]:
    """The FGSM defence with each of these weights of the clean loss, everything else alike.

    They train as `fgsm_short` does, but on CIFAR-10 for few steps alone, at a rate that is larger
    by as much as they are fewer: so a CPU trains one in a quarter of an hour.
    """
    defense = nets.fgsm_short.defense
    assert isinstance(defense, AdversarialLoss)
    training = nets.fgsm_short
    if training.dataset == "cifar10":
        training = first_steps(training, 200).changed(learning_rate=0.008, schedule="linear")
    return {a: training.changed(defense=replace(defense, alpha=a)) for a in alphas}
