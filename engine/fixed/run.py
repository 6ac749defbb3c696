"""From operands to a result: the integer kernel of an operation, called with the cut that a rule asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import CPU, Device, as_array, device_of, moved_to
from ulpgrad.errors import FormatError
from ulpgrad.fixed.rules import Rule
from ulpgrad.formats import INTEGERS, Array, Fixed, Format
from ulpgrad.kernels import gpu
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.fixed.convert import exact_text
from ulpgrad.kernels.fixed.cut import Cut, applied, cut_to, limited, quotient
from ulpgrad.kernels.spec import Op
from ulpgrad.tensor import Tensor

Bounds = tuple[int, int]
_cut_to = lru_cache(4096)(cut_to)


@dataclass
class Outcome:
    """A result, and where it did not fit its format (None: nowhere, or nobody asked)."""

    tensor: Tensor
    outside: Array | None = None


def bounds_of(form: Fixed) -> Bounds:
    """The smallest and the largest code."""
    return form.min_code, form.max_code


def shifted(bounds: Bounds, by: int) -> Bounds:
    return bounds[0] << by, bounds[1] << by


def hull(*bounds: Bounds) -> Bounds:
    """Bounds that hold all of these, and zero."""
    return min(0, *(b[0] for b in bounds)), max(0, *(b[1] for b in bounds))


def product_bounds(a: Bounds, b: Bounds, terms: int = 1) -> Bounds:
    """Of a sum of products."""
    corners = [x * y for x in a for y in b]
    return min(0, *corners) * terms, max(0, *corners) * terms


def on_host(name: str, codes: Array) -> Array:
    """Codes where Python's integers can be made of them, which have any size. From a GPU they are copied, with a warning."""
    if codes.__class__ is not np.ndarray:
        dispatch.note_fallback(name, f"{name}: integers of more than 64 bits are not computed on a GPU")
    return gpu.to_host(codes)  # type: ignore[no-any-return]


INTEGER = {form.storage: form for form in INTEGERS}


def stored(a: Array) -> Format:
    """The integer format of codes as they are stored."""
    return INTEGER[a.dtype]


def cut_of(rule: Rule, form: Fixed, fraction: int, bounds: Bounds) -> Cut:
    return _cut_to(
        form,
        fraction,
        *bounds,
        rounding=rule.rounding,
        overflow=rule.overflow,
        random_bits=rule.random_bits,
        report=rule.watch,
    )


def generator_of(rule: Rule) -> Any:
    """Where a rule's random words come from."""
    from ulpgrad.random import default_generator

    return rule.generator or default_generator


def words_for(rule: Rule, shape: tuple[int, ...], place: Device = CPU) -> Array | None:
    """The random words of a call on a device, in the order of its results: none but for stochastic rounding."""
    if rule.rounding != "stochastic":
        return None
    return as_array(generator_of(rule).words(int(np.prod(shape, dtype=np.int64)), place)).reshape(shape)  # type: ignore[no-any-return]


def run(
    name: str,
    op: Op,
    rule: Rule,
    form: Fixed,
    fraction: int,
    bounds: Bounds,
    arrays: Sequence[Array],
    shape: tuple[int, ...],
    **params: Any,
) -> Outcome:
    """Call a kernel whose exact values have `fraction` fraction bits and lie in `bounds`."""
    return run_cut(name, op, rule, form, fraction, cut_of(rule, form, fraction, bounds), arrays, shape, params)


def run_cut(
    name: str,
    op: Op,
    rule: Rule,
    form: Fixed,
    fraction: int,
    cut: Cut,
    arrays: Sequence[Array | None],
    shape: tuple[int, ...],
    params: dict[str, Any],
) -> Outcome:
    """The same with a cut that is known."""
    formats = (*(None if a is None else stored(a) for a in arrays), None)
    words = None if rule.rounding != "stochastic" else words_for(rule, shape, device_of(arrays[0]))
    result, _ = dispatch.call(op, formats, (*arrays, words), {**params, "cut": cut})
    return _outcome(name, rule, form, result, cut, lambda place: _value(op, arrays, place, params, fraction), fraction)


