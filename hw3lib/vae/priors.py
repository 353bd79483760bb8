"""Priors whose KL from a Gaussian has no closed form, and two ways to get it (question 1.6)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from hw3lib.vae.bounds import log_normal

LogDensity = Callable[[Tensor], Tensor]
"""Maps points (..., D) to log densities (...) in nats."""


def gaussian_mixture(weight: Tensor, mean: Tensor, std: Tensor) -> MixtureSameFamily:
    """p(z) = sum_c weight_c N(z; mean_c, diag(std_c^2)), for weight (C,), mean and std (C, D)."""
    return MixtureSameFamily(Categorical(weight), Independent(Normal(mean, std), 1))


def fit_mixture(codes: ArrayLike, components: int, seed: int = 0) -> MixtureSameFamily:
    """The mixture of greatest likelihood for codes (N, D), by expectation maximisation."""
    fitted = GaussianMixture(components, covariance_type="diag", random_state=seed)
    fitted.fit(np.asarray(codes, dtype=np.float64))
    parts = (fitted.weights_, fitted.means_, np.sqrt(fitted.covariances_))
    return gaussian_mixture(*map(torch.from_numpy, parts))


def log_ratios(mean: Tensor, log_std: Tensor, log_prior: LogDensity, noise: Tensor) -> Tensor:
    """log q(z|x) - log p(z) in nats, (L, ...), at samples z of q = N(mean, diag std^2).

    Their mean over the samples is the Monte-Carlo estimate of KL(q || p).

    Args:
        mean, log_std: (..., D).
        log_prior: log p(z).
        noise: (L, ..., D) standard normal numbers.
    """
    z = mean + log_std.exp() * noise
    return log_normal(z, mean, log_std) - log_prior(z)


def kl_by_quadrature(
    mean: Tensor, log_std: Tensor, log_prior: LogDensity, points: int = 401
) -> float:
    """KL(q || p) in nats by the trapezoidal rule, for q = N(mean, diag std^2) in few dimensions.

    On a smooth integrand that vanishes at both ends the rule converges exponentially in `points`.

    Args:
        mean, log_std: (D,), D of 1 or 2, in float64.
        log_prior: log p(z).
        points: of the grid along each dimension; it spans ten standard deviations of q each way.

    Raises:
        ValueError: D is neither 1 nor 2.
    """
    (dims,) = mean.shape
    if dims not in (1, 2):
        raise ValueError(f"a grid over D={dims} dimensions is not feasible; D must be 1 or 2")
    ticks = torch.linspace(-10, 10, points, dtype=torch.float64)
    noise = torch.stack(torch.meshgrid(*[ticks] * dims, indexing="ij"), -1)
    ratio = log_ratios(mean.double(), log_std.double(), log_prior, noise)
    integral = (log_normal(noise).exp() * ratio).numpy()
    for _ in range(dims):
        integral = trapezoid(integral, ticks.numpy(), axis=-1)
    return float(integral)


def ratio_std(mean: Tensor, log_std: Tensor) -> float:
    """Exact standard deviation in nats of `log_ratios` under the prior N(0, I); mean (D,).

    With z = mean + std e the ratio is a sum over dimensions of mean^2 / 2 + mean std e +
    (std^2 - 1) e^2 / 2 - log std, and Var e = 1, Var e^2 = 2, Cov(e, e^2) = 0.
    """
    variance = (2 * log_std).exp()
    return math.sqrt((mean.square() * variance + 0.5 * (variance - 1).square()).sum())
