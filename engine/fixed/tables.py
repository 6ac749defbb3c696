"""Exponentials from tables: exp, sigmoid, tanh and softmax.

A word of up to 16 bits is looked up whole, in one table per function, format and rule. Of wider words the exponential is
2^k 2^f, with 2^f from a table of 2048 steps and a cubic between them (Tang, "Table-lookup algorithms for elementary functions
and their error analysis", 1991) in integers of 62 fraction bits; sigmoid and tanh follow from it by one division.

Error, for every operand: half a unit of the result's last place (one unit for directed roundings) and 2^-48 more, which is
relative to the result for exp and absolute for the others. Softmax divides exponentials of F fraction bits by the
sum of k of them: (k + 2) 2^-F in place of 2^-48, where F is min(52, 62 - ceil(log2 k)), or 50 - n if that is n + ceil(log2 k)
+ 10 or more (divisors and dividends then fit float64's units, and (k + 2) 2^-F is at most 2^-9 units of the last place).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad import dispatch, ops
from ulpgrad.device import Device, as_array, module_of, moved_to
from ulpgrad.fixed import rules
from ulpgrad.fixed.elementwise import quotient
from ulpgrad.fixed.routing import implements, operands
from ulpgrad.fixed.rules import Rule
from ulpgrad.fixed.run import Outcome, generator_of, on_host, overflowed, run_exact
from ulpgrad.formats import Array, Fixed, float64
from ulpgrad.formats.rounding import whole_units
from ulpgrad.kernels import capture, gpu
from ulpgrad.kernels.quantize.spec import quantize
from ulpgrad.tensor import Tensor

WHOLE = 16  # bits of the widest word of which all codes are in a table
UNIT = 62  # fraction bits of 2^f
STEPS = 11  # log2 of the number of steps between powers of two
LOG2E = 0x1_71547652_B82FE177_7D0FFDA0_D23A7D12  # log2(e) 2^128
FAR = 130  # an exponential below 2^-FAR is zero here
FRACTION = UNIT + FAR  # fraction bits of an exponential
LARGEST = 2.0**900  # what an exponential in a table stops at

REAL: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "tanh": np.tanh,
    "sigmoid": lambda x: 0.5 + 0.5 * np.tanh(0.5 * x),
}


# Words of up to 16 bits


Tables = tuple[Array, ...]


def table_on(device: Device, make: Callable[..., Tables], *args: Any) -> Any:
    """Tables that a function makes and keeps, where they are looked up: on a GPU they are kept once more."""
    if device.type == "cpu":
        return make(*args)
    return tuple(capture.kept(table) for table in _tables_on(*gpu.queue(device.index), make, *args))


@lru_cache(64)
def _tables_on(index: int, stream: int, make: Callable[..., Tables], *args: Any) -> Tables:
    return tuple(capture.constant(table, index) for table in make(*args))


@lru_cache(32)
def values_of(name: str, form: Fixed) -> Tables:
    """The function of every code, in the order of the codes' bits as they are stored: float64[2^storage bits]."""
    codes = np.arange(2 ** (8 * form.itemsize)).astype(f"u{form.itemsize}").view(form.storage)
    with np.errstate(over="ignore"):
        return (np.asarray(np.minimum(REAL[name](form.exact(codes)), LARGEST)),)


@lru_cache(32)
def table_of(name: str, form: Fixed, target: Fixed, rounding: str, overflow: str) -> Tables:
    """The same as codes of the result, and which of them do not fit it."""
    (values,) = values_of(name, form)
    negative = values < 0
    units = whole_units(np.ldexp(np.abs(values), target.fraction_bits), negative, rounding)
    units = np.where(negative, -units, units)
    outside = (units >= float(target.max_code + 1)) | (units < target.min_code)
    return target.encode(values, rounding, "wrap" if overflow == "wrap" else "saturate"), outside


def looked_up(name: str, rule: Rule, form: Fixed, target: Fixed, x: Tensor) -> Outcome:
    """A function from its table."""
    places = x.storage.view(f"u{form.itemsize}")
    if rule.rounding == "stochastic":
        values = as_array(table_on(x.device, values_of, name, form)[0].take(places))
        key, counter = generator_of(rule).reserve(x.size)
        options = {"dtype": target, "rounding": rule.rounding, "overflow": rule.overflow, "subnormals": True, "key": key,
                   "counter": counter, "random_bits": rule.random_bits}  # fmt: skip
        return Outcome(Tensor(dispatch.call(quantize, (float64,), (values,), options)[0], target))
    codes, outside = table_on(x.device, table_of, name, form, target, rule.rounding, rule.overflow)
    flags = as_array(outside.take(places)) if rule.watch or rule.overflow == "raise" else None
    if flags is not None and rule.overflow == "raise":
        overflowed(name, target, flags, lambda place: repr(float(values_of(name, form)[0][int(places[place])])))
    return Outcome(Tensor(as_array(codes.take(places)), target), flags if rule.watch else None)


