"""CUDA graphs: work that is captured once and replayed by one call of the host, for steps whose kernels take less time than their
launch.

While a graph is captured nothing runs: calls are recorded, with the memory that they were given. A replay runs all of it again,
in the same memory. Hence what `CaptureError` refuses: reading values on the host, data that comes from the host, kernels that are
not loaded yet. What the host counts (an optimizer's steps and learning rates, the loss scale, the place in a stream of random
numbers) is counted at each replay, and copied to where the graph reads it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ulpgrad.device import CPU, Device, current, device_of
from ulpgrad.errors import ArgumentError, CaptureError
from ulpgrad.kernels import deferred, gpu
from ulpgrad.kernels.capture import Capture
from ulpgrad.ops.creation import copy as copy_of
from ulpgrad.ops.transfer import to_device
from ulpgrad.tensor import Tensor

__all__ = ["CUDAGraph", "Graphed", "graph", "make_graphed"]


class _Kept:
    """Memory of the device for a pool, which stays as long as the pool. CuPy's pools give free blocks back when memory runs
    short; in a graph's pool they are the results between its kernels, which every replay writes again."""

    def __init__(self) -> None:
        self._memory: list[Any] = []

    def __call__(self, size: int) -> Any:
        cuda = gpu.xp().cuda
        made = cuda.MemoryPointer(cuda.Memory(size), 0)
        self._memory.append(made.mem)
        return made


class CUDAGraph:
    """Captured work: `with ulpgrad.cuda.graph(g): ...`, then `g.replay()`.

    It keeps the memory that the captured work took for its results, from a pool of its own. Tensors that were there before must
    be kept by the caller as long as the graph is replayed, as torch has it too.
    """

    def __init__(self) -> None:
        self._graph: Any = None
        self._capture: Capture | None = None
        self._pool: Any = None
        self._device = CPU

    def pool(self) -> Any:
        """The memory pool of its results, for other captures that are never replayed at the same time: `graph(g, pool=...)`."""
        if self._pool is None:
            self._pool = gpu.xp().cuda.MemoryPool(_Kept())
        return self._pool

    def replay(self) -> None:
        """Run what was captured, once more, in the current stream. CaptureError if nothing was, or if settings that are compiled
        into kernels have changed since."""
        if self._graph is None or self._capture is None:
            raise CaptureError(
                "CUDAGraph: nothing has been captured: with ulpgrad.cuda.graph(g): ... comes before g.replay()"
            )
        if gpu.state.capture is not None:
            raise CaptureError("CUDAGraph: a replay cannot be captured in another graph")
        deferred.look()
        self._follow()
        with current(self._device):
            for prepare in self._capture.before:
                prepare()
            cuda = gpu.xp().cuda
            self._graph.launch(stream=cuda.get_current_stream())
            event = cuda.Event(disable_timing=True)
            event.record()
            self._capture.replayed(event)
            for note in self._capture.after:
                note()

    def _follow(self) -> None:
        """Have the current stream wait for the last replay."""
        if self._capture is not None:
            with current(self._device):
                self._capture.follow()

    def reset(self) -> None:
        """Forget what was captured, and let its memory go."""
        if self._capture is not None and self._capture.was_replayed:
            self._capture.wait()
        self._graph = self._capture = self._pool = None


