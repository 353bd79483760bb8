import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hw3lib.robust import attacks
from hw3lib.robust.attacks import FGSM, PGD, SignNoise, input_gradient, margin
from hw3lib.robust.balls import CIFAR10_MEAN, CIFAR10_STD
from hw3lib.robust.evaluate import withstood
from hw3lib.robust.resnet import ResNet


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """Two classes with logits (0, w.x): every attack has a closed form."""

    def __init__(self, channels=3, size=4, seed=0, dtype=torch.float64):
        super().__init__()
        weight = torch.randn(channels, size, size, generator=rng(seed), dtype=dtype)
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        score = (x * self.weight).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


def images(n=6, channels=3, size=4, seed=1, dtype=torch.float64):
    x = torch.rand(n, channels, size, size, generator=rng(seed), dtype=dtype)
    return x, torch.randint(0, 2, (n,), generator=rng(seed + 1))


def small_network(seed=0):
    torch.manual_seed(seed)
    return ResNet(width=4, blocks=1)


def pictures(n=8, seed=3):
    return torch.rand(n, 3, 32, 32, generator=rng(seed)), torch.randint(
        0, 10, (n,), generator=rng(seed)
    )


@torch.no_grad()
def worst_case(model, x, y, eps):
    """The corner of the ball (cut by [0, 1]) that is worst for a linear model."""
    away = (1 - 2 * y).view(-1, 1, 1, 1) * model.weight.sign()
    return (x + eps * away).clamp(0, 1)


@pytest.mark.parametrize("eps", [0.0, 0.01, 8 / 255, 0.3, 0.99])
def test_on_a_linear_model_fgsm_is_the_closed_form_worst_case(eps):
    model, (x, y) = Linear(), images()
    assert FGSM(eps)(model, x, y) == pytest.approx(worst_case(model, x, y, eps), abs=1e-6)


@pytest.mark.parametrize(("steps", "step"), [(1, 0.1), (10, 0.01), (7, 0.02), (3, 0.9)])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_pgd_with_enough_steps_equals_fgsm_on_a_linear_model(steps, step, keep):
    model, (x, y) = Linear(), images()
    attack = PGD(0.1, steps=steps, step=step, keep=keep)
    assert attack(model, x, y) == pytest.approx(FGSM(0.1)(model, x, y), abs=1e-6)


def test_the_gain_of_a_small_step_is_eps_times_the_l1_norm_of_the_gradient():
    model, (x, y) = Linear(), images()
    x = x * 0.8 + 0.1
    gradient, _ = input_gradient(model, x, y)
    with torch.no_grad():
        before = attacks.cross_entropy(model(x), y)
        after = attacks.cross_entropy(model(FGSM(1e-6)(model, x, y)), y)
    assert (after - before) / 1e-6 == pytest.approx(gradient.flatten(1).abs().sum(1), rel=1e-3)


radius = st.floats(0, 0.999)
radii = radius | st.tuples(radius, radius, radius)
any_attack = (
    st.builds(FGSM, eps=radii, targeted=st.booleans())
    | st.builds(SignNoise, eps=radii)
    | st.builds(
        lambda eps, steps, step, start, restarts, keep, targeted, loss: PGD(
            eps,
            steps=steps,
            step=step,
            random_start=start,
            restarts=restarts if start else 1,
            keep=keep,
            targeted=targeted,
            loss=loss,
        ),
        radii,
        st.integers(1, 3),
        st.none() | st.floats(1e-4, 0.999),
        st.booleans(),
        st.integers(1, 2),
        st.sampled_from(["last", "best"]),
        st.booleans(),
        st.sampled_from(sorted(attacks.LOSSES)),
    )
)


@settings(max_examples=1000)
@given(attack=any_attack, seed=st.integers(0, 2**31))
def test_no_attack_leaves_the_ball_or_the_pixel_range(attack, seed):
    model = Linear(size=2, seed=seed % 97, dtype=torch.float32)
    x, y = images(3, size=2, seed=seed, dtype=torch.float32)
    x = x.where(x > 0.1, 0).where(x < 0.9, 1)  # pixels at the ends of the range, too
    adversarial = attack(model, x, y, generator=rng(seed))
    eps = torch.tensor(attack.eps).expand(3).view(3, 1, 1)
    assert ((adversarial - x).abs() <= eps + 1e-6).all()
    assert (adversarial >= 0).all()
    assert (adversarial <= 1).all()
    assert not adversarial.requires_grad


