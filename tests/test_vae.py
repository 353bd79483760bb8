"""Laws of the VAE: shapes, sums, sampling, and what it must not touch."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hw3lib import data
from hw3lib.vae.bounds import elbo_terms, importance_weighted_bound
from hw3lib.vae.model import VAE, mean_image, pixel_nll, sample_pixels
from hw3lib.vae.objective import ElboObjective, evaluate_elbo

few = settings(max_examples=20, deadline=None)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def grey(num, seed=0):
    """Random images of grey levels 0..15."""
    return torch.randint(0, 16, (num, 28, 28), generator=rng(seed), dtype=torch.uint8)


@pytest.fixture(scope="module")
def vae():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VAE(latent_dim=3, num_filters=4).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def plane():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VAE(latent_dim=2, num_filters=4).eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def global_random_state_is_left_alone():
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


# The network


@pytest.mark.parametrize("num", [1, 5])
def test_shapes(vae, num):
    mean, log_std = vae.encode(grey(num))
    assert mean.shape == log_std.shape == (num, 3)
    assert vae.decode(mean).shape == (num, 16, 28, 28)
    assert vae.log_likelihood(grey(num), mean).shape == (num,)


def test_the_network_of_the_course_has_about_a_third_of_a_million_parameters():
    with torch.random.fork_rng(devices=[]):
        course = VAE(latent_dim=20, num_filters=32)
    assert 270_000 <= sum(p.numel() for p in course.parameters()) <= 350_000


def test_every_parameter_takes_part_in_the_elbo():
    with torch.random.fork_rng(devices=[]):
        model = VAE(latent_dim=3, num_filters=4)
    objective = ElboObjective(grey(4), grey(4), torch.zeros(4, 3))
    noise = objective.draw(rng())
    loss, _ = objective.loss(model, torch.arange(4), noise)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_an_image_is_coded_alike_in_any_batch(vae):
    images = grey(7)
    together, _ = vae.encode(images)
    alone = torch.cat([vae.encode(image[None])[0] for image in images])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(("latent_dim", "num_filters"), [(0, 4), (3, 0), (-1, 4)])
def test_impossible_sizes_are_refused(latent_dim, num_filters):
    with pytest.raises(ValueError, match="at least 1"):
        VAE(latent_dim, num_filters)


def test_raw_pixels_are_refused_with_the_remedy(vae):
    raw = torch.full((2, 28, 28), 255, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"255.*0\.\.15.*quantize"):
        vae.encode(raw)
    vae.encode(data.quantize(raw))


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (torch.rand(2, 28, 28), TypeError, r"float32; this VAE takes grey levels 0\.\.15"),
        (torch.full((2, 28, 28), torch.nan), TypeError, "float32"),
        (torch.full((2, 28, 28), -1), ValueError, "pixels go from -1 to -1"),
        (torch.full((2, 28, 28), -100), ValueError, "pixels go from -100"),
        (torch.full((2, 28, 28), 16), ValueError, "to 16"),
    ],
)
def test_what_are_no_grey_levels_is_refused(vae, pixels, error, message):
    with pytest.raises(error, match=message):
        vae.encode(pixels)
    with pytest.raises(error, match=message):
        evaluate_elbo(vae, pixels, torch.zeros(2, 3))


def test_no_pixel_is_free():
    """torch's cross-entropy leaves out labels of -100."""
    with pytest.raises((IndexError, RuntimeError)):
        pixel_nll(torch.zeros(1, 16, 1, 1), torch.full((1, 1, 1), -100))


@pytest.mark.parametrize("shape", [(2, 1), (1, 3), (3,), (2, 4)])
def test_noise_of_another_shape_is_refused(vae, shape):
    with pytest.raises(ValueError, match=r"these codes need \(2, 3\)"):
        elbo_terms(vae, grey(2), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(28, 28), (2, 1, 28, 28), (2, 32, 32), (2, 784)])
def test_other_shapes_are_refused(vae, shape):
    with pytest.raises(ValueError, match=r"takes \(N, 28, 28\)"):
        vae.encode(torch.zeros(shape, dtype=torch.uint8))


def test_an_empty_batch_has_empty_codes(vae):
    assert vae.encode(grey(0))[0].shape == (0, 3)


