import subprocess
import sys
from typing import get_args

import pytest

from hw3lib.book import parameters
from hw3lib.book.parameters import (
    Count,
    DigitData,
    PictureData,
    Positive,
    Radius,
    Seed,
    Share,
    Verified,
    check_parameters,
)
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.experiments.part2.resnet_training import TrainResNet
from hw3lib.robust.balls import CIFAR10_STD

KINDS = {
    "draws": Count,
    "seed": Seed,
    "betas": list[Positive],
    "dataset": DigitData,
    "fgsm_eps": Radius,
    "alpha": Share,
    "verify": Verified,
}
RIGHT = {
    "draws": 2, "seed": 0, "betas": [0.5, 1], "dataset": "digits", "fgsm_eps": 0.1,
    "alpha": 1, "verify": "all",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("draws", 0, "draws=0: Input should be greater than 0"),
        ("draws", 2.0, r"draws=2\.0: Input should be a valid integer"),
        ("draws", True, "draws=True: Input should be a valid integer"),
        ("seed", -1, "seed=-1: Input should be greater than or equal to 0"),
        ("betas", [1, -4], r"betas\[1\]=-4: Input should be greater than 0"),
        ("betas", 4, "betas=4: Input should be a valid list"),
        ("betas", ["one"], r"betas\[0\]='one': Input should be a valid number"),
        ("dataset", "mnits", "dataset='mnits': Input should be 'mnist' or 'digits'"),
        ("fgsm_eps", 8, "fgsm_eps=8: normalised pixels span 3.8, so this allows any image"),
        ("fgsm_eps", -0.1, "fgsm_eps=-0.1: Input should be greater than or equal to 0"),
        ("alpha", 2, r"alpha=2: the weight of the clean loss lies in \[0, 1\]"),
        ("alpha", float("nan"), r"alpha=nan: the weight of the clean loss lies in \[0, 1\]"),
        ("verify", "some", "verify='some': Input should be 'kinds' or 'all'"),
    ],
)
def test_a_parameter_is_what_its_annotation_says(name, value, message):
    check_parameters({"__annotations__": KINDS} | RIGHT)
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_parameters({"__annotations__": KINDS} | RIGHT | {name: value})


def test_the_data_sets_are_those_of_the_trainings():
    for kind, training in ((DigitData, TrainVAE), (PictureData, TrainResNet)):
        assert get_args(kind) == get_args(training.model_fields["dataset"].annotation)


def test_the_widest_radius_is_the_least_span_of_a_normalised_channel():
    assert abs(parameters.WIDEST_RADIUS - 1 / max(CIFAR10_STD)) < 0.05


def test_looking_at_parameters_loads_nothing_that_takes_long():
    said = "import sys, hw3lib.book.parameters; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", said], capture_output=True, text=True, check=True
    )
    slow = {"torch", "numpy", "pandas", "scipy", "matplotlib", "seaborn"}
    assert slow.isdisjoint(loaded.stdout.split())
