"""Training a VAE (questions 1.1 to 1.11), getting it back, and its score image by image."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from hw3lib import data, runs, training
from hw3lib.experiments.base import (
    CPU,
    Experiment,
    Training,
    course_of,
    device_of,
    embedded_digits,
    outcome,
    restored,
)
from hw3lib.runs import Context, Outcome
from hw3lib.vae import VAE, ElboObjective, bounds, evaluate_elbo, mean_image

SNAPSHOT_EPOCHS = (0, 1, 3, 10, 30)
"""Epochs whose weights are kept besides the last and the best."""

STORED_CODES = 2000
"""Test images whose posteriors are stored with a run."""

STORED_IMAGES = 64
"""Samples and reconstructions stored with a run."""


class TrainVAE(Training):
    """Train a VAE with the course's settings; defaults are those of question 1.8.

    Attributes:
        latent_dim: D.
        beta: weight of the KL, which is summed over dimensions and averaged over the batch.
        num_filters: channels of the first stage.

    Example:
        >>> from hw3lib import run
        >>> trained = run(TrainVAE(latent_dim=20))  # ships with the package
        >>> trained.published
        True
    """

    experiment: ClassVar[str] = "vae_training"

    dataset: Literal["mnist", "digits"] = "mnist"
    latent_dim: Annotated[int, Ge(1)] = 20
    beta: Annotated[float, Ge(0)] = 1.0
    epochs: Annotated[int, Ge(0)] = 80
    num_filters: Annotated[int, Ge(1)] = 32

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        dataset = data.load(self.dataset).to(device)
        model, progress = self.train(dataset, context)
        model.load_state_dict(progress.best_state)
        results, arrays = self._evaluate(model.eval(), data.quantize(dataset.x_test))
        results |= course_of(progress, model)
        arrays["test_labels"] = dataset.y_test[:STORED_CODES].byte()
        weights = {f"best.{name}": value for name, value in progress.best_state.items()}
        for epoch in self.snapshot_epochs():
            state = progress.snapshots[epoch]
            # Half precision is ample for pictures and halves the file.
            weights |= {f"epoch{epoch}.{name}": value.half() for name, value in state.items()}
        return outcome(results, arrays, weights=weights, device=device, seconds=progress.seconds)

    def canary(self) -> list[float]:
        """Losses of ten optimisation steps on the embedded digits, and of a validation."""
        images = data.quantize(data.load("digits").x_train)
        objective = self.objective(images[:320], images[-64:])
        model, optimizer = self.build(CPU)
        losses = self.first_losses(model, objective, optimizer)
        return [*losses, *objective.validate(model).values()]

    def train(
        self, dataset: data.Dataset, context: Context, **options: Any
    ) -> tuple[VAE, training.Progress]:
        """Build on the data's device and train; `options` go to `hw3lib.training.fit`."""
        images = data.quantize(dataset.x_train)
        train, val = data.train_val_split(len(images))
        objective = self.objective(images[train], images[val])
        model, optimizer = self.build(images.device)
        options = {"select": "bpd", "snapshots": self.snapshot_epochs()} | options
        return model, self.loop(model, objective, optimizer, context, **options)

    def snapshot_epochs(self) -> list[int]:
        """Epochs whose weights this run keeps."""
        return [epoch for epoch in SNAPSHOT_EPOCHS if epoch < self.epochs] + [self.epochs]

    def build(self, device: torch.device) -> tuple[VAE, torch.optim.Optimizer]:
        """The untrained model, its weights drawn on the CPU, and its optimizer."""
        with training.seeded(self.seed, "weights"):
            model = VAE(self.latent_dim, self.num_filters)
        # Convolutions are faster on this layout, on CPUs and GPUs.
        model.to(device).to(memory_format=torch.channels_last)
        return model, torch.optim.Adam(model.parameters(), self.learning_rate, fused=True)

    def untrained(self) -> VAE:
        """The model with its initial weights, on the CPU and frozen, for canaries.

        In float64: what an untrained decoder makes of a code is little, and must not hang on
        rounding.
        """
        model, _ = self.build(CPU)
        return model.double().eval().requires_grad_(False)

    def objective(self, train: Tensor, val: Tensor) -> ElboObjective:
        """The loss on these grey levels, with the validation noise of this seed."""
        noise = torch.randn(
            len(val), self.latent_dim, generator=data.generator(self.seed, "validation")
        )
        return ElboObjective(train, val, noise.to(train.device), self.beta)

    @torch.no_grad()
    def _evaluate(self, model: VAE, images: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Test scores, posteriors of the first test images, reconstructions and samples."""
        rng = data.generator(self.seed, "test")
        noise = torch.randn(len(images), self.latent_dim, generator=rng).to(images.device)
        codes = [model.encode(x) for x in images.split(1000)]
        mean, log_std = (torch.cat(parts).float() for parts in zip(*codes, strict=True))
        first = slice(STORED_IMAGES)
        z = mean[first] + log_std[first].exp() * noise[first]
        results = {
            "test": evaluate_elbo(model, images, noise),
            "active_units": bounds.active_units(mean),
            "mutual_information": bounds.mutual_information(mean, log_std, rng),
        }
        arrays = {
            "kl_per_dim": bounds.gaussian_kl(mean, log_std).mean(0),
            "test_mean": mean[:STORED_CODES].half(),
            "test_log_std": log_std[:STORED_CODES].half(),
            "originals": images[first],
            "reconstructions": (mean_image(model.decode(z)) * 17).round().byte(),
            "samples": model.sample(STORED_IMAGES, generator=rng),
        }
        return results, arrays


def load_vae(settings: TrainVAE, epoch: int | None = None) -> VAE:
    """The trained model, in evaluation mode on the CPU, training it if it is not stored.

    Args:
        settings: of the training.
        epoch: a snapshot's epoch; None gives the best weights.

    Raises:
        ValueError: no snapshot was kept at that epoch.

    Example:
        >>> vae = load_vae(TrainVAE())  # ships with the package
        >>> vae.latent_dim
        20
    """
    kept = settings.snapshot_epochs()
    if epoch is not None and epoch not in kept:
        raise ValueError(f"no snapshot at epoch {epoch}; this run keeps epochs {kept}")
    stored = runs.run(settings, weights=True)
    prefix = "best." if epoch is None else f"epoch{epoch}."
    weights = {
        name.removeprefix(prefix): value
        for name, value in stored.weights.items()
        if name.startswith(prefix)
    }
    return restored(VAE(settings.latent_dim, settings.num_filters), weights)


class ScoreVAE(Experiment):
    """Score the best and the last weights of a VAE on the test set, several times (question 1.8).

    Attributes:
        training: the VAE.
        draws: how often every image is scored, each time with new noise.
    """

    experiment: ClassVar[str] = "vae_scores"

    training: TrainVAE = TrainVAE()
    draws: Annotated[int, Ge(1)] = 5

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        dataset = data.load(self.training.dataset)
        images = data.quantize(dataset.x_test).to(device)
        best = self.score(load_vae(self.training).to(device), images)
        last = self.score(load_vae(self.training, self.training.epochs).to(device), images)
        results = {
            name: bounds.bits_per_dim(terms.sum(-1).mean(1)).tolist()
            for name, terms in (("best_bpd", best), ("last_bpd", last))
        }
        nll, kl = best.mean(0).float().unbind(-1)
        arrays = {"nll": nll, "kl": kl, "labels": dataset.y_test.byte()}
        return outcome(results, arrays, device=device)

    def canary(self) -> list[float]:
        """Terms of an untrained model on a few embedded digits."""
        model, _ = self.training.build(CPU)
        return self.score(model, embedded_digits(8)).flatten().tolist()

    @torch.no_grad()
    def score(self, model: VAE, images: Tensor, batch_size: int = 500) -> Tensor:
        """(draws, N, 2): nll and kl in nats of each image, for each draw of noise, float64."""
        rng = data.generator(self.training.seed, "test scores")
        draws = []
        for _ in range(self.draws):
            noise = torch.randn(len(images), model.latent_dim, generator=rng).to(images.device)
            batches = zip(images.split(batch_size), noise.split(batch_size), strict=True)
            terms = [bounds.elbo_terms(model, x, e) for x, e in batches]
            pairs = [torch.stack([t.nll, t.kl.sum(1)], dim=1).double() for t in terms]
            draws.append(torch.cat(pairs))
        return torch.stack(draws)


def bpd_by_class(nats: NDArray[Any], labels: NDArray[Any]) -> dict[int, NDArray[Any]]:
    """Bits per dimension of each image (N,) in nats, sorted into its class 0..9."""
    bpd = bounds.bits_per_dim(nats)
    return {digit: bpd[labels == digit] for digit in range(10)}
