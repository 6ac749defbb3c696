"""Layer norm (Ba et al. 2016), RMS norm (Zhang and Sennrich 2019) and batch norm (Ioffe and Szegedy 2015), with gradients.

Each forward op also returns the statistics its gradient needs: float32 for 16- and 32-bit inputs, else float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import ShapeError
from ulpgrad.formats import FLOATS, Array, Format, compute_format, float32, float64
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op, Sample, promoted

ULPS: dict[Format, float] = {
    float32: 16,
    float64: 16,
}  # rows of a thousand values, added one after the other on the plain rungs
Present = Array | None


def one_format(request: Request) -> str | None:
    """Predicate of rungs that want all operands in one float format."""
    return None if len({f for f in request.formats if f is not None}) == 1 else "mixes float formats"


def as_rows(x: Array) -> Array:
    """[..., n] as [rows, n]; also where there are no rows."""
    return x.reshape(x.size // x.shape[-1] if x.size else 0, x.shape[-1])


# What is right. A channel axis (batch norm) is moved into the shape that broadcasts.


def _scaled(x: Array, weight: Present, bias: Present) -> Array:
    y = x if weight is None else x * weight
    return y if bias is None else y + bias


def layer_norm_reference(x: Array, weight: Present, bias: Present, *, eps: float) -> tuple[Array, Array, Array]:
    mean = x.mean(axis=-1)
    rstd = 1 / np.sqrt(((x - mean[..., None]) ** 2).mean(axis=-1) + eps)
    return _scaled((x - mean[..., None]) * rstd[..., None], weight, bias), mean, rstd


def layer_norm_gradient_reference(g: Array, x: Array, weight: Present, mean: Array, rstd: Array) -> tuple[Array, ...]:
    normal = (x - mean[..., None]) * rstd[..., None]
    scaled = _scaled(g, weight, None)
    inner = scaled.mean(axis=-1, keepdims=True) + normal * (scaled * normal).mean(axis=-1, keepdims=True)
    rows = tuple(range(x.ndim - 1))
    return rstd[..., None] * (scaled - inner), (g * normal).sum(axis=rows), g.sum(axis=rows)


def rms_norm_reference(x: Array, weight: Present, *, eps: float) -> tuple[Array, Array]:
    rstd = 1 / np.sqrt((x**2).mean(axis=-1) + eps)
    return _scaled(x * rstd[..., None], weight, None), rstd


def rms_norm_gradient_reference(g: Array, x: Array, weight: Present, rstd: Array) -> tuple[Array, Array]:
    normal = x * rstd[..., None]
    scaled = _scaled(g, weight, None)
    dx = rstd[..., None] * (scaled - normal * (scaled * normal).mean(axis=-1, keepdims=True))
    return dx, (g * normal).sum(axis=tuple(range(x.ndim - 1)))


def _per_channel(a: Present) -> Present:
    return None if a is None else a[None, :, None]


def batch_norm_reference(x: Array, weight: Present, bias: Present, *, eps: float) -> tuple[Array, Array, Array]:
    mean = x.mean(axis=(0, 2))
    rstd = 1 / np.sqrt(((x - mean[None, :, None]) ** 2).mean(axis=(0, 2)) + eps)
    normal = (x - mean[None, :, None]) * rstd[None, :, None]
    return _scaled(normal, _per_channel(weight), _per_channel(bias)), mean, rstd


def batch_norm_gradient_reference(g: Array, x: Array, weight: Present, mean: Array, rstd: Array) -> tuple[Array, ...]:
    normal = (x - mean[None, :, None]) * rstd[None, :, None]
    dweight, dbias = (g * normal).sum(axis=(0, 2)), g.sum(axis=(0, 2))
    count = x.shape[0] * x.shape[2]
    inner = (dbias[None, :, None] + normal * dweight[None, :, None]) / count
    return _scaled(rstd[None, :, None] * (g - inner), _per_channel(weight), None), dweight, dbias


# Checks and result formats.


def _check_vector(name: str, what: str, a: Present, size: int) -> None:
    if a is not None and tuple(a.shape) != (size,):
        raise ShapeError(f"{name}: {what} has shape {tuple(a.shape)}: expected ({size},)")


def _check_rows(name: str, x: Array, *vectors: tuple[str, Present]) -> None:
    if x.ndim == 0:
        raise ShapeError(f"{name}: expected at least one axis, got a scalar")
    for what, a in vectors:
        _check_vector(name, what, a, x.shape[-1])


def _check_channels(name: str, x: Array, *vectors: tuple[str, Present]) -> None:
    if x.ndim != 3:
        raise ShapeError(f"{name}: expected shape (batch, channels, positions), got {tuple(x.shape)}")
    for what, a in vectors:
        _check_vector(name, what, a, x.shape[1])


def _check_same(name: str, what: str, a: Array, shape: tuple[int, ...]) -> None:
    if tuple(a.shape) != tuple(shape):
        raise ShapeError(f"{name}: {what} has shape {tuple(a.shape)}: expected {tuple(shape)}")


def _check_layer_norm(x: Array, weight: Present, bias: Present, *, eps: float) -> None:
    _check_rows("layer_norm", x, ("weight", weight), ("bias", bias))


def _check_layer_norm_gradient(g: Array, x: Array, weight: Present, mean: Array, rstd: Array) -> None:
    _check_rows("layer_norm_gradient", x, ("weight", weight))
    _check_same("layer_norm_gradient", "g", g, x.shape)
    for what, a in (("mean", mean), ("rstd", rstd)):
        _check_same("layer_norm_gradient", what, a, x.shape[:-1])


def _check_rms_norm(x: Array, weight: Present, *, eps: float) -> None:
    _check_rows("rms_norm", x, ("weight", weight))


def _check_rms_norm_gradient(g: Array, x: Array, weight: Present, rstd: Array) -> None:
    _check_rows("rms_norm_gradient", x, ("weight", weight))
    _check_same("rms_norm_gradient", "g", g, x.shape)
    _check_same("rms_norm_gradient", "rstd", rstd, x.shape[:-1])


def _check_batch_norm(x: Array, weight: Present, bias: Present, *, eps: float) -> None:
    _check_channels("batch_norm", x, ("weight", weight), ("bias", bias))


def _check_batch_norm_gradient(g: Array, x: Array, weight: Present, mean: Array, rstd: Array) -> None:
    _check_channels("batch_norm_gradient", x, ("weight", weight), ("mean", mean), ("rstd", rstd))
    _check_same("batch_norm_gradient", "g", g, x.shape)


def _with_statistics(count: int) -> Any:
    def result(*formats: Format | None, **_: Any) -> tuple[Format, ...]:
        form = promoted(*formats)
        return (form, *[compute_format(form)] * count)

    return result


def _gradients(count: int) -> Any:
    def result(g: Format, x: Format, weight: Format | None, *_: Format, **__: Any) -> tuple[Format, ...]:
        return (promoted(g, x, weight),) * count

    return result


# Samples: every shape with and without weight and bias.

EPS = 1e-5
SHAPES = ((3, 8), (2, 3, 5), (7,), (1, 1), (4, 67), (70, 33), (0, 4), (2, 1030))
CHANNEL_SHAPES = ((4, 3, 5), (8, 4, 1), (1, 2, 9), (2, 1, 300), (3, 33, 16), (70, 5, 1))


def _operands(shapes: tuple[tuple[int, ...], ...], channel: int) -> Iterator[tuple[Array, Present, Present]]:
    rng = np.random.default_rng(0)
    for i, shape in enumerate(shapes):
        x = rng.standard_normal(shape) * 2 + 1
        weight, bias = rng.standard_normal((2, shape[channel]))
        yield x, None if i % 3 == 1 else weight, None if i % 3 else bias
    x = rng.standard_normal(shapes[0]) * 1e-3 + 5
    yield x, rng.standard_normal(shapes[0][channel]), None
    x = rng.standard_normal(shapes[0])
    x.flat[3] = np.nan
    yield x, None, None


def _forward_samples(shapes: tuple[tuple[int, ...], ...], channel: int, has_bias: bool) -> Any:
    def samples() -> Iterator[Sample]:
        for x, weight, bias in _operands(shapes, channel):
            yield Sample((x, weight, bias) if has_bias else (x, weight), {"eps": EPS}, name=f"{x.shape}")

    return samples


def _gradient_samples(forward: Any, shapes: tuple[tuple[int, ...], ...], channel: int) -> Any:
    def samples() -> Iterator[Sample]:
        rng = np.random.default_rng(1)
        for x, weight, _ in _operands(shapes, channel):
            _, *statistics = (
                forward(x, None, eps=EPS) if forward is rms_norm_reference else forward(x, None, None, eps=EPS)
            )
            yield Sample((np.asarray(rng.standard_normal(x.shape)), x, weight, *statistics), name=f"{x.shape}")

    return samples


# What errors are measured against: the sums of absolute values behind each result.


def _layer_norm_magnitude(x: Array, weight: Present, bias: Present, *, eps: float) -> tuple[Array, ...]:
    _, mean, rstd = layer_norm_reference(x, None, None, eps=eps)
    size = (np.abs(x) + np.abs(mean)[..., None]) * rstd[..., None] + 1
    noise = 1 + np.abs(mean) * rstd  # how far the rounding of the mean reaches into the variance
    return (_absolute(size, weight, bias), np.abs(x).mean(axis=-1), rstd * noise)


def _absolute(size: Array, weight: Present, bias: Present) -> Array:
    return _scaled(size, None if weight is None else np.abs(weight), None if bias is None else np.abs(bias))


def _layer_norm_gradient_magnitude(g: Array, x: Array, weight: Present, mean: Array, rstd: Array) -> tuple[Array, ...]:
    normal = (np.abs(x) + np.abs(mean)[..., None]) * rstd[..., None]
    scaled = np.abs(_scaled(g, weight, None))
    inner = scaled.mean(axis=-1, keepdims=True) + normal * (scaled * normal).mean(axis=-1, keepdims=True)
    rows = tuple(range(x.ndim - 1))
    return rstd[..., None] * (scaled + inner), (np.abs(g) * normal).sum(axis=rows), np.abs(g).sum(axis=rows)


def _rms_norm_gradient_magnitude(g: Array, x: Array, weight: Present, rstd: Array) -> tuple[Array, Array]:
    normal = np.abs(x) * rstd[..., None]
    scaled = np.abs(_scaled(g, weight, None))
    dx = rstd[..., None] * (scaled + normal * (scaled * normal).mean(axis=-1, keepdims=True))
    return dx, (np.abs(g) * normal).sum(axis=tuple(range(x.ndim - 1)))


def _batch_norm_magnitude(x: Array, weight: Present, bias: Present, *, eps: float) -> tuple[Array, ...]:
    _, mean, rstd = batch_norm_reference(x, None, None, eps=eps)
    size = (np.abs(x) + np.abs(mean)[None, :, None]) * rstd[None, :, None] + 1
    noise = 1 + np.abs(mean) * rstd
    return (_absolute(size, _per_channel(weight), _per_channel(bias)), np.abs(x).mean(axis=(0, 2)), rstd * noise)


def _batch_norm_gradient_magnitude(g: Array, x: Array, weight: Present, mean: Array, rstd: Array) -> tuple[Array, ...]:
    normal = (np.abs(x) + np.abs(mean)[None, :, None]) * rstd[None, :, None]
    dweight, dbias = (np.abs(g) * normal).sum(axis=(0, 2)), np.abs(g).sum(axis=(0, 2))
    inner = (dbias[None, :, None] + normal * dweight[None, :, None]) / max(x.shape[0] * x.shape[2], 1)
    return _absolute(rstd[None, :, None] * (np.abs(g) + inner), _per_channel(weight), None), dweight, dbias


layer_norm = Op(
    "layer_norm",
    signature="(x: [..., n], weight: [n]?, bias: [n]?, *, eps) -> (y: [..., n], mean: [...], rstd: [...])",
    doc="(x - mean) / sqrt(variance + eps) over the last axis (biased variance), times weight, plus bias.",
    reference=layer_norm_reference,
    check=_check_layer_norm,
    result=_with_statistics(2),
    formats=FLOATS,
    flops=lambda x, *_, **__: 8 * x.size,
    samples=_forward_samples(SHAPES, -1, True),
    ulps=ULPS,
    magnitude=_layer_norm_magnitude,
)

layer_norm_gradient = Op(
    "layer_norm_gradient",
    signature="(g: [..., n], x: [..., n], weight: [n]?, mean: [...], rstd: [...]) -> (dx: [..., n], dweight: [n], dbias: [n])",
    doc="Gradients of layer_norm. The parameters' are there even where the parameters are not.",
    reference=layer_norm_gradient_reference,
    check=_check_layer_norm_gradient,
    result=_gradients(3),
    formats=FLOATS,
    promote=False,
    flops=lambda g, *_, **__: 14 * g.size,
    samples=_gradient_samples(layer_norm_reference, SHAPES, -1),
    ulps=ULPS,
    magnitude=_layer_norm_gradient_magnitude,
)

rms_norm = Op(
    "rms_norm",
    signature="(x: [..., n], weight: [n]?, *, eps) -> (y: [..., n], rstd: [...])",
    doc="x / sqrt(mean(x^2) + eps) over the last axis, times weight.",
    reference=rms_norm_reference,
    check=_check_rms_norm,
    result=_with_statistics(1),
    formats=FLOATS,
    flops=lambda x, *_, **__: 4 * x.size,
    samples=_forward_samples(SHAPES, -1, False),
    ulps=ULPS,
)

rms_norm_gradient = Op(
    "rms_norm_gradient",
    signature="(g: [..., n], x: [..., n], weight: [n]?, rstd: [...]) -> (dx: [..., n], dweight: [n])",
    doc="Gradients of rms_norm.",
    reference=rms_norm_gradient_reference,
    check=_check_rms_norm_gradient,
    result=_gradients(2),
    formats=FLOATS,
    promote=False,
    flops=lambda g, *_, **__: 10 * g.size,
    samples=_gradient_samples(rms_norm_reference, SHAPES, -1),
    ulps=ULPS,
    magnitude=_rms_norm_gradient_magnitude,
)

batch_norm = Op(
    "batch_norm",
    signature="(x: [n, c, s], weight: [c]?, bias: [c]?, *, eps) -> (y: [n, c, s], mean: [c], rstd: [c])",
    doc="(x - mean) / sqrt(variance + eps) per channel, over batch and positions (biased variance), times weight, plus bias.",
    reference=batch_norm_reference,
    check=_check_batch_norm,
    result=_with_statistics(2),
    formats=FLOATS,
    flops=lambda x, *_, **__: 8 * x.size,
    samples=_forward_samples(CHANNEL_SHAPES, 1, True),
    ulps=ULPS,
    magnitude=_batch_norm_magnitude,
)

batch_norm_gradient = Op(
    "batch_norm_gradient",
    signature="(g: [n, c, s], x: [n, c, s], weight: [c]?, mean: [c], rstd: [c]) -> (dx: [n, c, s], dweight: [c], dbias: [c])",
    doc="Gradients of batch_norm in training, where the statistics depend on x too.",
    reference=batch_norm_gradient_reference,
    check=_check_batch_norm_gradient,
    result=_gradients(3),
    formats=FLOATS,
    promote=False,
    flops=lambda g, *_, **__: 14 * g.size,
    samples=_gradient_samples(batch_norm_reference, CHANNEL_SHAPES, 1),
    ulps=ULPS,
    magnitude=_batch_norm_gradient_magnitude,
)
