"""How far the ELBO of a trained VAE lies below log p(x), and why (question 1.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from pydantic import AfterValidator
from torch import Tensor

from hw3lib import data
from hw3lib.experiments.base import (
    Experiment,
    device_of,
    embedded_digits,
    outcome,
    resumable_blocks,
)
from hw3lib.experiments.part1.vae_training import TrainVAE, load_vae
from hw3lib.runs import Context, Outcome
from hw3lib.vae import VAE, bounds, sample_pixels

BLOCK = 10
"""Images measured together; a run is resumed, and stops for a deadline, between two blocks."""

REPORTED_STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Gradient steps on q after which its ELBO is measured; the last step always is."""

ROWS = 512
"""Decoder rows in flight."""

Posterior = tuple[Tensor, Tensor]
"""Mean and log standard deviation of q(z|x), (N, D) each."""


@dataclass(frozen=True)
class FixedPosterior:
    """A model whose encoder gives way to one chosen q for each of N images."""

    model: bounds.LatentModel
    mean: Tensor
    log_std: Tensor

    def encode(self, x: Tensor) -> Posterior:
        if len(x) != len(self.mean):
            raise ValueError(f"{len(x)} images, but a q for {len(self.mean)}")
        return self.mean, self.log_std

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return self.model.log_likelihood(x, z)


