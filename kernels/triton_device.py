"""Triton kernels on a GPU, without torch: an active driver that takes device and stream from CuPy, and compiled kernels that
are kept and launched directly, past Triton's own front door (17 us).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ulpgrad.kernels import gpu

_compiled: dict[tuple[Any, ...], tuple[Any, Callable[..., Any]]] = {}


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


def _kind(value: Any) -> Any:
    """What a compiled kernel hangs on of an argument: at least what Triton specialises on."""
    kind = value.__class__
    if kind is int:
        return 1 if value == 1 else (value % 16 == 0, -(2**31) <= value < 2**31)
    if kind is Pointer:
        return value.dtype, value.address % 16 == 0
    return kind if kind in (float, bool) else (str(value.base.dtype), tuple(value.block_shape))


def run(kernel: Any, grid: Sequence[int], arguments: Sequence[Any], constants: dict[str, Any]) -> None:
    """Launch on the current device and stream; arguments are `Pointer`, descriptors over these, or numbers."""
    cuda = gpu.xp().cuda
    key = (kernel, cuda.runtime.getDevice(), *constants.values(), *map(_kind, arguments))
    found = _compiled.get(key)
    if found is None:
        found = _compiled[key] = _compile(kernel, grid, arguments, constants)
    compiled, ordered = found
    x, y, z = (*grid, 1, 1)[:3]
    addresses = [a.address if a.__class__ is Pointer else a for a in arguments]
    compiled.run(
        x, y, z, cuda.get_current_stream().ptr, compiled.function, compiled.packed_metadata, None, None, None,
        *ordered(addresses),
    )  # fmt: skip


def _compile(
    kernel: Any, grid: Sequence[int], arguments: Sequence[Any], constants: dict[str, Any]
) -> tuple[Any, Callable[..., Any]]:
    """The compiled kernel, and a function that puts constants between the arguments of a launch, as the launcher wants them."""
    install_driver()
    compiled = kernel.run(*arguments, grid=tuple(grid), warmup=True, **constants)
    compiled._init_handles()
    names = [p.name for p in kernel.params]
    fixed = [constants[name] for name in names[len(arguments) :]]
    return compiled, lambda given: (*given, *fixed)
