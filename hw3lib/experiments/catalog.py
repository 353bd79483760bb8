"""The runs that ship with the package: what the book needs at its default parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hw3lib.experiments.part1.beta_sweep import BETAS, SWEEP_EPOCHS, LatentFactors
from hw3lib.experiments.part1.classifier import TrainClassifier
from hw3lib.experiments.part1.dataset_facts import DatasetFacts
from hw3lib.experiments.part1.gradient_estimators import CompareEstimators, VaeGradients
from hw3lib.experiments.part1.manifold import PlaneMap
from hw3lib.experiments.part1.marginal_likelihood import (
    LinearGaussianStudy,
    MarginalLikelihood,
    PosteriorGrid,
)
from hw3lib.experiments.part1.sample_quality import SampleQuality
from hw3lib.experiments.part1.sampling import SamplingTime
from hw3lib.experiments.part1.tightness import BoundTightness
from hw3lib.experiments.part1.vae_training import ScoreVAE, TrainVAE
from hw3lib.experiments.part2.attack_strength import AttackStrength
from hw3lib.experiments.part2.attacked import STEP_SIZES, AdversarialPictures, UnderAttack, briefly
from hw3lib.experiments.part2.base import COURSE_FGSM
from hw3lib.experiments.part2.deviations import CUT_ALONE, Deviations
from hw3lib.experiments.part2.evaluation import Checklist, RadiusCurves
from hw3lib.experiments.part2.gradient_sign import GradientSign
from hw3lib.experiments.part2.loss_against_batch import LossAgainstBatch
from hw3lib.experiments.part2.networks import Networks, first_steps, networks, over_alpha
from hw3lib.experiments.part2.pictures_by_radius import PicturesByRadius
from hw3lib.experiments.part2.resnet_training import TrainResNet
from hw3lib.experiments.part2.side_by_side import Referee, SideBySide
from hw3lib.experiments.part2.transfer import TransferStudy
from hw3lib.robust.attacks import PGD
from hw3lib.runs.settings import Settings

COURSE_EPOCHS = 30
"""Of every network of the course but the ready-made one."""

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the clean loss that question 2.2 compares."""

STUDIED = {"shapes": 200, "cifar10": 500}
"""Test images in the studies of part 2 that are not about accuracy."""

OVER_SEEDS = (
    "scratch", "augmented", "fgsm_defense", "pgd_defense",
    "scratch_attacked", "augmented_attacked", "fgsm_defense_attacked", "pgd_defense_attacked",
)  # fmt: skip
"""Runs of part 2 on CIFAR-10 that ship for more seeds than the first."""

WITH_WEIGHTS = {"classifier", "vae", "plane", "pretrained"}
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
        for name, asked in shipped(seed).items():
            for settings in asked if isinstance(asked, tuple) else (asked,):
                if settings not in listed:
                    listed.add(settings)
                    first = getattr(settings, "seed", 0) == 0  # the classifier's is 0 for all
                    yield Published(settings, weights=first and name in WITH_WEIGHTS)


def planned(seeds: Sequence[int] = (0,)) -> Iterator[Published]:
    """Runs that wait for a GPU and do not ship yet, in the order of their worth.

    First the defences to their end; then both trained with the cut that the report's attacks seem
    to have, under every habit of writing an attack; then the networks from scratch under every
    habit, and what a usual learning rate and the weight decay of the public recipe make of them.
    """
    for seed in seeds:
        nets = networks("cifar10", seed)
        defended = (nets.pgd_defense, nets.fgsm_defense, nets.pgd_cut, nets.fgsm_cut)
        whole = {"epochs": COURSE_EPOCHS, "keep": "best", "train_images": 0}
        ends = [model.changed(**whole) for model in defended]
        usual = nets.scratch.changed(learning_rate=0.1, schedule="linear", nesterov=True)
        decayed = nets.augmented.changed(
            learning_rate=0.01, schedule="linear", nesterov=True, weight_decay=1e-2,
            batch_size=256, epochs=100,
        )  # fmt: skip
        for model in (*ends, nets.scratch, nets.augmented, usual, decayed):
            yield Published(model)
            yield Published(UnderAttack(model=model, seed=model.seed))
            yield Published(Deviations(model=model, images=STUDIED["cifar10"]))
        for model in ends[:2]:
            yield Published(Referee(model=model))


def shipped(seed: int) -> dict[str, Named]:
    """The runs of one seed that ship, by name; of part 2 only the first seed has the studies."""
    runs = named(seed)
    if seed == 0:
        return runs
    return {name: runs[name] for name in (*part_1(seed), *OVER_SEEDS)}


@lru_cache(maxsize=16)
def named(seed: int) -> dict[str, Named]:
    """Every run of the book for one seed, by name; those of part 2 on shapes are `shapes_...`."""
    shapes = {f"shapes_{name}": asked for name, asked in part_2("shapes", seed).items()}
    return part_1(seed) | shapes | part_2("cifar10", seed)


