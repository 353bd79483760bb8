"""How attacks differ in strength, by steps, restarts, radius and library."""

import numpy as np
import pytest
import torch

from hw3lib.experiments.part2 import canary
from hw3lib.experiments.part2.attack_strength import AttackStrength
from hw3lib.experiments.part2.base import COURSE_PGD
from hw3lib.experiments.part2.evaluation import Checklist, RadiusCurves
from hw3lib.experiments.part2.gradient_sign import GradientSign
from hw3lib.experiments.part2.side_by_side import OTHERS, Referee, SideBySide, counterpart
from hw3lib.robust.attacks import PGD
from tests.experiments.tiny import TINY, stored


def test_small_steps_gain_what_the_linear_expansion_says():
    model, x, y = canary.images(TINY)
    study = GradientSign(model=TINY, eps_values=(1e-7, 1e-2), draws=3)
    table = study.measure(model, 0.1 + 0.8 * x, y)
    assert table["fgsm_gain"][:, 0] == pytest.approx(table["predicted"][:, 0], rel=1e-2)
    assert (table["noise_gain"][:, 0].abs() < 0.3 * table["predicted"][:, 0]).all()
    assert (table["sign_cosine"] > 0).all()
    assert table["noise_cosine"].abs().mean() < 3 / 3072**0.5


def test_more_steps_and_restarts_never_help_the_defender(cache):
    run = stored(AttackStrength(model=TINY, images=40, steps=(1, 3), restarts=2, eps=0.03))
    for name in ("jump curve", "restarts"):
        accuracy = run.arrays[name].mean(1)
        assert (np.diff(accuracy) <= 0).all()
    assert run.arrays["best 3"].sum() <= run.arrays["last 3"].sum()
    assert set(run.results["seconds"]) == {"FGSM", "PGD-1", "PGD-3"}


def test_curves_fall_with_the_radius(cache):
    run = stored(RadiusCurves(model=TINY, images=40, eps_values=(0.0, 0.01, 0.5)))
    accuracy = run.arrays["right"].mean(2)
    assert (np.diff(accuracy, axis=1) <= 0).all()


def test_the_checklist_is_stored_with_its_numbers(cache):
    surrogate = TINY.changed(seed=1)
    run = stored(Checklist(model=TINY, surrogate=surrogate, attack=PGD(0.03, steps=2), images=40))
    assert {"steps", "restarts", "large_eps", "one_step", "noise", "transfer"} <= set(run.results)
    assert all({"claim", "passed", "numbers"} == set(f) for f in run.results.values())


def test_three_libraries_agree(cache):
    for library in OTHERS:
        pytest.importorskip(library)
    run = stored(SideBySide(model=TINY, eps_values=(0.5 / 255, 4 / 255), steps=3, images=100))
    right = run.arrays["right"].mean(2)
    assert right.shape == (2, 3)
    assert (right > 0).all()
    assert np.ptp(right, axis=1) == pytest.approx([0, 0], abs=0.021)  # two images
    assert (right[0] > right[1]).all()


@pytest.mark.long
def test_the_referee_leaves_no_more_than_our_attack(cache):
    pytest.importorskip("torchattacks")
    drawn = torch.random.get_rng_state()
    run = stored(Referee(model=TINY, eps=2 / 255, images=60))
    clean, ours, theirs = run.arrays["right"]
    assert clean.sum() > ours.sum() >= theirs.sum()
    assert not (theirs & ~clean).any()
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert Referee(model=TINY, eps=2 / 255).ours.eps == 2 / 255


def test_an_attack_that_the_others_lack_is_refused():
    network = TINY.build(torch.device("cpu"))
    for attack in (PGD(0.1, random_start=True), PGD(0.1, step=0.1), COURSE_PGD):
        with pytest.raises(ValueError, match="the libraries share"):
            counterpart("foolbox", network, attack)
    with pytest.raises(ValueError, match="there are torchattacks, foolbox"):
        counterpart("advertorch", network, PGD(0.1))
