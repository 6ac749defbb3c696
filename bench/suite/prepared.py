"""Calls of other libraries that want more than the op's operands: a forward pass behind them, state, a layout of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ulpgrad.bench.shapes import Problem
from ulpgrad.formats import Array, Format

Give = Callable[[Array, Format], Any]  # a stored operand as the library's own array
Makers = dict[str, Callable[[Any, Any], "Prepared"]]  # of an op, from the library and the Task


def results(returned: Any) -> tuple[Any, ...]:
    """What a function returned, one by one."""
    return tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)


@dataclass(frozen=True)
class Prepared:
    """A call that wants more than the op's operands.

    `operands(give)` makes ready what it takes, which is not timed; `results` are the op's among what it returned, None for one
    that the library does not give. `check` is told them where no reference knows them, and raises if they cannot be right.
    """

    operands: Callable[[Give], tuple[Any, ...]]
    call: Callable[..., Any]
    results: Callable[[Any], tuple[Any, ...]] = results
    check: Callable[..., None] | None = None


def given(problem: Problem, give: Give) -> tuple[Any, ...]:
    """A problem's operands as the library's own arrays, new each time."""
    pairs = zip(problem.arrays, problem.formats, strict=True)
    return tuple(None if a is None or f is None else give(a.copy(order="K"), f) for a, f in pairs)


__all__ = ["Give", "Makers", "Prepared", "given", "results"]
