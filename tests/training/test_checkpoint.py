"""Nothing that was trained is lost, nothing damaged is trusted, and messages say what is so."""

import logging
import os
import signal
import time

import pytest
import torch
from torch import nn

from hw3lib import training
from hw3lib.runs import OutOfTime
from hw3lib.training.progress import Parts
from tests.processes import FORKS
from tests.training.test_loop import Regression, fit, same


class InterruptedAt(Regression):
    """Interrupted in a given call of `loss` or `validate`."""

    def __init__(self, *, loss=None, validate=None):
        super().__init__()
        self.left = {"loss": loss, "validate": validate}

    def _count(self, name):
        if self.left[name] is not None:
            self.left[name] -= 1
            if self.left[name] < 0:
                raise KeyboardInterrupt

    def loss(self, model, index, draws):
        self._count("loss")
        return super().loss(model, index, draws)

    def validate(self, model):
        self._count("validate")
        return super().validate(model)


# Four steps an epoch: in the third epoch's second step, in its validation, in its first step.
MOMENTS = [{"loss": 9}, {"validate": 3}, {"loss": 8}]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
@pytest.mark.parametrize("seconds", [0, 1000])
def test_ctrl_c_loses_the_epoch_that_was_begun_and_no_other(moment, seconds, tmp_path, capsys):
    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(InterruptedAt(**moment), checkpoint=path, checkpoint_seconds=seconds)
    assert training.load(path)["progress"]["epoch"] == 2
    message = capsys.readouterr().err
    assert f"interrupted. {path} holds 2 of 4 epochs. Run the same command again" in message
    resumed, progress = fit(checkpoint=path)
    whole, reference = fit()
    assert same(dict(resumed.state_dict()), dict(whole.state_dict()))
    assert progress.history == reference.history
    assert progress.best_epoch == reference.best_epoch


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "Nothing of it is kept"), ({"checkpoint": "run.pt"}, "holds nothing of it yet")],
)
def test_ctrl_c_does_not_promise_what_is_not_so(options, message, tmp_path, capsys):
    options = {name: tmp_path / value for name, value in options.items()}
    with pytest.raises(KeyboardInterrupt):
        fit(InterruptedAt(loss=2), **options)
    told = capsys.readouterr().err
    assert message in told
    assert "resume" not in told
    assert not list(tmp_path.iterdir())


def test_a_run_whose_file_is_a_longer_runs_says_so(tmp_path, capsys):
    path = tmp_path / "run.pt"
    fit(epochs=5, checkpoint=path)
    with pytest.raises(KeyboardInterrupt):
        fit(InterruptedAt(loss=6), epochs=3, checkpoint=path)
    assert "is a longer run's" in capsys.readouterr().err
    assert training.load(path)["progress"]["epoch"] == 5


def test_out_of_time_says_what_is_kept(tmp_path):
    path = tmp_path / "run.pt"
    with pytest.raises(OutOfTime, match=r"run\.pt holds 1 of 4 epochs"):
        fit(checkpoint=path, deadline=time.monotonic())
    with pytest.raises(OutOfTime, match="Nothing of it is kept"):
        fit(deadline=time.monotonic())


def test_an_error_of_the_objective_keeps_the_epochs_before_it(tmp_path):
    class Failing(InterruptedAt):
        def validate(self, model):
            try:
                return super().validate(model)
            except KeyboardInterrupt:
                raise KeyError("planted") from None

    path = tmp_path / "run.pt"
    with pytest.raises(KeyError, match="planted") as failed:
        fit(Failing(validate=3), checkpoint=path)
    assert "holds 2 of 4 epochs" in failed.value.__notes__[0]
    assert training.load(path)["progress"]["epoch"] == 2


def test_a_file_that_cannot_be_written_at_the_interruption_is_told(tmp_path, capsys, monkeypatch):
    path = tmp_path / "run.pt"
    fit(epochs=1, checkpoint=path)

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hw3lib.training.checkpoint.save", full)
    with pytest.raises(KeyboardInterrupt):
        fit(InterruptedAt(loss=9), checkpoint=path)
    told = capsys.readouterr().err
    assert "could not be written ([Errno 28] No space left" in told
    assert f"{path} holds 1 of 4 epochs" in told
    assert training.load(path)["progress"]["epoch"] == 1


