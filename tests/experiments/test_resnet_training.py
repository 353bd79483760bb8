"""Trainings of classifiers on drawn shapes: what is trained, on what, and what is kept."""

import numpy as np
import pytest
import torch

from hw3lib import data, runs, training
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from tests.experiments.tiny import TINY


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


def test_a_training_on_some_images_sees_the_first_of_those_that_it_would_see():
    dataset = data.load("shapes")
    every, some = (TINY.changed(train_images=n).objective(dataset) for n in (0, 40))
    assert every.num_examples > some.num_examples == 40
    half, part = (TINY.changed(half="a", train_images=n).objective(dataset) for n in (0, 40))
    for few, many in ((some, every), (part, half)):
        assert torch.equal(few.train, many.train[:40])
        assert torch.equal(few.train_labels, many.train_labels[:40])


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
