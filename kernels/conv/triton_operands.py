"""What the rungs of convolution in Triton share: layouts of results, filters as matrices, sizes of tiles."""

from __future__ import annotations

from math import prod
from typing import Any

from ulpgrad.formats import Format, as_format, bfloat16, float16, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.geometry import LARGEST, output_size
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


def too_large(request: Request) -> str | None:
    """Why places within an image, or in a group's filters, do not fit the 32 bits that they are counted in; None if they do."""
    geometry = {name: request.params[name] for name in ("stride", "padding", "dilation")}
    first, second = request.arrays[0], request.arrays[1]
    groups = request.params.get("groups", 1)
    if request.op is spec.conv2d_weight_gradient:
        seen, filters, made = [first, second], first.shape[1] // groups * (second.shape[1] // groups), 0
        filters *= prod(request.params["size"])
    else:
        size = request.params.get("size") or output_size(first.shape[2:], second.shape[2:], **geometry)
        channels = second.shape[1] * groups if request.op is spec.conv2d_input_gradient else second.shape[0]
        seen, filters, made = [first], prod(second.shape) // groups, channels * prod(size)
    far = (
        sum((n - 1) * abs(s) for n, s in zip(a.shape[1:], a.strides[1:], strict=True)) // a.itemsize + 1 for a in seen
    )
    values = max(made, *far)
    if values > LARGEST:
        return f"takes images of up to 2^31 - 1 values, or as many from their first to their last, not {values}"
    return f"takes filters of up to 2^31 - 1 values in a group, not {filters}" if filters > LARGEST else None


def narrow_groups(request: Request) -> str | None:
    """Depthwise filters make no product worth a tile; or as `too_large`."""
    groups = request.params.get("groups", 1)
    of_weights = request.op is spec.conv2d_weight_gradient
    outputs = request.arrays[0].shape[1] if of_weights else request.arrays[1].shape[0]
    if groups > 1 and outputs < FEWEST * groups:
        return "groups of few results are left to direct kernels"
    return too_large(request)
