"""Convolution of images, with what may follow it in one kernel: activation, pooling, a scale and what is added."""

from __future__ import annotations

from typing import Any

from ulpgrad import dispatch
from ulpgrad.autograd import is_grad_enabled
from ulpgrad.differentiable import Primitive
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import Format, as_format, float32, float64
from ulpgrad.formats.rounding import RANDOM_BITS
from ulpgrad.generator import Generator
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.geometry import output_size
from ulpgrad.ops import accumulate as acc, elementwise as ew
from ulpgrad.ops.common import as_tensor, pair
from ulpgrad.ops.convolution_gradients import primitives
from ulpgrad.ops.creation import astype
from ulpgrad.ops.linalg import ACTIVATIONS, Rounding, asked_rounding
from ulpgrad.ops.manipulation import permute_dims, reshape
from ulpgrad.ops.pooling import max_pool2d, max_pool2d_gradient
from ulpgrad.ops.reduction import sum as total
from ulpgrad.ops.unfold import unfold
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = ["conv2d"]

_conv2d, input_gradient, weight_gradient = primitives(
    spec.conv2d, spec.conv2d_input_gradient, spec.conv2d_weight_gradient
)


def _joint(
    g: Tensor,
    needed: tuple[bool, ...],
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int = 1,
) -> tuple[Tensor | None, ...]:
    """The three gradients, from that of the sums."""
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return (
        input_gradient(g, weight, size=x.shape[2:], **how) if needed[0] else None,
        weight_gradient(g, x, size=weight.shape[2:], **how) if needed[1] else None,
        total(g, axis=(0, 2, 3)) if len(needed) > 2 and needed[2] else None,
    )


def _through_relu(
    g: Tensor, needed: Any, x: Tensor, weight: Tensor, y: Tensor, stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[Tensor | None, ...]:
    return _joint(ew.relu_gradient(g, y), needed, x, weight, stride, padding, dilation, groups)


def _through_pool(
    g: Tensor,
    needed: Any,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    places: Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    activation: str | None,
) -> tuple[Tensor | None, ...]:
    """Only what was largest has a gradient, and only where the activation let it through."""
    image, kernel = (x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3])
    size = output_size(image, kernel, stride, padding, dilation)
    g = g if activation is None else ew.relu_gradient(g, y)
    return _joint(max_pool2d_gradient(g, places, size=size), needed, x, weight, stride, padding, dilation)


def _steps(x: Tensor, weight: Tensor, bias: Tensor | None, *, activation: str | None, **geometry: Any) -> Tensor:
    out = _conv2d(x, weight, bias, **geometry)
    return out if activation is None else ACTIVATIONS[activation](out)


def _pooled_steps(x: Tensor, weight: Tensor, bias: Tensor | None, *, window: tuple[int, int], **how: Any) -> Tensor:
    return max_pool2d(_steps(x, weight, bias, groups=1, **how), window)


_activated: Primitive = Primitive(spec.conv2d, "x weight bias", joint=_through_relu, composite=_steps)
_finished: Primitive = Primitive(spec.conv2d_finished, "x weight bias scale residual")  # while no gradient is recorded
_drawn: Primitive = Primitive(spec.conv2d_stochastic, "x weight bias scale")
_pooled: Primitive = Primitive(
    spec.conv2d_max_pool, "x weight bias", "y places", joint=_through_pool, composite=_pooled_steps
)


