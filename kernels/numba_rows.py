"""Maxima and sums of a row for Numba's kernels, in vectors.

A sum may be reordered, so that it becomes a sum for each vector lane; the order is chosen when the kernel is compiled, and
depends on the row's length alone. The order of floats is that of their bits as whole numbers, whose largest is found in
lanes without leave to take NaN for something else.
"""

from __future__ import annotations

from ulpgrad.kernels.numba_jit import jit
from ulpgrad.kernels.numba_math import BITS, INFINITY, LAST_BIT, SIZE, ZERO, T, exp_of_shifted

SUM = {"reassoc", "contract"}


@jit(forceinline=True)
def order_of(x):  # type: ignore[no-untyped-def]
    """A whole number that is larger for a larger float; NaN lies beyond the infinities."""
    bits = T(x).view(BITS)
    return BITS(bits ^ BITS(BITS(bits >> LAST_BIT) & SIZE))


@jit(forceinline=True)
def in_order(whole):  # type: ignore[no-untyped-def]
    """The float of this place."""
    return BITS(whole ^ BITS(BITS(whole >> LAST_BIT) & SIZE)).view(T)


@jit(forceinline=True)
def largest(x):  # type: ignore[no-untyped-def]
    """The largest value of a row; -inf where there are none. A NaN is taken for the largest, or passed over."""
    top = order_of(-INFINITY)
    for j in range(x.size):
        here = order_of(x[j])
        top = here if here > top else top
    return in_order(top)


@jit(forceinline=True)
def largest_or_nan(x, sign):  # type: ignore[no-untyped-def]
    """The largest value of sign times a row; NaN if there is one, whatever its sign."""
    top = order_of(-INFINITY)
    for j in range(x.size):
        here = order_of(x[j] * sign)
        here = SIZE if x[j] != x[j] else here  # beyond all others
        top = here if here > top else top
    return in_order(top)


@jit(fastmath=SUM, forceinline=True)
def total(x):  # type: ignore[no-untyped-def]
    found = ZERO
    for j in range(x.size):
        found += x[j]
    return found


@jit(fastmath=SUM, forceinline=True)
def dot(x, y):  # type: ignore[no-untyped-def]
    found = ZERO
    for j in range(x.size):
        found += x[j] * y[j]
    return found


@jit(fastmath=SUM, forceinline=True)
def squares(x, middle):  # type: ignore[no-untyped-def]
    """The sum of (x - middle)^2"""
    found = ZERO
    for j in range(x.size):
        found += (x[j] - middle) * (x[j] - middle)
    return found


@jit(fastmath=SUM, forceinline=True)
def sum_of_exp(x, top):  # type: ignore[no-untyped-def]
    """The sum of exp(x - top)"""
    found = ZERO
    for j in range(x.size):
        found += exp_of_shifted(x[j] - top)
    return found


@jit(fastmath=SUM, forceinline=True)
def exp_into(x, top, y):  # type: ignore[no-untyped-def]
    """The same, each value kept in y on its way."""
    found = ZERO
    for j in range(x.size):
        e = exp_of_shifted(x[j] - top)
        y[j] = e
        found += e
    return found
