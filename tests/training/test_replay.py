"""A replayed step does what the step does; on CPUs the "recording" is the function itself."""

import logging

import pytest
import torch
from torch import nn

from hw3lib import training
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.experiments.part2.resnet_training import TrainResNet
from hw3lib.training import passes, replay
from tests.training.test_loop import fit, same

CPU = torch.device("cpu")


class Recorder:
    """Hands the function back, and remembers what became of it."""

    def __init__(self, error=None):
        self.error, self.recorded, self.replayed = error, 0, 0

    def __call__(self, body):
        if self.error:
            raise self.error
        self.recorded += 1

        def again():
            self.replayed += 1
            body()

        return again


def train(optimizer, recorder=None, steps=12, sizes=(4,)):
    """Weights after steps of least squares with a falling learning rate, as it is or replayed."""
    with training.seeded(0, "weights"):
        model = nn.Linear(3, 1)
    chosen = optimizer(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(chosen, 2, gamma=0.5)

    def body(x, y):
        chosen.zero_grad(set_to_none=True)
        (model(x) - y).square().mean().backward()
        chosen.step()

    step = replay.Replayed(body, chosen, CPU, recorder) if recorder else body
    rng = torch.Generator().manual_seed(0)
    for i in range(steps):
        size = sizes[i % len(sizes)]
        step(torch.randn(size, 3, generator=rng), torch.randn(size, 1, generator=rng))
        scheduler.step()
    return torch.cat([part.detach().flatten() for part in model.parameters()]), chosen


OPTIMIZERS = [
    lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True),
    lambda parameters: torch.optim.Adam(parameters, 0.1),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["SGD", "Adam"])
@pytest.mark.parametrize("sizes", [(4,), (4, 4, 4, 2)], ids=str)
def test_replayed_steps_are_the_steps(optimizer, sizes):
    recorder = Recorder()
    expected, _ = train(optimizer, sizes=sizes)
    found, chosen = train(optimizer, recorder, sizes=sizes)
    torch.testing.assert_close(found, expected)
    assert recorder.recorded == 1
    # All but the warm-up and the batches of another shape.
    whole = 12 * sizes.count(4) // len(sizes)
    assert recorder.replayed == whole - replay.WARM_UP
    assert isinstance(chosen.param_groups[0]["lr"], float)


def test_what_cannot_be_recorded_is_computed_step_by_step(caplog):
    caplog.set_level(logging.WARNING)
    expected, _ = train(OPTIMIZERS[0])
    found, _ = train(OPTIMIZERS[0], Recorder(RuntimeError("this kernel waits for the CPU")))
    torch.testing.assert_close(found, expected)
    assert "not recorded" in caplog.text
    assert "this kernel waits for the CPU" in caplog.text
    assert len(caplog.records) == 1


def test_learning_rates_are_numbers_again_after_an_exception():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.1)

    def body(x):
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        replay.Replayed(body, optimizer, CPU, Recorder())(torch.zeros(1))
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_training_with_replayed_steps_is_the_training(monkeypatch):
    """The loop as a GPU runs it, but for the graph."""
    model, progress = fit(epochs=6, halve_every=5)
    plain = passes.Passes.__init__

    def on_gpu(self, parts, *arguments):
        plain(self, parts, *arguments)
        self.step = replay.Replayed(self._step, parts.optimizer, CPU, Recorder())

    monkeypatch.setattr(passes.Passes, "__init__", on_gpu)
    again, replayed = fit(epochs=6, halve_every=5)
    assert not same(dict(model.state_dict()), dict(nn.Linear(1, 1).state_dict()))
    torch.testing.assert_close(dict(model.state_dict()), dict(again.state_dict()))
    for row, other in zip(progress.history, replayed.history, strict=True):
        assert row == pytest.approx(other)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "settings",
    [
        TrainVAE(dataset="digits", epochs=2),
        TrainResNet(dataset="shapes", network="small", augmented=True, erased=8, epochs=2),
    ],
    ids=lambda settings: settings.experiment,
)
def test_on_a_gpu_a_graph_gives_what_the_steps_give(settings, monkeypatch, caplog):
    from hw3lib.runs.settings import Context

    caplog.set_level(logging.WARNING)
    graph = settings.compute(Context(device="cuda"))
    assert "not recorded" not in caplog.text
    monkeypatch.setattr(replay, "WARM_UP", 10**9)  # never recorded
    steps = settings.compute(Context(device="cuda"))
    assert graph.results == steps.results
