"""The threads of some blocks of a launch: their registers, and the memory that they read and write."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ulpgrad.errors import KernelError
from ulpgrad.kernels.ptx import counts, tensor_map, text
from ulpgrad.kernels.ptx.beside import Barriers, Bulk, Copies, Products
from ulpgrad.kernels.ptx.compiled import Compiled
from ulpgrad.kernels.ptx.memory import LOCAL, PARAM, SHARED, TYPES, Fault, Global, Own, Races
from ulpgrad.kernels.ptx.warp import OPERATIONS, loaded_matrices, stored_matrices

ENDED = -1


class Group:
    """Threads that run a block of instructions together: their numbers, and whether these are all."""

    __slots__ = ("count", "index", "lanes")

    def __init__(self, lanes: Any, everyone: bool) -> None:
        self.lanes, self.count = lanes, len(lanes)
        self.index = None if everyone else lanes


class Threads:
    """The state of some blocks of a launch."""

    def __init__(
        self, compiled: Compiled, memory: Global, parameters: bytes, blocks: Any, grid: Any, block: Any, dynamic: int
    ) -> None:
        self.compiled, self.memory = compiled, memory
        self.parameters = np.frombuffer(parameters + bytes(16), np.uint8).copy()
        threads = block[0] * block[1] * block[2]
        padded = -(-threads // 32) * 32  # the last warp is whole: threads that are not there have ended
        self.lanes, self.threads = padded * len(blocks), padded
        self.owner = np.repeat(np.arange(len(blocks)), padded)
        inside = np.tile(np.arange(padded), len(blocks))
        ids = np.asarray(blocks)[self.owner]
        self.values = {
            **{f"%tid.{a}": inside // s % n for a, s, n in zip("xyz", (1, block[0], block[0] * block[1]), block, strict=True)},
            **{f"%ctaid.{a}": ids[:, n] for n, a in enumerate("xyz")},
            **{f"%ntid.{a}": np.uint32(n) for a, n in zip("xyz", block, strict=True)},
            **{f"%nctaid.{a}": np.uint32(n) for a, n in zip("xyz", grid, strict=True)},
            "%laneid": inside % 32, "%warpid": inside // 32, "%smid": self.owner, "%nsmid": np.uint32(132),
            "%clock": np.uint32(0), "%clock64": np.uint64(0), "%globaltimer": np.uint64(0), "%cluster_ctarank": np.uint32(0),
            "%cluster_nctarank": np.uint32(1), "%lanemask_lt": (1 << inside % 32) - 1, "%lanemask_le": (2 << inside % 32) - 1,
            "%cluster_ctaid.x": np.uint32(0), "%dynamic_smem_size": np.uint32(dynamic),
        }  # fmt: skip
        if len(blocks) == 1:
            self.values.update({f"%ctaid.{a}": np.uint32(ids[0, n]) for n, a in enumerate("xyz")})
        self.registers: list[Any] = [
            np.bool_(False) if kind == "pred" else np.dtype(f"u{text.SIZES[kind]}").type(0)
            for kind in compiled.program.kinds.values()
        ]  # fmt: skip
        self.shared = Own(len(blocks), compiled.static + dynamic, "the block's shared memory")
        self.local = Own(self.lanes, compiled.local, "the thread's own memory") if compiled.local else None
        self.at = np.zeros(self.lanes, np.int64)
        self.at[inside >= threads] = ENDED
        self.waiting = np.zeros(self.lanes, bool)
        self.arrivals: dict[tuple[int, int], list[Any]] = {}  # threads at a barrier, by block and its number
        # Bytes of shared memory that the asynchronous units cannot see yet, by the thread that wrote them.
        self.hidden: Any = np.full(self.shared.written.shape, -1) if compiled.has_units else None
        self.phases = np.ones(len(blocks), np.int32)  # barriers of the whole block, counted
        self.races = None if compiled.has_partial_barriers else Races(len(self.shared.written))
        self.counts = counts.now()
        self.copies, self.barriers, self.products, self.bulk = Copies(self), Barriers(self), Products(self), Bulk(self)

    # Registers.

    def take(self, register: int, c: Group) -> Any:
        value: Any = self.registers[register]
        return value if c.index is None or np.ndim(value) == 0 else value[c.index]

    def put(self, register: int, value: Any, c: Group) -> None:
        if c.index is None:
            self.registers[register] = value
            return
        old = self.registers[register]
        kind = old.dtype if old.dtype.itemsize == value.dtype.itemsize else value.dtype
        new = np.empty(self.lanes, kind)
        new[...] = old.view(kind)
        new[c.index] = value.view(kind)
        self.registers[register] = new

    def full(self, value: Any, c: Group) -> Any:
        """A value for each of the threads."""
        return value if np.ndim(value) and len(value) == c.count else np.full(c.count, value)

    def special(self, c: Group, name: str) -> Any:
        value = self.values.get(name)
        if value is None:
            raise Fault(f"{name} is not known to the machine")
        return value if c.index is None or np.ndim(value) == 0 else value[c.index]

    def lane(self, c: Group) -> Any:
        return self.special(c, "%laneid")

    # Errors.

    @contextlib.contextmanager
    def within(self, at: int, c: Group, on: Any) -> Iterator[None]:
        try:
            yield
        except (Fault, KernelError) as fault:
            raise self.error(fault, at, c.lanes if on is None else c.lanes[on]) from None

    @contextlib.contextmanager
    def within_lanes(self, at: int, lanes: Any) -> Iterator[None]:
        try:
            yield
        except (Fault, KernelError) as fault:
            raise self.error(fault, at, lanes) from None

    def error(self, fault: Fault | KernelError, at: int, lanes: Any) -> KernelError:
        which, wrong = lanes, getattr(fault, "lanes", None)
        if wrong is not None and np.ndim(wrong) and len(wrong) == len(lanes):
            which = lanes[np.asarray(wrong)]
        ids = [self.values[f"%ctaid.{a}"] for a in "xyz"]
        block = tuple(int(v if np.ndim(v) == 0 else v[which[0]]) for v in ids)
        who = f"thread {int(which[0]) % self.threads} of block {block}"
        if len(which) > 1:
            who += f", and {len(which) - 1} more"
        text = textwrap.shorten(self.compiled.instructions[at].text, 120)
        return KernelError(f"{self.compiled.program.name}: {fault} ({who}) in: {text}")

    # Memory.

    def _on(self, value: Any, where: Any, c: Group) -> tuple[Any, Any]:
        """Addresses of those whose guard is true, and their places (None: all)."""
        if where is None or (np.ndim(where) == 0 and where):
            return value, None
        on = np.flatnonzero(np.broadcast_to(where, c.count))
        return (self.full(value, c)[on], on) if len(on) < c.count else (value, None)

    def _spread(self, found: list[Any], on: Any, c: Group) -> list[Any]:
        if on is None:
            return found
        out = [np.zeros(c.count, f.dtype) for f in found]
        for o, f in zip(out, found, strict=True):
            o[on] = f
        return out

    def _load(self, space: str, at: int, address: Any, width: int, count: int, c: Group, where: Any) -> list[Any]:
        address, on = self._on(address, where, c)
        if on is not None and not len(on):
            return [np.zeros(c.count, TYPES[width])] * count
        lanes = c.lanes if on is None else c.lanes[on]
        with self.within(at, c, on):
            if space == "global":
                found = self.memory.load(address, width, count)
                self.count_memory(address, lanes)
            else:
                own, places = self._places(space, address, width * count, c, on)
                found = own.load(places, width, count)
                if space == "shared":
                    self.read_by(places, width * count, lanes)
        return self._spread(found, on, c)

    def _places(self, space: str, address: Any, size: int, c: Group, on: Any) -> tuple[Own, Any]:
        lanes = c.lanes if on is None else c.lanes[on]
        own = self.shared if space == "shared" else self.local
        if own is None:
            raise Fault("the kernel has no memory of threads")
        return own, own.places(address, self.owner[lanes] if space == "shared" else lanes, size)

    def load_global(self, at: int, address: Any, width: int, count: int, c: Group, where: Any) -> list[Any]:
        return self._load("global", at, address, width, count, c, where)

    def load_shared(self, at: int, address: Any, width: int, count: int, c: Group, where: Any) -> list[Any]:
        return self._load("shared", at, address, width, count, c, where)

    def load_local(self, at: int, address: Any, width: int, count: int, c: Group, where: Any) -> list[Any]:
        return self._load("local", at, address, width, count, c, where)

    def load_param(self, at: int, address: Any, width: int, count: int, c: Group, where: Any) -> list[Any]:
        first = np.asarray(address).astype(np.int64) - (PARAM if np.ravel(address)[0] >= PARAM else 0)
        if np.any(first < 0) or np.any(first + width * count > self.compiled.parameters):
            raise self.error(Fault("reads behind the kernel's parameters"), at, c.lanes)
        found = []
        for i in range(count):
            places = np.asarray(first + i * width)[..., None] + np.arange(width)
            found.append(np.ascontiguousarray(self.parameters[places]).view(f"u{width}")[..., 0])
        return found

    def _generic(self, address: Any, c: Group, where: Any) -> tuple[str, Any]:
        """The space that generic addresses lie in (that of the first thread's), or "" where no thread asks, and where there."""
        chosen, on = self._on(address, where, c)
        if on is not None and not len(on):
            return "", address
        first = int(np.ravel(chosen)[0])
        for start, space in ((PARAM, "param"), (LOCAL, "local"), (SHARED, "shared")):
            if first >= start:
                return space, address - np.uint64(start)
        return "global", address

    def load_generic(self, at: int, address: Any, width: int, count: int, c: Group, where: Any) -> list[Any]:
        space, address = self._generic(address, c, where)
        if not space:
            return [np.zeros(c.count, TYPES[width])] * count
        load = self.load_param if space == "param" else partial(self._load, space)
        return load(at, address, width, count, c, where)

    def _store(self, space: str, at: int, address: Any, width: int, values: list[Any], c: Group, where: Any) -> None:
        address, on = self._on(address, where, c)
        if on is not None:
            if not len(on):
                return
            values = [v[on] if np.ndim(v) and len(v) == c.count else v for v in values]
        with self.within(at, c, on):
            lanes = c.lanes if on is None else c.lanes[on]
            if space == "global":
                self.memory.store(address, width, values)
                self.count_memory(address, lanes)
                return
            own, places = self._places(space, address, width * len(values), c, on)
            own.store(places, width, values)
            if space == "shared":
                self.written_by(places, width * len(values), lanes)
                if self.races is not None:
                    for i, value in enumerate(values):
                        at_word = places + i * width
                        lost = (own.words[width][at_word // width] != value) & (
                            self.races.writer[at_word] != lanes // 32
                        )
                        if lost.any():
                            raise Fault("writes shared memory that another warp wrote since the last barrier", lost)
            if space == "shared" and self.hidden is not None:
                for i in range(width * len(values)):
                    self.hidden[places + i] = lanes

    def store_global(self, at: int, address: Any, width: int, values: list[Any], c: Group, where: Any) -> None:
        self._store("global", at, address, width, values, c, where)

    def store_shared(self, at: int, address: Any, width: int, values: list[Any], c: Group, where: Any) -> None:
        self._store("shared", at, address, width, values, c, where)

    def store_local(self, at: int, address: Any, width: int, values: list[Any], c: Group, where: Any) -> None:
        self._store("local", at, address, width, values, c, where)

    def store_generic(self, at: int, address: Any, width: int, values: list[Any], c: Group, where: Any) -> None:
        space, address = self._generic(address, c, where)
        if space == "param":
            raise self.error(Fault("writes to the kernel's parameters"), at, c.lanes)
        if space:
            self._store(space, at, address, width, values, c, where)

    def is_in(self, space: str, address: Any) -> Any:
        low, top = {"shared": (SHARED, LOCAL), "local": (LOCAL, PARAM), "global": (0, SHARED)}.get(
            space, (PARAM, 2 * PARAM)
        )
        return (address >= np.uint64(low)) & (address < np.uint64(top))

    def atomic(
        self, at: int, space: str, op: str, address: Any, view: str, values: list[Any], c: Group, where: Any
    ) -> Any:
        """One thread after the other."""
        races, self.races = self.races, None  # atomic operations meet in any order, and are no races
        try:
            return self._one_by_one(at, space, op, address, view, values, c, where)
        finally:
            self.races = races

    def _one_by_one(
        self, at: int, space: str, op: str, address: Any, view: str, values: list[Any], c: Group, where: Any
    ) -> Any:
        width = int(view[1:])
        where = np.broadcast_to(True if where is None else where, c.count)
        given = [self.full(v, c) for v in values]
        addresses, out = self.full(address, c), np.zeros(c.count, view)
        for i in np.flatnonzero(where):
            one = np.arange(c.count) == i
            old = self._load(space, at, addresses, width, 1, c, one)[0].view(view)[i]
            new = given[0][i]
            out[i] = old
            match op:
                case "cas":
                    new = given[1][i] if old == new else old
                case "exch":
                    pass
                case _:
                    new = OPERATIONS[op](old, new)
            self._store(space, at, addresses, width, [np.full(c.count, new, view).view(f"u{width}")], c, one)
        return out

    def load_matrices(self, at: int, address: Any, count: int, turned: bool, c: Group) -> Any:
        def read(rows: Any) -> Any:
            owners = self.owner[c.lanes].reshape(-1, 32)[:, : rows.shape[1]]
            places = self.shared.places(rows, owners, 16)
            self.shared.load(places, 1, 16)  # that somebody wrote them
            self.read_by(places, 16, c.lanes.reshape(-1, 32)[:, : rows.shape[1]].ravel(), True)
            return self.shared.words[2][places[..., None] // 2 + np.arange(8)]

        with self.within(at, c, None):
            return loaded_matrices(self.full(address, c), count, turned, read)

    def store_matrices(self, at: int, address: Any, registers: list[Any], turned: bool, c: Group, where: Any) -> None:
        rows = stored_matrices(registers, turned)
        asked = np.broadcast_to(True if where is None else where, c.count).reshape(-1, 32)
        on = asked.all(1)
        if not (on == asked.any(1)).all():
            raise self.error(Fault("part of a warp runs it"), at, c.lanes)
        with self.within(at, c, None):
            owners = self.owner[c.lanes].reshape(-1, 32)[:, : rows.shape[1]][on]
            to = self.full(address, c).reshape(-1, 32)[:, : rows.shape[1]][on]
            places = self.shared.places(to, owners, 16)
            for i in range(8):
                self.shared.store(places + 2 * i, 2, [rows[on][..., i]])
            self.written_by(places, 16, c.lanes.reshape(-1, 32)[on][:, : rows.shape[1]].ravel())
            if self.hidden is not None:
                self.hidden[places[..., None] + np.arange(16)] = c.lanes.reshape(-1, 32)[on][:, :1, None]

    def active(self, c: Group) -> Any:
        """Of each thread's warp, the threads that run this, as bits."""
        warps = np.zeros(self.lanes // 32, np.uint32)
        np.bitwise_or.at(warps, c.lanes // 32, np.uint32(1) << (c.lanes % 32).astype(np.uint32))
        return warps[c.lanes // 32]

    def check_whole(self, at: int, c: Group, where: Any) -> None:
        """That whole warps run an instruction, all threads of one or none (a guard)."""
        lanes = c.lanes
        whole = len(lanes) % 32 == 0 and bool((lanes.reshape(-1, 32) == lanes[::32, None] + np.arange(32)).all())
        whole = whole and not bool((lanes[::32] % 32).any())
        if whole and where is not None and np.ndim(where):
            asked = where.reshape(-1, 32)
            whole = bool((asked.all(1) == asked.any(1)).all())
        if not whole:
            raise self.error(Fault("part of a warp runs what a warp does together"), at, lanes)

    def read_by(self, places: Any, size: int, lanes: Any, matrices: bool = False) -> None:
        """Threads have read shared memory (or their rows of matrices, numbered like threads)."""
        self.count_shared(places, size, lanes, matrices)
        if self.races is not None:
            self.races.loaded(np.ravel(places), size, lanes // 32, self.phases[self.owner[lanes]])

    def written_by(self, places: Any, size: int, lanes: Any, copied: bool = False) -> None:
        """Likewise written; `copied`: by cp.async, beside the threads."""
        if not copied:
            self.count_shared(places, size, lanes)
        if self.races is not None:
            self.races.stored(np.ravel(places), size, lanes // 32, self.phases[self.owner[lanes]])

    def count_memory(self, addresses: Any, lanes: Any) -> None:
        if self.counts is not None:
            array, offset = self.memory.within(np.broadcast_to(addresses, lanes.shape))
            self.counts.at_memory(array, offset, lanes // 32)

    def count_shared(self, places: Any, size: int, lanes: Any, matrices: bool = False) -> None:
        if self.counts is not None:
            places = np.broadcast_to(np.ravel(places) % self.shared.size, lanes.shape)
            self.counts.at_shared(places, size, lanes, matrices)

    def fence(self, at: int, c: Group, where: Any) -> None:
        """What these threads wrote, the asynchronous units see from now on."""
        if self.hidden is not None:
            mine = np.zeros(self.lanes + 1, bool)
            mine[c.lanes] = True
            self.hidden[mine[self.hidden]] = -1

    def check_shown(self, places: Any) -> None:
        if self.hidden is not None and (self.hidden[places] >= 0).any():
            raise Fault(
                "an asynchronous unit reads shared memory that threads wrote without fence.proxy.async behind it"
            )

    def tensor_map(self, pointer: int) -> Any:
        if not PARAM <= pointer <= PARAM + self.compiled.parameters - 128:
            raise Fault(f"a description of an array at {pointer:#x}, which is no parameter of the kernel")
        return tensor_map.from_bytes(self.parameters[pointer - PARAM : pointer - PARAM + 128].tobytes())

    def wait(self, at: int, address: Any, parity: Any, c: Group, where: Any) -> Any:
        """mbarrier.try_wait: for those that may go on; the others are left waiting. None where these are all."""
        with self.within(at, c, None):
            passed = self.barriers.passed(address, parity, c)
        if where is not None:
            passed = passed | ~np.broadcast_to(where, c.count)
        if passed.all():
            return passed
        self.waiting[c.lanes] = True
        if passed.any():  # these come again, by themselves
            self.waiting[c.lanes[passed]] = False
        return None
