"""What our kernels use of Gluon, on the host: the kernel's own Python runs, with NumPy in the place of the units of sm_90.

Partitions of a program take turns, at every barrier in another order. What they ask for comes as late as it may: a copy when
nobody can go on without one, a product when it is waited for; memory that a copy is on its way to holds NaN. So a wait that is
missing, or stands in the wrong place, is seen in the results, or here as KernelError: partitions that wait for ever, arrivals
that a barrier does not count, memory that the copy unit reads without a fence. Not seen are layouts and registers, how warps of a
group drift apart, and what NVIDIA's documents leave open.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from random import Random
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from ulpgrad.errors import KernelError
from ulpgrad.formats import Array, Format
from ulpgrad.kernels.triton_arguments import Described, Typed

SEED = 0  # of the order in which partitions take turns


class Tensor(np.ndarray[Any, Any]):
    """A block of values in registers."""

    def to(self, kind: Any) -> Tensor:
        if isinstance(kind, Format):
            return kind.decode(kind.encode(np.asarray(self))).astype(np.float32).view(Tensor)
        return self.astype(kind).view(Tensor)


class Memory:
    """A block in shared memory, and which of its values were stored since the last fence."""

    def __init__(self, values: Array, fresh: Array, dtype: Format) -> None:
        self.values, self.fresh, self.dtype = values, fresh, dtype

    def index(self, i: int) -> Memory:
        if not 0 <= i < len(self.values):
            raise KernelError(f"shared memory has {len(self.values)} blocks, not one with the number {i}")
        return Memory(self.values[i], self.fresh[i], self.dtype)

    def reshape(self, shape: Sequence[int]) -> Memory:
        return Memory(self.values.reshape(shape), self.fresh.reshape(shape), self.dtype)

    def permute(self, order: Sequence[int]) -> Memory:
        return Memory(self.values.transpose(order), self.fresh.transpose(order), self.dtype)

    def store(self, value: Tensor) -> None:
        self.values[...] = value
        self.fresh[...] = True
        _here().unfenced.append(self.fresh)


class Barrier:
    """Arrivals and bytes that a phase still waits for, and the parity of that phase."""

    count = left = coming = parity = 0

    def arrived(self, count: int, coming: int = 0) -> None:
        self.left -= count
        self.coming += coming
        if self.left < 0:
            raise KernelError(f"a barrier of {self.count} arrivals got {self.count - self.left} in one phase")
        if self.left == 0 and self.coming == 0:
            self.left, self.parity = self.count, 1 - self.parity


class Barriers(list[Barrier]):
    """An array of barriers."""

    def index(self, i: int) -> Barrier:  # type: ignore[override]
        return self[i]


class Pointer:
    """Elements of an array in memory."""

    def __init__(self, values: Array, at: Any = 0) -> None:
        self.values, self.at = values, at

    def __add__(self, steps: Any) -> Pointer:
        return Pointer(self.values, self.at + steps)


class Descriptor:
    """An array as blocks that the copy unit moves: zeros come from beside it, and nothing goes there."""

    def __init__(self, told: Described) -> None:
        assert told.form is not None
        self.array, self.dtype, self.block, self.layout = told.array.host, told.form, told.block, told.layout

    def places(self, first: Sequence[int]) -> tuple[Any, Any]:
        """What lies inside of a block that begins there: in the array, and in the block."""
        ends = [max(0, min(size - i, n)) for size, i, n in zip(self.array.shape, first, self.block, strict=True)]
        there = tuple(slice(i, i + n) for i, n in zip(first, ends, strict=True))
        return there, tuple(slice(0, n) for n in ends)

    def read(self, first: Sequence[int]) -> Array:
        there, here = self.places(first)
        block = np.zeros(self.block, np.float32)
        block[here] = self.dtype.decode(self.array[there])
        return block

    def write(self, first: Sequence[int], block: Array) -> None:
        there, here = self.places(first)
        self.array[there] = self.dtype.encode(block[here])


class Product:
    """Operands of a product that has been asked for; `value` once it is made."""

    def __init__(self, a: Any, b: Memory, total: Any) -> None:
        self.a, self.b, self.total = a, b, total
        self.value: Tensor | None = None

    def make(self) -> None:
        for operand in (self.a, self.b):
            if isinstance(operand, Memory) and operand.fresh.any():
                raise KernelError("a product reads shared memory that was stored to without a fence")
        a, b = (np.asarray(getattr(x, "values", x), np.float64) for x in (self.a, self.b))
        self.value = (a @ b + (0 if self.total is None else np.asarray(self.total))).astype(np.float32).view(Tensor)


class Stopped(BaseException):
    """Ends a partition whose program has failed."""


class Partition:
    """What one partition has under way, and its thread; only one runs at a time."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.products: list[Product] = []
        self.stores: list[Callable[[], None]] = []
        self.unfenced: list[Array] = []
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.ready: Callable[[], bool] = lambda: True
        self.error: BaseException | None = None
        self.is_done = self.is_stopped = False
        self.call = call
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        _place.partition = self
        self.go.acquire()
        try:
            if not self.is_stopped:
                self.call()
            if self.stores and not self.is_stopped:
                raise KernelError("a program ends before its copies to memory")
        except Stopped:
            pass
        except BaseException as error:
            self.error = error
        self.is_done = True
        self.back.release()

    def pause(self, ready: Callable[[], bool] = lambda: True) -> None:
        """Let others go on, until that holds."""
        self.ready = ready
        self.back.release()
        self.go.acquire()
        if self.is_stopped:
            raise Stopped

    def step(self) -> None:
        self.go.release()
        self.back.acquire()


