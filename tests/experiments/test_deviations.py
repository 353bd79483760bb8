"""The attack as others may have written it."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hw3lib.experiments.part2 import canary
from hw3lib.experiments.part2.base import COURSE_FGSM, COURSE_PGD
from hw3lib.experiments.part2.deviations import (
    CUT_ALONE,
    CUTS,
    WRITINGS,
    Deviations,
    Habits,
    by_writing,
    normalized,
    pixels,
    shares,
)
from tests.experiments.tiny import TINY

COMBINATIONS = Deviations(model=TINY).combinations


def test_our_habits_make_our_attack():
    """The first combination, in normalised units, is the library's FGSM in pixels."""
    model, x, y = canary.images(TINY)
    first = COMBINATIONS[0]
    assert first == ("fgsm", "cross_entropy", "pixels", "eval")
    attacked = pixels(Deviations(model=TINY).perturb(model, normalized(x), y, first))
    assert attacked == pytest.approx(COURSE_FGSM(model, x, y), abs=1e-9)
    pgd = COMBINATIONS[0]._replace(attack="pgd")
    attacked = pixels(Deviations(model=TINY).perturb(model, normalized(x), y, pgd))
    assert attacked == pytest.approx(COURSE_PGD(model, x, y), abs=1e-9)


def test_every_habit_makes_another_attack():
    model, x, y = canary.images(TINY)
    study = Deviations(model=TINY)
    fgsm = [h for h in COMBINATIONS if h.attack == "fgsm"]
    made = [study.perturb(model, normalized(x), y, habits) for habits in fgsm]
    for (first, a), (second, b) in itertools.combinations(zip(fgsm, made, strict=True), 2):
        assert not torch.equal(a, b), (first, second)


def test_a_study_tries_the_habits_that_it_is_asked_for_and_no_other():
    few = Deviations(model=TINY, **CUT_ALONE)
    assert few.combinations == [
        Habits(kind, "cross_entropy", clamp, "eval")
        for kind in ("fgsm", "pgd")
        for clamp in ("pixels", "unit")
    ]
    assert len(COMBINATIONS) == len(set(COMBINATIONS)) == 24
    assert COMBINATIONS[0] == few.combinations[0]
    model, x, y = canary.images(TINY)
    assert len(few.blocks(model, x, y)) == 4


@pytest.mark.parametrize("habit", ["losses", "clamps", "modes"])
@pytest.mark.parametrize("values", [(), ("best",)])
def test_a_study_of_no_habit_or_of_an_unknown_one_is_refused(habit, values):
    with pytest.raises(ValidationError, match=habit):
        Deviations(model=TINY, **{habit: values})


def test_what_habits_leave_is_found_by_their_names():
    masks = np.arange(100) < 4 * np.arange(len(COMBINATIONS))[:, None]
    run = SimpleNamespace(
        results={"combinations": [list(habits) for habits in COMBINATIONS]}, arrays={"right": masks}
    )
    table = by_writing(run, "pgd")
    assert list(table) == list(WRITINGS.values())
    assert {tuple(row) for row in table.values()} == {tuple(CUTS.values())}
    asked = Habits("pgd", "negative_logit", "unit", "train")
    value = 0.04 * COMBINATIONS.index(asked)
    assert shares(run)[asked].value == pytest.approx(value)
    found = table["minus the logit, training mode"]["0 and 1"]
    assert found == shares(run)[asked]
