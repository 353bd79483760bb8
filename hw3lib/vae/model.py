"""The convolutional VAE of part 1: encoder, decoder, and what becomes of the decoder's logits."""

from __future__ import annotations

import scipy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw3lib.data import GREY_LEVELS
from hw3lib.vae.bounds import ElboTerms, elbo_terms

IMAGE_SIZE = 28

Size = tuple[int, int] | int
"""Height and width of an image, or both in one number."""


class Encoder(nn.Module):
    """q(z|x): images (N, 28, 28) in 0..15 to mean and log standard deviation, (N, D) each."""

    def __init__(
        self,
        latent_dim: int,
        num_filters: int = 32,
        *,
        image_size: Size = IMAGE_SIZE,
        levels: int = GREY_LEVELS,
    ) -> None:
        super().__init__()
        c, (height, width) = num_filters, coarsest(image_size)
        self.levels = levels
        self.net = nn.Sequential(
            nn.Conv2d(1, c, 3, stride=2, padding=1),  # 28 -> 14
            nn.GELU(),
            nn.Conv2d(c, c, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(c, 2 * c, 3, stride=2, padding=1),  # 14 -> 7
            nn.GELU(),
            nn.Conv2d(2 * c, 2 * c, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * c, 2 * c, 3, stride=2, padding=1),  # 7 -> 4
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(height * width * 2 * c, 2 * latent_dim),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scaled = x.unsqueeze(1) * (2 / (self.levels - 1)) - 1  # 0..15 -> -1..1
        mean, log_std = self.net(scaled).chunk(2, dim=1)
        return mean, log_std


class Decoder(nn.Module):
    """p(x|z): codes (N, D) to pixel logits (N, 16, 28, 28)."""

    def __init__(
        self,
        latent_dim: int,
        num_filters: int = 32,
        *,
        image_size: Size = IMAGE_SIZE,
        levels: int = GREY_LEVELS,
    ) -> None:
        super().__init__()
        c, (height, width) = num_filters, coarsest(image_size)
        rows, columns = height_and_width(image_size)
        even = (1 - rows // 4 % 2, 1 - columns // 4 % 2)  # 28 / 4 = 7 is odd
        self.net = nn.Sequential(
            nn.Linear(latent_dim, height * width * 2 * c),
            nn.GELU(),
            nn.Unflatten(1, (2 * c, height, width)),
            nn.ConvTranspose2d(2 * c, 2 * c, 3, stride=2, padding=1, output_padding=even),  # 4 -> 7
            nn.GELU(),
            nn.Conv2d(2 * c, 2 * c, 3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(2 * c, c, 3, stride=2, padding=1, output_padding=1),  # 7 -> 14
            nn.GELU(),
            nn.Conv2d(c, c, 3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(c, levels, 3, stride=2, padding=1, output_padding=1),  # 14 -> 28
        )

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.net(z)
        return logits


class VAE(nn.Module):
    """Encoder and decoder with the prior N(0, I).

    Args:
        latent_dim: D, the length of a code.
        num_filters: channels of the first stage; later stages have twice as many.
        image_size: height and width in pixels, multiples of 4; one number for squares.
        levels: grey levels of a pixel, 0..levels - 1. Elsewhere 28 and 0..15 stand for both.

    Raises:
        ValueError: a size is not possible.

    Example:
        >>> vae = VAE(latent_dim=2, num_filters=4)
        >>> images = vae.sample(3, generator=torch.Generator().manual_seed(0))
        >>> images.shape, images.dtype
        (torch.Size([3, 28, 28]), torch.uint8)
        >>> mean, log_std = vae.encode(images)
        >>> vae.log_likelihood(images, mean).shape
        torch.Size([3])
        >>> VAE(latent_dim=2, num_filters=4, image_size=(8, 12), levels=2).sample(3).shape
        torch.Size([3, 8, 12])
    """

    def __init__(
        self,
        latent_dim: int = 20,
        num_filters: int = 32,
        *,
        image_size: Size = IMAGE_SIZE,
        levels: int = GREY_LEVELS,
    ) -> None:
        super().__init__()
        if latent_dim < 1 or num_filters < 1:
            raise ValueError(
                f"latent_dim={latent_dim}, num_filters={num_filters}: both must be at least 1"
            )
        if not 2 <= levels <= 256:
            raise ValueError(f"levels={levels}: pixels have 2 to 256 grey levels")
        self.latent_dim, self.levels = latent_dim, levels
        self.image_size = height_and_width(image_size)
        self.encoder = Encoder(latent_dim, num_filters, image_size=image_size, levels=levels)
        self.decoder = Decoder(latent_dim, num_filters, image_size=image_size, levels=levels)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> ElboTerms:
        """Both terms of the ELBO of images, see `elbo_terms`, from noise drawn on the CPU."""
        noise = torch.randn(len(x), self.latent_dim, generator=generator)
        return elbo_terms(self, x, noise.to(x.device))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z|x), (N, D) each, for grey levels x (N, 28, 28).

        Raises:
            TypeError: `x` has no whole numbers.
            ValueError: `x` has another shape, or its values are not grey levels 0..15.
        """
        _check_images(x, self.image_size, self.levels)
        mean, log_std = self.encoder(x.to(next(self.parameters()).dtype))
        return mean, log_std

    def decode(self, z: Tensor) -> Tensor:
        """Pixel logits (N, 16, 28, 28) of p(x|z) for codes z (N, D), floats of any precision."""
        logits: Tensor = self.decoder(z.to(next(self.parameters()).dtype))
        return logits

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, (N,): the negative summed cross-entropy of the pixels."""
        return -pixel_nll(self.decode(z), x)

    @torch.no_grad()
    def sample(
        self, num: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Ancestral samples (num, 28, 28), uint8 in 0..15: z from the prior, pixels given z.

        `temperature` divides the pixel logits: 1 samples the model, towards 0 takes the mode. The
        numbers of a CPU `generator` are the same on every device.
        """
        z = torch.randn(num, self.latent_dim, generator=generator).to(next(self.parameters()))
        return sample_pixels(self.decode(z), temperature=temperature, generator=generator)

    @torch.no_grad()
    def manifold(self, size: int = 20) -> tuple[Tensor, Tensor]:
        """Decoder means on a size x size grid of Gaussian percentiles ((i + 1/2) / size).

        Returns:
            The codes (size, size, 2), first axis from top (large z_2) to bottom, second from left
            (small z_1) to right; and the mean images (size, size, 28, 28) in 0..15.

        Raises:
            ValueError: the latent space is not two-dimensional.
        """
        if self.latent_dim != 2:
            raise ValueError(f"the manifold needs latent_dim=2; this model has {self.latent_dim}")
        ticks = torch.tensor(
            scipy.stats.norm.ppf((torch.arange(size) + 0.5).numpy() / size)
        ).float()
        z = torch.stack(torch.meshgrid(ticks, ticks.flip(0), indexing="xy"), dim=-1)
        logits = self.decode(z.reshape(-1, 2).to(next(self.parameters()).device))
        return z, mean_image(logits).unflatten(0, (size, size))


def height_and_width(image_size: Size) -> tuple[int, int]:
    """Both sides of an image that the network can halve twice.

    Raises:
        ValueError: a side is no multiple of 4, or below it.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < 4 or height % 4 or width % 4:
        raise ValueError(f"image_size={image_size}: height and width must be multiples of 4")
    return height, width


def coarsest(image_size: Size) -> tuple[int, int]:
    """Height and width after three halvings, each rounded up; 4 x 4 for images of 28 x 28."""
    height, width = height_and_width(image_size)
    return -(-height // 8), -(-width // 8)


def pixel_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x|z) in nats, (N,): cross-entropy summed over the pixels of each image.

    Args:
        logits: (N, 16, H, W); the sum is taken in float32 or wider.
        x: (N, H, W) grey levels 0..15, any integer type.

    Raises:
        TypeError: the grey levels are no integers.
        ValueError: the logits are of images of another size, or of another number of them.
    """
    if x.is_floating_point():
        raise TypeError(f"x is {x.dtype}; grey levels are integers 0..15 (hw3lib.data.quantize)")
    if x.shape != (len(logits), *logits.shape[2:]):
        raise ValueError(f"x has shape {tuple(x.shape)}, its logits {tuple(logits.shape)}")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    # A row for each pixel: with the channels last in memory this is how the logits lie, so that
    # neither they nor their gradient are copied.
    rows = wide.movedim(1, -1).reshape(-1, logits.shape[1])
    # torch would leave out pixels of -100; no number is to be ignored.
    none = torch.iinfo(torch.long).min
    nll = F.cross_entropy(rows, x.long().flatten(), reduction="none", ignore_index=none)
    return nll.view(len(x), -1).sum(1)


def mean_image(logits: Tensor) -> Tensor:
    """Expected grey level of each pixel, (N, H, W) in 0..15, for logits (N, 16, H, W)."""
    levels = torch.arange(logits.shape[1], dtype=logits.dtype, device=logits.device)
    return torch.einsum("nlhw,l->nhw", logits.softmax(1), levels)


def sample_pixels(
    logits: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """One categorical draw per pixel, (N, H, W) uint8, by inverting the cumulative distribution.

    Args:
        logits: (N, 16, H, W).
        temperature: divides the logits.
        generator: CPU generator of the uniform numbers.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: it divides the logits and must be positive")
    n, _, h, w = logits.shape
    u = torch.rand(n, 1, h, w, generator=generator).to(logits.device)
    # The last level takes what is left, so that rounding cannot push a draw past it.
    cumulative = (logits / temperature).softmax(1).cumsum(1)[:, :-1]
    return (u >= cumulative).sum(1).to(torch.uint8)


def _check_images(x: Tensor, image_size: tuple[int, int], levels: int) -> None:
    if x.ndim != 3 or x.shape[1:] != image_size:
        wanted = f"(N, {image_size[0]}, {image_size[1]})"
        raise ValueError(f"images have shape {tuple(x.shape)}; this VAE takes {wanted}")
    made = " (hw3lib.data.quantize makes them from uint8 pixels)" if levels == GREY_LEVELS else ""
    remedy = f"this VAE takes grey levels 0..{levels - 1}{made}"
    if x.is_floating_point() or x.is_complex():
        raise TypeError(f"pixels are {x.dtype}; {remedy}")
    # Reading values of a device tensor would make the host wait for it.
    if x.device.type == "cpu" and x.numel():
        low, high = (int(value) for value in x.aminmax())
        if low < 0 or high >= levels:
            raise ValueError(f"pixels go from {low} to {high}; {remedy}")