class graph:
    """A context whose GPU work is captured into a graph and does not run.

    `stream`: where it is captured (a new one unless given); `pool`: another graph's, to share memory. Run the same work once or
    twice before, so that its kernels are compiled. Raises CaptureError where it cannot be captured, with what to do.
    """

    def __init__(self, cuda_graph: CUDAGraph, pool: Any = None, stream: Any = None) -> None:
        self.graph = cuda_graph
        if pool is not None:
            cuda_graph._pool = pool
        self._given = stream
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> CUDAGraph:
        if gpu.state.capture is not None:
            raise CaptureError("graph: a capture is under way already in this thread")
        if self.graph._graph is not None:
            raise CaptureError("graph: this graph has been captured: reset() it, or take a new one")
        cuda = gpu.xp().cuda
        index = int(cuda.runtime.getDevice()) if self._given is None else self._given.device.index
        self.graph._device = Device("cuda", index)
        with contextlib.ExitStack() as stack:
            stack.enter_context(current(self.graph._device))
            self.stream = cuda.Stream(non_blocking=True) if self._given is None else self._given.stream
            stack.enter_context(cuda.using_allocator(self.graph.pool().malloc))
            self._capture = Capture(index)
            stack.enter_context(self.stream)
            self.stream.begin_capture(mode=cuda.runtime.streamCaptureModeRelaxed)
            stack.enter_context(self._capture)
            self._stack = stack.pop_all()
        return self.graph

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        gpu.state.capture = None
        for undo in reversed(self._capture.undo):
            undo()
        try:
            found = self._end(error)
            if self._capture.unread:
                raise CaptureError(
                    "random numbers that are drawn on the CPU cannot be captured in a graph: every replay would read those; draw "
                    "on the GPU, or before, into a tensor that the graph reads"
                )
        finally:
            self._stack.close()
        self.graph._graph, self.graph._capture = found, self._capture

    def _end(self, error: BaseException | None) -> Any:
        """The captured graph; the error that ended it otherwise, in our words where it is CUDA's."""
        try:
            found = self.stream.end_capture()
        except Exception as broken:  # CUDA's, of a capture that something in it has made invalid
            if error is None:
                raise _translated(broken) from broken
            found = None
        if error is None:
            return found
        if not isinstance(error, CaptureError) and "apture" in str(error):
            raise _translated(error) from error
        raise error


def _translated(error: BaseException) -> CaptureError:
    return CaptureError(
        f"something in this block cannot be captured in a graph ({error}): the host read a value, waited for the device, or "
        "moved pageable memory there; the traceback says where"
    )


class Graphed:
    """A function of tensors that is captured when it has run a few times, and replayed from then on. See `make_graphed`."""

    def __init__(self, function: Callable[..., Any], warmup: int = 2, pool: Any = None) -> None:
        if not callable(function) or not isinstance(warmup, int) or warmup < 1:
            raise ArgumentError(
                "make_graphed: expected a function and at least one call before the capture, got "
                f"{function!r:.60}, warmup={warmup!r}"
            )
        self.function, self.warmup, self._pool = function, warmup, pool
        self._known: dict[Any, _Known] = {}

    def __call__(self, *tensors: Tensor) -> Any:
        """What the function returns; from its capture on the same tensors at every call, with new values. `tensors` are copied to
        where the graph reads them."""
        for x in tensors:
            if not isinstance(x, Tensor) or x.requires_grad:
                raise ArgumentError(
                    "make_graphed: expected tensors that require no gradient as arguments; what else the function needs, it may "
                    "hold"
                )
        here = Device("cuda", int(gpu.xp().cuda.runtime.getDevice()))
        kinds = ((x.shape, x.dtype, here if x.device == CPU else x.device) for x in tensors)
        known = self._known.setdefault((here, *kinds), _Known())
        if known.calls < self.warmup:
            known.calls += 1
            gpu.state.rehearsed = set()  # kernels are compiled as the graph launches them
            try:
                return self.function(*(_there(x) for x in tensors))
            finally:
                gpu.state.rehearsed = None
        if known.graph is None:
            known.inputs = [copy_of(_there(x)) for x in tensors]
            captured = CUDAGraph()
            with graph(captured, pool=self._pool):
                known.outputs = self.function(*known.inputs)
            known.graph = captured
        known.graph._follow()  # which may still read the values of the call before, in another stream
        for static, given in zip(known.inputs, tensors, strict=True):
            with current(device_of(static.storage)):
                static.storage[...] = _there(given).storage
        known.graph.replay()
        return known.outputs


class _Known:
    """What a Graphed knows of arguments of one kind."""

    def __init__(self) -> None:
        self.calls = 0
        self.graph: CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.outputs: Any = None


def _there(x: Tensor) -> Tensor:
    """A tensor on the GPU: a copy where it lies on the CPU."""
    return x if x.device != CPU else to_device(x, Device("cuda", int(gpu.xp().cuda.runtime.getDevice())))


def make_graphed(function: Callable[..., Any], warmup: int = 2, pool: Any = None) -> Graphed:
    """A function of tensors, such as a whole training step, that runs as a CUDA graph.

        @ug.cuda.make_graphed
        def step(x, y):
            loss = ug.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

    Its first `warmup` calls for each kind of arguments (shapes and formats) run as they are, which compiles kernels and makes the
    optimizer's state; the next one captures it, and from then on a call copies its arguments and replays. Results are the same
    bits. What the function decides on the host, it decides once; losses that it returns are overwritten by the next call. Raises
    CaptureError where it cannot be captured.
    """
    return Graphed(function, warmup, pool)
