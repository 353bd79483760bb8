"""Laws of the samplers: they draw what the logits say, and the tests of that can fail."""

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from hw3lib import data
from hw3lib.experiments.part1 import sampling
from hw3lib.stats import chi_square
from hw3lib.vae.model import mean_image, sample_pixels


def rng(purpose="test", seed=0):
    return data.generator(seed, purpose)


def logits(n=1, size=4, scale=2.0):
    return scale * torch.randn(n, 16, size, size, generator=rng("logits"))


def p_value(draws, one):
    probs = one.softmax(0).movedim(0, -1).double()
    counts = sampling.level_counts(draws)
    statistic, freedom = chi_square(counts.numpy(), (probs / probs.sum(-1, keepdim=True)).numpy())
    return float(scipy.stats.chi2.sf(statistic.sum(), freedom.sum()))


def test_the_loop_and_the_fast_way_draw_the_same_pixels_from_the_same_noise():
    x = logits(3, 6).double()  # float32 rounds differently in both, and on each processor
    slow = sampling.sample_pixels_naive(x, generator=rng())
    assert torch.equal(slow, sample_pixels(x, generator=rng()))


@pytest.mark.parametrize("name", sampling.SAMPLERS)
def test_every_sampler_draws_grey_levels_with_the_probabilities_of_the_softmax(name):
    one = logits(1, 3)[0]
    draws = sampling.draw_many(sampling.SAMPLERS[name], one, 2000, rng(name))
    assert draws.shape == (2000, 3, 3)
    assert draws.dtype == torch.uint8
    assert p_value(draws, one) > 1e-3


def test_the_test_of_frequencies_notices_a_wrong_temperature():
    one = logits()[0]
    draws = sampling.draw_many(sample_pixels, one / 0.9, 4000, rng())
    assert p_value(draws, one) < 1e-6


@pytest.mark.parametrize("name", sampling.SAMPLERS)
def test_every_sampler_obeys_its_generator_and_leaves_the_global_one_alone(name):
    x, sampler = logits(2), sampling.SAMPLERS[name]
    before = torch.get_rng_state()
    first, again = (sampler(x, generator=rng()) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, sampler(x, generator=rng("other")))
    assert torch.equal(before, torch.get_rng_state())


def test_the_mode_is_the_most_probable_image_and_the_limit_of_low_temperature():
    x = logits(2)
    mode = sampling.mode_image(x)
    cold = sample_pixels(x, temperature=1e-4, generator=rng())
    assert torch.equal(mode, cold)


@given(st.integers(1, 30), st.integers(0, 5))
def test_counts_of_a_pixel_add_up_to_the_images(n, seed):
    x = torch.randint(0, 16, (n, 3, 3), generator=rng(seed=seed)).to(torch.uint8)
    counts = sampling.level_counts(x)
    assert counts.shape == (3, 3, 16)
    assert (counts.sum(-1) == n).all()
    assert (counts * torch.arange(16)).sum(-1).equal(x.long().sum(0))


def test_neighbours_are_uncorrelated_if_drawn_apart_and_one_if_equal():
    apart = torch.randint(0, 16, (20_000, 4, 4), generator=rng()).to(torch.uint8)
    assert sampling.correlation_across_images(apart).abs().max() < 0.04
    equal = apart[:, :1, :1].expand(-1, 4, 4)
    torch.testing.assert_close(
        sampling.correlation_across_images(equal), torch.ones(12, dtype=torch.float64)
    )


def test_pixels_that_hardly_vary_have_no_correlation():
    still = torch.zeros(100, 2, 3, dtype=torch.uint8)
    still[0] = 1
    assert len(sampling.correlation_across_images(still)) == 0


def test_variance_shares_add_up_to_the_variance_of_samples():
    x = logits(40, 5)
    between, within = sampling.variance_shares(x)
    draws = torch.cat([sample_pixels(x, generator=rng(seed=s)) for s in range(500)]).double()
    assert between + within == pytest.approx(draws.var(0).sum().item(), rel=0.02)
    assert between == pytest.approx(mean_image(x).var(0, correction=0).sum().item(), rel=1e-4)


def test_a_decoder_that_ignores_its_code_explains_no_variance():
    between, within = sampling.variance_shares(logits(1).expand(10, -1, -1, -1))
    assert between == pytest.approx(0, abs=1e-9)
    assert within > 1


def test_timing_covers_every_sampler_and_batch_size_but_the_loop_on_large_batches():
    settings = sampling.SamplingTime(batch_sizes=(1, 2), naive_up_to=1, repeats=2)
    outcome = settings.compute(None)
    assert set(outcome.arrays) == {
        "naive.1", *(f"{name}.{n}" for name in sampling.SAMPLERS if name != "naive" for n in (1, 2))
    }  # fmt: skip
    assert all(len(times) == 2 and (times > 0).all() for times in outcome.arrays.values())
    (one, _), (two, milliseconds) = settings.per_image(outcome.results, "inverse")
    assert (one, two) == (1, 2)
    assert milliseconds == pytest.approx(500 * outcome.arrays["inverse.2"].min())
    assert [size for size, _ in settings.per_image(outcome.results, "naive")] == [1]


def test_canary_is_the_mean_grey_level_of_each_sampler():
    canary = sampling.SamplingTime().canary()
    assert canary == sampling.SamplingTime().canary()
    # The loop and the fast way draw the same pixels; the other two differ by chance.
    assert canary[0] == canary[1]
    assert canary == pytest.approx([canary[0]] * 4, rel=0.1)
