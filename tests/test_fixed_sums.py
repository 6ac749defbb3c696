"""Sums, products of matrices, convolutions and pooling of fixed-point tensors, against Python's integers."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import ulpgrad as ug
from ulpgrad import fixed
from ulpgrad.errors import FormatError
from ulpgrad.fixed import Accumulator, oracle
from ulpgrad.formats import ROUNDINGS, Fixed, Q

settings.register_profile("sums", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sums")

STEADY = [mode for mode in ROUNDINGS if mode != "stochastic"]


@st.composite
def forms(draw: st.DrawFn, widest: int = 64) -> Fixed:
    bits, signed = draw(st.integers(2, widest)), draw(st.booleans())
    n = draw(st.integers(-4, bits + 4))
    return Q(bits - signed - n, n, signed)


@st.composite
def rules(draw: st.DrawFn, result: Any = None) -> dict[str, Any]:
    return {
        "result": result or draw(forms()),
        "rounding": draw(st.sampled_from(STEADY)),
        "overflow": draw(st.sampled_from(["saturate", "wrap"])),
    }


def drawn(form: Fixed, shape: tuple[int, ...], seed: int) -> ug.Tensor:
    """A tensor of random codes, of which some are the largest and the smallest."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    edges = [form.min_code, form.max_code]
    values = [
        edges[int(rng.integers(2))]
        if rng.random() < 0.3
        else int(rng.integers(0, 2**62)) % (1 << form.bits) + form.min_code
        for _ in range(size)
    ]
    return ug.Tensor(np.array(values, dtype=form.storage).reshape(shape), form)


def exact(x: ug.Tensor) -> np.ndarray:
    """Values as fractions (dtype object)."""
    form = x.dtype
    assert isinstance(form, Fixed)
    flat = [oracle.value(int(v), form) for v in x.storage.reshape(-1)]
    out = np.empty(len(flat), object)
    out[:] = flat
    return out.reshape(x.shape)


def same(got: ug.Tensor, want: np.ndarray, rule: dict[str, Any]) -> None:
    form = got.dtype
    assert isinstance(form, Fixed)
    mode = rule.get("rounding", "nearest_even"), rule.get("overflow", "saturate")
    codes = [oracle.code(Fraction(v), form, *mode) for v in np.asarray(want, object).reshape(-1)]
    assert got.shape == np.shape(want)
    assert [int(v) for v in got.storage.reshape(-1)] == codes


@given(form=forms(), rule=rules(), axis=st.sampled_from([None, 0, 1, (0, 2), -1]), seed=st.integers(0, 99))
def test_sum_and_mean(form: Fixed, rule: dict[str, Any], axis: Any, seed: int) -> None:
    x = drawn(form, (2, 3, 4), seed)
    values = exact(x)
    axes = tuple(range(3)) if axis is None else axis
    same(fixed.sum(x, axis=axis, **rule), np.sum(values, axis=axes), rule)
    count = np.prod([values.shape[a] for a in np.atleast_1d(axes)])
    same(fixed.mean(x, axis=axis, keepdims=True, **rule), np.sum(values, axis=axes, keepdims=True) / int(count), rule)
    k = int(count)
    if form.bits + (k - 1).bit_length() <= 64:
        total = fixed.sum(x, axis=axis, result="full")
        assert total.dtype is Q(form.integer_bits + (k - 1).bit_length(), form.fraction_bits, form.signed)
        same(total, np.sum(values, axis=axes), {})
    assert x.max(axis=axis).shape == np.sum(values, axis=axes).shape if axis is not None else True


@given(a=forms(), b=forms(), rule=rules(), seed=st.integers(0, 99))
def test_matmul_and_dot(a: Fixed, b: Fixed, rule: dict[str, Any], seed: int) -> None:
    x, y = drawn(a, (3, 5), seed), drawn(b, (5, 2), seed + 1)
    same(fixed.matmul(x, y, **rule), exact(x) @ exact(y), rule)
    same(fixed.vecdot(x, ug.matrix_transpose(y)[0], **rule), exact(x) @ exact(y)[:, 0], rule)
    same(fixed.matmul(x[0], y, **rule), exact(x)[0] @ exact(y), rule)
    both = a.signed and b.signed
    m, n = a.integer_bits + b.integer_bits + both + 3, a.fraction_bits + b.fraction_bits
    signed = a.signed or b.signed
    if m + n + signed <= 64:
        full = fixed.matmul(x, y, result="full")
        assert full.dtype is Q(m, n, signed)
        same(full, exact(x) @ exact(y), {})
    else:
        with pytest.raises(FormatError, match="full precision"):
            fixed.matmul(x, y, result="full")


