"""Gradients through fixed-point operations: those of the real-valued function at the decoded operands.

A rounded result is flat almost everywhere, so its own gradient says nothing; an estimator stands in for what rounding and
saturation do (see `ulpgrad.fixed.arithmetic`). Backward runs the ordinary differentiable operation in float32, or float64 for
words of more than 24 bits, so gradients of any order exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ulpgrad import autograd
from ulpgrad.autograd import Node, Saved, is_grad_enabled
from ulpgrad.differentiable import alias
from ulpgrad.errors import GradientError
from ulpgrad.fixed.rules import Rule
from ulpgrad.fixed.run import Outcome
from ulpgrad.formats import bool_, float32, float64, gradient_format
from ulpgrad.tensor import Tensor

Real = Callable[..., Tensor]


def estimator_of(rule: Rule) -> Any:
    """What stands in for the gradient of rounding: by default clipped, straight through where values wrap."""
    if rule.estimator is None:
        return "straight_through" if rule.overflow == "wrap" else "clipped"
    return rule.estimator


def record(name: str, real: Real, tensors: Sequence[Tensor | None], outcome: Outcome, rule: Rule) -> None:
    """Tie a result to a node, if an operand requires a gradient."""
    out = outcome.tensor
    if out.dtype.differentiable and is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        out._node = (_FixedNode(name, real, tensors, outcome, rule), 0)
        out.requires_grad = True


class _FixedNode(Node):
    """A recorded operation on fixed-point tensors."""

    def __init__(self, name: str, real: Real, tensors: Sequence[Tensor | None], outcome: Outcome, rule: Rule) -> None:
        super().__init__(name, tensors)
        self.real, self.estimator, self.form = real, estimator_of(rule), outcome.tensor.dtype
        self.outside = None if outcome.outside is None else Tensor(outcome.outside, bool_)
        self.saved: list[Saved | None] | None = [None if t is None else Saved(t) for t in tensors]
        forms = [self.form, *(t.dtype for t in tensors if t is not None and t.dtype.routed)]
        self.compute = float64 if any(gradient_format(f) is float64 for f in forms) else float32

    def vjp(self, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
        if self.saved is None:
            raise GradientError(
                f"backward of {self.name}: the graph has been freed by an earlier backward; pass retain_graph=True there"
            )
        again = is_grad_enabled()
        operands = [None if s is None else s.get(self.name) for s in self.saved]
        with autograd.enable_grad():
            inputs = [self._stand_in(t, e is not None, again) for t, e in zip(operands, self.edges, strict=True)]
            result = self.real(*inputs)
        g = self._estimated(gradients[0], result if again else result.detach())
        wanted = [t for t, edge in zip(inputs, self.edges, strict=True) if t is not None and edge is not None]
        if not result.requires_grad:
            return [None] * len(self.edges)
        found = iter(autograd.grad(result, wanted, g, create_graph=again, allow_unused=True))
        return [None if edge is None else next(found) for edge in self.edges]

    def _stand_in(self, t: Tensor | None, wanted: bool, again: bool) -> Tensor | None:
        """An operand's values, as a place in the graph of its own; with `again` one that depends on the operand."""
        if t is None:
            return None
        from ulpgrad import ops

        given = t if again and wanted else t.detach()
        real = ops.astype(given, self.compute, copy=False) if t.dtype.kind in ("fixed", "float") else given
        if not wanted:
            return real
        return alias(real) if real.requires_grad else real.detach().requires_grad_()

    def _estimated(self, given: Any, result: Tensor) -> Tensor:
        from ulpgrad import ops

        g: Tensor = ops.astype(given, self.compute, copy=False)
        if callable(self.estimator):
            out: Tensor = self.estimator(g, result, self.form)
            return out
        if self.estimator == "straight_through" or self.outside is None:
            return g
        stopped: Tensor = ops.where(self.outside, 0.0, g)
        return stopped

    def free(self) -> None:
        self.saved = None

    @property
    def freed(self) -> bool:
        return self.saved is None
