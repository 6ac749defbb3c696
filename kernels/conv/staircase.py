"""What the rungs of the teaching ladder (native_loops.py to native_threads.py) share: what they take, and the call."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels import native
from ulpgrad.kernels.registry import Request


def refusal(request: Request) -> str | None:
    """They teach one convolution: stride 1, no dilation, one group, no activation."""
    params = request.params
    plain = params["stride"] == params["dilation"] == (1, 1) and params["groups"] == 1
    return None if plain and params.get("activation") is None else "teaches stride 1 without dilation and groups"


def convolve(rung: str, x: Array, weight: Array, bias: Array | None, params: dict[str, Any]) -> Any:
    top, left = params["padding"]
    given = np.zeros(weight.shape[0], weight.dtype) if bias is None else bias
    return native.module().conv_ladder(rung, x, weight, given, top, left)
