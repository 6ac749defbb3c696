"""Sums of products on integer units, exact or in an accumulator of one's choice, then cut once to the result: matrix
products, and what convolutions (`convolution`) share with them.

Words of up to 16 bits run on the int8 and int16 kernels; wider ones are summed in 64 or 128 bits. A bias joins the sum before
it is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import device_of, module_of
from ulpgrad.errors import FormatError
from ulpgrad.fixed import rules
from ulpgrad.fixed.routing import IMPLEMENTED, implements, operands
from ulpgrad.fixed.rules import Rule
from ulpgrad.fixed.run import (
    Bounds,
    Outcome,
    bounds_of,
    hull,
    on_host,
    product_bounds,
    rescaled,
    run,
    run_exact,
    shifted,
    stored,
)
from ulpgrad.formats import Array, Fixed
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.integer import spec as integer
from ulpgrad.kernels.integer.accumulator import Accumulator
from ulpgrad.tensor import Tensor

NARROW = (np.int8, np.uint8, np.int16)  # what the integer kernels read


@dataclass
class Sums:
    """Sums of products: integers in units of 2^-fraction, within bounds."""

    codes: Array
    fraction: int
    bounds: Bounds


@dataclass(frozen=True)
class Product:
    """What is known of a sum of products before it is made."""

    name: str
    rule: Rule
    a: Fixed
    b: Fixed
    terms: int

    @property
    def fraction(self) -> int:
        return self.a.fraction_bits + self.b.fraction_bits

    @property
    def bounds(self) -> Bounds:
        return product_bounds(bounds_of(self.a), bounds_of(self.b), max(self.terms, 1))

    def full(self, bias: Fixed | None = None) -> Fixed:
        """Full precision: of the chosen accumulator, or of the exact sum; with a bias one sum more."""
        chosen = self.rule.accumulator
        if isinstance(chosen, Accumulator):
            fraction = self.fraction - chosen.shift
            whole = rules.grown(self.name, chosen.bits - 1 - fraction, fraction, True)
        elif chosen == "int32":
            whole = rules.grown(self.name, 31 - self.fraction, self.fraction, True)
        else:
            whole = rules.of_product(self.name, self.a, self.b, self.terms)
        return whole if bias is None else rules.of_sum(self.name, whole, bias)

    def accumulator(self, *arrays: Array) -> Any:
        """What integer kernels are to sum in; None if the sum is not theirs. FormatError for a choice that they cannot make."""
        low, high = self.bounds
        narrow = all(x.dtype in NARROW for x in arrays)
        chosen = self.rule.accumulator
        if isinstance(chosen, Accumulator) or chosen == "int32":
            if not narrow:
                names = " and ".join(dict.fromkeys((self.a.name, self.b.name)))
                raise FormatError(
                    f"{self.name}: an accumulator is chosen for words of up to 16 bits (signed) or 8 (unsigned), and operands "
                    f"are {names}: convert them with .to(format), or leave accumulator=None, which is exact"
                )
            return chosen
        if chosen == "int64" and not (low >= -(2**63) and high < 2**63):
            raise FormatError(
                f"{self.name}: sums of {self.terms} products of {self.a.name} and {self.b.name} do not fit an int64: leave "
                "accumulator=None, which is exact"
            )
        return None if not narrow else "int32" if low >= -(2**31) and high < 2**31 else "int64"

    def extent(self, accumulator: Any) -> tuple[int, Bounds]:
        """Fraction bits and bounds of what an integer kernel gives."""
        if isinstance(accumulator, Accumulator):
            half = 1 << (accumulator.bits - 1)
            return self.fraction - accumulator.shift, (-half, half - 1)
        if self.rule.accumulator == "int32":
            return self.fraction, (-(2**31), 2**31 - 1)
        return self.fraction, self.bounds

    def sums(self, codes: Array, accumulator: Any) -> Sums:
        """What an integer kernel gave."""
        return Sums(codes, *self.extent(accumulator))


def result_of(product: Product, bias: Fixed | None) -> Fixed:
    """The format that a rule asks for."""
    forms = (product.a, product.b) if bias is None else (product.a, product.b, bias)
    return rules.result_of(product.name, product.rule, forms, lambda: product.full(bias))


def joined(fraction: int, bounds: Bounds, bias_form: Fixed) -> tuple[int, Bounds, int, int]:
    """Fraction bits and bounds of sums with a bias, and the zeros that sums and bias gain before they are added."""
    whole = max(fraction, bias_form.fraction_bits)
    left, right = whole - fraction, whole - bias_form.fraction_bits
    first, second = shifted(bounds, left), shifted(bounds_of(bias_form), right)
    return whole, hull(first, second, (first[0] + second[0], first[1] + second[1])), left, right


def finished(product: Product, form: Fixed, sums: Sums, bias: Array | None, bias_form: Fixed | None) -> Outcome:
    """Sums, with their bias, cut to the result."""
    name, rule = product.name, product.rule
    if bias is None or bias_form is None:
        return rescaled(name, rule, form, sums.fraction, sums.bounds, sums.codes)
    fraction, bounds, left, right = joined(sums.fraction, sums.bounds, bias_form)
    shape = sums.codes.shape
    return run(name, spec.add, rule, form, fraction, bounds, (sums.codes, bias), shape, left=left, right=right,
               subtract=False)  # fmt: skip


def wide(product: Product, form: Fixed, a: Array, b: Array, bias: Array | None, bias_form: Fixed | None) -> Outcome:
    """[..., m, k] @ [..., k, n] (+ [..., 1, n]) for words that the integer kernels do not read."""
    name, rule = product.name, product.rule
    fraction, bounds = product.fraction, product.bounds
    if bias is not None and bias_form is not None:
        ahead = fraction - bias_form.fraction_bits
        if not 0 <= ahead <= 62 or max(f.max_code for f in (product.a, product.b, bias_form)) >= 2**63:
            place = device_of(a)
            a, b, bias = (on_host(name, v).astype(object) for v in (a, b, bias))
            exact = (np.matmul(a, b) << max(-ahead, 0)) + (bias << max(ahead, 0))
            return run_exact(name, rule, form, fraction + max(-ahead, 0), np.asarray(exact, object), place=place)
        # the bias is one more row of b, under a column of constants in a
        xp = module_of(a)
        column = xp.full((*a.shape[:-1], 1), 1 << ahead, np.int64)
        row = xp.broadcast_to(bias, (*b.shape[:-2], 1, b.shape[-1]))
        a, b, column, row = (v.astype(np.int64, copy=False) for v in (a, b, column, row))
        a, b = xp.concatenate((a, column), axis=-1), xp.concatenate((b, row), axis=-2)
        extra = shifted(bounds_of(bias_form), ahead)
        bounds = hull(bounds, extra, (bounds[0] + extra[0], bounds[1] + extra[1]))
    return run(name, spec.matmul, rule, form, fraction, bounds, (a, b), spec.matmul_shape(a, b))


@implements("matmul")
def matmul(name: str, rule: Rule, a: Tensor, b: Tensor) -> Outcome:
    x, y = operands(name, a, b)
    product = Product(name, rule, x, y, a.shape[-1])
    return _multiplied(product, a.storage, b.storage, None, None)


def _multiplied(product: Product, a: Array, b: Array, bias: Array | None, bias_form: Fixed | None) -> Outcome:
    form = result_of(product, bias_form)
    accumulator = product.accumulator(a, b)
    if accumulator is None:
        return wide(product, form, a, b, bias, bias_form)
    params = {"accumulator": accumulator}
    codes = dispatch.call(integer.integer_matmul, (stored(a), stored(b)), (a, b), params)[0]
    return finished(product, form, product.sums(codes, accumulator), bias, bias_form)


@implements("linear")
def linear(
    name: str, rule: Rule, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str | None = None
) -> Outcome:
    """x @ weight.T + bias in one rounding; an activation follows as a step of its own."""
    forms = operands(name, x, weight, bias)
    product = Product(name, rule, forms[0], forms[1], x.shape[-1])
    rows = x.storage.reshape(-1, x.shape[-1])
    added = None if bias is None else bias.storage
    out = _multiplied(product, rows, weight.storage.T, added, forms[2] if bias is not None else None)
    shape = (*x.shape[:-1], weight.shape[0])
    tensor = Tensor(out.tensor.storage.reshape(shape), out.tensor.dtype)
    outside = None if out.outside is None else out.outside.reshape(shape)
    if activation is None:
        return Outcome(tensor, outside)
    if activation not in IMPLEMENTED:
        raise FormatError(
            f"linear: activation {activation!r} has no fixed-point arithmetic: expected relu, tanh or sigmoid"
        )
    followed: Outcome = IMPLEMENTED[activation].run(activation, rule, tensor)
    return followed
