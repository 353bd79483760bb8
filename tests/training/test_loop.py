"""The loop's laws: what is resumed equals what was never interrupted; nothing global is touched."""

import random
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn

from hw3lib import data, runs, training
from hw3lib.experiments.part1.vae_training import TrainVAE
from tests.processes import FORKS


class Regression:
    """y = 2 x + noise by least squares: a problem small enough to be trained in milliseconds."""

    metrics = ("error",)
    num_examples = 50

    def __init__(self):
        self.x = torch.linspace(-1, 1, 50)[:, None]
        self.scores = []

    def draw(self, generator):
        return 0.1 * torch.randn(50, 1, generator=generator)

    def loss(self, model, index, draws):
        errors = (model(self.x[index]) - 2 * self.x[index] - draws).square()
        return errors.mean(), errors.sum()[None].detach()

    def validate(self, model):
        with torch.no_grad():
            return {"error": float((model(self.x) - 2 * self.x).square().mean())}


def fit(objective=None, *, halve_every=None, **options):
    with training.seeded(0, "weights"):
        model = nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    settings = {"epochs": 4, "batch_size": 16, "seed": 0, "select": "error"} | options
    if halve_every:
        steplr = torch.optim.lr_scheduler.StepLR(optimizer, halve_every, gamma=0.5)
        settings["scheduler"] = steplr
    return model, training.fit(model, objective or Regression(), optimizer, **settings)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_training_learns_and_reports_every_epoch():
    _, progress = fit(epochs=40)
    assert [row["epoch"] for row in progress.history] == list(range(41))
    assert progress.history[-1]["val_error"] < 0.1 * progress.history[0]["val_error"]
    assert "train_error" not in progress.history[0]


def test_metrics_are_means_over_examples_also_with_a_ragged_last_batch():
    class Frozen(Regression):
        def draw(self, generator):
            return torch.zeros(50, 1)

        def loss(self, model, index, draws):
            loss, sums = super().loss(model, index, draws)
            return 0 * loss, sums

    model, progress = fit(Frozen(), epochs=1)
    expected = Regression().validate(model)["error"]
    assert progress.history[1]["train_error"] == pytest.approx(expected, rel=1e-6)


def test_the_best_weights_are_those_of_the_best_epoch():
    class Worsening(Regression):
        def validate(self, model):
            self.scores.append(dict(model.state_dict()))
            return {"error": [3.0, 2.0, 1.0, 2.0, 3.0][len(self.scores) - 1]}

    objective = Worsening()
    model, progress = fit(objective)
    assert progress.best_epoch == 2
    _, two = fit(epochs=2, snapshots=[2])
    assert same(progress.best_state, two.snapshots[2])
    assert not same(progress.best_state, dict(model.state_dict()))


def test_the_weights_before_training_are_the_best_only_if_there_are_no_others():
    class Worsening(Regression):
        def validate(self, model):
            self.scores.append(0)
            return {"error": float(len(self.scores))}

    _, progress = fit(Worsening(), epochs=3)
    assert progress.best_epoch == 1
    _, untrained = fit(Worsening(), epochs=0)
    assert untrained.best_epoch == 0
    assert untrained.best_state


def test_equal_seeds_agree_and_others_differ():
    (a, _), (b, _), (c, _) = fit(), fit(), fit(seed=1)
    assert same(dict(a.state_dict()), dict(b.state_dict()))
    assert not same(dict(a.state_dict()), dict(c.state_dict()))


def test_global_random_state_is_left_alone():
    def states():
        _, numpy, position, *_ = np.random.get_state()  # noqa: NPY002 - the global one
        return random.getstate(), numpy.tolist(), position, torch.get_rng_state().tolist()

    before = states()
    fit()
    assert states() == before


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(()).item()])
def test_what_is_drawn_from_any_global_generator_comes_from_the_seed(draw, tmp_path):
    class Noisy(Regression):
        def loss(self, model, index, draws):
            return super().loss(model, index, draws + draw())

    def noisy(**options):
        draw()
        return dict(fit(Noisy(), **options)[0].state_dict())

    whole = noisy()
    assert same(whole, noisy())
    assert not same(whole, noisy(seed=1))
    noisy(epochs=2, checkpoint=tmp_path / "run.pt")
    assert same(whole, noisy(checkpoint=tmp_path / "run.pt"))


