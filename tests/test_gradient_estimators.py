"""Laws of the gradient estimators: unbiased, exact where they can be, right in training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hw3lib import data
from hw3lib.experiments.part1 import gradient_estimators as ge
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.vae.bounds import gaussian_kl
from hw3lib.vae.exact import LinearGaussian
from hw3lib.vae.objective import ElboObjective

few = settings(max_examples=20, deadline=None)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(latent_dim=3):
    """f, mean and log_std of a q that is not optimal, and the exact gradient of E[f]."""
    model = LinearGaussian.random(6, latent_dim, torch.Generator().manual_seed(1))
    x, _ = model.sample(1, torch.Generator().manual_seed(2))
    q = torch.cat([normal(latent_dim, seed=3), -1 + 0.2 * normal(latent_dim, seed=4)])

    def exact(q):
        mean, log_std = q.chunk(2)
        return (model.elbo(x, mean, log_std) + gaussian_kl(mean, log_std).sum()).sum()

    gradient = torch.autograd.functional.jacobian(exact, q)
    return (lambda z: model.log_likelihood(x, z)), *q.chunk(2), gradient, exact


@pytest.mark.parametrize("name", ["pathwise", "score", "score_baseline"])
def test_estimates_are_unbiased(name):
    f, mean, log_std, gradient, _ = problem()
    estimates = ge.gradient_estimates(f, mean, log_std, normal(20_000, 4, 3, seed=5))[name]
    z_scores = (estimates.mean(0) - gradient) / (estimates.std(0) / len(estimates) ** 0.5)
    assert z_scores.abs().max() < 4


def test_reparameterised_samples_have_less_variance_and_the_baseline_helps():
    f, mean, log_std, _, _ = problem()
    estimates = ge.gradient_estimates(f, mean, log_std, normal(5000, 4, 3, seed=5))
    variance = {name: estimate.var(0).sum() for name, estimate in estimates.items()}
    assert variance["pathwise"] < variance["score_baseline"] < variance["score"]


def test_pathwise_is_what_rsample_and_autograd_give():
    f, mean, log_std, _, _ = problem()
    noise = normal(5, 3)
    leaves = [mean.clone().requires_grad_(), log_std.clone().requires_grad_()]
    f(leaves[0] + leaves[1].exp() * noise).mean().backward()
    expected = torch.cat([leaf.grad for leaf in leaves])
    torch.testing.assert_close(ge.pathwise_gradients(f, mean, log_std, noise).mean(0), expected)


def test_scores_are_the_gradient_of_the_log_density():
    mean, log_std, noise = normal(3, seed=1), normal(3, seed=2), normal(1, 3)
    z = mean + log_std.exp() * noise

    def log_q(mean, log_std):
        return torch.distributions.Normal(mean, log_std.exp()).log_prob(z).sum()

    expected = torch.cat(torch.autograd.functional.jacobian(log_q, (mean, log_std)))
    values, scores = ge.score_terms(lambda z: z.sum(1), mean, log_std, noise)
    torch.testing.assert_close(scores[0], expected)
    torch.testing.assert_close(values, z.sum(1))


@given(seed=st.integers(0, 1000))
@few
def test_the_slope_of_a_linear_function_is_exact_from_one_sample(seed):
    slope, mean, log_std = normal(4, seed=seed), normal(4, seed=seed + 1), normal(4, seed=seed + 2)
    each = ge.pathwise_gradients(lambda z: z @ slope, mean, log_std, normal(6, 4, seed=seed))
    torch.testing.assert_close(each[:, :4], slope.expand(6, 4))


@given(constant=st.floats(-1e3, 1e3))
@few
def test_a_constant_changes_only_the_score_without_a_baseline(constant):
    f, mean, log_std, _, _ = problem()
    noise = normal(10, 4, 3)
    before = ge.gradient_estimates(f, mean, log_std, noise)
    after = ge.gradient_estimates(lambda z: f(z) + constant, mean, log_std, noise)
    for name in ("pathwise", "score_baseline"):
        torch.testing.assert_close(after[name], before[name], rtol=1e-8, atol=1e-8)
    if abs(constant) > 1:
        assert not torch.allclose(after["score"], before["score"])


def test_one_sample_has_no_baseline():
    f, mean, log_std, _, _ = problem()
    assert set(ge.gradient_estimates(f, mean, log_std, normal(5, 1, 3))) == {"pathwise", "score"}
    with pytest.raises(ValueError, match="at least two"):
        ge.leave_one_out(torch.ones(3, 1))


@given(seed=st.integers(0, 1000), n=st.integers(2, 6), dim=st.sampled_from([0, 1]))
@few
def test_the_baseline_is_the_mean_of_the_others(seed, n, dim):
    values = normal(n, n, seed=seed)
    rows = values if dim == 1 else values.T
    expected = torch.stack(
        [torch.stack([row[i] - (row.sum() - row[i]) / (n - 1) for i in range(n)]) for row in rows]
    )
    torch.testing.assert_close(ge.leave_one_out(values, dim), expected if dim == 1 else expected.T)


def test_finite_differences_are_the_gradient():
    _, mean, log_std, gradient, exact = problem()
    difference = ge.finite_differences(exact, torch.cat([mean, log_std]))
    torch.testing.assert_close(difference, gradient, rtol=1e-6, atol=1e-6)


# The estimators in training


@pytest.fixture(scope="module")
def small():
    settings = TrainVAE(dataset="digits", latent_dim=3, num_filters=4, epochs=1, batch_size=64)
    return settings.build(torch.device("cpu"))[0]


@pytest.fixture(scope="module")
def digits():
    return data.quantize(data.load("digits").x_train[:64])


def gradients(model, objective, noise):
    """The loss's gradient for encoder and decoder, and the logged sums."""
    loss, sums = objective.loss(model, torch.arange(len(noise)), noise)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    split = len(list(model.encoder.parameters()))
    encoder, decoder = grads[:split], grads[split:]
    return (
        torch.cat([g.flatten() for g in encoder]),
        torch.cat([g.flatten() for g in decoder]),
        sums,
    )


