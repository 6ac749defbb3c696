"""Dynamic fixed point: words of a fixed length whose radix point moves by the measured rate of overflow.

Source: Courbariaux, Bengio and David, "Training deep neural networks with low precision multiplications", 2014.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Array, Fixed
from ulpgrad.policy.quantizers import Chooser, Grid, learning
from ulpgrad.policy.rounding import largest, on_grid
from ulpgrad.random import Generator

LOWEST, HIGHEST = -100, 100  # integer bits that float32 has room for


class DynamicFixed(Chooser):
    """Fixed point of `bits` bits (`update_bits` in the role of updates), with a radix point for each tensor group: each role
    at each place. Usable where a Policy takes a format.

    A group starts with the integer bits that hold its first tensor. It counts, over `interval` uses, how many values overflow:
    it gains an integer bit as soon as there are more than `max_overflow_rate` allows in an interval; if at its end not even
    half the range would have overflowed as often, it gains a fraction bit instead. The paper takes 10 and 12 bits, 0.01 %, and
    10,000 examples, after a start in high precision. Overflow saturates. Uses under `no_grad` are not counted.
    """

    def __init__(
        self, bits: int = 10, update_bits: int = 12, max_overflow_rate: float = 1e-4, interval: int = 20
    ) -> None:
        for name, value, top in (("bits", bits, 24), ("update_bits", update_bits, 24), ("interval", interval, None)):
            low = 1 if top is None else 2
            if isinstance(value, bool) or not isinstance(value, int) or value < low or (top and value > top):
                span = f"of at least {low}" if top is None else f"from {low} to {top}"
                raise ArgumentError(f"DynamicFixed: {name}={value!r}: expected a whole number {span}")
        if not 0 <= max_overflow_rate < 1:
            raise ArgumentError(f"DynamicFixed: max_overflow_rate={max_overflow_rate!r}: expected from 0 to below 1")
        self.bits, self.update_bits = bits, update_bits
        self.max_overflow_rate, self.interval = max_overflow_rate, interval

    def __repr__(self) -> str:
        return (
            f"DynamicFixed(bits={self.bits}, update_bits={self.update_bits}, "
            f"max_overflow_rate={self.max_overflow_rate}, interval={self.interval})"
        )

    def quantizer(self, role: str, rounding: str, overflow: str, generator: Generator) -> Radix:
        """A radix point of its own for one place."""
        return Radix(self, role, rounding, overflow, generator)


class Radix:
    """The radix point of one tensor group, and its counts since it was last looked at."""

    blocks = False

    def __init__(self, of: DynamicFixed, role: str, rounding: str, overflow: str, generator: Generator) -> None:
        self.of, self.role, self.bits = of, role, of.update_bits if role == "update" else of.bits
        self.rounding, self.overflow, self.generator = rounding, overflow, generator
        self.integer_bits: int | None = None
        self.uses = self.values = self.overflows = self.half_overflows = 0

    @property
    def form(self) -> Fixed | None:
        """The format now; None before the first use."""
        m = self.integer_bits
        return None if m is None else Fixed(m, self.bits - 1 - m)

    def round(self, values: Array, axis: int = -1) -> Grid:
        if self.integer_bits is None:
            self._start(values)
        form = self.form
        if form is None:  # nothing but zeros so far, which lie on every grid
            return Grid(values, 1.0, Fixed(0, self.bits - 1))
        grid = on_grid(values, form, self.rounding, self.overflow, self.generator, axis)
        if learning(self.role):
            self._count(values, form)
        return Grid(grid, 1.0, form)

    def _start(self, values: Array) -> None:
        top = largest(values)
        if 0 < top < math.inf:
            self.integer_bits = min(max(math.frexp(top)[1], LOWEST), HIGHEST)

    def _count(self, values: Array, form: Fixed) -> None:
        self.uses, self.values = self.uses + 1, self.values + values.size
        limit = form.max + form.scale / 2
        top = largest(values)
        if not top < limit / 2:
            size = np.abs(values)
            self.half_overflows += int(np.count_nonzero(size >= limit / 2))
            if not top < limit:
                self.overflows += int(np.count_nonzero(size >= limit))
        allowed = self.of.max_overflow_rate * self.values * self.of.interval / self.uses
        if self.overflows > allowed:
            self._move(1)
        elif self.uses >= self.of.interval:
            self._move(-1 if self.half_overflows <= allowed else 0)

    def _move(self, by: int) -> None:
        assert self.integer_bits is not None
        self.integer_bits = min(max(self.integer_bits + by, LOWEST), HIGHEST)
        self.uses = self.values = self.overflows = self.half_overflows = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "integer_bits": self.integer_bits, "uses": self.uses, "values": self.values, "overflows": self.overflows,
            "half_overflows": self.half_overflows,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in self.state_dict():
            setattr(self, name, state[name])


__all__ = ["DynamicFixed"]
