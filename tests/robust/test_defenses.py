import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hw3lib import training
from hw3lib.experiments.part2.resnet_training import TrainResNet
from hw3lib.robust.attacks import FGSM, PGD, SignNoise
from hw3lib.robust.defenses import (
    TRADES,
    AdversarialLoss,
    ImageObjective,
    JoinedBatch,
    Standard,
    attacked_batch,
    divergence,
)
from hw3lib.robust.modes import keeping_statistics
from hw3lib.robust.resnet import ResNet

ATTACK = PGD(0.05, steps=3)
STARTED = PGD(0.05, steps=3, random_start=True)


def network(seed=0):
    torch.manual_seed(seed)
    return ResNet(width=4, blocks=1).double()


def batch(n=6, seed=1):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, 32, 32, generator=rng, dtype=torch.float64)
    return x, torch.randint(0, 10, (n,), generator=rng)


def gradients(defense, model):
    model.zero_grad()
    loss, _ = defense.loss(model, *batch())
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("attack", [FGSM(0.05), ATTACK], ids=repr)
def test_half_and_half_adversarial_loss_is_the_joined_batch_in_evaluation_mode(attack):
    model = network().eval()
    adversarial = gradients(AdversarialLoss(attack, alpha=0.5), model)
    joined = gradients(JoinedBatch(attack), model)
    assert adversarial.norm() > 1e-3
    assert (adversarial - joined).norm() <= 1e-6 * joined.norm()


def test_they_differ_in_training_mode_by_the_statistics_of_the_batch():
    """A model whose adversarial half is shifted: joint statistics see both halves at once."""
    model = network().train()
    adversarial = gradients(AdversarialLoss(ATTACK, alpha=0.5), model)
    joined = gradients(JoinedBatch(ATTACK), model)
    assert (adversarial - joined).norm() > 1e-2 * joined.norm()


def test_alpha_one_is_standard_training_and_alpha_zero_sees_only_attacks():
    model, (x, y) = network().eval(), batch()
    clean, _ = Standard().loss(model, x, y)
    only_clean, _ = AdversarialLoss(ATTACK, alpha=1).loss(model, x, y)
    only_attacked, _ = AdversarialLoss(ATTACK, alpha=0).loss(model, x, y)
    attacked = F.cross_entropy(model(ATTACK(model, x, y)).float(), y)
    assert only_clean.item() == pytest.approx(clean.item())
    assert only_attacked.item() == pytest.approx(attacked.item())
    assert only_attacked > only_clean


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothing_gives_all_classes_an_equal_part_of_the_label(smoothing):
    """Szegedy et al. (2016), section 7."""
    model, (x, y) = network().eval(), batch()
    log_p = model(x).log_softmax(1)
    own = (1 - smoothing) * log_p.gather(1, y[:, None]).squeeze(1)
    expected = -(own + smoothing * log_p.mean(1)).mean()
    loss, _ = Standard(label_smoothing=smoothing).loss(model, x, y)
    torch.testing.assert_close(loss, expected.float())


def test_the_loss_is_the_alpha_weighted_mean_of_both():
    model, (x, y) = network().eval(), batch()
    ends = [AdversarialLoss(ATTACK, alpha=a).loss(model, x, y)[0].item() for a in (0, 1)]
    middle = AdversarialLoss(ATTACK, alpha=0.3).loss(model, x, y)[0].item()
    assert middle == pytest.approx(0.7 * ends[0] + 0.3 * ends[1])


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_making_the_attack_changes_neither_statistics_nor_modes_nor_gradients(mode):
    model = network().train()
    model.layer1.eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    attacked_batch(ATTACK, model, *batch(), mode=mode)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())


def test_the_mode_of_the_attack_matters():
    model = network().train()
    in_eval = attacked_batch(FGSM(0.05), model, *batch(), mode="eval")
    in_train = attacked_batch(FGSM(0.05), model, *batch(), mode="train")
    assert torch.equal(in_eval, FGSM(0.05)(model, *batch()))
    assert not torch.equal(in_eval, in_train)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("attack", [FGSM(0.05), ATTACK], ids=repr)
