"""Every array function against NumPy.

The tables at the top say what is compared; formats, shapes and layouts are stamped out from them.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import FormatError
from ulpgrad.formats import ALL, FLOATS, FORMATS, INTEGERS, Format
from ulpgrad.ops import elementwise

FLOAT = tuple(f.name for f in FLOATS)
INTEGER = tuple(f.name for f in INTEGERS)
REAL = (*INTEGER, *FLOAT)
ANY = ("bool", *REAL)
BITS = ("bool", *INTEGER)


# Values and comparison


def values(form: Format, shape: tuple[int, ...], seed: int = 0, low: float = -4, high: float = 4) -> np.ndarray:
    """Random values that the format holds exactly, as NumPy sees them (bfloat16: as float32)."""
    rng = np.random.default_rng(seed)
    if form is ug.bool:
        return rng.integers(0, 2, shape).astype(bool)
    if form in INTEGERS:
        return rng.integers(0 if form.name[0] == "u" else int(np.ceil(low)), int(high) + 1, shape).astype(form.storage)
    return form.decode(form.encode(rng.uniform(low, high, shape)))


def tensor(array: np.ndarray, form: Format) -> ug.Tensor:
    return ug.Tensor(form.encode(array), form)


def compare(got: Any, want: Any, form: Format | None = None, ulps: float = 4) -> None:
    """A tensor (or several) against NumPy's answer: same shape, the format expected, values within `ulps`."""
    if isinstance(got, (tuple, list)):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            compare(g, w, form, ulps)
        return
    assert isinstance(got, ug.Tensor)
    want = np.asarray(want)
    assert got.shape == want.shape
    if form is not None:
        assert got.dtype is form, f"{got.dtype} instead of {form}"
    values = got.dtype.decode(got.storage)
    if got.dtype.kind == "float":
        eps = got.dtype.eps
        np.testing.assert_allclose(values.astype(np.float64), want.astype(np.float64), rtol=ulps * eps, atol=ulps * eps)
    else:
        np.testing.assert_array_equal(values, want)


# Elementwise functions: formats, NumPy's function, interval of the operands

NUMPY_NAMES = {
    "acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan", "atanh": "arctanh",
    "atan2": "arctan2", "bitwise_left_shift": "left_shift", "bitwise_right_shift": "right_shift", "pow": "power",
    "bitwise_invert": "invert", "concat": "concatenate", "permute_dims": "transpose", "cumulative_sum": "cumsum",
    "cumulative_prod": "cumprod", "unique_values": "unique",
}  # fmt: skip
DOMAINS = {
    "acos": (-1, 1), "asin": (-1, 1), "atanh": (-0.9, 0.9), "acosh": (1, 9), "log": (0.1, 9), "log2": (0.1, 9),
    "log10": (0.1, 9), "log1p": (-0.9, 9), "sqrt": (0, 9), "reciprocal": (0.5, 4), "pow": (1, 3),
    "bitwise_left_shift": (0, 3),
    "bitwise_right_shift": (0, 3), "floor_divide": (1, 9), "remainder": (1, 9), "divide": (0.5, 4), "tan": (-1, 1),
}  # fmt: skip
TAKES = {
    **dict.fromkeys(("abs", "negative", "positive", "square", "sign", "floor", "ceil", "trunc", "round"), REAL),
    **dict.fromkeys(("subtract", "floor_divide", "remainder", "pow"), REAL),
    **dict.fromkeys(("add", "multiply", "maximum", "minimum"), REAL),
    **dict.fromkeys(("isnan", "isinf", "isfinite", "less", "less_equal", "greater", "greater_equal"), REAL),
    **dict.fromkeys(("equal", "not_equal", "logical_not", "logical_and", "logical_or", "logical_xor"), ANY),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert"), BITS),
    **dict.fromkeys(("bitwise_left_shift", "bitwise_right_shift"), INTEGER),
}
TO_BOOL = [
    "isnan",
    "isinf",
    "isfinite",
    "signbit",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "equal",
    "not_equal",
    "logical_not",
    "logical_and",
    "logical_or",
    "logical_xor",
]


