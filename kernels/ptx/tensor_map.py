"""What a tensor map says and what `cp.async.bulk.tensor` copies by it: which global element goes where in shared memory.

Written from the driver's documentation of cuTensorMapEncodeTiled and cuTensorMapEncodeIm2col (cuda.h) and from the PTX ISA
(5.5, tensors; 9.7.9, restrictions on tensor copies), and from nothing of this project. The functions take and give NumPy arrays
of addresses; who owns the memory moves the bytes.

Dimension 0 is the innermost throughout, as in both documents. Corners of im2col stand in the order W, H, D: the driver's text
says only "DHW", and both CUTLASS and Triton hand W over first.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ulpgrad.errors import KernelError

# CUtensorMapDataType in its order: name, bytes, whether NaN can fill what lies outside.
TYPES = (
    ("u8", 1, False),
    ("u16", 2, False),
    ("u32", 4, False),
    ("s32", 4, False),
    ("u64", 8, False),
    ("s64", 8, False),
    ("f16", 2, True),
    ("f32", 4, True),
    ("f64", 8, True),
    ("bf16", 2, True),
    ("f32_ftz", 4, True),
    ("tf32", 4, True),
    ("tf32_ftz", 4, True),
)
SPANS = (0, 32, 64, 128)  # CUtensorMapSwizzle in its order: bytes of the rows that are swizzled
CORNERS = {3: (-32768, 32767), 4: (-128, 127), 5: (-16, 15)}
OFFSETS = {3: 1 << 16, 4: 1 << 8, 5: 1 << 5}  # what im2col offsets stay below
LINE = 128  # alignment of a tensor copy's shared memory

_MAGIC = b"ulpgrad\x01"
_IMAGE = struct.Struct("<8s6B5I4QQ5H5B3h3h2H")


@dataclass(frozen=True)
class TensorMap:
    """A tensor in global memory and the box of it that one copy moves.

    `mode`: "tile" or "im2col". `type`: index into `TYPES`. `address` in bytes, `sizes` in elements, `strides` in bytes of every
    dimension (the innermost one's is the element's), `steps`: every how many-th element is taken (element strides). Tiles: `box`
    in elements before the steps. im2col: `lower` and `upper` corners in (W, H, D), `channels` of a pixel, `pixels` of a column.
    `span`: bytes of the swizzle, 0 for none. `nan`: what lies outside is filled with NaN, not zero.
    """

    mode: str
    type: int
    address: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    steps: tuple[int, ...]
    box: tuple[int, ...] = ()
    lower: tuple[int, ...] = ()
    upper: tuple[int, ...] = ()
    channels: int = 0
    pixels: int = 0
    span: int = 0
    nan: bool = False

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return TYPES[self.type][1]

    @property
    def counts(self) -> tuple[int, ...]:
        """Elements that a copy moves along each dimension of the box; of im2col (channels, pixels)."""
        if self.mode == "im2col":
            return self.channels, self.pixels
        return self.box[0], *(-(-b // s) for b, s in zip(self.box[1:], self.steps[1:], strict=True))

    @property
    def bytes(self) -> int:
        """What a load adds to the barrier's transaction count: the whole box, outside or not."""
        return prod(self.counts) * self.item


class Transfer(NamedTuple):
    """One copy, element by element in the order of the box, flat (dimension 0 fastest).

    `addresses`: bytes of global memory (int64; meaningless where not valid). `valid`: inside the tensor. `places`: bytes of
    shared memory from the copy's shared address, swizzle included.
    """

    addresses: NDArray[np.int64]
    valid: NDArray[np.bool_]
    places: NDArray[np.int64]


def encode_tiled(
    data_type: int,
    rank: int,
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    box: Sequence[int],
    steps: Sequence[int],
    interleave: int = 0,
    swizzle: int = 0,
    promotion: int = 0,
    fill: int = 0,
) -> TensorMap:
    """`cuTensorMapEncodeTiled` with its parameters in its order (enumerations by their numbers) and its checks.

    `strides` are the bytes of dimensions 1 to rank - 1. Raises `KernelError` naming the parameter where the driver returns
    CUDA_ERROR_INVALID_VALUE, and for interleaved layouts and types and swizzles of later GPUs, which are not modelled.
    """
    if not 1 <= rank <= 5:
        raise KernelError(f"tensorRank is {rank}, expected 1 to 5")
    item, span, nan = _common(data_type, rank, address, sizes, strides, steps, interleave, swizzle, promotion, fill)
    _each("boxDim", box, rank, lambda size: 1 <= size <= 256, "1 to 256")
    _inner("boxDim[0]", box[0] * item, span)
    return TensorMap(
        "tile", data_type, address, tuple(sizes), (item, *strides), (1, *steps[1:]), box=tuple(box), span=span, nan=nan
    )


