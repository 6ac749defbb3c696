"""Convolution (cross-correlation, as in all deep-learning libraries) and its two gradients, by sliding windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import FLOATS, Array, Format, bfloat16, float8_e4m3fn, float8_e5m2, float16, float32, int64
from ulpgrad.kernels.conv import axes
from ulpgrad.kernels.conv.geometry import IMAGES, Pair, check_numbers, grouped, output_size, windows
from ulpgrad.kernels.matmul import spec as matmul
from ulpgrad.kernels.matmul.spec import ACTIVATIONS, activate
from ulpgrad.kernels.spec import Op, Sample, of_absolutes, promoted

RESULTS = (*matmul.RESULTS, float8_e4m3fn, float8_e5m2)  # what sums are rounded to, beside the operands' own format


def _conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    activation: str | None = None,
) -> Array:
    seen = grouped(windows(x, weight.shape[2:], stride, padding, dilation), 1, groups)
    y = np.einsum("ngchwij,gocij->ngohw", seen, grouped(weight, 0, groups), optimize=True)
    y = y.reshape(y.shape[0], weight.shape[0], *y.shape[3:])
    return activate(y if bias is None else y + bias[:, None, None], activation)


def _conv2d_max_pool(
    x: Array, weight: Array, bias: Array | None, *, window: Pair, activation: str | None = None, **geometry: Any
) -> tuple[Array, Array]:
    y = _conv2d(x, weight, bias, groups=1, **geometry)
    (n, o, *size), (rows, columns) = y.shape, window
    kept = y[:, :, : size[0] // rows * rows, : size[1] // columns * columns]
    seen = kept.reshape(n, o, size[0] // rows, rows, size[1] // columns, columns).swapaxes(3, 4)
    seen = seen.reshape(*seen.shape[:4], prod(window))
    largest = seen.max(axis=-1, keepdims=True)
    first = np.where(np.isnan(largest), np.isnan(seen), seen == largest).argmax(-1)
    top, left = np.arange(seen.shape[2])[:, None] * rows, np.arange(seen.shape[3]) * columns
    return activate(largest[..., 0], activation), (top + first // columns) * size[1] + left + first % columns


def _conv2d_finished(
    x: Array, weight: Array, bias: Array | None, scale: Array | None, residual: Array | None, *,
    activation: str | None = None, residual_first: bool = False, dtype: Format | None = None, **geometry: Any,
) -> Array:  # fmt: skip
    y = _conv2d(x, weight, None, **geometry)
    y = y if scale is None else y * scale[:, None, None]
    y = y if bias is None else y + bias[:, None, None]
    other = 0 if residual is None else residual
    return activate(y + other, activation) if residual_first else activate(y, activation) + other


def _conv2d_stochastic(
    x: Array, weight: Array, bias: Array | None, scale: Array | None = None, *, activation: str | None = None, dtype: Format,
    key: int, counter: int, random_bits: int, **geometry: Any,
) -> Array:  # fmt: skip
    y = _conv2d_finished(x, weight, bias, scale, None, activation=activation, **geometry)
    return matmul.drawn(y, dtype, key=key, counter=counter, random_bits=random_bits)


def _check_conv2d_stochastic(
    x: Any, weight: Any, bias: Any, scale: Any = None, *, dtype: Format, key: int, counter: int, random_bits: int, **how: Any
) -> None:  # fmt: skip
    _check_conv2d_finished(x, weight, bias, scale, None, **how)
    matmul.check_drawn("conv2d_stochastic", dtype, key, counter, random_bits)


def _stochastic_magnitude(
    *arrays: Array | None, dtype: Format, key: int, counter: int, random_bits: int, **how: Any
) -> Array:
    return _finished_magnitude(*arrays, *[None] * (5 - len(arrays)), **how)


def _finished_magnitude(*arrays: Array | None, **params: Any) -> Array:
    """The terms' sizes; and the result's, which may be larger (sigmoid(0) = 0.5)."""
    return of_absolutes(_conv2d_finished)(*arrays, **{**params, "activation": None}) + abs(
        _conv2d_finished(*arrays, **params)  # type: ignore[arg-type]
    )


def _key(*arrays: Any, **params: Any) -> Any:
    """GPU rungs choose by sizes and layout, those of the CPU by whether there is one position alone."""
    if arrays[0].__class__ is np.ndarray:
        return has_one_position(arrays, params)
    return tuple((a.shape, a.strides) for a in arrays if a is not None), tuple(params.items())


def has_one_position(arrays: Sequence[Any], params: Mapping[str, Any]) -> bool:
    """Whether filters see a whole image at once, forwards or in a gradient: one group, neither padding nor dilation."""
    image = params.get("size") or arrays[0].shape[2:]
    filters = arrays[1].shape[2:]
    return (
        tuple(image) == filters
        and params.get("groups", 1) == 1
        and params["padding"] == (0, 0)
        and all(d == 1 or k == 1 for d, k in zip(params["dilation"], filters, strict=False))
        and 0 not in filters
    )


def _magnitude(x: Array, weight: Array, bias: Array | None, *, activation: str | None = None, **params: Any) -> Array:
    """The terms' sizes; and the result's, which may be larger (sigmoid(0) = 0.5)."""
    terms: Array = of_absolutes(_conv2d)(x, weight, bias, **params)
    return terms if activation is None else terms + abs(_conv2d(x, weight, bias, activation=activation, **params))


def _pool_magnitude(*arrays: Array | None, **params: Any) -> tuple[Array, int]:
    return of_absolutes(_conv2d_max_pool)(*arrays, **{**params, "activation": None})[0], 0


def _check_conv2d(
    x: Array, weight: Array, bias: Array | None, *, activation: str | None = None, **geometry: Any
) -> None:
    axes.check("conv2d", IMAGES, x, weight, bias, **geometry)
    if activation is not None and activation not in ACTIVATIONS:
        raise ArgumentError(f"conv2d: activation={activation!r}: expected None or one of {', '.join(ACTIVATIONS)}")


def _check_conv2d_finished(
    x: Array, weight: Array, bias: Array | None, scale: Array | None, residual: Array | None, *,
    activation: str | None = None, residual_first: bool = False, dtype: Format | None = None, **geometry: Any,
) -> None:  # fmt: skip
    _check_conv2d(x, weight, bias, activation=activation, **geometry)
    if scale is not None and scale.shape != weight.shape[:1]:
        raise ShapeError(f"conv2d: scale has shape {scale.shape}: expected {weight.shape[:1]}, one value per output")
    how = {name: geometry[name] for name in ("stride", "padding", "dilation")}
    expected = (x.shape[0], weight.shape[0], *output_size(x.shape[2:], weight.shape[2:], *how.values()))
    if residual is not None and residual.shape != expected:
        raise ShapeError(f"conv2d: residual has shape {residual.shape}: expected the result's, {expected}")
    if dtype is not None and dtype not in RESULTS:
        raise FormatError(f"conv2d: dtype={dtype}: expected one of {', '.join(f.name for f in RESULTS)}")


def _check_conv2d_max_pool(
    x: Array, weight: Array, bias: Array | None, *, window: Pair, activation: str | None = None, **geometry: Any
) -> None:
    _check_conv2d(x, weight, bias, groups=1, activation=activation, **geometry)
    check_numbers("conv2d_max_pool", 1, window=window)
    size = output_size(x.shape[2:], weight.shape[2:], **geometry)
    if window[0] > size[0] or window[1] > size[1]:
        raise ShapeError(f"conv2d_max_pool: windows of {window} are larger than the convolution's result, {size}")


#       x              weight         stride  padding dilation groups  what it is
CASES = (
    ((2, 3, 7, 6), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, "same"),
    ((3, 1, 8, 8), (5, 1, 3, 3), (1, 1), (0, 0), (1, 1), 1, "one channel"),
    ((2, 4, 9, 11), (6, 2, 3, 2), (2, 3), (1, 2), (1, 1), 2, "strides, even kernel, groups"),
    ((1, 2, 10, 9), (3, 2, 3, 3), (1, 2), (2, 3), (2, 3), 1, "dilation"),
    ((2, 3, 8, 9), (2, 3, 3, 2), (2, 2), (3, 2), (3, 1), 1, "dilation and stride, wide padding"),
    ((2, 5, 6, 6), (5, 1, 3, 3), (1, 1), (1, 1), (1, 1), 5, "depthwise"),
    ((2, 3, 7, 5), (6, 1, 2, 3), (2, 1), (1, 0), (1, 1), 3, "depthwise, two outputs each"),
    ((2, 19, 5, 4), (21, 19, 1, 1), (1, 1), (0, 0), (1, 1), 1, "1x1"),
    ((2, 3, 7, 8), (2, 3, 1, 1), (2, 3), (0, 0), (1, 1), 1, "1x1 with strides"),
    ((2, 2, 5, 5), (3, 2, 1, 1), (1, 1), (2, 1), (1, 1), 1, "1x1 on padding"),
    ((2, 2, 9, 9), (3, 2, 2, 2), (3, 4), (0, 0), (1, 1), 1, "stride larger than kernel"),
    ((2, 20, 7, 9), (20, 1, 1, 1), (2, 3), (0, 1), (1, 1), 20, "1x1 with strides, depthwise"),
    ((1, 3, 5, 6), (2, 3, 5, 6), (1, 1), (0, 0), (1, 1), 1, "kernel as large as the image"),
    ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), (1, 1), 1, "one of each"),
    ((1, 2, 3, 70), (9, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1, "long rows"),
    ((40, 2, 3, 3), (3, 2, 2, 2), (1, 1), (0, 0), (1, 1), 1, "many small images"),
    ((1, 3, 90, 30), (17, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, "an image of several blocks"),
    ((0, 3, 5, 5), (2, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, "empty batch"),
    ((2, 3, 5, 5), (0, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, "no outputs"),
    ((2, 0, 5, 5), (2, 0, 3, 3), (1, 1), (1, 1), (1, 1), 1, "no channels"),
)  # fmt: skip


SAME = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}


def _conv2d_samples() -> Iterator[Sample]:
    yield from axes.samples(CASES)
    random = np.random.default_rng(1)
    x, weight = random.normal(size=(2, 33, 12, 13)) * 100, random.normal(size=(18, 33, 3, 3))
    params = SAME
    yield Sample((x, weight, None), params, "long sums")
    last_column, scale = np.zeros((1, 1, 4, 20)), np.array([[[[2.0, 0.0, 1.0]]]])
    last_column[..., 1, -1], last_column[..., 2, 3] = np.inf, np.nan
    yield Sample((last_column, scale, None), {**params, "padding": (0, 1)}, "infinity and NaN")
    x, weight, bias = random.normal(size=(2, 5, 9, 8)), random.normal(size=(20, 5, 3, 3)) / 6, random.normal(size=20)
    for activation in ACTIVATIONS:
        yield Sample((x, weight, bias), {**params, "activation": activation}, activation)
        depthwise = {**params, "groups": 5, "activation": activation}
        yield Sample((x, weight[:, :1] * 3, None), depthwise, f"{activation}, depthwise")


def _conv2d_max_pool_samples() -> Iterator[Sample]:
    random = np.random.default_rng(2)
    for index, (x, weight, bias, g, params, name) in enumerate(axes.made(CASES)):
        geometry = {k: v for k, v in params.items() if k != "groups"}
        window = (2, 2) if min(g.shape[2:]) > 1 else (1, 1)
        if params["groups"] == 1:
            activation = None if index % 2 else "relu"
            yield Sample((x, weight, bias), {**geometry, "window": window, "activation": activation}, name)
    geometry = {k: v for k, v in SAME.items() if k != "groups"}
    x, weight = random.normal(size=(2, 40, 13, 70)) * 100, random.normal(size=(34, 40, 3, 3))
    yield Sample((x, weight, None), {**geometry, "window": (3, 2)}, "odd windows")
    x = np.full((1, 1, 4, 20), -np.inf)
    x[0, 0, 0, 3:6] = x[0, 0, 1, 2] = np.nan
    x[0, 0, 2, 10] = np.inf
    one = np.ones((1, 1, 1, 1))
    yield Sample((x, one, None), {**geometry, "padding": (0, 0), "window": (2, 2)}, "infinities and NaN")


Shape = tuple[int, int, int, int]


def _conv2d_finished_samples() -> Iterator[Sample]:
    random = np.random.default_rng(3)

    def sample(x: Shape, weight: Shape, names: str, name: str, **params: Any) -> Sample:
        params = {**SAME, **params}
        size = output_size(x[2:], weight[2:], params["stride"], params["padding"], params["dilation"])
        shapes = {"bias": weight[:1], "scale": weight[:1], "residual": (x[0], weight[0], *size)}
        rest = (random.normal(size=shape) if n in names.split() else None for n, shape in shapes.items())
        filters = random.normal(size=weight) / max(1, prod(weight[1:])) ** 0.5
        return Sample((random.normal(size=x), filters, *rest), params, name)

    image, filters = (2, 16, 7, 6), (24, 16, 3, 3)
    yield sample(image, filters, "bias scale residual", "residual, then relu", activation="relu", residual_first=True)
    yield sample(image, filters, "bias scale residual", "silu, then residual", activation="silu")
    yield sample(image, filters, "scale", "scale alone", dtype=float32)
    yield sample(image, filters, "residual", "residual alone", dtype=float16)
    yield sample(image, filters, "bias residual", "tanh", activation="tanh", residual_first=True, dtype=bfloat16)
    yield sample((2, 32, 9, 8), (16, 16, 3, 2), "bias scale residual", "groups, strides", groups=2, stride=(2, 3),
                 padding=(1, 2), activation="gelu", residual_first=True, dtype=bfloat16)  # fmt: skip
    yield sample((1, 5, 6, 6), (5, 1, 3, 3), "bias scale", "depthwise", groups=5, activation="sigmoid")
    yield sample((2, 3, 8, 7), (5, 3, 2, 3), "bias scale residual", "odd channels", activation="relu", dtype=float16)
    yield sample(image, filters, "bias scale", "to float8_e4m3fn", activation="relu", dtype=float8_e4m3fn)
    yield sample((1, 3, 6, 7), (9, 3, 2, 2), "residual", "to float8_e5m2", dtype=float8_e5m2, residual_first=True)
    yield sample((0, 3, 5, 5), (4, 3, 3, 3), "bias scale residual", "empty batch", activation="relu")
    yield sample((3, 20, 3, 2), (9, 20, 3, 2), "bias scale residual", "one position", activation="silu", padding=(0, 0))


def _conv2d_stochastic_samples() -> Iterator[Sample]:
    for i, sample in enumerate(_conv2d_finished_samples()):
        stream = matmul.STREAMS[i % len(matmul.STREAMS)]
        how = {name: value for name, value in sample.params.items() if name not in ("dtype", "residual_first")}
        yield Sample(sample.arrays[:4], {**how, **stream}, f"{sample.name}, to {stream['dtype']}")


def _weight_gradient_samples() -> Iterator[Sample]:
    yield from axes.weight_gradient_samples(CASES)
    random = np.random.default_rng(1)
    g, x = random.normal(size=(5, 7, 12, 13)), random.normal(size=(5, 6, 12, 13)) * 100
    params = {**SAME, "size": (3, 3)}
    yield Sample((g, x), params, "long sums")
    x = np.ones((1, 2, 4, 20))
    x[0, 0, 1, -1] = np.inf
    yield Sample((np.ones((1, 1, 4, 18)), x), {**params, "size": (1, 3), "padding": (0, 0)}, "infinity at the edge")


conv2d = Op(
    "conv2d",
    "(x: [n, c, h, w], weight: [o, c/groups, kh, kw], bias: [o] | None, *, stride, padding, dilation, groups, "
    "activation=None) -> [n, o, oh, ow]",
    _conv2d,
    doc="Each output is the activation of the sum of a window of x times a filter; the filter is not flipped.",
    check=_check_conv2d,
    formats=FLOATS,
    flops=axes.flops,
    samples=_conv2d_samples,
    key=_key,
    ulps=axes.ULPS,
    magnitude=_magnitude,
)

conv2d_finished = Op(
    "conv2d_finished",
    "(x: [n, c, h, w], weight: [o, c/groups, kh, kw], bias: [o] | None, scale: [o] | None, residual: [n, o, oh, ow] | None, *, "
    "stride, padding, dilation, groups, activation=None, residual_first=False, dtype=None) -> [n, o, oh, ow]",
    _conv2d_finished,
    doc="activation(conv2d(x, weight) * scale + bias) + residual in one pass, or activation(... + residual) with residual_first, "
    "rounded once to dtype.",
    check=_check_conv2d_finished,
    result=lambda *formats, dtype=None, **_: promoted(*formats) if dtype is None else dtype,
    formats=FLOATS,
    flops=lambda x, weight, bias, *_, **params: axes.flops(x, weight, bias, **params),
    samples=_conv2d_finished_samples,
    key=lambda *arrays, dtype=None, **params: (dtype, params.get("residual_first"), _key(*arrays, **params)),
    ulps=axes.ULPS,
    magnitude=_finished_magnitude,
)

conv2d_max_pool = Op(
    "conv2d_max_pool",
    "(x: [n, c, h, w], weight: [o, c, kh, kw], bias: [o] | None, *, stride, padding, dilation, window, activation=None) "
    "-> ([n, o, oh / window, ow / window], places: the same)",
    _conv2d_max_pool,
    doc="The activation of the largest value of each window of a convolution, windows side by side, and that value's place "
    "in the convolution's image, as row * width + column. The first of equal ones; NaN is larger than all.",
    check=_check_conv2d_max_pool,
    result=lambda x, *_, **__: (x, int64),
    formats=FLOATS,
    flops=axes.flops,
    samples=_conv2d_max_pool_samples,
    key=_key,
    ulps=axes.ULPS,
    magnitude=_pool_magnitude,
)

conv2d_input_gradient = Op(
    "conv2d_input_gradient",
    "(g: [n, o, oh, ow], weight: [o, c/groups, kh, kw], *, size, stride, padding, dilation, groups) -> [n, c, h, w]",
    axes.input_gradient,
    doc="The gradient of conv2d with respect to x, whose images have height and width `size`.",
    check=partial(axes.check_input_gradient, "conv2d_input_gradient", IMAGES),
    formats=FLOATS,
    flops=axes.input_gradient_flops,
    samples=partial(axes.input_gradient_samples, CASES),
    key=_key,
    ulps=axes.ULPS,
    magnitude=of_absolutes(axes.input_gradient),
)

conv2d_weight_gradient = Op(
    "conv2d_weight_gradient",
    "(g: [n, o, oh, ow], x: [n, c, h, w], *, size, stride, padding, dilation, groups) -> [o, c/groups, kh, kw]",
    axes.weight_gradient,
    doc="The gradient of conv2d with respect to weight, whose filters have height and width `size`.",
    check=partial(axes.check_weight_gradient, "conv2d_weight_gradient", IMAGES),
    formats=FLOATS,
    flops=axes.weight_gradient_flops,
    samples=_weight_gradient_samples,
    key=_key,
    ulps=axes.ULPS,
    magnitude=of_absolutes(axes.weight_gradient),
)

conv2d_stochastic = Op(
    "conv2d_stochastic",
    "(x: [n, c, h, w], weight: [o, c/groups, kh, kw], bias: [o] | None, scale: [o] | None, *, stride, padding, dilation, groups, "
    "activation=None, dtype, key, counter, random_bits) -> [n, o, oh, ow] in dtype",
    _conv2d_stochastic,
    doc="activation(conv2d(x, weight) * scale + bias) in float32, each result rounded to dtype stochastically, as "
    "matmul_stochastic does it.",
    check=_check_conv2d_stochastic,
    result=lambda *_, dtype, **__: dtype,
    formats=FLOATS,
    flops=lambda x, weight, bias, *_, dtype, key, counter, random_bits, **how: axes.flops(x, weight, bias, **how),
    samples=_conv2d_stochastic_samples,
    key=lambda *arrays, dtype, key, counter, random_bits, **params: (dtype, _key(*arrays, **params)),
    ulps=axes.ULPS,
    magnitude=_stochastic_magnitude,
)

FORWARD = (conv2d, conv2d_finished, conv2d_stochastic)

__all__ = [
    "FORWARD",
    "RESULTS",
    "conv2d",
    "conv2d_finished",
    "conv2d_input_gradient",
    "conv2d_max_pool",
    "conv2d_stochastic",
    "conv2d_weight_gradient",
]
