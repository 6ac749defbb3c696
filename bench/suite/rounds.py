"""Rounds of a run: each goes through every cell in a process of its own, so that a row meets the machine in several moods.

What one process has by chance (where its memory lies, what ran beside it) is in all its samples, and would be taken for the
code's. Rounds show how much that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from ulpgrad.bench.suite.record import ABOVE, Limit, Row

Number = TypeVar("Number", int, float)


def taken(rows: Iterable[Row]) -> int:
    """How many rounds the rows of a cell have behind them."""
    return max((len(row.time.rounds) for row in rows if row.time is not None), default=0)


def joined(earlier: Sequence[Row], later: Sequence[Row]) -> list[Row]:
    """The rows of a cell after one more round. Whoever failed in one has failed."""
    found = {(row.contender, row.rung): row for row in earlier}
    for row in later:
        key = row.contender, row.rung
        found[key] = _both(found[key], row) if key in found else row
    return list(found.values())


def _both(a: Row, b: Row) -> Row:
    if a.time is None:
        return a
    if b.time is None or b.limit is None or a.limit is None:
        return replace(a, time=None, state=b.state, reason=b.reason)
    limit = Limit(_largest(a.limit.flops, b.limit.flops), _largest(a.limit.bytes, b.limit.bytes))
    row = replace(
        a, time=a.time.joined(b.time), limit=limit, memory=_largest(a.memory, b.memory), energy=_mean(a, b),
        error=a.error or b.error, range=a.range or b.range,
    )  # fmt: skip
    return judged(row)


def judged(row: Row) -> Row:
    """A row with its share of the limit; one above it is an error of the benchmark."""
    assert row.time is not None
    assert row.limit is not None
    by_arithmetic = (row.flops or 0.0) / row.limit.flops if row.limit.flops else 0.0
    by_memory = (row.bytes or 0.0) / row.limit.bytes if row.limit.bytes else 0.0
    share = max(by_arithmetic, by_memory) / row.time.median
    made = replace(row, share=share, bound="arithmetic" if by_arithmetic > by_memory else "memory")
    if share <= ABOVE:
        return replace(made, state="measured", reason="")
    return replace(made, state="failed", reason=(
        f"{share:.2f} of the measured limit: an error of the benchmark, not a rate; the limit was disturbed, or the "
        "call does less than its op says"))  # fmt: skip


def _largest(a: Number | None, b: Number | None) -> Number | None:
    return max((x for x in (a, b) if x is not None), default=None)


def _mean(a: Row, b: Row) -> float | None:
    """Joules of a call, over the samples of both."""
    if a.energy is None or b.energy is None or a.time is None or b.time is None:
        return a.energy
    n, m = len(a.time.samples), len(b.time.samples)
    return (n * a.energy + m * b.energy) / (n + m)


__all__ = ["joined", "judged", "taken"]
