"""Adversarial loss against joined batch: the same objective, but for batch norm (question 2.3b)."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from hw3lib import data
from hw3lib.experiments.base import CPU, Experiment, device_of, outcome, resumable_blocks
from hw3lib.experiments.part2.base import COURSE_PGD
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.robust.defenses import AdversarialLoss, GradientAttack, JoinedBatch, attacked_batch
from hw3lib.robust.modes import keeping_statistics
from hw3lib.robust.resnet import ResNet
from hw3lib.runs.settings import Context, Outcome

Table = dict[str, Tensor]


class LossAgainstBatch(Experiment):
    """Parameter gradients of both defences on the same images, with batch norm in both modes.

    Attributes:
        model: the network.
        untrained: how many networks that a training starts from are measured beside it.
        attack: of both defences.
        batches: training batches that are compared.
        batch_size: clean images in each.
        seed: of the choice of images and of the untrained networks.
    """

    experiment: ClassVar[str] = "loss_against_batch"

    model: TrainResNet
    untrained: Annotated[int, Ge(0)] = 1
    attack: GradientAttack = COURSE_PGD
    batches: Annotated[int, Ge(2)] = 16
    batch_size: Annotated[int, Ge(2)] = 64
    seed: int = 0

    def compute(self, context: Context) -> Outcome:
        """`measure` of the network, and of the untrained ones as `untrained_...`, a row each."""
        device = device_of(context)
        dataset = data.load(self.model.dataset)
        rng = data.generator(self.seed, "loss against batch")
        order = torch.randperm(len(dataset.y_train), generator=rng)
        order = order[: self.batches * self.batch_size]
        x, y = data.to_pixels(dataset.x_train[order]).to(device), dataset.y_train[order].to(device)
        networks = [load_resnet(self.model, device).requires_grad_(True)]
        seeds = range(self.seed, self.seed + self.untrained)
        networks += [self.model.changed(seed=seed).build(device) for seed in seeds]
        blocks = [partial(self.measure, network, x, y) for network in networks]
        (trained, *others), spent = resumable_blocks(blocks, context, self.describe())
        tables = {f"untrained_{name}": [table[name] for table in others] for name in trained}
        rows = {name: torch.stack(values) for name, values in tables.items() if values}
        return outcome({}, trained | rows, device=device, seconds=spent)

    def canary(self) -> list[float]:
        """The same on two small batches of embedded images with an untrained network."""
        small = self.model.changed(dataset="shapes", network="small", start=None)
        network = small.build(CPU).double()
        dataset = data.load("shapes")
        x = data.to_pixels(dataset.x_train[:16]).double()
        table = self.changed(batch_size=8).measure(network, x, dataset.y_train[:16])
        # In evaluation mode the difference is rounding alone, which every processor makes anew.
        return [float(value.mean()) for name, value in table.items() if name != "eval_difference"]

    def measure(self, model: ResNet, x: Tensor, y: Tensor) -> Table:
        """Relative difference and cosine of the two gradients by mode, (batches,) each.

        Both gradients are of the same attacked images, and no batch moves the statistics that the
        next attack is made with. So batch norm's use of a batch is all that they differ in.
        """
        rows: list[Table] = []
        with keeping_statistics(model):
            for batch in zip(x.split(self.batch_size), y.split(self.batch_size), strict=True):
                ready = _ready(attacked_batch(self.attack, model, *batch))
                row = {}
                for mode in ("eval", "train"):
                    model.train(mode == "train")
                    separate = _gradient(model, AdversarialLoss(ready, alpha=0.5), *batch)
                    joined = _gradient(model, JoinedBatch(ready), *batch)
                    row[f"{mode}_difference"] = (separate - joined).norm() / joined.norm()
                    row[f"{mode}_cosine"] = torch.cosine_similarity(separate, joined, dim=0)
                rows.append(row)
        return {name: torch.stack([row[name] for row in rows]).cpu() for name in rows[0]}


def _ready(images: Tensor) -> Any:
    """In place of an attack: adversarial images that are made already."""
    return SimpleNamespace(perturb=lambda *_args, **_options: images)


def _gradient(
    model: ResNet, defense: AdversarialLoss | JoinedBatch, x: Tensor, y: Tensor
) -> Tensor:
    """The gradient of a defence's loss with respect to all parameters, in one vector.

    In double precision: single is too short for the sums over eleven million entries that follow.
    """
    loss, _ = defense.loss(model, x, y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients]).double()