def test_matmul_of_stacks_and_nothing() -> None:
    form, rule = Q(3, 28), {"result": Q(12, 20)}
    x, y = drawn(form, (2, 1, 3, 4), 0), drawn(form, (5, 4, 2), 1)
    same(fixed.matmul(x, y, **rule), np.matmul(exact(x), exact(y)), rule)
    none = fixed.matmul(drawn(form, (2, 0), 0), drawn(form, (0, 3), 0))
    assert none.numpy().tolist() == [[0.0] * 3] * 2
    assert fixed.matmul(drawn(form, (0, 4), 0), drawn(form, (4, 3), 0)).shape == (0, 3)


@given(a=forms(), b=forms(), c=forms(), rule=rules(), seed=st.integers(0, 99))
def test_linear_rounds_once_with_its_bias(a: Fixed, b: Fixed, c: Fixed, rule: dict[str, Any], seed: int) -> None:
    x, w, bias = drawn(a, (2, 3, 4), seed), drawn(b, (5, 4), seed + 1), drawn(c, (5,), seed + 2)
    want = np.matmul(exact(x), exact(w).T) + exact(bias)
    same(fixed.linear(x, w, bias, **rule), want, rule)
    same(fixed.linear(x, w, **rule), np.matmul(exact(x), exact(w).T), rule)