class Program:
    """One program of a grid: its number, and copies that are on their way."""

    def __init__(self, number: int) -> None:
        self.number, self.random = number, Random(SEED * 1_000_003 + number)
        self.copies: list[Callable[[], None]] = []

    def run(self, calls: Sequence[Callable[[], Any]]) -> None:
        """Partitions, side by side."""
        partitions = [Partition(call) for call in calls]
        for p in partitions:
            p.thread.start()
        try:
            while not all(p.is_done for p in partitions):
                able = [p for p in partitions if not p.is_done and p.ready()]
                if able:
                    taken = self.random.choice(able)
                    taken.step()
                    if taken.error is not None:
                        raise taken.error
                elif self.copies:
                    self.copies.pop(self.random.randrange(len(self.copies)))()
                else:
                    raise KernelError("every partition of a program waits at a barrier, and nobody goes on")
        finally:
            for p in partitions:
                p.is_stopped = True
                if not p.is_done:
                    p.step()
                p.thread.join()


class _Place(threading.local):
    partition: Partition | None = None


_place = _Place()
_outside = Partition(lambda: None)  # what runs before partitions part
_program = Program(0)


def _here() -> Partition:
    return _place.partition or _outside


def _allocate(dtype: Any, shape: Sequence[int], layout: Any) -> Memory | Barriers:
    if dtype is np.int64:
        return Barriers(Barrier() for _ in range(shape[0]))
    return Memory(np.full(shape, np.nan, np.float32), np.zeros(shape, bool), dtype)


def _init(barrier: Barrier, count: int) -> None:
    barrier.count = barrier.left = count


def _expect(barrier: Barrier, size: int) -> None:
    barrier.arrived(1, size)
    _here().pause()


def _arrive(barrier: Barrier, count: int) -> None:
    barrier.arrived(count)
    _here().pause()


def _wait(barrier: Barrier, parity: int) -> None:
    _here().pause(lambda: barrier.parity != parity)


def _copy_in(told: Descriptor, first: Sequence[int], barrier: Barrier, memory: Memory) -> None:
    memory.values[...] = np.nan
    size = memory.values.size * told.dtype.itemsize

    def copy() -> None:
        memory.values[...] = told.read(first)
        barrier.arrived(0, -size)

    _program.copies.append(copy)
    _here().pause()


def _copy_out(told: Descriptor, first: Sequence[int], memory: Memory) -> None:
    if memory.fresh.any():
        raise KernelError("the copy unit reads shared memory that was stored to without a fence")
    _here().stores.append(lambda: told.write(first, memory.values))


def _store_wait(pending: int) -> None:
    stores = _here().stores
    while len(stores) > pending:
        stores.pop(0)()


def _fence() -> None:
    for fresh in _here().unfenced:
        fresh[...] = False
    _here().unfenced.clear()


def _product(a: Any, b: Memory, total: Any, *, use_acc: bool = True, is_async: bool = False) -> Any:
    made = Product(a, b, total if use_acc else None)
    _here().products.append(made)
    return made if is_async else _product_wait(0, (made,))


