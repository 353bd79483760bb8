"""The linear-Gaussian model, in which log p(x) and the posterior are known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hw3lib.vae.bounds import gaussian_kl, log_normal


@dataclass(frozen=True)
class LinearGaussian:
    """x = W z + b + noise_std * e with z ~ N(0, I) and e ~ N(0, I).

    Attributes:
        weight: W, (P, D).
        bias: b, (P,).
        noise_std: standard deviation of the observation noise.

    Example:
        With one latent dimension the diagonal encoder is the posterior, so the ELBO is log p(x).

        >>> rng = torch.Generator().manual_seed(0)
        >>> model = LinearGaussian.random(data_dim=3, latent_dim=1, generator=rng)
        >>> x, _ = model.sample(5, rng)
        >>> bool(torch.allclose(model.elbo(x, *model.encode(x)), model.log_prob(x)))
        True
    """

    weight: Tensor
    bias: Tensor
    noise_std: float

    @classmethod
    def random(
        cls, data_dim: int, latent_dim: int, generator: torch.Generator, noise_std: float = 0.5
    ) -> LinearGaussian:
        """A model in float64 with standard normal weights and biases."""
        weight = torch.randn(data_dim, latent_dim, generator=generator, dtype=torch.float64)
        bias = torch.randn(data_dim, generator=generator, dtype=torch.float64)
        return cls(weight, bias, noise_std)

    def sample(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw data x (num, P) and the codes z (num, D) that made them."""
        p, d = self.weight.shape
        z = torch.randn(num, d, generator=generator, dtype=self.weight.dtype)
        noise = torch.randn(num, p, generator=generator, dtype=self.weight.dtype)
        return z @ self.weight.T + self.bias + self.noise_std * noise, z

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats for x (..., P) and z (..., D)."""
        return log_normal(x, z @ self.weight.T + self.bias, math.log(self.noise_std))

    def log_prob(self, x: Tensor) -> Tensor:
        """The exact log p(x) = log N(x; b, W W^T + noise_std^2 I) in nats, (N,)."""
        eye = torch.eye(len(self.bias), dtype=self.weight.dtype)
        covariance = self.weight @ self.weight.T + self.noise_std**2 * eye
        distribution = torch.distributions.MultivariateNormal(self.bias, covariance)
        log_prob: Tensor = distribution.log_prob(x)
        return log_prob

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The exact p(z|x): means (N, D) and the covariance (D, D), the same for every x."""
        covariance = torch.linalg.inv(self._posterior_precision())
        mean = (x - self.bias) @ self.weight @ covariance / self.noise_std**2
        return mean, covariance

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The best diagonal Gaussian under KL(q || p(z|x)): mean and log std, (N, D) each."""
        mean, _ = self.posterior(x)
        log_std = -0.5 * self._posterior_precision().diagonal().log()
        return mean, log_std.expand_as(mean)

    def elbo(self, x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        """The exact ELBO in nats, (N,), of q(z|x) = N(mean, diag std^2)."""
        variance = (2 * log_std).exp()
        spread = (self.weight.square().sum(0) * variance).sum(-1) / self.noise_std**2
        nll = -self.log_likelihood(x, mean) + 0.5 * spread
        return -(nll + gaussian_kl(mean, log_std).sum(-1))

    def posterior_kl(self, x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        """KL(q(z|x) || p(z|x)) in nats, (N,), of q(z|x) = N(mean, diag std^2)."""
        centre, covariance = self.posterior(x)
        q = torch.distributions.MultivariateNormal(mean, (2 * log_std).exp().diag_embed())
        p = torch.distributions.MultivariateNormal(centre, covariance)
        return torch.distributions.kl_divergence(q, p)

    def _posterior_precision(self) -> Tensor:
        d = self.weight.shape[1]
        eye = torch.eye(d, dtype=self.weight.dtype)
        return eye + self.weight.T @ self.weight / self.noise_std**2
