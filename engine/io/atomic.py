"""Write a file whole or not at all: into a temporary file beside it, to the disk, then renamed over it."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ulpgrad.errors import DataError

NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too large",
}


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, text: bool = False) -> Iterator[IO[Any]]:
    """A file to write to (bytes, or UTF-8 text) that takes the place of `path` when the block ends without an error.

    Until then, and if the block raises or the process dies, `path` is what it was before; a temporary file is removed.
    A file that is replaced keeps its permissions; a link keeps pointing at the file it names. What is no regular file
    (a terminal, a pipe, /dev/null) is written to directly. Raises DataError if the folder is missing or closed, or if
    there is no room for the file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        with open(target, "w" if text else "wb", encoding="utf-8" if text else None) as stream:
            yield stream
        return
    temporary = _beside(target)
    try:
        with _no_half_file(target), open(temporary, "w" if text else "wb", encoding="utf-8" if text else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _permissions(target))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _beside(target: Path) -> str:
    """An empty temporary file in the target's folder, where a rename is atomic."""
    if target.is_dir():
        raise DataError(f"{target}: is a folder; name a file to write")
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except FileNotFoundError:
        raise DataError(f"{target}: there is no folder {target.parent}; make it first") from None
    except OSError as error:
        raise DataError(f"{target}: cannot write into {target.parent}: {error.strerror}") from error
    os.close(handle)
    return temporary


@contextlib.contextmanager
def _no_half_file(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        before = "the file that was there is unchanged" if target.exists() else "no half file is left"
        raise DataError(
            f"{target}: not written, {NO_ROOM[error.errno]} ({before}); free space, or choose another folder"
        ) from error


def _permissions(target: Path) -> int:
    """Those of the file that is replaced, else what any new file gets."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last through a crash, where folders can be synchronised (not on Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


__all__ = ["atomic_write"]
