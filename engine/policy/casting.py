"""`autocast` chooses the format each op computes in, by a table of op names.

While a block is active, dispatch passes every op's operands through it; at other times nothing is looked at.
Source: Micikevicius et al., "Mixed precision training", ICLR 2018.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ulpgrad import autograd, dispatch
from ulpgrad.errors import FormatError
from ulpgrad.formats import Format, as_format, bfloat16, float32, float64
from ulpgrad.ops.creation import astype
from ulpgrad.policy import watching
from ulpgrad.policy.tables import LOW, WIDE
from ulpgrad.tensor import Tensor

if TYPE_CHECKING:
    from ulpgrad.policy.network import Policy


class autocast(contextlib.ContextDecorator):
    """Compute products in a narrow format, and what is delicate in float32.

        with ug.autocast(ug.bfloat16):
            loss = ug.cross_entropy(model(x), y)
        loss.backward()

    In a 16-bit float, matmul, linear, conv2d and attention take and give `format`; reductions, norms, softmax and losses take
    and give float32; everything else follows its operands. Ops with a float64 operand are left alone. A parameter is
    converted once per block, or again after it is written to.

    In a narrower float, fixed point or a block format ("float8_e4m3fn", "mxfp8_e4m3"), operands of these products, and the
    gradients that enter their backward, are rounded to the format, saturating; sums are float32, and so are results, or
    `output`. Blocks lie along the axis that a product sums over. There are no scales but those of blocks: gradients of 8-bit
    floats vanish without a GradScaler; see `ulpgrad.policy.DelayedScaling`.

    Backward computes in the formats of forward, wherever it is called. Blocks nest; `enabled=False` switches the policy off
    inside another's. Holds for this thread (context) only. Raises FormatError for other formats, and for `output` beside a
    16-bit float.
    """

    def __init__(self, format: Any = bfloat16, enabled: bool = True, output: Any = None) -> None:
        self.format: Format = as_format(format)
        self.output: Format | None = None if output is None else as_format(output)
        sixteen = self.format.kind == "float" and self.format.bits == 16
        narrow = self.format.kind in ("float", "fixed", "block") and self.format.bits < 16
        if not sixteen and not narrow:
            raise FormatError(
                f"autocast: expected bfloat16 or float16, a narrower float, fixed point or a block format, got {self.format.name}"
            )
        if sixteen and self.output is not None:
            raise FormatError(
                f"autocast: products in {self.format.name} give {self.format.name}: output={self.output.name}"
            )
        self.enabled = enabled
        self.policy: Policy | None = None
        if narrow:
            from ulpgrad.policy.network import Policy

            form = self.format
            self.policy = Policy(
                weight=form, activation=form, gradient=form, bias=None, everywhere=False, output=output, enabled=enabled
            )
        self._cache: dict[int, tuple[Tensor, int, Tensor]] = {}
        self._tokens: list[Any] = []

    def _recreate_cm(self) -> autocast:
        return autocast(self.format, self.enabled, self.output)  # calls of a decorated function may overlap, in threads

    def __enter__(self) -> autocast:
        if self.policy is not None:
            self.policy.__enter__()
            return self
        tokens = dispatch.operand_policy, dispatch.call_policy
        chosen = self._operands if self.enabled else None
        self._tokens.append((tokens[0].set(chosen), tokens[1].set(watching.current())))
        dispatch.state.count(policies=1)
        return self

    def __exit__(self, *_: object) -> None:
        if self.policy is not None:
            self.policy.__exit__(*_)
            return
        dispatch.state.count(policies=-1)
        operand, call = self._tokens.pop()
        dispatch.operand_policy.reset(operand)
        dispatch.call_policy.reset(call)
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
