"""Triton kernels on a GPU, without torch: an active driver that takes device and stream from CuPy, and compiled kernels that
are kept and launched directly, past Triton's own front door (17 us).
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from ulpgrad import settings
from ulpgrad.kernels import capture, gpu
from ulpgrad.kernels.triton_arguments import Described, Typed, Unknown, descriptor_of, typed

TWO_31, TWO_63 = 2**31, 2**63
NUMBERS = {"constexpr", "fp32", "fp64", "i1", "u1", *(f"{kind}{bits}" for kind in "iu" for bits in (8, 16, 32, 64))}
MOST_SHARED = 228 * 1024  # bytes, above which a launch says so in an attribute


class Launcher(NamedTuple):
    """What launches a compiled kernel: `call(x, y, z, stream, *before, *arguments)`, or with all arguments in one tuple."""

    call: Callable[..., None]
    before: tuple[Any, ...]
    together: bool
    packed: Packed | None


class Packed(NamedTuple):
    """What a launch past Triton needs to know: the driver's function, the kernel, threads, shared memory, the parameters' types,
    the driver's function that describes arrays to the copy unit, and what Triton wants of each such description."""

    launch: int
    function: int
    threads: int
    shared: int
    types: tuple[str, ...]
    describe: int
    metas: tuple[dict[str, Any], ...]


# The launcher of a compiled kernel, its constants, and the kernel itself, which keeps its number from being given to another.
_compiled: dict[tuple[Any, ...], tuple[Launcher, tuple[Any, ...], Any]] = {}


@cache
def install_driver() -> None:
    """Make Triton's active driver one that knows CuPy. Serves Triton 3.6 to 3.9."""
    from triton.backends.nvidia.driver import CudaDriver, CudaLauncher, CudaUtils
    from triton.runtime import driver

    cuda = gpu.xp().cuda

    class ArrayDriver(CudaDriver):  # type: ignore[misc]
        def __init__(
            self,
        ) -> None:  # the stock constructor imports torch in 3.6 and 3.7, and takes the default stream later
            self.utils = CudaUtils()
            self.launcher_cls = CudaLauncher
            self.get_current_device = cuda.runtime.getDevice
            self.set_current_device = cuda.runtime.setDevice
            self.get_current_stream = lambda device: cuda.get_current_stream().ptr
            self.get_device_capability = _capability

        @staticmethod
        def is_active() -> bool:
            return True

    driver.set_active(ArrayDriver())


def _capability(device: int | None = None) -> tuple[int, int]:
    number = gpu.xp().cuda.Device(device).compute_capability
    return int(number[:-1]), int(number[-1])


class Pointer:
    """What Triton asks of an argument that is memory, while it compiles."""

    __slots__ = ("address", "dtype")

    def __init__(self, dtype: Any, address: int) -> None:
        self.dtype, self.address = dtype, address

    def data_ptr(self) -> int:
        return self.address


@cache
def _array_library() -> tuple[Any, Any, Any]:
    """The class of arrays, and what says which device and stream are current."""
    xp = gpu.xp()
    return xp.ndarray, xp.cuda.runtime.getDevice, xp.cuda.get_current_stream


def run(kernel: Any, grid: Sequence[int], arguments: Sequence[Any], constants: dict[str, Any]) -> None:
    """Launch on the current device and stream. Raises Unknown, before anything ran, for arguments of another kind."""
    (call, before, together, _), values, fixed = _look_up(kernel, grid, arguments, constants)
    stream = _array_library()[2]().ptr
    if together:
        call(*sizes(grid), stream, *before, (*values, *fixed))
    else:
        call(*sizes(grid), stream, *before, *values, *fixed)


def ready(
    kernel: Any, grid: Sequence[int], arguments: Sequence[Any], constants: dict[str, Any]
) -> tuple[Launcher, tuple[Any, ...]]:
    """What launches the kernel with such arguments on the current device, and the constants behind them."""
    launcher, _, fixed = _look_up(kernel, grid, arguments, constants)
    return launcher, fixed


def sizes(grid: Sequence[int]) -> tuple[int, int, int]:
    """The three sizes of a grid."""
    return tuple(grid) if len(grid) == 3 else (*grid, 1, 1)[:3]  # type: ignore[return-value]


def _look_up(
    kernel: Any, grid: Sequence[int], arguments: Sequence[Any], constants: dict[str, Any]
) -> tuple[Launcher, list[Any], tuple[Any, ...]]:
    """What launches the kernel, and the values of its arguments and its constants.

    What a compiled kernel hangs on is looked up by what Triton specialises on: of a pointer its type and whether it is a
    multiple of 16, of an integer whether it is 1, a multiple of 16, or needs 64 bits, with a sign or without.
    """
    ndarray, device, _ = _array_library()
    key: list[Any] = [id(kernel), device()]  # Triton's own hash of a kernel takes as long as all the rest of this
    values: list[Any] = []
    for a in arguments:
        kind = a.__class__
        if kind is ndarray:
            address, number = a.data.ptr, a.dtype.num
            key.append(number if address & 15 == 0 else -1 - number)
            values.append(address)
        elif kind is int:
            width = 0 if -TWO_31 <= a < TWO_31 else 4 if a < TWO_63 else 8
            key.append(1003 if a == 1 else (1001 if a & 15 == 0 else 1000) + width)
            values.append(a)
        elif kind is float or kind is bool or a is None:
            key.append(kind)
            values.append(a)
        elif kind is Typed:
            address = a.array.data.ptr
            key.append((a.form, address & 15 == 0))
            values.append(address)
        elif kind is Described:
            key.append((a.array.dtype.num, a.form, a.block, a.layout))
            values.append(described(a))
        else:
            raise Unknown(type(a).__name__)
    key.extend(constants)  # their names too: they may come in any order
    key.extend(constants.values())
    seen = tuple(key)
    found = _compiled.get(seen)
    if found is None:
        found = _compiled[seen] = _compile(kernel, grid, arguments, constants)
    return found[0], values, found[1]


