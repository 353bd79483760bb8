"""Laws of the bounds, most of them on the model in which log p(x) is known exactly."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from hw3lib.data import generator
from hw3lib.vae.bounds import (
    active_dims,
    active_units,
    bits_per_dim,
    elbo_terms,
    gaussian_kl,
    importance_weighted_bound,
    log_normal,
    mutual_information,
)
from hw3lib.vae.exact import LinearGaussian
from hw3lib.vae.model import VAE, pixel_nll
from hw3lib.vae.objective import ElboObjective, evaluate_elbo

finite = st.floats(-5, 5)
seeds = st.integers(0, 10_000)
few = settings(max_examples=25, deadline=None)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def linear_gaussian(data_dim=4, latent_dim=2, seed=0, num=1):
    """A model and data that it made."""
    rng = torch.Generator().manual_seed(seed)
    model = LinearGaussian.random(data_dim, latent_dim, rng)
    return model, model.sample(num, rng)[0]


def images(num, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 16, (num, 28, 28), generator=rng, dtype=torch.uint8)


@pytest.fixture(scope="module")
def vae():
    """An untrained model whose posteriors are far from the prior."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VAE(latent_dim=3, num_filters=4).double().eval().requires_grad_(False)
    model.encoder.net[-1].weight *= 30
    return model


# The pieces


@given(mean=finite, log_std=finite)
@few
def test_gaussian_kl_is_that_of_torch_and_never_negative(mean, log_std):
    mean, log_std = torch.tensor([mean, log_std], dtype=torch.float64)
    ours = gaussian_kl(mean, log_std)
    reference = kl_divergence(Normal(mean, log_std.exp()), Normal(mean * 0, mean * 0 + 1))
    assert ours >= -1e-15
    torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-12)


def test_gaussian_kl_of_equal_gaussians_is_zero():
    assert gaussian_kl(torch.zeros(3), torch.zeros(3)).tolist() == [0, 0, 0]


def test_gaussian_kl_is_the_mean_of_the_log_ratio():
    mean, log_std = torch.tensor([1.5, -0.3]).double(), torch.tensor([-1.0, 0.4]).double()
    z = mean + log_std.exp() * normal(200_000, 2)
    ratio = log_normal(z, mean, log_std) - log_normal(z)
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - gaussian_kl(mean, log_std).sum()) < 4 * error


@given(z=finite, mean=finite, log_std=finite)
@few
def test_log_normal_sums_the_log_densities_of_the_last_axis(z, mean, log_std):
    point = torch.tensor([z, -z], dtype=torch.float64)
    mean, log_std = torch.tensor([mean, log_std], dtype=torch.float64)
    reference = Normal(mean, log_std.exp()).log_prob(point).sum()
    torch.testing.assert_close(log_normal(point, mean, log_std), reference, rtol=1e-9, atol=1e-9)


def test_uniform_predictions_of_16_levels_cost_4_bits_per_dimension():
    nll = pixel_nll(torch.zeros(2, 16, 28, 28, dtype=torch.float64), images(2))
    assert bits_per_dim(nll).tolist() == pytest.approx([4, 4], abs=1e-12)
    assert bits_per_dim(784 * math.log(16)) == 4


@given(nats=st.floats(0, 1e4), dims=st.integers(1, 5000))
def test_bits_per_dim_is_linear_in_nats_and_inverse_in_dimensions(nats, dims):
    assert bits_per_dim(nats, dims) * dims * math.log(2) == pytest.approx(nats, rel=1e-12)


# The terms of the ELBO


def test_reconstruction_is_summed_over_pixels_and_kl_over_dimensions(vae):
    """Neither is averaged: each is the log density of a whole image or code."""
    x, noise = images(3), normal(3, 3)
    terms = elbo_terms(vae, x, noise)
    mean, log_std = vae.encode(x)
    logits = vae.decode(mean + log_std.exp() * noise)
    chosen = logits.log_softmax(1).gather(1, x.long()[:, None]).squeeze(1)
    torch.testing.assert_close(terms.nll, -chosen.sum((1, 2)))
    posterior = MultivariateNormal(mean, (2 * log_std).exp().diag_embed())
    prior = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    torch.testing.assert_close(terms.kl.sum(1), kl_divergence(posterior, prior))


