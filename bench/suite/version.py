"""Another version of ulpgrad, ready to be measured: a revision that git knows, or a checkout in a folder.

What is measured is that version's; what measures is the suite that runs here, for both. So the two cannot differ by how they are
timed, and a revision from before the suite can be measured as well, as long as the suite finds what it asks the engine for.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ulpgrad
from ulpgrad import bench
from ulpgrad.errors import DataError, KernelError
from ulpgrad.kernels import native

HERE = Path(ulpgrad.__file__).resolve().parent  # engine/ of a checkout
BENCH = Path(bench.__file__).resolve().parent
ROOT = HERE.parent
TREES = Path("build", "against")
BUILT = "_native*.so"
LAST = 400  # letters of what a build said last


@dataclass(frozen=True)
class Version:
    """`package`: the folder in which Python finds it as ulpgrad; `commit` as records name it."""

    name: str
    commit: str | None
    package: Path


@contextlib.contextmanager
def found(name: str, told: Callable[[str], None] = lambda text: None) -> Iterator[Version]:
    """A folder's version, or a revision's, which is built if it has not been. DataError for neither."""
    folder = Path(name)
    commit = _git(folder, "rev-parse", "--short=10", "HEAD") if folder.is_dir() else None
    if (folder / "engine" / "__init__.py").is_file():
        tree = folder.resolve()
        if commit and _git(folder, "status", "--porcelain", "--untracked-files=no"):
            commit += "+"
    else:
        commit = _git(ROOT, "rev-parse", "--verify", "--quiet", "--short=10", f"{name}^{{commit}}")
        if not commit:
            raise DataError(
                f"{name}: neither a folder with a checkout of ulpgrad (engine/, kernels/) nor a revision that git knows in {ROOT}"
            )
        tree = checked_out(ROOT, commit, told)
    if not native.missing() and not any((tree / "engine").glob(BUILT)):
        raise DataError(
            f"{tree}: its C++ extension is not built, ours is: run `python setup.py build_ext --inplace` there first"
        )
    with tempfile.TemporaryDirectory(prefix="ulpgrad-against-") as made:
        yield Version(name, commit, linked(tree, Path(made)))


def linked(tree: Path, folder: Path) -> Path:
    """The package as it is installed, of links: engine and kernels of a checkout, and the suite that runs here."""
    package = folder / "ulpgrad"
    package.mkdir()
    for entry in (tree / "engine").iterdir():
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    (package / "kernels").symlink_to(tree / "kernels")
    (package / "bench").symlink_to(BENCH)
    if (tree / "csrc").is_dir():
        (package / "csrc").symlink_to(tree / "csrc")
    return folder


def checked_out(root: Path, commit: str, told: Callable[[str], None]) -> Path:
    """A revision's files in a folder of their own, with the extension where there is one here; kept for the next time."""
    tree = root / TREES / commit
    if not (tree / "engine").is_dir():
        packed = subprocess.run(["git", "-C", str(root), "archive", commit], capture_output=True, check=False)
        fresh = tree.with_name(f"{commit}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as files:
            files.extractall(fresh, filter="data")
        if not (fresh / "engine").is_dir():
            raise DataError(f"{commit}: a revision without engine/ has nothing that could be measured")
        fresh.replace(tree)
    if not native.missing() and not any((tree / "engine").glob(BUILT)):
        _extension(root, commit, tree, told)
    return tree


def _extension(root: Path, commit: str, tree: Path, told: Callable[[str], None]) -> None:
    """Ours, where it comes from the same sources; else it is built, which takes minutes."""
    sources = ("csrc", "setup.py", "kernels/elementwise")
    if _git(root, "diff", "--stat", commit, "--", *sources) == "":
        for file in HERE.glob(BUILT):
            shutil.copy2(file, tree / "engine")
        return
    told(f"building the C++ kernels of {commit}")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KernelError(f"the C++ kernels of {commit} do not build in {tree}: {done.stderr.strip()[-LAST:]}")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None where it refuses, or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


__all__ = ["Version", "checked_out", "found", "linked"]
