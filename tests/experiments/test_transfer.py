"""What images made on one network do to another."""

import numpy as np

from hw3lib.experiments.part2.attacked import (
    UnderAttack,
)
from hw3lib.experiments.part2.transfer import TransferStudy
from hw3lib.robust.attacks import FGSM
from tests.experiments.tiny import TINY, stored


def test_transfer_to_itself_is_the_attack_with_full_knowledge(cache):
    models = (TINY, TINY.changed(seed=1))
    table = stored(TransferStudy(models=models, attacks=(FGSM(0.03),))).arrays
    assert table["shown"].shape == (1, 3, 2, 250)
    assert not (table["fooled"] & ~table["shown"]).any()
    assert table["cosine"].shape == (1, 250)
    alone = stored(UnderAttack(model=TINY, attacks=(FGSM(0.03),), images="course")).arrays["right"]
    assert np.array_equal(table["fooled"][0, 0, 0], alone[0] & ~alone[1])
