"""Integer products against Python's integers: every instruction set, type, extreme, width, rounding, overflow and chunk."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import AccumulatorError, ArgumentError, FormatError, KernelError, ShapeError, UlpgradError
from ulpgrad.formats import as_format
from ulpgrad.kernels import native, registry
from ulpgrad.kernels.integer import spec
from ulpgrad.kernels.integer.accumulator import OVERFLOWS, ROUNDINGS, Accumulator, as_accumulator
from ulpgrad.kernels.registry import Request

EXACT = "cpu/numpy-exact"  # takes the accumulators of 32 and 64 bits only
RUNGS = [r.name for r in registry.ladder(spec.integer_conv2d) if r.name != EXACT]  # those that take everything
TEACHING = [r.name for r in registry.ladder(spec.integer_matmul) if r.name not in (*RUNGS, EXACT)]
TYPES = (np.int8, np.uint8, np.int16)
CONV: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}


def run(op: Any, rung: str, *arrays: np.ndarray, **params: Any) -> np.ndarray:
    """The op on one rung; skips where the machine has not got what the rung needs."""
    reason = next(r for r in registry.ladder(op) if r.name == rung).unavailable()
    if reason:
        pytest.skip(reason)
    with dispatch.use(**{op.name: rung}):
        return np.asarray(dispatch.call(op, tuple(as_format(a.dtype) for a in arrays), arrays, params)[0])


def takes(op: Any, rung: str, *arrays: np.ndarray, **params: Any) -> bool:
    request = Request(op, "cpu", tuple(as_format(a.dtype) for a in arrays), arrays, params)
    return next(r for r in registry.ladder(op) if r.name == rung).refusal(request) is None


def values(rng: np.random.Generator, kind: str, dtype: Any, *shape: int) -> np.ndarray:
    """Codes of a type: at random, all of them its least, greatest or largest in magnitude, or small ones."""
    info = np.iinfo(dtype)
    if kind == "random":
        return rng.integers(info.min, info.max + 1, shape).astype(dtype)
    if kind == "small":
        return rng.integers(max(-9, info.min), 10, shape).astype(dtype)
    return np.full(shape, info.max if kind == "greatest" or info.min == 0 else info.min, dtype)


def rounded(x: int, shift: int, mode: str) -> int:
    """x / 2^shift to a whole number, by comparing the two neighbours."""
    if shift <= 0:
        return x * 2**-shift
    below, rest = divmod(x, 2**shift)
    if rest == 0:
        return below
    nearest = below + (2 * rest > 2**shift)
    even = below if below % 2 == 0 else below + 1
    outward = below if x < 0 else below + 1
    tie = 2 * rest == 2**shift
    return {
        "down": below,
        "up": below + 1,
        "toward_zero": below + 1 if x < 0 else below,
        "to_odd": below if below % 2 else below + 1,
        "nearest_even": even if tie else nearest,
        "nearest_away": outward if tie else nearest,
    }[mode]


def one(row: list[int], column: list[int], how: Accumulator) -> tuple[int, int | None]:
    """One result in Python's integers, and the first k of the first chunk that overflowed."""
    low, high, total, failed = -(2 ** (how.bits - 1)), 2 ** (how.bits - 1) - 1, 0, None
    for first in range(0, len(row), how.chunk):
        exact = sum(
            x * y for x, y in zip(row[first : first + how.chunk], column[first : first + how.chunk], strict=True)
        )
        more = rounded(exact, how.shift, how.rounding)
        for step in (0, 1):
            value = total + more if step else more
            if not low <= value <= high and failed is None:
                failed = first
            if how.overflow == "wrap":
                value = (value - low) % 2**how.bits + low
            more, total = (min(max(value, low), high), total) if not step else (more, min(max(value, low), high))
    return total, failed


