"""Plain CUDA C++ kernels on the host: built by a C++ compiler through csrc/cuda/host.h, and run without a GPU.

What ULPGRAD_CUDA=emulated launches. All kernels of a source are built into one library, once, and kept on disk.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ulpgrad import settings
from ulpgrad.errors import ArgumentError, KernelError
from ulpgrad.kernels import cuda_compile, gpu

if TYPE_CHECKING:
    from ulpgrad.kernels.cuda_compile import Kernel

# Hidden: the libraries of two sources would share what inline variables hold, by the system's loader.
FLAGS = (
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-pthread",
    "-fno-strict-aliasing",
    "-Wno-unknown-pragmas",
)
_running = threading.Lock()  # the library has one grid at a time


@cache
def compiler() -> list[str]:
    """The command of a C++ compiler: CXX, else the first on the PATH; empty if there is none."""
    given = shlex.split(os.environ.get("CXX", ""))
    return next((c for c in ([given] if given else [["c++"], ["g++"], ["clang++"]]) if shutil.which(c[0])), [])


def missing() -> str | None:
    """Why no kernel can be built for the host, or None."""
    return (
        None if compiler() else "no C++ compiler on the PATH, which runs CUDA C++ on the host: install g++, or set CXX"
    )


def wrapper(source: str, names: list[str]) -> str:
    """C++ that runs the kernels of a source: the entry `ulpgrad_run_N` for the N-th of the names."""
    lines = [f'#include "{source}"', "using namespace ulpgrad;"]
    lines += [
        f'extern "C" __attribute__((visibility("default"))) const char* ulpgrad_run_{i}(\n'
        f"    const unsigned* grid, const unsigned* block, size_t shared, const char* kinds, void* const* arguments) {{\n"
        f"  return host::run(&{name}, grid, block, shared, kinds, arguments);\n}}"
        for i, name in enumerate(names)
    ]
    return "\n".join(lines) + "\n"


def launch(
    kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared: int
) -> None:
    """`Kernel.launch` on the host. ArgumentError where the arguments are not the kernel's parameters."""
    if not kernel.host:
        raise KernelError(
            f"{kernel.name} uses instructions that only a GPU has: it does not run under ULPGRAD_CUDA=emulated"
        )
    kinds, values = zip(*map(_argument, arguments), strict=True)
    buffers = [ctypes.create_string_buffer(value, len(value)) for value in values]
    pointers = (ctypes.c_void_p * len(buffers))(*(ctypes.addressof(b) for b in buffers))
    sizes = ctypes.c_uint * 3
    with _running:
        fault = _entry(kernel)(sizes(*grid), sizes(*block), shared, " ".join(kinds).encode(), pointers)
    if fault:
        raise ArgumentError(f"{kernel.name}: {fault.decode()}")


def _argument(value: Any) -> tuple[str, bytes]:
    """The kind and size of an argument, as host.h spells them, and its bytes."""
    if value is None or gpu.is_array(value):
        return "p8", (0 if value is None else value.data.ptr).to_bytes(8, "little")
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.fields:
        return f"s{value.itemsize}", value.tobytes()
    scalar = np.int64(value) if type(value) is int else np.asarray(value)[()]
    if not isinstance(scalar, (np.bool_, np.integer, np.floating)):
        raise ArgumentError(
            f"a kernel's argument of {type(value).__name__}: expected a GPU array, a number, or a NumPy array of one structure"
        )
    return f"{'f' if scalar.dtype.kind == 'f' else 'i'}{scalar.itemsize}", scalar.tobytes()


_entries: dict[tuple[str, str], Any] = {}


def _entry(kernel: Kernel) -> Any:
    found = _entries.get((kernel.source, kernel.name))
    if found is None:
        together = [k for k in cuda_compile.declared() if k.source == kernel.source and k.host]
        library = ctypes.CDLL(str(_build(kernel.source, [k.name for k in together])))
        for i, one in enumerate(together):
            entry = library[f"ulpgrad_run_{i}"]
            entry.restype = ctypes.c_char_p
            entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]
            _entries[one.source, one.name] = entry
        found = _entries[kernel.source, kernel.name]
    return found


def _build(source: str, names: list[str]) -> Path:
    """The library of a source's kernels; KernelError with the compiler's first lines if it does not compile."""
    path = cuda_compile.FOLDER / source
    text = wrapper(path.name, names)
    command = [*compiler(), *FLAGS, f"-I{path.parent}", f"-I{cuda_compile.FOLDER}"]
    if not compiler():
        raise KernelError(f"{source}: {missing()}")
    parts = [shlex.join(command), text, *(p.read_text() for p in cuda_compile.texts(path))]
    folder = settings.cache_folder("cuda")
    built = folder / f"{path.stem}_{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}.so"
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            main, fresh = Path(work) / "main.cpp", Path(work) / "main.so"
            main.write_text(text)
            done = subprocess.run([*command, str(main), "-o", str(fresh)], capture_output=True, text=True)
            if done.returncode:
                log = "\n".join(done.stderr.strip().splitlines()[:12])
                raise KernelError(f"{source}: the host's compiler refuses it:\n{log}")
            fresh.replace(built)
    return built


__all__ = ["launch", "missing", "wrapper"]
