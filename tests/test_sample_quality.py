import numpy as np
import pytest
import torch

from hw3lib import data, runs
from hw3lib.experiments.part1 import sample_quality
from hw3lib.experiments.part1.classifier import TrainClassifier
from hw3lib.experiments.part1.sample_quality import MEASURES, REAL, SampleQuality
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.stats import Interval

VAE = TrainVAE(dataset="digits", epochs=1, latent_dim=2, num_filters=4)
SETTINGS = SampleQuality(
    vae=VAE,
    classifier=TrainClassifier(dataset="digits", epochs=1),
    snapshots=(0, 1),
    num_samples=80,
    blocks=4,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HW3_CACHE", str(tmp_path_factory.mktemp("runs")))
        yield runs.run(SETTINGS)


def test_rows_are_the_real_images_and_the_epochs(run):
    assert run.results["rows"] == [REAL, "0", "1"]
    assert run.arrays["measures"].shape == (3, len(MEASURES), 4)
    assert sample_quality.images_of(run, 1).shape == (64, 28, 28)
    np.testing.assert_allclose(run.arrays["class_shares"].sum(1), 1)
    assert run.verify() == 0


def test_noise_of_an_untrained_decoder_is_told_from_real_digits(run):
    def estimate(row, measure):
        return sample_quality.estimate(run, row, measure)

    assert abs(estimate(0, "correlation").value) < 0.1 < 0.8 < estimate(REAL, "correlation").value
    assert estimate(0, "kernel").low > estimate(REAL, "kernel").high
    assert estimate(0, "frechet").low > estimate(REAL, "frechet").high
    assert estimate(0, "ink").value == pytest.approx(0.5, abs=0.15)


def test_a_real_image_is_in_one_of_the_two_sets_only():
    images = torch.arange(100, dtype=torch.uint8)[:, None, None].expand(-1, 28, 28)
    reference, real = SETTINGS.changed(num_samples=30)._real_images(images)
    values = [*reference[:, 0, 0].tolist(), *real[:, 0, 0].tolist()]
    assert len(values) == len(set(values)) == 60
    few, _ = SETTINGS._real_images(images)
    assert len(few) == 50


def test_measures_of_answers_that_are_known():
    """Sure and evenly spread answers; unsure ones; sure and always the same."""
    images = data.quantize(data.load("digits").x_test[:40])
    features = np.random.default_rng(0).normal(size=(40, 64))
    sure = 50 * torch.eye(10).repeat(4, 1)
    cases = {
        "spread": (sure, 1, 0, np.log(10)),
        "unsure": (torch.zeros(40, 10), 0.1, np.log(10), 0),
        "collapsed": (sure[:1].expand(40, -1), 1, 0, 0),
    }
    for logits, confidence, entropy, information in cases.values():
        blocks = sample_quality.measure_blocks(images, logits, features, features, 2)
        means = dict(zip(MEASURES, blocks.mean(1), strict=True))
        assert means["confidence"] == pytest.approx(confidence)
        assert means["entropy"] == pytest.approx(entropy, abs=1e-9)
        assert means["information"] == pytest.approx(information, abs=1e-9)
        assert means["frechet"] == pytest.approx(0, abs=1e-6)


def test_distances_do_not_depend_on_the_scale_of_the_features():
    images, logits = data.quantize(data.load("digits").x_test[:40]), torch.zeros(40, 10)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(40, 6)) + 1
    one, ten = (
        sample_quality.measure_blocks(images, logits, scale * x, scale * y, 2) for scale in (1, 10)
    )
    np.testing.assert_allclose(one, ten, rtol=1e-9)


def test_early_excess_compares_sizes_of_changes_in_either_direction(run):
    for measure in ("confidence", "kernel"):
        excess = sample_quality.early_excess(run, measure, 0, 1, 1)
        start, end = (sample_quality.estimate(run, epoch, measure).value for epoch in (0, 1))
        assert excess.mean() == pytest.approx(abs(end - start))


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(0.1, 0.3, "holds"), (-0.1, 0.3, "undecided"), (-0.3, -0.1, "does not hold")],
)
def test_an_interval_decides(low, high, says):
    assert sample_quality.verdict(Interval((low + high) / 2, low, high, 20)) == says


@pytest.mark.parametrize("snapshots", [(), (0, 2), (30,)])
def test_an_epoch_that_is_not_kept_is_refused(snapshots):
    with pytest.raises(ValueError, match="keeps epochs"):
        SampleQuality(vae=VAE, snapshots=snapshots)
