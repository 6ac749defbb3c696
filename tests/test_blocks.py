"""Block formats: OCP MX v1.0 with its edge cases by name, against gfloat in float64 and against the rules in Python integers."""

from __future__ import annotations

import math
import pickle
from typing import Any

import gfloat
import gfloat.formats as known
import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

import ulpgrad as ug
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import FORMATS, Block, Fixed, Q, as_format

MX = ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1", "mxint8"]
ORACLE = {name: getattr(known, f"format_info_{name}") for name in MX}
EMAX = dict(zip(MX, (8, 15, 4, 2, 2, 0), strict=True))
AMAX = dict(zip(MX, (448.0, 57344.0, 28.0, 7.5, 6.0, 127 / 64), strict=True))


def block_named(name: str) -> Block:
    form = as_format(name)
    assert isinstance(form, Block)
    return form


def scale_of(name: str, values: Any) -> int:
    """The E8M0 code of the (one) block that values make."""
    stored = ug.asarray(np.asarray(values), dtype=ug.float64).to(name).storage
    return int(stored.scales.ravel()[0])


def exponent(x: float) -> int:
    """floor(log2 |x|) without a logarithm."""
    return math.frexp(x)[1] - 1


@pytest.mark.parametrize("name", MX)
def test_largest_exponents_are_the_specification_s(name: str) -> None:
    assert block_named(name).max_exponent == EMAX[name]
    assert block_named(name).element.max == AMAX[name]
    assert block_named(name).size == 32


@pytest.mark.parametrize("name", MX)
def test_values_as_gfloat(name: str) -> None:
    """Element by element, in float64, for blocks of all magnitudes; where the logarithm gfloat takes is not off."""
    rng, info = np.random.default_rng(0), ORACLE[name]
    for _ in range(40):
        x = rng.standard_normal(32) * 2.0 ** rng.integers(-100, 100)
        theirs = gfloat.quantize_block(info, x, gfloat.compute_scale_amax)
        ours = as_format(name).exact(ug.asarray(x).to(name).storage)
        lowest = Q(1, 6).min_code * 2.0 ** (exponent(np.abs(x).max()) - 6)
        same = (ours == theirs) | ((name == "mxint8") & (ours == lowest))
        assert same.all()


@pytest.mark.parametrize("name", MX)
def test_scale_at_the_edge_of_a_power_of_two(name: str) -> None:
    """amax = 2^100 (1 - 2^-24): its logarithm rounds to 100 in float32, and libraries that take it pick the wrong scale."""
    below = math.ldexp(1 - 2.0**-24, 100)
    assert scale_of(name, [below, 1.0]) == 99 - EMAX[name] + 127
    assert scale_of(name, [2.0**100]) == 100 - EMAX[name] + 127


@given(st.sampled_from(MX), st.floats(2.0**-120, 2.0**120))
def test_scale_rules(name: str, amax: float) -> None:
    largest, emax = AMAX[name], EMAX[name]
    element = block_named(name).element
    digits = element.bits - 2 if isinstance(element, Fixed) else element.mantissa_bits
    floor, rceil, even = (scale_of(name + rule, [amax, -amax / 3]) - 127 for rule in ("", "_rceil", "_even"))
    assert floor == max(-127, exponent(amax) - emax)
    assert amax <= math.ldexp(largest, rceil)
    assert rceil == -127 or amax > math.ldexp(largest, rceil - 1)
    rounded = math.floor(math.ldexp(amax, digits - exponent(amax)) + 0.5)  # amax to the element's digits
    assert even == max(-127, exponent(math.ldexp(rounded, exponent(amax) - digits)) - emax)


@pytest.mark.parametrize("name", MX)
def test_blocks_that_are_not_numbers(name: str) -> None:
    for wrong in (np.nan, np.inf, -np.inf):
        x = np.ones((2, 64))
        x[0, 40] = wrong
        y = ug.asarray(x).to(name)
        assert y.storage.scales.tolist()[0][1] == 0xFF
        values = y.to(ug.float32).numpy()
        assert np.isnan(values[0, 32:]).all()
        assert (values[0, :32] == 1).all()
        assert (values[1] == 1).all()


@pytest.mark.parametrize("name", MX)
def test_zeros_and_the_smallest_scale(name: str) -> None:
    y = ug.zeros(64).to(name)
    assert y.storage.scales.tolist() == [0, 0]
    assert y.to(ug.float32).tolist() == [0.0] * 64
    assert scale_of(name, [2.0**-149]) == 0  # 2^-127 is the least there is
    assert scale_of(name, [1.7e308]) == 254


