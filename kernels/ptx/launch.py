"""Launches on the emulated device that run what kernels compile to (ULPGRAD_CUDA=ptx): Triton's PTX, and NVRTC's."""

from __future__ import annotations

import math
import re
import struct
import weakref
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, KernelError
from ulpgrad.kernels import gpu
from ulpgrad.kernels.ptx import tensor_map
from ulpgrad.kernels.ptx.machine import Compiled, run

_known: dict[tuple[str, str], Compiled] = {}


def architecture() -> int:
    """The one that kernels are compiled for: the first of ULPGRAD_CUDA_ARCH."""
    from ulpgrad.kernels import triton_compile

    return triton_compile.architectures()[0]


def _prepared(text: str, name: str) -> Compiled:
    found = _known.get((text, name))
    if found is None:
        found = _known[text, name] = Compiled(text, name)
    return found


def triton(kernel: Any, grid: Sequence[int], arguments: Sequence[Any], constants: dict[str, Any]) -> None:
    """Run a Triton kernel (or one in Gluon) as a launch on a device would."""
    from ulpgrad.kernels import triton_compile

    signature, made = triton_compile.compiled(kernel, arguments, constants, architecture())
    compiled = _prepared(made.asm["ptx"], made.metadata.name)
    if made.metadata.num_ctas != 1:
        raise KernelError(f"{kernel.__name__}: blocks in clusters are not known to the machine")
    values: list[Any] = []
    maps = iter(getattr(made.metadata, "tensordesc_meta", None) or ())
    for argument, kind in zip(arguments, signature.values(), strict=False):
        if kind.startswith("tensordesc<"):
            values += _described(argument, next(maps, None))
        elif kind != "constexpr":
            values.append(argument)
    values += [0] * (len(compiled.program.parameters) - len(values))  # memory of a launch's own, which no kernel has
    sizes = [p.size for p in compiled.program.parameters]
    parameters = _laid(compiled, [_bytes(v, n) for v, n in zip(values, sizes, strict=True)])
    x, y, z = (*map(int, grid), 1, 1)[:3]
    run(compiled, (x, y, z), (_threads(made), 1, 1), parameters, made.metadata.shared, _spans(arguments))


def _threads(made: Any) -> int:
    """Threads of a block, as the kernel itself asks for them (in Gluon, those of all partitions)."""
    found = re.search(r"\.(?:reqntid|maxntid)\s+(\d+)", made.asm["ptx"])
    return int(found[1]) if found else 32 * int(made.metadata.num_warps)


def run_text(
    text: str,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    arguments: Sequence[Any],
    shared: int = 0,
    name: str = "",
) -> None:
    """Run a kernel that is given as PTX, on `grid` blocks of `block` threads with `shared` bytes of dynamic shared memory.

    `arguments`: NumPy arrays, of which the kernel gets the address and whose memory it reads and writes, and numbers. `name`:
    which kernel of the text, if it has several. Raises KernelError for what a card would stop for, for races in shared memory,
    and for PTX that the machine does not know; ArgumentError for arguments that are not the kernel's.
    """
    compiled = _prepared(text, name)
    wanted = compiled.program.parameters
    if len(arguments) != len(wanted):
        raise ArgumentError(f"{compiled.program.name}: {len(arguments)} arguments: expected {len(wanted)}")
    for called, sizes, most in (("grid", grid, 1 << 31), ("block", block, 1024)):
        if len(sizes) != 3 or min(sizes) < 1 or math.prod(sizes) > most:
            raise ArgumentError(
                f"{compiled.program.name}: {called} {sizes}: expected three sizes, 1 to {most} together"
            )
    for n, (a, p) in enumerate(zip(arguments, wanted, strict=True)):
        size = 8 if isinstance(a, np.ndarray) else a.nbytes if isinstance(a, np.generic) else p.size
        if size != p.size:
            raise ArgumentError(
                f"{compiled.program.name}: argument {n} has {size} bytes: expected {p.size} for {p.name}"
            )
    given = [_plain(a, p.size) for a, p in zip(arguments, wanted, strict=True)]
    spans = []
    for n, a in enumerate(arguments):
        if isinstance(a, np.ndarray):
            spans.append((*_memory(a), f"argument {n}, {a.dtype} {a.shape}"))
    run(compiled, grid, block, _laid(compiled, given), shared, spans)


def _plain(value: Any, size: int) -> bytes:
    if isinstance(value, np.ndarray):
        return int(value.ctypes.data).to_bytes(8, "little")
    return value.tobytes() if isinstance(value, np.generic) else _bytes(value, size)


