"""Data sets are what they should be, or are refused by name; randomness is keyed, not global."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hw3lib import data


@pytest.fixture
def small_mnist(monkeypatch):
    """Arrays that stand for MNIST: the checksums of the module are replaced by theirs."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "y_train": rng.integers(0, 10, 20, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (10, 28, 28), dtype=np.uint8),
        "y_test": rng.integers(0, 10, 10, dtype=np.uint8),
    }
    digests = {key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in arrays.items()}
    monkeypatch.setitem(data.SHA256, "mnist", digests)
    data.load.cache_clear()
    yield arrays
    data.load.cache_clear()


RAW_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def write_raw(root: Path, arrays) -> Path:
    """torchvision's layout: idx files, a big-endian header before the bytes."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for key, array in arrays.items():
        header = bytes([0, 0, 8, array.ndim])
        header += b"".join(size.to_bytes(4, "big") for size in array.shape)
        (raw / RAW_NAMES[key]).write_bytes(header + array.tobytes())
    return raw


def test_both_layouts_give_the_same_data_set(tmp_path, small_mnist):
    write_raw(tmp_path / "raw", small_mnist)
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz" / "mnist.npz", **small_mnist)
    from_raw = data.load("mnist", tmp_path / "raw")
    from_npz = data.load("mnist", tmp_path / "npz")
    for key in data.ARRAYS:
        assert torch.equal(getattr(from_raw, key), getattr(from_npz, key))
        np.testing.assert_array_equal(getattr(from_raw, key).numpy(), small_mnist[key])
    assert from_raw.checksum == from_npz.checksum


def test_missing_data_name_the_three_ways_out(tmp_path):
    with pytest.raises(data.DataError) as error:
        data.load("mnist", tmp_path / "nowhere")
    for way in ("hw3 data fetch mnist", "HW3_DATA", "'digits'"):
        assert way in str(error.value)


@pytest.mark.parametrize("key", data.ARRAYS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff\x00"),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
        lambda path: path.write_bytes(b"not an idx file at all"),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["truncated", "extended", "one bit", "foreign", "empty", "missing"],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, small_mnist, key, damage):
    raw = write_raw(tmp_path, small_mnist)
    damage(raw / RAW_NAMES[key])
    with pytest.raises(data.DataError, match=RAW_NAMES[key]):
        data.load("mnist", tmp_path)


def test_a_damaged_archive_is_refused_by_name(tmp_path, small_mnist):
    path = tmp_path / "mnist.npz"
    np.savez(path, **small_mnist)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(data.DataError, match=r"mnist\.npz"):
        data.load("mnist", tmp_path)
    np.savez(path, **{**small_mnist, "y_test": small_mnist["y_test"][::-1]})
    with pytest.raises(data.DataError, match=r"mnist\.npz.*y_test"):
        data.load("mnist", tmp_path)
    np.savez(path, x_train=small_mnist["x_train"])
    with pytest.raises(data.DataError, match=r"mnist\.npz"):
        data.load("mnist", tmp_path)


def test_a_download_appears_whole_or_not_at_all(tmp_path, small_mnist, monkeypatch):
    source = tmp_path / "source"
    write_raw(source, small_mnist)
    root = tmp_path / "root"

    def fake_download(folder, download):
        assert download
        shutil.copytree(source / "MNIST", Path(folder) / "MNIST")

    monkeypatch.setattr("torchvision.datasets.MNIST", fake_download)
    data.download("mnist", root)
    assert data.load("mnist", root).x_train.shape == (20, 28, 28)

    broken = tmp_path / "broken"
    (source / "MNIST" / "raw" / RAW_NAMES["x_test"]).write_bytes(b"cut off")
    with pytest.raises(data.DataError, match=RAW_NAMES["x_test"]):
        data.download("mnist", broken)
    assert list(broken.iterdir()) == []


def test_a_failed_download_names_the_ways_out(tmp_path, monkeypatch):
    def no_network(folder, download):
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.MNIST", no_network)
    with pytest.raises(data.DataError, match=r"no network.*HW3_DATA"):
        data.download("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'mnits'"):
        data.load("mnits")
    with pytest.raises(ValueError, match="'digits' is not downloaded"):
        data.download("digits")


def test_digits_need_no_file_and_have_every_class():
    digits = data.load("digits")
    assert digits.x_train.shape == (1440, 28, 28)
    assert digits.x_test.shape == (357, 28, 28)
    assert digits.x_train.dtype == torch.uint8
    assert set(digits.y_train.tolist()) == set(digits.y_test.tolist()) == set(range(10))


def test_quantizing_keeps_the_high_bits():
    levels = data.quantize(torch.arange(256, dtype=torch.uint8))
    assert torch.equal(levels.long(), torch.arange(256) // 16)
    with pytest.raises(TypeError, match="float32"):
        data.quantize(torch.rand(3))


def test_the_split_is_the_courses():
    train, val = data.train_val_split(60000)
    reference = torch.utils.data.random_split(
        range(60000), [54000, 6000], generator=torch.Generator().manual_seed(42)
    )
    assert train.tolist() == list(reference[0].indices)
    assert val.tolist() == list(reference[1].indices)


@given(st.integers(1, 500), st.integers(0, 2**31))
def test_a_split_is_a_partition(num, seed):
    train, val = data.train_val_split(num, seed)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(num))
    assert len(val) == num // 10


def test_generators_are_keyed_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    draws = {
        key: torch.rand(4, generator=data.generator(*key))
        for key in [(0, "order", 1), (0, "order", 2), (0, "noise", 1), (1, "order", 1)]
    }
    again = torch.rand(4, generator=data.generator(0, "order", 1))
    assert torch.equal(draws[0, "order", 1], again)
    assert len({tuple(values.tolist()) for values in draws.values()}) == len(draws)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.real_data("mnist")
def test_real_mnist_has_its_sizes():
    mnist = data.load("mnist")
    assert mnist.x_train.shape == (60000, 28, 28)
    assert mnist.x_test.shape == (10000, 28, 28)
    assert torch.bincount(mnist.y_train).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
