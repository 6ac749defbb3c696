"""Index arithmetic of the CUDA kernels, compiled for the host with sanitizers, by the programs beside it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ulpgrad.kernels import cuda_host

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-O1", "-g1", "-Wall", "-Wextra", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.skipif(cuda_host.missing() is not None, reason="needs a C++ compiler")
@pytest.mark.parametrize("source", ["cuda_index.cpp", "cuda_copies.cpp", "cuda_weights.cpp"])
def test_index_arithmetic(source: str, tmp_path: Path) -> None:
    """Each position reads its pixels once, swizzles are permutations without bank conflicts, nothing overflows."""
    program = tmp_path / "index"
    command = [
        *cuda_host.compiler(),
        *FLAGS,
        f"-I{HERE.parent / 'csrc' / 'cuda'}",
        HERE / source,
        "-o",
        program,
    ]
    subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
