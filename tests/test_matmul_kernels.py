"""The C++ matrix products: every instruction set, type and memory order at sizes around its tiles and blocks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.formats import Array, Format, bfloat16, float16, float32, float64
from ulpgrad.kernels import capabilities, native

pytestmark = pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))

WAYS = [("portable", False), ("avx2", False), ("avx512", False), ("avx512", True)]
UNIT = {float64: 2.0**-53, float32: 2.0**-24, float16: 2.0**-11, bfloat16: 2.0**-8}
LEAST = {float64: 0.0, float32: 0.0, float16: 2.0**-25, bfloat16: 2.0**-134}  # half a step between subnormal numbers
SIZES = [
    *itertools.product((1, 2, 5, 14, 17, 45), (0, 1, 2, 7, 33, 600), (1, 3, 16, 33, 70)),
    (200, 2100, 40),
    (9, 5, 1100),
]


def ways(form: Format) -> list[tuple[str, bool]]:
    """(isa, dots) that this machine has for a format."""
    found = [(isa, dots) for isa, dots in WAYS if not dots and (isa == "portable" or capabilities.missing(isa) is None)]
    return [*found, ("avx512", True)] if form is bfloat16 and not capabilities.missing("avx512_bf16") else found


def draw(rng: Any, form: Format, shape: tuple[int, ...], transposed: bool = False) -> tuple[Array, Array]:
    """Stored values of a format, rows or columns contiguous, and the same exactly in float64."""
    stored = form.encode(rng.standard_normal(shape[::-1] if transposed else shape))
    stored = stored.T if transposed else stored
    return stored, form.exact(stored)


def check(form: Format, got: Array, a: Array, b: Array, where: Any) -> None:
    """Every value is the product to a few roundings of its terms, and to one of the result's format."""
    terms = abs(a) @ abs(b)
    single = 2.0**-24 if form is not float64 else UNIT[float64]
    allowed = 1.01 * UNIT[form] * abs(a @ b) + 4 * single * terms + LEAST[form]
    assert (abs(form.exact(got) - a @ b) <= allowed).all(), where


@pytest.mark.parametrize("form", [float32, float64, float16, bfloat16], ids=str)
def test_products(form: Format) -> None:
    rng = np.random.default_rng(0)
    for (m, k, n), left, right in itertools.product(SIZES, (False, True), (False, True)):
        a, exact_a = draw(rng, form, (m, k), left)
        b, exact_b = draw(rng, form, (k, n), right)
        for isa, dots in ways(form):
            check(form, native.module().matmul(a, b, isa, dots), exact_a, exact_b, (m, k, n, left, right, isa, dots))


@pytest.mark.parametrize("form", [float32, bfloat16], ids=str)
def test_any_strides(form: Format) -> None:
    rng = np.random.default_rng(1)
    for isa, dots in ways(form):
        a, b = form.encode(rng.standard_normal((60, 80))), form.encode(rng.standard_normal((90, 70)))
        left, right = a[::-2, 5:75:2], b[80:10:-2, ::3]
        got = native.module().matmul(left, right, isa, dots)
        check(form, got, form.exact(left), form.exact(right), (isa, dots))


@pytest.mark.parametrize("form", [float32, bfloat16], ids=str)
def test_stacks_of_small_products(form: Format) -> None:
    rng = np.random.default_rng(4)
    for stack, m, k, n in ((300, 3, 5, 7), (129, 16, 16, 16), (5, 33, 40, 35), (2, 200, 24, 90)):
        a, b = draw(rng, form, (stack, m, k)), draw(rng, form, (stack, k, n))
        for isa, dots in ways(form):
            check(form, native.module().matmul(a[0], b[0], isa, dots), a[1], b[1], (stack, m, k, n, isa, dots))


@pytest.mark.parametrize("form", [float32, float16, bfloat16], ids=str)
@pytest.mark.parametrize("activation", ["", "relu", "gelu", "silu", "tanh", "sigmoid"])
def test_bias_and_activation(form: Format, activation: str) -> None:
    from ulpgrad.kernels.matmul.spec import linear_reference

    rng = np.random.default_rng(2)
    for m, k, n in ((1, 40, 33), (20, 40, 1), (31, 1100, 50)):
        (x, x_exact), (w, w_exact), (bias, bias_exact) = (draw(rng, form, s) for s in ((m, k), (n, k), (n,)))
        want = linear_reference(x_exact, w_exact, bias_exact, activation=activation or None)
        size = abs(x_exact) @ abs(w_exact.T) + abs(bias_exact) + 1
        for isa, dots in ways(form):
            got = form.exact(native.module().linear(x, w, bias, activation, isa, dots))
            assert (abs(got - want) <= 1.01 * UNIT[form] * abs(want) + 2.0**-21 * size).all(), (m, k, n, isa, dots)


def test_bfloat16_products_of_tiny_numbers() -> None:
    """Subnormal operands, and products that only float32's subnormal numbers hold: VDPBF16PS would flush them."""
    tiny = 2.0 ** np.arange(-133, -50, dtype=np.float64)
    for isa, dots in ways(bfloat16):
        for factor in (1.0, 2.0**-10, 2.0**40):
            a, b = bfloat16.encode(np.outer(tiny, [1.0, -0.5, 0.25])), bfloat16.encode(np.full((3, 20), factor))
            got = bfloat16.exact(native.module().matmul(a, b, isa, dots))
            want = bfloat16.exact(bfloat16.encode(bfloat16.exact(a) @ bfloat16.exact(b)))
            assert np.array_equal(got, want), (isa, dots, factor)
        a = bfloat16.encode(np.full((20, 700), 2.0**-65))
        got = native.module().matmul(a, a.T, isa, dots)
        assert np.array_equal(bfloat16.exact(got), bfloat16.exact(bfloat16.encode(np.full((20, 20), 700 * 2.0**-130))))


@pytest.mark.parametrize("form", [float32, float64, float16, bfloat16], ids=str)
def test_any_number_of_threads(form: Format) -> None:
    rng = np.random.default_rng(3)
    before = ug.get_num_threads()
    shapes = ((130, 1500, 301), (1, 700, 3000), (3000, 700, 1), (5, 700, 900), (900, 700, 5), (600, 2100, 90))
    for (m, k, n), right in itertools.product(shapes, (False, True)):
        a, b = draw(rng, form, (m, k))[0], draw(rng, form, (k, n), right)[0]
        for isa, dots in ways(form):
            results = []
            for threads in (1, 2, 3):
                ug.set_num_threads(threads)
                results.append(native.module().matmul(a, b, isa, dots))
            ug.set_num_threads(before)
            assert all(np.array_equal(results[0], r) for r in results[1:]), (m, k, n, right, isa, dots)


def test_refuses_mixed_types() -> None:
    with pytest.raises(TypeError, match="b: expected float32 values, got float16"):
        native.module().matmul(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float16))
