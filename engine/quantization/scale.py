"""Real scales as integers: a multiplier of 31 bits and a shift.

A factor m between scales becomes M and s with m ~ M * 2^-s and M in [2^30, 2^31), so that the relative error is at most 2^-31,
and requantisation is round(sum * M / 2^s), in integers alone. Source: Jacob et al. 2018, section 2.2; TOSA specification,
`apply_scale_32`.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Array
from ulpgrad.kernels.requantize.spec import LARGEST_SHIFT

MULTIPLIER_BITS = 31


def fixed_multiplier(factor: Array) -> tuple[Array, Array]:
    """(multipliers, shifts), int32, for positive factors; those under 2^-32 lose bits of their multiplier, to the shift of 62.
    ArgumentError for a factor that is not positive, or is 2^31 and more."""
    if not ((factor > 0) & (factor < 2.0**MULTIPLIER_BITS)).all():
        raise ArgumentError(f"scales with a factor of {factor[~((factor > 0) & (factor < 2.0**31))][0]} between them: "
                            "expected more than 0 and less than 2^31")  # fmt: skip
    fraction, exponent = np.frexp(factor)
    multiplier = np.rint(np.ldexp(fraction, MULTIPLIER_BITS)).astype(np.int64)
    exponent = np.where(multiplier == 2**MULTIPLIER_BITS, exponent + 1, exponent)
    multiplier = np.where(multiplier == 2**MULTIPLIER_BITS, 2 ** (MULTIPLIER_BITS - 1), multiplier)
    shift = MULTIPLIER_BITS - exponent.astype(np.int64)
    surplus = np.maximum(shift - LARGEST_SHIFT, 0)
    multiplier = np.rint(np.ldexp(multiplier.astype(np.float64), -surplus)).astype(np.int64)
    return multiplier.astype(np.int32), (shift - surplus).astype(np.int32)


def largest_sums(weight: Array, bias: Array, low: int, high: int) -> int:
    """The largest magnitude that any sum can reach: codes of weights [out, ...] with inputs from low to high (zero points taken
    off), beside integer biases. In Python's integers."""
    rows = weight.reshape(len(weight), -1).astype(np.int64)
    positive, negative = np.where(rows > 0, rows, 0).sum(1), np.where(rows < 0, rows, 0).sum(1)
    most = [int(p) * high + int(n) * low + int(b) for p, n, b in zip(positive, negative, bias, strict=True)]
    least = [int(p) * low + int(n) * high + int(b) for p, n, b in zip(positive, negative, bias, strict=True)]
    return max([0, *map(abs, most), *map(abs, least)])


__all__ = ["MULTIPLIER_BITS", "fixed_multiplier", "largest_sums"]
