"""What a forward op keeps for its gradient beside 16-bit operands: float32, or (given by hand) their own format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ulpgrad.formats import Array, bfloat16, compute_format, float16, float32
from ulpgrad.kernels.cast.convert import convert
from ulpgrad.kernels.registry import Request


def beside(operands: Sequence[int], kept: Sequence[int]) -> Callable[[Request], str | None]:
    """Predicate of rungs that want these operands in one float format, and what was kept in it or in what computes for it."""

    def where(request: Request) -> str | None:
        formats = {request.formats[i] for i in operands} - {None}
        (form, *others) = formats
        allowed = (form, None if form is None else compute_format(form))
        same = not others and all(request.formats[i] in allowed for i in kept)
        return None if same else "mixes float formats"

    return where


def wide(kept: Array) -> Array:
    """Statistics as float32 or float64."""
    if kept.dtype.itemsize > 2:
        return kept
    return convert(kept, float16 if kept.dtype == np.float16 else bfloat16, float32)