def test_the_attack_is_made_in_float32_also_where_the_training_is_not(attack, mode):
    model, (x, y) = network().float().train(), batch()
    alone = attacked_batch(attack, model, x.float(), y, mode)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attacked_batch(attack, model, x.float(), y, mode), alone)
    if mode == "eval":
        assert torch.equal(attack(model, x.float(), y), alone)


def test_statistics_are_learnt_again_after_an_exception():
    model = network().train()
    with pytest.raises(RuntimeError), keeping_statistics(model):
        raise RuntimeError
    before = model.bn1.running_mean.clone()
    model(batch()[0])
    assert not torch.equal(model.bn1.running_mean, before)


def test_training_steps_learn_clean_and_attacked_statistics():
    """One update of the running statistics a forward pass: two, or one joint one."""
    for defense, passes in ((AdversarialLoss(ATTACK), 2), (JoinedBatch(ATTACK), 1)):
        model = network().train()
        defense.loss(model, *batch())
        assert model.bn1.num_batches_tracked == passes


class Stateful(nn.Module):
    """Layers whose state moves in training mode: instance, batch and spectral norm, a counter."""

    def __init__(self):
        super().__init__()
        self.instance = nn.InstanceNorm2d(3, track_running_stats=True)
        self.batch = nn.BatchNorm2d(3)
        self.new = nn.utils.parametrizations.spectral_norm(nn.Linear(3 * 32 * 32, 8))
        self.old = nn.utils.spectral_norm(nn.Linear(8, 10))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.calls += 1
        return self.old(self.new(self.batch(self.instance(x)).flatten(1)))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_making_the_attack_keeps_the_state_of_every_norm(mode):
    torch.manual_seed(0)
    model, (x, y) = Stateful().train(), batch()
    before = copy.deepcopy(model.state_dict())
    attacked_batch(ATTACK, model, x.float(), y, mode=mode)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model(x.float())
    assert model.calls == 1
    moved = [k for k, value in model.state_dict().items() if not torch.equal(value, before[k])]
    assert {key.split(".")[0] for key in moved} == {"instance", "batch", "new", "old", "calls"}


WITH_ATTACK = [AdversarialLoss, JoinedBatch, TRADES]
NO_NUMBERS = [("0.5", TypeError), (True, TypeError), (None, TypeError), (float("nan"), ValueError)]


@pytest.mark.parametrize(
    ("make", "name", "wrong"),
    [
        (lambda **kw: AdversarialLoss(ATTACK, **kw), "alpha", [-0.1, 1.1]),
        (Standard, "label_smoothing", [-3, 1.5]),
        (lambda **kw: TRADES(STARTED, **kw), "beta", [-1, float("inf")]),
    ],
    ids=["alpha", "label_smoothing", "beta"],
)
def test_weights_are_numbers_that_mean_something(make, name, wrong):
    for value, error in [*NO_NUMBERS, *((value, ValueError) for value in wrong)]:
        with pytest.raises(error, match=rf"^{name}="):
            make(**{name: value})
    assert getattr(make(**{name: 1}), name) == 1


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("wrap", WITH_ATTACK)
def test_each_defence_attacks_in_the_mode_that_is_asked_for(wrap, mode):
    model, modes = network().train(), []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    defense = wrap(STARTED, attack_mode=mode)
    defense.loss(model, *batch(), torch.Generator().manual_seed(0))
    assert (False in modes) == (mode == "eval")
    assert modes[-1]  # what is learnt from is seen in training mode


@pytest.mark.parametrize("wrap", WITH_ATTACK)
def test_what_no_defence_can_use_is_refused_when_it_is_made(wrap):
    with pytest.raises(ValueError, match="towards their true labels; pass an untargeted attack"):
        wrap(replace(STARTED, targeted=True))
    with pytest.raises(ValueError, match="attack_mode='Train': choose one of 'eval', 'train'"):
        wrap(STARTED, attack_mode="Train")
    with pytest.raises(TypeError, match=r"needs an FGSM or PGD"):
        wrap("pgd")


@pytest.mark.parametrize("attack", [FGSM(0.05), ATTACK], ids=repr)
def test_trades_needs_a_random_start(attack):
    with pytest.raises(ValueError, match="random_start=True"):
        TRADES(attack)


