"""Sums, means and extremes along axes. Sums are exact, whatever comes in between, and cut once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import Device, as_array
from ulpgrad.fixed import rules
from ulpgrad.fixed.elementwise import chosen, on_codes, quotient
from ulpgrad.fixed.routing import implements, operands
from ulpgrad.fixed.rules import Rule
from ulpgrad.fixed.run import Outcome, bounds_of, on_host, rescaled, run_exact, stored
from ulpgrad.formats import Array, Fixed, bool_, int64
from ulpgrad.kernels.reduction import spec
from ulpgrad.tensor import Tensor

Axes = tuple[int, ...]


def total(name: str, codes: Array, form: Fixed, axis: Axes, keepdims: bool) -> tuple[Array, int]:
    """The exact sums and how many codes are in each: int64 where that holds them, else Python integers, on the host."""
    terms = math.prod(codes.shape[a] for a in axis)
    params = {"axis": axis, "keepdims": keepdims}
    if form.bits + rules.added_bits(terms) <= 63:
        sums = as_array(dispatch.call(spec.sum, (stored(codes),), (codes,), params)[0])
        return sums.astype(np.int64, copy=False), terms
    codes = on_host(name, codes)
    high, low = (codes >> 32).astype(np.int64), (codes & 0xFFFFFFFF).astype(np.int64)
    halves = [dispatch.call(spec.sum, (int64,), (half,), params)[0] for half in (high, low)]
    upper, lower = (np.asarray(half).astype(object) for half in halves)
    return np.asarray((upper << 32) + lower, dtype=object), terms


def sum_bounds(form: Fixed, terms: int) -> tuple[int, int]:
    low, high = bounds_of(form)
    return low * max(terms, 1), high * max(terms, 1)


@implements("sum")
def sum_(name: str, rule: Rule, x: Tensor, *, axis: Axes, keepdims: bool) -> Outcome:
    (form,) = operands(name, x)
    sums, terms = total(name, x.storage, form, axis, keepdims)
    target = rules.result_of(name, rule, (form,), lambda: rules.of_total(name, form, terms))
    if sums.dtype == object:
        return run_exact(name, rule, target, form.fraction_bits, sums, place=x.device)
    return rescaled(name, rule, target, form.fraction_bits, sum_bounds(form, terms), sums)


@implements("mean")
def mean(name: str, rule: Rule, x: Tensor, *, axis: Axes, keepdims: bool) -> Outcome:
    """The exact sum over the count, rounded once."""
    (form,) = operands(name, x)
    sums, terms = total(name, x.storage, form, axis, keepdims)
    return shared(name, rule, form, sums, np.array(terms), sum_bounds(form, terms), x.device)


def shared(
    name: str, rule: Rule, form: Fixed, sums: Array, counts: Array, bounds: tuple[int, int], place: Device
) -> Outcome:
    """Sums over whole counts, which the host knows; sums that int64 does not hold lie there too."""
    target = rules.result_of(name, rule, (form,), rules.no_full(name, "a quotient"))
    if sums.dtype != object:
        most = int(counts.max()) if counts.size else 1
        return quotient(name, rule, target, sums, counts, form.fraction_bits, bounds, (0, most))
    left = target.fraction_bits - form.fraction_bits
    values, divisor = sums << max(left, 0), counts.astype(object) << max(-left, 0)
    return run_exact(name, rule, target, target.fraction_bits, np.asarray(values, object), divisor=np.asarray(divisor),
                     place=place)  # fmt: skip


@implements("max", "min")
def extreme(name: str, rule: Rule, x: Tensor, *, axis: Axes, keepdims: bool) -> Outcome:
    operands(name, x)
    return chosen(name, rule, Tensor(on_codes(getattr(spec, name), x, axis=axis, keepdims=keepdims), x.dtype))


@implements("argmax", "argmin")
def place(name: str, rule: Rule, x: Tensor, *, axis: int | None, keepdims: bool) -> Outcome:
    operands(name, x)
    return Outcome(Tensor(on_codes(getattr(spec, name), x, axis=axis, keepdims=keepdims), int64))


@implements("all", "any")
def truth(name: str, rule: Rule, x: Tensor, **params: Any) -> Outcome:
    return Outcome(Tensor(on_codes(getattr(spec, name), x, **params), bool_))
