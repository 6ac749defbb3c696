"""What the stamped-out kernel tests cannot see of elementwise ops: steps between codes, layouts kept, errors that teach."""

from __future__ import annotations

import contextlib
import itertools
import operator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError, KernelError, ShapeError
from ulpgrad.formats import Format, as_format, bfloat16, float16, float32, float64
from ulpgrad.kernels import registry
from ulpgrad.kernels.elementwise.expression import to_cpp
from ulpgrad.kernels.elementwise.spec import OPS
from ulpgrad.kernels.elementwise.table import ROWS, Row
from ulpgrad.kernels.numba_source import expression


def call(name: str, *arrays: np.ndarray, form: Format | None = None, **params: Any) -> np.ndarray:
    formats = tuple(form or as_format(a.dtype) for a in arrays)
    return np.asarray(dispatch.call(OPS[name], formats, arrays, params)[0])


@np.errstate(all="ignore")
@pytest.mark.parametrize("form", [float16, bfloat16, float32, float64])
def test_nextafter_steps_by_one_code(form: Format) -> None:
    dtype = ml_dtypes.bfloat16 if form is bfloat16 else form.storage
    x = np.array([0.0, -0.0, 1.0, -1.0, 2.0, np.inf, -np.inf, np.nan, 6e-8, 3e4, 0.3]).astype(dtype)
    for target in (np.inf, -np.inf, 0.0, 1.0, np.nan):
        y = np.full(x.shape, target).astype(dtype)
        got = call("nextafter", x.view(form.storage), y.view(form.storage), form=form).view(dtype)
        np.testing.assert_array_equal(got.astype(np.float64), np.nextafter(x, y).astype(np.float64))


ZEROS = (0.0, -0.0, 1.0, -1.0, 0.5, -2.5, np.inf, -np.inf, np.nan, 1e-42, -1e-42, 1e30, -1e30)
FUNCTIONS = [  # of floats, and of nothing else
    row
    for row in ROWS.values()
    if hasattr(ug, row.name)
    and row.name != "where"
    and row.takes in ("float", "real", "any")
    and not row.params
    and not row.choice
]


@np.errstate(all="ignore")
@pytest.mark.parametrize("row", FUNCTIONS, ids=operator.attrgetter("name"))
def test_rungs_agree_on_the_signs_of_zeros(row: Row) -> None:
    """And on what is infinite or no number: the stamped-out tests take 0 and -0 for the same."""
    op, name = OPS[row.name], row.name
    together = np.array(list(itertools.product(ZEROS, repeat=len(row.names()))), np.float32).T
    for form in {float16, float32, bfloat16} & set(op.formats):
        arrays = [form.encode(np.ascontiguousarray(x)) for x in together]
        seen = {}
        for rung in registry.ladder(op):
            with ug.use(**{name: rung.name}), contextlib.suppress(KernelError):  # one that does not take the format
                out = np.asarray(dispatch.call(op, (form,) * len(arrays), tuple(arrays), {})[0])
                seen[rung.name] = out if out.dtype == bool else form.decode(out).astype(np.float64)
        wanted = seen.pop("cpu/reference")
        assert seen
        for rung_name, got in seen.items():
            for same in (np.isnan, np.isinf, lambda v: v == 0, lambda v: np.signbit(v) & ~np.isnan(v)):
                np.testing.assert_array_equal(same(got), same(wanted), err_msg=f"{rung_name} {form}")


def test_results_keep_the_layout_of_their_operand() -> None:
    image = np.ones((2, 8, 8, 3), np.float32).transpose(0, 3, 1, 2)  # NCHW in name, channels last in memory
    for out in (call("relu", image), call("add", image, image), call("add", image, np.ones((3, 1, 1), np.float32))):
        assert out.shape == image.shape
        assert out.strides == image.strides


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nextafter_of_many_values_has_numpys_bits(dtype: Any) -> None:
    limits = np.finfo(dtype)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, limits.max, -limits.max, limits.tiny, -limits.tiny, limits.smallest_subnormal,
               -limits.smallest_subnormal, 1.0, -1.0, 1.5]  # fmt: skip
    x, y = (part.ravel() for part in np.meshgrid(np.array(special, dtype), np.array(special, dtype)))
    rng = np.random.default_rng(0)
    many = [np.concatenate([side, rng.standard_normal(40_000).astype(dtype), side]) for side in (x, y)]
    for a, b in (
        (x, y),
        many,
        [m[:20_000].reshape(200, 100) for m in many],
        [m[::2] for m in many],
        (many[0], many[1][:1]),
    ):
        bits = call("nextafter", a, b).view(f"u{a.itemsize}")
        with np.errstate(all="ignore"):
            wanted = np.nextafter(a, b)
        np.testing.assert_array_equal(bits[~np.isnan(wanted)], wanted.view(bits.dtype)[~np.isnan(wanted)])
        np.testing.assert_array_equal(np.isnan(bits.view(dtype)), np.isnan(wanted))


def test_integers_to_negative_powers_raise() -> None:
    with pytest.raises(ArgumentError, match="convert to a float format first"):
        call("pow", np.array([2, 3]), np.array([1, -1]))


def test_shapes_that_do_not_broadcast_are_named() -> None:
    with pytest.raises(ShapeError, match=r"add: shapes \(2, 3\) and \(4,\) do not broadcast: axis -1 is 3 and 4"):
        call("add", np.ones((2, 3), np.float32), np.ones(4, np.float32))
    with pytest.raises(ShapeError, match=r"relu_gradient: g and y differ in shape"):
        call("relu_gradient", np.ones((2, 3), np.float32), np.ones(3, np.float32))


def test_unknown_variant_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"gelu: approximate='erf': expected 'none' or 'tanh'"):
        call("gelu", np.ones(3, np.float32), approximate="erf")


def test_formulas_translate() -> None:
    assert to_cpp("where(x > 0, x, 2 * x)") == "((x > T(0)) ? x : (T(2) * x))"
    assert expression("where(x > 0, exp(x), -x)", {"x": "v0"}) == "(_exp(v0) if (v0 > T(0)) else (-v0))"
    with pytest.raises(SyntaxError, match="is not in the expression language"):
        to_cpp("x if x > 0 else 0")
