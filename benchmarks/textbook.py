"""The same work as a textbook writes it: what the rows of the table compare hw3lib with.

Per-image transforms, a DataLoader with two workers, float32, the default memory layout, a number
read from the device in every step, and attacks that compute the gradients of the parameters, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from hw3lib.vae.bounds import gaussian_kl
from hw3lib.vae.model import VAE

WORKERS = 2


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images one by one, as torchvision's data sets hand them out.

    Args:
        images: (N, H, W) or (N, 3, H, W) uint8.
        labels: (N,).
        transform: from a PIL image to a tensor.
    """

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[..., Tensor]) -> None:
        self.arrays = (images.movedim(1, 3) if images.ndim == 4 else images).numpy()
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def network(model: nn.Module) -> nn.Module:
    """The same network in the default memory layout."""
    return model.to(memory_format=torch.contiguous_format)


def vae_epoch(model: VAE, images: Tensor, batch_size: int, learning_rate: float) -> float:
    """Train a VAE for one pass over uint8 images (N, 28, 28); returns the mean loss in nats."""
    to_levels = transforms.Compose(
        [transforms.ToTensor(), transforms.Lambda(lambda x: (x * 255).long().squeeze(0) // 16)]
    )
    data = Pictures(images, torch.zeros(len(images)), to_levels)
    loader = DataLoader(data, batch_size, shuffle=True, num_workers=WORKERS)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    model.train()
    device = next(model.parameters()).device
    total = 0.0
    for levels, _ in loader:
        x = levels.to(device)
        mean, log_std = model.encode(x)
        z = mean + log_std.exp() * torch.randn_like(mean)
        nll = F.cross_entropy(model.decode(z), x, reduction="none").sum((1, 2))
        loss = (nll + gaussian_kl(mean, log_std).sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(x)
    return total / len(images)


def augmented_pixels() -> Callable[..., Tensor]:
    """Crop and flip, then pixels in [0, 1]; the network normalises by itself."""
    steps: Callable[..., Tensor] = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )
    return steps


def classifier_epoch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    attack: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
) -> float:
    """Train a classifier for one pass over uint8 images (N, 3, 32, 32); returns the mean loss.

    With an attack, each batch is joined with its adversarial images.
    """
    data = Pictures(images, labels, augmented_pixels())
    loader = DataLoader(data, batch_size, shuffle=True, num_workers=WORKERS)
    total = 0.0
    for pixels, classes in loader:
        x, y = pixels, classes
        if attack:
            model.eval()
            x, y = torch.cat([x, attack(model, x, y)]), y.repeat(2)
        model.train()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(pixels)
    return total / len(images)


def pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, step: float, steps: int) -> Tensor:
    """Projected gradient descent with `loss.backward()`: the parameters get gradients as well."""
    adversarial = x.clone()
    for _ in range(steps):
        adversarial.requires_grad_()
        loss = F.cross_entropy(model(adversarial), y)
        model.zero_grad()
        loss.backward()
        assert adversarial.grad is not None
        moved = adversarial.detach() + step * adversarial.grad.sign()
        adversarial = torch.clamp(torch.min(torch.max(moved, x - eps), x + eps), 0, 1)
    return adversarial.detach()


def course_count(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, step: float, steps: int
) -> int:
    """How many images stay right, in the manner of the course: one by one, wrong ones skipped."""
    right = 0
    for image, label in zip(x.split(1), y.split(1), strict=True):
        if model(image).argmax(1).item() != label.item():
            continue
        attacked = pgd(model, image, label, eps, step, steps)
        right += int(model(attacked).argmax(1).item() == label.item())
    return right


def accuracy_under(
    attack: Callable[[Tensor, Tensor], Tensor],
    model: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
) -> float:
    """Share of images that stay right when every one is attacked, as attack libraries are used."""
    right = 0
    for x, y in batches:
        with torch.enable_grad():
            attacked = attack(x, y)
        with torch.no_grad():
            right += int((model(attacked).argmax(1) == y).sum())
    return right / sum(len(y) for _, y in batches)
