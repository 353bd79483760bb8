"""Laws of accuracy under attack: how images are counted, curves, matrices, the checklist."""

import contextlib
import copy
import itertools
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hw3lib.data import generator
from hw3lib.robust import attacks, checklist, evaluate
from hw3lib.robust.attacks import FGSM, PGD, SignNoise, cross_entropy
from hw3lib.robust.checklist import (
    Averaged,
    catastrophic_overfitting,
    gradient_masking,
)
from hw3lib.robust.evaluate import (
    accuracy,
    correct,
    course_accuracy,
    eps_curve,
    restart_curve,
    step_curve,
    transfer_matrix,
    withstood,
)
from hw3lib.robust.modes import evaluating
from hw3lib.robust.resnet import EightBit, ResNet, StraightThrough

few = settings(max_examples=15, deadline=None)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0, size=8, classes=5):
    """A small convolutional network in double precision, on which batches cannot change a label."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * size**2, classes),
        )
        return nn.Sequential(*parts).double().eval()


def pictures(num=43, size=8, seed=1):
    return torch.rand(num, 3, size, size, generator=rng(seed), dtype=torch.float64)


@torch.no_grad()
def labels(model, x):
    """The model's own answers, but a wrong one for every fifth image."""
    answers = model(x).argmax(1)
    return answers.where(torch.arange(len(x)) % 5 > 0, (answers + 1) % 5)


MODEL, X = network(), pictures()
Y = labels(MODEL, X)
BEST = PGD(0.02, steps=4, keep="best")
RANDOM = PGD(0.02, steps=2, step=0.004, keep="best", random_start=True, restarts=3)
ATTACKS = [
    FGSM(0.015),
    PGD(0.015, steps=3),
    BEST,
    RANDOM,
    replace(RANDOM, keep="last", restarts=2),
    SignNoise(0.15),
    FGSM((0.005, 0.01, 0.03)),
]
each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=repr)


@pytest.fixture(autouse=True)
def global_random_state_is_left_alone():
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def equal(masks, others):
    return torch.equal(torch.as_tensor(masks), torch.as_tensor(others))


def never_rises(rows):
    return all((later <= earlier).all() for earlier, later in itertools.pairwise(rows))


# How images are counted


def test_right_is_where_the_largest_logit_is_that_of_the_label():
    assert equal(correct(MODEL, X, Y), torch.arange(len(X)) % 5 > 0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda logits: logits.where(logits < logits.max(), math.nan), "NaN or infinite logits"),
        (lambda logits: logits.softmax(1), "leave the softmax out"),
        (lambda logits: logits[:, :3], "labels span"),
        (lambda logits: logits.mean(0, keepdim=True), "logits of 1 images for 10"),
    ],
    ids=["nan", "probabilities", "classes", "mean over the batch"],
)
def test_logits_are_checked_on_every_image(spoil, message):
    def model(x):
        return spoil(MODEL(x))

    with pytest.raises(ValueError, match=message):
        correct(model, X, Y, batch_size=10)


def test_a_network_is_measured_in_evaluation_mode():
    torch_state = torch.get_rng_state()
    model = ResNet(width=4, blocks=1)
    torch.set_rng_state(torch_state)
    x, y = torch.rand(6, 3, 32, 32, generator=rng()), torch.arange(6)
    assert equal(correct(model.train(), x, y), correct(model.eval(), x, y))
    with torch.no_grad():
        assert equal(correct(model.train(), x, y), model.eval()(x).argmax(1) == y)


class Wrapped:
    """A classifier that is no module, and holds one."""

    def __init__(self, network):
        self.network = network

    def __call__(self, x):
        return self.network(x)

    def predict(self, x):
        return self.network(x)


