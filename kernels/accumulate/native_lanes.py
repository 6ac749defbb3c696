"""C++: columns of results in vector lanes, each sum rounded to odd and then to the format by adding and taking off a power
of two.

AVX-512 does the whole step in float32 lanes, by two fused products rounded down and up, in about fourteen instructions for
sixteen terms; elsewhere float64 lanes hold products exactly. Next limit: those instructions, where a plain product has one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.accumulate import spec
from ulpgrad.kernels.accumulate.rule import Rule, chunk_of, refusal
from ulpgrad.kernels.reduction.spec import result_shape
from ulpgrad.kernels.registry import kernel


def _multiply(a: Array, b: Array, rule: Rule, chunk: int) -> Array:
    product = native.module().accumulate_matmul(a, b, rule.format, chunk_of(chunk, a.shape[-1]), rule.random)
    return rule.finish(product)


@kernel(spec.accumulate_matmul, "cpu/native-lanes", rank=50, formats=[float32, float64], where=refusal)
def matmul(a: Array, b: Array, *, chunk: int = 1, **how: Any) -> Array:
    return _multiply(a, b, Rule.of(**how), chunk)


@kernel(spec.accumulate_sum, "cpu/native-lanes", rank=50, formats=[float32, float64], where=refusal)
def sum(x: Array, *, axis: spec.Axes, keepdims: bool, chunk: int = 1, **how: Any) -> Array:
    kept = tuple(i for i in range(x.ndim) if i not in axis)
    terms = math.prod(x.shape[i] for i in axis)
    columns = np.transpose(x, (*axis, *kept)).reshape(terms, math.prod(x.shape[i] for i in kept))
    ones = np.broadcast_to(x.dtype.type(1), (1, terms))
    return _multiply(ones, columns, Rule.of(**how), chunk).reshape(result_shape(x.shape, axis, keepdims))


@kernel(spec.accumulate_cumulative_sum, "cpu/native-lanes", rank=50, formats=[float32, float64], where=refusal)
def cumulative_sum(x: Array, *, axis: int, **how: Any) -> Array:
    rule = Rule.of(**how)
    lines = x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))
    return rule.finish(native.module().accumulate_cumulative_sum(lines, rule.format, rule.random)).reshape(x.shape)
