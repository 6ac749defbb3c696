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


AS_TRITON_DOES = """
import numpy as np
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError
from ulpgrad.kernels.triton_interpreter import Host
from ulpgrad.kernels.triton_launch import launch

@triton.jit
def bits(v, BITS: tl.constexpr):
    return v.to(tl.int64) ^ (v.to(tl.uint32, bitcast=True) >> BITS)

@triton.jit
def larger(a, b):
    return tl.where(a > b, a, b)

@triton.jit
def earlier(a, i, b, j):
    first = (a > b) | ((a == b) & (i < j))
    return tl.where(first, a, b), tl.where(first, i, j)

@triton.jit
def many(floats, ints, bytes, out, counts, n, factor, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    inside = (row < n)[:, None] & (column < 13)[None, :]
    at = row[:, None] * 13 + column[None, :]
    x, i = tl.load(floats + at, mask=inside, other=-1.5), tl.load(ints + at, mask=inside, other=7)
    b = tl.load(bytes + at, mask=inside, other=3)
    wraps = i * 65539 + (i - b)
    narrow = (wraps.to(tl.int16) >> 3).to(tl.float16) * 0.5
    v = tl.where(x < narrow, x * factor - narrow, tl.math.exp2(x) / (1 + tl.abs(x)))
    v += tl.dot(v, tl.trans(v), input_precision="ieee") + (bits(i, 5) % 11) + (b // 2).to(tl.uint8)
    odd = ((b ^ 5) | ((b & 3) << 1)) + (b >> 2) * (row[:, None] % 7).to(tl.uint8) - (row == n).to(tl.uint8)[:, None]
    odd *= (b < column[None, :].to(tl.uint8)).to(tl.uint8) + (3 - b)
    either = (odd <= 100) ^ (odd > b) | (narrow != 0) & (i >= n)
    v += tl.where(either, odd / 3, row[:, None].to(tl.float32) / (1.5 + x * x)) + (narrow - narrow * x.to(tl.float16))
    best, place = tl.reduce((v, tl.broadcast_to(column[None, :], (ROWS, COLUMNS))), 1, earlier)
    j, part = 0, 1.0
    while j < n:
        v += tl.sum(v, 1)[:, None] * part
        j, part = j + 3, part * 0.125
    v = tl.maximum(tl.minimum(v, 1e30), -1e30) + tl.cumsum(x, 1) + tl.reduce(x, 0, larger)
    tl.store(out + at, v, mask=inside)
    tl.store(counts + row, place + tl.argmax(x, 1) + tl.max(tl.reduce(best, 0, larger) > 0).to(tl.int32), mask=row < n)

rng = np.random.default_rng(0)
given = (rng.normal(size=(20, 13)).astype("f"), rng.integers(-2**31, 2**31, (20, 13), "i"), rng.integers(0, 256, (20, 13), "u1"))
results = []
for run in (
    lambda *a: many[(2,)](*map(Host, given + a), 20, 1.7, ROWS=16, COLUMNS=16),
    lambda *a: launch(many, (2,), *given, *a, 20, 1.7, ROWS=16, COLUMNS=16),
    lambda *a: launch(many, (2,), *given, *a, 20, 1.7, ROWS=16, COLUMNS=16),
):
    out, counts = np.zeros((20, 13), "f"), np.zeros(20, "i")
    with np.errstate(all="ignore"):
        run(out, counts)
    results.append(out.tobytes() + counts.tobytes())
assert len(set(map(float, out.ravel()))) > 200 and len(set(counts.tolist())) > 5
assert results[0] == results[1] == results[2]

@triton.jit
def negative(x, BLOCK: tl.constexpr):
    tl.store(x, tl.load(x) * -1)

@triton.jit
def uneven(x, BLOCK: tl.constexpr):
    tl.store(x + tl.arange(0, BLOCK), tl.arange(0, BLOCK) + tl.arange(0, 2 * BLOCK))

@triton.jit
def odd(x, BLOCK: tl.constexpr):
    tl.store(x + tl.arange(0, BLOCK), tl.zeros((BLOCK + 1,), tl.int32))

for kernel in (negative, uneven, odd):
    for _ in range(2):
        try:
            launch(kernel, (1,), np.zeros(8, "u1"), BLOCK=4)
        except InterpreterError as error:
            print(kernel.__name__, error)
"""


@pytest.mark.skipif(capabilities.missing("triton") is not None, reason=str(capabilities.missing("triton")))
def test_the_interpreter_computes_as_triton_left_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it remembers of types and of the language changes no bit, and what it refuses it refuses again."""
    path = tmp_path / "kernel.py"
    path.write_text(AS_TRITON_DOES)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["negative"] * 2 + ["uneven"] * 2 + ["odd"] * 2
    assert lines[::2] == lines[1::2]


def test_kernel_that_is_not_interpreted_is_refused() -> None:
    def kernel() -> None: ...

    with pytest.raises(KernelError, match="TRITON_INTERPRET=1 before"):
        launch(kernel, (1,), np.zeros(3))