class Failing(nn.Module):
    """Passes the check of the logits and the first steps, then breaks."""

    def __init__(self, network, calls):
        super().__init__()
        self.network, self.calls = network, calls

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("planted")
        return self.network(x)


ALL = [FGSM(0.03), PGD(0.03, steps=3), PGD(0.03, random_start=True, restarts=2, keep="best")]


@pytest.mark.parametrize("attack", ALL, ids=repr)
@pytest.mark.parametrize("fails", [False, True])
def test_what_the_caller_owns_is_unchanged_also_after_an_exception(attack, fails):
    network = small_network().train()
    network.layer2.eval()  # a mixture of modes must come back as it was
    network.fc.weight.requires_grad_(False)
    network.conv1.weight.grad = torch.ones_like(network.conv1.weight)
    model = Failing(network, calls=2 if fails else 10**6)
    x, y = pictures(4)
    state, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    wants = [p.requires_grad for p in network.parameters()]
    before_x, before_y, random = x.clone(), y.clone(), torch.get_rng_state()
    if fails and not isinstance(attack, FGSM):
        with pytest.raises(RuntimeError, match="planted"):
            attack(model, x, y, generator=rng())
    else:
        attack(model, x, y, generator=rng())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == wants
    assert torch.equal(network.conv1.weight.grad, torch.ones_like(network.conv1.weight))
    assert all(p.grad is None for p in network.parameters() if p is not network.conv1.weight)
    assert torch.equal(x, before_x)
    assert torch.equal(y, before_y)
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("attack", [*ALL, SignNoise(0.1)], ids=repr)
def test_the_generator_alone_decides(attack):
    model, (x, y) = small_network(), pictures(4)
    first = attack(model, x, y, generator=rng(5))
    torch.manual_seed(99)
    assert torch.equal(attack(model, x, y, generator=rng(5)), first)


def test_a_training_network_is_attacked_in_evaluation_mode():
    model, (x, y) = small_network(), pictures()
    expected = PGD(0.02, steps=3)(model.eval(), x, y)
    assert torch.equal(PGD(0.02, steps=3)(model.train(), x, y), expected)


@pytest.mark.parametrize("attack", [FGSM(0.02), PGD(0.02, steps=3, keep="best")], ids=repr)
def test_an_image_is_attacked_alike_in_any_batch(attack):
    model, (x, y) = small_network().double(), pictures(5)
    x = x.double()
    alone = torch.cat([attack(model, x[i : i + 1], y[i : i + 1]) for i in range(5)])
    assert attack(model, x, y) == pytest.approx(alone, abs=1e-9)


def margins(attack, model, x, y):
    with torch.no_grad():
        return margin(model.eval()(attack(model, x, y, generator=rng())), y)


@pytest.mark.parametrize("start", [False, True])
def test_more_steps_never_lower_the_margin_of_the_kept_point(start):
    model, (x, y) = small_network(), pictures()
    options = {"step": 0.01, "keep": "best", "random_start": start}
    curve = [margins(PGD(0.05, steps=k, **options), model, x, y) for k in (1, 2, 4, 8)]
    for fewer, more in itertools.pairwise(curve):
        assert (more >= fewer - 1e-6).all()
    assert (curve[-1] > curve[0]).any()


@pytest.mark.parametrize("targeted", [False, True])
def test_the_kept_point_is_the_best_of_all_that_the_run_visits(targeted):
    model, (x, y) = small_network().eval(), pictures()
    attack = PGD(0.1, steps=6, step=0.09, targeted=targeted)  # steps so long that they overshoot
    visited = [x, *(replace(attack, steps=k)(model, x, y) for k in range(1, 7))]
    with torch.no_grad():
        gains = torch.stack([margin(model(z), y) for z in visited]) * (-1 if targeted else 1)
    kept = replace(attack, keep="best")(model, x, y)
    torch.testing.assert_close(kept, torch.stack(visited)[gains.argmax(0), range(len(x))])
    assert (gains.argmax(0) < 6).any()


