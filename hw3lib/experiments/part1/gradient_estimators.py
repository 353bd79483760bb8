"""Two ways to differentiate an expectation over q(z), and what they cost (question 1.7).

J(mean, log_std) = E[f(z)] with z ~ N(mean, diag std^2). Both estimators are averages over samples
of z. A gradient here has 2 D entries: those for the mean, then those for the log std.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from annotated_types import Ge, Le
from pydantic import AfterValidator
from torch import Tensor

from hw3lib import data, runs
from hw3lib.experiments.base import Experiment, device_of, embedded_digits, outcome
from hw3lib.experiments.part1.vae_training import STORED_IMAGES, TrainVAE, load_vae
from hw3lib.runs import Context, Outcome
from hw3lib.vae import VAE, ElboObjective, gaussian_kl, log_normal

Estimator = Literal["pathwise", "score", "blocked"]

ESTIMATORS: tuple[Estimator, ...] = ("pathwise", "score", "blocked")
"""Reparameterised; REINFORCE with a baseline; no gradient through the sample at all."""


def pathwise_gradients(
    f: Callable[[Tensor], Tensor], mean: Tensor, log_std: Tensor, noise: Tensor
) -> Tensor:
    """Reparameterised gradient of E[f(z)] from each sample alone, (S, 2 D).

    Args:
        f: maps codes (S, D) to values (S,), differentiably.
        mean, log_std: (D,) of q(z).
        noise: (S, D) standard normal numbers.
    """
    std = log_std.exp()
    z = (mean + std * noise).detach().requires_grad_()
    (slope,) = torch.autograd.grad(f(z).sum(), z)
    return torch.cat([slope, slope * std * noise], dim=-1)


def score_terms(
    f: Callable[[Tensor], Tensor], mean: Tensor, log_std: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """What REINFORCE multiplies: values f(z), (S,), and scores grad log q(z), (S, 2 D).

    Arguments as in `pathwise_gradients`; f need not be differentiable (Williams 1992).
    """
    std = log_std.exp()
    with torch.no_grad():
        values = f(mean + std * noise)
    return values, torch.cat([noise / std, noise.square() - 1], dim=-1)


def leave_one_out(values: Tensor, dim: int = -1) -> Tensor:
    """Each value minus the mean of the others along one axis.

    The others are independent of the sample, so that this baseline leaves REINFORCE unbiased.

    Raises:
        ValueError: there are no others.
    """
    n = values.shape[dim]
    if n < 2:
        raise ValueError("a baseline from the other samples needs at least two samples")
    return (values - values.mean(dim, keepdim=True)) * (n / (n - 1))


def gradient_estimates(
    f: Callable[[Tensor], Tensor], mean: Tensor, log_std: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """Three estimates of the gradient of E[f(z)], from the same samples.

    Args:
        f, mean, log_std: see `pathwise_gradients`.
        noise: (R, L, D), for R repetitions with L samples each.

    Returns:
        (R, 2 D) for each of "pathwise", "score", and, for L > 1, "score_baseline".
    """
    shape = noise.shape[:2]
    arguments = f, mean, log_std, noise.flatten(0, 1)
    values, scores = (part.unflatten(0, shape) for part in score_terms(*arguments))
    pathwise = pathwise_gradients(*arguments).unflatten(0, shape)
    estimates = {"pathwise": pathwise.mean(1), "score": (values.unsqueeze(-1) * scores).mean(1)}
    if shape[1] > 1:
        estimates["score_baseline"] = (leave_one_out(values).unsqueeze(-1) * scores).mean(1)
    return estimates


def finite_differences(f: Callable[[Tensor], Tensor], point: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of a scalar function at `point` (P,), one entry at a time, (P,)."""
    steps = step * torch.eye(len(point), dtype=point.dtype)
    return torch.stack([(f(point + e) - f(point - e)) / (2 * step) for e in steps])