def with_parameters(*names: str) -> list[str]:
    """Elementwise functions of these parameters that NumPy has too."""
    functions = {n: getattr(ug, n) for n in elementwise.__all__ if hasattr(np, NUMPY_NAMES.get(n, n))}
    return [n for n, f in functions.items() if tuple(inspect.signature(f).parameters) == names]


UNARY, BINARY = with_parameters("x"), with_parameters("x1", "x2")
SHAPES = ((), (0,), (1,), (7,), (3, 4), (2, 0, 3), (2, 3, 4))
PAIRS = (((), ()), ((3,), (3,)), ((3, 1), (4,)), ((2, 3), ()), ((0, 3), (1,)), ((2, 1, 3), (1, 4, 1)))


def by_format(names: list[str]) -> list[Any]:
    return [pytest.param(n, FORMATS[f], id=f"{n}-{f}") for n in names for f in TAKES.get(n, FLOAT)]


def numpy_function(name: str) -> Callable[..., Any]:
    return getattr(np, NUMPY_NAMES.get(name, name))


@pytest.mark.parametrize(("name", "form"), by_format(UNARY))
def test_unary(name: str, form: Format) -> None:
    low, high = DOMAINS.get(name, (-4, 4))
    for shape in SHAPES:
        x = values(form, shape, low=low, high=high)
        with np.errstate(all="ignore"):
            want = numpy_function(name)(x if x.dtype != np.float16 else x.astype(np.float32))
        compare(getattr(ug, name)(tensor(x, form)), want, ug.bool if name in TO_BOOL else form, 6)
    wide = values(form, (6, 8), low=low, high=high)
    strided = ug.Tensor(form.encode(wide)[::-2, 1::3], form)
    with np.errstate(all="ignore"):
        compare(getattr(ug, name)(strided), numpy_function(name)(wide[::-2, 1::3]), ulps=6)


@pytest.mark.parametrize(("name", "form"), by_format([n for n in BINARY if n != "nextafter"]))
def test_binary(name: str, form: Format) -> None:
    low, high = DOMAINS.get(name, (-4, 4))
    for s1, s2 in PAIRS:
        x1, x2 = values(form, s1, 1, low, high), values(form, s2, 2, low, high)
        with np.errstate(all="ignore"):
            want = numpy_function(name)(*(x.astype(np.float32) if x.dtype == np.float16 else x for x in (x1, x2)))
        compare(getattr(ug, name)(tensor(x1, form), tensor(x2, form)), want, ug.bool if name in TO_BOOL else form, 6)


@pytest.mark.parametrize("form", FLOATS, ids=str)
def test_nextafter_steps_by_one_code(form: Format) -> None:
    x = tensor(np.array([1.0, -1.0, 0.5, 3.0]), form)
    up = ug.nextafter(x, ug.full((), form.max, dtype=form))
    np.testing.assert_array_equal(
        form.exact(up.storage), form.exact(x.storage) + form.spacing(form.exact(x.storage)) * [1, 0.5, 1, 1]
    )


@pytest.mark.parametrize("form", [FORMATS[f] for f in REAL], ids=str)
def test_clip_and_where(form: Format) -> None:
    x = values(form, (3, 4))
    compare(ug.clip(tensor(x, form), 1, 3), np.clip(x, 1, 3), form)
    compare(ug.clip(tensor(x, form), max=2), np.clip(x, None, 2), form)
    compare(ug.clip(tensor(x, form), tensor(x[0], form)), np.clip(x, x[0], None), form)
    compare(ug.where(tensor(x, form) > 1, tensor(x, form), 0), np.where(x > 1, x, 0), form)
    compare(ug.where(ug.asarray([True, False]), tensor(x[0, 0], form), tensor(x[:, :2], form)),
            np.where([True, False], x[0, 0], x[:, :2]), form)  # fmt: skip


