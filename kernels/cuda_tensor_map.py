"""What the copy unit of sm_90 (TMA) is told of an array: its address, sizes, strides, and what one copy brings.

`Tiles` and `Pixels` are what is to be told, with the limits that NVIDIA documents for it, and need no device. `argument` has the
driver encode them, for a kernel's parameter `TensorMap` (csrc/cuda/bulk_copy.cuh); without a driver (ULPGRAD_CUDA=emulated) it
writes them as they are, for csrc/cuda/bulk_copy_host.h. Axes begin with the fastest one, as the driver takes them.

Source: CUDA driver API, "Tensor Map Object Management"; PTX ISA, "Tensors".
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from ulpgrad.errors import ArgumentError, KernelError
from ulpgrad.formats import Format
from ulpgrad.kernels import gpu

CODES: Final = {"float16": 6, "bfloat16": 9}  # CUtensorMapDataType
SWIZZLE_128: Final = 3  # CUtensorMapSwizzle: 16-byte chunks of lines of 128 bytes
PROMOTE_256: Final = 3  # CUtensorMapL2promotion: what memory is read in, bytes
LINE: Final = 128  # bytes, at most, of the fastest axis in one copy with that pattern
ALIGNED: Final = 16  # bytes: addresses, and strides but the first
LARGEST_SIZE, LARGEST_STRIDE = 1 << 32, 1 << 40
LARGEST_BOX, LARGEST_STEP = 256, 8  # elements of a copy along an axis, and the step between them
MOST_CHANNELS, MOST_PIXELS = 256, 1024  # of a copy by im2col
CORNERS: Final = (-128, 127)  # of the box of base coordinates, with two axes of pixels
LARGEST_OFFSET: Final = 255  # of a tap, likewise

WORDS: Final = np.dtype([("words", np.uint64, 16)], align=True)
FIELDS: Final = np.dtype(
    {
        "names": ["address", "strides", "sizes", "box", "lower", "upper", "stride", "channels", "pixels"],
        "formats": [np.uint64, (np.int64, 4), (np.int32, 4), (np.int32, 4), (np.int32, 2), (np.int32, 2), (np.int32, 2),
                    np.int32, np.int32],
        "offsets": [0, 8, 40, 56, 72, 80, 88, 96, 100],
        "itemsize": WORDS.itemsize,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Tiles:
    """Boxes of an array of up to four axes; a size of 1 is a missing one. `strides` in bytes, of the second axis on."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    itemsize: int = 2

    def refusal(self) -> str | None:
        """Why the unit cannot copy so, or None."""
        if any(not 0 < b <= LARGEST_BOX for b in self.box):
            return f"copies tiles of 1 to {LARGEST_BOX} values along an axis, not {self.box}"
        if self.box[0] * self.itemsize > LINE or self.box[0] * self.itemsize % ALIGNED:
            return f"copies lines of up to {LINE} bytes, in chunks of {ALIGNED}, not {self.box[0] * self.itemsize}"
        return _array_refusal(self.sizes, self.strides)


@dataclass(frozen=True)
class Pixels:
    """Pixels of images as windows read them (im2col). `sizes`: (channels, width, height, images); `strides` in bytes, of the last
    three. `lower` and `upper`, for width and height: where the box of base coordinates begins, from the first pixel, and
    ends, from the last one; `step` is the way from window to window. One copy brings so many `channels` of so many `pixels`."""

    sizes: tuple[int, int, int, int]
    strides: tuple[int, int, int]
    lower: tuple[int, int]
    upper: tuple[int, int]
    step: tuple[int, int]
    offset: tuple[int, int]  # of the farthest tap
    channels: int
    pixels: int
    itemsize: int = 2

    def refusal(self) -> str | None:
        """Why the unit cannot copy so, or None."""
        for name, least, most, values in (
            ("corners of windows", *CORNERS, (*self.lower, *self.upper)),
            ("offsets of taps", 0, LARGEST_OFFSET, self.offset),
            ("strides", 1, LARGEST_STEP, self.step),
            ("channels in a copy", 1, MOST_CHANNELS, (self.channels,)),
            ("pixels in a copy", 1, MOST_PIXELS, (self.pixels,)),
        ):
            if any(not least <= v <= most for v in values):
                return f"takes {name} from {least} to {most}, not {', '.join(map(str, values))}"
        bases = zip(self.sizes[1:3], self.lower, self.upper, strict=True)
        if any(size - 1 + upper < lower for size, lower, upper in bases):
            return "takes windows that fit on the padded image"
        if self.channels * self.itemsize > LINE:
            return f"copies lines of up to {LINE} bytes, not {self.channels * self.itemsize}"
        return _array_refusal(self.sizes, self.strides)


