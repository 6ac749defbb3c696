"""The C++ extension, if it was built and is wanted. Rungs call `native.module().function(...)`."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from typing import Any

from ulpgrad import settings
from ulpgrad.errors import KernelError, StaleExtensionWarning

IMPORTED = ("Remembered", "forget_calls", "remember_calls", "set_cache_limit", "set_num_threads")  # what import needs
REBUILD = "build it again: `make dev` in a checkout, `pip install --force-reinstall ulpgrad` elsewhere"


@cache
def _load() -> tuple[Any | None, str | None]:
    if settings.get("ULPGRAD_NATIVE") == "0":
        return None, "ULPGRAD_NATIVE=0 leaves the C++ extension unused"
    try:
        _native: Any = importlib.import_module("ulpgrad._native")
    except ImportError as error:
        return (
            None,
            f"the C++ extension was not built ({error}): install a C++ compiler, then `pip install --force-reinstall ulpgrad`",
        )
    lacking = [name for name in IMPORTED if not hasattr(_native, name)]
    if lacking:
        stale = f"the C++ extension is older than the sources beside it (it lacks {', '.join(lacking)}); {REBUILD}"
        warnings.warn(f"{stale}. Until then slower kernels are used", StaleExtensionWarning, stacklevel=2)
        return None, stale
    _native.__getattr__ = _lacking
    _native.set_num_threads(settings.num_threads())
    _native.set_cache_limit(settings.cache_bytes())
    return _native, None


def _lacking(name: str) -> Any:
    """What looking for a function comes to that the extension does not have."""
    if name.startswith("__"):
        raise AttributeError(name)
    raise KernelError(f"the C++ extension is older than the sources beside it (it lacks {name}); {REBUILD}")


def missing() -> str | None:
    """None if the extension is usable, else why not."""
    return _load()[1]


@cache
def module() -> Any:
    """The extension module. Only for rungs that declare requires=("native",)."""
    loaded = _load()[0]
    assert loaded is not None, _load()[1]
    return loaded