def test_the_schedule_counts_batches_and_is_resumed(tmp_path):
    checkpoint = tmp_path / "run.pt"
    fit(epochs=1, halve_every=3, checkpoint=checkpoint)
    extended, progress = fit(epochs=4, halve_every=3, checkpoint=checkpoint)
    whole, reference = fit(epochs=4, halve_every=3)
    constant, _ = fit(epochs=4)
    assert same(dict(extended.state_dict()), dict(whole.state_dict()))
    assert progress.history == reference.history
    assert not same(dict(whole.state_dict()), dict(constant.state_dict()))
    stored = training.load(checkpoint)
    assert stored["optimizer"]["param_groups"][0]["lr"] == 0.05 * 0.5 ** (16 // 3)


def halved(every, gamma=0.5):
    """Options for `train_with`: a StepLR, and what it counts."""
    return {
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, every, gamma),
        "scheduler_every": "epoch",
    }


def train_with(scheduler, *, objective=None, **options):
    with training.seeded(0, "weights"):
        model = nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    settings = {"epochs": 4, "batch_size": 16, "seed": 0} | options
    made = scheduler(optimizer)
    progress = training.fit(model, objective or Regression(), optimizer, scheduler=made, **settings)
    return model, progress, optimizer


def test_a_schedule_may_count_epochs_and_is_resumed(tmp_path):
    path = tmp_path / "run.pt"
    seen = []

    class Watching(Regression):
        def validate(self, model):
            seen.append(optimizer.param_groups[0]["lr"])
            return super().validate(model)

    with training.seeded(0, "weights"):
        model = nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    halving = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    options = {"epochs": 3, "batch_size": 16, "seed": 0}
    training.fit(
        model, Watching(), optimizer, scheduler=halving, scheduler_every="epoch", **options
    )
    assert seen == [0.05, 0.05, 0.025, 0.0125]
    whole, reference, _ = train_with(**halved(2))
    train_with(**halved(2), epochs=3, checkpoint=path)
    resumed, progress, optimizer = train_with(**halved(2), checkpoint=path)
    assert same(dict(resumed.state_dict()), dict(whole.state_dict()))
    assert progress.history == reference.history
    assert optimizer.param_groups[0]["lr"] == 0.0125
    with pytest.raises(ValueError, match="with scheduler_every epoch, and this one has batch"):
        train_with(**halved(2) | {"scheduler_every": "batch"}, epochs=5, checkpoint=path)


def test_a_checkpoint_of_another_schedule_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    train_with(**halved(2), epochs=2, checkpoint=path)
    with pytest.raises(ValueError, match=r"schedule {'step_size': 2, .*one has {'step_size': 3"):
        train_with(**halved(3), checkpoint=path)


def one_cycle(steps):
    return lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        (torch.optim.lr_scheduler.ReduceLROnPlateau, {}, "ReduceLROnPlateau wants scores"),
        (one_cycle(15), {}, r"total_steps=15, .* up to 16 times, once every batch"),
        (one_cycle(3), {"scheduler_every": "epoch"}, r"total_steps=3, .* up to 4 times, .* epoch"),
        (one_cycle(16), {"scheduler_every": "step"}, "choose 'batch' or 'epoch'"),
    ],
)
def test_a_schedule_that_would_fail_later_is_refused_before_anything_is_trained(
    scheduler, options, message
):
    class Untouched(Regression):
        def validate(self, model):
            raise AssertionError

    with pytest.raises((TypeError, ValueError), match=message):
        train_with(scheduler, objective=Untouched(), **options)


