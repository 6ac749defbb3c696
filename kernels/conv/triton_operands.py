"""What the rungs of convolution in Triton share: layouts of results, filters as matrices, sizes of tiles."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Format, as_format, bfloat16, float16, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.triton_launch import typed

FORMATS = (float32, float64, bfloat16, float16)
FEWEST = 4  # results of a group: with fewer, tiles of products are mostly empty


def format_of(a: Any) -> Format:
    """The format of a stored operand: 16 bits without a type of NumPy's are bfloat16 here."""
    return bfloat16 if a.dtype.name == "uint16" else as_format(a.dtype)


def given(a: Any) -> Any:
    """An operand as a kernel takes it."""
    return typed(a, format_of(a))


def steps(a: Any) -> tuple[int, ...]:
    """Elements from one place to the next along each axis."""
    return tuple(s // a.itemsize for s in a.strides)


def channels_last(x: Any) -> bool:
    """Whether the channels of images lie side by side."""
    return x.shape[1] > 1 and x.strides[1] == x.itemsize and not x.flags.c_contiguous


def images(n: int, channels: int, size: tuple[int, int], dtype: Any, last: bool) -> Any:
    """New memory for images, in either layout."""
    if last:
        return gpu.xp().empty((n, *size, channels), dtype).transpose(0, 3, 1, 2)
    return gpu.xp().empty((n, channels, *size), dtype)


def filters(weight: Any, groups: int, turned: bool = False) -> Any:
    """Filters as one matrix of each group, [groups, kh * kw * inputs, outputs], or with the two exchanged."""
    outputs, inputs, rows, columns = weight.shape
    split = weight.reshape(groups, outputs // groups, inputs, rows, columns)
    split = split.transpose(0, 3, 4, 1, 2) if turned else split.transpose(0, 3, 4, 2, 1)
    return gpu.contiguous(split).reshape(groups, rows * columns * split.shape[3], split.shape[4])


def tile(rows: int, columns: int, a: Any) -> dict[str, Any]:
    """Rows, columns and depth of a tile, and warps and stages for it. 16-bit values that do not lie side by side are fetched one
    by one, with an address in registers for each: smaller tiles."""
    bits = 8 * a.itemsize
    large = bits == 16 and channels_last(a)
    n = min(128 if bits == 16 else 64, max(16, 1 << (columns - 1).bit_length()))
    m = 128 if large and rows >= 4096 else 64
    warps = 8 if m * n >= 128 * 128 or bits == 64 else 4
    return {"M": m, "N": n, "K": 64 if large else 16 if bits == 64 else 32, "num_warps": warps,
            "num_stages": 3 if bits == 16 else 2, "PRECISION": "tf32x3" if bits == 32 else "ieee"}  # fmt: skip


def narrow_groups(request: Request) -> str | None:
    """Depthwise filters make no product worth a tile."""
    groups = request.params.get("groups", 1)
    of_weights = request.op is spec.conv2d_weight_gradient
    outputs = request.arrays[0].shape[1] if of_weights else request.arrays[1].shape[0]
    return "groups of few results are left to direct kernels" if groups > 1 and outputs < FEWEST * groups else None
