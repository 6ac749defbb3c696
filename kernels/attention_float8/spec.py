"""attention_float8: scaled dot-product attention, forwards, of queries, keys and values in 8-bit floats, with a result in a wider
float. Scales of whole tensors are numbers beside it: those of queries and keys in `scale`, that of values in `factor`. Scales of
heads are an operand, the bits of float32, so that formats of operands remain those of values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import FormatError, ShapeError
from ulpgrad.formats import Array, Format, bfloat16, bool_, float8_e4m3fn, float8_e5m2, float16, float32, int32
from ulpgrad.kernels.attention import spec as attention_spec
from ulpgrad.kernels.attention.visible import pairs
from ulpgrad.kernels.spec import Op, Sample

FORMATS = (float8_e4m3fn, float8_e5m2)
RESULTS = (float32, bfloat16, float16)


def _by_head(scales: Array | None) -> tuple[Any, Any]:
    """What scores and results of each head are multiplied by, shaped to broadcast over queries."""
    if scales is None:
        return 1.0, 1.0
    numbers = scales.view(np.float32).astype(np.float64)[..., None, None, :]
    return numbers[..., 0], numbers[..., 1]


def _attention(
    q: Array, k: Array, v: Array, mask: Array | None = None, scales: Array | None = None, *, is_causal: bool, scale: float,
    factor: float = 1.0, lower_right: bool = False, dtype: Format = bfloat16,
) -> Array:  # fmt: skip
    how: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "lower_right": lower_right}
    of_scores, of_results = _by_head(scales)
    y: Array = attention_spec.attention.reference(q * of_scores, k, v, mask, **how)[0]
    return y * factor * of_results


def _magnitude(
    q: Array, k: Array, v: Array, mask: Array | None = None, scales: Array | None = None, *, is_causal: bool, scale: float,
    factor: float = 1.0, lower_right: bool = False, dtype: Format = bfloat16,
) -> Array:  # fmt: skip
    assert attention_spec.attention.magnitude is not None
    how: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "lower_right": lower_right}
    of_scores, of_results = _by_head(scales)
    y: Array = attention_spec.attention.magnitude(q * of_scores, k, v, mask, **how)[0]
    return y * abs(factor * of_results)


def _check(
    q: Any, k: Any, v: Any, mask: Any = None, scales: Any = None, *, is_causal: bool, scale: float, factor: float = 1.0,
    lower_right: bool = False, dtype: Format = bfloat16,
) -> None:  # fmt: skip
    assert attention_spec.attention.check is not None
    attention_spec.attention.check(q, k, v, mask, is_causal=is_causal, scale=scale, lower_right=lower_right)
    if mask is not None and mask.dtype != np.bool_:
        raise FormatError(f"attention_float8: mask is {mask.dtype}: expected bool")
    if scales is not None and (scales.dtype != np.int32 or scales.shape != (*q.shape[:-2], 2)):
        raise ShapeError(
            f"attention_float8: scales are {scales.dtype} of shape {scales.shape}: expected the bits of float32, int32 of "
            f"shape {(*q.shape[:-2], 2)}"
        )
    if dtype not in RESULTS:
        raise FormatError(f"attention_float8: dtype={dtype}: expected one of {', '.join(f.name for f in RESULTS)}")


def _result(*formats: Format | None, dtype: Format = bfloat16, **_: Any) -> Format:
    for name, form in zip("qkv", formats, strict=False):
        if form not in FORMATS:
            raise FormatError(
                f"attention_float8: {name} is {form}: expected one of {', '.join(f.name for f in FORMATS)}"
            )
    return dtype


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
    scales = (2.0 ** random.uniform(-2, 1, (2, 6, 2))).astype(np.float32)
    scales[1, 2] *= -1
    bits = scales.view(np.int32)
    yield Sample((q, k, v, None, bits), how, "scales of heads")
    mask = random.random((75, 80)) < 0.6
    mask[:, 70:] = mask[3] = False
    yield Sample((q, k, v, mask), how | {"is_causal": False}, "mask")
    yield Sample((q, k, v, mask, bits), how | {"dtype": float32}, "mask, scales of heads, causal")
    yield Sample((q, k, v, mask[None, None, :1]), how | {"lower_right": True}, "mask of keys")
    yield Sample((q, k, v, random.random((2, 1, 75, 1)) < 0.5), how | {"dtype": float16}, "mask of queries")
    yield Sample((q, k, v, random.random((6, 75, 80)) < 0.9), how | {"is_causal": False}, "mask of heads")


attention_float8 = Op(
    "attention_float8",
    "(q: [..., l, d], k: [..., s, d], v: [..., s, e], mask: bool [..., l, s] | None, scales: [..., 2] | None, *, is_causal, "
    "scale, factor=1.0, lower_right=False, dtype=bfloat16) -> [..., l, e] in dtype",
    doc="softmax(q k^T * scale) v * factor of 8-bit floats, rounded to float32, bfloat16 or float16; axes, heads, places and a "
    "bool mask as in attention. `scales`, the bits of float32 as int32: for each head of q what its scores and its results are "
    "multiplied by, beside scale and factor. Scores may come from units that sum in about 14 bits, and weights are rounded to "
    "float16 (11 bits) before they meet values: a float32 result has some 10 right bits of the sum of its terms' sizes.",
    reference=_attention,
    check=_check,
    result=_result,
    formats=(*FORMATS, bool_, int32),
    promote=False,
    flops=lambda q, k, v, *_, is_causal=False, lower_right=False, **__: (
        2 * pairs(q, k, None, None, is_causal=is_causal, lower_right=lower_right) * (q.shape[-1] + v.shape[-1])
    ),
    samples=_samples,
    ulps={float32: 2**13, float16: 2},
    magnitude=_magnitude,
    key=lambda q, k, v, *_, dtype=bfloat16, **__: (dtype, max(q.shape[-1], v.shape[-1]) > attention_spec.LARGEST_HEAD),
)

__all__ = ["FORMATS", "RESULTS", "attention_float8"]
