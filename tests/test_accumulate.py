"""Chosen accumulators: against exact fractions, against NumPy's own running sums, and for what they do to long sums."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import Float, as_format
from ulpgrad.kernels import native, registry
from ulpgrad.kernels.accumulate import spec
from ulpgrad.testing import gradcheck

FORMATS = (
    "e6m9",
    "float16",
    "bfloat16",
    "float8_e5m2",
    "float8_e4m3fn",
    "e3m2none",
    "e5m20",
    "e8m21",
    "e8m22",
    "float32",
)
RUNGS = [rung for rung in registry.ladder(spec.accumulate_matmul) if rung.unavailable() is None]
ISAS = [] if native.missing() else native.module().cpu_isas()


def nearest(value: Fraction, form: Float) -> float:
    """A value rounded to nearest even in a format, in whole numbers; beyond the largest, what IEEE 754 says."""
    if value == 0:
        return 0.0
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, form.min_exponent) - form.mantissa_bits)
    rounded = round(size / unit) * unit  # of a Fraction: to nearest even
    if rounded > Fraction(form.max):
        rounded = math.inf if form.inf_code is not None else math.nan if form.nan_code is not None else form.max
    return math.copysign(float(rounded), value)


def fraction_sum(terms: list[Fraction], form: Float, chunk: int) -> float:
    """The definition, one addition at a time, in exact fractions."""

    def add(total: float, term: Any) -> float:
        finite = math.isfinite(total) and math.isfinite(term)
        return nearest(Fraction(total) + Fraction(term), form) if finite else total + term

    chunk = chunk if chunk > 1 else len(terms)
    parts = []
    for begin in range(0, len(terms), chunk):
        part = 0.0
        for term in terms[begin : begin + chunk]:
            part = add(part, term)
        parts.append(part)
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    return total


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_products_against_fractions(name: str, rung: Any) -> None:
    """Every rung, operands with all their 24 bits, terms of very different sizes, ties that a far smaller bit breaks."""
    form, rng = as_format(name), np.random.default_rng(0)
    a = rng.standard_normal((3, 24)).astype(np.float32) * np.exp2(rng.integers(-12, 3, (3, 24))).astype(np.float32)
    b = rng.standard_normal((24, 5)).astype(np.float32)
    half, tiny = 2.0 ** -(form.mantissa_bits + 1), 2.0**-60
    a[0, :4], b[:4, 0], b[:4, 1] = 1, [1, half, 0, 0], [half, tiny, 1, 0]  # a tie alone, and a tie with more behind it
    a[1, :2], b[:2, 2] = 1, [1, half * (1 + 2.0**-20)]
    for chunk in (1, 5):
        with ug.use(accumulate_matmul=rung.name):
            y = ug.matmul(ug.asarray(a), ug.asarray(b), accumulate=ug.Accumulate(form, chunk)).numpy()
        for i in range(3):
            for j in range(5):
                terms = [Fraction(float(p)) * Fraction(float(q)) for p, q in zip(a[i], b[:, j], strict=True)]
                expected = fraction_sum(terms, form, chunk)
                assert y[i, j] == expected or (math.isnan(expected) and math.isnan(y[i, j])), (i, j, chunk)


def test_double_rounding_is_impossible_by_name() -> None:
    """1 + 2^-10 is a tie of 1-6-9 floats and goes to 1; 2^-70 more, which no float64 sum shows, and it must not."""
    form = as_format("e6m9")
    tie = np.array([[1.0, 2.0**-10]])
    for dtype in ("float32", "float64"):
        one = ug.asarray(tie, dtype=as_format(dtype))
        assert ug.matmul(one, ug.ones((2, 1), dtype=one.dtype), accumulate=form).item() == 1.0
        more = ug.asarray(np.array([[1.0], [1.0 + 2.0**-23]]), dtype=one.dtype)
        assert ug.matmul(one, more, accumulate=form).item() == 1.0 + 2.0**-9
    x = ug.asarray(
        [2.0**-39, 2.0**15 * (1 + 2.0**-10)], dtype=ug.float64
    )  # the accumulator breaks the tie of a large term
    assert ug.sum(x, accumulate=form).item() == 2.0**15 * (1 + 2.0**-9)
    assert ug.sum(x[1:], accumulate=form).item() == 2.0**15


def test_swallowing() -> None:
    """Wang et al. 2018, figure 3: 65,536 values of mean 1 and deviation 1. A 1-6-9 sum stalls at 4096, where half a unit in
    the last place is 4 and no term as large; with chunks of 64 it is off by 0.3 %."""
    spread = math.sqrt(3)
    x = np.random.default_rng(1612).uniform(1 - spread, 1 + spread, 65536).astype(np.float32)
    t = ug.asarray(x)
    assert round(x.astype(np.float64).sum()) == 65274
    assert ug.sum(t, accumulate=Float(6, 9)).item() == 4096
    assert ug.sum(t, accumulate=ug.Accumulate(Float(6, 9), chunk=64)).item() == 65472
    assert ug.sum(t, accumulate="float32").item() == np.cumsum(x)[-1]
    running = ug.cumulative_sum(t, accumulate="e6m9").numpy()
    assert running.max() == 4096
    assert (running[20000:] == 4096).all()
    stochastic = ug.Accumulate("e6m9", rounding="stochastic", generator=ug.Generator(1))
    assert abs(ug.sum(t, accumulate=stochastic).item() - 65274) < 0.05 * 65274


def test_float16_running_sums_are_numpys() -> None:
    """NumPy adds in float32 and rounds to float16, once, since float32 holds the sum of two of them well enough."""
    rng = np.random.default_rng(0)
    assert np.cumsum(np.ones(5000, np.float16))[-1] == 2048
    assert ug.cumulative_sum(ug.ones(5000, dtype=ug.float16), accumulate="float16")[-1].item() == 2048
    x = (rng.standard_normal((3, 4000)) * np.exp2(rng.integers(-20, 10, (3, 4000)))).astype(np.float16)
    assert np.array_equal(ug.cumulative_sum(ug.asarray(x), axis=1, accumulate="float16").numpy(), np.cumsum(x, axis=1))
    y = rng.standard_normal((300, 3)).astype(np.float32)
    assert np.array_equal(ug.cumulative_sum(ug.asarray(y), axis=0, accumulate="float32").numpy(), np.cumsum(y, axis=0))


def test_bfloat16_sums_are_those_of_ml_dtypes() -> None:
    x = np.random.default_rng(0).standard_normal(500).astype(ml_dtypes.bfloat16)
    total = ml_dtypes.bfloat16(0)
    for value in x:
        total = ml_dtypes.bfloat16(total + value)
    assert ug.sum(ug.asarray(x), accumulate="bfloat16").item() == float(total)


def test_overflow() -> None:
    x = ug.asarray([40000.0, 30000.0, -50000.0])
    assert ug.sum(x, accumulate="float16").item() == math.inf
    assert ug.sum(x, accumulate=ug.Accumulate("float16", overflow="saturate")).item() == 65504 - 50000
    assert math.isnan(ug.sum(ug.asarray([400.0, 200.0]), accumulate="float8_e4m3fn").item())
    assert ug.sum(ug.asarray([20.0, 20.0]), accumulate="float6_e3m2fn").item() == 28
    assert (
        ug.sum(ug.asarray([2.0**127, 2.0**127, -(2.0**127)]), accumulate="e8m7fn").item() == 2.0**127
    )  # beyond float32
    assert math.isnan(ug.sum(ug.asarray([math.inf, -math.inf]), accumulate="e6m9").item())


@pytest.fixture
def threads() -> Iterator[None]:
    before = ug.get_num_threads()
    yield
    ug.set_num_threads(before)


@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
def test_one_result_whatever_runs_it(rounding: str, threads: None) -> None:
    """Threads, rungs and instruction sets: the same bits."""
    rng = np.random.default_rng(0)
    a, b = (ug.asarray(rng.standard_normal(s).astype(np.float32)) for s in ((2, 70, 150), (2, 150, 140)))

    def product() -> np.ndarray:
        how = ug.Accumulate("e6m9", 16, rounding=rounding, generator=ug.Generator(5))
        return ug.matmul(a, b, accumulate=how).numpy()

    results = []
    for count in (1, 2):
        ug.set_num_threads(count)
        for rung in RUNGS:
            with ug.use(accumulate_matmul=rung.name):
                results.append(product())
    assert all(np.array_equal(results[0], r) for r in results[1:])


@pytest.mark.parametrize("isa", ISAS)
def test_instruction_sets_agree(isa: str) -> None:
    rng, infinity = np.random.default_rng(0), math.inf
    a = (rng.standard_normal((1, 33, 130)) * np.exp2(rng.integers(-30, 30, (1, 33, 130)))).astype(np.float32)
    b = rng.standard_normal((1, 130, 37)).astype(np.float32)
    run = native.module().accumulate_matmul
    wang, brain = (9, -30, 31, 2.0**31 * (2 - 2.0**-9), infinity), (7, -126, 127, ug.bfloat16.max, infinity)
    for form in (wang, brain, (10, -14, 15, 65504.0, 65504.0)):
        for random in ((0, 0, 0, 0), (24, 3, 2**64 - 5, 1)):
            for chunk in (7, 1000):
                assert np.array_equal(run(a, b, form, chunk, random, isa), run(a, b, form, chunk, random, "portable"))


def test_native_arguments_are_refused() -> None:
    if native.missing():
        pytest.skip(native.missing() or "")
    run, form, none = native.module().accumulate_matmul, (9, -30, 31, 2.0**31, math.inf), (0, 0, 0, 0)
    a = np.zeros((1, 2, 3), np.float32)
    for wrong in (lambda: run(a, a, form, 1, none), lambda: run(a, np.zeros((1, 3, 2)), form, 1, none),
                  lambda: run(a[0, 0], a, form, 1, none), lambda: run(a, a.transpose(0, 2, 1), form, 0, none),
                  lambda: run(a, a.transpose(0, 2, 1), (51, -30, 31, 1.0, 1.0), 1, none),
                  lambda: run(a, a.transpose(0, 2, 1), form, 1, (42, 0, 0, 0))):  # fmt: skip
        with pytest.raises((ValueError, TypeError)):
            wrong()


def test_stochastic_rounding_is_unbiased() -> None:
    """20,000 sums of 100 values 0.01 in e5m2, whose spacing at 1 is 0.25. Each addition is right in the mean to 2^-24 of a
    spacing, so the mean of the sums must lie within five standard errors of the exact sum. Power: an error is below 0.0025,
    so a bias of 0.025, a fortieth of the sum, lies ten errors off and is seen with more than 99.999 % probability."""
    x = ug.full((100, 20000), 0.01, dtype=ug.float32)
    how = ug.Accumulate("float8_e5m2", rounding="stochastic", generator=ug.Generator(3))
    sums = ug.sum(x, axis=0, accumulate=how).numpy().astype(np.float64)
    exact, error = float(x.numpy()[:, 0].astype(np.float64).sum()), sums.std() / math.sqrt(len(sums))
    assert error < 0.0025
    assert abs(sums.mean() - exact) < 5 * error
    assert ug.sum(x[:, :1], accumulate="float8_e5m2").item() < 0.2  # to nearest it stalls


def test_stochastic_rounding_repeats_and_moves_on() -> None:
    x = ug.asarray(np.random.default_rng(0).standard_normal((200, 50)).astype(np.float32))
    first, second = (ug.Accumulate("e6m9", rounding="stochastic", generator=g) for g in [ug.Generator(1)] * 2)
    a, b = ug.sum(x, axis=0, accumulate=first).numpy(), ug.sum(x, axis=0, accumulate=second).numpy()
    assert not np.array_equal(a, b)  # one generator: the next words
    again = ug.Accumulate("e6m9", rounding="stochastic", generator=ug.Generator(1))
    assert np.array_equal(a, ug.sum(x, axis=0, accumulate=again).numpy())
    ug.manual_seed(0)
    c = ug.sum(x, axis=0, accumulate=ug.Accumulate("e6m9", rounding="stochastic")).numpy()
    ug.manual_seed(0)
    assert np.array_equal(c, ug.sum(x, axis=0, accumulate=ug.Accumulate("e6m9", rounding="stochastic")).numpy())


def normal(*shape: int, dtype: Any = ug.float32, grad: bool = True) -> ug.Tensor:
    x = ug.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), dtype=dtype)
    return x.requires_grad_() if grad else x


def test_gradients_are_products_in_the_same_accumulator() -> None:
    how = ug.Accumulate("e4m3", 4)
    a, b, g = normal(5, 9), normal(9, 7), normal(5, 7, grad=False)
    ug.matmul(a, b, accumulate=how).backward(g)
    plain_a, plain_b = a.detach(), b.detach()
    assert np.array_equal(a.grad.numpy(), ug.matmul(g, plain_b.T, accumulate=how).numpy())
    assert np.array_equal(b.grad.numpy(), ug.matmul(plain_a.T, g, accumulate=how).numpy())
    assert not np.array_equal(a.grad.numpy(), (g @ plain_b.T).numpy())

    for backward, expected in ((False, g @ plain_b.T), ("bfloat16", ug.matmul(g, plain_b.T, accumulate="bfloat16"))):
        a.grad = None
        ug.matmul(a, b, accumulate=how, accumulate_backward=backward).backward(g)
        assert np.array_equal(a.grad.numpy(), expected.numpy())


def test_gradient_of_a_shared_matrix_is_one_long_sum() -> None:
    x, w, g = normal(4, 6, 5), normal(3, 5), normal(4, 6, 3, grad=False)
    ug.linear(x, w, accumulate="e5m2").backward(g)
    rows = ug.reshape(g, (24, 3)).T
    expected = ug.matmul(rows, ug.reshape(x.detach(), (24, 5)), accumulate="e5m2")
    assert np.array_equal(w.grad.numpy(), expected.numpy())


def test_stochastic_gradients_have_words_of_their_own_and_repeat() -> None:
    def grads() -> tuple[np.ndarray, ...]:
        a, b = normal(6, 6), normal(6, 6)
        how = ug.Accumulate("e5m2", rounding="stochastic", generator=ug.Generator(9))
        y = ug.matmul(a, b, accumulate=how)
        y.backward(ug.ones((6, 6)))
        return y.detach().numpy(), a.grad.numpy(), b.grad.numpy()

    assert all(np.array_equal(x, y) for x, y in zip(grads(), grads(), strict=True))


@pytest.mark.parametrize("order", [1, 2])
def test_estimator_is_the_exact_functions_gradient(order: int) -> None:
    """In a float64 accumulator nothing is rounded, and rules can be held against differences."""
    a, b = normal(3, 4, dtype=ug.float64), normal(2, 4, 3, dtype=ug.float64)
    x, w, bias = (normal(*s, dtype=ug.float64) for s in ((2, 4, 5, 5), (2, 2, 3, 2), (2,)))
    wide: Any = {"accumulate": ug.Accumulate("float64", 2)}
    gradcheck(lambda a, b: ug.matmul(b, a, **wide), [a, b], order=order)
    gradcheck(lambda a, b: ug.matmul(b, a, accumulate="float64", accumulate_backward=False), [a, b], order=order)
    gradcheck(lambda a, b: ug.linear(b, ug.matrix_transpose(a), ug.sum(a, axis=0), "tanh", **wide), [a, b], order=order)
    gradcheck(lambda a, b: ug.vecdot(ug.matrix_transpose(a), b, **wide), [a, b], order=order)
    gradcheck(lambda a, b: ug.tensordot(a, b, axes=((0, 1), (2, 1)), **wide), [a, b], order=order)
    gradcheck(lambda a: ug.sum(a * a, axis=(0, 2), **wide), [b], order=order)
    gradcheck(lambda a: ug.mean(a * a, axis=1, keepdims=True, **wide), [b], order=order)
    gradcheck(lambda a: ug.cumulative_sum(a * a, axis=1, include_initial=True, accumulate="float64"), [a], order=order)
    gradcheck(lambda x, w, bias: ug.conv2d(x, w, bias, 2, (1, 0), (2, 1), 2, **wide), [x, w, bias], order=order)


def test_conv2d_sums_in_the_accumulator() -> None:
    """One output pixel is one sum over (c, kh, kw); the weight's gradient one over (n, oh, ow)."""
    x, w, g = normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(2, 4, 3, 3, grad=False)
    how = ug.Accumulate("e5m2", 4)
    y = ug.conv2d(x, w, accumulate=how)
    patch = ug.reshape(x.detach()[1, :, 1:4, 2:5], (27,))
    expected = ug.vecdot(patch, ug.reshape(w.detach()[3], (27,)), accumulate=how)
    assert y[1, 3, 1, 2].item() == expected.item()
    y.backward(g)
    seen = ug.reshape(x.detach()[:, 2, 1:4, 0:3], (18,))
    expected = ug.vecdot(ug.reshape(g[:, 1], (18,)), seen, accumulate=how)
    assert w.grad[1, 2, 1, 0].item() == expected.item()


