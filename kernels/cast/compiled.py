"""The C++ function that converts one format to another, if there is one: vector loops between the usual floats, rounding on
the bits to any other, and tables of values from what has at most 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Fixed, Float, Format, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.quantize.grid import float_refusal, grid, has_nan

Converter = Callable[[Array], Array]

# Pairs with a loop of their own.
PAIRS = frozenset({
    (float32, bfloat16), (bfloat16, float32), (float32, float16), (float16, float32), (float64, bfloat16), (float64, float16),
    (bfloat16, float64), (float16, float64), (float32, float64), (float64, float32),
})  # fmt: skip
WIDE = (float32, float64)
USUAL = (float16, bfloat16, *WIDE)


@cache
def compiled(source: Format, target: Format, isa: str = "") -> Converter | None:
    """The function, for arrays of any layout, which its result keeps; None where NumPy is as fast, or C++ is not built."""
    if native.missing() is not None or source is target:
        return None
    if (source, target) in PAIRS:
        loop: Converter = native.module().cast(source.name, target.name, isa)
        return loop
    if isinstance(source, Fixed):
        return _from_fixed(source, target)
    if not (isinstance(source, Float) and isinstance(target, Float)):
        return None
    if target in WIDE:
        return _from_table(source, target)
    if source in WIDE:
        return _to_codes(source, target, isa)
    if source not in USUAL and source.carrier != np.float32:
        return None
    widen, narrow = compiled(source, float32, isa), compiled(float32, target, isa)
    return None if widen is None or narrow is None else lambda array: narrow(widen(array))


def _from_table(source: Float, target: Float) -> Converter | None:
    if source.bits > 16 or source in USUAL:
        return None
    with np.errstate(all="ignore"):
        values = source.values().astype(target.storage)
    loop: Converter = native.module().table_decoder(values, source.itemsize)
    return loop


def _to_codes(source: Float, target: Float, isa: str) -> Converter | None:
    if target in USUAL or float_refusal(target) is not None:
        return None
    known = native.module().FloatGrid(**grid(target)._asdict())
    loop: Converter = native.module().float_converter(known, source is float64, target.itemsize, isa)
    return loop if target.nan_code is not None else _without_nan(loop, target)


def _without_nan(loop: Converter, target: Float) -> Converter:
    def call(array: Array) -> Array:
        out = loop(array)
        if has_nan(array, out, target):
            target.encode(array)  # raises
        return out

    return call


def _from_fixed(source: Fixed, target: Format) -> Converter | None:
    if target not in WIDE or source.bits > (24 if target is float32 else 32):
        return None
    loop: Any = native.module().fixed_decoder(str(source.storage), source.fraction_bits, target is float64)
    return loop if abs(source.fraction_bits) <= 100 else None


__all__ = ["PAIRS", "WIDE", "compiled"]
