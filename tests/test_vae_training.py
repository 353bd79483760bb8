"""Scores of single images agree with the scores of a whole test set."""

import numpy as np
import pytest
import torch

from hw3lib import data
from hw3lib.experiments.part1.vae_training import ScoreVAE, TrainVAE, bpd_by_class, load_vae
from hw3lib.runs.settings import Context
from hw3lib.vae.bounds import bits_per_dim
from hw3lib.vae.objective import evaluate_elbo

TRAINING = TrainVAE(dataset="digits", latent_dim=3, num_filters=4, epochs=1)


@pytest.fixture(scope="module")
def model():
    return TRAINING.build(torch.device("cpu"))[0].eval()


@pytest.fixture(scope="module")
def images():
    return data.quantize(data.load("digits").x_test[:10])


def test_the_mean_over_images_is_the_score_of_the_set(model, images):
    scores = ScoreVAE(training=TRAINING, draws=3).score(model, images, batch_size=4)
    assert scores.shape == (3, 10, 2)
    rng = data.generator(TRAINING.seed, "test scores")
    for draw in scores:
        whole = evaluate_elbo(model, images, torch.randn(10, 3, generator=rng))
        nll, kl = draw.mean(0).tolist()
        assert (nll, kl) == pytest.approx((whole["nll"], whole["kl"]), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_scores_do_not_depend_on_the_batch_size(model, images, batch_size):
    run = ScoreVAE(training=TRAINING, draws=2)
    torch.testing.assert_close(
        run.score(model, images, batch_size), run.score(model, images), rtol=1e-5, atol=1e-4
    )


def test_a_stored_score_is_the_mean_of_what_is_stored_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HW3_CACHE", str(tmp_path))
    outcome = ScoreVAE(training=TRAINING, draws=2).compute(Context(device="cpu"))
    nats = outcome.arrays["nll"] + outcome.arrays["kl"]
    assert np.mean(outcome.results["best_bpd"]) == pytest.approx(
        bits_per_dim(float(nats.mean())), rel=1e-5
    )
    # Epoch 1 of 1 is both the best and the last one; the last weights are stored in half precision.
    assert outcome.results["last_bpd"] == pytest.approx(outcome.results["best_bpd"], rel=1e-3)
    assert outcome.arrays["labels"].tolist() == data.load("digits").y_test.tolist()


def test_classes_share_out_the_images():
    labels = np.array([3, 0, 3, 9])
    nats = np.array([1.0, 2.0, 3.0, 4.0]) * 784 * np.log(2)
    by_class = bpd_by_class(nats, labels)
    assert list(by_class) == list(range(10))
    np.testing.assert_allclose(by_class[3], [1, 3])
    np.testing.assert_allclose(by_class[9], [4])
    assert sum(map(len, by_class.values())) == 4


def test_a_snapshot_that_is_not_kept_is_told_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(TrainVAE, "compute", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match="no snapshot at epoch 7; this run keeps epochs"):
        load_vae(TrainVAE(dataset="digits", epochs=9, seed=77), epoch=7)