def test_results_have_the_operands_format() -> None:
    half, single = ug.ones((2, 3), dtype=ug.bfloat16), ug.ones((3, 2))
    assert ug.matmul(half, ug.matrix_transpose(half), accumulate="float32").dtype is ug.bfloat16
    assert ug.matmul(half, single, accumulate="e6m9").dtype is ug.float32
    assert ug.sum(half, accumulate="e6m9", dtype=ug.float32).dtype is ug.float32
    assert ug.mean(ug.full((4096,), 30.0, dtype=ug.float16), accumulate="float32").item() == 30.0
    blocks, plain = normal(2, 32, grad=False).to("mxfp8_e4m3"), normal(32, 3, grad=False)
    y, expected = (ug.matmul(t, plain, accumulate="e6m9") for t in (blocks, blocks.to(ug.float32)))
    assert np.array_equal(y.numpy(), expected.numpy())
    with ug.autocast(ug.bfloat16):
        assert ug.matmul(single, ug.matrix_transpose(single), accumulate="e6m9").dtype is ug.bfloat16


def test_errors_teach() -> None:
    x = ug.ones((2, 3))
    for given, error in (
        (Float(8, 0, specials="fnu"), FormatError),
        ("int8", FormatError),
        ("e99m1", FormatError),
        (3, ArgumentError),
    ):
        with pytest.raises(error):
            ug.sum(x, accumulate=given)
    for wrong in ({"chunk": 0}, {"chunk": 2.0}, {"rounding": "up"}, {"overflow": "wrap"}, {"generator": 1},
                  {"rounding": "stochastic", "random_bits": 33}):  # fmt: skip
        with pytest.raises(ArgumentError):
            ug.Accumulate("e6m9", **wrong)
    with pytest.raises(ArgumentError):
        ug.Accumulate("float64", rounding="stochastic")
    with pytest.raises(ArgumentError, match="chunk"):
        ug.cumulative_sum(x, axis=0, accumulate=ug.Accumulate("e6m9", 2))
    with pytest.raises(FormatError, match=r"q3\.4.*ulpgrad\.fixed"):
        ug.matmul(x.to("q3.4"), x.to("q3.4"), accumulate="e6m9")
    with pytest.raises(FormatError, match="int64"):
        ug.sum(ug.ones(3, dtype=ug.int64), accumulate="e6m9")
    with pytest.raises(ShapeError, match="inner sizes differ"):
        ug.matmul(x, x, accumulate="e6m9")
    for call in (
        lambda: ug.matmul(x, x.T, accumulate_backward="e6m9"),
        lambda: ug.conv2d(x, x, accumulate_backward="e6m9"),
    ):
        with pytest.raises((ArgumentError, ShapeError)):
            call()
