"""Products of affine tensors: exact sums on integer kernels, one rounding, and the gradients of their values."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import FormatError, ShapeError
from ulpgrad.formats import Affine

RNG = np.random.default_rng(0)
BASES = ("int8", "uint8")
SETTINGS: tuple[dict[str, Any], ...] = (
    {}, {"padding": 1}, {"padding": (2, 1), "stride": 2}, {"groups": 2, "padding": 1, "dilation": 2},
)  # fmt: skip


def made(shape: tuple[int, ...], base: str, axis: int | None = None, zero: bool = True) -> ug.Tensor:
    """Random codes with scales that are no powers of two, and zero points."""
    low, high = (-128, 128) if base == "int8" else (0, 256)
    count = () if axis is None else (shape[axis],)
    scale = RNG.uniform(0.003, 0.02, count)
    zeros = RNG.integers(low, high, count) if zero else np.zeros(count, np.int64)
    return ug.decode(ug.asarray(RNG.integers(low, high, shape).astype(base)), Affine(base, scale, zeros, axis))


def exact(t: ug.Tensor) -> np.ndarray:
    return np.asarray(t.dtype.exact(t.storage), dtype=np.float64)


def check(got: ug.Tensor, wanted: np.ndarray) -> None:
    """Rounded once to float32 of what float64 gives."""
    assert got.dtype is ug.float32
    assert got.shape == wanted.shape
    tolerance = np.spacing(np.abs(wanted).astype(np.float32)) * 0.51 + 1e-12 * np.abs(wanted).max(initial=1)
    assert (np.abs(got.storage - wanted) <= tolerance).all()


def ops_of(function: Any) -> list[str]:
    """Names of the kernels that a call runs."""
    with contextlib.redirect_stderr(io.StringIO()) as lines:
        ug.log_kernels()
        try:
            function()
        finally:
            ug.log_kernels(False)
    return [line.split()[0] for line in lines.getvalue().splitlines()]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("other", BASES)
@pytest.mark.parametrize("axes", [(None, None), (0, None), (None, 1), (0, 1)])
def test_matmul(base: str, other: str, axes: tuple[int | None, int | None]) -> None:
    for zero in (False, True):
        a, b = made((5, 37), base, axes[0], zero), made((37, 4), other, axes[1], zero)
        check(a @ b, exact(a) @ exact(b))
    assert ops_of(lambda: a @ b) == ["integer_matmul"]


def test_stacks_and_vectors() -> None:
    a, b = made((3, 2, 5), "int8"), made((3, 5, 4), "uint8")
    check(a @ b, exact(a) @ exact(b))
    a, b = made((3, 2, 5), "int8", axis=1), made((5, 4), "uint8", axis=1)
    check(a @ b, exact(a) @ exact(b))
    v = made((5,), "int8")
    check(v @ v, np.asarray(exact(v) @ exact(v)))
    for shape in ((0, 5), (2, 0)):
        a, b = made(shape, "int8"), made((shape[1], 3), "int8")
        check(a @ b, exact(a) @ exact(b))


def test_scales_along_the_sum_go_through_float32() -> None:
    a, b = made((3, 5), "int8", axis=1), made((5, 4), "int8")
    assert "integer_matmul" not in ops_of(lambda: a @ b)
    assert np.allclose((a @ b).storage, exact(a) @ exact(b), rtol=1e-5, atol=1e-4)
    mixed = ug.asarray(RNG.normal(size=(4, 3)).astype(np.float32))
    assert np.allclose((made((3, 4), "int8") @ mixed).dtype is ug.float32, True)


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
def test_linear(axis: int | None, activation: str | None) -> None:
    x, weight = made((2, 3, 20), "uint8"), made((6, 20), "int8", axis)
    bias = ug.asarray(RNG.normal(size=6).astype(np.float32))
    wanted = exact(x) @ exact(weight).T + exact(bias)
    if activation is None:
        check(ug.linear(x, weight, bias), wanted)
    got = ug.linear(x, weight, bias, activation=activation).storage
    plain = {None: wanted, "relu": np.maximum(wanted, 0), "tanh": np.tanh(wanted)}[activation]
    assert np.allclose(got, plain, rtol=1e-5, atol=1e-6)
    check(ug.linear(x, weight), exact(x) @ exact(weight).T)


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize(
    "settings", [{}, {"padding": 1}, {"padding": (2, 1), "stride": 2}, {"groups": 2, "padding": 1, "dilation": 2}]
)
@pytest.mark.parametrize("base", BASES)
def test_conv2d(base: str, settings: dict[str, Any], axis: int | None) -> None:
    x, weight = made((2, 4, 7, 6), base), made((6, 4 // settings.get("groups", 1), 3, 3), "int8", axis)
    bias = ug.asarray(RNG.normal(size=6))
    wanted = ug.conv2d(ug.asarray(exact(x)), ug.asarray(exact(weight)), bias, **settings).storage
    check(ug.conv2d(x, weight, bias, **settings), wanted)
    assert set(ops_of(lambda: ug.conv2d(x, weight, **settings))) == {"integer_conv2d"}


def test_sums_beyond_32_bits_are_exact() -> None:
    a = ug.decode(ug.asarray(np.full((1, 70_000), 255, np.uint8)), Affine("uint8", 0.5))
    check(a @ a.T, np.array([[70_000 * 127.5**2]]))


def test_gradients_are_those_of_the_values() -> None:
    form, other = Affine("uint8", 0.02, 100), Affine("int8", [0.01, 0.03, 0.02], [0, 5, -7], axis=1)
    x = ug.asarray(RNG.normal(size=(4, 5)).astype(np.float32)).requires_grad_()
    w = ug.asarray(RNG.normal(size=(5, 3)).astype(np.float32) * 0.5).requires_grad_()
    seed = ug.asarray(RNG.normal(size=(4, 3)).astype(np.float32))
    (x.to(form) @ w.to(other)).backward(seed)
    assert x.grad is not None
    assert w.grad is not None
    assert x.grad.dtype is ug.float32
    fast = x.grad.storage, w.grad.storage
    x.grad = w.grad = None
    (ug.fake_quantize(x, form) @ ug.fake_quantize(w, other)).backward(seed)
    assert np.allclose(fast[0], x.grad.storage, rtol=1e-5, atol=1e-6)
    assert np.allclose(fast[1], w.grad.storage, rtol=1e-5, atol=1e-6)
    quantized = x.to(form).detach().requires_grad_()
    loss = ug.sum((quantized @ quantized.T) ** 2)
    (g,) = ug.grad(loss, [quantized], create_graph=True)
    ug.sum(g * g).backward()
    assert quantized.grad is not None
    assert np.isfinite(quantized.grad.storage).all()


def test_gradient_of_linear_and_conv2d() -> None:
    x = made((2, 2, 5, 5), "uint8").requires_grad_()
    weight, bias = made((4, 2, 3, 3), "int8", 0).requires_grad_(), ug.zeros(4).requires_grad_()
    ug.sum(ug.conv2d(x, weight, bias, padding=1) ** 2).backward()
    plain = [ug.asarray(exact(t).astype(np.float32)).requires_grad_() for t in (x, weight, bias)]
    ug.sum(ug.conv2d(*plain, padding=1) ** 2).backward()
    for t, p in zip((x, weight, bias), plain, strict=True):
        assert t.grad is not None
        assert p.grad is not None
        assert np.allclose(t.grad.storage, p.grad.storage, rtol=1e-3, atol=1e-3 * np.abs(p.grad.storage).max())


def test_everything_else_is_its_values() -> None:
    x = made((3, 4), "uint8")
    assert np.allclose((x + x).storage, 2 * exact(x), rtol=1e-6)
    assert np.allclose(ug.softmax(x, axis=1).storage.sum(1), 1)
    assert (x[1:, 2]).dtype is x.dtype
    assert x.reshape(4, 3).dtype is x.dtype


def test_bad_products() -> None:
    with pytest.raises(ShapeError, match=r"matmul: inner sizes differ: \(2, 3\) @ \(2, 3\): 3 != 2"):
        made((2, 3), "int8") @ made((2, 3), "int8")
    with pytest.raises(ShapeError, match="linear: input sizes differ"):
        ug.linear(made((2, 3), "int8"), made((2, 4), "int8"))
    with pytest.raises(ShapeError, match="conv2d"):
        ug.conv2d(made((1, 3, 4, 4), "int8"), made((2, 2, 3, 3), "int8"))
    with pytest.raises(FormatError, match="channels"):
        ug.decode(ug.asarray(np.zeros((3, 2), np.int8)), Affine("int8", [1.0, 2.0], axis=0)) @ made((2, 2), "int8")
