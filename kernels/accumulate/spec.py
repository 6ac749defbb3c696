"""Sums in an accumulator of a chosen float format: every addition is exact, then rounded once to that format.

Terms come in order. With `chunk` c above 1, each c terms are summed from zero, and the chunks' sums are added in order in
the same format (Wang et al., "Training deep neural networks with 8-bit floating point numbers", NeurIPS 2018); with 1 one
accumulator runs through all. Products of operands up to float32 are exact; those of float64 are first rounded to float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import FLOATS, RANDOM_BITS, Array, Float, Format, Random, as_format, float64
from ulpgrad.kernels.matmul.spec import check_matmul, matmul_flops
from ulpgrad.kernels.random import philox
from ulpgrad.kernels.spec import Op, Sample, first

ROUNDINGS = ("nearest_even", "stochastic")
OVERFLOWS = ("ieee", "saturate")
# Rounding a sum to odd in float64 leaves the final rounding as good as the only one up to here (Boldo and Melquiond 2008).
DIGITS = 50
Axes = tuple[int, ...]


def check_rule(
    op: str,
    *,
    format: Any,
    chunk: Any = 1,
    rounding: Any = "nearest_even",
    overflow: Any = "ieee",
    random_bits: Any = RANDOM_BITS,
    key: int = 0,
    counter: int = 0,
) -> None:
    """Raise FormatError or ArgumentError unless an accumulator can be like that."""
    if not isinstance(format, Float) or not format.signed or not format.has_zero or format.mantissa_bits < 1:
        raise FormatError(
            f"{op}: accumulator {format}: expected a float with a sign, zero and at least one mantissa bit"
        )
    if isinstance(chunk, bool) or not isinstance(chunk, (int, np.integer)) or chunk < 1:
        raise ArgumentError(f"{op}: chunk={chunk!r}: expected a whole number of at least 1")
    if rounding not in ROUNDINGS:
        raise ArgumentError(f"{op}: rounding={rounding!r}: expected one of {', '.join(ROUNDINGS)}")
    if overflow not in OVERFLOWS:
        raise ArgumentError(f"{op}: overflow={overflow!r}: expected one of {', '.join(OVERFLOWS)}")
    if rounding == "stochastic":
        most = min(32, DIGITS - format.mantissa_bits)
        if most < 1:
            raise ArgumentError(f"{op}: {format} leaves no digits of a float64 to round stochastically")
        if (
            isinstance(random_bits, bool)
            or not isinstance(random_bits, (int, np.integer))
            or not 1 <= random_bits <= most
        ):
            raise ArgumentError(f"{op}: random_bits={random_bits!r}: expected 1 to {most} for {format}")
        if not 0 <= key < 2**64 or not 0 <= counter < 2**128:
            raise ArgumentError(f"{op}: expected a key below 2^64 and a counter below 2^128")


def additions(terms: int, chunk: int) -> int:
    """Additions in a sum of so many terms: one for each, and one for each chunk where there are several."""
    return terms + (-(-terms // chunk) if 1 < chunk < terms else 0)


def blocks(terms: int, chunk: int) -> int:
    """Whole Philox blocks (four words) that the roundings of one sum take."""
    return -(-additions(terms, chunk) // philox.WORDS_PER_BLOCK)


def add_to_odd(x: Array, y: Array) -> Array:
    """x + y in float64, rounded to odd: cut off, with the last bit set if anything was lost (Knuth's TwoSum says what)."""
    total = np.asarray(x + y)
    part = total - x
    lost = (x - (total - part)) + (y - part)
    inexact = np.abs(lost) > 0  # NaN, where the sum is infinite, is not
    toward_zero = np.where(np.signbit(lost) != np.signbit(total), np.nextafter(total, 0), total)
    odd = (toward_zero.view(np.int64) | 1).view(np.float64)
    return np.where(inexact, odd, total)


class Accumulator:
    """The rule of addition: exact, then rounded once. `results` sums go side by side; addition t of each takes word t of
    its own blocks of the random stream."""

    def __init__(
        self,
        results: tuple[int, ...],
        terms: int,
        *,
        format: Float,
        chunk: int = 1,
        rounding: str = "nearest_even",
        overflow: str = "ieee",
        random_bits: int = RANDOM_BITS,
        key: int = 0,
        counter: int = 0,
    ) -> None:
        self.format, self.chunk, self.rounding, self.overflow = format, chunk, rounding, overflow
        self.random_bits, self.results, self.terms = random_bits, results, terms
        count, width = math.prod(results), philox.WORDS_PER_BLOCK * blocks(terms, chunk)
        if rounding == "stochastic":
            self.words = philox.words(key, counter, count * width).reshape(*results, width)

    def add(self, total: Array, term: Array, addition: int) -> Array:
        if self.format is float64:
            return total + term
        exact = add_to_odd(total, term)
        nan = np.isnan(exact)
        random = Random(self.words[..., addition], self.random_bits) if self.rounding == "stochastic" else None
        codes = self.format.encode(np.where(nan, 0.0, exact), self.rounding, self.overflow, random=random)
        return np.where(nan, np.nan, self.format.exact(codes))  # also in formats that have no code for it

    def run(self, term: Callable[[int], Array]) -> Array:
        """The sums of term(0), term(1), ..."""
        chunk = self.chunk if self.chunk > 1 else max(self.terms, 1)
        parts = []
        for begin in range(0, self.terms, chunk):
            part = np.zeros(self.results)
            for t in range(begin, min(begin + chunk, self.terms)):
                part = self.add(part, term(t), t)
            parts.append(part)
        if len(parts) == 1:
            return parts[0]
        total = np.zeros(self.results)
        for i, part in enumerate(parts):
            total = self.add(total, part, self.terms + i)
        return total


def matmul_reference(a: Array, b: Array, **how: Any) -> Array:
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    k = a.shape[-1]
    rule = Accumulator((*stack, a.shape[-2], b.shape[-1]), k, **how)
    return rule.run(lambda t: a[..., :, t, None] * b[..., t, None, :])


def sum_reference(x: Array, *, axis: Axes, keepdims: bool, **how: Any) -> Array:
    kept = tuple(i for i in range(x.ndim) if i not in axis)
    terms = np.transpose(x, (*axis, *kept)).reshape(-1, *(x.shape[i] for i in kept))
    out = Accumulator(terms.shape[1:], len(terms), **how).run(lambda t: terms[t])
    return np.expand_dims(out, axis) if keepdims else out


def cumulative_reference(x: Array, *, axis: int, **how: Any) -> Array:
    terms, out = np.moveaxis(x, axis, 0), np.empty(x.shape)
    rule, along = Accumulator(terms.shape[1:], len(terms), **how), np.moveaxis(out, axis, 0)
    total = np.zeros(terms.shape[1:])
    for t, term in enumerate(terms):
        along[t] = total = rule.add(total, term, t)
    return out


def _check_matmul(a: Any, b: Any, **how: Any) -> None:
    check_matmul(a, b)
    check_rule("matmul", **how)


def _check_cumulative(x: Any, *, axis: int, **how: Any) -> None:
    check_rule("cumulative_sum", **how)
    if how.get("chunk", 1) != 1:
        raise ArgumentError(f"cumulative_sum: chunk={how['chunk']}: running sums have no chunks; expected 1")


RULES: tuple[dict[str, Any], ...] = (
    {"format": "e6m9"},
    {"format": "e6m9", "chunk": 4},
    {"format": "float16", "chunk": 3},
    {"format": "bfloat16"},
    {"format": "float8_e5m2", "overflow": "saturate"},
    {"format": "float8_e4m3fn", "chunk": 2},
    {"format": "float8_e4m3fnuz"},
    {"format": "float6_e3m2fn"},
    {"format": "float32"},
    {"format": "float64"},
    {"format": "e8m22"},
    {"format": "e8m7fn"},
    {"format": "e6m9b60", "chunk": 3},
    {"format": "binary8p3se"},
    {"format": "e6m9", "rounding": "stochastic", "key": 7, "counter": 2**64 - 3},
    {"format": "float16", "rounding": "stochastic", "chunk": 4, "random_bits": 3, "key": 2**63},
    {"format": "bfloat16", "rounding": "stochastic", "overflow": "saturate", "random_bits": 32},
)


def rules() -> Iterator[dict[str, Any]]:
    """Accumulators that samples go through."""
    for rule in RULES:
        yield {**rule, "format": as_format(rule["format"])}


def _named(rule: dict[str, Any]) -> str:
    return " ".join(str(v) for k, v in rule.items() if k not in ("key", "counter"))


def matmul_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    one, chunked, *_ = rules()
    for left, right in (
        ((1, 9), (9, 1)),
        ((0, 3), (3, 2)),
        ((3, 0), (0, 2)),
        ((2, 1, 3, 7), (3, 7, 4)),
        ((40, 5), (5, 3)),
    ):
        yield Sample((rng.standard_normal(left), rng.standard_normal(right)), chunked, f"{left} @ {right}")
    yield Sample((rng.standard_normal((40, 150)), rng.standard_normal((150, 140))), {**one, "chunk": 64}, "blocks")
    yield Sample((np.full((1, 40), 1.25), np.ones((40, 3))), one, "swallowed")
    wide = np.exp2(rng.integers(-40, 40, (3, 30))) * rng.integers(-8, 9, (3, 30))
    special = np.array([[np.inf, 1.0, 2.0], [np.nan, 1.0, 0.0], [0.0, -np.inf, np.inf], [-0.0, 0.0, 1.0]])
    for rule in rules():
        yield Sample((rng.standard_normal((3, 7)), rng.standard_normal((7, 19))), rule, _named(rule))
        yield Sample((wide, np.exp2(rng.integers(-40, 8, (30, 2)))), rule, f"wide range {_named(rule)}")
        yield Sample((special, np.array([[2.0, -1.0], [1.0, -0.0], [1.0, 3.0]])), rule, f"specials {_named(rule)}")


def sum_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    one, chunked, *_ = rules()
    for shape, axis, keepdims in (((), (), False), ((0,), (0,), True), ((9,), (0,), False), ((3, 5), (0,), False),
                                  ((4, 3, 5), (0, 2), False), ((2, 3, 4), (), False)):  # fmt: skip
        yield Sample((rng.standard_normal(shape),), {**chunked, "axis": axis, "keepdims": keepdims}, f"{shape} {axis}")
    whole: dict[str, Any] = {"axis": (0,), "keepdims": False}
    yield Sample((rng.uniform(-0.7, 2.7, 300),), {**one, **whole, "chunk": 64}, "across blocks")
    yield Sample((rng.uniform(-0.7, 2.7, (300, 7)),), {**one, **whole}, "columns across blocks")
    for rule in rules():
        x = rng.standard_normal((3, 9)) * 4
        yield Sample((x,), {**rule, "axis": (1,), "keepdims": True}, _named(rule))


def cumulative_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    one = next(rules())
    for shape, axis in (((0,), 0), ((9,), 0), ((4, 3, 5), 1), ((5, 0), 0)):
        yield Sample((rng.standard_normal(shape),), {**one, "axis": axis}, f"{shape}")
    yield Sample((rng.uniform(-0.7, 2.7, (300, 2)),), {**one, "axis": 0}, "across blocks")
    for rule in rules():
        if rule.get("chunk", 1) == 1:
            yield Sample((rng.standard_normal((3, 9)) * 4,), {**rule, "axis": 1}, _named(rule))


def _key(*_: Any, format: Format, overflow: str = "ieee", **__: Any) -> Any:
    return format, overflow


# The accumulator's values are exact in float32 up to float32 itself; results in narrower formats are rounded once more.
ULPS: dict[Format, float] = dict.fromkeys(FLOATS, 0.51)
DOC = (
    "`format` is the accumulator's, `chunk` its terms per partial sum; see the family's text. Result: operands' format."
)

accumulate_matmul = Op(
    "accumulate_matmul",
    "(a: [..., m, k], b: [..., k, n], *, format, chunk=1, rounding='nearest_even', ...) -> [..., m, n]",
    doc=f"Matrix product in a chosen accumulator. {DOC}",
    reference=matmul_reference,
    check=_check_matmul,
    formats=FLOATS,
    flops=lambda a, b, **_: matmul_flops(a, b),
    samples=matmul_samples,
    ulps=ULPS,
    key=_key,
)

accumulate_sum = Op(
    "accumulate_sum",
    "(x: [...], *, axis, keepdims, format, chunk=1, rounding='nearest_even', ...) -> [...]",
    doc=f"Sum over axes, terms in C order, in a chosen accumulator. {DOC}",
    reference=sum_reference,
    check=lambda x, *, axis, keepdims, **how: check_rule("sum", **how),
    result=first,
    formats=FLOATS,
    flops=lambda x, **_: x.size,
    samples=sum_samples,
    ulps=ULPS,
    key=_key,
)

accumulate_cumulative_sum = Op(
    "accumulate_cumulative_sum",
    "(x: [...], *, axis, format, rounding='nearest_even', ...) -> [...]",
    doc=f"Running sums along an axis in a chosen accumulator. {DOC}",
    reference=cumulative_reference,
    check=_check_cumulative,
    result=first,
    formats=FLOATS,
    flops=lambda x, **_: x.size,
    samples=cumulative_samples,
    ulps=ULPS,
    key=_key,
)
