"""Dropout (Srivastava et al. 2014). What is dropped is a function of the generator's key and position, so that backward
draws the same mask again instead of keeping it."""

from __future__ import annotations

from typing import Any

from ulpgrad.differentiable import Primitive
from ulpgrad.errors import ArgumentError
from ulpgrad.generator import Generator, generator_or_default
from ulpgrad.kernels.random import spec
from ulpgrad.ops.common import as_tensor
from ulpgrad.tensor import Tensor

__all__ = ["dropout"]

dropped: Primitive = Primitive(
    spec.dropout, "x", gradients={"x": lambda g, p, key, counter: dropped(g, p=p, key=key, counter=counter)}
)


def dropout(x: Any, /, p: float = 0.5, training: bool = True, generator: Generator | None = None) -> Tensor:
    """Each value is set to zero with probability p, or divided by 1 - p; out of training x comes back as it is.

    Draws from `generator`, or from ulpgrad.random's default one. Raises ArgumentError for p outside [0, 1].
    """
    values = as_tensor(x)
    if not 0 <= p <= 1:
        raise ArgumentError(f"dropout: p={p!r}: expected a probability from 0 to 1")
    if not training or p == 0:
        return values
    key, counter = generator_or_default("dropout", generator).reserve(values.size)
    out: Tensor = dropped(values, p=float(p), key=key, counter=counter)
    return out
