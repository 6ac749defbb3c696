"""What a call takes beside time: the memory it adds at its peak, and energy where the machine counts it."""

from __future__ import annotations

import contextlib
import ctypes
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulpgrad.kernels import memory

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PEAK = "5"  # written to RESET: the peak of resident memory begins anew
PR_SET_THP_DISABLE = 41  # linux/prctl.h
GRAIN = 256 << 10  # bytes that become resident for other reasons: code and tables that are touched for the first time
POWERCAP = Path("/sys/class/powercap")


def peak_bytes(call: Callable[[], Any], *, counted: bool) -> int | None:
    """Most bytes that a call held at once beyond what was there before it, its results among them.

    Resident memory, in pages, by the system's own count. `counted`: to the byte by Python and NumPy, for calls whose memory
    those see, unless clearly more became resident: buffers of C++ code. None where nothing is known.
    """
    memory.empty_cache()
    _trim()
    with _small_pages():
        resident = _resident(call)
    if not counted:
        return resident
    tracemalloc.start()
    try:
        call()
        traced = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return traced if resident is None or resident < traced + GRAIN else resident


def _resident(call: Callable[[], Any]) -> int | None:
    try:
        RESET.write_text(PEAK)
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)
    except OSError:
        call()
        return None


def _status(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


@contextlib.contextmanager
def _small_pages() -> Iterator[None]:
    """Without huge pages: one that is touched at its edge would count whole, 2 MiB of which nobody asked for a byte."""
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):  # only Linux has it
        yield
        return
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0)


def _trim() -> None:
    """Give what the C library keeps for later back to the system, so that taking it again shows."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@dataclass(frozen=True)
class Domain:
    """A counter of microjoules that begins anew after `top`."""

    counter: Path
    top: int


class Energy:
    """The processor packages' counters (RAPL). They count all that runs on them, so the machine must have nothing else to do."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self.domains = []
        for folder in sorted(root.glob("intel-rapl:?")):  # packages; their parts are intel-rapl:0:0
            with contextlib.suppress(OSError, ValueError):
                domain = Domain(folder / "energy_uj", int((folder / "max_energy_range_uj").read_text()))
                self._read(domain)
                self.domains.append(domain)

    def read(self) -> tuple[int, ...]:
        """All counters now."""
        return tuple(self._read(domain) for domain in self.domains)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float | None:
        """Between two readings; None where the machine has no counter that may be read."""
        if not self.domains:
            return None
        tops = (domain.top for domain in self.domains)
        return sum((b - a) % (top + 1) for a, b, top in zip(before, after, tops, strict=True)) / 1e6

    @staticmethod
    def _read(domain: Domain) -> int:
        return int(domain.counter.read_text())


__all__ = ["Energy", "peak_bytes"]