WRAPPERS = {
    "argument of a partial": lambda network: partial(lambda net, x: net(x), network),
    "keyword of a partial": lambda network: partial(lambda x, net: net(x), net=network),
    "default": lambda network: lambda x, net=network: net(x),
    "default of a keyword": lambda network: lambda x, *, net=network: net(x),
    "object": Wrapped,
    "its method": lambda network: Wrapped(network).predict,
    "in a dictionary": lambda network: (lambda nets: lambda x: nets["one"](x))({"one": network}),
    "in a list": lambda network: (lambda nets: lambda x: nets[0](x))([network]),
    "object in an object": lambda network: Wrapped(Wrapped(network)),
    "function of a function": lambda network: (lambda f: lambda x: f(x))(lambda x: network(x)),
    "method of a wrapper's wrapper": lambda network: Wrapped(Wrapped(network)).predict,
    "deep in a closure": lambda network: (lambda held: lambda x: held["k"][0](x))(
        {"k": (Wrapped(network),)}
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_network_in_any_wrapper_is_measured_in_evaluation_mode_and_stays_as_it_was(wrapper):
    network = training_network()
    x, y = own_answers(network)
    before = owned(network)
    assert correct(WRAPPERS[wrapper](network), x, y).all()
    assert owned(network) == before


def test_a_part_that_is_used_longer_than_the_whole_stays_in_evaluation_mode_until_then():
    part = nn.Sequential(nn.Dropout())
    whole = nn.Sequential(part).train()
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(evaluating(whole))
    second.enter_context(evaluating(part))
    first.close()
    assert whole.training
    assert not part.training
    assert not part[0].training
    second.close()
    assert part.training
    assert part[0].training


def test_a_training_in_another_thread_goes_on_in_training_mode():
    network, other = training_network(), nn.BatchNorm2d(3)
    modes = []

    def model(x):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(other, x).result()
        modes.append(other.training)
        return network(x)

    correct(Wrapped(model), *own_answers(network))
    assert modes
    assert all(modes)


def test_an_attack_of_ones_own_meets_the_network_in_evaluation_mode():
    network = training_network()
    x, y = own_answers(network)
    before = owned(network)

    def looks_only(images, _labels):
        network(images)
        return images

    assert withstood(network, looks_only, x, y).all()
    assert owned(network) == before


@each_attack
def test_what_withstands_was_right_and_some_but_not_all_withstand(attack):
    mask = withstood(MODEL, attack, X, Y)
    assert mask.dtype == torch.bool
    assert (mask <= correct(MODEL, X, Y)).all()
    assert 0 < mask.sum() < correct(MODEL, X, Y).sum()


@each_attack
@pytest.mark.parametrize("batch_size", [6, 42])
def test_nothing_depends_on_the_batch_size_also_of_a_ragged_last_batch(attack, batch_size):
    rows = restart_curve(MODEL, attack, X, Y, seed=3)
    assert equal(rows, restart_curve(MODEL, attack, X, Y, seed=3, batch_size=batch_size))
    rows = eps_curve(MODEL, attack, X, Y, [0.0, 0.01, 0.1])
    assert equal(rows, eps_curve(MODEL, attack, X, Y, [0.0, 0.01, 0.1], batch_size=batch_size))


@few
@given(batch_size=st.integers(1, 60), seed=st.integers(0, 2**40), num=st.integers(1, 43))
def test_random_starts_are_the_same_in_any_batches(batch_size, seed, num):
    x, y = X[:num], Y[:num]
    together = withstood(MODEL, RANDOM, x, y, seed=seed)
    assert equal(together, withstood(MODEL, RANDOM, x, y, seed=seed, batch_size=batch_size))


@pytest.mark.parametrize("attack", [RANDOM, SignNoise(0.15)], ids=repr)
def test_the_seed_alone_decides_the_random_numbers(attack):
    masks = [withstood(MODEL, attack, X, Y, seed=seed) for seed in range(8)]
    assert equal(masks[0], withstood(MODEL, attack, X, Y, seed=0))
    assert any(not equal(masks[0], mask) for mask in masks)


@dataclass
class Spy:
    """Counts the images that an attack is asked for."""

    attack: object
    asked: int = 0

    @property
    def eps(self):
        return self.attack.eps

    def __call__(self, model, x, y, *, generator=None):
        self.asked += len(x)
        assert correct(model, x, y).all()
        return self.attack(model, x, y, generator=generator)

    perturb = __call__


@pytest.mark.parametrize("batch_size", [6, 500])
def test_images_that_are_wrong_before_are_not_attacked(batch_size):
    spy = Spy(FGSM(0.015))
    assert equal(
        withstood(MODEL, spy, X, Y, batch_size=batch_size), withstood(MODEL, spy.attack, X, Y)
    )
    assert spy.asked == correct(MODEL, X, Y).sum()


def test_where_nothing_is_right_nothing_is_attacked():
    wrong = (Y + 1).where(torch.arange(len(X)) % 5 > 0, Y)
    spy = Spy(FGSM(0.1))
    assert not withstood(MODEL, spy, X, wrong).any()
    assert not step_curve(MODEL, BEST, X, wrong).any()
    assert spy.asked == 0


@pytest.mark.parametrize("attack", [a for a in ATTACKS if getattr(a, "restarts", 1) == 1], ids=repr)
def test_leaving_fooled_images_alone_changes_no_result(attack):
    right = correct(MODEL, X, Y)
    source = generator(0, "attack")
    images = attack(MODEL, X[right], Y[right], generator=source)
    slow = torch.zeros_like(right)
    slow[right] = correct(MODEL, images, Y[right])
    assert equal(withstood(MODEL, attack, X, Y), slow)


def linear(classes, num=14, size=4):
    """A linear model with images that it classifies rightly, in float32."""
    weight = torch.randn(3 * size**2, classes, generator=rng(5)) / size
    x = torch.rand(num, 3, size, size, generator=rng(6))

    def model(x):
        return (x - 0.5).flatten(1) @ weight

    return model, x, model(x).argmax(1), weight


def exactly_robust(classes, eps):
    """Where each other class loses in the corner of the ball that is best for it."""
    _, x, y, weight = linear(classes)
    away = weight.T[None] - weight.T[y][:, None]  # (N, classes, pixels)
    corner = (x.flatten(1)[:, None] + eps * away.sign()).clamp(0, 1)
    gain = ((corner - 0.5) * away).sum(-1)
    return (gain < 0).sum(1) == classes - 1


def test_on_two_linear_classes_exactly_those_withstand_whose_worst_corner_is_right():
    model, x, y, _ = linear(2)
    for eps in (0.002, 0.01, 0.03):
        robust = exactly_robust(2, eps)
        assert equal(withstood(model, FGSM(eps), x, y), robust)
        assert equal(withstood(model, PGD(eps, keep="best"), x, y), robust)
    assert robust.any()
    assert not robust.all()


def test_the_interval_of_a_mask_is_that_of_its_share():
    mask = torch.arange(10) < 4
    interval = accuracy(mask)
    assert interval.value == 0.4
    assert interval.n == 10
    assert interval.low < 0.4 < interval.high
    with pytest.raises(ValueError, match="n"):
        accuracy(mask[:0])


def test_the_course_counts_its_own_part_of_the_test_images():
    mask = torch.arange(100) < 30
    interval = course_accuracy(mask, torch.arange(10, 50))
    assert interval.value == 0.5
    assert interval.n == 40


def measurements(attack=BEST):
    """Every function that attacks, by name, as a function of model, images and labels."""
    return {
        "withstood": lambda m, x, y: withstood(m, attack, x, y),
        "step_curve": lambda m, x, y: step_curve(m, attack, x, y),
        "eps_curve": lambda m, x, y: eps_curve(m, attack, x, y, [0.0, 0.02]),
        "transfer_matrix": lambda m, x, y: transfer_matrix({"a": m}, attack, x, y),
        "gradient_masking": lambda m, x, y: gradient_masking(m, attack, x, y),
    }


@pytest.mark.parametrize("name", measurements())
def test_targeted_attacks_are_refused(name):
    attack = replace(BEST, targeted=True)
    with pytest.raises(ValueError, match=r"is targeted.*pass an untargeted"):
        measurements(attack)[name](MODEL, X, Y)


@pytest.mark.parametrize("name", measurements())
@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X * 4 - 2, Y, ValueError, "looks normalised"),
        ((X * 255).int(), Y, TypeError, "torch.int32"),
        (X[:0], Y[:0], ValueError, "at least one image"),
        (X, Y[:-1], ValueError, "43 images, but labels of shape"),
        (X, Y + 5, ValueError, "but the model has 5 classes"),
    ],
    ids=["normalised", "integers", "empty", "too few labels", "too many classes"],
)
def test_wrong_images_and_labels_are_refused(name, x, y, error, message):
    with pytest.raises(error, match=message):
        measurements()[name](MODEL, x, y)


class Failing(nn.Module):
    """Answers so many times, then breaks."""

    def __init__(self, network, calls):
        super().__init__()
        self.network, self.calls = network, calls

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("planted")
        return self.network(x)


def training_network():
    """A network of which a part is in training mode, one parameter is frozen and one has a grad."""
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten()
        )
        model.append(nn.Linear(4 * 36, 5))
    model.to(memory_format=torch.channels_last).train()[3].eval()
    model[0].weight.requires_grad_(False)
    model[-1].bias.grad = torch.ones(5)
    return model


def own_answers(network):
    x = X[:6].float().to(memory_format=torch.channels_last)
    with torch.no_grad():
        return x, copy.deepcopy(network).eval()(x).argmax(1)


def owned(model, *tensors):
    """Everything that a measurement must leave as it was."""
    return copy.deepcopy(
        (
            [part.training for part in model.modules()],
            [(key, value.tolist()) for key, value in model.state_dict().items()],
            [
                (p.requires_grad, None if p.grad is None else p.grad.tolist())
                for p in model.parameters()
            ],
            [(tensor.tolist(), tensor.requires_grad) for tensor in tensors],
        )
    )


@pytest.mark.parametrize("name", measurements())
@pytest.mark.parametrize("calls", [3, 5, 10**9])
def test_what_the_caller_owns_is_unchanged_also_after_an_exception(name, calls):
    network = training_network()
    x, y = own_answers(network)
    model, before = Failing(network, calls), owned(network, x, y)
    if calls < 10:
        with pytest.raises(RuntimeError, match="planted"):
            measurements(RANDOM if name == "withstood" else BEST)[name](model, x, y)
    else:
        measurements()[name](model, x, y)
    assert owned(network, x, y) == before


