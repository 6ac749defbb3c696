"""Runs a kernel's PTX on the host: all threads of some blocks at a time, each instruction for all that stand at it.

Threads that stand at the earliest block of instructions go first, so that those which went different ways come together again.
Who waits (at a barrier, for a copy) is left out until what he waits for is there; when nobody can go on, the kernel is stuck, and
that is an error. Written after the PTX ISA; what a card would stop for is a KernelError that names the instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ulpgrad.errors import KernelError
from ulpgrad.kernels.ptx.beside import chosen
from ulpgrad.kernels.ptx.compiled import STUCK, Compiled
from ulpgrad.kernels.ptx.memory import Fault, Global
from ulpgrad.kernels.ptx.threads import ENDED, Group, Threads

TOGETHER = 2048  # threads that are run at once, at the most, unless a block has more


class Machine(Threads):
    """Threads that take turns."""

    def run(self) -> None:
        functions, ends, together = self.compiled.functions, self.compiled.ends, self.compiled.together
        everyone = np.arange(self.lanes)
        whole = Group(everyone, True)
        while True:
            ready = (self.at >= 0) & ~self.waiting
            group = None
            if ready.any():
                group = self._next(ready, whole, together)
            if group is None:
                if not (self.at >= 0).any():
                    break
                self._wake()
                continue
            now = int(self.at[group.lanes[0]])
            try:
                found = functions[now](self, group)
            except Fault as fault:
                raise KernelError(f"{self.compiled.program.name}: {fault}") from None
            if found is STUCK:
                continue
            if self.counts is not None:
                warps = len(np.unique(group.lanes // 32))
                for name, count in self.compiled.names[now].items():
                    self.counts.instructions[name] += count * warps
            self._go(ends[now], found, group)
        with self.within_lanes(0, everyone):
            self.bulk.finish()

    def _next(self, ready: Any, whole: Group, together: list[bool]) -> Group | None:
        """Threads at the earliest place where some can go on: of warps whose other threads are yet to come, none."""
        at = np.where(ready, self.at, np.iinfo(np.int64).max)
        while True:
            first = at.min()
            if first == np.iinfo(np.int64).max:
                return None
            here = at == first
            if together[int(first)]:
                warps = here.reshape(-1, 32)
                alive = (self.at >= 0).reshape(-1, 32)
                complete = np.repeat((warps == alive).all(1) & alive.all(1), 32)
                if not (here & complete).any():
                    if (here & np.repeat(~alive.all(1), 32)).any() and (warps == alive).all(1)[warps.any(1)].all():
                        complete = here  # threads of the warp have ended: what they would give is their last
                    else:
                        at = np.where(here, np.iinfo(np.int64).max, at)
                        continue
                here &= complete
            lanes = np.flatnonzero(here)
            return whole if len(lanes) == self.lanes else Group(lanes, False)

    def _wake(self) -> None:
        """Nobody can go on: let those who wait for a phase look again, and if it is no use, bring a copy."""
        if self.waiting.any():
            waiting = self.waiting & ~self._at_barriers()
            progress = False
            for place in np.unique(self.at[waiting]):
                lanes = np.flatnonzero(waiting & (self.at == place))
                progress |= self._look(int(place), lanes)
            if progress or self.bulk.arrive_one():
                return
        stuck = np.flatnonzero(self.at >= 0)
        at = np.where(self._at_barriers(), self.at - 1, self.at)[stuck]  # the barrier ends the block before
        places = {int(n): int((at == n).sum()) for n in np.unique(at)}
        told = "; ".join(f"{count} threads at: {self._first(n)}" for n, count in places.items())
        raise KernelError(f"{self.compiled.program.name}: no thread can go on, each waits for another: {told}")

    def _look(self, place: int, lanes: Any) -> bool:
        """Whether threads that wait for a phase would go on, and if so have them run."""
        before = self.waiting[lanes].copy()
        self.waiting[lanes] = False
        group = Group(lanes, len(lanes) == self.lanes)
        found = self.compiled.functions[place](self, group)
        if found is STUCK:
            return bool((self.waiting[lanes] != before).any())
        self._go(self.compiled.ends[place], found, group)
        return True

    def _first(self, block: int) -> str:
        end = self.compiled.ends[block]
        return str(end[1].text if end[0] == "bar" else self.compiled.stops[block])

    def _at_barriers(self) -> Any:
        found = np.zeros(self.lanes, bool)
        for groups in self.arrivals.values():
            for lanes, _ in groups:
                found[lanes] = True
        return found

    def _go(self, end: tuple[Any, ...], found: Any, c: Group) -> None:
        match end[0]:
            case "go":
                self.at[c.lanes] = end[1]
            case "branch":
                self.at[c.lanes] = np.where(found, end[1], end[2])
            case "table":
                if np.any(found >= len(end[1])):
                    raise KernelError(
                        f"{self.compiled.program.name}: jumps behind its table of {len(end[1])} labels in: {end[2]}"
                    )
                self.at[c.lanes] = np.asarray(end[1])[found.astype(np.int64)]
            case "end":
                self.at[c.lanes] = np.where(found, ENDED, end[2]) if end[1] else ENDED
                self._release()
            case "trap":
                if not end[1] or np.any(found):
                    raise KernelError(f"{self.compiled.program.name}: stops itself (trap)")
                self.at[c.lanes] = end[2]
            case "bar":
                self._arrive(end, found, c)

    def _arrive(self, end: tuple[Any, ...], found: Any, c: Group) -> None:
        instruction, after, (numbers, where) = end[1], end[2], found
        if where is not None:  # the others go on
            self.at[c.lanes] = after
            c = Group(c.lanes[chosen(c, where)], False)
            numbers = [n if np.ndim(n) == 0 else n[np.flatnonzero(where)] for n in numbers]
        arrives_only = "arrive" in instruction.op
        warp_only = "warp" in instruction.op
        if warp_only:
            self.at[c.lanes] = after
            return
        which = self.full(numbers[0], c)
        count = int(np.ravel(numbers[1])[0]) if len(numbers) > 1 else 0
        self.at[c.lanes] = after
        for n in np.unique(which):
            for owner in np.unique(self.owner[c.lanes]):
                lanes = c.lanes[(which == n) & (self.owner[c.lanes] == owner)]
                self.arrivals.setdefault((int(owner), int(n)), []).append((lanes, count))
                if not arrives_only:
                    self.waiting[lanes] = True
        self._release()

    def _release(self) -> None:
        """Open barriers at which all are that it waits for."""
        for (owner, number), groups in list(self.arrivals.items()):
            here = sum(len(lanes) for lanes, _ in groups)
            asked = groups[0][1] or int(((self.at >= 0) & (self.owner == owner)).sum())
            if here >= asked:
                for lanes, _ in groups:
                    self.waiting[lanes] = False
                self.phases[owner] += 1
                del self.arrivals[owner, number]


def run(
    compiled: Compiled,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    parameters: bytes,
    dynamic: int,
    spans: Sequence[tuple[int, int, str]],
) -> None:
    """Run a kernel on `grid` blocks of `block` threads. `parameters`: its parameters as they lie in memory; `dynamic`: bytes of
    dynamic shared memory; `spans`: address, bytes and name of the arrays that it may touch."""
    memory = Global([*spans, *compiled.variables])
    count = grid[0] * grid[1] * grid[2]
    threads = block[0] * block[1] * block[2]
    each = max(1, TOGETHER // threads)
    with np.errstate(all="ignore"):
        for first in range(0, count, each):
            numbers = np.arange(first, min(first + each, count))
            ids = np.stack([numbers % grid[0], numbers // grid[0] % grid[1], numbers // (grid[0] * grid[1])], 1)
            Machine(compiled, memory, parameters, ids, grid, block, dynamic).run()


__all__ = ["Compiled", "Machine", "run"]
