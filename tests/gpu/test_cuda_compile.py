"""CUDA C++ as far as it goes without a GPU: compiled for each architecture, kept on disk, and run on the host. What needs CuPy's
compiler runs with ULPGRAD_CUDA=compile, launches with ULPGRAD_CUDA=emulated, the sanitizers with neither."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ulpgrad
from ulpgrad.errors import ArgumentError, KernelError
from ulpgrad.kernels import cuda_compile, cuda_host, gpu
from ulpgrad.kernels.cuda_compile import FOLDER, Kernel
from ulpgrad.kernels.matmul import cuda_matrix, cuda_naive, cuda_registers, cuda_tiles

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90a")
RUNGS = (cuda_naive, cuda_tiles, cuda_registers, cuda_matrix)
MATMUL = list(dict.fromkeys(kernel for rung in RUNGS for kernel in rung.KERNELS.values()))
# At most: registers of a thread, bytes of static shared memory, bytes of registers spilled.
LIMITS = {
    "matmul_naive": (40, 0, 0),
    "matmul_tiles": (64, 8448, 0),
    "matmul_tiles<double>": (64, 16896, 0),
    "matmul_tiles<unsigned long long>": (64, 16896, 0),
    "matmul_registers": (
        128,
        17408,
        48,
    ),  # two blocks to an SM; what sm_80 spills of 16 bits lies outside the inner loop
    "matmul_registers<float, 8>": (128, 16896, 0),
    "matmul_matrix": (232, 0, 0),
    "matmul_registers<double, 4>": (128, 34816, 0),
    "matmul_registers<unsigned long long, 4>": (128, 34816, 16),
}
# What the machine code is to contain: vectors to and from memory and shared memory, fused multiply-adds, conversions.
INSTRUCTIONS = {
    "matmul_naive<float>": ("LDG.E", "FFMA", "STG.E"),
    "matmul_tiles<float>": ("LDG.E", "STS", "BAR.SYNC", "LDS", "FFMA"),
    "matmul_tiles<unsigned char>": ("LDG.E.U8", "IMAD", "STG.E.U8"),
    "matmul_tiles<Float16>": ("LDG.E.U16", "HADD2.F32", "FFMA", "F2FP"),
    "matmul_registers<float, 8>": ("LDG.E.128", "STS.128", "LDS.128", "FFMA", "STG.E.EF.128"),
    "matmul_registers<double, 4>": ("LDG.E.128", "STS.128", "LDS.128", "DFMA", "STG.E.EF.128"),
    "matmul_matrix<Float16, false, true>": ("LDGSTS.E.BYPASS.128", "LDSM.16.M88.4", "LDSM.16.MT88.4", "HMMA.16816.F32"),
    "matmul_matrix<Bfloat16, false, false>": ("LDGSTS.E.BYPASS.128", "LDSM.16.M88.4", "HMMA.16816.F32.BF16", "DEPBAR"),
    "matmul_registers<Bfloat16, 8>": ("LDG.E.64", "STS.128", "LDS.128", "FFMA", "STG.E.EF.64"),
}
HERE = Path(__file__).parent


def when(asked: bool, where: str, missing: str | None) -> pytest.MarkDecorator:
    reason = where if not asked else missing
    return pytest.mark.skipif(reason is not None, reason=str(reason))


compiled = when(gpu.mode() != "emulated", "compiled under ULPGRAD_CUDA=compile", cuda_compile.nvrtc_missing())
emulated = when(gpu.mode() == "emulated", "launched on the host under ULPGRAD_CUDA=emulated", cuda_host.missing())
on_host = when(gpu.mode() == "", "run where ULPGRAD_CUDA is not set", cuda_host.missing())


def tool(name: str) -> str:
    """A program of CUDA's, on the PATH or as Triton brings it."""
    places = [os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    places += [f"{folder}/triton/backends/nvidia/bin" for folder in sys.path]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@compiled
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kernel", [pytest.param(k, id=k.name) for k in MATMUL])
def test_kernel_compiles(kernel: Kernel, architecture: str) -> None:
    cubin = kernel.compile(architecture)
    registers, shared, spills = LIMITS.get(kernel.name) or LIMITS[kernel.name.partition("<")[0]]
    assert 0 < cubin.registers <= registers
    assert cubin.shared <= shared
    assert cubin.spills <= spills
    assert cubin.image.startswith(b"\x7fELF")


@compiled
@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_machine_code_is_what_the_rung_says(name: str, tmp_path: Path) -> None:
    (kernel,) = (k for k in MATMUL if k.name == name)
    path = tmp_path / "cubin"
    path.write_bytes(kernel.compile("sm_90a").image)
    code = subprocess.run([tool("nvdisasm"), "-c", path], capture_output=True, text=True, check=True).stdout
    assert [i for i in INSTRUCTIONS[name] if not re.search(rf"\s{re.escape(i)}\b", code)] == []


def test_a_launch_asks_for_its_shared_memory_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that has not been asked gives 48 KiB less what a kernel has of its own: just 48 KiB would be refused."""
    asked: list[tuple[int, int, int]] = []
    driver = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8, funcSetAttribute=lambda *given: asked.append(given)
    )
    runtime = SimpleNamespace(getDevice=lambda: 0)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(driver=driver, runtime=runtime)))
    monkeypatch.setattr(cuda_compile, "_declared", {})
    kernel = Kernel("matmul_naive.cu", "matmul_naive<float>")
    monkeypatch.setattr(Kernel, "_load", lambda _: SimpleNamespace(ptr=7))
    for shared in (0, 48 << 10, 48 << 10, 1 << 10, 68 << 10, 0, 48 << 10):
        kernel._function(shared)
    assert asked == [(7, 8, 48 << 10), (7, 8, 68 << 10)]


PLUS = '#include "device.cuh"\n#include "by.cuh"\nnamespace ulpgrad {\n__global__ void plus(float* x, int n) {\n' \
    "  if (threadIdx.x < n) x[threadIdx.x] += BY;\n}\n}\n"  # fmt: skip


@pytest.fixture
def plus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A kernel of its own, with a header beside it and an empty cache."""
    monkeypatch.setenv("ULPGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda_compile, "_declared", {})
    (tmp_path / "plus.cu").write_text(PLUS)
    (tmp_path / "by.cuh").write_text("#define BY 1\n")
    return Kernel(str(tmp_path / "plus.cu"), "plus")


def files(tmp_path: Path, kind: str) -> list[Path]:
    return sorted((tmp_path / "cache" / "cuda").glob(f"*{kind}"))


@compiled
def test_what_was_compiled_is_kept(plus: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plus.compile("sm_90a")
    assert first.registers > 0
    assert len(files(tmp_path, "")) == 1
    assert plus.compile("sm_80") != first
    monkeypatch.setattr(Kernel, "_compile", lambda *_: pytest.fail("compiled again"))
    assert plus.compile("sm_90a") == first


@compiled
def test_changed_header_compiles_anew(plus: Kernel, tmp_path: Path) -> None:
    first = plus.compile("sm_90a")
    (tmp_path / "by.cuh").write_text("#define BY 2\n")
    assert plus.compile("sm_90a").image != first.image
    assert len(files(tmp_path, ".cubin")) == 2


@compiled
@pytest.mark.parametrize("kept", [b"", b"{}\n", b'{"sha256": "0", "symbol": "plus"}\nELF', "cut", b"\xff\n"])
def test_corrupt_file_is_replaced(plus: Kernel, tmp_path: Path, kept: bytes | str) -> None:
    first = plus.compile("sm_90a")
    (path,) = files(tmp_path, ".cubin")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] if isinstance(kept, str) else kept)
    assert plus.compile("sm_90a") == first
    assert path.read_bytes() == whole


@compiled
def test_error_shows_what_the_compiler_says(plus: Kernel, tmp_path: Path) -> None:
    (tmp_path / "by.cuh").write_text("#define BY nothing\n")
    with pytest.raises(KernelError, match=r'plus does not compile for sm_90a:\n.*plus.cu\(5\): error: .*"nothing"'):
        plus.compile("sm_90a")
    assert not files(tmp_path, "")


def test_kernel_for_one_architecture_is_refused_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_compile, "_declared", {})
    monkeypatch.setattr(cuda_compile, "architectures", lambda: ("sm_86",))
    monkeypatch.setattr(gpu, "mode", lambda: "compile")
    assert Kernel("x.cu", "x").refusal() is None
    assert Kernel("x.cu", "x", since=80).refusal() is None
    assert Kernel("x.cu", "x", since=89).refusal() == "needs sm_89 or newer, not sm_86"
    assert Kernel("x.cu", "x", only="sm_90a").refusal() == "needs sm_90a, not sm_86"
    monkeypatch.setattr(gpu, "mode", lambda: "emulated")
    assert Kernel("x.cu", "x", host=False).refusal() == "uses instructions that only a GPU has"


