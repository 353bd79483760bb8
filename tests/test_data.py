"""Data sets are what they should be, or are refused by name; randomness is keyed, not global."""

import hashlib
import os
import pickle
import shutil
import struct
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.functional import to_tensor
from tqdm import tqdm

from hw3lib import data, datafiles


def stand_in(monkeypatch, name, shape, num_train, num_test):
    """Arrays that stand for a data set: the checksums of the module are replaced by theirs."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (num_train, *shape), dtype=np.uint8),
        "y_train": rng.integers(0, 10, num_train, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (num_test, *shape), dtype=np.uint8),
        "y_test": rng.integers(0, 10, num_test, dtype=np.uint8),
    }
    digests = {key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in arrays.items()}
    monkeypatch.setitem(datafiles.SHA256, name, digests)
    data._cached.cache_clear()
    yield arrays
    data._cached.cache_clear()


@pytest.fixture
def small_mnist(monkeypatch):
    yield from stand_in(monkeypatch, "mnist", (28, 28), 20, 10)


@pytest.fixture
def small_cifar(monkeypatch):
    yield from stand_in(monkeypatch, "cifar10", (32, 32, 3), 20, 5)


def visible(folder):
    """Names of what lies in a folder, without the lock of its downloads."""
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


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
    assert visible(broken) == []


def test_what_is_there_and_whole_is_not_downloaded(tmp_path, small_mnist, monkeypatch):
    write_raw(tmp_path, small_mnist)
    monkeypatch.setattr("torchvision.datasets.MNIST", lambda *_, **__: pytest.fail("downloaded"))
    assert data.download("mnist", tmp_path) == tmp_path


def test_a_data_set_that_somebody_changes_is_whole_for_the_next():
    first = data.load("digits")
    whole = first.x_train.clone()
    first.x_train.zero_()
    second = data.load("digits")
    assert torch.equal(second.x_train, whole)
    assert second.checksum == first.checksum


def test_a_failed_download_names_the_ways_out(tmp_path, monkeypatch):
    def no_network(folder, download):
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.MNIST", no_network)
    with pytest.raises(data.DataError, match=r"no network.*HW3_DATA"):
        data.download("mnist", tmp_path)
    assert visible(tmp_path) == []


def test_the_next_download_removes_what_a_killed_one_left(tmp_path, small_mnist, monkeypatch):
    ours, others = tmp_path / ".download-mnist-killed", tmp_path / ".download-cifar10-at-work"
    for folder in (ours, others):
        folder.mkdir()
        (folder / "half").write_bytes(b"half")
    monkeypatch.setattr(
        "torchvision.datasets.MNIST", lambda folder, download: write_raw(Path(folder), small_mnist)
    )
    data.download("mnist", tmp_path)
    assert not ours.exists()
    assert others.exists()


def test_two_who_download_do_it_once(tmp_path, small_mnist, monkeypatch, caplog):
    downloads, gate = [], threading.Event()

    def slow_download(folder, download):
        downloads.append(folder)
        gate.wait()
        write_raw(Path(folder), small_mnist)

    monkeypatch.setattr("torchvision.datasets.MNIST", slow_download)
    both = [threading.Thread(target=data.download, args=("mnist", tmp_path)) for _ in range(2)]
    for thread in both:
        thread.start()
    patience = time.monotonic() + 60
    while "downloads mnist; waiting" not in caplog.text and time.monotonic() < patience:
        time.sleep(0.01)
    gate.set()
    for thread in both:
        thread.join()
    assert len(downloads) == 1
    assert data.load("mnist", tmp_path).x_train.shape == (20, 28, 28)


def test_a_folder_that_cannot_be_written_names_the_ways_out(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(data.DataError, match=r"could not be downloaded.*HW3_DATA"):
        data.download("mnist", tmp_path / "file")


def test_a_folder_may_be_a_string_with_spaces(tmp_path, small_mnist):
    root = tmp_path / "my däta sets"
    write_raw(root, small_mnist)
    assert len(data.load("mnist", str(root)).x_test) == 10


# CIFAR-10


def old_pickle(batch):
    """A dictionary of lists of numbers and uint8 matrices as Python 2 and its NumPy pickled it.

    The original files are such pickles; today's Python cannot write them.
    """

    def text(word):
        return b"U" + bytes([len(word)]) + word

    def number(value):
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    def matrix(array):
        raw = array.tobytes()
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
            + b"".join(map(number, array.shape))
            + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
            + 2 * (b"J" + struct.pack("<i", -1))
            + b"K\x00tb\x89T"
            + struct.pack("<i", len(raw))
            + raw
            + b"tb"
        )

    content = b""
    for key, value in batch.items():
        listed = b"](" + b"".join(map(number, value)) + b"e" if isinstance(value, list) else b""
        content += text(key.encode()) + (listed or matrix(value))
    return b"\x80\x02}(" + content + b"u."


def new_pickle(batch):
    return pickle.dumps(batch, protocol=4)


def write_batches(root: Path, arrays, dump=old_pickle) -> Path:
    """torchvision's layout: five training files and one test file, images channel by channel."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name, x, y):
        planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(len(x), -1)
        (folder / name).write_bytes(dump({"labels": y.tolist(), "data": planes}))

    images, labels = (np.split(arrays[key], 5) for key in ("x_train", "y_train"))
    for number in range(5):
        write(f"data_batch_{number + 1}", images[number], labels[number])
    write("test_batch", arrays["x_test"], arrays["y_test"])
    return folder


