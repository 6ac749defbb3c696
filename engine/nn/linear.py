"""Dense layers and tables."""

from __future__ import annotations

import math
from typing import Any

from ulpgrad.nn import init
from ulpgrad.nn.module import Module
from ulpgrad.nn.parameter import Parameter
from ulpgrad.ops import copy, embedding, empty, linear, prepack, reshape
from ulpgrad.ops.manipulation import flatten
from ulpgrad.tensor import Tensor


def fan_in_uniform(parameter: Parameter, fan_in: int) -> None:
    """Uniform within 1 / sqrt(fan in): torch's start for weights and biases of Linear and Conv2d."""
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    init.uniform_(parameter, -bound, bound)


class Linear(Module):
    """x @ weight.T + bias: (..., in_features) -> (..., out_features); weight (out, in), bias (out,).

    Called with the name of an activation too, or with a residual to be added, it does that in the same kernel. See
    `ulpgrad.linear`.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype: Any = None) -> None:
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(empty((out_features, in_features), dtype=dtype))
        self.bias = Parameter(empty(out_features, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values, from ulpgrad.random's default generator."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5.0))  # within 1 / sqrt(fan in)
        if self.bias is not None:
            fan_in_uniform(self.bias, self.in_features)

    def forward(self, x: Any, activation: str | None = None, *, residual: Tensor | None = None) -> Tensor:
        return linear(x, self.weight, self.bias, activation, residual=residual)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class PackedLinear(Module):
    """A Linear layer for inference, as it was when this was made: its weight is packed for the kernels once, not at each call.

    It has no parameters. See `ulpgrad.prepack` for when that pays.
    """

    def __init__(self, layer: Linear) -> None:
        self.weight = prepack(layer.weight)
        self.bias = None if layer.bias is None else copy(layer.bias.detach())

    def forward(self, x: Any, activation: str | None = None, *, residual: Tensor | None = None) -> Tensor:
        return linear(x, self.weight, self.bias, activation, residual=residual)

    def extra_repr(self) -> str:
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}, bias={self.bias is not None}"


class Embedding(Module):
    """A table of vectors: indices (...) -> (..., embedding_dim); starts normal, as in torch."""

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: Any = None) -> None:
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = Parameter(empty((num_embeddings, embedding_dim), dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.normal_(self.weight)

    def forward(self, indices: Any) -> Tensor:
        return embedding(indices, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class Flatten(Module):
    """Axes from `start_dim` to `end_dim` as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        if self.start_dim == 1 and self.end_dim == -1 and x.ndim > 1 and x.size:
            return reshape(x, (x.shape[0], -1))
        return flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