# Curves


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("batch_size", [9, 500])
def test_a_row_of_the_step_curve_is_an_attack_with_so_many_steps(start, batch_size):
    attack = PGD(0.05, steps=6, step=0.003, keep="best", random_start=start)
    rows = step_curve(MODEL, attack, X, Y, seed=2, batch_size=batch_size)
    assert rows.shape == (7, len(X))
    assert never_rises(rows)
    for steps in range(1, 7):
        shorter = replace(attack, steps=steps)
        assert equal(rows[steps], withstood(MODEL, shorter, X, Y, seed=2))
    assert len(rows.sum(1).unique()) > 3
    assert (rows[0] <= correct(MODEL, X, Y)).all()
    if not start:
        assert equal(rows[0], correct(MODEL, X, Y))


def test_a_step_curve_of_restarts_is_refused():
    with pytest.raises(ValueError, match=r"restarts=3.*restart_curve"):
        step_curve(MODEL, RANDOM, X, Y)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_row_of_the_restart_curve_is_an_attack_with_so_many_restarts(keep):
    attack = PGD(0.02, steps=1, step=0.002, random_start=True, restarts=5, keep=keep)
    rows = restart_curve(MODEL, attack, X, Y, seed=4)
    assert never_rises(rows)
    assert equal(rows[0], correct(MODEL, X, Y))
    for restarts in range(1, 6):
        fewer = replace(attack, restarts=restarts)
        assert equal(rows[restarts], withstood(MODEL, fewer, X, Y, seed=4))
    assert rows[5].sum() < rows[1].sum()


def test_each_restart_begins_elsewhere():
    attack = PGD(0.2, steps=1, step=0.005, random_start=True, restarts=3, keep="best")
    alone = (restart_curve(MODEL, attack, X[i : i + 1], Y[i : i + 1]) for i in range(len(X)))
    assert any(rows[1] & ~rows[3] for rows in alone)


RADII = [0.0, 0.002, 0.005, 0.01, 0.02, 0.1]


@each_attack
def test_the_radius_curve_begins_at_the_clean_images_and_never_rises(attack):
    rows = eps_curve(MODEL, attack, X, Y, RADII, seed=1)
    assert rows.shape == (len(RADII), len(X))
    assert equal(rows[0], correct(MODEL, X, Y))
    assert never_rises(rows)
    assert rows[-1].sum() < rows[0].sum()
    assert equal(
        eps_curve(MODEL, attack, X, Y, [0.02], seed=1)[0],
        withstood(MODEL, replace(attack, eps=0.02), X, Y, seed=1),
    )
    separate = [withstood(MODEL, replace(attack, eps=eps), X, Y) for eps in RADII]
    if not isinstance(attack, SignNoise) and not getattr(attack, "random_start", False):
        assert equal(rows, torch.stack(separate).cummin(0).values)


def test_where_fgsm_is_exact_the_radius_curve_equals_separate_attacks():
    model, x, y, _ = linear(2)
    rows = eps_curve(model, FGSM(0.5), x, y, RADII)
    separate = [withstood(model, FGSM(eps), x, y) for eps in RADII]
    assert equal(rows, torch.stack(separate))
    assert len(rows.sum(1).unique()) > 2


def test_an_image_that_a_small_radius_fools_stays_fooled_where_a_large_step_overshoots():
    def wave(x):
        score = (10 * math.pi * (x.mean((1, 2, 3)) - 0.5)).cos()
        return torch.stack([score, torch.zeros_like(score)], 1)

    x, y = torch.full((2, 3, 4, 4), 0.51), torch.zeros(2, dtype=torch.int64)
    assert not withstood(wave, FGSM(0.1), x, y).any()
    assert withstood(wave, FGSM(0.2), x, y).all()
    assert not eps_curve(wave, FGSM(0.1), x, y, [0.1, 0.2]).any()


def test_a_step_follows_the_radius_unless_it_is_set():
    follows, stays = PGD(0.01, steps=2), PGD(0.01, steps=2, step=0.001)
    assert not eps_curve(MODEL, follows, X, Y, [0.5]).any()
    near = [0.002, 0.01, 0.5]  # two steps reach no farther than the first
    rows = eps_curve(MODEL, stays, X, Y, near)
    assert equal(rows[0], rows[-1])
    assert rows.any()


def test_radii_of_channels_may_ascend_each_and_zero_is_no_attack():
    radii = [(0.0, 0.0, 0.0), (0.01, 0.0, 0.0), (0.01, 0.02, 0.03), 0.1]
    rows = eps_curve(MODEL, FGSM(0.1), X, Y, radii)
    assert equal(rows[0], correct(MODEL, X, Y))
    assert never_rises(rows)
    assert equal(rows[1], withstood(MODEL, FGSM((0.01, 0.0, 0.0)), X, Y))


@pytest.mark.parametrize(
    ("radii", "message"),
    [
        ([], "^eps_values is empty; pass at least one radius"),
        ([0.1, 0.05], "from 0.1 to 0.05.*must ascend: .* is not attacked at later ones; sort them"),
        ([(0.1, 0.1, 0.1), (0.2, 0.05, 0.2)], "must ascend"),
        ([0.0, math.nan], "must ascend"),
        ([-0.1, 0.1], "cannot be negative"),
        ([8.0], "did you mean 8/255"),
    ],
)
def test_radii_that_make_no_curve_are_refused(radii, message):
    with pytest.raises(ValueError, match=message):
        eps_curve(MODEL, FGSM(0.1), X, Y, radii)


# Several models


def similar(model, amount=0.3):
    """A copy of the model with its weights disturbed."""
    other = copy.deepcopy(model)
    for index, parameter in enumerate(other.parameters()):
        noise = torch.randn(parameter.shape, generator=rng(index), dtype=torch.float64)
        parameter.data += amount * parameter.std() * noise
    return other


@each_attack
def test_transfer_to_itself_is_the_white_box_attack(attack):
    # In one batch, where restarts are drawn alike.
    matrix = transfer_matrix({"a": MODEL, "b": similar(MODEL)}, attack, X, Y, seed=7)
    right = correct(MODEL, X, Y)
    assert equal(matrix["a"]["a"].shown, right)
    if getattr(attack, "restarts", 1) == 1:
        left = withstood(MODEL, attack, X, Y, seed=7)
        assert equal(matrix["a"]["a"].fooled, right & ~left)
    assert matrix["a"]["a"].fooled.any()