class Slow(Regression):
    def loss(self, model, index, draws):
        time.sleep(0.01)
        return super().loss(model, index, draws)


def train_slowly(path, ready):
    torch.set_num_threads(1)

    class Told(Slow):
        def validate(self, model):
            ready.send(len(self.scores))
            self.scores.append(0)
            return super().validate(model)

    fit(Told(), epochs=1000, checkpoint=path, checkpoint_seconds=1000)


def test_sigterm_saves_and_then_ends_the_process_as_it_should(tmp_path):
    path = tmp_path / "run.pt"
    here, there = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=train_slowly, args=(path, there))
    process.start()
    there.close()
    while here.recv() < 3:
        pass
    assert not path.exists()
    process.terminate()
    process.join(60)
    assert process.exitcode == -signal.SIGTERM
    epochs = training.load(path)["progress"]["epoch"]
    assert epochs >= 2
    resumed, _ = fit(epochs=epochs + 2, checkpoint=path)
    assert same(dict(resumed.state_dict()), dict(fit(epochs=epochs + 2)[0].state_dict()))


def test_a_handler_of_somebody_else_stays(tmp_path):
    caught = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:

        class Signalled(Regression):
            def validate(self, model):
                os.kill(os.getpid(), signal.SIGTERM)
                return super().validate(model)

        fit(Signalled(), epochs=2)
        assert caught == [signal.SIGTERM] * 3
    finally:
        signal.signal(signal.SIGTERM, before)
    fit()
    assert signal.getsignal(signal.SIGTERM) == before


