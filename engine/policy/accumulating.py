"""Products with a chosen accumulator: while one is active, every product of a layer and of its gradient comes down to a
matrix product whose sums it keeps. Convolutions do so by laying out the patches of the images as rows, and those of codes, where
the integer kernels add in that order, without."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import module_of
from ulpgrad.differentiable import Primitive
from ulpgrad.formats import Array, as_format
from ulpgrad.kernels.conv.columns import patches
from ulpgrad.kernels.integer import spec
from ulpgrad.kernels.integer.accumulator import Accumulator, is_plain
from ulpgrad.kernels.integer_gradients import spec as gradients
from ulpgrad.kernels.spec import Op
from ulpgrad.ops.accumulate import accumulator
from ulpgrad.ops.linalg import matmul
from ulpgrad.tensor import Tensor

INTEGERS = ("int32", "int64")


class Accumulation:
    """How products add up: `given` is an integer accumulator ("int32", "int64" or an Accumulator), which takes codes, or
    an `ulpgrad.Accumulate` of floats. A context: inside it, the products of all ops run so."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self.integer = is_integer(given)
        self.shift = (
            given.shift if isinstance(given, Accumulator) else 0
        )  # fraction bits of a product that are not kept
        self._tokens: list[Token[Any]] = []

    def __enter__(self) -> Accumulation:
        self._tokens.append(dispatch.call_policy.set(_Active(self)))
        dispatch.state.count(policies=1)
        return self

    def __exit__(self, *_: object) -> None:
        dispatch.state.count(policies=-1)
        dispatch.call_policy.reset(self._tokens.pop())

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """a @ b: in float formats, or of codes."""
        if not self.integer:
            return matmul(a, b, accumulate=self.given)
        return self._of_codes(spec.integer_matmul, a, b, {})

    def convolution(self, name: str, a: Tensor, b: Tensor, params: dict[str, Any]) -> Tensor | None:
        """A convolution of codes, or a gradient of one, by its own kernels; None where these would not add in the same order, or
        a GPU has none."""
        op = CONVOLUTIONS.get(name)
        if op is None or not self.integer:
            return None
        is_ordered = op is not gradients.integer_conv2d_input_gradient and a.device.type == "cpu"
        return self._of_codes(op, a, b, params) if is_ordered or is_plain(self.given) else None

    def _of_codes(self, op: Op, a: Tensor, b: Tensor, params: dict[str, Any]) -> Tensor:
        how = {**params, "accumulator": self.given}
        sums, forms = dispatch.call(op, (a.dtype, b.dtype), (a.storage, b.storage), how)
        return Tensor(sums, forms[0])


class _Active:
    """The call policy of an active accumulation."""

    def __init__(self, accumulation: Accumulation) -> None:
        self.accumulation = accumulation

    def call(self, primitive: Primitive, tensors: tuple[Any, ...], params: dict[str, Any]) -> tuple[Tensor, ...]:
        name = primitive.op.name
        lowered = LOWERED.get(name)
        if lowered is None:
            return primitive.plain(tensors, params)
        token = dispatch.call_policy.set(None)
        try:
            whole = self.accumulation.convolution(name, tensors[0], tensors[1], params)
            return (lowered(self.accumulation.product, *tensors[:2], **params) if whole is None else whole,)
        finally:
            dispatch.call_policy.reset(token)

    def whole(self, name: str, function: Callable[..., Any], args: Any, options: Any) -> Any:
        return function(*args, **options)


Product = Callable[[Tensor, Tensor], Tensor]


def _matmul(product: Product, a: Tensor, b: Tensor) -> Tensor:
    return product(a, b)


def _linear(product: Product, x: Tensor, weight: Tensor, *, activation: None) -> Tensor:
    return product(x, _like(weight.storage.swapaxes(-1, -2), weight))


