"""Data sets as unsigned 8-bit tensors, their splits, and seeded randomness.

A data set is one image tensor and one label tensor per split. It is moved to the device once;
everything else (quantising, augmenting, batching) happens there.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hw3lib import shapes
from hw3lib.files import acquire, user_folder

GREY_LEVELS = 16
"""Grey levels of a 4-bit pixel."""

ARRAYS = ("x_train", "y_train", "x_test", "y_test")

CLASSES: dict[str, tuple[str, ...]] = {
    "mnist": tuple("0123456789"),
    "digits": tuple("0123456789"),
    "cifar10": (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
    "shapes": shapes.CLASSES,
}  # fmt: skip
"""Names of the classes of each data set, in the order of their labels."""

# SHA-256 of the raw bytes of each array, whatever file it is read from: labels as uint8, images as
# uint8 with the colour channels last, (N, H, W) or (N, H, W, 3).
SHA256 = {
    "mnist": {
        "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    },
    "cifar10": {
        "x_train": "d588511d5e63fdceecf9433f2302497fd7fcf61e75cfab8cd3f1ea15c2b9eed0",
        "y_train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "x_test": "728e7b1a16526d757a21da12a84d69707cde81a2eb5b63572643697ccd646595",
        "y_test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    },
}

CHECKSUMS = {"mnist": "06b0d1f124c4e5fa", "cifar10": "00a488a30f22c06f"}
"""What `Dataset.checksum` is for the data sets of files."""

Reader = Callable[[str, Path], np.ndarray]
"""Reads one of `ARRAYS`, or the part of it that a file holds."""


class DataError(RuntimeError):
    """A data set is missing, or a file of it is not what it should be."""


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


def data_dir() -> Path:
    """The folder that holds the data sets: `HW3_DATA`, else the user's cache directory."""
    return user_folder("HW3_DATA", "data")


@lru_cache(maxsize=4)
def load(name: str, root: str | Path | None = None) -> Dataset:
    """Load a data set by name.

    Args:
        name: "mnist" or "cifar10" (from `root`), "digits" or "shapes" (embedded, need no file).
        root: folder with torchvision's `MNIST/raw` or `cifar-10-batches-py`, or with `mnist.npz`
            or `cifar10.npz` of the arrays `ARRAYS`; default `data_dir()`.

    Raises:
        DataError: the files are missing, truncated, altered, or of another data set.
        ValueError: the name is unknown.
    """
    if name in EMBEDDED:
        arrays = EMBEDDED[name]()
    elif name in STORED:
        arrays = _verified(name, Path(root or data_dir()))
    else:
        raise ValueError(f"unknown data set {name!r}; choose {_listed([*STORED, *EMBEDDED])}")
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


def download(name: str, root: str | Path | None = None) -> Path:
    """Download a data set into `root`; it appears there only once it is whole and verified.

    Raises:
        DataError: the host cannot be reached, or what it sent is not the data set.
        ValueError: the data set is not one that is downloaded.
    """
    if name not in STORED:
        raise ValueError(f"{name!r} is not downloaded; choose {_listed(STORED)}")
    stored, root = STORED[name], Path(root or data_dir())
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock, waited = acquire(root / f".{name}.lock", f"downloads {name}")
        with lock:
            if not (waited and _is_whole(name, root)):
                _download(stored, name, root)
    except DataError:
        raise
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{stored.title} could not be downloaded ({error}). {_ways_out(name, root)}"
        ) from error
    load.cache_clear()
    return root


def _is_whole(name: str, root: Path) -> bool:
    try:
        return bool(_verified(name, root))
    except DataError:
        return False


