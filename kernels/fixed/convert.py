"""`requantize`: from one fixed-point format to another in integers alone, so that words of 64 bits lose nothing on the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import Array, Fixed, Random
from ulpgrad.formats.fixed import OVERFLOWS
from ulpgrad.formats.rounding import RANDOM_BITS, check
from ulpgrad.kernels import gpu
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.fixed.cut import Cut, cut_to
from ulpgrad.kernels.registry import Request, select


def requantize(
    storage: Array,
    source: Fixed,
    target: Fixed,
    rounding: str = "nearest_even",
    overflow: str = "saturate",
    random: Random | None = None,
    run: Callable[..., Any] | None = None,
) -> Array:
    """Codes of one fixed-point format as codes of another, rounded once. `overflow`: "saturate", "wrap" or "raise"
    (FormatError with the first place and value). Stochastic rounding draws from `random`, one word per value. `run` is called
    as `spec.rescale` is, for codes that lie on a GPU."""
    if overflow not in OVERFLOWS:
        raise ArgumentError(f"{target.name}: overflow={overflow!r}: expected one of {', '.join(OVERFLOWS)}")
    check(rounding)
    if rounding == "stochastic" and random is None:
        raise ArgumentError("rounding='stochastic': no random words given; pass generator= or Random(words, bits)")
    bits = RANDOM_BITS if random is None else random.bits
    words = None if random is None else random.words.reshape(storage.shape)
    if run is None:
        cut, run = _planned(source, target, rounding, overflow, bits)
    else:
        cut = _cut(source, target, rounding, overflow, bits)
    result = run(storage, words, sign="keep", cut=cut)
    if not cut.report:
        return result
    codes, outside = result
    if outside.any():
        place = tuple(int(i) for i in np.argwhere(gpu.to_host(outside))[0])
        value = exact_text(int(storage[place]), source.fraction_bits)
        raise FormatError(
            f"{target.name}: {value}{f' at {place}' if place else ''} overflows: it holds {target.min} to {target.max}"
        )
    return codes


@lru_cache(1024)
def _cut(source: Fixed, target: Fixed, rounding: str, overflow: str, bits: int) -> Cut:
    return cut_to(target, source.fraction_bits, source.min_code, source.max_code, rounding=rounding, overflow=overflow,
                  random_bits=bits)  # fmt: skip


@lru_cache(1024)
def _planned(source: Fixed, target: Fixed, rounding: str, overflow: str, bits: int) -> tuple[Cut, Any]:
    cut = _cut(source, target, rounding, overflow, bits)
    empty = np.empty(0, source.storage)
    stored = spec.int_format(source.storage)
    params = {"sign": "keep", "cut": cut}
    rung, _ = select(Request(spec.rescale, "cpu", (stored, None), (empty, None), params))
    if rung.build:
        return cut, rung.run(Request(spec.rescale, "cpu", (stored, None), (empty, None), params))
    return cut, rung.run


def exact_text(whole: int, fraction: int) -> str:
    """whole 2^-fraction, as a decimal number where that is short, for messages."""
    value = float(whole) * 2.0**-fraction if abs(fraction) < 900 else 0.0
    return f"{value:.17g}" if value or not whole else f"{whole} 2^{-fraction}"


__all__ = ["exact_text", "requantize"]
