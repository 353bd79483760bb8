"""Data sets as unsigned 8-bit tensors, their splits, and seeded randomness.

A data set is one image tensor and one label tensor per split. It is moved to the device once;
everything else (quantising, batching) happens there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import platformdirs
import torch
import torch.nn.functional as F
from torch import Tensor

GREY_LEVELS = 16
"""Grey levels of a 4-bit pixel."""

ARRAYS = ("x_train", "y_train", "x_test", "y_test")

# SHA-256 of the raw bytes of each array, whatever file it is read from.
SHA256 = {
    "mnist": {
        "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    },
}


Source = tuple[Path, Callable[[Path], np.ndarray]]
"""A file, and how one array is read from it."""


class DataError(RuntimeError):
    """A data set is missing, or a file of it is not what it should be."""


@dataclass(frozen=True)
class Dataset:
    """Images and labels of one data set.

    Attributes:
        name: what `load` was asked for.
        x_train, x_test: (N, H, W) uint8.
        y_train, y_test: (N,) int64.
        checksum: SHA-256 over the four arrays, first 16 hex digits.
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


def data_dir() -> Path:
    """The folder that holds the data sets: `HW3_DATA`, else the user's cache directory."""
    return Path(os.environ.get("HW3_DATA") or platformdirs.user_cache_path("hw3lib") / "data")


@lru_cache(maxsize=4)
def load(name: str, root: Path | None = None) -> Dataset:
    """Load a data set by name.

    Args:
        name: "mnist" (from `root`) or "digits" (embedded, needs no file).
        root: folder with torchvision's `MNIST/raw` or with `mnist.npz`; default `data_dir()`.

    Raises:
        DataError: the files are missing, truncated, altered, or of another data set.
        ValueError: the name is unknown.
    """
    if name == "digits":
        arrays = _digits()
    elif name == "mnist":
        arrays = _verified(name, _mnist_arrays(root or data_dir()))
    else:
        raise ValueError(f"unknown data set {name!r}; choose 'mnist' or 'digits'")
    digest = hashlib.sha256()
    for key in ARRAYS:
        digest.update(arrays[key].tobytes())
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    return Dataset(
        name=name,
        x_train=tensors["x_train"],
        y_train=tensors["y_train"].long(),
        x_test=tensors["x_test"],
        y_test=tensors["y_test"].long(),
        checksum=digest.hexdigest()[:16],
    )


def download(name: str, root: Path | None = None) -> Path:
    """Download a data set into `root`; it appears there only once it is whole and verified.

    Raises:
        DataError: the host cannot be reached, or what it sent is not the data set.
        ValueError: the data set is not one that is downloaded.
    """
    if name != "mnist":
        raise ValueError(f"{name!r} is not downloaded; only 'mnist' is")
    from torchvision.datasets import MNIST

    root = root or data_dir()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as part:
        try:
            MNIST(part, download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"MNIST could not be downloaded ({error}). {_ways_out(root)}"
            ) from error
        _verified(name, _mnist_arrays(Path(part)))
        shutil.rmtree(root / "MNIST", ignore_errors=True)
        os.replace(Path(part) / "MNIST", root / "MNIST")
    load.cache_clear()
    return root


def quantize(x: Tensor) -> Tensor:
    """Map 8-bit pixels 0..255 to the 16 grey levels 0..15 by dropping the low four bits.

    Raises:
        TypeError: `x` is not uint8.
    """
    if x.dtype != torch.uint8:
        raise TypeError(f"pixels are {x.dtype}; 4-bit quantising needs the raw uint8 pixels 0..255")
    return x >> 4


def train_val_split(num_examples: int, seed: int = 42) -> tuple[Tensor, Tensor]:
    """Indices of the course's split: nine tenths to train on, one tenth to validate on.

    For MNIST's 60,000 images these are the 54,000 and 6,000 that
    `torch.utils.data.random_split` draws from a generator seeded with 42.
    """
    order = torch.randperm(num_examples, generator=torch.Generator().manual_seed(seed))
    cut = num_examples - num_examples // 10
    return order[:cut], order[cut:]


def generator(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """A CPU generator for one use: equal arguments give equal numbers on every machine."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _ways_out(root: Path) -> str:
    return (
        "Three ways out: run `hw3 data fetch mnist` where there is a network; set HW3_DATA to a "
        "folder that holds MNIST/raw or mnist.npz "
        f"(looked in {root}); or use the embedded data set 'digits', which needs no file."
    )


def _mnist_arrays(root: Path) -> dict[str, Source]:
    """Where each of the four arrays lies, and how it is read from there."""
    npz, raw = root / "mnist.npz", root / "MNIST" / "raw"
    if raw.is_dir():
        from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

        files = {
            "x_train": raw / "train-images-idx3-ubyte",
            "y_train": raw / "train-labels-idx1-ubyte",
            "x_test": raw / "t10k-images-idx3-ubyte",
            "y_test": raw / "t10k-labels-idx1-ubyte",
        }
        return {
            key: (path, lambda file: read_sn3_pascalvincent_tensor(str(file)).numpy())
            for key, path in files.items()
        }
    if npz.is_file():
        return {key: (npz, partial(_read_npz, key)) for key in ARRAYS}
    raise DataError(f"MNIST is not on this machine. {_ways_out(root)}")


def _read_npz(key: str, path: Path) -> np.ndarray:
    # np.load would leave a file that it opened itself open where the archive is damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return np.ascontiguousarray(archive[key])


def _verified(name: str, sources: dict[str, Source]) -> dict[str, np.ndarray]:
    """Read every array and compare it with its known SHA-256."""
    arrays = {}
    for key, (path, read) in sources.items():
        remedy = f"Delete it and run `hw3 data fetch {name}`, or put the original file there."
        try:
            array = read(path)
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing, so {name} is incomplete. {remedy}") from error
        except Exception as error:  # the readers raise many types on damaged files
            raise DataError(
                f"{path} cannot be read as {name}'s {key} ({error}); it is truncated or another "
                f"kind of file. {remedy}"
            ) from error
        if hashlib.sha256(array.tobytes()).hexdigest() != SHA256[name][key]:
            raise DataError(
                f"{path} holds other bytes than {name}'s {key} (shape {array.shape}, SHA-256 "
                f"differs); it was altered or belongs to another data set. {remedy}"
            )
        arrays[key] = array
    return arrays


def _digits() -> dict[str, np.ndarray]:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, enlarged to 20 x 20 inside a 28 x 28 frame.

    Split 1,440 to 357 at random with a fixed seed.
    """
    from sklearn.datasets import load_digits

    small = load_digits()
    pixels = torch.from_numpy(small.images).float()[:, None] * (255 / 16)
    large = F.interpolate(pixels, size=(20, 20), mode="bilinear", align_corners=False)
    images = F.pad(large, (4, 4, 4, 4)).squeeze(1).round().to(torch.uint8).numpy()
    labels = small.target.astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1440], order[1440:]
    return {
        "x_train": images[train],
        "y_train": labels[train],
        "x_test": images[test],
        "y_test": labels[test],
    }
