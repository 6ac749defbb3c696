"""Vector conversions between float64, float32, bfloat16 and float16 in C++ (F16C where the CPU has it), threaded from 64
thousand values: limited by memory. float64 goes to 16 bits in one rounding, through float32 rounded to odd."""

from __future__ import annotations

from collections.abc import Callable

from ulpgrad.formats import Array, Format, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.cast import spec
from ulpgrad.kernels.cast.convert import NATIVE, of_request
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (float16, bfloat16, float32, float64)


def _compiled(request: Request) -> str | None:
    source, target = of_request(request.formats, request.params)
    return None if (source, target) in NATIVE else f"has no loop from {source} to {target}"


@kernel(spec.cast, "cpu/native-convert", rank=50, formats=FORMATS, where=_compiled, build=True)
def build(request: Request) -> Callable[..., Array]:
    source, target = of_request(request.formats, request.params)
    convert = native.module().cast(source.name, target.name)

    def run(x: Array, *, dtype: Format) -> Array:
        return convert(x)

    return run
