"""Data sets as unsigned 8-bit tensors, their splits, and seeded randomness.

A data set is one image tensor and one label tensor per split. It is moved to the device once;
everything else (quantising, augmenting, batching) happens there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hw3lib import shapes
from hw3lib.datafiles import ARRAYS, STORED, data_dir, listed, verified
from hw3lib.datafiles import DataError as DataError
from hw3lib.datafiles import download as download

GREY_LEVELS = 16
"""Grey levels of a 4-bit pixel."""

CLASSES: dict[str, tuple[str, ...]] = {
    "mnist": tuple("0123456789"),
    "digits": tuple("0123456789"),
    "cifar10": (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
    "shapes": shapes.CLASSES,
}  # fmt: skip
"""Names of the classes of each data set, in the order of their labels."""

CHECKSUMS = {"mnist": "06b0d1f124c4e5fa", "cifar10": "00a488a30f22c06f"}
"""What `Dataset.checksum` is for the data sets of files."""


@dataclass(frozen=True)
class Dataset:
    """Images and labels of one data set.

    Attributes:
        name: what `load` was asked for.
        x_train, x_test: (N, H, W), or (N, 3, H, W) in colour, uint8.
        y_train, y_test: (N,) int64.
        checksum: SHA-256 over the raw bytes of the four arrays, first 16 hex digits; the bytes
            are those of `SHA256`, with the colour channels last.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    checksum: str

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set with all its tensors on `device`."""
        return replace(self, **{key: getattr(self, key).to(device) for key in ARRAYS})


def load(name: str, root: str | Path | None = None) -> Dataset:
    """Load a data set by name; what is done to its tensors changes no later one.

    Args:
        name: "mnist" or "cifar10" (from `root`), "digits" or "shapes" (embedded, need no file).
        root: folder with torchvision's `MNIST/raw` or `cifar-10-batches-py`, or with `mnist.npz`
            or `cifar10.npz` of the arrays `ARRAYS`; default `data_dir()`.

    Raises:
        DataError: the files are missing, truncated, altered, or of another data set.
        ValueError: the name is unknown.

    Example:
        >>> digits = load("digits")  # embedded; "mnist" and "cifar10" are read or downloaded
        >>> digits.x_train.shape[1:], digits.x_train.dtype
        (torch.Size([28, 28]), torch.uint8)
    """
    cached = _cached(name, root)
    copies = {key: getattr(cached, key).clone() for key in ARRAYS}
    return replace(cached, **copies)


@lru_cache(maxsize=4)
def _cached(name: str, root: str | Path | None) -> Dataset:
    if name in EMBEDDED:
        arrays = EMBEDDED[name]()
    elif name in STORED:
        arrays = verified(name, Path(root or data_dir()))
    else:
        raise ValueError(f"unknown data set {name!r}; choose {listed([*STORED, *EMBEDDED])}")
    digest = hashlib.sha256()
    for key in ARRAYS:
        digest.update(arrays[key].tobytes())
    return Dataset(
        name=name,
        x_train=_channels_first(arrays["x_train"]),
        y_train=torch.from_numpy(arrays["y_train"]).long(),
        x_test=_channels_first(arrays["x_test"]),
        y_test=torch.from_numpy(arrays["y_test"]).long(),
        checksum=digest.hexdigest()[:16],
    )


def checksum(name: str) -> str:
    """The checksum that `load(name)` gives a whole data set; reads no file.

    Raises:
        ValueError: the name is unknown.
    """
    return CHECKSUMS.get(name) or load(name).checksum


def quantize(x: Tensor) -> Tensor:
    """Map 8-bit pixels 0..255 to the 16 grey levels 0..15 by dropping the low four bits.

    Raises:
        TypeError: `x` is not uint8.

    Example:
        >>> quantize(torch.tensor([0, 15, 16, 255], dtype=torch.uint8))
        tensor([ 0,  0,  1, 15], dtype=torch.uint8)
    """
    if x.dtype != torch.uint8:
        raise TypeError(f"pixels are {x.dtype}; 4-bit quantising needs the raw uint8 pixels 0..255")
    return x >> 4


def to_pixels(x: Tensor) -> Tensor:
    """Map 8-bit pixels 0..255 to float32 in [0, 1], the pixels that models of part 2 take.

    Raises:
        TypeError: `x` is not uint8.

    Example:
        >>> to_pixels(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([0., 1.])
    """
    if x.dtype != torch.uint8:
        raise TypeError(
            f"pixels are {x.dtype}; only raw uint8 pixels 0..255 are divided by 255 "
            "(floating-point pixels are in [0, 1] already)"
        )
    # A GPU would multiply by the reciprocal of a Python number, which errs in the last bit.
    return x / torch.full((), 255, dtype=torch.float32, device=x.device)


def train_val_split(num_examples: int, seed: int = 42) -> tuple[Tensor, Tensor]:
    """Indices of the course's split: nine tenths to train on, one tenth to validate on.

    For MNIST's 60,000 images these are the 54,000 and 6,000 that
    `torch.utils.data.random_split` draws from a generator seeded with 42.
    """
    cut = num_examples - num_examples // 10
    return _split(num_examples, cut, torch.Generator().manual_seed(seed))


def test_split(num_examples: int, seed: int = 0) -> tuple[Tensor, Tensor]:  # noqa: PT028
    """Indices of test images split as in the course: three quarters validate, one quarter tests.

    For CIFAR-10's 10,000 test images these are 7,500 and 2,500. The course drew them anew each
    time; here the seed fixes them.
    """
    return _split(num_examples, num_examples * 3 // 4, generator(seed, "test split"))


def _split(num_examples: int, cut: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    if num_examples < 0:
        raise ValueError(f"{num_examples} examples cannot be split")
    order = torch.randperm(num_examples, generator=rng)
    return order[:cut], order[cut:]


def stratified_halves(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices, in ascending order, of two disjoint halves with every class equally often in both.

    Of a class with an odd number of examples one is in neither half.

    Args:
        labels: (N,) integers.
        seed: fixes which examples are in which half.

    Raises:
        ValueError: `labels` has another shape.
    """
    if labels.ndim != 1:
        raise ValueError(f"labels have shape {tuple(labels.shape)}; they need (N,)")
    labels, rng = labels.cpu(), generator(seed, "halves")
    halves = torch.zeros(2, len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        half = len(members) // 2
        members = members[torch.randperm(len(members), generator=rng)]
        halves[0, members[:half]] = halves[1, members[half : 2 * half]] = True
    return halves[0].nonzero().squeeze(1), halves[1].nonzero().squeeze(1)


def generator(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """A CPU generator for one use: equal arguments give equal numbers on every machine.

    Raises:
        TypeError: `seed` or `epoch` is no integer; 1.0 or True would give other numbers than 1.

    Example:
        >>> one, two = generator(0, "noise"), generator(0, "noise")
        >>> bool((torch.rand(3, generator=one) == torch.rand(3, generator=two)).all())
        True
    """
    if not all(map(shapes.is_whole, (seed, epoch))):
        raise TypeError(f"seed={seed!r}, epoch={epoch!r}: both must be integers")
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _channels_first(images: np.ndarray) -> Tensor:
    """(N, H, W) as it is; (N, H, W, 3) as (N, 3, H, W), laid out in this order."""
    x = torch.from_numpy(images)
    return x.movedim(3, 1).contiguous() if x.ndim == 4 else x


def _digits() -> dict[str, np.ndarray]:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, enlarged to 20 x 20 inside a 28 x 28 frame.

    Split 1,440 to 357 at random with a fixed seed.
    """
    from sklearn.datasets import load_digits

    small = load_digits()
    # Bilinear, in whole tenths of a pixel: a sum of integers is the same on every machine.
    tenths = np.clip(4 * np.arange(20) - 3, 0, 70)[:, None]  # where each new pixel lies in the old
    weights = np.maximum(10 - np.abs(tenths - 10 * np.arange(8)), 0)
    large = weights @ small.images.astype(np.int64) @ weights.T  # levels 0..16, times 100
    images = np.pad(np.rint(large * 255 / 1600), ((0, 0), (4, 4), (4, 4))).astype(np.uint8)
    labels = small.target.astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1440], order[1440:]
    parts = (images[train], labels[train], images[test], labels[test])
    return dict(zip(ARRAYS, parts, strict=True))


def _shapes() -> dict[str, np.ndarray]:
    """`hw3lib.shapes`: 4,000 pictures to train on and 1,000 others."""
    parts = (*shapes.draw(4000, seed=0), *shapes.draw(1000, seed=1))
    return {key: tensor.numpy() for key, tensor in zip(ARRAYS, parts, strict=True)}


EMBEDDED = {"digits": _digits, "shapes": _shapes}
