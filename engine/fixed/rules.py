"""Which format a fixed-point operation gives, and how it gets there.

Without a rule both operands have one Q and so has the result. A rule names the result's format, or asks for all its bits:
then words grow, so that nothing is rounded and nothing overflows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import Fixed, Format, as_format
from ulpgrad.formats.fixed import OVERFLOWS
from ulpgrad.formats.rounding import RANDOM_BITS, check
from ulpgrad.kernels.integer.accumulator import Accumulator
from ulpgrad.tensor import Tensor

FULL = "full"
WIDEST = 64  # bits of a word
Estimator = Callable[[Tensor, Tensor, Format], Tensor]


@dataclass(frozen=True)
class Rule:
    """The options of an operation. `result`: None (that of the operands), "full", or a Q. `watch`: whether the places that
    did not fit are kept, for the gradient."""

    result: Fixed | str | None = None
    rounding: str = "nearest_even"
    overflow: str = "saturate"
    accumulator: Accumulator | str | None = None
    estimator: str | Estimator | None = None
    generator: Any = None
    random_bits: int = RANDOM_BITS
    watch: bool = False

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Once per rule: what is worked out for it is looked up in every call."""
        return hash((self.result, self.rounding, self.overflow, self.accumulator, self.random_bits, self.watch))


DEFAULT = Rule()
_rule: ContextVar[Rule] = ContextVar("fixed_rule", default=DEFAULT)
current = _rule.get


class arithmetic(contextlib.ContextDecorator):
    """Inside the block, operators and functions on fixed-point tensors follow a rule:

        with ug.fixed.arithmetic(result="full"):
            y = a * b + c          # as many bits as it takes

    - `result`: "full" for all bits (words grow, beyond 64 bits FormatError), a format such as `ug.Q(7, 8)`, or None for that
      of the operands, which must then be one.
    - `rounding`: any of `Tensor.to`. `overflow`: "saturate", "wrap", or "raise" (FormatError with the first place and value).
    - `accumulator` of matmul, linear, conv2d, vecdot: None (exact), "int32" (wraps), "int64" (exact up to 64 bits), or an
      `Accumulator(bits, shift, overflow, rounding, chunk)` for words of up to 16 bits.
    - `estimator` of the gradient: "clipped" (zero where the result did not fit; the default unless it wraps),
      "straight_through", or a function (g, y, format) -> g of the real-valued result y.
    - `generator`, `random_bits`: what stochastic rounding draws from.

    Options that are not given stay as they are outside. Holds for this thread (context) only.
    """

    def __init__(self, **options: Any) -> None:
        self.options = checked(options)
        self._tokens: list[Any] = []

    def _recreate_cm(self) -> arithmetic:
        again = arithmetic()
        again.options = self.options
        return again

    def __enter__(self) -> arithmetic:
        self._tokens.append(_rule.set(replace(_rule.get(), **self.options)))
        return self

    def __exit__(self, *_: object) -> None:
        _rule.reset(self._tokens.pop())


