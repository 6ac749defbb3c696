"""8-bit floats on Hopper's units for them, twice as fast as 16-bit ones, by the persistent rung's kernel. The units sum in about
14 bits: after every 128 products of k the sum is added to one in float32. They read both operands along k: a matrix that lies
the other way is turned first, a byte a value.

Next limit: adding to float32 takes instructions of the ordinary units; the rung without it is there to be measured.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ulpgrad.formats import Format, float32
from ulpgrad.kernels import gpu
from ulpgrad.kernels.matmul import spec, triton_operands as operands, triton_persistent as persistent
from ulpgrad.kernels.matmul.strided import lies, of_layer, of_product
from ulpgrad.kernels.registry import Request, kernel


def promoted(product: operands.Product) -> Any:
    """Sums of 128 products, added in float32."""
    return persistent.run(along_k(product), operands.PROMOTED)


def unpromoted(product: operands.Product) -> Any:
    """The units' own sums over all of k."""
    return persistent.run(along_k(product), None, "float8, unpromoted")


def along_k(product: operands.Product) -> operands.Product:
    """The product with both operands contiguous along k."""
    a, b = product.a, product.b
    if lies(a) == "columns":
        a = gpu.contiguous(a)
    if lies(b) == "rows":
        b = gpu.contiguous(b.swapaxes(-1, -2)).swapaxes(-1, -2)
    return dataclasses.replace(product, a=a, b=b)


def _refusal(request: Request, dtype: Format | None, facts: Any) -> str | None:
    if dtype is float32:
        return "sums in fewer bits than a float32 result has"
    if facts is not None and facts.deep % 16:
        return "copies rows of k, which lie at multiples of 16 bytes"
    return persistent.refusal(facts, 1 if dtype is None else dtype.storage.itemsize)


def _product(request: Request) -> str | None:
    return _refusal(request, None, of_product(*request.arrays))


def _layer(request: Request) -> str | None:
    return _refusal(request, request.params.get("dtype"), of_layer(*request.arrays))


UNPROMOTED = (
    "The rung below its neighbour without sums in float32: as exact as the units are, to be measured and pinned."
)


@kernel(spec.matmul, "cuda/triton-float8", rank=60, formats=operands.FLOAT8, where=_product, build=True)
def matmul(request: Request) -> Any:
    return operands.matmul_by(promoted, request)


@kernel(spec.linear, "cuda/triton-float8", rank=60, formats=operands.FLOAT8, where=_layer, build=True)
def linear(request: Request) -> Any:
    return operands.linear_by(promoted, request)


@kernel(
    spec.matmul, "cuda/triton-float8-unpromoted", rank=44, formats=operands.FLOAT8, where=_product, build=True,
    idea=UNPROMOTED,
)  # fmt: skip
def matmul_unpromoted(request: Request) -> Any:
    return operands.matmul_by(unpromoted, request)


@kernel(
    spec.linear, "cuda/triton-float8-unpromoted", rank=44, formats=operands.FLOAT8, where=_layer, build=True,
    idea=UNPROMOTED,
)  # fmt: skip
def linear_unpromoted(request: Request) -> Any:
    return operands.linear_by(unpromoted, request)
