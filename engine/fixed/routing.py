"""The way from an op on fixed-point tensors to its implementation in integers, and into the graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ulpgrad.autograd import is_grad_enabled
from ulpgrad.differentiable import Primitive
from ulpgrad.errors import FormatError
from ulpgrad.fixed import rules
from ulpgrad.fixed.gradient import Real, estimator_of, record
from ulpgrad.fixed.run import Outcome
from ulpgrad.formats import Fixed
from ulpgrad.tensor import Tensor


@dataclass(frozen=True)
class Implementation:
    """An op in integers: `run(name, rule, *tensors, **params)`, and the function that its gradient is that of, where it is
    not the op itself."""

    run: Callable[..., Outcome]
    real: Callable[..., Tensor] | None = None


F = TypeVar("F", bound=Callable[..., Outcome])
IMPLEMENTED: dict[str, Implementation] = {}


def implements(*names: str, real: Callable[..., Tensor] | None = None) -> Callable[[F], F]:
    """Enter the decorated function as the implementation of ops."""

    def enter(function: F) -> F:
        for name in names:
            IMPLEMENTED[name] = Implementation(function, real)
        return function

    return enter


def is_fixed(t: Tensor) -> bool:
    return t.dtype.kind == "fixed"


def operands(name: str, *tensors: Tensor | None) -> list[Fixed]:
    """The formats of operands that all must be fixed-point; FormatError otherwise."""
    found: list[Fixed] = []
    for t in tensors:
        if t is None:
            continue
        if not isinstance(t.dtype, Fixed):
            names = " and ".join(dict.fromkeys(t.dtype.name for t in tensors if t is not None))
            raise FormatError(
                f"{name}: operands in {names}: fixed point does not mix with other formats by itself; convert one with "
                ".to(format)"
            )
        found.append(t.dtype)
    return found


def arithmetic(primitive: Primitive, tensors: Sequence[Tensor | None], params: dict[str, Any]) -> tuple[Tensor, ...]:
    """What a Primitive calls for operands of which at least one is fixed-point."""
    name = primitive.op.name
    found = IMPLEMENTED.get(name)
    if found is None:
        names = ", ".join(dict.fromkeys(t.dtype.name for t in tensors if t is not None))
        raise FormatError(
            f"{name} has no fixed-point arithmetic ({names}): convert with .to(float32), compute, and convert back"
        )
    if primitive.op.check is not None:
        primitive.op.check(*(None if t is None else t.storage for t in tensors), **params)
    real: Real = functools.partial(_plain, primitive, params) if found.real is None else functools.partial(
        found.real, **params)  # fmt: skip
    return (carried_out(name, functools.partial(found.run, **params), real, tensors),)


def carried_out(name: str, run: Callable[..., Outcome], real: Real, tensors: Sequence[Tensor | None]) -> Tensor:
    """run(name, rule, *tensors) under the current rule, recorded where an operand needs a gradient: that of `real`."""
    rule = rules.current()
    recorded = is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    if recorded and estimator_of(rule) == "clipped":
        rule = replace(rule, watch=True)
    outcome = run(name, rule, *tensors)
    if recorded:
        record(name, real, tensors, outcome, rule)
    return outcome.tensor


def _plain(primitive: Primitive, params: dict[str, Any], *tensors: Tensor | None) -> Tensor:
    """The ordinary op on real values, whatever policy is active."""
    return primitive.plain(tensors, params)[0]