@given(beta=st.floats(0, 20))
@few
def test_loss_weighs_the_kl_and_the_elbo_does_not(vae, beta):
    terms = elbo_terms(vae, images(4), normal(4, 3))
    torch.testing.assert_close(terms.loss(1.0), -terms.elbo.mean())
    torch.testing.assert_close(terms.loss(beta), (terms.nll + beta * terms.kl.sum(1)).mean())
    torch.testing.assert_close(terms.elbo, -terms.nll - terms.kl.sum(1))


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
@few
def test_terms_of_an_image_do_not_depend_on_its_batch(vae, sizes):
    x, noise = images(sum(sizes)), normal(sum(sizes), 3)
    whole = elbo_terms(vae, x, noise)
    parts = [
        elbo_terms(vae, *pair) for pair in zip(x.split(sizes), noise.split(sizes), strict=True)
    ]
    torch.testing.assert_close(torch.cat([p.nll for p in parts]), whole.nll)
    torch.testing.assert_close(torch.cat([p.kl for p in parts]), whole.kl)
    weighted = sum(p.loss(2.0) * size for p, size in zip(parts, sizes, strict=True)) / sum(sizes)
    torch.testing.assert_close(weighted, whole.loss(2.0))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_evaluation_gives_a_ragged_last_batch_no_other_weight(vae, batch_size):
    x, noise = images(7), normal(7, 3)
    terms = elbo_terms(vae, x, noise)
    scores = evaluate_elbo(vae, x, noise, batch_size)
    assert scores["nll"] == pytest.approx(terms.nll.mean().item(), rel=1e-12)
    assert scores["kl"] == pytest.approx(terms.kl.sum(1).mean().item(), rel=1e-12)
    assert scores["bpd"] == pytest.approx(
        -terms.elbo.mean().item() / (784 * math.log(2)), rel=1e-12
    )


def test_training_logs_what_validation_would(vae):
    """The KL has its sign, nothing is averaged over pixels, and beta is not in the log."""
    x, noise = images(6), normal(6, 3)
    objective = ElboObjective(x, x, noise, beta=4.0)
    loss, sums = objective.loss(vae, torch.arange(6), noise)
    scores = objective.validate(vae)
    nll, kl = (sums / 6).tolist()
    assert kl > 0
    assert (nll, kl) == pytest.approx((scores["nll"], scores["kl"]), rel=1e-12)
    assert loss.item() == pytest.approx(nll + 4 * kl, rel=1e-12)


def test_one_sample_terms_average_to_the_exact_elbo():
    model, x = linear_gaussian()
    mean, log_std = model.encode(x)
    draws = elbo_terms(model, x.expand(100_000, -1), normal(100_000, 2)).elbo
    error = draws.std() / math.sqrt(len(draws))
    assert abs(draws.mean() - model.elbo(x, mean, log_std)) < 4 * error


# The identity: log p(x) = ELBO + KL(q || posterior)


@given(seed=seeds, data_dim=st.integers(1, 8), latent_dim=st.integers(1, 6), size=st.floats(0, 3))
@few
def test_elbo_plus_divergence_is_log_p(seed, data_dim, latent_dim, size):
    """For hundreds of random q of every model, to 1e-10; and none exceeds log p."""
    model, x = linear_gaussian(data_dim, latent_dim, seed)
    mean = size * normal(300, latent_dim, seed=seed)
    log_std = (size * normal(300, latent_dim, seed=seed + 1)).clamp(-5, 1.5)
    x = x.expand(300, -1)
    elbo, gap = model.elbo(x, mean, log_std), model.posterior_kl(x, mean, log_std)
    log_p = model.log_prob(x)
    scale = gap.clamp(min=1)  # 1e-10 of what is added, where that is more than one nat
    assert ((elbo + gap - log_p).abs() / scale).max() < 1e-10
    assert (elbo <= log_p + 1e-10 * scale).all()


@given(seed=seeds)
@few
def test_elbo_is_log_p_exactly_at_the_posterior(seed):
    model, x = linear_gaussian(latent_dim=1, seed=seed, num=5)
    mean, covariance = model.posterior(x)
    log_std = 0.5 * covariance[0].log().expand_as(mean)
    torch.testing.assert_close(model.elbo(x, mean, log_std), model.log_prob(x), rtol=0, atol=1e-10)


@given(seed=seeds)
@few
def test_encoder_of_the_linear_model_is_the_best_diagonal_gaussian(seed):
    model, x = linear_gaussian(latent_dim=3, seed=seed)
    mean, log_std = model.encode(x)
    nearby = 0.1 * normal(2, 200, 3, seed=seed)
    others = model.elbo(x, mean + nearby[0], log_std + nearby[1])
    assert (others <= model.elbo(x, mean, log_std)).all()