def run_exact(
    name: str,
    rule: Rule,
    form: Fixed,
    fraction: int,
    values: Array,
    *,
    divisor: Array | None = None,
    place: Device = CPU,
) -> Outcome:
    """The same for exact values that are there already, as Python integers of any size (dtype object), divided or not. The
    result is moved to a device."""
    shape = values.shape
    flat = values.reshape(-1)
    extent = (min(flat, default=0), max(flat, default=0))
    cut = cut_to(form, fraction, *extent, rounding=rule.rounding, overflow=rule.overflow, random_bits=rule.random_bits,
                 report=rule.watch)  # fmt: skip
    words = words_for(rule, shape)
    words = None if words is None else words.reshape(-1)
    if divisor is None:
        result = applied(flat, cut, words)
    else:
        by = np.broadcast_to(divisor, shape).reshape(-1).astype(object)
        codes, outside = limited(quotient(flat, by, cut, words), cut)
        result = codes if outside is None else (codes, outside)
    result = (
        tuple(moved_to(r.reshape(shape), place) for r in result)
        if isinstance(result, tuple)
        else moved_to(result.reshape(shape), place)
    )
    return _outcome(name, rule, form, result, cut, lambda at: int(values[at]), fraction)


def rescaled(name: str, rule: Rule, form: Fixed, fraction: int, bounds: Bounds, codes: Array) -> Outcome:
    """Integers in units of 2^-fraction, cut to a format."""
    return run(name, spec.rescale, rule, form, fraction, bounds, (codes,), codes.shape, sign="keep")


def _outcome(
    name: str, rule: Rule, form: Fixed, result: Any, cut: Cut, exact: Callable[[tuple[int, ...]], Any], fraction: int
) -> Outcome:
    if not cut.report:
        return Outcome(Tensor(result, form))
    codes, outside = result
    if rule.overflow == "raise":
        overflowed(name, form, outside, lambda place: _text(exact(place), fraction))
    return Outcome(Tensor(codes, form), outside if rule.watch else None)


def _text(value: int | float, fraction: int) -> str:
    return repr(value) if isinstance(value, float) else exact_text(value, fraction)


def overflowed(name: str, form: Fixed, outside: Array, text: Callable[[tuple[int, ...]], str]) -> None:
    """FormatError with the first place that did not fit, and what would have been there."""
    if outside.any():
        place = tuple(int(i) for i in np.argwhere(gpu.to_host(outside))[0])
        raise FormatError(
            f"{name}: the result{f' at {place}' if place else ''} is {text(place)}, which does not fit {form.name} "
            f"({form.min} to {form.max}): take more integer bits, or overflow='saturate'"
        )


def _value(
    op: Op, arrays: Sequence[Array | None], place: tuple[int, ...], params: dict[str, Any], fraction: int
) -> int | float:
    """What an operation came to at one place, before it was cut, in units of 2^-fraction; of a quotient the value."""
    given = [gpu.to_host(a) for a in arrays if a is not None]
    if op is spec.matmul:
        i, j = place[-2:]
        lead = np.broadcast_shapes(*(a.shape[:-2] for a in given))
        left, right = (np.broadcast_to(a, (*lead, *a.shape[-2:]))[place[:-2]] for a in given)
        return int(np.dot(left[i].astype(object), right[:, j].astype(object)))
    shape = np.broadcast_shapes(*(a.shape for a in given))
    x, *rest = (int(np.broadcast_to(a, shape)[place]) for a in given)
    if op is spec.rescale:
        return -x if params["sign"] == "negate" else abs(x) if params["sign"] == "absolute" else x
    y = rest[0]
    if op is spec.multiply:
        return x * y
    x, y = x << int(params["left"]), y << int(params["right"])
    if op is spec.add:
        return x - y if params["subtract"] else x + y
    return float(Fraction(x, y) / Fraction(2) ** fraction)