def test_schedules_that_fit_are_not_refused_and_a_hasty_one_is_warned_of(caplog):
    train_with(one_cycle(16))
    train_with(one_cycle(4), scheduler_every="epoch")
    train_with(**halved(2))
    train_with(**halved(4) | {"scheduler_every": "batch"})  # once an epoch
    assert not caplog.text
    train_with(**halved(2) | {"scheduler_every": "batch"})
    assert "falls after every 2 of an epoch's 4" in caplog.text


def fit_two(change, parameters):
    """Train the second of two layers, after a change of both, with an optimizer of some."""
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    change(model)
    optimizer = torch.optim.SGD(parameters(model), 0.01)
    training.fit(model, Regression(), optimizer, epochs=1, batch_size=16, seed=0)


def test_an_optimizer_of_other_parameters_is_refused_and_one_of_some_is_warned_of(caplog):
    def freeze(model):
        model.requires_grad_(False)

    def freeze_first(model):
        freeze(model[0])

    with pytest.raises(ValueError, match="the optimizer has none of this model"):
        fit_two(bool, lambda model: nn.Linear(1, 1).parameters())
    with pytest.raises(ValueError, match="the optimizer has none of this model"):
        fit_two(freeze_first, lambda model: model[0].parameters())
    with pytest.raises(ValueError, match="the optimizer has none of this model"):
        fit_two(freeze, lambda model: model.parameters())
    fit_two(freeze_first, lambda model: model.parameters())
    fit_two(freeze_first, lambda model: model[1].parameters())
    assert not caplog.text
    fit_two(bool, lambda model: model[1].parameters())
    assert "lacks 2 of the model's 4 trainable parameters, such as 0.weight" in caplog.text


def test_each_epoch_is_told_and_what_is_done_with_it_changes_nothing(tmp_path):
    path, told = tmp_path / "run.pt", []

    def spoil(row):
        told.append(dict(row))
        row.clear()
        torch.rand(1)

    watched, progress = fit(epochs=2, checkpoint=path, on_epoch=spoil)
    assert told == progress.history[1:]
    watched, progress = fit(checkpoint=path, on_epoch=spoil)
    assert told == progress.history[1:]
    whole, reference = fit()
    assert same(dict(watched.state_dict()), dict(whole.state_dict()))
    assert progress.history == reference.history

    def fail(row):
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        fit(epochs=5, checkpoint=path, on_epoch=fail)
    assert training.load(path)["progress"]["epoch"] == 5


def test_the_best_weights_are_put_into_a_model():
    class Worsening(Regression):
        def validate(self, model):
            self.scores.append(0)
            return {"error": float(len(self.scores))}

    model, progress = fit(Worsening(), epochs=3)
    _, one = fit(epochs=1, snapshots=[1])
    progress.load_best(model)
    assert same(dict(model.state_dict()), one.snapshots[1])


def test_a_longer_run_goes_on_where_a_shorter_one_ended(tmp_path):
    checkpoint = tmp_path / "run.pt"
    fit(epochs=2, checkpoint=checkpoint)
    extended, progress = fit(epochs=5, checkpoint=checkpoint)
    whole, reference = fit(epochs=5)
    assert same(dict(extended.state_dict()), dict(whole.state_dict()))
    assert progress.history == reference.history


def test_a_shorter_run_neither_uses_nor_overwrites_a_longer_ones_checkpoint(tmp_path):
    checkpoint = tmp_path / "run.pt"
    fit(epochs=5, checkpoint=checkpoint)
    content = checkpoint.read_bytes()
    short, _ = fit(epochs=2, checkpoint=checkpoint)
    assert same(dict(short.state_dict()), dict(fit(epochs=2)[0].state_dict()))
    assert checkpoint.read_bytes() == content


def test_out_of_time_stops_after_an_epoch_and_resumes(tmp_path):
    checkpoint = tmp_path / "run.pt"
    with pytest.raises(runs.OutOfTime, match="1 of 4 epochs"):
        fit(checkpoint=checkpoint, deadline=time.monotonic())
    resumed, _ = fit(checkpoint=checkpoint)
    assert same(dict(resumed.state_dict()), dict(fit()[0].state_dict()))


