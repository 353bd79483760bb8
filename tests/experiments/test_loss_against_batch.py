"""Two defences on the same batches: they differ by batch norm alone."""

import torch

from hw3lib.experiments.part2.loss_against_batch import LossAgainstBatch
from hw3lib.robust.attacks import FGSM
from hw3lib.robust.resnet import ResNet
from tests.experiments.tiny import TINY, stored


def test_defences_agree_in_evaluation_mode_and_differ_in_training_mode(cache):
    run = stored(LossAgainstBatch(model=TINY, attack=FGSM(0.05), batches=2, batch_size=16))
    assert run.arrays["eval_difference"].max() < 1e-4  # float32
    assert run.arrays["train_difference"].min() > 1e-2


def test_the_cosine_of_eleven_million_numbers_is_not_above_one():
    study = LossAgainstBatch(model=TINY, attack=FGSM(0.05), batches=2, batch_size=2)
    torch.manual_seed(0)
    table = study.measure(ResNet(), torch.rand(4, 3, 32, 32), torch.arange(4))
    torch.testing.assert_close(table["eval_cosine"], torch.ones(2).double(), rtol=0, atol=1e-9)
