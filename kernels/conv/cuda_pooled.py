"""Convolution by its highest rung, then the largest value of each window, and the activation of these alone.

Next limit: the whole convolution is written and read again, four values for one with windows of 2 x 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.kernels import registry
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.cuda_arguments import FORMATS
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.pool.cuda_direct import MAXIMUM, largest
from ulpgrad.kernels.registry import Request, kernel

ROUNDED_ONCE = (None, "relu")  # activations of rounded sums that are themselves exact


def refusal(request: Request) -> str | None:
    """Why a result would be rounded twice; None if it is not, or no more than in the widest formats."""
    form, activation = request.formats[0], request.params.get("activation")
    if form is not None and form.storage.itemsize == 2 and activation not in ROUNDED_ONCE:
        return f"takes {form.name} with relu or no activation, since the convolution is rounded first, not with {activation}"
    return None


@kernel(spec.conv2d_max_pool, "cuda/cuda-pooled", rank=60, formats=FORMATS, where=refusal, build=True)
def conv2d_max_pool(request: Request) -> Callable[..., Any]:
    geometry = {k: request.params[k] for k in ("stride", "padding", "dilation")} | {"groups": 1}
    inner = Request(spec.conv2d, request.device, request.formats, request.arrays, geometry)
    rung, _ = registry.select(inner)
    convolve = rung.run(inner) if rung.build else rung.run
    chosen = MAXIMUM[request.formats[0]]

    def run(
        x: Any, weight: Any, bias: Any, *, window: Pair, activation: str | None = None, **_: Any
    ) -> tuple[Any, Any]:
        return largest(chosen, convolve(x, weight, bias, **geometry), window, window, (0, 0), (1, 1), activation)

    return run
