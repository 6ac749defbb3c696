"""Products of matrices, vectors and tensors; all of them come down to the `matmul` ladder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ulpgrad import dispatch
from ulpgrad.autograd import is_grad_enabled
from ulpgrad.differentiable import Primitive, plain_calls
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import FLOATS, Format, as_format, float32, float64
from ulpgrad.formats.rounding import RANDOM_BITS
from ulpgrad.generator import Generator, generator_or_default
from ulpgrad.kernels.matmul import spec
from ulpgrad.ops import accumulate as acc, elementwise as ew
from ulpgrad.ops.blocks import product as block_product
from ulpgrad.ops.common import as_tensor, broadcast_shapes, normalize_axes, normalize_axis, operands
from ulpgrad.ops.creation import astype
from ulpgrad.ops.manipulation import matrix_transpose, moveaxis, permute_dims, reshape
from ulpgrad.ops.packing import PackedWeight
from ulpgrad.ops.quantize import quantize
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = [
    "linear",
    "matmul",
    "outer",
    "tensordot",
    "vecdot",
]

# Of results as they are, and of results that are rounded stochastically, which gradients pass straight through.
_OF_MATMUL: dict[str, Any] = {
    "a": lambda g, b: _matmul(g, matrix_transpose(b)),
    "b": lambda g, a: _matmul(matrix_transpose(a), g),
}
_OF_FINISHED: dict[str, Any] = {
    "x": lambda g, weight, scale, factor: matmul(_scaled(g, scale, factor), weight),
    "weight": lambda g, x, scale, factor: _weight_gradient(_scaled(g, scale, factor), x),
    "bias": lambda g: g,
    "scale": lambda g, x, weight, factor: _scaled(g * _linear(x, weight, None, activation=None), None, factor),
    "residual": lambda g: g,
}
_matmul: Primitive = Primitive(
    spec.matmul,
    "a b",
    gradients=_OF_MATMUL,
)
_linear: Primitive = Primitive(
    spec.linear,
    "x weight bias",
    gradients={
        "x": lambda g, weight: matmul(g, weight),
        "weight": lambda g, x: _weight_gradient(g, x),
        "bias": lambda g: g,
    },
)
_finished: Primitive = Primitive(
    spec.linear,
    "x weight bias scale residual",
    gradients=_OF_FINISHED,
)
_matmul_drawn: Primitive = Primitive(
    spec.matmul_stochastic,
    "a b",
    gradients=_OF_MATMUL,
)
_linear_drawn: Primitive = Primitive(
    spec.linear_stochastic,
    "x weight bias scale residual",
    gradients=_OF_FINISHED,
)
ACTIVATIONS = {"relu": ew.relu, "gelu": ew.gelu, "silu": ew.silu, "tanh": ew.tanh, "sigmoid": ew.sigmoid}


def _rows(x: Tensor) -> Tensor:
    return x if x.ndim == 2 else reshape(x, (-1, x.shape[-1]))


@remembered
def _weight_gradient(g: Tensor, x: Tensor) -> Tensor:
    """That of linear's weight, from the result's gradient."""
    return _matmul(matrix_transpose(_rows(g)), _rows(x))


def _scaled(x: Tensor, scale: Tensor | None, factor: float) -> Tensor:
    """x * factor * scale, of which both may be left out."""
    x = x if factor == 1.0 else x * factor
    return x if scale is None else x * scale


class Rounding(NamedTuple):
    """What results are rounded to, by random words of a generator."""

    dtype: Format
    generator: Generator
    random_bits: int

    def of(self, y: Tensor) -> Tensor:
        """Values of a step before, rounded from float32."""
        out: Tensor = quantize(astype(y, float32, copy=False), self.dtype, rounding="stochastic",
                               generator=self.generator, random_bits=self.random_bits)  # fmt: skip
        return out

    def words(self, size: int) -> dict[str, Any]:
        """The parameters of an op that rounds as many results by itself."""
        plain_calls.varies()  # the next call takes others
        key, counter = self.generator.reserve(size)
        return {"dtype": self.dtype, "key": key, "counter": counter, "random_bits": self.random_bits}


def asked_rounding(name: str, dtype: Any, rounding: str, generator: Any, random_bits: int) -> Rounding | None:
    """What `rounding=` asks for; None for a product's own, to nearest even."""
    if rounding == "nearest_even":
        return None
    if rounding != "stochastic":
        raise ArgumentError(f"{name}: rounding={rounding!r}: expected 'nearest_even' or 'stochastic'")
    if dtype is None:
        raise ArgumentError(
            f"{name}: rounding='stochastic' wants dtype=, the format that sums in float32 are rounded to"
        )
    out = as_format(dtype)
    spec.check_drawn(name, out, 0, 0, random_bits)
    return Rounding(out, generator_or_default(name, generator), random_bits)


