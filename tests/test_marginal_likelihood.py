"""Laws of the estimators of log p(x): what they add up to, and what theory says about them."""

import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hw3lib import data
from hw3lib.experiments.base import embedded_digits
from hw3lib.experiments.part1 import marginal_likelihood as ml
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.vae.bounds import log_normal
from hw3lib.vae.exact import LinearGaussian
from hw3lib.vae.model import VAE


def rng(purpose="test"):
    return data.generator(0, purpose)


def linear_model(latent_dim, data_dim=30, noise_std=2.0):
    return LinearGaussian.random(data_dim, latent_dim, rng("model"), noise_std)


def test_scores_are_the_log_likelihood_of_every_pair():
    model = linear_model(3)
    x, z = model.sample(4, rng())
    expected = torch.stack([model.log_likelihood(x, code) for code in z], dim=1)
    torch.testing.assert_close(ml.linear_gaussian_scores(model, x, z), expected)


def test_decoder_scores_are_the_log_likelihood_of_every_pair():
    model = VAE(3).eval().requires_grad_(False)
    x, z = embedded_digits(4), torch.randn(5, 3, generator=rng())
    expected = torch.stack([model.log_likelihood(x, code.expand(4, -1)) for code in z], dim=1)
    torch.testing.assert_close(ml.decoder_scores(model, x, z), expected, atol=1e-2, rtol=1e-5)


@pytest.mark.parametrize("rows", [16, 64])
def test_weights_are_for_as_many_codes_as_asked_for_however_many_are_decoded_at_a_time(rows):
    model = linear_model(2)
    x, _ = model.sample(3, rng())
    scores, (mean, log_std) = partial(ml.linear_gaussian_scores, model), model.encode(x)
    parts = ml.prior_log_weights(scores, x, mean, 160, rng(), rows)
    whole = ml.prior_log_weights(scores, x, mean, 160, rng(), 160)
    torch.testing.assert_close(parts, whole)
    parts = sum(ml.encoder_log_weights(scores, x, mean, log_std, 160, rng(), rows))
    whole = sum(ml.encoder_log_weights(scores, x, mean, log_std, 160, rng(), 160))
    torch.testing.assert_close(parts, whole)


@given(st.lists(st.floats(-800, 800), min_size=1, max_size=40), st.integers(1, 5))
def test_an_estimate_is_the_log_of_the_mean_weight(log_weights, size):
    if size > len(log_weights):
        size = 1
    row = torch.tensor([log_weights], dtype=torch.float64)
    [(log_mean, ess)] = ml.estimates(row, [size])
    blocks = row[0][: len(log_weights) // size * size].view(-1, size)
    expected = torch.stack([block.logsumexp(0) - math.log(size) for block in blocks])
    torch.testing.assert_close(log_mean[0], expected)
    assert ess.min() >= 1 - 1e-9
    assert ess.max() <= size + 1e-9


def test_effective_sample_size_is_the_number_of_equal_weights():
    log_weights = torch.full((1, 8), -500.0, dtype=torch.float64)
    log_weights[:, 6:] = -5000.0
    [_, (_, ess)] = ml.estimates(log_weights, [2, 8])
    assert ess.item() == pytest.approx(6)


@pytest.mark.parametrize("sizes", [[0], [1, 64]])
def test_sizes_without_enough_weights_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes"):
        ml.estimates(torch.zeros(1, 32), sizes)


def test_weights_of_the_exact_posterior_are_all_equal_to_p_of_x():
    model = linear_model(1)
    x, _ = model.sample(3, rng())
    mean, log_std = model.encode(x)
    scores = partial(ml.linear_gaussian_scores, model)
    log_weights = sum(ml.encoder_log_weights(scores, x, mean, log_std, 20, rng()))
    torch.testing.assert_close(log_weights, model.log_prob(x)[:, None].expand(-1, 20))


def test_second_moment_of_equal_gaussians_is_one():
    mean, precision = torch.randn(4, 3, dtype=torch.float64, generator=rng()), torch.eye(3).double()
    precision[0, 1] = precision[1, 0] = 0.5
    value = ml.log_second_moment(mean, precision, mean, precision)
    torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-12, rtol=0)


