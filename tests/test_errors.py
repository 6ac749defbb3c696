"""Bad input gets a typed error that names the op and says what was wrong: a table of mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import (
    ArgumentError,
    AxisError,
    DeviceError,
    FormatError,
    GradientError,
    KernelError,
    ShapeError,
    UlpgradError,
)

A = ug.ones((2, 3))
B = ug.ones((4, 5))
V = ug.ones(3)
S = ug.asarray(1.0)
I = ug.arange(6).reshape(2, 3)
M = ug.asarray([[True, False, True], [False, False, True]])
W = ug.asarray([1.0, 2.0], requires_grad=True)

Mistake = tuple[Callable[[], Any], type[Exception], str]

# fmt: off
SHAPES: list[Mistake] = [
    (lambda: ug.add(A, B), ShapeError, r"add: shapes \(2, 3\) and \(4, 5\) do not broadcast: axis -1 is 3 and 5"),
    (lambda: A * ug.ones((3, 3)), ShapeError,
     r"multiply: shapes \(2, 3\) and \(3, 3\) do not broadcast: axis -2 is 2 and 3"),
    (lambda: ug.less(A, ug.ones(2)), ShapeError, r"less: shapes \(2, 3\) and \(2,\) do not"),
    (lambda: ug.where(M, B, 1.0), ShapeError, r"where: shapes \(2, 3\) and \(4, 5\)"),
    (lambda: ug.clip(A, B, None), ShapeError, r"clip: shapes \(2, 3\) and \(4, 5\)"),
    (lambda: A @ B, ShapeError, r"matmul: inner sizes differ: \(2, 3\) @ \(4, 5\): 3 != 4"),
    (lambda: V @ B, ShapeError, r"matmul: inner sizes differ: \(3,\) @ \(4, 5\): 3 != 4"),
    (lambda: B @ V, ShapeError, r"matmul: inner sizes differ: \(4, 5\) @ \(3,\): 5 != 3"),
    (lambda: V @ ug.ones(4), ShapeError, r"matmul: inner sizes differ: \(3,\) @ \(4,\): 3 != 4"),
    (lambda: S @ A, ShapeError, r"matmul: expected at least one dimension each, got \(\) @ \(2, 3\)"),
    (lambda: ug.ones((2, 1, 1)) @ ug.ones((3, 1, 1)), ShapeError, r"matmul: .*\(2, 1, 1\).*\(3, 1, 1\)"),
    (lambda: ug.linear(A, ug.ones((4, 2))), ShapeError, r"linear: .*\(2, 3\).*\(4, 2\)"),
    (lambda: ug.linear(A, ug.ones((4, 3)), ug.ones(5)), ShapeError, r"linear: .*\(5,\)"),
    (lambda: ug.linear(A, A, activation="selu"), ArgumentError, "linear: unknown activation 'selu'; expected .*relu"),
    (lambda: ug.vecdot(A, ug.ones(4)), ShapeError, "vecdot: sizes differ on axis -1: 3 != 4"),
    (lambda: ug.vecdot(A, A, axis=1), ShapeError, "vecdot: axis must be negative"),
    (lambda: ug.tensordot(A, B), ShapeError, r"tensordot: contracted sizes differ: .*\(2, 3\)"),
    (lambda: ug.tensordot(A, B, axes=3), ShapeError, "tensordot: 3 axes do not fit"),
    (lambda: ug.tensordot(A, A, axes=((0, 0), (0, 0))), ArgumentError, "tensordot: .* twice"),
    (lambda: ug.outer(A, V), ShapeError, r"outer: .*\(2, 3\)"),
    (lambda: ug.reshape(A, (4, 2)), ShapeError, r"reshape: 6 elements of shape \(2, 3\) do not fit shape \(4, 2\)"),
    (lambda: ug.reshape(A, (-1, 4)), ShapeError, r"reshape: 6 elements of shape \(2, 3\) do not fit shape \(-1, 4\)"),
    (lambda: ug.reshape(A, (-1, -1)), ShapeError, "reshape: at most one size may be -1"),
    (lambda: ug.reshape(A, (-2, 3)), ShapeError, "reshape: at most one size may be -1 and none less"),
    (lambda: ug.reshape(A, 2.5), ArgumentError, "reshape: a shape is an integer or a sequence of integers, got 2.5"),
    (lambda: ug.reshape(A, ("2", 3)), ArgumentError, "reshape: a shape is"),
    (lambda: ug.reshape(A.mT, (6,), copy=False), ArgumentError, "reshape: .* drop copy=False"),
    (lambda: ug.reshape(ug.ones((0, 3)), (-1, 0)), ShapeError, "reshape: 0 elements"),
    (lambda: ug.broadcast_to(A, (3,)), ShapeError, r"broadcast_to: shape \(2, 3\) is larger than the target \(3,\)"),
    (lambda: ug.broadcast_to(A, (4, 3)), ShapeError, r"broadcast_to: shapes \(2, 3\) and \(4, 3\)"),
    (lambda: ug.broadcast_arrays(A, B), ShapeError, "broadcast_arrays: shapes"),
    (lambda: ug.concat([A, B]), ShapeError, r"concat: shapes \(2, 3\) and \(4, 5\) differ elsewhere than on axis 0"),
    (lambda: ug.concat([A, V]), ShapeError, r"concat: shapes \(2, 3\) and \(3,\)"),
    (lambda: ug.concat([]), ArgumentError, "concat: expected at least one tensor"),
    (lambda: ug.concat([S, S]), AxisError, "concat: axis 0 is outside a tensor of 0 dimensions"),
    (lambda: ug.stack([A, B]), ShapeError, r"stack: all shapes must be equal, got \(2, 3\), \(4, 5\)"),
    (lambda: ug.squeeze(A, 0), ShapeError, r"squeeze: axis 0 of shape \(2, 3\) does not have size 1"),
    (lambda: ug.permute_dims(A, (0,)), ShapeError, r"permute_dims: axes \(0,\) must name each of the 2 dimensions"),
    (lambda: ug.permute_dims(A, (0, 0)), ArgumentError, "permute_dims: axis .* twice"),
    (lambda: ug.matrix_transpose(V), ShapeError,
     r"matrix_transpose: expected at least two dimensions, got shape \(3,\)"),
    (lambda: ug.ones((1, 2, 3)).T, ShapeError, "T: expected two dimensions"),
    (lambda: ug.moveaxis(A, (0, 1), 0), ShapeError, "moveaxis: 2 source axes but 1 destinations"),
    (lambda: ug.flatten(A, 1, 0), ArgumentError, "flatten: start axis 1 lies behind end axis 0"),
    (lambda: ug.roll(A, (1, 2, 3), axis=(0, 1)), ArgumentError, "roll: 3 shifts for 2 axes"),
    (lambda: ug.roll(A, 1.5), ArgumentError, "roll: .*integer.*1.5"),
    (lambda: ug.tile(A, (2, -1)), ShapeError, "tile: sizes must not be negative"),
    (lambda: ug.repeat(A, -1), ArgumentError, "repeat: repeats must be integers of at least 0"),
    (lambda: ug.repeat(A, 1.5), ArgumentError, "repeat: repeats must be integers"),
    (lambda: ug.repeat(A, ug.asarray([1, 2]), axis=1), ShapeError, r"repeat: \(2,\) repeats for 3 positions"),
    (lambda: ug.tril(V), ShapeError, "tril: expected at least two dimensions"),
    (lambda: ug.triu(S), ShapeError, "triu: expected at least two dimensions"),
    (lambda: ug.meshgrid(V, A), ShapeError, "meshgrid: "),
    (lambda: ug.meshgrid(V, V, indexing="yx"), ArgumentError, "meshgrid: indexing must be 'xy' or 'ij', got 'yx'"),
    (lambda: ug.diff(A, n=-1), ArgumentError, "diff: n must be at least 0"),
    (lambda: ug.zeros((2, -1)), ShapeError, r"zeros: sizes must not be negative, got \(2, -1\)"),
    (lambda: ug.ones("ab"), ArgumentError, r"full: a shape is|ones: a shape is"),
    (lambda: ug.empty(2.0), ArgumentError, "empty: a shape is"),
    (lambda: ug.full(2, A), ShapeError, r"full: the fill value must be a single number, got shape \(2, 3\)"),
]

AXES: list[Mistake] = [
    *((lambda n=n: getattr(ug, n)(A, axis=2), AxisError,
       f"{n}: axis 2 is outside a tensor of 2 dimensions; expected -2 to 1")
      for n in ("sum", "prod", "mean", "var", "max", "min", "all", "any", "argmax", "argmin", "cumulative_sum",
                "cumulative_prod", "flip", "sort", "argsort", "take_along_axis-", "unstack", "diff", "concat-",
                "repeat-", "roll-",
                "count_nonzero", "logsumexp", "std", "topk-", "squeeze-") if not n.endswith("-")),
    (lambda: ug.sum(A, axis=-3), AxisError, "sum: axis -3 is outside"),
    (lambda: ug.sum(S, axis=0), AxisError, "sum: axis 0 is outside a tensor of 0 dimensions; a 0-d tensor has no axes"),
    (lambda: ug.sum(A, axis=(0, 0)), ArgumentError, r"sum: axis \(0, 0\) names an axis twice"),
    (lambda: ug.sum(A, axis=(0, -2)), ArgumentError, "sum: axis .* twice"),
    (lambda: ug.sum(A, axis=0.5), ArgumentError, "sum: axis must be an integer, got 0.5"),
    (lambda: ug.argmax(A, axis=(0, 1)), ArgumentError, "argmax: axis must be an integer"),
    (lambda: ug.squeeze(A, 5), AxisError, "squeeze: axis 5"),
    (lambda: ug.expand_dims(A, axis=4), AxisError, "expand_dims: axis 4 is outside a tensor of 3 dimensions"),
    (lambda: ug.stack([A, A], axis=3), AxisError, "stack: axis 3"),
    (lambda: ug.concat([A, A], axis=-3), AxisError, "concat: axis -3"),
    (lambda: ug.moveaxis(A, 2, 0), AxisError, "moveaxis: axis 2"),
    (lambda: ug.permute_dims(A, (0, 2)), AxisError, "permute_dims: axis 2"),
    (lambda: ug.roll(A, 1, axis=2), AxisError, "roll: axis 2"),
    (lambda: ug.repeat(A, 2, axis=2), AxisError, "repeat: axis 2"),
    (lambda: ug.take(A, [0], axis=2), AxisError, "take: axis 2"),
    (lambda: ug.take_along_axis(A, I, axis=2), AxisError, "take_along_axis: axis 2"),
    (lambda: ug.topk(A, 1, axis=2), AxisError, "topk: axis 2"),
    (lambda: ug.cumulative_sum(A), ShapeError, "cumulative_sum: axis must be given for a tensor of 2 dimensions"),
    (lambda: ug.sort(S), AxisError, "sort: axis -1 is outside a tensor of 0 dimensions"),
    *((lambda n=n: getattr(ug, n)(ug.ones((4, 32)).to("mxfp8_e4m3")), FormatError,
       f"^{n}: mxfp8_e4m3 has scales along an axis") for n in ("sort", "argsort")),
    (lambda: ug.max(ug.zeros((0, 3)), axis=0), (ShapeError, ArgumentError), r"max: .*\(0, 3\)"),
    (lambda: ug.min(ug.zeros(0)), (ShapeError, ArgumentError), r"min: .*\(0,\)"),
    (lambda: ug.argmax(ug.zeros((2, 0)), axis=1), (ShapeError, ArgumentError), r"argmax: .*\(2, 0\)"),
    (lambda: ug.argmin(ug.zeros(0)), (ShapeError, ArgumentError), r"argmin: .*\(0,\)"),
]

INDICES: list[Mistake] = [
    (lambda: A[2], AxisError, r"getitem: index 2 is out of bounds for axis 0 with size 2 .*shape \(2, 3\)"),
    (lambda: A[0, -4], AxisError, "getitem: index -4 is out of bounds for axis 1 with size 3"),
    (lambda: A[0, 0, 0], AxisError, "getitem: too many indices.*2-dimensional, but 3"),
    (lambda: S[0], AxisError, "getitem: too many indices"),
    (lambda: A[..., ...], AxisError, "getitem: .*ellipsis"),
    (lambda: A[[0, 2]], AxisError, "getitem: index 2 is out of bounds"),
    (lambda: A[[0, 1], [0, 1, 2]], AxisError, r"getitem: shape mismatch.*\(2,\) \(3,\)"),
    (lambda: A[V], FormatError, "getitem: an index must hold integers or bools, this one holds float32"),
    (lambda: A[ug.ones(2, dtype=ug.bfloat16)], FormatError, "getitem: an index must hold integers.*bfloat16"),
    (lambda: A[[0.5]], FormatError, "getitem: an index must hold integers"),
    (lambda: A[np.ones(2)], FormatError, "getitem: an index must hold integers.*float64"),
    (lambda: A[1.0], FormatError, "getitem: cannot index with float"),
    (lambda: A["a"], FormatError, "getitem: cannot index with str"),
    (lambda: A[1.0:], FormatError, "getitem: slice indices must be integers"),
    (lambda: A[::0], ArgumentError, "getitem: slice step"),
    (lambda: A[[[0], [1, 0]]], ShapeError, "ragged"),
    (lambda: A[M[:, :2]], AxisError, "getitem: boolean index did not match"),
    (lambda: A.__setitem__(5, 1.0), AxisError, "setitem: index 5 is out of bounds"),
    (lambda: A.__setitem__((0, 0, 0), 1.0), AxisError, "setitem: too many indices"),
    (lambda: A.__setitem__(V, 1.0), FormatError, "setitem: an index must hold integers"),
    (lambda: A.__setitem__(0, ug.ones(2)), ShapeError,
     r"setitem: a value of shape \(2,\) does not fit x\[index\] of shape \(3,\)"),
    (lambda: A.__setitem__(M, ug.ones(2)), ShapeError, r"setitem: a value of shape \(2,\) does not fit .* \(3,\)"),
    (lambda: A.__setitem__(0, "x"), FormatError, "holding <U1|cannot make"),
    (lambda: A.__setitem__(0, 1j), FormatError, "complex"),
    (lambda: I.__setitem__(0, float("nan")), FormatError, "cast: .*nan.*int64"),
    (lambda: I.__setitem__(0, ug.asarray(np.inf)), FormatError, "cast: .*inf.*int64"),
    (lambda: ug.zeros(1, dtype=ug.int8).__setitem__(0, 300), FormatError,
     "300 does not fit int8, which holds -128 to 127"),
    (lambda: ug.zeros(1, dtype=ug.uint8).__setitem__(0, -1), FormatError, "-1 does not fit uint8"),
    (lambda: W.__setitem__(0, 1.0), GradientError, "setitem: the tensor requires a gradient"),
    (lambda: ug.zeros(2).__setitem__(0, W[0]), GradientError, "setitem: the value requires a gradient"),
    (lambda: ug.broadcast_to(S, (2,)).__setitem__(0, 1.0), ArgumentError, "setitem: .*read-only"),
    (lambda: ug.take(A, [0]), ShapeError, "take: axis must be given"),
    (lambda: ug.take(V, [3]), AxisError, "take: index 3 is out of bounds"),
    (lambda: ug.take(V, [0.5]), FormatError, "take: an index must hold integers"),
    (lambda: ug.take(V, [True]), FormatError, "take: indices must be integers, got bool"),
    (lambda: ug.take_along_axis(A, ug.asarray([0])), ShapeError, "take_along_axis: 1 dimensions of indices"),
    (lambda: ug.take_along_axis(A, ug.asarray([[0], [0], [0]])), ShapeError, "take_along_axis: shapes"),
    (lambda: ug.take_along_axis(A, ug.asarray([[3]])), AxisError, "take_along_axis: index 3 is out of bounds"),
    (lambda: ug.nonzero(S), ShapeError, "nonzero: a 0-d tensor"),
    (lambda: ug.topk(V, 4), ArgumentError, "topk: k must be 0 to 3, the size of axis 0, got 4"),
    (lambda: ug.topk(V, -1), ArgumentError, "topk: k must be"),
    (lambda: ug.searchsorted(A, V), ShapeError,
     r"searchsorted: expected a 1-d tensor to search in, got shape \(2, 3\)"),
    (lambda: ug.searchsorted(V, V, side="middle"), ArgumentError,
     "searchsorted: side must be 'left' or 'right', got 'middle'"),
    (lambda: ug.searchsorted(V, V, sorter=V), ShapeError, "searchsorted: sorter must be integers"),
    (lambda: list(S), FormatError, "0-d"),
    (lambda: len(S), FormatError, "len of a 0-d tensor"),
    (lambda: [1, 2][V], FormatError, "only an integer tensor can be an index, this one is float32"),
    (lambda: [1, 2][I], ArgumentError, r"item: a tensor of shape \(2, 3\) has 6 elements, expected 1"),
    (lambda: float(A), ArgumentError, "item: .* has 6 elements"),
    (lambda: bool(A), ArgumentError, r"the truth of a tensor of shape \(2, 3\) is ambiguous"),
]

FORMATS: list[Mistake] = [
    (lambda: ug.asarray([[1, 2], [3]]), ShapeError, r"asarray: nested lists must have equal lengths \(ragged"),
    (lambda: ug.asarray("abc"), FormatError, "asarray: .*str"),
    (lambda: ug.asarray([1, "a"]), FormatError, "asarray: .*list"),
    (lambda: ug.asarray(None), FormatError, "asarray: .*NoneType"),
    (lambda: ug.asarray([1, None]), FormatError, "asarray: "),
    (lambda: ug.asarray({1: 2}), FormatError, "asarray: .*dict"),
    (lambda: ug.asarray(1j), FormatError, "asarray: .*complex"),
    (lambda: ug.asarray(np.array(["a"])), FormatError, "asarray: arrays of <U1 are not taken"),
    (lambda: ug.asarray(np.array([1j])), FormatError, "asarray: arrays of complex128"),
    (lambda: ug.asarray(np.array([object()])), FormatError, "asarray: arrays of object"),
    (lambda: ug.asarray(np.array(["2020"], "M8")), FormatError, "asarray: arrays of datetime"),
    (lambda: ug.asarray([300], dtype=ug.int8), FormatError,
     r"asarray: numbers from 300 to 300 do not fit int8 \(-128 to 127\)"),
    (lambda: ug.asarray(-1, dtype=ug.uint8), FormatError, "do not fit uint8"),
    (lambda: ug.asarray(2**63), FormatError, "asarray: 9223372036854775808 does not fit int64; pass dtype=uint64"),
    (lambda: ug.asarray(2**70), FormatError, "asarray: "),
    (lambda: ug.asarray([1.5], dtype=ug.int8, copy=False), ArgumentError, "drop copy=False"),
    (lambda: ug.asarray([1.0], copy=False), ArgumentError, "asarray: list cannot become a tensor without a copy"),
    (lambda: ug.asarray(A, dtype=ug.int8, copy=False), ArgumentError,
     "asarray: float32 cannot become int8 without a copy"),
    (lambda: ug.asarray([np.nan], dtype=ug.int32), FormatError, "cast: nan.*int32"),
    (lambda: ug.asarray([1.0]).astype("float33"), FormatError, "unknown format 'float33': expected one of bool, int8"),
    (lambda: ug.zeros(2, dtype=complex), FormatError, "unknown format .*complex"),
    (lambda: ug.zeros(2, dtype=3), FormatError, "unknown format 3"),
    (lambda: ug.asarray([np.inf]).astype(ug.int8), FormatError, "cast: inf has no value in int8"),
    (lambda: ug.asarray([1e20]).astype(ug.int64), FormatError, "cast: 1.*e.?20 has no value in int64"),
    (lambda: ug.asarray([-1.0]).astype(ug.uint8), FormatError, "cast: -1.0 has no value in uint8"),
    (lambda: ug.full(2, 1000, dtype=ug.int8), FormatError, "do not fit int8"),
    (lambda: ug.arange(0, 1000, dtype=ug.int8), FormatError, "arange: .*int8"),
    (lambda: ug.arange(0, 5, 0), ArgumentError, "arange: step must not be 0"),
    (lambda: ug.arange(0, np.nan), ArgumentError, "arange: .*nan"),
    (lambda: ug.arange("a"), ArgumentError, "arange: .*'a'"),
    (lambda: ug.linspace(0, 1, -1), ArgumentError, "linspace: num must .*not be negative, got -1"),
    (lambda: ug.linspace(0, 1, 2.5), ArgumentError, "linspace: num must .*2.5"),
    (lambda: ug.eye(-1), ShapeError, "eye: sizes must not be negative"),
    (lambda: I + 2**70, FormatError, "does not fit int64"),
    (lambda: ug.zeros(1, dtype=ug.int8) + 200, FormatError, "200 does not fit int8"),
    (lambda: V + "a", FormatError, "add: cannot take an operand of type str"),
    (lambda: V + None, FormatError, "add: cannot take an operand of type NoneType"),
    (lambda: V * [1, "a", 2], FormatError, "multiply: cannot take an operand of type list"),
    (lambda: V + 1j, FormatError, "add: cannot take an operand of type complex"),
    (lambda: ug.exp("a"), FormatError, "str"),
    (lambda: ug.zeros(1, dtype=ug.uint64) + ug.zeros(1, dtype=ug.int64), FormatError,
     "no integer holds both uint64 and int64"),
    *((lambda n=n: getattr(ug, n)(I), FormatError,
       f"{n}: int64 is not taken; expected one of .*float32.*\\.to\\(format\\)")
      for n in ("exp", "log", "sqrt", "sin", "tanh", "sigmoid", "gelu", "mean", "var", "std-",
                "reciprocal") if not n.endswith("-")),
    *((lambda n=n: getattr(ug, n)(V, V), FormatError, f"{n}: float32 is not taken; expected one of")
      for n in ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift")),
    (lambda: ~V, FormatError, "bitwise_invert: float32 is not taken"),
    (lambda: M << 1, FormatError, "bitwise_left_shift: bool is not taken"),
    (lambda: -M, FormatError, "negative: bool is not taken"),
    (lambda: M - M, FormatError, "subtract: bool is not taken"),
    (lambda: I / I, FormatError, "divide: int64 is not taken"),
    (lambda: I ** ug.asarray(-1), ArgumentError, "pow: integers to negative integer powers"),
    (lambda: ug.where(V, 1.0, 2.0), FormatError, "where: the condition must be bool, got float32; compare it first"),
    (lambda: ug.logsumexp(I), FormatError, "logsumexp: expected a floating format, got int64"),
    (lambda: ug.gelu(V, "fast"), ArgumentError, "gelu: approximate must be 'none' or 'tanh', got 'fast'"),
    (lambda: ug.finfo(ug.int8), FormatError, "finfo: expected a floating format, got int8; use iinfo"),
    (lambda: ug.iinfo(ug.bfloat16), FormatError, "iinfo: expected an integer format, got bfloat16"),
    (lambda: ug.isdtype(ug.int8, "whole"), ArgumentError, "isdtype: unknown kind 'whole'; expected .*integral"),
    (lambda: ug.result_type(1, 2.0), ArgumentError, "result_type: expected at least one tensor or format"),
    (lambda: ug.result_type(ug.int64, ug.uint64), FormatError, "no integer holds both"),
    (lambda: ug.set_default_dtype(ug.int8), FormatError, "set_default_dtype: expected a floating format, got int8"),
    (lambda: ug.from_dlpack([1]), FormatError, "from_dlpack: list cannot be read"),
    (lambda: ug.from_dlpack(W), GradientError, r"from_dlpack: .*x\.detach\(\)"),
    (lambda: V.__array_namespace__(api_version="1999.01"), ArgumentError,
     "array API version '1999.01' is not supported"),
]

REST: list[Mistake] = [
    (lambda: ug.einsum("ij,jk", A), ArgumentError, "einsum: 'ij,jk' names 2 operands, 1 were given"),
    (lambda: ug.einsum("ij"), ArgumentError, "einsum: 'ij' names 1 operands, 0 were given"),
    (lambda: ug.einsum("ijk", A), ShapeError, r"einsum: 'ijk' names 3 axes of an operand of shape \(2, 3\)"),
    (lambda: ug.einsum("i", A), ShapeError, r"einsum: 'i' names 1 axes"),
    (lambda: ug.einsum("ij,jk", A, B), ShapeError, "einsum: axis 'j' of 'ij,jk' has sizes 3 and 4"),
    (lambda: ug.einsum("ii", A), ShapeError, "einsum: axis 'i' .* 2 and 3"),
    (lambda: ug.einsum("ii", ug.ones((1, 3))), ShapeError, "einsum: axis 'i' .* 1 and 3"),
    (lambda: ug.einsum("ij->ik", A), ArgumentError,
     "einsum: the result 'ik' must name axes of the operands, each once"),
    (lambda: ug.einsum("ij->ii", A), ArgumentError, "einsum: the result 'ii'"),
    (lambda: ug.einsum("i1", A), ArgumentError, "einsum: 'i1' may hold letters"),
    (lambda: ug.einsum("i...j...", A), ArgumentError, "einsum: .* letters and one '...'"),
    (lambda: ug.einsum(3, A), ArgumentError, "einsum: the equation must be a string"),
    (lambda: ug.zeros(2, device="gpu"), DeviceError, "unknown device 'gpu': expected 'cpu', 'cuda' or 'cuda:N'"),
    (lambda: ug.zeros(2, device="cuda:x"), DeviceError, "unknown device 'cuda:x'"),
    (lambda: ug.arange(3, device="tpu"), DeviceError, "unknown device"),
    (lambda: ug.use(add="cpu/none").__enter__(), KernelError, "cpu/none.*expected one of"),
    (lambda: ug.use(nonsense="cpu/numpy").__enter__(), KernelError, "nonsense"),
    (lambda: W.backward(), GradientError, "needs an explicit gradient"),
]
# fmt: on


@pytest.mark.parametrize(
    "mistake", [*SHAPES, *AXES, *INDICES, *FORMATS, *REST], ids=lambda m: m[2][:60] if isinstance(m, tuple) else None
)
def test_mistake(mistake: Mistake) -> None:
    call, kind, message = mistake
    with pytest.raises(UlpgradError, match=message) as caught:
        call()
    assert isinstance(caught.value, kind), f"{type(caught.value).__name__}: {caught.value}"


def test_a_failed_write_leaves_the_tensor_alone() -> None:
    x = ug.arange(3)
    for value in (np.nan, [1, 2], "a", [np.inf, 0, 0]):
        with pytest.raises(UlpgradError):
            x[:] = value
    assert x.tolist() == [0, 1, 2]


def test_errors_are_the_built_in_ones_too() -> None:
    for kind, builtin in [
        (ShapeError, ValueError),
        (AxisError, IndexError),
        (AxisError, ValueError),
        (FormatError, TypeError),
        (ArgumentError, ValueError),
        (GradientError, RuntimeError),
        (DeviceError, RuntimeError),
        (KernelError, RuntimeError),
    ]:
        assert issubclass(kind, builtin)
        assert issubclass(kind, UlpgradError)


def test_overflow_and_nan_are_values_not_warnings() -> None:
    """pytest turns warnings into errors: none of these may warn."""
    x = ug.asarray([0.0, -1.0, np.inf, np.nan, 1e38])
    for form in (ug.float32, ug.float16, ug.bfloat16, ug.float64):
        y = x.astype(form)
        for name in (
            "exp",
            "log",
            "sqrt",
            "sin",
            "tanh",
            "square",
            "reciprocal",
            "gelu",
            "softplus",
            "acosh",
            "round",
            "negative",
        ):
            getattr(ug, name)(y)
        for name in ("divide", "pow", "remainder", "floor_divide", "multiply", "hypot", "logaddexp"):
            getattr(ug, name)(y, y)
            getattr(ug, name)(y, 0.0)
        for name in ("sum", "mean", "var", "max", "prod", "logsumexp"):
            getattr(ug, name)(y)
        ug.sum(ug.zeros((0,), dtype=form))
        ug.mean(ug.zeros((0,), dtype=form))
        ug.var(ug.zeros((1,), dtype=form), correction=1)
    big = ug.asarray([127], dtype=ug.int8)
    assert (big + big).tolist() == [-2]
    zero = ug.asarray([0])
    ug.floor_divide(big, zero)
    ug.remainder(big, zero)
