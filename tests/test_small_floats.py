"""What holds for IEEE-like floats of any size, also those that no table has: made by Float(exponent_bits, mantissa_bits)."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import FormatError
from ulpgrad.formats import FLOATS, Float, as_format, bfloat16, float8_e4m3, float8_e5m2, float16, float32, float64
from ulpgrad.formats.promotion import promote
from ulpgrad.io import load, save
from ulpgrad.testing import ulp_error

NEW = [Float(8, 6), float8_e5m2, Float(6, 9), float8_e4m3, Float(5, 14)]
each_format = pytest.mark.parametrize("form", NEW, ids=str)


# Codes, from the definition: sign, exponent and mantissa read one code at a time.


def value_of(code: int, e: int, m: int) -> float:
    sign, exponent, fraction = code >> (e + m), (code >> m) % 2**e, code % 2**m
    bias = 2 ** (e - 1) - 1
    if exponent == 2**e - 1:
        size = math.nan if fraction else math.inf
    else:
        size = math.ldexp(fraction + (2**m if exponent else 0), max(exponent, 1) - bias - m)
    return -size if sign else size


@cache
def table(form: Float) -> tuple[np.ndarray, np.ndarray]:
    """All codes of a format, and their values."""
    codes = np.arange(2**form.bits).astype(form.storage)
    return codes, np.array([value_of(int(c), form.exponent_bits, form.mantissa_bits) for c in codes])


def nearest_code(form: Float, values: np.ndarray) -> np.ndarray:
    """By search among the codes' values: the nearer neighbour, or the even one. Infinity lies where the next would."""
    finite = table(form)[1][: 2 ** (form.bits - 1)]
    finite = finite[np.isfinite(finite)]
    points = np.append(finite, 2 * finite[-1] - finite[-2])
    size = np.minimum(np.abs(values), points[-1])
    above = np.clip(np.searchsorted(points, size), 1, len(points) - 1)
    below, middle = above - 1, (points[above - 1] + points[above]) / 2
    even = np.where(below % 2 == 0, below, above)
    found = np.where(size < middle, below, np.where(size > middle, above, even))
    return (found + np.where(np.signbit(values), 2 ** (form.bits - 1), 0)).astype(form.storage)


def edges(form: Float) -> np.ndarray:
    """Every midpoint of neighbouring codes, the numbers beside it, and numbers beyond the format's range."""
    values = np.unique(table(form)[1][np.isfinite(table(form)[1])])
    limit = form.max + form.spacing(np.array(form.max)) / 2
    middle = np.concatenate([(values[1:] + values[:-1]) / 2, [limit, -limit]])
    beyond = np.array([np.inf, -np.inf, 0.0, -0.0, 1e-300, -1e-300, 1e300, 5e-324, form.smallest_subnormal / 2])
    return np.concatenate([values, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf), beyond])


@each_format
def test_every_code_decodes(form: Float) -> None:
    codes, values = table(form)
    got = form.decode(codes)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, values)
    known = ~np.isnan(values)
    assert (np.signbit(got) == np.signbit(values))[known].all()
    assert (form.encode(got) == codes)[known].all()
    assert (form.encode(values) == codes)[known].all()
    assert np.isnan(form.decode(form.encode(values[~known]))).all()


@each_format
def test_rounding_is_to_the_nearest_code(form: Float) -> None:
    x = edges(form)
    np.testing.assert_array_equal(form.encode(x), nearest_code(form, x))
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32)
    narrow = np.concatenate(
        [narrow, np.nextafter(narrow, np.float32(np.inf)), np.nextafter(narrow, np.float32(-np.inf))]
    )
    np.testing.assert_array_equal(form.encode(narrow), nearest_code(form, narrow.astype(np.float64)))


@pytest.mark.parametrize(("name", "oracle"), [("float8_e5m2", "float8_e5m2"), ("float8_e4m3", "float8_e4m3")])
def test_ml_dtypes_agrees(name: str, oracle: str) -> None:
    form, dtype = as_format(name), getattr(ml_dtypes, oracle)
    assert isinstance(form, Float)
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(form.decode(codes), codes.view(dtype).astype(np.float32))
    with np.errstate(all="ignore"):
        x = edges(form).astype(np.float32)
        x = np.concatenate([x, np.arange(0, 2**32, 9973, dtype=np.uint64).astype(np.uint32).view(np.float32)])
        wanted = x.astype(dtype)
    np.testing.assert_array_equal(form.decode(form.encode(x)), wanted.astype(np.float32))


# Public functions against float64, rounded once.


def random(form: Float, *shape: int, seed: int = 0) -> tuple[ug.Tensor, np.ndarray]:
    """Values of a format as a tensor, and exactly in float64."""
    x = ug.asarray(np.random.default_rng(seed).normal(size=shape)).to(form)
    return x, form.exact(x.storage)


def assert_rounded(got: ug.Tensor, expected: Any, form: Float, magnitude: Any = None) -> None:
    """One rounding, and what float32 sums were off by, which is nothing beside it."""
    assert got.dtype is form
    error = ulp_error(
        got.detach().storage, np.asarray(expected), form, None if magnitude is None else np.asarray(magnitude)
    )
    assert error.max() <= 0.51, error.max()