@pytest.fixture(scope="module")
def by_estimator(small, digits):
    result = {}
    for name in ge.ESTIMATORS:
        objective = ge.EstimatorObjective(digits, digits, torch.zeros(64, 3), name)
        noise = objective.draw(torch.Generator().manual_seed(0))
        result[name] = gradients(small, objective, noise)
    return result


@pytest.mark.parametrize("name", ["score", "blocked"])
def test_the_decoder_learns_alike_with_each_estimator(by_estimator, name):
    torch.testing.assert_close(by_estimator[name][1], by_estimator["pathwise"][1])
    torch.testing.assert_close(by_estimator[name][2], by_estimator["pathwise"][2])


def test_a_blocked_encoder_hears_the_kl_alone(small, digits, by_estimator):
    kl = gaussian_kl(*small.encode(digits)).sum(1).mean()
    grads = torch.autograd.grad(kl, list(small.encoder.parameters()))
    torch.testing.assert_close(by_estimator["blocked"][0], torch.cat([g.flatten() for g in grads]))


def test_pathwise_is_the_elbo_averaged_over_the_samples(small, digits, by_estimator):
    objective = ElboObjective(digits, digits, torch.zeros(64, 3))
    two = ge.EstimatorObjective(digits, digits, torch.zeros(64, 3), "pathwise")
    noise = two.draw(torch.Generator().manual_seed(0)).unbind(1)
    each = [gradients(small, objective, one) for one in noise]
    for part in range(3):
        mean = (each[0][part] + each[1][part]) / 2
        assert (by_estimator["pathwise"][part] - mean).norm() < 1e-3 * mean.norm()


def test_score_and_pathwise_agree_in_expectation(small, digits):
    """Twelve batches of copies of one image; the last bias has the gradient for (mean, log_std)."""
    copies = digits[:1].expand(100, -1, -1)
    bias = small.encoder.net[-1].bias
    means = {}
    for name in ("pathwise", "score"):
        objective = ge.EstimatorObjective(copies, copies, torch.zeros(100, 3), name)
        draws = [objective.draw(torch.Generator().manual_seed(i)) for i in range(12)]
        losses = [objective.loss(small, torch.arange(100), draw)[0] for draw in draws]
        means[name] = torch.stack([torch.autograd.grad(loss, bias)[0] for loss in losses])
    difference = means["score"] - means["pathwise"]
    z_scores = difference.mean(0) / (difference.std(0) / len(difference) ** 0.5)
    assert z_scores.abs().max() < 4
    assert means["pathwise"].mean(0).abs().max() > 0


def test_the_variances_on_a_vae_are_those_of_its_estimates(small, digits):
    run = ge.VaeGradients(training=TrainVAE(dataset="digits"), repeats=200, samples=2)
    model = small.eval()
    table = run.measure(model, digits[:2])
    assert {len(column) for column in table.values()} == {2}
    mean, log_std = (t[0].detach() for t in model.encode(digits[:1]))
    noise = torch.randn(200, 2, 3, generator=data.generator(1, "other noise"))
    x = digits[:1].expand(400, -1, -1)
    again = ge.gradient_estimates(lambda z: model.log_likelihood(x, z), mean, log_std, noise)
    for name, estimate in again.items():
        assert table[name][0].item() == pytest.approx(estimate.var(0).sum().item(), rel=0.5)


def test_estimators_are_compared_on_the_elbo_alone():
    with pytest.raises(ValueError, match="beta=4: estimators are compared on the ELBO"):
        ge.CompareEstimators(training=TrainVAE(beta=4.0, epochs=1))
