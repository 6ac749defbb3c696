"""Streams, events, memory pools and graphs of the emulated GPU, whose work is done when a call returns.

A capture notes what was asked of the device, a launch does it again, in the same memory. What is captured does not run on a
device. Here it does, since shapes of results are not known otherwise; when the capture ends, all memory that it touched is as it
was before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

FORBIDDEN = "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"


class Recording:
    """What has been asked of a stream since its capture began."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], object]] = []
        self.touched: dict[int, tuple[Any, Any]] = {}

    def touch(self, hosts: Iterator[Any]) -> None:
        """Keep what memory holds before it may be written to."""
        for array in hosts:
            root = array
            while isinstance(root.base, np.ndarray):
                root = root.base
            if id(root) not in self.touched:
                self.touched[id(root)] = root, root.copy()

    def end(self) -> Graph:
        for root, before in self.touched.values():
            if root.flags.writeable:
                np.copyto(root, before)
        return Graph(self.steps)


class Graph:
    """CuPy's graph of captured work."""

    def __init__(self, steps: list[Callable[[], object]]) -> None:
        self._steps = steps

    def launch(self, stream: Any = None) -> None:
        for step in self._steps:
            step()

    def upload(self, stream: Any = None) -> None:
        """Nothing is prepared here."""


def store(results: Any, found: Any) -> None:
    """Values of another run into the arrays that the first one gave; views are the same memory already."""
    if isinstance(results, (tuple, list)):
        for result, value in zip(results, found, strict=True):
            store(result, value)
    elif hasattr(results, "host") and not np.may_share_memory(results.host, found):
        np.copyto(results.host, found)


class OutOfMemoryError(MemoryError):
    """CuPy's error of the same name."""


class Stream:
    """A queue of work; here every call has ended before it returns."""

    null: Stream
    _current: list[Stream]

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self.ptr = 0 if null else id(self)
        self.captured: Recording | None = None

    def __enter__(self) -> Stream:
        Stream._current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        Stream._current.pop()

    def use(self) -> Stream:
        Stream._current[-1] = self
        return self

    def synchronize(self) -> None:
        if self.captured is not None:
            raise RuntimeError(FORBIDDEN)

    def begin_capture(self, mode: int | None = None) -> None:
        self.captured = Recording()

    def end_capture(self) -> Graph:
        if self.captured is None:
            raise RuntimeError("cudaErrorIllegalState: the stream is not capturing")
        recorder, self.captured = self.captured, None
        return recorder.end()

    def is_capturing(self) -> bool:
        return self.captured is not None

    def wait_event(self, event: Event) -> None: ...

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    @property
    def done(self) -> bool:
        return True


Stream.null = Stream(null=True)
Stream._current = [Stream.null]


class Event:
    """A moment in a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.moment: float | None = None
        self.captured = False

    def record(self, stream: Stream | None = None) -> None:
        import time

        self.moment, self.captured = time.perf_counter(), recording() is not None

    def synchronize(self) -> None:
        if self.captured:
            raise RuntimeError(
                "cudaErrorCapturedEvent: operation not permitted on an event last recorded in a capturing stream"
            )

    @property
    def done(self) -> bool:
        return True


def get_elapsed_time(start: Event, end: Event) -> float:
    """Milliseconds between two events."""
    if start.moment is None or end.moment is None:
        raise RuntimeError("cudaErrorInvalidResourceHandle: an event was not recorded")
    return (end.moment - start.moment) * 1e3


class MemoryPool:
    """CuPy's pool of blocks, of which nothing is kept here."""

    def __init__(self, allocator: Callable[[int], Any] | None = None) -> None:
        self._allocator = allocator

    def used_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return 0

    def free_all_blocks(self, stream: Any = None) -> None: ...

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None: ...

    def get_limit(self) -> int:
        return 0

    def malloc(self, size: int) -> Any:
        """Memory from the pool, which arrays of NumPy do not take."""
        return bytearray(size) if self._allocator is None else self._allocator(size)


class Memory(bytearray):
    """Memory of the device, which goes back when nobody has it any more."""


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], Any]) -> Iterator[None]:
    """A block in which arrays take their memory from a pool."""
    allocators.append(allocator)
    try:
        yield
    finally:
        allocators.pop()


allocators: list[Callable[[int], Any]] = []


class PinnedMemoryPointer(bytearray):
    """Memory of the host, which is never swapped out on a machine with a device."""


_pool = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    return _pool


def get_default_pinned_memory_pool() -> MemoryPool:
    return _pool


def recording() -> Recording | None:
    """What the current stream is captured into, if it is."""
    return Stream._current[-1].captured


def record(hosts: list[Any], run: Callable[[], object]) -> None:
    """Do what writes to some memory of the host, and note it where it is captured."""
    recorder = recording()
    if recorder is not None:
        recorder.touch(iter(hosts))
        recorder.steps.append(run)
    run()