@pytest.mark.parametrize(
    ("image_size", "levels"), [(4, 2), (8, 16), (28, 3), (32, 16), ((12, 20), 5), ((36, 4), 256)]
)
def test_images_of_other_sizes_and_levels(image_size, levels):
    with torch.random.fork_rng(devices=[]):
        model = VAE(2, 4, image_size=image_size, levels=levels)
    height, width = model.image_size
    images = model.sample(6, generator=rng())
    assert images.shape == (6, height, width)
    assert int(images.max()) < levels
    terms = model(images, generator=rng())
    assert terms.kl.shape == (6, 2)
    logits = model.decode(torch.zeros(6, 2))
    assert logits.shape == (6, levels, height, width)
    uniform = pixel_nll(torch.zeros_like(logits), images)
    torch.testing.assert_close(uniform, torch.full((6,), height * width * math.log(levels)))
    codes, means = model.manifold(3)
    assert means.shape == (3, 3, height, width)
    torch.testing.assert_close(means[0, 1], mean_image(model.decode(codes[0, 1:2]))[0].detach())
    scores = evaluate_elbo(model, images, torch.zeros(6, 2))
    bits = (scores["nll"] + scores["kl"]) / (height * width * math.log(2))
    assert scores["bpd"] == pytest.approx(bits)
    terms.loss().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("image_size", [0, 2, 30, (28, 27), (-4, 4)])
def test_a_size_that_cannot_be_halved_twice_is_refused(image_size):
    with pytest.raises(ValueError, match="height and width must be multiples of 4"):
        VAE(2, 4, image_size=image_size)


@pytest.mark.parametrize("levels", [0, 1, 257])
def test_a_number_of_levels_that_no_pixel_has_is_refused(levels):
    with pytest.raises(ValueError, match="2 to 256 grey levels"):
        VAE(2, 4, levels=levels)


def test_images_of_another_size_or_more_levels_are_refused_by_name():
    with torch.random.fork_rng(devices=[]):
        model = VAE(2, 4, image_size=(8, 12), levels=2)
    with pytest.raises(ValueError, match=r"this VAE takes \(N, 8, 12\)"):
        model.encode(grey(1))
    with pytest.raises(ValueError, match=r"to 15; this VAE takes grey levels 0\.\.1$"):
        model.encode(torch.full((1, 8, 12), 15))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_any_precision_codes_draws_and_is_scored(dtype):
    with torch.random.fork_rng(devices=[]):
        model = VAE(2, 4).to(dtype).requires_grad_(False)
    images = model.sample(3, generator=rng())
    assert model.manifold(2)[1].shape == (2, 2, 28, 28)
    bound = importance_weighted_bound(model, images, [1, 3], rng())
    assert bound.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert bound.isfinite().all()
    assert math.isfinite(evaluate_elbo(model, images, torch.zeros(3, 2))["bpd"])


def test_calling_the_network_gives_the_terms_of_its_own_noise(vae):
    terms = vae(grey(3), generator=rng())
    expected = elbo_terms(vae, grey(3), torch.randn(3, 3, generator=rng()))
    assert torch.equal(terms.nll, expected.nll)
    assert torch.equal(terms.kl, expected.kl)


# The loss


def test_uniform_logits_cost_four_bits_a_pixel():
    nll = pixel_nll(torch.zeros(2, 16, 28, 28), grey(2))
    torch.testing.assert_close(nll, torch.full((2,), 784 * math.log(16)))


def test_nll_is_summed_over_pixels_and_not_over_images():
    logits, x = torch.randn(3, 16, 28, 28, generator=rng()), grey(3)
    doubled = pixel_nll(torch.cat([logits, logits], 3), torch.cat([x, x], 2))
    torch.testing.assert_close(doubled, 2 * pixel_nll(logits, x))
    torch.testing.assert_close(pixel_nll(logits[:1], x[:1]), pixel_nll(logits, x)[:1])


def test_nll_of_a_few_pixels_by_hand():
    probs = torch.tensor([0.5, 0.25, 0.25] + [0.0] * 13, dtype=torch.float64)
    logits = probs.log()[None, :, None, None].expand(1, 16, 1, 3)
    nll = pixel_nll(logits, torch.tensor([[[0, 1, 2]]], dtype=torch.uint8))
    assert nll.item() == pytest.approx(5 * math.log(2), rel=1e-12)


