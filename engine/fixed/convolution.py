"""Convolution, its transpose and its gradients on integer units: sums exact or in an accumulator of one's choice, in which a bias
joins them, then cut once to the result: on a GPU by the kernel that sums, where there is one. Words that the integer kernels do
not read become products of matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import module_of
from ulpgrad.fixed.products import Product, finished, joined, result_of, wide
from ulpgrad.fixed.routing import implements, operands
from ulpgrad.fixed.rules import Rule
from ulpgrad.fixed.run import Outcome, cut_of, run_cut, stored
from ulpgrad.formats import Array, Fixed
from ulpgrad.kernels.conv import axes
from ulpgrad.kernels.conv.columns import patches
from ulpgrad.kernels.conv.geometry import IMAGES, Pair, output_size
from ulpgrad.kernels.fixed import spec as spec_of_cuts
from ulpgrad.kernels.integer.spec import integer_conv2d
from ulpgrad.kernels.integer_gradients import spec
from ulpgrad.kernels.spec import Op
from ulpgrad.tensor import Tensor

Matrices = Callable[[], tuple[Array, Array]]


def _summed(
    name: str, rule: Rule, op: Op, a: Tensor, b: Tensor, bias: Tensor | None, terms: int, shape: tuple[int, ...],
    matrices: Matrices, params: dict[str, Any],
) -> Outcome:  # fmt: skip
    """`op` of codes and a bias [o], cut once. `matrices`: what wide words are multiplied as, [..., places, k] and
    [..., k, outputs], whose product as [..., outputs, places] has the result's `shape`."""
    forms = operands(name, a, b, bias)
    product = Product(name, rule, forms[0], forms[1], terms)
    bias_form = forms[2] if bias is not None else None
    form = result_of(product, bias_form)
    accumulator = product.accumulator(a.storage, b.storage)
    if accumulator is not None:
        whole = _cut_at_once(product, form, op, a, b, bias, bias_form, shape, {**params, "accumulator": accumulator})
        if whole is not None:
            return whole
        arrays = a.storage, b.storage
        how = {**params, "accumulator": accumulator}
        codes = dispatch.call(op, tuple(stored(codes) for codes in arrays), arrays, how)[0]
        added = None if bias is None else bias.storage.reshape(-1, 1, 1)
        return finished(product, form, product.sums(codes, accumulator), added, bias_form)
    left, right = matrices()
    added = None if bias is None else bias.storage.reshape(right.shape[-3], 1, right.shape[-1])
    out = wide(product, form, left, right, added, bias_form)
    placed = (a if a is None else a.swapaxes(-1, -2).reshape(shape) for a in (out.tensor.storage, out.outside))
    codes, outside = placed
    return Outcome(Tensor(codes, form), outside)


def _cut_at_once(
    product: Product, form: Fixed, op: Op, x: Tensor, weight: Tensor, bias: Tensor | None, bias_form: Fixed | None,
    shape: tuple[int, ...], params: dict[str, Any],
) -> Outcome | None:  # fmt: skip
    """The same by a kernel that writes codes instead of sums. None where there is none: on the CPU, whose sums stay in its cache,
    and where an error has to say what a sum was."""
    name, rule = product.name, product.rule
    if op is not integer_conv2d or x.storage.__class__ is np.ndarray or rule.overflow == "raise":
        return None
    fraction, bounds = product.extent(params["accumulator"])
    left = right = 0
    if bias_form is not None:
        fraction, bounds, left, right = joined(fraction, bounds, bias_form)
    cut = cut_of(rule, form, fraction, bounds)
    arrays = x.storage, weight.storage, None if bias is None else bias.storage
    params = {**params, "left": left, "right": right}
    formats = tuple(None if array is None else stored(array) for array in arrays)
    plan = dispatch.plan(spec_of_cuts.conv2d, (*formats, None), (*arrays, None), {**params, "cut": cut})
    if plan.rung.device == "cpu" or dispatch.is_pinned(op.name):
        return None
    return run_cut(name, spec_of_cuts.conv2d, rule, form, fraction, cut, arrays, shape, params)


@implements("conv2d")
def conv2d(
    name: str, rule: Rule, x: Tensor, weight: Tensor, bias: Tensor | None, *, groups: int, **geometry: Any
) -> Outcome:
    n, o, kernel = x.shape[0], weight.shape[0], (weight.shape[2], weight.shape[3])
    positions = output_size(x.shape[2:], kernel, *(geometry[k] for k in ("stride", "padding", "dilation")))
    terms = prod(weight.shape[1:])

    def matrices() -> tuple[Array, Array]:
        seen = patches(x.storage, kernel, module_of(x.storage), **geometry).reshape(n, groups, terms, prod(positions))
        return seen.swapaxes(-1, -2), weight.storage.reshape(groups, o // groups, terms).swapaxes(-1, -2)

    params = {**geometry, "groups": groups}
    return _summed(name, rule, integer_conv2d, x, weight, bias, terms, (n, o, *positions), matrices, params)


def transposed(
    name: str, rule: Rule, x: Tensor, weight: Tensor, bias: Tensor | None, *, size: Pair, groups: int, **geometry: Any
) -> Outcome:
    """x [n, c, h, w], weight [c, o / groups, kh, kw], bias [o] -> [n, o, *size]."""
    axes.check_input_gradient(name, IMAGES, x.storage, weight.storage, size=size, groups=groups, **geometry)
    op, params = spec.integer_conv2d_input_gradient, {**geometry, "size": size, "groups": groups}
    terms = spec.input_terms(x.shape[1], weight.shape[2:], groups=groups, **geometry)

    def matrices() -> tuple[Array, Array]:
        filters, columns = spec.brought(x.storage, weight.storage, size, groups, module_of(x.storage), **geometry)
        return columns.swapaxes(-1, -2), filters.swapaxes(-1, -2)

    shape = (x.shape[0], weight.shape[1] * groups, *size)
    return _summed(name, rule, op, x, weight, bias, terms, shape, matrices, params)


@implements("conv2d_input_gradient")
def input_gradient(name: str, rule: Rule, g: Tensor, weight: Tensor, **params: Any) -> Outcome:
    return transposed(name, rule, g, weight, None, **params)


@implements("conv2d_weight_gradient")
def weight_gradient(
    name: str, rule: Rule, g: Tensor, x: Tensor, *, size: Pair, groups: int, **geometry: Pair
) -> Outcome:
    def matrices() -> tuple[Array, Array]:
        columns = partial(spec.columns, xp=module_of(x.storage))
        rows, seen = spec.met(g.storage, x.storage, size, groups, columns, **geometry)
        return seen.swapaxes(-1, -2), rows.swapaxes(-1, -2)

    op, params = spec.integer_conv2d_weight_gradient, {**geometry, "size": size, "groups": groups}
    shape = (g.shape[1], x.shape[1] // groups, *size)
    return _summed(name, rule, op, g, x, None, spec.weight_terms(g), shape, matrices, params)