def convolved(x: np.ndarray, w: np.ndarray, stride: int, padding: int, dilation: int, groups: int) -> np.ndarray:
    n, c, h, width = x.shape
    o, per, kh, kw = w.shape
    padded = np.full((n, c, h + 2 * padding, width + 2 * padding), Fraction(0), object)
    padded[:, :, padding : padding + h, padding : padding + width] = x
    oh = (h + 2 * padding - dilation * (kh - 1) - 1) // stride + 1
    ow = (width + 2 * padding - dilation * (kw - 1) - 1) // stride + 1
    out = np.full((n, o, oh, ow), Fraction(0), object)
    for i, j, f, r, s in product(range(n), range(o), range(per), range(oh), range(ow)):
        plane = padded[i, j // (o // groups) * per + f]
        for p, q in product(range(kh), range(kw)):
            out[i, j, r, s] += plane[r * stride + p * dilation, s * stride + q * dilation] * w[j, f, p, q]
    return out


@settings(max_examples=25)
@given(
    a=forms(), b=forms(), c=forms(), rule=rules(), seed=st.integers(0, 99),
    geometry=st.sampled_from([(1, 0, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1), (3, 1, 1, 4)]),
)  # fmt: skip
def test_conv2d(a: Fixed, b: Fixed, c: Fixed, rule: dict[str, Any], seed: int, geometry: Any) -> None:
    stride, padding, dilation, groups = geometry
    x, w, bias = drawn(a, (2, 4, 5, 4), seed), drawn(b, (4, 4 // groups, 3, 2), seed + 1), drawn(c, (4,), seed + 2)
    want = convolved(exact(x), exact(w), *geometry)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    same(fixed.conv2d(x, w, **options, **rule), want, rule)
    same(fixed.conv2d(x, w, bias, **options, **rule), want + exact(bias)[:, None, None], rule)


@given(form=forms(), rule=rules(), seed=st.integers(0, 99), count_include_pad=st.booleans())
def test_pooling(form: Fixed, rule: dict[str, Any], seed: int, count_include_pad: bool) -> None:
    x = drawn(form, (2, 3, 5, 4), seed)
    values = exact(x)
    means, tops = (np.full((2, 3, 3, 2), Fraction(0), object) for _ in range(2))
    for i, j, r, s in product(range(2), range(3), range(3), range(2)):
        rows, columns = (range(max(2 * k - 1, 0), min(2 * k + 2, n)) for k, n in ((r, 5), (s, 4)))
        seen = [values[i, j, p, q] for p, q in product(rows, columns)]
        means[i, j, r, s] = sum(seen) / (9 if count_include_pad else len(seen))
        tops[i, j, r, s] = max(seen)
    same(fixed.max_pool2d(x, 3, 2, 1, **rule), tops, rule)
    same(fixed.avg_pool2d(x, 3, 2, 1, count_include_pad, **rule), means, rule)


@given(form=forms(), rule=rules(), seed=st.integers(0, 99), output=st.sampled_from([(2, 3), (1, 1), (5, 2), (7, 4)]))
def test_pooling_to_a_size(form: Fixed, rule: dict[str, Any], seed: int, output: tuple[int, int]) -> None:
    x = drawn(form, (2, 3, 5, 4), seed)
    values = exact(x)
    means, tops = (np.full((2, 3, *output), Fraction(0), object) for _ in range(2))
    for i, j, r, s in product(range(2), range(3), *map(range, output)):
        rows, columns = (
            range(k * n // m, -(-(k + 1) * n // m)) for k, n, m in zip((r, s), (5, 4), output, strict=True)
        )
        seen = [values[i, j, p, q] for p, q in product(rows, columns)]
        means[i, j, r, s], tops[i, j, r, s] = sum(seen) / len(seen), max(seen)
    same(fixed.adaptive_max_pool2d(x, output, **rule), tops, rule)
    same(fixed.adaptive_avg_pool2d(x, output, **rule), means, rule)


# Chosen accumulators


def accumulated(a: np.ndarray, b: np.ndarray, how: Accumulator) -> int:
    """One dot product of codes, as defined: each chunk exact, rounded, limited, added, limited."""
    word = Q(how.bits - 1, 0)
    total = 0
    for start in range(0, len(a), how.chunk):
        part = sum(
            int(x) * int(y) for x, y in zip(a[start : start + how.chunk], b[start : start + how.chunk], strict=True)
        )
        step = oracle.rounded(Fraction(part) / Fraction(2) ** how.shift, how.rounding)
        total = oracle.limited(total + oracle.limited(step, word, how.overflow), word, how.overflow)
    return total


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize(("bits", "shift", "chunk"), [(12, 0, 1), (16, 4, 1), (24, 8, 3), (32, 0, 4), (40, 2, 64)])
def test_chosen_accumulator(bits: int, shift: int, chunk: int, overflow: str) -> None:
    how = Accumulator(bits, shift, overflow, "nearest_even", chunk)
    a, b = Q(7, 8), Q(3, 4)
    x, y = drawn(a, (4, 9), 0), drawn(b, (9, 3), 1)
    sums = [[accumulated(x.storage[i], y.storage[:, j], how) for j in range(3)] for i in range(4)]
    full = fixed.matmul(x, y, accumulator=how, result="full")
    assert full.dtype is Q(bits - 1 - (12 - shift), 12 - shift)
    assert full.storage.tolist() == sums
    rule = {"result": Q(9, 6), "rounding": "down"}
    want = np.array([[oracle.value(v, full.dtype) for v in row] for row in sums], object)
    same(fixed.matmul(x, y, accumulator=how, **rule), want, rule)
    bias = drawn(Q(10, 20), (3,), 2)
    same(fixed.linear(x, ug.matrix_transpose(y), bias, accumulator=how, **rule), want + exact(bias), rule)


def test_int32_wraps_and_int64_does_not() -> None:
    form = Q(0, 15)
    x = ug.Tensor(np.full((1, 8), -(2**15), np.int16), form)
    y = ug.Tensor(np.full((8, 1), -(2**15), np.int16), form)
    wide = Q(10, 30)
    assert fixed.matmul(x, y, accumulator="int64", result=wide).numpy().item() == 8.0
    assert fixed.matmul(x, y, result=wide).numpy().item() == 8.0
    assert fixed.matmul(x, y, accumulator="int32", result=wide).numpy().item() == 0.0
    assert fixed.matmul(x, y, accumulator="int32", result="full").dtype is Q(1, 30)


def test_stochastic_products_are_unbiased_and_repeat() -> None:
    form = Q(3, 12)
    x, y = drawn(form, (64, 16), 3), drawn(form, (16, 64), 4)
    exactly = fixed.matmul(x, y, result="full").numpy()
    coarse = [fixed.matmul(x, y, result=Q(15, 0), rounding="stochastic", generator=ug.Generator(s)) for s in (1, 1, 2)]
    np.testing.assert_array_equal(coarse[0].storage, coarse[1].storage)
    assert (coarse[0].storage != coarse[2].storage).any()
    error = coarse[0].numpy() - exactly
    assert np.abs(error).max() < 1
    assert abs(error.mean()) < 5 * np.sqrt(1 / 4 / error.size)  # the variance of a rounding is at most 1/4


@pytest.mark.parametrize(("a", "b"), [(Q(15, 16), Q(31, 0)), (Q(32, 0, False), Q(0, 31)), (Q(31, 0), Q(16, 16, False))])
def test_long_sums_of_32_bit_words(a: Fixed, b: Fixed) -> None:
    """The largest products, more of them than are summed before their halves are joined."""
    k = 20_001
    rows = np.array([[a.min_code] * k, [a.max_code] * k, [a.min_code, a.max_code] * (k // 2) + [1]], dtype=a.storage)
    columns = np.array([[b.min_code] * k, [b.max_code] * k], dtype=b.storage).T
    target = Q(47, 16)
    got = fixed.matmul(ug.Tensor(rows, a), ug.Tensor(np.ascontiguousarray(columns), b), result=target, overflow="wrap")
    exact = rows.astype(object) @ columns.astype(object)
    scale = a.fraction_bits + b.fraction_bits
    want = [oracle.code(Fraction(int(v)) / (1 << scale), target, "nearest_even", "wrap") for v in exact.reshape(-1)]
    assert [int(v) for v in got.storage.reshape(-1)] == want
