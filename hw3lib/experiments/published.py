"""The runs that ship with the package: what the book needs at its default parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hw3lib.experiments.beta_sweep import BETAS, SWEEP_EPOCHS, LatentFactors
from hw3lib.experiments.classifier import TrainClassifier
from hw3lib.experiments.dataset_facts import DatasetFacts
from hw3lib.experiments.gradient_estimators import CompareEstimators, VaeGradients
from hw3lib.experiments.marginal_likelihood import (
    LinearGaussianStudy,
    MarginalLikelihood,
    PosteriorGrid,
)
from hw3lib.experiments.sample_quality import SampleQuality
from hw3lib.experiments.sampling import SamplingTime
from hw3lib.experiments.tightness import BoundTightness
from hw3lib.experiments.vae_scores import ScoreVAE
from hw3lib.experiments.vae_training import TrainVAE
from hw3lib.runs import Settings

EPOCHS = 20
"""Of the VAE with 20 latent dimensions; the notebooks have the same default."""

PLANE_EPOCHS = 10
"""Of the VAE with two, likewise."""

COMPARE_EPOCHS = 10
"""Of the three short trainings of question 1.7."""


@dataclass(frozen=True)
class Published:
    """A run to ship, and whether its weights ship too."""

    settings: Settings
    weights: bool = False


def published(seeds: Sequence[int] = (0,)) -> Iterator[Published]:
    """All runs to ship for these seeds, those that others depend on first.

    Weights ship for seed 0 alone; those of other seeds are recomputed on demand.
    """
    yield Published(DatasetFacts())
    yield Published(SamplingTime())
    classifier = TrainClassifier()
    yield Published(classifier, weights=True)
    for seed in seeds:
        vae, plane = trained_vaes(seed)
        sweep = [TrainVAE(beta=beta, epochs=SWEEP_EPOCHS, seed=seed) for beta in BETAS]
        compared = CompareEstimators().training.changed(epochs=COMPARE_EPOCHS, seed=seed)
        yield Published(vae, weights=seed == 0)
        yield Published(plane, weights=seed == 0)
        yield from (Published(one) for one in sweep)
        evaluations = [
            LinearGaussianStudy(seed=seed),
            PosteriorGrid(vae=plane),
            MarginalLikelihood(vae=vae, seed=seed),
            BoundTightness(vae=vae, seed=seed),
            VaeGradients(training=vae, seed=seed),
            CompareEstimators(training=compared),
            ScoreVAE(training=vae),
            quality(vae, classifier, vae.snapshot_epochs()),
            *(quality(one, classifier, [one.epochs]) for one in sweep),
            *(LatentFactors(vae=one) for one in sweep),
        ]
        yield from (Published(one) for one in evaluations)


def trained_vaes(seed: int) -> tuple[TrainVAE, TrainVAE]:
    """The VAEs of questions 1.8 and 1.10."""
    return TrainVAE(epochs=EPOCHS, seed=seed), TrainVAE(
        latent_dim=2, epochs=PLANE_EPOCHS, seed=seed
    )


def quality(vae: TrainVAE, classifier: TrainClassifier, snapshots: Sequence[int]) -> SampleQuality:
    """The measurement of a VAE's samples, from its own seed."""
    return SampleQuality(vae=vae, classifier=classifier, snapshots=tuple(snapshots), seed=vae.seed)
