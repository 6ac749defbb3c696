"""Random operands on the device, ours and torch's on the same memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

import ulpgrad as ug
from ulpgrad.bench.peers.others import imported
from ulpgrad.formats import Integer, as_format
from ulpgrad.kernels import gpu
from ulpgrad.tensor import Tensor


@cache
def torch() -> Any:
    """torch where it sees a GPU, else None. One that cannot be imported is a peer that is missing, which is told."""
    if gpu.mode():
        return None
    try:
        found = imported("torch")
        return found if found is not None and found.cuda.is_available() else None
    except Exception as error:  # a library's of its own
        print(f"torch is left out: {type(error).__name__}: {error}", flush=True)
        return None


def normal(shape: tuple[int, ...], seed: int) -> Any:
    """Standard normal float32 values, drawn where they are used."""
    xp = gpu.xp()
    if gpu.mode():
        return xp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))
    return xp.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def tensor(shape: tuple[int, ...], form: Any, seed: int, scale: float = 1.0) -> Tensor:
    """A tensor of random values: normal for floats, uniform over all codes for integers."""
    form = as_format(form)
    xp = gpu.xp()
    if isinstance(form, Integer):
        codes = np.random.default_rng(seed).integers(form.min, form.max, shape, form.storage, endpoint=True)
        return Tensor(xp.asarray(codes), form)
    values = normal(shape, seed)
    if scale != 1.0:
        values *= np.float32(scale)
    made = Tensor(values, ug.float32)
    return made if form is ug.float32 else made.to(form)


def to_torch(torch: Any, x: Tensor) -> Any:
    """torch's tensor on the memory of ours."""
    found = torch.from_dlpack(x.storage)
    return found if x.dtype.is_native else found.view(getattr(torch, x.dtype.name))


def for_torch(torch: Any, shape: tuple[int, ...], form: str, seed: int) -> Any:
    return to_torch(torch, tensor(shape, form, seed))


def torch_product(torch: Any, form: str, a: Any, b: Any) -> Callable[[], Any]:
    """How torch multiplies matrices of a format, its operands laid out as it wants them before the clock starts."""
    columns = b.t().contiguous().t() if form == "int8" or form.startswith("float8") else b  # as their units read it
    if form == "int8":
        return lambda: torch._int_mm(a, columns)
    if form.startswith("float8"):
        one = torch.ones((), device="cuda")
        return lambda: torch._scaled_mm(a, columns, one, one, out_dtype=torch.bfloat16)
    return lambda: torch.matmul(a, b)


def exact(x: Tensor) -> Any:
    """The values in float64, on the device."""
    return x.to(ug.float64).storage


def host(values: Any) -> Any:
    """float64 values of the device on the host, to be compared."""
    return gpu.to_host(values.astype(np.float64))


def result(out: Any) -> Any:
    """Values of ours, or of torch, in float64 on the device."""
    if isinstance(out, Tensor):
        return exact(out)
    return gpu.xp().from_dlpack(out.double())