def test_nll_of_half_precision_logits_is_summed_in_single():
    logits, x = torch.randn(2, 16, 28, 28, generator=rng()).bfloat16(), grey(2)
    nll = pixel_nll(logits, x)
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll.double(), pixel_nll(logits.double(), x), rtol=1e-5, atol=0)


@given(factor=st.floats(0.1, 30), seed=st.integers(0, 1000))
@few
def test_nll_is_the_log_probability_of_torchs_categorical(factor, seed):
    logits = factor * torch.randn(2, 16, 5, 4, generator=rng(seed), dtype=torch.float64)
    x = torch.randint(0, 16, (2, 5, 4), generator=rng(seed))
    pixels = torch.distributions.Categorical(logits=logits.movedim(1, -1))
    torch.testing.assert_close(pixel_nll(logits, x), -pixels.log_prob(x).sum((1, 2)))


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 5), (1, 5, 3), (4, 5, 3)])
def test_logits_of_other_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"its logits \(2, 16, 5, 3\)"):
        pixel_nll(torch.zeros(2, 16, 5, 3), torch.zeros(shape, dtype=torch.uint8))


def test_no_images_have_no_score(vae):
    with pytest.raises(ValueError, match="no images to evaluate"):
        evaluate_elbo(vae, grey(0), torch.zeros(0, 3))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 50])
def test_evaluation_does_not_depend_on_the_batch_size(vae, batch_size):
    images, noise = grey(10), torch.randn(10, 3, generator=rng())
    whole = evaluate_elbo(vae, images, noise, batch_size=1000)
    assert evaluate_elbo(vae, images, noise, batch_size) == pytest.approx(whole, rel=1e-5)


def test_evaluation_is_the_mean_over_images(vae):
    images, noise = grey(5), torch.randn(5, 3, generator=rng())
    single = [evaluate_elbo(vae, images[i : i + 1], noise[i : i + 1]) for i in range(5)]
    scores = evaluate_elbo(vae, images, noise, batch_size=2)
    for key in ("nll", "kl", "bpd"):
        assert scores[key] == pytest.approx(sum(s[key] for s in single) / 5, rel=1e-5)
    assert scores["bpd"] == pytest.approx((scores["nll"] + scores["kl"]) / (784 * math.log(2)))


@pytest.mark.parametrize("beta", [-1.0, math.nan])
def test_a_negative_weight_of_the_kl_is_refused(beta):
    with pytest.raises(ValueError, match="beta"):
        ElboObjective(grey(2), grey(2), torch.zeros(2, 3), beta)


def test_the_noise_of_validations_is_drawn_the_same_for_each():
    one, other = (ElboObjective(grey(2), grey(5), 3) for _ in range(2))
    assert one.val_noise.shape == (5, 3)
    assert torch.equal(one.val_noise, other.val_noise)
    assert one.draw(rng()).shape == (2, 3)


def test_a_loader_is_no_objective():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(grey(4)))
    for pair in ((loader, grey(2)), (grey(2), loader)):
        with pytest.raises(TypeError, match="images are a DataLoader; they must be one tensor"):
            ElboObjective(*pair, 3)


# Sampling


def pixel_logits(num, seed=0):
    """The same random logits of six pixels, `num` times."""
    return torch.randn(1, 16, 2, 3, generator=rng(seed)).expand(num, -1, -1, -1)


def frequency_p_value(temperature, tested_temperature):
    """Chi-square test of all pixels of 20,000 samples against the tempered softmax."""
    logits = pixel_logits(20_000)
    draws = sample_pixels(logits, temperature=temperature, generator=rng(1)).flatten(1).long()
    probs = (logits[0] / tested_temperature).double().softmax(0).flatten(1)
    counts = torch.stack([column.bincount(minlength=16) for column in draws.T], dim=1)
    expected = len(draws) * probs
    statistic = ((counts - expected).square() / expected).sum().item()
    return scipy.stats.chi2.sf(statistic, df=15 * draws.shape[1])


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_pixels_have_the_probabilities_of_the_tempered_softmax(temperature):
    assert frequency_p_value(temperature, temperature) > 0.01


def test_the_test_of_frequencies_sees_a_wrong_temperature():
    assert frequency_p_value(1.0, 1.05) < 1e-6


