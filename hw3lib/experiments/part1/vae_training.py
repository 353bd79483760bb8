"""Training a VAE (questions 1.8 to 1.11) and getting it back."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from hw3lib import data, training
from hw3lib.runs.settings import Context, Outcome, Settings
from hw3lib.runs.store import Run
from hw3lib.runs.store import run as get_run
from hw3lib.vae import bounds
from hw3lib.vae.model import VAE, mean_image
from hw3lib.vae.objective import ElboObjective, evaluate_elbo

SNAPSHOT_EPOCHS = (0, 1, 3, 10, 30)
"""Epochs whose weights are kept besides the last and the best."""

STORED_CODES = 2000
"""Test images whose posteriors are stored with a run."""

STORED_IMAGES = 64
"""Samples and reconstructions stored with a run."""


class TrainVAE(Settings):
    """Train a VAE with the course's settings; defaults are those of question 1.8.

    Attributes:
        dataset: "mnist" or "digits".
        latent_dim: D.
        beta: weight of the KL, which is summed over dimensions and averaged over the batch.
        epochs, batch_size, learning_rate: of Adam.
        num_filters: channels of the first stage.
        seed: of the initial weights, the order of the images, and all noise.
    """

    experiment: ClassVar[str] = "vae_training"

    dataset: Literal["mnist", "digits"] = "mnist"
    latent_dim: Annotated[int, Ge(1)] = 20
    beta: Annotated[float, Ge(0)] = 1.0
    epochs: Annotated[int, Ge(0)] = 80
    batch_size: Annotated[int, Ge(1)] = 128
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    num_filters: Annotated[int, Ge(1)] = 32
    seed: int = 0

    def compute(self, context: Context) -> Outcome:
        device = training.pick_device(context.device)
        dataset = data.load(self.dataset).to(device)
        model, progress = self.train(
            dataset, device=device, checkpoint=context.checkpoint, deadline=context.deadline
        )
        model.load_state_dict(progress.best_state)
        model.eval()
        results, arrays = self._evaluate(model, data.quantize(dataset.x_test))
        results |= {
            "history": progress.history,
            "best_epoch": progress.best_epoch,
            "num_parameters": sum(p.numel() for p in model.parameters()),
        }
        arrays["test_labels"] = dataset.y_test[:STORED_CODES].cpu().numpy().astype(np.uint8)
        weights = {f"best.{name}": value.numpy() for name, value in progress.best_state.items()}
        for epoch in self.snapshot_epochs():
            state = progress.snapshots[epoch]
            # Half precision is ample for pictures and halves the file.
            weights |= {f"epoch{epoch}.{k}": v.half().numpy() for k, v in state.items()}
        return Outcome(
            results,
            arrays,
            weights,
            dataset.checksum,
            training.device_name(device),
            progress.seconds,
        )

    def canary(self) -> list[float]:
        """Losses of ten optimisation steps on the embedded digits, and of a validation."""
        steps, batch = 10, 32
        small = self.changed(dataset="digits")
        images = data.quantize(data.load("digits").x_train)
        objective = small.objective(images[: steps * batch], images[-64:])
        model, optimizer = small.build(torch.device("cpu"))
        draws = objective.draw(data.generator(self.seed, "noise", 1))
        parts = training.Parts(model, optimizer)
        losses = training.first_losses(parts, objective, draws, steps, batch)
        return [*losses, *objective.validate(model).values()]

    def train(
        self, dataset: data.Dataset, *, device: torch.device, **options: Any
    ) -> tuple[VAE, training.Progress]:
        """Build and train; `options` go to `hw3lib.training.fit`."""
        images = data.quantize(dataset.x_train)
        train, val = data.train_val_split(len(images))
        objective = self.objective(images[train], images[val])
        model, optimizer = self.build(device)
        progress = training.fit(
            model,
            objective,
            optimizer,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=self.seed,
            select="bpd",
            snapshots=self.snapshot_epochs(),
            label=self.describe(),
            **options,
        )
        return model, progress

    @property
    def checkpoint_key(self) -> str:
        """Runs that differ only in their epochs share a checkpoint: the longer one goes on."""
        return self.changed(epochs=0).key

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

    def objective(self, train: Tensor, val: Tensor) -> ElboObjective:
        """The loss on these grey levels, with the validation noise of this seed."""
        noise = torch.randn(
            len(val), self.latent_dim, generator=data.generator(self.seed, "validation")
        )
        return ElboObjective(train, val, noise.to(train.device), self.beta)

    @torch.no_grad()
    def _evaluate(self, model: VAE, images: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
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
        return results, {name: value.cpu().numpy() for name, value in arrays.items()}


def load_vae(settings: TrainVAE, epoch: int | None = None) -> VAE:
    """The trained model, in evaluation mode on the CPU, training it if it is not stored.

    Args:
        settings: of the training.
        epoch: a snapshot's epoch; None gives the best weights.

    Raises:
        ValueError: no snapshot was kept at that epoch.
    """
    stored: Run = get_run(settings, weights=True)
    prefix = "best." if epoch is None else f"epoch{epoch}."
    state = {
        name.removeprefix(prefix): torch.from_numpy(value).float()
        for name, value in stored.weights.items()
        if name.startswith(prefix)
    }
    if not state:
        kept = settings.snapshot_epochs()
        raise ValueError(f"no snapshot at epoch {epoch}; this run keeps epochs {kept}")
    model = VAE(settings.latent_dim, settings.num_filters)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)