def _conv2d(product: Product, x: Tensor, weight: Tensor, **geometry: Any) -> Tensor:
    """y[n, o, p] = sum over c, kh, kw of w[o, c kh kw] patches[n, c kh kw, p], for each group."""
    groups = geometry["groups"]
    out, _, kh, kw = weight.shape
    patches, (oh, ow) = unfold(x.storage, (kh, kw), **geometry)
    rows = weight.storage.reshape(groups, out // groups, -1)
    y = product(_like(rows[None], weight), _like(patches, x))
    return _like(y.storage.reshape(x.shape[0], out, oh, ow), y)


def _conv2d_input_gradient(product: Product, g: Tensor, weight: Tensor, *, size: Any, **geometry: Any) -> Tensor:
    """Patches' gradients, w'[c kh kw, o] g[n, o, p], added where the patches overlap (in float64, or exactly in integers)."""
    groups, (out, inner, kh, kw) = geometry["groups"], weight.shape
    n = g.shape[0]
    columns = weight.storage.reshape(groups, out // groups, -1).swapaxes(-1, -2)
    flat = g.storage.reshape(n, groups, out // groups, -1)
    patches = product(_like(columns[None], weight), _like(flat, g))
    shape = (n, groups * inner, *size)
    return _like(fold(patches.storage, shape, (kh, kw), g.shape[2:], **geometry), patches)


def _conv2d_weight_gradient(product: Product, g: Tensor, x: Tensor, *, size: Any, **geometry: Any) -> Tensor:
    """sum over n, p of g[o, n p] patches'[n p, c kh kw]."""
    groups, (n, out) = geometry["groups"], g.shape[:2]
    patches, _ = unfold(x.storage, size, **geometry)
    left = g.storage.reshape(n, groups, out // groups, -1).transpose(1, 2, 0, 3).reshape(groups, out // groups, -1)
    right = patches.transpose(1, 0, 3, 2).reshape(groups, -1, patches.shape[2])
    found = product(_like(left, g), _like(right, x))
    return _like(found.storage.reshape(out, -1, *size), found)


CONVOLUTIONS = {
    "conv2d": spec.integer_conv2d, "conv2d_input_gradient": gradients.integer_conv2d_input_gradient,
    "conv2d_weight_gradient": gradients.integer_conv2d_weight_gradient,
}  # fmt: skip
LOWERED: dict[str, Callable[..., Tensor]] = {
    "matmul": _matmul, "linear": _linear, "conv2d": _conv2d, "conv2d_input_gradient": _conv2d_input_gradient,
    "conv2d_weight_gradient": _conv2d_weight_gradient,
}  # fmt: skip


def _like(values: Array, t: Tensor) -> Tensor:
    return Tensor(values, t.dtype if values.dtype == t.storage.dtype else as_format(values.dtype))


def unfold(
    x: Array, size: Any, *, stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[Array, tuple[int, int]]:
    """Patches of images (n, c, h, w) as columns (n, groups, c / groups kh kw, oh ow), and (oh, ow)."""
    found = patches(x, size, module_of(x), stride=stride, padding=padding, dilation=dilation)
    (n, c), (oh, ow) = found.shape[:2], found.shape[4:]
    columns = found.reshape(n, groups, c // groups * size[0] * size[1], oh * ow)
    return columns, (oh, ow)


def fold(
    patches: Array,
    shape: tuple[int, ...],
    size: Any,
    places: Any,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Array:
    """The way back of `unfold`: every value of a patch added to the pixel it came from."""
    n, c, h, w = shape
    wide = patches.dtype if patches.dtype.kind == "i" else np.float64
    total = module_of(patches).zeros((n, c, h + 2 * padding[0], w + 2 * padding[1]), dtype=wide)
    taps = patches.reshape(n, c, *size, *places)
    for i in range(size[0]):
        for j in range(size[1]):
            top, left = i * dilation[0], j * dilation[1]
            total[
                :, :, top : top + places[0] * stride[0] : stride[0], left : left + places[1] * stride[1] : stride[1]
            ] += taps[:, :, i, j]
    inner = total[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + w]
    return module_of(patches).ascontiguousarray(inner).astype(patches.dtype, copy=False)  # type: ignore[no-any-return]


def accumulation(given: Any, what: str) -> Accumulation | None:
    """From what an `accumulate=` role was given. FormatError or ArgumentError for what is no accumulator."""
    if given is None or isinstance(given, Accumulation):
        return given
    return Accumulation(given if is_integer(given) else accumulator(what, given))


def is_integer(given: Any) -> bool:
    """Whether an accumulator takes codes."""
    return given in INTEGERS if isinstance(given, str) else isinstance(given, Accumulator)