def test_every_damaged_byte_is_noticed_and_the_run_starts_over(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    path = tmp_path / "run.pt"
    fit(epochs=2, checkpoint=path)
    whole = path.read_bytes()
    rng = torch.Generator().manual_seed(0)
    places = torch.randint(len(whole), (60,), generator=rng).tolist()
    for place in [0, len(whole) - 1, *places]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        assert training.load(path) is None
        assert not path.exists()
        assert (tmp_path / "run.pt.damaged").read_bytes() == damaged
    for cut in (0, 10, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert training.load(path) is None
    caplog.clear()
    path.write_bytes(whole[:-1] + b"?")
    started_over, _ = fit(checkpoint=path)
    assert f"{path} is damaged" in caplog.text
    assert same(dict(started_over.state_dict()), dict(fit()[0].state_dict()))
    path.write_bytes(whole)
    assert training.load(path)["progress"]["epoch"] == 2


def test_a_model_that_counts_as_false_is_kept_like_any():
    class Empty(nn.Sequential):
        """Has a parameter, but no parts to count."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

    model = Empty()
    parts = Parts(model, torch.optim.SGD(model.parameters(), lr=1.0))
    assert "weight" in parts.state()["model"]


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "folder with spaces" / "run.pt"
    assert training.load(path) is None
    content = ([torch.arange(3), {"a": 1.5}], 2.0)
    training.save(path, content)
    parts, number = training.load(path)
    assert torch.equal(parts[0], torch.arange(3))
    assert (parts[1], number) == ({"a": 1.5}, 2.0)
    assert [found.name for found in path.parent.iterdir()] == ["run.pt"]


def test_a_checkpoint_of_another_model_is_refused_by_name_and_stays(tmp_path):
    path = tmp_path / "run.pt"
    fit(epochs=1, checkpoint=path)
    content = path.read_bytes()
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    options = {"epochs": 2, "batch_size": 16, "seed": 0, "select": "error", "checkpoint": path}
    with pytest.raises(ValueError, match=r"run\.pt was written by a training of another model"):
        training.fit(model, Regression(), optimizer, **options)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "with seed 0, and this one has 1"),
        ({"batch_size": 8}, "with batch size 16, and this one has 8"),
        ({"select": None}, "with score error, and this one has None"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_and_stays(other, message, tmp_path):
    path = tmp_path / "run.pt"
    fit(epochs=1, checkpoint=path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=rf"run\.pt was written by a training {message}"):
        fit(checkpoint=path, **other)
    assert path.read_bytes() == content


def test_a_checkpoint_of_another_learning_rate_is_refused_and_a_falling_one_is_not(tmp_path):
    path = tmp_path / "run.pt"
    fit(epochs=1, checkpoint=path, halve_every=2)
    fit(checkpoint=path, halve_every=2)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-9)
    options = {"epochs": 9, "batch_size": 16, "seed": 0, "select": "error", "checkpoint": path}
    with pytest.raises(ValueError, match=r"learning rates \[0\.05\], and this one has \[1e-09\]"):
        training.fit(model, Regression(), optimizer, **options)


class Told(Regression):
    """An objective that says what it is."""

    def __init__(self, **identity):
        super().__init__()
        if identity:
            self.identity = identity


def test_a_checkpoint_of_another_objective_is_refused_and_stays(tmp_path):
    path = tmp_path / "run.pt"
    fit(Told(defense="A"), epochs=2, checkpoint=path)
    content = path.read_bytes()
    for epochs in (2, 4):
        with pytest.raises(
            ValueError, match=r"run\.pt was written .* defense A, .* one has B; pass"
        ):
            fit(Told(defense="B"), epochs=epochs, checkpoint=path)
    assert path.read_bytes() == content
    resumed, _ = fit(Told(defense="A"), checkpoint=path)
    assert same(dict(resumed.state_dict()), dict(fit()[0].state_dict()))


@pytest.mark.parametrize(("before", "after"), [({}, {"defense": "A"}), ({"defense": "A"}, {})])
def test_an_objective_that_does_not_say_what_it_is_goes_on(before, after, tmp_path):
    """As do files from before objectives did."""
    path = tmp_path / "run.pt"
    fit(Told(**before), epochs=2, checkpoint=path)
    assert fit(Told(**after), checkpoint=path)[1].epoch == 4


def test_scores_that_the_epochs_so_far_do_not_have_are_told(tmp_path):
    class Other(Regression):
        def validate(self, model):
            return super().validate(model) | {"other": 0.0}

    path = tmp_path / "run.pt"
    fit(epochs=2, checkpoint=path, select=None)
    with pytest.raises(ValueError, match="the epochs so far have no validation other; pass"):
        fit(Other(), checkpoint=path, select=None)


def test_nothing_to_do_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "run.pt"
    fit(epochs=2, checkpoint=path)
    assert "nothing to do" not in caplog.text
    fit(epochs=2, checkpoint=path)
    assert f"nothing to do: {path} already holds 2 of 2 epochs" in caplog.text


def test_a_file_may_be_named_by_a_string_and_has_the_last_and_the_best_weights(tmp_path):
    path = str(tmp_path / "run.pt")
    with pytest.raises(KeyboardInterrupt):
        fit(InterruptedAt(loss=9), checkpoint=path)
    model, progress = fit(epochs=2)
    kept = training.load(path)
    assert same(kept["model"], dict(model.state_dict()))
    assert same(kept["progress"]["best_state"], progress.best_state)
    training.save(path, {"epoch": 3})
    assert training.load(path) == {"epoch": 3}


def test_weights_that_were_not_kept_in_time_are_told_before_anything_is_trained(tmp_path):
    path = tmp_path / "run.pt"
    fit(epochs=2, checkpoint=path, snapshots=[0, 2])
    _, progress = fit(epochs=3, checkpoint=path, snapshots=[0, 2, 3])
    assert sorted(progress.snapshots) == [0, 2, 3]
    with pytest.raises(ValueError, match=r"run\.pt is past epochs \[1\], and did not keep"):
        fit(epochs=4, checkpoint=path, snapshots=[1, 4])


def test_a_file_of_somebody_else_is_refused_and_stays(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(3)}, path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"weights\.pt is no checkpoint of hw3lib, and stays"):
        fit(checkpoint=path)
    assert path.read_bytes() == content
    training.save(path, {"epoch": 3})
    with pytest.raises(ValueError, match=r"weights\.pt holds no training"):
        fit(checkpoint=path)


def test_a_step_that_was_recorded_on_a_gpu_goes_on_on_a_cpu(tmp_path):
    path = tmp_path / "run.pt"
    fit(epochs=1, checkpoint=path)
    kept = training.load(path)
    for group in kept["optimizer"]["param_groups"]:
        group["capturable"] = True  # as the recording leaves it
    training.save(path, kept)
    assert same(dict(fit(checkpoint=path)[0].state_dict()), dict(fit()[0].state_dict()))
