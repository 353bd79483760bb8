"""What the latent dimensions of a VAE stand for (question 1.11)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hw3lib import data
from hw3lib.experiments.base import CPU, Experiment, Floats, embedded_digits, outcome
from hw3lib.experiments.part1 import strokes
from hw3lib.experiments.part1.vae_training import STORED_CODES, TrainVAE, load_vae
from hw3lib.runs import Context, Outcome, Run
from hw3lib.vae import VAE, active_dims, gaussian_kl, mean_image

BETAS = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0)
"""The sweep of question 1.11."""

SWEEP_EPOCHS = 20
"""Epochs of each training of the sweep."""

FACTORS = ("slant", "stroke width", "breadth", "height")
"""What digits vary in, as far as it can be measured on the picture."""

TRAVERSAL_STEPS = 7
"""Images of each traversal, from -2 to 2 standard deviations of the prior."""


class LatentFactors(Experiment):
    """Relate a VAE's latent dimensions to factors of variation, and draw their traversals.

    Attributes:
        vae: the training.
        num_dims: dimensions to traverse, those with the largest KL.
        rotations: random rotations of the codes to compare alignment with.
        seed: of the rotations.
    """

    experiment: ClassVar[str] = "latent_factors"

    vae: TrainVAE = TrainVAE(epochs=SWEEP_EPOCHS)
    num_dims: Annotated[int, Ge(1)] = 3
    rotations: Annotated[int, Ge(1)] = 200
    seed: int = 0

    def compute(self, context: Context) -> Outcome:  # noqa: ARG002 - takes a second on any device
        images = data.quantize(data.load(self.vae.dataset).x_test[:STORED_CODES])
        arrays = self.analyse(load_vae(self.vae), images)
        return outcome({"factors": list(FACTORS)}, arrays)

    def canary(self) -> list[float]:
        """What an untrained encoder tells about the factors of the embedded digits."""
        vae, _ = self.vae.build(CPU)
        images = embedded_digits(200)
        with torch.no_grad():
            codes = vae.encode(images)[0].double().numpy()
        factors = measure_factors(images.numpy())
        # An untrained encoder's codes nearly depend on each other, so that the processor's rounding
        # decides how they are whitened; those that are rotated here are independent.
        known = np.random.default_rng(0).standard_normal((len(images), 6))
        known[:, : len(FACTORS)] += _standardise(factors)
        rotated = rotated_alignment(known, factors, 10, self.seed).mean(0)
        canary = [joint_r_squared(codes, factors), alignment(codes, factors), rotated]
        return [float(value) for part in canary for value in part]

    @torch.no_grad()
    def analyse(self, vae: VAE, images: Tensor) -> dict[str, NDArray[np.generic]]:
        """Squared correlations (D, 4), joint R^2 (4,), alignment after rotations, traversals."""
        codes = [vae.encode(x) for x in images.split(500)]
        mean, log_std = (torch.cat(part) for part in zip(*codes, strict=True))
        kl = gaussian_kl(mean, log_std).mean(0)
        factors = measure_factors(images.numpy())
        active = active_dims(mean)
        used = mean[:, active].double().numpy()
        order = kl.argsort(descending=True)[: self.num_dims]
        squared = np.zeros((len(kl), len(FACTORS)))
        squared[active.numpy()] = squared_correlations(used, factors)
        return {
            "correlations": squared,
            "joint": joint_r_squared(used, factors),
            "rotated": rotated_alignment(used, factors, self.rotations, self.seed),
            "dims": order.numpy(),
            "traversals": traversals(vae, order),
        }


def factor_alignment(run: Run) -> Floats:
    """Alignment of a stored `LatentFactors`, (F,), as `alignment` computes it."""
    joint = run.arrays["joint"]
    return run.arrays["correlations"].max(0) / np.where(joint > 0, joint, np.nan)


def excess_alignment(run: Run) -> Floats:
    """Alignment of each factor, (F,), beyond chance, as a share of the room that chance leaves.

    Chance is the median of what random rotations of the codes give. The fewer dimensions are left,
    the higher it is, and the less room is left above it. 0 where the code says nothing.
    """
    by_chance = np.median(run.arrays["rotated"], axis=0)
    return np.nan_to_num((factor_alignment(run) - by_chance) / (1 - by_chance))


def exchange_rates(kl: ArrayLike, nll: ArrayLike) -> Floats:
    """Nats of reconstruction lost for each nat of KL saved, from each point to the next, (n - 1,).

    Between the optima for two values of beta it lies between the two.
    """
    return np.diff(np.asarray(nll, np.float64)) / -np.diff(np.asarray(kl, np.float64))


def measure_factors(images: ArrayLike) -> Floats:
    """The `FACTORS` of images (N, 28, 28) in 0..15: (N, 4)."""
    measures = (strokes.slant, strokes.stroke_width, strokes.breadth, strokes.height)
    return np.stack([measure(images) for measure in measures], axis=1)


def squared_correlations(codes: ArrayLike, factors: ArrayLike) -> Floats:
    """Squared correlation of each dimension of codes (N, D) with each factor (N, F): (D, F)."""
    z, f = _standardise(codes), _standardise(factors)
    return np.square(z.T @ f / len(z))


def joint_r_squared(codes: ArrayLike, factors: ArrayLike) -> Floats:
    """Share of each factor's variance that all dimensions together explain linearly, (F,)."""
    f = _standardise(factors)
    white = _whiten(codes)
    return np.square(white.T @ f / len(f)).sum(0)


