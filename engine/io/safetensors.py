"""Weights in the safetensors format: a length, a JSON header of names, formats, shapes and places, then the values.

The format is read and written here rather than through its library, whose NumPy side lacks bfloat16 and writes
non-contiguous arrays wrongly; no code in a file is ever run. Every claim of the header is checked against the file
before a value is read. Source: the safetensors format description, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ulpgrad.errors import DataError, FormatError
from ulpgrad.formats import Array, Format, as_format
from ulpgrad.io.atomic import atomic_write
from ulpgrad.tensor import Tensor

CODES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
NAMES = {name: code for code, name in CODES.items()}
LENGTH_BYTES = 8
LARGEST_HEADER = 100_000_000  # bytes, the reference implementation's limit
ALIGNMENT = 8  # values begin at a multiple of this
METADATA = "__metadata__"


class Entry(NamedTuple):
    """One tensor of a file: its place is bytes [begin, end) after the header."""

    form: Format
    shape: tuple[int, ...]
    begin: int
    end: int


def save(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor | Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors (or NumPy and ml_dtypes arrays) of any shape and layout, and strings about them.

    The file appears whole or not at all (see `atomic_write`). Raises FormatError for a format that safetensors has no
    code for, DataError for names or metadata that are not strings, or when the disk is full.
    """
    stored = {_text(path, name): _stored(name, value) for name, value in tensors.items()}
    if METADATA in stored:
        raise DataError(f"{path}: no tensor can be called {METADATA!r}: the format keeps that name for its metadata")
    # Wide formats first: with an aligned start every tensor is aligned, as the reference implementation writes them.
    order = sorted(stored, key=lambda name: (-stored[name][1].itemsize, name))
    header: dict[str, Any] = {}
    if metadata:
        header[METADATA] = {_text(path, key): _text(path, value) for key, value in metadata.items()}
    end = 0
    for name in order:
        array, form = stored[name]
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": NAMES[form.name], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        for name in order:
            array = stored[name][0]
            little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
            file.write(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file by name, in the order they lie in it.

    Raises DataError, with the byte at fault, for a file that is missing, truncated, corrupt, or not safetensors, and
    for formats that ulpgrad does not have.
    """
    with _opened(path) as file:
        entries, _, start = _header(path, file)
        tensors = {}
        for name, entry in entries.items():
            values = np.empty(math.prod(entry.shape), entry.form.storage.newbyteorder("<"))
            file.seek(start + entry.begin)
            if file.readinto(values.view(np.uint8)) != values.nbytes:  # type: ignore[attr-defined]
                raise DataError(f"{path}: the file became shorter while {name!r} was read; load it again")
            if entry.form.kind == "bool" and (values.view(np.uint8) > 1).any():
                at = start + entry.begin + int(np.argmax(values.view(np.uint8) > 1))
                raise DataError(f"{path}: byte {at}: {name!r} is BOOL, whose bytes are 0 or 1; the file is corrupt")
            try:
                native = values.astype(entry.form.storage, copy=False).reshape(entry.shape)
            except ValueError as error:
                raise DataError(f"{path}: {name!r}: NumPy holds no array of shape {entry.shape}: {error}") from error
            tensors[name] = Tensor(native, entry.form)
        return tensors


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The strings about a file that `save` was given; {} if there are none. Raises DataError as `load` does."""
    with _opened(path) as file:
        return _header(path, file)[1]


def _stored(name: str, value: Any) -> tuple[Array, Format]:
    if isinstance(value, Tensor):
        array, form = value.to("cpu").storage, value.dtype
    else:
        array = np.asarray(value)
        try:
            form = as_format(array.dtype)
        except FormatError as error:
            raise FormatError(f"save: {name!r} is {array.dtype}: expected one of {', '.join(NAMES)}") from error
        array = array if form.is_native else array.view(form.storage)
    if form.name not in NAMES:
        raise FormatError(f"save: {name!r}: safetensors has no code for {form}: expected one of {', '.join(NAMES)}")
    return array, form


def _text(path: Any, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"{path}: not written: names and metadata are strings, got {value!r}")
    return value


def _opened(path: str | os.PathLike[str]) -> IO[bytes]:
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{Path(path)}: cannot be read: {error.strerror}") from error


def _header(path: Any, file: IO[bytes]) -> tuple[dict[str, Entry], dict[str, str], int]:
    """The checked header: entries in the order of their places, metadata, and the byte the values start at."""
    size = os.fstat(file.fileno()).st_size
    if size < LENGTH_BYTES:
        raise DataError(f"{path}: {size} bytes: too short for the {LENGTH_BYTES}-byte header length; not safetensors")
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > LARGEST_HEADER:
        raise DataError(f"{path}: byte 0: a header of {length} bytes is announced, over the limit; not safetensors")
    start = LENGTH_BYTES + length
    if start > size:
        raise DataError(f"{path}: truncated at byte {size}: the header reaches to byte {start}; or not safetensors")
    header = _json(path, file.read(length))
    metadata = header.pop(METADATA, {})
    if not (isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())):
        raise DataError(f"{path}: {METADATA}: expected a map of strings to strings, got {metadata!r}")
    entries = {name: _entry(path, name, given) for name, given in header.items()}
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    reached = 0
    for name, entry in entries.items():
        if entry.begin != reached:
            what = "overlaps the tensor before it" if entry.begin < reached else "leaves a hole before it"
            raise DataError(
                f"{path}: byte {start + entry.begin}: {name!r} {what}, which ends at {start + reached}; corrupt"
            )
        reached = entry.end
    if start + reached != size:
        fault = "truncated" if start + reached > size else "followed by bytes that belong to no tensor"
        raise DataError(f"{path}: {fault}: the tensors end at byte {start + reached}, the file at byte {size}")
    return entries, metadata, start