def product(a: np.ndarray, b: np.ndarray, how: Any) -> tuple[np.ndarray, tuple[tuple[int, ...], int] | None]:
    """a @ b, and the place of the first overflow of an accumulator that raises."""
    chosen = as_accumulator(how)
    results = [[one(row, column, chosen) for column in b.T.tolist()] for row in a.tolist()]
    failed = [((i, j), k) for i, line in enumerate(results) for j, (_, k) in enumerate(line) if k is not None]
    exact = np.array([[value for value, _ in line] for line in results], object)
    return exact.reshape(len(a), b.shape[1]), failed[0] if failed and chosen.overflow == "raise" else None


def same(op: Any, rung: str, arrays: tuple[np.ndarray, ...], expected: tuple[np.ndarray, Any], **params: Any) -> None:
    """The rung gives these bits, in the right type, or the error that names this place."""
    if not takes(op, rung, *arrays, **params) and rung == "cpu/numba-columns":
        return
    exact, failed = expected
    if failed is not None:
        with pytest.raises(AccumulatorError) as error:
            run(op, rung, *arrays, **params)
        assert (error.value.index, error.value.k) == failed
        return
    got = run(op, rung, *arrays, **params)
    assert got.dtype == spec.result_dtype(params["accumulator"])
    assert (got.astype(object) == exact).all()


def plain_cases() -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    rng = np.random.default_rng(2)
    kinds = itertools.cycle(itertools.product(("random", "least", "greatest"), repeat=2))
    shapes = itertools.cycle([(15, 37, 35), (3, 600, 17), (29, 5, 33), (1, 300, 70), (14, 64, 1), (2, 1, 32)])
    for left, right, how, _ in itertools.product(TYPES, TYPES, (None, "int64"), range(3)):
        (first, second), (m, k, n) = next(kinds), next(shapes)
        yield values(rng, first, left, m, k), values(rng, second, right, k, n), how


@functools.cache
def plain_expected() -> list[tuple[np.ndarray, np.ndarray, Any, tuple[np.ndarray, None]]]:
    """Sums in Python's integers, then cut to 32 bits."""
    found = []
    for a, b, how in plain_cases():
        exact = np.matmul(a.astype(object), b.astype(object))
        found.append((a, b, how, ((exact + 2**31) % 2**32 - 2**31 if how is None else exact, None)))
    return found


@pytest.mark.parametrize("rung", [*RUNGS, EXACT])
def test_products_of_every_type_and_extreme(rung: str) -> None:
    for a, b, how, expected in plain_expected():
        for left, right in ((a, b), (np.asfortranarray(a), np.asfortranarray(b)), (a[::-1], b[:, ::-1])):
            exact = expected[0][::-1, ::-1] if left.strides[0] < 0 else expected[0]
            same(spec.integer_matmul, rung, (left, right), (exact, None), accumulator=how)


@pytest.mark.parametrize("rung", TEACHING)
def test_the_staircase(rung: str) -> None:
    """Rungs that take bytes only: edges of tiles, extremes, stacks, strides, sums that wrap; they refuse the rest."""
    rng = np.random.default_rng(7)
    for kind, (m, k, n) in itertools.product(
        ("random", "least", "greatest"), ((1, 1, 1), (7, 5, 33), (13, 64, 70), (5, 2, 7))
    ):
        a, b = values(rng, kind, np.int8, 2, m, k), values(rng, kind, np.int8, k, n)
        expected = np.matmul(a.astype(np.int64), b.astype(np.int64))
        for left, right in ((a, b), (a[:, ::-1][:, ::-1], np.asfortranarray(b))):
            assert (run(spec.integer_matmul, rung, left, right, accumulator=None) == expected).all()
    with pytest.raises(KernelError, match="teaches sums of 32 bits that wrap"):
        run(spec.integer_matmul, rung, X, W, accumulator="int64")