class VaeGradients(Experiment):
    """Variance of the gradient of E_q[log p(x|z)] on a trained VAE, image by image.

    The gradient is that for the mean and log standard deviation of q(z|x), which the encoder passes
    on to its weights. The KL is left out: it has a closed form and no variance.

    Attributes:
        training: the VAE.
        images: how many of the test images that are stored with it.
        samples: in each estimate.
        repeats: estimates per image.
        seed: of the noise.
    """

    experiment: ClassVar[str] = "vae_gradients"

    training: TrainVAE = TrainVAE()
    images: Annotated[int, Ge(2), Le(STORED_IMAGES)] = 24
    samples: Annotated[int, Ge(2)] = 8
    repeats: Annotated[int, Ge(2)] = 16
    seed: int = 0

    def compute(self, context: Context) -> Outcome:  # noqa: ARG002 - small enough for the CPU
        stored = runs.run(self.training, weights=True)
        images = torch.from_numpy(stored.arrays["originals"][: self.images])
        return outcome({}, self.measure(load_vae(self.training), images))

    def canary(self) -> list[float]:
        """Variances of an untrained model on two embedded digits.

        In double precision: the score-function estimate of an untrained model is a small
        difference of large log-likelihoods, which float32 rounds differently on each processor.
        """
        table = self.measure(self.training.untrained(), embedded_digits(2))
        return torch.cat([table[name] for name in sorted(table)]).tolist()

    def measure(self, model: VAE, images: Tensor) -> dict[str, Tensor]:
        """Total variance of each estimator, and the squared norm of the gradient, (N,) each."""
        rows = []
        for i, (mean, log_std) in enumerate(zip(*model.encode(images), strict=True)):
            rng = data.generator(self.seed, f"gradient noise of image {i}")
            noise = torch.randn(self.repeats, self.samples, len(mean), generator=rng).to(mean)
            x = images[i].expand(self.repeats * self.samples, -1, -1)
            log_lik = partial(model.log_likelihood, x)
            estimates = gradient_estimates(log_lik, mean, log_std, noise)
            row = {name: estimate.var(0).sum() for name, estimate in estimates.items()}
            rows.append(row | {"norm_squared": estimates["pathwise"].mean(0).square().sum()})
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class EstimatorObjective(ElboObjective):
    """The negative ELBO with two samples an image, and a choice of gradient for the encoder.

    Args:
        train, val, val_noise: see `ElboObjective`.
        estimator: "pathwise" differentiates through the samples; "score" is REINFORCE, where an
            image's samples are each other's baseline; "blocked" takes them as constants.
    """

    samples = 2

    def __init__(self, train: Tensor, val: Tensor, val_noise: Tensor, estimator: Estimator) -> None:
        super().__init__(train, val, val_noise)
        self.estimator = estimator

    def draw(self, generator: torch.Generator) -> Tensor:
        """The noise of one epoch, (N, samples, D)."""
        shape = (self.num_examples, self.samples, self.val_noise.shape[1])
        return torch.randn(shape, generator=generator)

    def loss(self, model: VAE, index: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A loss with the estimator's gradient, and the sums of nll and kl over the batch."""
        x = self.train[index]
        mean, log_std = (t.float() for t in model.encode(x))
        z = mean + log_std.exp() * noise.transpose(0, 1)  # (samples, N, D)
        if self.estimator != "pathwise":
            z = z.detach()
        log_lik = model.log_likelihood(x.repeat(len(z), 1, 1), z.flatten(0, 1))
        nll, kl = -log_lik.view(len(z), -1), gaussian_kl(mean, log_std).sum(1)
        loss = (nll.mean(0) + kl).mean()
        if self.estimator == "score":
            loss = loss + (leave_one_out(nll.detach(), 0) * log_normal(z, mean, log_std)).mean()
        return loss, torch.stack([nll.mean(0).sum(), kl.sum()]).detach()


def _unweighted(training: TrainVAE) -> TrainVAE:
    if training.beta != 1:
        raise ValueError(
            f"beta={training.beta:g}: estimators are compared on the ELBO; take beta=1"
        )
    return training


class CompareEstimators(Experiment):
    """Train the same VAE three times, with each gradient estimator.

    Attributes:
        training: the VAE; its epochs count passes over the `images` training images.
        images: how many training images are used, at most.
    """

    experiment: ClassVar[str] = "compare_estimators"

    training: Annotated[TrainVAE, AfterValidator(_unweighted)] = TrainVAE(
        epochs=10, num_filters=16, batch_size=64
    )
    images: Annotated[int, Ge(2)] = 4000

    def compute(self, context: Context) -> Outcome:
        device = device_of(context)
        dataset = data.load(self.training.dataset)
        train, val = data.train_val_split(len(dataset.x_train))
        images = data.quantize(dataset.x_train).to(device)
        parts = (images[train[: self.images]], images[val[:500]])
        results: dict[str, Any] = {name: self.histories(name, *parts) for name in ESTIMATORS}
        return outcome(results, device=device)

    def canary(self) -> list[float]:
        """Validation scores after an epoch on a few embedded digits, with each estimator."""
        short = self.changed(training=self.training.changed(epochs=1, batch_size=32))
        images = data.quantize(data.load("digits").x_train)
        rows = [short.histories(name, images[:128], images[-64:]) for name in ESTIMATORS]
        return [bpd for row in rows for bpd in row["val_bpd"]]

    def histories(self, estimator: Estimator, train: Tensor, val: Tensor) -> dict[str, list[float]]:
        """Validation nll, kl (nats) and bpd before training and after every epoch."""
        model, optimizer = self.training.build(train.device)
        noise = self.training.objective(train, val).val_noise
        objective = EstimatorObjective(train, val, noise, estimator)
        options = {"select": "bpd", "label": estimator}
        progress = self.training.loop(model, objective, optimizer, Context(), **options)
        names = ("val_nll", "val_kl", "val_bpd")
        return {name: [cast(float, row[name]) for row in progress.history] for name in names}