@pytest.mark.parametrize("dump", [old_pickle, new_pickle])
def test_both_layouts_of_cifar_give_the_same_data_set(tmp_path, small_cifar, dump):
    write_batches(tmp_path / "raw", small_cifar, dump)
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz" / "cifar10.npz", **small_cifar)
    from_raw = data.load("cifar10", tmp_path / "raw")
    from_npz = data.load("cifar10", tmp_path / "npz")
    for one in (from_raw, from_npz):
        assert one.x_train.shape == (20, 3, 32, 32)
        for part in ("train", "test"):
            x, y = getattr(one, f"x_{part}"), getattr(one, f"y_{part}")
            assert x.is_contiguous()
            np.testing.assert_array_equal(x.movedim(1, -1).numpy(), small_cifar[f"x_{part}"])
            np.testing.assert_array_equal(y.numpy(), small_cifar[f"y_{part}"])
            assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)
    assert from_raw.checksum == from_npz.checksum


def test_torchvision_reads_the_same_from_the_same_folder(tmp_path, small_cifar, monkeypatch):
    write_batches(tmp_path, small_cifar)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_load_meta", lambda self: None)
    ours = data.load("cifar10", tmp_path)
    for train, x, y in ((True, ours.x_train, ours.y_train), (False, ours.x_test, ours.y_test)):
        theirs = torchvision.datasets.CIFAR10(tmp_path, train=train)
        np.testing.assert_array_equal(theirs.data, x.movedim(1, -1).numpy())
        assert theirs.targets == y.tolist()


def test_labels_of_a_wide_type_or_in_a_column_are_the_same_labels(tmp_path, small_cifar):
    wide = {
        key: array.astype(np.int64)[:, None] if key.startswith("y") else array
        for key, array in small_cifar.items()
    }
    np.savez(tmp_path / "cifar10.npz", **wide)
    labels = data.load("cifar10", tmp_path).y_train
    np.testing.assert_array_equal(labels.numpy(), small_cifar["y_train"])


