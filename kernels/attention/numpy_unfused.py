"""Three matrix products and a softmax, each by the array library: fast while the scores fit in the cache.

Next limit: the matrix of scores is written and read several times, and grows with the square of the length.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, bool_, float32, float64
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.spec import Dropout, Window
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64, bool_)


@kernel(spec.attention, "cpu/numpy-unfused", rank=10, formats=FORMATS)
def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    *,
    is_causal: bool,
    scale: float,
    window: Window = None,
    dropout: Dropout | None = None,
) -> tuple[Array, Array]:
    with np.errstate(all="ignore"):
        weights, lse = spec.softmax(spec.scores(q, spec.shared(k, q), mask, is_causal, scale, window))
    weights = spec.dropped(weights, dropout)
    return (weights @ spec.shared(v, q)).astype(q.dtype, copy=False), lse.astype(q.dtype, copy=False)


@kernel(spec.attention_gradient, "cpu/numpy-unfused", rank=10, formats=FORMATS)
def attention_gradient(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    y: Array,
    lse: Array,
    *,
    is_causal: bool,
    scale: float,
    window: Window = None,
    dropout: Dropout | None = None,
) -> tuple[Array, Array, Array]:
    keys, values = spec.shared(k, q), spec.shared(v, q)
    with np.errstate(all="ignore"):
        weights = spec.weights_again(spec.scores(q, keys, mask, is_causal, scale, window), lse).astype(
            q.dtype, copy=False
        )
    change = spec.dropped(g @ values.swapaxes(-1, -2), dropout) - (g * y).sum(axis=-1, keepdims=True)
    wanted, weights = weights * change * q.dtype.type(scale), spec.dropped(weights, dropout)
    dk, dv = wanted.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ g
    return wanted @ keys, spec.gathered(dk, k), spec.gathered(dv, v)
