"""Why a call runs on the kernel it runs on: every rung's verdict, highest first."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError, AxisError, FormatError, ShapeError, UlpgradError
from ulpgrad.formats import Format, as_format
from ulpgrad.kernels import registry
from ulpgrad.kernels.registry import Choice, Request
from ulpgrad.kernels.spec import Op
from ulpgrad.tensor import Tensor


@dataclass(frozen=True)
class Explanation:
    """The verdicts on one call. `taken` names the rung that runs it; printing it shows a table."""

    op: Op
    formats: tuple[Format | None, ...]
    shapes: tuple[tuple[int, ...] | None, ...]
    params: Mapping[str, Any]
    choices: tuple[Choice, ...]

    @property
    def taken(self) -> str:
        """Name of the rung that runs the call."""
        return next(c.rung.name for c in self.choices if c.taken)

    @property
    def call(self) -> str:
        """The call in one line."""
        operands = [
            "None" if s is None else f"{f}[{', '.join(map(str, s))}]"
            for f, s in zip(self.formats, self.shapes, strict=True)
        ]
        return f"{self.op.name}({', '.join([*operands, *(f'{k}={v}' for k, v in self.params.items())])})"

    def rows(self) -> list[tuple[str, str, str]]:
        """(mark, rung, verdict) of each rung, highest first."""
        return [("->" if c.taken else "", c.rung.name, verdict(c)) for c in self.choices]

    def __str__(self) -> str:
        rows = self.rows()
        wide = max(len(name) for _, name, _ in rows)
        return "\n".join([self.call, *(f"  {mark:<2} {name:<{wide}}  {text}" for mark, name, text in rows)])

    __repr__ = __str__


def verdict(choice: Choice) -> str:
    """One rung's answer in words."""
    if choice.refusal is not None:
        return choice.refusal
    wide = ", after 16-bit floats are widened to float32" if choice.widened else ""
    return f"taken{wide}" if choice.taken else f"would take it{wide}"


def explain(op: str, *operands: Any, **params: Any) -> Explanation:
    """Which rung a call takes, and why those above it were refused; nothing is computed.

    `op` names an op of the registry (`ulpgrad.kernels.registry.ops()`); operands are tensors, arrays or None. Parameters
    that are left out are those of the function of that name, else of the op's first fitting sample. Raises what the call
    itself would raise.
    """
    found = registry.find(op)
    tensors = [_operand(found, x) for x in operands]
    arrays = tuple(None if t is None else t.storage for t in tensors)
    formats = tuple(None if t is None else t.dtype for t in tensors)
    return explain_call(found, formats, arrays, params)


def explain_call(
    op: Op, formats: tuple[Format | None, ...], arrays: tuple[Any, ...], params: Mapping[str, Any]
) -> Explanation:
    """`explain` for stored arrays."""
    arrays, formats = _absent(op, arrays), _absent(op, formats)
    filled = complete(op, arrays, params)
    op.takes(formats)
    common = dispatch._promoted(op, formats)
    pinned = dispatch._pins.get().get(op.name)
    request = Request(op, dispatch.device_type(arrays), common, arrays, filled)
    choices = tuple(registry.explain(request, pinned))
    if not any(c.taken for c in choices):
        registry.select(request, pinned)  # raises, with every reason
    shapes = tuple(None if a is None else tuple(a.shape) for a in arrays)
    return Explanation(op, formats, shapes, filled, choices)


def complete(op: Op, arrays: Sequence[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a call, in the form kernels take: axes not negative, one size for a pair made a pair.

    Raises ArgumentError for a parameter that the op does not have, else what the op's check raises.
    """
    names = [p.name for p in inspect.signature(op.samples and _first_check(op)).parameters.values()
             if p.kind is inspect.Parameter.KEYWORD_ONLY]  # fmt: skip
    raise NotImplementedError