@pytest.mark.parametrize("name", MX)
@pytest.mark.parametrize("length", [1, 5, 31, 32, 33, 70])
def test_a_short_last_block_is_as_if_padded(name: str, length: int) -> None:
    x = np.random.default_rng(length).standard_normal((3, length)) * 5
    padded = np.zeros((3, -(-length // 32) * 32))
    padded[:, :length] = x
    short, whole = ug.asarray(x).to(name), ug.asarray(padded).to(name)
    assert (short.shape, short.storage.scales.shape) == ((3, length), (3, -(-length // 32)))
    assert (short.storage.codes == whole.storage.codes[:, :length]).all()
    assert (short.storage.scales == whole.storage.scales).all()


@given(
    hnp.arrays(np.float32, (4, 70), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    st.sampled_from(MX),
    st.integers(-2, 1),
)
def test_any_axis(x: np.ndarray, name: str, axis: int) -> None:
    along = ug.asarray(x).to(name, axis=axis).to(ug.float64).numpy()
    moved = np.moveaxis(
        ug.asarray(np.ascontiguousarray(np.moveaxis(x, axis, -1))).to(name).to(ug.float64).numpy(), -1, axis
    )
    np.testing.assert_array_equal(along, moved)


@pytest.mark.parametrize(("rule", "error"), [("", 2.97), ("_even", 2.78), ("_rceil", 2.65)])
def test_errors_on_normal_data(rule: str, error: float) -> None:
    """NUMBERS: the rms error of MXFP8 e4m3 on normal data is 2.97, 2.78 and 2.65 % for floor, even and rceil."""
    x = np.random.default_rng(0).standard_normal((4096, 32))
    y = ug.asarray(x).to("mxfp8_e4m3" + rule).to(ug.float64).numpy()
    assert abs(100 * math.sqrt(((y - x) ** 2).mean() / (x**2).mean()) - error) < 0.05


def test_rounding_modes_and_random_bits() -> None:
    x = ug.asarray(np.random.default_rng(1).standard_normal((8, 64)))
    low, high = (x.to("mxfp6_e2m3_rceil", rounding=r).to(ug.float64).numpy() for r in ("down", "up"))
    assert (low <= x.numpy()).all()
    assert (high >= x.numpy()).all()
    drawn = x.to("mxfp6_e2m3_rceil", rounding="stochastic", generator=ug.Generator(1)).to(ug.float64).numpy()
    assert ((drawn == low) | (drawn == high)).all()
    with pytest.raises(ArgumentError, match="always clamped"):
        x.to("mxfp8_e4m3", overflow="ieee")


def test_arithmetic_gives_float32_and_gradients_pass() -> None:
    x, w = ug.randn(4, 64, requires_grad=True), ug.randn(64, 8, requires_grad=True)
    y = x.to("mxfp8_e4m3") @ w.to("mxfp8_e4m3", axis=0)
    assert y.dtype is ug.float32
    (y * y).sum().backward()
    assert x.grad is not None
    assert w.grad is not None
    qx, qw = x.detach().to("mxfp8_e4m3").to(ug.float32), w.detach().to("mxfp8_e4m3", axis=0).to(ug.float32)
    g = 2 * (qx @ qw)
    np.testing.assert_allclose(x.grad.numpy(), (g @ qw.mT).numpy(), rtol=1e-5)
    np.testing.assert_allclose(w.grad.numpy(), (qx.mT @ g).numpy(), rtol=1e-5)


def test_what_a_blocked_tensor_is() -> None:
    x = ug.randn(4, 64).to("mxfp4_e2m1")
    assert (x.shape, x.ndim, x.size, x.nbytes) == ((4, 64), 2, 256, 256 + 8)
    assert x.dtype.bits_per_value == 4.25
    assert x.to(ug.float32).to("mxfp4_e2m1").tolist() == x.tolist()
    assert pickle.loads(pickle.dumps(x)).tolist() == x.tolist()
    assert ug.copy(x).tolist() == x.tolist()
    assert "mxfp4_e2m1" in repr(x)
    for name in [n for n, f in FORMATS.items() if isinstance(f, Block)]:
        assert as_format(name) is pickle.loads(pickle.dumps(as_format(name)))
    for attempt in (
        lambda: x[0],
        lambda: ug.reshape(x, (256,)),
        lambda: x.mT,
        lambda: ug.concat([x, x]),
        lambda: np.asarray(x.storage),
    ):
        with pytest.raises(FormatError, match=r"\.to\(float32\)"):
            attempt()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Block(ug.float16), "at most 8 bits"), (lambda: Block(ug.float8_e8m0fnu), "with a sign"),
    (lambda: Block(ug.float8_e5m2, 0), "size=0"), (lambda: Block(ug.float8_e5m2, 32, "ceil"), "rule='ceil'"),
    (lambda: ug.asarray(1.0).to("mxfp8_e4m3"), "no axis"), (lambda: ug.encode(ug.ones(32), "mxint8"), "codes and scales"),
])  # fmt: skip
def test_bad_blocks(make: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        make()


def test_axis_out_of_range() -> None:
    with pytest.raises(ArgumentError, match="axis 2 is outside"):
        ug.ones((2, 3)).to("mxint8", axis=2)


def test_what_scaling_makes_vanish_still_rounds_up() -> None:
    x = ug.asarray([1e300, 1e-300, -1e-300], dtype=ug.float64)
    assert x.to("mxfp8_e4m3", rounding="up").storage.codes.tolist()[1:] == [1, 0x80]
    assert x.to("mxfp8_e4m3", rounding="down").storage.codes.tolist()[1:] == [0, 0x81]
