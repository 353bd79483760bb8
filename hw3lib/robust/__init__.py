"""Adversarial robustness of part 2: attacks, defences, and what still stands under attack.

Example:
    A classifier is any function of pixels; a radius is in pixels; masks become shares.

    >>> import torch
    >>> from torch import nn
    >>> from hw3lib import robust
    >>> rng = torch.Generator().manual_seed(0)
    >>> model: robust.Classifier = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> x = torch.rand(20, 3, 2, 2, generator=rng)
    >>> y = model(x).argmax(1)
    >>> eps: robust.Radius = 8 / 255
    >>> norm: robust.Norm = "linf"
    >>> attack: robust.Attack = robust.PGD(eps, norm=norm)
    >>> others: robust.Attacker = lambda x, y: x
    >>> robust.accuracy(robust.correct(model, x, y)).value
    1.0
    >>> robust.withstood(model, attack, x, y).shape
    torch.Size([20])
"""

from hw3lib.robust.attacks import FGSM, PGD, Attack, SignNoise, input_gradient, margin
from hw3lib.robust.balls import Norm, Radius
from hw3lib.robust.checklist import (
    Averaged,
    Finding,
    catastrophic_overfitting,
    gradient_masking,
)
from hw3lib.robust.classification import Classification
from hw3lib.robust.defenses import TRADES, AdversarialLoss, JoinedBatch, Standard
from hw3lib.robust.evaluate import (
    Attacker,
    accuracy,
    correct,
    course_accuracy,
    eps_curve,
    report,
    restart_curve,
    step_curve,
    transfer_matrix,
    withstood,
)
from hw3lib.robust.modes import Classifier
from hw3lib.robust.resnet import EightBit, Normalize, ResNet, StraightThrough

__all__ = [
    "FGSM",
    "PGD",
    "TRADES",
    "AdversarialLoss",
    "Attack",
    "Attacker",
    "Averaged",
    "Classification",
    "Classifier",
    "EightBit",
    "Finding",
    "JoinedBatch",
    "Norm",
    "Normalize",
    "Radius",
    "ResNet",
    "SignNoise",
    "Standard",
    "StraightThrough",
    "accuracy",
    "catastrophic_overfitting",
    "correct",
    "course_accuracy",
    "eps_curve",
    "gradient_masking",
    "input_gradient",
    "margin",
    "report",
    "restart_curve",
    "step_curve",
    "transfer_matrix",
    "withstood",
]