@pytest.mark.parametrize("rung", ["cpu/native-vnni", "cpu/native-avx512", "cpu/native-avx2", "cpu/native-portable"])
def test_thin_products(rung: str) -> None:
    """Few rows or columns, whose other side passes by as it stands, in every mixture of types and layout."""
    rng = np.random.default_rng(8)
    for left, right, few, k in itertools.product(TYPES, TYPES, (1, 2, 3, 4), (200, 513)):
        a, b = values(rng, "random", left, few, k), values(rng, "random", right, k, 9)
        expected = np.matmul(a.astype(np.int64), b.astype(np.int64)).astype(np.int32)
        assert (run(spec.integer_matmul, rung, a, np.asfortranarray(b), accumulator=None) == expected).all()
        assert (run(spec.integer_matmul, rung, np.ascontiguousarray(b.T), a.T, accumulator=None) == expected.T).all()


WIDTHS = (2, 8, 11, 12, 16, 20, 24, 31, 32, 33, 40, 48, 63, 64)
SHIFTS = (0, 8, 1, 15, 4, 0, 20, -1, 8, 31, 2, -20, 8, 40, 63, -40)


@functools.cache
def chosen_expected() -> list[tuple[np.ndarray, np.ndarray, Accumulator, Any]]:
    rng = np.random.default_rng(3)
    found = []
    modes = itertools.product(ROUNDINGS, OVERFLOWS, (1, 3, 64, 10**6))
    for i, (rounding, overflow, chunk) in enumerate(itertools.chain(*itertools.tee(modes, 2))):
        how = Accumulator(WIDTHS[i % 14], SHIFTS[i * 5 % 16], overflow, rounding, chunk)
        kinds = ("random", "small", "random", "least", "greatest")
        left, right = TYPES[i % 3], TYPES[i // 3 % 3]
        m, k, n = ((3, 67, 9), (5, 70, 2), (1, 65, 35), (2, 130, 3))[i % 4]
        a, b = values(rng, kinds[i % 5], left, m, k), values(rng, kinds[i * 2 % 5], right, k, n)
        found.append((a, b, how, product(a, b, how)))
    return found


@pytest.mark.parametrize("rung", [r for r in RUNGS if r != "cpu/reference"])
def test_chosen_accumulators(rung: str) -> None:
    for a, b, how, expected in chosen_expected():
        try:
            same(spec.integer_matmul, rung, (a, b), expected, accumulator=how)
        except AssertionError as error:
            raise AssertionError(f"{a.dtype}{a.shape} @ {b.dtype}{b.shape} in {how}: {error}") from None


def test_the_cases_reach_every_overflow() -> None:
    """Among them are raising accumulators that do and do not overflow, and wrapping ones that do."""
    kinds = {(how.overflow, failed is not None) for _, _, how, (_, failed) in chosen_expected()}
    assert {("raise", True), ("raise", False), ("saturate", False), ("wrap", False)} <= kinds
    assert any(
        how.overflow == "wrap" and (exact != product(a, b, Accumulator(64, how.shift, "wrap", how.rounding, how.chunk))[0]).any()
        for a, b, how, (exact, _) in chosen_expected()
    )  # fmt: skip


@pytest.mark.parametrize("rung", [r for r in RUNGS if r.startswith("cpu/n")])
@pytest.mark.parametrize(
    "how", [Accumulator(24, 8), Accumulator(24, 8, chunk=64), Accumulator(40, 1, chunk=300), "int64", None]
)
def test_whole_blocks(rung: str, how: Any) -> None:
    """Sizes of several blocks and threads, against NumPy's 64-bit integers."""
    rng = np.random.default_rng(4)
    a, b = values(rng, "random", np.int16, 45, 1100), values(rng, "random", np.int16, 1100, 70)
    chosen = as_accumulator(how)
    total = np.zeros((45, 70), np.int64)
    low, high = -(2 ** (chosen.bits - 1)), 2 ** (chosen.bits - 1) - 1
    for p in range(0, 1100, chosen.chunk):
        exact = a[:, p : p + chosen.chunk].astype(np.int64) @ b[p : p + chosen.chunk].astype(np.int64)
        if chosen.shift:
            half, odd = 2 ** (chosen.shift - 1), exact >> chosen.shift & 1
            exact = (exact + half - 1 + odd) >> chosen.shift
        total += exact if chosen.overflow == "wrap" else np.clip(exact, low, high)
        total = total if chosen.overflow == "wrap" else np.clip(total, low, high)
    expected = total.astype(spec.result_dtype(how))
    before = ug.get_num_threads()
    try:
        for threads in (1, 2, 3):
            ug.set_num_threads(threads)
            assert run(spec.integer_matmul, rung, a, b, accumulator=how).tobytes() == expected.tobytes()
            assert run(spec.integer_matmul, rung, b.T, a.T, accumulator=how).tobytes() == expected.T.tobytes()
    finally:
        ug.set_num_threads(before)


@functools.cache
def products_that_grow() -> tuple[np.ndarray, np.ndarray]:
    """Terms of which the first stay far from every limit and later ones do not; some ties, some of the largest codes."""
    rng = np.random.default_rng(6)
    a, b = values(rng, "random", np.int16, 11, 301), values(rng, "random", np.int16, 301, 37)
    a[:, :150] >>= 6
    a[5:, 200:] >>= 9
    a[:, ::3] &= -64
    a[3, 170:180], b[170:180, 5] = -32768, -32768
    return a, b


@pytest.mark.parametrize("rung", [r for r in RUNGS if r.startswith("cpu/n")])
@pytest.mark.parametrize("rounding", ["nearest_even", "down", "up"])
@pytest.mark.parametrize("shift", [0, 3, 8, 13])
def test_limits_that_only_some_sums_meet(rung: str, rounding: str, shift: int) -> None:
    """Each product rounded by itself: sums that are far from the limits, near them, and at them, in one call."""
    a, b = products_that_grow()
    unit = 2**shift
    for bits, overflow in ((24, "saturate"), (31, "saturate"), (20, "wrap")):
        low, high, total = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, np.zeros((11, 37), np.int64)
        for p in range(301):
            exact = np.multiply.outer(a[:, p].astype(np.int64), b[p].astype(np.int64))
            half = {"nearest_even": (unit - 1) // 2 + (exact >> shift & 1) * (shift > 0), "down": 0, "up": unit - 1}[
                rounding
            ]
            more = (exact + half) >> shift
            total += more if overflow == "wrap" else np.clip(more, low, high)
            total = (total - low) % 2**bits + low if overflow == "wrap" else np.clip(total, low, high)
        how = Accumulator(bits, shift, overflow, rounding, chunk=1)
        assert (run(spec.integer_matmul, rung, a, b, accumulator=how) == total).all(), how


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("chunk", [1, 16, 40])
def test_the_first_overflow_is_named(rung: str, chunk: int) -> None:
    """First in the order of results, whichever thread or tile meets one; then the chunk."""
    a, b = np.ones((2, 40, 80), np.int8), np.ones((80, 50), np.int8)
    a[1, 7, 30:], b[30:, 41] = 100, 100
    a[1, 20:] = 127
    how = Accumulator(18, 0, "raise", chunk=chunk)
    with pytest.raises(AccumulatorError, match=r"result \(1, 7, 41\) leaves its 18-bit accumulator") as error:
        run(spec.integer_matmul, rung, a, b, accumulator=how)
    step = 30 + 131072 // 10000  # where the sum passes 2^17
    assert error.value.index == (1, 7, 41)
    assert error.value.k == step // chunk * chunk
    assert isinstance(error.value, (OverflowError, UlpgradError))


def test_apytypes_rounds_the_same() -> None:
    """Every product rounded to the accumulator's fraction, by another library. Its sums pass the width that it was given
    (0.5.1), so it is no oracle for overflow."""
    apytypes = pytest.importorskip("apytypes")
    rng = np.random.default_rng(5)
    a, b = (rng.integers(-3000, 3000, shape).astype(np.int16) for shape in ((9, 40), (40, 7)))
    quantization, limit = apytypes.QuantizationMode, apytypes.OverflowMode.SAT
    modes = {"nearest_even": quantization.TIES_EVEN, "nearest_away": quantization.TIES_AWAY, "down": quantization.TO_NEG,
             "up": quantization.TO_POS, "toward_zero": quantization.TO_ZERO}  # fmt: skip
    for fraction, mode in itertools.product((2, 6, 8, 13), modes):
        left, right = (apytypes.APyFixedArray(x, int_bits=8, frac_bits=8) for x in (a, b))
        with apytypes.APyFixedAccumulatorContext(
            int_bits=30 - fraction, frac_bits=fraction, quantization=modes[mode], overflow=limit
        ):
            expected = (left @ right).to_numpy() * 2.0**fraction
        params = {"accumulator": Accumulator(30, 16 - fraction, "saturate", mode)}
        got = dispatch.call(spec.integer_matmul, (ug.int16, ug.int16), (a, b), params)[0]
        assert (np.asarray(got) == expected).all(), params


def convolved(x: np.ndarray, weight: np.ndarray, how: Any, pad: int, **geometry: Any) -> tuple[np.ndarray, Any]:
    """Convolution window by window."""
    (top, left), (down, right), (tall, wide) = geometry["padding"], geometry["stride"], geometry["dilation"]
    per, groups = weight.shape[1], geometry["groups"]
    rows = (x.shape[2] + 2 * top - tall * (weight.shape[2] - 1) - 1) // down + 1
    columns = (x.shape[3] + 2 * left - wide * (weight.shape[3] - 1) - 1) // right + 1
    out = np.empty((len(x), len(weight), rows, columns), object)
    failed = None
    for n, o, i, j in np.ndindex(out.shape):
        first = o // (len(weight) // groups) * per
        taps = [(first + c, i * down + y * tall - top, j * right + z * wide - left)
                for c, y, z in np.ndindex(weight.shape[1:])]  # fmt: skip
        seen = [int(x[n, c, y, z]) if 0 <= y < x.shape[2] and 0 <= z < x.shape[3] else pad for c, y, z in taps]
        out[n, o, i, j], k = one(seen, weight[o].ravel().tolist(), as_accumulator(how))
        failed = failed or (((n, o, i, j), k) if k is not None and as_accumulator(how).overflow == "raise" else None)
    return out, failed


@functools.cache
def conv_expected() -> list[tuple[np.ndarray, np.ndarray, dict[str, Any], Any]]:
    rng = np.random.default_rng(6)
    geometries = [
        ((2, 3, 5, 6), (4, 3, 3, 3), CONV, -3),
        ((1, 4, 6, 7), (6, 2, 3, 2), {"stride": (2, 3), "padding": (1, 2), "dilation": (1, 2), "groups": 2}, 100),
        ((1, 3, 4, 4), (3, 1, 3, 3), {**CONV, "groups": 3}, 0),
        ((2, 5, 3, 4), (2, 5, 1, 1), {**CONV, "padding": (0, 0)}, 0),
        ((1, 2, 3, 9), (3, 2, 1, 1), {**CONV, "stride": (1, 2)}, 5),
        ((3, 9, 4, 5), (4, 9, 3, 2), CONV, -7),
        ((2, 16, 5, 4), (4, 8, 2, 3), {"stride": (2, 1), "padding": (1, 2), "dilation": (2, 1), "groups": 2}, 9),
    ]
    hows = [
        None,
        "int64",
        Accumulator(14, 6),
        Accumulator(20, 3, "wrap", "up", 5),
        Accumulator(12, 2, "raise", "to_odd", 2),
    ]
    found = []
    for i, ((x, weight, geometry, pad), how) in enumerate(itertools.product(geometries, hows)):
        left, right = TYPES[i % 3], TYPES[i * 2 % 3]
        images, filters = values(rng, "random", left, *x), values(rng, "random", right, *weight)
        pad = max(pad, np.iinfo(left).min)
        found.append((images, filters, {**geometry, "accumulator": how, "pad": pad},
                      convolved(images, filters, how, pad, **geometry)))  # fmt: skip
    return found


@pytest.mark.parametrize("rung", RUNGS)
def test_convolution(rung: str) -> None:
    for x, weight, params, expected in conv_expected():
        for images in (
            x,
            np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
            x[:, :, :, ::-1][..., ::-1],
        ):
            same(spec.integer_conv2d, rung, (images, weight), expected, **params)


X, W = np.ones((2, 3), np.int8), np.ones((3, 4), np.int8)


@pytest.mark.parametrize(
    ("arrays", "how", "error", "message"),
    [
        ((X, W[:2]), None, ShapeError, r"inner sizes differ: \(2, 3\) @ \(2, 4\): 3 != 2"),
        ((X[0], W), None, ShapeError, "two matrices"),
        ((np.ones((2, 2, 3), np.int8), np.ones((3, 3, 4), np.int8)), None, ShapeError, "do not broadcast"),
        ((X.astype(np.int32), W), None, FormatError, "a is int32: expected int8, uint8 or int16"),
        ((X, W), "int16", ArgumentError, "expected None, 'int32', 'int64' or an Accumulator"),
    ],
)
def test_matmul_refuses(arrays: Any, how: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dispatch.call(spec.integer_matmul, tuple(as_format(a.dtype) for a in arrays), arrays, {"accumulator": how})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 1}, "bits=1: expected a whole number from 2 to 64"),
        ({"bits": 65}, "bits=65"),
        ({"bits": 16.0}, "bits=16.0"),
        ({"bits": 16, "shift": 64}, "shift=64: expected a whole number from -63 to 63"),
        ({"bits": 16, "chunk": 0}, "chunk=0"),
        ({"bits": 16, "overflow": "clip"}, "overflow='clip': expected one of saturate, wrap, raise"),
        ({"bits": 16, "rounding": "stochastic"}, "rounding='stochastic': expected one of"),
    ],
)
def test_accumulator_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Accumulator(**settings)


