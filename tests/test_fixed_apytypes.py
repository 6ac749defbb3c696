"""Growth, roundings and overflows against APyTypes, an independent library of fixed-point arithmetic (up to 64 bits here).

Its integer bits count the sign. Arrays are longer than four values: its casts of four are wrong (0.5.1).
"""

from __future__ import annotations

import apytypes
import numpy as np
import pytest
from apytypes import APyFixedArray, OverflowMode, QuantizationMode

import ulpgrad as ug
from ulpgrad import fixed
from ulpgrad.formats import Fixed, Q

MODES = {
    "nearest_even": QuantizationMode.TIES_EVEN,
    "nearest_away": QuantizationMode.TIES_AWAY,
    "toward_zero": QuantizationMode.TO_ZERO,
    "up": QuantizationMode.TO_POS,
    "down": QuantizationMode.TO_NEG,
    "to_odd": QuantizationMode.JAM_UNBIASED,
}
OVERFLOWS = {"saturate": OverflowMode.SAT, "wrap": OverflowMode.WRAP}
PAIRS = [(Q(7, 8), Q(7, 8)), (Q(3, 4), Q(0, 15)), (Q(12, 3), Q(-1, 9)), (Q(15, 16), Q(2, 20)), (Q(5, -2), Q(10, 4))]


def pair(form: Fixed, shape: tuple[int, ...], seed: int) -> tuple[ug.Tensor, APyFixedArray]:
    """The same random values here and there, ends of the range included."""
    codes = np.random.default_rng(seed).integers(form.min_code, form.max_code, shape, endpoint=True)
    codes.reshape(-1)[:2] = form.min_code, form.max_code
    theirs = APyFixedArray(codes.tolist(), form.integer_bits + 1, form.fraction_bits)
    return ug.Tensor(codes.astype(form.storage), form), theirs


def same(ours: ug.Tensor, theirs: APyFixedArray) -> None:
    form = ours.dtype
    assert isinstance(form, Fixed)
    assert (form.integer_bits + 1, form.fraction_bits) == (theirs.int_bits, theirs.frac_bits)
    bits = np.array(theirs.to_bits(), dtype=object) % (1 << form.bits)
    np.testing.assert_array_equal(ours.storage.astype(object) % (1 << form.bits), bits)


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=str)
def test_growth(a: Fixed, b: Fixed) -> None:
    (x, p), (y, q) = pair(a, (3, 5), 0), pair(b, (3, 5), 1)
    with fixed.arithmetic(result="full"):
        same(x + y, p + q)
        same(x - y, p - q)
        same(x * y, p * q)
        same(-x, -p)
        same(abs(x), abs(p))
        same(ug.sum(x, axis=1), p.sum(1))
        same(ug.matmul(x, ug.matrix_transpose(y)), p @ q.T)


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize(("a", "b"), PAIRS, ids=str)
def test_roundings_and_overflows(a: Fixed, b: Fixed, rounding: str, overflow: str) -> None:
    (x, p), (y, q) = pair(a, (40,), 2), pair(b, (40,), 3)
    for target in (Q(3, 4), Q(6, 1), Q(1, 30)):
        cast = {
            "int_bits": target.integer_bits + 1,
            "frac_bits": target.fraction_bits,
            "quantization": MODES[rounding],
            "overflow": OVERFLOWS[overflow],
        }
        rule = {"result": target, "rounding": rounding, "overflow": overflow}
        same(fixed.multiply(x, y, **rule), (p * q).cast(**cast))
        same(fixed.subtract(x, y, **rule), (p - q).cast(**cast))
        same(x.to(target, rounding=rounding, overflow=overflow), p.cast(**cast))


def test_the_version_that_was_compared_with() -> None:
    assert tuple(map(int, apytypes.__version__.split(".")[:2])) >= (0, 5)
