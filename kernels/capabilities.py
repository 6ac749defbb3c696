"""What this machine and installation can run: a table of probes. Each returns None, or the reason why not and the cure."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache

from ulpgrad import settings
from ulpgrad.kernels import native

ISA_ORDER = ("portable", "avx2", "avx512")


def _isa(name: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        missing = native.missing()
        if missing:
            return missing
        if name not in native.module().cpu_isas():
            limit = settings.get("ULPGRAD_ISA")
            return f"ULPGRAD_ISA={limit} forbids {name}" if limit else f"this CPU has no {name}"
        return None

    return probe


def _extension(name: str, base: str, text: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        missing = _isa(base)()
        if missing or name in native.module().cpu_extensions():
            return missing
        return f"this CPU has no {text}"

    return probe


def _cuda() -> str | None:
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'ulpgrad[cuda]'"
    import cupy

    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "no CUDA device is visible"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no usable CUDA device: {error}"


def _numba() -> str | None:
    return None if importlib.util.find_spec("numba") else "Numba is not installed: pip install numba"


PROBES: dict[str, Callable[[], str | None]] = {
    "native": native.missing,
    "avx2": _isa("avx2"),
    "avx512": _isa("avx512"),
    "avx_vnni": _extension("avx_vnni", "avx2", "AVX-VNNI"),
    "avx512_vnni": _extension("avx512_vnni", "avx512", "AVX-512 VNNI"),
    "avx512_bf16": _extension("avx512_bf16", "avx512", "AVX-512 BF16"),
    "numba": _numba,
    "cuda": _cuda,
}


@cache
def missing(capability: str) -> str | None:
    """None if the machine has the capability, else the reason why not."""
    return PROBES[capability]()
