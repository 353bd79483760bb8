"""The networks of part 2, and the report's numbers on them."""

from dataclasses import replace

import pytest

from hw3lib.book import report
from hw3lib.book.report import reported
from hw3lib.experiments.part2.attacked import SUITE, suite
from hw3lib.experiments.part2.networks import TRAINING_EPOCHS, first_steps, networks, over_alpha
from hw3lib.experiments.part2.resnet_training import TrainResNet
from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.defenses import AdversarialLoss, JoinedBatch, Standard


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


def test_other_attacks_reach_the_defences_and_no_other_network():
    fgsm, pgd = FGSM.from_normalized(0.2), PGD.from_normalized(0.02, step=0.005)
    usual, other = networks("shapes"), networks("shapes", fgsm=fgsm, pgd=pgd, alpha=0.25)
    assert other.fgsm_defense.defense == AdversarialLoss(fgsm, alpha=0.25)
    assert other.fgsm_short.defense == other.fgsm_defense.defense
    assert other.pgd_defense.defense == other.pgd_short.defense == JoinedBatch(pgd)
    changed = {name for name, model in vars(usual).items() if vars(other)[name] != model}
    assert changed == {
        "fgsm_defense", "fgsm_short", "fgsm_cut", "pgd_defense", "pgd_short", "pgd_cut"
    }  # fmt: skip


@pytest.mark.parametrize("dataset", ["cifar10", "shapes"])
def test_two_defences_differ_from_the_short_ones_in_the_cut_of_their_attack_alone(dataset):
    nets = networks(dataset, seed=2, alpha=0.25)
    for short, cut in ((nets.fgsm_short, nets.fgsm_cut), (nets.pgd_short, nets.pgd_cut)):
        assert short.defense.attack.cut == "pixels"
        attack = replace(short.defense.attack, cut="normalized")
        length = {name: getattr(cut, name) for name in ("epochs", "keep", "train_images")}
        assert cut == short.changed(defense=replace(short.defense, attack=attack), **length)


def test_first_steps_are_the_training_on_as_many_images_as_they_need():
    training = networks("cifar10").fgsm_cut
    first = first_steps(training, steps=7)
    assert first.train_images == 7 * training.batch_size < training.train_images
    assert first.changed(train_images=training.train_images) == training


def test_trainings_over_alpha_differ_in_alpha_alone():
    nets = networks("shapes", alpha=0.25, fgsm=FGSM(0.1))
    assert over_alpha(nets, [0.25])[0.25] == nets.fgsm_short
    for dataset in ("shapes", "cifar10"):
        found = over_alpha(networks(dataset), [0.0, 0.3])
        assert list(found) == [0.0, 0.3]
        assert [one.defense.alpha for one in found.values()] == [0.0, 0.3]
        assert found[0.3].changed(defense=found[0.0].defense) == found[0.0]


def test_few_steps_over_alpha_go_about_as_far_as_four_epochs():
    few, short = over_alpha(networks("cifar10"), [0.5])[0.5], networks("cifar10").fgsm_short
    assert few.defense == short.defense
    steps = few.train_images / few.batch_size
    # A rate that falls linearly to zero is half of the first one on average.
    assert steps * few.learning_rate / 2 == pytest.approx(
        short.epochs * 50_000 / 128 * short.learning_rate, rel=0.05
    )


def test_a_suite_of_other_attacks_has_the_same_names():
    fgsm = FGSM.from_normalized(0.2)
    other = suite(fgsm)
    assert list(other) == list(SUITE)
    assert other["FGSM"] == fgsm
    assert other["random signs"].eps == other["strong PGD"].eps == fgsm.eps
    assert other["PGD 8/255"] == SUITE["PGD 8/255"]
