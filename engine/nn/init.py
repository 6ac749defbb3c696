"""Initial values, written in place. Fans are those of (out, in, ...) weights. Random values draw from `generator`, or from
ulpgrad.random's default one. Sources: Glorot and Bengio 2010 (xavier), He et al. 2015 (kaiming)."""

from __future__ import annotations

import math

from ulpgrad import random
from ulpgrad.autograd import no_grad
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.ops.creation import asarray
from ulpgrad.random import Generator
from ulpgrad.tensor import Tensor

GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2.0), "selu": 0.75}


def calculate_gain(nonlinearity: str, a: float = 0.0) -> float:
    """What keeps a signal's size behind a nonlinearity; `a` is leaky_relu's negative slope."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1 + a**2))
    if nonlinearity not in GAINS:
        names = ", ".join((*GAINS, "leaky_relu"))
        raise ArgumentError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}: expected one of {names}")
    return GAINS[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan in, fan out): inputs and outputs per unit, times the size of the kernel."""
    if tensor.ndim < 2:
        raise ShapeError(f"fans of a tensor of shape {tensor.shape}: expected (out, in, ...)")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _write(tensor: Tensor, values: Tensor) -> Tensor:
    with no_grad():
        tensor[...] = values
    return tensor


def constant_(tensor: Tensor, value: float) -> Tensor:
    return _write(tensor, asarray(float(value), dtype=tensor.dtype))


def zeros_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 1.0)


def uniform_(tensor: Tensor, low: float = 0.0, high: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform in [low, high)."""
    form, device = tensor.dtype, tensor.device
    return _write(tensor, random.uniform(low, high, tensor.shape, dtype=form, device=device, generator=generator))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    form, device = tensor.dtype, tensor.device
    return _write(tensor, random.normal(mean, std, tensor.shape, dtype=form, device=device, generator=generator))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform with standard deviation gain * sqrt(2 / (fan in + fan out))."""
    bound = gain * math.sqrt(6.0 / max(sum(fans(tensor)), 1))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with standard deviation gain * sqrt(2 / (fan in + fan out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / max(sum(fans(tensor)), 1)), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"kaiming: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fans(tensor)[mode == "fan_out"], 1))


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Uniform with standard deviation gain / sqrt(fan); `a` is the slope of leaky_relu."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal with standard deviation gain / sqrt(fan); `a` is the slope of leaky_relu."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)
