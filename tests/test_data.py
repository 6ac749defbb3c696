"""Data sets on small files of the real formats, the downloader against a server, orders and batches."""

import gzip
import hashlib
import http.server
import io
import struct
import sys
import tarfile
import threading
from functools import partial

import numpy as np
import pytest

from ulpgrad import random
from ulpgrad.data import ArrayDataset, DataLoader, cifar10, cifar10 as cifar10_function, digits, download, mnist
from ulpgrad.data.download import Remote, fetch, folder
from ulpgrad.errors import ArgumentError, DataError, ShapeError
from ulpgrad.formats import bfloat16, bool_, float32, float64, int64
from ulpgrad.tensor import Tensor

mnist_file = sys.modules["ulpgrad.data.mnist"]
cifar10_file = sys.modules["ulpgrad.data.cifar10"]


def idx(array, code=0x08):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.tobytes()


# The loader


def numbers(n):
    return ArrayDataset(np.arange(n, dtype=np.float32).reshape(n, 1), np.arange(n))


@pytest.mark.parametrize(("n", "size", "drop", "lengths"), [
    (10, 3, False, [3, 3, 3, 1]), (10, 3, True, [3, 3, 3]), (9, 3, True, [3, 3, 3]), (2, 5, False, [2]),
    (2, 5, True, []), (0, 4, False, []),
])  # fmt: skip
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches(n, size, drop, lengths, shuffle):
    loader = DataLoader(numbers(n), size, shuffle=shuffle, drop_last=drop, seed=0)
    batches = list(loader)
    assert len(loader) == len(lengths)
    assert [len(x) for x, _ in batches] == lengths
    for x, y in batches:
        assert (x.dtype, y.dtype) == (float32, int64)
        assert np.array_equal(x.storage[:, 0], y.storage)
    seen = [v for _, y in batches for v in y.tolist()]
    assert len(set(seen)) == len(seen)
    if not shuffle:
        assert seen == list(range(sum(lengths)))


def order(loader):
    return [v for _, y in loader for v in y.tolist()]


def test_each_epoch_has_its_order_and_the_seed_repeats_them():
    a, b, c = (DataLoader(numbers(50), 8, shuffle=True, seed=s) for s in (3, 3, 4))
    first, second = order(a), order(a)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert [order(b), order(b)] == [first, second]
    assert order(c) != first


def test_a_checkpoint_goes_on_with_the_next_epoch():
    a = DataLoader(numbers(30), 8, shuffle=True, seed=3)
    order(a)
    state = a.generator.get_state()
    second = order(a)
    b = DataLoader(numbers(30), 8, shuffle=True, generator=random.Generator())
    b.generator.set_state(state)
    assert order(b) == second


def test_the_default_generator_is_used_without_a_seed():
    random.manual_seed(1)
    first = order(DataLoader(numbers(30), 8, shuffle=True))
    random.manual_seed(1)
    assert order(DataLoader(numbers(30), 8, shuffle=True)) == first


def test_bad_loaders():
    for size in (0, -1, 2.5, "a"):
        with pytest.raises(ArgumentError, match="batch_size"):
            DataLoader(numbers(3), size)
    with pytest.raises(ArgumentError, match="exclude"):
        DataLoader(numbers(3), 1, seed=1, generator=random.Generator())


