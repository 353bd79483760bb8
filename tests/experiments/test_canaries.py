"""A canary runs what is measured: a fault planted there changes it by more than its tolerance."""

from functools import cache

import numpy as np
import pytest
import torch

from hw3lib import FGSM, PGD, TrainResNet
from hw3lib.experiments.part2 import canary
from hw3lib.experiments.part2.attack_strength import AttackStrength
from hw3lib.experiments.part2.attacked import UnderAttack
from hw3lib.experiments.part2.deviations import Deviations
from hw3lib.experiments.part2.evaluation import Checklist, RadiusCurves
from hw3lib.experiments.part2.side_by_side import Referee, SideBySide
from hw3lib.experiments.part2.transfer import TransferStudy
from hw3lib.robust import evaluate
from hw3lib.runs.store import CANARY_TOLERANCE

NET = TrainResNet()
STUDIES = {
    "under_attack": UnderAttack(model=NET),
    "radius_curves": RadiusCurves(model=NET),
    "attack_strength": AttackStrength(model=NET, eps=2 / 255),
    "side_by_side": SideBySide(model=NET),
    "referee": Referee(model=NET),
    "checklist": Checklist(model=NET, surrogate=NET.changed(seed=1), attack=PGD(1 / 255)),
    "transfer": TransferStudy(models=(NET, NET.changed(seed=1)), attacks=(FGSM(8 / 255),)),
    "deviations": Deviations(model=NET, pgd_steps=2),
}


def survives_all(model, attack, x, y, draws):
    return torch.ones(len(y), dtype=torch.bool)


def forgets_who_was_wrong(model, attack, x, y, right, draws, batch_size):
    yield from HONEST["_runs"](model, attack, x, y, torch.ones_like(right), draws, batch_size)


def misleads_nobody(targets, attack, source, x, y, made, seed, batch_size):
    return {name: torch.zeros_like(made) for name in targets}


def counts_only_the_attacked(mask):
    return HONEST["accuracy"](mask[mask]) if mask.any() else HONEST["accuracy"](mask)


def counts_on_all(mask, _index):
    return HONEST["accuracy"](mask)


def never_falls(model, attack, x, y, eps_values, **options):
    return HONEST["eps_curve"](model, attack, x, y, eps_values[:1], **options).expand(
        len(eps_values), -1
    )


HONEST = {name: getattr(evaluate, name) for name in ("_runs", "accuracy", "eps_curve")}

FAULTS = [
    ("under_attack", "hw3lib.robust.evaluate._survives", survives_all),
    ("under_attack", "hw3lib.robust.evaluate._runs", forgets_who_was_wrong),
    ("under_attack", "hw3lib.experiments.part2.attacked.accuracy", counts_only_the_attacked),
    ("under_attack", "hw3lib.experiments.part2.attacked.course_accuracy", counts_on_all),
    ("radius_curves", "hw3lib.robust.evaluate._survives", survives_all),
    ("radius_curves", "hw3lib.experiments.part2.evaluation.eps_curve", never_falls),
    ("attack_strength", "hw3lib.robust.evaluate._survives", survives_all),
    ("side_by_side", "hw3lib.robust.evaluate._survives", survives_all),
    ("referee", "hw3lib.robust.evaluate._survives", survives_all),
    ("checklist", "hw3lib.robust.evaluate._runs", forgets_who_was_wrong),
    ("transfer", "hw3lib.robust.evaluate.misled", misleads_nobody),
    ("deviations", "hw3lib.experiments.part2.deviations.normalized", lambda x: x),
]


@cache
def honest_canary(study):
    return np.array(STUDIES[study].canary())


@pytest.mark.parametrize(
    ("study", "place", "fault"), FAULTS, ids=[f"{s}-{f.__name__}" for s, _, f in FAULTS]
)
def test_a_planted_fault_makes_the_canary_fail(study, place, fault, monkeypatch):
    settings = STUDIES[study]
    before = honest_canary(study)
    monkeypatch.setattr(place, fault)
    after = np.array(settings.canary())
    worst = np.max(np.abs(after - before) / np.maximum(np.abs(before), 1e-12))
    assert worst > CANARY_TOLERANCE


def test_guesses_are_right_but_for_every_fourth():
    model, x, y = canary.guesses(NET)
    assert (model(x).argmax(1) == y).tolist() == [i % 4 != 3 for i in range(len(y))]