def _json(path: Any, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{path}: the header has {twice!r} twice; corrupt header")
        return out

    if not raw.startswith(b"{"):
        raise DataError(
            f"{path}: byte {LENGTH_BYTES}: the header begins with {raw[:8]!r}, expected '{{'; not safetensors"
        )
    try:
        header: dict[str, Any] = json.loads(raw.decode(), object_pairs_hook=unique)
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {LENGTH_BYTES + error.start}: the header is not UTF-8; corrupt") from error
    except json.JSONDecodeError as error:
        at = LENGTH_BYTES + len(error.doc[: error.pos].encode())
        raise DataError(f"{path}: byte {at}: the header is not JSON: {error.msg}; corrupt") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets as deep
        raise DataError(f"{path}: the header is not what JSON is used for: {error}; corrupt") from error
    return header


def _entry(path: Any, name: str, given: Any) -> Entry:
    """One tensor's claims: format, shape and place, which must agree."""
    if not (isinstance(given, dict) and given.keys() == {"dtype", "shape", "data_offsets"}):
        raise DataError(f"{path}: {name!r}: expected dtype, shape and data_offsets, got {given!r}")
    code, shape, offsets = given["dtype"], given["shape"], given["data_offsets"]
    if not (isinstance(code, str) and code in CODES):
        raise DataError(f"{path}: {name!r}: no format here for {code!r}: expected one of {', '.join(CODES)}")
    if not (_counts(shape) and _counts(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1]):
        raise DataError(f"{path}: {name!r}: shape {shape!r} or data_offsets {offsets!r} is not what it should be")
    form = as_format(CODES[code])
    needed, room = math.prod(shape) * form.itemsize, offsets[1] - offsets[0]
    if needed != room:
        raise DataError(
            f"{path}: {name!r}: {code} of shape {tuple(shape)} takes {needed} bytes, the header gives it {room}"
        )
    return Entry(form, tuple(shape), offsets[0], offsets[1])


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


__all__ = ["load", "load_metadata", "save"]
