"""Arrays on a GPU: CuPy's, or the emulated ones of `kernels/emulated.py`, as ULPGRAD_CUDA says."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from ulpgrad import settings
from ulpgrad.errors import ArgumentError, CaptureError
from ulpgrad.kernels import native

MODES = ("", "emulated", "ptx", "compile")


class _State(threading.local):
    """What of a thread's work on GPUs is not CuPy's: the graph that it is captured into (`kernels/capture.py`), and what it has
    asked a device and not looked at."""

    capture: Any = None
    rehearsed: set[Any] | None = None  # draws of random numbers, where what runs is going to be captured
    goes_on: bool = False  # while copies from page-locked memory run
    heard: list[Any] | None = None  # memory and launches, while somebody writes them down (`kernels/replay.py`)
    questions: list[Any]

    def __init__(self) -> None:
        self.questions = []  # of kernels/deferred.py


state = _State()
_held: deque[tuple[Any, Any]] = deque()  # events, and memory of the host that copies before them use
_holding = threading.Lock()


@cache
def mode() -> str:
    """How GPU code runs: "" on a device, "emulated" on the host, "compile" not at all (kernels are compiled only)."""
    given = settings.get("ULPGRAD_CUDA")
    if given not in MODES:
        raise ArgumentError(f"ULPGRAD_CUDA={given!r}: expected nothing (the device), 'emulated', 'ptx' or 'compile'")
    return "emulated" if given == "ptx" else given


def setting() -> str:
    """How GPU code runs where no device is used, as one sets it."""
    return f"ULPGRAD_CUDA={settings.get('ULPGRAD_CUDA')}"


@cache
def runs_ptx() -> bool:
    """Whether the emulated device runs what kernels compile to (`kernels/ptx`), instead of their source."""
    return settings.get("ULPGRAD_CUDA") == "ptx"


@cache
def xp() -> Any:
    """The module of array functions: `cupy`, or what stands in for it."""
    if mode():
        from ulpgrad.kernels import emulated

        found: Any = emulated.module
        if runs_ptx():
            from ulpgrad.kernels.ptx import launch

            launch.watch(emulated.ndarray)
    else:
        import cupy

        found = cupy
    if native.missing() is None and mode() != "compile":
        cuda = found.cuda
        native.module().remember_device(
            found.ndarray, cuda.MemoryPointer, cuda.runtime.getDevice, cuda.get_current_stream,
            lambda shape, dtype: found.empty(shape, dtype), _start(found),
        )  # fmt: skip
    return found


def _start(found: Any) -> Any:
    """What CuPy's class of arrays calls on a new one, with shape and dtype: half the time of `empty`. None if not known."""
    return getattr(found.ndarray, "_init", None) if not mode() and found.__version__.startswith("14.") else None


def empty(shape: Any, dtype: Any) -> Any:
    """New memory on the current device, whose values are not set."""
    made = xp().empty(shape, dtype)
    if state.heard is not None:
        state.heard.append(made)
    return made


def is_array(value: Any) -> bool:
    """Whether it is an array on a GPU."""
    if isinstance(value, np.ndarray) or type(value).__name__ != "ndarray":
        return False
    return bool(mode() or "cupy" in sys.modules) and isinstance(value, xp().ndarray)


def contiguous(array: Any) -> Any:
    """The array in C order, copied if need be."""
    return array if array.flags.c_contiguous else xp().ascontiguousarray(array)


def copied(array: Any) -> Any:
    """A new array in C order."""
    with on_device(array.device.id):
        return xp().array(array, copy=True, order="C")