class Custom:
    """Items of a shape of their own, as a user's data set has them."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_custom_items_are_stacked():
    items = [(np.full(2, i, np.float32), i, 0.5 * i, i % 2 == 0) for i in range(5)]
    x, i, f, b = next(iter(DataLoader(Custom(items), 4)))
    assert [t.dtype for t in (x, i, f, b)] == [float32, int64, float32, bool_]
    assert x.shape == (4, 2)
    assert i.tolist() == [0, 1, 2, 3]
    (batch,) = DataLoader(Custom([{"a": Tensor(np.array(i, np.uint16), bfloat16)} for i in range(3)]), 3)
    assert batch["a"].dtype is bfloat16
    assert batch["a"].shape == (3,)
    (plain,) = DataLoader(Custom([1, 2, 3]), 3)
    assert plain.tolist() == [1, 2, 3]
    with pytest.raises(ShapeError, match=r"do not stack: .*\[1\].*\[2\]"):
        list(DataLoader(Custom([np.zeros(1), np.zeros(2)]), 2))
    with pytest.raises(ShapeError, match="lengths"):
        list(DataLoader(Custom([(1, 2), (1,)]), 2))


def test_collate_makes_the_batch():
    assert list(DataLoader(Custom([1, 2, 3]), 2, collate=sum)) == [3, 3]
    assert [len(b) for b in DataLoader(numbers(5), 2, collate=list)] == [2, 2, 1]
    shuffled = DataLoader(Custom(list(range(20))), 20, shuffle=True, seed=0, collate=list)
    assert sorted(next(iter(shuffled))) == list(range(20)) != next(iter(shuffled))


def test_array_dataset():
    data = numbers(4)
    x, y = data[1]
    assert (x.tolist(), y.tolist()) == ([1.0], 1)
    assert data[-1][1].tolist() == 3
    assert data[1:3][1].tolist() == [1, 2]
    assert data[np.array([3, 0])][1].tolist() == [3, 0]
    assert data[np.array([True, False, False, True])][1].tolist() == [0, 3]
    with pytest.raises(IndexError):
        data[4]
    data[0:2][0].storage[:] = 9
    assert data.arrays[0].tolist() == [[0], [1], [2], [3]]
    with pytest.raises(ShapeError, match="3, 4"):
        ArrayDataset(np.zeros(3), np.zeros(4))
    with pytest.raises(ShapeError):
        ArrayDataset()
    with pytest.raises(ShapeError):
        ArrayDataset(np.float64(3))
    doubled = ArrayDataset(np.arange(6).reshape(3, 2), np.arange(3), transform=lambda x: x * 2.0)
    assert doubled[2][0].tolist() == [8, 10]
    assert doubled[:2][0].tolist() == [[0, 2], [4, 6]]
    assert doubled[:2][0].dtype is float64


# Digits


def test_digits():
    pytest.importorskip("sklearn")
    train, test = digits(), digits("test")
    assert (len(train), len(test)) == (1297, 500)
    (x, y), (u, v) = train[:], test[:]
    assert (x.shape, x.dtype, y.dtype) == ((1297, 1, 8, 8), float32, int64)
    assert (x.storage.min(), x.storage.max()) == (0, 1)
    everything = np.bincount(y.storage) + np.bincount(v.storage)
    assert (np.abs(np.bincount(v.storage) - everything * 500 / 1797) <= 1).all()
    rows = {a.tobytes() for a in x.storage} | {a.tobytes() for a in u.storage}
    assert len(rows) == 1797
    assert np.array_equal(digits()[:][0].storage, x.storage)
    s, t = digits(standardize=True)[:][0].storage, digits("test", standardize=True)[:][0].storage
    assert abs(s.mean()) < 1e-5
    assert abs(s.std() - 1) < 1e-5
    assert 0 < abs(t.mean()) < 0.05
    with pytest.raises(ArgumentError, match="'train' or 'test'"):
        digits("validation")


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'ulpgrad\[lab\]'"):
        digits()


# MNIST


def write_mnist(root, images, labels, prefix="train", packed=True):
    root.mkdir(exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        path = root / f"{prefix}-{kind}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(idx(array), mtime=0) if packed else idx(array))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)


LABELS = np.array([3, 0, 9, 1, 1, 2], np.uint8)


@pytest.mark.parametrize("packed", [True, False])
def test_mnist(tmp_path, images, packed):
    write_mnist(tmp_path, images, LABELS, packed=packed)
    write_mnist(tmp_path, images[:2], LABELS[:2], "t10k", packed)
    data = mnist(tmp_path, "train", download=False)
    x, y = data[:]
    assert (x.shape, x.dtype, y.dtype) == ((6, 1, 28, 28), float32, int64)
    assert np.array_equal(x.storage, (images[:, None] / 255).astype(np.float32))
    assert y.tolist() == LABELS.tolist()
    assert len(mnist(tmp_path, "test", download=False)) == 2
    standard = mnist(tmp_path, download=False, standardize=True)[3][0].storage
    assert standard == pytest.approx((images[3:4] / 255 - 0.1307) / 0.3081, abs=1e-6)


def test_mnist_files_that_do_not_fit(tmp_path, images):
    def refused(text, images, labels):
        write_mnist(tmp_path, images, labels)
        with pytest.raises(DataError, match=text):
            mnist(tmp_path, download=False)

    refused("6 images but 5 labels", images, LABELS[:5])
    refused("28 x 28", images[:, :27], LABELS)
    refused("28 x 28", LABELS, LABELS)
    refused("0 to 9", images, LABELS + 1)
    refused("label", images, images)


IDX = idx(np.arange(6, dtype=np.uint8).reshape(2, 3))


@pytest.mark.parametrize(("raw", "text"), [
    (b"", "not an IDX"), (b"\0\0\x08", "not an IDX"), (b"PK\3\4" + IDX, "not an IDX"),
    (b"\0\0\x07\1" + IDX[4:], "not an IDX"),
    (IDX[:9], "truncated at byte 9: the header has 12 bytes"), (IDX[:15], "truncated at byte 15"),
    (IDX[:12], "truncated at byte 12"), (IDX + b"x", "longer"), (gzip.compress(IDX, mtime=0)[:-9], "gzip"),
    (gzip.compress(IDX, mtime=0)[:20], "gzip"), (gzip.compress(IDX[:14], mtime=0), "truncated at byte 14"),
    (b"\x1f\x8bnot gzip after all", "gzip"), (gzip.compress(IDX, mtime=0)[:-8] + bytes(8), "gzip"),
])  # fmt: skip
def test_damaged_idx(tmp_path, raw, text):
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(DataError, match=text):
        mnist_file.read_idx(tmp_path / "a")


@pytest.mark.parametrize("code", [0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E])
def test_idx_types(tmp_path, code):
    dtype = np.dtype(mnist_file.TYPES[code])
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    (tmp_path / "a").write_bytes(idx(array, code))
    back = mnist_file.read_idx(tmp_path / "a")
    assert back.dtype == dtype.newbyteorder("=")
    assert back.dtype.isnative
    assert np.array_equal(back, array)
    with pytest.raises(DataError, match="No such file"):
        mnist_file.read_idx(tmp_path / "b")


# CIFAR-10


def batches(train=3, test=2):
    rng = np.random.default_rng(0)
    out = {}
    for name, n in [(f"data_batch_{i}.bin", train) for i in range(1, 6)] + [("test_batch.bin", test)]:
        records = rng.integers(0, 256, (n, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        out[name] = records
    return out


def write_archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10(tmp_path, packed):
    files = batches()
    if packed:
        shuffled = dict(reversed(files.items()))
        write_archive(tmp_path / "cifar-10-binary.tar.gz", {n: r.tobytes() for n, r in shuffled.items()})
    else:
        (tmp_path / "cifar-10-batches-bin").mkdir()
        for name, records in files.items():
            (tmp_path / "cifar-10-batches-bin" / name).write_bytes(records.tobytes())
    data = cifar10(tmp_path, "train", download=False)
    records = np.concatenate([files[f"data_batch_{i}.bin"] for i in range(1, 6)])
    x, y = data[:]
    assert (x.shape, x.dtype, y.dtype) == ((15, 3, 32, 32), float32, int64)
    assert y.tolist() == records[:, 0].tolist()
    assert x.storage[4, 2, 31, 30] == np.float32(records[4, 1 + 2 * 1024 + 31 * 32 + 30] / 255)
    standard = cifar10(tmp_path, "test", download=False, standardize=True)[:][0].storage
    test = files["test_batch.bin"][:, 1:].reshape(2, 3, 1024) / 255
    mean, std = (np.array(v)[None, :, None] for v in (cifar10_file.MEAN, cifar10_file.STD))
    assert standard.reshape(2, 3, 1024) == pytest.approx((test - mean) / std, abs=1e-5)
    assert list(tmp_path.iterdir()) == [tmp_path / ("cifar-10-binary.tar.gz" if packed else "cifar-10-batches-bin")]


def test_damaged_cifar10(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    files = {n: r.tobytes() for n, r in batches().items()}

    def refused(text, split="test"):
        with pytest.raises(DataError, match=text):
            cifar10_function(tmp_path, split, download=False)

    path.write_bytes(b"no archive")
    refused("no .tar.gz")
    write_archive(path, files)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("truncated", "train")
    write_archive(path, {n: r for n, r in files.items() if n != "data_batch_3.bin"})
    refused("data_batch_3.bin is not in it", "train")
    write_archive(path, {"test_batch.bin": files["test_batch.bin"][:-1]})
    refused("whole records of 3073")
    write_archive(path, {"test_batch.bin": b""})
    refused("0 bytes")
    write_archive(path, {"test_batch.bin": files["test_batch.bin"][:3073] + b"\x0a" + bytes(3072)})
    refused("byte 3073: label 10")
    path.unlink()
    refused("download=False")
    (tmp_path / "cifar-10-batches-bin").mkdir()
    refused("cannot be read")


# The downloader, against a server on this machine

PAYLOAD = np.random.default_rng(1).bytes(700_000)
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/good/ serves the file; /short/ breaks off half way; /wrong/ serves other bytes; /unsized/ tells no length."""

    asked: list[str] = []  # noqa: RUF012 - shared by all requests on purpose

    def do_GET(self):
        self.asked.append(self.path)
        kind = self.path.split("/")[1]
        if kind not in ("good", "short", "wrong", "unsized"):
            self.send_error(404)
            return
        body = PAYLOAD[::-1] if kind == "wrong" else PAYLOAD
        self.send_response(200)
        if kind != "unsized":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if kind == "short" else body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=partial(running.serve_forever, poll_interval=0.01))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()
        thread.join()


