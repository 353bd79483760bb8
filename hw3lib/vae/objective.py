"""What a VAE is trained on, and how it is scored."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hw3lib.data import generator
from hw3lib.vae.bounds import bits_per_dim, elbo_terms
from hw3lib.vae.model import VAE


class ElboObjective:
    """The negative beta-ELBO as an objective for `hw3lib.training.fit`.

    Args:
        train, val: (N, 28, 28) uint8 grey levels 0..15, on the model's device.
        val_noise: (len(val), D) the noise that every validation uses, on the same device; or D, to
            draw it, always the same.
        beta: weight of the KL term.

    Raises:
        TypeError: the images are no tensors.
        ValueError: beta is negative or NaN.

    Example:
        >>> from hw3lib.training import fit
        >>> rng = torch.Generator().manual_seed(0)
        >>> images = torch.randint(16, (8, 28, 28), generator=rng).to(torch.uint8)
        >>> model = VAE(latent_dim=2, num_filters=4)
        >>> objective = ElboObjective(images, images, 2, beta=0.5)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> progress = fit(model, objective, optimizer, epochs=1, seed=0, batch_size=4)
        >>> sorted(progress.history[1])
        ['epoch', 'train_kl', 'train_nll', 'val_bpd', 'val_kl', 'val_nll']
    """

    metrics = ("nll", "kl")

    def __init__(
        self, train: Tensor, val: Tensor, val_noise: Tensor | int, beta: float = 1.0
    ) -> None:
        if not beta >= 0:
            raise ValueError(f"beta={beta}: the weight of the KL term cannot be negative or NaN")
        for images in (train, val):
            if not isinstance(images, Tensor):
                raise TypeError(
                    f"images are a {type(images).__name__}; they must be one tensor of grey levels "
                    "(N, 28, 28), such as `torch.cat([x for x, _ in loader])`"
                )
        if isinstance(val_noise, int):
            rng = generator(0, "validation noise")
            val_noise = torch.randn(len(val), val_noise, generator=rng).to(val.device)
        self.train, self.val, self.val_noise, self.beta = train, val, val_noise, beta
        self.num_examples = len(train)

    def draw(self, generator: torch.Generator) -> Tensor:
        """The noise of one epoch, a row for each training image."""
        return torch.randn(self.num_examples, self.val_noise.shape[1], generator=generator)

    def loss(self, model: VAE, index: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What is minimised on one batch, and the sums of nll and kl over it in nats."""
        terms = elbo_terms(model, self.train[index], noise)
        return terms.loss(self.beta), torch.stack([terms.nll.sum(), terms.kl.sum()]).detach()

    def validate(self, model: VAE) -> dict[str, float]:
        """Mean nll and kl in nats, and bits per dimension of the ELBO, on the validation set."""
        return evaluate_elbo(model, self.val, self.val_noise)


@torch.no_grad()
def evaluate_elbo(
    model: VAE, images: Tensor, noise: Tensor, batch_size: int = 500
) -> dict[str, float]:
    """Mean nll and kl in nats and bits per dimension of the ELBO, one sample an image.

    Every image has equal weight, also those of a ragged last batch.

    Raises:
        ValueError: there are no images.
    """
    if not len(images):
        raise ValueError("there are no images to evaluate")
    nll, kl = [], []
    for x, e in zip(images.split(batch_size), noise.split(batch_size), strict=True):
        terms = elbo_terms(model, x, e)
        nll.append(terms.nll)
        kl.append(terms.kl.flatten())
    # Added in float64 on the host, which not every device has.
    mean_nll, mean_kl = (math.fsum(torch.cat(part).tolist()) / len(images) for part in (nll, kl))
    bpd = bits_per_dim(mean_nll + mean_kl, images[0].numel())
    return {"nll": mean_nll, "kl": mean_kl, "bpd": bpd}
