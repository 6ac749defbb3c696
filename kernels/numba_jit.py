"""`jit`: numba.njit that is not imported before the first call, so that a rung can be listed, explained and refused at no cost.

Kernels write `prange` and call other `@jit` functions of the same file as usual. Compiled code is cached on disk; since
Numba's cache does not see changes in imported helpers, a kernel's helpers stand in its own file. In a forked child kernels
are compiled anew for one thread: the parent's OpenMP threads are not there.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

from ulpgrad import settings

prange = range  # the name kernels use; the real one takes its place when a kernel is compiled


class Jit:
    """A function that becomes a Numba dispatcher when first called."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function, self.options = function, options
        self.compiled: Callable[..., Any] | None = None

    def compile(self) -> Callable[..., Any]:
        """Import Numba, compile what this function calls, and return its dispatcher."""
        if self.compiled is None:
            numba = _numba()
            scope = self.function.__globals__
            for name in self.function.__code__.co_names:
                if isinstance(scope.get(name), Jit):
                    scope[name] = scope[name].compile()
                elif scope.get(name) is range and name == "prange":
                    scope[name] = numba.prange
            options = {**self.options, "parallel": False, "cache": False} if _forked else self.options
            self.compiled = numba.njit(**options)(self.function)
            _compiled.append(self)
        return self.compiled

    def __call__(self, *args: Any) -> Any:
        return (self.compiled or self.compile())(*args)


_compiled: list[Jit] = []
_forked = False


def _after_fork() -> None:
    """Let the child compile its kernels anew, for one thread."""
    global _forked
    _forked = True
    while _compiled:
        _compiled.pop().compiled = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def _numba() -> Any:
    numba: Any = importlib.import_module("numba")
    if "THREADING_LAYER" not in numba.config.__dict__ or numba.config.THREADING_LAYER == "default":
        numba.config.THREADING_LAYER = (
            "omp"  # shares its threads with the C++ kernels; safe from several Python threads
        )
    if not _forked:
        numba.set_num_threads(min(settings.num_threads(), numba.config.NUMBA_NUM_THREADS))
    return numba


def set_num_threads(count: int) -> None:
    """Threads that parallel Numba kernels use."""
    numba = _numba()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))


def jit(
    *, parallel: bool = False, fastmath: bool | set[str] = False, cache: bool = True, **options: Any
) -> Callable[[Callable[..., Any]], Jit]:
    """Decorator: compile with Numba at the first call. Options are numba.njit's; compiled code is cached on disk."""

    def wrap(function: Callable[..., Any]) -> Jit:
        return Jit(
            function,
            {
                "parallel": parallel,
                "fastmath": fastmath,
                "cache": cache,
                "nogil": True,
                "error_model": "numpy",
                **options,
            },
        )

    return wrap
