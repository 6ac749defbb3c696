"""Triton kernels on NumPy arrays, in the interpreter; in a process of its own, because Triton decides at import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ulpgrad.errors import KernelError
from ulpgrad.kernels import capabilities
from ulpgrad.kernels.triton_launch import launch

KERNEL = """
import numpy as np
import triton
import triton.language as tl
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.kernels.triton_launch import launch

@triton.jit
def scale(x, out, rows, n, factor, BLOCK: tl.constexpr):
    i, j = tl.program_id(0), tl.arange(0, BLOCK)
    tl.store(out + i * n + j, tl.load(x + i * rows + j, mask=j < n) * factor, mask=j < n)

@triton.jit
def running(x, out, n, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, n, BLOCK):  # a bound that is known when the kernel runs
        at = start + tl.arange(0, BLOCK)
        total += tl.load(x + at, mask=at < n, other=0)
    tl.store(out, tl.sum(total, 0))

def refused(kind, grid, *arrays):
    try:
        launch(scale, grid, *arrays, 6, 6, 2, BLOCK=8)
    except kind as error:
        print(error)

for dtype in (np.float64, np.float32, np.float16, np.int32, np.int8, np.uint8):
    x = np.arange(30).reshape(5, 6).astype(dtype)
    out = np.zeros_like(x)
    launch(scale, (5,), x, out, 6, 6, 2, BLOCK=8)
    assert (out == 2 * x).all(), dtype
turned = np.arange(30.0).reshape(5, 6)[::-1]  # the pointer is that of the first element, wherever it lies
launch(scale, (5,), turned, out := np.zeros((5, 6)), -6, 6, 2, BLOCK=8)
assert (out == 2 * turned).all()
launch(running, (1,), np.arange(30.0), total := np.zeros(1), 30, BLOCK=8)
assert total == 29 * 15
refused(ArgumentError, (0,), x, out)
refused(ArgumentError, (1, 1, 1, 1), x, out)
refused(FormatError, (1,), x.astype(complex), out)
"""


@pytest.mark.skipif(capabilities.missing("triton") is not None, reason=str(capabilities.missing("triton")))
def test_kernels_run_on_numpy_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kernel.py"
    path.write_text(KERNEL)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert "grid (0,)" in lines[0]
    assert "one to three sizes" in lines[1]
    assert "complex128" in lines[2]


def test_kernel_that_is_not_interpreted_is_refused() -> None:
    def kernel() -> None: ...

    with pytest.raises(KernelError, match="TRITON_INTERPRET=1 before"):
        launch(kernel, (1,), np.zeros(3))
