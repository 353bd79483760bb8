"""Laws of the balls that attacks stay in, and of attacks in the L2 ball."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hw3lib.robust import FGSM, PGD
from hw3lib.robust.balls import around, distance
from hw3lib.robust.evaluate import eps_curve, withstood


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
        return nn.Sequential(*parts).double().eval()


MODEL = network()
X = torch.rand(40, 3, 8, 8, generator=rng(1), dtype=torch.float64)
Y = MODEL(X).argmax(1)


def pgd_by_hand(x, y, eps, steps, step):
    """The formula, image by image."""
    point = x.clone()
    for _ in range(steps):
        point.requires_grad_()
        loss = nn.functional.cross_entropy(MODEL(point[None]), y[None])
        (gradient,) = torch.autograd.grad(loss, point)
        with torch.no_grad():
            change = point + step * gradient / gradient.norm() - x
            point = (x + change * min(1, eps / change.norm())).clamp(0, 1)
    return point


@pytest.mark.parametrize(("eps", "steps", "step"), [(0.3, 1, 0.3), (0.3, 5, 0.1), (2.0, 7, 1.0)])
def test_l2_pgd_is_the_loop_of_the_formula(eps, steps, step):
    found = PGD(eps, steps=steps, step=step, norm="l2")(MODEL, X[:6], Y[:6])
    by_hand = [pgd_by_hand(x, y, eps, steps, step) for x, y in zip(X[:6], Y[:6], strict=True)]
    torch.testing.assert_close(found, torch.stack(by_hand))


@pytest.mark.parametrize("eps", [0.0, 0.25, 3.0])
def test_l2_fgsm_is_one_step_to_the_surface(eps):
    inside = X * 0.5 + 0.25  # far from the ends of the range, so that nothing is cut
    moved = FGSM(min(eps, 0.25), norm="l2")(MODEL, inside, Y)
    torch.testing.assert_close(
        distance(inside, moved, "l2"), torch.full((40,), min(eps, 0.25)).double()
    )
    torch.testing.assert_close(
        FGSM(eps, norm="l2")(MODEL, X, Y),
        PGD(eps, steps=1, step=max(eps, 1e-9), norm="l2")(MODEL, X, Y),
    )


@settings(max_examples=300, deadline=None)
@given(
    eps=st.floats(0, 50), steps=st.integers(1, 4), step=st.none() | st.floats(1e-6, 100),
    start=st.booleans(), keep=st.sampled_from(["last", "best"]), seed=st.integers(0, 2**31),
    scale=st.sampled_from([1.0, 1e-30, 1e30]),
)  # fmt: skip
def test_no_l2_attack_leaves_the_ball_or_the_range(eps, steps, step, start, keep, seed, scale):
    x = torch.rand(3, 3, 8, 8, generator=rng(seed)).where(torch.rand(3, 3, 8, 8) < 0.9, 0.0)
    model = network(seed % 7).float()
    attack = PGD(eps, steps=steps, step=step, random_start=start, keep=keep, norm="l2")
    found = attack(lambda z: model(z) * scale, x, torch.zeros(3).long(), generator=rng(seed))
    assert (distance(x, found, "l2") <= eps * (1 + 1e-5) + 1e-5).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_small_gradients_have_a_direction_too():
    attack, model, x = PGD(0.5, steps=3, norm="l2", loss="margin"), network().float(), X.float()
    faint = attack(lambda z: model(z) * 2.0**-100, x, Y)  # the squares are 0 in single precision
    torch.testing.assert_close(faint, attack(model, x, Y))


def test_random_starts_are_uniform_in_the_volume():
    centre = torch.full((4000, 2), 0.5, dtype=torch.float64)
    ball = around(centre, 0.4, "l2")
    away = (ball.start(rng()) - centre).norm(dim=1) / 0.4
    # In two dimensions the share within a radius is its square.
    for share in (0.25, 0.5, 0.75):
        within = (away < math.sqrt(share)).double().mean()
        assert abs(within - share) < 4 * math.sqrt(share * (1 - share) / 4000)


def test_an_l2_ball_has_one_radius_which_may_exceed_one():
    assert PGD(3, norm="l2").eps == 3
    with pytest.raises(ValueError, match="in L2 it is one length"):
        FGSM((0.1, 0.1, 0.1), norm="l2")
    with pytest.raises(ValueError, match="did you mean 3/255"):
        PGD(3)


def test_the_l2_curve_over_radii_never_rises_and_more_steps_leave_less():
    rows = eps_curve(MODEL, PGD(0.1, norm="l2", keep="best"), X, Y, [0.0, 0.1, 0.3, 1.0])
    assert rows[0].all()
    assert (rows[1:] <= rows[:-1]).all()
    assert rows[-1].sum() < rows[1].sum()


@pytest.mark.parametrize("eps", [0.2, 0.4])
def test_l2_pgd_fools_as_many_as_torchattacks(eps):
    peer = pytest.importorskip("torchattacks").PGDL2(MODEL, eps, eps / 4, 10, random_start=False)
    ours = withstood(MODEL, PGD(eps, step=eps / 4, norm="l2"), X, Y)
    assert 0 < ours.sum() < len(X)
    assert torch.equal(ours, withstood(MODEL, peer, X, Y))


def test_linf_starts_are_uniform_on_both_sides():
    centre = torch.full((4000, 1), 0.5, dtype=torch.float64)
    away = (around(centre, 0.4, "linf").start(rng()) - centre).squeeze(1) / 0.4
    for share in (0.1, 0.5, 0.9):
        below = (away < 2 * share - 1).double().mean()
        assert abs(below - share) < 4 * math.sqrt(share * (1 - share) / 4000)
