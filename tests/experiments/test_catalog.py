"""The list of what ships: quick to read."""

import json
import subprocess
import sys

from hw3lib.experiments.catalog import COURSE_EPOCHS, planned, published
from hw3lib.experiments.part2.attacked import UnderAttack
from hw3lib.experiments.part2.deviations import Deviations
from hw3lib.experiments.part2.resnet_training import TrainResNet
from hw3lib.robust.defenses import Standard
from hw3lib.runs.schedule import needed

SLOW = {"matplotlib", "pandas", "scipy.ndimage", "scipy.stats", "sklearn", "torchvision"}
"""What only a computation or a picture needs; together they take longer to import than torch."""


def test_the_catalog_imports_nothing_that_only_a_computation_needs():
    code = "import json, sys, hw3lib.experiments.catalog; print(json.dumps(list(sys.modules)))"
    command = [sys.executable, "-c", code]
    imported = set(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    assert "torch" in imported
    assert not imported & SLOW


def test_what_is_planned_does_not_ship_yet_but_for_what_has_no_study(monkeypatch):
    ships = {entry.settings for entry in published([0, 1])}
    listed = [entry.settings for entry in planned([0, 1])]
    assert len(listed) == len(set(listed))
    trainings = [one for one in listed if isinstance(one, TrainResNet)]
    defended = [one for one in trainings if one.defense != Standard()]
    assert [one.epochs for one in defended] == [COURSE_EPOCHS] * 8
    assert {one.defense.attack.cut for one in defended} == {"pixels", "normalized"}
    assert not {*defended} & ships
    measured = [one.model for one in listed if isinstance(one, UnderAttack | Deviations)]
    assert all(measured.count(training) == 2 for training in trainings)


def test_planned_defences_differ_in_what_they_learn_from():
    listed = (entry.settings for entry in planned())
    trainings = [one for one in listed if isinstance(one, TrainResNet)]
    defended = [one for one in trainings if one.defense != Standard()]
    assert len({tuple(one.canary()) for one in defended}) == len(defended) == 4


def test_what_others_are_made_from_comes_before_them():
    listed = [entry.settings for entry in published([0, 1])]
    place = {settings: number for number, settings in enumerate(listed)}
    for settings in listed:
        # The ready-made network of all seeds is that of the first.
        assert all(place.get(other, -1) < place[settings] for other in needed(settings)), settings
