"""The runs that ship with the package: what the book needs at its default parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hw3lib.experiments.part1.beta_sweep import BETAS, SWEEP_EPOCHS, LatentFactors
from hw3lib.experiments.part1.classifier import TrainClassifier
from hw3lib.experiments.part1.dataset_facts import DatasetFacts
from hw3lib.experiments.part1.gradient_estimators import CompareEstimators, VaeGradients
from hw3lib.experiments.part1.marginal_likelihood import (
    LinearGaussianStudy,
    MarginalLikelihood,
    PosteriorGrid,
)
from hw3lib.experiments.part1.plane_map import PlaneMap
from hw3lib.experiments.part1.sample_quality import SampleQuality
from hw3lib.experiments.part1.sampling import SamplingTime
from hw3lib.experiments.part1.tightness import BoundTightness
from hw3lib.experiments.part1.vae_scores import ScoreVAE
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.experiments.part2.attack_strength import AttackStrength
from hw3lib.experiments.part2.attacked import COURSE_FGSM, AdversarialPictures, UnderAttack
from hw3lib.experiments.part2.deviations import Deviations
from hw3lib.experiments.part2.evaluation import Checklist, RadiusCurves
from hw3lib.experiments.part2.gradient_sign import GradientSign
from hw3lib.experiments.part2.loss_against_batch import LossAgainstBatch
from hw3lib.experiments.part2.networks import networks
from hw3lib.experiments.part2.side_by_side import SideBySide
from hw3lib.experiments.part2.transfer import TransferStudy
from hw3lib.robust.attacks import PGD
from hw3lib.robust.defenses import AdversarialLoss
from hw3lib.runs.settings import Settings

EPOCHS = 80
"""Of the VAE with 20 latent dimensions; the notebooks have the same default."""

PLANE_EPOCHS = 80
"""Of the VAE with two, likewise."""

COMPARE_EPOCHS = 10
"""Of the three short trainings of question 1.7."""

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the clean loss that question 2.2 compares."""

STUDIED = {"shapes": 200, "cifar10": 500}
"""Test images in the studies of part 2 that are not about accuracy."""

OVER_SEEDS = (
    "scratch", "augmented", "fgsm_defense", "pgd_defense",
    "scratch_attacked", "augmented_attacked", "fgsm_defense_attacked", "pgd_defense_attacked",
)  # fmt: skip
"""Runs of part 2 on CIFAR-10 that ship for more seeds than the first."""

LEFT_OUT = {"alphas", "alphas_attacked"}
"""Runs of part 2 that ship for the shapes alone, since they take many trainings."""

WITH_WEIGHTS = {"classifier", "vae", "plane", "cifar10_pretrained"}
"""Names of the runs whose weights ship."""

FIFTY_STEPS = PGD(8 / 255, steps=50, keep="best")
"""What an undefended network must not withstand, or something is wrong with the attack."""

Named = Settings | tuple[Settings, ...]
"""A run, or several that belong together."""


@dataclass(frozen=True)
class Published:
    """A run to ship, and whether its weights ship too."""

    settings: Settings
    weights: bool = False


def published(seeds: Sequence[int] = (0,)) -> Iterator[Published]:
    """All runs to ship for these seeds, each once, those that others depend on first.

    Weights ship for seed 0 alone; those of other seeds are recomputed on demand.
    """
    listed: set[Settings] = set()
    for seed in seeds:
        for name, asked in named(seed).items():
            for settings in asked if isinstance(asked, tuple) else (asked,):
                if settings not in listed:
                    listed.add(settings)
                    first = getattr(settings, "seed", 0) == 0  # the classifier's is 0 for all
                    yield Published(settings, weights=first and name in WITH_WEIGHTS)


def named(seed: int) -> dict[str, Named]:
    """Every run of the book for one seed, by name; of part 2, only the first has the studies."""
    cifar10 = part_2("cifar10", seed)
    shapes = part_2("shapes", seed) if seed == 0 else {}
    asked = [name for name in cifar10 if name not in LEFT_OUT] if seed == 0 else OVER_SEEDS
    return part_1(seed) | shapes | {f"cifar10_{name}": cifar10[name] for name in asked}


