"""AArch64's SDOT and UDOT multiply four bytes and add them in one instruction, both signed or both unsigned: B's are moved by 128
where they differ from A's. Next limit: the dot-product units."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels.integer import native_call, spec
from ulpgrad.kernels.registry import Request, kernel


@kernel(
    spec.integer_matmul,
    "cpu/native-dotprod",
    rank=65,
    formats=spec.FORMATS,
    requires=("native", "neon_dotprod"),
    build=True,
)
def integer_matmul(request: Request) -> Any:
    return native_call.matmul(request, "neon_dotprod")


@kernel(spec.integer_conv2d, "cpu/native-dotprod", rank=65, formats=spec.FORMATS, requires=("native", "neon_dotprod"))
def integer_conv2d(x: Array, weight: Array, **params: Any) -> Array:
    return native_call.conv2d(x, weight, "neon_dotprod", **params)