def _fits_kernels(*tensors: Tensor | None) -> bool:
    """Whether kernels that round by random words take these operands: floats whose products are summed in float32."""
    return not dispatch.state.policies and all(
        t is None or (t.dtype in FLOATS and t.dtype is not float64) for t in tensors
    )


def _widened(x: Tensor) -> Tensor:
    """A narrow float as float32, so that a product with it is not rounded to less."""
    return x if x.dtype is float64 or x.dtype.routed else astype(x, float32, copy=False)


def _product(
    name: str, a: Tensor, b: Tensor, accumulate: Any, backward: Any, rounding: Rounding | None = None
) -> Tensor:
    """a @ b for operands of two axes and more, in a chosen accumulator if there is one."""
    if rounding is not None and accumulate is None and _fits_kernels(a, b):
        spec.check_matmul(a, b)
        size = math.prod(broadcast_shapes(name, a.shape[:-2], b.shape[:-2])) * a.shape[-2] * b.shape[-1]
        return _matmul_drawn(a, b, **rounding.words(size))
    if rounding is not None:
        return rounding.of(_product(name, _widened(a), _widened(b), accumulate, backward))
    if accumulate is None:
        if backward is not None:
            raise ArgumentError(f"{name}: accumulate_backward={backward!r} needs accumulate=")
        return _matmul(a, b)
    return acc.product(name, a, b, accumulate, backward)


@remembered
def matmul(
    x1: Any,
    x2: Any,
    /,
    *,
    accumulate: Any = None,
    accumulate_backward: Any = None,
    dtype: Any = None,
    rounding: str = "nearest_even",
    generator: Generator | None = None,
    random_bits: int = RANDOM_BITS,
) -> Tensor:
    """The matrix product of (..., m, k) and (..., k, n): (..., m, n). Leading axes broadcast; a 1-d operand counts as a
    row on the left, a column on the right. Raises ShapeError where the inner sizes differ.

    `accumulate`: for float operands, the sums' own format: a float format, its name, or an `Accumulate`. The products of the
    gradients then have the same accumulator, unless `accumulate_backward` gives another, or False for ordinary products.

    `rounding="stochastic"` with `dtype`, a float of at most 16 bits: sums in float32 are rounded to it by random words of
    `generator`, result i by word i, to `random_bits` bits, within the kernel on a GPU: the bits of
    `quantize(..., rounding="stochastic")` on the product in float32. The rounding's gradient is taken to be 1."""
    a, b = operands("matmul", x1, x2)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError(f"matmul: expected at least one dimension each, got {a.shape} @ {b.shape}; use * for scalars")
    drawn = asked_rounding("matmul", dtype, rounding, generator, random_bits)
    if dtype is not None and drawn is None:
        raise ArgumentError(f"matmul: dtype={dtype!r} goes with rounding='stochastic'; convert the result with .to()")
    how = accumulate, accumulate_backward, drawn
    if a.ndim > 1 and b.ndim > 1:
        return _product("matmul", a, b, *how)
    if a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise ShapeError(
            f"matmul: inner sizes differ: {a.shape} @ {b.shape}: {a.shape[-1]} != {b.shape[max(b.ndim - 2, 0)]}"
        )
    if a.ndim == 1 and b.ndim == 1:
        return reshape(_product("matmul", reshape(a, (1, -1)), reshape(b, (-1, 1)), *how), ())
    if a.ndim == 1:
        out = _product("matmul", reshape(a, (1, -1)), b, *how)
        return reshape(out, (*out.shape[:-2], out.shape[-1]))
    out = _product("matmul", a, reshape(b, (-1, 1)), *how)
    return reshape(out, out.shape[:-1])


