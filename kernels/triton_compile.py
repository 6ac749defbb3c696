"""Triton kernels compiled for GPUs that are not there, and not run: what they came to can be read (`launches`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ulpgrad import settings
from ulpgrad.errors import ArgumentError

TYPES = {
    "bool": "i1", "float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64", "float8_e4m3fn": "fp8e4nv",
    "float8_e5m2": "fp8e5",
    **{f"{sign}int{bits}": f"{sign or 'i'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg", "enable_fp_fusion")


@dataclass(frozen=True)
class Launch:
    """One launch as it would have been: `compiled` has Triton's `asm` ("ptx", "cubin") and `metadata`."""

    kernel: str
    arch: int
    grid: tuple[int, ...]
    constants: dict[str, Any]
    signature: dict[str, str]
    compiled: Any


launches: list[Launch] = []
_known: dict[Any, Any] = {}


def architectures() -> list[int]:
    """What ULPGRAD_CUDA_ARCH names."""
    given = settings.get("ULPGRAD_CUDA_ARCH")
    if not all(part.strip().isdecimal() for part in given.split(",")):
        raise ArgumentError(f"ULPGRAD_CUDA_ARCH={given!r}: expected numbers, as in 80,90")
    return [int(part) for part in given.split(",")]


def run(kernel: Any, grid: Sequence[int], arguments: Sequence[Any], constants: dict[str, Any]) -> None:
    """Compile a kernel as a launch with these arguments would, for each architecture."""
    for arch in architectures():
        signature, made = compiled(kernel, arguments, constants, arch)
        shown = {name: value for name, value in constants.items() if name not in OPTIONS}
        launches.append(Launch(kernel.__name__, arch, tuple(grid), shown, signature, made))


def compiled(kernel: Any, arguments: Sequence[Any], constants: dict[str, Any], arch: int) -> tuple[dict[str, str], Any]:
    """The signature that such arguments give a kernel, and what Triton makes of it for an architecture."""
    from triton import compile as triton_compile
    from triton.backends.compiler import GPUTarget

    from ulpgrad.kernels.triton_device import pointer

    arguments = [pointer(a) for a in arguments]
    options = {name: constants[name] for name in OPTIONS if name in constants}
    names = [p.name for p in kernel.params]
    signature: dict[str, str] = {}
    fixed: dict[tuple[int], Any] = {}
    attributes: dict[tuple[int], Any] = {}
    for i, name in enumerate(names):
        if i >= len(arguments):
            signature[name], fixed[i,] = "constexpr", constants[name]
            continue
        signature[name], even = _type(arguments[i])
        if signature[name] == "constexpr":
            fixed[i,] = arguments[i]
        elif even:
            attributes[i,] = [["tt.divisibility", 16]]
    key = (kernel, arch, *signature.values(), *map(str, (fixed, attributes, options)))
    if key not in _known:
        source = _source(kernel)(kernel, signature=signature, constexprs=fixed, attrs=attributes)
        _known[key] = triton_compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    return signature, _known[key]


def _source(kernel: Any) -> Any:
    """The class of a kernel's source, by the language that it is written in."""
    if kernel.is_gluon():
        from triton.experimental.gluon._runtime import GluonASTSource

        return GluonASTSource
    from triton.compiler import ASTSource

    return ASTSource


def _type(value: Any) -> tuple[str, bool]:
    """Triton's name of an argument's type, and whether it is known to be a multiple of 16."""
    if value is None:
        return "constexpr", False
    if isinstance(value, bool):
        return "i1", False
    if isinstance(value, int):
        wide = not -(2**31) <= value < 2**31
        return ("constexpr", False) if value == 1 else ("i64" if wide else "i32", value % 16 == 0)
    if isinstance(value, float):
        return "fp32", False
    base = getattr(value, "base", None)
    if base is not None:
        layout = getattr(value, "layout", None)
        kind = f"{TYPES[str(base.dtype)]}{list(value.block_shape)}{'' if layout is None else f',{layout!r}'}"
        return f"tensordesc<{kind}>".replace(" ", ""), False
    return f"*{TYPES[str(value.dtype)]}", value.address % 16 == 0
