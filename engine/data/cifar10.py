"""CIFAR-10 in its binary version: records of one label byte and 3,072 pixel bytes, read straight from the archive."""

from __future__ import annotations

import os
import tarfile
import zlib
from pathlib import Path

import numpy as np

from ulpgrad.data.dataset import ArrayDataset, Normalize, check_split
from ulpgrad.data.download import Remote, fetch, folder
from ulpgrad.errors import DataError
from ulpgrad.formats import Array

ARCHIVE = Remote(
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"),
)
INSIDE = "cifar-10-batches-bin"
FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # bytes
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # red, green, blue of the training images in [0, 1]


def cifar10(
    root: str | os.PathLike[str] | None = None,
    split: str = "train",
    *,
    download: bool = True,
    standardize: bool = False,
) -> ArrayDataset:
    """Small photographs, 50,000 to train on and 10,000 to test: images float32 [n, 3, 32, 32] in [0, 1], labels int64
    [n] that number `CLASSES`.

    `root` (default: `cifar10` in the cache folder) holds the archive `cifar-10-binary.tar.gz`, downloaded (170 MB) if
    it is not there, or the folder `cifar-10-batches-bin` unpacked from it. Images stay 8-bit in memory and become
    float32 a batch at a time; `standardize` takes off each channel's mean and divides by its standard deviation over
    the training images. Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009. Raises
    DataError for files that are missing and cannot be had, corrupt, truncated or of another kind.
    """
    check_split("cifar10", split)
    where = folder(root, "cifar10")
    unpacked = where / INSIDE
    if unpacked.is_dir():
        parts = [_records(unpacked / name, _read(unpacked / name)) for name in FILES[split]]
    else:
        archive = fetch(ARCHIVE, where, download=download)
        parts = [
            _records(f"{archive}:{name}", raw) for name, raw in zip(FILES[split], _members(archive, split), strict=True)
        ]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    transform = Normalize(255, MEAN, STD) if standardize else Normalize(255)
    return ArrayDataset(images, labels.astype(np.int64), transform=transform)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _members(archive: Path, split: str) -> list[bytes]:
    """The split's files, read from the archive without unpacking it."""
    wanted = {f"{INSIDE}/{name}": i for i, name in enumerate(FILES[split])}
    found: dict[int, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.isfile() and member.name in wanted:
                    stream = tar.extractfile(member)
                    assert stream is not None  # regular files have one
                    found[wanted[member.name]] = stream.read()
                    if len(found) == len(wanted):
                        break
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{archive}: truncated, corrupt or no .tar.gz ({error}): delete it to fetch it again"
        ) from error
    missing = [name for name, i in wanted.items() if i not in found]
    if missing:
        raise DataError(f"{archive}: {', '.join(missing)} is not in it: expected the binary version of CIFAR-10")
    return [found[i] for i in range(len(wanted))]


def _records(path: object, raw: bytes) -> tuple[Array, Array]:
    """Images uint8 [n, 3, 32, 32] and labels uint8 [n] of one file's records."""
    if not raw or len(raw) % RECORD:
        raise DataError(f"{path}: {len(raw)} bytes: expected whole records of {RECORD}; truncated, or of another kind")
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0]
    if (labels >= len(CLASSES)).any():
        at = int(np.argmax(labels >= len(CLASSES)))
        raise DataError(f"{path}: byte {at * RECORD}: label {labels[at]}: expected 0 to 9; corrupt, or of another kind")
    return records[:, 1:].reshape(-1, *IMAGE), labels