def test_operators_take_python_numbers_on_either_side() -> None:
    x = np.array([[1.0, 2.0], [4.0, 8.0]], np.float32)
    t = ug.asarray(x)
    for left, right in [(t + 2, x + 2), (2 - t, 2 - x), (t * 0.5, x * np.float32(0.5)), (1 / t, 1 / x), (t**2, x**2),
                        (2**t, 2**x), (t // 3, x // 3), (7 % t, 7 % x), (-t, -x), (+t, x), (abs(-t), x),
                        (t @ t, x @ x)]:  # fmt: skip
        compare(left, right, ug.float32)
    n = np.array([1, 6, 3])
    i = ug.asarray(n)
    for left, right in [(i & 2, n & 2), (1 | i, 1 | n), (i ^ 3, n ^ 3), (~i, ~n), (i << 1, n << 1), (64 >> i, 64 >> n)]:
        compare(left, right, ug.int64)
    for left, right in [(t < 3, x < 3), (t >= 3, x >= 3), (t == 4, x == 4), (t != 4, x != 4), (t > i[0], x > 1)]:
        compare(left, right, ug.bool)


# Reductions

REDUCTIONS = {"sum": REAL, "prod": REAL, "max": REAL, "min": REAL, "all": ANY, "any": ANY, "mean": FLOAT, "var": FLOAT,
              "std": FLOAT, "count_nonzero": ANY}  # fmt: skip
AXES = (None, 0, -1, (0, 2), (1, -1), ())


def result_of(name: str, form: Format) -> Format:
    if name in ("all", "any"):
        return ug.bool
    if name == "count_nonzero":
        return ug.int64
    if name in ("sum", "prod", "cumulative_sum", "cumulative_prod") and form.kind != "float":
        return ug.uint64 if form.name[0] == "u" else ug.int64
    return form


@pytest.mark.parametrize(
    ("name", "form"), [pytest.param(n, FORMATS[f], id=f"{n}-{f}") for n, fs in REDUCTIONS.items() for f in fs]
)
def test_reduction(name: str, form: Format) -> None:
    x = values(form, (2, 3, 4), low=0.5, high=2)
    function, reference = getattr(ug, name), numpy_function(name)
    exact = x.astype(np.float64) if form.kind == "float" else x
    for axis, keepdims in itertools.product(AXES, (False, True)):
        if name == "count_nonzero" and axis == ():
            continue  # NumPy counts over all axes here; we, like every other reduction, over none
        want = reference(exact, axis=axis, keepdims=keepdims)
        compare(
            function(tensor(x, form), axis=axis, keepdims=keepdims),
            want,
            result_of(name, form),
            24 if form.bits > 16 else 4,
        )
        flipped = tensor(x, form).mT
        compare(function(flipped.mT, axis=axis, keepdims=keepdims), want, ulps=24 if form.bits > 16 else 4)
    if name in ("sum", "prod", "all", "any", "count_nonzero"):
        compare(function(ug.zeros((0, 2), dtype=form), axis=0), reference(np.zeros((0, 2)), axis=0))


def test_var_correction_and_dtype_of_sum() -> None:
    x = np.random.default_rng(0).normal(size=(5, 4))
    compare(ug.var(ug.asarray(x), axis=0, correction=1), x.var(0, ddof=1))
    compare(ug.std(ug.asarray(x), correction=1.5), x.std(ddof=1.5))
    small = np.full(300, 100, np.int8)
    compare(ug.sum(ug.asarray(small)), 30000, ug.int64)
    compare(ug.sum(ug.asarray(small), dtype=ug.float64), 30000.0, ug.float64)
    compare(ug.sum(ug.ones(3, dtype=ug.bool), dtype=ug.float32), 3.0, ug.float32)
    compare(ug.logsumexp(ug.asarray(x), axis=1), np.log(np.exp(x).sum(1)))
    compare(ug.logsumexp(ug.asarray([-np.inf, -np.inf])), -np.inf)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin", "sum", "mean"])
def test_nan_propagates(name: str) -> None:
    x = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]])
    for form in FLOATS:
        compare(getattr(ug, name)(tensor(x, form), axis=1), numpy_function(name)(x, axis=1))


