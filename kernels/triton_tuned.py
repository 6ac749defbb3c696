"""What was measured on this machine to be fast: configurations of Triton kernels by question, kept on disk from one process to
the next. A file belongs to a device, a version of Triton and the kernels' sources, so that nothing old is believed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ulpgrad import settings
from ulpgrad.kernels import gpu, native

Found = dict[str, list[int]]


@cache
def _sources() -> str:
    """A hash of every Triton kernel."""
    files = sorted(Path(__file__).parent.rglob("triton_*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


def path() -> Path:
    """The file for the current device."""
    name = gpu.mode() or gpu.xp().cuda.runtime.getDeviceProperties(gpu.xp().cuda.Device().id)["name"].decode()
    device = re.sub(r"\W+", "-", name)
    return settings.cache_folder("tuned") / f"{device}-triton-{version('triton')}-{_sources()}.json"


def read(file: Path) -> Found:
    """What the file holds; nothing where there is none, or where it is damaged."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    whole = isinstance(found, dict) and all(
        isinstance(v, list) and all(type(n) is int for n in v) for v in found.values()
    )
    return found if whole else {}


_known: dict[int, Found] = {}


def known() -> Found:
    """What is known of the current device. The file is read once a process."""
    device = int(gpu.xp().cuda.runtime.getDevice())
    if device not in _known:
        _known[device] = read(path())
    return _known[device]


def keep(question: str, answer: list[int]) -> None:
    """Remember an answer, here and in the file, which other processes may be writing too: it is replaced whole."""
    file = path()
    known().update(read(file) | {question: answer})
    _changed()
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as out:
            json.dump(known(), out, indent=0, sort_keys=True)
        os.replace(name, file)
    except OSError:  # a full disk: the answer holds for this process
        with contextlib.suppress(OSError):
            os.unlink(name)


def forget() -> None:
    """Read the file anew when it is next asked."""
    _known.clear()
    _changed()


def _changed() -> None:
    """Calls that are remembered with the answers so far are learnt anew."""
    if native.missing() is None:
        native.module().forget_calls()


__all__ = ["forget", "keep", "known", "path", "read"]
