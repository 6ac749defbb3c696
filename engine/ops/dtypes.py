"""Data type functions, constants and inspection of the array API standard (2024.12). Its data types are Formats."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ulpgrad.device import CPU, Device, as_device
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import FORMATS, Float, Format, Integer, as_format, get_default_dtype, int64
from ulpgrad.formats.promotion import promote, result_format
from ulpgrad.kernels import capabilities, gpu
from ulpgrad.ops.common import weak_format
from ulpgrad.tensor import Tensor

__all__ = [
    "__array_namespace_info__",
    "can_cast",
    "e",
    "finfo",
    "iinfo",
    "inf",
    "isdtype",
    "nan",
    "newaxis",
    "pi",
    "result_type",
]

e = math.e
pi = math.pi
inf = math.inf
nan = math.nan
newaxis = None

KINDS: dict[str, tuple[str, ...]] = {
    "bool": ("bool",),
    "signed integer": ("int8", "int16", "int32", "int64"),
    "unsigned integer": ("uint8", "uint16", "uint32", "uint64"),
    "integral": ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    "real floating": tuple(f.name for f in FORMATS.values() if f.kind == "float"),
    "complex floating": (),
    "numeric": tuple(f.name for f in FORMATS.values() if f.kind in ("integer", "float")),
}


STANDARD = tuple(as_format(name) for name in ("bool", *KINDS["integral"], "float32", "float64"))


class FloatInfo(NamedTuple):
    """What `finfo` returns: Python numbers, exact."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: Format


class IntegerInfo(NamedTuple):
    """What `iinfo` returns."""

    bits: int
    max: int
    min: int
    dtype: Format


def _form(given: Any) -> Format:
    return given.dtype if isinstance(given, Tensor) else as_format(given)


def finfo(type: Any, /) -> FloatInfo:
    """Limits of a floating format, or of that of a tensor."""
    form = _form(type)
    if not isinstance(form, Float):
        ask = "use iinfo" if form.kind == "integer" else "ask the format itself, as in form.max"
        raise FormatError(f"finfo: expected a floating format, got {form.name}; {ask}")
    return FloatInfo(form.bits, form.eps, form.max, form.min, form.smallest_normal, form)


def iinfo(type: Any, /) -> IntegerInfo:
    """Limits of an integer format, or of that of a tensor."""
    form = _form(type)
    if not isinstance(form, Integer):
        raise FormatError(f"iinfo: expected an integer format, got {form.name}; use finfo")
    return IntegerInfo(form.bits, form.max, form.min, form)


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a format is of a kind: a format, one of the standard's names ("integral", "real floating", ...), or a
    tuple of these."""
    form = as_format(dtype)
    if isinstance(kind, tuple):
        return any(isdtype(form, k) for k in kind)
    if isinstance(kind, str) and kind in KINDS:
        return form.name in KINDS[kind]
    if isinstance(kind, str) and kind not in FORMATS:
        raise ArgumentError(f"isdtype: unknown kind {kind!r}; expected a format or one of {', '.join(KINDS)}")
    return form is as_format(kind)


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether promotion alone takes the first format (or tensor) to the second."""
    source, target = _form(from_), as_format(to)
    try:
        return promote(source, target) is target
    except FormatError:
        return False


def result_type(*arrays_and_dtypes: Any) -> Format:
    """The format that tensors, formats and Python numbers together compute in. Numbers take the format of the rest,
    unless it cannot hold their kind."""
    numbers = [v for v in arrays_and_dtypes if isinstance(v, (bool, int, float))]
    rest = [_form(v) for v in arrays_and_dtypes if not isinstance(v, (bool, int, float))]
    if not rest:
        raise ArgumentError("result_type: expected at least one tensor or format")
    form = result_format(*rest)
    for number in numbers:
        form = weak_format(number, form)
    return form


class NamespaceInfo:
    """What `__array_namespace_info__` returns."""

    def capabilities(self) -> dict[str, Any]:
        """What this implementation of the standard can do."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Device:
        """The device that new tensors are on."""
        return CPU

    def default_dtypes(self, *, device: Any = None) -> dict[str, Format]:
        """The formats that new tensors have. There are no complex formats."""
        as_device(device)
        return {"real floating": get_default_dtype(), "integral": int64, "indexing": int64}

    def devices(self) -> list[Device]:
        """The devices there are."""
        if capabilities.missing("cuda") is not None:
            return [CPU]
        return [CPU, *(Device("cuda", i) for i in range(gpu.count()))]

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, Format]:
        """The standard's formats by name, or those of a kind as in `isdtype`. `ulpgrad.formats.FORMATS` has all."""
        as_device(device)
        return {form.name: form for form in STANDARD if kind is None or isdtype(form, kind)}


def __array_namespace_info__() -> NamespaceInfo:
    """Inspection of this namespace, as the standard has it."""
    return NamespaceInfo()
