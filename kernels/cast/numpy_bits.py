"""NumPy's own conversions, and integer arithmetic on the bits of the formats it lacks. Its limit: bfloat16 takes six passes
over memory, and float16 is converted one value at a time."""

from __future__ import annotations

from collections.abc import Callable

from ulpgrad.formats import ALL, Array, Format
from ulpgrad.kernels.cast import spec
from ulpgrad.kernels.cast.convert import numpy_converter, of_request
from ulpgrad.kernels.registry import Request, kernel


@kernel(spec.cast, "cpu/numpy-bits", rank=10, formats=ALL, build=True)
def build(request: Request) -> Callable[..., Array]:
    convert = numpy_converter(*of_request(request.formats, request.params))

    def run(x: Array, *, dtype: Format) -> Array:
        return convert(x)

    return run
