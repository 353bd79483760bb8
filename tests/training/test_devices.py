"""What a device without float64, such as Apple's GPU, has to do."""

import time

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hw3lib import FGSM, PGD, TRADES, Classification, JoinedBatch, data, training
from hw3lib.experiments.part1.classifier import TrainClassifier
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.experiments.part2.resnet_training import TrainResNet
from hw3lib.training import precision

CPU = torch.device("cpu")


class NoFloat64(TorchDispatchMode):
    """Every operation that makes a float64 tensor fails, as it does on such a device."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **kwargs or {})
        for made in tree_leaves(result):
            if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
                raise TypeError(f"{operation} makes a float64 tensor")
        return result


def vae():
    settings = TrainVAE(dataset="digits", num_filters=4, epochs=1)
    images = data.quantize(data.load("digits").x_train[:60])
    model, optimizer = settings.build(CPU)
    return model, settings.objective(images[:40], images[40:]), optimizer


def classifier():
    settings = TrainClassifier(dataset="digits", epochs=1)
    model = settings.build(CPU)
    return model, settings.objective(data.load("digits")), settings.optimizer(model)


def defended(defense, **options):
    settings = TrainResNet(dataset="shapes", network="small", defense=defense, **options)
    shapes = data.load("shapes")
    pair = shapes.x_train[:40], shapes.y_train[:40]
    objective = Classification(pair, pair, defense, attack=PGD(0.01, 2, keep="best"))
    if options:
        small = data.Dataset("shapes", *pair, shapes.x_test[:40], shapes.y_test[:40], "")
        objective = settings.objective(small)
    model = settings.build(CPU)
    return model, objective, settings.optimizer(model, 1)[0]


TRAININGS = {
    "vae": vae,
    "classifier": classifier,
    "joined": lambda: defended(JoinedBatch(FGSM(0.01)), augmented=True, erased=4),
    "own": lambda: defended(TRADES(PGD(0.01, 2, random_start=True))),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_makes_no_tensor_in_float64(name, tmp_path):
    model, objective, optimizer = TRAININGS[name]()
    with NoFloat64():
        training.fit(
            model, objective, optimizer,
            epochs=2, batch_size=16, seed=0, checkpoint=tmp_path / "run.pt",
        )  # fmt: skip


def test_the_check_notices_float64():
    with NoFloat64(), pytest.raises(TypeError, match="makes a float64 tensor"):
        torch.zeros(2).double()


def test_bfloat16_is_for_cpus_and_cuda_where_it_was_timed(monkeypatch):
    monkeypatch.delenv("HW3_PRECISION", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(precision, "_remembered", lambda weights: "bfloat16")
    assert precision.bfloat16_pays(CPU)
    assert not precision.bfloat16_pays(torch.device("mps"))


@pytest.mark.parametrize("slow", precision.PRECISIONS)
def test_the_precision_whose_step_takes_longer_is_not_taken(slow, tmp_path, monkeypatch):
    """As a processor may have instructions for bfloat16 that are slower backwards."""
    calls = []

    def step(kind, weights):
        calls.append(kind)
        time.sleep(0.02 * (kind == slow))

    monkeypatch.setenv("HW3_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "_step", step)
    assert precision._remembered.__wrapped__(weights=True) != slow
    assert calls == list(precision.PRECISIONS) * 3  # in turn
    assert precision._remembered.__wrapped__(weights=True) != slow
    assert len(calls) == 6  # the second time it is known

    (tmp_path / "precision.json").write_text("3")
    assert precision._remembered.__wrapped__(weights=True) != slow
