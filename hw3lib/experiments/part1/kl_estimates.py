"""Monte-Carlo estimates of a KL at the codes that a stored training keeps (question 1.6)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from hw3lib import data
from hw3lib.experiments.base import Floats
from hw3lib.runs import Run
from hw3lib.vae import priors
from hw3lib.vae.bounds import gaussian_kl, log_normal


def posteriors(run: Run) -> tuple[Tensor, Tensor]:
    """Means and log widths (N, D) in float64 that a stored `TrainVAE` gives to test images."""
    mean, log_std = (torch.from_numpy(run.arrays[f"test_{part}"]) for part in ("mean", "log_std"))
    return mean.double(), log_std.double()


def kl_errors(run: Run, samples: int) -> Floats:
    """Estimate from `samples` draws minus closed form, of KL(q(z|x) || N(0, I)), in nats: (N,)."""
    mean, log_std = posteriors(run)
    noise = _noise(run, samples, mean)
    estimate = priors.log_ratios(mean, log_std, log_normal, noise).mean(0)
    return (estimate - gaussian_kl(mean, log_std).sum(1)).numpy()


def fit_prior(run: Run, components: int) -> tuple[Distribution, Tensor, Tensor, Tensor]:
    """A mixture prior for the codes of a stored `TrainVAE`, and what it was not fitted to.

    Returns:
        The mixture, fitted to one sample of each posterior of the first half of the test images,
        and of the second half: mean and log_std (N/2, D), and one sample each (N/2, D).
    """
    mean, log_std = posteriors(run)
    codes = mean + log_std.exp() * _noise(run, 1, mean)[0]
    half = len(codes) // 2
    prior = priors.fit_mixture(codes[:half], components, getattr(run.settings, "seed", 0))
    return prior, mean[half:], log_std[half:], codes[half:]


def mixture_saving(run: Run, components: int = 10, samples: int = 50) -> Floats:
    """Nats of KL that a mixture prior saves against N(0, I), on images it was not fitted to."""
    prior, mean, log_std, _ = fit_prior(run, components)
    noise = _noise(run, samples, mean, "kl/held out")
    mixture = priors.log_ratios(mean, log_std, prior.log_prob, noise).mean(0)
    return (gaussian_kl(mean, log_std).sum(1) - mixture).numpy()


def quadrature_errors(
    run: Run, components: int = 10, images: int = 12, samples: int = 1000
) -> Floats:
    """Estimate minus numerical integral of the KL from the mixture prior, in nats: (images,)."""
    prior, mean, log_std, _ = fit_prior(run, components)
    mean, log_std = mean[:images], log_std[:images]
    noise = _noise(run, samples, mean, "kl/held out")
    estimate = priors.log_ratios(mean, log_std, prior.log_prob, noise).mean(0).numpy()
    pairs = zip(mean, log_std, strict=True)
    integral = [priors.kl_by_quadrature(*pair, prior.log_prob) for pair in pairs]
    return estimate - np.array(integral)


def _noise(run: Run, samples: int, like: Tensor, purpose: str = "kl/codes") -> Tensor:
    rng = data.generator(getattr(run.settings, "seed", 0), purpose)
    return torch.randn(samples, *like.shape, generator=rng, dtype=torch.float64)