def cuda(
    kernel: Any, grid: tuple[int, int, int], block: tuple[int, int, int], arguments: tuple[Any, ...], shared: int
) -> None:
    """Run a kernel of csrc/cuda, as `Kernel.launch` takes it."""
    from ulpgrad.kernels import cuda_compile

    name, text = _ptx(kernel, cuda_compile.architectures()[0])
    compiled = _prepared(text, name)
    given = [_of_cuda(a) for a in arguments]
    wanted = compiled.program.parameters
    if len(given) != len(wanted) or any(len(g) != p.size for g, p in zip(given, wanted, strict=True)):
        raise ArgumentError(
            f"{kernel.name}: arguments of {', '.join(str(len(g)) for g in given)} bytes: expected "
            f"{', '.join(str(p.size) for p in wanted)}"
        )
    run(compiled, grid, block, _laid(compiled, given), shared, _spans(arguments))


@cache
def _ptx(kernel: Any, arch: str) -> tuple[str, str]:
    found: tuple[str, str] = kernel.ptx(arch)
    return found


def _of_cuda(value: Any) -> bytes:
    if value is None or gpu.is_array(value):
        return (0 if value is None else value.data.ptr).to_bytes(8, "little")
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return (np.int64(value) if type(value) is int else np.asarray(value)[()]).tobytes()


def _bytes(value: Any, size: int) -> bytes:
    """An argument as so many bytes."""
    value = getattr(value, "array", value)
    if isinstance(value, bytes):
        return value
    if gpu.is_array(value):
        return int(value.data.ptr).to_bytes(8, "little")
    if isinstance(value, float):
        return struct.pack("<f" if size == 4 else "<d", value)
    return (int(value) & (1 << 8 * size) - 1).to_bytes(size, "little")


def _laid(compiled: Compiled, values: Sequence[bytes]) -> bytes:
    """Parameters, each at a multiple of its alignment."""
    out = b""
    for p, value in zip(compiled.program.parameters, values, strict=True):
        out += bytes(-len(out) % p.align) + value
    return out


def _described(argument: Any, told: Any) -> list[Any]:
    """What a kernel gets of a tensor descriptor: the map, or the address where there is no unit for it, and sizes and strides."""
    from triton.backends.nvidia.driver import TMA_DTYPE_DEVICE_TO_HOST, make_tensordesc_arg

    from ulpgrad.kernels.triton_arguments import descriptor_of

    array = argument.array
    shape, strides = [*array.shape], [s // array.itemsize for s in array.strides]
    if (
        told is None
    ):  # Triton's own list, which has grown by a flag; its metadata are None, and 3.9 has a parameter more
        more = make_tensordesc_arg.__code__.co_argcount - 2
        return list(
            make_tensordesc_arg(descriptor_of(array, array, argument.block, argument.layout), None, *[None] * more)
        )
    steps = [s * told["elem_size"] for s in strides[-2::-1]]
    box = told["block_size"][::-1]
    made = tensor_map.encode_tiled(
        TMA_DTYPE_DEVICE_TO_HOST[told["elem_type"]], len(shape), array.data.ptr, shape[::-1], steps, box, [1] * len(box),
        swizzle=told["swizzle"],
    )  # fmt: skip
    return [tensor_map.as_bytes(made), *shape, *strides]


def _spans(arguments: Sequence[Any]) -> list[tuple[int, int, str]]:
    """Where the arrays lie that a launch is given, and those whose addresses stand in its arguments."""
    given, found = list(_arrays(arguments)), []
    tables = [a.host.ravel() for a in given if a.dtype.itemsize == 8 and a.dtype.kind in "iu"]
    for n, array in enumerate(given):
        found.append((*_memory(array.host), f"argument {n}, {array.dtype} {array.shape}"))
    listed = set(np.concatenate(tables).tolist()) if tables else set()
    listed.update(_mapped(a) for a in arguments)
    for other in list(_alive.values()) if listed - {None} else ():
        if other.host.ctypes.data in listed:
            found.append((*_memory(other.host), f"an array named in an argument, {other.dtype} {other.shape}"))
    return found


def _memory(array: Any) -> tuple[int, int]:
    """Where the memory begins that an array is a view of, and its bytes: lines may be padded."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    low, top = np.lib.array_utils.byte_bounds(array)
    return low, top - low


def _mapped(argument: Any) -> int | None:
    """The address in a description of an array for the copy unit."""
    if not (isinstance(argument, np.ndarray) and argument.nbytes == 128 and tensor_map.is_map(argument.tobytes())):
        return None
    return tensor_map.from_bytes(argument.tobytes()).address


_alive: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def watch(kind: Any) -> None:
    """Know every array of a class from now on."""
    begin = kind.__init__

    def known(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        _alive[id(self)] = self

    kind.__init__ = known


def _arrays(arguments: Sequence[Any]) -> Iterator[Any]:
    for a in arguments:
        value = getattr(a, "array", a)
        if gpu.is_array(value):
            yield value
