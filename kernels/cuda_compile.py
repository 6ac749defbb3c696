"""CUDA C++ onto a GPU: sources of csrc/cuda, compiled at run time by NVRTC for the exact architecture and kept on disk.

No nvcc is needed, nor a GPU to compile for one. CuPy brings NVRTC, but its own `RawModule` compiles for sm_90, which refuses
warp-group matrix instructions, and flushes subnormals: the compiler is called here with options of our own, and CuPy loads
what it made. Under ULPGRAD_CUDA=emulated the same kernels run on the host (`cuda_host.py`), under ULPGRAD_CUDA=compile they
are compiled only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from ulpgrad import settings
from ulpgrad.errors import ArgumentError, KernelError
from ulpgrad.formats import Format
from ulpgrad.kernels import capture, gpu

FOLDER: Final = Path(__file__).resolve().parents[1] / "csrc" / "cuda"
OPTIONS: Final = ("-std=c++17", "--ptxas-options=-v")  # subnormals and division are exact unless one asks otherwise
# What formats are called in csrc/cuda. Integers wrap there, and signed ones are not told from unsigned ones.
TYPES: Final = {
    "float64": "double", "float32": "float", "float16": "Float16", "bfloat16": "Bfloat16",
    **dict.fromkeys(("int8", "uint8"), "unsigned char"), **dict.fromkeys(("int16", "uint16"), "unsigned short"),
    **dict.fromkeys(("int32", "uint32"), "unsigned"), **dict.fromkeys(("int64", "uint64"), "unsigned long long"),
}  # fmt: skip

_INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
_RESOURCES = tuple(map(re.compile, (r"Used (\d+) registers", r"(\d+) bytes smem", r"(\d+) bytes spill stores")))
_declared: dict[tuple[str, str], Kernel] = {}
_raising = threading.Lock()  # limits of shared memory: of two threads the one that asks for less must not be the last


@dataclass(frozen=True)
class Cubin:
    """What the compiler made of a kernel for one architecture: the image, the kernel's name in it, and what a launch takes:
    registers of a thread, bytes of static shared memory for a block, and bytes of registers that a thread has to spill."""

    symbol: str
    image: bytes
    registers: int
    shared: int
    spills: int


@dataclass(eq=False)
class Kernel:
    """One kernel of a source in csrc/cuda, as in `Kernel("matmul_naive.cu", "matmul_naive<float>")`.

    It is compiled when it is first launched. `since`: the least compute capability (80 for sm_80); `only`: the one
    architecture it is written for ("sm_90a"). `host=False` for what uses instructions that the host has no word for.
    """

    source: str
    name: str
    since: int = 75
    only: str = ""
    host: bool = True
    _functions: dict[int, tuple[Any, int]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _declared[self.source, self.name] = self

    def suits(self, architecture: str) -> bool:
        """Whether it can be compiled for an architecture, as "sm_80"."""
        return self.only in ("", architecture) and int(architecture.strip("sm_a")) >= self.since

    def refusal(self) -> str | None:
        """Why it cannot be launched here, for the `where` of a rung; None if it can."""
        if gpu.mode() == "emulated" and not gpu.runs_ptx():
            return None if self.host else "uses instructions that only a GPU has"
        for architecture in architectures():
            if not self.suits(architecture):
                return f"needs {self.only or f'sm_{self.since} or newer'}, not {architecture}"
        return None

    def compile(self, architecture: str) -> Cubin:
        """The kernel for an architecture, from the cache on disk if it is there. KernelError if it does not compile."""
        path = settings.cache_folder("cuda") / f"{self._digest(architecture)}.cubin"
        found = _read(path)
        if found is None:
            found = self._compile(architecture)
            _write(path, found)
        return found

    def launch(self, grid: tuple[int, int, int], block: tuple[int, int, int], *arguments: Any, shared: int = 0) -> None:
        """Run it on `grid` blocks of `block` threads, with `shared` bytes of dynamic shared memory.

        A GPU array is passed as the pointer to its first element, None as a null pointer, an int as `long long`, a float as
        `double`, a NumPy scalar in its own type, and a NumPy array of one structure (align=True) by value.
        """
        if not (0 < grid[0] < 1 << 31 and 0 < grid[1] < 1 << 16 and 0 < grid[2] < 1 << 16):
            raise ArgumentError(f"{self.name}: grid {grid}: expected sizes of 1 to 2^31 - 1, 65535 and 65535")
        if not 0 < block[0] * block[1] * block[2] <= 1024:
            raise ArgumentError(f"{self.name}: block {block}: expected 1 to 1024 threads")
        match gpu.mode():
            case "emulated":
                from ulpgrad.kernels import cuda_host, emulated_streams
                from ulpgrad.kernels.ptx import launch as ptx

                run = ptx.cuda if gpu.runs_ptx() else cuda_host.launch
                given = [a.host for a in arguments if gpu.is_array(a)]
                emulated_streams.record(given, lambda: run(self, grid, block, arguments, shared))
            case "compile":
                for architecture in architectures():
                    self.compile(architecture)
            case _:
                self._function(shared)(grid, block, arguments, shared)

    def _function(self, shared: int) -> Any:
        """The kernel on the current device, allowed that much dynamic shared memory. It always asks: what a launch has without is
        48 KiB less the kernel's static memory."""
        import cupy

        device = cupy.cuda.runtime.getDevice()
        function, allowed = self._functions.get(device) or (self._load(), 0)
        if shared <= allowed and allowed:
            return function
        with _raising:
            function, allowed = self._functions.get(device) or (function, 0)
            if shared > allowed:
                driver = cupy.cuda.driver
                driver.funcSetAttribute(function.ptr, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
            self._functions[device] = function, max(shared, allowed)
        return function

    def _load(self) -> Any:
        from cupy.cuda import function

        capture.refuse(
            f"the first launch of {self.name}, which compiles and loads it,",
            "run what is to be captured once or twice before (ulpgrad.cuda.make_graphed does)",
        )

        cubin = self.compile(architectures()[0])
        module = function.Module()
        module.load(cubin.image)
        return module.get_function(cubin.symbol)

    def _digest(self, architecture: str) -> str:
        """The name under which it is kept: of its text, the headers' text, the options and the compiler."""
        parts = [self.name, architecture, *OPTIONS, *map(str, _nvrtc().getVersion())]
        parts += [path.read_text() for path in texts(FOLDER / self.source, _system_folders())]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def ptx(self, architecture: str) -> tuple[str, str]:
        """What it is called in PTX, and the text. KernelError if it does not compile."""
        with self._compiled(architecture) as (program, nvrtc):
            text = nvrtc.getPTX(program)
            return nvrtc.getLoweredName(program, self.name), text if isinstance(text, str) else text.decode()

    def _compile(self, architecture: str) -> Cubin:
        with self._compiled(architecture) as (program, nvrtc):
            image = nvrtc.getCUBIN(program) + b"\0"  # CuPy takes the last byte for the end of a string
            log = nvrtc.getProgramLog(program)
            registers, shared, spills = (sum(map(int, pattern.findall(log))) for pattern in _RESOURCES)
            return Cubin(nvrtc.getLoweredName(program, self.name), image, registers, shared, spills)

    @contextlib.contextmanager
    def _compiled(self, architecture: str) -> Iterator[tuple[Any, Any]]:
        """NVRTC's program for an architecture, and NVRTC."""
        nvrtc = _nvrtc()
        path = FOLDER / self.source
        text = f'#include "{path.name}"\nusing namespace ulpgrad;\n'
        program = nvrtc.createProgram(text, f"{path.stem}_{architecture}.cu", (), ())
        try:
            nvrtc.addNameExpression(program, self.name)
            folders = [path.parent, FOLDER, *_system_folders()]
            nvrtc.compileProgram(program, [f"-arch={architecture}", *OPTIONS, *(f"-I{folder}" for folder in folders)])
            yield program, nvrtc
        except nvrtc.NVRTCError as error:
            log = "\n".join((nvrtc.getProgramLog(program).strip() or str(error)).splitlines()[:12])
            raise KernelError(f"{self.source}: {self.name} does not compile for {architecture}:\n{log}") from None
        finally:
            nvrtc.destroyProgram(program)


def c_type(form: Format) -> str:
    """What a format is called in csrc/cuda."""
    return TYPES[form.name]


def declared() -> tuple[Kernel, ...]:
    """Every kernel that the imported rungs have."""
    return tuple(_declared.values())


def architectures() -> tuple[str, ...]:
    """That of the current device; under ULPGRAD_CUDA=compile those asked for. From sm_90 on with what only that chip has."""
    if gpu.mode():
        given = settings.get("ULPGRAD_CUDA_ARCH").split(",")
    else:
        given = [gpu.xp().cuda.Device().compute_capability]
    return tuple(f"sm_{number}a" if int(number) >= 90 else f"sm_{number}" for number in map(str.strip, given))


def missing() -> str | None:
    """Why CUDA C++ can be neither compiled nor, under ULPGRAD_CUDA=emulated, run on the host; None if it can."""
    if gpu.mode() == "emulated" and not gpu.runs_ptx():
        from ulpgrad.kernels import cuda_host

        return cuda_host.missing()
    return nvrtc_missing()


def nvrtc_missing() -> str | None:
    """Why CUDA C++ cannot be compiled for a GPU; None if it can."""
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except ImportError:
        return "CuPy, which brings the compiler of CUDA C++, is not installed: pip install 'ulpgrad[cuda]'"
    except RuntimeError:
        return "NVRTC, the compiler of CUDA C++, is not found: pip install 'cupy-cuda13x[ctk]', or set LD_LIBRARY_PATH to it"
    return None


@cache
def _nvrtc() -> Any:
    reason = nvrtc_missing()
    if reason:
        raise KernelError(f"CUDA C++ cannot be compiled: {reason}")
    from cupy.cuda import nvrtc

    return nvrtc


@cache
def _system_folders() -> tuple[Path, ...]:
    """Where CUDA's own headers lie, which few sources need."""
    try:
        from cuda.pathfinder import find_nvidia_header_directory
    except ImportError:
        return ()
    found = find_nvidia_header_directory("cudart")
    return (Path(found),) if found else ()


def texts(path: Path, folders: Sequence[Path] = ()) -> Iterator[Path]:
    """A source and all that it includes, each once: from its own folder, csrc/cuda and these folders."""
    seen, waiting = {path}, [path]
    while waiting:
        now = waiting.pop()
        yield now
        for name in _INCLUDE.findall(now.read_text()):
            found = next((f / name for f in (now.parent, FOLDER, *folders) if (f / name).is_file()), None)
            if found is not None and found not in seen:
                seen.add(found)
                waiting.append(found)


def _read(path: Path) -> Cubin | None:
    """What `_write` wrote; None where nothing is, or it is not whole."""
    try:
        head, _, image = path.read_bytes().partition(b"\n")
        told = json.loads(head)
        whole = told.pop("sha256") == hashlib.sha256(image).hexdigest()
        return Cubin(image=image, **told) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, cubin: Cubin) -> None:
    head = {**dataclasses.asdict(cubin), "sha256": hashlib.sha256(cubin.image).hexdigest()}
    del head["image"]
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, suffix=".new", delete=False) as fresh:
        fresh.write(json.dumps(head).encode() + b"\n" + cubin.image)
    Path(fresh.name).replace(path)  # in one step: other processes read a whole file or none


__all__ = ["FOLDER", "Cubin", "Kernel", "architectures", "c_type", "declared", "missing", "nvrtc_missing", "texts"]