def alignment(codes: ArrayLike, factors: ArrayLike) -> Floats:
    """Of what the dimensions explain jointly, the share that the best single one explains, (F,).

    1 if a factor has a dimension of its own, about 1/D if it is spread over D of them; NaN without
    dimensions.
    """
    if np.asarray(codes).shape[1] == 0:
        return np.full(np.asarray(factors).shape[1], np.nan)
    return squared_correlations(codes, factors).max(0) / joint_r_squared(codes, factors)


def rotated_alignment(codes: ArrayLike, factors: ArrayLike, rotations: int, seed: int) -> Floats:
    """Alignment (rotations, F) of the whitened codes after random rotations: what chance gives."""
    white = _whiten(codes)
    rng = np.random.default_rng(seed)
    size = (white.shape[1],) * 2
    matrices = [np.linalg.qr(rng.standard_normal(size))[0] for _ in range(rotations)]
    return np.stack([alignment(white @ matrix, factors) for matrix in matrices])


@torch.no_grad()
def traversals(vae: VAE, dims: Tensor) -> NDArray[np.uint8]:
    """Mean images (len(dims), 7, 28, 28) with one dimension moved from -2 to 2, all others 0.

    Stored as grey level times 17.
    """
    z = torch.zeros(len(dims), TRAVERSAL_STEPS, vae.latent_dim)
    for row, dim in enumerate(dims.tolist()):
        z[row, :, dim] = torch.linspace(-2, 2, TRAVERSAL_STEPS)
    means = mean_image(vae.decode(z.flatten(0, 1))) * 17
    return means.round().byte().view(len(dims), TRAVERSAL_STEPS, 28, 28).numpy()


def _standardise(x: ArrayLike) -> Floats:
    values = np.asarray(x, dtype=np.float64)
    centred = values - values.mean(0)
    return centred / np.maximum(centred.std(0), 1e-12)


def _whiten(codes: ArrayLike) -> Floats:
    """Uncorrelated codes of variance 1 that span the same space, (N, D)."""
    z = _standardise(codes)
    left, singular, _ = np.linalg.svd(z, full_matrices=False)
    if len(singular) and singular[-1] < 1e-9 * singular[0]:
        raise ValueError("the dimensions of the codes depend linearly on each other")
    return left * np.sqrt(len(z))
