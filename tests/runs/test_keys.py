"""Keys are names that others hold on to: no move of code and no new setting may change one."""

import hashlib
import json
from pathlib import Path

import pytest

import hw3lib.experiments.catalog  # noqa: F401 - registers every kind of settings
from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.defenses import AdversarialLoss, JoinedBatch
from hw3lib.runs import PUBLISHED, Settings

KEYS = json.loads(Path(__file__).with_name("published_keys.json").read_text())
"""Every key that was published, and the settings that it stands for."""


@pytest.mark.parametrize("key", KEYS)
def test_published_settings_keep_their_key(key):
    experiment, settings = KEYS[key]["experiment"], KEYS[key]["settings"]
    made = Settings.registry[experiment](**settings)
    assert made.key == key
    assert made.written() == settings
    text = json.dumps(KEYS[key], sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == key


def test_what_was_published_is_still_there():
    stored = {path.stem for path in PUBLISHED.glob("*/*.json")}
    assert KEYS.keys() <= stored


@pytest.mark.parametrize("attack", [FGSM(0.01), PGD(0.01)], ids=repr)
@pytest.mark.parametrize("wrap", [AdversarialLoss, JoinedBatch])
def test_a_field_added_to_an_attack_moves_no_key_at_its_default(attack, wrap):
    training = Settings.registry["resnet_training"]
    kind = type(attack)
    assert "look" not in training(defense=wrap(attack)).canonical()
    fast = training(defense=wrap(kind(0.01, look="fast")))
    assert '"look":"fast"' in fast.canonical()
    assert fast.key != training(defense=wrap(attack)).key
    assert "fast" in fast.describe()
