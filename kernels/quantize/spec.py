"""quantize: values to codes of any format, rounded once in the mode asked for. fake_quantize: the same, but the values
themselves come back, on the format's grid. Element i of a stochastic rounding takes word i of the Philox stream that starts
at block `counter`, so that its bits hang on nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import FormatError
from ulpgrad.formats import (
    FLOATS,
    INTEGERS,
    Array,
    Format,
    Q,
    Random,
    as_format,
    bfloat16,
    float16,
    float32,
    float64,
)
from ulpgrad.formats.rounding import RANDOM_BITS, ROUNDINGS, check
from ulpgrad.kernels.random import philox
from ulpgrad.kernels.spec import Op, Sample, first

SOURCES = (float16, bfloat16, float32, float64, *INTEGERS)
OPTIONS: dict[str, Any] = {
    "rounding": "nearest_even", "overflow": None, "subnormals": True, "key": 0, "counter": 0, "random_bits": RANDOM_BITS,
}  # fmt: skip


def random_words(rounding: str, key: int, counter: int, random_bits: int, shape: tuple[int, ...]) -> Random | None:
    """What a stochastic rounding draws from; None for other modes."""
    check(rounding, random_bits)
    if rounding != "stochastic":
        return None
    return Random(philox.words(key, counter, int(np.prod(shape, dtype=np.int64))).reshape(shape), random_bits)


def encoded(x: Array, *, dtype: Format, rounding: str, overflow: str | None, subnormals: bool, key: int, counter: int,
            random_bits: int) -> Any:  # fmt: skip
    """Codes by the format's own `encode`: the definition."""
    drawn = random_words(rounding, key, counter, random_bits, x.shape)
    return dtype.encode(x, rounding, overflow, subnormals, drawn)


def _reference(x: Array, **options: Any) -> Array:
    dtype: Format = options["dtype"]
    return dtype.exact(encoded(x, **options))


def _check(x: Array, *, dtype: Format, rounding: str, overflow: str | None, subnormals: bool, key: int, counter: int,
           random_bits: int) -> None:  # fmt: skip
    if not isinstance(dtype, Format) or dtype.kind not in ("float", "fixed", "affine"):
        raise FormatError(f"quantize: dtype={dtype!r}: expected a float, fixed-point or affine format")
    check(rounding, random_bits)


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    special = np.array(
        [0.0, -0.0, 1e-40, 1e-46, 6e-8, 65504, 65520, 448, 464, 465, 57344, 61440, 1 + 2**-4 + 2**-40, -1.5, -1e9]
    )
    wild = np.append(special, [np.inf, -np.inf])
    names = "float8_e4m3fn float8_e5m2 bfloat16 float16 float6_e3m2fn float4_e2m1fn float8_e4m3fnuz e6m9 binary8p3se"
    targets = [as_format(name) for name in names.split()]
    fixed = [Q(7, 8), Q(3, 4), Q(0, 7), Q(5, 10), Q(8, 8, signed=False), Q(11, 20)]
    for dtype in (*targets, *fixed):
        spread = rng.standard_normal((7, 33)) * 4.0
        for rounding in ROUNDINGS:
            options = OPTIONS | {"dtype": dtype, "rounding": rounding, "key": 7, "counter": 3}
            yield Sample((spread,), options, f"{dtype}, {rounding}")
            yield Sample((wild,), options | {"overflow": "saturate"}, f"special values to {dtype}, {rounding}")
    for dtype in targets:
        yield Sample((wild,), OPTIONS | {"dtype": dtype}, f"special values to {dtype}, ieee")
        yield Sample((wild,), OPTIONS | {"dtype": dtype, "subnormals": False}, f"{dtype}, flushed")
    for dtype in fixed:
        yield Sample((special * 16,), OPTIONS | {"dtype": dtype, "overflow": "wrap"}, f"{dtype}, wrapped")
    for shape in ((), (0,), (1,), (3, 5), (2, 0, 3)):
        yield Sample((np.asarray(rng.standard_normal(shape)),), OPTIONS | {"dtype": targets[0]}, f"shape {shape}")


def _key(x: Array, *, dtype: Format, rounding: str, overflow: str | None, subnormals: bool, **_: Any) -> Any:
    return dtype, rounding, overflow, subnormals


quantize = Op(
    "quantize",
    "(x: [...], *, dtype, rounding, overflow, subnormals, key, counter, random_bits) -> [...] codes of dtype",
    _reference,
    check=_check,
    result=lambda *_, dtype, **__: dtype,
    formats=SOURCES,
    samples=_samples,
    ulps=dict.fromkeys(FLOATS, 0),
    key=_key,
)

fake_quantize = Op(
    "fake_quantize",
    "(x: [...], *, dtype, rounding, overflow, subnormals, key, counter, random_bits) -> [...] values of dtype, in x's format",
    _reference,
    check=_check,
    result=first,
    formats=(float32, float64),
    samples=_samples,
    ulps={float32: 0.5, float64: 0},
    key=_key,
)

__all__ = ["OPTIONS", "SOURCES", "encoded", "fake_quantize", "quantize", "random_words"]
