"""What compiled loops know of a format: where rounding happens, and a table of codes for what lies beyond."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.formats import Array, Block, Fixed, Float, Format, Random
from ulpgrad.formats.rounding import ROUNDINGS
from ulpgrad.kernels.registry import Request

BEYOND = float(np.finfo(np.float64).max)
MODE = {name: i for i, name in enumerate(ROUNDINGS)}  # as csrc/cpu/quantize.h numbers them


class Grid(NamedTuple):
    """A float as rounding sees it: fields as in csrc/cpu/quantize.h. Pairs go by the sign of what they come from."""

    mantissa_bits: int
    min_exponent: int
    max_code: int
    kept_from: int
    sign: int
    zero: tuple[int, int]
    beyond: tuple[int, int]
    infinity: tuple[int, int]
    nan: tuple[int, int]
    beyond_value: tuple[float, float]
    infinity_value: tuple[float, float]


@cache
def grid(form: Float, rounding: str = "nearest_even", overflow: str | None = None, subnormals: bool = True) -> Grid:
    """The grid of a format under these options, its table made by the format itself.

    overflow="raise" has that of "ieee": whoever calls counts first. Where the format has no NaN, but its storage room for
    one more code, NaN becomes all ones there (see `marks_nan`).
    """
    whole = f"u{form.itemsize}"

    def codes(value: float) -> tuple[int, int]:
        pair = np.array([value, -value])
        drawn = Random(np.zeros(2, np.uint32)) if rounding == "stochastic" else None
        chosen = "ieee" if overflow == "raise" else overflow
        stored = form.encode(pair, rounding, chosen, subnormals, drawn)
        return int(stored.view(whole)[0]), int(stored.view(whole)[1])

    def values(pair: tuple[int, int]) -> tuple[float, float]:
        exact = form.exact(np.array(pair).astype(whole).view(form.storage))
        return float(exact[0]), float(exact[1])

    with np.errstate(all="ignore"):
        beyond, infinity = codes(BEYOND), codes(math.inf)
        missing = (1 << 8 * form.itemsize) - 1 if marks_nan(form) else 0
        return Grid(
            mantissa_bits=form.mantissa_bits,
            min_exponent=form.min_exponent,
            max_code=form.max_code,
            kept_from=0 if subnormals else 1 << form.mantissa_bits,
            sign=1 << (form.bits - 1) if form.signed else 0,
            zero=codes(0.0),
            beyond=beyond,
            infinity=infinity,
            nan=(missing, missing) if form.nan_code is None else codes(math.nan),
            beyond_value=values(beyond),
            infinity_value=values(infinity),
        )


def marks_nan(form: Float) -> bool:
    """Whether NaN, which the format does not have, can be told from its codes."""
    return form.nan_code is None and form.bits < 8 * form.itemsize


def has_nan(values: Array, codes: Array | None, target: Float) -> bool:
    """Whether NaN was converted to a format that has none: told from the codes where that is possible."""
    if not values.size:
        return False
    if codes is not None and marks_nan(target):
        return int(codes.max()) == (1 << 8 * target.itemsize) - 1
    return bool(np.isnan(values).any())


def float_refusal(form: Float) -> str | None:
    """Why compiled loops do not round to a float, or None."""
    if form.bits > 32:
        return f"makes codes of at most 32 bits, not {form}"
    if not form.has_zero:
        return f"wants a zero, which {form} has not"
    if form.mantissa_bits == 0 and form.specials.startswith("p3109"):
        return f"breaks ties by the last digit, {form} by the code"
    if form.min_exponent + 1022 < form.mantissa_bits:
        return f"wants a range well inside that of float64, unlike {form}"
    return None


def fixed_refusal(form: Fixed, overflow: str | None) -> str | None:
    """Why compiled loops do not round to a fixed-point format, or None."""
    if form.bits > 32:
        return f"makes words of at most 32 bits, not {form}"
    return "does not look for values to refuse (overflow='raise')" if overflow == "raise" else None


def refusal(form: Format, overflow: str | None) -> str | None:
    """Why compiled loops do not round to a format, or None."""
    if isinstance(form, Float):
        return float_refusal(form)
    if isinstance(form, Fixed):
        return fixed_refusal(form, overflow)
    return f"rounds to floats and fixed point, not to {form.kind} formats"


def block_refusal(request: Request) -> str | None:
    """Why compiled loops do not make the blocks asked for, or None."""
    x, params = request.arrays[0], request.params
    if params["rounding"] == "stochastic" and params["axis"] % x.ndim != x.ndim - 1:
        return "draws random words in the order of memory: stochastic rounding wants blocks on the last axis"
    element = params["dtype"].element
    if isinstance(element, Float) and not (element.has_negative_zero and element.mantissa_bits):
        return f"wants elements with a negative zero and mantissa bits, unlike {element}"
    if isinstance(element, Float) and not (-126 <= element.min_exponent <= 100 and element.carrier == np.float32):
        return f"wants elements that float32 holds, unlike {element}"
    return None


def carry_from(form: Block) -> int:
    """From which 52 mantissa bits of the largest magnitude on a block's scale is one larger: 2^52 for never."""
    if form.rule == "rceil":
        return int(math.frexp(form.element.max)[0] * 2.0**53) - (1 << 52) + 1
    if form.rule == "even":
        element = form.element
        digits = element.mantissa_bits if isinstance(element, Float) else element.bits - 2
        return (1 << 52) - (1 << (51 - digits))
    return 1 << 52


def options(rounding: str, counter: int, key: int, random_bits: int) -> tuple[int, tuple[int, int, int, int]]:
    """Rounding and random stream as the C++ functions take them."""
    low = (1 << 64) - 1
    return MODE[rounding], (key, counter & low, counter >> 64, random_bits)


def as_stored(codes: Array, form: Any) -> Array:
    """Unsigned codes as the format stores them."""
    out: Array = codes.view(form.storage)
    return out


@cache
def table(element: Float | Fixed) -> Array:
    """The values of all codes of a byte, float32[256]."""
    codes = np.arange(256, dtype=np.uint8).view(element.storage)
    return element.exact(codes).astype(np.float32)


def rows(x: Array, axis: int) -> tuple[Array, tuple[int, ...]]:
    """`x` with `axis` last, as contiguous rows, and the shape before that."""
    moved = x if axis in (-1, x.ndim - 1) else np.moveaxis(x, axis, -1)
    count = math.prod(moved.shape[:-1])
    return np.ascontiguousarray(moved).reshape(count, moved.shape[-1]), moved.shape


def back(out: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Rows in the shape they came from, contiguous."""
    whole = out.reshape(*shape[:-1], out.shape[-1])
    return whole if axis in (-1, len(shape) - 1) else np.ascontiguousarray(np.moveaxis(whole, -1, axis))


__all__ = [
    "MODE", "Grid", "as_stored", "back", "block_refusal", "carry_from", "fixed_refusal", "float_refusal", "grid", "has_nan",
    "marks_nan", "options", "refusal", "rows", "table",
]  # fmt: skip