@settings(deadline=None)  # the integral takes its time on a busy machine
@given(st.floats(-2, 2), st.floats(0.2, 5), st.floats(-2, 2), st.floats(0.2, 5))
def test_second_moment_in_one_dimension_is_the_integral(p_mean, p_precision, q_mean, q_precision):
    numbers = torch.tensor([p_mean, p_precision, q_mean, q_precision], dtype=torch.float64)
    value = ml.log_second_moment(*numbers.view(4, 1, 1)).item()
    if 2 * p_precision - q_precision <= 0:
        assert value == math.inf
        return
    if 2 * p_precision - q_precision < 0.5:
        return  # the integral exists, but reaches beyond the grid
    z = np.linspace(-100, 100, 20_001)
    log_p = scipy.stats.norm.logpdf(z, p_mean, p_precision**-0.5)
    log_q = scipy.stats.norm.logpdf(z, q_mean, q_precision**-0.5)
    integral = scipy.special.logsumexp(2 * log_p - log_q) + math.log(z[1] - z[0])
    assert value == pytest.approx(integral, abs=1e-6)


def test_relative_variance_of_prior_sampling_is_the_chi_square_divergence_over_l():
    model, size = linear_model(1, data_dim=5), 10
    x, _ = model.sample(2, rng())
    scores = partial(ml.linear_gaussian_scores, model)
    log_weights = ml.prior_log_weights(scores, x, x[:, :1], 100_000, rng())
    [(log_mean, _)] = ml.estimates(log_weights, [size])
    relative = (log_mean - model.log_prob(x)[:, None]).exp()
    theory = ml.closed_forms(model, x, rng())["log_second_moment_prior"].exp() - 1
    torch.testing.assert_close(relative.mean(1), torch.ones(2).double(), atol=0.03, rtol=0)
    torch.testing.assert_close(size * relative.var(1), theory, rtol=0.15, atol=0)


def test_summaries_of_many_samples_are_what_the_expansions_say():
    model, size = linear_model(1, data_dim=5), 256
    x, _ = model.sample(4, rng())
    scores = partial(ml.linear_gaussian_scores, model)
    log_weights = ml.prior_log_weights(scores, x, x[:, :1], 1000 * size, rng())
    found = ml.summarise(log_weights, model.log_prob(x), [size])
    theory = ml.asymptotics(ml.closed_forms(model, x, rng())["log_second_moment_prior"], size)
    assert found["std"][0] == pytest.approx(theory["std"], rel=0.1)
    assert found["ess"][0] == pytest.approx(theory["ess"], rel=0.05)
    assert abs(found["error"][0] - theory["error"]) < 4 * theory["std"] / math.sqrt(1000)


@pytest.mark.parametrize("mean", [0.0, 1.5])
def test_prior_mass_in_one_dimension_is_a_normal_probability(mean):
    std = 0.3
    mass = ml.prior_mass(
        torch.tensor([[mean]]).double(), torch.tensor([[std**2]]).double(), 20_000, rng()
    )
    low, high = scipy.stats.norm.interval(0.95, mean, std)
    expected = scipy.stats.norm.cdf(high) - scipy.stats.norm.cdf(low)
    assert mass.item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("dim", [1, 3, 10])
def test_the_prior_puts_its_level_into_its_own_ellipsoid(dim):
    mean = torch.zeros(1, dim).double()
    mass = ml.prior_mass(mean, torch.eye(dim).double(), 20_000, rng())
    assert mass.item() == pytest.approx(0.95, rel=0.03)


def test_both_estimators_lie_below_on_average_and_rise_with_l():
    study = ml.LinearGaussianStudy(draws=4096, sizes=(1, 16, 256), num_data=8, dims=(4,))
    row = study.measure(4)
    for name in ("prior", "encoder"):
        error = row[name]["error"]
        assert error == sorted(error)
        assert row[name]["std"] == sorted(row[name]["std"], reverse=True)
    assert row["prior"]["error"][0] < row["encoder"]["error"][0] <= 1e-2
    assert row["prior"]["std"][0] > row["encoder"]["std"][0]


def test_kl_of_the_posterior_is_the_closed_form():
    model = linear_model(3)
    x, _ = model.sample(4, rng())
    mean, covariance = model.posterior(x)
    expected = 0.5 * (covariance.trace() - covariance.logdet() + mean.square().sum(1) - 3)
    torch.testing.assert_close(ml.closed_forms(model, x, rng())["kl"], expected)


def gaussian_grid(mean, std, size=161, extent=6.0):
    """Axes and log N(z; mean, std^2) - 3 on them: a joint density with log p(x) = -3."""
    axes = torch.linspace(-extent, extent, size, dtype=torch.float64).expand(2, -1)
    z = ml.grid_codes(axes)
    log_density = log_normal(z, torch.tensor(mean), torch.tensor(std, dtype=torch.float64).log())
    return axes, (log_density - 3.0).view(size, size)


