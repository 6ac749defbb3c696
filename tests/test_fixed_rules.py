"""Rules of fixed-point arithmetic: which formats results have, contexts, and every refusal with what it says."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import fixed
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.fixed import Accumulator
from ulpgrad.formats import Q

A = ug.asarray([[1.5, -2.25], [100.0, 0.125]]).to("q7.8")
B = ug.asarray([[0.5, 3.0], [2.0, -7.0]]).to("q7.8")
C = ug.asarray([[0.5, 0.25], [1.75, -0.125]]).to("q1.14")


def test_a_context_rules_operators_and_functions() -> None:
    with fixed.arithmetic(result="full"):
        assert (A + B).dtype is Q(8, 8)
        assert (A * C).dtype is Q(9, 22)
        assert (A @ C).dtype is Q(10, 22)
        assert ug.sum(A).dtype is Q(9, 8)
        assert (-A).dtype is Q(8, 8)
        assert (A << 3).dtype is Q(10, 5)
        assert ug.maximum(A, C).dtype is Q(7, 14)
        with fixed.arithmetic(result="q3.4", overflow="wrap"):
            assert (A * B).dtype is Q(3, 4)
            assert (A * B).numpy().tolist() == [[0.75, -6.75], [-8.0, -0.875]]
            assert fixed.add(A, B, result=None).dtype is Q(7, 8)
        assert (A * B).dtype is Q(15, 16)
    assert (A * B).dtype is Q(7, 8)


def test_a_context_as_decorator_and_per_thread() -> None:
    @fixed.arithmetic(result="full")
    def product() -> ug.Tensor:
        return A * B

    assert product().dtype is Q(15, 16)
    seen: list[Any] = []
    with fixed.arithmetic(result="full"):
        thread = threading.Thread(target=lambda: seen.append((A + B).dtype))
        thread.start()
        thread.join()
    assert seen == [Q(7, 8)]


def test_linear_with_its_activation_follows_the_rule() -> None:
    with fixed.arithmetic(result=Q(9, 6)):
        got = ug.linear(A, B, None, "relu")
    want = np.maximum(A.numpy() @ B.numpy().T, 0)
    np.testing.assert_allclose(got.numpy(), want, atol=2**-7)
    bounded = ug.linear(A, B, None, "tanh")
    assert bounded.dtype is Q(7, 8)
    assert np.abs(bounded.numpy()).max() <= 1


def test_mixed_formats_need_a_rule() -> None:
    for call in (
        lambda: A + C, lambda: A * C, lambda: A / C, lambda: A @ C, lambda: A > C, lambda: ug.maximum(A, C),
        lambda: ug.where(A > B, A, C), lambda: ug.linear(A, B, C[0]), lambda: fixed.add(A, C),
    ):  # fmt: skip
        with pytest.raises(FormatError, match=r"q7\.8 and q1\.14, and no rule.*\.to\(format\).*arithmetic"):
            call()
    images, filters = A.reshape(1, 1, 2, 2), C.reshape(1, 1, 2, 2)
    with pytest.raises(FormatError, match="no rule"):
        ug.conv2d(images, filters)
    assert fixed.conv2d(images, filters, result=Q(9, 8)).shape == (1, 1, 1, 1)
    assert fixed.less(A, C, result="full").numpy().tolist() == [[False, True], [False, False]]


def test_floats_and_integers_do_not_mix_in() -> None:
    for other in (ug.asarray([1.0, 2.0]), ug.asarray([1, 2]), np.ones(2), ug.asarray([True, False])):
        with pytest.raises(FormatError, match=r"fixed point does not mix.*\.to\(format\)"):
            A + other
        with pytest.raises(FormatError), fixed.arithmetic(result="full"):
            A * other
    with pytest.raises(FormatError, match="does not mix"):
        A @ ug.asarray([1.0, 2.0])
    with pytest.raises(FormatError, match="expected a fixed-point tensor, got float32, float32"):
        fixed.add(ug.asarray([1.0]), ug.asarray([2.0]))


def test_what_has_no_integer_arithmetic_says_so() -> None:
    for call in (
        lambda: ug.log(A),
        lambda: ug.sin(A),
        lambda: A**2,
        lambda: ug.var(A),
        lambda: ug.prod(A),
        lambda: A % B,
    ):
        with pytest.raises(FormatError, match=r"has no fixed-point arithmetic.*\.to\(float32\)"):
            call()
    with pytest.raises(FormatError, match="activation 'gelu' has no fixed-point arithmetic"):
        ug.linear(A, B, None, "gelu")


def test_overflow_raises_with_place_and_value() -> None:
    cases: list[tuple[Any, str]] = [
        (lambda: fixed.multiply(A, A), r"multiply: the result at \(1, 0\) is 10000, which does not fit q7\.8"),
        (lambda: fixed.add(A, A), r"add: the result at \(1, 0\) is 200"),
        (lambda: fixed.subtract(-A, A), r"subtract: the result at \(1, 0\) is -200"),
        (lambda: fixed.divide(A, A * 0 + 0.25), r"divide: the result at \(1, 0\) is 400\.0"),
        (lambda: fixed.matmul(A, A), r"matmul: the result at \(0, 0\) is -222\.75"),
        (lambda: fixed.sum(abs(A) + 27), r"sum: the result is 211\.875"),
        (lambda: fixed.negative(ug.asarray([-128.0]).to("q7.8")), r"negative: the result at \(0,\) is 128"),
        (lambda: fixed.bitwise_left_shift(A, 2), r"bitwise_left_shift: the result at \(1, 0\) is 400"),
        (lambda: fixed.relu(A, result=Q(3, 4)), r"relu: the result at \(1, 0\) is 100"),
    ]
    with fixed.arithmetic(overflow="raise"):
        for call, message in cases:
            with pytest.raises(FormatError, match=message):
                call()
        assert fixed.sum(A).item() == 99.375
        assert fixed.add(A, B).dtype is Q(7, 8)


def test_growth_beyond_64_bits_is_refused() -> None:
    wide = ug.asarray([1.5]).to(Q(31, 32))
    for call in (
        lambda: fixed.add(wide, wide, result="full"), lambda: fixed.multiply(wide, wide, result="full"),
        lambda: fixed.sum(ug.concat([wide, wide]), result="full"), lambda: fixed.negative(wide, result="full"),
    ):  # fmt: skip
        with pytest.raises(FormatError, match=r"full precision is q.*widest has 64.*result="):
            call()
    for call in (lambda: fixed.divide(A, B, result="full"), lambda: fixed.mean(A, result="full")):
        with pytest.raises(FormatError, match="a quotient has no full precision"):
            call()


def test_division_by_zero() -> None:
    zero = B * 0
    assert (A / zero).numpy().tolist() == [[Q(7, 8).max, -128.0], [Q(7, 8).max, Q(7, 8).max]]
    with pytest.raises(FormatError, match=r"divide: 0 / 0, which has no value, at \(0, 0\)"):
        zero / zero
    for overflow in ("wrap", "raise"):
        with pytest.raises(FormatError, match="division by zero, which can only saturate"):
            fixed.divide(A, zero, overflow=overflow)


def test_accumulators() -> None:
    wide = ug.asarray([[1.5]]).to(Q(15, 16))
    for chosen in ("int32", Accumulator(24, 4, "saturate", "nearest_even", 1)):
        with pytest.raises(FormatError, match=r"words of up to 16 bits.*q15\.16"):
            fixed.matmul(wide, wide, accumulator=chosen)
    long = ug.asarray([[1.5] * 4]).to(Q(15, 46))
    with pytest.raises(FormatError, match="do not fit an int64"):
        fixed.matmul(long, ug.matrix_transpose(long), accumulator="int64")
    assert fixed.matmul(long, ug.matrix_transpose(long)).item() == 9.0
    with pytest.raises(ArgumentError, match="accumulator= is for conv1d, conv2d"):
        fixed.add(A, B, accumulator="int32")
    with pytest.raises(ArgumentError, match="accumulator='int16'"):
        fixed.matmul(A, B, accumulator="int16")


def test_options_are_checked() -> None:
    for options, message in (
        ({"result": "float32"}, "result=float32: expected a fixed-point format"),
        ({"result": "nonsense"}, "unknown format"),
        ({"rounding": "nearest"}, "rounding='nearest'"),
        ({"overflow": "clip"}, "overflow='clip'"),
        ({"random_bits": 33}, "random_bits=33"),
        ({"estimator": "none"}, "estimator='none'"),
        ({"round": "up"}, "unknown option 'round'"),
    ):
        with pytest.raises((ArgumentError, FormatError), match=message):
            fixed.arithmetic(**options)
    for by in (-1, 1001):
        with pytest.raises(ArgumentError, match="expected 0 to 1000 places"):
            A << by
    with pytest.raises(FormatError, match="shifted by integers"):
        ug.bitwise_left_shift(A, B)
    with pytest.raises(FormatError, match="different amounts"):
        fixed.bitwise_left_shift(A, ug.asarray([1, 2]), result="full")


def test_shapes_are_checked_as_ever() -> None:
    with pytest.raises(ShapeError, match="do not broadcast"):
        A + ug.asarray([1.0, 2.0, 3.0]).to("q7.8")
    with pytest.raises(ShapeError, match="inner sizes differ"):
        A @ ug.asarray([[1.0], [2.0], [3.0]]).to("q7.8")
    with pytest.raises(ShapeError):
        ug.conv2d(A, B)


def test_not_a_number_stays_outside() -> None:
    for values in ([float("nan")], [1.0, float("nan")]):
        with pytest.raises(FormatError, match="NaN"):
            ug.asarray(values).to("q7.8")
    assert ug.asarray([float("inf"), float("-inf")]).to("q7.8").numpy().tolist() == [Q(7, 8).max, Q(7, 8).min]
    with pytest.raises(FormatError, match="infinity"):
        ug.asarray([float("inf")]).to("q7.8", overflow="raise")
