"""Rows of a table by index. The gradient adds rows where they came from; its own gradient is the look-up again."""

from __future__ import annotations

from typing import Any

from ulpgrad.differentiable import Primitive
from ulpgrad.kernels.embedding import spec
from ulpgrad.ops.common import as_tensor
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = ["embedding"]

_embedding: Primitive = Primitive(
    spec.embedding,
    "weight indices",
    gradients={
        "weight": lambda g, indices, weight_shape: _embedding_gradient(g, indices, rows=weight_shape[0]),
    },
)
_embedding_gradient: Primitive = Primitive(
    spec.embedding_gradient, "g0 indices", gradients={"g0": lambda g, indices: _embedding(g, indices)}
)


@remembered
def embedding(indices: Any, weight: Any, /) -> Tensor:
    """weight[indices]: indices (...) of an integer format, weight (rows, width) -> (..., width).

    Raises ArgumentError for an index below 0 or beyond the last row.
    """
    out: Tensor = _embedding(as_tensor(weight), as_tensor(indices))
    return out