def test_transfer_counts_images_that_both_models_classify_rightly():
    models = {"a": MODEL, "b": similar(MODEL), "c": similar(MODEL, 1.0)}
    matrix = transfer_matrix(models, BEST, X, Y, noise=SignNoise(0.02), batch_size=11)
    right = {name: correct(model, X, Y) for name, model in models.items()}
    assert list(matrix) == ["a", "b", "c", "noise"]
    for source, target in itertools.product(models, models):
        transfer = matrix[source][target]
        assert equal(transfer.shown, right[source] & right[target])
        assert (transfer.fooled <= transfer.shown).all()
        assert transfer.share.n == transfer.shown.sum()
        assert round(transfer.share.value * transfer.share.n) == transfer.fooled.sum()
        assert equal(matrix["noise"][target].shown, right[target])
    assert matrix["a"]["a"].share.value > matrix["a"]["b"].share.value
    assert matrix["a"]["b"].share.value > matrix["noise"]["b"].share.value


def test_what_transfers_is_what_the_images_of_the_source_do_to_the_target():
    other = similar(MODEL)
    both = correct(MODEL, X, Y) & correct(other, X, Y)
    images = BEST(MODEL, X[both], Y[both])
    matrix = transfer_matrix({"a": MODEL, "b": other}, BEST, X, Y, batch_size=4)
    assert equal(matrix["a"]["b"].fooled[both], ~correct(other, images, Y[both]))
    assert 0 < matrix["a"]["b"].fooled.sum() < both.sum()


@pytest.mark.parametrize("attack", [BEST, replace(RANDOM, restarts=1)], ids=repr)
def test_transfer_does_not_depend_on_the_batch_size(attack):
    models = {"a": MODEL, "b": similar(MODEL)}
    large, small = (
        transfer_matrix(models, attack, X, Y, noise=SignNoise(0.2), batch_size=size)
        for size in (500, 8)
    )
    for source, target in itertools.product(large, models):
        assert equal(large[source][target].fooled, small[source][target].fooled)
        assert large[source][target].fooled.any()


def test_a_model_named_as_the_noise_is_refused():
    with pytest.raises(ValueError, match="rename the model"):
        transfer_matrix({"noise": MODEL}, BEST, X, Y, noise=SignNoise(0.1))


def test_a_share_of_no_image_is_refused():
    wrong = (MODEL(X).argmax(1) + 1) % 5
    with pytest.raises(ValueError, match="n"):
        _ = transfer_matrix({"a": MODEL}, BEST, X, wrong)["a"]["a"].share


# The checklist

HONEST = {
    "steps", "restarts", "large_eps", "one_step", "noise", "zero_gradients", "direction",
    "deterministic", "transfer",
}  # fmt: skip


def failures(model, attack=None, surrogate=MODEL):
    findings = gradient_masking(
        model, attack or PGD(0.01), X, MODEL(X).argmax(1), surrogate=surrogate
    )
    assert set(findings) == HONEST
    return {name for name, finding in findings.items() if not finding.passed}


@pytest.mark.parametrize(
    "attack",
    [PGD(0.003), PGD(0.01, step=0.002, keep="best"), PGD(0.01, random_start=True)],
    ids=repr,
)
def test_an_honest_network_passes_the_checklist(attack):
    assert failures(MODEL, attack, surrogate=similar(MODEL)) == set()


def test_without_a_surrogate_there_is_no_finding_on_transfer():
    assert set(gradient_masking(MODEL, BEST, X, Y)) == HONEST - {"transfer"}


@pytest.mark.parametrize(
    ("masked", "flags"),
    [
        (lambda x: MODEL((x * 32).round() / 32), {"zero_gradients", "direction", "transfer"}),
        (lambda x: MODEL(x + 1e-3 * (x * 1e5).sin()), {"direction", "transfer"}),
        (lambda x: MODEL(x) + torch.randn(len(x), 5).to(x), {"deterministic"}),
    ],
    ids=["rounded pixels", "a ripple on the pixels", "answers at random"],
)
def test_masked_gradients_are_flagged(masked, flags):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert failures(masked) >= flags


def test_a_loss_that_underflows_is_flagged_and_ours_is_followed_where_it_would():
    def hot(x):
        return MODEL(x) * 1e9

    assert failures(hot, PGD(0.01, loss=cross_entropy)) >= {"zero_gradients", "direction"}
    assert failures(hot) <= {"transfer"}  # both are fooled, and either may be by some images more
    assert equal(withstood(hot, PGD(0.01, keep="best"), X, Y), robust_by_margin(hot))


def robust_by_margin(model):
    return withstood(model, PGD(0.01, keep="best", loss="margin"), X, Y)


def test_the_checklist_takes_l2_attacks():
    assert failures(MODEL, PGD(0.2, norm="l2"), surrogate=similar(MODEL)) == set()


@dataclass(frozen=True)
class Faulty(PGD):
    """An attack that gives up where it should be at its strongest."""

    fault: str = ""

    def perturb(self, model, x, y, *, generator=None):
        gives_up = {
            "": False,
            "steps": self.steps > 10,
            "one_step": self.eps == 0.02,
            "large_eps": self.eps == checklist.LARGE_EPS,
        }[self.fault]
        return x if gives_up else super().perturb(model, x, y, generator=generator)

    def steps_to_fool(self, model, x, y, *, generator=None):
        adversarial = self.perturb(model, x, y, generator=generator)
        return correct(model, adversarial, y) * (self.steps + 1)


@pytest.mark.parametrize("fault", ["", "steps", "one_step", "large_eps"])
def test_an_attack_that_is_weakest_where_it_should_be_strongest_is_flagged(fault):
    failed = failures(MODEL, Faulty(0.02, fault=fault))
    assert failed >= ({fault} if fault else set())
    assert fault or not failed


def test_restarts_that_help_the_defender_are_flagged(monkeypatch):
    measure = checklist.withstood

    def last_restart_gives_up(model, attack, x, y, **options):
        if getattr(attack, "restarts", 1) > 1:
            return correct(model, x, y)
        return measure(model, attack, x, y, **options)

    monkeypatch.setattr(checklist, "withstood", last_restart_gives_up)
    assert failures(MODEL) == {"restarts"}


def test_noise_that_fools_more_than_gradients_is_flagged():
    assert "noise" in failures(lambda x: MODEL((x * 32).round() / 32), PGD(0.4))


def test_findings_show_the_numbers_behind_them():
    y = MODEL(X).argmax(1)
    findings = gradient_masking(MODEL, BEST, X, y, seed=3)
    numbers = findings["noise"].numbers
    weaker, stronger = withstood(MODEL, SignNoise(0.02), X, y, seed=3), withstood(MODEL, BEST, X, y)
    assert numbers["accuracy_weaker"] == accuracy(weaker).value
    assert numbers["accuracy_stronger"] == accuracy(stronger).value
    gap = numbers["fooled_by_stronger_only"] - numbers["fooled_by_weaker_only"]
    assert gap == weaker.sum() - stronger.sum() > 0
    assert findings["zero_gradients"].numbers == {"share": 0, "images": len(X)}
    assert findings["large_eps"].numbers == {"accuracy": 0}


def test_only_images_that_are_right_need_a_gradient():
    findings = gradient_masking(lambda x: MODEL((x * 32).round() / 32), BEST, X, Y)
    right = int(correct(MODEL, (X * 32).round() / 32, Y).sum())
    assert findings["zero_gradients"].numbers == {"share": 1, "images": right}
    assert right < len(X)


