"""Calls of a row: several sets of operands in turn, so that none lies in a cache; and made when they are first asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

SETS = 3  # of operands


def in_turn(make: Callable[[int], Callable[[], Any]], sets: int = SETS) -> Callable[[], Any]:
    """A call that goes through several sets of operands."""
    calls = itertools.cycle([make(s) for s in range(sets)])
    return lambda: next(calls)()


def at_first(make: Callable[[], Callable[[], Any]]) -> Callable[[], Any]:
    """A call that is made when it is first asked for: what a library refuses to make costs the row no more than that peer."""
    made = cache(make)
    return lambda: made()()


__all__ = ["SETS", "at_first", "in_turn"]