@pytest.mark.parametrize(
    ("grid", "block"),
    [((0, 1, 1), (32, 1, 1)), ((1, 1 << 16, 1), (32, 1, 1)), ((1 << 31, 1, 1), (32, 1, 1)), ((1, 1, 1), (32, 33, 1))],
)
def test_launch_that_no_gpu_takes_is_refused(
    plus: Kernel, grid: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    with pytest.raises(ArgumentError, match="expected"):
        plus.launch(grid, block)


@compiled
def test_launch_on_a_device(plus: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What CuPy is asked for: the image of the device's architecture once, more shared memory once, and every argument."""
    import cupy
    from cupy.cuda import function

    asked: list[Any] = []

    class Function:
        ptr = 7

        def __call__(self, *given: Any) -> None:
            asked.append(given)

    class Module:
        def load(self, image: bytes) -> None:
            asked.append(image[:4])

        def get_function(self, symbol: str) -> Any:
            asked.append(symbol)
            return Function()

    monkeypatch.setattr(gpu, "mode", lambda: "")
    monkeypatch.setattr(gpu, "xp", lambda: cupy)
    monkeypatch.setattr(function, "Module", Module)
    monkeypatch.setattr(cupy.cuda, "Device", lambda: SimpleNamespace(compute_capability="90"))
    monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda: 0)
    monkeypatch.setattr(cupy.cuda.driver, "funcSetAttribute", lambda *given: asked.append(given))
    launches = [
        ((3, 1, 1), (8, 1, 1), ("x", 4), 0),
        ((1, 2, 1), (8, 1, 1), ("y", 5), 1 << 16),
        ((1, 1, 1), (8, 1, 1), ("z", 6), 50000),
    ]
    for grid, block, arguments, shared in launches:
        plus.launch(grid, block, *arguments, shared=shared)
    allowed = (7, cupy.cuda.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1 << 16)
    assert asked == [b"\x7fELF", plus.compile("sm_90a").symbol, launches[0], allowed, *launches[1:]]


@emulated
@pytest.mark.parametrize("a_turned", [False, True])
@pytest.mark.parametrize("b_turned", [False, True])
@pytest.mark.parametrize("rung", ["naive", "tiles", "registers", "matrix"])
def test_operands_as_they_lie(rung: str, a_turned: bool, b_turned: bool) -> None:
    """Each operand turned by itself, in sizes that are read in whole vectors, and in others."""
    rng = np.random.default_rng(7)
    for m, k, n in ((72, 40, 136), (8, 30, 24), (33, 16, 9), (0, 3, 4)):
        a, b = rng.integers(-8, 9, (2, m, k)).astype(np.float16), rng.integers(-8, 9, (2, k, n)).astype(np.float16)
        given = [
            ulpgrad.asarray(np.ascontiguousarray(x.swapaxes(1, 2)) if turned else x, device="cuda")
            for x, turned in ((a, a_turned), (b, b_turned))
        ]
        left, right = (
            ulpgrad.matrix_transpose(x) if turned else x for x, turned in zip(given, (a_turned, b_turned), strict=True)
        )
        with ulpgrad.use(matmul=f"cuda/cuda-{rung}"):
            found = (left @ right).numpy()
        assert np.array_equal(found, (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float16))


@emulated
def test_arguments_are_held_to_the_kernel(plus: Kernel) -> None:
    x = gpu.xp().zeros(5, np.float32)
    plus.launch((1, 1, 1), (8, 1, 1), x, np.int32(4))
    assert x.get().tolist() == [1, 1, 1, 1, 0]
    with pytest.raises(ArgumentError, match="plus: it takes p8 i4, not p8 i8"):
        plus.launch((1, 1, 1), (8, 1, 1), x, 4)
    with pytest.raises(ArgumentError, match="argument of ndarray"):
        plus.launch((1, 1, 1), (8, 1, 1), np.zeros(5, np.float32), np.int32(4))


@emulated
def test_thread_that_leaves_a_barrier_is_noticed(plus: Kernel, tmp_path: Path) -> None:
    (tmp_path / "plus.cu").write_text(PLUS.replace("x[threadIdx.x] +=", "__syncthreads(), x[threadIdx.x] +="))
    with pytest.raises(ArgumentError, match="different barriers"):
        plus.launch((1, 1, 1), (8, 1, 1), gpu.xp().zeros(5, np.float32), np.int32(4))


@emulated
def test_dynamic_shared_memory_starts_as_garbage(plus: Kernel, tmp_path: Path) -> None:
    (tmp_path / "plus.cu").write_text(
        '#include "device.cuh"\n__global__ void plus(float* x, int n) {\n  ULPGRAD_DYNAMIC_SHARED(memory);\n'
        "  float* values = reinterpret_cast<float*>(memory);\n  x[blockIdx.x * n + threadIdx.x] = values[threadIdx.x];\n"
        "  values[threadIdx.x] = 1;\n}\n"
    )
    x = gpu.xp().zeros(12, np.float32)
    plus.launch((3, 1, 1), (4, 1, 1), x, np.int32(4), shared=16)
    assert np.isnan(x.get()).all()


@on_host
@pytest.mark.parametrize("flags", ["", "-fsanitize=address,undefined -fno-sanitize-recover=undefined"])
def test_rungs_of_matmul_on_the_host(flags: str, tmp_path: Path) -> None:
    done = sanitized(flags, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@on_host
def test_thread_sanitizer_sees_a_missing_barrier_and_nothing_else(tmp_path: Path) -> None:
    done = sanitized("-fsanitize=thread -DULPGRAD_HOST_THREADS", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    env = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1", "WITHOUT_BARRIERS": "1"}
    again = subprocess.run(done.args, capture_output=True, text=True, env=env)
    assert again.returncode != 0
    assert "data race" in again.stderr
    assert "ulpgrad::matmul_" in again.stderr


def sanitized(flags: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """The run of tests/gpu/cuda_matmul_on_host.cpp, built with these flags."""
    program = tmp_path / "program"
    command = [
        *cuda_host.compiler(),
        "-std=c++17",
        "-O1",
        "-fno-strict-aliasing",
        "-pthread",
        f"-I{FOLDER}",
        *flags.split(),
    ]
    built = subprocess.run([*command, HERE / "cuda_matmul_on_host.cpp", "-o", program], capture_output=True, text=True)
    if "-fsanitize" in flags and built.returncode and "cannot find" in built.stderr:
        pytest.skip(f"the compiler has no {flags.split()[0]}")
    assert built.returncode == 0, built.stderr
    env = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run([program], capture_output=True, text=True, env=env)
