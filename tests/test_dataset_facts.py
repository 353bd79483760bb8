"""Laws of the models that only count."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hw3lib.experiments.part1.dataset_facts import (
    DatasetFacts,
    counting_models,
    level_probs,
    log_likelihood,
    pixel_probs,
)
from hw3lib.runs.settings import Context

few = settings(max_examples=15, deadline=None)


def images(num, height, width, seed=0, levels=16):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, levels, (num, height, width), generator=rng, dtype=torch.uint8)


def labels(num):
    return torch.arange(num) % 10


@given(seed=st.integers(0, 1000), smoothing=st.floats(0.01, 10))
@few
def test_probabilities_add_up_to_one(seed, smoothing):
    x = images(7, 3, 2, seed)
    assert level_probs(x, smoothing).sum().item() == pytest.approx(1)
    torch.testing.assert_close(pixel_probs(x, smoothing).sum(0), torch.ones(3, 2).double())


def test_counts_of_more_images_than_one_part_holds():
    x = images(9001, 2, 1)
    counts = torch.stack([(x == level).sum(0) for level in range(16)])
    torch.testing.assert_close(pixel_probs(x, 1.0), (counts + 1).double() / (9001 + 16))


def test_the_log_likelihood_is_the_sum_over_pixels():
    x, probs = images(4, 3, 2), pixel_probs(images(50, 3, 2, seed=1), 1.0)
    for image, value in zip(x, log_likelihood(x, probs), strict=True):
        by_pixel = [probs[image[i, j].int(), i, j].log().item() for i in range(3) for j in range(2)]
        assert value.item() == pytest.approx(sum(by_pixel))


def test_each_model_gives_all_images_together_the_probability_one():
    """One pixel of 16 levels makes 16 images; the bits of each give its probability."""
    train = images(40, 1, 1, levels=5)
    every = torch.arange(16, dtype=torch.uint8).view(16, 1, 1, 1)
    scores = [counting_models(train, labels(40), image, 0.5) for image in every]
    for name in scores[0]:
        assert sum(2 ** -score[name] for score in scores) == pytest.approx(1)


@given(seed=st.integers(0, 1000), levels=st.integers(2, 16))
@few
def test_on_the_training_images_a_finer_count_is_never_worse(seed, levels):
    x = images(30, 2, 2, seed, levels)
    scores = counting_models(x, labels(30), x, smoothing=1e-9)
    assert scores["uniform"] == 4
    assert scores["pixels"] <= scores["histogram"] + 1e-9 <= 4 + 2e-9


def test_equal_classes_are_no_help():
    x = images(20, 3, 3).repeat_interleave(10, 0)  # each image once in each class
    scores = counting_models(x, labels(200), images(5, 3, 3, seed=1), smoothing=1e-9)
    fine = counting_models(x, labels(200), x, smoothing=1e-9)
    assert fine["classes"] == pytest.approx(fine["pixels"])
    assert math.isfinite(scores["classes"])


def test_classes_that_differ_save_bits():
    level = labels(100).to(torch.uint8)
    x = level[:, None, None].expand(-1, 4, 4)  # a class is a grey level
    scores = counting_models(x, labels(100), x, smoothing=1e-9)
    assert scores["pixels"] == pytest.approx(math.log2(10))
    assert scores["classes"] == pytest.approx(math.log2(10) / 16)  # said once, not 16 times


def test_facts_of_the_digits():
    outcome = DatasetFacts(dataset="digits").compute(Context())
    sizes = outcome.results["sizes"]
    for split, counts in outcome.results["class_counts"].items():
        assert sum(counts) == sizes[split]
    assert sizes == {"train": 1296, "validation": 144, "test": 357}
    assert outcome.arrays["examples"].shape == (10, 8, 28, 28)
    assert outcome.arrays["examples"].max() <= 15
    assert outcome.arrays["pixel_entropy"].min() >= 0
    assert outcome.arrays["pixel_entropy"].max() <= 4


@pytest.mark.real_data
def test_anchors_of_mnist():
    bpd = DatasetFacts().compute(Context()).results["bpd"]
    rounded = {name: round(value, 3) for name, value in bpd.items()}
    assert rounded["uniform"] == 4
    assert rounded["histogram"] == 1.238
    assert rounded["pixels"] == 0.977
    assert rounded["classes"] < 0.9
