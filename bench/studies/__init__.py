"""Studies: experiments that train, compare and report. Each is a package here with `Options`, `run`, `table`, `page`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from types import ModuleType

from ulpgrad.errors import ArgumentError


def names() -> list[str]:
    """All studies."""
    return [info.name for info in pkgutil.iter_modules(__path__) if info.ispkg]


def load(name: str) -> ModuleType:
    """The study of that name. ArgumentError with the nearest names otherwise."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 3) or names()
        raise ArgumentError(f"there is no study {name!r}; did you mean {', '.join(near)}?")
    return importlib.import_module(f"{__name__}.{name}")