FOREIGN = {
    "labels past 255": {"y_train": lambda y: y.astype(np.int64) + 256},
    "negative labels": {"y_test": lambda y: y.astype(np.int16) - 256},
    "pixels past 255": {"x_train": lambda x: x.astype(np.int64) + 256},
    "32 x 32": {"x_train": lambda x: np.pad(x, ((0, 0), (2, 2), (2, 2)))},
    "floats": {"x_train": lambda x: x / 255},
    "labels of other classes": {"y_train": lambda y: y + 10},
    "ten images": {"x_train": lambda x: x[:10], "y_train": lambda y: y[:10]},
    "colour": {"x_test": lambda x: np.stack([x] * 3, -1)},
    "names of classes": {"y_train": lambda y: y.astype(str)},
    "no image": {"x_train": lambda x: x[:0]},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_strangers_arrays_are_told_what_is_wanted(tmp_path, small_mnist, kind):
    arrays = small_mnist | {key: make(small_mnist[key]) for key, make in FOREIGN[kind].items()}
    np.savez(tmp_path / "mnist.npz", **arrays)
    key = next(iter(FOREIGN[kind]))
    wanted = datafiles.STORED["mnist"].shape(key)
    with pytest.raises(data.DataError) as error:
        data.load("mnist", tmp_path)
    for part in (
        "mnist.npz holds other bytes",
        f"{key} ({arrays[key].dtype} of shape {arrays[key].shape}",
        f"uint8 of shape {wanted}",
        "pass them as tensors",
    ):
        assert part in str(error.value)


def test_the_shapes_that_are_told_are_those_of_the_originals():
    assert datafiles.STORED["mnist"].shape("x_train") == (60_000, 28, 28)
    assert datafiles.STORED["mnist"].shape("y_test") == (10_000,)
    assert datafiles.STORED["cifar10"].shape("x_test") == (10_000, 32, 32, 3)
    assert datafiles.STORED["cifar10"].shape("y_train") == (50_000,)


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_labels_may_be_pickled_as_an_array(tmp_path, small_cifar, kind):
    path = write_batches(tmp_path, small_cifar, new_pickle) / "test_batch"
    batch = pickle.loads(path.read_bytes())
    path.write_bytes(new_pickle(batch | {"labels": np.array(batch["labels"], kind)}))
    assert data.load("cifar10", tmp_path).y_test.tolist() == small_cifar["y_test"].tolist()


def test_missing_cifar_names_its_three_ways_out(tmp_path):
    with pytest.raises(data.DataError) as error:
        data.load("cifar10", tmp_path)
    for way in ("hw3 data fetch cifar10", "cifar-10-batches-py", "cifar10.npz", "'shapes'"):
        assert way in str(error.value)


class Bomb:
    """What runs when a pickle is read: it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_4", "test_batch"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:2000]),
        lambda path: path.write_bytes(b"not a pickle at all"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(new_pickle({"fine_labels": [1]})),
        lambda path: path.write_bytes(new_pickle({"data": "text", "labels": [[1], [2, 3]]})),
        lambda path: path.write_bytes(new_pickle([1, 2])),
        lambda path: path.unlink(),
    ],
    ids=["truncated", "halved", "foreign", "empty", "other keys", "other types", "list", "missing"],
)
def test_a_damaged_batch_is_refused_by_name(tmp_path, small_cifar, name, damage):
    folder = write_batches(tmp_path, small_cifar)
    damage(folder / name)
    with pytest.raises(data.DataError, match=f"{name} .*cifar10"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize("key", ["data", "labels"])
@pytest.mark.parametrize("name", ["data_batch_2", "test_batch"])
def test_an_altered_batch_is_refused(tmp_path, small_cifar, name, key):
    path = write_batches(tmp_path, small_cifar, new_pickle) / name
    batch = pickle.loads(path.read_bytes())
    batch[key][0] = 1 - batch[key][0] if key == "labels" else ~batch[key][0]
    path.write_bytes(new_pickle(batch))
    with pytest.raises(data.DataError, match=rf"{name}.*SHA-256 differs"):
        data.load("cifar10", tmp_path)


def test_batches_in_another_order_are_refused(tmp_path, small_cifar):
    folder = write_batches(tmp_path, small_cifar)
    (folder / "data_batch_1").rename(folder / "spare")
    (folder / "data_batch_2").rename(folder / "data_batch_1")
    (folder / "spare").rename(folder / "data_batch_2")
    with pytest.raises(data.DataError, match="SHA-256 differs"):
        data.load("cifar10", tmp_path)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, small_cifar):
    folder = write_batches(tmp_path, small_cifar)
    made = tmp_path / "made"
    bomb = new_pickle({"data": Bomb(made), "labels": []})
    pickle.loads(bomb)
    assert made.exists()
    made.unlink()
    (folder / "data_batch_3").write_bytes(bomb)
    with pytest.raises(data.DataError, match=r"data_batch_3.*asks for"):
        data.load("cifar10", tmp_path)
    assert not made.exists()


@pytest.mark.parametrize(
    "asks",
    [b"r" + (2**24).to_bytes(4, "little"), b"\x96" + (2**24).to_bytes(8, "little")],
    ids=["a memo", "an array of bytes"],
)
def test_a_few_bytes_of_a_batch_cannot_ask_for_much_memory(tmp_path, small_cifar, asks):
    """Pickle's own reader would take 16 times the number, of a memo, whatever the file holds."""
    path = write_batches(tmp_path, small_cifar, new_pickle) / "test_batch"
    path.write_bytes(b"\x80\x05]" + asks + b".")
    tracemalloc.start()
    with pytest.raises(data.DataError, match="test_batch"):
        datafiles._array("cifar10", "x_test", [path], datafiles._read_batch)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * 2**24


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pickle's own
@pytest.mark.parametrize(
    "num",
    [int(os.environ.get("HW3_FUZZ", "200")), pytest.param(2_000, marks=pytest.mark.long)],
    ids=["some", "many"],
)
def test_bytes_at_random_in_a_batch_are_refused_or_change_nothing(tmp_path, small_cifar, num):
    """No pickle runs code or stops the process; `make fuzz N=100000` tries more."""
    path = write_batches(tmp_path, small_cifar, new_pickle) / "test_batch"
    whole, rng = path.read_bytes(), np.random.default_rng(num)
    structure = [i for i in range(len(whole)) if i < 200 or i > len(whole) - 100]
    for _ in tqdm(range(num), disable=None):  # seen by `make fuzz`
        changed = np.frombuffer(whole, np.uint8).copy()
        places = rng.choice(structure, rng.integers(1, 4))
        changed[places] = rng.integers(0, 256, len(places))
        path.write_bytes(changed.tobytes())
        try:
            found = datafiles._array("cifar10", "x_test", [path], datafiles._read_batch)
        except data.DataError:
            continue
        np.testing.assert_array_equal(found, small_cifar["x_test"])


def test_a_download_of_cifar_appears_whole_or_not_at_all(tmp_path, small_cifar, monkeypatch):
    source = write_batches(tmp_path / "source", small_cifar)
    root = tmp_path / "root"

    def fake_download(folder, download):
        assert download
        shutil.copytree(source, Path(folder) / source.name)
        (Path(folder) / "cifar-10-python.tar.gz").write_bytes(b"the archive")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fake_download)
    data.download("cifar10", root)
    assert data.load("cifar10", root).x_train.shape == (20, 3, 32, 32)
    assert visible(root) == [source.name]
    data.download("cifar10", root)  # replaces what is there

    broken = tmp_path / "broken"
    (source / "test_batch").write_bytes(b"cut off")
    with pytest.raises(data.DataError, match="test_batch"):
        data.download("cifar10", broken)
    assert visible(broken) == []


