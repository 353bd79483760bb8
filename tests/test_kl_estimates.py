"""Estimates of a KL from samples, at codes that have a known answer."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hw3lib.experiments.part1 import kl_estimates
from hw3lib.vae import priors
from hw3lib.vae.bounds import log_normal


def run_with(mean, std, seed=0):
    """What is read of a stored training: the posteriors of its test images, and its seed."""
    log_std = np.full(np.shape(mean), np.log(std), dtype=np.float32)
    arrays = {"test_mean": np.asarray(mean, dtype=np.float32), "test_log_std": log_std}
    return SimpleNamespace(arrays=arrays, settings=SimpleNamespace(seed=seed))


@pytest.fixture(scope="module")
def two_heaps():
    """Codes around (3, 0) and (-3, 0), for which one Gaussian is a poor prior."""
    rng = np.random.default_rng(0)
    side = np.where(rng.random((400, 1)) < 0.5, 3.0, -3.0)
    return run_with(
        np.hstack([side, np.zeros((400, 1))]) + 0.1 * rng.standard_normal((400, 2)), 0.2
    )


def test_codes_that_equal_the_prior_have_no_error_and_others_an_unbiased_one():
    assert np.abs(kl_estimates.kl_errors(run_with(np.zeros((5, 3)), 1.0), 4)).max() < 1e-12
    errors = kl_estimates.kl_errors(run_with(np.ones((4000, 3)), 0.5), 4)
    assert errors.shape == (4000,)
    predicted = priors.ratio_std(torch.ones(3), torch.full((3,), 0.5).log()) / 4**0.5
    assert errors.std() == pytest.approx(predicted, rel=0.05)
    assert abs(errors.mean()) < 4 * predicted / 4000**0.5


def test_the_prior_is_fitted_to_one_half_and_measured_on_the_other(two_heaps):
    prior, mean, log_std, codes = kl_estimates.fit_prior(two_heaps, 2)
    assert len(mean) == len(log_std) == len(codes) == 200
    assert prior.log_prob(codes).mean() > log_normal(codes).mean() + 1
    assert (kl_estimates.mixture_saving(two_heaps, 2) > 0).all()


def test_the_estimate_meets_the_integral(two_heaps):
    errors = kl_estimates.quadrature_errors(two_heaps, 2, images=3, samples=2000)
    assert errors.shape == (3,)
    assert np.abs(errors).max() < 0.1
    coarse = kl_estimates.quadrature_errors(two_heaps, 2, images=3, samples=1)
    assert np.abs(coarse).max() > np.abs(errors).max()
