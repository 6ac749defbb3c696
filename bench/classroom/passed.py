"""Which answers in a folder have passed: a small file beside them, with the digest of each, so that a later change is seen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from ulpgrad.errors import DataError
from ulpgrad.io.atomic import atomic_write

FILE = ".passed.json"
VERSION = 1

State = Literal["", "begun", "passed", "changed"]


@dataclass(frozen=True)
class Passed:
    """When an answer passed, the seed of its values, and the digest of the file as it was."""

    on: str
    seed: int
    sha256: str


def passed(folder: Path) -> dict[str, Passed]:
    """By exercise. DataError for a file of another kind or a newer version."""
    path = folder / FILE
    try:
        data = json.loads(path.read_text())
        if data["version"] > VERSION:
            raise DataError(f"{path}: version {data['version']}; this ulpgrad reads up to {VERSION}: update it")
        return {name: Passed(**kept) for name, kept in data["passed"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not the record that `ulpgrad exercise check` keeps ({error}); delete it, and check again"
        ) from None


def keep(path: Path, exercise: str, seed: int, right: bool) -> None:
    """Note that an answer passed; forget that it did if the same file fails now. DataError where nothing can be written."""
    found, digest = passed(path.parent), _digest(path)
    before = found.get(exercise)
    if right:
        found[exercise] = Passed(date.today().isoformat(), seed, digest)
    elif before is not None and before.sha256 == digest:
        del found[exercise]
    else:
        return
    with atomic_write(path.parent / FILE, text=True) as file:
        json.dump({"version": VERSION, "passed": {name: asdict(one) for name, one in found.items()}}, file, indent=2)
        file.write("\n")


def state(path: Path, kept: Passed | None) -> State:
    """Of an answer: not there, begun, passed as it is, or changed since it passed."""
    if not path.is_file():
        return ""
    if kept is None:
        return "begun"
    return "passed" if kept.sha256 == _digest(path) else "changed"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


__all__ = ["FILE", "Passed", "State", "keep", "passed", "state"]
