"""CUDA C++ as far as it goes without a GPU: compiled for each architecture, kept on disk, and run on the host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad.errors import ArgumentError, KernelError
from ulpgrad.kernels import capabilities, cuda_compile, cuda_host, gpu
from ulpgrad.kernels.cuda_compile import Kernel
from ulpgrad.kernels.matmul import cuda_naive, cuda_registers, cuda_tiles

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90a")
MATMUL = [*cuda_naive.KERNELS.values(), *cuda_tiles.KERNELS.values(), *cuda_registers.KERNELS.values()]
# Registers of a thread and bytes of static shared memory, at most; no kernel spills.
LIMITS = {
    "matmul_naive": (40, 0),
    "matmul_tiles<double>": (64, 16896),
    "matmul_tiles": (64, 8448),
    "matmul_registers<double, 4>": (168, 34816),
    "matmul_registers": (192, 17408),
}
# What the machine code is to contain: vector loads from memory and from shared memory, fused multiply-adds.
INSTRUCTIONS = {
    "matmul_naive<float>": ("LDG.E", "FFMA", "STG.E"),
    "matmul_tiles<float>": ("LDS", "BAR.SYNC", "FFMA"),
    "matmul_registers<float, 8>": ("LDG.E.128", "LDS.128", "STS.128", "BAR.SYNC", "FFMA", "STG.E.128"),
    "matmul_registers<double, 4>": ("LDG.E.128", "LDS.128", "DFMA"),
    "matmul_registers<Float16, 8>": ("LDG.E.64", "HADD2.F32", "F2F", "FFMA"),
}
HERE = Path(__file__).parent

compiled = pytest.mark.skipif(cuda_compile.nvrtc_missing() is not None, reason=str(cuda_compile.nvrtc_missing()))
built = pytest.mark.skipif(cuda_host.missing() is not None, reason=str(cuda_host.missing()))
emulated = pytest.mark.skipif(gpu.mode() != "emulated", reason="runs under ULPGRAD_CUDA=emulated")


@compiled
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kernel", [pytest.param(k, id=k.name) for k in MATMUL])
def test_kernels_of_matmul_compile(kernel: Kernel, architecture: str) -> None:
    cubin = kernel.compile(architecture)
    registers, shared = LIMITS.get(kernel.name) or LIMITS[kernel.name.partition("<")[0]]
    assert 0 < cubin.registers <= registers
    assert cubin.shared <= shared
    assert cubin.spills == 0
    assert cubin.image.startswith(b"\x7fELF")