def flat(array: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The values as one contiguous row, in the order of memory where they fill it, and a function that gives a row of results
    the shape and layout of the array."""
    if array.flags.c_contiguous:
        return array.reshape(-1), lambda out: out.reshape(array.shape)
    axes = sorted(range(array.ndim), key=lambda i: -array.strides[i])
    turned = array.transpose(axes)
    if not turned.flags.c_contiguous:
        return contiguous(array).reshape(-1), lambda out: out.reshape(array.shape)
    back = sorted(range(array.ndim), key=axes.__getitem__)
    return turned.reshape(-1), lambda out: out.reshape(turned.shape).transpose(back)


def to_device(array: Any, index: int = 0) -> Any:
    """The array on the device of that number: itself if it is there, else a copy. Blocks part by part."""
    if hasattr(array, "codes"):
        return array.on(lambda part: to_device(part, index))
    if state.capture is not None and isinstance(array, np.ndarray):
        raise CaptureError(
            f"an array of the host of shape {array.shape} cannot be moved to cuda:{index} while a graph is captured: each replay "
            "would read what it holds now; make a tensor there before, and copy new values into it between replays"
        )
    with xp().cuda.Device(index):
        there = xp().asarray(array if isinstance(array, np.ndarray) or array.device.id == index else to_host(array))
        if is_pinned(array):
            if state.goes_on:
                hold(array)
            else:  # the memory may be written to as soon as the caller has its copy
                xp().cuda.get_current_stream().synchronize()
        return there


def to_host(array: Any) -> Any:
    """A NumPy array of the same values; what lies on the host as it is. Blocks part by part."""
    if array.__class__ is np.ndarray:
        return array
    if hasattr(array, "codes"):
        return array.on(to_host)
    if isinstance(array, (np.ndarray, np.generic)) or not hasattr(array, "device"):
        return array
    if state.capture is not None:
        raise CaptureError(
            f"an array of shape {tuple(array.shape)} on cuda:{array.device.id} cannot be read by the host while a graph is "
            "captured (by item(), numpy(), a comparison in an if, printing): nothing has run yet; return the tensor, and read it "
            "after replay()"
        )
    with xp().cuda.Device(array.device.id):
        found = array.get()
    if state.questions:
        from ulpgrad.kernels import deferred

        deferred.look()
    return found


def pinned(array: Any) -> Any:
    """A copy of a NumPy array in page-locked memory, which a device reads while the host goes on."""
    memory = xp().cuda.alloc_pinned_memory(max(array.nbytes, 1))
    out = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
    out[...] = array
    return out


@contextlib.contextmanager
def going_on(wanted: bool = True) -> Iterator[None]:
    """A block in which the host does not wait for copies from page-locked memory, if that is `wanted`."""
    before, state.goes_on = state.goes_on, wanted
    try:
        yield
    finally:
        state.goes_on = before


def hold(array: Any, event: Any = None) -> None:
    """Keep page-locked memory until what the current stream has been asked so far, or `event` behind it, is done: copies run on
    when the caller lets go of it, and CuPy's pool would give it to the next that asks."""
    if event is None:
        event = xp().cuda.Event(disable_timing=True)
        event.record()
    with _holding:
        while _held and _held[0][0].done:
            _held.popleft()
        _held.append((event, array))


def is_pinned(array: Any) -> bool:
    """Whether a NumPy array lies in memory made by `pinned`."""
    while isinstance(array, np.ndarray):
        array = array.base
    if isinstance(array, memoryview):
        array = array.obj
    return type(array).__name__ == "PinnedMemoryPointer"


def on_device(index: int) -> Any:
    """A context in which the device of that number is the current one."""
    cuda = xp().cuda
    return contextlib.nullcontext() if cuda.runtime.getDevice() == index else cuda.Device(index)


def queue(index: int | None = None) -> tuple[int, int]:
    """A device (the current one) and its current stream, as numbers: what a cache of arrays that come from the host hangs on,
    since another stream would not wait for their copies."""
    cuda = xp().cuda
    here = int(cuda.runtime.getDevice())
    if index is None or index == here:
        return here, int(cuda.get_current_stream().ptr)
    with cuda.Device(index):
        return index, int(cuda.get_current_stream().ptr)


def count() -> int:
    """How many devices there are."""
    return int(xp().cuda.runtime.getDeviceCount())


def capability() -> int:
    """The compute capability that kernels are chosen for, as in 90: of the current device; where they are only compiled, the
    lowest that they are compiled for."""
    if mode() == "compile":
        from ulpgrad.kernels import triton_compile

        return min(triton_compile.architectures())
    return int(xp().cuda.Device().compute_capability)


SMALL_FROM = 120  # the capability from which on cards have 99 KiB of shared memory, and matrix units like sm_89's


def generation() -> int:
    """The compute capability whose sizes of tiles fit the current device: its own, but 89 for small cards of newer ones."""
    found = capability()
    return 89 if found >= SMALL_FROM else found


def processors() -> int:
    """How many multiprocessors the current device has."""
    return int(xp().cuda.Device().attributes["MultiProcessorCount"])


__all__ = [
    "MODES",
    "capability",
    "contiguous",
    "copied",
    "count",
    "empty",
    "flat",
    "generation",
    "going_on",
    "hold",
    "is_array",
    "is_pinned",
    "mode",
    "on_device",
    "pinned",
    "processors",
    "queue",
    "runs_ptx",
    "setting",
    "state",
    "to_device",
    "to_host",
    "xp",
]
