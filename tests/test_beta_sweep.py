from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hw3lib import data
from hw3lib.experiments.part1 import beta_sweep
from hw3lib.experiments.part1.beta_sweep import FACTORS, LatentFactors
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.vae.model import VAE


def correlated(seed, n=500, dim=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim))


def test_joint_r_squared_is_that_of_a_regression():
    from sklearn.linear_model import LinearRegression

    codes = correlated(0)
    factors = codes @ np.random.default_rng(1).normal(size=(5, 2)) + 2 * correlated(2, dim=2)
    expected = [LinearRegression().fit(codes, f).score(codes, f) for f in factors.T]
    np.testing.assert_allclose(beta_sweep.joint_r_squared(codes, factors), expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_one_dimension_never_explains_more_than_all(seed):
    codes, factors = correlated(seed), correlated(seed + 1, dim=3)
    aligned = beta_sweep.alignment(codes, factors)
    assert (aligned > 0).all()
    assert (aligned <= 1 + 1e-9).all()


def test_a_factor_with_its_own_dimension_is_aligned_and_a_spread_one_is_not():
    codes = np.linalg.qr(np.random.default_rng(0).normal(size=(400, 4)))[0]
    codes = np.linalg.qr(codes - codes.mean(0))[0] * 20
    factors = np.stack([codes[:, 2], codes.sum(1)], axis=1)
    np.testing.assert_allclose(beta_sweep.alignment(codes, factors), [1, 0.25], atol=1e-9)


def test_rotated_codes_explain_as_much_jointly_and_align_less():
    codes = np.linalg.qr(correlated(0) - correlated(0).mean(0))[0]
    factor = codes[:, :1]
    rotated = beta_sweep.rotated_alignment(codes, factor, 50, seed=0)
    assert rotated.shape == (50, 1)
    assert rotated.max() < 1
    assert beta_sweep.alignment(codes, factor) == pytest.approx(1)


def test_codes_without_dimensions_align_with_nothing():
    none = np.zeros((30, 0))
    assert np.isnan(beta_sweep.alignment(none, correlated(0, 30))).all()
    assert np.isnan(beta_sweep.rotated_alignment(none, correlated(0, 30), 3, seed=0)).all()
    assert (beta_sweep.joint_r_squared(none, correlated(0, 30)) == 0).all()


def test_dependent_dimensions_are_refused():
    codes = correlated(0)
    with pytest.raises(ValueError, match="depend linearly"):
        beta_sweep.joint_r_squared(codes[:, [0, 1, 0]], codes)


def test_traversals_move_one_dimension_and_pass_through_the_centre():
    vae = VAE(latent_dim=3, num_filters=4)
    pictures = beta_sweep.traversals(vae, torch.tensor([2, 0]))
    assert pictures.shape == (2, 7, 28, 28)
    assert (pictures[0, 3] == pictures[1, 3]).all()


def test_exchange_rates_of_exact_optima_lie_between_the_betas():
    """D = c / R has its optimum for beta at R = sqrt(c / beta)."""
    betas = np.array([0.5, 1.0, 2.0, 8.0])
    rate = np.sqrt(3 / betas)
    exchanged = beta_sweep.exchange_rates(rate, 3 / rate)
    assert (betas[:-1] <= exchanged).all()
    assert (exchanged <= betas[1:]).all()


def test_the_run_names_the_dimensions_that_the_encoder_uses():
    settings = LatentFactors(
        vae=TrainVAE(dataset="digits", latent_dim=4, num_filters=4), num_dims=2
    )
    vae = VAE(latent_dim=4, num_filters=4)
    with torch.no_grad():
        vae.encoder.net[-1].weight[1:] = 0
        vae.encoder.net[-1].bias[:] = 0
        vae.encoder.net[-1].weight[0] *= 1000
    images = data.quantize(data.load("digits").x_test[:100])
    arrays = settings.analyse(vae, images)
    assert arrays["dims"][0] == 0
    assert (arrays["joint"] > 0).all()
    assert (arrays["correlations"][1:] == 0).all()
    np.testing.assert_allclose(arrays["correlations"][0], arrays["joint"])
    np.testing.assert_allclose(arrays["rotated"], 1)
    assert arrays["joint"].shape == (len(FACTORS),)


def test_canary_is_finite_and_repeats():
    settings = LatentFactors()
    canary = settings.canary()
    assert np.isfinite(canary).all()
    assert canary == settings.canary()


def test_alignment_beyond_chance_is_a_share_of_the_room_that_chance_leaves():
    arrays = {
        "correlations": np.array([[0.6, 0.1, 0.0], [0.2, 0.45, 0.0]]),
        "joint": np.array([0.8, 0.5, 0.0]),
        "rotated": np.array([[0.4, 0.8, 0.3], [0.5, 0.9, 0.3], [0.9, 1.0, 0.3]]),
    }
    beyond = beta_sweep.excess_alignment(SimpleNamespace(arrays=arrays))
    # 0.75 and 0.9 where half and nine tenths come by chance; the code says nothing of the third.
    np.testing.assert_allclose(beyond, [0.5, 0.0, 0.0], atol=1e-12)