@given(seed=seeds)
@few
def test_posterior_and_density_of_the_linear_model_obey_bayes(seed):
    model, x = linear_gaussian(latent_dim=3, seed=seed)
    z = 2 * normal(50, 3, seed=seed)
    mean, covariance = model.posterior(x)
    joint = model.log_likelihood(x, z) + log_normal(z)
    posterior = MultivariateNormal(mean, covariance).log_prob(z)
    torch.testing.assert_close(joint - posterior, model.log_prob(x).expand(50), rtol=0, atol=1e-9)


# The importance-weighted bound


def bound(model, x, ks, seed=0, **options):
    return importance_weighted_bound(model, x, ks, generator(seed, "test"), **options)


def test_bound_is_its_definition(vae):
    """log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x), spelt out with torch's own densities."""
    x, k = images(3), 8
    mean, log_std = vae.encode(x)
    noise = torch.randn(k, 3, 3, generator=generator(0, "test"), dtype=torch.float64)
    weights = []
    for e in noise:
        z = mean + log_std.exp() * e
        prior, q = (
            Normal(0.0, 1.0).log_prob(z).sum(1),
            Normal(mean, log_std.exp()).log_prob(z).sum(1),
        )
        weights.append(-pixel_nll(vae.decode(z), x) + prior - q)
    expected = torch.stack(weights).logsumexp(0) - math.log(k)
    torch.testing.assert_close(bound(vae, x, [k])[:, 0], expected, rtol=1e-12, atol=1e-9)


@given(seed=seeds, ks=st.sets(st.integers(1, 40), min_size=1), rows=st.integers(1, 70))
@few
def test_bound_is_log_p_whatever_k_if_q_is_the_posterior(seed, ks, rows):
    """Every weight is then p(x); with a weight's sign wrong, or one lost, it is not."""
    model, x = linear_gaussian(latent_dim=1, seed=seed, num=3)
    values = bound(model, x, sorted(ks), seed, rows=rows)
    expected = model.log_prob(x)[:, None].expand_as(values)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-9)


def test_bound_rises_with_k_towards_log_p_and_stays_below():
    """In expectation: single estimates may fall. One image, 4,000 independent estimates."""
    weight = torch.tensor([[2.0, 1.0], [0.0, math.sqrt(3)]]).double()  # its posterior is correlated
    model = LinearGaussian(weight, torch.zeros(2).double(), noise_std=1.0)
    x = torch.tensor([[0.7, -1.2]]).double()
    values = bound(model, x.expand(4000, -1), [1, 2, 4, 16, 64], rows=20_000)
    gap = model.log_prob(x) - values
    error = values.std(0) / math.sqrt(len(values))
    assert (gap.mean(0) > -4 * error).all()
    steps = values.diff(dim=1)
    assert (steps.mean(0) > -4 * steps.std(0) / math.sqrt(len(values))).all()
    assert gap[:, 0].mean() > 4 * gap[:, -1].mean()


def test_bound_with_one_sample_is_the_elbo_in_expectation():
    model, x = linear_gaussian(latent_dim=3)
    values = bound(model, x.expand(20_000, -1), [1])
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - model.elbo(x, *model.encode(x))) < 4 * error


def test_samples_are_nested(vae):
    """A larger K keeps the samples of a smaller one, so the sum of the weights only grows."""
    ks = [1, 2, 3, 10, 50]
    values = bound(vae, images(4), ks, rows=16)
    log_sums = values + torch.tensor(ks).log()
    assert (log_sums.diff(dim=1) >= 0).all()


@pytest.mark.parametrize(("num", "rows"), [(3, 2048), (3, 10), (50, 8), (1, 1)])
def test_decoder_rows_in_flight_are_bounded(num, rows):
    model, x = linear_gaussian(num=num)
    seen = []

    class Spy:
        encode = staticmethod(model.encode)

        @staticmethod
        def log_likelihood(x, z):
            seen.append(len(z))
            return model.log_likelihood(x, z)

    bound(Spy, x, [1, 5, 40], rows=rows)
    assert max(seen) <= rows
    assert sum(seen) == num * 40


def test_rows_change_nothing_but_the_noise():
    model, x = linear_gaussian(num=4)
    means, errors = [], []
    for rows in (100, 40_000):
        values = bound(model, x.repeat(1000, 1), [5], seed=rows, rows=rows)[:, 0].view(1000, 4)
        means.append(values.mean(0))
        errors.append(values.std(0) / math.sqrt(1000))
    assert ((means[0] - means[1]).abs() < 4 * torch.hypot(*errors)).all()