@pytest.fixture
def remote(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Handler.asked.clear()
    return lambda *kinds: Remote("data.bin", DIGEST, [f"{server}{kind}/" for kind in kinds])


@pytest.mark.parametrize("kind", ["good", "unsized"])
def test_download(tmp_path, remote, kind):
    path = fetch(remote(kind), tmp_path / "new" / "folder", download=True)
    assert path.read_bytes() == PAYLOAD
    assert list(path.parent.iterdir()) == [path]
    fetch(remote(kind), path.parent, download=True)
    assert Handler.asked == [f"/{kind}/data.bin"]


def test_the_next_mirror_is_tried(tmp_path, remote):
    path = fetch(remote("missing", "short", "wrong", "good"), tmp_path, download=True)
    assert path.read_bytes() == PAYLOAD
    assert list(tmp_path.iterdir()) == [path]
    assert len(Handler.asked) == 4


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", "404"),
        ("short", "broke off after 350000 of 700000 bytes"),
        ("wrong", f"wrong checksum: SHA-256 .* expected {DIGEST}"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_what_to_do(tmp_path, remote, kind, text):
    with pytest.raises(DataError, match=text) as caught:
        fetch(remote(kind), tmp_path, download=True)
    assert f"at {tmp_path / 'data.bin'}" in str(caught.value)
    assert DIGEST in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist_file, "MIRRORS", ("http://127.0.0.1:9/",))
    with pytest.raises(DataError, match=r"check the network, or put train-images-idx3-ubyte.gz \(SHA-256 440f"):
        mnist(tmp_path)
    with pytest.raises(DataError, match="download=False"):
        mnist(tmp_path, download=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path, remote):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="folder cannot be made"):
        fetch(remote("good"), tmp_path / "file" / "below", download=True)


