"""C++: two sweeps per row, maximum and sum of exponentials, with exp on vectors; the softmax is never stored.

Next limit: reading the logits from memory, once forward; backward a read and a write.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import INTEGERS, Array, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.cross_entropy import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.statistics import beside, wide

FORMATS = [float16, bfloat16, float32, float64, *INTEGERS]


def _classes(name: str, target: Array, classes: int, ignore_index: int | None) -> Array:
    """Targets as int64."""
    if target.dtype == np.uint64:
        spec.validate(name, target, classes, ignore_index)  # before values above 2^63 wrap
    return target if target.dtype == np.int64 else target.astype(np.int64)


@kernel(spec.cross_entropy, "cpu/native-rows", rank=50, formats=FORMATS, contiguous=True)
def cross_entropy(
    logits: Array, target: Array, *, ignore_index: int | None, label_smoothing: float
) -> tuple[Array, Array]:
    index = _classes("cross_entropy", target, logits.shape[1], ignore_index)
    try:
        return native.module().cross_entropy(logits, index, ignore_index, label_smoothing)
    except ValueError:
        spec.validate("cross_entropy", target, logits.shape[1], ignore_index)
        raise


@kernel(
    spec.cross_entropy_gradient,
    "cpu/native-rows",
    rank=50,
    formats=FORMATS,
    contiguous=True,
    where=beside((0, 1), (3,)),
)
def cross_entropy_gradient(
    g: Array, logits: Array, target: Array, lse: Array, *, ignore_index: int | None, label_smoothing: float
) -> Array:
    index = _classes("cross_entropy_gradient", target, logits.shape[1], ignore_index)
    try:
        return native.module().cross_entropy_gradient(g, logits, index, wide(lse), ignore_index, label_smoothing)
    except ValueError:
        spec.validate("cross_entropy_gradient", target, logits.shape[1], ignore_index)
        raise
