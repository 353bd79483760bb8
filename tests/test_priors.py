import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad
from scipy.stats import norm

from hw3lib.vae.bounds import gaussian_kl, log_normal
from hw3lib.vae.priors import (
    fit_mixture,
    gaussian_mixture,
    kl_by_quadrature,
    log_ratios,
    ratio_std,
)

few = settings(max_examples=20, deadline=None)
means, log_stds = st.floats(-3, 3), st.floats(-2, 1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def mixture():
    """Three components in two dimensions."""
    weight = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    return gaussian_mixture(weight, 2 * normal(3, 2), (-0.5 + 0.3 * normal(3, 2, seed=1)).exp())


def parts_of(mixture):
    """Weights, means and standard deviations of the components."""
    components = mixture.component_distribution
    return mixture.mixture_distribution.probs, components.mean, components.stddev


def test_mixture_density_is_the_weighted_sum_of_the_components(mixture):
    z = 2 * normal(5, 4, 2)
    weight, mean, std = (t.numpy() for t in parts_of(mixture))
    density = sum(weight[c] * norm.pdf(z.numpy(), mean[c], std[c]).prod(-1) for c in range(3))
    assert mixture.log_prob(z).exp().numpy() == pytest.approx(density, rel=1e-9)


def test_mixture_density_integrates_to_one(mixture):
    ticks = torch.linspace(-15, 15, 601, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1)
    mass = torch.trapezoid(torch.trapezoid(mixture.log_prob(grid).exp(), ticks), ticks)
    assert mass.item() == pytest.approx(1, abs=1e-9)


def test_fit_finds_well_separated_components():
    centres = np.array([[-6.0, 0.0], [6.0, 0.0], [0.0, 9.0]])
    codes = np.concatenate([centres[i] + 0.5 * normal(400, 2, seed=i).numpy() for i in range(3)])
    weight, mean, std = parts_of(fit_mixture(codes, 3))
    order = [int((mean - torch.from_numpy(c)).square().sum(1).argmin()) for c in centres]
    assert sorted(order) == [0, 1, 2]
    assert mean[order].numpy() == pytest.approx(centres, abs=0.1)
    assert std.numpy() == pytest.approx(np.full((3, 2), 0.5), abs=0.05)
    assert weight.sum().item() == pytest.approx(1)


@given(mean=means, log_std=log_stds, other=means)
@few
def test_quadrature_meets_the_closed_form_of_a_normal_prior(mean, log_std, other):
    mean, log_std = torch.tensor([mean, other]).double(), torch.tensor([log_std, -log_std]).double()
    exact = gaussian_kl(mean, log_std)
    assert kl_by_quadrature(mean, log_std, log_normal) == pytest.approx(
        exact.sum().item(), abs=1e-9
    )
    one = kl_by_quadrature(mean[:1], log_std[:1], log_normal)
    assert one == pytest.approx(exact[0].item(), abs=1e-9)


def test_quadrature_of_a_mixture_is_that_of_scipy(mixture):
    """SciPy's adaptive rules, written without a line of the library's."""
    mean, std = np.array([0.4, -0.8]), np.array([0.5, 0.3])
    w, m, s = (x.tolist() for x in parts_of(mixture))

    def pdf(z, centre, width):
        return math.exp(-0.5 * ((z - centre) / width) ** 2) / (width * math.sqrt(2 * math.pi))

    def integrand(b, a):
        q = pdf(a, mean[0], std[0]) * pdf(b, mean[1], std[1])
        p = sum(w[c] * pdf(a, m[c][0], s[c][0]) * pdf(b, m[c][1], s[c][1]) for c in range(3))
        return q * math.log(q / p)

    ends = [
        *(mean[0] + 8 * std[0] * np.array([-1, 1])),
        *(mean[1] + 8 * std[1] * np.array([-1, 1])),
    ]
    reference, _ = dblquad(integrand, *ends, epsabs=1e-7, epsrel=1e-7)
    ours = kl_by_quadrature(torch.from_numpy(mean), torch.from_numpy(std).log(), mixture.log_prob)
    assert ours == pytest.approx(reference, abs=1e-6)


def test_quadrature_in_one_dimension_is_that_of_scipy():
    prior = gaussian_mixture(
        torch.tensor([0.7, 0.3], dtype=torch.float64),
        torch.tensor([[-1.0], [2.0]], dtype=torch.float64),
        torch.tensor([[-0.5], [0.1]], dtype=torch.float64).exp(),
    )

    def integrand(z):
        p = 0.7 * norm.pdf(z, -1, math.exp(-0.5)) + 0.3 * norm.pdf(z, 2, math.exp(0.1))
        return norm.pdf(z, 0.3, 0.6) * (norm.logpdf(z, 0.3, 0.6) - math.log(p))

    reference, _ = quad(integrand, 0.3 - 5, 0.3 + 5, epsabs=1e-10, limit=200)
    mean, std = torch.tensor([[0.3], [0.6]], dtype=torch.float64)
    assert kl_by_quadrature(mean, std.log(), prior.log_prob) == pytest.approx(reference, abs=1e-8)


def test_quadrature_refuses_dimensions_that_need_too_large_a_grid():
    with pytest.raises(ValueError, match="D=3"):
        kl_by_quadrature(torch.zeros(3), torch.zeros(3), log_normal)


def test_monte_carlo_kl_is_unbiased_for_a_normal_and_a_mixture_prior(mixture):
    """The mean of 200,000 single-sample estimates, within four standard errors."""
    mean, log_std = torch.tensor([1.2, -0.5]).double(), torch.tensor([-1.0, 0.2]).double()
    for log_prior in (log_normal, mixture.log_prob):
        terms = log_ratios(mean, log_std, log_prior, normal(200_000, 2))
        error = terms.std().item() / math.sqrt(len(terms))
        exact = kl_by_quadrature(mean, log_std, log_prior)
        assert abs(terms.mean().item() - exact) < 4 * error


@given(mean=means, log_std=log_stds)
@few
def test_log_ratio_of_equal_densities_is_zero_for_every_sample(mean, log_std):
    mean, log_std = torch.tensor([mean, 0.1]).double(), torch.tensor([log_std, 0.0]).double()
    one = gaussian_mixture(torch.ones(1).double(), mean[None], log_std[None].exp())
    terms = log_ratios(mean, log_std, one.log_prob, normal(50, 2))
    torch.testing.assert_close(terms, torch.zeros(50).double(), rtol=0, atol=1e-12)


@given(mean=means, log_std=log_stds)
@few
def test_standard_deviation_of_the_terms_is_as_derived(mean, log_std):
    mean, log_std = torch.tensor([mean, 0.5]).double(), torch.tensor([log_std, -0.3]).double()
    terms = log_ratios(mean, log_std, log_normal, normal(100_000, 2))
    assert terms.std().item() == pytest.approx(ratio_std(mean, log_std), rel=0.03)


def test_log_ratios_average_to_the_closed_form_and_not_to_its_negative():
    mean, log_std = torch.tensor([[1.0, -0.5], [-0.5, 0.2]]).double()
    noise = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0)).double()
    ratios = log_ratios(mean, log_std, log_normal, noise)
    exact = gaussian_kl(mean, log_std).sum()
    torch.testing.assert_close(ratios.mean(), exact, rtol=0.02, atol=0)
