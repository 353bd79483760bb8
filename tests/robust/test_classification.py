"""One's own network: any size of images, from tensors or a loader, seeded and resumable."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision.transforms import Normalize

from hw3lib import FGSM, PGD, TRADES, AdversarialLoss, Classification, JoinedBatch, fit, withstood
from hw3lib.robust.defenses import ImageObjective, Standard
from hw3lib.training import Parts, Streamed, first_losses, load, seeded

CHANNELS, SIZE, CLASSES = 2, 9, 3


def images(num, seed=0):
    """Pictures whose class is the third of them that is bright."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (num,), generator=rng)
    x = 0.3 * torch.rand(num, CHANNELS, SIZE, SIZE, generator=rng)
    for picture, label in zip(x, y.tolist(), strict=True):
        picture[:, 3 * label : 3 * label + 3] += 0.4
    return x, y


def network():
    with seeded(0, "weights"):
        return nn.Sequential(
            Normalize([0.5] * CHANNELS, [0.25] * CHANNELS),
            nn.Conv2d(CHANNELS, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(8 * 49, CLASSES),
        )


def train(objective, *, epochs=3, seed=0, **options):
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    return model, fit(model, objective, optimizer, epochs=epochs, seed=seed, **options)


def same(a, b):
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


def loader(data, **options):
    return DataLoader(TensorDataset(*data), batch_size=16, **options)


EPS = 0.15
ATTACK = PGD(EPS, steps=5)


def test_training_under_attack_makes_it_robust():
    train_set, val, test = images(200), images(60, 1), images(60, 2)
    plain, _ = train(Classification(train_set, val), epochs=6, batch_size=16)
    robust, progress = train(
        Classification(train_set, val, JoinedBatch(PGD(EPS, steps=3)), attack=ATTACK),
        epochs=6,
        batch_size=16,
    )
    robust.load_state_dict(progress.best_state)
    left = [withstood(model, ATTACK, *test).double().mean() for model in (plain, robust)]
    assert left[1] > left[0] + 0.1
    errors = [row["val_attacked_error"] for row in progress.history]
    assert errors[progress.best_epoch] == min(errors[1:])
    expected = withstood(robust, ATTACK, *val).double().mean().item()
    assert errors[progress.best_epoch] == pytest.approx(1 - expected)


def test_scores_are_those_of_the_whole_set_from_tensors_and_loaders():
    model, (x, y) = network().eval(), images(37)
    logits = model(x)
    expected = {
        "cross_entropy": nn.functional.cross_entropy(logits, y).item(),
        "error": (logits.argmax(1) != y).double().mean().item(),
        "attacked_error": 1 - withstood(model, FGSM(EPS), x, y).double().mean().item(),
    }
    for val in ((x, y), loader((x, y))):
        scores = Classification((x, y), val, attack=FGSM(EPS)).validate(model)
        assert list(scores) == list(expected)
        assert scores == pytest.approx(expected, rel=1e-5)


def test_bytes_are_the_pixels_that_they_stand_for():
    x, y = images(40)
    byte = (x * 255).byte()
    (a, first), (b, second) = (
        train(Classification((part, y), (part, y)), batch_size=16) for part in (byte, byte / 255)
    )
    assert same(a, b)
    assert first.history == second.history


def test_tensors_and_the_books_objective_agree():
    x, y = images(40)
    byte = (x * 255).byte()
    index = torch.arange(16)
    ours = Classification((byte, y), (byte, y), AdversarialLoss(FGSM(EPS)))
    book = ImageObjective((byte, y), (byte, y), AdversarialLoss(FGSM(EPS)), augmented=False)
    pair = [
        objective.loss(network().eval(), *batch)
        for objective, batch in (
            (ours, (byte[:16], y[:16], torch.zeros(()))),
            (book, (index, torch.zeros(16, 3))),
        )
    ]
    assert torch.equal(pair[0][0], pair[1][0])
    assert torch.equal(pair[0][1], pair[1][1])


OWN = torch.Generator()
SOURCES = {
    "tensors": lambda data: data,
    "shuffled loader": lambda data: loader(data, shuffle=True),
    "loader with a generator": lambda data: loader(data, shuffle=True, generator=OWN),
    "loader with workers": lambda data: loader(data, shuffle=True, num_workers=1),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_seed_fixes_order_dropout_and_random_starts_and_a_run_resumes(name, tmp_path):
    data = images(40)
    defense = TRADES(PGD(EPS, 1, random_start=True))
    size = {"batch_size": 16} if name == "tensors" else {}

    def run(**options):
        torch.rand(1)
        OWN.seed()
        return train(Classification(SOURCES[name](data), data, defense), **size, **options)

    (whole, reference), (again, _), (other, _) = run(), run(), run(seed=1)
    assert same(whole, again)
    assert not same(whole, other)
    path = tmp_path / "run.pt"
    run(epochs=2, checkpoint=path)
    resumed, progress = run(checkpoint=path)
    assert same(whole, resumed)
    assert progress.history == reference.history


class Jittered(Dataset):
    """Images whose brightness a transform draws from one of the global generators."""

    def __init__(self, draw):
        self.draw, (self.x, self.y) = draw, images(40)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index] * (0.5 + 0.5 * self.draw()), self.y[index]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_a_seed_fixes_what_transforms_draw_with_numpy_and_python_too(draw, workers, tmp_path):
    def run(**options):
        draw()
        streamed = DataLoader(Jittered(draw), batch_size=16, shuffle=True, num_workers=workers)
        return train(Classification(streamed, images(20)), **options)[0]

    whole, other = run(epochs=2), run(epochs=2, seed=1)
    assert not same(whole, other)
    run(epochs=1, checkpoint=tmp_path / "run.pt")
    assert same(whole, run(epochs=2, checkpoint=tmp_path / "run.pt"))


def test_each_epoch_has_another_order_and_all_images():
    x, y = torch.arange(40) / 100 * torch.ones(1, 1, 1, 40), torch.zeros(40, dtype=torch.long)
    x = x.permute(3, 0, 1, 2)
    objective = Classification((x, y), (x, y))
    orders = []
    for seed in (0, 1):
        rng = torch.Generator().manual_seed(seed)
        batches = list(objective.batches(16, rng))
        assert [len(labels) for _, labels, _ in batches] == [16, 16, 8]
        assert len({int(draw) for _, _, draw in batches}) == 3
        orders.append(torch.cat([part for part, _, _ in batches]).flatten())
        assert torch.equal(orders[-1].sort().values, x.flatten())
    assert not torch.equal(*orders)


class Endless(IterableDataset):
    def __iter__(self):
        return iter(list(zip(*images(35), strict=True)))


def test_a_stream_of_unknown_length_is_trained_on():
    objective = Classification(DataLoader(Endless(), batch_size=16), images(20))
    assert isinstance(objective, Streamed)
    assert objective.num_batches(None) is None
    _, progress = train(objective)
    assert progress.history[-1]["train_loss"] < progress.history[1]["train_loss"]


def test_metrics_are_means_over_the_images_that_were_seen():
    """A batch of one is left out; the others count with their size."""
    x, y = images(33)
    seen = []

    class Watched(Standard):
        def loss(self, model, x, y, generator=None):
            loss, logits = super().loss(model, x, y)
            seen.append((len(y), loss.item(), (logits.argmax(1) != y).sum().item()))
            return loss, logits

    _, progress = train(Classification(loader((x, y)), (x, y), Watched()), epochs=1)
    assert [num for num, _, _ in seen] == [16, 16]
    row = progress.history[1]
    assert row["train_loss"] == pytest.approx(sum(n * loss for n, loss, _ in seen) / 32)
    assert row["train_error"] == pytest.approx(sum(wrong for _, _, wrong in seen) / 32)


def test_normalisation_may_be_inside_the_model_or_in_front_of_it():
    x, y = images(30)

    class Inside(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, x):
            return self.body((x - 0.5) / 0.25)

    outside = network()
    inside = Inside(outside[1:])
    a, b = (
        Classification((x, y), (x, y), attack=ATTACK).validate(m.eval()) for m in (outside, inside)
    )
    assert a == pytest.approx(b)


def wrong_calls():
    x, y = images(20)
    objective = Classification((x, y), (x, y))
    return {
        "must be int64": lambda: Classification((x, y.int()), (x, y)),
        "need one each": lambda: Classification((x, y[:5]), (x, y)),
        "divide 8-bit pixels by 255": lambda: Classification((255 * x, y), (x, y)),
        "looks normalised": lambda: Classification((x, y), (2 * x - 1, y)),
        "need at least 2": lambda: train(objective),
        "=1: need at least 2": lambda: train(objective, batch_size=1),
        "has its own": lambda: train(Classification(loader((x, y)), (x, y)), batch_size=16),
        "has to be a pair of tensors": lambda: train(Classification([{"x": x, "y": y}], (x, y))),
        "train is a TensorDataset: pass .* wrap": lambda: Classification(
            TensorDataset(x, y), (x, y)
        ),
        "train is a tuple of ndarray: pass a pair": lambda: Classification(
            (x.numpy(), y.numpy()), (x, y)
        ),
        "val is a Tensor: pass a pair": lambda: Classification((x, y), x),
        "val is a NoneType: pass a pair": lambda: Classification((x, y), None),
        "val is a str: pass a pair": lambda: Classification((x, y), "val"),
        "train is a tuple of Tensor: pass a pair": lambda: Classification((x, y, y), (x, y)),
        r"defense is a PGD: wrap it, JoinedBatch\(PGD\(eps=0.15": lambda: Classification(
            (x, y), (x, y), ATTACK
        ),
        "defense=<class .*TRADES.*: need Standard": lambda: Classification((x, y), (x, y), TRADES),
        "defense='trades': need Standard": lambda: Classification((x, y), (x, y), "trades"),
        "attack=Standard.*: need an attack": lambda: Classification(
            (x, y), (x, y), attack=Standard()
        ),
        "attack=.*PGD.*: need an attack": lambda: Classification((x, y), (x, y), attack=PGD),
        "every batch has one image": lambda: train(
            Classification(DataLoader(TensorDataset(x, y), batch_size=1), (x, y))
        ),
        "epoch 2 has no batch": lambda: train(Classification(iter(list(loader((x, y)))), (x, y))),
        "no validation images": lambda: train(Classification(loader((x, y)), iter([(x, y)]))),
        "has no batch": lambda: train(Classification([], (x, y))),
        "has 3 classes": lambda: train(Classification((x, y), (x, y + 1)), batch_size=16),
        r"span \[1, 3\], but the model has 3": lambda: train(
            Classification(loader((x, y + 1)), (x, y))
        ),
    }


@pytest.mark.parametrize("message", wrong_calls())
def test_wrong_use_is_told(message):
    with pytest.raises((TypeError, ValueError), match=message):
        wrong_calls()[message]()


def test_labels_are_compared_with_the_model_before_anything_is_trained():
    x, y = images(40)
    late = y.clone()
    late[-1] = CLASSES

    class Untouched(Classification):
        def loss(self, *arguments):
            raise AssertionError

    with pytest.raises(ValueError, match=r"labels span \[0, 3\], but the model has 3 classes"):
        train(Untouched((x, late), (x, y)), batch_size=16)


class Tuple(nn.Linear):
    def forward(self, x):
        return (super().forward(x.flatten(1)),)


class Auxiliary(nn.Module):
    """Returns two answers in training mode, as some of torchvision's networks do."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        logits = self.body(x)
        return (logits, logits) if self.training else logits


@pytest.mark.parametrize(
    "defense", [Standard(), *(make(FGSM(EPS)) for make in (AdversarialLoss, JoinedBatch))], ids=repr
)
def test_a_model_that_returns_more_than_logits_is_told(defense):
    model, data = Auxiliary(), images(20)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with pytest.raises(TypeError, match="the model returns a tuple in training; need a tensor"):
        fit(model, Classification(data, data, defense), optimizer, epochs=1, seed=0, batch_size=8)
    model = Tuple(CHANNELS * SIZE**2, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with pytest.raises(TypeError, match="the model returns a tuple; need a tensor"):
        fit(model, Classification(data, data, defense), optimizer, epochs=1, seed=0, batch_size=8)


def test_an_attack_of_another_library_may_validate():
    def foreign(x, y):
        x = x.clone().requires_grad_()
        nn.functional.cross_entropy(model(x), y).backward()
        return (x + EPS * x.grad.sign()).clamp(0, 1).detach()

    model, data = network(), images(20)
    scores = Classification(data, data, attack=foreign).validate(model.eval())
    own = Classification(data, data, attack=FGSM(EPS)).validate(model)
    assert scores == pytest.approx(own)


def identities():
    """What is another training, and what is not."""
    x, y = images(80)
    byte = (255 * x).round().byte()

    def made(train_set=(x, y), val=(x, y), defense=None, attack=None):
        return Classification(train_set, val, defense, attack=attack).identity

    class Own:
        def loss(self, model, x, y, generator):
            raise NotImplementedError

    others = [
        made(), made(defense=AdversarialLoss(FGSM(0.1))), made(defense=AdversarialLoss(FGSM(0.2))),
        made(defense=Own()), made(attack=FGSM(0.1)), made((x[:40], y[:40])), made((1 - x, y)),
        made((x, 2 - y)), made(val=(x[:40], y[:40])), made(loader((x, y))),
        made(loader((x[1:], y[1:]))),
    ]  # fmt: skip
    equal = [
        (made(), made(val=(x.clone(), y.clone()))),
        (made(defense=Own()), made(defense=Own())),
        (made((byte, y)), made((byte / 255, y))),
        (made(attack=lambda x, y: x), made(attack=lambda x, y: x)),
        (made(loader((x, y))), made(loader((x, y), shuffle=True))),
    ]
    return others, equal


def test_an_objective_says_what_it_is():
    others, equal = identities()
    assert len({tuple(identity.items()) for identity in others}) == len(others)
    assert all(one == two for one, two in equal)
    stream = Classification(DataLoader(Endless(), batch_size=16), images(20))
    assert stream.identity["training data"] == "batches"


def test_a_sweep_over_radii_in_one_file_is_told(tmp_path):
    data, path = images(40), tmp_path / "run.pt"
    options = {"epochs": 2, "batch_size": 16, "checkpoint": path}
    train(Classification(data, data, AdversarialLoss(FGSM(0.1))), **options)
    with pytest.raises(ValueError, match=r"with defense AdversarialLoss\(attack=FGSM\(eps=0.1"):
        train(Classification(data, data, AdversarialLoss(FGSM(0.2))), **options)


@pytest.mark.parametrize("make", [lambda data: data, loader])
def test_canaries_may_be_made_of_streams(make):
    def losses():
        model, data = network(), images(40)
        parts = Parts(model, torch.optim.SGD(model.parameters(), 0.1))
        size = None if make is loader else 16
        objective = Classification(make(data), data)
        with seeded(0, "model"):
            return first_losses(parts, objective, torch.Generator().manual_seed(0), 2, size)

    assert len(losses()) == 2
    assert losses() == losses()


def test_an_interrupted_stream_keeps_its_last_whole_epoch(tmp_path):
    path = tmp_path / "run.pt"
    data = images(40)

    class Interrupted(Classification):
        left = 8

        def loss(self, *arguments):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return super().loss(*arguments)

    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(data, data), batch_size=16, checkpoint=path)
    assert load(path)["progress"]["epoch"] == 2
    assert same(
        train(Classification(data, data), batch_size=16)[0],
        train(Classification(data, data), batch_size=16, checkpoint=path)[0],
    )
