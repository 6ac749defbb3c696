"""Fetch a file into the cache: from the first mirror that has it, checked against its SHA-256, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulpgrad import settings
from ulpgrad.errors import DataError
from ulpgrad.io.atomic import atomic_write

TIMEOUT = 30.0  # seconds without an answer
CHUNK = 1 << 18  # bytes
QUIET = 2.0  # seconds before a transfer without a terminal says anything
REPEAT = 10.0  # seconds between its lines


@dataclass(frozen=True)
class Remote:
    """A file that mirrors hold: each mirror's address ends in "/" and is followed by `name`."""

    name: str
    sha256: str
    mirrors: Sequence[str]


class TransferFault(Exception):
    """What arrived is not the file; the next mirror may do better."""


def folder(root: str | os.PathLike[str] | None, name: str) -> Path:
    """Where a data set's files lie: `root` itself, or `name` in the cache (ULPGRAD_CACHE, else ~/.cache/ulpgrad)."""
    if root is not None:
        return Path(root)
    cache = settings.get("ULPGRAD_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "ulpgrad") / name


def fetch(remote: Remote, into: Path, *, download: bool) -> Path:
    """The path of the file in the folder `into`, downloaded if it is not there yet.

    A partial or wrong file is never left under its name, and an interrupted download starts afresh. Raises DataError,
    which says where to put the file by hand, if no mirror gives it or `download` is off; and if the folder cannot be
    written.
    """
    target = into / remote.name
    if target.exists():
        return target
    by_hand = f"put {remote.name} (SHA-256 {remote.sha256}) at {target}"
    if not download:
        raise DataError(f"{target} is not there and download=False: allow the download, or {by_hand}")
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{into}: the folder cannot be made: {error.strerror}; choose another root") from error
    faults = []
    for mirror in remote.mirrors:
        try:
            return _transfer(mirror + remote.name, target, remote.sha256)
        except (OSError, http.client.HTTPException, TransferFault) as error:
            faults.append(f"{mirror}: {error or type(error).__name__}")
    raise DataError(f"{remote.name} could not be downloaded ({'; '.join(faults)}): check the network, or {by_hand}")


def _transfer(url: str, target: Path, sha256: str) -> Path:
    request = urllib.request.Request(url, headers={"User-Agent": "ulpgrad"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, atomic_write(target) as file:
        announced = response.headers.get("Content-Length")
        total = int(announced) if announced and announced.isdecimal() else None
        digest, received = hashlib.sha256(), 0
        with progress(target.name, total) as advance:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                advance(len(chunk))
        if total is not None and received != total:
            raise TransferFault(f"the transfer broke off after {received} of {total} bytes")
        if digest.hexdigest() != sha256:
            raise TransferFault(f"wrong checksum: SHA-256 {digest.hexdigest()} of {received} bytes, expected {sha256}")
    return target


@contextlib.contextmanager
def progress(name: str, total: int | None) -> Iterator[Callable[[int], Any]]:
    """A function to call with the bytes that arrived: a bar on a terminal, else a line from the third second on."""
    if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(name, total=total)
            yield lambda count: bar.advance(task, count)
        return
    began = time.monotonic()
    received, due = 0, began + QUIET

    def advance(count: int) -> None:
        nonlocal received, due
        received += count
        if time.monotonic() > due:
            due = time.monotonic() + REPEAT
            of = f" of {total / 1e6:.0f}" if total else ""
            print(f"downloading {name}: {received / 1e6:.0f}{of} MB", file=sys.stderr)

    yield advance


__all__ = ["Remote", "fetch", "folder", "progress"]
