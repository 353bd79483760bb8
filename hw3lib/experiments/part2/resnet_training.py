"""Training a ResNet (part 2), from scratch or from another run's weights, and getting it back."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from hw3lib import data, stats, training
from hw3lib.experiments.base import CPU, Training, course_of, device_of, outcome, restored, tensors
from hw3lib.robust.defenses import Defense, ImageObjective, Standard, predict
from hw3lib.robust.resnet import ResNet
from hw3lib.runs.settings import Context, Outcome
from hw3lib.runs.store import run as get_run

SIZES = {"resnet18": {"width": 64, "blocks": 2}, "small": {"width": 16, "blocks": 1}}
"""Networks by name; the small one trains on a CPU in seconds."""

STEP_EPOCHS = 7
"""The course's schedule divides the learning rate by ten every so many epochs."""


class TrainResNet(Training):
    """Train a ResNet on images; defaults are the course's, without augmentation.

    Three quarters of the test images are the validation set, as in the course, and the network's
    accuracy is reported on the rest and on all.

    Attributes:
        dataset: "cifar10" or "shapes".
        network: "resnet18" or "small".
        start: the run whose weights training starts from; None starts from scratch.
        half: train on one of two disjoint stratified halves, "a" or "b".
        defense: what is minimised.
        augmented: flip and crop the training images at random.
        erased: side of a square of each training image that is blanked (cutout); 0 blanks none.
        train_images: train on the first so many images alone; 0 takes all.
        epochs, batch_size, learning_rate, momentum, nesterov, weight_decay: of SGD.
        schedule: "step" divides the learning rate by ten every seven epochs; "one_cycle" rises to
            it and falls to zero (Smith and Topin 2018); "constant" leaves it; "linear" lets it
            fall to zero from the first step.
        keep: weights of the "best" validation epoch, or of the "last".
        seed: of the initial weights, the order of the images, and the augmentation.

    Example:
        >>> from hw3lib import JoinedBatch, PGD
        >>> TrainResNet(defense=JoinedBatch(PGD(8 / 255)), epochs=5).changed(seed=3).seed
        3
    """

    experiment: ClassVar[str] = "resnet_training"
    added_later: ClassVar[tuple[str, ...]] = ("erased", "train_images")

    dataset: Literal["cifar10", "shapes"] = "cifar10"
    network: Literal["resnet18", "small"] = "resnet18"
    start: TrainResNet | None = None
    half: Literal["a", "b"] | None = None
    defense: Defense = Standard()
    augmented: bool = False
    erased: Annotated[int, Ge(0)] = 0
    train_images: Annotated[int, Ge(0)] = 0
    epochs: Annotated[int, Ge(0)] = 30
    learning_rate: Annotated[float, Gt(0)] = 5e-4
    momentum: Annotated[float, Ge(0)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Ge(0)] = 0.0
    schedule: Literal["step", "one_cycle", "constant", "linear"] = "step"
    keep: Literal["best", "last"] = "best"

    @property
    def checkpoint_key(self) -> str:
        """Runs that differ only in their epochs share a checkpoint, if their schedules agree.

        So do those that keep other weights of the same training.
        """
        alone = self.schedule in ("one_cycle", "linear")
        return self.key if alone else self.changed(epochs=0, keep="best").key

    @property
    def stages(self) -> list[int]:
        """Epochs of each training that the weights went through, the first one first."""
        return [*(self.start.stages if self.start else []), self.epochs]

    @property
    def first(self) -> TrainResNet:
        """The training from scratch that the weights come from."""
        return self.start.first if self.start else self

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        dataset = data.load(self.dataset).to(device)
        model = self.build(device)
        if self.start:
            start = get_run(self.start, weights=True)
            model.load_state_dict(tensors(start.weights))
        objective = self.objective(dataset)
        progress = self.fit(model, objective, context)
        state = progress.best_state if self.keep == "best" else training.cpu_state(model)
        # Half precision halves the file; what is measured is what is stored.
        weights = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
        model.load_state_dict({name: value.to(state[name]) for name, value in weights.items()})
        results = self._evaluate(model.eval(), dataset) | course_of(progress, model)
        return outcome(results, weights=weights, device=device, seconds=progress.seconds)

    def canary(self) -> list[float]:
        """Losses of two steps of the small network on embedded images, and of the full one.

        In double precision: batch norm and large steps double a rounding error with every step.
        """
        small = self.changed(dataset="shapes", network="small", start=None, half=None, epochs=1)
        dataset = data.load("shapes")
        objective = self._objective(dataset, torch.arange(64), torch.arange(64))
        model = small.build(CPU).double().train()
        parts = small.optimizer(model, steps_per_epoch=2)
        losses = self.first_losses(model, objective, *parts, steps=2)
        losses.append(objective.validate(model.eval())["cross_entropy"])
        full = self.changed(start=None).build(CPU).double().eval()
        losses.append(float(predict(full, dataset.x_test[:4]).logsumexp(1).mean().detach()))
        return losses

    def build(self, device: torch.device) -> ResNet:
        """The untrained network; its weights are drawn on the CPU."""
        with training.seeded(self.seed, "weights"):
            model = ResNet(len(data.CLASSES[self.dataset]), **SIZES[self.network])
        # Convolutions are faster on this layout, on CPUs and GPUs.
        return model.to(device).to(memory_format=torch.channels_last)

    def objective(self, dataset: data.Dataset) -> ImageObjective:
        """The loss on the training images, or some of them, and the validation."""
        train = torch.arange(len(dataset.y_train))
        if self.half:
            halves = data.stratified_halves(dataset.y_train, seed=0)
            train = halves["ab".index(self.half)]
        train = train[: self.train_images or None]
        return self._objective(dataset, train, data.test_split(len(dataset.y_test))[0])

    def _objective(self, dataset: data.Dataset, train: Tensor, val: Tensor) -> ImageObjective:
        """The loss on some training images, and the validation on some test images."""
        train, val = (index.to(dataset.y_train.device) for index in (train, val))
        return ImageObjective(
            (dataset.x_train[train], dataset.y_train[train]),
            (dataset.x_test[val], dataset.y_test[val]),
            self.defense,
            augmented=self.augmented,
            erased=self.erased,
        )

    def optimizer(
        self, model: ResNet, steps_per_epoch: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """SGD over all parameters, and the schedule of its learning rate by steps."""
        optimizer = torch.optim.SGD(
            model.parameters(),
            self.learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=True,
        )
        schedulers = torch.optim.lr_scheduler
        if self.schedule == "step":
            return optimizer, schedulers.StepLR(optimizer, STEP_EPOCHS * steps_per_epoch)
        if self.schedule == "constant":
            return optimizer, schedulers.ConstantLR(optimizer, factor=1.0)
        steps = max(self.epochs, 1) * steps_per_epoch
        if self.schedule == "linear":
            return optimizer, schedulers.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        return optimizer, schedulers.OneCycleLR(
            optimizer, self.learning_rate, total_steps=steps + 1, cycle_momentum=False
        )

    def fit(self, model: ResNet, objective: ImageObjective, context: Context) -> training.Progress:
        """Train as `compute` does."""
        steps = -(-objective.num_examples // self.batch_size)
        optimizer, scheduler = self.optimizer(model, steps)
        options = {"scheduler": scheduler, "select": "error"}
        return self.loop(model, objective, optimizer, context, **options)

    def _evaluate(self, model: ResNet, dataset: data.Dataset) -> dict[str, Any]:
        """Clean accuracy on the course's 2,500 test images and on all of them."""
        right = predict(model, dataset.x_test).argmax(1) == dataset.y_test
        _, test = data.test_split(len(right))
        course = right[test.to(right.device)]
        return {
            "test_accuracy": vars(stats.proportion(int(right.sum()), len(right))),
            "course_accuracy": vars(stats.proportion(int(course.sum()), len(course))),
        }


RECIPE = TrainResNet(
    defense=Standard(label_smoothing=0.1),
    augmented=True,
    learning_rate=0.1,
    nesterov=True,
    weight_decay=5e-4,
    schedule="one_cycle",
    keep="last",
)
"""How networks are trained to be good; the course's settings are the defaults."""


def pretraining(epochs: int | None = None) -> TrainResNet:
    """Our own recipe for the network that the course gives ready-made, in three stages.

    Blanked squares keep it from learning the training images by heart. The first stage takes the
    learning rate up and down again. The others start once more from where that ended: one at a high
    rate, away from the minimum that was found, and one down to zero, into a better one. `epochs` is
    the number of each stage; None takes the recipe's.
    """
    first, second, third = (40, 11, 33) if epochs is None else (epochs,) * 3
    up_and_down = RECIPE.changed(erased=12, epochs=first)
    away = up_and_down.changed(
        start=up_and_down,
        defense=Standard(),
        epochs=second,
        learning_rate=0.05,
        schedule="constant",
    )
    return away.changed(start=away, erased=8, epochs=third, schedule="linear")


def load_resnet(settings: TrainResNet, device: torch.device | None = None) -> ResNet:
    """The trained network in evaluation mode, trained if it is not stored.

    Example:
        >>> network = load_resnet(pretraining())  # ships with the package
        >>> sum(p.numel() for p in network.parameters())
        11173962
    """
    return restored(settings.build(device or CPU), get_run(settings, weights=True).weights)
