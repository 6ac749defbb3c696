"""C++: each row (or channel) is read from memory once and swept in the cache for its mean, variance and result.

The parameters' gradients are added up in the sweep that takes the row's sums, over fixed runs of rows whose results are
then added in order: no atomics, the same bits on any number of threads. 16-bit floats are widened as they are read and
rounded once. Next limit: memory.
"""

from __future__ import annotations

from ulpgrad.formats import Array, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.norm import spec
from ulpgrad.kernels.norm.spec import Present, as_rows
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.statistics import beside, wide

FORMATS = [float16, bfloat16, float32, float64]


@kernel(spec.layer_norm, "cpu/native-rows", rank=50, formats=FORMATS, contiguous=True)
def layer_norm(x: Array, weight: Present, bias: Present, *, eps: float) -> tuple[Array, Array, Array]:
    y, mean, rstd = native.module().row_norm(as_rows(x), weight, bias, eps, True)
    return y.reshape(x.shape), mean.reshape(x.shape[:-1]), rstd.reshape(x.shape[:-1])


@kernel(
    spec.layer_norm_gradient,
    "cpu/native-rows",
    rank=50,
    formats=FORMATS,
    contiguous=True,
    where=beside((0, 1, 2), (3, 4)),
)
def layer_norm_gradient(g: Array, x: Array, weight: Present, mean: Array, rstd: Array) -> tuple[Array, Array, Array]:
    run = native.module().row_norm_gradient
    dx, dweight, dbias = run(as_rows(g), as_rows(x), weight, wide(mean).reshape(-1), wide(rstd).reshape(-1))
    return dx.reshape(x.shape), dweight, dbias


@kernel(spec.rms_norm, "cpu/native-rows", rank=50, formats=FORMATS, contiguous=True)
def rms_norm(x: Array, weight: Present, *, eps: float) -> tuple[Array, Array]:
    y, rstd = native.module().row_norm(as_rows(x), weight, None, eps, False)
    return y.reshape(x.shape), rstd.reshape(x.shape[:-1])


@kernel(
    spec.rms_norm_gradient, "cpu/native-rows", rank=50, formats=FORMATS, contiguous=True, where=beside((0, 1, 2), (3,))
)
def rms_norm_gradient(g: Array, x: Array, weight: Present, rstd: Array) -> tuple[Array, Array]:
    dx, dweight = native.module().row_norm_gradient(as_rows(g), as_rows(x), weight, None, wide(rstd).reshape(-1))
    return dx.reshape(x.shape), dweight


@kernel(spec.batch_norm, "cpu/native-channels", rank=50, formats=FORMATS, contiguous=True)
def batch_norm(x: Array, weight: Present, bias: Present, *, eps: float) -> tuple[Array, Array, Array]:
    y, mean, rstd = native.module().batch_norm(x, weight, bias, eps)
    return y, mean, rstd


@kernel(
    spec.batch_norm_gradient,
    "cpu/native-channels",
    rank=50,
    formats=FORMATS,
    contiguous=True,
    where=beside((0, 1, 2), (3, 4)),
)
def batch_norm_gradient(g: Array, x: Array, weight: Present, mean: Array, rstd: Array) -> tuple[Array, Array, Array]:
    dx, dweight, dbias = native.module().batch_norm_gradient(g, x, weight, wide(mean), wide(rstd))
    return dx, dweight, dbias
