"""The test score of a trained VAE, image by image, and how sure it is (question 1.8)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from hw3lib import data, training
from hw3lib.experiments.part1.vae_training import TrainVAE, load_vae
from hw3lib.runs.settings import Context, Outcome, Settings
from hw3lib.vae.bounds import bits_per_dim, elbo_terms
from hw3lib.vae.model import VAE


class ScoreVAE(Settings):
    """Score the best and the last weights of a VAE on the test set, several times.

    Attributes:
        training: the VAE.
        draws: how often every image is scored, each time with new noise.
    """

    experiment: ClassVar[str] = "vae_scores"

    training: TrainVAE = TrainVAE()
    draws: Annotated[int, Ge(1)] = 5

    def compute(self, context: Context) -> Outcome:
        device = training.pick_device(context.device)
        dataset = data.load(self.training.dataset)
        images = data.quantize(dataset.x_test).to(device)
        best = self.score(load_vae(self.training).to(device), images)
        last = self.score(load_vae(self.training, self.training.epochs).to(device), images)
        results: dict[str, Any] = {
            name: [float(bits_per_dim(float(draw.mean()))) for draw in terms.sum(-1)]
            for name, terms in (("best_bpd", best), ("last_bpd", last))
        }
        nll, kl = best.mean(0).unbind(-1)
        arrays = {"nll": nll.float(), "kl": kl.float(), "labels": dataset.y_test.byte()}
        return Outcome(
            results,
            {name: tensor.cpu().numpy() for name, tensor in arrays.items()},
            data=dataset.checksum,
            device=training.device_name(device),
        )

    def canary(self) -> list[float]:
        """Terms of an untrained model on a few embedded digits."""
        model, _ = self.training.build(torch.device("cpu"))
        images = data.quantize(data.load("digits").x_test[:8])
        return self.score(model, images).flatten().tolist()

    @torch.no_grad()
    def score(self, model: VAE, images: Tensor, batch_size: int = 500) -> Tensor:
        """(draws, N, 2): nll and kl in nats of each image, for each draw of noise, float64."""
        rng = data.generator(self.training.seed, "test scores")
        draws = []
        for _ in range(self.draws):
            noise = torch.randn(len(images), model.latent_dim, generator=rng).to(images.device)
            batches = zip(images.split(batch_size), noise.split(batch_size), strict=True)
            terms = [elbo_terms(model, x, e) for x, e in batches]
            pairs = [torch.stack([t.nll, t.kl.sum(1)], dim=1).double() for t in terms]
            draws.append(torch.cat(pairs))
        return torch.stack(draws)


def bpd_by_class(nats: NDArray[Any], labels: NDArray[Any]) -> dict[int, NDArray[Any]]:
    """Bits per dimension of each image (N,) in nats, sorted into its class 0..9."""
    bpd = nats * float(bits_per_dim(1.0))
    return {digit: bpd[labels == digit] for digit in range(10)}
