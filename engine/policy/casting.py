"""`autocast` chooses the format each op computes in, by a table of op names.

While a block is active, dispatch passes every op's operands through it; at other times nothing is looked at.
Source: Micikevicius et al., "Mixed precision training", ICLR 2018.
"""

from __future__ import annotations

import contextlib
from typing import Any

from ulpgrad import autograd, dispatch
from ulpgrad.errors import FormatError
from ulpgrad.formats import Format, as_format, bfloat16, float32, float64
from ulpgrad.ops.creation import astype
from ulpgrad.policy.tables import LOW, WIDE
from ulpgrad.tensor import Tensor


class autocast(contextlib.ContextDecorator):
    """Compute products in a 16-bit format, and what is delicate in float32.

        with ug.autocast(ug.bfloat16):
            loss = ug.cross_entropy(model(x), y)
        loss.backward()

    matmul, linear, conv2d and attention take and give `format`; reductions, norms, softmax and losses take and give
    float32; everything else follows its operands. Ops with a float64 operand are left alone. Backward computes in the
    formats of forward, wherever it is called. A parameter is converted once per block, or again after it is written to.
    Blocks nest; `enabled=False` switches the policy off inside another's. Holds for this thread (context) only.
    Raises FormatError unless `format` is a 16-bit float.
    """

    def __init__(self, format: Any = bfloat16, enabled: bool = True) -> None:
        self.format: Format = as_format(format)
        if self.format.kind != "float" or self.format.bits != 16:
            raise FormatError(f"autocast: expected bfloat16 or float16, got {self.format.name}")
        self.enabled = enabled
        self._cache: dict[int, tuple[Tensor, int, Tensor]] = {}
        self._tokens: list[Any] = []

    def _recreate_cm(self) -> autocast:
        return autocast(self.format, self.enabled)  # calls of a decorated function may overlap, in several threads

    def __enter__(self) -> autocast:
        self._tokens.append(dispatch.operand_policy.set(self._operands if self.enabled else None))
        dispatch.state.count(policies=1)
        return self

    def __exit__(self, *_: object) -> None:
        dispatch.state.count(policies=-1)
        dispatch.operand_policy.reset(self._tokens.pop())
        if not self._tokens:
            self._cache.clear()

    def _operands(self, name: str, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
        target = self.format if name in LOW else float32 if name in WIDE else None
        if target is None or autograd.is_in_backward() or any(t is not None and t.dtype is float64 for t in tensors):
            return tensors
        return tuple(t if t is None or t.dtype.kind != "float" else self._as(t, target) for t in tensors)

    def _as(self, t: Tensor, target: Format) -> Tensor:
        """A tensor in a format; of a parameter in the low format, the same one as long as it is good."""
        if t.dtype is target or target is not self.format or not (t.requires_grad and t.is_leaf):
            return astype(t, target, copy=False)
        version = t._version_cell()[0]
        known = self._cache.get(id(t))
        if known is not None and known[1] == version and self._serves(known[2]):
            return known[2]
        cast = astype(t, self.format)
        self._cache[id(t)] = t, version, cast
        return cast

    @staticmethod
    def _serves(cast: Tensor) -> bool:
        """Whether a cast made earlier records gradients if and only if they are recorded now, in a graph still there."""
        if not autograd.is_grad_enabled():
            return not cast.requires_grad
        return cast._node is not None and not cast._node[0].freed


__all__ = ["autocast"]