def encode_im2col(
    data_type: int,
    rank: int,
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    lower: Sequence[int],
    upper: Sequence[int],
    channels: int,
    pixels: int,
    steps: Sequence[int],
    interleave: int = 0,
    swizzle: int = 0,
    promotion: int = 0,
    fill: int = 0,
) -> TensorMap:
    """`cuTensorMapEncodeIm2col` with its parameters in its order and its checks; see `encode_tiled`.

    `sizes` are (C, W, N), (C, W, H, N) or (C, W, H, D, N); `lower` and `upper` have rank - 2 corners, W first.
    """
    if not 3 <= rank <= 5:
        raise KernelError(f"tensorRank is {rank}, expected 3 to 5 for im2col")
    item, span, nan = _common(data_type, rank, address, sizes, strides, steps, interleave, swizzle, promotion, fill)
    low, high = CORNERS[rank]
    for name, corners in (("pixelBoxLowerCorner", lower), ("pixelBoxUpperCorner", upper)):
        _each(name, corners, rank - 2, lambda corner: low <= corner <= high, f"{low} to {high} for rank {rank}")
    if any(size + last - first <= 0 for size, first, last in zip(sizes[1:-1], lower, upper, strict=True)):
        raise KernelError(
            f"pixelBoxLowerCorner {tuple(lower)} and pixelBoxUpperCorner {tuple(upper)} leave an empty box"
        )
    if not 1 <= channels <= 256:
        raise KernelError(f"channelsPerPixel is {channels}, expected 1 to 256")
    if not 1 <= pixels <= 1024:
        raise KernelError(f"pixelsPerColumn is {pixels}, expected 1 to 1024")
    _inner("channelsPerPixel", channels * item, span)
    return TensorMap(
        "im2col",
        data_type,
        address,
        tuple(sizes),
        (item, *strides),
        (1, *steps[1:]),
        lower=tuple(lower),
        upper=tuple(upper),
        channels=channels,
        pixels=pixels,
        span=span,
        nan=nan,
    )


class Driver:
    """The two functions of libcuda as `ctypes` calls them: they write `as_bytes` of the map, and raise where it would refuse."""

    @staticmethod
    def cuTensorMapEncodeTiled(image: Any, *given: Any) -> int:
        _write(image, encode_tiled(*map(_plain, given)))
        return 0

    @staticmethod
    def cuTensorMapEncodeIm2col(image: Any, *given: Any) -> int:
        _write(image, encode_im2col(*map(_plain, given)))
        return 0


def load(map: TensorMap, coordinates: Sequence[int], offsets: Sequence[int] = (), destination: int = 0) -> Transfer:
    """`cp.async.bulk.tensor` from global to shared memory at the shared address `destination`.

    `coordinates`: one a dimension, dimension 0 first (of im2col: C, then the filter's base in W, H, D, then N). `offsets`: the
    im2col offsets, W first. Elements that are not valid are filled (`filler`). Raises `KernelError` for what is undefined.
    """
    _aligned(map, destination)
    if map.mode == "im2col":
        return _column(map, coordinates, offsets, destination)
    if len(offsets):
        raise KernelError(f"im2col offsets {tuple(offsets)} for a tensor map of tiles")
    return _tile(map, coordinates, destination)


def store(map: TensorMap, coordinates: Sequence[int], source: int = 0) -> Transfer:
    """`cp.async.bulk.tensor` from shared memory at `source` to global memory: elements that are not valid are not written.

    Coordinates of a store must not be negative, and the box of an im2col map (`.im2col_no_offs`) must lie in the tensor.
    """
    _aligned(map, source)
    if any(c < 0 for c in coordinates):
        raise KernelError(f"a tensor store at {tuple(coordinates)}: coordinates of a store must not be negative")
    if map.mode == "im2col":
        if any(corner < 0 for corner in map.lower) or any(corner > 0 for corner in map.upper):
            raise KernelError(f"a tensor store with im2col corners {map.lower} and {map.upper} that leave the tensor")
        return _column(map, coordinates, (0,) * len(map.lower), source)
    return _tile(map, coordinates, source)


def filler(map: TensorMap) -> NDArray[np.uint8]:
    """The bytes of an element outside the tensor: zero, or a quiet NaN (PTX leaves its payload open; all ones here)."""
    if not map.nan:
        return np.zeros(map.item, np.uint8)
    return np.array([255] * (map.item - 1) + [127], np.uint8)


