"""`convert`: the plain function behind `cast`, which the dispatch calls to widen and to narrow. It takes the C++ loop where
one is compiled, else NumPy, or for large arrays to small floats Numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from ulpgrad.errors import FormatError
from ulpgrad.formats import Array, Float, Format, Integer, bfloat16, float16, float32
from ulpgrad.kernels import capabilities, native
from ulpgrad.kernels.cast.compiled import WIDE, compiled
from ulpgrad.kernels.quantize.grid import float_refusal

Converter = Callable[[Array], Array]
WORTH_COMPILING = 1 << 16  # values
SIXTEEN_BITS = frozenset({(float32, bfloat16), (bfloat16, float32), (float32, float16), (float16, float32)})


def convert(array: Array, source: Format, target: Format) -> Array:
    """Stored values of one format as stored values of another, in a new array; rounded once to nearest even.

    Floats become integers by truncation; FormatError for NaN, infinities and values that the integer cannot hold.
    """
    return converter(source, target)(array)


@cache
def converter(source: Format, target: Format) -> Converter:
    """The fastest function that converts one format to another on the CPU."""
    return compiled(source, target) or _jitted(source, target) or numpy_converter(source, target)


def _jitted(source: Format, target: Format) -> Converter | None:
    """Where C++ is not built: Numba's loops between float32 and 16 bits, and to small floats, for arrays that are worth
    compiling them."""
    if native.missing() is None or capabilities.missing("numba") is not None:
        return None
    if (source, target) in SIXTEEN_BITS:
        plain, loop = numpy_converter(source, target), partial(_between, source, target)
        return lambda array: plain(array) if array.size < WORTH_COMPILING else loop(array)
    if source not in WIDE or not isinstance(target, Float) or target.is_native or float_refusal(target) is not None:
        return None
    return partial(_to_small, source, target)


def _between(source: Format, target: Format, array: Array) -> Array:
    from ulpgrad.kernels.cast.numba_bits import converted

    return converted(array, source, target)


def _to_small(source: Format, target: Float, array: Array) -> Array:
    plain = numpy_converter(source, target)
    if array.size < WORTH_COMPILING:
        return plain(array)
    from ulpgrad.kernels.quantize.numba_bits import float_codes

    codes = float_codes(np.ascontiguousarray(array), target, "nearest_even", None, True, 0, 0, 1)
    return plain(array) if codes is None else codes  # which raises


@cache
def numpy_converter(source: Format, target: Format) -> Converter:
    """The same in NumPy."""
    if source is target:
        return np.copy
    if isinstance(target, Float):
        return _to_float(source, target)
    if isinstance(source, Float) and isinstance(target, Integer):
        return lambda array: truncate(np.asarray(source.decode(array)), target)
    if isinstance(source, Float):
        return lambda array: np.asarray(source.decode(array) != 0)
    return lambda array: array.astype(target.storage)


def _to_float(source: Format, target: Float) -> Converter:
    if target.is_native and source.storage.kind in "fbiu" and source.is_native:
        return _quiet(lambda array: array.astype(target.storage))
    return _quiet(lambda array: _encode(target, np.asarray(source.decode(array))))


def _encode(target: Float, values: Array) -> Array:
    out = target.encode(values)
    return out.copy() if out is values else out


def truncate(values: Array, target: Integer) -> Array:
    """Floats as integers, toward zero; FormatError unless all are finite and in range."""
    with np.errstate(invalid="ignore"):
        whole = np.asarray(np.trunc(values.astype(np.float64, copy=False)))
        inside = (whole >= float(target.min)) & (whole < float(target.max + 1))
    if not inside.all():
        raise FormatError(
            f"cast: {float(values[~inside].flat[0])!r} has no value in {target.name}, which holds {target.min} to "
            f"{target.max}: replace or clip such values first"
        )
    return whole.astype(target.storage)


def _quiet(function: Converter) -> Converter:
    def call(array: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return function(array)

    return call


def of_request(formats: tuple[Format | None, ...], params: dict[str, Any]) -> tuple[Format, Format]:
    """Source and target of a call of `cast`."""
    source = formats[0]
    assert source is not None
    return source, params["dtype"]