@pytest.mark.parametrize("keep", ["last", "best"])
def test_restarts_keep_the_best_and_not_the_last(keep):
    model, (x, y) = small_network(), pictures()
    options = {"steps": 2, "step": 0.02, "keep": keep, "random_start": True}
    kept = [margins(PGD(0.1, restarts=r, **options), model, x, y) for r in (1, 2, 5)]
    for fewer, more in itertools.pairwise(kept):
        assert (more >= fewer - 1e-6).all()
    assert (kept[-1] > kept[0]).any()


def test_targeted_attacks_approach_the_target():
    model, (x, _) = small_network().eval(), pictures()
    target = torch.full((len(x),), 7)
    attack = PGD(0.1, steps=5, targeted=True)
    with torch.no_grad():
        before = margin(model(x), target)
        after = margin(model(attack(model, x, target)), target)
    assert (after < before).all()


def test_steps_to_fool_agrees_with_attacking_step_by_step():
    model, (x, y) = small_network().eval(), pictures(40)
    with torch.no_grad():
        y = torch.where(torch.arange(40) % 5 > 0, model(x).argmax(1), y)  # most start right
    options = {"step": 0.002, "keep": "last"}
    counted = PGD(0.05, steps=6, **options).steps_to_fool(model, x, y)
    right = []
    with torch.no_grad():
        right.append(model(x).argmax(1) == y)
    for k in range(1, 7):
        with torch.enable_grad():
            adversarial = PGD(0.05, steps=k, **options)(model, x, y)
        with torch.no_grad():
            right.append(right[-1] & (model(adversarial).argmax(1) == y))
    assert torch.equal(counted, torch.stack(right).sum(0))
    assert 0 < counted.float().mean() < 7
    assert len(counted.unique()) > 3


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_one_step_fools_before_it_by_it_or_not_at_all(norm, targeted):
    model, (x, y) = Linear(), images(40)
    attack = FGSM(0.05 if norm == "linf" else 0.3, norm=norm, targeted=targeted)
    with torch.no_grad():
        stands = [(model(z).argmax(1) == y) != targeted for z in (x, attack(model, x, y))]
    expected = stands[0].long() * (1 + stands[1].long())
    assert torch.equal(attack.steps_to_fool(model, x, y), expected)
    assert expected.unique().tolist() == [0, 1, 2]


def test_the_cut_of_normalised_images_also_counts_where_steps_are_counted():
    """Where images were cut short, moving on would fool; this attack may not come back to them."""
    model, (x, _) = Linear(), images(40)
    y = model(x).argmax(1)
    whole = PGD.from_normalized(0.4, step=0.1, steps=4)
    cut = replace(whole, cut="normalized")
    for attack in (whole, cut):
        with torch.no_grad():
            fooled = model(attack(model, x, y)).argmax(1) != y
        assert torch.equal(attack.steps_to_fool(model, x, y) <= 4, fooled)
    assert not torch.equal(whole.steps_to_fool(model, x, y), cut.steps_to_fool(model, x, y))


@pytest.fixture
def seen(monkeypatch):
    """Lets attacks with `look="fast"` look at another model than the one they are called with."""
    return lambda other: monkeypatch.setattr(attacks, "Approximation", lambda _model: other)


def test_what_is_looked_at_has_to_be_fooled_and_the_model_besides(seen):
    model, (x, _) = Linear(), images(40)
    y = torch.ones(len(x), dtype=torch.int64)

    def judge(z):
        return model(z) + torch.tensor([0.0, 0.8])  # the same gradient, fooled later

    attack = PGD(0.2, steps=8, step=0.03)
    alone = attack.steps_to_fool(model, x, y)
    seen(model)
    judged = replace(attack, look="fast").steps_to_fool(judge, x, y)
    assert torch.equal(judged, attack.steps_to_fool(judge, x, y))
    assert (judged >= alone).all()
    assert (judged > alone).any()


def test_the_last_step_is_for_the_model_alone(seen):
    x, _ = images(40)
    sure = Linear()
    with torch.no_grad():
        answers = sure(x).argmax(1)

    def flat(z):  # has no slope, so that no image moves
        return 3.0 * torch.nn.functional.one_hot(sure(z).argmax(1), 2) + 0 * sure(z)

    seen(flat)
    taken = PGD(0.2, steps=3, look="fast").steps_to_fool(lambda z: -sure(z), x, answers)
    assert (taken == 3).all()


