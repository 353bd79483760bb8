"""The runs that ship with the package: what the book needs at its default parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hw3lib.attacks import PGD
from hw3lib.defenses import AdversarialLoss
from hw3lib.experiments.attack_strength import AttackStrength
from hw3lib.experiments.attacked import COURSE_FGSM, AdversarialPictures, UnderAttack
from hw3lib.experiments.beta_sweep import BETAS, SWEEP_EPOCHS, LatentFactors
from hw3lib.experiments.classifier import TrainClassifier
from hw3lib.experiments.dataset_facts import DatasetFacts
from hw3lib.experiments.deviations import Deviations
from hw3lib.experiments.evaluation import Checklist, RadiusCurves
from hw3lib.experiments.gradient_estimators import CompareEstimators, VaeGradients
from hw3lib.experiments.gradient_sign import GradientSign
from hw3lib.experiments.loss_against_batch import LossAgainstBatch
from hw3lib.experiments.marginal_likelihood import (
    LinearGaussianStudy,
    MarginalLikelihood,
    PosteriorGrid,
)
from hw3lib.experiments.networks import networks
from hw3lib.experiments.sample_quality import SampleQuality
from hw3lib.experiments.sampling import SamplingTime
from hw3lib.experiments.tightness import BoundTightness
from hw3lib.experiments.transfer import TransferStudy
from hw3lib.experiments.vae_scores import ScoreVAE
from hw3lib.experiments.vae_training import TrainVAE
from hw3lib.runs import Settings

EPOCHS = 80
"""Of the VAE with 20 latent dimensions; the notebooks have the same default."""

PLANE_EPOCHS = 10
"""Of the VAE with two, likewise."""

COMPARE_EPOCHS = 10
"""Of the three short trainings of question 1.7."""

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the clean loss that question 2.2 compares."""

STUDIED = 200
"""Test images in the studies of part 2 that are not about accuracy."""


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
        yield from (Published(one) for one in part_2("shapes", seed))


def part_2(dataset: str, seed: int) -> Iterator[Settings]:
    """Networks, attacks and studies of the second part on one data set."""
    nets = networks(dataset, seed)
    sweep = [
        nets.fgsm_defense.changed(defense=AdversarialLoss(COURSE_FGSM, alpha=alpha))
        for alpha in ALPHAS
    ]
    models = dict.fromkeys([*vars(nets).values(), *sweep])
    yield from models
    yield from (UnderAttack(model=model, seed=seed) for model in models if not model.half)
    pretrained, defended = nets.pretrained, (nets.fgsm_defense, nets.pgd_defense)
    yield AdversarialPictures(model=pretrained, attack=COURSE_FGSM, seed=seed)
    yield GradientSign(model=pretrained, images=STUDIED, seed=seed)
    yield Deviations(model=pretrained, images=STUDIED)
    halves = (nets.half_a, nets.half_b, nets.half_c)
    yield TransferStudy(models=halves, attacks=(COURSE_FGSM, PGD(8 / 255)), seed=seed)
    yield LossAgainstBatch(model=pretrained, seed=seed)
    for model in (pretrained, nets.fgsm_defense):
        yield RadiusCurves(model=model, images=STUDIED, seed=seed)
    for model in (pretrained, nets.pgd_defense):
        yield AttackStrength(model=model, images=STUDIED, seed=seed)
    for model in (pretrained, *defended):
        yield Checklist(model=model, surrogate=nets.scratch, images=STUDIED, seed=seed)


def trained_vaes(seed: int) -> tuple[TrainVAE, TrainVAE]:
    """The VAEs of questions 1.8 and 1.10."""
    return TrainVAE(epochs=EPOCHS, seed=seed), TrainVAE(
        latent_dim=2, epochs=PLANE_EPOCHS, seed=seed
    )


def quality(vae: TrainVAE, classifier: TrainClassifier, snapshots: Sequence[int]) -> SampleQuality:
    """The measurement of a VAE's samples, from its own seed."""
    return SampleQuality(vae=vae, classifier=classifier, snapshots=tuple(snapshots), seed=vae.seed)
