"""The C++ vector functions against NumPy in float64, over the whole range of float32, on every instruction set.

Here every 1021st bit pattern is tried. bench/float32_ulps.py tries all of them; on portable, AVX2 and AVX-512 code it gave
at most: exp 1.10 ULP, tanh 1.55, erf 1.62 over all 2^32; log 0.92 over all positive values; sigmoid 1.72 over all negative
values and those from 2^-31 to 3.7e19.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ulpgrad.formats import bfloat16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.elementwise import reference
from ulpgrad.kernels.elementwise.cpp_loops import ONLY_FLOAT32
from ulpgrad.testing import ulp_error

pytestmark = pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))

ISAS = () if native.missing() else tuple(native.module().cpu_isas())
F = reference.FUNCTIONS

# Largest error allowed in ULPs: of float32 over all its values, of float64 over a sample (whose reference is itself off
# by up to one).
BOUNDS: dict[str, tuple[Callable[..., np.ndarray], float, float]] = {
    "exp": (F["exp"], 1.25, 2.5),
    "expm1": (F["expm1"], 2.0, 3.0),
    "log": (F["log"], 1.0, 2.5),
    "log1p": (F["log1p"], 2.0, 3.0),
    "log2": (F["log2"], 0.75, 0),
    "log10": (F["log10"], 0.75, 0),
    "sin": (F["sin"], 1.6, 0),
    "cos": (F["cos"], 1.6, 0),
    "tan": (F["tan"], 1.8, 0),
    "asin": (F["asin"], 1.8, 0),
    "acos": (F["acos"], 1.4, 0),
    "atan": (F["atan"], 2.0, 0),
    "sinh": (F["sinh"], 1.8, 0),
    "cosh": (F["cosh"], 1.8, 0),
    "asinh": (F["asinh"], 2.0, 0),
    "acosh": (F["acosh"], 2.0, 0),
    "atanh": (F["atanh"], 1.5, 0),
    "tanh": (F["tanh"], 1.75, 3.0),
    "erf": (F["erf"], 1.75, 3.0),
    "sigmoid": (F["sigmoid"], 1.75, 3.0),
    "sqrt": (F["sqrt"], 0.5, 0.5),
    "reciprocal": (lambda x: 1 / x, 0.5, 0.5),
}
# Where the factor that x multiplies is subnormal, it has fewer digits: error is measured in ULPs of x times the smallest
# normal number there.
PRODUCTS: dict[str, tuple[Callable[..., np.ndarray], float, float]] = {
    "gelu_none": (F["normal_cdf"], 6.0, 8.0),
    "silu": (F["sigmoid"], 3.0, 4.0),
}
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 88.72283, 88.72284, -87.33655, -103.97208, -103.9721,
                    1.17549435e-38, 1.4e-45, -1.4e-45, 0.70710677, 0.7071068, 1.4142135, 3.4028235e38], np.float32)  # fmt: skip


def every_1024th_float32() -> np.ndarray:
    """Bit patterns of all signs and exponents, an odd step apart so that low bits vary too."""
    return np.concatenate([np.arange(0, 2**32, 1021, dtype=np.uint64).astype(np.uint32).view(np.float32), SPECIAL])


def sample_float64() -> np.ndarray:
    rng = np.random.default_rng(0)
    spread = rng.integers(0, 2**64, 200_000, dtype=np.uint64).view(np.float64)
    return np.concatenate(
        [spread, rng.normal(size=200_000) * 3, rng.uniform(-745, 710, 100_000), SPECIAL.astype(np.float64)]
    )


@np.errstate(all="ignore")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [*BOUNDS, *PRODUCTS])
def test_float32(name: str, isa: str) -> None:
    x = every_1024th_float32()
    got = native.module().elementwise(name, "float32", isa)(x)
    wide = x.astype(np.float64)
    factor, bound, _ = BOUNDS.get(name) or PRODUCTS[name]
    expected = factor(wide) if name in BOUNDS else wide * factor(wide)
    magnitude = None if name in BOUNDS else wide * np.maximum(factor(wide), float32.smallest_normal)
    error = ulp_error(got, expected, float32, magnitude)
    assert error.max() <= bound, f"{error.max():.3f} ULP at {x[error.argmax()]!r}: got {got[error.argmax()]!r}"


@np.errstate(all="ignore")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [n for n in (*BOUNDS, *PRODUCTS) if n not in ONLY_FLOAT32])
def test_float64(name: str, isa: str) -> None:
    x = sample_float64()
    got = native.module().elementwise(name, "float64", isa)(x)
    factor, _, bound = BOUNDS.get(name) or PRODUCTS[name]
    expected = factor(x) if name in BOUNDS else x * factor(x)
    magnitude = None if name in BOUNDS else x * np.maximum(factor(x), float64.smallest_normal)
    error = ulp_error(got, expected, float64, magnitude)
    assert error.max() <= bound, f"{error.max():.3f} ULP at {x[error.argmax()]!r}: got {got[error.argmax()]!r}"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["exp", "tanh", "gelu_none", "log1p", "erf", "softplus", "sin", "atan"])
def test_an_element_does_not_depend_on_its_neighbours(name: str, isa: str) -> None:
    """The vector loop, its remainder, another offset and another number of threads give the same bits."""
    loop = native.module().elementwise(name, "float32", isa)
    x = np.random.default_rng(1).normal(size=100_003).astype(np.float32) * 4
    threads = native.module().get_num_threads()
    try:
        native.module().set_num_threads(1)
        whole = loop(x)
        native.module().set_num_threads(2)
        assert loop(x).tobytes() == whole.tobytes()
    finally:
        native.module().set_num_threads(threads)
    for start in range(1, 40, 3):
        assert loop(x[start : start + 37].copy()).tobytes() == whole[start : start + 37].tobytes()


@np.errstate(all="ignore")
@pytest.mark.parametrize("isa", ISAS)
def test_angles_of_any_size_and_quotient(isa: str) -> None:
    """atan2 of all signs, zeros and infinities, and of quotients that overflow; sines of angles that are nearly a multiple of
    pi / 2, far out."""
    rng = np.random.default_rng(3)
    spread = rng.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    first, second = (part.ravel() for part in np.meshgrid(SPECIAL, SPECIAL))
    normal = rng.normal(size=(2, 200_000)).astype(np.float32)
    y = np.concatenate([first, spread, normal[0]])
    x = np.concatenate([second, rng.permutation(spread), normal[1]])
    got, expected = native.module().elementwise("atan2", "float32", isa)(y, x), np.arctan2(*map(np.float64, (y, x)))
    assert ulp_error(got, expected, float32).max() <= 2.0
    known = ~np.isnan(expected)
    assert (np.signbit(got) == np.signbit(expected))[known].all()
    near = np.array(
        [16367173 * 2.0**72, 12796703 * 2.0**25, 355.0, 710.0, 8192.0, 8191.9995, 103993.0, 3e38], np.float32
    )
    for name in ("sin", "cos", "tan"):
        got = native.module().elementwise(name, "float32", isa)(near)
        assert ulp_error(got, F[name](near.astype(np.float64)), float32).max() <= 1.8, name


@np.errstate(all="ignore")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["exp", "sin", "floor", "negative", "relu", "sign", "sqrt", "gelu_tanh", "log10"])
def test_bfloat16_is_float32_rounded(name: str, isa: str) -> None:
    """Of every code there is, and of runs of any length."""
    codes = np.arange(2**16, dtype=np.uint16)
    loop, wide = (native.module().elementwise(name, form, isa) for form in ("bfloat16", "float32"))
    got, expected = loop(codes), bfloat16.encode(wide(bfloat16.decode(codes).astype(np.float32)))
    number = ~np.isnan(bfloat16.decode(expected))
    np.testing.assert_array_equal(got[number], expected[number])
    assert np.isnan(bfloat16.decode(got[~number])).all()
    for n in range(1, 70, 4):
        np.testing.assert_array_equal(loop(codes[16000 : 16000 + n].copy()), got[16000 : 16000 + n])


def test_logarithms_of_powers_are_whole() -> None:
    for base, name, low, high in ((2.0, "log2", -149, 128), (10.0, "log10", -5, 11)):
        x = np.array([base**k for k in range(low, high)], np.float32)
        assert native.module().elementwise(name, "float32")(x).tolist() == list(range(low, high))


def test_the_script_over_all_values_finds_the_worst() -> None:
    from ulpgrad.bench.float32_ulps import CHUNK, largest

    one = int(np.float32(1).view(np.uint32))
    for error, x in largest("exp", one, one + CHUNK).values():
        assert 0.5 <= error <= 1.25
        assert 1 <= x < 1.01


def test_signs_of_zero_survive() -> None:
    zeros = np.array([0.0, -0.0], np.float32)
    for name in ("expm1", "log1p", "tanh", "erf", "silu", "gelu_none", "sqrt", "round"):
        assert np.signbit(native.module().elementwise(name, "float32")(zeros)).tolist() == [False, True], name


@pytest.mark.parametrize("format_name", ["float32", "float64"])
def test_remainder_and_floor_divide_of_far_quotients(format_name: str) -> None:
    """From quotients within the type's digits to quotients of 2^250, as NumPy gives them."""
    rng = np.random.default_rng(2)
    x, y = ((rng.normal(size=20_000) * 2.0 ** rng.integers(-120, 120, 20_000)).astype(format_name) for _ in range(2))
    x[:5000], y[:5000] = np.rint(rng.normal(size=5000) * 100), np.rint(rng.normal(size=5000) * 5)
    with np.errstate(all="ignore"):
        assert native.module().elementwise("remainder", format_name)(x, y).tobytes() == np.remainder(x, y).tobytes()
        np.testing.assert_array_equal(native.module().elementwise("floor_divide", format_name)(x[:5000], y[:5000]),
                                      np.floor_divide(x[:5000], y[:5000]))  # fmt: skip


def test_wrong_arguments_raise() -> None:
    loop = native.module().elementwise("add", "float32")
    x = np.ones(3, np.float32)
    with pytest.raises(TypeError, match="expected 2 arguments, got 1"):
        loop(x)
    with pytest.raises(TypeError, match=r"operand 2 holds float64, expected a numpy\.ndarray of float32"):
        loop(x, x.astype(np.float64))
    with pytest.raises(TypeError, match="operand 1 is of type list"):
        loop([1.0], x)
    with pytest.raises(ValueError, match="do not broadcast"):
        loop(x, np.ones(4, np.float32))
    with pytest.raises(ValueError, match="there is no loop 'nonsense'"):
        native.module().elementwise("nonsense", "float32")