def test_a_model_that_is_never_right_has_no_checklist():
    wrong = (MODEL(X).argmax(1) + 1) % 5
    with pytest.raises(ValueError, match="none of these images rightly"):
        gradient_masking(MODEL, BEST, X, wrong)


@pytest.mark.parametrize(
    ("fgsm", "pgd", "overfitted"),
    [
        (0.85, 0.0, True),
        (0.6, 0.05, True),
        (0.6, 0.07, False),  # some robustness is left
        (0.23, 0.003, False),  # an undefended network: not even FGSM is withstood
        (0.0, 0.0, False),
    ],
)
def test_catastrophic_overfitting_is_much_under_fgsm_and_almost_none_under_pgd(
    fgsm, pgd, overfitted
):
    assert catastrophic_overfitting(fgsm, pgd) is overfitted


@pytest.mark.parametrize("values", [(60.0, 0.5), (0.5, -0.1), (math.nan, 0.5)])
def test_accuracies_in_per_cent_are_refused(values):
    with pytest.raises(ValueError, match="divide per cent by 100"):
        catastrophic_overfitting(*values)


# A fast look: attacks follow the gradient of an approximation


@pytest.fixture
def seen(monkeypatch):
    """Lets attacks with `look="fast"` look at another model than the one they are called with."""
    return lambda other: monkeypatch.setattr(attacks, "Approximation", lambda _model: other)


def test_attacks_look_at_the_approximation_and_the_model_judges(seen):
    other = network(seed=5)
    seen(other)
    for attack in (FGSM(0.05), PGD(0.05, steps=4)):
        judged = correct(MODEL, attack(other, X, Y), Y) & correct(MODEL, X, Y)
        assert torch.equal(withstood(MODEL, replace(attack, look="fast"), X, Y), judged)
        assert not torch.equal(judged, withstood(MODEL, attack, X, Y))


@pytest.mark.parametrize("attack", [BEST, RANDOM], ids=repr)
def test_what_fools_the_approximation_alone_does_not_count(attack, seen):
    """What its gradients find is kept only where the model is fooled."""
    seen(network(seed=6))
    fast = replace(attack, look="fast")
    right = withstood(MODEL, fast, X, Y)
    assert (right <= correct(MODEL, X, Y)).all()
    # An attack that was made for another model fools fewer.
    assert right.sum() > withstood(MODEL, attack, X, Y).sum()
    once = replace(fast, restarts=1)
    assert torch.equal(step_curve(MODEL, once, X, Y)[-1], withstood(MODEL, once, X, Y))


def test_the_exact_approximation_changes_nothing(seen):
    seen(copy.deepcopy(MODEL))
    for attack in (one for one in ATTACKS if hasattr(one, "look")):
        fast = replace(attack, look="fast")
        assert torch.equal(withstood(MODEL, fast, X, Y), withstood(MODEL, attack, X, Y))


# What else may be given


@pytest.mark.parametrize("attack", [FGSM(0.015), BEST, RANDOM], ids=repr)
@pytest.mark.parametrize("batch_size", [5, 43])
def test_batches_that_are_loaded_give_what_tensors_give(attack, batch_size):
    loader = DataLoader(TensorDataset(X, Y), batch_size)
    assert equal(correct(MODEL, loader), correct(MODEL, X, Y))
    assert equal(withstood(MODEL, attack, loader, seed=3), withstood(MODEL, attack, X, Y, seed=3))


@dataclass
class Shift:
    """Moves every pixel by `size`, and says that it stays within `eps`."""

    size: float
    eps: float
    norm: str

    def __call__(self, model, x, y, *, generator=None):
        return x + self.size


@pytest.mark.parametrize(("norm", "change"), [("linf", 0.05), ("l2", 0.05 * 192**0.5)])
def test_a_ball_is_that_of_the_attacks_norm(norm, change):
    inside, right = X * 0.9, MODEL(X * 0.9).argmax(1)
    withstood(MODEL, Shift(0.05, 1.001 * change, norm), inside, right)
    with pytest.raises(ValueError, match=rf"^Shift.* changed an image by {change:.4g}, but"):
        withstood(MODEL, Shift(0.05, 0.99 * change, norm), inside, right)


def test_a_function_takes_batches_where_they_are():
    batches = zip(X.split(5), Y.split(5), strict=True)
    assert equal(correct(lambda x: MODEL(x), batches), correct(MODEL, X, Y))


def test_batches_move_to_the_model():
    """A device without memory stands for a second one."""
    model = copy.deepcopy(MODEL).to("meta")
    ((x, y),) = evaluate._loaded(model, [(X, Y)], None)
    assert x.device == y.device == torch.device("meta")


@pytest.mark.parametrize("batch", [(X, Y, Y), {"image": X, "label": Y}, X, (X, 3)], ids=type)
def test_a_batch_that_is_no_pair_is_told(batch):
    with pytest.raises(TypeError, match="a batch has to be a pair of tensors"):
        correct(MODEL, [batch])


@pytest.mark.parametrize("batches", [[], iter([])], ids=["empty", "used up"])
def test_no_batches_are_told(batches):
    with pytest.raises(ValueError, match="there are no batches"):
        correct(MODEL, batches)
    with pytest.raises(ValueError, match="there are no batches"):
        withstood(MODEL, BEST, batches)


def test_images_without_labels_and_images_that_are_no_tensor_are_told():
    with pytest.raises(TypeError, match="images came without labels"):
        withstood(MODEL, BEST, X)
    with pytest.raises(TypeError, match=r"a ndarray; .* tensor \(torch\.as_tensor\), and batches"):
        withstood(MODEL, BEST, X.numpy(), Y)
    with pytest.raises(TypeError, match="labels are a list"):
        withstood(MODEL, BEST, X, Y.tolist())


@dataclass(frozen=True)
class Leaves:
    """An attack of the user's own that goes twice as far as it says."""

    eps: float = 0.01

    def __call__(self, model, x, y, *, generator=None):
        return FGSM(2 * self.eps)(model, x, y)


def test_an_attack_that_leaves_its_ball_does_not_count():
    with pytest.raises(ValueError, match=r"changed an image by 0.02, but its radius is 0.01"):
        withstood(MODEL, Leaves(), X, Y)


def test_an_attack_of_another_library_holds_its_model():
    peer = pytest.importorskip("torchattacks").PGD(MODEL, 0.015, 0.004, 10, random_start=False)
    ours = PGD(0.015, step=0.004)
    assert equal(withstood(MODEL, peer, X, Y), withstood(MODEL, ours, X, Y))
    with torch.inference_mode():
        assert equal(withstood(MODEL, peer, X + 0, Y), withstood(MODEL, ours, X, Y))
    with pytest.raises(ValueError, match="holds its model, so its images are made on that one"):
        transfer_matrix({"a": MODEL, "b": MODEL}, peer, X, Y)


def test_a_model_that_works_in_place_leaves_the_images():
    def in_place(x):
        return MODEL(x.sub_(0.1))

    before = X.clone()
    assert equal(withstood(in_place, BEST, X, Y), withstood(lambda x: MODEL(x - 0.1), BEST, X, Y))
    assert torch.equal(X, before)