def part_1(seed: int) -> dict[str, Named]:
    """Trainings and measurements of the first part."""
    classifier = TrainClassifier()
    vae = TrainVAE(seed=seed)
    plane = TrainVAE(latent_dim=2, seed=seed)
    sweep = tuple(TrainVAE(beta=beta, epochs=SWEEP_EPOCHS, seed=seed) for beta in BETAS)
    compared = CompareEstimators().training.changed(seed=seed)
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
        "samples": SampleQuality(vae=vae, snapshots=tuple(vae.snapshot_epochs()), seed=seed),
        "sweep_samples": tuple(
            SampleQuality(vae=one, snapshots=(one.epochs,), seed=seed) for one in sweep
        ),
        "sweep_factors": tuple(LatentFactors(vae=one) for one in sweep),
    }


def part_2(dataset: str, seed: int) -> dict[str, Named]:
    """Networks, attacks and studies of the second part on one data set."""
    nets = networks(dataset, seed)
    alphas = tuple(over_alpha(nets, ALPHAS).values())
    attacked = {
        # One network under attacks of several seeds is still one: of CIFAR-10 there is only one
        # pretrained network, and its seed is 0.
        f"{name}_attacked": UnderAttack(model=model, seed=model.seed)
        for name, model in vars(nets).items()
        if not model.half and name not in with_cut(nets)
    }
    return {
        **stages(nets.pretrained),
        **vars(nets),
        **with_cut(nets),
        "alphas": alphas,
        "twelve_pictures": twelve(nets.pretrained),
        **(only_cifar10(nets) if dataset == "cifar10" else only_shapes(nets)),
        "by_alpha": PicturesByRadius(
            pictures=twelve(nets.pretrained), others=(alphas[2], alphas[0]), seed=seed
        ),
        **attacked,
        "alphas_attacked": tuple(briefly(model, seed=seed) for model in alphas),
        **studies(nets, STUDIED[dataset], seed),
    }


def twelve(model: TrainResNet) -> AdversarialPictures:
    """Some pictures of all classes that FGSM turns."""
    return AdversarialPictures(model=model, attack=COURSE_FGSM, num=12, seed=model.seed)


def stages(ready: TrainResNet) -> dict[str, Named]:
    """What the ready-made network was before, if it was trained in stages."""
    return {"first_stage": ready.first, "second_stage": ready.start} if ready.start else {}


def only_cifar10(nets: Networks) -> dict[str, Named]:
    """What needs a network worth attacking."""
    ready = nets.pretrained
    judged = (ready, *over_alpha(nets, [0.5]).values())
    return {
        "by_radius": PicturesByRadius(pictures=twelve(ready), seed=ready.seed),
        "side_by_side": SideBySide(model=ready),
        "referee": tuple(Referee(model=model) for model in judged),
        "fifty_steps": UnderAttack(model=ready, attacks=(FIFTY_STEPS,), seed=ready.seed),
    }


def only_shapes(nets: Networks) -> dict[str, Named]:
    """One picture of each class, as the undefended network and the defended ones see it."""
    ready = nets.pretrained
    pictures = AdversarialPictures(model=ready, attack=COURSE_FGSM, num=10, seed=ready.seed)
    others = (nets.fgsm_defense, nets.pgd_defense)
    return {
        "ten_pictures": pictures,
        "by_radius": PicturesByRadius(pictures=pictures, others=others, seed=ready.seed),
    }


def studies(nets: Networks, images: int, seed: int) -> dict[str, Named]:
    """What is measured on the networks besides their accuracies, on so many test images."""
    fgsm, pgd, ready = nets.fgsm_defense, nets.pgd_defense, nets.pretrained
    halves = (nets.half_a, nets.half_b, nets.half_c)
    in_one_ball = tuple(PGD.from_normalized(0.01, step=size * 0.01) for size in STEP_SIZES)
    return {
        "pictures": AdversarialPictures(model=ready, attack=COURSE_FGSM, seed=seed),
        "sign": GradientSign(model=ready, images=images, seed=seed),
        "deviations": Deviations(model=ready, images=images),
        "smooth_deviations": Deviations(model=nets.smooth, images=images),
        "fgsm_short_deviations": Deviations(model=nets.fgsm_short, images=images),
        "pgd_short_deviations": Deviations(model=nets.pgd_short, images=images),
        **{
            f"{name}_deviations": Deviations(model=model, images=images, **CUT_ALONE)
            for name, model in with_cut(nets).items()
        },
        "transfer": TransferStudy(models=halves, attacks=(COURSE_FGSM, PGD(8 / 255)), seed=seed),
        "loss_against_batch": LossAgainstBatch(model=ready, seed=seed),
        "radii": RadiusCurves(model=ready, images=images, seed=seed),
        "fgsm_defense_radii": RadiusCurves(model=fgsm, images=images, seed=seed),
        "step_sizes": UnderAttack(
            model=ready, attacks=in_one_ball, images="course", num=1000, seed=ready.seed
        ),
        "strength": AttackStrength(model=ready, images=images, seed=seed),
        "pgd_defense_strength": AttackStrength(model=pgd, images=images, seed=seed),
        "checklists": tuple(
            Checklist(model=model, surrogate=surrogate, images=images, seed=seed)
            for model, surrogate in ((ready, fgsm), (fgsm, ready), (pgd, ready))
        ),
    }


def with_cut(nets: Networks) -> dict[str, TrainResNet]:
    """The defences that train with the cut, and what they are after their first steps."""
    whole = {"fgsm_cut": nets.fgsm_cut, "pgd_cut": nets.pgd_cut}
    return whole | {f"{name}_early": first_steps(model) for name, model in whole.items()}
