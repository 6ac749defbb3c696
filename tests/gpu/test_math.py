"""Elementary functions of Triton kernels against NumPy in the widest floats there are: edges, any bits, and ordinary sizes."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ulpgrad.formats import as_format
from ulpgrad.kernels import capabilities, gpu
from ulpgrad.kernels.elementwise import reference
from ulpgrad.testing import ulp_error

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

from ulpgrad.kernels import triton_exact, triton_math, triton_trigonometry
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton


@triton.jit
def one(out, x, n, FUNCTION: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y = FUNCTION(tl.load(x + i, mask=i < n, other=1))
    tl.store(out + i, y, mask=i < n)


@triton.jit
def two(out, x, y, n, FUNCTION: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    z = FUNCTION(tl.load(x + i, mask=i < n, other=1), tl.load(y + i, mask=i < n, other=1))
    tl.store(out + i, z, mask=i < n)


def each(function: Callable[[float], float]) -> Callable[[Any], Any]:
    return np.vectorize(lambda v: function(float(v)), otypes=[np.float64])


# function: NumPy's, the error allowed in float32 and in float64
ONE: dict[str, tuple[Callable[[Any], Any], float, float]] = {
    "exp": (np.exp, 1, 1),
    "expm1": (np.expm1, 2, 2),
    "log": (np.log, 1, 1),
    "log2": (np.log2, 2, 2),
    "log10": (np.log10, 2, 2),
    "log1p": (np.log1p, 2, 2),
    "tanh": (np.tanh, 2, 2),
    "sigmoid": (reference.sigmoid, 2, 2),
    "erf": (each(math.erf), 2, 3),
    "erfc": (each(math.erfc), 6, 8),
    "normal_cdf": (lambda x: reference.normal_cdf(x.astype(np.float64)), 6, 8),
    "normal_density": (lambda x: reference.normal_density(x.astype(np.float64)), 3, 4),
    "square_root": (np.sqrt, 0.5, 0.5),
    "floor": (np.floor, 0, 0),
    "ceil": (np.ceil, 0, 0),
    "trunc": (np.trunc, 0, 0),
    "rint": (np.rint, 0, 0),
    "sin": (np.sin, 2, 2),
    "cos": (np.cos, 2, 2),
    "tan": (np.tan, 3, 3),
    "asin": (np.arcsin, 3, 3),
    "acos": (np.arccos, 2, 2),
    "atan": (np.arctan, 3, 3),
    "sinh": (np.sinh, 3, 3),
    "cosh": (np.cosh, 2, 2),
    "asinh": (np.arcsinh, 3, 3),
    "acosh": (np.arccosh, 3, 3),
    "atanh": (np.arctanh, 3, 3),
}
TWO: dict[str, tuple[Callable[[Any, Any], Any], float, float]] = {
    "divide": (np.divide, 0.5, 0.5),
    "maximum": (np.maximum, 0, 0),
    "minimum": (np.minimum, 0, 0),
    "copysign": (np.copysign, 0, 0),
    "hypot": (np.hypot, 1, 2),
    "remainder": (np.remainder, 0.5, 0.5),
    "floor_divide": (np.floor_divide, 1, 2),
    "power": (np.power, 1, 2),
    "atan2": (np.arctan2, 3, 3),
}


def function(name: str) -> Any:
    """The function of that name, in whichever file it is."""
    return next(found for m in (triton_math, triton_exact, triton_trigonometry) if (found := getattr(m, name, None)))


def run(name: str, *arrays: Any) -> Any:
    """A function of triton_math on arrays of the host. An interpreter wants many values in each operation; a compiler would take
    minutes for as many."""
    xp, n = gpu.xp(), arrays[0].size
    out = xp.empty(arrays[0].shape, arrays[0].dtype)
    kernel, block = one if len(arrays) == 1 else two, 1 << 14 if gpu.mode() == "emulated" else 256
    launch(kernel, (cdiv(n, block),), out, *map(xp.asarray, arrays), n, FUNCTION=function(name), BLOCK=block)
    return out.get()


def edges(kind: Any) -> Any:
    info = np.finfo(kind)
    sizes = [
        0, 1, 2, 0.5, 3, np.inf, info.max, info.tiny, info.smallest_subnormal, info.tiny * 0.75, info.eps, 1 / info.eps, 0.625,
        0.3466, math.sqrt(0.5), math.sqrt(2), 10, 100, 1e4, 88, 88.7, 103, 709, 745, np.pi, np.pi / 2, np.pi / 4,
    ]  # fmt: skip
    with np.errstate(all="ignore"):
        around = np.concatenate([np.nextafter(np.array(sizes, kind), kind(to)) for to in (0, np.inf)])
    values = np.concatenate([np.array(sizes, kind), around])
    return np.concatenate([values, -values, np.array([np.nan], kind)])


def values(kind: Any, seed: int = 0) -> Any:
    """Edges, values of any bits, and values of ordinary sizes."""
    rng = np.random.default_rng(seed)
    anything = rng.integers(0, 256, 3000 * np.dtype(kind).itemsize, np.uint8).view(kind)
    with np.errstate(all="ignore"):
        return np.concatenate([
        edges(kind), anything, *(rng.normal(size=3000).astype(kind) * kind(s) for s in (0.01, 1, 10, 100)),
        (1 + rng.normal(size=1000) * 1e-3).astype(kind),
    ])  # fmt: skip


def compare(name: str, arrays: tuple[Any, ...], want: Any, allowed: float) -> None:
    kind = arrays[0].dtype
    got = run(name, *arrays)
    with np.errstate(all="ignore"):
        error = ulp_error(got, want, as_format(kind))
    worst = int(np.argmax(error))
    given = ", ".join(repr(a[worst]) for a in arrays)
    assert error[worst] <= allowed, f"{name}({given}) = {got[worst]!r}, not {want[worst]!r}: {error[worst]:.3g} ULP"


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", ONE)
def test_one(name: str, kind: Any) -> None:
    exact, *allowed = ONE[name]
    x = values(kind)
    with np.errstate(all="ignore"):
        want = exact(x.astype(np.longdouble if kind is np.float64 else np.float64))
    compare(name, (x,), want, allowed[kind is np.float64])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", TWO)
def test_two(name: str, kind: Any) -> None:
    """Every edge against every other, and values of every size against others."""
    exact, *allowed = TWO[name]
    (a, b), x = np.meshgrid(edges(kind), edges(kind)), values(kind)
    x, y = np.concatenate([a.ravel(), x, x]), np.concatenate([b.ravel(), x[::-1], np.roll(x, 1)])
    wide = np.longdouble if kind is np.float64 and name not in ("remainder", "floor_divide") else np.float64
    with np.errstate(all="ignore"):
        want = exact(x.astype(wide), y.astype(wide))
    compare(name, (x, y), want, allowed[kind is np.float64])


def test_values_for_units_of_tf32_are_rounded() -> None:
    """To 11 digits, which the units read of what they are given."""
    from ulpgrad.kernels.attention.triton_operands import to_tf32

    rng = np.random.default_rng(5)
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, 1 + 2.0**-11, 1 + 2.0**-10, np.finfo(np.float32).max, 1e-45]
    x = np.r_[np.float32(edges), rng.standard_normal(500).astype(np.float32)]
    x = np.r_[x, np.array([0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)]  # NaN as devices make it
    given, out = gpu.to_device(x), gpu.xp().empty(x.size, np.float32)
    launch(one, (cdiv(x.size, 256),), out, given, x.size, FUNCTION=to_tf32, BLOCK=256)
    found = gpu.to_host(out)
    assert np.array_equal(np.isnan(found), np.isnan(x))
    plain = np.isfinite(x) & (np.abs(x) < 1e38) & (np.abs(x) > 1e-30)
    assert not (found.view(np.uint32)[plain] & 0x1FFF).any()
    assert (np.abs(found[plain] / x[plain].astype(np.float64) - 1) <= 2.0**-11).all()
    np.testing.assert_array_equal(found[:6], x[:6])
