import numpy as np
import pytest
import torch

from hw3lib import data, runs
from hw3lib.experiments.part1 import classifier
from hw3lib.experiments.part1.classifier import (
    DigitClassifier,
    TrainClassifier,
    digit_logits,
    load_classifier,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A classifier after a few epochs on the embedded digits, stored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HW3_CACHE", str(tmp_path_factory.mktemp("runs")))
        settings = TrainClassifier(dataset="digits", epochs=4)
        run = runs.run(settings)
        yield run, load_classifier(settings)


def test_it_learns_and_its_accuracy_is_that_of_its_confusions(trained):
    run, _ = trained
    confusion = np.array(run.results["confusion"])
    accuracy = run.results["test_accuracy"]
    assert accuracy["n"] == confusion.sum() == 357
    assert accuracy["value"] == np.trace(confusion) / 357
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert accuracy["value"] > 0.5


def test_the_loaded_classifier_is_the_one_that_was_measured(trained):
    run, model = trained
    digits = data.load("digits")
    predicted = digit_logits(model, data.quantize(digits.x_test)).argmax(1)
    right = int((predicted == digits.y_test).sum())
    assert right / 357 == run.results["test_accuracy"]["value"]


def test_canary_of_the_stored_run_holds(trained):
    run, _ = trained
    assert run.verify() == 0


def test_batches_change_nothing_and_features_lead_to_the_logits(trained):
    _, model = trained
    x = data.quantize(data.load("digits").x_test[:30])
    whole, parts = (
        digit_logits(model, x),
        digit_logits(model, x, batch_size=7),
    )
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(model.head(model.features(x)), whole)
    assert model.features(x).shape == (30, classifier.NUM_FEATURES)


def test_expected_grey_levels_are_read_like_integer_ones():
    x = data.quantize(data.load("digits").x_test[:5])
    model = DigitClassifier()
    torch.testing.assert_close(model(x), model(x.float()))


@pytest.mark.parametrize("down", [-2, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 2])
def test_shift_moves_every_image_by_its_own_offset(down, right):
    x = torch.zeros(2, 28, 28, dtype=torch.uint8)
    x[:, 10, 12] = 7
    moved = classifier.shift(x, torch.tensor([[down, right], [0, 0]]))
    assert moved[0, 10 + down, 12 + right] == 7
    assert moved.sum() == 14
    assert torch.equal(moved[1], x[1])


def test_what_is_shifted_out_is_lost_and_background_comes_in():
    x = torch.full((1, 28, 28), 3, dtype=torch.uint8)
    moved = classifier.shift(x, torch.tensor([[2, -1]]))
    assert moved.sum() == 3 * 26 * 27
    assert moved[0, :2].sum() == moved[0, :, -1].sum() == 0


def test_the_default_number_of_epochs_goes_with_the_data_set():
    assert TrainClassifier().epochs == TrainClassifier(dataset="mnist").epochs
    assert TrainClassifier(dataset="digits").epochs == classifier.EPOCHS["digits"]
    assert TrainClassifier(dataset="digits", epochs=3).epochs == 3
    stored = TrainClassifier(dataset="digits", epochs=3).model_dump(mode="json")
    assert TrainClassifier(**stored).epochs == 3


def test_loss_terms_do_not_depend_on_how_the_batch_is_cut():
    digits = data.load("digits")
    settings = TrainClassifier(dataset="digits")
    objective, model = settings.objective(digits), settings.build(torch.device("cpu"))
    index = torch.arange(20)
    offsets = objective.draw(data.generator(0, "noise"))[index]
    _, whole = objective.loss(model, index, offsets)
    first, rest = index[:7], index[7:]
    parts = (
        objective.loss(model, first, offsets[:7])[1] + objective.loss(model, rest, offsets[7:])[1]
    )
    torch.testing.assert_close(whole, parts)


@pytest.mark.real_data("mnist")
def test_the_published_classifier_reads_mnist():
    """At least 99% of the test set, by its stored weights."""
    settings = TrainClassifier()
    if runs.find(settings, weights=True) is None:
        pytest.skip("no classifier is stored")
    mnist = data.load("mnist")
    predicted = digit_logits(load_classifier(settings), data.quantize(mnist.x_test)).argmax(1)
    assert (predicted == mnist.y_test).double().mean() >= 0.99
