"""CUDA C++ of convolution and pooling without a GPU: what the compiler makes of it, and what sanitizers say on the host."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from ulpgrad.formats import bfloat16, float16, float32, float64
from ulpgrad.kernels import cuda_compile, cuda_host
from ulpgrad.kernels.conv import cuda_direct, cuda_matrix, cuda_registers, cuda_slices, cuda_tiles
from ulpgrad.kernels.cuda_compile import Kernel
from ulpgrad.kernels.pool import cuda_direct as pool

compiled = pytest.mark.skipif(cuda_compile.nvrtc_missing() is not None, reason=str(cuda_compile.nvrtc_missing()))
built = pytest.mark.skipif(cuda_host.missing() is not None, reason=str(cuda_host.missing()))

# Registers of a thread and bytes of static shared memory, at most; no kernel spills. With 128 registers an SM holds two
# blocks of 256 threads; a table of the block's geometry is what takes a kilobyte beside dynamic shared memory.
TABLE: list[tuple[Kernel, str, int, int]] = [
    (cuda_direct.FORWARD[float32], "sm_80", 56, 64),
    (cuda_direct.INPUT_GRADIENT[float32], "sm_80", 80, 64),
    (cuda_direct.WEIGHT_GRADIENT[float32], "sm_80", 64, 64),
    (cuda_slices.SUM[float32], "sm_80", 40, 0),
    (cuda_tiles.FORWARD[float32], "sm_80", 64, 2560),
    (cuda_tiles.INPUT_GRADIENT[float32], "sm_80", 112, 2560),
    (cuda_registers.FORWARD[float32], "sm_80", 128, 13312),
    (cuda_registers.INPUT_GRADIENT[float32], "sm_80", 128, 13312),
    (cuda_registers.WEIGHT_GRADIENT[float32], "sm_80", 128, 13312),
    (cuda_registers.WEIGHT_GRADIENT[float64], "sm_80", 192, 26112),
    (cuda_matrix.FORWARD[float16, 64], "sm_80", 160, 1024),
    (cuda_matrix.INPUT_GRADIENT[float16, 64], "sm_80", 160, 1024),
    (cuda_matrix.WEIGHT_GRADIENT[float16, 64], "sm_80", 160, 1024),
    (pool.MAXIMUM[float32], "sm_80", 48, 64),
    (pool.MAXIMUM_GRADIENT[float32], "sm_80", 48, 1536),
    (pool.AVERAGE[float32], "sm_80", 64, 64),
    (pool.AVERAGE_GRADIENT[float32], "sm_80", 80, 64),
    *((kernels[bfloat16, 128], architecture, 128, 1024)
      for kernels in (cuda_matrix.FORWARD, cuda_matrix.INPUT_GRADIENT, cuda_matrix.WEIGHT_GRADIENT)
      for architecture in ("sm_80", "sm_90a")),
]  # fmt: skip
# What the machine code is to contain: products of matrices, loads of matrices, copies past the registers, packets.
INSTRUCTIONS = {
    "conv_registers": ("FFMA", "LDS.128", "LDG.E.128"),
    "conv_weight_registers": ("FFMA", "LDS.128"),
    "conv_weight_registers<double>": ("DFMA", "LDS.128"),
    "conv_matrix": ("HMMA.16816.F32", "LDSM.16.M88.4", "LDGSTS.E.BYPASS.128", "STG.E.128"),
    "conv_weight_matrix": ("HMMA.16816.F32", "LDSM.16.MT88.4", "LDGSTS.E.BYPASS.128"),
}
HERE = Path(__file__).parent


def disassembler() -> Path | None:
    """nvdisasm, which comes with Triton."""
    found = importlib.util.find_spec("triton")
    path = Path(found.origin).parent / "backends/nvidia/bin/nvdisasm" if found and found.origin else None
    return path if path is not None and path.exists() else None


@compiled
@pytest.mark.parametrize(
    ("kernel", "architecture", "registers", "shared"),
    [pytest.param(*row, id=f"{row[0].name}-{row[1]}") for row in TABLE],
)
def test_resources_and_instructions(
    kernel: Kernel, architecture: str, registers: int, shared: int, tmp_path: Path
) -> None:
    cubin = kernel.compile(architecture)
    assert cubin.spills == 0
    assert 0 < cubin.registers <= registers
    assert cubin.shared <= shared
    wanted, program = (
        INSTRUCTIONS.get(kernel.name) or INSTRUCTIONS.get(kernel.name.partition("<")[0], ()),
        disassembler(),
    )
    if wanted and program is not None:
        path = tmp_path / "kernel.cubin"
        path.write_bytes(cubin.image)
        text = subprocess.run([program, path], capture_output=True, text=True, check=True).stdout
        found = set(re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+ )?([A-Z][A-Z0-9.]+)", text, re.MULTILINE))
        missing = [w for w in wanted if not any(f.startswith(w) for f in found)]
        assert not missing, sorted(found)


@built
@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (("-fsanitize=address,undefined", "-fno-sanitize-recover=all"), None),
        (("-fsanitize=thread", "-DULPGRAD_HOST_THREADS"), None),
        (("-fsanitize=thread", "-DULPGRAD_HOST_THREADS", "-DWITHOUT_BARRIERS"), "ThreadSanitizer"),
    ],
    ids=["fibers", "threads", "without barriers"],
)
def test_tiled_rungs_on_the_host(flags: tuple[str, ...], fault: str | None, tmp_path: Path) -> None:
    """Results are those of the direct rung, and threads race (or find nothing) only where barriers are taken away."""
    program = tmp_path / "conv"
    command = [*cuda_host.compiler(), "-std=c++17", "-O1", "-g1", "-pthread", "-Wno-unknown-pragmas", *flags]
    subprocess.run([*command, f"-I{cuda_compile.FOLDER}", HERE / "cuda_conv_on_host.cpp", "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, env={"TSAN_OPTIONS": "halt_on_error=1"})
    if fault is None:
        assert done.returncode == 0, done.stdout + done.stderr[:4000]
    else:
        assert fault in done.stderr
