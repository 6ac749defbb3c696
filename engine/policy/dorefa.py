"""Quantisers of DoReFa-Net, to stand in the roles of a Policy:

    Policy(weight=dorefa.weight(1), activation=dorefa.activation(2), gradient=dorefa.gradient(6, seed=0))

Source: Zhou et al., "DoReFa-Net: training low bitwidth convolutional neural networks with low bitwidth gradients", 2016;
equation numbers are its. `quantize_k` is taken straight through.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ulpgrad import ops
from ulpgrad.device import as_array, beside
from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Array
from ulpgrad.function import Context, Function
from ulpgrad.random import Generator
from ulpgrad.tensor import Tensor

Quantiser = Callable[[Tensor], Tensor]


def _bits(name: str, k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= 24:
        raise ArgumentError(f"dorefa.{name}: bits={k!r}: expected a whole number from 1 to 24")
    return k


def to_steps(values: Array, k: int) -> Array:
    """quantize_k (eq. 5): numbers in [0, 1] to the nearest multiple of 1 / (2^k - 1)."""
    steps = values.dtype.type(2**k - 1)
    out: Array = as_array(np.rint(values * steps) / steps)
    return out


class _Steps(Function):
    """quantize_k with its straight-through gradient."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, k: int) -> Tensor:
        with beside(x.storage):
            return Tensor(to_steps(x.storage, k), x.dtype)

    @staticmethod
    def backward(ctx: Context, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Signs(Function):
    """sign(w) E|w| (eq. 8), straight through; zero counts as positive."""

    @staticmethod
    def forward(ctx: Context, w: Tensor) -> Tensor:
        values = w.storage
        with beside(values):
            size = np.abs(values).mean(dtype=np.float64).astype(values.dtype) if w.size else values.dtype.type(0)
            return Tensor(np.where(values < 0, -size, size), w.dtype)

    @staticmethod
    def backward(ctx: Context, *gradients: Tensor) -> Tensor:
        return gradients[0]


def weight(k: int) -> Quantiser:
    """Weights of k bits: 2 quantize_k(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1 (eq. 9), so in [-1, 1]; of one bit: sign(w) E|w|
    (eq. 8). The maximum counts as a constant in the gradient."""
    _bits("weight", k)
    if k == 1:
        return _Signs.apply

    def quantised(w: Tensor) -> Tensor:
        squashed = ops.tanh(w)
        top = ops.abs(squashed.detach()).max().item() if w.size else 1.0
        return _Steps.apply(squashed / (2 * (top or 1.0)) + 0.5, k) * 2.0 - 1.0  # type: ignore[no-any-return]

    return quantised


def activation(k: int) -> Quantiser:
    """Activations of k bits: quantize_k of x clipped to [0, 1] (eq. 11), whose gradient is zero outside."""
    _bits("activation", k)
    return lambda x: _Steps.apply(ops.clip(x, 0.0, 1.0), k)


def gradient(k: int, seed: int = 0) -> Quantiser:
    """Gradients of k bits, with noise so that they are right in the mean (eq. 12):
    2 max|g| (quantize_k(g / (2 max|g|) + 1/2 + u / (2^k - 1)) - 1/2), u uniform in [-1/2, 1/2); the maximum is that of each
    sample (all axes but the first). The noise is drawn from a generator of its own."""
    _bits("gradient", k)
    generator = Generator(seed)

    def quantised(g: Tensor) -> Tensor:
        with beside(g.storage):
            return rounded(g.storage, g)

    def rounded(values: Array, g: Tensor) -> Tensor:
        axes = tuple(range(1, values.ndim))
        if not values.size:
            return g
        top = 2 * np.abs(values).max(axis=axes, keepdims=True)
        top = np.where(top == 0, values.dtype.type(1), top)
        drawn = generator.uniform(values.size, device=g.device).reshape(values.shape)
        noise = (drawn - np.float32(0.5)) / np.float32(2**k - 1)
        inside = np.clip(values / top + values.dtype.type(0.5) + noise, 0, 1).astype(values.dtype, copy=False)
        return Tensor((to_steps(inside, k) - values.dtype.type(0.5)) * top, g.dtype)

    return quantised


__all__ = ["activation", "gradient", "weight"]