@remembered
def linear(
    x: Any,
    weight: Tensor | PackedWeight,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    scale: float | Tensor | None = None,
    residual: Tensor | None = None,
    dtype: Any = None,
    accumulate: Any = None,
    accumulate_backward: Any = None,
    rounding: str = "nearest_even",
    generator: Generator | None = None,
    random_bits: int = RANDOM_BITS,
) -> Tensor:
    """activation(x @ weight.T * scale + bias) + residual in one kernel: x (..., in), weight (out, in), bias (out,) ->
    (..., out).

    `activation`: None, "relu", "gelu", "silu", "tanh" or "sigmoid". While a gradient is recorded the activation, and what
    follows it, is a step of its own, since its gradient needs what goes into it. `scale`: a number, or a tensor (out,).
    `residual`: a tensor of the result's shape. `dtype`: the result's format, in which the sums are rounded once; float64 widens
    the operands. `accumulate` and `accumulate_backward`: as in `matmul`, for the products only; what follows is made of their
    result. A weight from `prepack` serves many calls without being packed again. `rounding="stochastic"`: results, as they are in
    float32, are rounded to `dtype` by random words, as in `matmul`.
    """
    x = as_tensor(x)
    drawn = asked_rounding("linear", dtype, rounding, generator, random_bits)
    if drawn is not None:
        weight = weight.tensor if isinstance(weight, PackedWeight) else weight
        return _drawn_linear(x, weight, bias, activation, scale, residual, accumulate, accumulate_backward, drawn)
    packed: dict[str, Any] = {}
    if isinstance(weight, PackedWeight):
        few = x.ndim < 2 or math.prod(x.shape[:-1]) <= PackedWeight.FEW
        if few or weight.prepacked is None:  # read where it stands
            return linear(x, weight.tensor, bias, activation, scale=scale, residual=residual, dtype=dtype,
                          accumulate=accumulate, accumulate_backward=accumulate_backward)  # fmt: skip
        packed, weight = {"packed": weight.prepacked}, weight.tensor
    if activation is not None and activation not in ACTIVATIONS:
        raise ArgumentError(
            f"linear: unknown activation {activation!r}; expected None or one of {', '.join(ACTIVATIONS)}"
        )
    recorded = is_grad_enabled() and any(
        isinstance(t, Tensor) and t.requires_grad for t in (x, weight, bias, scale, residual)
    )
    if accumulate is None and scale is None and residual is None and dtype is None and not packed:
        if activation and recorded:
            return ACTIVATIONS[activation](_linear(x, weight, bias, activation=None))
        return _linear(x, weight, bias, activation=activation)

    out = None if dtype is None else as_format(dtype)
    values = scale if isinstance(scale, Tensor) else None
    factor = float(scale) if scale is not None and values is None else 1.0
    spec.check_linear(x, weight, bias, values, residual, activation=activation)
    whole = all(t is None or t.dtype in FLOATS for t in (x, weight, bias, values, residual))
    if accumulate is not None:
        rows = reshape(x, (1, -1)) if x.ndim == 1 else x
        y = acc.product("linear", rows, matrix_transpose(weight), accumulate, accumulate_backward)
        y = _with_bias(_scaled(reshape(y, (*x.shape[:-1], weight.shape[0])), values, factor), bias)
    elif dispatch.state.policies or not whole:  # they know the plain product
        bare = all(t is None for t in (bias, scale, residual, activation)) and out in spec.RESULTS
        if bare and out is not None and not dispatch.state.policies:
            in_blocks = block_product(x, weight, transposed=True, dtype=out)
            if in_blocks is not None:
                return in_blocks
        y = _with_bias(_scaled(_linear(x, weight, None, activation=None), values, factor), bias)
    elif activation and recorded:
        y = _finished(x, weight, bias, values, None, activation=None, factor=factor, dtype=None, **packed)
    else:
        x = astype(x, float64, copy=False) if out is float64 else x
        # No narrower than the sums, so that these are rounded once.
        own = out is None or any(t is not None and t.dtype is float64 for t in (x, weight, bias, values, residual))
        stored = out if out in spec.RESULTS else None if own else float32
        y = _finished(x, weight, bias, values, residual, activation=activation, factor=factor, dtype=stored, **packed)
        return y if out is None else astype(y, out, copy=False)
    y = ACTIVATIONS[activation](y) if activation else y
    y = y if residual is None else y + residual
    return y if out is None else astype(y, out, copy=False)


