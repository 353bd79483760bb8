"""What a VAE draws on the plane of its two latent dimensions, and its order (question 1.10).

The measures are pure: a class map is an array (S, S) of the classes of S x S tiles, and tiles are
images (S, S, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import scipy
import torch
from annotated_types import Ge
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hw3lib.experiments.base import CPU, Experiment, Floats, embedded_digits, outcome
from hw3lib.experiments.part1.classifier import (
    DigitClassifier,
    TrainClassifier,
    digit_logits,
    load_classifier,
)
from hw3lib.experiments.part1.vae_training import TrainVAE, load_vae
from hw3lib.runs import Context, Outcome
from hw3lib.vae import VAE


class PlaneMap(Experiment):
    """The tiles of `VAE.manifold`, and the class of each.

    Attributes:
        vae: a training with two latent dimensions.
        classifier: reads the digits.
        size: tiles along each side.
    """

    experiment: ClassVar[str] = "plane_map"

    vae: TrainVAE
    classifier: TrainClassifier
    size: Annotated[int, Ge(2)] = 20

    def compute(self, context: Context) -> Outcome:  # noqa: ARG002 - takes a second on any device
        tiles, classes = self.draw(load_vae(self.vae), load_classifier(self.classifier))
        arrays = {"tiles": (tiles * 17).round().byte(), "classes": classes.byte()}
        return outcome({}, arrays)

    def canary(self) -> list[float]:
        """Means of the tiles of an untrained VAE, and the logits of an untrained classifier."""
        vae, classifier = self.vae.build(CPU)[0], self.classifier.build(CPU).eval()
        tiles, _ = self.changed(size=4).draw(vae, classifier)
        logits = digit_logits(classifier, embedded_digits(8))
        return [*tiles.mean((2, 3)).flatten().tolist(), float(logits.abs().mean())]

    @torch.no_grad()
    def draw(self, vae: VAE, classifier: DigitClassifier) -> tuple[Tensor, Tensor]:
        """Tiles (size, size, 28, 28) in 0..15 from top to bottom, and their classes, (size, size).

        Raises:
            ValueError: the latent space is not two-dimensional.
        """
        _, tiles = vae.manifold(self.size)
        logits = digit_logits(classifier, tiles.flatten(0, 1))
        return tiles, logits.argmax(1).view(self.size, self.size)


def equal_neighbours(classes: ArrayLike) -> float:
    """Share of side-by-side pairs of tiles that have the same class."""
    c = np.asarray(classes)
    same = np.concatenate([(c[1:] == c[:-1]).ravel(), (c[:, 1:] == c[:, :-1]).ravel()])
    return float(same.mean())


def equal_neighbours_at_random(classes: ArrayLike) -> float:
    """The share to expect if the same tiles lay in random order: that of all pairs of tiles."""
    counts = np.unique(np.asarray(classes), return_counts=True)[1]
    total = counts.sum()
    return float((counts * (counts - 1)).sum() / (total * (total - 1)))


def num_regions(classes: ArrayLike, num_classes: int = 10) -> NDArray[np.int64]:
    """Connected regions of each class, (num_classes,); tiles connect along their sides."""
    c = np.asarray(classes)
    return np.array([scipy.ndimage.label(c == k)[1] for k in range(num_classes)])


def largest_region_share(classes: ArrayLike) -> float:
    """Share of all tiles that belong to the largest region of their class."""
    c = np.asarray(classes)
    labels = [scipy.ndimage.label(c == k)[0].ravel() for k in np.unique(c)]
    return float(sum(np.bincount(regions)[1:].max() for regions in labels) / c.size)


def shuffled(classes: ArrayLike, seed: int = 0) -> NDArray[Any]:
    """The same tiles in random order."""
    c = np.asarray(classes)
    return np.random.default_rng(seed).permutation(c.ravel()).reshape(c.shape)


def rms_difference(a: ArrayLike, b: ArrayLike) -> Floats:
    """Root-mean-square difference per pixel of images a and b (..., H, W): (...)."""
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return np.sqrt(np.square(difference).mean((-1, -2)))


def neighbour_distances(tiles: ArrayLike) -> Floats:
    """Root-mean-square difference per pixel of each pair of side-by-side tiles, (2 S (S - 1),)."""
    t = np.asarray(tiles, dtype=np.float64)
    down, right = rms_difference(t[1:], t[:-1]), rms_difference(t[:, 1:], t[:, :-1])
    return np.concatenate([down.ravel(), right.ravel()])


def random_pair_distances(tiles: ArrayLike, num: int = 2000, seed: int = 0) -> Floats:
    """The same difference for `num` pairs of different tiles drawn at random."""
    t = np.asarray(tiles, dtype=np.float64)
    flat = t.reshape(-1, *t.shape[2:])
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(flat), num)
    second = (first + rng.integers(1, len(flat), num)) % len(flat)
    return rms_difference(flat[first], flat[second])


@dataclass(frozen=True)
class Order:
    """How well classes line up in a given order along the best direction of the plane.

    Attributes:
        correlation: Kendall's rank correlation (tau-b) along that direction, at most 1.
        angle: of the direction, in degrees counterclockwise from the first axis.
        p_value: share of random assignments of the classes' centres that do as well.
    """

    correlation: float
    angle: float
    p_value: float


def best_order(
    centres: ArrayLike, ranks: Sequence[int], *, trials: int = 999, seed: int = 0
) -> Order:
    """Find the direction along which class centres (C, 2) follow an order best.

    Turning and mirroring the plane does not change the answer, which is why all directions are
    tried. So many directions find some order in anything; the p-value accounts for that, by
    `trials` random assignments. Equal ranks mean no order between these classes.
    """
    points, place = np.asarray(centres, dtype=np.float64), np.asarray(ranks)
    turn = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    along = points @ np.stack([np.cos(turn), np.sin(turn)])
    taus = _kendall(along, place)
    rng = np.random.default_rng(seed)
    best = float(taus.max())
    others = [_kendall(along, rng.permutation(place)).max() for _ in range(trials)]
    p_value = (1 + int(np.sum(np.array(others) >= best - 1e-12))) / (trials + 1)
    return Order(best, float(np.degrees(turn[taus.argmax()])), p_value)


def linear_share(values: ArrayLike, positions: ArrayLike, groups: ArrayLike) -> float:
    """Share of a quantity's variance within groups that is linear in the position (R^2), 0 to 1.

    Such as that of the slant (N,) of tiles at positions (N, 2) within their classes (N,): the mean
    of each group is taken out first. 0 also if the quantity does not vary.
    """
    import pandas as pd

    columns = pd.DataFrame(np.column_stack([values, positions]), dtype=np.float64)
    within = (columns - columns.groupby(np.asarray(groups)).transform("mean")).to_numpy()
    y, x = within[:, 0], within[:, 1:]
    fitted = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    total = np.square(y).sum()
    return float(1 - np.square(y - fitted).sum() / total) if total > 0 else 0.0


def style_share(
    tiles: ArrayLike, classes: ArrayLike, measure: Callable[[ArrayLike], Floats]
) -> float:
    """`linear_share`, in the codes of the grid, of a measure of its tiles, such as `strokes.slant`.

    Tiles (S, S, H, W), in 0..15, are those of `VAE.manifold`, and `classes` (S, S) what they show.
    """
    t = np.asarray(tiles)
    ticks = scipy.stats.norm.ppf((np.arange(len(t)) + 0.5) / len(t))
    codes = np.stack(np.meshgrid(ticks, ticks[::-1]), axis=-1).reshape(-1, 2)
    return linear_share(measure(t.reshape(-1, *t.shape[2:])), codes, np.ravel(classes))


def _kendall(along: Floats, place: NDArray[Any]) -> Floats:
    """Kendall's tau of each column of `along` (C, A), which has no ties, with `place` (C,)."""
    i, j = np.triu_indices(len(place), 1)
    sign = np.sign(place[j] - place[i])
    concord = np.sign(along[j] - along[i]) * sign[:, None]
    ordered = max(int(np.abs(sign).sum()), 1)
    return concord.sum(0) / np.sqrt(ordered * len(i))
