"""What networks withstand, in both protocols, and what is shown of it."""

import numpy as np
import pytest
import torch

from hw3lib import runs, stats
from hw3lib.experiments import base
from hw3lib.experiments.part2.attacked import (
    COURSE_FGSM,
    AdversarialPictures,
    UnderAttack,
    briefly,
    honest,
    outcomes,
    over_seeds,
)
from hw3lib.experiments.part2.pictures_by_radius import PicturesByRadius
from hw3lib.experiments.part2.resnet_training import load_resnet
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


def test_the_first_images_alone_are_as_they_are_among_all(cache):
    asked = UnderAttack(model=TINY, attacks=(COURSE_FGSM, PGD(0.03, steps=2)), images="course")
    all_of_them, first = stored(asked).arrays, stored(asked.changed(num=70)).arrays
    assert first["right"].shape == (3, 70)
    assert np.array_equal(first["index"], all_of_them["index"][:70])
    assert np.array_equal(first["right"], all_of_them["right"][:, :70])


def test_many_networks_of_cifar10_meet_two_attacks_each_on_a_thousand_images():
    suite = {"FGSM": FGSM(0.1), "strong PGD": PGD(0.1), "random signs": SignNoise(0.1)}
    assert briefly(TINY, suite, seed=3) == UnderAttack(
        model=TINY, attacks=tuple(suite.values()), seed=3
    )
    few = briefly(TINY.changed(dataset="cifar10"), suite, seed=3)
    assert few.attacks == (suite["FGSM"], suite["strong PGD"])
    assert (few.images, few.num, few.seed) == ("course", 1000, 3)


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


def test_pictures_by_radius_are_what_each_network_is_shown(cache):
    pictures = AdversarialPictures(model=TINY, attack=FGSM(0.05), num=3)
    other = TINY.changed(seed=1)
    attacks, eps = (PGD(0.5, steps=3), SignNoise(0.5)), (2 / 255, 8 / 255)
    run = stored(
        PicturesByRadius(pictures=pictures, others=(other,), attacks=attacks, eps_values=eps)
    )
    chosen, arrays = runs.run(pictures).arrays, run.arrays
    x, y = (torch.from_numpy(chosen[name]) for name in ("original", "label"))
    assert (arrays["original"] == np.round(255 * chosen["original"])).all()
    assert arrays["change"].shape == (2, 2, 2, *x.shape)
    for i, model in enumerate((TINY, other)):
        network = load_resnet(model)
        assert arrays["clean"][i] == pytest.approx(network(x).softmax(1).numpy(), abs=1e-5)
        for j, radius in enumerate(eps):
            attacked = PGD(radius, steps=3)(network, x, y)
            change = (255 * (attacked - x)).round().numpy()
            assert (arrays["change"][i, 0, j] == change).all()
            after = network(attacked).softmax(1).numpy()
            assert arrays["probabilities"][i, 0, j] == pytest.approx(after, abs=1e-5)
    noise = arrays["change"][:, 1].astype(int)
    assert (noise[0] == noise[1]).all()  # which looks at no network
    inside = (arrays["original"] > 8) & (arrays["original"] < 247)
    assert (noise[0, 1][inside] == 4 * noise[0, 0][inside]).all()  # the same signs at each radius


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


def test_where_an_attack_turns_nothing_there_are_no_pictures_and_no_crash(cache):
    weak = AdversarialPictures(model=TINY, attack=FGSM(0.0))
    assert weak.canary() == [0.0, 0.0]
    arrays = stored(weak).arrays
    assert {len(array) for array in arrays.values()} == {0}


def test_a_radius_whose_change_an_int8_does_not_hold_is_refused():
    pictures = AdversarialPictures(model=TINY, attack=FGSM(0.05))
    with pytest.raises(ValueError, match="less than or equal to"):
        PicturesByRadius(pictures=pictures, eps_values=(0.6,))


def test_a_resumed_study_has_all_its_parts_on_the_device_that_computes(tmp_path, monkeypatch):
    """A device without memory stands for a GPU."""
    monkeypatch.setattr(base, "device_of", lambda _context: torch.device("meta"))
    context = runs.Context(checkpoint=tmp_path / "run.pt")
    monkeypatch.setattr(base, "save", lambda path, content: path.touch())
    monkeypatch.setattr(
        base,
        "load",
        lambda path, device: ([torch.ones(3, device=device)], 1.0) if path.exists() else None,
    )
    context.checkpoint.touch()
    parts, _ = base.resumable_blocks(
        [lambda: torch.ones(3), lambda: torch.ones(3, device="meta")], context, "study"
    )
    assert torch.stack(parts).shape == (2, 3)
