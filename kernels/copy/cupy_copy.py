"""CuPy's copy, one kernel. Next limit: memory, and layouts that the two sides run through in different orders."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import ALL
from ulpgrad.kernels import gpu
from ulpgrad.kernels.copy import spec
from ulpgrad.kernels.registry import kernel


@kernel(spec.copy, "cuda/cupy-copy", rank=20, formats=ALL)
def copy(x: Any) -> Any:
    return gpu.copied(x)
