"""The memory that a kernel sees: global memory as it is on the host, shared memory of each block, memory of each thread.

Every access is held to what a card would hold it to, and to what its checking tools would: inside of an array that the launch
was given, aligned to its size, and in shared memory to bytes that somebody has written.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

SHARED, LOCAL, PARAM = 1 << 57, 1 << 58, 1 << 59  # where these spaces lie among generic addresses
TYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
ROUND = 16


class Fault(Exception):
    """What a card would stop for. `lanes`: which of the threads, as places among those that ran the instruction."""

    def __init__(self, message: str, lanes: Any = None) -> None:
        super().__init__(message)
        self.lanes = lanes


class Region:
    """Memory of the host from `start` on, and how its words are read and written."""

    def __init__(self, start: int, size: int, name: str) -> None:
        self.start, self.end, self.name = start, start + size, name
        self.base = start & -ROUND  # a page has room around it
        count = -(-(self.end - self.base) // ROUND) * ROUND
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(self.base))
        self.words = {n: raw.view(kind) for n, kind in TYPES.items()}


class Global:
    """Arrays in global memory."""

    def __init__(self, spans: Sequence[tuple[int, int, str]]) -> None:
        """`spans`: where each begins, its bytes, and what it is called in errors."""
        merged: list[tuple[int, int, str]] = []
        for start, size, name in sorted(spans):
            if merged and start <= merged[-1][0] + merged[-1][1]:
                before, count, called = merged.pop()
                merged.append((before, max(count, start + size - before), f"{called}, {name}"))
            elif size:
                merged.append((start, size, name))
        self.regions = [Region(*span) for span in merged]
        self._starts = np.array([span[0] for span in merged], np.int64)

    def within(self, addresses: Any) -> tuple[Any, Any]:
        """Of addresses in arrays, the number of the array, and how far behind its beginning each is."""
        found = np.searchsorted(self._starts, addresses.astype(np.int64), "right") - 1
        return found, addresses.astype(np.int64) - self._starts[found]

    def _parts(self, addresses: Any, size: int) -> list[tuple[Region, Any]]:
        """The arrays that addresses lie in, each with the places of those that do (None: all)."""
        low, top = int(addresses.min()), int(addresses.max()) + size
        if ((addresses & np.uint64(size - 1)) != 0).any():
            wrong = (addresses & np.uint64(size - 1)) != 0
            raise Fault(
                f"address {int(np.asarray(addresses)[wrong][0]):#x} is not a multiple of the access's {size} bytes",
                wrong,
            )
        found: list[tuple[Region, Any]] = []
        for region in self.regions:
            if region.start <= low and top <= region.end:
                return [(region, None)]
            if top > region.start and low < region.end:
                inside = (addresses >= np.uint64(region.start)) & (addresses <= np.uint64(max(region.end - size, 0)))
                if inside.any():
                    found.append((region, inside))
        outside = ~np.logical_or.reduce([inside for _, inside in found]) if found else np.ones(addresses.shape, bool)
        if outside.any():
            raise Fault(self._where(int(np.asarray(addresses)[outside][0]), size), outside)
        return found

    def _where(self, address: int, size: int) -> str:
        text = f"{size} bytes at {address:#x} are outside of every array of this launch"
        if self.regions:
            near = min(self.regions, key=lambda r: max(r.start - address, address + size - r.end))
            before = address < near.start
            away = near.start - address if before else address + size - near.end
            text += f": the nearest ({near.name}) {f'begins {away} bytes behind' if before else f'ends {away} bytes before'} them"
        return text

    def load(self, addresses: Any, width: int, count: int) -> list[Any]:
        """`count` words of `width` bytes from each address."""
        parts = self._parts(addresses, width * count)
        if parts[0][1] is None:
            region = parts[0][0]
            words = region.words[width]
            at = ((addresses - np.uint64(region.base)) // np.uint64(width)).astype(np.int64)
            return [words[at + i] for i in range(count)]
        out = [np.zeros(addresses.shape, TYPES[width]) for _ in range(count)]
        for region, inside in parts:
            at = ((addresses[inside] - np.uint64(region.base)) // np.uint64(width)).astype(np.int64)
            for i in range(count):
                out[i][inside] = region.words[width][at + i]
        return out

    def store(self, addresses: Any, width: int, values: Sequence[Any]) -> None:
        for region, inside in self._parts(addresses, width * len(values)):
            chosen = addresses if inside is None else addresses[inside]
            at = ((chosen - np.uint64(region.base)) // np.uint64(width)).astype(np.int64)
            for i, value in enumerate(values):
                region.words[width][at + i] = value if inside is None or not np.ndim(value) else value[inside]


class Races:
    """Who last wrote and read each byte of shared memory, and between which barriers of the block.

    Warps that meet at one byte between two barriers, one of them writing, meet in either order. Threads of one warp are not told
    from each other here.
    """

    def __init__(self, size: int) -> None:
        self.writer, self.written = np.full(size, -1, np.int32), np.zeros(size, np.int32)
        self.reader, self.read = np.full(size, -1, np.int32), np.zeros(size, np.int32)

    def loaded(self, places: Any, size: int, warps: Any, phase: Any) -> None:
        every = np.ravel(places)[:, None] + np.arange(size)
        warps, phase = (
            np.broadcast_to(warps, places.shape).ravel()[:, None],
            np.broadcast_to(phase, places.shape).ravel()[:, None],
        )
        met = (self.written[every] == phase) & (self.writer[every] != warps) & (self.writer[every] >= 0)
        self._told(met, "reads", "wrote")
        new = self.read[every] != phase
        self.reader[every] = np.where(new | (self.reader[every] == warps), warps, MANY)
        self.read[every] = phase
        several = self.reader[every] != warps  # of those that read together the last one stands there
        self.reader[every[several]] = MANY

    def stored(self, places: Any, size: int, warps: Any, phase: Any) -> None:
        every = np.ravel(places)[:, None] + np.arange(size)
        warps, phase = (
            np.broadcast_to(warps, places.shape).ravel()[:, None],
            np.broadcast_to(phase, places.shape).ravel()[:, None],
        )
        self._told(
            (self.written[every] == phase) & (self.writer[every] != warps) & (self.writer[every] >= 0),
            "writes",
            "wrote",
        )
        self._told(
            (self.read[every] == phase) & (self.reader[every] != warps) & (self.reader[every] != -1), "writes", "read"
        )
        self.writer[every], self.written[every] = warps, phase

    def _told(self, met: Any, does: str, did: str) -> None:
        if met.any():
            raise Fault(f"{does} shared memory that another warp {did} since the last barrier", met.any(1))


MANY = -2  # warps that have read a byte


class Own:
    """Memory of which every owner (a block, a thread) has as much: shared and local memory."""

    def __init__(self, owners: int, size: int, called: str) -> None:
        self.size, self.called = -(-size // ROUND) * ROUND, called
        self.asked = size
        raw = np.zeros(owners * self.size, np.uint8)
        self.words = {n: raw.view(kind) for n, kind in TYPES.items()}
        self.written = np.zeros(owners * self.size, bool)

    def places(self, addresses: Any, owner: Any, size: int) -> Any:
        """Offsets in `words[1]` of what owners (numbers) have at these addresses."""
        at = addresses.astype(np.int64)
        wrong = (at < 0) | (at + size > self.asked)
        if wrong.any():
            raise Fault(
                f"{size} bytes at {int(np.asarray(at)[wrong][0]):#x} are outside of the {self.asked} bytes of {self.called}",
                wrong,
            )
        wrong = (at & (size - 1)) != 0
        if wrong.any():
            raise Fault(
                f"address {int(np.asarray(at)[wrong][0]):#x} in {self.called} is not a multiple of the access's {size} bytes",
                wrong,
            )
        return at + owner * self.size

    def load(self, places: Any, width: int, count: int) -> list[Any]:
        for i in range(width * count):
            if not np.all(known := self.written[places + i]):
                raise Fault(f"reads bytes of {self.called} that nobody has written", ~known)
        at = places // width
        return [self.words[width][at + i] for i in range(count)]

    def store(self, places: Any, width: int, values: Sequence[Any]) -> None:
        at = places // width
        for i, value in enumerate(values):
            self.words[width][at + i] = value
        for i in range(width * len(values)):
            self.written[places + i] = True


__all__ = ["LOCAL", "PARAM", "SHARED", "TYPES", "Fault", "Global", "Own", "Races"]