def _download(stored: _Stored, name: str, root: Path) -> None:
    import torchvision

    for left in root.glob(f".download-{name}-*"):  # by a killed process: this one has the lock
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".download-{name}-") as part:
        getattr(torchvision.datasets, stored.title)(part, download=True)
        _verified(name, Path(part))
        top = Path(stored.folder).parts[0]
        shutil.rmtree(root / top, ignore_errors=True)
        os.replace(Path(part) / top, root / top)


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
    """
    if x.dtype != torch.uint8:
        raise TypeError(f"pixels are {x.dtype}; 4-bit quantising needs the raw uint8 pixels 0..255")
    return x >> 4


def to_pixels(x: Tensor) -> Tensor:
    """Map 8-bit pixels 0..255 to float32 in [0, 1], the pixels that models of part 2 take.

    Raises:
        TypeError: `x` is not uint8.
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
    order = _shuffled(num_examples, torch.Generator().manual_seed(seed))
    cut = num_examples - num_examples // 10
    return order[:cut], order[cut:]


def test_split(num_examples: int, seed: int = 0) -> tuple[Tensor, Tensor]:  # noqa: PT028
    """Indices of test images split as in the course: three quarters validate, one quarter tests.

    For CIFAR-10's 10,000 test images these are 7,500 and 2,500. The course drew them anew each
    time; here the seed fixes them.
    """
    order = _shuffled(num_examples, generator(seed, "test split"))
    cut = num_examples * 3 // 4
    return order[:cut], order[cut:]


def _shuffled(num_examples: int, rng: torch.Generator) -> Tensor:
    if num_examples < 0:
        raise ValueError(f"{num_examples} examples cannot be split")
    return torch.randperm(num_examples, generator=rng)


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
        TypeError: `seed` or `epoch` is no integer; 1.0 would give other numbers than 1.
    """
    if not all(isinstance(number, (int, np.integer)) for number in (seed, epoch)):
        raise TypeError(f"seed={seed!r}, epoch={epoch!r}: both must be integers")
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _channels_first(images: np.ndarray) -> Tensor:
    """(N, H, W) as it is; (N, H, W, 3) as (N, 3, H, W), laid out in this order."""
    x = torch.from_numpy(images)
    return x.movedim(3, 1).contiguous() if x.ndim == 4 else x


def _listed(names: Iterable[str]) -> str:
    *first, last = map(repr, names)
    return f"{', '.join(first)} or {last}"


def _ways_out(name: str, root: Path) -> str:
    stored = STORED[name]
    return (
        f"Three ways out: run `hw3 data fetch {name}` where there is a network; set HW3_DATA to a "
        f"folder that holds {stored.folder} or {name}.npz "
        f"(looked in {root}); or use the embedded data set {stored.embedded!r}, which needs no "
        "file."
    )


def _verified(name: str, root: Path) -> dict[str, np.ndarray]:
    """The four arrays of a stored data set, each compared with its known SHA-256."""
    stored = STORED[name]
    folder, npz = root / stored.folder, root / f"{name}.npz"
    if folder.is_dir():
        return {
            key: _array(name, key, [folder / file for file in files], stored.read)
            for key, files in zip(ARRAYS, stored.files, strict=True)
        }
    if npz.is_file():
        return {key: _array(name, key, [npz], _read_npz) for key in ARRAYS}
    raise DataError(f"{stored.title} is not on this machine. {_ways_out(name, root)}")


def _array(name: str, key: str, paths: Sequence[Path], read: Reader) -> np.ndarray:
    """One array from the files that hold its parts: images (N, H, W[, 3]), labels (N,), uint8."""
    remedy = f"Delete it and run `hw3 data fetch {name}`, or put the original file there."
    parts = []
    for path in paths:
        try:
            parts.append(read(key, path))
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing, so {name} is incomplete. {remedy}") from error
        except Exception as error:  # the readers raise many types on damaged files
            raise DataError(
                f"{path} cannot be read as {name}'s {key} ({error}); it is truncated or another "
                f"kind of file. {remedy}"
            ) from error
    array = np.concatenate(parts) if len(parts) > 1 else parts[0]
    seen = f"{array.dtype} of shape {array.shape}"
    if array.dtype.kind in "iuf" and array.size:
        low, high = array.min(), array.max()
        seen += f", {low} to {high}"
        if array.dtype.kind != "f" and low >= 0 and high <= 255:  # people store them in wide types
            array = array.astype(np.uint8, copy=False)
    if hashlib.sha256(array.tobytes()).hexdigest() != SHA256[name][key]:
        folder, names = paths[0].parent, ", ".join(path.name for path in paths)
        file = str(paths[0]) if len(paths) == 1 else f"one of {names} in {folder}"
        raise DataError(
            f"{file} holds other bytes than {name}'s {key} ({seen}; its SHA-256 differs from that "
            f"of the original, uint8 of shape {STORED[name].shape(key)}); it was altered or is of "
            f"another data set. {remedy} Images of your own need no file: pass them as tensors."
        )
    return array.reshape(-1, *STORED[name].image_shape) if key[0] == "x" else array.reshape(-1)


def _read_npz(key: str, path: Path) -> np.ndarray:
    # np.load would leave a file that it opened itself open where the archive is damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return np.ascontiguousarray(archive[key])


def _read_idx(_key: str, path: Path) -> np.ndarray:
    """Images or labels of one of MNIST's files."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    array: np.ndarray = read_sn3_pascalvincent_tensor(str(path)).numpy()
    return array


