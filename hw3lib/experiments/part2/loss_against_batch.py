"""Adversarial loss against joined batch: the same objective, but for batch norm (question 2.3b)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from hw3lib import data
from hw3lib.experiments.base import Experiment, device_of, outcome
from hw3lib.experiments.part2.attacked import COURSE_PGD
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.robust.defenses import AdversarialLoss, GradientAttack, JoinedBatch
from hw3lib.robust.resnet import ResNet
from hw3lib.runs.settings import Context, Outcome

MODES = ("eval", "train")


class LossAgainstBatch(Experiment):
    """Parameter gradients of both defences on the same batches, with batch norm in both modes.

    Attributes:
        model: the network.
        attack: of both defences.
        batches: training batches that are compared.
        batch_size: clean images in each.
        seed: of the choice of images.
    """

    experiment: ClassVar[str] = "loss_against_batch"

    model: TrainResNet
    attack: GradientAttack = COURSE_PGD
    batches: Annotated[int, Ge(2)] = 8
    batch_size: Annotated[int, Ge(2)] = 64
    seed: int = 0

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        dataset = data.load(self.model.dataset)
        network = load_resnet(self.model, device).requires_grad_(True)
        num = self.batches * self.batch_size
        order = torch.randperm(
            len(dataset.y_train), generator=data.generator(self.seed, "loss against batch")
        )[:num]
        x = data.to_pixels(dataset.x_train[order]).to(device)
        table = self.measure(network, x, dataset.y_train[order].to(device))
        return outcome({}, table, dataset=dataset, device=device)

    def canary(self) -> list[float]:
        """The same on two small batches of embedded images with an untrained network."""
        small = self.model.changed(dataset="shapes", network="small", start=None)
        network = small.build(torch.device("cpu")).double()
        dataset = data.load("shapes")
        x = data.to_pixels(dataset.x_train[:16]).double()
        table = self.changed(batch_size=8).measure(network, x, dataset.y_train[:16])
        # In evaluation mode the difference is rounding alone, which every processor makes anew.
        return [float(value.mean()) for name, value in table.items() if name != "eval_difference"]

    def measure(self, model: ResNet, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Relative difference and cosine of the two gradients by mode, (batches,) each."""
        defenses = (AdversarialLoss(self.attack, alpha=0.5), JoinedBatch(self.attack))
        batches = list(zip(x.split(self.batch_size), y.split(self.batch_size), strict=True))
        table = {}
        for mode in MODES:
            model.train(mode == "train")
            pairs = [[_gradient(model, d, *batch) for d in defenses] for batch in batches]
            table[f"{mode}_difference"] = torch.stack([(a - b).norm() / b.norm() for a, b in pairs])
            table[f"{mode}_cosine"] = torch.stack(
                [torch.cosine_similarity(a, b, dim=0) for a, b in pairs]
            )
        return {name: value.cpu() for name, value in table.items()}


def _gradient(
    model: ResNet, defense: AdversarialLoss | JoinedBatch, x: Tensor, y: Tensor
) -> Tensor:
    """The gradient of a defence's loss with respect to all parameters, in one vector.

    In double precision: single is too short for the sums over eleven million entries that follow.
    """
    loss, _ = defense.loss(model, x, y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients]).double()
