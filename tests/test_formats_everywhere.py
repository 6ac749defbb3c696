"""Array functions on tensors of every number system: the right values in the right format, or an error that says what to do;
nothing in between."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError, FormatError

CHANNELS = ug.Affine("int8", [0.01, 0.5, 2.0], [0, 1, -2], axis=0)
MOVES: dict[str, Callable[[Any], Any]] = {
    "getitem": lambda x: x[0], "mask": lambda x: x[np.array([True, False, True])], "transpose": lambda x: x.T,
    "reshape": lambda x: x.reshape(-1), "concat": lambda x: ug.concat([x, x]), "stack": lambda x: ug.stack([x, x]),
    "flip": lambda x: ug.flip(x, axis=0), "roll": lambda x: ug.roll(x, 1), "sort": lambda x: ug.sort(x, axis=0),
    "take": lambda x: ug.take(x, ug.asarray([2, 0]), axis=0), "expand_dims": lambda x: ug.expand_dims(x, axis=0),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("form", [CHANNELS, "mxfp8_e4m3"], ids=["affine", "block"])
def test_codes_do_not_leave_their_scales(name: str, form: Any) -> None:
    x = ug.asarray(np.arange(12.0).reshape(3, 4)).to(form)
    with pytest.raises(FormatError, match=r"\.to\(float32\)"):
        MOVES[name](x)


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("form", ["q7.8", "q31.32", "float8_e4m3fn", "e6m9", ug.Affine("uint8", 0.25, 7)], ids=str)
def test_data_moves_in_its_format(name: str, form: Any) -> None:
    values = np.random.default_rng(0).integers(-8, 8, (3, 4)) / 2
    x = ug.asarray(values).to(form)
    held = x.to(ug.float64)
    got = MOVES[name](x)
    assert got.dtype is x.dtype
    np.testing.assert_array_equal(got.to(ug.float64).numpy(), MOVES[name](held).numpy())


def test_wide_fixed_point_sorts_and_compares_to_the_last_bit() -> None:
    codes = np.array([2**62 + 1, 2**62, -(2**62) - 1, 2**62 + 2], np.int64)
    x = ug.Tensor(codes, ug.Q(31, 32))
    assert ug.sort(x).storage.tolist() == sorted(codes.tolist())
    assert ug.sort(x, descending=True).storage.tolist() == sorted(codes.tolist(), reverse=True)
    assert (x > ug.Tensor(codes[1:2], ug.Q(31, 32))).tolist() == [True, False, False, True]
    assert x.argmax().item() == 3


@pytest.mark.parametrize("form", [CHANNELS, "mxint8"], ids=["affine", "block"])
def test_constants_and_arithmetic_of_scaled_formats(form: Any) -> None:
    like = ug.zeros((3, 4)).to(form)
    for made, value in ((ug.zeros_like(like), 0.0), (ug.ones_like(like), 1.0), (ug.full_like(like, 1.0), 1.0)):
        assert made.dtype is like.dtype
        wanted = ug.asarray(np.full((3, 4), value)).to(form)
        assert made.tolist() == wanted.tolist()
    x = ug.asarray(np.arange(12.0).reshape(3, 4) / 8).to(form)
    plain = x.to(ug.float32)
    for got, wanted in ((ug.clip(x, 0.1, 0.9), ug.clip(plain, 0.1, 0.9)), (x + x, plain + plain), (x * 2, plain * 2),
                        (x.sum(), plain.sum()), (ug.softmax(x, axis=-1), ug.softmax(plain, axis=-1))):  # fmt: skip
        assert got.dtype is ug.float32
        np.testing.assert_array_equal(got.numpy(), wanted.numpy())


@pytest.mark.parametrize("form", ["q7.8", "float8_e4m3fn", "mxfp8_e4m3", ug.Affine("int8", 0.05)], ids=str)
def test_no_gradient_is_silently_lost(form: Any) -> None:
    """A path through any number system reaches the leaf, or raises."""
    for function in (
        lambda t: t.to(ug.float32),
        lambda t: t * t,
        lambda t: ug.relu(t),
        lambda t: t.sum(axis=0),
        lambda t: t @ t,
    ):
        w = ug.full((4, 4), 0.5, requires_grad=True)
        y = function(w.to(form))
        assert y.requires_grad
        (y if y.dtype.kind == "float" else y.to(ug.float32)).sum().backward()
        assert w.grad is not None
        assert (w.grad.numpy() != 0).all()


def test_leaves_of_any_kind_have_gradients_of_a_float() -> None:
    for form, wanted in (("q7.8", ug.float32), ("q15.16", ug.float64), ("mxfp4_e2m1", ug.float32)):
        x = ug.ones((2, 32)).to(form).requires_grad_()
        (x * x if form[0] == "q" else x).to(ug.float32).sum().backward()
        assert x.grad is not None
        assert x.grad.dtype is wanted
        assert x.grad.tolist()[0][0] == (2.0 if form[0] == "q" else 1.0)


def test_explain_names_the_kernel_behind_a_number_system() -> None:
    q, a = ug.ones((8, 8), dtype="q7.8"), ug.ones((8, 8)).to(ug.Affine("int8", 0.1))
    blocks = ug.ones((8, 32)).to("mxint8")
    for function, operand, wanted in (
        ("matmul", q, "integer_matmul"), ("matmul", a, "integer_matmul"), ("linear", blocks, "block_matmul"),
    ):  # fmt: skip
        found = ug.explain(function, operand, operand)
        assert found.op.name == wanted
        assert found.taken.startswith("cpu/")
    with pytest.raises(ArgumentError, match="a table or plain NumPy"):
        ug.explain("tanh", q)


def test_scales_that_come_and_go_are_forgotten() -> None:
    """Calibration makes a format for each scale: neither it nor the plans of calls with it stay."""
    x = ug.ones((2, 2))
    made = weakref.ref(ug.Affine("int8", 0.123456))
    x.to(ug.Affine("int8", 0.123456))
    for i in range(dispatch.MOST_PLANS + 1):
        x.to(ug.Affine("int8", 1.0 + i / 8192))
    gc.collect()
    assert len(dispatch._plans) <= dispatch.MOST_PLANS
    assert made() is None
