"""The GPUs, in torch's words: `ulpgrad.cuda.is_available()`, streams, events, memory. Thin over CuPy, whose current device and
stream are ours too. Nothing here is imported before it is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ulpgrad.device import CPU, Device, as_device
from ulpgrad.errors import ArgumentError, DeviceError
from ulpgrad.graphs import CUDAGraph, Graphed, graph, make_graphed
from ulpgrad.kernels import capabilities, capture, deferred, gpu
from ulpgrad.tensor import Tensor

__all__ = [
    "CUDAGraph",
    "Event",
    "Graphed",
    "Stream",
    "current_device",
    "current_stream",
    "device",
    "device_count",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "graph",
    "is_available",
    "is_current_stream_capturing",
    "is_pinned",
    "make_graphed",
    "max_memory_allocated",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "pin_memory",
    "set_device",
    "stream",
    "synchronize",
]

T = TypeVar("T")


def is_available() -> bool:
    """Whether there is a GPU that can be used; `ulpgrad doctor` says why not."""
    return capabilities.missing("cuda") is None


def device_count() -> int:
    """How many GPUs there are."""
    return gpu.count() if is_available() else 0


def _index(given: Any) -> int:
    """The number of a device: None (the current one), a number, a name or a Device. DeviceError if it is no GPU."""
    found = as_device("cuda" if given is None else f"cuda:{given}" if isinstance(given, int) else given)
    if found == CPU:
        raise DeviceError(f"{given!r} is no GPU: expected a number, 'cuda' or 'cuda:N'")
    return found.index


def _on(given: Any, run: Callable[[Any], T]) -> T:
    """run(the GPU's library) with that device as the current one."""
    with gpu.on_device(_index(given)):
        return run(gpu.xp())


def current_device() -> int:
    """The number of the device that "cuda" without a number means."""
    return _index(None)


def set_device(device: Any) -> None:
    """Make a device the current one."""
    gpu.xp().cuda.runtime.setDevice(_index(device))


class device:
    """A context in which "cuda" means this device: `with ulpgrad.cuda.device(1): ...`. Work runs where its operands are, in it
    or not."""

    def __init__(self, device: Any) -> None:
        self.index = _index(device)
        self._before: list[int] = []

    def __enter__(self) -> device:
        self._before.append(current_device())
        set_device(self.index)
        return self

    def __exit__(self, *_: object) -> None:
        set_device(self._before.pop())


def synchronize(device: Any = None) -> None:
    """Wait for all work of a device."""
    capture.refuse("waiting for a device", "nothing has run yet")
    _on(device, lambda xp: xp.cuda.runtime.deviceSynchronize())
    deferred.look()


def get_device_name(device: Any = None) -> str:
    """What the device is called."""
    index = _index(device)
    if gpu.mode():
        return f"emulated device {index} ({gpu.setting()})"
    return str(gpu.xp().cuda.runtime.getDeviceProperties(index)["name"].decode())


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """(major, minor) of its compute capability: (9, 0) for Hopper."""
    digits = str(gpu.xp().cuda.Device(_index(device)).compute_capability)
    return int(digits[:-1]), int(digits[-1])


# Streams and events


class Event:
    """A moment in a stream's work. Made on the device of the stream that it is first recorded in, as the driver asks."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        _index(None)  # raises where there is no GPU
        self.event: Any = None
        self._kind = {"block": blocking, "disable_timing": not enable_timing}

    def record(self, stream: Stream | None = None) -> None:
        """Mark what has been asked of a stream (the current one) so far."""
        stream = stream or current_stream()
        with stream.beside():
            if self.event is None:
                self.event = gpu.xp().cuda.Event(**self._kind)
            self.event.record(stream.stream)

    def query(self) -> bool:
        """Whether all that was marked is done."""
        return self.event is None or bool(self.event.done)

    def synchronize(self) -> None:
        """Wait for it."""
        if self.event is not None:
            self.event.synchronize()
        deferred.look()

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds of the device from this event to another, both made with enable_timing=True and recorded."""
        if self.event is None or end.event is None:
            raise ArgumentError("elapsed_time: expected two events that were recorded: call record() on both first")
        return float(gpu.xp().cuda.get_elapsed_time(self.event, end.event))


class Stream:
    """A queue of work on a device, beside the others: `with ulpgrad.cuda.stream(s): ...`."""

    def __init__(self, device: Any = None, *, of: Any = None) -> None:
        self.device = Device("cuda", _index(device))
        self.stream = of if of is not None else _on(self.device, lambda xp: xp.cuda.Stream(non_blocking=True))

    def beside(self) -> Any:
        """A context in which its device is the current one: every device has a default stream, and all have the handle 0."""
        return gpu.on_device(self.device.index)

    @property
    def cuda_stream(self) -> int:
        """Its handle, for other libraries."""
        return int(self.stream.ptr)

    def synchronize(self) -> None:
        """Wait for all of its work."""
        with self.beside():
            self.stream.synchronize()
        deferred.look()

    def query(self) -> bool:
        """Whether all of its work is done."""
        with self.beside():
            return bool(self.stream.done)

    def record_event(self, event: Event | None = None) -> Event:
        """An event that marks what has been asked of it so far."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Have what comes later wait for an event."""
        if event.event is not None:
            with self.beside():
                self.stream.wait_event(event.event)

    def wait_stream(self, other: Stream) -> None:
        """Have what comes later wait for all that another stream has been asked so far."""
        self.wait_event(other.record_event())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.device, self.cuda_stream) == (other.device, other.cuda_stream)

    def __hash__(self) -> int:
        return hash((self.device, self.cuda_stream))


