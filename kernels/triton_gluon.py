"""Gluon, Triton's lower language, under one set of names from Triton 3.6 on. In it a kernel names its layouts, its shared memory,
its barriers and who does what, and asks for the units of sm_90 one by one.

A file of such kernels takes what it uses from here, as files in Triton do from `triton_launch`, and is launched by `launch` too.
Triton's interpreter does not know the language; on an emulated GPU `gluon_host` runs what a kernel uses of it.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ulpgrad.formats import Format
from ulpgrad.kernels import triton_launch
from ulpgrad.kernels.triton_arguments import Described

_ = triton_launch.triton  # it says how Triton is imported, and is therefore first
from triton.experimental import gluon  # noqa: E402
from triton.experimental.gluon import language as gl  # noqa: E402
from triton.experimental.gluon.language.nvidia.hopper import (  # noqa: E402
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

# Copies of blocks by the tensor memory accelerator. Triton 3.6 has other names for them, which raise in 3.9.
copy_in = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
copy_out = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global

LINE = 128  # bytes that lie together in shared memory, in the pattern that products read without conflicts


def described(array: Any, form: Format, block: Sequence[int]) -> Described:
    """The array as a descriptor of blocks that lie in shared memory as products of warp groups read them."""
    layout = gl.NVMMASharedLayout(LINE, 8 * array.itemsize, len(block))
    return Described(array, form, tuple(block), layout)


__all__ = ["copy_in", "copy_out", "described", "fence_async_shared", "gl", "gluon", "mbarrier", "tma", "warpgroup_mma",
           "warpgroup_mma_wait"]  # fmt: skip
