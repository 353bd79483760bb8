import math
import time

import pytest
import torch
from pydantic import ValidationError

from hw3lib import runs
from hw3lib.data import generator
from hw3lib.experiments.part1 import tightness
from hw3lib.experiments.part1.tightness import (
    BoundTightness,
    FixedPosterior,
    estimate_elbo,
    refine_posterior,
    sandwich,
)
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.runs import OutOfTime
from hw3lib.vae import bounds
from hw3lib.vae.bounds import importance_weighted_bound
from hw3lib.vae.exact import LinearGaussian


@pytest.fixture(scope="module")
def settings():
    """A measurement of seconds, on an untrained model of the embedded digits."""
    return BoundTightness(
        vae=TrainVAE(dataset="digits", latent_dim=3, num_filters=4, epochs=0),
        images=5,
        num_samples=(1, 4, 20),
        refined_samples=4,
        elbo_samples=10,
        steps=3,
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HW3_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def linear():
    """A model with a correlated posterior, 300 images of it and the codes that made them."""
    model = LinearGaussian.random(4, 3, generator(0, "tests/model"))
    return model, *model.sample(300, generator(0, "tests/data"))


class Misled(LinearGaussian):
    """The linear model with an encoder that knows nothing of x."""

    def encode(self, x):
        zeros = torch.zeros(len(x), self.weight.shape[1], dtype=x.dtype)
        return zeros, zeros - 1


def test_refinement_finds_the_best_diagonal_gaussian(linear):
    """From a poor start; the linear model knows the optimum."""
    model, x, _ = linear
    x = x[:20]
    misled = Misled(model.weight, model.bias, model.noise_std)
    options = {
        "steps": 150,
        "samples": 16,
        "step_size": 0.1,
        "generator": generator(0, "tests/steps"),
    }
    trail = refine_posterior(misled, x, **options)
    elbo = torch.stack([model.elbo(x, *q) for q in (trail[0], trail[20], trail[-1])])
    best = model.elbo(x, *model.encode(x))
    assert len(trail) == 151
    assert (elbo[1:] > elbo[:-1]).all()
    assert (best - elbo[-1]).max() < 0.05


def test_refinement_of_an_image_does_not_depend_on_the_others(linear):
    """With the same noise; here the noise of the second image is the second row in both calls."""
    model, x, _ = linear
    swapped = x[[5, 1]]
    ends = [
        refine_posterior(
            model, pair, steps=5, samples=4, step_size=0.1, generator=generator(0, "tests/pair")
        )[-1]
        for pair in (x[:2], swapped)
    ]
    for first, second in zip(*ends, strict=True):
        torch.testing.assert_close(first[1], second[1])
        assert not torch.allclose(first[0], second[0])


def test_refinement_starts_at_the_encoder_and_leaves_the_model_alone():
    model, _ = TrainVAE(latent_dim=3, num_filters=4).build(torch.device("cpu"))
    model.requires_grad_(False)
    x = torch.zeros(2, 28, 28, dtype=torch.uint8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trail = refine_posterior(
        model, x, steps=2, samples=2, step_size=0.1, generator=generator(0, "tests")
    )
    for ours, encoder in zip(trail[0], model.encode(x), strict=True):
        assert torch.equal(ours, encoder)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(tensor.requires_grad for q in trail for tensor in q)


def test_estimated_elbo_is_the_exact_one_within_its_error(linear):
    model, x, _ = linear
    mean, log_std = model.encode(x)
    noise = torch.randn(500, *mean.shape, generator=generator(0, "tests/elbo"), dtype=torch.float64)
    difference = estimate_elbo(model, x, mean, log_std, noise) - model.elbo(x, mean, log_std)
    error = difference.std() / math.sqrt(len(difference))
    assert abs(difference.mean()) < 4 * error


def test_estimated_elbo_does_not_depend_on_how_its_samples_are_split(linear, monkeypatch):
    model, x, _ = linear
    mean, log_std = model.encode(x[:4])
    noise = torch.randn(11, *mean.shape, generator=generator(0, "tests/elbo"), dtype=torch.float64)
    whole = estimate_elbo(model, x[:4], mean, log_std, noise)
    monkeypatch.setattr(tightness, "ROWS", 12)  # three samples at a time, and a ragged rest
    torch.testing.assert_close(estimate_elbo(model, x[:4], mean, log_std, noise), whole)


def test_log_p_lies_between_the_bounds_and_they_close_in(linear):
    """In expectation over images that the model made."""
    model, x, z = linear
    repeated = [t.repeat(10, 1) for t in (x, z)]
    lower, upper = sandwich(model, *repeated, [1, 8, 64], generator(0, "tests/sandwich"))
    below, above = (
        model.log_prob(repeated[0])[:, None] - lower,
        upper - model.log_prob(repeated[0])[:, None],
    )
    for distance in (below, above):
        error = distance.std(0) / math.sqrt(len(x))  # repeated images are not independent
        assert (distance.mean(0) > -4 * error).all()
        assert (distance.mean(0).diff() < 4 * error[1:]).all()
        assert distance.mean(0)[0] > 3 * distance.mean(0)[-1]


def test_bounds_meet_at_log_p_if_q_is_the_posterior():
    model = LinearGaussian.random(4, 1, generator(1, "tests/model"))
    x, z = model.sample(10, generator(1, "tests/data"))
    for values in sandwich(model, x, z, [1, 7], generator(1, "tests/sandwich")):
        expected = model.log_prob(x)[:, None].expand_as(values)
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-9)


def test_fixed_posterior_replaces_the_encoder_alone(linear):
    model, x, z = linear
    mean, log_std = model.encode(x)
    fixed = FixedPosterior(model, mean, log_std)
    values = [
        importance_weighted_bound(m, x, [1, 5], generator(0, "tests/fixed")) for m in (model, fixed)
    ]
    assert torch.equal(*values)
    assert torch.equal(fixed.log_likelihood(x, z), model.log_likelihood(x, z))
    with pytest.raises(ValueError, match="3 images"):
        fixed.encode(x[:3])


@pytest.mark.usefixtures("cache")
def test_result_has_the_shapes_it_names_and_is_reproducible(settings):
    outcome, again = (settings.compute(runs.Context(device="cpu")) for _ in range(2))
    arrays = outcome.arrays
    assert outcome.results["num_samples"] == [1, 4, 20]
    assert outcome.results["refined_num_samples"] == [1, 4]
    assert outcome.results["steps"] == [0, 1, 2, 3]
    assert arrays["elbo"].shape == (5, 4)
    assert arrays["bound"].shape == (5, 3)
    assert arrays["refined"].shape == arrays["lower"].shape == arrays["upper"].shape == (5, 2)
    assert len(set(arrays["index"].tolist())) == 5
    for name, value in arrays.items():
        assert (value == again.arrays[name]).all(), name


@pytest.mark.usefixtures("cache")
def test_resumed_measurement_equals_an_uninterrupted_one(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(tightness, "BLOCK", 2)
    path = tmp_path / "checkpoint.pt"
    whole = settings.compute(runs.Context(device="cpu"))
    late = runs.Context(device="cpu", checkpoint=path, deadline=time.monotonic())
    for _ in range(2):
        with pytest.raises(OutOfTime, match="of 3 blocks"):
            settings.compute(late)
    resumed = settings.compute(late)  # the last block needs no further one
    for name, value in whole.arrays.items():
        assert (value == resumed.arrays[name]).all(), name


def test_canary_sees_a_wrong_sign_of_the_weights(settings, monkeypatch):
    run = runs.Run(settings, {}, {}, settings.canary(), None)
    assert run.verify() == 0

    def flipped(model, x, mean, log_std, draws, rng):
        """Weights p(x|z) q(z|x) / p(z): the ratio of q and the prior upside down."""
        noise = torch.randn(draws, *mean.shape, dtype=mean.dtype, generator=rng)
        z = mean + log_std.exp() * noise
        repeated = x.expand(draws, *x.shape).flatten(0, 1)
        log_lik = model.log_likelihood(repeated, z.flatten(0, 1)).view(draws, len(x))
        return log_lik - bounds.log_normal(z) + bounds.log_normal(z, mean, log_std)

    monkeypatch.setattr(bounds, "_log_weights", flipped)
    with pytest.raises(runs.RunError, match="stale"):
        run.verify()


@pytest.mark.parametrize(
    "change",
    [{"num_samples": (5, 1)}, {"num_samples": ()}, {"images": 0}, {"steps": 0}, {"widening": 0.5}],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        BoundTightness(**change)


@pytest.mark.usefixtures("cache")
def test_more_images_than_there_are_to_test_on_are_refused(settings):
    with pytest.raises(ValueError, match="357"):
        settings.changed(images=400).compute(runs.Context(device="cpu"))