@each_format
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum"])
def test_arithmetic_rounds_once(form: Float, name: str) -> None:
    codes = table(form)[0]
    rng = np.random.default_rng(1)
    if form.bits == 8:
        a, b = (part.ravel() for part in np.meshgrid(codes, codes))
    else:
        a, b = (rng.choice(codes, 50_000) for _ in range(2))
    got = getattr(ug, name)(ug.Tensor(a, form), ug.Tensor(b, form))
    assert got.dtype is form
    with np.errstate(all="ignore"):
        wanted = getattr(np, name)(form.exact(a), form.exact(b))
        np.testing.assert_array_equal(form.exact(got.storage), form.exact(form.encode(wanted)))


@each_format
def test_functions_of_one_operand(form: Float) -> None:
    codes, values = table(form)
    x = ug.Tensor(codes, form)
    with np.errstate(all="ignore"):
        for got, wanted in ((ug.sqrt(x), np.sqrt(values)), (ug.abs(x), np.abs(values)), (-x, -values),
                            (ug.floor(x), np.floor(values)), (ug.relu(x), np.maximum(values, 0))):  # fmt: skip
            np.testing.assert_array_equal(form.exact(got.storage), form.exact(form.encode(wanted)))
        for got, wanted in ((ug.exp(x), np.exp(values)), (ug.tanh(x), np.tanh(values)), (ug.log(x), np.log(values))):
            assert_rounded(got, wanted, form)
    assert (ug.isnan(x).numpy() == np.isnan(values)).all()
    assert ((x > 1).numpy() == (values > 1)).all()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def convolution(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.asarray(np.einsum("nchwij,ocij->nohw", windows, w))


@each_format
def test_products_sums_and_softmax(form: Float) -> None:
    (a, a64), (b, b64) = random(form, 9, 21), random(form, 21, 6, seed=1)
    assert_rounded(a @ b, a64 @ b64, form, np.abs(a64) @ np.abs(b64))
    (x, x64), (w, w64) = random(form, 2, 3, 8, 7), random(form, 4, 3, 3, 3, seed=2)
    size = convolution(np.abs(x64), np.abs(w64))
    assert_rounded(ug.conv2d(x, w), convolution(x64, w64), form, size)
    assert_rounded(ug.softmax(a, axis=-1), softmax(a64), form)
    assert_rounded(a.sum(axis=0), a64.sum(0), form, np.abs(a64).sum(0))
    assert_rounded(a.mean(), a64.mean(), form, np.abs(a64).mean())
    assert_rounded(a.max(axis=1), a64.max(1), form)
    assert (a.argmax(axis=1).numpy() == a64.argmax(1)).all()


def gradients(
    form: Float, function: Callable[..., ug.Tensor], *inputs: ug.Tensor
) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """A random gradient of the result and the result itself, both exactly, and the inputs' gradients."""
    y = function(*(x.requires_grad_() for x in inputs))
    g, exact = random(form, *y.shape, seed=9)
    y.backward(g)
    return exact, form.exact(y.detach().storage), [x.grad for x in inputs]


@each_format
def test_gradients_round_once(form: Float) -> None:
    (a, a64), (b, b64) = random(form, 5, 7), random(form, 7, 5, seed=1)
    g, _, (da, db) = gradients(form, lambda a, b: a @ b, a, b)
    assert_rounded(da, g @ b64.T, form, np.abs(g) @ np.abs(b64.T))
    assert_rounded(db, a64.T @ g, form, np.abs(a64.T) @ np.abs(g))
    (a, a64), (b, b64) = random(form, 5, 7), random(form, 7, seed=1)
    g, _, (da, db) = gradients(form, lambda a, b: a * b, a, b)
    assert_rounded(da, g * b64, form)
    terms = form.exact(form.encode(g * a64))  # rounded products, which are added over the broadcast axis
    assert_rounded(db, terms.sum(0), form, np.abs(terms).sum(0))
    g, y, (da,) = gradients(form, ug.tanh, random(form, 40)[0])
    assert_rounded(da, g * (1 - y * y), form)
    g, y, (da,) = gradients(form, lambda x: ug.softmax(x, axis=-1), random(form, 4, 9)[0])
    assert_rounded(
        da, y * (g - (g * y).sum(-1, keepdims=True)), form, y * (np.abs(g) + np.abs(g * y).sum(-1, keepdims=True))
    )
    x, x64 = random(form, 2, 3, 8, 7)
    g, _, (_, dw) = gradients(form, ug.conv2d, x, random(form, 4, 3, 3, 3, seed=2)[0])
    swapped = (x64.swapaxes(0, 1), g.swapaxes(0, 1))
    size = convolution(*(np.abs(part) for part in swapped)).swapaxes(0, 1)
    assert_rounded(dw, convolution(*swapped).swapaxes(0, 1), form, size)


# Conversion, promotion, and what leaves the library.


@each_format
@np.errstate(all="ignore")
def test_casts_to_round_once(form: Float) -> None:
    just_above = 1 + form.eps / 2 + 2.0**-40  # through float32 it would become the midpoint, and then 1
    assert ug.asarray([just_above, -just_above], dtype=float64).to(form).tolist() == [1 + form.eps, -1 - form.eps]
    assert ug.asarray(just_above, dtype=form).item() == 1 + form.eps
    x = edges(form)
    assert (ug.asarray(x).to(form).storage == nearest_code(form, x)).all()
    halves = np.arange(2**16, dtype=np.uint16)
    for source in (float16, bfloat16):
        wide = source.exact(halves.view(source.storage))
        wide, given = wide[~np.isnan(wide)], halves.view(source.storage)[~np.isnan(wide)]
        assert (ug.Tensor(given, source).to(form).storage == nearest_code(form, wide)).all()
    whole = np.array([0, 1, -1, 7, -9, 100, 2**13 + 2**7 - 1, 2**53 + 1, -(2**62) - 1, 2**63 - 1])
    for integers in (whole, whole[:6].astype(np.int8)):
        assert (ug.asarray(integers).to(form).storage == nearest_code(form, integers.astype(np.float64))).all()
    assert ug.asarray([True, False]).to(form).tolist() == [1, 0]


@each_format
@np.errstate(all="ignore")
def test_casts_from_are_of_the_exact_value(form: Float) -> None:
    codes, values = table(form)
    x = ug.Tensor(codes, form)
    np.testing.assert_array_equal(x.to(float64).numpy(), values)
    np.testing.assert_array_equal(x.to(float32).numpy(), values)
    np.testing.assert_array_equal(x.to(float16).numpy(), values.astype(np.float16))
    assert (x.to(ug.bool).numpy() == (values != 0)).all()
    for other in NEW:
        known = ~np.isnan(values)
        assert (ug.Tensor(codes[known], form).to(other).storage == nearest_code(other, values[known])).all()
    small = np.abs(values) < 2**31
    assert (ug.Tensor(codes[small], form).to("int32").numpy() == np.trunc(values[small])).all()
    with pytest.raises(FormatError, match="int32"):
        x.to("int32")


@each_format
@np.errstate(invalid="ignore")
def test_promotion_loses_nothing(form: Float) -> None:
    codes, values = table(form)
    for other in FLOATS:
        wide = promote(form, other)
        assert wide is promote(other, form)
        np.testing.assert_array_equal(wide.exact(ug.Tensor(codes, form).to(wide).storage), values)
    assert promote(form, ug.int64) is form


@each_format
def test_the_format_is_everywhere_by_its_name(form: Float, tmp_path: Path) -> None:
    assert ug.as_format(form.name) is form
    assert pickle.loads(pickle.dumps(form)) is form
    assert ug.finfo(form).max == float(np.nanmax(np.where(np.isinf(table(form)[1]), np.nan, table(form)[1])))
    x = ug.asarray([1.0, 2.5, -3.0], dtype=form.name)
    assert x.tolist() == [1.0, 2.5, -3.0]
    assert form.name in repr(x)
    assert pickle.loads(pickle.dumps(x)).tolist() == x.tolist()
    outside = x.numpy()
    assert outside.astype(np.float64).tolist() == x.tolist()
    if form.name.startswith("float8"):
        assert outside.dtype == getattr(ml_dtypes, form.name)
        assert np.shares_memory(outside, x.storage)
        assert ug.asarray(outside).dtype is form
    else:
        assert outside.dtype == np.float32
    if form is float8_e5m2:
        save(tmp_path / "y.safetensors", {"x": x})
        assert load(tmp_path / "y.safetensors")["x"].dtype is form
        return
    with pytest.raises(FormatError, match=f"no code for {form.name}"):
        save(tmp_path / "x.safetensors", {"x": x})
    assert not list(tmp_path.iterdir())
    save(tmp_path / "x.safetensors", {"x": x.to(float32)})
    assert load(tmp_path / "x.safetensors")["x"].to(form).tolist() == x.tolist()


@each_format
def test_a_network_trains(form: Float) -> None:
    """Parameters and activations in the format; the optimizer keeps float32 masters by itself."""
    ug.manual_seed(0)
    model = ug.nn.Sequential(ug.nn.Linear(4, 16), ug.nn.Tanh(), ug.nn.Linear(16, 2)).to(form)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4))
    inputs, classes = ug.asarray(x).to(form), ug.asarray((x[:, 0] > x[:, 1]).astype(np.int64))
    optimizer = ug.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for _ in range(30):
        loss = ug.cross_entropy(model(inputs), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("e", "m", "options"),
    [(1, 2, {}), (4, 0, {}), (0, 3, {"specials": "fn"}), (12, 3, {}), (8, 24, {}), (10, 9, {}), (4, 3, {"specials": "odd"}),
     (4, 3, {"signed": False}), (4, 3, {"bias": 2000}), (1, 0, {"specials": "fn"}), (2.5, 1, {}), (-1, 3, {})],
)  # fmt: skip
def test_floats_that_make_no_sense_are_refused(e: Any, m: int, options: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"expected|leave no number|outside"):
        Float(e, m, **options)