def _read_batch(key: str, path: Path) -> np.ndarray:
    """Images (N, 32, 32, 3) or labels (N,) of one of CIFAR-10's files, which are pickles.

    torchvision's reader would refuse a file with the same arrays that is not the original byte by
    byte, and unpickles anything. A checksum before unpickling would refuse the former too, so
    `_ArrayUnpickler` is what makes it safe: it calls no code that a file names.
    """
    with path.open("rb") as file:
        batch = _ArrayUnpickler(file, encoding="latin1").load()
    if key.startswith("y"):
        return np.asarray(batch["labels"]).reshape(-1)
    pixels: np.ndarray = batch["data"].reshape(-1, 3, 32, 32)  # stored channel by channel
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


class _ArrayUnpickler(pickle.Unpickler):
    """Makes arrays of numbers and nothing else, where a foreign pickle could run any code."""

    makers: ClassVar[dict[str, Any]] = {
        "ndarray": np.ndarray,
        "_reconstruct": np.empty(0).__reduce__()[0],
        # The original files give flags as integers, of which NumPy 2.4.0 to 2.4.4 warn. A copy: the
        # file may set its state, and NumPy's own must stay as it is.
        "dtype": lambda code, *_: np.dtype({"u1": np.uint8, "i8": np.int64}[code], copy=True),
    }

    def find_class(self, module: str, name: str) -> Any:
        if not module.startswith("numpy") or name not in self.makers:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.makers[name]


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


@dataclass(frozen=True)
class _Stored:
    """A data set that lies in files.

    Attributes:
        title: torchvision's class.
        folder: where torchvision puts its files.
        files: for each of `ARRAYS`, those that hold it, in order.
        read: reads a file.
        image_shape: (H, W) or (H, W, 3).
        sizes: training and test images.
        embedded: the data set to use without files.
    """

    title: str
    folder: str
    files: tuple[tuple[str, ...], ...]
    read: Reader
    image_shape: tuple[int, ...]
    sizes: tuple[int, int]
    embedded: str

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of one of `ARRAYS`."""
        num = self.sizes["test" in key]
        return (num, *self.image_shape) if key.startswith("x") else (num,)


STORED = {
    "mnist": _Stored(
        title="MNIST",
        folder="MNIST/raw",
        files=(
            ("train-images-idx3-ubyte",),
            ("train-labels-idx1-ubyte",),
            ("t10k-images-idx3-ubyte",),
            ("t10k-labels-idx1-ubyte",),
        ),
        read=_read_idx,
        image_shape=(28, 28),
        sizes=(60_000, 10_000),
        embedded="digits",
    ),
    "cifar10": _Stored(
        title="CIFAR10",
        folder="cifar-10-batches-py",
        files=2 * (tuple(f"data_batch_{i}" for i in range(1, 6)),) + 2 * (("test_batch",),),
        read=_read_batch,
        image_shape=(32, 32, 3),
        sizes=(50_000, 10_000),
        embedded="shapes",
    ),
}
