"""The data sets that lie in files: read in either layout, compared byte by byte, downloaded."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw3lib.files import acquire, user_folder

ARRAYS = ("x_train", "y_train", "x_test", "y_test")

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

Reader = Callable[[str, Path], np.ndarray]
"""Reads one of `ARRAYS`, or the part of it that a file holds."""


class DataError(RuntimeError):
    """A data set is missing, or a file of it is not what it should be."""


def data_dir() -> Path:
    """The folder that holds the data sets: `HW3_DATA`, else the user's cache directory."""
    return user_folder("HW3_DATA", "data")


def download(name: str, root: str | Path | None = None) -> Path:
    """Download a data set into `root`; it appears there only once it is whole and verified.

    Raises:
        DataError: the host cannot be reached, or what it sent is not the data set.
        ValueError: the data set is not one that is downloaded.
    """
    if name not in STORED:
        raise ValueError(f"{name!r} is not downloaded; choose {listed(STORED)}")
    root = Path(root or data_dir())
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock, _ = acquire(root / f".{name}.lock", f"downloads {name}")
        with lock:
            try:
                verified(name, root)
            except DataError:
                _download(name, root)
    except DataError:
        raise
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{STORED[name].title} could not be downloaded ({error}). {_ways_out(name, root)}"
        ) from error
    return root


def _download(name: str, root: Path) -> None:
    import torchvision

    stored = STORED[name]
    for left in root.glob(f".download-{name}-*"):  # by a killed process: this one has the lock
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".download-{name}-") as part:
        getattr(torchvision.datasets, stored.title)(part, download=True)
        verified(name, Path(part))
        top = Path(stored.folder).parts[0]
        shutil.rmtree(root / top, ignore_errors=True)
        os.replace(Path(part) / top, root / top)


def _ways_out(name: str, root: Path) -> str:
    stored = STORED[name]
    return (
        f"Three ways out: run `hw3 data fetch {name}` where there is a network; set HW3_DATA to a "
        f"folder that holds {stored.folder} or {name}.npz "
        f"(looked in {root}); or use the embedded data set {stored.embedded!r}, which needs no "
        "file."
    )


def verified(name: str, root: Path) -> dict[str, np.ndarray]:
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
    byte, and unpickles anything. A checksum before unpickling would refuse the former too, so what
    makes it safe is `_Unpickler`: no code that a file names is called, not even NumPy's.
    """
    batch = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    if key.startswith("y"):
        labels = batch["labels"]
        return np.asarray(labels) if isinstance(labels, list) else labels.array()
    pixels = batch["data"].array().reshape(-1, 3, 32, 32)  # stored channel by channel
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


class _Pickled:
    """Stands for an array, or its type, in a pickle: keeps what NumPy would have been told."""

    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """The array; its state is version, shape, type, whether by columns, and bytes."""
        _, shape, kind, _, content = self.state
        raw = content.encode("latin1") if isinstance(content, str) else content
        return np.frombuffer(raw, {"u1": "u1", "i8": "<i8"}[kind.args[0]]).reshape(shape).copy()


class _Unpickler(pickle._Unpickler):
    """Makes lists, texts, numbers and `_Pickled` arrays, where a pickle could run any code.

    It is the one in Python: for a memo with a large number, four bytes of a damaged file, the one
    in C takes up to 64 GB.
    """

    def find_class(self, module: str, name: str) -> type[_Pickled]:
        if not module.startswith("numpy") or name not in ("ndarray", "_reconstruct", "dtype"):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _Pickled


def listed(names: Iterable[str]) -> str:
    """Quoted names, with an "or" before the last."""
    *first, last = map(repr, names)
    return f"{', '.join(first)} or {last}"


@dataclass(frozen=True)
class Stored:
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
    "mnist": Stored(
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
    "cifar10": Stored(
        title="CIFAR10",
        folder="cifar-10-batches-py",
        files=2 * (tuple(f"data_batch_{i}" for i in range(1, 6)),) + 2 * (("test_batch",),),
        read=_read_batch,
        image_shape=(32, 32, 3),
        sizes=(50_000, 10_000),
        embedded="shapes",
    ),
}