@pytest.mark.parametrize("form", [FORMATS[f] for f in REAL], ids=str)
def test_positions_and_running_reductions(form: Format) -> None:
    x = values(form, (3, 4), low=-2, high=2)
    for axis in (None, 0, 1, -1):
        for name in ("argmax", "argmin"):
            compare(getattr(ug, name)(tensor(x, form), axis=axis), numpy_function(name)(x, axis=axis), ug.int64)
    exact = x.astype(np.float64) if form.kind == "float" else x.astype(result_of("sum", form).storage)
    for name, start in (("cumulative_sum", 0), ("cumulative_prod", 1)):
        for axis in (0, -1):
            want = numpy_function(name)(exact, axis=axis)
            ulps = 16 if form.bits > 16 else 3
            compare(getattr(ug, name)(tensor(x, form), axis=axis), want, result_of(name, form), ulps)
            with_start = np.concatenate([np.full_like(want[:1] if axis == 0 else want[:, :1], start), want], axis)
            compare(getattr(ug, name)(tensor(x, form), axis=axis, include_initial=True), with_start, ulps=ulps)
    compare(ug.diff(tensor(x, form), axis=0), np.diff(x, axis=0), form)
    compare(ug.diff(tensor(x, form), n=2), np.diff(x, n=2), form)
    compare(ug.diff(tensor(x, form), prepend=tensor(x[:, :2], form), append=tensor(x[:, :1], form)),
            np.diff(x, prepend=x[:, :2], append=x[:, :1]), form)  # fmt: skip


# Manipulation, sorting, searching, sets: our call, NumPy's call. Every format goes through each.