class BoundTightness(Experiment):
    """The gap below log p(x) of a trained VAE, measured on random test images.

    Attributes:
        vae: the trained model.
        images: how many test images; as many are sampled from the model itself.
        num_samples: values of K of the importance-weighted bound, ascending.
        refined_samples: largest K of the bounds that use the refined q.
        elbo_samples: latent samples an image of each reported ELBO.
        steps: gradient steps of Adam on the mean and log standard deviation of each image's q.
        step_samples: latent samples of one such step.
        step_size: of Adam; it falls linearly to zero.
        widening: factor on the widths of the refined q before it proposes importance samples. The
            q of the highest ELBO is narrower than the posterior, and misses its tails.
        seed: of the choice of images and of all noise.
    """

    experiment: ClassVar[str] = "bound_tightness"

    vae: TrainVAE = TrainVAE()
    images: Annotated[int, Ge(1)] = 100
    num_samples: Annotated[tuple[int, ...], AfterValidator(bounds.ascending)] = (
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000,
    )  # fmt: skip
    refined_samples: Annotated[int, Ge(1)] = 1000
    elbo_samples: Annotated[int, Ge(1)] = 200
    steps: Annotated[int, Ge(1)] = 100
    step_samples: Annotated[int, Ge(1)] = 8
    step_size: Annotated[float, Gt(0)] = 0.05
    widening: Annotated[float, Ge(1)] = 1.2
    seed: int = 0

    @property
    def reported_steps(self) -> list[int]:
        """The gradient steps after which the ELBO of q is measured."""
        return sorted({step for step in REPORTED_STEPS if step < self.steps} | {self.steps})

    @property
    def refined_num_samples(self) -> list[int]:
        """Values of K of the bounds that use the refined q."""
        return [k for k in self.num_samples if k <= self.refined_samples]

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        dataset = data.load(self.vae.dataset)
        if self.images > len(dataset.x_test):
            raise ValueError(f"images={self.images}: the test set has only {len(dataset.x_test)}")
        model = load_vae(self.vae).to(device)
        order = torch.randperm(len(dataset.x_test), generator=self._rng("choice", 0))
        chosen = order[: self.images]
        x = data.quantize(dataset.x_test[chosen]).to(device)
        blocks = [partial(self.measure, model, part, i) for i, part in enumerate(x.split(BLOCK))]
        parts, seconds = resumable_blocks(blocks, context, self.describe())
        arrays = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        arrays |= {"index": chosen, "label": dataset.y_test[chosen], "image": x}
        results = {
            "num_samples": list(self.num_samples),
            "refined_num_samples": self.refined_num_samples,
            "steps": self.reported_steps,
        }
        return outcome(results, arrays, device=device, seconds=seconds)

    def canary(self) -> list[float]:
        """All that is measured, on two embedded digits with an untrained model in float64."""
        small = self.changed(num_samples=(1, 8), elbo_samples=4, steps=3)
        measured = small.measure(self.vae.untrained(), embedded_digits(2), 0)
        elbo = measured["elbo"]
        # Differences of bounds: their sizes, unlike the bounds', show a change of the weights.
        gaps = [measured["bound"] - elbo[:, :1], (elbo - elbo[:, :1])[:, 1:]]
        gaps += [measured["refined"] - elbo[:, -1:], measured["upper"] - measured["lower"]]
        return [elbo.mean().item(), *torch.cat(gaps, 1).flatten().tolist()]

    def measure(self, model: VAE, x: Tensor, block: int) -> dict[str, Tensor]:
        """All bounds in nats for one block of images x (N, 28, 28), on the CPU.

        Returns:
            `elbo` (N, steps), after each of `reported_steps`; the importance-weighted bounds
            (N, K's) `bound`, with the encoder's q, and `refined`, with the last q, widened; and
            `lower` and `upper` (N, K's) of as many images sampled from the model, with such a q.
        """
        trail = self._refine(model, x, self._rng("steps", block))
        mean, _ = trail[0]
        noise = _normal((self.elbo_samples, *mean.shape), self._rng("elbo", block), mean)
        elbo = [estimate_elbo(model, x, *trail[step], noise) for step in self.reported_steps]
        weights = self._rng("weights", block)
        bound = bounds.importance_weighted_bound(model, x, self.num_samples, weights, rows=ROWS)
        proposal = self._proposal(model, *trail[-1])
        ks = self.refined_num_samples
        refined = bounds.importance_weighted_bound(proposal, x, ks, weights, rows=ROWS)
        measured = {"elbo": torch.stack(elbo, 1), "bound": bound, "refined": refined}
        measured["lower"], measured["upper"] = self._sandwich(model, len(x), block)
        return {name: value.cpu() for name, value in measured.items()}

    def _refine(self, model: VAE, x: Tensor, rng: torch.Generator) -> list[Posterior]:
        return refine_posterior(
            model, x, steps=self.steps, samples=self.step_samples, step_size=self.step_size,
            generator=rng,
        )  # fmt: skip

    def _proposal(self, model: VAE, mean: Tensor, log_std: Tensor) -> FixedPosterior:
        return FixedPosterior(model, mean, log_std + math.log(self.widening))

    def _sandwich(self, model: VAE, num: int, block: int) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds on log p(x) of images sampled from the model."""
        rng = self._rng("simulate", block)
        z = _normal((num, model.latent_dim), rng, next(model.parameters()))
        with torch.no_grad():
            x = sample_pixels(model.decode(z), generator=rng)
        trail = self._refine(model, x, self._rng("simulated steps", block))
        return sandwich(self._proposal(model, *trail[-1]), x, z, self.refined_num_samples, rng)

    def _rng(self, purpose: str, block: int) -> torch.Generator:
        return data.generator(self.seed, f"{self.experiment}/{purpose}", block)


def refine_posterior(
    model: VAE, x: Tensor, *, steps: int, samples: int, step_size: float, generator: torch.Generator
) -> list[Posterior]:
    """Give each image a q of its own: Adam on its mean and log standard deviation.

    The search starts at the encoder's answer; the decoder stays as it is. Images do not influence
    one another, because each number has its own gradient and its own step.

    Args:
        model: on its device, its parameters without gradients.
        x: (N, 28, 28) grey levels.
        steps: how many.
        samples: latent samples of each gradient.
        step_size: of the first step; it falls linearly to zero.
        generator: CPU generator of the noise.

    Returns:
        Mean and log standard deviation, (N, D) each, before the first and after every step.
    """
    start = [t.detach() for t in model.encode(x)]
    mean, log_std = (t.clone().requires_grad_() for t in start)
    optimizer = torch.optim.Adam([mean, log_std], step_size)
    trail = [(start[0], start[1])]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = step_size * (1 - step / steps)
        noise = _normal((samples, *mean.shape), generator, mean)
        optimizer.zero_grad()
        (-_elbo(model, x, mean, log_std, noise)).sum().backward()
        optimizer.step()
        trail.append((mean.detach().clone(), log_std.detach().clone()))
    return trail


@torch.no_grad()
def estimate_elbo(
    model: bounds.LatentModel, x: Tensor, mean: Tensor, log_std: Tensor, noise: Tensor
) -> Tensor:
    """The ELBO in nats, (N,), of q = N(mean, diag std^2), averaged over noise (S, N, D)."""
    parts = noise.split(max(1, ROWS // len(x)))
    sums = [_elbo(model, x, mean, log_std, part) * len(part) for part in parts]
    return torch.stack(sums).sum(0) / len(noise)


@torch.no_grad()
def sandwich(
    model: bounds.LatentModel,
    x: Tensor,
    z: Tensor,
    num_samples: Sequence[int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds in nats, (N, K's) each, on log p(x) of images that the model made.

    The code z that made x is an exact sample of the posterior p(z|x). Among the K importance
    samples it turns the lower bound, in expectation, into an upper one (Grosse et al. 2015).
    """
    lower = bounds.importance_weighted_bound(model, x, num_samples, generator, rows=ROWS)
    mean, log_std = model.encode(x)
    own = model.log_likelihood(x, z) + bounds.log_normal(z) - bounds.log_normal(z, mean, log_std)
    k = torch.tensor(num_samples, dtype=lower.dtype, device=lower.device)
    upper = torch.logaddexp(lower + k.log(), own[:, None]) - (k + 1).log()
    return lower, upper


def _elbo(
    model: bounds.LatentModel, x: Tensor, mean: Tensor, log_std: Tensor, noise: Tensor
) -> Tensor:
    """The ELBO in nats, (N,), with the closed-form KL; noise is (S, N, D)."""
    z = mean + log_std.exp() * noise
    repeated = x.expand(len(noise), *x.shape).flatten(0, 1)
    log_lik = model.log_likelihood(repeated, z.flatten(0, 1)).view(len(noise), len(x))
    return log_lik.mean(0) - bounds.gaussian_kl(mean, log_std).sum(1)


def _normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
