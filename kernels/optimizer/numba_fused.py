"""One pass: every value of parameter, gradient and state is read once, and written once where it changes. Factors of the gradient
are applied as it is read; the compiler may not join their products with what follows.

Next limit: memory bandwidth for large parameters; for small ones, the start of a parallel loop.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.optimizer import spec
from ulpgrad.kernels.optimizer.spec import State
from ulpgrad.kernels.registry import kernel

FORMATS = [float32, float64]


@jit(inline="always")
def scaled(value, factors):  # type: ignore[no-untyped-def]
    for factor in factors:
        value *= factor
    return value


@jit(parallel=True)
def _sgd(p, g, factors, lr, decay):  # type: ignore[no-untyped-def]
    for i in prange(p.size):
        p[i] -= lr * (scaled(g[i], factors) + decay * p[i])


@jit(parallel=True)
def _sgd_momentum(p, g, buf, factors, lr, decay, momentum, fresh, look, first):  # type: ignore[no-untyped-def]
    for i in prange(p.size):
        step = scaled(g[i], factors) + decay * p[i]
        buf[i] = step if first else momentum * buf[i] + fresh * step
        p[i] -= lr * (step + look * buf[i] if look != 0 else buf[i])


@jit(parallel=True)
def _adam(p, g, m, v, factors, beta1, beta2, fresh1, fresh2, eps, decay, keep, rate, root):  # type: ignore[no-untyped-def]
    for i in prange(p.size):
        step = scaled(g[i], factors) + decay * p[i]
        m[i] = beta1 * m[i] + fresh1 * step
        v[i] = beta2 * v[i] + fresh2 * step * step
        p[i] = keep * p[i] - rate * m[i] / (np.sqrt(v[i]) * root + eps)


@jit(parallel=True)
def _adagrad(p, g, s, factors, lr, eps, decay):  # type: ignore[no-untyped-def]
    for i in prange(p.size):
        step = scaled(g[i], factors) + decay * p[i]
        s[i] += step * step
        p[i] -= lr * step / (np.sqrt(s[i]) + eps)


@jit(parallel=True)
def _rmsprop(p, g, s, buf, factors, lr, alpha, fresh, eps, decay, momentum):  # type: ignore[no-untyped-def]
    for i in prange(p.size):
        step = scaled(g[i], factors) + decay * p[i]
        s[i] = alpha * s[i] + fresh * step * step
        move = step / (np.sqrt(s[i]) + eps)
        if buf.size:
            move += momentum * buf[i]
            buf[i] = move
        p[i] -= lr * move


def _flat(*arrays: Array) -> list[Array]:
    return [a.reshape(-1) for a in arrays]


def _is_off(scaling: State) -> bool:
    return scaling is not None and scaling[0] == 0


def factors_of(p: Array, scaling: State) -> Array:
    return np.empty(0, p.dtype) if scaling is None else scaling[1:]


@kernel(spec.sgd_step, "cpu/numba-fused", rank=20, formats=FORMATS, where=spec.flat_in_one_format)
def sgd_step(p: Array, g: Array, buf: State, scaling: State, *, lr: float, momentum: float, dampening: float,
             nesterov: bool, weight_decay: float, first: bool) -> Array | tuple[Array, Array]:  # fmt: skip
    kind, factors = p.dtype.type, factors_of(p, scaling)
    if buf is None:
        if not _is_off(scaling):
            _sgd(*_flat(p, g), factors, kind(lr), kind(weight_decay))
        return p
    if not _is_off(scaling):
        scalars = (lr, weight_decay, momentum, 1 - dampening, momentum if nesterov else 0)
        _sgd_momentum(*_flat(p, g, buf), factors, *map(kind, scalars), first)
    return p, buf


@kernel(spec.adam_step, "cpu/numba-fused", rank=20, formats=FORMATS, where=spec.flat_in_one_format)
def adam_step(p: Array, g: Array, m: Array, v: Array, scaling: State, *, lr: float, beta1: float, beta2: float, eps: float,
              weight_decay: float, decoupled: bool, step: int) -> tuple[Array, Array, Array]:  # fmt: skip
    kind = p.dtype.type
    decay, keep = (0.0, 1 - lr * weight_decay) if decoupled else (weight_decay, 1.0)
    scalars = (beta1, beta2, 1 - beta1, 1 - beta2, eps, decay, keep, lr / (1 - beta1**step), (1 - beta2**step) ** -0.5)
    if not _is_off(scaling):
        _adam(*_flat(p, g, m, v), factors_of(p, scaling), *map(kind, scalars))
    return p, m, v


@kernel(spec.adagrad_step, "cpu/numba-fused", rank=20, formats=FORMATS, where=spec.flat_in_one_format)
def adagrad_step(p: Array, g: Array, s: Array, scaling: State, *, lr: float, eps: float,
                 weight_decay: float) -> tuple[Array, Array]:  # fmt: skip
    kind = p.dtype.type
    if not _is_off(scaling):
        _adagrad(*_flat(p, g, s), factors_of(p, scaling), kind(lr), kind(eps), kind(weight_decay))
    return p, s


@kernel(spec.rmsprop_step, "cpu/numba-fused", rank=20, formats=FORMATS, where=spec.flat_in_one_format)
def rmsprop_step(p: Array, g: Array, s: Array, buf: State, scaling: State, *, lr: float, alpha: float, eps: float,
                 momentum: float, weight_decay: float) -> tuple[Array, ...]:  # fmt: skip
    kind = p.dtype.type
    kept = np.empty(0, p.dtype) if buf is None else buf
    scalars = (lr, alpha, 1 - alpha, eps, weight_decay, momentum)
    if not _is_off(scaling):
        _rmsprop(*_flat(p, g, s, kept), factors_of(p, scaling), *map(kind, scalars))
    return (p, s) if buf is None else (p, s, buf)