def _array_refusal(sizes: Sequence[int], strides: Sequence[int]) -> str | None:
    if any(not 0 < s <= LARGEST_SIZE for s in sizes):
        return f"takes arrays that are not empty, of up to 2^32 values along an axis, not {tuple(sizes)}"
    if any(s % ALIGNED or not 0 < s < LARGEST_STRIDE for s in strides):
        return f"takes strides of a multiple of {ALIGNED} bytes, below 2^40, not {', '.join(map(str, strides))}"
    return None


def walk(size: int, positions: int, taps: int, first: int, stride: int, step: int) -> tuple[int, int, int]:
    """(lower, upper, offset) along one axis, where window p sees pixel first + p * stride + t * step by tap t: the corners of the
    base coordinates, which the lowest tap of each window sees, and the offset of the farthest tap. As `Box` of
    csrc/cuda/conv_box.cuh has it."""
    farthest = (taps - 1) * abs(step)
    lower = first - (farthest if step < 0 else 0)
    return lower, lower + (positions - 1) * stride - (size - 1), farthest


def argument(told: Tiles | Pixels, array: Any, form: Format) -> Any:
    """A kernel's `TensorMap` of an array of this format on the device; ArgumentError where the unit cannot copy so."""
    address = int(array.data.ptr)
    reason = told.refusal()
    if reason is None and address % ALIGNED:
        reason = f"takes arrays whose address is a multiple of {ALIGNED}, not {address:#x}"
    if reason is not None:
        raise ArgumentError(f"a tensor map {reason}")
    return (_plain if gpu.mode() and not gpu.runs_ptx() else _encoded)(told, address, CODES[form.name])


def _plain(told: Tiles | Pixels, address: int, _: int) -> Any:
    made = np.zeros((), FIELDS)
    rank = len(told.sizes)
    made["address"], made["sizes"] = address, (*told.sizes, *(1 for _ in range(rank, 4)))
    made["strides"] = (told.itemsize, *told.strides, *(0 for _ in range(rank, 4)))
    if isinstance(told, Tiles):
        made["box"] = (*told.box, *(1 for _ in range(rank, 4)))
    else:
        made["lower"], made["upper"], made["stride"] = told.lower, told.upper, told.step
        made["channels"], made["pixels"] = told.channels, told.pixels
    return made


@lru_cache(1024)
def _encoded(told: Tiles | Pixels, address: int, code: int) -> Any:
    return encode(_driver(), told, address, code)


def encode(driver: Any, told: Tiles | Pixels, address: int, code: int) -> Any:
    """What the driver, as ctypes has it, makes of a map; KernelError where it refuses."""
    memory = np.zeros(WORDS.itemsize + 64, np.uint8)
    made = memory[-memory.ctypes.data % 64 :][: WORDS.itemsize]  # the driver asks for 64
    rank = len(told.sizes)
    begin = (ctypes.c_void_p(made.ctypes.data), ctypes.c_int(code), ctypes.c_uint32(rank), ctypes.c_void_p(address),
             (ctypes.c_uint64 * rank)(*told.sizes), (ctypes.c_uint64 * (rank - 1))(*told.strides))  # fmt: skip
    end = (
        ctypes.c_int(0),
        ctypes.c_int(SWIZZLE_128),
        ctypes.c_int(PROMOTE_256),
        ctypes.c_int(0),
    )  # zeros beside the array
    if isinstance(told, Tiles):
        name = "cuTensorMapEncodeTiled"
        middle: tuple[Any, ...] = ((ctypes.c_uint32 * rank)(*told.box), (ctypes.c_uint32 * rank)(*(1,) * rank))
    else:
        name = "cuTensorMapEncodeIm2col"
        steps = (ctypes.c_uint32 * rank)(1, *told.step, 1)
        middle = ((ctypes.c_int * 2)(*told.lower), (ctypes.c_int * 2)(*told.upper), ctypes.c_uint32(told.channels),
                  ctypes.c_uint32(told.pixels), steps)  # fmt: skip
    status = getattr(driver, name)(*begin, *middle, *end)
    if status:
        raise KernelError(f"{name} refused with CUDA error {status}: {told} at {address:#x}")
    return made.copy().view(WORDS).reshape(())


@lru_cache(1)
def _driver() -> Any:
    if gpu.runs_ptx():
        from ulpgrad.kernels.ptx import tensor_map

        return tensor_map.Driver
    return ctypes.CDLL("libcuda.so.1")


__all__ = ["FIELDS", "WORDS", "Pixels", "Tiles", "argument", "encode", "walk"]