@pytest.mark.real_data("cifar10")
def test_real_cifar_has_its_sizes_and_survives_torchvisions_layout(tmp_path):
    cifar = data.load("cifar10")
    assert cifar.x_train.shape == (50000, 3, 32, 32)
    assert cifar.x_test.shape == (10000, 3, 32, 32)
    assert torch.bincount(cifar.y_train).tolist() == [5000] * 10
    assert torch.bincount(cifar.y_test).tolist() == [1000] * 10
    arrays = {key: getattr(cifar, key).numpy() for key in data.ARRAYS}
    arrays |= {key: arrays[key].transpose(0, 2, 3, 1) for key in ("x_train", "x_test")}
    write_batches(tmp_path, arrays)
    again = data._cached.__wrapped__("cifar10", tmp_path)
    assert again.checksum == cifar.checksum
    assert torch.equal(again.x_test, cifar.x_test)
    assert torch.equal(again.y_train, cifar.y_train)


# Names and embedded sets


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"'mnits'; choose 'mnist', 'cifar10', 'digits' or 'shap"):
        data.load("mnits")
    for name in ("digits", "shapes"):
        with pytest.raises(ValueError, match=f"'{name}' is not downloaded; choose 'mnist' or 'cif"):
            data.download(name)


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_every_class_of_an_embedded_set_has_a_name(name):
    found = data.load(name)
    for labels in (found.y_train, found.y_test):
        assert labels.unique().tolist() == list(range(len(data.CLASSES[name])))
    assert len(set(data.CLASSES[name])) == len(data.CLASSES[name])


