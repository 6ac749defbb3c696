"""How many threads kernels use, C++ and Numba alike. Results do not depend on it."""

from __future__ import annotations

from ulpgrad import settings
from ulpgrad.errors import ArgumentError
from ulpgrad.kernels import native, numba_jit

_count: int | None = None

native.missing()  # loads the extension (3 ms): what others limit OpenMP to from now on reaches it


def get_num_threads() -> int:
    """Threads that kernels use now."""
    return settings.num_threads() if _count is None else _count


def set_num_threads(count: int) -> None:
    """Let kernels use `count` threads (at least 1; not more than the cores of this process are of use)."""
    global _count
    if not isinstance(count, int) or count < 1:
        raise ArgumentError(f"set_num_threads: expected a whole number of at least 1, got {count!r}")
    _count = count
    if native.missing() is None:
        native.module().set_num_threads(count)
    numba_jit.set_num_threads(count)
