"""Facts about the machine and the installation, for `ulpgrad doctor` and for what stands under a report."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import ulpgrad
from ulpgrad import settings
from ulpgrad.kernels import capabilities, gpu as gpu_arrays, native, registry
from ulpgrad.kernels.threads import get_num_threads

PACKAGES = ("numpy", "numba", "ml_dtypes", "scikit-learn", "rich", "typer", "cupy", "triton")
TELLING_FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
                 "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "asimdhp", "asimddp",
                 "sve", "bf16", "i8mm")  # fmt: skip


def machine() -> dict[str, Any]:
    """Processor, cores, caches, memory, operating system."""
    return {
        "cpu": cpu_model(),
        "architecture": platform.machine(),
        "cores": settings.cores(),
        "cores_of_the_machine": os.cpu_count(),
        "caches": caches(),
        "memory_bytes": memory(),
        "system": f"{platform.system()} {platform.release()}",
    }


@cache
def cpu_model() -> str:
    """The processor's name, as it gives it."""
    return _cpuinfo().get("model name") or _sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown"


def instruction_sets() -> dict[str, Any]:
    """What the processor has, what the kernels here are compiled for, and what they use."""
    flags = (_cpuinfo().get("flags") or _cpuinfo().get("Features") or "").split()
    module = None if native.missing() else native.module()
    usable = list(module.cpu_isas()) if module else []
    return {
        "present": [f for f in TELLING_FLAGS if f in flags],
        "usable": usable,
        "used": usable[-1] if usable else None,
        "extensions": list(module.cpu_extensions()) if module else [],
        "ULPGRAD_ISA": settings.get("ULPGRAD_ISA") or None,
    }


def extension() -> dict[str, Any]:
    """The C++ kernels: how they were built, or why they are not used."""
    reason = native.missing()
    return {"usable": False, "reason": reason} if reason else {"usable": True, **native.module().build_info()}


def versions() -> dict[str, str | None]:
    """Of ulpgrad, Python, and the packages that matter; None where one is not installed."""
    found: dict[str, str | None] = {"ulpgrad": ulpgrad.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        names = importlib.metadata.packages_distributions().get(name, [name]) if name == "cupy" else [name]
        try:
            found[name] = importlib.metadata.version(names[0])
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def threads() -> dict[str, Any]:
    """How many, and what Numba shares them through."""
    omp = importlib.util.find_spec("numba") and importlib.util.find_spec("numba.np.ufunc.omppool")
    return {
        "count": get_num_threads(),
        "openmp": None if native.missing() else bool(native.module().build_info()["openmp"]),
        "numba_threading_layer": "omp" if omp else None,
    }


def gpu() -> dict[str, Any]:
    """CuPy, Triton and a device, and how to get what is missing."""
    has_triton = importlib.util.find_spec("triton") is not None
    info: dict[str, Any] = {
        "cuda": capabilities.missing("cuda") or "usable",
        "triton": "installed" if has_triton else "Triton is not installed: pip install 'ulpgrad[cuda]'",
        "driver": "found" if shutil.which("nvidia-smi") else "no NVIDIA driver was found",
        "devices": [],
    }
    if gpu_arrays.mode():
        info["cuda"] = f"{gpu_arrays.setting()}: no device is used"
    elif capabilities.missing("cuda") is None:
        runtime = gpu_arrays.xp().cuda.runtime
        for i in range(runtime.getDeviceCount()):
            seen = runtime.getDeviceProperties(i)
            info["devices"].append({
                "name": seen["name"].decode(),
                "architecture": f"sm_{seen['major']}{seen['minor']}",
                "memory_bytes": int(seen["totalGlobalMem"]),
            })  # fmt: skip
    return info


ROADS = {"triton": "Triton", "cuda": "CUDA C++", "cupy": "CuPy"}


def gpu_kernels() -> dict[str, dict[str, Any]]:
    """Per road onto a GPU: how many rungs there are, of how many ops, and why it is closed here (None: it is open)."""
    found: dict[str, dict[str, Any]] = {}
    for road, name in ROADS.items():
        rungs = [r for op in registry.ops().values() for r in registry.ladder(op, "cuda") if _road(r.name) == road]
        reasons = [reason for reason in (r.unavailable() for r in rungs) if reason]
        missing = capabilities.missing("triton") if road == "triton" else None
        found[name] = {
            "rungs": len(rungs),
            "ops": len({r.op.name for r in rungs}),
            "reason": missing or (reasons[0] if reasons else None),
        }
    return found


def _road(rung: str) -> str:
    return rung.split("/")[1].split("-")[0]


def variables() -> list[dict[str, Any]]:
    """The environment variables that ulpgrad reads: value, default, meaning."""
    return [
        {"name": name, "value": os.environ.get(name), "default": default, "meaning": meaning}
        for name, (default, meaning) in settings.VARIABLES.items()
    ]


def families() -> list[dict[str, Any]]:
    """Per op family: ops, rungs that run here, and rungs that do not, with the reason."""
    ops = registry.ops().values()
    rows = []
    for family in registry.families():
        own = [op for op in ops if op.family == family]
        rungs = {r.name: r.unavailable() for op in own for r in registry.ladder(op)}
        rows.append({
            "family": family,
            "ops": [op.name for op in own],
            "available": [name for name, reason in rungs.items() if reason is None],
            "unavailable": {name: reason for name, reason in rungs.items() if reason is not None},
        })  # fmt: skip
    return rows


def busy() -> str | None:
    """A warning if other programs want more than the cores there are: times are not to be trusted then."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = settings.cores()
    if load <= cores + 0.5:
        return None
    return f"the machine is busy (load {load:.1f} on {cores} cores): times may be several times too long"


def commit() -> str | None:
    """The commit of the checkout this package is used from, with + for local changes; None outside one."""
    folder = Path(__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "--short=10", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no", "..") else "")
    except (OSError, subprocess.SubprocessError):
        return None


@cache
def fingerprint(module: str) -> str:
    """A digest of everything that decides a study's results: the sources of ulpgrad and of the study's module or package,
    the C++ extension, Python, NumPy, the processor."""
    digest = hashlib.sha256(f"{sys.version} {np.__version__} {cpu_model()} {get_num_threads()}".encode())
    for path in _sources("ulpgrad", "ulpgrad.kernels", "ulpgrad.bench.lab", module):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _sources(*modules: str) -> Iterator[Path]:
    for module in modules:
        found = importlib.util.find_spec(module)
        folders = list(found.submodule_search_locations or ()) if found else []
        single = [found.origin] if found and found.origin and not folders else []
        for root in map(Path, folders + single):
            inside = [root] if root.is_file() else root.rglob("*")
            yield from sorted(p for p in inside if p.suffix in (".py", ".so", ".pyd"))


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _sysctl(name: str) -> str:
    if sys.platform != "darwin":
        return ""
    return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True).stdout.strip()


def caches() -> dict[str, str]:
    """Sizes of the caches of one core, by level."""
    return {level: size for level, (size, _) in _caches().items()}


def cache_bytes() -> dict[str, tuple[int, bool]]:
    """The same in bytes, and whether other cores share it; empty where the system does not tell."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return {level: (int(size[:-1]) * units[size[-1]], cores > 1) for level, (size, cores) in _caches().items()}


@cache
def _caches() -> dict[str, tuple[str, int]]:
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size, cores = (
                (index / name).read_text().strip() for name in ("level", "type", "size", "shared_cpu_map")
            )
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = size, int(cores.replace(",", ""), 16).bit_count()
    return found


def memory() -> int | None:
    """Bytes of main memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
