"""One Philox block in each vector lane, sixteen at a time: ten rounds stay in registers and the words are written once.

Next limit: normal values spend two thirds of their time on the logarithm and the two angles, in float64.
"""

from __future__ import annotations

from ulpgrad.formats import Array, Float, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.cast.convert import convert
from ulpgrad.kernels.random import spec
from ulpgrad.kernels.random.philox import LOW64, threshold, uniform_bits
from ulpgrad.kernels.registry import kernel


@kernel(spec.random_bits, "cpu/native-lanes", rank=50, formats=[])
def random_bits(*, key: int, counter: int, size: int) -> Array:
    out: Array = native.module().random_bits(key, counter & LOW64, counter >> 64, size)
    return out


@kernel(spec.random_uniform, "cpu/native-lanes", rank=50, formats=[])
def random_uniform(*, key: int, counter: int, size: int, dtype: Float) -> Array:
    out: Array = native.module().random_uniform(key, counter & LOW64, counter >> 64, size, uniform_bits(dtype))
    return convert(out, float32, dtype) if dtype.bits < 32 else out


@kernel(spec.random_normal, "cpu/native-lanes", rank=50, formats=[])
def random_normal(*, key: int, counter: int, size: int, dtype: Float) -> Array:
    out: Array = native.module().random_normal(key, counter & LOW64, counter >> 64, size, dtype is float64)
    return convert(out, float32, dtype) if dtype.bits < 32 else out


@kernel(spec.random_permutation, "cpu/native-lanes", rank=50, formats=[])
def random_permutation(*, key: int, counter: int, size: int) -> Array:
    out: Array = native.module().random_permutation(key, counter & LOW64, counter >> 64, size)
    return out


@kernel(spec.dropout, "cpu/native-lanes", rank=50, formats=[float16, bfloat16, float32, float64], contiguous=True)
def dropout(x: Array, *, p: float, key: int, counter: int) -> Array:
    scale = spec.scale(p)
    out: Array = native.module().dropout(x, key, counter & LOW64, counter >> 64, threshold(p), scale)
    return out
