"""What the CUDA kernels of convolution are called with: the structures of csrc/cuda/conv_index.cuh, results, limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.formats import Float, Format, bfloat16, float8_e4m3fn, float8_e5m2, float16, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.geometry import LARGEST, output_size
from ulpgrad.kernels.cuda_compile import Kernel, c_type
from ulpgrad.kernels.matmul.spec import ACTIVATIONS
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op

FORMATS = (float32, float64, float16, bfloat16)
DRAWN_FORMATS = (float32, float16, bfloat16)  # whose sums, in float32, random words round
FEWEST = 8  # channels of a group's results: columns of a tile
MOST_BLOCKS = 65535  # along the second and third axis of a grid
MOST_NUMBERED = LARGEST - 256  # positions, and values of a filter, as csrc/cuda/conv_index.cuh says

WINDOW = np.dtype([(n, np.int32) for n in ("size", "kernel", "stride", "padding", "dilation", "positions")], align=True)
CONVOLUTION = np.dtype(
    [*((n, np.int32) for n in ("images", "groups", "inputs", "outputs")), ("y", WINDOW), ("x", WINDOW)], align=True
)
STRIDES = np.dtype([(n, np.int64) for n in ("image", "channel", "y", "x")], align=True)

DRAWN = np.dtype(
    [("low", np.uint64), ("high", np.uint64), ("key", np.uint32, 2)]
    + [(n, np.int32) for n in ("random_bits", "mantissa", "least")],
    align=True,
)
AFTER = np.dtype(
    [("residual", STRIDES), *((n, np.int32) for n in ("activation", "residual_first", "stored")), ("drawn", DRAWN)],
    align=True,
)
UNDRAWN = (0, 0, (0, 0), 0, 0, 0)
_LOW = 2**64 - 1
STORED: tuple[Format, ...] = (
    float32,
    float16,
    bfloat16,
    float8_e4m3fn,
    float8_e5m2,
)  # as `enum Stored` numbers them, from 1 on


@lru_cache(1 << 12)
def _structure(kind: Any, values: tuple[Any, ...]) -> Any:
    """Of that type; calls repeat, and making one takes as long as a launch. Nobody writes to it."""
    return np.array(values, kind)


class After(NamedTuple):
    """What follows the sums, as the kernels take it; any of the arrays may be None."""

    bias: Any
    scale: Any
    residual: Any
    argument: Any  # the kernels' `After`
    activation: Any  # its number

    @property
    def operands(self) -> tuple[Any, Any, Any]:
        return self.bias, self.scale, self.residual


def after(
    bias: Any = None,
    scale: Any = None,
    residual: Any = None,
    activation: str | None = None,
    residual_first: bool = False,
    dtype: Format | None = None,
    own: Any = None,
    words: Words | None = None,
    size: tuple[int, ...] = (),
) -> After:
    """`dtype`: the format of the result, None for the operands' own, whose storage `own` is. `words`: what rounds to it, in the
    order of a result of that `size`; `residual` is then any array, which is not read."""
    stored = 0 if dtype is None or dtype.storage == own else 1 + STORED.index(dtype)
    number = activation_number(activation)
    apart = (0, 0, 0, 0) if residual is None else tuple(s // residual.itemsize for s in residual.strides)
    bias, scale = (None if a is None else gpu.contiguous(a) for a in (bias, scale))
    if words is None:
        argument = _structure(AFTER, (apart, int(number), residual_first, stored, UNDRAWN))
    else:
        in_order = prod(size[1:]), prod(size[2:]), size[3], 1
        argument = np.array((in_order, int(number), 0, stored, words.argument(dtype)), AFTER)  # no two calls alike
    return After(bias, scale, residual, argument, number)


class Words(NamedTuple):
    """The stream of random words that results are rounded by: result i by word i."""

    key: int
    counter: int
    random_bits: int

    def argument(self, form: Format | None) -> tuple[Any, ...]:
        """The kernels' `Drawn`, for results in a float format."""
        assert isinstance(form, Float)
        low, high = self.counter & _LOW, self.counter >> 64
        key = self.key & 0xFFFFFFFF, self.key >> 32
        return low, high, key, self.random_bits, form.mantissa_bits, form.min_exponent


def drawing(where: Callable[[Request], str | None]) -> Callable[[Request], str | None]:
    """A refusal of results that are rounded by random words: where `where` refuses, and formats that kernels do not store."""

    def refusal(request: Request) -> str | None:
        dtype = request.params["dtype"]
        if dtype not in STORED[1:]:
            return f"rounds by random words to {', '.join(f.name for f in STORED[1:])}, not to {dtype}"
        return where(request)

    return refusal


def rounds_doubles(request: Request) -> str | None:
    """Why the format of a result cannot be chosen; None if it can, or is not."""
    if request.formats[0] is float64 and request.params.get("dtype") is not None:
        return "rounds sums of float32 to other formats, not those of float64"
    return None


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


