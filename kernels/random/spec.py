"""Random bits, uniforms, normals, permutations and dropout, each a pure function of key, counter and index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import FLOATS, Array, Format, float32, float64, int64, uint32
from ulpgrad.kernels.random import philox
from ulpgrad.kernels.spec import Op, Sample, first

OPERATIONS_PER_BLOCK = 100  # ten rounds: two products, four exclusive ors, two halves taken, two key additions


def check_stream(op: str, key: Any, counter: Any) -> None:
    for name, value, bits in (("key", key, 64), ("counter", counter, 128)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**bits:
            raise ArgumentError(f"{op}: {name}={value!r}: expected a whole number from 0 to 2^{bits} - 1")


def _check_size(op: str, size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 0:
        raise ArgumentError(f"{op}: size={size!r}: expected a whole number of at least 0")


def _check_bits(*, key: int, counter: int, size: int) -> None:
    check_stream("random_bits", key, counter)
    _check_size("random_bits", size)


def _check_permutation(*, key: int, counter: int, size: int) -> None:
    check_stream("random_permutation", key, counter)
    _check_size("random_permutation", size)


def _check_values(op: str, key: int, counter: int, size: int, dtype: Any) -> None:
    check_stream(op, key, counter)
    _check_size(op, size)
    if dtype not in FLOATS:
        raise FormatError(f"{op}: dtype={dtype}: expected one of {', '.join(f.name for f in FLOATS)}")


def _check_dropout(x: Array, *, p: float, key: int, counter: int) -> None:
    check_stream("dropout", key, counter)
    if not 0 <= p <= 1:
        raise ArgumentError(f"dropout: p={p!r}: expected a probability from 0 to 1")


def _dtype_result(*, dtype: Format, **_: Any) -> Format:
    return dtype


def _dtype_key(*, dtype: Format, **_: Any) -> Format:
    return dtype


EDGES = (
    {"key": 0, "counter": 0, "size": 9},
    {"key": 0xFFFFFFFFFFFFFFFF, "counter": 2**128 - 2, "size": 17},  # the counter wraps
    {"key": 0x299F31D0A4093822, "counter": 2**64 - 3, "size": 4097},  # the carry into the upper half; several chunks
    {"key": 1, "counter": 5, "size": 1},
    {"key": 1, "counter": 0, "size": 0},
)


def _bits_samples() -> Iterator[Sample]:
    for edge in EDGES:
        yield Sample((), edge, name=f"size {edge['size']}")


def _value_samples() -> Iterator[Sample]:
    for dtype in FLOATS:
        for edge in EDGES:
            yield Sample((), {**edge, "dtype": dtype}, name=f"{dtype} size {edge['size']}")


def _dropout_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    stream = {"key": 0x299F31D0A4093822, "counter": 2**64 - 2}
    for shape in ((), (0, 3), (1,), (7,), (3, 5), (2, 3, 4), (5000,)):
        yield Sample((rng.standard_normal(shape),), {"p": 0.3, **stream}, name=f"shape {shape}")
    for p in (0.0, 1.0):
        yield Sample((np.array([1.0, -2.0, 0.0, np.inf, -np.inf, np.nan]),), {"p": p, **stream}, name=f"p={p}")


random_bits = Op(
    "random_bits",
    signature="(*, key, counter, size) -> uint32[size]",
    doc="The Philox4x32-10 stream of `key` from block `counter` on: word i is word i % 4 of block counter + i // 4.",
    reference=lambda *, key, counter, size: philox.words(key, counter, size),
    check=_check_bits,
    result=lambda **_: uint32,
    flops=lambda *, size, **_: size / 4 * OPERATIONS_PER_BLOCK,
    samples=_bits_samples,
    ulps={uint32: 0},
)

random_uniform = Op(
    "random_uniform",
    signature="(*, key, counter, size, dtype) -> [size]",
    doc="Uniform in [0, 1): multiples of 2^-24 (float32), 2^-53 (float64, two words a value), 2^-11 (float16) or 2^-8"
    " (bfloat16). The same bits on every rung.",
    reference=philox.uniform,
    check=lambda **params: _check_values("random_uniform", **params),
    result=_dtype_result,
    key=_dtype_key,
    flops=lambda *, size, dtype, **_: size * philox.words_per_value(dtype) / 4 * OPERATIONS_PER_BLOCK,
    samples=_value_samples,
    ulps=dict.fromkeys(FLOATS, 0),
)

random_normal = Op(
    "random_normal",
    signature="(*, key, counter, size, dtype) -> [size]",
    doc="Standard normal by Box-Muller, two values from two uniforms; computed in float64 and rounded (16-bit formats"
    " by way of float32). Rungs agree within the ULPs stated here.",
    reference=philox.normal,
    check=lambda **params: _check_values("random_normal", **params),
    result=_dtype_result,
    key=_dtype_key,
    flops=lambda *, size, dtype, **_: size * (philox.words_per_value(dtype) / 4 * OPERATIONS_PER_BLOCK + 30),
    samples=_value_samples,
    ulps={float32: 1, float64: 4},
)

random_permutation = Op(
    "random_permutation",
    signature="(*, key, counter, size) -> int64[size]",
    doc="The numbers 0 to size - 1 in random order, every order exactly equally likely (Fisher-Yates). Takes two words"
    " a value.",
    reference=philox.permutation,
    check=_check_permutation,
    result=lambda **_: int64,
    key=lambda *, size, **_: size >= 2**31,  # where what sorts its steps finds no keys for them
    flops=lambda *, size, **_: size * OPERATIONS_PER_BLOCK / 2,
    samples=_bits_samples,
    ulps={int64: 0},
)

dropout = Op(
    "dropout",
    signature="(x: [...], *, p, key, counter) -> [...]",
    doc="Zero with probability p, else x / (1 - p). Element i (in C order) is dropped where word i of the stream is"
    " below p 2^32, so the gradient is the same call on g. Where a NaN or an infinity is dropped the result is 0.",
    reference=lambda x, *, p, key, counter: np.where(philox.kept(x.shape, p, key, counter), x * scale(p), 0.0),
    check=_check_dropout,
    result=first,
    formats=FLOATS,
    flops=lambda x, **_: x.size * (OPERATIONS_PER_BLOCK / 4 + 1),
    samples=_dropout_samples,
    ulps={float32: 2, float64: 1},
)


def scale(p: float) -> float:
    """What dropout multiplies kept elements by: 1 / (1 - p), or 0 where nothing is kept."""
    return 1 / (1 - p) if p < 1 else 0.0
