"""Convolution along one axis and along three, and its transpose, by the kernels of conv2d and of its input gradient: signals are
images of one row. Volumes of floats have ops of their own (`convolution_volumes`), others are images whose channels
are those of all taps in depth."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ulpgrad.device import elsewhere
from ulpgrad.differentiable import where_they_are
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.ops.common import as_tensor, whole
from ulpgrad.ops.convolution import conv2d, input_gradient
from ulpgrad.ops.convolution_volumes import are_whole, volumes, volumes_input_gradient
from ulpgrad.ops.creation import zeros
from ulpgrad.ops.manipulation import concat, permute_dims, reshape, stack
from ulpgrad.tensor import Tensor

Transpose = Callable[..., Tensor]

__all__ = ["conv1d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


def _check(name: str, x: Tensor, w: Tensor, bias: Tensor | None, axes: Sequence[str], turned: bool = False) -> None:
    """`turned`: filters are (in, out / groups, ...)."""
    for what, given, first in (
        ("x", x, "batch, channels"),
        ("w", w, "in, out / groups" if turned else "out, in / groups"),
    ):
        if given.ndim != 2 + len(axes):
            raise ShapeError(
                f"{name}: {what} has shape {given.shape}: expected {2 + len(axes)} axes ({first}, {', '.join(axes)})"
            )
    if bias is not None and bias.ndim != 1:
        raise ShapeError(f"{name}: bias has shape {bias.shape}: expected one value per output")


def conv1d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int] = 1,
    padding: int | tuple[int] | str = 0,
    dilation: int | tuple[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Slide filters over signals: x (n, c, l), w (o, c / groups, k), bias (o,) -> (n, o, ol). `padding`: as in `conv2d`."""
    x, w, bias = as_tensor(x), as_tensor(w), None if bias is None else as_tensor(bias)
    _check("conv1d", x, w, bias, ("length",))
    (step,), (apart,) = whole("conv1d", "stride", stride, 1, 1), whole("conv1d", "dilation", dilation, 1, 1)
    around: Any = padding if isinstance(padding, str) else (0, *whole("conv1d", "padding", padding, 1, 0))
    steps = (1, step) if step > 1 else 1
    y = conv2d(as_row(x), as_row(w), bias, steps, around, (1, apart), groups)
    return reshape(y, (*y.shape[:2], y.shape[3]))


def as_row(x: Tensor) -> Tensor:
    """Signals as images of one row."""
    return reshape(x, (*x.shape[:2], 1, x.shape[2]))