def _product_wait(pending: int, deps: Sequence[Any]) -> Any:
    under_way = _here().products
    while len(under_way) > pending:
        under_way.pop(0).make()
    if any(isinstance(d, Product) and d.value is None for d in deps):
        raise KernelError("the result of a product is taken while it is not made yet")
    found = [d.value if isinstance(d, Product) else d for d in deps]
    return found[0] if len(found) == 1 else found


def _specialize(
    functions: Sequence[tuple[Any, tuple[Any, ...]]], warps: Sequence[int], registers: Sequence[int]
) -> None:
    assert len(functions) - 1 == len(warps) == len(registers)
    _program.run([partial(function, *given) for function, given in functions])


def _store(pointer: Pointer, value: Any, mask: Any) -> None:
    pointer.values[np.broadcast_to(pointer.at, mask.shape)[mask]] = value[mask]


def _tensor(value: Any) -> Tensor:
    return np.asarray(value).view(Tensor)


LANGUAGE = SimpleNamespace(
    float32=np.float32, int32=np.int32, int64=np.int64, static_range=range, allocate_shared_memory=_allocate, store=_store,
    program_id=lambda axis: _program.number, warp_specialize=_specialize, cast=lambda value, kind: int(value),
    zeros=lambda shape, dtype, layout: np.zeros(shape, dtype).view(Tensor),
    full=lambda shape, value, dtype, layout: np.full(shape, value, dtype).view(Tensor),
    arange=lambda start, end, layout: np.arange(start, end).view(Tensor), convert_layout=lambda value, layout: value,
    NVMMADistributedLayout=lambda *given: given, DotOperandLayout=lambda *given: given, SliceLayout=lambda *given: given,
    where=lambda *given: _tensor(np.where(*given)), maximum=np.fmax, minimum=np.minimum, exp2=np.exp2, log2=np.log2,
    max=lambda x, axis: _tensor(np.fmax.reduce(x, axis)), sum=lambda x, axis: _tensor(np.sum(x, axis)),
)  # fmt: skip
BARRIERS = SimpleNamespace(MBarrierLayout=lambda: None, init=_init, expect=_expect, arrive=_arrive, wait=_wait)


@cache
def _stand_ins() -> dict[int, Any]:
    """What stands for a name of `triton_gluon`, by what the name means there."""
    from ulpgrad.kernels import triton_gluon as real

    return {
        id(real.gl): LANGUAGE, id(real.mbarrier): BARRIERS, id(real.tma): SimpleNamespace(store_wait=_store_wait),
        id(real.copy_in): _copy_in, id(real.copy_out): _copy_out, id(real.fence_async_shared): _fence,
        id(real.warpgroup_mma): _product, id(real.warpgroup_mma_wait): _product_wait,
    }  # fmt: skip


def on_host(kernel: Any, known: dict[int, Any] | None = None) -> Any:
    """A kernel's function with stand-ins for what it sees of the language, and so the functions that it calls."""
    from ulpgrad.kernels.triton_launch import is_gluon

    known = {} if known is None else known
    if id(kernel) not in known:
        code, seen = kernel.fn.__code__, dict(kernel.fn.__globals__)
        made = known[id(kernel)] = FunctionType(code, seen, kernel.fn.__name__, kernel.fn.__defaults__)
        for name in code.co_names:
            value = seen.get(name)
            if id(value) in _stand_ins():
                seen[name] = _stand_ins()[id(value)]
            elif is_gluon(value):
                seen[name] = on_host(value, known)
        assert made.__globals__ is seen
    return known[id(kernel)]


def _taken(value: Any) -> Any:
    match value:
        case Described():
            return Descriptor(value)
        case Typed(array, _):
            return Pointer(array.host.reshape(-1))
        case float():
            return np.float32(value)
        case int() | None:
            return value
    return Pointer(value.host.reshape(-1))


def run(kernel: Any, grid: Sequence[int], arguments: Sequence[Any], constants: dict[str, Any]) -> None:
    """Run a kernel on emulated arrays, one program after the other."""
    global _program
    function, given = on_host(kernel), [_taken(a) for a in arguments]
    fixed = {p.name: constants[p.name] for p in kernel.params[len(given) :]}
    with np.errstate(all="ignore"):
        for number in range(grid[0]):
            _program = Program(number)
            function(*given, **fixed)


__all__ = ["SEED", "on_host", "run"]