@remembered
def conv2d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    max_pool: int | tuple[int, int] | None = None,
    scale: Tensor | None = None,
    residual: Tensor | None = None,
    residual_first: bool = False,
    dtype: Any = None,
    accumulate: Any = None,
    accumulate_backward: Any = None,
    rounding: str = "nearest_even",
    generator: Generator | None = None,
    random_bits: int = RANDOM_BITS,
) -> Tensor:
    """Slide filters over images (cross-correlation: filters are not flipped).

    x (n, c, h, w), w (o, c / groups, kh, kw), bias (o,) -> (n, o, oh, ow). `stride`, `padding` and `dilation` are an
    integer or (vertical, horizontal); `padding="same"` keeps h and w (stride 1 only, the odd row and column of zeros at
    the end), "valid" is 0.

    `activation`: None, "relu", "gelu", "silu", "tanh" or "sigmoid", of the result; `max_pool`: then the largest value of each
    window of this size, side by side. Both happen in the convolution's kernel, before a result is written, where that gives
    the same gradient: "relu" always, other activations while no gradient is recorded, pooling with "relu" or no activation
    and without groups. Elsewhere they are steps of their own.

    `scale` (o,): a factor of each output, before the bias, as batch normalization's in inference; `residual`: a tensor of the
    result's shape, added behind the activation, or before it with `residual_first`, as in ResNet; `dtype`: the result's
    format. While no gradient is recorded, activation(sums * scale + bias) + residual is one kernel on floats, rounded once (on
    a CPU without the C++ extension the convolution's, and steps on its result) to 32, 16 or 8 bits (float8_e4m3fn and
    float8_e5m2, as `astype` rounds); elsewhere each is a step of its own. Not together with `max_pool`.

    `rounding="stochastic"`: results, as they are in float32, are rounded to `dtype` by random words, as in `matmul`; in the
    convolution's kernel on a GPU, while no gradient is recorded and without a residual.

    `accumulate` and `accumulate_backward`: as in `matmul`, for sums over (c, kh, kw) in that order
    and, in the gradients, over the outputs and over (n, oh, ow); overlapping windows add up plainly. Raises ShapeError and
    ArgumentError for what does not fit.
    """
    x, w = as_tensor(x), as_tensor(w)
    bias = None if bias is None else as_tensor(bias)
    if activation is not None and activation not in ACTIVATIONS:
        raise ArgumentError(
            f"conv2d: unknown activation {activation!r}; expected None or one of {', '.join(ACTIVATIONS)}"
        )
    window = None if max_pool is None else pair("conv2d", "max_pool", max_pool, 1)
    out = None if dtype is None else as_format(dtype)
    scale, residual = (None if t is None else as_tensor(t) for t in (scale, residual))
    is_finished = scale is not None or residual is not None or out is not None
    if is_finished and window is not None:
        raise ArgumentError(
            "conv2d: max_pool= goes with activation= alone: pool the result of scale=, residual= or dtype="
        )
    steps, spread = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    drawn = asked_rounding("conv2d", dtype, rounding, generator, random_bits)
    if drawn is not None:
        if residual is None and accumulate is None and padding != "same":
            around = (0, 0) if isinstance(padding, str) else pair("conv2d", "padding", padding)
            whole = _drawn_in_one(
                (x, w, bias, scale), drawn, stride=steps, padding=around, dilation=spread, groups=groups,
                activation=activation,
            )  # fmt: skip
            if whole is not None:
                return whole
        x, w = (t if t.dtype is float64 or t.dtype.routed else astype(t, float32, copy=False) for t in (x, w))
        return drawn.of(conv2d(
            x, w, bias, stride, padding, dilation, groups, activation=activation, scale=scale, residual=residual,
            residual_first=residual_first, dtype=float32, accumulate=accumulate, accumulate_backward=accumulate_backward,
        ))  # fmt: skip

    def run(around: tuple[int, int]) -> Tensor:
        geometry = {"stride": steps, "padding": around, "dilation": spread, "groups": groups}
        first = None if is_finished else bias  # else it comes behind the scale
        if accumulate is None:
            if accumulate_backward is not None:
                raise ArgumentError(f"conv2d: accumulate_backward={accumulate_backward!r} needs accumulate=")
            return _conv2d(x, w, first, **geometry)
        return _accumulated(x, w, first, accumulate, accumulate_backward, **geometry)

    def finished(y: Tensor) -> Tensor:
        if is_finished:
            _check_finish(y, scale, residual)
            y = y if scale is None else y * reshape(scale, (-1, 1, 1))
            y = y if bias is None else y + reshape(bias, (-1, 1, 1))
            y = y + residual if residual is not None and residual_first else y
        y = y if activation is None else ACTIVATIONS[activation](y)
        y = y + residual if residual is not None and not residual_first else y
        y = y if window is None else max_pool2d(y, window)
        return y if out is None else astype(y, out, copy=False)

    if not isinstance(padding, str) or padding == "valid":
        around = (0, 0) if isinstance(padding, str) else pair("conv2d", "padding", padding)
        if is_finished:
            whole = _in_one(
                (x, w, bias, scale, residual), out, accumulate, stride=steps, padding=around, dilation=spread,
                groups=groups, activation=activation, residual_first=residual_first and residual is not None,
            )  # fmt: skip
            return finished(run(around)) if whole is None else whole
        if activation is None and window is None:
            return run(around)
        fused = _fused(x, w, bias, activation, window, groups, accumulate, (steps, around, spread))
        return finished(run(around)) if fused is None else fused
    if padding != "same":
        raise ArgumentError(f"conv2d: padding must be 'same', 'valid', an integer or a pair of them, got {padding!r}")
    if steps != (1, 1):
        raise ArgumentError(f"conv2d: padding='same' needs stride 1, got {stride!r}; give the padding as a number")
    if w.ndim != 4:
        raise ShapeError(f"conv2d: weight has shape {w.shape}: expected 4 axes (out, in / groups, height, width)")
    needed = [d * (k - 1) for d, k in zip(spread, w.shape[2:], strict=True)]
    y = run((needed[0] - needed[0] // 2, needed[1] - needed[1] // 2))
    surplus = [n % 2 for n in needed]
    return finished(y[:, :, surplus[0] :, surplus[1] :] if any(surplus) else y)


def _check_finish(y: Tensor, scale: Tensor | None, residual: Tensor | None) -> None:
    if scale is not None and scale.shape != y.shape[1:2]:
        raise ShapeError(f"conv2d: scale has shape {scale.shape}: expected {y.shape[1:2]}, one value per output")
    if residual is not None and residual.shape != y.shape:
        raise ShapeError(f"conv2d: residual has shape {residual.shape}: expected the result's, {y.shape}")


def _in_one(operands: tuple[Tensor | None, ...], out: Format | None, accumulate: Any, **how: Any) -> Tensor | None:
    """The convolution and what follows it in one kernel, or None where that is no kernel's work: as in `_fused`, and while a
    gradient is recorded."""
    given = [t for t in operands if t is not None]
    if (
        accumulate is not None
        or dispatch.state.policies
        or any(t.dtype.routed or t.dtype.kind != "float" for t in given)
    ):
        return None
    if dispatch.is_pinned("conv2d") or (is_grad_enabled() and any(t.requires_grad for t in given)):
        return None
    # No narrower than the sums, so that these are rounded once.
    own = out is None or out is float64 or any(t.dtype is float64 for t in given)
    x = astype(given[0], float64, copy=False) if out is float64 else given[0]
    y = _finished(x, *operands[1:], dtype=out if out in spec.RESULTS and not own else None if own else float32, **how)
    return y if out is None else astype(y, out, copy=False)


def _drawn_in_one(operands: tuple[Tensor | None, ...], drawn: Rounding, **how: Any) -> Tensor | None:
    """Convolution, scale, bias, activation and rounding by random words in one kernel of a GPU, or None: as in `_in_one`."""
    given = [t for t in operands if t is not None]
    if drawn.dtype not in spec.RESULTS[1:] or any(t.dtype is float64 for t in given) or given[0].device.type == "cpu":
        return None
    if dispatch.state.policies or any(t.dtype.routed or t.dtype.kind != "float" for t in given):
        return None
    if dispatch.is_pinned("conv2d") or (is_grad_enabled() and any(t.requires_grad for t in given)):
        return None
    x, w = given[0], given[1]
    spec.conv2d.check(x, w, operands[2], **how)  # type: ignore[misc]
    positions = output_size(x.shape[2:], w.shape[2:], how["stride"], how["padding"], how["dilation"])
    return _drawn(*operands, **how, **drawn.words(x.shape[0] * w.shape[0] * positions[0] * positions[1]))


def _fused(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    activation: str | None,
    window: tuple[int, int] | None,
    groups: int,
    accumulate: Any,
    geometry: tuple[tuple[int, int], ...],
) -> Tensor | None:
    """All in one kernel, or None where that is no kernel's work: pins, other number systems and policies that round results are
    for every step. (Autocast to a 16-bit float only chooses operands; the largest of rounded values is the rounded largest.)"""
    operands = [t for t in (x, w, bias) if t is not None]
    watched = dispatch.state.pinned or (dispatch.state.policies and dispatch.call_policy.get() is not None)
    if accumulate is not None or watched or any(t.dtype.routed for t in operands):
        return None
    how: dict[str, Any] = dict(zip(("stride", "padding", "dilation"), geometry, strict=True), activation=activation)
    if window is not None:
        is_one = groups == 1 and activation in (None, "relu")
        return _pooled(x, w, bias, window=window, **how) if is_one else None
    recorded = is_grad_enabled() and any(t.requires_grad for t in operands)
    return None if recorded and activation != "relu" else _activated(x, w, bias, groups=groups, **how)


def _accumulated(x: Tensor, w: Tensor, bias: Tensor | None, accumulate: Any, backward: Any, **geometry: Any) -> Tensor:
    """A convolution as a product of filters with patches, whose sums a chosen accumulator keeps."""
    spec.conv2d.check(x, w, bias, **geometry)  # type: ignore[misc]
    groups, n, o = geometry["groups"], x.shape[0], w.shape[0]
    size = w.shape[2], w.shape[3]
    rows, columns = output_size(x.shape[2:], size, geometry["stride"], geometry["padding"], geometry["dilation"])
    filters = reshape(w, (groups, o // groups, w.shape[1] * size[0] * size[1]))
    out = acc.product("conv2d", filters, unfold(x, size, **geometry), accumulate, backward)
    out = permute_dims(reshape(out, (o, n, rows, columns)), (1, 0, 2, 3))
    return out if bias is None else out + reshape(bias, (1, o, 1, 1))
