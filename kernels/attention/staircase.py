"""The rungs that teach attention in C++ (csrc/cpu/ladder): contiguous float32 without a mask, on one thread."""

from __future__ import annotations

from math import prod
from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels import native
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.registry import Request


def maskless(request: Request) -> str | None:
    """Why a rung that teaches does not take a call, or None."""
    if request.formats[3] is not None:
        return "shows attention without a mask"
    return spec.plain_only(request) or spec.undropped(request)


def attend(rung: str, q: Array, k: Array, v: Array, is_causal: bool, scale: float) -> Any:
    """(y, lse) of q, k and v with any leading axes."""
    heads = [a.reshape(prod(a.shape[:-2]), *a.shape[-2:]) for a in (q, k, v)]
    y, lse = native.module().attention_ladder(rung, *heads, is_causal=is_causal, scale=scale)
    return y.reshape(*q.shape[:-1], v.shape[-1]), lse.reshape(q.shape[:-1])
