import copy

import pytest
import torch
import torch.nn.functional as F

from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.defenses import (
    AdversarialLoss,
    ImageObjective,
    JoinedBatch,
    Standard,
    attacked_batch,
)
from hw3lib.robust.modes import keeping_statistics
from hw3lib.robust.resnet import ResNet

ATTACK = PGD(0.05, steps=3)


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


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_weights_outside_of_zero_and_one_are_refused(alpha):
    with pytest.raises(ValueError, match="lies in"):
        AdversarialLoss(ATTACK, alpha=alpha)


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
