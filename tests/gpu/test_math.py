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

from ulpgrad.kernels import triton_math
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
}


def run(name: str, *arrays: Any) -> Any:
    """A function of triton_math on arrays of the host."""
    xp, n = gpu.xp(), arrays[0].size
    out = xp.empty(arrays[0].shape, arrays[0].dtype)
    kernel = one if len(arrays) == 1 else two
    function = getattr(triton_math, name)
    launch(kernel, (cdiv(n, 1 << 14),), out, *map(xp.asarray, arrays), n, FUNCTION=function, BLOCK=1 << 14)
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
    function, *allowed = ONE[name]
    x = values(kind)
    with np.errstate(all="ignore"):
        want = function(x.astype(np.longdouble if kind is np.float64 else np.float64))
    compare(name, (x,), want, allowed[kind is np.float64])
