"""Variational autoencoders, adversarial attacks and defences, measured.

What people use most is here, and is imported when it is first asked for; the subpackages `vae`,
`robust`, `training`, `runs` and `experiments` have the rest.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hw3lib.experiments.part1.vae_training import TrainVAE, load_vae
    from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
    from hw3lib.experiments.part2.zoo import resnet18
    from hw3lib.robust import (
        FGSM,
        PGD,
        TRADES,
        AdversarialLoss,
        Classification,
        JoinedBatch,
        Normalize,
        SignNoise,
        Standard,
        accuracy,
        correct,
        eps_curve,
        gradient_masking,
        report,
        withstood,
    )
    from hw3lib.runs import Settings, run
    from hw3lib.stats import Interval, bootstrap_interval, mean_interval
    from hw3lib.training import fit
    from hw3lib.vae import VAE

_HOMES = {
    "hw3lib.experiments.part1.vae_training": ("TrainVAE", "load_vae"),
    "hw3lib.experiments.part2.resnet_training": ("TrainResNet", "load_resnet"),
    "hw3lib.experiments.part2.zoo": ("resnet18",),
    "hw3lib.robust": (
        "FGSM", "PGD", "SignNoise", "Standard", "AdversarialLoss", "JoinedBatch", "TRADES",
        "Classification", "Normalize", "accuracy", "correct", "eps_curve", "gradient_masking",
        "report", "withstood",
    ),
    "hw3lib.runs": ("Settings", "run"),
    "hw3lib.stats": ("Interval", "bootstrap_interval", "mean_interval"),
    "hw3lib.training": ("fit",),
    "hw3lib.vae": ("VAE",),
}  # fmt: skip

__all__ = [
    "FGSM",
    "PGD",
    "TRADES",
    "VAE",
    "AdversarialLoss",
    "Classification",
    "Interval",
    "JoinedBatch",
    "Normalize",
    "Settings",
    "SignNoise",
    "Standard",
    "TrainResNet",
    "TrainVAE",
    "accuracy",
    "bootstrap_interval",
    "correct",
    "eps_curve",
    "fit",
    "gradient_masking",
    "load_resnet",
    "load_vae",
    "mean_interval",
    "report",
    "resnet18",
    "run",
    "withstood",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562), so that `import hw3lib` takes no time."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
