"""`ULPGRAD_BUILD_CUDA`: CUDA kernels as nvcc builds them, for C++ and for callers by address: built, and asked what is in it."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ulpgrad.kernels import cuda_compile, registry

ROOT = Path(__file__).parents[1]
NVCC = os.environ.get("NVCC") or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
ASK = """
import sys
sys.path.insert(0, sys.argv[1])
import _cuda
print(_cuda.kernels())
for arguments in ([1, 2], [0, None, 0, bytes(80)], [0, 0, 0, bytes(79)], ["x", 0, 0, bytes(80)]):
    try:
        _cuda.launch("matmul_naive<float>", (1, 1, 1), (32, 8, 1), arguments, stream=0)
    except Exception as error:
        print(type(error).__name__, error)
try:
    _cuda.launch("nothing", (1, 1, 1), (32, 8, 1), [])
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
def test_kernels_are_built_for_callers(tmp_path: Path) -> None:
    pytest.importorskip("pybind11")
    env = {**os.environ, "ULPGRAD_BUILD_CUDA": "90a-virtual", "NVCC_APPEND_FLAGS": "-Xcicc -O0"}  # quick to compile
    command = [sys.executable, "setup.py", "-q", "build_cuda", "--build-lib", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = subprocess.run([sys.executable, "-c", ASK, tmp_path / "ulpgrad"], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    kernels, few, launched, short, word, unknown = found.stdout.splitlines()
    for family in ("matmul", "conv", "integer", "pool", "adaptive_pool"):
        registry.scan(family, "cuda")
    built = ast.literal_eval(kernels)
    assert set(built) == {k.name for k in cuda_compile.declared()}
    assert built["matmul_naive<float>"] == "p8 p8 p8 s80"
    assert few == "ValueError matmul_naive<float> takes p8 p8 p8 s80, not 2 arguments"
    assert launched.startswith("RuntimeError matmul_naive<float>: ")  # there is no device, or no such code for it
    assert short == "ValueError a structure of 79 bytes: expected 80"
    assert word.startswith("RuntimeError")
    assert unknown == "there is no kernel nothing: kernels() lists those that were built"
