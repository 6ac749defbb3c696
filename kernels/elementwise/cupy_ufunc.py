"""CuPy's own function, where its results are NumPy's: a kernel that CuPy writes and compiles for each combination of types. Takes
what Triton is not there for. Its limit: memory.

Not float32, of which CuPy takes subnormal values for 0 (it compiles with -ftz=true); nor the remainders of large quotients,
shifts by more than there are bits and powers of integers, which are not NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import compute_format, float16, float32
from ulpgrad.kernels import gpu
from ulpgrad.kernels.elementwise import spec
from ulpgrad.kernels.elementwise.table import Row
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op

OTHER = (
    "remainder",
    "floor_divide",
    "pow",
    "bitwise_left_shift",
    "bitwise_right_shift",
    "nextafter",
    "clip",
    "sign",
    "hypot",
)


def register(row: Row, op: Op) -> None:
    """Enter CuPy's rung of a row."""
    formats = [f for f in op.formats if f is float16 or (compute_format(f) is f and f is not float32)]

    @kernel(op, "cuda/cupy-ufunc", rank=20, formats=formats, build=True)
    def build(request: Request) -> Callable[..., Any]:
        form = request.formats[0]
        assert form is not None
        name = row.ufunc if form.is_floating or not row.on_integers else row.on_integers
        function: Callable[..., Any] = getattr(gpu.xp(), name)
        return function


for _row, _op in spec.rows():
    if _row.ufunc and _row.name not in OTHER:
        register(_row, _op)
