"""Operands from the command line: shapes, a format and parameters become a problem that can be run."""

from __future__ import annotations

import ast
import math
from typing import Any

import numpy as np

from ulpgrad.bench import shapes as standard
from ulpgrad.bench.shapes import Problem
from ulpgrad.bench.suite import cells
from ulpgrad.bench.suite.cells import Cell
from ulpgrad.errors import ArgumentError
from ulpgrad.explain import complete, with_absent
from ulpgrad.formats import Array, Format
from ulpgrad.kernels.spec import Op

WHOLE = "biu"  # NumPy's kinds of bool and integers: indices, targets and masks


def problem(op: Op, shapes: list[str], form: str | None, params: list[str], size: int | None) -> Problem:
    """The standard problem of an op, or the one that shapes describe; parameters replace the problem's own.

    Operands that are indices or masks in the op's samples are so here too.
    """
    chosen = None if form is None else cells.known(form)
    given = dict(_parameter(text) for text in params)
    if not shapes:
        fits(op, chosen, size)
        made = standard.problem(op, chosen, size)
        if not given:
            return made
        return Problem(op, made.arrays, made.formats, complete(op, made.arrays, {**made.params, **given}))
    if size is not None:
        raise ArgumentError("--size and --shape exclude each other: give one")
    sizes = with_absent(op, tuple(_shape(text) for text in shapes))
    want, free = sum(8 * math.prod(s) for s in sizes if s is not None), cells.available()
    if free is not None and want > free:
        raise ArgumentError(
            f"--shape: operands take {cells.readable(want)} in float64, {cells.readable(free)} are free"
        )
    arrays = tuple(None if s is None else _values(op, i, s) for i, s in enumerate(sizes))
    filled = complete(op, arrays, given)
    chosen = chosen or standard.default_format(op)
    op.takes([chosen])
    return standard.stored(op, arrays, chosen, filled)


def fits(op: Op, form: Format | None, size: int | None) -> None:
    """ArgumentError for a size whose problem the memory does not hold, before it is made."""
    if size is None:
        return
    why = cells.too_large(Cell(op.name, (form or standard.default_format(op)).name, size))
    if why is not None:
        raise ArgumentError(f"{op.name} --size {size}: {why}")


def _values(op: Op, position: int, shape: tuple[int, ...]) -> Array:
    """Random values in (0, 1), or zeros of the kind that the op's samples have at this place."""
    like: Any = next(
        s.arrays[position] for s in op.samples() if len(s.arrays) > position and s.arrays[position] is not None
    )
    if like.dtype.kind in WHOLE and op.promote is not True:
        return np.zeros(shape, like.dtype)
    return np.random.default_rng(position).uniform(0.01, 0.99, shape)


def _shape(text: str) -> tuple[int, ...] | None:
    if text == "-":
        return None
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(",") if part.strip())
    except ValueError:
        raise ArgumentError(f"--shape {text}: expected sizes with commas between them, such as 64,784") from None
    if any(s < 0 for s in shape):
        raise ArgumentError(f"--shape {text}: sizes must not be negative")
    return shape


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ArgumentError(f"--param {text}: expected NAME=VALUE, such as axis=1")
    try:
        return name.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name.strip(), value  # a word, such as tanh or bfloat16


__all__ = ["fits", "problem"]