def test_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ULPGRAD_CACHE", str(tmp_path))
    assert folder(None, "mnist") == tmp_path / "mnist"
    monkeypatch.delenv("ULPGRAD_CACHE")
    assert folder(None, "mnist").parts[-3:] == (".cache", "ulpgrad", "mnist")
    assert folder("here", "mnist").parts == ("here",)


def test_mnist_by_download(tmp_path, server, images, monkeypatch, remote):
    files = {
        "train-images-idx3-ubyte.gz": gzip.compress(idx(images), mtime=0),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(LABELS), mtime=0),
    }
    monkeypatch.setattr(mnist_file, "SHA256", {n: hashlib.sha256(r).hexdigest() for n, r in files.items()})
    monkeypatch.setattr(mnist_file, "MIRRORS", (f"{server}good/",))
    monkeypatch.setattr(Handler, "do_GET", lambda self: answer(self, files[self.path.split("/")[-1]]))
    monkeypatch.setenv("ULPGRAD_CACHE", str(tmp_path))
    assert len(mnist()) == 6
    assert sorted(p.name for p in (tmp_path / "mnist").iterdir()) == sorted(files)


def answer(handler, body):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_a_slow_transfer_says_so_without_a_terminal(monkeypatch, capsys):
    clock = iter([0.0, 1.0, 3.0, 3.0, 4.0, 20.0, 20.0])
    monkeypatch.setattr(download.time, "monotonic", lambda: next(clock))
    with download.progress("data.bin", 9_000_000) as advance:
        for _ in range(4):
            advance(2_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "downloading data.bin: 4 of 9 MB",
        "downloading data.bin: 8 of 9 MB",
    ]


def test_a_terminal_gets_a_bar(monkeypatch):
    pytest.importorskip("rich")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with download.progress("data.bin", 100) as advance:
        advance(60)
        advance(40)
    assert "data.bin" in terminal.getvalue()
