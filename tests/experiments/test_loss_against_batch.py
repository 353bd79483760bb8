"""Two defences on the same images: they differ by batch norm alone."""

import pytest
import torch

from hw3lib import data
from hw3lib.experiments.part2.loss_against_batch import LossAgainstBatch
from hw3lib.robust.attacks import FGSM
from hw3lib.robust.resnet import ResNet
from tests.experiments.tiny import TINY, stored

SMALL = LossAgainstBatch(model=TINY, attack=FGSM(0.05), batches=2, batch_size=16, untrained=2)


@pytest.fixture(scope="module")
def images():
    dataset = data.load("shapes")
    return data.to_pixels(dataset.x_train[:32]).double(), dataset.y_train[:32]


def network(momentum):
    model = TINY.build(torch.device("cpu")).double()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = momentum
    return model


def test_defences_agree_in_evaluation_mode_and_differ_in_training_mode(cache):
    run = stored(SMALL)
    for prefix, shape in (("", (2,)), ("untrained_", (2, 2))):
        assert run.arrays[f"{prefix}eval_difference"].max() < 1e-4  # float32
        assert run.arrays[f"{prefix}train_difference"].min() > 1e-3
        assert run.arrays[f"{prefix}train_cosine"].shape == shape


def test_no_loss_moves_the_statistics_of_what_is_measured_next(images):
    quick, still = (SMALL.measure(network(momentum), *images) for momentum in (1.0, 0.0))
    for name, values in still.items():
        torch.testing.assert_close(quick[name], values, rtol=1e-9, atol=1e-9)


def test_images_that_nothing_was_done_to_have_the_same_statistics_joined_or_not(images):
    table = SMALL.changed(attack=FGSM(0.0)).measure(network(0.1), *images)
    assert table["train_difference"].max() < 1e-9


def test_the_cosine_of_eleven_million_numbers_is_not_above_one():
    study = SMALL.changed(batch_size=2)
    torch.manual_seed(0)
    table = study.measure(ResNet(), torch.rand(4, 3, 32, 32), torch.arange(4))
    torch.testing.assert_close(table["eval_cosine"], torch.ones(2).double(), rtol=0, atol=1e-9)
