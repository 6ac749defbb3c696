"""`jit`: numba.njit that is not imported before the first call, so that a rung can be listed, explained and refused at no cost.

Kernels write `prange` and call other `@jit` functions as usual. A name that stands for a `PerFormat` (a type, a constant)
has the value that goes with the format a kernel is compiled for: such kernels, and all that call them, are compiled once
for float32 and once for float64. Compiled code is cached on disk, under a name that changes with the files of helpers,
since Numba's cache sees changes in a kernel's own file only. In a forked child kernels are compiled anew for one thread:
the parent's OpenMP threads are not there.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ulpgrad import settings

prange = range  # the name kernels use; the real one takes its place when a kernel is compiled


class PerFormat(NamedTuple):
    """What a name means in a kernel of float32, and in one of float64."""

    float32: Any
    float64: Any


class Jit:
    """A function that becomes a Numba dispatcher, or one for each format, when first called."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function, self.options = function, options
        self.compiled: dict[str, Callable[..., Any]] = {}
        self.inner: dict[str, Callable[..., Any]] = {}  # for kernels that call it: Python cannot

    def named(self) -> Iterator[tuple[str, Any]]:
        """The globals that the function names."""
        scope = self.function.__globals__
        return ((name, scope[name]) for name in self.function.__code__.co_names if name in scope)

    @functools.cached_property
    def helpers(self) -> frozenset[Jit]:
        """Itself, and all kernels that it calls, or they do."""
        return frozenset({self}).union(*(value.helpers for _, value in self.named() if isinstance(value, Jit)))

    @functools.cached_property
    def has_formats(self) -> bool:
        return any(isinstance(value, PerFormat) for helper in self.helpers for _, value in helper.named())

    def compile(self, form: str = "", inner: bool = False) -> Callable[..., Any]:
        """Import Numba, compile what this function calls, and return its dispatcher. `form`: where formats matter. inner: without
        the entry for Python, which takes time to compile."""
        form = form if self.has_formats else ""
        compiled = self.inner if inner else self.compiled
        if form not in compiled:
            numba = _numba()
            scope = dict(self.function.__globals__)
            for name, value in self.named():
                if isinstance(value, Jit):
                    scope[name] = value.compile(form, inner=True)
                elif isinstance(value, PerFormat):
                    scope[name] = getattr(value, form)
                elif value is range and name == "prange":
                    scope[name] = numba.prange
            options = {**self.options, "no_cfunc_wrapper": True, "no_cpython_wrapper": inner}
            options |= {"parallel": False, "cache": False} if _forked else {}
            compiled[form] = numba.njit(**options)(self._copy(scope, form, inner))
            _compiled.append(self)
        return compiled[form]

    def _copy(self, scope: dict[str, Any], form: str, inner: bool) -> Callable[..., Any]:
        """The function among other globals, under the name by which its compiled code is found again."""
        code = self.function.__code__
        copy = types.FunctionType(code, scope, code.co_name, self.function.__defaults__)
        elsewhere = {helper.function.__code__.co_filename for helper in self.helpers} - {code.co_filename}
        import hashlib  # which loads a library of several milliseconds

        digest = hashlib.sha256(b"".join(Path(file).read_bytes() for file in sorted(elsewhere))).hexdigest()[:8]
        parts = (self.function.__qualname__, form, "inner" if inner else "", digest if elsewhere else "")
        copy.__qualname__ = "_".join(filter(None, parts))
        return copy

    def __call__(self, *args: Any) -> Any:
        """Run on these arguments; the first is an array, where formats matter."""
        form = args[0].dtype.name if self.has_formats else ""
        run = self.compiled.get(form) or self.compile(form)
        with _turn:
            return run(*map(_writable, args))


class _Unlocked:
    """An array's memory, as if it could be written to."""

    def __init__(self, array: Any) -> None:
        given = array.__array_interface__
        self.array, self.__array_interface__ = array, {**given, "data": (given["data"][0], False)}


def _writable(value: Any) -> Any:
    """An array that cannot be written to is a type of its own to Numba, which would compile anew for each mixture of them."""
    return np.asarray(_Unlocked(value)) if type(value) is np.ndarray and not value.flags.writeable else value


_compiled: list[Jit] = []
_forked = False
_turn: contextlib.AbstractContextManager[object] = contextlib.nullcontext()  # of threads that call kernels


def _after_fork() -> None:
    """Let the child compile its kernels anew, for one thread."""
    global _forked, _turn
    _forked, _turn = True, contextlib.nullcontext()
    while _compiled:
        function = _compiled.pop()
        function.compiled.clear()
        function.inner.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def _numba() -> Any:
    numba: Any = importlib.import_module("numba")
    if "THREADING_LAYER" not in numba.config.__dict__ or numba.config.THREADING_LAYER == "default":
        numba.config.THREADING_LAYER = _layer()
    if not _forked:
        _limit(numba, settings.num_threads() if _threads is None else _threads)
    return numba


_threads: int | None = None


def _layer() -> str:
    """OpenMP, which several Python threads may call at once. Where it is not installed, as beside a C compiler it would be,
    Numba's own threads, which end the process if called so: then kernels take turns.

    GNU's threads wait for each other in loops of some milliseconds, as long as a time slice: where other processes want the
    cores, the one that is waited for does not run meanwhile. They get its own number for that case, unless one is chosen.
    """
    global _turn
    is_chosen = "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ
    if not is_chosen:
        os.environ["GOMP_SPINCOUNT"] = "1000"  # read when the library is loaded
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:
        _turn = threading.Lock()
        return "workqueue"
    finally:
        if not is_chosen:
            del os.environ["GOMP_SPINCOUNT"]
    return "omp"


def _limit(numba: Any, count: int) -> None:
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))


def set_num_threads(count: int) -> None:
    """Threads that parallel Numba kernels use, from their first call on."""
    global _threads
    _threads = count
    if _numba.cache_info().currsize:
        _limit(_numba(), count)


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
