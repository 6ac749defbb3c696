"""Blocks of queries x keys with a running softmax: the scores never leave the cache, and memory grows with the length alone.

Weights are made from scores while these are in registers. Backward computes them again from the kept lse instead of
reading them. Operands may have any strides as long as rows are contiguous (others are copied). Lengths
bound the loops of a head: what lies behind them is not read. What dropout keeps is a bit for each weight of a block, made from
its index and made again by backward.

bfloat16 is multiplied by AVX-512 BF16 where the CPU has it, both products in pairs of values; weights are rounded to it for
the second. That instruction takes subnormal values for zero, so calls with values below 2^-100 are computed like those of
other 16-bit floats, which are widened block by block. Next limit: the exponential, where products are pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format, as_format, bfloat16, bool_, compute_format, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.visible import both_lengths
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.random.philox import LOW64, threshold
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64, bfloat16, float16, bool_, *spec.INTEGERS)


def _computed(a: Array, q: Array) -> Array:
    """A float operand in the numbers that q is computed in."""
    wanted = compute_format(_format(q))
    return a if a.dtype == wanted.storage else convert(a, _format(a), wanted)


def _format(a: Array) -> Format:
    """The format of a stored operand: 16 bits without a type of NumPy's are bfloat16 here."""
    return bfloat16 if a.dtype == np.uint16 else as_format(a.dtype)


def _prepared(mask: Array | None, q: Array, k: Array) -> Array | None:
    """The mask with the shape of the scores, in bool or the format that q is computed in."""
    if mask is None:
        return None
    return np.broadcast_to(mask if mask.dtype == bool else _computed(mask, q), (*q.shape[:-1], k.shape[-2]))


def _stream(dropout: spec.Dropout | None) -> tuple[int, int, int, int, float] | None:
    """Dropout as C++ takes it: the stream, the words that are dropped, and the share of what is kept."""
    if dropout is None:
        return None
    p, key, counter = dropout
    return key, counter & LOW64, counter >> 64, threshold(p), 1 - p


@kernel(spec.attention, "cpu/native-fused", rank=60, formats=FORMATS, where=spec.unwindowed)
def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    query_lengths: Array | None = None,
    key_lengths: Array | None = None,
    *,
    is_causal: bool,
    scale: float,
    lower_right: bool = False,
    dropout: spec.Dropout | None = None,
) -> Any:
    queries, keys = both_lengths("attention", q, k, query_lengths, key_lengths)
    return native.module().attention(
        q, k, v, _prepared(mask, q, k), is_causal=is_causal, scale=scale, lower_right=lower_right,
        dropout=_stream(dropout), query_lengths=queries, key_lengths=keys,
    )  # fmt: skip


@kernel(spec.attention_gradient, "cpu/native-fused", rank=60, formats=FORMATS, where=spec.unwindowed)
def attention_gradient(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    y: Array,
    lse: Array,
    query_lengths: Array | None = None,
    key_lengths: Array | None = None,
    *,
    is_causal: bool,
    scale: float,
    lower_right: bool = False,
    dropout: spec.Dropout | None = None,
) -> Any:
    queries, keys = both_lengths("attention_gradient", q, k, query_lengths, key_lengths)
    return native.module().attention_gradient(
        g, q, k, v, _prepared(mask, q, k), y, _computed(lse, q), is_causal=is_causal, scale=scale, lower_right=lower_right,
        dropout=_stream(dropout), query_lengths=queries, key_lengths=keys,
    )  # fmt: skip