def test_integrals_over_a_grid_are_those_of_the_gaussian_on_it():
    mean, std = [0.7, -0.4], [0.5, 0.8]
    results = ml.integrals(*gaussian_grid(mean, std))
    p = torch.tensor(std).double() ** -2
    zero, eye = torch.zeros(1, 2).double(), torch.eye(2).double()
    moment = ml.log_second_moment(torch.tensor([mean]).double(), p.diag(), zero, eye)
    kl = sum(0.5 * (m**2 + s**2 - 1) - math.log(s) for m, s in zip(mean, std, strict=True))
    mass = ml.prior_mass(torch.tensor([mean]).double(), (1 / p).diag(), 50_000, rng())
    assert results["log_p"] == pytest.approx(-3, abs=1e-6)
    assert results["kl"] == pytest.approx(kl, abs=1e-6)
    assert results["log_second_moment"] == pytest.approx(moment.item(), abs=1e-6)
    assert results["prior_mass"] == pytest.approx(mass.item(), rel=0.02)


def test_grid_rows_are_the_second_coordinate():
    axes = torch.tensor([[0.0, 1.0], [10.0, 20.0]])
    assert ml.grid_codes(axes).tolist() == [[0, 10], [1, 10], [0, 20], [1, 20]]


def test_zooming_keeps_what_matters_in_view_and_comes_closer():
    axes, log_density = gaussian_grid([1.0, -2.0], [0.05, 0.1])
    near = ml.zoom(axes, log_density)
    for axis, mean, std in zip(near, [1.0, -2.0], [0.05, 0.1], strict=True):
        assert axis[0] < mean - 3 * std
        assert axis[-1] > mean + 3 * std
    assert near[0, -1] - near[0, 0] < 2
    # Both axes are as long, so that a picture of them keeps its proportions.
    assert (near[0, -1] - near[0, 0]).item() == pytest.approx((near[1, -1] - near[1, 0]).item())


@given(st.floats(0.05, 0.99))
def test_a_density_threshold_leaves_its_level_above(level):
    _, log_density = gaussian_grid([0.0, 0.0], [1.0, 1.0])
    mass = log_density.flatten().softmax(0).view_as(log_density)
    above = mass[log_density >= ml.density_threshold(log_density, level)].sum().item()
    assert level - 1e-9 <= above < level + 0.02


def test_the_grid_agrees_with_the_importance_weights_of_the_encoder():
    vae = TrainVAE(dataset="digits", latent_dim=2, num_filters=4)
    model, x = vae.untrained(), embedded_digits(2)
    results, arrays = ml.PosteriorGrid(vae=vae, size=21).measure(model, x[:1])
    bound = ml.MarginalLikelihood(
        vae=vae,
        prior_draws=4,
        prior_sizes=(4,),
        encoder_draws=4,
        encoder_sizes=(4,),
        reference_draws=512,
    ).measure(model, x)
    assert results["log_p"] == pytest.approx(bound["log_p"][0], abs=0.02)
    assert results["kl"] == pytest.approx(bound["kl"][0], abs=0.05)
    assert arrays["near_log_joint"].shape == (21, 21)


@pytest.mark.parametrize("wrong", [{"prior_draws": 8}, {"encoder_sizes": (0, 4)}])
def test_estimates_of_more_samples_than_are_drawn_are_refused_before_the_training(wrong):
    with pytest.raises(ValueError, match=r"_sizes=\(.*so give sizes from 1 to that"):
        ml.MarginalLikelihood(**wrong)
    with pytest.raises(ValueError, match="there are 4 draws"):
        ml.LinearGaussianStudy(draws=4, sizes=(1, 16))


@pytest.mark.parametrize(
    "experiment",
    [
        ml.LinearGaussianStudy(dims=(1, 2), draws=64, sizes=(1, 4), num_data=3),
        ml.MarginalLikelihood(vae=TrainVAE(num_filters=4), seed=1),
        ml.PosteriorGrid(vae=TrainVAE(latent_dim=2, num_filters=4)),
    ],
    ids=lambda experiment: experiment.experiment,
)
def test_a_canary_sings_the_same_twice(experiment):
    first = experiment.canary()
    assert np.isfinite(first).all()
    assert first == pytest.approx(experiment.canary(), rel=1e-6)


def test_a_canary_hears_the_sign_of_the_importance_ratio(monkeypatch):
    study = ml.LinearGaussianStudy()
    right, draws = np.array(study.canary()), ml.encoder_log_weights

    def flipped(*args):
        log_lik, log_ratio = draws(*args)
        return log_lik, -log_ratio

    monkeypatch.setattr(ml, "encoder_log_weights", flipped)
    assert np.max(np.abs(np.array(study.canary()) / right - 1)) > 0.1


def test_the_grid_refuses_a_model_without_a_plane():
    with pytest.raises(ValueError, match="latent_dim=3: the grid covers a plane"):
        ml.PosteriorGrid(vae=TrainVAE(latent_dim=3))
