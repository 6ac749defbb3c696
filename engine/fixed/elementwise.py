"""Arithmetic, shifts, comparison and choice, one value at a time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad import dispatch, ops
from ulpgrad.device import device_of, module_of, moved_to
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.fixed import rules
from ulpgrad.fixed.routing import implements, is_fixed, operands
from ulpgrad.fixed.rules import Rule
from ulpgrad.fixed.run import (
    Outcome,
    bounds_of,
    cut_of,
    hull,
    on_host,
    product_bounds,
    rescaled,
    run,
    run_cut,
    shifted,
    stored,
)
from ulpgrad.formats import Array, Fixed, bool_, float64, int64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.elementwise import spec as plain
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.fixed.cut import Cut
from ulpgrad.kernels.spec import Op
from ulpgrad.ops.quantize import beside_codes
from ulpgrad.tensor import Tensor


def _shape(*arrays: Array) -> tuple[int, ...]:
    first, *rest = (a.shape for a in arrays)
    return first if all(s == first for s in rest) else np.broadcast_shapes(first, *rest)


Known = tuple[Fixed, int, Cut, dict[str, Any]]  # of a call: the result's format, fraction bits, cut and parameters


@lru_cache(4096)
def _sum_of(name: str, x: Fixed, y: Fixed, rule: Rule) -> Known:
    form = rules.result_of(name, rule, (x, y), lambda: rules.of_sum(name, x, y))
    fraction = max(x.fraction_bits, y.fraction_bits)
    left, right = fraction - x.fraction_bits, fraction - y.fraction_bits
    first, second = shifted(bounds_of(x), left), shifted(bounds_of(y), right)
    if name == "subtract":
        second = -second[1], -second[0]
    bounds = hull(first, second, (first[0] + second[0], first[1] + second[1]))
    params = {"left": left, "right": right, "subtract": name == "subtract"}
    return form, fraction, cut_of(rule, form, fraction, bounds), params


@lru_cache(4096)
def _product_of(name: str, x: Fixed, y: Fixed, rule: Rule) -> Known:
    form = rules.result_of(name, rule, (x, y), lambda: rules.of_product(name, x, y))
    fraction = x.fraction_bits + y.fraction_bits
    return form, fraction, cut_of(rule, form, fraction, product_bounds(bounds_of(x), bounds_of(y))), {}


@implements("add", "subtract")
def add(name: str, rule: Rule, a: Tensor, b: Tensor) -> Outcome:
    """Exact, then cut once."""
    form, fraction, cut, params = _sum_of(name, *operands(name, a, b), rule)
    arrays = a.storage, b.storage
    return run_cut(name, spec.add, rule, form, fraction, cut, arrays, _shape(*arrays), params)


@implements("multiply")
def multiply(name: str, rule: Rule, a: Tensor, b: Tensor) -> Outcome:
    form, fraction, cut, params = _product_of(name, *operands(name, a, b), rule)
    arrays = a.storage, b.storage
    return run_cut(name, spec.multiply, rule, form, fraction, cut, arrays, _shape(*arrays), params)


@implements("square")
def square(name: str, rule: Rule, x: Tensor) -> Outcome:
    return multiply(name, rule, x, x)


def _divided(a: Tensor, b: Tensor) -> Tensor:
    """A quotient whose gradient is finite over zero too, where the result saturates and the gradient stops."""
    return a / ops.where(b == 0, 1.0, b)


@implements("divide", real=_divided)
def divide(name: str, rule: Rule, a: Tensor, b: Tensor) -> Outcome:
    """The quotient, rounded once. Over zero it saturates by the sign of a; 0 / 0, and x / 0 under another overflow, raise."""
    x, y = operands(name, a, b)
    form = rules.result_of(name, rule, (x, y), rules.no_full(name, "a quotient"))
    return quotient(
        name, rule, form, a.storage, b.storage, x.fraction_bits - y.fraction_bits, bounds_of(x), bounds_of(y)
    )


def quotient(
    name: str,
    rule: Rule,
    form: Fixed,
    a: Array,
    b: Array,
    fraction: int,
    first: tuple[int, int],
    second: tuple[int, int],
) -> Outcome:
    """Codes over codes, the quotient of which is in units of 2^-fraction."""
    shape = _shape(a, b)
    null = b == 0
    over_zero = None
    if null.any():
        over_zero = np.broadcast_to(null, shape)
        _refuse_undefined(name, rule, form, over_zero, np.broadcast_to(a, shape))
        b = b + null.astype(b.dtype)
    if b.__class__ is np.ndarray:  # counts, which the host knows
        b = beside_codes(b, a)
    left, right = max(form.fraction_bits - fraction, 0), max(fraction - form.fraction_bits, 0)
    more = rule.random_bits if rule.rounding == "stochastic" else 1
    bounds = hull(shifted(first, left), shifted((-first[1], -first[0]), left), shifted(second, right + more),
                  shifted((-second[1], -second[0]), right + more))  # fmt: skip
    out = run(name, spec.divide, rule, form, form.fraction_bits, bounds, (a, b), shape, left=left, right=right)
    if over_zero is not None:
        low, high = (form.storage.type(code) for code in bounds_of(form))
        codes = out.tensor.storage
        codes[over_zero] = np.where(np.broadcast_to(a, shape)[over_zero] < 0, low, high)
        if out.outside is not None:
            out.outside[...] = out.outside | over_zero
    return out


def _refuse_undefined(name: str, rule: Rule, form: Fixed, over_zero: Array, a: Array) -> None:
    """FormatError for 0 / 0, and for x / 0, which is an infinity, where results do not saturate."""
    both = over_zero & (a == 0)
    undefined = bool(both.any())
    if undefined or rule.overflow != "saturate":
        place = tuple(int(i) for i in np.argwhere(gpu.to_host(both if undefined else over_zero))[0])
        what = "0 / 0, which has no value" if undefined else "a division by zero, which can only saturate"
        raise FormatError(
            f"{name}: {what}{f', at {place}' if place else ''}: {form.name} has neither NaN nor infinity; replace zeros first"
        )


@implements("negative", "abs")
def negative(name: str, rule: Rule, x: Tensor) -> Outcome:
    (form,) = operands(name, x)
    target = rules.result_of(name, rule, (form,), lambda: rules.of_opposite(name, form))
    sign = "negate" if name == "negative" else "absolute"
    size = max(-form.min_code, form.max_code)
    bounds = (-size, size)
    return run(name, spec.rescale, rule, target, form.fraction_bits, bounds, (x.storage,), x.shape, sign=sign)


@implements("positive")
def positive(name: str, rule: Rule, x: Tensor) -> Outcome:
    return chosen(name, rule, Tensor(x.storage.copy(), x.dtype))


# Shifts


@implements("bitwise_left_shift", real=lambda x, by: x * _power(by))
def left_shift(name: str, rule: Rule, x: Tensor, by: Tensor) -> Outcome:
    """Times 2^by. In full precision the radix point moves and codes stay."""
    return _shift(name, rule, x, by, 1)


@implements("bitwise_right_shift", real=lambda x, by: x * _power(by, -1))
def right_shift(name: str, rule: Rule, x: Tensor, by: Tensor) -> Outcome:
    """Over 2^by, rounded."""
    return _shift(name, rule, x, by, -1)


def _power(by: Tensor, sign: int = 1) -> Tensor:
    return Tensor(np.ldexp(1.0, sign * gpu.to_host(by.storage).astype(np.int64)), float64).to(by.device)  # type: ignore[no-any-return]


def _shift(name: str, rule: Rule, x: Tensor, by: Tensor, sign: int) -> Outcome:
    if not is_fixed(x) or by.dtype.kind != "integer":
        raise FormatError(
            f"{name}: {x.dtype.name} by {by.dtype.name}: expected a fixed-point tensor, shifted by integers"
        )
    form, amounts = x.dtype, gpu.to_host(by.storage)
    assert isinstance(form, Fixed)
    if amounts.size and not 0 <= int(amounts.min()) <= int(amounts.max()) <= 1000:
        raise ArgumentError(f"{name}: shifts from {amounts.min()} to {amounts.max()}: expected 0 to 1000 places")
    if amounts.size == 1:
        return _shift_all(name, rule, x, form, sign * int(amounts.reshape(())), _shape(x.storage, amounts))
    if rule.result == rules.FULL:
        raise FormatError(f"{name}: shifts of different amounts have no one full precision: name a result format")
    shape = _shape(x.storage, amounts)
    codes, everywhere = np.broadcast_to(x.storage, shape), np.broadcast_to(amounts, shape)
    target = rules.result_of(name, rule, (form,), lambda: form)
    xp, place = module_of(codes), device_of(codes)
    out = xp.empty(shape, target.storage)
    outside = xp.zeros(shape, np.bool_)
    for amount in np.unique(amounts):
        here = tuple(moved_to(index, place) for index in np.nonzero(everywhere == amount))
        part = rescaled(name, rule, target, form.fraction_bits - sign * int(amount), bounds_of(form), codes[here])
        out[here] = part.tensor.storage
        if part.outside is not None:
            outside[here] = part.outside
    return Outcome(Tensor(out, target), outside if rule.watch else None)


def _shift_all(name: str, rule: Rule, x: Tensor, form: Fixed, places: int, shape: tuple[int, ...]) -> Outcome:
    if rule.result == rules.FULL:
        moved = rules.grown(name, form.integer_bits + places, form.fraction_bits - places, form.signed)
        return Outcome(Tensor(np.broadcast_to(x.storage, shape).copy(), moved))
    target = rules.result_of(name, rule, (form,), lambda: form)
    codes = np.broadcast_to(x.storage, shape)
    return rescaled(name, rule, target, form.fraction_bits - places, bounds_of(form), codes)


# Choice: codes are compared as they are, since all have one radix point


def on_codes(op: Op, *tensors: Tensor | None, **params: Any) -> Any:
    """An ordinary op on codes, as on the integers they are; its stored result."""
    arrays = tuple(None if t is None else t.storage for t in tensors)
    formats = tuple(None if t is None else stored(t.storage) if t.dtype.routed else t.dtype for t in tensors)
    return dispatch.call(op, formats, arrays, params)[0]


def chosen(name: str, rule: Rule, out: Tensor) -> Outcome:
    """A result that is one of the values given: in their format, or in the one that is asked for."""
    form = out.dtype
    assert isinstance(form, Fixed)
    if isinstance(rule.result, Fixed) and rule.result is not form:
        return rescaled(name, rule, rule.result, form.fraction_bits, bounds_of(form), out.storage)
    return Outcome(out)


def aligned(name: str, rule: Rule, *tensors: Tensor) -> list[Tensor]:
    """Operands in one format that holds the values of all; FormatError if they differ and no rule is given."""
    forms = operands(name, *tensors)
    rules.expect_one(name, rule, forms)
    if all(f is forms[0] for f in forms):
        return list(tensors)
    common = rules.of_choice(name, forms)
    return [
        t if f is common else rescaled(name, Rule(), common, f.fraction_bits, bounds_of(f), t.storage).tensor
        for t, f in zip(tensors, forms, strict=True)
    ]


@implements("maximum", "minimum")
def extreme(name: str, rule: Rule, a: Tensor, b: Tensor) -> Outcome:
    a, b = aligned(name, rule, a, b)
    return chosen(name, rule, Tensor(on_codes(plain.OPS[name], a, b), a.dtype))


@implements("where")
def where(name: str, rule: Rule, condition: Tensor, a: Tensor, b: Tensor) -> Outcome:
    a, b = aligned(name, rule, a, b)
    return chosen(name, rule, Tensor(on_codes(plain.OPS[name], condition, a, b), a.dtype))


@implements("clip")
def clip(name: str, rule: Rule, x: Tensor, low: Tensor | None, high: Tensor | None) -> Outcome:
    return chosen(name, rule, Tensor(on_codes(plain.OPS[name], x, low, high), x.dtype))


@implements("relu")
def relu(name: str, rule: Rule, x: Tensor) -> Outcome:
    return chosen(name, rule, Tensor(x.storage * (x.storage > 0), x.dtype))


@implements("sign")
def sign(name: str, rule: Rule, x: Tensor) -> Outcome:
    """-1, 0 or 1, in x's format or the rule's."""
    (form,) = operands(name, x)
    target = rules.result_of(name, rule, (form,), rules.no_full(name, "a sign"))
    return rescaled(name, rule, target, 0, (-1, 1), module_of(x.storage).sign(x.storage))


@implements("floor", "ceil", "trunc", "round")
def whole(name: str, rule: Rule, x: Tensor) -> Outcome:
    """Values without a fraction; halves to even for round. In x's format, or the rule's."""
    (form,) = operands(name, x)
    target = rules.result_of(name, rule, (form,), lambda: rules.of_sum(name, form, form))
    if form.fraction_bits <= 0:
        return rescaled(name, rule, target, form.fraction_bits, bounds_of(form), x.storage)
    mode = {"floor": "down", "ceil": "up", "trunc": "toward_zero", "round": "nearest_even"}[name]
    units = Fixed(max(form.integer_bits, 0) + 1, 0, form.signed)
    integers = rescaled(name, Rule(rounding=mode), units, form.fraction_bits, bounds_of(form), x.storage).tensor
    return rescaled(name, rule, target, 0, bounds_of(units), integers.storage)


@implements("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
def compare(name: str, rule: Rule, a: Tensor, b: Tensor) -> Outcome:
    """Exact. Of two formats only under a rule."""
    forms = operands(name, a, b)
    rules.expect_one(name, rule, forms)
    x, y = forms
    if x is y:
        return Outcome(Tensor(on_codes(plain.OPS[name], a, b), bool_))
    fraction = max(x.fraction_bits, y.fraction_bits)
    ahead = [fraction - f.fraction_bits for f in forms]
    fits = all(f.bits + more < 64 for f, more in zip(forms, ahead, strict=True))
    wide = [t.storage.astype(np.int64) if fits else on_host(name, t.storage).astype(object) for t in (a, b)]
    codes = [c << more for c, more in zip(wide, ahead, strict=True)]
    if fits:
        return Outcome(Tensor(on_codes(plain.OPS[name], *(Tensor(c, int64) for c in codes)), bool_))
    found = np.asarray(getattr(np, name)(*codes)).astype(np.bool_)
    return Outcome(Tensor(moved_to(found, a.device), bool_))


@implements("isnan", "isinf", "isfinite")
def special(name: str, rule: Rule, x: Tensor) -> Outcome:
    """Fixed point has neither NaN nor infinity."""
    return Outcome(Tensor(module_of(x.storage).full(x.shape, name == "isfinite"), bool_))


@implements("signbit")
def signbit(name: str, rule: Rule, x: Tensor) -> Outcome:
    return Outcome(Tensor(x.storage < 0, bool_))