def test_bound_leaves_the_global_random_state_and_the_images_alone(vae):
    x = images(2)
    before, state = x.clone(), torch.random.get_rng_state()
    first, second = bound(vae, x, [1, 4]), bound(vae, x, [1, 4])
    assert torch.equal(first, second)
    assert torch.equal(x, before)
    assert torch.equal(state, torch.random.get_rng_state())


def test_one_k_is_one_column(vae):
    assert torch.equal(bound(vae, images(2), 5), bound(vae, images(2), [5]))


def test_no_images_have_no_bound(vae):
    with pytest.raises(ValueError, match="there are no images"):
        bound(vae, images(0), [1])


@pytest.mark.parametrize("ks", [[], [0, 1], [5, 2], [3, 3], [-1], 0])
def test_bound_refuses_a_list_of_k_that_is_not_ascending_from_one(ks):
    model, x = linear_gaussian()
    with pytest.raises(ValueError, match="num_samples"):
        bound(model, x, ks)


# What the codes know


@given(seed=seeds, num=st.integers(1, 30), dims=st.integers(1, 4), spread=st.floats(0, 10))
@few
def test_mutual_information_cannot_exceed_log_n(seed, num, dims, spread):
    mean, log_std = spread * normal(num, dims, seed=seed), normal(num, dims, seed=seed + 1)
    assert mutual_information(mean, log_std, generator(seed, "mi")) <= math.log(num) + 1e-9


def test_mutual_information_of_separate_posteriors_is_log_n():
    mean = 100 * torch.arange(20.0)[:, None].expand(20, 3)
    value = mutual_information(mean, torch.zeros(20, 3), generator(0, "mi"))
    assert value == pytest.approx(math.log(20), abs=1e-9)


def test_mutual_information_of_collapsed_posteriors_is_zero():
    value = mutual_information(
        torch.full((50, 3), 0.7), torch.full((50, 3), -0.2), generator(0, "mi")
    )
    assert value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("stds", [(1.0, 1.0), (0.4, 1.5)])  # not the inverse of each other
def test_mutual_information_of_two_posteriors_is_that_by_quadrature(stds):
    """N(-1, std^2) and N(1, std^2), each for half of the images."""
    means, log_stds = torch.tensor([[-1.0], [1.0]]), torch.tensor(stds)[:, None].log()
    grid = torch.linspace(-20, 20, 8001, dtype=torch.float64)
    q = torch.stack([log_normal(grid[:, None], *two) for two in zip(means, log_stds, strict=True)])
    mixture = q.logsumexp(0) - math.log(2)
    exact = torch.trapezoid(q.exp() * (q - mixture), grid).mean()
    value = mutual_information(means.repeat(2000, 1), log_stds.repeat(2000, 1), generator(0, "mi"))
    assert value == pytest.approx(exact.item(), abs=0.03)


def test_mutual_information_of_float32_codes_is_that_of_float64():
    mean, log_std = normal(23, 2).float(), normal(23, 2, seed=1).float()
    values = [
        mutual_information(*codes, generator(0, "mi"))
        for codes in ((mean, log_std), (mean.double(), log_std.double()))
    ]
    assert values[0] == values[1]


def test_mutual_information_does_not_depend_on_its_blocks():
    mean, log_std = normal(23, 2), normal(23, 2, seed=1)
    values = [
        mutual_information(mean, log_std, generator(0, "mi"), rows=r) for r in (1, 7, 23, 512)
    ]
    assert values == pytest.approx([values[0]] * 4, rel=1e-12)


@given(shift=finite, inactive=st.integers(0, 3))
@few
def test_active_units_are_those_whose_mean_varies(shift, inactive):
    mean = normal(200, 5)
    mean[:, :inactive] = shift + 0.01 * mean[:, :inactive]  # variance about 1e-4
    assert active_dims(mean).tolist() == [False] * inactive + [True] * (5 - inactive)
    assert active_units(mean) == 5 - inactive


def test_a_unit_is_active_above_the_threshold_that_is_asked_for():
    mean = torch.tensor([[-1.0, -2.0, -3.0], [1.0, 2.0, 3.0]])  # variances 2, 8 and 18
    assert active_dims(mean, 8.0).tolist() == [False, False, True]
    assert [active_units(mean, t) for t in (1.0, 2.0, 18.0)] == [3, 2, 0]
