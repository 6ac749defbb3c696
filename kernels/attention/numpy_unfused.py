"""Three matrix products and a softmax, each by the array library: fast while the scores fit in the cache.

Next limit: the matrix of scores is written and read several times, and grows with the square of the length.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, bool_, float32, float64
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.visible import Window, both_lengths, only, visible
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64, bool_, *spec.INTEGERS)


@kernel(spec.attention, "cpu/numpy-unfused", rank=10, formats=FORMATS)
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
    window: Window = None,
    lower_right: bool = False,
    dropout: spec.Dropout | None = None,
) -> tuple[Array, Array]:
    lengths = both_lengths("attention", q, k, query_lengths, key_lengths)
    q, k, v = only(q, lengths[0]), only(k, lengths[1]), only(v, lengths[1])
    seen = visible(q, k, *lengths, is_causal=is_causal, window=window, lower_right=lower_right)
    with np.errstate(all="ignore"):
        weights, lse = spec.softmax(spec.scores(q, spec.shared(k, q), mask, seen, scale))
    return (spec.dropped(weights, dropout) @ spec.shared(v, q)).astype(q.dtype, copy=False), lse.astype(
        q.dtype, copy=False
    )


@kernel(spec.attention_gradient, "cpu/numpy-unfused", rank=10, formats=FORMATS)
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
    window: Window = None,
    lower_right: bool = False,
    dropout: spec.Dropout | None = None,
) -> tuple[Array, Array, Array]:
    lengths = both_lengths("attention_gradient", q, k, query_lengths, key_lengths)
    g, q, y = (only(a, lengths[0]) for a in (g, q, y))
    k, v = only(k, lengths[1]), only(v, lengths[1])
    seen = visible(q, k, *lengths, is_causal=is_causal, window=window, lower_right=lower_right)
    keys, values = spec.shared(k, q), spec.shared(v, q)
    with np.errstate(all="ignore"):
        weights = spec.weights_again(spec.scores(q, keys, mask, seen, scale), lse).astype(q.dtype, copy=False)
    change = spec.dropped(g @ values.swapaxes(-1, -2), dropout) - (g * y).sum(axis=-1, keepdims=True)
    wanted, weights = weights * change * q.dtype.type(scale), spec.dropped(weights, dropout)
    dk, dv = wanted.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ g
    return wanted @ keys, spec.gathered(dk, k), spec.gathered(dv, v)
