"""Estimating log p(x) by Monte Carlo (question 1.2): from the prior, and from the encoder.

A `Scores` function maps images (N, ...) and codes (L, D) to log p(x_n|z_l) in nats, (N, L): the
codes are decoded once and scored against all images by one matrix product.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Self

import scipy
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Len, Lt
from pydantic import field_validator, model_validator
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from hw3lib import data, stats
from hw3lib.data import GREY_LEVELS
from hw3lib.experiments.base import Experiment, device_of, embedded_digits, outcome
from hw3lib.experiments.part1.vae_training import TrainVAE, load_vae
from hw3lib.runs import Context, Outcome
from hw3lib.vae import VAE, LinearGaussian, log_normal

Scores = Callable[[Tensor, Tensor], Tensor]


def decoder_scores(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x_n|z_l) in nats, (N, L), for grey levels x (N, H, W) and codes z (L, D)."""
    log_probs = model.decode(z).log_softmax(1).flatten(1)
    chosen = F.one_hot(x.long(), GREY_LEVELS).movedim(-1, 1).flatten(1)
    return chosen.to(log_probs.dtype) @ log_probs.T


def linear_gaussian_scores(model: LinearGaussian, x: Tensor, z: Tensor) -> Tensor:
    """log p(x_n|z_l) in nats, (N, L), for data x (N, P) and codes z (L, D): the square expanded."""
    slope = (x - model.bias) @ model.weight / model.noise_std**2
    gram = model.weight.T @ model.weight / model.noise_std**2
    at_zero = log_normal(x, model.bias, math.log(model.noise_std))
    return at_zero[:, None] + slope @ z.T - 0.5 * _quadratic(gram, z)


@torch.no_grad()
def prior_log_weights(
    scores: Scores, x: Tensor, like: Tensor, draws: int, generator: Generator, rows: int = 2048
) -> Tensor:
    """log p(x_n|z_l) in nats, (N, draws), of codes z_l ~ N(0, I) that all images share.

    Codes have the width, type and device of `like` (..., D); `rows` of them are decoded at a time.
    """
    parts = []
    for part in torch.arange(draws).split(rows):
        z = torch.randn(len(part), like.shape[-1], dtype=like.dtype, generator=generator)
        parts.append(scores(x, z.to(like.device)))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def encoder_log_weights(
    scores: Scores,
    x: Tensor,
    mean: Tensor,
    log_std: Tensor,
    draws: int,
    generator: Generator,
    rows: int = 2048,
) -> tuple[Tensor, Tensor]:
    """Both parts of the importance weights of codes z_nl ~ q(z|x_n) = N(mean_n, diag std_n^2).

    They are log p(x_n|z_nl) and log p(z_nl) - log q(z_nl|x_n) in nats, (N, draws) each.
    """
    log_lik = torch.empty(len(x), draws, dtype=mean.dtype, device=mean.device)
    log_ratio = torch.empty_like(log_lik)
    for n in range(len(x)):
        for part in torch.arange(draws).split(rows):
            shape = (len(part), mean.shape[1])
            noise = torch.randn(shape, dtype=mean.dtype, generator=generator).to(mean.device)
            z = mean[n] + log_std[n].exp() * noise
            log_lik[n, part] = scores(x[n : n + 1], z)[0]
            log_ratio[n, part] = log_normal(z) - log_normal(z, mean[n], log_std[n])
    return log_lik, log_ratio


