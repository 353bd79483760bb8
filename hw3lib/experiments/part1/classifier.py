"""A small digit classifier: the instrument that questions 1.9 to 1.11 measure pictures with."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from pydantic import model_validator
from torch import Tensor, nn

from hw3lib import data, runs, stats, training
from hw3lib.augmentation import PADDING, augment
from hw3lib.data import GREY_LEVELS
from hw3lib.experiments.base import CPU, Training, course_of, device_of, outcome, restored
from hw3lib.robust.defenses import scores
from hw3lib.runs import Context, Outcome

NUM_CLASSES = 10

NUM_FEATURES = 64
"""Length of the last hidden layer, in which distances between sets of images are measured."""

MAX_SHIFT = 2
"""Training images are moved by up to this many pixels either way."""

EPOCHS = {"mnist": 12, "digits": 10}
"""Default passes over each data set; the smaller one needs more of them."""


class DigitClassifier(nn.Module):
    """Grey levels (N, 28, 28) in 0..15, integer or not, to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),  # 28 -> 14
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 14 -> 7
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 7 -> 3
            nn.Flatten(),
            nn.Linear(3 * 3 * 64, NUM_FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, (N, 64), for grey levels x (N, 28, 28)."""
        scaled = x.unsqueeze(1) * (2 / (GREY_LEVELS - 1)) - 1  # 0..15 -> -1..1
        return self.body(scaled)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class ClassifierObjective:
    """Cross-entropy on randomly shifted images, as an objective for `hw3lib.training.fit`.

    Args:
        train, val: (N, 28, 28) uint8 grey levels 0..15, on the model's device.
        train_labels, val_labels: (N,) int64.
    """

    metrics: tuple[str, ...] = ("cross_entropy", "error")

    def __init__(
        self, train: Tensor, train_labels: Tensor, val: Tensor, val_labels: Tensor
    ) -> None:
        self.train, self.train_labels = train, train_labels
        self.val, self.val_labels = val, val_labels
        self.num_examples = len(train)

    def draw(self, generator: torch.Generator) -> Tensor:
        """How far each training image is moved down and to the right, (N, 2)."""
        size = (self.num_examples, 2)
        return torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, size, generator=generator)

    def loss(self, model: DigitClassifier, index: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of a batch in nats; sums of cross-entropy and errors over it."""
        labels = self.train_labels[index]
        logits = model(shift(self.train[index], offsets)).float()
        nll = F.cross_entropy(logits, labels, reduction="none")
        wrong = (logits.argmax(1) != labels).sum()
        return nll.mean(), torch.stack([nll.sum(), wrong]).detach()

    @torch.no_grad()
    def validate(self, model: DigitClassifier) -> dict[str, float]:
        """Mean cross-entropy in nats and share of errors on the validation set."""
        return scores(digit_logits(model, self.val), self.val_labels)


class TrainClassifier(Training):
    """Train the digit classifier.

    Attributes:
        epochs: by default as many as `EPOCHS` says for the data set.
        seed: of the initial weights, the order of the images, and the shifts.
    """

    experiment: ClassVar[str] = "classifier"

    dataset: Literal["mnist", "digits"] = "mnist"
    epochs: Annotated[int, Ge(0)] = EPOCHS["mnist"]

    @model_validator(mode="before")
    @classmethod
    def _default_epochs(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("dataset") in EPOCHS:
            return {"epochs": EPOCHS[given["dataset"]]} | given
        return given

    def compute(self, context: Context) -> Outcome:
        from sklearn.metrics import confusion_matrix

        device = device_of(context)
        dataset = data.load(self.dataset).to(device)
        model = self.build(device)
        objective, optimizer = self.objective(dataset), self.optimizer(model)
        progress = self.loop(model, objective, optimizer, context, select="cross_entropy")
        model.load_state_dict(progress.best_state)
        labels = dataset.y_test.cpu()
        predicted = digit_logits(model.eval(), data.quantize(dataset.x_test)).argmax(1).cpu()
        accuracy = stats.proportion(int((predicted == labels).sum()), len(labels))
        results = {
            "test_accuracy": vars(accuracy),
            "confusion": confusion_matrix(labels, predicted, labels=range(NUM_CLASSES)).tolist(),
            **course_of(progress, model),
        }
        weights = progress.best_state
        return outcome(results, weights=weights, device=device, seconds=progress.seconds)

    def canary(self) -> list[float]:
        """Losses of ten optimisation steps on the embedded digits, and of a validation."""
        objective = self.objective(data.load("digits"))
        model = self.build(CPU)
        losses = self.first_losses(model, objective, self.optimizer(model))
        return [*losses, objective.validate(model)["cross_entropy"]]

    def build(self, device: torch.device) -> DigitClassifier:
        """The untrained model; its weights are drawn on the CPU."""
        with training.seeded(self.seed, "weights"):
            model = DigitClassifier()
        return model.to(device)

    def optimizer(self, model: DigitClassifier) -> torch.optim.Optimizer:
        """Adam over all parameters."""
        return torch.optim.Adam(model.parameters(), self.learning_rate, fused=True)

    def objective(self, dataset: data.Dataset) -> ClassifierObjective:
        """The loss on the training part of `dataset`, validated on the rest of it."""
        images, labels = data.quantize(dataset.x_train), dataset.y_train
        train, val = data.train_val_split(len(images))
        return ClassifierObjective(images[train], labels[train], images[val], labels[val])


def load_classifier(settings: TrainClassifier) -> DigitClassifier:
    """The trained classifier, in evaluation mode on the CPU, trained if it is not stored."""
    return restored(DigitClassifier(), runs.run(settings, weights=True).weights)


@torch.no_grad()
def digit_logits(model: DigitClassifier, x: Tensor, batch_size: int = 1000) -> Tensor:
    """Logits (N, 10) of grey levels x (N, 28, 28), computed in batches."""
    return torch.cat([model(part).float() for part in x.split(batch_size)])


def shift(x: Tensor, offsets: Tensor) -> Tensor:
    """Move each image by whole pixels; what comes in from outside is background (0).

    Args:
        x: (N, H, W).
        offsets: (N, 2) pixels down and to the right, at most `MAX_SHIFT` either way.
    """
    draws = F.pad(PADDING - offsets, (1, 0))  # no flip, then where the crop begins
    return augment(x[:, None], draws)[:, 0]