def _drawn_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, scale: Any, residual: Tensor | None,
    accumulate: Any, backward: Any, rounding: Rounding,
) -> Tensor:  # fmt: skip
    """linear, with results rounded by random words: in one kernel but where a gradient needs what goes into the activation."""
    values = scale if isinstance(scale, Tensor) else None
    tensors = (x, weight, bias, values, residual)
    recorded = is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    if accumulate is not None or backward is not None or (activation and recorded) or not _fits_kernels(*tensors):
        bias, values, residual = (t if t is None else _widened(t) for t in (bias, values, residual))
        scale = scale if values is None else values
        y = linear(_widened(x), _widened(weight), bias, activation, scale=scale, residual=residual, accumulate=accumulate,
                   accumulate_backward=backward)  # fmt: skip
        return rounding.of(y)
    factor = float(scale) if scale is not None and values is None else 1.0
    spec.check_linear(x, weight, bias, values, residual, activation=activation)
    words = rounding.words(math.prod(x.shape[:-1]) * weight.shape[0])
    return _linear_drawn(*tensors, activation=activation, factor=factor, **words)


def _with_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias


@remembered
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1, accumulate: Any = None, accumulate_backward: Any = None) -> Tensor:
    """The sum of products along an axis that both operands have, counted from the end; the others broadcast.
    `accumulate` and `accumulate_backward`: as in `matmul`."""
    a, b = operands("vecdot", x1, x2)
    smaller = min(a.ndim, b.ndim)
    if axis >= 0 or axis < -smaller:
        raise ShapeError(f"vecdot: axis must be negative and at least {-smaller} for shapes {a.shape} and {b.shape}")
    if a.shape[axis] != b.shape[axis]:
        raise ShapeError(f"vecdot: sizes differ on axis {axis}: {a.shape[axis]} != {b.shape[axis]}")
    a, b = moveaxis(a, axis, -1), moveaxis(b, axis, -1)
    left, right = reshape(a, (*a.shape[:-1], 1, a.shape[-1])), reshape(b, (*b.shape, 1))
    out = _product("vecdot", left, right, accumulate, accumulate_backward)
    return reshape(out, out.shape[:-2])


@remembered
def tensordot(
    x1: Any,
    x2: Any,
    /,
    *,
    axes: int | tuple[Sequence[int], Sequence[int]] = 2,
    accumulate: Any = None,
    accumulate_backward: Any = None,
) -> Tensor:
    """The sum of products over several axes: the last `axes` of x1 with the first of x2, or the axes named for each.
    `accumulate` and `accumulate_backward`: as in `matmul`."""
    a, b = operands("tensordot", x1, x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot: {axes} axes do not fit shapes {a.shape} and {b.shape}")
        left, right = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    else:
        left = tuple(normalize_axis("tensordot", i, a.ndim) for i in axes[0])
        right = tuple(normalize_axis("tensordot", i, b.ndim) for i in axes[1])
    sizes = [a.shape[i] for i in left], [b.shape[i] for i in right]
    if sizes[0] != sizes[1]:
        raise ShapeError(f"tensordot: contracted sizes differ: {sizes[0]} of {a.shape}, {sizes[1]} of {b.shape}")
    normalize_axes("tensordot", left, a.ndim)
    keep_a = [i for i in range(a.ndim) if i not in left]
    keep_b = [i for i in range(b.ndim) if i not in right]
    outer = (*(a.shape[i] for i in keep_a), *(b.shape[i] for i in keep_b))
    inner = math.prod(sizes[0])
    rows, columns = math.prod(a.shape[i] for i in keep_a), math.prod(b.shape[i] for i in keep_b)
    flat_a = reshape(permute_dims(a, (*keep_a, *left)), (rows, inner))
    flat_b = reshape(permute_dims(b, (*right, *keep_b)), (inner, columns))
    return reshape(_product("tensordot", flat_a, flat_b, accumulate, accumulate_backward), outer)


@remembered
def outer(x1: Any, x2: Any, /) -> Tensor:
    """The products of all pairs of two 1-d tensors: (m,), (n,) -> (m, n)."""
    a, b = operands("outer", x1, x2)
    if a.ndim != 1 or b.ndim != 1:
        raise ShapeError(f"outer: expected two 1-d tensors, got shapes {a.shape} and {b.shape}")
    return ew.multiply(reshape(a, (-1, 1)), reshape(b, (1, -1)))
