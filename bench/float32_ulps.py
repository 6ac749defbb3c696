"""The largest error of a vector function over every float32, in ULPs, on each instruction set:

    python -m ulpgrad.bench.float32_ulps exp log tanh erf sigmoid

Held against the function's own float64 loop, which tests/test_vector_math.py holds against NumPy, or against NumPy where it has
none. Minutes per function.
"""

from __future__ import annotations

import sys

import numpy as np

from ulpgrad.kernels import native
from ulpgrad.kernels.elementwise import reference
from ulpgrad.kernels.elementwise.cpp_loops import ONLY_FLOAT32

CHUNK = 1 << 16  # values: all arrays stay in the second cache


def largest(name: str, first: int = 0, beyond: int = 2**32) -> dict[str, tuple[float, float]]:
    """The largest error among bit patterns from `first` to below `beyond`, and where, by instruction set."""
    module = native.module()
    exact = reference.FUNCTIONS[name] if name in ONLY_FLOAT32 else module.elementwise(name, "float64", "")
    loops = {isa: module.elementwise(name, "float32", isa) for isa in module.cpu_isas()}
    worst = dict.fromkeys(loops, (0.0, 0.0))
    with np.errstate(all="ignore"):
        for start in range(first, beyond, CHUNK):
            x = np.arange(start, start + CHUNK, dtype=np.uint32).view(np.float32)
            want = exact(x.astype(np.float64))
            rounded = want.astype(np.float32)
            power = (rounded.view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
            unit = np.maximum(power, np.finfo(np.float32).tiny).astype(np.float64) * 2.0**-23
            for isa, loop in loops.items():
                got = loop(x)
                error = np.abs(got - want) / unit
                same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
                error = np.where(np.isfinite(rounded) & np.isfinite(got), error, np.where(same, 0.0, np.inf))
                at = int(error.argmax())
                if error[at] > worst[isa][0]:
                    worst[isa] = float(error[at]), float(x[at])
    return worst


if __name__ == "__main__":
    for name in sys.argv[1:]:
        found = ", ".join(f"{isa} {error:.3f} at {x!r}" for isa, (error, x) in largest(name).items())
        print(f"{name}: {found}", flush=True)
