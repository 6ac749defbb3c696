"""Exercises: kernels and number systems to write oneself. Each is a folder here that holds an Exercise called EXERCISE."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from pathlib import Path

from ulpgrad.bench.classroom.exercise import Exercise
from ulpgrad.errors import ArgumentError, DataError
from ulpgrad.io.atomic import atomic_write


@cache
def every() -> dict[str, Exercise]:
    """All exercises by name (the folders here, with hyphens), in their order."""
    found: dict[str, Exercise] = {
        info.name.replace("_", "-"): importlib.import_module(f"{__name__}.{info.name}").EXERCISE
        for info in pkgutil.iter_modules(__path__)
    }
    return dict(sorted(found.items(), key=lambda item: item[1].rank))


def load(name: str) -> Exercise:
    """The exercise of that name. ArgumentError with the nearest names, or the command that shows all, otherwise."""
    found = every().get(_hyphens(name))
    if found is None:
        near = difflib.get_close_matches(_hyphens(name), every(), 3)
        hint = f"did you mean {', '.join(near)}?" if near else "`ulpgrad exercise list` shows all"
        raise ArgumentError(f"there is no exercise {name!r}; {hint}")
    return found


def folder(name: str) -> Path:
    """Where the stub and the solution lie."""
    load(name)
    return Path(__path__[0]) / _hyphens(name).replace("-", "_")


def file_name(name: str) -> str:
    """What a file with an answer is called."""
    return f"{_hyphens(name).replace('-', '_')}.py"


def start(name: str, to: Path) -> Path:
    """Write the stub into a folder. DataError if an answer is there already."""
    stub, path = folder(name) / "stub.py", to / file_name(name)
    if path.exists():
        raise DataError(f"{path}: is there already, and is kept; delete it, or choose another folder with --to")
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{to}: the folder cannot be made: {error.strerror}; choose another with --to") from error
    with atomic_write(path, text=True) as file:
        file.write(stub.read_text())
    return path


def _hyphens(name: str) -> str:
    return name.removesuffix(".py").replace("_", "-")


__all__ = ["every", "file_name", "folder", "load", "start"]
