"""The C++ extension, if it was built and is wanted. Rungs call `native.module().function(...)`."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from ulpgrad import settings


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
    _native.set_num_threads(settings.num_threads())
    _native.set_cache_limit(settings.cache_bytes())
    return _native, None


def missing() -> str | None:
    """None if the extension is usable, else why not."""
    return _load()[1]


@cache
def module() -> Any:
    """The extension module. Only for rungs that declare requires=("native",)."""
    loaded = _load()[0]
    assert loaded is not None, _load()[1]
    return loaded
