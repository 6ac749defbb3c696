"""What a capture of GPU work into a graph asks of all below it: nothing goes to the host, and what comes from it is set apart.

While a graph is captured (`ulpgrad.cuda.graph`), calls are recorded and not run. A value of the host that a kernel reads is then
one of three: a constant, which is copied at once and kept as long as the graph; a number that the host changes from run to run (a
learning rate, the count of steps), which is copied anew before each replay; or data, which is refused, since every replay would
read what it was at the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ulpgrad.errors import CaptureError
from ulpgrad.kernels import gpu, native
from ulpgrad.kernels.random.philox import packed


class Capture:
    """What one graph keeps: arrays, and what the host does before and after a replay."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.side = gpu.xp().cuda.Stream(non_blocking=True)
        self.arrays: list[Any] = []
        self.before: list[Callable[[], None]] = []
        self.after: list[Callable[[], None]] = []
        self.draws: dict[tuple[int, int], Any] = {}  # key and counter of each draw, in the memory that its kernels read
        self.unread: set[tuple[int, int]] = set()
        self.undo: list[Callable[[], None]] = []  # what the host has counted meanwhile, though nothing has run
        self.settings: Callable[[], dict[str, Any]] | None = (
            None  # of the optimizer that is stepping: an op's keywords, now
        )
        self._last: Any = None  # an event behind the last replay

    def __enter__(self) -> Capture:
        gpu.state.capture = self
        _count(1)
        return self

    def __exit__(self, *_: object) -> None:
        gpu.state.capture = None
        _count(-1)

    def replayed(self, event: Any) -> None:
        """Note that a replay is under way, and the event behind it."""
        self._last = event

    def follow(self) -> None:
        """Have the current stream wait for the last replay, before what that one reads is written anew."""
        if self._last is not None:
            gpu.xp().cuda.get_current_stream().wait_event(self._last)

    @property
    def was_replayed(self) -> bool:
        return self._last is not None

    def is_done(self) -> bool:
        """Whether the last replay has ended."""
        return self._last is not None and bool(self._last.done)

    def wait(self) -> None:
        """Wait for the last replay. CaptureError if there was none."""
        if self._last is None:
            raise CaptureError("what a graph finds out was read before it ran: call replay() first")
        self._last.synchronize()

    def upload(self, values: Any) -> Any:
        """Numbers of the host in memory that the graph reads and nothing in it writes, copied now, beside what is captured."""
        with self.side:
            there = gpu.xp().asarray(values)
            self.side.synchronize()
        self.arrays.append(there)
        return there

    def reach(self, arrays: Iterable[Any]) -> None:
        """Keep arrays that a kernel finds by addresses in a table."""
        found = list(arrays)
        self.arrays += found
        if gpu.mode() == "emulated":
            from ulpgrad.kernels.emulated_streams import recording

            recorder = recording()
            if recorder is not None:
                recorder.touch(a.host for a in found)

    def draw(
        self, stream: tuple[int, int], take: Callable[[], tuple[int, int]], set_state: Callable[[Any], None]
    ) -> None:
        """Note a draw of random numbers. `take()` takes the next words out of the stream, and tells key and counter; each replay
        does, and writes them where kernels read them."""
        there = self.upload(packed(*stream))
        self.draws[stream] = there
        self.unread.add(stream)
        self.undo.append(lambda: set_state({"seed": stream[0], "position": stream[1]}))
        self.before.append(lambda: there.__setitem__(..., gpu.xp().asarray(packed(*take()))))

    def number(self, values: Callable[[], Any]) -> Any:
        """An array on the device that holds, at each replay, what `values()` gives then: a NumPy array of one shape and type."""
        last = values()
        there = self.upload(last)

        def refresh() -> None:
            nonlocal last
            new = values()
            if new.tobytes() != last.tobytes():
                last = new
                there[...] = gpu.xp().asarray(new)

        self.before.append(refresh)
        return there


def _count(change: int) -> None:
    """Tell functions that remember their calls that a capture begins or ends: meanwhile they run as they stand."""
    if native.missing() is None:
        native.module().capture_calls(change)


def current() -> Capture | None:
    """What is being captured in this thread now."""
    found: Capture | None = gpu.state.capture
    return found


def refuse(what: str, instead: str) -> None:
    """CaptureError for what a capture cannot hold, if one is under way."""
    if gpu.state.capture is not None:
        raise CaptureError(f"{what} cannot be captured in a graph: {instead}")


def constant(values: Any, index: int) -> Any:
    """A NumPy array in the memory of a GPU, where nobody writes to it again."""
    capture = current()
    return gpu.to_device(values, index) if capture is None else capture.upload(values)


def kept(array: Any) -> Any:
    """An array that a cache holds: a capture that uses it keeps it too."""
    if gpu.state.capture is not None:
        gpu.state.capture.arrays.append(array)
    return array


__all__ = ["Capture", "constant", "current", "kept", "refuse"]
