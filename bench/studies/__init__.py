"""Studies: experiments that train, compare and report. Each is a file or package here that holds a Study called STUDY."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from ulpgrad.bench.lab.study import Study
from ulpgrad.errors import ArgumentError


def names() -> list[str]:
    """All studies, as they are called: the files here, with hyphens."""
    return [info.name.replace("_", "-") for info in pkgutil.iter_modules(__path__)]


def load(name: str) -> Study:
    """The study of that name. ArgumentError with the nearest names, or all of them, otherwise."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(names())}"
        raise ArgumentError(f"there is no study {name!r}; {hint}")
    study: Study = _module(name).STUDY
    return study


def under(name: str, policies: Sequence[str]) -> Study:
    """The study of that name with rows for the policies given. ArgumentError for one that takes none."""
    load(name)
    made = getattr(_module(name), "study", None)
    if made is None:
        raise ArgumentError(f"--policy: the study {name!r} has policies of its own; it goes with the study 'policy'")
    study: Study = made(policies)
    return study


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
