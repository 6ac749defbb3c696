"""Number systems as data: the table of formats, and how they are found and promoted."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.errors import FormatError
from ulpgrad.formats.format import Array, Boolean, Float, Format, Integer

bool_ = Boolean("bool", 8, np.dtype(np.bool_))
int8 = Integer("int8", 8, np.dtype(np.int8))
int16 = Integer("int16", 16, np.dtype(np.int16))
int32 = Integer("int32", 32, np.dtype(np.int32))
int64 = Integer("int64", 64, np.dtype(np.int64))
uint8 = Integer("uint8", 8, np.dtype(np.uint8), signed=False)
uint16 = Integer("uint16", 16, np.dtype(np.uint16), signed=False)
uint32 = Integer("uint32", 32, np.dtype(np.uint32), signed=False)
uint64 = Integer("uint64", 64, np.dtype(np.uint64), signed=False)
float16 = Float("float16", 16, np.dtype(np.float16), 5, 10)
bfloat16 = Float("bfloat16", 16, np.dtype(np.uint16), 8, 7)
float32 = Float("float32", 32, np.dtype(np.float32), 8, 23)
float64 = Float("float64", 64, np.dtype(np.float64), 11, 52)

FORMATS: dict[str, Format] = {f.name: f for f in list(globals().values()) if isinstance(f, Format)}
FLOATS = tuple(f for f in FORMATS.values() if f.kind == "float")
INTEGERS = tuple(f for f in FORMATS.values() if f.kind == "integer")
REALS = INTEGERS + FLOATS
ALL = (bool_, *REALS)

_of_dtype: dict[Any, Format] = {f.storage: f for f in FORMATS.values() if f.is_native}


def as_format(given: Any) -> Format:
    """A Format from a Format, its name, a NumPy or ml_dtypes dtype, or one of Python's bool, int and float.

    Raises FormatError for anything else, with the names there are.
    """
    if isinstance(given, Format):
        return given
    if isinstance(given, type) and given in (bool, int, float):
        return {bool: bool_, int: int64, float: _default}[given]
    if isinstance(given, str) and given in FORMATS:
        return FORMATS[given]
    try:
        dtype = np.dtype(given)
    except TypeError:
        dtype = None
    if dtype is not None and dtype.newbyteorder("=") in _of_dtype:
        return _of_dtype[dtype.newbyteorder("=")]
    if dtype is not None and dtype.name in FORMATS and FORMATS[dtype.name].interchange == dtype:
        return FORMATS[dtype.name]
    raise FormatError(f"unknown format {given!r}: expected one of {', '.join(FORMATS)}, or the same as a NumPy dtype")


_default = float32


def get_default_dtype() -> Format:
    """The format of tensors made from Python floats: float32 unless `set_default_dtype` chose another."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Choose the format of tensors made from Python floats."""
    global _default
    chosen = as_format(dtype)
    if not isinstance(chosen, Float):
        raise FormatError(f"set_default_dtype: expected a floating format, got {chosen.name}")
    _default = chosen


def compute_format(form: Format) -> Format:
    """The format that computes for one with no units of its own: for floats below 32 bits the narrowest native one whose
    sums, products, quotients and roots, rounded once more, are as good as rounded once; else itself.

    That takes twice the bits and two more (Figueroa, "When is double rounding innocuous?", 1995).
    """
    if not isinstance(form, Float) or form.bits >= 32:
        return form
    return float32 if 2 * (form.mantissa_bits + 1) + 2 <= float32.mantissa_bits + 1 else float64


__all__ = [
    "ALL", "FLOATS", "FORMATS", "INTEGERS", "REALS", "Array", "Boolean", "Float", "Format", "Integer", "as_format",
    "bfloat16", "bool_", "compute_format", "float16", "float32", "float64", "get_default_dtype", "int16", "int32",
    "int64", "int8", "set_default_dtype", "uint16", "uint32", "uint64", "uint8",
]  # fmt: skip