IMAGE, FILTER = np.ones((1, 2, 4, 4), np.uint8), np.ones((2, 2, 3, 3), np.int8)


@pytest.mark.parametrize(
    ("arrays", "params", "error", "message"),
    [
        ((IMAGE, FILTER), {"pad": -1}, ArgumentError, "pad=-1: expected a whole number that uint8 holds"),
        ((IMAGE, FILTER[:, :1]), {}, ShapeError, "channels differ"),
        ((IMAGE, FILTER), {"groups": 0}, ArgumentError, "groups=0"),
        ((IMAGE[0], FILTER), {}, ShapeError, "expected 4 axes"),
        ((IMAGE, FILTER[0]), {}, ShapeError, "expected 4 axes"),
        ((IMAGE[:, :, :0], FILTER), {"padding": (0, 0)}, ShapeError, "more than the padded"),
        ((IMAGE.astype("f4"), FILTER), {}, FormatError, "x is float32"),
    ],
)
def test_convolution_refuses(arrays: Any, params: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dispatch.call(spec.integer_conv2d, tuple(as_format(a.dtype) for a in arrays), arrays, {**CONV, **params})


@pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")
@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("integer_matmul", (X, W[:2]), ValueError),
        ("integer_matmul", (X[0], W), ValueError),
        ("integer_matmul", (X.astype("f4"), W), TypeError),
        ("integer_matmul", (X.astype(">i2"), W), TypeError),
        ("integer_matmul", (X, W.astype("O")), TypeError),
        ("integer_matmul", (np.ones((2, 2, 3), "i1"), np.ones((3, 3, 4), "i1")), ValueError),
        ("integer_matmul", (X, W, 1), ValueError),
        ("integer_matmul", (X, W, 65), ValueError),
        ("integer_matmul", (X, W, 16, 64), ValueError),
        ("integer_matmul", (X, W, 16, 0, "clip"), ValueError),
        ("integer_matmul", (X, W, 16, 0, "wrap", "nearest"), ValueError),
        ("integer_matmul", (X, W, 16, 0, "wrap", "up", -1), ValueError),
        ("integer_matmul", (X, W, 16, 0, "wrap", "up", 1, "avx1024"), ValueError),
        ("integer_conv2d", (IMAGE, FILTER[:, :1], (1, 1), (0, 0), (1, 1), 1), ValueError),
        ("integer_conv2d", (IMAGE, FILTER, (0, 1), (0, 0), (1, 1), 1), ValueError),
        ("integer_conv2d", (IMAGE, FILTER, (1, 1), (-1, 0), (1, 1), 1), ValueError),
        ("integer_conv2d", (IMAGE, FILTER, (1, 1), (0, 0), (2**40, 1), 1), ValueError),
        ("integer_conv2d", (IMAGE, FILTER, (1, 1), (0, 0), (4, 4), 1), ValueError),
        ("integer_conv2d", (IMAGE, FILTER, (1, 1), (0, 0), (1, 1), 0), ValueError),
        ("integer_conv2d", (IMAGE, FILTER, (1, 1), (1, 1), (1, 1), 1, 256), ValueError),
        ("integer_conv2d", (IMAGE[0], FILTER, (1, 1), (1, 1), (1, 1), 1), ValueError),
        ("integer_conv2d", (IMAGE, FILTER.astype("i4"), (1, 1), (1, 1), (1, 1), 1), TypeError),
        ("integer_columns", (IMAGE[0], (3, 3), (1, 1), (1, 1), (1, 1)), ValueError),
        ("integer_columns", (IMAGE, (3, 3), (1, 0), (1, 1), (1, 1)), ValueError),
        ("integer_columns", (IMAGE, (3, 3), (1, 1), (1, -1), (1, 1)), ValueError),
        ("integer_columns", (IMAGE, (7, 3), (1, 1), (1, 1), (1, 1)), ValueError),
        ("integer_columns", (IMAGE, (0, 3), (1, 1), (1, 1), (1, 1)), ValueError),
        ("integer_columns", (IMAGE, (3, 2**40), (1, 1), (1, 1), (1, 1)), ValueError),
        ("integer_columns", (IMAGE.astype("i4"), (3, 3), (1, 1), (1, 1), (1, 1)), TypeError),
    ],
)
def test_extension_refuses(name: str, arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        extension(name, arguments)


def extension(name: str, arguments: tuple[Any, ...]) -> Any:
    """The extension's function; of a product, its accumulator is chosen first."""
    if name == "integer_matmul":
        return native.module().integer_matmul_by(*arguments[2:])(*arguments[:2])
    return getattr(native.module(), name)(*arguments)


@pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")
def test_vnni_is_refused_where_it_is_not_allowed() -> None:
    code = """
import numpy as np
from ulpgrad import dispatch, formats
from ulpgrad.kernels import native
x = np.ones((2, 2), np.int8)
try:
    native.module().integer_matmul_by(isa="avx512_vnni")
except ValueError as error:
    print(error)
try:
    with dispatch.use(integer_matmul="cpu/native-vnni"):
        dispatch.call(dispatch.registry.find("integer_matmul"), (formats.int8,) * 2, (x, x), {})
except dispatch.registry.KernelError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "ULPGRAD_ISA": "avx2"}, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert "isa='avx512_vnni': this CPU, or ULPGRAD_ISA, does not allow it" in done.stdout
    assert "ULPGRAD_ISA=avx2 forbids avx512" in done.stdout


def test_a_refusal_says_what_is_missing() -> None:
    """Numba has nothing wider than 64 bits, and says so."""
    with pytest.raises(KernelError, match="64 bits do not hold every step"):
        run(spec.integer_matmul, "cpu/numba-columns", X, W, accumulator=Accumulator(64, -60))
