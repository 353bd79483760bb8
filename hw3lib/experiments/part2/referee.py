"""AutoAttack, run by the package torchattacks: an outside referee."""

from __future__ import annotations

import importlib
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from hw3lib.experiments.base import Experiment, device_of, outcome
from hw3lib.experiments.part2.attacked import canary_losses, test_images
from hw3lib.experiments.part2.evaluation import EIGHT
from hw3lib.experiments.part2.resnet_training import TrainResNet, load_resnet
from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.balls import LinfBall
from hw3lib.robust.checks import checked
from hw3lib.robust.evaluate import _batches, correct
from hw3lib.robust.modes import Classifier
from hw3lib.runs.settings import Context, Outcome

# An outside referee


def autoattack(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    seed: int = 0,
    batch_size: int = 500,
    steps: int = 100,
    queries: int = 5000,
) -> Tensor:
    """Where the model withstands the standard AutoAttack (Croce and Hein 2020), (N,) bool.

    The attacks are those of the package torchattacks, one after another on what is left; their
    images are put back into the ball and judged here. They draw their starts for a batch at a time,
    so the mask depends on `batch_size` as on `seed`.

    Args:
        model, x, y, batch_size: as in `correct`; four or more classes.
        eps: one radius for all channels.
        seed: of the attacks' random numbers.
        steps, queries: of each gradient attack, of the random search; by default the paper's.

    Raises:
        ImportError: torchattacks is not installed.
        TypeError: eps differs between channels.
        ValueError: there are too few classes, or eps is no radius.
    """
    package = _torchattacks()
    _check_one_radius(eps)
    right = correct(model, x, y, batch_size=batch_size)
    # The package seeds the global generators.
    devices = range(torch.cuda.device_count())
    with checked(model, x, y, eps, None, ""), torch.random.fork_rng(devices):
        attack = _standard_attacks(package, model, x, eps, seed, steps, queries)
        for batch in _batches(right, batch_size):
            # It takes views, which the layout channels_last does not have.
            images = attack(x[batch].float().contiguous(), y[batch]).to(x)
            ball = LinfBall.around(x[batch], eps)
            images = images.clamp(ball.lower, ball.upper)
            right[batch] = correct(model, images, y[batch], batch_size=batch_size)
    return right


# The adapter to torchattacks


def _torchattacks() -> Any:
    try:
        return importlib.import_module("torchattacks")
    except ImportError as error:
        raise ImportError(
            "AutoAttack needs the package torchattacks, which is not installed; install it with "
            "`pip install --no-deps torchattacks==3.5.1` (its own pin of requests conflicts with "
            "other packages, and it does not use it)"
        ) from error


def _standard_attacks(
    package: Any, model: Classifier, x: Tensor, eps: float, seed: int, steps: int, queries: int
) -> Any:
    # The package's own class AutoAttack takes a tenth of the paper's steps.
    adapter = _Adapter(model, x)
    common = {"eps": eps, "norm": "Linf", "seed": seed}
    targeted = {"steps": steps, "n_classes": _classes(model, x)}
    return package.MultiAttack(
        [
            package.APGD(adapter, steps=steps, loss="ce", **common),
            package.APGDT(adapter, **targeted, **common),
            package.FAB(adapter, multi_targeted=True, **targeted, **common),
            package.Square(adapter, n_queries=queries, resc_schedule=False, **common),
        ]
    )


def _check_one_radius(eps: float) -> None:
    if isinstance(eps, tuple):
        raise TypeError(
            f"eps={eps} differs between channels, but AutoAttack takes one radius for all; "
            "pass a float"
        )
    FGSM(eps)  # refuses what is no radius


def _classes(model: Classifier, x: Tensor) -> int:
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    if classes < 4:
        raise ValueError(f"AutoAttack's losses compare four logits; the model has {classes}")
    return classes


class _Adapter(nn.Module):
    """A classifier as torchattacks wants it: float32, on a device that its parameter names."""

    def __init__(self, model: Classifier, x: Tensor) -> None:
        super().__init__()
        self.anchor = nn.Parameter(x.new_zeros(()))
        # Held in a tuple, so that train() and eval() do not reach the caller's modules.
        self.held, self.dtype = (model,), x.dtype

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = _InputGradient.apply(x.to(self.dtype), self.held[0])
        return logits.float()


class _InputGradient(torch.autograd.Function):
    """A classifier through which `backward` reaches the input and no parameter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Classifier) -> Tensor:
        with torch.set_grad_enabled(ctx.needs_input_grad[0]):
            ctx.x = x.detach().requires_grad_()
            ctx.logits = logits = model(ctx.x)
        return logits.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (result,) = torch.autograd.grad(ctx.logits, ctx.x, gradient, retain_graph=True)
        return result, None


class Referee(Experiment):
    """Where a network withstands AutoAttack, run by the package torchattacks.

    Attributes:
        model: the network.
        eps: radius, in pixels of [0, 1].
        images: how many of the course's test images.
        seed: of its noise.
    """

    experiment: ClassVar[str] = "referee"

    model: TrainResNet
    eps: Annotated[float, Ge(0)] = EIGHT
    images: Annotated[int, Ge(1)] = 500
    seed: int = 0

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        dataset, index, x, y = test_images(self.model, "course", device, self.images)
        right = autoattack(load_resnet(self.model, device), x, y, self.eps, seed=self.seed)
        return outcome(
            {},
            {"right": right, "index": index},
            dataset=dataset,
            device=device,
        )

    def canary(self) -> list[float]:
        """Loss of an untrained network under PGD: AutoAttack is not ours, and its package rare."""
        return canary_losses(self.model, (PGD(self.eps),))
