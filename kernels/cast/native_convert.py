"""Vector conversions in C++, threaded from 64 thousand values and limited by memory: between float64, float32, bfloat16 and
float16 (F16C where the CPU has it), to smaller floats by rounding on the bits, from them by a table. float64 goes to 16 bits
in one rounding, through float32 rounded to odd."""

from __future__ import annotations

from collections.abc import Callable

from ulpgrad.formats import FLOATS, Array, Format
from ulpgrad.kernels.cast import spec
from ulpgrad.kernels.cast.compiled import compiled
from ulpgrad.kernels.cast.convert import of_request
from ulpgrad.kernels.registry import Request, kernel


def _compiled(request: Request) -> str | None:
    source, target = of_request(request.formats, request.params)
    return f"has no loop from {source} to {target}" if compiled(source, target) is None else None


@kernel(spec.cast, "cpu/native-convert", rank=50, formats=FLOATS, where=_compiled, build=True)
def build(request: Request) -> Callable[..., Array]:
    convert = compiled(*of_request(request.formats, request.params))
    assert convert is not None

    def run(x: Array, *, dtype: Format) -> Array:
        return convert(x)

    return run
