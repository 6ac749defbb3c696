"""What goes on beside the threads: barriers in shared memory, copies and products that are begun and waited for.

Copies come as late as they may: when somebody waits who could not go on otherwise. Operands of products are read when the
product is asked for, and must be the same when it is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ulpgrad.kernels.ptx import tensor_map, warpgroup
from ulpgrad.kernels.ptx.memory import SHARED, Fault

if TYPE_CHECKING:
    from ulpgrad.kernels.ptx.threads import Group, Threads


def chosen(c: Group, where: Any) -> Any:
    """Of the threads that run an instruction, the places of those whose guard is true."""
    if where is None:
        return np.arange(c.count)
    return np.flatnonzero(np.broadcast_to(where, c.count))


class Copies:
    """cp.async: each thread closes groups of its own copies, and waits until all but the last few are done."""

    def __init__(self, machine: Threads) -> None:
        self.machine = machine
        self.closed = np.zeros(machine.lanes, np.int64)
        self.open: list[
            tuple[int, int, Any, Any, Any, Any, Any]
        ] = []  # size, at, threads, group, shared places, sources, bytes

    def begin(self, at: int, to: Any, source: Any, size: int, there: Any, c: Group, where: Any) -> None:
        on = chosen(c, where)
        if not len(on):
            return
        m = self.machine
        lanes = c.lanes[on]
        with m.within(at, c, on):
            places = m.shared.places(m.full(to, c)[on], m.owner[lanes], size)
        count = np.minimum(m.full(there, c)[on].astype(np.int64), size)
        self.open.append((size, at, lanes, self.closed[lanes], places, m.full(source, c)[on], count))

    def close(self, c: Group, where: Any) -> None:
        self.closed[c.lanes[chosen(c, where)]] += 1

    def wait(self, at: int, still: int, c: Group, where: Any) -> None:
        """Until all but `still` closed groups of these threads are done; -1: all copies."""
        waiting = np.zeros(self.machine.lanes, bool)
        waiting[c.lanes[chosen(c, where)]] = True
        left = []
        for entry in self.open:
            size, begun, lanes, group, places, sources, count = entry
            due = waiting[lanes] & ((group < self.closed[lanes] - still) if still >= 0 else True)
            if due.any():
                self._copy(size, begun, lanes[due], places[due], sources[due], count[due])
            if not due.all():
                keep = ~due
                left.append((size, begun, lanes[keep], group[keep], places[keep], sources[keep], count[keep]))
        self.open = left

    def _copy(self, size: int, at: int, lanes: Any, places: Any, sources: Any, count: Any) -> None:
        m = self.machine
        width = min(size, 8)
        for n in np.unique(count):
            same = count == n
            to = places[same]
            with m.within_lanes(at, lanes[same]):
                m.written_by(to, size, lanes[same], copied=True)
                if n:
                    m.count_memory(sources[same], lanes[same])
                if n == size:
                    words = m.memory.load(sources[same], width, size // width)
                    m.shared.store(to, width, words)
                    continue
                m.shared.store(to, width, [np.zeros(len(to), f"u{width}")] * (size // width))
                if n:
                    for i, word in enumerate(m.memory.load(sources[same], 1, int(n))):
                        m.shared.store(to + i, 1, [word])


@dataclass
class Barrier:
    expected: int
    pending: int = 0
    bytes: int = 0
    parity: int = 0

    def settle(self) -> None:
        if self.pending == 0 and self.bytes == 0:
            self.parity ^= 1
            self.pending = self.expected


class Barriers:
    """mbarrier objects, by block and address."""

    def __init__(self, machine: Threads) -> None:
        self.machine = machine
        self.known: dict[tuple[int, int], Barrier] = {}

    def each(self, address: Any, number: Any, c: Group, where: Any) -> Iterator[tuple[tuple[int, int], int, int]]:
        """For all threads that name a barrier with the same number: (block, address), the number, and how many they are."""
        on = chosen(c, where)
        owners = self.machine.owner[c.lanes[on]]
        places = (self.machine.full(address, c)[on] & np.uint64(SHARED - 1)).astype(np.int64)
        asked = self.machine.full(number, c)[on].astype(np.int64)
        if len(on):
            rows, counts = np.unique(np.stack([owners, places, asked], 1), axis=0, return_counts=True)
            for (owner, place, n), count in zip(rows, counts, strict=True):
                yield (int(owner), int(place)), int(n), int(count)

    def begin(self, address: Any, count: Any, c: Group, where: Any) -> None:
        for key, expected, _ in self.each(address, count, c, where):
            if key[1] % 8:
                raise Fault(f"mbarrier.init at {key[1]:#x}, which is not a multiple of 8")
            if key in self.known:
                raise Fault(f"mbarrier.init at {key[1]:#x}, where one is that was not invalidated")
            self.known[key] = Barrier(expected, expected)

    def end(self, address: Any, c: Group, where: Any) -> None:
        for key, _, _ in self.each(address, np.int64(0), c, where):
            if self.known.pop(key, None) is None:
                raise Fault(f"mbarrier.inval at {key[1]:#x}, where none is")

    def find(self, key: tuple[int, int]) -> Barrier:
        found = self.known.get(key)
        if found is None:
            raise Fault(f"no mbarrier was made at {key[1]:#x}")
        return found

    def arrive(self, address: Any, number: Any, expects: bool, arrives: bool, c: Group, where: Any) -> None:
        """`number`: bytes that each thread announces if it `expects` them, else how often it arrives."""
        for key, n, count in self.each(address, number, c, where):
            barrier = self.find(key)
            if expects:
                barrier.bytes += n * count
            if arrives:
                barrier.pending -= count * (1 if expects else n)
                if barrier.pending < 0:
                    raise Fault(
                        f"more threads arrive at the mbarrier at {key[1]:#x} than it expects ({barrier.expected})"
                    )
                barrier.settle()

    def arrived(self, key: tuple[int, int], count: int) -> None:
        """Bytes that a copy has brought."""
        barrier = self.find(key)
        barrier.bytes -= count
        barrier.settle()

    def passed(self, address: Any, parity: Any, c: Group) -> Any:
        """For each thread whether the phase of that parity is over."""
        m = self.machine
        owners = m.owner[c.lanes]
        places = (m.full(address, c) & np.uint64(SHARED - 1)).astype(np.int64)
        out = np.zeros(c.count, bool)
        asked = m.full(parity, c)
        pairs, which = np.unique(np.stack([owners, places], 1), axis=0, return_inverse=True)
        for n, (o, p) in enumerate(pairs):
            same = which.ravel() == n
            out[same] = self.find((int(o), int(p))).parity != (asked[same] & 1)
        return out


@dataclass
class Begun:
    """A product whose operands in shared memory are being read."""

    warpgroup: int
    at: int
    reads: list[tuple[Any, Any]] = field(default_factory=list)  # places, and the bytes that were there
    group: int = 0


class Products:
    """wgmma: products of warp groups, in groups that each warp group closes and waits for."""

    def __init__(self, machine: Threads) -> None:
        self.machine = machine
        self.closed: dict[int, int] = {}
        self.begun: list[Begun] = []

    def multiply(
        self,
        at: int,
        shape: str,
        kinds: Any,
        d: Any,
        a: Any,
        b: Any,
        add: Any,
        sa: int,
        sb: int,
        ta: int,
        tb: int,
        c: Group,
    ) -> Any:
        m = self.machine
        groups = c.lanes.reshape(-1, 128)
        if (groups != groups[:, :1] + np.arange(128)).any() or (groups[:, 0] % 128).any():
            raise Fault("wgmma is run by threads that are no whole warp group")
        made = [Begun(int(g[0]) // 128, at, group=self.closed.get(int(g[0]) // 128, 0)) for g in groups]

        def read(group: int, offsets: Any) -> Any:
            places = m.shared.places(np.asarray(offsets), m.owner[groups[group, 0]], 1)
            found = m.shared.load(places, 1, 1)[0]
            m.check_shown(places)
            made[group].reads.append((places, found))
            return found

        with m.within(at, c, None):
            found = warpgroup.multiply(shape, kinds, d, a, b, add, sa, sb, ta, tb, read)
        self.begun += made
        return found

    def close(self, c: Group) -> None:
        for g in np.unique(c.lanes // 128):
            self.closed[int(g)] = self.closed.get(int(g), 0) + 1

    def wait(self, at: int, still: int, c: Group) -> None:
        waiting = {int(g) for g in np.unique(c.lanes // 128)}
        left = []
        for one in self.begun:
            if one.warpgroup in waiting and one.group < self.closed.get(one.warpgroup, 0) - still:
                for places, before in one.reads:
                    if (self.machine.shared.words[1][places] != before).any():
                        raise Fault(
                            "shared memory that a product reads was written to before the product was waited for"
                        )
            else:
                left.append(one)
        self.begun = left


@dataclass
class Tile:
    """A copy that the unit for tensors has been asked for."""

    block: int
    lane: int
    at: int
    map: Any
    coordinates: list[int]
    offsets: list[int]
    place: int
    barrier: tuple[int, int] | None
    group: int = 0


class Bulk:
    """cp.async.bulk.tensor: boxes of arrays, to shared memory (an mbarrier counts the bytes) and back."""

    def __init__(self, machine: Threads) -> None:
        self.machine = machine
        self.loads: list[Tile] = []
        self.stores: list[Tile] = []
        self.closed = np.zeros(machine.lanes, np.int64)

    def _tiles(
        self, at: int, pointer: Any, coordinates: Any, offsets: Any, shared: Any, barrier: Any, c: Group, where: Any
    ) -> list[Tile]:
        m = self.machine
        on = chosen(c, where)
        places = [m.full(x, c).astype(np.int64) for x in coordinates]
        more = [m.full(x, c).astype(np.int64) for x in offsets]
        maps, to = m.full(pointer, c), m.full(shared, c)
        waits = None if barrier is None else m.full(barrier, c)
        made = []
        for i in on:
            block = int(m.owner[c.lanes[i]])
            key = None if waits is None else (block, int(waits[i] & np.uint64(SHARED - 1)))
            if key is not None:
                m.barriers.find(key)
            made.append(
                Tile(block, int(c.lanes[i]), at, m.tensor_map(int(maps[i])), [int(p[i]) for p in places],
                     [int(o[i]) for o in more], int(to[i] & np.uint64(SHARED - 1)), key, int(self.closed[c.lanes[i]]))
            )  # fmt: skip
        return made

    def load(
        self, at: int, to: Any, pointer: Any, coordinates: Any, barrier: Any, offsets: Any, c: Group, where: Any
    ) -> None:
        self.loads += self._tiles(at, pointer, coordinates, offsets, to, barrier, c, where)

    def store(self, at: int, pointer: Any, coordinates: Any, source: Any, c: Group, where: Any) -> None:
        self.stores += self._tiles(at, pointer, coordinates, [], source, None, c, where)

    def close(self, c: Group, where: Any) -> None:
        self.closed[c.lanes[chosen(c, where)]] += 1

    def wait(self, at: int, still: int, c: Group, where: Any) -> None:
        waiting = set(c.lanes[chosen(c, where)].tolist())
        left = []
        for tile in self.stores:
            if tile.lane in waiting and tile.group < self.closed[tile.lane] - still:
                self._store(tile)
            else:
                left.append(tile)
        self.stores = left

    def arrive_one(self) -> bool:
        """Bring the oldest box that is under way. False where none is."""
        if not self.loads:
            return False
        self._load(self.loads.pop(0))
        return True

    def finish(self) -> None:
        """At the end of a kernel, whose shared memory is given to others."""
        if self.loads:
            raise Fault("a block ends while copies to its shared memory are under way")
        for tile in self.stores:
            self._store(tile)
        self.stores = []

    def _load(self, tile: Tile) -> None:
        m = self.machine
        with m.within_lanes(tile.at, np.array([tile.lane])):
            box = tensor_map.load(tile.map, tile.coordinates, tile.offsets, tile.place)
            item = tile.map.item
            there = np.flatnonzero(box.valid)
            values = np.tile(tensor_map.filler(tile.map), (len(box.valid), 1))
            if len(there):
                words = m.memory.load(box.addresses[there].astype(np.uint64), item, 1)[0]
                found = np.ascontiguousarray(words).view(np.uint8).reshape(-1, item)
                values[there] = tensor_map.converted(tile.map, found)
            to = m.shared.places(box.places + tile.place, np.int64(tile.block), item)
            m.shared.store(to, item, [np.ascontiguousarray(values).view(f"u{item}")[:, 0]])
        if tile.barrier is not None:
            m.barriers.arrived(tile.barrier, tile.map.bytes)

    def _store(self, tile: Tile) -> None:
        m = self.machine
        with m.within_lanes(tile.at, np.array([tile.lane])):
            box = tensor_map.store(tile.map, tile.coordinates, tile.place)
            item = tile.map.item
            source = m.shared.places(box.places + tile.place, np.int64(tile.block), item)
            m.check_shown(source)
            values = m.shared.load(source, item, 1)[0]
            there = np.flatnonzero(box.valid)
            if len(there):
                m.memory.store(box.addresses[there].astype(np.uint64), item, [values[there]])
