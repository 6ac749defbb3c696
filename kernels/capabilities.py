"""What this machine and installation can run: a table of probes. Each returns None, or the reason why not and the cure."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache

from ulpgrad import settings
from ulpgrad.kernels import gpu, native


def _isa(name: str, text: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        missing = native.missing()
        if missing:
            return missing
        module, limit = native.module(), settings.get("ULPGRAD_ISA")
        if name in (*module.cpu_isas(), *module.cpu_extensions()):
            return None
        names = module.isa_names()
        if name in names and limit and names.index(name) > names.index(limit):
            return f"ULPGRAD_ISA={limit} forbids {name}"
        return f"this CPU has no {text}"

    return probe


def _cuda() -> str | None:
    if gpu.mode():
        return None
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'ulpgrad[cuda]'"
    import cupy

    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "no CUDA device is visible"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no usable CUDA device: {error}"


def _numba() -> str | None:
    return None if importlib.util.find_spec("numba") else "Numba is not installed: pip install numba"


def _triton() -> str | None:
    return None if importlib.util.find_spec("triton") else "Triton is not installed: pip install 'ulpgrad[triton]'"


def _cuda_compile() -> str | None:
    from ulpgrad.kernels import cuda_compile

    return cuda_compile.missing()


PROBES: dict[str, Callable[[], str | None]] = {
    "native": native.missing,
    "avx2": _isa("avx2", "AVX2 with FMA and F16C"),
    "avx_vnni": _isa("avx_vnni", "AVX-VNNI"),
    "avx512": _isa("avx512", "AVX-512 (F, BW, DQ, VL)"),
    "avx512_vnni": _isa("avx512_vnni", "AVX-512 VNNI"),
    "avx512_bf16": _isa("avx512_bf16", "AVX-512 BF16"),
    "neon_dotprod": _isa("neon_dotprod", "AArch64 dot products (SDOT)"),
    "numba": _numba,
    "triton": _triton,
    "cuda": _cuda,
    "cuda_compile": _cuda_compile,
}


@cache
def missing(capability: str) -> str | None:
    """None if the machine has the capability, else the reason why not."""
    return PROBES[capability]()