def test_images_with_a_graph_or_from_inference_mode_are_attacked_like_any():
    wanted, x = withstood(MODEL, BEST, X, Y), X.clone().requires_grad_()
    assert equal(withstood(MODEL, BEST, x, Y), wanted)
    assert not FGSM(0.01)(MODEL, x, Y).requires_grad
    with torch.inference_mode():
        assert equal(withstood(MODEL, BEST, X + 0, Y), wanted)


class Switching(nn.Module):
    """Has a switch of its own beside the mode."""

    def __init__(self):
        super().__init__()
        self.noisy = True

    def train(self, mode=True):
        self.noisy = mode
        return super().train(mode)

    def forward(self, x):
        return MODEL(x) * (float("nan") if self.noisy else 1)


def test_a_switch_of_the_models_own_is_turned_and_put_back():
    model = Switching()
    assert equal(withstood(model, BEST, X, Y), withstood(MODEL, BEST, X, Y))
    assert model.noisy
    assert model.training


@pytest.mark.parametrize("wrap", [
    lambda network: lambda x: network(x),
    lambda network: partial(lambda x, scale: network(x) * scale, scale=1.0),
    lambda network: network.forward,
    lambda network: (lambda models: lambda x: models[0](x))([network]),
])  # fmt: skip
def test_a_module_inside_a_function_is_measured_in_evaluation_mode_and_learns_nothing(wrap):
    network = training_network()
    x, y = own_answers(network)
    before = owned(network, x, y)
    assert equal(withstood(wrap(network), FGSM(0.01), x, y), withstood(network, FGSM(0.01), x, y))
    assert owned(network, x, y) == before


def test_threads_that_share_a_network_leave_it_as_it_was():
    network = training_network()
    x, y = own_answers(network)
    wanted, before = withstood(network, BEST, x, y), owned(network, x, y)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: withstood(network, BEST, x, y), range(12)))
    assert all(equal(mask, wanted) for mask in found)
    assert owned(network, x, y) == before


def test_what_a_model_raises_says_what_it_was_given():
    with pytest.raises(RuntimeError) as caught:
        FGSM(0.1)(MODEL, X[:2].movedim(1, -1), Y[:2])
    assert "given pixels of shape (2, 8, 8, 3) (channels last" in caught.value.__notes__[0]


def test_an_image_that_a_smaller_radius_fools_is_not_attacked_at_any_larger_one():
    x = torch.linspace(0.45, 0.55, 10).view(10, 1, 1, 1)
    y = (x.flatten() > 0.5).long()
    looked = []

    def model(x):
        looked.append(len(x))
        return torch.cat([0.5 - x.mean((1, 2)), x.mean((1, 2)) - 0.5], dim=1)

    def looks(radii):
        looked.clear()
        rows = evaluate.eps_curve(model, FGSM(0.1), x, y, radii)
        return sum(looked), rows[-1].sum()

    assert looks([1e-6, 0.2]) == looks([1e-6, 0.2, 0.3])
    assert looks([1e-6, 0.2])[1] == 0


# What is refused


def measured(attack):
    """All that attack, with their arguments bound."""
    return {
        "withstood": partial(withstood, MODEL, attack, X, Y),
        "restarts": partial(restart_curve, MODEL, attack, X, Y),
        "radii": partial(eps_curve, MODEL, attack, X, Y, [0.01]),
        "transfer": partial(transfer_matrix, {"one": MODEL}, attack, X, Y),
    }


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("way", measured(BEST))
def test_an_attack_that_is_cut_outside_of_its_ball_is_refused_everywhere(way, keep):
    attack = PGD(0.02, steps=2, keep=keep, cut="normalized")
    with pytest.raises(ValueError, match="what leaves the ball proves nothing"):
        measured(attack)[way]()
    with pytest.raises(ValueError, match="what leaves the ball proves nothing"):
        step_curve(MODEL, attack, X, Y)


@dataclass(frozen=True)
class ByChannel:
    """Moves each channel by its own amount, whatever its radius is."""

    eps: tuple[float, ...]
    moves: tuple[float, ...]

    def __call__(self, _model, x, _y, *, generator=None):
        moved = torch.tensor(self.moves, dtype=x.dtype).view(-1, 1, 1)
        return (x + torch.where(x < 0.5, moved, -moved)).clamp(0, 1)


def test_each_channel_has_its_own_radius_also_in_an_attack_of_ones_own():
    inside = ByChannel((0.03, 0.01, 0.01), (0.03, 0.01, 0.01))
    assert withstood(MODEL, inside, X, Y).any()
    with pytest.raises(ValueError, match=r"changed an image by 0\.03, but its radius is 0\.01"):
        withstood(MODEL, replace(inside, moves=(0.01, 0.03, 0.01)), X, Y)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.3), ("l2", 4.0)])
