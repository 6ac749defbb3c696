"""`ulpgrad.profile`: where the time of a block of code goes, kernel by kernel."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ulpgrad import dispatch
from ulpgrad.formats import Format
from ulpgrad.kernels.registry import Rung
from ulpgrad.kernels.spec import Op

MOST_SHOWN = 4  # operands of a call in a line


class Timed(NamedTuple):
    """One kernel call.

    `operands`: format and shape of each. `seconds`: its own, those of calls that it made apart. `flops`, `bytes`, `written`:
    what its op says that it takes; `counted`: the formats that it computes in.
    """

    op: Op
    rung: Rung
    operands: tuple[str, ...]
    seconds: float
    flops: float
    bytes: float
    written: float
    counted: tuple[Format, ...]


class Kind(NamedTuple):
    """All calls of a profile with the same op, rung and operands."""

    calls: tuple[Timed, ...]

    @property
    def first(self) -> Timed:
        return self.calls[0]

    @property
    def seconds(self) -> float:
        return sum(call.seconds for call in self.calls)


@dataclass
class Profile:
    """What `ulpgrad.profile` found. `calls`: every kernel call in its order; `seconds`: the time of the whole block."""

    calls: list[Timed] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def in_kernels(self) -> float:
        """Seconds in kernels; what the block took beyond them is Python, and whatever else is in it."""
        return sum(call.seconds for call in self.calls)

    def kinds(self) -> list[Kind]:
        """Calls that are alike, together, those that took longest first."""
        found: dict[Any, list[Timed]] = {}
        for call in self.calls:
            found.setdefault((call.op, call.rung.name, call.operands), []).append(call)
        return sorted((Kind(tuple(calls)) for calls in found.values()), key=lambda kind: -kind.seconds)

    def __str__(self) -> str:
        lines = [("op", "kernel", "calls", "time", "share", "GFLOP/s", "GB/s", "operands")]
        for kind in self.kinds():
            flops, moved = (sum(getattr(c, what) for c in kind.calls) for what in ("flops", "bytes"))
            lines.append((
                kind.first.op.name, kind.first.rung.name, f"{len(kind.calls)}", f"{kind.seconds * 1e6:.1f} us",
                f"{_part(kind.seconds, self.seconds):.1%}", f"{_part(flops, kind.seconds) / 1e9:.3g}" if flops else "",
                f"{_part(moved, kind.seconds) / 1e9:.3g}", _shown(kind.first.operands),
            ))  # fmt: skip
        return f"{_aligned(lines)}\n{self.summary()}"

    def summary(self) -> str:
        """Kernels, and what is between them, in a sentence."""
        return (
            f"{self.seconds * 1e6:.1f} us, of which {self.in_kernels * 1e6:.1f} us "
            f"({_part(self.in_kernels, self.seconds):.1%}) in {len(self.calls)} kernel calls."
        )


@contextlib.contextmanager
def profile() -> Iterator[Profile]:
    """Time every kernel call inside the block, in this thread:

        with ug.profile() as found:
            step()
        print(found)                    # a line for each op, rung and shape
        found.kinds()[0].seconds        # of the one that takes longest

    Calls go one by one through dispatch, without the short road that remembers them, so small ones have more Python between
    them than without a profile. On a GPU each kernel is waited for. Run the block once before: a first call may compile.
    """
    found = Profile()
    open_calls: list[tuple[float, float]] = []  # beginning and length of calls whose caller has not ended yet

    def heard(plan: dispatch.Plan, call: dispatch.Call, out: Any, start: float, end: float) -> None:
        inner = 0.0
        while open_calls and open_calls[-1][0] >= start:
            inner += open_calls.pop()[1]
        open_calls.append((start, end - start))
        found.calls.append(_timed(plan, call, out, end - start - inner))

    start = time.perf_counter()
    try:
        with dispatch.timed(heard):
            yield found
    finally:
        found.seconds = time.perf_counter() - start


def _timed(plan: dispatch.Plan, call: dispatch.Call, out: Any, seconds: float) -> Timed:
    op, formats, arrays, params = call
    results = out if isinstance(out, tuple) else (out,)
    operands = tuple(
        f"{form or 'index'}{list(a.shape)}".replace(" ", "")
        for form, a in zip(formats, arrays, strict=True) if a is not None
    )  # fmt: skip
    shapes = [
        None if a is None else np.broadcast_to(np.float64(0), a.shape) for a in arrays
    ]  # also of what lies on a GPU
    counted = tuple(f for f in (*formats, *plan.formats) if f is not None)
    return Timed(
        op, plan.rung, operands, seconds, float(op.flops(*shapes, **params)), op.moved_bytes(arrays, results, params),
        float(sum(a.nbytes for a in results if a is not None)), counted,
    )  # fmt: skip


def _shown(operands: Sequence[str]) -> str:
    more = len(operands) - MOST_SHOWN
    return " ".join(operands) if more <= 1 else f"{' '.join(operands[:MOST_SHOWN])} and {more} more"


def _part(one: float, whole: float) -> float:
    return one / whole if whole else 0.0


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    figures = range(2, len(widths) - 1)
    return "\n".join(
        "  ".join(cell.rjust(w) if i in figures else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        .rstrip()
        for line in lines
    )  # fmt: skip


__all__ = ["Kind", "Profile", "Timed", "profile"]