def part_1(seed: int) -> dict[str, Named]:
    """Trainings and measurements of the first part."""
    classifier = TrainClassifier()
    vae = TrainVAE(epochs=EPOCHS, seed=seed)
    plane = TrainVAE(latent_dim=2, epochs=PLANE_EPOCHS, seed=seed)
    sweep = tuple(TrainVAE(beta=beta, epochs=SWEEP_EPOCHS, seed=seed) for beta in BETAS)
    compared = CompareEstimators().training.changed(epochs=COMPARE_EPOCHS, seed=seed)
    return {
        "facts": DatasetFacts(),
        "sampling_time": SamplingTime(),
        "classifier": classifier,
        "vae": vae,
        "plane": plane,
        "sweep": sweep,
        "linear_gaussian": LinearGaussianStudy(seed=seed),
        "posterior": PosteriorGrid(vae=plane),
        "plane_map": PlaneMap(vae=plane, classifier=classifier),
        "likelihood": MarginalLikelihood(vae=vae, seed=seed),
        "tightness": BoundTightness(vae=vae, seed=seed),
        "gradients": VaeGradients(training=vae, seed=seed),
        "estimators": CompareEstimators(training=compared),
        "scores": ScoreVAE(training=vae),
        "samples": quality(vae, classifier, vae.snapshot_epochs()),
        "sweep_samples": tuple(quality(one, classifier, [one.epochs]) for one in sweep),
        "sweep_factors": tuple(LatentFactors(vae=one) for one in sweep),
    }


def part_2(dataset: str, seed: int) -> dict[str, Named]:
    """Networks, attacks and studies of the second part on one data set."""
    nets, studied = networks(dataset, seed), STUDIED[dataset]
    fgsm, pgd, ready = nets.fgsm_defense, nets.pgd_defense, nets.pretrained
    alphas = tuple(
        nets.fgsm_short.changed(defense=AdversarialLoss(COURSE_FGSM, alpha=alpha))
        for alpha in ALPHAS
    )
    attacked = {
        # One network under attacks of several seeds is still one: of CIFAR-10 there is only one
        # pretrained network, and its seed is 0.
        name: UnderAttack(model=model, seed=model.seed)
        for name, model in vars(nets).items()
        if not model.half
    }
    halves = (nets.half_a, nets.half_b, nets.half_c)
    only_there: dict[str, Named] = {}
    if ready.start:  # a recipe of several stages, on CIFAR-10
        only_there = {
            "first_stage": ready.first,
            "second_stage": ready.start,
            "side_by_side": SideBySide(model=ready),
            "fifty_steps": UnderAttack(model=ready, attacks=(FIFTY_STEPS,), seed=ready.seed),
        }
    return {
        **only_there,
        **vars(nets),
        "alphas": alphas,
        **{f"{name}_attacked": settings for name, settings in attacked.items()},
        "alphas_attacked": tuple(UnderAttack(model=model, seed=seed) for model in alphas),
        "pictures": AdversarialPictures(model=ready, attack=COURSE_FGSM, seed=seed),
        "sign": GradientSign(model=ready, images=studied, seed=seed),
        "deviations": Deviations(model=ready, images=studied),
        "smooth_deviations": Deviations(model=nets.smooth, images=studied),
        "fgsm_short_deviations": Deviations(model=nets.fgsm_short, images=studied),
        "pgd_short_deviations": Deviations(model=nets.pgd_short, images=studied),
        "transfer": TransferStudy(models=halves, attacks=(COURSE_FGSM, PGD(8 / 255)), seed=seed),
        "loss_against_batch": LossAgainstBatch(model=ready, seed=seed),
        "radii": RadiusCurves(model=ready, images=studied, seed=seed),
        "fgsm_defense_radii": RadiusCurves(model=fgsm, images=studied, seed=seed),
        "strength": AttackStrength(model=ready, images=studied, seed=seed),
        "pgd_defense_strength": AttackStrength(model=pgd, images=studied, seed=seed),
        "checklists": tuple(
            Checklist(model=model, surrogate=surrogate, images=studied, seed=seed)
            for model, surrogate in ((ready, fgsm), (fgsm, ready), (pgd, ready))
        ),
    }


def quality(vae: TrainVAE, classifier: TrainClassifier, snapshots: Sequence[int]) -> SampleQuality:
    """The measurement of a VAE's samples, from its own seed."""
    return SampleQuality(vae=vae, classifier=classifier, snapshots=tuple(snapshots), seed=vae.seed)
