"""The arithmetic of fixed-point tensors: a package of its own, `ulpgrad.fixed`, imported when a first one is computed with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ulpgrad.differentiable import Primitive, arithmetic
from ulpgrad.tensor import Tensor

__all__: list[str] = []


def _in_integers(primitive: Primitive, tensors: Sequence[Tensor | None], params: dict[str, Any]) -> tuple[Tensor, ...]:
    """Hands over; the package takes this function's place when it is imported, here or by its name."""
    from ulpgrad.fixed import routing

    return routing.arithmetic(primitive, tensors, params)


arithmetic["fixed"] = _in_integers