def conv3d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] | str = 0,
    dilation: int | tuple[int, int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """Slide filters over volumes: x (n, c, d, h, w), w (o, c / groups, kd, kh, kw), bias (o,) -> (n, o, od, oh, ow).
    `padding`: as in `conv2d`.
    """
    x, w, bias = as_tensor(x), as_tensor(w), None if bias is None else as_tensor(bias)
    _check("conv3d", x, w, bias, ("depth", "height", "width"))
    steps, apart = whole("conv3d", "stride", stride, 3, 1), whole("conv3d", "dilation", dilation, 3, 1)
    spans = [d * (k - 1) + 1 for d, k in zip(apart, w.shape[2:], strict=True)]
    around = _evenly(padding, spans, steps)
    if around is not None and are_whole(x, w, bias):
        return volumes(x, w, bias, stride=steps, padding=around, dilation=apart, groups=groups)
    return _as_images(x, w, bias, steps, padding, apart, groups)


def _evenly(padding: Any, spans: Sequence[int], steps: Sequence[int]) -> tuple[int, ...] | None:
    """Padding as numbers, where it is the same on both sides."""
    if padding == "valid":
        return (0, 0, 0)
    if not isinstance(padding, str):
        return whole("conv3d", "padding", padding, 3, 0)
    even = padding == "same" and all(span % 2 for span in spans) and all(step == 1 for step in steps)
    return tuple(span // 2 for span in spans) if even else None


def _as_images(x: Tensor, w: Tensor, bias: Tensor | None, steps: Any, padding: Any, apart: Any, groups: int) -> Tensor:
    """What a filter's taps in depth see is copied side by side as channels, so that one convolution of images adds up all."""
    (n, channels, depth), (taps, *kernel) = x.shape[:3], w.shape[2:]
    span = apart[0] * (taps - 1) + 1
    (before, behind), plane = _around(padding, steps[0], span)
    if span > before + depth + behind or not taps:
        raise ShapeError(f"conv3d: depth: a kernel that spans {span} on the padded {before} + {depth} + {behind}")
    rows = (before + depth + behind - span) // steps[0] + 1
    if before or behind:
        rims = [
            zeros((n, channels, d, *x.shape[3:]), dtype=x.dtype, device=elsewhere(x.storage)) for d in (before, behind)
        ]
        x = concat([rims[0], x, rims[1]], axis=2)
    firsts = [t * apart[0] for t in range(taps)]
    seen = stack([x[:, :, f : f + (rows - 1) * steps[0] + 1 : steps[0]] for f in firsts], axis=2)
    images = reshape(permute_dims(seen, (0, 3, 1, 2, 4, 5)), (n * rows, channels * taps, *x.shape[3:]))
    filters = reshape(w, (w.shape[0], w.shape[1] * taps, *kernel))
    across: dict[str, Any] = {"stride": steps[1:], "padding": plane, "dilation": apart[1:]}
    y = conv2d(images, filters, bias, groups=groups, **across)
    return permute_dims(reshape(y, (n, rows, *y.shape[1:])), (0, 2, 1, 3, 4))


def _around(padding: Any, step: int, span: int) -> tuple[tuple[int, int], Any]:
    """conv3d's padding: what it adds before and behind in depth, and what is left to conv2d."""
    if padding == "same":
        if step != 1:
            raise ArgumentError(
                f"conv3d: padding='same' needs stride 1, got {step} in depth; give the padding as numbers"
            )
        return ((span - 1) // 2, span // 2), padding
    if padding == "valid":
        return (0, 0), padding
    depth, *plane = whole("conv3d", "padding", padding, 3, 0)
    return (depth, depth), tuple(plane)


def conv_transpose2d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    output_padding: int | tuple[int, int] = 0,
    groups: int = 1,
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """The transpose of `conv2d`: every value of x adds its multiple of a filter to the image, `stride` apart.

    x (n, c, h, w), w (c, o / groups, kh, kw), bias (o,) -> (n, o, oh, ow), where oh = (h - 1) stride - 2 padding + dilation (kh
    - 1) + output_padding + 1. `output_padding`, less than the stride, says which of the images that a convolution with
    this stride makes h rows of is meant; less than the dilation it may be as well, for rows that little is added to.
    """
    return _transposed(
        "conv_transpose2d", ("height", "width"), x, w, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose1d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int] = 1,
    padding: int | tuple[int] = 0,
    output_padding: int | tuple[int] = 0,
    groups: int = 1,
    dilation: int | tuple[int] = 1,
) -> Tensor:
    """The transpose of `conv1d`: x (n, c, l), w (c, o / groups, k), bias (o,) -> (n, o, ol). See `conv_transpose2d`."""
    return _transposed("conv_transpose1d", ("length",), x, w, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    output_padding: int | tuple[int, int, int] = 0,
    groups: int = 1,
    dilation: int | tuple[int, int, int] = 1,
) -> Tensor:
    """The transpose of `conv3d`: x (n, c, d, h, w), w (c, o / groups, kd, kh, kw), bias (o,) -> (n, o, od, oh, ow). See
    `conv_transpose2d`."""
    axes = ("depth", "height", "width")
    return _transposed("conv_transpose3d", axes, x, w, bias, stride, padding, output_padding, groups, dilation)


def transposed_images(
    x: Tensor, w: Tensor, bias: Tensor | None, *, size: Any, stride: Any, padding: Any, dilation: Any, groups: int,
    transpose: Transpose,
) -> Tensor:  # fmt: skip
    """The transpose of a volume's convolution by that of images: what each tap in depth brings to a slice is copied side by
    side as channels, so that one transposed convolution of images adds up all."""
    (n, channels, depth, *plane), (taps, *kernel) = x.shape, w.shape[2:]

    def nothing(*rows: int) -> Tensor:
        return zeros((n, channels, *rows, *plane), dtype=x.dtype, device=elsewhere(x.storage))

    if stride[0] > 1:
        x = concat([reshape(x, (n, channels, depth, 1, *plane)), nothing(depth, stride[0] - 1)], axis=3)
        x = reshape(x, (n, channels, depth * stride[0], *plane))[:, :, : (depth - 1) * stride[0] + 1]
    brought = []
    for t in range(taps):
        first = t * dilation[0] - padding[0]  # where the tap brings the first slice
        inside = x[:, :, max(0, -first) : max(0, size[0] - first)]
        before = min(size[0], max(0, first))
        brought.append(concat([nothing(before), inside, nothing(size[0] - before - inside.shape[2])], axis=2))
    images = permute_dims(stack(brought, axis=2), (0, 3, 1, 2, 4, 5))
    images = reshape(images, (n * size[0], channels * taps, *plane))
    filters = reshape(permute_dims(w, (0, 2, 1, 3, 4)), (channels * taps, w.shape[1], *kernel))
    across: dict[str, Any] = {"stride": stride[1:], "padding": padding[1:], "dilation": dilation[1:], "groups": groups}
    y = transpose(images, filters, bias, size=size[1:], **across)
    return permute_dims(reshape(y, (n, size[0], *y.shape[1:])), (0, 2, 1, 3, 4))


def with_bias(x: Tensor, w: Tensor, bias: Tensor | None, **how: Any) -> Tensor:
    """Transposed convolution of images or volumes, then the bias."""
    y = (volumes_input_gradient if x.ndim == 5 else input_gradient)(x, w, **how)
    return y if bias is None else y + reshape(bias, (1, bias.shape[0], *[1] * (y.ndim - 2)))


def _in_integers(name: str) -> Transpose:
    """Transposed convolution of fixed-point images, with the bias in its sums."""
    from ulpgrad.fixed.convolution import transposed
    from ulpgrad.fixed.routing import carried_out

    def run(*tensors: Tensor | None, **how: Any) -> Tensor:
        forward, real = functools.partial(transposed, **how), functools.partial(with_bias, **how)
        return where_they_are(tensors, lambda given: carried_out(name, forward, real, given))

    return run


def _transposed(
    name: str, axes: tuple[str, ...], x: Any, w: Any, bias: Any, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> Tensor:  # fmt: skip
    x, w, bias = as_tensor(x), as_tensor(w), None if bias is None else as_tensor(bias)
    _check(name, x, w, bias, axes, turned=True)
    if any(t.dtype.kind in ("integer", "bool") for t in (x, w)):
        raise FormatError(
            f"{name}: x is {x.dtype.name} and w is {w.dtype.name}: expected floats or fixed point; convert with .to(float32), "
            "or to a fixed-point format"
        )
    count = len(axes)
    steps, around = whole(name, "stride", stride, count, 1), whole(name, "padding", padding, count, 0)
    apart, behind = (
        whole(name, "dilation", dilation, count, 1),
        whole(name, "output_padding", output_padding, count, 0),
    )
    if any(b >= max(s, d) for b, s, d in zip(behind, steps, apart, strict=True)):
        raise ArgumentError(
            f"{name}: output_padding={output_padding!r}: expected less than stride={stride!r} or dilation={dilation!r}"
        )
    for axis, (b, s) in enumerate(zip(behind, steps, strict=True), 2):
        if b >= s:  # with zeros behind it is what a convolution makes of such images
            rim = zeros((*x.shape[:axis], b // s, *x.shape[axis + 1 :]), dtype=x.dtype, device=elsewhere(x.storage))
            x = concat([x, rim], axis=axis)
    behind = tuple(b % s for b, s in zip(behind, steps, strict=True))
    sizes = zip(x.shape[2:], w.shape[2:], steps, around, apart, behind, strict=True)
    size = tuple((n - 1) * s - 2 * p + d * (k - 1) + b + 1 for n, k, s, p, d, b in sizes)
    if min(size) < 1:
        raise ShapeError(
            f"{name}: results of size {size}: padding={padding!r} leaves nothing of x {x.shape}, w {w.shape}"
        )
    if bias is not None and bias.shape[0] != w.shape[1] * groups:
        raise ShapeError(
            f"{name}: bias has shape {bias.shape}: expected ({w.shape[1] * groups},), one value per output"
        )
    flat = count == 1
    if flat:
        x, w, size, steps, around, apart = as_row(x), as_row(w), (1, *size), (1, *steps), (0, *around), (1, *apart)
    transpose: Transpose = _in_integers(name) if "fixed" in (x.dtype.kind, w.dtype.kind) else with_bias
    if count == 3 and not are_whole(x, w):
        transpose = functools.partial(transposed_images, transpose=transpose)
    y = transpose(x, w, bias, size=size, stride=steps, padding=around, dilation=apart, groups=groups)
    return reshape(y, (*y.shape[:2], y.shape[3])) if flat else y