MOVES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "reshape": (lambda x: ug.reshape(x, (4, -1)), lambda x: x.reshape(4, -1)),
    "reshape-transposed": (lambda x: ug.reshape(x.mT, (6, 4)), lambda x: np.matrix_transpose(x).reshape(6, 4)),
    "flatten": (lambda x: ug.flatten(x, 1), lambda x: x.reshape(2, 12)),
    "permute_dims": (lambda x: ug.permute_dims(x, (2, 0, 1)), lambda x: x.transpose(2, 0, 1)),
    "permute_dims-negative": (lambda x: ug.permute_dims(x, (-1, 0, 1)), lambda x: x.transpose(-1, 0, 1)),
    "matrix_transpose": (ug.matrix_transpose, np.matrix_transpose),
    "moveaxis": (lambda x: ug.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1)),
    "moveaxis-several": (lambda x: ug.moveaxis(x, (0, 1), (1, -1)), lambda x: np.moveaxis(x, (0, 1), (1, -1))),
    "squeeze": (lambda x: ug.squeeze(x[:1], 0), lambda x: x[0]),
    "expand_dims": (lambda x: ug.expand_dims(x, axis=-2), lambda x: np.expand_dims(x, -2)),
    "broadcast_to": (lambda x: ug.broadcast_to(x, (5, 2, 3, 4)), lambda x: np.broadcast_to(x, (5, 2, 3, 4))),
    "broadcast_arrays": (lambda x: ug.broadcast_arrays(x[:, :1], x[0]), lambda x: np.broadcast_arrays(x[:, :1], x[0])),
    "concat": (lambda x: ug.concat([x, x[:, :1], x[:, :0]], axis=1), lambda x: np.concatenate([x, x[:, :1]], 1)),
    "concat-flat": (lambda x: ug.concat([x, x[0]], axis=None), lambda x: np.concatenate([x, x[0]], None)),
    "stack": (lambda x: ug.stack([x, x], axis=-1), lambda x: np.stack([x, x], -1)),
    "unstack": (lambda x: ug.unstack(x, axis=1), lambda x: [x[:, i] for i in range(3)]),
    "flip": (ug.flip, np.flip),
    "flip-axes": (lambda x: ug.flip(x, axis=(0, -1)), lambda x: np.flip(x, (0, -1))),
    "roll": (lambda x: ug.roll(x, 5), lambda x: np.roll(x, 5)),
    "roll-axes": (lambda x: ug.roll(x, (1, -2), axis=(0, 2)), lambda x: np.roll(x, (1, -2), (0, 2))),
    "tile": (lambda x: ug.tile(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3))),
    "tile-short": (lambda x: ug.tile(x, (2,)), lambda x: np.tile(x, 2)),
    "tile-long": (lambda x: ug.tile(x[0], (2, 1, 1)), lambda x: np.tile(x[0], (2, 1, 1))),
    "repeat": (lambda x: ug.repeat(x, 2), lambda x: np.repeat(x, 2)),
    "repeat-each": (
        lambda x: ug.repeat(x, ug.asarray([2, 0, 1]), axis=1),
        lambda x: np.repeat(x, [2, 0, 1], 1),
    ),
    "tril": (lambda x: ug.tril(x, k=1), lambda x: np.tril(x, 1)),
    "triu": (lambda x: ug.triu(x, k=-1), lambda x: np.triu(x, -1)),
    "meshgrid": (lambda x: ug.meshgrid(x[0, 0], x[0, :, 0]), lambda x: np.meshgrid(x[0, 0], x[0, :, 0])),
    "meshgrid-ij": (
        lambda x: ug.meshgrid(x[0, 0], x[0, :, 0], indexing="ij"),
        lambda x: np.meshgrid(x[0, 0], x[0, :, 0], indexing="ij"),
    ),
    "take": (lambda x: ug.take(x, ug.asarray([2, 0, -1, 0]), axis=1), lambda x: x[:, [2, 0, -1, 0]]),
    "take-1d": (lambda x: ug.take(x[0, 0], [1, 1]), lambda x: x[0, 0, [1, 1]]),
    "take_along_axis": (
        lambda x: ug.take_along_axis(x, ug.asarray([[[1], [2], [0]]]), axis=1),
        lambda x: np.take_along_axis(x, np.array([[[1], [2], [0]]]), 1),
    ),
    "nonzero": (ug.nonzero, np.nonzero),
    "sort": (ug.sort, np.sort),
    "sort-axis": (lambda x: ug.sort(x, axis=0), lambda x: np.sort(x, 0)),
    "sort-falling": (lambda x: ug.sort(x, descending=True), lambda x: np.flip(np.sort(x), -1)),
    "argsort": (ug.argsort, lambda x: np.argsort(x, stable=True)),
    "argsort-falling": (
        lambda x: ug.argsort(x, axis=1, descending=True),
        lambda x: 2 - np.flip(np.argsort(np.flip(x, 1), 1, stable=True), 1),
    ),
    "topk": (lambda x: ug.topk(x, 2)[0], lambda x: np.flip(np.sort(x), -1)[..., :2]),
    "topk-smallest": (lambda x: ug.topk(x, 1, axis=0, largest=False)[0], lambda x: np.sort(x, 0)[:1]),
    "topk-positions": (lambda x: ug.take_along_axis(x, ug.topk(x, 3)[1]), lambda x: np.flip(np.sort(x), -1)[..., :3]),
    "searchsorted": (
        lambda x: ug.searchsorted(ug.sort(ug.flatten(x)), x),
        lambda x: np.searchsorted(np.sort(x, None), x),
    ),
    "searchsorted-right": (
        lambda x: ug.searchsorted(ug.flatten(x), x, side="right", sorter=ug.argsort(ug.flatten(x))),
        lambda x: np.searchsorted(np.sort(x, None), x, "right"),
    ),
    "unique_values": (ug.unique_values, np.unique),
    "unique_counts": (ug.unique_counts, np.unique_counts),
    "unique_inverse": (ug.unique_inverse, np.unique_inverse),
    "unique_all": (ug.unique_all, np.unique_all),
    "copy": (ug.copy, np.copy),
    "zeros_like": (ug.zeros_like, np.zeros_like),
    "ones_like": (ug.ones_like, np.ones_like),
    "full_like": (lambda x: ug.full_like(x, 1), lambda x: np.full_like(x, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
def test_movement(name: str) -> None:
    ours, theirs = MOVES[name]
    for form in ALL:
        x = values(form, (2, 3, 4), low=-2, high=2)
        compare(ours(tensor(x, form)), theirs(x), ulps=0)


def test_promoting_concat_and_views() -> None:
    compare(ug.concat([ug.asarray([1, 2]), ug.asarray([0.5])]), [1, 2, 0.5], ug.float32)
    x = ug.zeros((2, 3))
    for view in (x.mT, ug.reshape(x, (6,)), ug.flip(x), ug.squeeze(x[:1], 0), ug.expand_dims(x, axis=0), x[0], x[:, 1]):
        assert np.shares_memory(view.storage, x.storage)
    assert not np.shares_memory(ug.reshape(x, (6,), copy=True).storage, x.storage)


def test_sort_places_nan_last() -> None:
    x = ug.asarray([2.0, np.nan, 1.0, np.nan, 3.0])
    for form in FLOATS:
        y = x.astype(form)
        compare(ug.sort(y), [1, 2, 3, np.nan, np.nan])
        compare(ug.sort(y, descending=True), [3, 2, 1, np.nan, np.nan])
        compare(ug.argsort(y, descending=True), [4, 0, 2, 1, 3])
        compare(ug.topk(y, 2)[1], [1, 3])
        assert ug.unique_values(y).shape == (5,)


@pytest.mark.parametrize("form", [FORMATS[f] for f in ("int32", "uint8", *FLOAT)], ids=str)
def test_products(form: Format) -> None:
    a, b = values(form, (2, 3, 4), 1, 0, 2), values(form, (2, 4, 5), 2, 0, 2)
    ta, tb = tensor(a, form), tensor(b, form)
    wide = np.float64 if form.kind == "float" else form.storage
    a, b = a.astype(wide), b.astype(wide)
    for got, want in [
        (ug.matmul(ta, tb), a @ b), (ta[0] @ tb, a[0] @ b), (ta @ tb[1, :, 0], a @ b[1, :, 0]),
        (ta[0, 0] @ tb[0], a[0, 0] @ b[0]), (ta[0, 0] @ tb[0, :, 0], a[0, 0] @ b[0, :, 0]),
        (tb[0].mT @ ta[0].mT, b[0].T @ a[0].T),
        (ug.vecdot(ta, ta[:1]), (a * a[:1]).sum(-1)), (ug.vecdot(ta, ta, axis=-2), (a * a).sum(-2)),
        (ug.tensordot(ta, tb[0], axes=1), np.tensordot(a, b[0], 1)),
        (ug.tensordot(ta, tb, axes=((2, 0), (1, 0))), np.tensordot(a, b, ((2, 0), (1, 0)))),
        (ug.tensordot(ta, ta, axes=0), np.tensordot(a, a, 0)),
        (ug.outer(ta[0, 0], tb[0, 0]), np.outer(a[0, 0], b[0, 0])),
        (ug.matmul(ta[:, :, :0], tb[:, :0]), np.zeros((2, 3, 5))),
    ]:  # fmt: skip
        compare(got, want, form, 8)


# Creation


@pytest.mark.parametrize("form", [FORMATS[f] for f in REAL], ids=str)
def test_creation(form: Format) -> None:
    for shape in ((), 3, (2, 0), (2, 3)):
        compare(ug.zeros(shape, dtype=form), np.zeros(shape), form, 0)
        compare(ug.ones(shape, dtype=form), np.ones(shape), form, 0)
        compare(ug.full(shape, 3, dtype=form), np.full(shape, 3), form, 0)
        assert ug.empty(shape, dtype=form).shape == np.zeros(shape).shape
    compare(ug.eye(3, 4, k=1, dtype=form), np.eye(3, 4, k=1), form, 0)
    compare(ug.arange(1, 12, 3, dtype=form), np.arange(1, 12, 3), form, 0)
    compare(ug.linspace(0, 8, 5, dtype=form), np.linspace(0, 8, 5), form, 0)
    compare(ug.linspace(0, 8, 4, endpoint=False, dtype=form), np.linspace(0, 8, 4, endpoint=False), form, 0)


def test_default_formats() -> None:
    for got, form in [
        (ug.asarray(1), "int64"), (ug.asarray(1.0), "float32"), (ug.asarray(True), "bool"),
        (ug.asarray([1, 2.5]), "float32"), (ug.asarray(np.float64(1)), "float64"), (ug.asarray([]), "float32"),
        (ug.arange(3), "int64"),
        (ug.arange(3.0), "float32"),
        (ug.full(2, 7), "int64"), (ug.full(2, True), "bool"), (ug.zeros(2), "float32"),
        (ug.linspace(0, 1, 3), "float32"), (ug.eye(2), "float32"), (ug.asarray([ug.ones(2), ug.zeros(2)]), "float32"),
        (ug.asarray([1, True]), "int64"),
    ]:  # fmt: skip
        assert got.dtype.name == form
    compare(ug.arange(5, 0, -2), [5, 3, 1])
    compare(ug.arange(0, 1, 0.25), [0, 0.25, 0.5, 0.75])
    compare(ug.arange(3, 1), np.zeros(0))
    compare(ug.asarray([16777217.0], dtype=ug.int64), [16777217])
    compare(ug.asarray([2**63], dtype=ug.uint64), np.array([2**63], np.uint64))


# Data types


def test_promotion_of_all_pairs() -> None:
    for a, b in itertools.product(ALL, repeat=2):
        native = a.is_native and b.is_native
        mixed = {a.kind, b.kind} == {"integer", "float"}
        if ug.uint64 in (a, b) and (ug.isdtype(a, "signed integer") or ug.isdtype(b, "signed integer")):
            with pytest.raises(FormatError, match="no integer holds both"):
                ug.result_type(a, b)
            continue
        form = ug.result_type(a, b)
        assert form is ug.result_type(b, a)
        if mixed:
            assert form is (a if a.kind == "float" else b)
        elif native:
            assert form.storage == np.result_type(a.storage, b.storage)
        x, y = ug.ones(2, dtype=a), ug.ones(3, dtype=b)
        assert ug.concat([x, y]).dtype is form
        if "bool" not in (a.name, b.name):
            assert (x[:1] + y).dtype is form
        assert ug.can_cast(a, b) is (form is b)


def test_inspection() -> None:
    for form in FLOATS:
        info = ug.finfo(form)
        if form.is_native:
            want = np.finfo(form.storage)
            for field in ("bits", "eps", "max", "min", "smallest_normal"):
                assert getattr(info, field) == getattr(want, field)
        assert info.dtype is form
        assert ug.isdtype(form, "real floating")
    assert (ug.finfo(ug.bfloat16).eps, ug.finfo(ug.bfloat16).max) == (2.0**-7, (2 - 2.0**-7) * 2.0**127)
    for form in INTEGERS:
        assert (ug.iinfo(form).max, ug.iinfo(form).min) == (np.iinfo(form.storage).max, np.iinfo(form.storage).min)
        assert ug.isdtype(form, ("bool", "integral"))
        assert ug.isdtype(form, "unsigned integer") is (form.name[0] == "u")
    assert ug.isdtype(ug.bool, ug.bool)
    assert not ug.isdtype(ug.bool, "numeric")
    assert ug.result_type(ug.ones(1, dtype=ug.int8), 1.5) is ug.float32
    assert ug.result_type(ug.ones(1, dtype=ug.float16), 1.5, 2) is ug.float16
    info = ug.__array_namespace_info__()
    assert info.capabilities()["boolean indexing"]
    assert info.default_dtypes() == {"real floating": ug.float32, "integral": ug.int64, "indexing": ug.int64}
    assert info.dtypes(kind="bool") == {"bool": ug.bool}
    assert set(info.dtypes()) == {
        "bool",
        "float32",
        "float64",
        *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)),
    }
    assert list(info.dtypes(kind="real floating").values()) == [ug.float32, ug.float64]
    assert info.default_device() in info.devices()


def test_conversions_of_all_pairs() -> None:
    x = np.array([0.0, 1.0, 2.0, 100.0])
    for a, b in itertools.product(ALL, repeat=2):
        source = tensor(x, a)
        compare(ug.astype(source, b), b.decode(b.encode(a.decode(source.storage))), b, 0)
        assert source.to(b).dtype is b
    same = ug.ones(2)
    assert ug.astype(same, ug.float32, copy=False) is same
    assert not np.shares_memory(ug.astype(same, ug.float32).storage, same.storage)


def test_einsum_broadcasts_sizes_that_meet_late() -> None:
    """An ellipsis of size 1 meets a larger one only in the last operand."""
    out = ug.einsum("...,,...", ug.ones((1,)), ug.asarray(2.0), ug.ones((3,)))
    assert out.tolist() == [2.0, 2.0, 2.0]