def test_starts_do_not_depend_on_the_batch_in_either_norm(norm, eps):
    attack = PGD(eps, steps=1, step=1e-9, norm=norm, random_start=True, keep="best")
    masks = [withstood(MODEL, attack, X, Y, batch_size=size) for size in (7, 10, 43)]
    assert 0 < masks[0].sum() < correct(MODEL, X, Y).sum()
    assert equal(masks[0], masks[1])
    assert equal(masks[0], masks[2])


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: accuracy(torch.zeros(3, 5, dtype=torch.bool)), ValueError, "take one row"),
        (lambda: accuracy(torch.tensor([0.9, 0.9])), ValueError, "need [(]N,[)] of true and false"),
        (lambda: step_curve(MODEL, FGSM(0.1), X, Y), TypeError, "a curve over steps is of PGD"),
        (lambda: gradient_masking(MODEL, FGSM(0.1), X, Y), TypeError, "needs a PGD"),
        (lambda: transfer_matrix({}, BEST, X, Y, noise=SignNoise(0.1)), ValueError, "no models"),
        (lambda: PGD(0.1, norm="l2", step=(0.1, 0.1)), ValueError, "in L2 it is one length"),
        (
            lambda: FGSM(0.1, cut="normalized")(
                lambda z: MODEL(z.expand(-1, 3, 8, 8)), X[:, :1], Y
            ),
            ValueError,
            "radius and range are of 3 channels",
        ),
    ],
)
def test_what_would_mean_something_else_is_told(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()


def test_radii_and_counts_of_numpy_are_as_good():
    radii = eps_curve(MODEL, BEST, X, Y, np.array([0.0, 0.01]))
    assert equal(radii, eps_curve(MODEL, BEST, X, Y, [0.0, 0.01]))
    assert PGD(0.1, steps=np.int64(3)) == PGD(0.1, steps=3)
    assert type(PGD(0.1, steps=np.int64(3)).steps) is int


def test_labels_from_inference_mode_are_as_good():
    with torch.inference_mode():
        y = Y + 0
    assert equal(FGSM(0.02)(MODEL, X, y), FGSM(0.02)(MODEL, X, Y))
    assert equal(withstood(MODEL, BEST, X, y), withstood(MODEL, BEST, X, Y))


# What comes from outside: loaders, 8-bit images, attacks of others, models that are none


def loaders(sampler):
    data = TensorDataset(X, Y)
    return {
        "shuffle": lambda: DataLoader(data, 8, shuffle=True),
        "sampler": lambda: DataLoader(data, 8, sampler=sampler.SubsetRandomSampler(range(9))),
        "weights": lambda: DataLoader(data, 8, sampler=sampler.WeightedRandomSampler([1.0], 9)),
        "batches": lambda: DataLoader(
            data, batch_sampler=sampler.BatchSampler(sampler.RandomSampler(data), 8, False)
        ),
    }


@pytest.mark.parametrize("kind", loaders(torch.utils.data))
def test_a_loader_that_shuffles_is_refused(kind):
    loader = loaders(torch.utils.data)[kind]()
    for call in (lambda: correct(MODEL, loader), lambda: withstood(MODEL, BEST, loader)):
        with pytest.raises(ValueError, match=r"the loader shuffles.*make it with shuffle=False"):
            call()


def test_curves_matrices_and_the_checklist_take_loaders_too():
    loader = DataLoader(TensorDataset(X, Y), 9)
    for name, measure in measurements().items():
        if name == "withstood":
            continue
        assert str(measure(MODEL, loader, None)) == str(measure(MODEL, X, Y))
    assert equal(restart_curve(MODEL, RANDOM, loader), restart_curve(MODEL, RANDOM, X, Y))
    few_images = gradient_masking(MODEL, BEST, loader, num_images=20)
    assert few_images == gradient_masking(MODEL, BEST, X[:20], Y[:20])
    assert few_images == gradient_masking(MODEL, BEST, X, Y, num_images=20)
    with pytest.raises(ValueError, match="num_images=0"):
        gradient_masking(MODEL, BEST, loader, num_images=0)


@pytest.mark.parametrize("name", measurements())
def test_images_of_8_bits_are_as_good(name):
    raw, model = (X * 255).round().to(torch.uint8), network().float()
    pixels = raw / torch.tensor(255.0)
    measure = measurements()[name]
    assert str(measure(model, raw, Y)) == str(measure(model, pixels, Y))
    assert correct(model, [(raw, Y)]).any()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            {"image": X, "label": Y},
            r"keys image, label; pass \[\(batch\['image'\], batch\['label'\]\) for batch in loader",
        ),
        ((X, Y, Y), r"Tensor, Tensor, Tensor\); pass \[batch\[:2\] for batch in loader\]"),
        ((X[0], Y[0]), r"Tensor, Tensor\); pass a DataLoader of them"),
    ],
    ids=["dict", "three", "one image"],
)
def test_a_batch_of_another_form_says_how_to_make_it_a_pair(batch, message):
    with pytest.raises(TypeError, match=message):
        withstood(MODEL, BEST, [batch])


def test_images_and_labels_in_one_tuple_are_told():
    with pytest.raises(TypeError, match="pass x, y as two arguments"):
        withstood(MODEL, BEST, (X, Y))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda z: (z, z), r"model\(x\)\[0\]$"),
        (lambda z: {"logits": z}, r"model\(x\)\['logits'\]$"),
        (lambda z: {"scores": z}, r"model\(x\)\['scores'\]$"),
        (lambda z: {}, r"model\(x\)\['logits'\]$"),
        (lambda z: z.numpy(), r"torch\.as_tensor\(model\(x\)\)$"),
        (lambda z: type("Output", (), {"logits": z})(), r"model\(x\)\.logits$"),
    ],
)
def test_logits_in_something_are_told_where(answer, hint):
    with pytest.raises(TypeError, match=hint):
        correct(lambda x: answer(MODEL(x)), X, Y)


@pytest.mark.parametrize(
    ("model", "name"), [([MODEL], "list"), ("resnet18", "str"), ({}, "dict"), (nn.Linear, "Linear")]
)
def test_what_is_no_model_is_told(model, name):
    for call in (correct, partial(withstood, attack=BEST)):
        with pytest.raises(TypeError, match=rf"called with pixels and .* this is a {name}$"):
            call(model, x=X, y=Y)


def test_a_model_of_another_precision_or_layout_says_what_it_was_given():
    cases = [
        (network().float(), X, "x.float"),
        (MODEL, X.float(), "x.double"),
        (network().half(), X.float(), "model.float"),
        (MODEL, X[:, 0], r"no channels; .* x\[:, None\]"),
        (MODEL, X.movedim(1, -1), r"channels last; .* x.movedim\(-1, 1\)"),
    ]
    for model, x, way in cases:
        for call in (correct, partial(withstood, attack=BEST), BEST):
            with pytest.raises(RuntimeError) as caught:
                call(model, x=x, y=Y)
            assert re.search(way, caught.value.__notes__[0])
    assert "are torch.float32, the model's weights torch.float16" in str(
        noted(lambda: correct(network().half(), X.float(), Y))
    )


def noted(call):
    with pytest.raises(RuntimeError) as caught:
        call()
    return caught.value.__notes__


def test_outputs_of_a_sigmoid_are_warned_about():
    with pytest.warns(UserWarning, match="if they come from a sigmoid"):
        correct(lambda x: MODEL(x).sigmoid(), X, Y)
    with pytest.warns(UserWarning, match="if they come from a sigmoid"):
        FGSM(0.1)(lambda x: MODEL(x).sigmoid(), X, Y)
    assert correct(lambda x: MODEL(x).sigmoid(), X[:3], Y[:3]).shape == (3,)  # so few, by chance
    correct(lambda x: MODEL(x).sigmoid() + 0.5, X, Y)


def test_images_with_a_graph_warn_of_nothing():
    x = X.clone().requires_grad_()
    assert equal(withstood(MODEL, FGSM(0.015), x, Y), withstood(MODEL, FGSM(0.015), X, Y))
    assert equal(withstood(MODEL, lambda x, y: x, x, Y), correct(MODEL, X, Y))


def smallest(x, y):
    """Changes each image just enough: a minimum-norm attack, by bisection of FGSM's radius."""
    for eps in (0.002, 0.005, 0.01, 0.02, 0.1):
        made = FGSM(eps)(MODEL, x, y)
        x = torch.where(correct(MODEL, x, y)[:, None, None, None], made, x)
    return x


def test_an_attack_without_a_radius_counts_within_the_ball_that_is_asked_for():
    assert not withstood(MODEL, smallest, X, Y).any()
    last = correct(MODEL, X, Y)
    for eps in (0.001, 0.006, 0.03, 0.2):
        left = withstood(MODEL, smallest, X, Y, within=(eps, "Linf"))
        made = smallest(X, Y)
        stays = (made - X).abs().flatten(1).amax(1) <= eps + 1e-6
        assert equal(left, correct(MODEL, X, Y) & ~(stays & ~correct(MODEL, made, Y)))
        assert (left <= last).all()
        last = left
    assert not last.any()
    by_channel = withstood(MODEL, smallest, X, Y, within=((0.2, 0.2, 0.0), "linf"))
    assert equal(by_channel, correct(MODEL, X, Y))
    assert 0 < withstood(MODEL, smallest, X, Y, within=(0.1, "l2")).sum() < len(X)