def current_stream(device: Any = None) -> Stream:
    """The stream that work goes to now."""
    return Stream(device, of=_on(device, lambda xp: xp.cuda.get_current_stream()))


class stream:
    """A context in which work goes to a stream, on its device."""

    def __init__(self, stream: Stream) -> None:
        self.given = stream
        self._device = device(stream.device)

    def __enter__(self) -> Stream:
        self._device.__enter__()
        self.given.stream.__enter__()
        return self.given

    def __exit__(self, *error: object) -> None:
        self.given.stream.__exit__(*error)
        self._device.__exit__()


def is_current_stream_capturing() -> bool:
    """Whether work is being captured into a graph, in this thread."""
    return capture.current() is not None


# Memory


def memory_allocated(device: Any = None) -> int:
    """Bytes that arrays on the device hold."""
    return _on(device, lambda xp: int(xp.get_default_memory_pool().used_bytes()))


def memory_reserved(device: Any = None) -> int:
    """Bytes that the pool has taken from the device, for arrays now and later."""
    return _on(device, lambda xp: int(xp.get_default_memory_pool().total_bytes()))


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that the pool has held since it was last emptied: an upper bound of what arrays held at once, which CuPy
    does not count."""
    return memory_reserved(device)


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """(free, all) bytes of the device's memory, whoever uses it."""
    free, total = _on(device, lambda xp: xp.cuda.Device().mem_info)
    return int(free), int(total)


def empty_cache() -> None:
    """Give what the pools keep for later back to the devices."""
    if is_available():
        for index in range(device_count()):
            _on(index, lambda xp: xp.get_default_memory_pool().free_all_blocks())
        gpu.xp().get_default_pinned_memory_pool().free_all_blocks()


def pin_memory(x: Tensor) -> Tensor:
    """A copy of a tensor of the CPU in page-locked memory, from which `x.to("cuda", non_blocking=True)` does not wait."""
    if x.device != CPU or x.dtype.kind == "block":
        raise ArgumentError(f"pin_memory: expected a plain tensor on the CPU, got {x.dtype.name} on {x.device}")
    _index(None)  # raises where there is no GPU
    return Tensor(gpu.pinned(np.ascontiguousarray(x.storage)), x.dtype)


def is_pinned(x: Tensor) -> bool:
    """Whether a tensor lies in memory of `pin_memory`."""
    return x.device == CPU and gpu.is_pinned(x.storage)
