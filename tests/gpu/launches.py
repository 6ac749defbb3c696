"""Launches kernels through the project's launcher against the stub of a driver; run by test_stub_driver.py."""

import ctypes
import os
import sys

import numpy as np

ctypes.CDLL(os.path.join(os.environ["TRITON_LIBCUDA_PATH"], "libcuda.so.1"), ctypes.RTLD_GLOBAL)

from ulpgrad.formats import bfloat16
from ulpgrad.kernels import capabilities, gpu

gpu.xp()  # the emulated arrays and streams
capabilities.missing("cuda")  # and that they are there
gpu.mode = lambda: ""  # and the code of a device
import triton.compiler.compiler as compiler

from ulpgrad.kernels import triton_device
from ulpgrad.kernels.triton_launch import descriptor, launch, tl, triton, typed


@triton.jit
def many(x, bits, n, one, wide, factor, out, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i, i < n).to(tl.float32) * factor + tl.load(bits + i * one, i < n).to(tl.float32) + wide
    tl.store(out + i, v, i < n)


@triton.jit
def blocks(x, out, BLOCK: tl.constexpr):
    t = tl.program_id(0)
    out.store([t * BLOCK, 0], x.load([t * BLOCK, 0]) * 2)


triton_device.install_driver()
compiler.max_shared_mem = lambda device: 232448
triton.runtime.driver.active.utils.load_binary = lambda *a: (1, 2, 100, 0, 1024)  # a stub has no machine code to load
xp = gpu.xp()
x, out = xp.zeros(1000, np.float32), xp.zeros(1000, np.float32)
bits = xp.zeros(1001, np.uint16)
matrix = xp.zeros((64, 96), np.float16)


def show(name: str, array: object) -> None:
    print(name, f"{array.data.ptr:x}")


for name, array in (("x", x), ("bits", bits), ("odd", bits[1:]), ("out", out), ("matrix", matrix)):
    show(name, array)
sys.stdout.flush()
os.environ["STUB_PARAMETERS"] = "8,8,4,8,4,8"  # `one` is a constant of the compiled kernel
launch(many, (4,), x, typed(bits, bfloat16), 1000, 1, 1 << 40, 0.5, out, BLOCK=256, num_warps=8)
with xp.cuda.Stream() as stream:
    print("stream", f"{stream.ptr:x}", flush=True)
    launch(many, (2, 3), x, typed(bits, bfloat16), 1000, 1, 1 << 40, 0.25, out, BLOCK=256, num_warps=8)
assert len(triton_device._compiled) == 1, "the same kinds of arguments were compiled twice"
launch(many, (4,), x, typed(bits[1:], bfloat16), 1000, 1, 1 << 40, 0.5, out, BLOCK=256, num_warps=8)
launch(many, (4,), x, typed(bits, bfloat16), 1000, 1, 1 << 40, 0.5, out, BLOCK=8, num_warps=4)
launch(many, (4,), x, typed(bits, bfloat16), 1000, 1, 1 << 40, 0.5, out, num_warps=8, BLOCK=4)
assert len(triton_device._compiled) == 4, "constants in another order were taken for each other"
os.environ["STUB_PARAMETERS"] = "8,8,4,4,8,4,8"
launch(many, (4,), x, typed(bits, bfloat16), 1000, 3, 1 << 40, 0.5, out, BLOCK=256, num_warps=8)
assert len(triton_device._compiled) == 5, "another alignment or number was taken for the same kernel"
os.environ["STUB_PARAMETERS"] = ""
launch(many, (0,), x, typed(bits, bfloat16), 1000, 1, 1 << 40, 0.5, out, BLOCK=256, num_warps=8)  # nothing
launch(blocks, (4,), descriptor(matrix, None, (16, 32)), descriptor(matrix, None, (16, 32)), BLOCK=16, num_warps=4)
from ulpgrad.kernels.attention import triton_gluon

q, k = xp.zeros((2, 4, 300, 64), np.uint16), xp.zeros((2, 1, 200, 64), np.uint16)
for name, array in (("queries", q), ("keys", k)):
    show(name, array)
sys.stdout.flush()
DESCRIPTOR = "8,4,4,4,4,8,8,8,8,"  # the map, sizes, strides
os.environ["STUB_PARAMETERS"] = DESCRIPTOR + "8," + DESCRIPTOR * 3 + "4,4,4,4,4,4"
y, lse = triton_gluon.attention(q, k, k, None, is_causal=True, scale=0.5, lower_right=True)
show("y", y)
show("lse", lse)

# Public functions, more often than it takes to remember their calls
import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.kernels import triton_tuned

print("calls", flush=True)
dispatch.log_kernels(False)  # while calls are printed they run as they stand
triton_tuned._known[0] = {}  # there is no name of a device to look for a file by
looked_up: list[str] = []
look_up = triton_device._look_up
triton_device._look_up = lambda kernel, *how: looked_up.append(kernel.__name__) or look_up(kernel, *how)
a, b, rows = (ug.asarray(v) for v in (xp.zeros(1000, np.float32), xp.zeros(1000, np.float32), matrix))
columns = ug.asarray(xp.zeros((96, 128), np.float16))
calls = {
    "add": (lambda: ug.add(a, b), "8,8,8,4"),
    "scaled": (lambda: b * 0.5, "8,8,8,4"),
    "leaky_relu": (lambda: ug.leaky_relu(a, 0.25), "8,8,4,4"),
    "softmax": (lambda: ug.softmax(rows), "8,8,4,4,4,4"),
    "matmul": (lambda: ug.matmul(rows, columns), "8,4,4,8,8," * 3 + "8,4,4,4,4,4"),
    "recorded": (lambda: ug.add(a.requires_grad_(), b), "8,8,8,4"),
}
for name, (call, sizes) in calls.items():
    os.environ["STUB_PARAMETERS"] = sizes
    for turn in range(6):
        with xp.cuda.Stream() if turn == 5 else xp.cuda.Stream.null as stream:
            before = len(looked_up)
            out = call()
            line = (
                f"{name} {turn} {out.storage.data.ptr:x} {stream.ptr:x} {len(looked_up) - before} {out.requires_grad}"
            )
            print(line, flush=True)
show("a", a.storage)
show("b", b.storage)
show("rows", rows.storage)
show("columns", columns.storage)
print("torch" in sys.modules)