def test_steps_to_fool_with_restarts_finds_no_fewer_fooled():
    model, (x, y) = small_network().eval(), pictures(40)
    with torch.no_grad():
        y = model(x).argmax(1)
    options = {"steps": 2, "step": 0.004, "random_start": True}
    one, five = (
        PGD(0.02, restarts=r, **options).steps_to_fool(model, x, y, generator=rng()) <= 2
        for r in (1, 5)
    )
    assert (five >= one).all()


def test_ties_between_logits_are_judged_as_predictions_are():
    """Rounded logits tie, and argmax takes the first class: here the wrong one."""

    def rounded(x):
        score = x.flatten(1).mean(1)
        return torch.stack([0 * score, score - (score % 1).detach()], 1)

    x, y = torch.full((1, 1, 4, 4), 0.5), torch.tensor([1])
    adversarial = PGD(0.1, steps=2, keep="best")(rounded, x, y)
    assert rounded(adversarial).argmax(1) != y
    assert PGD(0.1, steps=2).steps_to_fool(rounded, x, y) <= 2


def test_the_course_units_are_a_pixel_radius_per_channel():
    attack = PGD.from_normalized(0.01, step=2.0)
    assert attack.eps == tuple(0.01 * std for std in CIFAR10_STD)
    assert attack.step == tuple(2.0 * std for std in CIFAR10_STD)
    assert FGSM.from_normalized(0.1).eps == tuple(0.1 * std for std in CIFAR10_STD)
    assert SignNoise.from_normalized(0.1).eps == FGSM.from_normalized(0.1).eps
    model, (x, y) = small_network(), pictures()
    x = x * 0.5 + 0.25
    moved = (FGSM.from_normalized(0.1)(model, x, y) - x).abs().amax((0, 2, 3))
    assert moved == pytest.approx(0.1 * torch.tensor(CIFAR10_STD), abs=1e-6)


@pytest.mark.parametrize(("attack", "eps", "step", "steps"), [
    (FGSM.from_normalized(0.1, cut="normalized"), 0.1, 0.1, 1),
    (PGD.from_normalized(0.1, step=0.05, steps=4, cut="normalized"), 0.1, 0.05, 4),
], ids=["fgsm", "pgd"])  # fmt: skip
def test_the_cut_of_normalised_images_is_the_loop_that_clamps_them(attack, eps, step, steps):
    model, (x, y) = small_network().eval(), pictures()
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (CIFAR10_MEAN, CIFAR10_STD))
    start = (x - mean) / std
    point = start
    for _ in range(steps):
        point = point.detach().requires_grad_()
        loss = attacks.cross_entropy(model(point * std + mean), y).sum()
        (gradient,) = torch.autograd.grad(loss, point)
        moved = point.detach() + step * gradient.sign()
        point = moved.clamp(start - eps, start + eps).clamp(0, 1)
    found = attack(model, x, y)
    torch.testing.assert_close(found, point * std + mean, atol=1e-5, rtol=0)
    assert (found - x).abs().max() > max(attack.eps)
    with pytest.raises(ValueError, match="leaves the ball proves nothing"):
        withstood(model, attack, x, model(x).argmax(1))


def test_random_signs_use_both_signs_equally():
    x = torch.full((10, 3, 32, 32), 0.5)
    noise = SignNoise(0.1)(small_network(), x, torch.zeros(10).long(), generator=rng()) - x
    assert noise.abs() == pytest.approx(torch.full_like(x, 0.1), abs=1e-6)
    assert abs((noise > 0).float().mean() - 0.5) < 4 * 0.5 / math.sqrt(x.numel())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("attack", "steps"), [(FGSM(0.03), 1), (PGD(0.03, steps=4), 4)], ids=repr)
def test_an_attack_is_the_loop_of_the_formula_to_the_bit(attack, steps, precision, monkeypatch):
    """Whatever the processor is fast at."""
    monkeypatch.setenv("HW3_PRECISION", precision)
    model, (x, y) = small_network().eval(), pictures()
    step = torch.tensor(attack.eps if steps == 1 else attack.step_size)
    lower, upper = (x - attack.eps).clamp(0, 1), (x + attack.eps).clamp(0, 1)
    point = x
    for _ in range(steps):
        point = point.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(point), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point)
        point = (point.detach() + step * gradient.sign()).clamp(lower, upper)
    assert torch.equal(attack(model, x, y), point)