def converted(map: TensorMap, elements: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bytes (n, item) of elements as a load leaves them: tf32 is rounded to nearest even, ftz types lose subnormals."""
    name = TYPES[map.type][0]
    if name not in ("f32_ftz", "tf32", "tf32_ftz"):
        return elements
    words = np.ascontiguousarray(elements).view(np.uint32)
    if name.endswith("ftz"):
        words = np.where(words & 0x7F800000, words, words & 0x80000000)
    if name.startswith("tf32"):
        rounded = (words + (0xFFF + (words >> 13 & 1))) & np.uint32(0xFFFFE000)
        words = np.where((words & 0x7F800000) == 0x7F800000, words, rounded)
    return words.astype(np.uint32).view(np.uint8).reshape(elements.shape)


def as_bytes(map: TensorMap) -> bytes:
    """The map in 128 bytes, as which it is passed to a kernel. Ours, not the driver's image: only `from_bytes` reads it."""

    def filled(values: Sequence[int], count: int) -> list[int]:
        return [*values, *[0] * (count - len(values))]

    head = [map.mode == "im2col", map.type, len(map.sizes), SPANS.index(map.span), map.nan, 0]
    image = _IMAGE.pack(
        _MAGIC,
        *head,
        *filled([size - 1 for size in map.sizes], 5),
        *filled(map.strides[1:], 4),
        map.address,
        *filled(map.box, 5),
        *filled(map.steps, 5),
        *filled(map.lower, 3),
        *filled(map.upper, 3),
        map.channels,
        map.pixels,
    )
    return image.ljust(128, b"\0")


def is_map(image: bytes) -> bool:
    """Whether 128 bytes are what `as_bytes` makes."""
    return len(image) == 128 and image[:8] == _MAGIC


def from_bytes(image: bytes) -> TensorMap:
    """The map of `as_bytes`. Raises `KernelError` for bytes that are none."""
    if not is_map(image):
        raise KernelError(f"{len(image)} bytes beginning {bytes(image[:8])!r} are no tensor map of this machine")
    values = list(_IMAGE.unpack(image[: _IMAGE.size]))[1:]
    column, kind, rank, span, nan, _ = values[:6]
    sizes, strides, address, box, steps = values[6:11], values[11:15], values[15], values[16:21], values[21:26]
    lower, upper, channels, pixels = values[26:29], values[29:32], values[32], values[33]
    corners = rank - 2 if column else 0
    return TensorMap(
        "im2col" if column else "tile",
        kind,
        address,
        tuple(size + 1 for size in sizes[:rank]),
        (TYPES[kind][1], *strides[: rank - 1]),
        tuple(steps[:rank]),
        () if column else tuple(box[:rank]),
        tuple(lower[:corners]),
        tuple(upper[:corners]),
        channels,
        pixels,
        SPANS[span],
        bool(nan),
    )


def _plain(value: Any) -> Any:
    """A number, or a tuple of numbers, of what ctypes holds."""
    return tuple(value) if isinstance(value, ctypes.Array) else value.value


def _write(image: Any, made: TensorMap) -> None:
    if image.value % 64:
        raise KernelError(f"tensorMap is {image.value:#x}, expected a multiple of 64")
    ctypes.memmove(image.value, as_bytes(made), 128)


def _tile(map: TensorMap, coordinates: Sequence[int], shared: int) -> Transfer:
    """The box at `coordinates`: along dimension i the elements coordinate + j * step."""
    _count("tensorCoords", coordinates, len(map.sizes))
    address: NDArray[np.int64] = np.zeros((1,), np.int64)
    valid = np.ones((1,), np.bool_)
    for first, count, step, size, stride in zip(
        coordinates, map.counts, map.steps, map.sizes, map.strides, strict=True
    ):
        at = first + np.arange(count, dtype=np.int64) * step
        address = (at[:, None] * stride + address).reshape(-1)
        valid = (((at >= 0) & (at < size))[:, None] & valid).reshape(-1)
    return Transfer(address + map.address, valid, _places(map, shared))


def _column(map: TensorMap, coordinates: Sequence[int], offsets: Sequence[int], shared: int) -> Transfer:
    """`pixels` pixels from the filter's base on: W first, back to the box's lower corner past its upper one, then H, D, N.

    The base walks in the box that the corners leave of the image; where it stands plus the offsets is the pixel that is read.
    """
    rank = len(map.sizes)
    _count("tensorCoords", coordinates, rank)
    _each(
        "im2colInfo", offsets, rank - 2, lambda o: 0 <= o < OFFSETS[rank], f"0 to {OFFSETS[rank] - 1} for rank {rank}"
    )
    number = np.arange(map.pixels, dtype=np.int64)
    address = np.full(map.pixels, map.address, np.int64)
    valid = np.ones(map.pixels, np.bool_)
    for i, low, up, offset in zip(range(1, rank - 1), map.lower, map.upper, offsets, strict=True):
        size, step, first = map.sizes[i], map.steps[i], coordinates[i]
        last = size - 1 + up
        if not low <= first <= last:
            raise KernelError(
                f"tensorCoords {tuple(coordinates)}: dimension {i} is not within the bounding box, {low} to {last}"
            )
        before, whole = (
            (last - first) // step + 1,
            (last - low) // step + 1,
        )  # of the row begun at `first`, of the others
        in_first = number < before
        at = np.where(in_first, first + number * step, low + (number - before) % whole * step) + offset
        number = np.where(in_first, 0, (number - before) // whole + 1)
        address += at * map.strides[i]
        valid &= (at >= 0) & (at < size)
    image = coordinates[-1] + number
    address += image * map.strides[-1]
    valid &= (image >= 0) & (image < map.sizes[-1])
    channel = coordinates[0] + np.arange(map.channels, dtype=np.int64)
    known = (channel >= 0) & (channel < map.sizes[0])
    return Transfer(
        (address[:, None] + channel * map.item).reshape(-1),
        (valid[:, None] & known).reshape(-1),
        _places(map, shared),
    )


def _places(map: TensorMap, shared: int) -> NDArray[np.int64]:
    """Shared bytes of the box's elements from `shared` on: rows one after the other, 16-byte pieces swizzled by the address."""
    address = shared + np.arange(prod(map.counts), dtype=np.int64) * map.item
    if not map.span:
        return address - shared
    return (address ^ (((address >> 7) & (map.span // 16 - 1)) << 4)) - shared


def _aligned(map: TensorMap, shared: int) -> None:
    if shared % LINE:
        raise KernelError(f"a tensor copy at the shared address {shared:#x}, expected a multiple of {LINE}")
    if map.span and map.counts[0] * map.item != map.span:
        raise KernelError(
            f"a tensor copy with rows of {map.counts[0] * map.item} bytes in a swizzle of {map.span}: where rows shorter than "
            "the swizzle lie is not documented; use the swizzle of the row's size"
        )


def _common(
    data_type: int,
    rank: int,
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    steps: Sequence[int],
    interleave: int,
    swizzle: int,
    promotion: int,
    fill: int,
) -> tuple[int, int, bool]:
    """The checks that both encoders share: the element's bytes, the swizzle's span, whether NaN fills."""
    if not 0 <= data_type < len(TYPES):
        raise KernelError(f"tensorDataType is {data_type}, expected 0 to {len(TYPES) - 1}")
    name, item, floating = TYPES[data_type]
    if address % 16:
        raise KernelError(f"globalAddress is {address:#x}, expected a multiple of 16")
    _each("globalDim", sizes, rank, lambda size: 1 <= size <= 1 << 32, "1 to 2**32")
    _each(
        "globalStrides",
        strides,
        rank - 1,
        lambda stride: 0 <= stride < 1 << 40 and not stride % 16,
        "multiples of 16 < 2**40",
    )
    _each("elementStrides", steps, rank, lambda step: 1 <= step <= 8, "1 to 8")
    if interleave:
        raise KernelError(f"interleave is {interleave}, expected 0: interleaved layouts are not modelled")
    if not 0 <= swizzle < len(SPANS):
        raise KernelError(f"swizzle is {swizzle}, expected 0 to {len(SPANS) - 1}: others are of later GPUs")
    if not 0 <= promotion <= 3:
        raise KernelError(f"l2Promotion is {promotion}, expected 0 to 3")
    if fill not in (0, 1) or (fill and not floating):
        raise KernelError(f"oobFill is {fill} for {name}, expected 0, or 1 for floating point")
    return item, SPANS[swizzle], bool(fill)


def _inner(name: str, row: int, span: int) -> None:
    if row % 16:
        raise KernelError(f"{name} is {row} bytes, expected a multiple of 16")
    if span and row > span:
        raise KernelError(f"{name} is {row} bytes, expected at most the swizzle's {span}")


def _each(name: str, values: Sequence[int], count: int, good: Callable[[int], bool], expected: str) -> None:
    """All `count` values are there and `good`."""
    _count(name, values, count)
    if not all(good(value) for value in values):
        raise KernelError(f"{name} is {tuple(values)}, expected {expected}")


def _count(name: str, values: Sequence[int], count: int) -> None:
    if len(values) != count:
        raise KernelError(f"{name} has {len(values)} values, expected {count}")
