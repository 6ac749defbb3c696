"""The accumulator of an integer product: how wide, how fine, and what is done when a sum does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ulpgrad.errors import ArgumentError

OVERFLOWS = ("saturate", "wrap", "raise")
ROUNDINGS = ("nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd")


@dataclass(frozen=True)
class Accumulator:
    """A two's complement accumulator of `bits` bits (2 to 64, sign included).

    Each `chunk` of products, in order of k, is summed exactly; the sum loses `shift` fraction bits by `rounding` (-63 to 63;
    a negative shift adds zeros below), and is brought into range by `overflow`; then it is added, and the accumulator is
    brought into range the same way. chunk=1 treats every product so. "raise" raises AccumulatorError.

    `shift` is the products' fraction bits minus the accumulator's. Where a whole product fits the accumulator or not makes no
    difference: an accumulator narrower than its products saturates, wraps or raises by the same rule.
    """

    bits: int
    shift: int = 0
    overflow: str = "saturate"
    rounding: str = "nearest_even"
    chunk: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (("bits", 2, 64), ("shift", -63, 63), ("chunk", 1, 2**62)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ArgumentError(f"Accumulator: {name}={value!r}: expected a whole number from {low} to {high}")
        for name, names in (("overflow", OVERFLOWS), ("rounding", ROUNDINGS)):
            if getattr(self, name) not in names:
                raise ArgumentError(f"Accumulator: {name}={getattr(self, name)!r}: expected one of {', '.join(names)}")

    @property
    def low(self) -> int:
        """The least value it holds."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """The greatest value it holds."""
        return (1 << (self.bits - 1)) - 1

    def rounded(self, total: int) -> int:
        """An exact sum in the accumulator's units: total * 2^-shift, rounded to a whole number."""
        if self.shift <= 0:
            return total << -self.shift
        down, rest, half = total >> self.shift, total & ((1 << self.shift) - 1), 1 << (self.shift - 1)
        match self.rounding:
            case "down":
                up = False
            case "up":
                up = rest > 0
            case "toward_zero":
                up = rest > 0 and total < 0
            case "to_odd":
                up = rest > 0 and down % 2 == 0
            case "nearest_away":
                up = rest > half or (rest == half and total > 0)
            case _:
                up = rest > half or (rest == half and down % 2 == 1)
        return down + up

    def fits(self, value: int) -> bool:
        """Whether it holds this value."""
        return self.low <= value <= self.high

    def limited(self, value: int) -> int:
        """The value it holds in place of this one ("raise": as if it saturated; whoever adds looks at `fits`)."""
        if self.overflow == "wrap":
            return (value - self.low) % (1 << self.bits) + self.low
        return min(max(value, self.low), self.high)


INT32 = Accumulator(32, overflow="wrap", rounding="down", chunk=2**62)
INT64 = Accumulator(64, overflow="wrap", rounding="down", chunk=2**62)
NAMED = {None: INT32, "int32": INT32, "int64": INT64}


def as_accumulator(given: Any) -> Accumulator:
    """An Accumulator from one, or from None or "int32" (32 bits, wraps) or "int64" (exact). ArgumentError for others."""
    if isinstance(given, Accumulator):
        return given
    if given is None or (isinstance(given, str) and given in NAMED):
        return NAMED[given]
    raise ArgumentError(f"accumulator={given!r}: expected None, 'int32', 'int64' or an Accumulator")


def is_plain(given: Any) -> bool:
    """Whether sums may be made in any order: those of 32 bits that wrap, and exact ones."""
    return as_accumulator(given) in (INT32, INT64)


def refuses_order(request: Any) -> str | None:
    """A rung's refusal, where it adds in an order of its own and a request's accumulator would see that."""
    plain = is_plain(request.params.get("accumulator"))
    return None if plain else "takes sums of 32 bits that wrap, and exact ones"


__all__ = [
    "INT32", "INT64", "OVERFLOWS", "ROUNDINGS", "Accumulator", "as_accumulator", "is_plain", "refuses_order",
]  # fmt: skip