def test_divergence_is_an_error_that_names_the_step_and_what_is_kept(tmp_path):
    class Diverging(Regression):
        calls = 0

        def loss(self, model, index, draws):
            loss, sums = super().loss(model, index, draws)
            self.calls += 1  # four steps an epoch
            return loss, sums * (float("nan") if self.calls >= 7 else 1)

    path = tmp_path / "run.pt"
    with pytest.raises(FloatingPointError, match=r"diverged: step 3 of epoch 2") as stopped:
        fit(Diverging(), checkpoint=path)
    assert f"{path} holds 1 of 4 epochs" in str(stopped.value)
    assert "learning rate" in str(stopped.value)
    with pytest.raises(FloatingPointError, match="no checkpoint file"):
        fit(Diverging())


class Scores(Regression):
    """Validation scores that a test chose: before training, then after each epoch."""

    def __init__(self, *values):
        super().__init__()
        self.values = list(values)

    def validate(self, model):
        return {"other": 0.0, "error": self.values.pop(0)}


@pytest.mark.parametrize("nothing", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_never_the_best(nothing, caplog):
    _, progress = fit(Scores(nothing, nothing, 3.0, nothing, 4.0))
    assert progress.best_epoch == 2
    assert same(progress.best_state, fit(epochs=2)[1].best_state)
    assert "epoch 1 cannot be the best" in caplog.text
    with pytest.raises(FloatingPointError, match="no epoch has a validation error"):
        fit(Scores(1.0, *[nothing] * 4))


def test_the_last_score_selects_unless_another_is_named():
    falling = [(5 - i, i) for i in range(5)]

    def selected(**options):
        objective = Regression()
        scores = iter(falling)
        objective.validate = lambda model: dict(zip(("a", "b"), next(scores), strict=True))
        return fit(objective, **options)[1].best_epoch

    assert selected(select=None) == selected(select="b") == 1
    assert selected(select="a") == selected(select="val_a") == 4
    with pytest.raises(ValueError, match="select='c': the validation scores are a, b"):
        selected(select="c")


@pytest.mark.parametrize("wrong", [{"epochs": -1}, {"batch_size": 0}, {"batch_size": None}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="need at least"):
        fit(**wrong)


class Noisy(nn.Module):
    """Draws from torch's global generator, as dropout does."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.line(self.drop(x))


def test_what_a_model_draws_comes_from_the_seed_too(tmp_path):
    def noisy(seed, **options):
        with training.seeded(0, "weights"):
            model = Noisy()
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        settings = {"epochs": 4, "batch_size": 16, "select": "error"} | options
        training.fit(model, Regression(), optimizer, seed=seed, **settings)
        return dict(model.state_dict())

    before = torch.get_rng_state()
    once, other = noisy(0), noisy(1)
    torch.rand(5)
    assert same(once, noisy(0))
    assert not same(once, other)
    path = tmp_path / "run.pt"
    noisy(0, epochs=2, checkpoint=path)
    torch.rand(5)
    assert same(once, noisy(0, checkpoint=path))
    assert not torch.equal(before, torch.get_rng_state())  # by the two draws here
    torch.set_rng_state(before)
    noisy(0, epochs=1)
    assert torch.equal(before, torch.get_rng_state())


def test_a_last_batch_of_one_that_batch_norm_cannot_take_is_refused_before_the_first_epoch():
    def train(batch_size, norm, calls):
        class Counted(Regression):
            def loss(self, model, index, draws):
                calls.append(len(index))
                return super().loss(model, index, draws)

        model = nn.Sequential(nn.Linear(1, 4), norm, nn.Linear(4, 1))
        before = {key: value.clone() for key, value in model.state_dict().items()}
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        try:
            training.fit(model, Counted(), optimizer, epochs=1, batch_size=batch_size, seed=0)
        except ValueError:
            assert same(before, dict(model.state_dict()))
            raise

    for batch_size in (7, 49, 1):
        calls = []
        with pytest.raises(ValueError, match=r"50 examples in batches of .* another batch_size"):
            train(batch_size, nn.BatchNorm1d(4), calls)
        assert calls == [1]
        train(batch_size, nn.LayerNorm(4), [])
    train(16, nn.BatchNorm1d(4), [])


def train_to_the_end(checkpoint, result, ready):
    """A training in a process of its own, which says when it begins."""
    torch.set_num_threads(1)
    settings = TrainVAE(dataset="digits", latent_dim=2, num_filters=4, epochs=6, seed=3)
    dataset = data.load("digits")
    ready.send("go")
    context = runs.Context(device="cpu", checkpoint=checkpoint)
    model, progress = settings.train(dataset, context, checkpoint_seconds=0)
    state = {"model": model.state_dict(), "best": progress.best_state, "history": progress.history}
    torch.save(state, result)


@pytest.mark.long
def test_killed_at_five_random_moments_and_resumed_to_the_same_bits(tmp_path):
    def start(name):
        here, there = FORKS.Pipe(duplex=False)
        paths = (tmp_path / f"{name}.pt", tmp_path / f"{name}.result")
        process = FORKS.Process(target=train_to_the_end, args=(*paths, there))
        process.start()
        there.close()
        assert here.recv() == "go"
        return process

    whole = start("whole")
    ready = time.monotonic()
    whole.join()
    assert whole.exitcode == 0
    # Early in it, also where the machine is less busy now than it was just before.
    moments = np.random.default_rng().uniform(0, (time.monotonic() - ready) / 8, size=5)
    killed = 0
    for moment in moments:
        process = start("killed")
        time.sleep(moment)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 3, "the run ended before most kills"
    process = start("killed")
    process.join()
    assert process.exitcode == 0
    reference, resumed = (
        torch.load(tmp_path / f"{name}.result", weights_only=True) for name in ("whole", "killed")
    )
    assert same(reference["model"], resumed["model"]), f"killed after {moments} s"
    assert same(reference["best"], resumed["best"])
    assert reference["history"] == resumed["history"]


def test_a_vae_sees_the_same_order_and_noise_in_every_epoch_of_a_seed():
    settings = TrainVAE(dataset="digits", epochs=1, seed=5)
    images = data.quantize(data.load("digits").x_train)
    objective = settings.objective(images[:64], images[64:96])
    a = objective.draw(data.generator(5, "noise", 1))
    b = objective.draw(data.generator(5, "noise", 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, objective.draw(data.generator(5, "noise", 2)))
    assert torch.equal(objective.val_noise, settings.objective(images, images[64:96]).val_noise)


def test_each_epoch_has_an_order_and_noise_of_its_own_and_trains_in_training_mode():
    class Watching(Regression):
        def __init__(self):
            super().__init__()
            self.seen = []

        def loss(self, model, index, draws):
            self.seen.append((model.training, index.clone(), draws.clone()))
            return super().loss(model, index, draws)

    objective = Watching()
    fit(objective, epochs=2, batch_size=50)
    (first, order, noise), (second, other_order, other_noise) = objective.seen[-2:]
    assert first is second is True
    assert sorted(order.tolist()) == sorted(other_order.tolist()) == list(range(50))
    assert not torch.equal(order, other_order)
    by_example, others = noise[order.argsort()], other_noise[other_order.argsort()]
    assert (by_example != others).all()


@pytest.mark.parametrize("batch_size", [7, 16])
def test_global_random_numbers_are_left_alone_also_if_one_example_is_left_over(batch_size):
    """50 examples in batches of seven leave one."""

    class Noisy(Regression):
        def loss(self, model, index, draws):
            loss, sums = super().loss(model, index, draws)
            return loss + 0 * torch.rand(()), sums

    before = torch.random.get_rng_state()
    fit(Noisy(), batch_size=batch_size)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_scores_that_are_never_numbers_are_named():
    class Nowhere(Regression):
        def validate(self, model):
            return super().validate(model) | {"other": float("nan")}

    with pytest.raises(FloatingPointError, match="no epoch has a validation other to compare"):
        fit(Nowhere(), select=None)
