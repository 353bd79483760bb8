"""The experiments of part 2 on drawn shapes, with tiny trainings: laws of what they store."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hw3lib import data, runs, training
from hw3lib.book import report
from hw3lib.book.report import reported
from hw3lib.experiments.part2.attack_strength import AttackStrength
from hw3lib.experiments.part2.attacked import (
    COURSE_FGSM,
    COURSE_PGD,
    SUITE,
    AdversarialPictures,
    UnderAttack,
    canary_images,
    honest,
    over_seeds,
)
from hw3lib.experiments.part2.deviations import (
    COMBINATIONS,
    CUTS,
    WRITINGS,
    Deviations,
    Habits,
    by_writing,
    explanation,
    nearest,
    normalized,
    pixels,
    shares,
)
from hw3lib.experiments.part2.evaluation import Checklist, RadiusCurves
from hw3lib.experiments.part2.gradient_sign import GradientSign
from hw3lib.experiments.part2.loss_against_batch import LossAgainstBatch
from hw3lib.experiments.part2.networks import TRAINING_EPOCHS, networks
from hw3lib.experiments.part2.referee import Referee
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.experiments.part2.side_by_side import OTHERS, SideBySide, counterpart
from hw3lib.experiments.part2.transfer import TransferStudy
from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.defenses import AdversarialLoss, JoinedBatch, Standard
from hw3lib.robust.resnet import ResNet

TINY = TrainResNet(dataset="shapes", network="small", epochs=1, batch_size=128, learning_rate=0.05)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HW3_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def stored(settings):
    run = runs.run(settings)
    assert runs.find(settings).results == run.results
    return run


def test_a_trained_network_is_stored_in_half_precision_and_scored_as_stored(cache):
    run = runs.run(TINY, weights=True)
    assert {w.dtype for w in run.weights.values()} == {np.dtype("float16"), np.dtype("int64")}
    dataset = data.load("shapes")
    with torch.no_grad():
        logits = load_resnet(TINY)(data.to_pixels(dataset.x_test))
    right = (logits.argmax(1) == dataset.y_test).double()
    assert run.results["test_accuracy"]["value"] == pytest.approx(right.mean().item())
    assert run.results["course_accuracy"]["n"] == len(dataset.y_test) // 4


def test_training_starts_from_the_weights_of_the_other_run(cache):
    resumed = TINY.changed(start=TINY, epochs=0)
    ours, theirs = (runs.run(s, weights=True).weights for s in (resumed, TINY))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_kept_weights_are_the_best_or_the_last(keep, monkeypatch):
    def fit(model, *_args, **_options):
        zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
        return training.Progress(best_state=zeros, history=[{"val_error": 1.0}])

    monkeypatch.setattr("hw3lib.training.fit", fit)
    weights = TINY.changed(keep=keep).compute(runs.Context()).weights
    assert (weights["fc.weight"] == 0).all() == (keep == "best")


def test_halves_are_disjoint_and_stratified():
    dataset = data.load("shapes")
    a, b = (TINY.changed(half=half).objective(dataset) for half in "ab")
    assert len(a.train) == len(b.train) == len(dataset.x_train) // 2
    assert torch.equal(a.train_labels.bincount(), b.train_labels.bincount())
    flat = torch.cat([a.train, b.train]).flatten(1)
    assert len(flat.unique(dim=0)) == len(dataset.x_train.flatten(1).unique(dim=0))


def test_schedules_are_the_ones_of_the_course_and_of_our_recipe():
    model = TINY.build(torch.device("cpu"))
    optimizer, scheduler = TINY.changed(epochs=30).optimizer(model, steps_per_epoch=3)
    rates = []
    for _ in range(24 * 3):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:21] == [0.05] * 21
    assert rates[21] == pytest.approx(0.005)
    assert rates[42] == pytest.approx(0.0005)
    one_cycle = TINY.changed(schedule="one_cycle", epochs=4)
    optimizer, scheduler = one_cycle.optimizer(model, steps_per_epoch=5)
    rates = []
    for _ in range(20):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert max(rates) == pytest.approx(0.05, rel=0.01)
    assert rates[-1] < 1e-4
    optimizer, scheduler = TINY.changed(schedule="constant").optimizer(model, steps_per_epoch=1)
    for _ in range(20):
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == 0.05
    linear = TINY.changed(schedule="linear", epochs=4)
    optimizer, scheduler = linear.optimizer(model, steps_per_epoch=5)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(20):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, np.linspace(0.05, 0, 21), atol=1e-9)


def test_runs_with_other_epochs_share_a_checkpoint_unless_the_schedule_forbids_it():
    assert TINY.checkpoint_key == TINY.changed(epochs=9).checkpoint_key
    cycle = TINY.changed(schedule="one_cycle")
    assert cycle.checkpoint_key != cycle.changed(epochs=9).checkpoint_key
    linear = TINY.changed(schedule="linear")
    assert linear.checkpoint_key != linear.changed(epochs=9).checkpoint_key


ALL_SETTINGS = [
    TINY,
    TINY.changed(defense=AdversarialLoss(FGSM(0.03), alpha=0.3)),
    TINY.changed(defense=JoinedBatch(COURSE_PGD), start=TINY, augmented=True),
    UnderAttack(model=TINY),
    AdversarialPictures(model=TINY, attack=COURSE_FGSM),
    GradientSign(model=TINY),
    TransferStudy(models=(TINY, TINY.changed(seed=1)), attacks=(COURSE_FGSM,)),
    AttackStrength(model=TINY),
    LossAgainstBatch(model=TINY),
    Deviations(model=TINY),
    RadiusCurves(model=TINY),
    Checklist(model=TINY, surrogate=TINY.changed(seed=1)),
    Referee(model=TINY),
    SideBySide(model=TINY),
]


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=lambda s: s.experiment)
def test_settings_survive_json_and_canaries_repeat(settings):
    again = type(settings)(**settings.model_dump(mode="json"))
    assert again == settings
    assert again.key == settings.key
    assert again.canary() == settings.canary()
    assert np.isfinite(settings.canary()).all()


def test_canaries_notice_another_attack_defence_or_schedule():
    base = TINY.canary()
    assert base != TINY.changed(defense=Standard(label_smoothing=0.1)).canary()
    assert base != TINY.changed(defense=JoinedBatch(FGSM(0.03))).canary()
    assert base != TINY.changed(augmented=True).canary()
    assert base != TINY.changed(erased=8).canary()
    honest = UnderAttack(model=TINY, attacks=(PGD(0.03),)).canary()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PGD, "_move", lambda _self, x, *_: x)
        assert UnderAttack(model=TINY, attacks=(PGD(0.03),)).canary() != pytest.approx(honest)


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


def test_small_steps_gain_what_the_linear_expansion_says():
    model, x, y = canary_images(TINY)
    study = GradientSign(model=TINY, eps_values=(1e-7, 1e-2), draws=3)
    table = study.measure(model, 0.1 + 0.8 * x, y)
    assert table["fgsm_gain"][:, 0] == pytest.approx(table["predicted"][:, 0], rel=1e-2)
    assert (table["noise_gain"][:, 0].abs() < 0.3 * table["predicted"][:, 0]).all()
    assert (table["sign_cosine"] > 0).all()
    assert table["noise_cosine"].abs().mean() < 3 / 3072**0.5


def test_transfer_to_itself_is_the_attack_with_full_knowledge(cache):
    models = (TINY, TINY.changed(seed=1))
    table = stored(TransferStudy(models=models, attacks=(FGSM(0.03),))).arrays
    assert table["shown"].shape == (1, 3, 2, 250)
    assert not (table["fooled"] & ~table["shown"]).any()
    assert table["cosine"].shape == (1, 250)
    alone = stored(UnderAttack(model=TINY, attacks=(FGSM(0.03),), images="course")).arrays["right"]
    assert np.array_equal(table["fooled"][0, 0, 0], alone[0] & ~alone[1])


def test_defences_agree_in_evaluation_mode_and_differ_in_training_mode(cache):
    run = stored(LossAgainstBatch(model=TINY, attack=FGSM(0.05), batches=2, batch_size=16))
    assert run.arrays["eval_difference"].max() < 1e-4  # float32
    assert run.arrays["train_difference"].min() > 1e-2


def test_the_cosine_of_eleven_million_numbers_is_not_above_one():
    study = LossAgainstBatch(model=TINY, attack=FGSM(0.05), batches=2, batch_size=2)
    torch.manual_seed(0)
    table = study.measure(ResNet(), torch.rand(4, 3, 32, 32), torch.arange(4))
    torch.testing.assert_close(table["eval_cosine"], torch.ones(2).double(), rtol=0, atol=1e-9)


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


def test_an_attack_that_the_others_lack_is_refused():
    network = TINY.build(torch.device("cpu"))
    for attack in (PGD(0.1, random_start=True), PGD(0.1, step=0.1), COURSE_PGD):
        with pytest.raises(ValueError, match="the libraries share"):
            counterpart("foolbox", network, attack)
    with pytest.raises(ValueError, match="there are torchattacks, foolbox"):
        counterpart("advertorch", network, PGD(0.1))


def test_our_habits_make_our_attack():
    """The first combination, in normalised units, is the library's FGSM in pixels."""
    model, x, y = canary_images(TINY)
    first = COMBINATIONS[0]
    assert first == ("fgsm", "cross_entropy", "pixels", "eval")
    attacked = pixels(Deviations(model=TINY).perturb(model, normalized(x), y, first))
    assert attacked == pytest.approx(COURSE_FGSM(model, x, y), abs=1e-9)
    pgd = COMBINATIONS[0]._replace(attack="pgd")
    attacked = pixels(Deviations(model=TINY).perturb(model, normalized(x), y, pgd))
    assert attacked == pytest.approx(COURSE_PGD(model, x, y), abs=1e-9)


