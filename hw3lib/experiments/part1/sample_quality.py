"""How good a VAE's samples are as training goes on (question 1.9) or as beta changes (1.11)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

import numpy as np
import scipy
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from hw3lib import data, stats
from hw3lib.experiments.base import CPU, Experiment, Floats, device_of, embedded_digits, outcome
from hw3lib.experiments.part1 import distances, strokes
from hw3lib.experiments.part1.classifier import DigitClassifier, TrainClassifier, load_classifier
from hw3lib.experiments.part1.vae_training import SNAPSHOT_EPOCHS, STORED_IMAGES, TrainVAE, load_vae
from hw3lib.runs import Context, Outcome, Run

MEASURES = (
    "confidence", "entropy", "information", "kernel", "frechet",
    "ink", "width", "pieces", "correlation",
)  # fmt: skip
"""What is measured, in the order of the stored array; see `measure_blocks`."""

REAL = "real"
"""Name of the row in which real images take the place of samples."""


class SampleQuality(Experiment):
    """Measure samples of a VAE at several epochs, and real images in the same way.

    Attributes:
        vae: the training.
        classifier: what gives confidences and features.
        snapshots: epochs of the training; each must be one that it keeps.
        num_samples: images of each epoch, of the reference and of the real row; at most half of
            the test images.
        blocks: how many the images are cut into for the intervals.
        seed: of the samples, which are the same codes and the same uniform numbers at every epoch.
    """

    experiment: ClassVar[str] = "sample_quality"

    vae: TrainVAE = TrainVAE()
    classifier: TrainClassifier = TrainClassifier()
    snapshots: tuple[int, ...] = (*SNAPSHOT_EPOCHS, 80)
    num_samples: Annotated[int, Ge(2)] = 5000
    blocks: Annotated[int, Ge(2)] = 20
    seed: int = 0

    @model_validator(mode="after")
    def _snapshots_are_kept(self) -> Self:
        kept = self.vae.snapshot_epochs()
        if not self.snapshots or not set(self.snapshots) <= set(kept):
            raise ValueError(f"snapshots={self.snapshots}: this training keeps epochs {kept}")
        return self

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        classifier = load_classifier(self.classifier).to(device)
        reference, real = self._real_images(data.quantize(data.load(self.vae.dataset).x_test))
        sets: dict[str, Tensor] = {REAL: real}
        for epoch in self.snapshots:
            vae = load_vae(self.vae, epoch).to(device)
            rng = data.generator(self.seed, "samples")
            parts = [vae.sample(len(part), generator=rng) for part in real.split(500)]
            sets[str(epoch)] = torch.cat(parts).cpu()
        _, features = read_digits(classifier, reference)
        outputs = [(x, *read_digits(classifier, x)) for x in sets.values()]
        arrays: dict[str, Any] = {
            "measures": np.array([measure_blocks(*o, features, self.blocks) for o in outputs]),
            "class_shares": np.array([class_shares(logits) for _, logits, _ in outputs]),
            "images": torch.stack([x[:STORED_IMAGES] for x in sets.values()]),
        }
        results = {"rows": list(sets), "measures": list(MEASURES), "num_samples": len(real)}
        return outcome(results, arrays, device=device)

    def canary(self) -> list[float]:
        """Samples of an untrained VAE, and every measure on embedded digits in negative."""
        vae, classifier = self.vae.build(CPU)[0], self.classifier.build(CPU).eval()
        samples = vae.sample(50, generator=data.generator(self.seed, "samples"))
        digits = embedded_digits(100)
        _, features = read_digits(classifier, digits[:50])
        negative = 15 - digits[50:]
        measured = measure_blocks(negative, *read_digits(classifier, negative), features, 2)
        return [float(samples.double().mean()), *measured.ravel().tolist()]

    def _real_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Two disjoint random sets of test images; MNIST's first half is easier than its second."""
        size = min(self.num_samples, len(images) // 2)
        order = torch.randperm(len(images), generator=data.generator(self.seed, "split"))
        return images[order[:size]], images[order[size : 2 * size]]


@torch.no_grad()
def read_digits(classifier: DigitClassifier, images: Tensor) -> tuple[Tensor, Floats]:
    """Logits (N, 10), and features (N, 64) in float64, of images (N, 28, 28); both on the CPU."""
    device = next(classifier.parameters()).device
    features = torch.cat([classifier.features(x) for x in images.to(device).split(1000)])
    return classifier.head(features).cpu(), features.double().cpu().numpy()


def measure_blocks(
    images: Tensor, logits: Tensor, features: Floats, reference: Floats, blocks: int
) -> Floats:
    """All measures of a set of images, one value a block, (9, blocks), in the order of `MEASURES`.

    Logits and features are what `read_digits` gives, `reference` the features of the images to
    compare with. Distances are in units in which the mean square of these is 1. Images that are
    left over are not used.
    """
    scale = np.sqrt(np.square(reference).mean())
    features, reference = features / scale, reference / scale
    size = len(images) // blocks
    parts = np.split(images.numpy()[: size * blocks], blocks)
    log_p = logits.double().log_softmax(1)[: size * blocks].view(blocks, size, -1)
    entropy = scipy.stats.entropy(log_p.exp(), axis=2).mean(1)
    values = {
        "confidence": log_p.exp().amax(2).mean(1),
        "entropy": entropy,
        "information": scipy.stats.entropy(log_p.exp().mean(1), axis=1) - entropy,
        "kernel": distances.kernel_distance_blocks(features, reference, blocks),
        "frechet": distances.frechet_distance_blocks(features, reference, blocks),
        "ink": [strokes.ink(part).mean() for part in parts],
        "width": [strokes.stroke_width(part).mean() for part in parts],
        "pieces": [strokes.pieces(part).mean() for part in parts],
        "correlation": [strokes.spatial_autocorrelation(part) for part in parts],
    }
    return np.stack([values[name] for name in MEASURES])


def class_shares(logits: Tensor) -> Floats:
    """Share of each class among the predictions, (10,)."""
    return logits.argmax(1).bincount(minlength=10).double().numpy() / len(logits)


def blocks_of(run: Run, row: str | int, measure: str) -> Floats:
    """Values (blocks,) of one of `MEASURES` in a row of a `SampleQuality`, an epoch or "real"."""
    position = run.results["rows"].index(str(row)), run.results["measures"].index(measure)
    return run.arrays["measures"][position]


def estimate(run: Run, row: str | int, measure: str) -> stats.Interval:
    """A measure of one row with its interval."""
    return stats.mean_interval(blocks_of(run, row, measure))


def early_excess(run: Run, measure: str, start: int, middle: int, end: int) -> Floats:
    """How much larger the change from start to middle is than that from middle to end, (blocks,).

    The signs of the changes are those of their means, so that noise does not count as change.
    """
    s, m, e = (blocks_of(run, epoch, measure) for epoch in (start, middle, end))
    return np.sign((m - s).mean()) * (m - s) - np.sign((e - m).mean()) * (e - m)


def images_of(run: Run, row: str | int) -> NDArray[Any]:
    """The first images of one row, (64, 28, 28) or fewer."""
    return run.arrays["images"][run.results["rows"].index(str(row))]


def verdict(excess: stats.Interval) -> str:
    """What an interval says about the claim that a quantity is positive."""
    if excess.low > 0:
        return "holds"
    return "does not hold" if excess.high < 0 else "undecided"
