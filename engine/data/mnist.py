"""MNIST, and a reader of the IDX files it comes in."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ulpgrad.data.dataset import ArrayDataset, Normalize, check_split
from ulpgrad.data.download import Remote, fetch, folder
from ulpgrad.errors import DataError
from ulpgrad.formats import Array

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MEAN, STD = (0.1307,), (0.3081,)  # of the training images in [0, 1]
GZIP = b"\x1f\x8b"
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class Readable(Protocol):
    """A file or what unpacks one."""

    def read(self, size: int, /) -> bytes: ...


def mnist(
    root: str | os.PathLike[str] | None = None,
    split: str = "train",
    *,
    download: bool = True,
    standardize: bool = False,
) -> ArrayDataset:
    """Handwritten digits, 60,000 to train on and 10,000 to test: images float32 [n, 1, 28, 28] in [0, 1], labels int64
    [n].

    Files are looked for in `root` (default: `mnist` in the cache folder), gzipped or plain, and downloaded (11 MB) if
    not there. Images stay 8-bit in memory and become float32 a batch at a time; `standardize` takes off the training
    images' mean (0.1307) and divides by their standard deviation (0.3081). Source: LeCun, Cortes, Burges, "The MNIST
    database". Raises DataError for files that are missing and cannot be had, corrupt, truncated or of another kind.
    """
    check_split("mnist", split)
    prefix, where = ("train" if split == "train" else "t10k"), folder(root, "mnist")
    images_path, labels_path = (
        _file(f"{prefix}-{kind}-ubyte", where, download) for kind in ("images-idx3", "labels-idx1")
    )
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise DataError(f"{images_path}: {images.dtype}{list(images.shape)}: expected uint8 images of 28 x 28")
    if labels.dtype != np.uint8 or labels.ndim != 1 or (labels > 9).any():
        raise DataError(f"{labels_path}: {labels.dtype}{list(labels.shape)}: expected one label from 0 to 9 per image")
    if len(images) != len(labels):
        raise DataError(f"{where}: {len(images)} images but {len(labels)} labels: the files do not belong together")
    transform = Normalize(255, MEAN, STD) if standardize else Normalize(255)
    return ArrayDataset(images[:, None], labels.astype(np.int64), transform=transform)


def _file(name: str, where: Path, download: bool) -> Path:
    """The plain file if it is there, else the gzipped one, fetched if need be."""
    plain = where / name
    zipped = f"{name}.gz"
    return plain if plain.exists() else fetch(Remote(zipped, SHA256[zipped], MIRRORS), where, download=download)


def read_idx(path: str | os.PathLike[str]) -> Array:
    """The array of an IDX file, gzipped or plain, in native byte order.

    Format: two zero bytes, a type code, the number of axes, each axis as a big-endian int32, then the values in C
    order. Raises DataError, with the byte at fault, for a file that is missing, corrupt, truncated, too long, or no IDX
    file.
    """
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == GZIP
            file.seek(0)
            if zipped:
                with gzip.GzipFile(fileobj=file) as inside:
                    return _idx(path, inside)
            return _idx(path, file)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: the gzip data are truncated or corrupt ({error}): delete it to fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _idx(path: Any, file: Readable) -> Array:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES:
        raise DataError(f"{path}: begins with {head!r}, expected two zero bytes and a type code: not an IDX file")
    dtype, axes = np.dtype(TYPES[head[2]]), head[3]
    sizes = file.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise DataError(f"{path}: truncated at byte {4 + len(sizes)}: the header has {4 + 4 * axes} bytes")
    shape = struct.unpack(f">{axes}I", sizes)
    expected = math.prod(shape) * dtype.itemsize
    values = file.read(expected + 1)
    if len(values) != expected:
        start = 4 + 4 * axes
        fault = f"truncated at byte {start + len(values)}" if len(values) < expected else "longer than its header says"
        raise DataError(f"{path}: {fault}: shape {shape} takes {expected} bytes from byte {start} on")
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="))