@pytest.mark.parametrize("change", [{"keep": "best"}, {"restarts": 2}, {"loss": "margin"}], ids=str)
def test_trades_refuses_what_its_attack_would_not_do(change):
    with pytest.raises(ValueError, match="leave loss, keep and restarts"):
        TRADES(replace(STARTED, **change))


def trades_by_hand(model, x, y, start, eps, step, steps, beta):
    """A training step as the paper's algorithm 1 says it."""
    modes = [part.training for part in model.modules()]
    model.eval()
    clean = F.softmax(model(x), dim=1).detach()
    x_adv = start
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        kl = (clean * (clean.log() - F.log_softmax(model(x_adv), dim=1))).sum()
        (gradient,) = torch.autograd.grad(kl, x_adv)
        x_adv = x_adv.detach() + step * gradient.sign()
        x_adv = torch.min(torch.max(x_adv, x - eps), x + eps).clamp(0, 1)
    for part, mode in zip(model.modules(), modes, strict=True):
        part.training = mode
    logits = model(x)
    p, q = F.softmax(logits, dim=1), F.softmax(model(x_adv), dim=1)
    return F.cross_entropy(logits, y) + beta * (p * (p.log() - q.log())).sum(1).mean()


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_trades_is_the_papers_algorithm(beta, mode):
    model, (x, y) = network().train(mode == "train"), batch()
    uniform = torch.rand(x.shape, generator=torch.Generator().manual_seed(7)).to(x)
    start = (x + 0.05 * (2 * uniform - 1)).clamp(0, 1)
    other = copy.deepcopy(model)
    expected = trades_by_hand(other, x, y, start, 0.05, STARTED.step_size, 3, beta)
    expected.backward()
    loss, logits = TRADES(STARTED, beta=beta).loss(model, x, y, torch.Generator().manual_seed(7))
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert not logits.requires_grad
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert ours.grad.norm() > 0
        assert (ours.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm()


def test_trades_without_weight_is_standard_and_its_attack_raises_the_divergence():
    model, (x, y) = network().eval(), batch()
    draws = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    standard, _ = Standard().loss(model, x, y)
    assert TRADES(STARTED, beta=0).loss(model, x, y, draws())[0].item() == pytest.approx(
        standard.item()
    )
    apart = []
    for steps in (1, 10):
        attack = PGD(0.05, steps=steps, step=0.01, random_start=True)
        loss, _ = TRADES(attack, beta=1).loss(model, x, y, draws())
        apart.append(loss.item() - standard.item())
    assert 0 < apart[0] < apart[1]


def test_divergence_is_that_of_scipy():
    from scipy.special import softmax
    from scipy.stats import entropy

    rng = torch.Generator().manual_seed(0)
    logits, clean = torch.randn(2, 5, 4, generator=rng, dtype=torch.float64)
    expected = entropy(softmax(clean.numpy(), 1), softmax(logits.numpy(), 1), axis=1)
    assert divergence(logits, clean).numpy() == pytest.approx(expected)
    assert divergence(clean, clean).abs().max() < 1e-12
    sure = torch.tensor([[500.0, 0, 0, 0]], requires_grad=True)
    divergence(clean[:1], sure).backward()
    assert sure.grad.isfinite().all()


def test_settings_with_trades_are_stored_and_found_again():
    settings = TrainResNet(defense=TRADES(STARTED, beta=2.5))
    again = TrainResNet(**settings.model_dump(mode="json"))
    assert again == settings
    assert again.key == settings.key != TrainResNet(defense=TRADES(STARTED)).key
    with pytest.raises(ValueError, match="random_start=True"):
        TrainResNet(defense={"kind": "trades", "attack": {"kind": "pgd", "eps": 0.1}})


@pytest.mark.parametrize("wrap", WITH_ATTACK)
def test_random_starts_come_from_the_generator_alone(wrap):
    model, (x, y), defense = network().eval(), batch(), wrap(STARTED)
    with pytest.raises(ValueError, match="need a generator"):
        defense.loss(model, x, y)
    before = torch.get_rng_state()
    losses = [
        defense.loss(model, x, y, torch.Generator().manual_seed(seed))[0].item()
        for seed in (0, 0, 1)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("wrap", WITH_ATTACK)
def test_a_defence_with_random_starts_is_reproducible_and_resumes(wrap, tmp_path):
    def train(**options):
        torch.rand(3)  # the global state is another one each time
        with training.seeded(0, "weights"):
            model = ResNet(width=4, blocks=1)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        settings = {"epochs": 3, "batch_size": 8, "seed": 0} | options
        training.fit(model, objective(wrap(PGD(0.05, 1, random_start=True))), optimizer, **settings)
        return model.state_dict()

    def same(a, b):
        return all(torch.equal(value, b[key]) for key, value in a.items())

    whole = train()
    assert same(whole, train())
    assert not same(whole, train(seed=1))
    path = tmp_path / "run.pt"
    train(epochs=2, checkpoint=path)
    assert same(whole, train(checkpoint=path))


def test_random_starts_differ_between_batches_and_epochs_and_move_no_other_draw():
    plain, started = objective(), objective(JoinedBatch(STARTED))
    first, second = (started.draw(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert first.shape == (20, 4)
    assert torch.equal(first[:, :3], plain.draw(torch.Generator().manual_seed(0)))
    assert len({*first[:, 3].tolist(), *second[:, 3].tolist()}) == 40


def test_what_is_drawn_comes_from_the_generator_alone():
    task = objective(JoinedBatch(STARTED), erased=12)
    before = torch.get_rng_state()
    first = task.draw(torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(task.draw(torch.Generator().manual_seed(0)), first)


def objective(defense=None, augmented=True, n=20, erased=0):
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 3, 32, 32), generator=rng, dtype=torch.uint8)
    y = torch.randint(0, 10, (n,), generator=rng)
    options = {"augmented": augmented, "erased": erased}
    return ImageObjective((x, y), (x[:7], y[:7]), defense or Standard(), **options)


def test_augmentation_moves_the_training_images_only():
    model = network().float().eval()
    plain, index = objective(augmented=False), torch.arange(20)
    for changed in (objective(augmented=True), objective(augmented=False, erased=12)):
        draws = changed.draw(torch.Generator().manual_seed(0))
        assert plain.loss(model, index, draws)[0] != changed.loss(model, index, draws)[0]
        assert plain.validate(model) == changed.validate(model)


def test_what_is_erased_is_drawn_after_the_augmentation():
    moved, both = objective(), objective(erased=12)
    draws = [task.draw(torch.Generator().manual_seed(0)) for task in (moved, both)]
    assert draws[1].shape == (20, 5)
    assert torch.equal(draws[0], draws[1][:, :3])


def test_the_sums_count_every_image_once():
    model = network().float().eval()
    task = objective(augmented=False)
    draws = task.draw(torch.Generator())
    whole = task.loss(model, torch.arange(20), draws)[1]
    parts = sum(task.loss(model, index, draws)[1] for index in torch.arange(20).split(8))
    assert parts == pytest.approx(whole, rel=1e-5)
    logits = model(task.train / 255)
    assert whole[0].item() == pytest.approx(
        F.cross_entropy(logits, task.train_labels, reduction="sum").item(), rel=1e-5
    )
    assert whole[1] == (logits.argmax(1) != task.train_labels).sum()


def test_validation_scores_are_those_of_the_clean_images():
    model = network().float().eval()
    task = objective(JoinedBatch(ATTACK))
    scores = task.validate(model)
    logits = model(task.val / 255)
    assert scores["cross_entropy"] == pytest.approx(
        F.cross_entropy(logits, task.val_labels).item(), rel=1e-5
    )
    assert scores["error"] == pytest.approx(
        (logits.argmax(1) != task.val_labels).double().mean().item()
    )


@pytest.mark.parametrize("defense", [AdversarialLoss, JoinedBatch])
def test_a_defence_against_noise_is_refused(defense):
    """It would draw from global random numbers, and no gradient would be followed."""
    with pytest.raises(TypeError, match="a defence needs an FGSM or PGD"):
        defense(SignNoise(0.1))
    with pytest.raises(TypeError, match="a defence needs an FGSM or PGD"):
        defense(FGSM)
