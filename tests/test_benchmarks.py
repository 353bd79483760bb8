"""The rivals of the benchmark do the same work as hw3lib; the table's arithmetic is right."""

import copy
import json

import pytest
import torch
import typer

from benchmarks import __main__ as table
from benchmarks import gpu, textbook
from benchmarks.__main__ import cells, describe
from benchmarks.rows import attack_row
from benchmarks.timing import Outcome, Row, alternate
from hw3lib import data
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.experiments.part2.resnet_training import TrainResNet
from hw3lib.experiments.part2.side_by_side import OTHERS, counterpart
from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.evaluate import withstood
from hw3lib.runs import Context

EPS = 2 / 255


@pytest.fixture(scope="module")
def model():
    """A small network after one epoch, so that it is right on some images."""
    settings = TrainResNet(
        dataset="shapes", network="small", epochs=1, batch_size=64, learning_rate=0.05
    )
    shapes = data.load("shapes")
    network = settings.build(torch.device("cpu"))
    settings.fit(network, settings.objective(shapes), Context())
    return network.eval()


@pytest.fixture(scope="module")
def images():
    shapes = data.load("shapes")
    return data.to_pixels(shapes.x_test[:40]), shapes.y_test[:40]


@pytest.mark.parametrize("steps", [1, 4])
def test_the_course_counts_what_we_count(model, images, steps):
    step = EPS if steps == 1 else 2.5 * EPS / steps
    attack = FGSM(EPS) if steps == 1 else PGD(EPS, steps=steps)
    ours = int(withstood(model, attack, *images).sum())
    assert 0 < ours < len(images[1])
    assert textbook.course_count(model, *images, EPS, step, steps) == ours


def test_the_textbook_has_the_same_network(model, images):
    plain = textbook.network(copy.deepcopy(model))
    torch.testing.assert_close(plain(images[0]), model(images[0]), rtol=1e-4, atol=1e-4)


def test_the_textbook_attack_is_ours(model, images):
    ours = PGD(EPS, steps=3)(model, *images)
    theirs = textbook.pgd(model, *images, EPS, 2.5 * EPS / 3, 3)
    # A gradient near zero can have either sign once it is rounded.
    assert ((ours - theirs).abs() < 1e-6).float().mean() > 0.999


@pytest.mark.parametrize("rival", OTHERS)
def test_a_rival_makes_the_same_images(model, images, rival):
    pytest.importorskip(rival)
    x, y = images
    attack = PGD(EPS, steps=10)
    theirs = counterpart(rival, copy.deepcopy(model), attack)(x, y)
    ours = attack(model, x, y)
    assert ((ours - theirs).abs() < 1e-5).float().mean() > 0.98


def test_the_textbook_trains_the_same_model():
    digits = data.load("digits").x_train[:256]
    model, _ = TrainVAE(num_filters=4).build(torch.device("cpu"))
    first = textbook.vae_epoch(model, digits, 32, 1e-3)
    assert textbook.vae_epoch(model, digits, 32, 1e-3) < first < 2400


def test_a_textbook_epoch_attacks_and_trains():
    shapes = data.load("shapes")
    settings = TrainResNet(dataset="shapes", network="small")
    network = settings.build(torch.device("cpu"))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    attacked = []

    def attack(model, x, y):
        assert not model.training
        attacked.append(len(x))
        return x

    loss = textbook.classifier_epoch(
        network, shapes.x_train[:100], shapes.y_train[:100], 64, optimizer, attack
    )
    assert sorted(attacked) == [36, 64]
    assert 1 < loss < 4


def test_both_ways_take_turns():
    order = []

    def way(name, value):
        return lambda i: order.append((name, i)) or value + i

    ours, theirs = alternate(way("ours", 1.0), way("theirs", 2.0), 3)
    assert [name for name, _ in order] == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert [i for _, i in order] == [0, 0, 1, 1, 2, 2]
    assert (ours.value, theirs.value, len(ours.seconds)) == (2.0, 3.0, 3)


def test_the_rounds_of_an_attack_share_the_images():
    parts = [(torch.zeros(2, 3), torch.tensor([0, 1])), (torch.ones(2, 3), torch.tensor([1, 1]))]
    shares = attack_row(
        parts,
        lambda x, y: float((x[:, 0] == y).double().mean()),
        lambda x, y: float((x[:, 1] == y).double().mean()) - 0.25,
        name="work", rival="them", target=1.0,
    )  # fmt: skip
    assert shares.size == "4 images"
    assert shares.ours.value == 0.75
    assert shares.difference == 0.25
    assert shares.agrees  # one image of four


def row(**changes):
    fields = {
        "name": "work", "size": "1 image", "rival": "them", "within": 0.1, "target": 2.0,
        "ours": Outcome((1.0, 1.0, 2.0), 0.5), "theirs": Outcome((3.0, 4.0, 2.0), 0.55),
    }  # fmt: skip
    return Row(**fields | changes)


def test_the_ratio_is_the_median_of_the_rounds():
    assert row().ratios == [3, 4, 1]
    assert row().ratio == 3
    assert row().wins
    assert describe(row())["wins"]
    assert cells(row())[3:5] == ["3.00", "1.00-4.00"]


def test_a_row_is_lost_by_its_ratio_or_by_its_values():
    assert cells(row(target=3.5))[-1] == "falls short"
    assert cells(row(within=0.01))[-1] == "values differ"
    assert not row(within=0.01).wins


def test_one_row_is_measured_anew_and_the_others_stay(monkeypatch, tmp_path):
    path = tmp_path / "table.json"
    monkeypatch.setattr(
        table, "all_rows", lambda _: {"first": lambda: row(target=1.0), "second": row}
    )
    table.main(only="first", output=path)
    table.main(only="second", output=path)
    before = json.loads(path.read_text())
    assert before["rows"].keys() == {"first", "second"}
    slower = row(ours=Outcome((1.0, 1.0, 7.0), 0.5))
    monkeypatch.setattr(table, "all_rows", lambda _: {"first": lambda: slower})
    table.main(only="first", output=path)
    after = json.loads(path.read_text())
    assert after["rows"]["second"] == before["rows"]["second"]
    assert after["rows"]["first"]["ours"]["seconds"] == [1, 1, 7]


def test_a_row_does_not_join_those_of_another_machine(monkeypatch, tmp_path):
    path = tmp_path / "table.json"
    monkeypatch.setattr(table, "all_rows", lambda _: {"first": row})
    table.main(only="first", output=path)
    path.write_text(path.read_text().replace(torch.__version__, "1.0"))
    with pytest.raises(typer.BadParameter, match=r"torch 1\.0, here"):
        table.main(only="first", output=path)


def test_without_a_gpu_its_rows_are_unmeasured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    measured = gpu.measure()
    assert {row["value"] for row in measured["rows"].values()} == {None}
    assert not measured["profiles"]


def test_a_training_is_timed_by_its_first_epochs(monkeypatch):
    monkeypatch.setattr(gpu, "GPU", "cpu")
    settings = TrainVAE(dataset="digits", num_filters=4)
    one, many = (gpu.training_seconds(settings, epochs, timed=1) for epochs in (1, 1000))
    assert 0 < one < many / 10


def test_a_table_of_the_gpu_has_no_other_rows(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "gpu.json"
    table.main(gpu_alone=True, output=path)
    content = json.loads(path.read_text())
    assert not content["rows"]
    assert set(content["gpu"]["rows"]) == set(gpu.ROWS)