def test_every_habit_makes_another_attack():
    model, x, y = canary_images(TINY)
    study = Deviations(model=TINY)
    fgsm = [h for h in COMBINATIONS if h.attack == "fgsm"]
    made = [study.perturb(model, normalized(x), y, habits) for habits in fgsm]
    for (first, a), (second, b) in itertools.combinations(zip(fgsm, made, strict=True), 2):
        assert not torch.equal(a, b), (first, second)


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
    how, share = nearest(run, "pgd", value + 0.01)
    assert how == "minus the logit, training mode, cut: 0 and 1"
    assert share == found
    assert nearest(run, "fgsm", 1.0)[1].value < 0.5  # of the other attack none
    said = explanation(run, "pgd", value + 0.01)
    assert (said.how, said.nearest) == (how, share)
    assert said.explains
    ours = Habits("pgd", "cross_entropy", "pixels", "eval")
    assert said.ours == shares(run)[ours]
    assert said.unit == shares(run)[ours._replace(clamp="unit")]
    assert not explanation(run, "fgsm", 1.0).explains


def test_the_networks_of_one_seed_share_what_they_should():
    for dataset in ("shapes", "cifar10"):
        nets = networks(dataset, seed=3)
        assert nets.fgsm_defense.start == nets.pgd_defense.start == nets.pretrained
        assert nets.half_a.seed == nets.half_b.seed != nets.half_c.seed
        assert nets.half_a.start is nets.half_b.start is None  # nothing that saw the other half
        assert nets.scratch.changed(augmented=True) == nets.augmented
        assert {model.dataset for model in vars(nets).values()} == {dataset}
        assert nets.smooth.changed(defense=Standard()) == nets.sharp
        for name in ("fgsm", "pgd"):
            long, short = getattr(nets, f"{name}_defense"), getattr(nets, f"{name}_short")
            assert short.changed(epochs=long.epochs, keep=long.keep) == long
            assert short.epochs <= long.epochs
    # The ready-made network is one, as in the course.
    assert networks("cifar10", seed=3).pretrained == networks("cifar10").pretrained
    assert networks("shapes", seed=3).pretrained != networks("shapes").pretrained
    assert networks("cifar10").pgd_defense.stages == [
        40,
        11,
        33,
        TRAINING_EPOCHS["cifar10"]["pgd_defense"],
    ]
    course = networks("cifar10").scratch
    # The course's settings, but for the number of epochs.
    assert course.changed(epochs=30) == TrainResNet(seed=course.seed)
    assert (TrainResNet().epochs, course.epochs) == (30, TRAINING_EPOCHS["cifar10"]["scratch"])
    assert (course.batch_size, course.learning_rate) == (128, 5e-4)
    assert (course.momentum, course.weight_decay, course.schedule) == (0.9, 0.0, "step")
    for dataset in ("shapes", "cifar10"):
        for model in vars(networks(dataset, epochs=2)).values():
            while model:
                assert model.epochs == 2
                model = model.start