@pytest.mark.parametrize(("precision", "agree"), [("float32", 0.999), ("bfloat16", 0.7)])
@pytest.mark.parametrize("attack", [FGSM(0.03), PGD(0.03, steps=4)], ids=repr)
def test_a_fast_look_makes_nearly_the_same_images(attack, precision, agree, monkeypatch):
    monkeypatch.setenv("HW3_PRECISION", precision)
    model, (x, y) = small_network(), pictures()
    exact, fast = (replace(attack, look=look)(model, x, y) for look in ("exact", "fast"))
    assert ((exact - fast).abs() < 1e-6).float().mean() > agree
    assert (fast - x).abs().max() <= attack.eps + 1e-6


@pytest.mark.parametrize("attack", [FGSM(0.03, look="fast"), PGD(0.03, look="fast")], ids=repr)
def test_a_fast_look_at_what_is_no_plain_resnet_is_refused(attack):
    with pytest.raises(TypeError, match="it is a function"):
        attack(lambda x: MODEL(x), X, Y)
    with pytest.raises(TypeError, match="it is a Linear"):
        attack(MODEL, X, Y)


def test_parameters_get_no_gradient_pass():
    model, (x, y) = small_network(), pictures(2)
    asked = []
    model.fc.weight.register_hook(lambda gradient: asked.append(gradient))
    input_gradient(model, x, y)
    assert not asked


@pytest.mark.parametrize("eps", [-0.1, math.nan, (0.1, -0.1, 0.1)])
@pytest.mark.parametrize("kind", [FGSM, PGD, SignNoise])
def test_negative_or_nan_radii_are_refused(kind, eps):
    with pytest.raises(ValueError, match="cannot be negative or NaN"):
        kind(eps=eps)


@pytest.mark.parametrize("kind", [FGSM, PGD, SignNoise])
def test_a_radius_of_one_or_more_asks_for_255ths(kind):
    with pytest.raises(ValueError, match="did you mean 8/255"):
        kind(eps=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0: an attack needs at least 1"),
        ({"restarts": 0}, "restarts=0: an attack needs at least 1"),
        ({"restarts": 3}, "random_start=True"),
        ({"step": 0.0}, "must be positive"),
        ({"step": math.nan}, "must be positive"),
        ({"steps": 2.5}, "steps=2.5: it must be a whole number"),
        ({"steps": True}, "steps=True: it must be a whole number"),
        ({"step": "0.1"}, "step='0.1': it must be a number"),
        ({"step": (0.1, 0.2)}, "has 2 channels, eps=.* has 3"),
        ({"random_start": 1}, "random_start=1: it must be True or False"),
        ({"targeted": "no"}, "targeted='no': it must be True or False"),
        ({"keep": "bset"}, "keep='bset': choose one of 'last', 'best'"),
        ({"loss": "ce"}, "loss='ce': choose one of 'cross_entropy', 'margin'"),
        ({"look": "quick"}, "look='quick': choose one of 'exact', 'fast'"),
        ({"cut": "unit"}, "cut='unit': choose one of 'pixels', 'normalized'"),
        ({"eps": 0.1, "cut": "normalized", "norm": "l2"}, "L-infinity ball alone"),
        ({"norm": "l1"}, "norm='l1': choose one of 'linf', 'l2'"),
        ({"eps": None}, "eps=None: it must be a number"),
        ({"eps": []}, r"eps=\[\]: it must be a number"),
        ({"eps": ["a", "b"]}, "it must be a number"),
        ({"eps": math.inf}, "a radius cannot be"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        PGD(**{"eps": (0.1, 0.1, 0.1)} | options)


@pytest.mark.parametrize("kind", [FGSM, PGD, SignNoise])
@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (np.float64(0.25), 0.25),
        (torch.tensor(0.25), 0.25),
        ([0.25, 0.5, 0.125], (0.25, 0.5, 0.125)),
        (np.array([0.25, 0.5, 0.125]), (0.25, 0.5, 0.125)),
        (torch.tensor([0.25, 0.5, 0.125]), (0.25, 0.5, 0.125)),
    ],
)
def test_radii_come_from_what_holds_numbers(kind, given, taken):
    attack = kind(given)
    assert attack.eps == taken
    assert attack == kind(taken)
    assert hash(attack) == hash(kind(taken))


