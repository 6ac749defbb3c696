"""attention_float8: scaled dot-product attention, forwards, of queries, keys and values in 8-bit floats, with a result in a wider
float. Scales of whole tensors are numbers beside it: those of queries and keys in `scale`, that of values in `factor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import FormatError
from ulpgrad.formats import Array, Format, bfloat16, float8_e4m3fn, float8_e5m2, float16, float32
from ulpgrad.kernels.attention import spec as attention_spec
from ulpgrad.kernels.attention.visible import pairs
from ulpgrad.kernels.spec import Op, Sample

FORMATS = (float8_e4m3fn, float8_e5m2)
RESULTS = (float32, bfloat16, float16)


def _attention(
    q: Array, k: Array, v: Array, *, is_causal: bool, scale: float, factor: float = 1.0, lower_right: bool = False,
    dtype: Format = bfloat16,
) -> Array:  # fmt: skip
    how: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "lower_right": lower_right}
    y: Array = attention_spec.attention.reference(q, k, v, None, **how)[0]
    return y * factor


def _magnitude(
    q: Array, k: Array, v: Array, *, is_causal: bool, scale: float, factor: float = 1.0, lower_right: bool = False,
    dtype: Format = bfloat16,
) -> Array:  # fmt: skip
    assert attention_spec.attention.magnitude is not None
    how: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "lower_right": lower_right}
    y: Array = attention_spec.attention.magnitude(q, k, v, None, **how)[0]
    return y * abs(factor)


def _check(
    q: Any, k: Any, v: Any, *, is_causal: bool, scale: float, factor: float = 1.0, lower_right: bool = False,
    dtype: Format = bfloat16,
) -> None:  # fmt: skip
    assert attention_spec.attention.check is not None
    attention_spec.attention.check(q, k, v, None, is_causal=is_causal, scale=scale, lower_right=lower_right)
    if dtype not in RESULTS:
        raise FormatError(f"attention_float8: dtype={dtype}: expected one of {', '.join(f.name for f in RESULTS)}")


#       leading  l    s    d   e   causal  what it is
CASES = (
    ((1, 2), 5, 5, 4, 4, False, "small"),
    ((2, 3), 7, 7, 8, 8, True, "causal"),
    ((2,), 3, 9, 5, 6, True, "causal, more keys"),
    ((2,), 9, 3, 5, 6, True, "causal, more queries"),
    ((), 6, 4, 3, 2, False, "no leading axes"),
    ((1, 2), 131, 131, 64, 64, True, "several blocks, causal"),
    ((1, 1), 300, 290, 20, 33, False, "several blocks"),
    ((1, 2), 1, 150, 40, 24, False, "one query"),
    ((1, 1), 70, 140, 128, 128, False, "wide heads"),
    ((2, 1), 4, 0, 3, 2, False, "no keys"),
    ((2, 1), 0, 4, 3, 2, False, "no queries"),
    ((0, 2), 4, 4, 3, 3, False, "empty batch"),
)


def _samples() -> Iterator[Sample]:
    random = np.random.default_rng(0)
    for i, (leading, length, keys, d, e, is_causal, name) in enumerate(CASES):
        q, k, v = (random.normal(size=(*leading, *shape)) for shape in ((length, d), (keys, d), (keys, e)))
        how: dict[str, Any] = {"is_causal": is_causal, "scale": 0.7 / d**0.5, "factor": 0.3, "dtype": RESULTS[i % 3]}
        yield Sample((q, k, v), how, f"{name} to {how['dtype']}")
    q, k, v = (random.normal(size=shape) for shape in ((2, 6, 75, 8), (2, 2, 80, 8), (2, 2, 80, 9)))
    how = {"is_causal": True, "scale": 0.4, "dtype": bfloat16}
    yield Sample((q, k, v), how, "two heads of keys for six of queries")
    yield Sample((q, k, v), how | {"lower_right": True, "dtype": float32}, "causal to the last key")
    yield Sample((q, k[:, :, :40], v[:, :, :40]), how | {"lower_right": True}, "queries before all keys")
    yield Sample((q * 8, k * 8, v * 30), how | {"is_causal": False, "factor": -2.0, "dtype": float16}, "sharp")
    yield Sample((q, k, v), how | {"scale": -0.5}, "negative scale")


attention_float8 = Op(
    "attention_float8",
    "(q: [..., l, d], k: [..., s, d], v: [..., s, e], *, is_causal, scale, factor=1.0, lower_right=False, dtype=bfloat16) -> "
    "[..., l, e] in dtype",
    doc="softmax(q k^T * scale) v * factor of 8-bit floats, rounded to float32, bfloat16 or float16; axes, heads and places as "
    "in attention. Scores may come from units that sum in about 14 bits, and weights are rounded to float16 (11 bits) before "
    "they meet values: a float32 result has some 10 right bits of the sum of its terms' sizes.",
    reference=_attention,
    check=_check,
    result=lambda *_, dtype=bfloat16, **__: dtype,
    formats=FORMATS,
    promote=False,
    flops=lambda q, k, v, *, is_causal=False, lower_right=False, **_: (
        2 * pairs(q, k, None, None, is_causal=is_causal, lower_right=lower_right) * (q.shape[-1] + v.shape[-1])
    ),
    samples=_samples,
    ulps={float32: 2**13, float16: 2},
    magnitude=_magnitude,
    key=lambda q, k, v, *, dtype=bfloat16, **_: (dtype, max(q.shape[-1], v.shape[-1]) > attention_spec.LARGEST_HEAD),
)

__all__ = ["FORMATS", "RESULTS", "attention_float8"]
