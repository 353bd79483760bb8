"""The VAE of part 1: model, objective, bounds on log p(x), and what is known exactly.

Public is what `__all__` lists; `hw3lib.vae.priors` has priors other than N(0, I), for question 1.6.

Example:
    The parts of an untrained VAE, from images (N, 28, 28) to bounds in nats, (N,).

    >>> import torch
    >>> from hw3lib import vae
    >>> rng = torch.Generator().manual_seed(0)
    >>> x = torch.randint(16, (4, 28, 28), generator=rng)
    >>> encoder, decoder = vae.Encoder(latent_dim=2), vae.Decoder(latent_dim=2)
    >>> mean, log_std = encoder(x.float())
    >>> logits = decoder(mean)
    >>> logits.shape
    torch.Size([4, 16, 28, 28])
    >>> bound = -vae.pixel_nll(logits, x) - vae.gaussian_kl(mean, log_std).sum(1)
    >>> bound.shape
    torch.Size([4])
    >>> vae.sample_pixels(logits, generator=rng).dtype
    torch.uint8
    >>> vae.mean_image(logits).shape
    torch.Size([4, 28, 28])

    >>> model: vae.LatentModel = vae.VAE(latent_dim=2)  # whatever has encode and log_likelihood
    >>> terms = vae.elbo_terms(model, x, torch.randn(4, 2, generator=rng))
    >>> isinstance(terms, vae.ElboTerms), terms.nll.shape, terms.kl.shape
    (True, torch.Size([4]), torch.Size([4, 2]))
    >>> list(vae.evaluate_elbo(model, x, torch.zeros(4, 2)))
    ['nll', 'kl', 'bpd']
    >>> vae.importance_weighted_bound(model, x, [1, 8], rng).shape
    torch.Size([4, 2])
    >>> codes = torch.tensor([[0.0, 0.0], [1.0, 0.01]])
    >>> vae.active_dims(codes), vae.active_units(codes)
    (tensor([ True, False]), 1)
    >>> round(vae.bits_per_dim(300.0), 3), round(float(vae.log_normal(torch.zeros(1))), 4)
    (0.552, -0.9189)
"""

from hw3lib.vae.bounds import (
    ElboTerms,
    LatentModel,
    active_dims,
    active_units,
    bits_per_dim,
    elbo_terms,
    gaussian_kl,
    importance_weighted_bound,
    log_normal,
    mutual_information,
)
from hw3lib.vae.exact import LinearGaussian
from hw3lib.vae.model import VAE, Decoder, Encoder, mean_image, pixel_nll, sample_pixels
from hw3lib.vae.objective import ElboObjective, evaluate_elbo

__all__ = [
    "VAE",
    "Decoder",
    "ElboObjective",
    "ElboTerms",
    "Encoder",
    "LatentModel",
    "LinearGaussian",
    "active_dims",
    "active_units",
    "bits_per_dim",
    "elbo_terms",
    "evaluate_elbo",
    "gaussian_kl",
    "importance_weighted_bound",
    "log_normal",
    "mean_image",
    "mutual_information",
    "pixel_nll",
    "sample_pixels",
]
