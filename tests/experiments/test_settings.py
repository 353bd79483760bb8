"""Settings of part 2: they survive JSON, and their canaries repeat and notice changes."""

import numpy as np
import pytest
from pydantic import ValidationError

from hw3lib.experiments.part1.gradient_estimators import VaeGradients
from hw3lib.experiments.part2.attack_strength import AttackStrength
from hw3lib.experiments.part2.attacked import (
    COURSE_FGSM,
    COURSE_PGD,
    AdversarialPictures,
    UnderAttack,
)
from hw3lib.experiments.part2.deviations import Deviations
from hw3lib.experiments.part2.evaluation import Checklist, RadiusCurves
from hw3lib.experiments.part2.gradient_sign import GradientSign
from hw3lib.experiments.part2.loss_against_batch import LossAgainstBatch
from hw3lib.experiments.part2.pictures_by_radius import PicturesByRadius
from hw3lib.experiments.part2.side_by_side import Referee, SideBySide
from hw3lib.experiments.part2.transfer import TransferStudy
from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.defenses import AdversarialLoss, JoinedBatch, Standard
from tests.experiments.tiny import TINY

SHORT = PGD(0.03, steps=2)

ALL_SETTINGS = [
    TINY,
    TINY.changed(defense=AdversarialLoss(FGSM(0.03), alpha=0.3)),
    TINY.changed(defense=JoinedBatch(COURSE_PGD), start=TINY, augmented=True),
    UnderAttack(model=TINY, attacks=(COURSE_FGSM, SHORT)),
    AdversarialPictures(model=TINY, attack=COURSE_FGSM),
    PicturesByRadius(
        pictures=AdversarialPictures(model=TINY, attack=COURSE_FGSM),
        others=(TINY.changed(seed=1),),
        attacks=(FGSM(0.03), SHORT),
    ),
    GradientSign(model=TINY),
    TransferStudy(models=(TINY, TINY.changed(seed=1)), attacks=(COURSE_FGSM,)),
    AttackStrength(model=TINY, steps=(1, 3), restarts=2),
    LossAgainstBatch(model=TINY, attack=SHORT),
    Deviations(model=TINY, pgd_steps=2),
    RadiusCurves(model=TINY),
    Checklist(model=TINY, surrogate=TINY.changed(seed=1), attack=SHORT),
    SideBySide(model=TINY, steps=3),
    Referee(model=TINY),
]


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=lambda s: s.experiment)
def test_settings_survive_json_and_canaries_repeat(settings):
    again = type(settings)(**settings.model_dump(mode="json"))
    assert again == settings
    assert again.key == settings.key
    canary = settings.canary()
    assert again.canary() == canary
    assert np.isfinite(canary).all()


def test_canaries_notice_another_attack_defence_or_schedule():
    base = TINY.canary()
    assert base != TINY.changed(defense=Standard(label_smoothing=0.1)).canary()
    assert base != TINY.changed(defense=JoinedBatch(FGSM(0.03))).canary()
    assert base != TINY.changed(augmented=True).canary()
    assert base != TINY.changed(erased=8).canary()
    honest = UnderAttack(model=TINY, attacks=(PGD(0.03),)).canary()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PGD, "_move", lambda _self, _ball, point, _gradient: point)
        assert UnderAttack(model=TINY, attacks=(PGD(0.03),)).canary() != pytest.approx(honest)


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (
            TransferStudy,
            {"models": (TINY, TINY.changed(dataset="cifar10")), "attacks": (SHORT,)},
            "give one data set",
        ),
        (VaeGradients, {"images": 65}, "less than or equal to 64"),
    ],
)
def test_what_cannot_be_computed_is_refused_before_anything_is(kind, wrong, message):
    with pytest.raises(ValidationError, match=message):
        kind(**wrong)