def test_the_reports_numbers_are_found_by_network_and_attack():
    found = reported(["pretrained", "fgsm_defense"])
    assert found["pretrained", "PGD"] == report.value("q2.pretrained.pgd")
    assert set(found) == {
        ("pretrained", "clean"), ("pretrained", "FGSM"), ("pretrained", "PGD"),
        ("fgsm_defense", "clean"), ("fgsm_defense", "FGSM"),  # it has no PGD of this one
    }  # fmt: skip
    assert {attack for _, attack in found} <= {"clean", *SUITE}


def test_weights_kept_otherwise_come_from_the_same_training():
    best = TrainResNet(epochs=3)
    assert (
        best.checkpoint_key
        == best.changed(keep="last").checkpoint_key
        == best.changed(epochs=9).checkpoint_key
    )
    alone = best.changed(schedule="one_cycle")
    assert (
        len(
            {
                alone.checkpoint_key,
                alone.changed(keep="last").checkpoint_key,
                alone.changed(epochs=9).checkpoint_key,
            }
        )
        == 3
    )


def test_another_seed_is_of_the_network_and_of_the_attack():
    other = UnderAttack(model=TINY).reseeded(3)
    assert (other.seed, other.model.seed) == (3, 3)
    assert other == UnderAttack(model=TINY.changed(seed=3), seed=3)


def test_accuracies_over_seeds_are_means_over_networks(cache):
    trained = [stored(UnderAttack(model=TINY.changed(seed=seed), seed=seed)) for seed in (0, 1)]
    clean = [honest(run)["clean"].value for run in trained]
    over = over_seeds(trained)["clean"]
    assert over.value == pytest.approx(sum(clean) / 2)
    assert over.low <= min(clean)
    assert max(clean) <= over.high
    assert over.n == 2