# Wider words


def exponential(codes: Array, fraction: int) -> Array:
    """exp(codes 2^-fraction) in units of 2^-FRACTION, Python integers (dtype object); relative error below 2^-50."""
    product, point = codes.reshape(-1).astype(object) * LOG2E, fraction + 128
    if point < UNIT:
        product, point = product << (UNIT - point), UNIT
    power = product >> point
    rest = (product & ((1 << point) - 1)) >> (point - UNIT)
    step, within = (rest >> (UNIT - STEPS)).astype(np.int64), rest & ((1 << (UNIT - STEPS)) - 1)
    c = _cubics()
    value = c[3][step]
    for k in (2, 1, 0):
        value = c[k][step] + ((value * within) >> (UNIT - STEPS))
    moved = np.minimum(power, FRACTION) + FAR
    out = np.where(moved < 0, 0, value << np.maximum(moved, 0))
    return np.asarray(out, dtype=object).reshape(codes.shape)


@lru_cache(1)
def _cubics() -> list[Array]:
    """For each step of 2^f the coefficients of a cubic in the place within the step, of UNIT fraction bits."""
    starts = np.exp2(np.arange(1 << STEPS) / (1 << STEPS))
    factor, coefficients = 1.0, []
    for k in range(4):
        factor *= np.log(2.0) / (1 << STEPS) / k if k else 1.0
        coefficients.append(np.asarray([int(v) for v in np.ldexp(starts * factor, UNIT)], dtype=object))
    return coefficients


def _finite_exp(x: Tensor) -> Tensor:
    """exp, level from where float32 has no value for it: no format has either, and its gradient stops there."""
    return ops.exp(ops.where(x > 88.0, 88.0, x))


@implements("exp", real=_finite_exp)
@implements("sigmoid", "tanh")
def exponentials(name: str, rule: Rule, x: Tensor) -> Outcome:
    (form,) = operands(name, x)
    target = rules.result_of(name, rule, (form,), rules.no_full(name, "an exponential"))
    if form.bits <= WHOLE:
        return looked_up(name, rule, form, target, x)
    storage = on_host(name, x.storage)
    if name == "exp":
        return run_exact(name, rule, target, FRACTION, exponential(storage, form.fraction_bits), place=x.device)
    codes = storage.reshape(-1).astype(object)
    e = exponential(-np.abs(codes) * (2 if name == "tanh" else 1), form.fraction_bits)
    one, negative = 1 << FRACTION, codes < 0
    above = np.where(negative, e, one) if name == "sigmoid" else np.where(negative, e - one, one - e)
    n = target.fraction_bits
    out = run_exact(name, rule, target, n, above << max(n, 0), divisor=(one + e) << max(-n, 0),
                    place=x.device)  # fmt: skip
    outside = None if out.outside is None else out.outside.reshape(x.shape)
    return Outcome(Tensor(out.tensor.storage.reshape(x.shape), target), outside)


def softmax_bits(target: Fixed, terms: int) -> int:
    """Fraction bits of the exponentials that a softmax over so many terms divides."""
    more, fast = rules.added_bits(terms), 50 - max(target.fraction_bits, 0)
    return fast if fast >= max(target.fraction_bits, 0) + more + 10 else min(52, 62 - more)


@implements("softmax")
def softmax(name: str, rule: Rule, x: Tensor, *, axis: int) -> Outcome:
    """Exponentials of the distance to the largest, over their sum: one division."""
    (form,) = operands(name, x)
    target = rules.result_of(name, rule, (form,), rules.no_full(name, "an exponential"))
    if not x.size:
        return Outcome(Tensor(module_of(x.storage).empty(x.shape, target.storage), target))
    terms = x.shape[axis]
    fraction = softmax_bits(target, terms)
    if form.bits <= WHOLE:
        (table,), wide = table_on(x.device, falling, form, fraction), x.storage.astype(np.int32)
        distance = wide.max(axis=axis, keepdims=True) - wide
        e = as_array(table.take(module_of(distance).minimum(distance, len(table) - 1, out=distance)))
    else:
        exact = on_host(name, x.storage).astype(object)
        distance = exact - exact.max(axis=axis, keepdims=True)
        e = (exponential(distance, form.fraction_bits) >> (FRACTION - fraction)).astype(np.int64)
        e = moved_to(e, x.device)
    bounds = (0, 1 << fraction)
    sums = e.sum(axis=axis, keepdims=True)
    return quotient(name, rule, target, e, sums, 0, bounds, (0, terms << fraction))


@lru_cache(32)
def falling(form: Fixed, fraction: int) -> Tables:
    """exp(-d 2^-n) of `fraction` fraction bits for each distance d between two codes, up to where it is zero: int64."""
    distances = np.ldexp(np.arange(1 << form.bits, dtype=np.float64), -form.fraction_bits)
    values = np.rint(np.ldexp(np.exp(-distances), fraction)).astype(np.int64)
    return (values[: np.count_nonzero(values) + 1],)
