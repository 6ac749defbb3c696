"""An accumulator as the numbers that fast rungs need, and which of them they take."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ulpgrad.formats import RANDOM_BITS, Array, Float, float64
from ulpgrad.kernels.accumulate import spec
from ulpgrad.kernels.random.philox import LOW64
from ulpgrad.kernels.registry import Request


class Rule(NamedTuple):
    """`format`: mantissa_bits, min_exponent, max_exponent, max, and what finite sums beyond max become. `random`: bits (0
    to nearest even), key, counter's lower and upper half. `bare`: the format has no negative zero."""

    format: tuple[int, int, int, float, float]
    random: tuple[int, int, int, int]
    bare: bool

    @classmethod
    def of(
        cls,
        *,
        format: Float,
        rounding: str = "nearest_even",
        overflow: str = "ieee",
        random_bits: int = RANDOM_BITS,
        key: int = 0,
        counter: int = 0,
        **_: Any,
    ) -> Rule:
        beyond = math.inf if format.inf_code is not None else math.nan if format.nan_code is not None else format.max
        numbers = format.mantissa_bits, format.min_exponent, format.max_exponent, format.max
        return cls(
            (*numbers, format.max if overflow == "saturate" and format is not float64 else beyond),
            (random_bits if rounding == "stochastic" else 0, key, counter & LOW64, counter >> 64),
            not format.has_negative_zero,
        )

    def finish(self, sums: Array) -> Array:
        """Sums as the format knows them: without negative zeros where it has none."""
        return sums + sums.dtype.type(0) if self.bare else sums


def refusal(request: Request) -> str | None:
    """Why the fast rungs do not take a call, or None."""
    form, overflow = request.params["format"], request.params.get("overflow", "ieee")
    if form is not float64 and form.exponent_bits > 8:
        return "takes accumulators of at most 8 exponent bits, or float64"
    if overflow == "saturate" and form.specials == "fnuz":
        return "takes fnuz accumulators only with overflow='ieee'"
    if not ((form.min_exponent >= -200 and form.max_exponent <= 200) or form is float64):
        return "takes accumulators with values from 2^-200 to 2^200"
    return None


def chunk_of(chunk: int, terms: int) -> int:
    """Terms per chunk as kernels count them: one chunk for all is what 1 stands for."""
    return chunk if chunk > 1 else terms + 1


__all__ = ["Rule", "chunk_of", "refusal", "spec"]