def test_every_set_has_names_for_its_ten_classes():
    assert set(data.CLASSES) == {"mnist", "digits", "cifar10", "shapes"}
    assert {len(set(names)) for names in data.CLASSES.values()} == {10}


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


def test_three_quarters_of_cifars_test_images_validate():
    val, test = data.test_split(10_000)
    assert (len(val), len(test)) == (7500, 2500)


@given(st.integers(0, 500), st.integers(0, 2**31))
def test_a_split_of_test_images_is_a_seeded_partition(num, seed):
    val, test = data.test_split(num, seed)
    assert sorted([*val.tolist(), *test.tolist()]) == list(range(num))
    assert len(val) == num * 3 // 4
    assert torch.equal(val, data.test_split(num, seed)[0])
    if num > 50:
        assert not torch.equal(val, data.test_split(num, seed + 1)[0])
        assert not torch.equal(val, val.sort().values)


@given(st.lists(st.integers(0, 9), max_size=200), st.integers(0, 2**31))
def test_halves_are_disjoint_and_have_every_class_equally_often(labels, seed):
    labels = torch.tensor(labels, dtype=torch.int64)
    first, second = data.stratified_halves(labels, seed)
    counts = labels.bincount(minlength=10)
    for half in (first, second):
        assert torch.equal(labels[half].bincount(minlength=10), counts // 2)
        assert half.tolist() == sorted(set(half.tolist()))
    assert not set(first.tolist()) & set(second.tolist())


def test_halves_are_drawn_from_the_seed():
    labels = torch.arange(200) % 10
    first, _ = data.stratified_halves(labels, 0)
    again, _ = data.stratified_halves(labels.to(torch.uint8), 0)
    other, _ = data.stratified_halves(labels, 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Not the first and the second half of the data, nor every other image.
    assert 0.35 < (first < 100).double().mean() < 0.65
    assert 0.25 < (first[1:] - first[:-1] == 1).double().mean() < 0.75
    with pytest.raises(ValueError, match=r"\(20, 10\)"):
        data.stratified_halves(labels.view(20, 10), 0)


# Pixels


def test_pixels_are_levels_divided_by_255():
    levels = torch.arange(256, dtype=torch.uint8).view(16, 16, 1)
    pixels = data.to_pixels(levels)
    assert torch.equal(pixels, to_tensor(levels.numpy()).movedim(0, -1))
    assert torch.equal(pixels, (levels.double() / 255).float())
    assert (pixels.min(), pixels.max()) == (0, 1)
    with pytest.raises(TypeError, match="float32"):
        data.to_pixels(pixels)


# Randomness


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


def test_the_digits_have_the_same_bytes_on_every_machine():
    """Pinned: canaries are computed on them."""
    assert data.load("digits").checksum == "a63db6c023e948ae"


@pytest.mark.parametrize(
    "key",
    [
        (1.0, "order"),
        ("1", "order"),
        (1, "order", 2.0),
        (torch.tensor(1), "order"),
        (True, "order"),
        (1, "order", False),
        (np.True_, "order"),
    ],
)
def test_a_seed_that_is_no_integer_is_refused(key):
    with pytest.raises(TypeError, match="both must be integers"):
        data.generator(*key)
    ours, numpys = (data.generator(seed, "order").initial_seed() for seed in (1, np.int64(1)))
    assert ours == numpys
