"""Bounds on log p(x), and what a code tells: ELBO, importance weights, active units, information.

Everything is in nats unless it is called `bpd`. A `model` is a `LatentModel`, as the `VAE` and the
`LinearGaussian` of this package are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)

ACTIVE_VARIANCE = 0.01
"""A latent dimension is active if the variance of its posterior mean over the data exceeds this."""

Nats = TypeVar("Nats", float, Tensor, NDArray[Any])
"""One value in nats, or many."""


class LatentModel(Protocol):
    """A latent-variable model with prior N(0, I) and a Gaussian encoder."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class ElboTerms:
    """The two terms of the ELBO, one row per image.

    Attributes:
        nll: (N,) reconstruction term, -log p(x|z) in nats.
        kl: (N, D) KL(q(z|x) || p(z)) in nats, per latent dimension.
    """

    nll: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """(N,) evidence lower bound in nats."""
        return -(self.nll + self.kl.sum(1))

    def loss(self, beta: float = 1.0) -> Tensor:
        """What is minimised: nll + beta * kl, summed over pixels and dimensions, batch mean."""
        return (self.nll + beta * self.kl.sum(1)).mean()


def gaussian_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) in nats for every entry (Kingma & Welling 2014, app. B)."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std


def log_normal(z: Tensor, mean: Tensor | float = 0.0, log_std: Tensor | float = 0.0) -> Tensor:
    """log N(z; mean, diag(std^2)) in nats, summed over the last axis."""
    log_std = torch.as_tensor(log_std, dtype=z.dtype, device=z.device)
    standardised = (z - mean) * (-log_std).exp()
    return (-0.5 * standardised.square() - log_std - 0.5 * LOG_2PI).sum(-1)


def elbo_terms(model: LatentModel, x: Tensor, noise: Tensor) -> ElboTerms:
    """Both terms of the ELBO of images (N, ...) with samples z = mean + std * noise.

    Raises:
        ValueError: the noise, standard normal numbers, is not (N, D).
    """
    mean, log_std = model.encode(x)
    if noise.shape != mean.shape:
        raise ValueError(
            f"noise has shape {tuple(noise.shape)}; these codes need {tuple(mean.shape)}"
        )
    # Losses are computed in float32 even where the network runs in bfloat16.
    mean, log_std = _at_least_float32(mean), _at_least_float32(log_std)
    z = mean + log_std.exp() * noise
    return ElboTerms(nll=-model.log_likelihood(x, z), kl=gaussian_kl(mean, log_std))


def bits_per_dim(nats: Nats, num_dims: int = 28 * 28) -> Nats:
    """Nats per image to bits per dimension: nats / (ln 2 * num_dims)."""
    return nats / (math.log(2) * num_dims)


def ascending(num_samples: Sequence[int] | int) -> tuple[int, ...]:
    """The values of K, or the only one.

    Raises:
        ValueError: there are none, they do not ascend, or one is below 1.
    """
    ks = tuple(num_samples) if isinstance(num_samples, Iterable) else (num_samples,)
    if not ks or ks[0] < 1 or list(ks) != sorted(set(ks)):
        raise ValueError(
            f"num_samples={num_samples!r}: give one or more ascending values of at least 1"
        )
    return ks


@torch.no_grad()
def importance_weighted_bound(
    model: LatentModel,
    x: Tensor,
    num_samples: Sequence[int] | int,
    generator: torch.Generator,
    *,
    rows: int = 2048,
) -> Tensor:
    """Importance-weighted bound log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) (Burda et al. 2016).

    The estimates of one image are nested: a larger K adds samples to those of a smaller one.

    Args:
        model: the latent-variable model.
        x: (N, ...) images.
        num_samples: the values of K, ascending, or one.
        generator: CPU generator of the noise.
        rows: decoder rows in flight; memory does not depend on K or N beyond it.

    Returns:
        (N, len(num_samples)) in nats; (N, 1) for one K.

    Raises:
        ValueError: there are no images, or K does not ascend from 1 or above.
    """
    if not len(x):
        raise ValueError("there are no images, so nothing has a bound")
    ks = ascending(num_samples)
    mean, log_std = (_at_least_float32(t) for t in model.encode(x))
    n = len(mean)
    image_block = min(n, rows)
    sample_block = max(1, rows // image_block)
    bounds = torch.empty(n, len(ks), dtype=mean.dtype, device=mean.device)
    for first in range(0, n, image_block):
        part = slice(first, first + image_block)
        total = torch.full_like(mean[part, 0], -math.inf)
        done = 0
        for column, k in enumerate(ks):
            while done < k:
                draws = min(sample_block, k - done)
                weights = _log_weights(model, x[part], mean[part], log_std[part], draws, generator)
                total = torch.logaddexp(total, weights.logsumexp(0))
                done += draws
            bounds[part, column] = total - math.log(k)
    return bounds


def _log_weights(
    model: LatentModel,
    x: Tensor,
    mean: Tensor,
    log_std: Tensor,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    """log p(x|z) p(z) / q(z|x) for `draws` samples of each of the N rows, (draws, N)."""
    n, d = mean.shape
    noise = torch.randn(draws, n, d, dtype=mean.dtype, generator=generator).to(mean.device)
    z = mean + log_std.exp() * noise
    repeated = x.expand(draws, *x.shape).flatten(0, 1)
    log_lik = model.log_likelihood(repeated, z.flatten(0, 1)).view(draws, n)
    return log_lik + log_normal(z) - log_normal(z, mean, log_std)


def active_dims(mean: Tensor, threshold: float = ACTIVE_VARIANCE) -> Tensor:
    """Where the variance of posterior means (N, D) is larger, (D,) (Burda et al. 2016)."""
    return mean.var(0) > threshold


def active_units(mean: Tensor, threshold: float = ACTIVE_VARIANCE) -> int:
    """How many latent dimensions are active, see `active_dims`."""
    return int(active_dims(mean, threshold).sum())


@torch.no_grad()
def mutual_information(
    mean: Tensor, log_std: Tensor, generator: torch.Generator, *, rows: int = 512
) -> float:
    """Information in nats that z carries about which of N images it came from.

    I = E[log q(z|x) - log q(z)], one z per image, q(z) the mixture of the N posteriors
    (Hoffman & Johnson 2016). It cannot exceed log N.

    Args:
        mean, log_std: (N, D) posteriors of a data set.
        generator: CPU generator of the noise.
        rows: images compared with all N at a time; bounds the memory.

    Example:
        Codes that lie far apart tell all: log N nats.

        >>> import torch
        >>> mean, log_std = torch.tensor([[-50.0], [50.0]]), torch.zeros(2, 1)
        >>> round(mutual_information(mean, log_std, torch.Generator().manual_seed(0)), 4)
        0.6931
    """
    mean, log_std = mean.double(), log_std.double()
    n, d = mean.shape
    noise = torch.randn(n, d, dtype=torch.float64, generator=generator).to(mean.device)
    z = mean + log_std.exp() * noise
    precision = (-2 * log_std).exp()
    # log q(z_i|x_j) for all pairs, by expanding the square: three matrix products.
    constant = (mean.square() * precision).sum(1) + 2 * log_std.sum(1) + d * LOG_2PI
    total = torch.zeros((), dtype=torch.float64, device=mean.device)
    for first in range(0, n, rows):
        part = z[first : first + rows]
        square = part.square() @ precision.T - 2 * part @ (mean * precision).T
        log_q = -0.5 * (square + constant)
        own = log_q.diagonal(first)[: len(part)]
        total += (own - (log_q.logsumexp(1) - math.log(n))).sum()
    return float(total) / n


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
