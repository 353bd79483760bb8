"""What networks withstand, in both protocols, and what is shown of it."""

import numpy as np
import pytest

from hw3lib import runs, stats
from hw3lib.experiments.part2.attacked import (
    COURSE_FGSM,
    AdversarialPictures,
    UnderAttack,
    honest,
    outcomes,
    over_seeds,
)
from hw3lib.robust.attacks import FGSM, PGD, SignNoise
from tests.experiments.tiny import TINY, stored


def test_both_protocols_count_the_same_images(cache):
    run = stored(UnderAttack(model=TINY, attacks=(COURSE_FGSM, PGD(0.03, steps=2))))
    right, course = run.arrays["right"], run.arrays["in_course"]
    assert right.shape == (3, 1000)
    assert course.sum() == 250
    for mask, over_all, at_course in zip(
        right, run.results["honest"], run.results["course"], strict=True
    ):
        assert over_all["value"] == pytest.approx(mask.mean())
        assert at_course["value"] == pytest.approx(mask[course].mean())
    assert not (right[1:] & ~right[0]).any()  # nothing is right after an attack alone


def test_attacks_resume_between_two_of_them(tmp_path, cache):
    settings = UnderAttack(model=TINY, attacks=(COURSE_FGSM, PGD(0.03, steps=2)), images="course")
    checkpoint = tmp_path / "run.pt"
    whole = settings.compute(runs.Context(checkpoint=None))
    with pytest.raises(Exception, match="blocks are done and kept"):
        settings.compute(runs.Context(checkpoint=checkpoint, deadline=0))
    resumed = settings.compute(runs.Context(checkpoint=checkpoint))
    assert np.array_equal(resumed.arrays["right"], whole.arrays["right"])


def test_pictures_are_right_before_and_wrong_after_within_the_ball(cache):
    run = stored(AdversarialPictures(model=TINY, attack=FGSM(0.05), num=3))
    arrays = run.arrays
    assert len(arrays["label"]) > 0
    assert (arrays["before"].argmax(1) == arrays["label"]).all()
    assert (arrays["after"].argmax(1) != arrays["label"]).all()
    assert np.abs(arrays["adversarial"] - arrays["original"]).max() <= 0.05 + 1e-6


def test_another_seed_is_of_the_network_and_of_the_attack():
    other = UnderAttack(model=TINY).reseeded(3)
    assert (other.seed, other.model.seed) == (3, 3)
    assert other == UnderAttack(model=TINY.changed(seed=3), seed=3)


def test_accuracies_over_seeds_are_means_over_networks(cache):
    study = UnderAttack(model=TINY, images="course")
    trained = [stored(study.reseeded(seed)) for seed in (0, 1)]
    clean = np.array([outcomes(run)["clean"] for run in trained])
    over = over_seeds(trained)["clean"]
    assert over == stats.two_way_interval(clean)
    assert over.value == pytest.approx(clean.mean())


def test_a_run_says_itself_which_row_is_which_attack(cache):
    one, other = SignNoise(0.01), SignNoise(0.5)
    run = stored(UnderAttack(model=TINY, attacks=(one, other), images="course"))
    assert list(outcomes(run, {"b": other, "a": one})) == ["clean", "b", "a"]
    assert (outcomes(run, {"b": other})["b"] == run.arrays["right"][2]).all()
    assert honest(run, {"b": other})["b"].value == run.results["honest"][2]["value"]
    with pytest.raises(ValueError, match="has no random signs, FGSM, PGD"):
        outcomes(run)