def test_pixels_are_drawn_independently():
    draws = sample_pixels(pixel_logits(20_000), generator=rng(1)).flatten(1).double()
    correlation = torch.corrcoef(draws.T) - torch.eye(6)
    assert correlation.abs().max() < 5 / math.sqrt(20_000)


def test_a_low_temperature_gives_the_mode():
    logits = torch.randn(4, 16, 28, 28, generator=rng())
    cold = sample_pixels(logits, temperature=1e-6, generator=rng())
    assert torch.equal(cold, logits.argmax(1).to(torch.uint8))


@given(seed=st.integers(0, 1000), factor=st.floats(0, 100))
@few
def test_samples_are_grey_levels(seed, factor):
    logits = factor * torch.randn(3, 16, 4, 4, generator=rng(seed))
    draws = sample_pixels(logits, generator=rng(seed))
    assert draws.dtype == torch.uint8
    assert draws.max() <= 15


def test_the_largest_uniform_number_gives_no_level_past_the_last(monkeypatch):
    def largest(*shape, **_):
        return torch.full(shape, 1 - 2**-24)

    monkeypatch.setattr(torch, "rand", largest)
    assert sample_pixels(torch.randn(50, 16, 8, 8, generator=rng())).max() <= 15


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        sample_pixels(torch.zeros(1, 16, 2, 2), temperature=temperature)


def test_samples_obey_their_generator(vae):
    first = vae.sample(4, generator=rng(1))
    assert first.shape == (4, 28, 28)
    assert torch.equal(first, vae.sample(4, generator=rng(1)))
    assert not torch.equal(first, vae.sample(4, generator=rng(2)))


def test_a_sample_needs_both_draws(vae):
    """The code varies from sample to sample, also where no pixel noise is left."""
    cold = vae.sample(8, temperature=1e-6, generator=rng())
    assert len(cold.unique(dim=0)) > 1


# Mean images and the manifold


@given(seed=st.integers(0, 1000), factor=st.floats(0, 100))
@few
def test_mean_images_lie_between_the_darkest_and_the_brightest_level(seed, factor):
    mean = mean_image(factor * torch.randn(2, 16, 4, 4, generator=rng(seed)))
    assert mean.min() >= 0
    assert mean.max() <= 15 * (1 + 1e-6)


@pytest.mark.parametrize("level", [0, 7, 15])
def test_the_mean_of_a_certain_pixel_is_its_level(level):
    logits = torch.full((1, 16, 2, 2), -1e4)
    logits[:, level] = 0
    torch.testing.assert_close(mean_image(logits), torch.full((1, 2, 2), float(level)))


def test_the_mean_image_is_the_mean_of_samples():
    logits = pixel_logits(20_000)
    draws = sample_pixels(logits, generator=rng(1)).double()
    error = (draws.mean(0) - mean_image(logits)[0]) / (draws.std(0) / math.sqrt(len(draws)))
    assert error.abs().max() < 4


@pytest.mark.parametrize("size", [1, 2, 20])
def test_the_manifold_lies_on_gaussian_percentiles(plane, size):
    z, _ = plane.manifold(size)
    percentiles = (torch.arange(size).double() + 0.5) / size
    for row in z[..., 0]:
        torch.testing.assert_close(torch.special.ndtr(row.double()), percentiles)
    for column in z[..., 1].T:
        torch.testing.assert_close(torch.special.ndtr(column.double()), percentiles.flip(0))


def test_each_tile_of_the_manifold_is_the_mean_image_of_its_code(plane):
    z, tiles = plane.manifold(4)
    assert tiles.shape == (4, 4, 28, 28)
    for row, column in ((0, 0), (0, 3), (2, 1)):
        alone = mean_image(plane.decode(z[row, column][None]))[0]
        torch.testing.assert_close(tiles[row, column], alone)


def test_a_manifold_needs_a_plane(vae):
    with pytest.raises(ValueError, match="latent_dim=2"):
        vae.manifold()


def test_pixels_that_are_no_grey_levels_are_refused():
    with pytest.raises(TypeError, match=r"grey levels are integers 0\.\.15"):
        pixel_nll(torch.zeros(1, 16, 28, 28), torch.full((1, 28, 28), 0.5))