class Shape:
    """The sizes of a call of conv2d or of one of its gradients."""

    def __init__(self, op: Op, arrays: tuple[Any, ...], params: Mapping[str, Any]) -> None:
        self.op, self.params = op, params
        first, second = self.shapes = arrays[0].shape, arrays[1].shape
        self.images, self.groups = first[0], params["groups"]
        if op in spec.FORWARD:
            self.size, self.kernel, (outputs, self.inputs) = first[2:], second[2:], second[:2]
        elif op is spec.conv2d_input_gradient:
            self.size, self.kernel, (outputs, self.inputs) = params["size"], second[2:], second[:2]
        else:
            self.size, self.kernel, outputs, self.inputs = (
                second[2:],
                params["size"],
                first[1],
                second[1] // self.groups,
            )
        self.outputs = outputs // self.groups  # of one group, as inputs are
        self.stride, self.padding, self.dilation = params["stride"], params["padding"], params["dilation"]
        self.positions = output_size(self.size, self.kernel, self.stride, self.padding, self.dilation)
        self.rows = self.images * prod(self.positions)
        strides = tuple(zip(self.size, self.stride, strict=True))
        self.phases = prod(min(s, t) for s, t in strides)
        self.phase_rows = self.images * prod(cdiv(s, t) for s, t in strides)  # of the largest phase
        self.depth = self.inputs * prod(self.kernel)  # values in a filter
        self.weights = outputs * self.depth
        self.padded = max(s + 2 * p for s, p in zip(self.size, self.padding, strict=True))

    def of(self, *arrays: Any) -> Shape:
        """That of the same call on other operands."""
        return self if tuple(a.shape for a in arrays) == self.shapes else Shape(self.op, arrays, self.params)

    @property
    def argument(self) -> Any:
        """The kernels' `Convolution`."""
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, self.positions, strict=True)
        return _structure(CONVOLUTION, (self.images, self.groups, self.inputs, self.outputs, *axes))


def kernels(source: str, name: str, *options: str) -> dict[Format | None, Kernel]:
    """A kernel of csrc/cuda for each format: name<type, options...>."""
    return {f: Kernel(source, f"{name}<{', '.join((c_type(f), *options))}>") for f in FORMATS}


def shape_of(request: Request) -> Shape:
    return Shape(request.op, request.arrays, request.params)


def too_long(request: Request) -> str | None:
    """Why coordinates on an image do not fit 32 bits, for `where`; None if they do."""
    padded = shape_of(request).padded
    return None if padded <= LARGEST else f"takes padded images of up to 2^31 - 1 rows and columns, not {padded}"


def too_large(request: Request) -> str | None:
    """Why matrices of positions and patches cannot be numbered in 32 bits, or their tiles in a grid; None if they can."""
    shape = shape_of(request)
    pixels = max(shape.images * prod(shape.size), shape.rows)
    if pixels > MOST_NUMBERED:
        return f"takes up to {MOST_NUMBERED} positions of all images together, not {pixels}"
    values = max(shape.depth, shape.outputs * prod(shape.kernel))
    if values > MOST_NUMBERED:
        return f"takes filters of up to {MOST_NUMBERED} values, not {values}"
    if max(cdiv(max(shape.inputs, shape.outputs), 16), shape.groups * shape.phases) > MOST_BLOCKS:
        return f"takes up to {MOST_BLOCKS} groups times phases of the strides, and up to {16 * MOST_BLOCKS} channels"
    return too_long(request)


def sparse_or_too_large(request: Request) -> str | None:
    """Why a tile is no good for the call: as `too_large`, or because groups of a few channels would fill little of it."""
    shape = shape_of(request)
    columns = shape.outputs if request.op in spec.FORWARD else shape.inputs
    if shape.groups > 1 and columns < FEWEST:
        return f"takes groups of at least {FEWEST} channels of the result, not {columns}"
    return too_large(request)


def finishing(request: Request) -> str | None:
    """As `sparse_or_too_large`, for a convolution and what follows it."""
    return rounds_doubles(request) or sparse_or_too_large(request)


def strides(array: Any) -> Any:
    """How many elements lie between neighbours along each of the four axes."""
    itemsize = array.itemsize
    return _structure(STRIDES, tuple([s // itemsize for s in array.strides]))


def is_channels_last(array: Any) -> bool:
    return bool(array.shape[1] > 1 and array.transpose(0, 2, 3, 1).flags.c_contiguous)


def images_like(array: Any, *shape: int, dtype: Any = None) -> Any:
    """New images that lie as those of `array`: channels last if these are, else contiguous."""
    (n, c, h, w), dtype = shape, array.dtype if dtype is None else dtype
    if is_channels_last(array):
        return gpu.xp().empty((n, h, w, c), dtype).transpose(0, 3, 1, 2)
    return gpu.xp().empty(shape, dtype)


def channels_last(weight: Any, axis: int) -> Any:
    """The filters with the channels of `axis`, which are summed over, side by side, and aligned for packets."""
    laid = gpu.contiguous(weight.transpose(1 - axis, 2, 3, axis))
    laid = laid.copy() if laid.data.ptr % 16 else laid
    return laid.transpose(0, 3, 1, 2) if axis == 1 else laid.transpose(3, 0, 1, 2)


def activation_number(name: str | None) -> np.int32:
    """As `enum Activation` of csrc/cuda/activation.cuh numbers them."""
    return np.int32(0 if name is None else 1 + ACTIVATIONS.index(name))


NOTHING = after().argument

__all__ = [
    "DRAWN_FORMATS",
    "FORMATS",
    "MOST_BLOCKS",
    "MOST_NUMBERED",
    "NOTHING",
    "After",
    "Shape",
    "Words",
    "activation_number",
    "after",
    "cdiv",
    "channels_last",
    "drawing",
    "finishing",
    "images_like",
    "is_channels_last",
    "kernels",
    "rounds_doubles",
    "shape_of",
    "sparse_or_too_large",
    "strides",
    "too_large",
    "too_long",
]