@pytest.mark.parametrize(
    ("attack", "within", "error", "message"),
    [
        (BEST, (0.1, "linf"), ValueError, "has a ball of its own"),
        (smallest, 0.1, TypeError, "give a radius and a norm"),
        (smallest, (0.1, "l1"), ValueError, "norm='l1'"),
        (smallest, (8, "linf"), ValueError, "did you mean 8/255"),
    ],
)
def test_a_wrong_ball_is_told(attack, within, error, message):
    with pytest.raises(error, match=message):
        withstood(MODEL, attack, X, Y, within=within)


SIGNATURES = (
    r"called as attack\(x, y\), .* called as attack\(model, x, y, generator=\.\.\.\).*\[1\] picks"
)


@pytest.mark.parametrize(
    ("attack", "seen"),
    [
        (PGD, "is a type"),
        ([BEST], "is a list"),
        (0.1, "is a float"),
        (lambda model, x, y: x, "takes model, x, y;"),
        (lambda model, x, y, generator=None: x, "has no eps;"),
        (lambda x, y: (x, x), "returned a tuple for images"),
        (lambda x, y: None, "returned a NoneType"),
        (lambda x, y: x[:1, :1], r"returned \(1, 1, 8, 8\) for images \("),
        (lambda x, criterion, *, epsilons: x, "takes x, criterion, epsilons;"),
    ],
)
def test_what_is_no_attack_is_told(attack, seen):
    for call in (withstood, restart_curve):
        with pytest.raises(TypeError, match=rf"{seen}.*{SIGNATURES}"):
            call(MODEL, attack, X, Y)


def test_an_attack_that_leaves_the_range_of_pixels_is_told():
    with pytest.raises(ValueError, match=r"made images that span \[5.*; pixels are in \[0, 1\]"):
        withstood(MODEL, lambda x, y: x + 5, X, Y)
    with pytest.raises(ValueError, match=r"made images that span \[nan"):
        withstood(MODEL, lambda x, y: x * math.nan, X, Y)


def test_an_attack_of_others_may_follow_gradients_where_they_are_switched_off():
    def follows(x, y):
        return FGSM(0.015).perturb(MODEL, x, y) + 0 * nn.Parameter(torch.zeros(())).exp().log()

    with torch.no_grad():
        found = withstood(MODEL, lambda x, y: follows(x, y) if torch.is_grad_enabled() else x, X, Y)
    assert equal(found, withstood(MODEL, FGSM(0.015), X, Y))


def test_a_report_has_each_attack_and_the_worst_case():
    loader = DataLoader(TensorDataset(X, Y), 20)
    attacks_ = {"noise": SignNoise(0.15), "PGD": BEST, "smallest": smallest}
    shares = evaluate.report(MODEL, attacks_, loader, within=(0.01, "linf"), seed=3)
    assert list(shares) == ["clean", "noise", "PGD", "smallest", "worst case"]
    masks = [
        withstood(MODEL, SignNoise(0.15), X, Y, seed=3),
        withstood(MODEL, BEST, X, Y),
        withstood(MODEL, smallest, X, Y, within=(0.01, "linf")),
    ]
    assert shares["clean"] == accuracy(correct(MODEL, X, Y))
    assert [shares[name] for name in attacks_] == [accuracy(mask) for mask in masks]
    assert shares["worst case"] == accuracy(masks[0] & masks[1] & masks[2])
    assert shares["worst case"].value <= min(shares[name].value for name in attacks_)
    with pytest.raises(ValueError, match="named 'clean', as is a row of the report"):
        evaluate.report(MODEL, {"clean": BEST}, X, Y)


# Ways around masked gradients


CUTS = {
    "a threshold": lambda x: (x > 0.5).to(x),
    "detach": lambda x: x.detach(),
    "NumPy": lambda x: torch.from_numpy(x.detach().numpy().copy()),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("frozen", [True, False])
def test_a_model_that_cuts_its_gradient_fails_the_checklist_and_stops_attacks(cut, frozen):
    net = network(1).requires_grad_(not frozen)

    def model(x):
        return net(CUTS[cut](x))

    y = model(X).argmax(1)
    findings = gradient_masking(model, PGD(0.05), X, y)
    assert findings["zero_gradients"].numbers == {"share": 1, "images": len(X)}
    assert {"zero_gradients", "direction", "large_eps"} <= {
        name for name, finding in findings.items() if not finding.passed
    }
    for attack in (FGSM(0.05), PGD(0.05), BEST):
        with pytest.raises(ValueError, match="carry no gradient of the pixels"):
            withstood(model, attack, X, y)


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_gradient_is_passed_straight_through(cut):
    model = nn.Sequential(StraightThrough(CUTS[cut]), MODEL)
    assert torch.equal(model(X), MODEL(CUTS[cut](X)))
    y = model(X).argmax(1)
    noise = withstood(model, SignNoise(0.1), X, y).sum()
    found = withstood(model, PGD(0.1, step=0.05, keep="best"), X, y).sum()
    assert found < noise / 2


def test_eight_bits_are_a_case_of_it():
    x = X.clone().requires_grad_()
    found = StraightThrough(lambda x: (x * 255).round() / 255)(x)
    torch.testing.assert_close(found, EightBit()(x))
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert (gradient == 1).all()


def test_the_mean_of_random_answers_is_followed_where_one_misleads():
    """A ripple that is drawn anew hides the slope of one answer, and averages out."""

    def ripple(x):
        return MODEL(x + 0.005 * (1000 * x + 6.28 * torch.rand(len(x), 1, 1, 1).to(x)).sin())

    y, attack = MODEL(X).argmax(1), FGSM(0.02)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        right = correct(ripple, X, y).sum()
        single, averaged = (
            correct(ripple, attack(seen, X, y), y).sum() for seen in (ripple, Averaged(ripple, 40))
        )
    assert single > 0.8 * right
    assert averaged < 0.5 * right


def test_averages_are_of_so_many_draws():
    drawn = []

    def model(x):
        drawn.append(len(drawn) + 1.0)
        return torch.full((len(x), 2), drawn[-1])

    assert torch.equal(Averaged(model, draws=4)(X), torch.full((len(X), 2), 2.5))
    with pytest.raises(ValueError, match="draws=0"):
        Averaged(model, draws=0)


def test_findings_are_a_dictionary_that_is_shown_as_a_table():
    findings = gradient_masking(lambda x: MODEL(x.detach()), BEST, X, Y)
    assert isinstance(findings, dict)
    rows = str(findings).splitlines()
    assert rows == repr(findings).splitlines()
    assert [row.split()[0] for row in rows] == list(findings)
    assert [row.split()[1] == "ok" for row in rows] == [f.passed for f in findings.values()]
    for row, finding in zip(rows, findings.values(), strict=True):
        assert finding.claim in row
        assert all(key in row for key in finding.numbers)