X, Y = torch.rand(4, 3, 8, 8, generator=rng()), torch.zeros(4, dtype=torch.int64)
MODEL = Linear(size=8, dtype=torch.float32)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X * 4 - 2, Y, ValueError, "looks normalised"),
        (X * 255, Y, ValueError, "divide 8-bit pixels by 255"),
        ((X * 255).to(torch.uint8), Y, TypeError, "torch.uint8.*to_pixels"),
        (X.where(X < 0.9, math.nan), Y, ValueError, "NaN or infinite"),
        (X[:0], Y[:0], ValueError, "at least one image"),
        (X, Y[:3], ValueError, "4 images, but labels of shape"),
        (X, Y.float(), TypeError, "int64 class numbers"),
        (X, nn.functional.one_hot(Y, 2).float(), ValueError, r"one-hot, pass y.argmax\(1\)"),
        (X, Y.tolist(), TypeError, "labels are a list"),
        (X.tolist(), Y, TypeError, "x is a list"),
        (X.numpy(), Y, TypeError, "x is a ndarray"),
        (X.bfloat16(), Y, TypeError, "steps near 1 are as large as the radii"),
        (X.half(), Y, TypeError, "steps near 1 are as large as the radii"),
        (X, Y.int(), TypeError, "int64 class numbers"),
        (X, Y + 2, ValueError, "but the model has 2 classes"),
        (X, Y - 1, ValueError, "but the model has 2 classes"),
    ],
)
@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1), SignNoise(0.1)], ids=repr)
def test_wrong_images_and_labels_are_refused(attack, x, y, error, message):
    with pytest.raises(error, match=message):
        attack(MODEL, x, y, generator=rng())


def test_a_model_that_returns_probabilities_is_refused():
    with pytest.raises(ValueError, match="leave the softmax out"):
        FGSM(0.1)(nn.Sequential(MODEL, nn.Softmax(1)), X, Y)


def test_a_model_that_returns_nan_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite logits"):
        FGSM(0.1)(lambda x: MODEL(x) * math.nan, X, Y)


@pytest.mark.parametrize("wrap", [lambda z: (z, z), lambda z: {"logits": z}], ids=["tuple", "dict"])
def test_a_model_that_returns_no_tensor_is_refused(wrap):
    with pytest.raises(TypeError, match=r"returns a (tuple|dict).*pass a function that picks it"):
        FGSM(0.1)(lambda x: wrap(MODEL(x)), X, Y)


def test_a_model_that_returns_no_matrix_is_refused():
    with pytest.raises(ValueError, match="need logits"):
        FGSM(0.1)(lambda x: x.flatten(1).sum(1), X, Y)


def test_a_model_without_gradient_is_refused():
    with pytest.raises(ValueError, match="carry no gradient"):
        FGSM(0.1)(lambda x: MODEL(x).detach(), X, Y)


@pytest.mark.parametrize("eps", [0.1, (0.1, 0.2, 0.3)], ids=str)
def test_a_step_is_two_and_a_half_radii_over_the_steps_by_default(eps):
    size = PGD(eps, steps=5).step_size
    assert size == pytest.approx(0.05 if eps == 0.1 else (0.05, 0.1, 0.15))
    assert PGD(eps, steps=5, step=0.3).step_size == 0.3
    assert torch.equal(PGD(eps, steps=5)(MODEL, X, Y), PGD(eps, steps=5, step=size)(MODEL, X, Y))


FIVE = torch.randn(3 * 8 * 8, 5, generator=rng(4))
"""Logits of five classes, so that the losses climb in other directions."""


@pytest.mark.parametrize("loss", sorted(attacks.LOSSES))
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_is_pgd_with_one_step_whatever_is_asked(loss, targeted, norm):
    options = {"loss": loss, "targeted": targeted, "norm": norm}

    def five(x):
        return x.flatten(1) @ FIVE / 8

    one_step = PGD(0.1, steps=1, step=0.1, **options)(five, X, Y)
    torch.testing.assert_close(FGSM(0.1, **options)(five, X, Y), one_step)
    others = [name for name in attacks.LOSSES if name != loss]
    assert not any(
        torch.equal(one_step, FGSM(0.1, **options | {"loss": o})(five, X, Y)) for o in others
    )


def test_a_loss_of_the_users_own_is_followed():
    def runner_up(logits, y):
        return -logits.gather(1, y[:, None]).squeeze(1)

    attack = PGD(0.1, steps=3, loss=runner_up)
    assert torch.equal(attack(MODEL, X, Y), PGD(0.1, steps=3, loss="negative_logit")(MODEL, X, Y))


