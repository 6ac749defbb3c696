"""Convolution, its transpose and its gradients on integer units: sums exact or in an accumulator of one's choice, in which a bias
joins them, then cut once to the result. Words that the integer kernels do not read become products of matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

from ulpgrad import dispatch
from ulpgrad.device import module_of
from ulpgrad.fixed.products import Product, finished, result_of, wide
from ulpgrad.fixed.routing import implements, operands
from ulpgrad.fixed.rules import Rule
from ulpgrad.fixed.run import Outcome, stored
from ulpgrad.formats import Array
from ulpgrad.kernels.conv import axes
from ulpgrad.kernels.conv.columns import patches
from ulpgrad.kernels.conv.geometry import IMAGES, Pair, output_size
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