def _compile(
    kernel: Any, grid: Sequence[int], arguments: Sequence[Any], constants: dict[str, Any]
) -> tuple[Launcher, tuple[Any, ...], Any]:
    """What launches the compiled kernel, the constants as it wants them, after the rest, and the kernel."""
    capture.refuse(
        f"the first launch of {kernel.__name__} with such arguments, which compiles and loads it,",
        "run what is to be captured once or twice before (ulpgrad.cuda.make_graphed does)",
    )
    install_driver()
    start = time.perf_counter()
    compiled = kernel.run(*map(pointer, arguments), grid=tuple(grid), warmup=True, **constants)
    compiled._init_handles()
    if settings.get("ULPGRAD_LOG") == "kernels":
        print(f"{kernel.__name__:<22} compiled in {(time.perf_counter() - start) * 1e3:.0f} ms", file=sys.stderr)
    fixed = tuple(constants[p.name] for p in kernel.params[len(arguments) :])
    return _launcher(compiled), fixed, kernel


def _launcher(compiled: Any) -> Launcher:
    """What launches a compiled kernel. Where it wants no memory of its own, Triton's C function, called as its launcher in Python
    would (3.9); else that launcher."""
    run, function, metadata, packed = compiled.run, compiled.function, compiled.packed_metadata, _packed(compiled)
    known = ("launch", "launch_cooperative_grid", "launch_pdl", "arg_annotations", "kernel_signature", "gsan_enabled")
    wanted = [getattr(run, name, 0) for name in ("global_scratch_size", "profile_scratch_size", "gsan_enabled")]
    if not all(hasattr(run, name) for name in known) or any(wanted):
        return Launcher(run, (function, metadata, None, None, None), False, packed)
    how = function, run.launch_cooperative_grid, run.launch_pdl, metadata
    return Launcher(run.launch, (*how, *(None,) * 5, run.arg_annotations, run.kernel_signature), True, packed)


def _packed(compiled: Any) -> Packed | None:
    """What a launch past Triton needs to know; None for a kernel whose launch takes more than addresses, numbers and tiled
    descriptors: clusters, memory of its own."""
    run, (warps, ctas, shared, *_) = compiled.run, compiled.packed_metadata
    types = tuple(compiled.src.signature.values())
    special = ("launch_cooperative_grid", "launch_pdl", "global_scratch_size", "profile_scratch_size", "gsan_enabled")
    if any(getattr(run, name, 0) for name in special) or ctas != 1 or shared > MOST_SHARED:
        return None
    if not all(isinstance(t, str) and (t in NUMBERS or t.startswith(("*", "tensordesc<"))) for t in types):
        return None
    metas = tuple(getattr(compiled.metadata, "tensordesc_meta", None) or ())
    if len(metas) != sum(t.startswith("tensordesc<") for t in types):
        return None
    if any(meta is None or meta["fp4_padded"] or meta.get("is_im2col") for meta in metas):
        return None
    launch, describe = map(_in_driver, ("cuLaunchKernelEx", "cuTensorMapEncodeTiled"))
    return Packed(launch, compiled.function, 32 * warps, shared, types, describe, metas)


@cache
def _in_driver(name: str) -> int:
    """Where a function is in the driver's library that Triton has loaded."""
    import ctypes

    return ctypes.cast(getattr(ctypes.CDLL("libcuda.so.1"), name), ctypes.c_void_p).value or 0


def maps(packed: Packed, arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Of each descriptor, what the driver gets beside the address, and the sizes and strides that the kernel gets behind it."""
    from triton.backends.nvidia.driver import TMA_DTYPE_DEVICE_TO_HOST

    found = []
    for value, meta in zip((a for a in arguments if isinstance(a, Described)), packed.metas, strict=True):
        shape, strides = [*value.array.shape], [s // value.array.itemsize for s in value.array.strides]
        steps = [s * meta["elem_size"] for s in strides[-2::-1]]
        type_ = TMA_DTYPE_DEVICE_TO_HOST[meta["elem_type"]]
        found.append((type_, meta["swizzle"], shape[::-1], steps, meta["block_size"][::-1], (*shape, *strides)))
    return tuple(found)


def pointer(value: Any) -> Any:
    """An argument as Triton takes it while it compiles."""
    match value:
        case Described():
            return described(value)
        case Typed(array, form):
            return Pointer(form.name, array.data.ptr)
        case int() | float() | None:
            return value
    return Pointer(value.dtype.name, value.data.ptr)


def described_again(value: Described) -> Callable[[Any], Any]:
    """What makes the descriptor of another array's memory that is this one's of its own."""
    made = described(value)

    def again(array: Any) -> Any:
        other = copy.copy(made)
        other.base = Pointer(made.base.dtype, array.data.ptr)
        return other

    return again


def described(value: Described) -> Any:
    """An array as Triton's tensor descriptor."""
    array = value.array
    base = pointer(array if value.form is None else typed(array, value.form))
    return descriptor_of(base, array, value.block, value.layout)