@pytest.mark.parametrize("scale", [1, 1e3, 1e6, 1e9])
def test_large_logits_do_not_look_robust(scale):
    attack = PGD(0.01, steps=3)
    wanted = MODEL(attack(MODEL, X, Y)).argmax(1)
    assert torch.equal(MODEL(attack(lambda x: MODEL(x) * scale, X, Y)).argmax(1), wanted)


@pytest.mark.parametrize("shape", [(6, 12), (6, 3, 12), (6, 3, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_best_point_of_images_of_any_shape_is_their_own(shape, norm):
    x = torch.rand(shape, generator=rng(1))
    weight = torch.randn(shape[1:], generator=rng(2))

    def model(z):
        score = ((z - 0.5) * weight).flatten(1).sum(1)
        return torch.stack([score, (3 * score).sin()], 1)

    y = model(x).argmax(1)
    attack = PGD(0.4, steps=5, keep="best", norm=norm)
    one_by_one = [attack(model, x[i : i + 1], y[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(attack(model, x, y), torch.cat(one_by_one))


def test_attacks_work_where_gradients_are_switched_off():
    with torch.no_grad():
        switched_off = FGSM(0.1)(MODEL, X, Y)
    assert torch.equal(switched_off, FGSM(0.1)(MODEL, X, Y))


def test_a_model_on_another_device_is_refused():
    with pytest.raises(ValueError, match="the model is on meta, x on cpu"):
        FGSM(0.1)(copy.deepcopy(MODEL).to("meta"), X, Y)


@pytest.mark.parametrize("attack", [PGD(0.1, random_start=True), SignNoise(0.1)], ids=repr)
def test_randomness_without_a_generator_is_refused(attack):
    with pytest.raises(ValueError, match="need a generator"):
        attack(MODEL, X, Y)


def test_a_radius_for_other_channels_is_refused():
    with pytest.raises(ValueError, match="eps has 2 channels"):
        FGSM((0.1, 0.1))(MODEL, X, Y)


def test_the_margin_is_the_distance_to_the_best_other_class_with_its_sign():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert margin(logits, torch.tensor([0, 1])).tolist() == [-1.0, 2.0]


@pytest.mark.parametrize("kind", [FGSM, PGD])
@pytest.mark.parametrize("norm", ["L2", "Linf", "LINF"])
def test_a_norm_may_be_written_with_capitals(kind, norm):
    assert kind(0.1, norm=norm) == kind(0.1, norm=norm.lower())
    assert repr(kind(0.1, norm=norm)) == repr(kind(0.1, norm=norm.lower()))


@pytest.mark.parametrize("step", [1, 2, (0.1, 0.1, 2.0)])
def test_a_step_over_the_whole_range_is_warned_about(step):
    eps = (0.03,) * 3 if isinstance(step, tuple) else 8 / 255
    with pytest.warns(UserWarning, match=r"did you mean [12]/255\?"):
        PGD(eps, step=step)


def test_long_steps_of_the_course_and_in_l2_are_not_warned_about():
    assert PGD.from_normalized(0.01, step=2.0).step_size[2] > 0.5
    assert PGD(0.5, step=2.0, norm="l2").step == 2
    assert FGSM(0.999)(MODEL, X, Y).shape == X.shape


@pytest.mark.parametrize(
    ("attack", "shown"),
    [
        (PGD(0.1), "PGD(eps=0.1)"),
        (PGD(0.1, steps=3, norm="l2"), "PGD(eps=0.1, steps=3, norm='l2')"),
        (FGSM((0.1, 0.2, 0.3), loss="margin"), "FGSM(eps=(0.1, 0.2, 0.3), loss='margin')"),
        (SignNoise(0.1), "SignNoise(eps=0.1)"),
    ],
)
def test_messages_show_what_differs_from_the_defaults(attack, shown):
    assert str(attack) == shown
    assert repr(attack).startswith(shown.split(",")[0].removesuffix(")"))


@pytest.mark.parametrize("cut", [lambda x: x.detach(), lambda x: (x > 0.5).float()])
def test_a_gradient_of_the_parameters_alone_is_none(cut):
    with pytest.raises(ValueError, match="carry no gradient of the pixels"):
        FGSM(0.1)(lambda x: MODEL(cut(x)), X, Y)