def checked(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the result's format found; ArgumentError for one that there is not."""
    known = {"result", "rounding", "overflow", "accumulator", "estimator", "generator", "random_bits"}
    if unknown := set(options) - known:
        raise ArgumentError(f"fixed: unknown option {min(unknown)!r}: expected {', '.join(sorted(known))}")
    found = dict(options)
    result = options.get("result")
    if result is not None and result != FULL:
        found["result"] = as_format(result)
        if not isinstance(found["result"], Fixed):
            raise FormatError(f"fixed: result={found['result'].name}: expected a fixed-point format, 'full' or None")
    check(options.get("rounding", "nearest_even"), options.get("random_bits", RANDOM_BITS))
    if options.get("overflow", "saturate") not in OVERFLOWS:
        raise ArgumentError(f"fixed: overflow={options['overflow']!r}: expected one of {', '.join(OVERFLOWS)}")
    accumulator = options.get("accumulator")
    if not (accumulator in (None, "int32", "int64") or isinstance(accumulator, Accumulator)):
        raise ArgumentError(f"fixed: accumulator={accumulator!r}: expected None, 'int32', 'int64' or an Accumulator")
    estimator = options.get("estimator")
    if not (estimator in (None, "clipped", "straight_through") or callable(estimator)):
        raise ArgumentError(
            f"fixed: estimator={estimator!r}: expected 'clipped', 'straight_through' or a function (g, y, format) -> g"
        )
    return found


# Growth


def grown(name: str, m: int, n: int, signed: bool) -> Fixed:
    """Q(m, n) as the full precision of an operation; FormatError beyond 64 bits."""
    bits = m + n + signed
    if bits > WIDEST:
        raise FormatError(
            f"{name}: full precision is {'' if signed else 'u'}q{m}.{n}, a word of {bits} bits, and the widest has {WIDEST}: "
            "name a result format, as in result=ug.Q(15, 16)"
        )
    return Fixed(m, n, signed)


def of_sum(name: str, a: Fixed, b: Fixed) -> Fixed:
    """max(m) + 1, max(n). A difference has a sign."""
    m, n = max(a.integer_bits, b.integer_bits) + 1, max(a.fraction_bits, b.fraction_bits)
    return grown(name, m, n, a.signed or b.signed or name == "subtract")


def of_product(name: str, a: Fixed, b: Fixed, terms: int = 1) -> Fixed:
    """m1 + m2 (+ 1 if both have a sign), n1 + n2; for a sum of products ceil(log2 terms) more integer bits."""
    m = a.integer_bits + b.integer_bits + (a.signed and b.signed) + added_bits(terms)
    return grown(name, m, a.fraction_bits + b.fraction_bits, a.signed or b.signed)


def of_total(name: str, a: Fixed, terms: int) -> Fixed:
    """ceil(log2 terms) more integer bits."""
    return grown(name, a.integer_bits + added_bits(terms), a.fraction_bits, a.signed)


def of_opposite(name: str, a: Fixed) -> Fixed:
    """One integer bit more, for minus the smallest value. Without a sign: the sign, or for abs nothing."""
    if a.signed:
        return grown(name, a.integer_bits + 1, a.fraction_bits, True)
    return a if name == "abs" else grown(name, a.integer_bits, a.fraction_bits, True)


def of_choice(name: str, forms: Sequence[Fixed]) -> Fixed:
    """The format that holds the values of all."""
    m, n = max(f.integer_bits for f in forms), max(f.fraction_bits for f in forms)
    return grown(name, m, n, any(f.signed for f in forms))


def added_bits(terms: int) -> int:
    """ceil(log2 terms)."""
    return max(terms - 1, 0).bit_length()


def result_of(name: str, rule: Rule, forms: Sequence[Fixed], full: Callable[[], Fixed]) -> Fixed:
    """The format of a result under a rule; FormatError where operands differ and no rule says what to do."""
    if isinstance(rule.result, Fixed):
        return rule.result
    if rule.result == FULL:
        return full()
    expect_one(name, rule, forms)
    return forms[0]


def expect_one(name: str, rule: Rule, forms: Sequence[Fixed]) -> None:
    """FormatError if formats differ and there is no rule."""
    if rule.result is None and any(f is not forms[0] for f in forms):
        names = " and ".join(dict.fromkeys(f.name for f in forms))
        raise FormatError(
            f"{name}: operands in {names}, and no rule for a result: convert one with .to(format), or give the rule, as in "
            f"`with ug.fixed.arithmetic(result='full'):` (or result=ug.Q(7, 8))"
        )


def no_full(name: str, why: str) -> Callable[[], Fixed]:
    """For results that no number of bits holds."""

    def full() -> Fixed:
        raise FormatError(f"{name}: {why} has no full precision: name a result format, as in result=ug.Q(7, 8)")

    return full
