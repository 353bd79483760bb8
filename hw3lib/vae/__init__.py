"""The VAE of part 1: model, objective, bounds on log p(x), and what is known exactly.

Public is what `__all__` lists; `hw3lib.vae.priors` has priors other than N(0, I), for question 1.6.
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
