"""Results of products rounded by random words inside Triton kernels: bit for bit what `quantize` makes of the same kernel's
results in float32, whether rows of results begin with a block of words or within one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.formats import Format, as_format, bfloat16, float8_e4m3fn, float16, float32
from ulpgrad.kernels import capabilities, gpu
from ulpgrad.kernels.matmul import spec

pytestmark = pytest.mark.skipif(capabilities.missing("triton") is not None, reason="needs Triton")

#       rows  k  columns
SIZES = {
    "cuda/triton-plain": ((37, 20, 36), (5, 40, 33)),
    "cuda/triton-grouped": ((37, 20, 36), (5, 40, 33)),
    "cuda/triton-persistent": ((37, 32, 48), (40, 64, 16)),
    "cuda/triton-split": ((9, 4096, 20), (3, 4096, 5)),
    "cuda/triton-vector": ((1, 40, 36), (1, 24, 33), (37, 24, 1)),
}
TARGETS = [("bfloat16", 24), ("float16", 32), ("float8_e4m3fn", 3), ("float8_e5m2", 31), ("e6m9", 16)]


def called(op: Any, rung: str, form: Format, arrays: Any, **params: Any) -> Any:
    given = tuple(None if a is None else gpu.to_device(a) for a in arrays)
    with dispatch.use(**{op.name: rung}):
        return gpu.to_host(dispatch.call(op, tuple(None if a is None else form for a in arrays), given, params)[0])


def operands(form: Format, rows: int, k: int, columns: int, spread: float = 2.0) -> Any:
    rng = np.random.default_rng(0)
    x, weight = (
        rng.standard_normal((rows, k)) * spread ** rng.integers(-9, 9, (rows, 1)),
        rng.standard_normal((columns, k)),
    )
    rest = rng.standard_normal(columns), rng.standard_normal(columns), rng.standard_normal((rows, columns))
    return tuple(form.encode(a) for a in (x, weight, *rest))


@pytest.mark.parametrize(("to", "bits"), TARGETS)
@pytest.mark.parametrize("form", [float32, bfloat16, float16, float8_e4m3fn], ids=str)
@pytest.mark.parametrize("rung", list(SIZES))
def test_bits(rung: str, form: Format, to: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if form is float8_e4m3fn and rung != "cuda/triton-grouped":
        pytest.skip("other rungs take no 8-bit floats here")
    if "float8" in to and rung == "cuda/triton-persistent":
        pytest.skip("writes results of 16 bits")
    monkeypatch.setattr(gpu, "processors", lambda: 8)
    target = as_format(to)
    stream = {"key": 0x299F31D0A4093822, "counter": 2**64 - 3, "random_bits": bits}
    for sizes in SIZES[rung]:
        arrays, finish = operands(form, *sizes), {"activation": "relu", "factor": 0.7}
        y = called(spec.linear, rung, form, arrays, dtype=float32, **finish)
        drawn = called(spec.linear_stochastic, rung, form, arrays, dtype=target, **stream, **finish)
        wanted = target.encode(spec.drawn(y, target, **stream))
        np.testing.assert_array_equal(drawn, wanted)
        assert len(np.unique(drawn)) > 4


@pytest.mark.parametrize("rung", ["cuda/triton-plain", "cuda/triton-grouped", "cuda/triton-persistent"])
def test_stacks(rung: str) -> None:
    """Indices of results run through all matrices, which begin within a block of words where their sizes are odd."""
    rng = np.random.default_rng(1)
    sizes = (
        (((3, 5, 8), (3, 8, 7)), ((2, 3, 5, 8), (3, 8, 12)))
        if rung != "cuda/triton-persistent"
        else (((3, 8, 32), (3, 32, 8)),)
    )
    for shapes in sizes:
        a, b = (rng.standard_normal(s).astype(np.float32) for s in shapes)
        stream = {"key": 5, "counter": 9, "random_bits": 24}
        y = called(spec.matmul, rung, float32, (a, b))
        found = called(spec.matmul_stochastic, rung, float32, (a, b), dtype=bfloat16, **stream)
        np.testing.assert_array_equal(found, bfloat16.encode(spec.drawn(y, bfloat16, **stream)))


def test_tensors_have_the_bits_of_the_cpu() -> None:
    """Of products that are exact in float32, whatever the order of their sums."""
    rng = np.random.default_rng(2)
    a, b = (ug.asarray(rng.integers(-8, 9, s) / 8, dtype="float32") for s in ((20, 33), (33, 30)))
    results = []
    for device in ("cpu", "cuda"):
        x, w = a.to(device), b.to(device)
        generator = ug.Generator(4)
        y = ug.matmul(x, w, dtype="float8_e5m2", rounding="stochastic", generator=generator)
        z = ug.linear(x, w.T, dtype="bfloat16", scale=2**-9 + 1, rounding="stochastic", generator=generator)
        results.append([gpu.to_host(t.storage) for t in (y, z)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