def estimates(log_weights: Tensor, sizes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Estimates of log p(x) from disjoint blocks of weights, and their effective sample sizes.

    Args:
        log_weights: (N, T) in nats.
        sizes: values of L. Every L columns make one estimate; a remainder is left out.

    Returns:
        For each L, log 1/L sum w and (sum w)^2 / sum w^2, (N, T // L) each.

    Raises:
        ValueError: a size is not among 1, ..., T.
    """
    found, total = [], log_weights.shape[1]
    for size in sizes:
        if not 1 <= size <= total:
            raise ValueError(
                f"sizes={list(sizes)}: there are {total} weights, so 1 <= L <= {total}"
            )
        blocks = log_weights[:, : total // size * size].unflatten(1, (-1, size))
        log_sum, log_square = blocks.logsumexp(2), (2 * blocks).logsumexp(2)
        found.append((log_sum - math.log(size), (2 * log_sum - log_square).exp()))
    return found


def summarise(log_weights: Tensor, log_p: Tensor, sizes: Sequence[int]) -> dict[str, list[float]]:
    """Error, spread and effective sample size of the `estimates` of log p(x), (N,), for each L.

    `error` is the mean error in nats, with `error_low` and `error_high`, its 95% interval over the
    N images; `std`, the standard deviation in nats over repetitions, root mean square over images,
    for those L that were repeated; `ess`, the mean effective sample size.
    """
    rows: dict[str, list[float]] = defaultdict(list)
    for log_mean, ess in estimates(log_weights, sizes):
        error = stats.mean_interval((log_mean.mean(1) - log_p).cpu().numpy())
        rows["error"].append(error.value)
        rows["error_low"].append(error.low)
        rows["error_high"].append(error.high)
        rows["std"] += [float(log_mean.var(1).mean().sqrt())] if log_mean.shape[1] > 1 else []
        rows["ess"].append(float(ess.mean()))
    return dict(rows)


def log_second_moment(
    p_mean: Tensor, p_precision: Tensor, q_mean: Tensor, q_precision: Tensor
) -> Tensor:
    """log E_q[(p/q)^2] in nats, (N,), of Gaussians p and q: the log of 1 + chi-square divergence.

    A fraction 1 / E_q[(p/q)^2] of the samples from q is effective in estimating the constant of p.

    Means are (N, D), precisions (D, D). It is infinite where the tails of q are too light.
    """
    precision = 2 * p_precision - q_precision
    if torch.linalg.eigvalsh(precision).min() <= 0:
        return torch.full_like(p_mean[:, 0], math.inf)
    shift = 2 * p_mean @ p_precision - q_mean @ q_precision
    logdets = 2 * p_precision.logdet() - q_precision.logdet() - precision.logdet()
    squares = _quadratic(precision.inverse(), shift) + _quadratic(q_precision, q_mean)
    return 0.5 * (logdets + squares) - _quadratic(p_precision, p_mean)


def _quadratic(matrix: Tensor, x: Tensor) -> Tensor:
    """x_n^T M x_n of each row, (N,)."""
    return ((x @ matrix) * x).sum(1)


def asymptotics(log_second_moments: Tensor, size: int) -> dict[str, float]:
    """What `summarise` should give for a large L, from the second moments of the weights alone.

    With v = E[(w / p(x))^2] - 1 the estimate of log p(x) has bias -v / 2L, variance v / L, and an
    effective sample size of L / (1 + v); log(1 + v) is given for each image, (N,), and `size` is L.
    """
    v = log_second_moments.double().expm1()
    expected = {"ess": size / (1 + v), "std": v / size, "error": -v / (2 * size)}
    means = {name: float(value.mean()) for name, value in expected.items()}
    return means | {"std": math.sqrt(means["std"])}


def prior_mass(mean: Tensor, covariance: Tensor, draws: int, generator: Generator) -> Tensor:
    """Probability that z ~ N(0, I) falls into the ellipsoid with 95% of N(mean_n, covariance).

    The prior density is averaged over `draws` points spread evenly in each ellipsoid, which works
    where counting hits would need astronomically many prior samples; (N,).
    """
    d = mean.shape[1]
    radius = math.sqrt(scipy.stats.chi2.ppf(0.95, d))
    direction = F.normalize(torch.randn(draws, d, dtype=mean.dtype, generator=generator), dim=1)
    length = torch.rand(draws, 1, dtype=mean.dtype, generator=generator) ** (1 / d)
    root = torch.linalg.cholesky(covariance)
    z = mean[:, None] + radius * (length * direction) @ root.T
    log_volume = root.diagonal().log().sum() + d * math.log(radius * math.sqrt(math.pi))
    return (log_volume - math.lgamma(d / 2 + 1)).exp() * log_normal(z).exp().mean(1)


def _check_sizes(name: str, sizes: Sequence[int], draws: int) -> None:
    if not 1 <= min(sizes) <= max(sizes) <= draws:
        raise ValueError(f"{name}={sizes}: there are {draws} draws, so give sizes from 1 to that")


class LinearGaussianStudy(Experiment):
    """Both estimators where log p(x) is known, in models with more and more latent dimensions.

    All models have the same number of data dimensions and, up to the random weights, the same
    posterior standard deviation in each latent dimension: x tells equally much about each.

    Attributes:
        dims: the values of D.
        sizes: the values of L.
        draws: samples from which the estimates are made, `draws / L` of them.
        num_data: data points drawn from each model.
        data_dim: P.
        posterior_std: typical posterior standard deviation of a code's coordinate.
        seed: of models, data and samples.
    """

    experiment: ClassVar[str] = "linear_gaussian_study"

    dims: Annotated[tuple[int, ...], Len(1)] = (1, 2, 4, 8, 16, 32)
    sizes: Annotated[tuple[int, ...], Len(1)] = tuple(4**k for k in range(8))
    draws: Annotated[int, Ge(2)] = 2**17
    num_data: Annotated[int, Ge(2)] = 32
    data_dim: Annotated[int, Ge(1)] = 784
    posterior_std: Annotated[float, Gt(0), Lt(1)] = 0.3
    seed: int = 0

    @model_validator(mode="after")
    def _draws_suffice(self) -> Self:
        _check_sizes("sizes", self.sizes, self.draws)
        return self

    def compute(self, context: Context) -> Outcome:  # noqa: ARG002 - always on the CPU
        rows = [self.measure(d) for d in self.dims]
        return outcome({name: [row[name] for row in rows] for name in rows[0]})

    def canary(self) -> list[float]:
        """The errors and the closed forms of a small study."""
        row = self.changed(draws=64, sizes=(1, 16), num_data=4, data_dim=16).measure(2)
        errors = [*row["prior"]["error"], *row["encoder"]["error"]]
        return [*errors, *row["kl"], *row["prior_mass"]]

    def measure(self, latent_dim: int) -> dict[str, Any]:
        """Summaries of both estimators, and for each data point what theory says about them.

        In float64, which the exact formulas deserve.
        """
        noise_std = math.sqrt(self.data_dim / (self.posterior_std**-2 - 1))
        rng = data.generator(self.seed, f"model {latent_dim}")
        model = LinearGaussian.random(self.data_dim, latent_dim, rng, noise_std)
        rng = data.generator(self.seed, f"samples {latent_dim}")
        x, _ = model.sample(self.num_data, rng)
        scores = partial(linear_gaussian_scores, model)
        mean, log_std = model.encode(x)
        from_prior = prior_log_weights(scores, x, mean, self.draws, rng)
        from_encoder = torch.add(*encoder_log_weights(scores, x, mean, log_std, self.draws, rng))
        return {
            "prior": summarise(from_prior, model.log_prob(x), self.sizes),
            "encoder": summarise(from_encoder, model.log_prob(x), self.sizes),
            **{name: value.tolist() for name, value in closed_forms(model, x, rng).items()},
        }


def closed_forms(model: LinearGaussian, x: Tensor, generator: Generator) -> dict[str, Tensor]:
    """What theory says about estimating log p(x) of a linear-Gaussian model, (N,) each.

    Returns:
        `kl`, KL(p(z|x) || p(z)) in nats; `log_second_moment_prior` and
        `log_second_moment_encoder`, log E[(w / p(x))^2] of the weights w of both estimators;
        `prior_mass` of the posterior's 95% ellipsoid.
    """
    mean, covariance = model.posterior(x)
    precision, eye = torch.linalg.inv(covariance), torch.eye(len(covariance), dtype=mean.dtype)
    q_mean, q_log_std = model.encode(x)
    q_precision = (-2 * q_log_std[0]).exp().diag()
    posterior, prior = MultivariateNormal(mean, covariance), MultivariateNormal(0 * mean, eye)
    return {
        "kl": kl_divergence(posterior, prior),
        "log_second_moment_prior": log_second_moment(mean, precision, 0 * mean, eye),
        "log_second_moment_encoder": log_second_moment(mean, precision, q_mean, q_precision),
        "prior_mass": prior_mass(mean, covariance, 4096, generator),
    }


class MarginalLikelihood(Experiment):
    """Both estimators on a trained VAE's test images.

    Attributes:
        vae: the model.
        num_images: the first of the test set.
        prior_sizes, encoder_sizes: the values of L.
        prior_draws, encoder_draws: samples from which the estimates are made, `draws / L` of them.
        reference_draws: other encoder samples, from which the reference for log p(x) is made.
        seed: of the samples.
    """

    experiment: ClassVar[str] = "marginal_likelihood"

    vae: TrainVAE = TrainVAE()
    num_images: Annotated[int, Ge(2)] = 64
    prior_sizes: Annotated[tuple[int, ...], Len(1)] = tuple(4**k for k in range(9))
    prior_draws: Annotated[int, Ge(1)] = 2**16
    encoder_sizes: Annotated[tuple[int, ...], Len(1)] = tuple(4**k for k in range(5))
    encoder_draws: Annotated[int, Ge(1)] = 2**9
    reference_draws: Annotated[int, Ge(1)] = 2**11
    seed: int = 0

    @model_validator(mode="after")
    def _draws_suffice(self) -> Self:
        for name in ("prior", "encoder"):
            sizes, draws = getattr(self, f"{name}_sizes"), getattr(self, f"{name}_draws")
            _check_sizes(f"{name}_sizes", sizes, draws)
        return self

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        x = data.quantize(data.load(self.vae.dataset).x_test[: self.num_images]).to(device)
        results = self.measure(load_vae(self.vae).to(device), x)
        return outcome(results, device=device)

    def canary(self) -> list[float]:
        """The losses of the model's canary, and this measurement on digits without training."""
        small = self.changed(
            prior_sizes=(1, 16), prior_draws=32, encoder_sizes=(1, 4), encoder_draws=8,
            reference_draws=16,
        )  # fmt: skip
        results = small.measure(self.vae.untrained(), embedded_digits(2))
        errors = [*results["prior"]["error"], *results["encoder"]["error"]]
        return [*self.vae.canary(), *errors, *results["kl"]]

    @torch.no_grad()
    def measure(self, model: VAE, x: Tensor) -> dict[str, Any]:
        """Summaries of both estimators; log p(x) and KL(p(z|x) || p(z)) of each image in nats."""
        scores = partial(decoder_scores, model)
        mean, log_std = model.encode(x)
        rng = data.generator(self.seed, "reference")
        draws = partial(encoder_log_weights, scores, x, mean, log_std)
        log_lik, log_ratio = draws(self.reference_draws, rng)
        log_weights = (log_lik + log_ratio).double()
        log_p = log_weights.logsumexp(1) - math.log(self.reference_draws)
        kl = (log_weights.softmax(1) * log_lik).sum(1) - log_p
        rng = data.generator(self.seed, "prior")
        from_prior = prior_log_weights(scores, x, mean, self.prior_draws, rng).double()
        rng = data.generator(self.seed, "encoder")
        from_encoder = torch.add(*draws(self.encoder_draws, rng)).double()
        return {
            "prior": summarise(from_prior, log_p, self.prior_sizes),
            "encoder": summarise(from_encoder, log_p, self.encoder_sizes),
            "log_p": log_p.tolist(),
            "kl": kl.tolist(),
        }


class PosteriorGrid(Experiment):
    """The exact posterior of one test image under a VAE with two latent dimensions, on grids.

    Attributes:
        vae: the model.
        image: its place in the test set.
        size: grid points an axis.
        extent: the grid over the prior reaches from -extent to extent.
    """

    experiment: ClassVar[str] = "posterior_grid"

    vae: TrainVAE = TrainVAE(latent_dim=2)
    image: Annotated[int, Ge(0)] = 0
    size: Annotated[int, Ge(5)] = 81
    extent: Annotated[float, Gt(0)] = 4.5

    @field_validator("vae")
    @classmethod
    def _is_a_plane(cls, vae: TrainVAE) -> TrainVAE:
        if vae.latent_dim != 2:
            raise ValueError(
                f"latent_dim={vae.latent_dim}: the grid covers a plane, so it must be 2"
            )
        return vae

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        x = data.quantize(data.load(self.vae.dataset).x_test[self.image][None]).to(device)
        results, arrays = self.measure(load_vae(self.vae).to(device), x)
        return outcome(results, arrays | {"image": x[0]}, device=device)

    def canary(self) -> list[float]:
        """The losses of the model's canary, and this measurement on a digit without training."""
        results, _ = self.changed(size=9).measure(self.vae.untrained(), embedded_digits(1))
        return [*self.vae.canary(), results["log_p"], results["kl"], results["prior_mass"]]

    @torch.no_grad()
    def measure(self, model: VAE, x: Tensor) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Integrals over the posterior; log p(x, z) on the prior's plane and near the posterior."""
        ticks = torch.linspace(-self.extent, self.extent, self.size, dtype=torch.float64)
        axes = plane_axes = ticks.expand(2, -1)
        log_p_joint = plane = log_joint(model, x, axes)
        for _ in range(3):
            axes = zoom(axes, log_p_joint)
            log_p_joint = log_joint(model, x, axes)
        mean, log_std = model.encode(x)
        arrays = {
            "plane_axes": plane_axes,
            "plane_log_joint": plane.float(),
            "near_axes": axes,
            "near_log_joint": log_p_joint.float(),
            "encoder_mean": mean[0],
            "encoder_std": log_std[0].exp(),
        }
        return integrals(axes, log_p_joint), arrays


def log_joint(model: VAE, x: Tensor, axes: Tensor) -> Tensor:
    """log p(x, z) of one image x (1, H, W) in nats on a grid of codes, (S, S) float64.

    Axes are (2, S): the values of z_1 along the columns, of z_2 along the rows.
    """
    z = grid_codes(axes)
    weight = next(model.parameters())
    parts = [decoder_scores(model, x, part.to(weight))[0].double().cpu() for part in z.split(2048)]
    return (torch.cat(parts) + log_normal(z)).view(axes.shape[1], axes.shape[1])


def grid_codes(axes: Tensor) -> Tensor:
    """The codes (S * S, 2) of the grid with these axes (2, S), row by row."""
    return torch.stack(torch.meshgrid(axes[0], axes[1], indexing="xy"), dim=-1).reshape(-1, 2)


def zoom(axes: Tensor, log_density: Tensor, drop: float = 12.0) -> Tensor:
    """Axes (2, S) of a square with all grid points less than `drop` nats below the largest."""
    high = log_density > log_density.max() - drop
    inside = (axes[0, high.any(0)], axes[1, high.any(1)])
    ends = torch.stack([points[[0, -1]] for points in inside])
    half = (ends.diff(dim=1)[:, 0] / 2 + 1.5 * (axes[:, 1] - axes[:, 0])).max()
    steps = torch.linspace(-1, 1, axes.shape[1], dtype=axes.dtype)
    return ends.mean(1, keepdim=True) + half * steps


def integrals(axes: Tensor, log_p_joint: Tensor, level: float = 0.95) -> dict[str, float]:
    """What the grid says about a posterior: sums over its cells.

    `log_p`, log p(x) in nats; `kl`, KL(p(z|x) || p(z)) in nats; `log_second_moment`,
    log E[(p(x|z) / p(x))^2] under the prior; `prior_mass` of the region of highest density that
    holds a share `level`. Outside the grid the joint density has to be negligible.
    """
    log_area = float((axes[:, 1] - axes[:, 0]).log().sum())
    log_prior = log_normal(grid_codes(axes)).view_as(log_p_joint)
    log_p = float(log_p_joint.logsumexp((0, 1))) + log_area
    log_ratio = log_p_joint - log_prior - log_p  # log p(x|z) / p(x) = log p(z|x) / p(z)
    mass = (log_p_joint - log_p + log_area).exp()
    inside = log_p_joint >= density_threshold(log_p_joint, level)
    return {
        "log_p": log_p,
        "kl": float((mass * log_ratio).sum()),
        "log_second_moment": float((mass.log() + log_ratio).logsumexp((0, 1))),
        "prior_mass": float((log_prior + log_area).exp()[inside].sum()),
    }


def density_threshold(log_density: Tensor, level: float) -> float:
    """The log density above which a share `level` of the mass of a grid lies."""
    ordered = log_density.flatten().sort(descending=True).values
    mass = ordered.softmax(0).cumsum(0)
    return float(ordered[int((mass < level).sum())])
