"""The environment variables ulpgrad reads, in one table. They are read once, when first needed."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, Final

VARIABLES: Final = {
    "ULPGRAD_NATIVE": ("1", "0 leaves the C++ extension unused; Numba and NumPy kernels carry everything"),
    "ULPGRAD_ISA": (
        "",
        "highest instruction set the C++ kernels may use: portable, avx2, avx_vnni, avx512, avx512_vnni or "
        "avx512_bf16 (on AArch64: portable, neon or neon_dotprod)",
    ),
    "ULPGRAD_NUM_THREADS": (
        "",
        "threads for C++ and Numba kernels; default: OMP_NUM_THREADS, else the cores this process may use",
    ),
    "ULPGRAD_LOG": (
        "",
        "'kernels' prints a line per kernel call: op, rung, shapes, formats, time; on a GPU also one per compilation",
    ),
    "ULPGRAD_CACHE_MB": (
        "",
        "MiB of memory kept for new results; default: an eighth of the machine's, at most 1024; 0: none",
    ),
    "ULPGRAD_CUDA": (
        "",
        "'emulated' runs GPU code on the host (for tests and study), 'ptx' what it is compiled to, 'compile' only compiles it",
    ),
    "ULPGRAD_CUDA_ARCH": (
        "90",
        "architectures that ULPGRAD_CUDA=compile and ptx compile for, as in 80,90 (ptx: the first)",
    ),
    "ULPGRAD_HOST_FALLBACK": (
        "1",
        "0 refuses calls on a GPU that only the CPU has a kernel for, instead of copying there and back",
    ),
    "ULPGRAD_CACHE": ("", "folder for downloaded data sets and compiled kernels; default: ~/.cache/ulpgrad"),
    "ULPGRAD_FLOAT32_MATMUL": (
        "tf32x3",
        "how GPUs multiply float32: 'tf32x3' (on tensor cores, in three parts, as exact as float32 asks), 'ieee' (on the "
        "ordinary units), or 'tf32' (fast, 10 bits of each operand's mantissa)",
    ),
}


def get(name: str) -> str:
    """The value of a variable of the table, or its default."""
    return os.environ.get(name, VARIABLES[name][0]).strip()


def watched(name: str) -> tuple[Any, Any, Any]:
    """Where the process keeps its variables, and a variable's key and value there (None: unset): who remembers what came of it
    looks there whether it is still so."""
    kept, key = os.environ._data, os.environ.encodekey(name)  # type: ignore[attr-defined]
    return kept, key, kept.get(key)


def cache_folder(kind: str) -> Path:
    """A folder of that name in the cache; one for this process alone where the cache cannot be written."""
    return _writable(Path(get("ULPGRAD_CACHE") or Path.home() / ".cache" / "ulpgrad") / kind)


@cache
def _writable(folder: Path) -> Path:
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="ulpgrad-"))


def cores() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_threads() -> int:
    """Threads that kernels use: ULPGRAD_NUM_THREADS, else OMP_NUM_THREADS, else every core this process may run on."""
    given = get("ULPGRAD_NUM_THREADS")
    if not given:
        outer = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list is one for each level of nesting
        return int(outer) if outer.isdecimal() and int(outer) > 0 else cores()
    if not given.isdecimal() or int(given) < 1:
        from ulpgrad.errors import ArgumentError

        raise ArgumentError(f"ULPGRAD_NUM_THREADS={given!r}: expected a whole number of at least 1")
    return int(given)


def cache_bytes() -> int:
    """Bytes of memory kept for new results: ULPGRAD_CACHE_MB, else an eighth of the machine's memory, at most 1 GiB."""
    given = get("ULPGRAD_CACHE_MB")
    if not given:
        known = hasattr(os, "sysconf") and {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 8 << 30
        return min(1 << 30, memory // 8)
    if not given.isdecimal():
        from ulpgrad.errors import ArgumentError

        raise ArgumentError(f"ULPGRAD_CACHE_MB={given!r}: expected a whole number of MiB")
    return int(given) << 20
