"""Tensor copies of the PTX machine against plain loops over boxes and over the taps of a convolution.

A tensor is a NumPy array with its innermost dimension last; maps count dimensions from there.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ulpgrad.errors import KernelError
from ulpgrad.kernels.ptx import tensor_map

# Which 16-byte piece stands where in a line of 128 bytes, by the line (PTX ISA 5.5.7).
SWIZZLED = {
    0: [[0, 1, 2, 3, 4, 5, 6, 7]],
    32: [[0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4, 7, 6]],
    64: [[0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4, 7, 6], [2, 3, 0, 1, 6, 7, 4, 5], [3, 2, 1, 0, 7, 6, 5, 4]],
    128: [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [1, 0, 3, 2, 5, 4, 7, 6],
        [2, 3, 0, 1, 6, 7, 4, 5],
        [3, 2, 1, 0, 7, 6, 5, 4],
        [4, 5, 6, 7, 0, 1, 2, 3],
        [5, 4, 7, 6, 1, 0, 3, 2],
        [6, 7, 4, 5, 2, 3, 0, 1],
        [7, 6, 5, 4, 3, 2, 1, 0],
    ],
}
U8, F16, F32, BF16, TF32 = 0, 6, 7, 9, 11
BASE = 4096


def loaded(
    map: tensor_map.TensorMap, memory: np.ndarray, coordinates: tuple[int, ...], *, offsets=(), at: int = 0
) -> np.ndarray:
    """The shared memory (bytes from `at`) after a load."""
    move = tensor_map.load(map, coordinates, offsets, at)
    item = map.item
    assert len(move.addresses) == len(move.valid) == len(move.places) == map.bytes // item
    elements = np.tile(tensor_map.filler(map), (len(move.valid), 1))
    from_ = move.addresses[move.valid] - BASE
    assert ((from_ >= 0) & (from_ + item <= memory.size)).all()
    elements[move.valid] = memory[from_[:, None] + np.arange(item)]
    shared = np.full(map.bytes, 0xEE, np.uint8)
    shared[move.places[:, None] + np.arange(item)] = tensor_map.converted(map, elements)
    return shared


def tiled(array: np.ndarray, kind: int, box: tuple[int, ...], **options: int | tuple[int, ...]) -> tensor_map.TensorMap:
    sizes, strides = array.shape[::-1], array.strides[::-1][1:]
    steps = options.pop("steps", (1,) * array.ndim)
    return tensor_map.encode_tiled(kind, array.ndim, BASE, sizes, strides, box, steps, **options)


@pytest.mark.parametrize("ndim", [1, 2, 3, 4, 5])
def test_tiles_with_ragged_edges(ndim: int) -> None:
    rng = np.random.default_rng(ndim)
    shape = (3, 2, 5, 4, 24)[-ndim:]
    array = rng.integers(1, 1000, shape).astype(np.float32)
    memory = array.view(np.uint8).reshape(-1)
    box, steps = (8, 3, 4, 2, 2)[:ndim], (1, 1, 2, 1, 2)[:ndim]
    map = tiled(array, F32, box, steps=steps)
    counts = [-(-b // s) for b, s in zip(box, steps, strict=True)]
    assert map.bytes == 4 * np.prod(counts)
    for first in ((0, 0, 0, 0, 0), (-3, -1, -2, 0, -1), (20, 2, 3, 1, 2), (40, 9, 9, 9, 9), (-8, 0, 0, 0, 0)):
        expected = []
        for place in itertools.product(*(range(c) for c in counts[::-1])):
            at = tuple(f + p * s for f, p, s in zip(first[:ndim][::-1], place, steps[::-1], strict=True))
            inside = all(0 <= i < size for i, size in zip(at, shape, strict=True))
            expected.append(array[at] if inside else 0.0)
        np.testing.assert_array_equal(loaded(map, memory, first[:ndim]).view(np.float32), expected)


@pytest.mark.parametrize("span", [32, 64, 128])
@pytest.mark.parametrize("at", [0, 128, 1024 + 384])
def test_swizzles_follow_the_address(span: int, at: int) -> None:
    array = np.random.default_rng(span).integers(0, 256, (40, 128), np.uint8)
    map = tiled(array, U8, (span, 32), swizzle={32: 1, 64: 2, 128: 3}[span])
    got = loaded(map, array.reshape(-1), (0, 3), at=at)
    plain = array[3:35, :span].reshape(-1, 8, 16)
    table = SWIZZLED[span]
    expected = [line[table[(at // 128 + i) % len(table)]] for i, line in enumerate(plain)]
    np.testing.assert_array_equal(got, np.stack(expected).reshape(-1))


def test_what_lies_outside_is_filled_and_not_stored() -> None:
    array = np.ones((4, 16), np.float32)
    map = tiled(array, F32, (8, 4), fill=1)
    got = loaded(map, array.view(np.uint8).reshape(-1), (12, 2)).view(np.float32).reshape(4, 8)
    expected = np.full((4, 8), np.nan)
    expected[:2, :4] = 1
    np.testing.assert_array_equal(got, expected)
    move = tensor_map.store(map, (12, 2), 256)
    np.testing.assert_array_equal(move.valid.reshape(4, 8), expected == 1)
    np.testing.assert_array_equal(move.places, np.arange(32) * 4)
    with pytest.raises(KernelError, match="negative"):
        tensor_map.store(map, (-1, 0))
    with pytest.raises(KernelError, match="multiple of 128"):
        tensor_map.load(map, (0, 0), (), 64)
    with pytest.raises(KernelError, match="shorter than"):
        tensor_map.load(tiled(array, F32, (8, 4), swizzle=3), (0, 0))


def test_tf32_is_rounded_to_nearest_even() -> None:
    words = np.array([0x3F800FFF, 0x3F801000, 0x3F801001, 0x3F803000, 0x7F800000, 0x7FFFFFFF, 0x00000001], np.uint32)
    expected = [0x3F800000, 0x3F800000, 0x3F802000, 0x3F804000, 0x7F800000, 0x7FFFFFFF, 0x00000000]
    map = tensor_map.encode_tiled(TF32, 1, BASE, (64,), (), (8,), (1,))
    got = tensor_map.converted(map, words.view(np.uint8).reshape(-1, 4)).view(np.uint32).reshape(-1)
    np.testing.assert_array_equal(got, expected)


def image_map(
    x: np.ndarray, lower, upper, channels: int, pixels: int, steps=None, **options: int
) -> tensor_map.TensorMap:
    """An im2col map of `x` (N, ..., C); corners and steps W first."""
    sizes, strides = x.shape[::-1], x.strides[::-1][1:]
    steps = (1, *(steps or (1,) * (x.ndim - 2)), 1)
    return tensor_map.encode_im2col(F32, x.ndim, BASE, sizes, strides, lower, upper, channels, pixels, steps, **options)


@pytest.mark.parametrize(
    ("images", "corners", "base", "offsets", "expected"),
    [
        (1, (0, 0), (0, 0), 0, list(range(1, 17))),
        (1, (-1, -1), (-1, -1), 0, [0, 0, 0, 0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11]),
        (1, (-1, -1), (-1, -1), 1, list(range(1, 17))),
        (2, (0, 0), (3, 1), 0, list(range(8, 24))),
        (2, (-1, -1), (2, 1), 0, [7, 0, 9, 10, 11, 0, 0, 0, 0, 0, 17, 18, 19, 0, 21, 22]),
    ],
)
def test_columns_as_triton_saw_them_on_a_gpu(images: int, corners, base, offsets: int, expected: list[int]) -> None:
    """The five loads of Triton's tutorial on im2col, whose results it asserts where it runs on a GPU."""
    x = np.repeat(np.arange(1, 16 * images + 1, dtype=np.float32), 32).reshape(images, 4, 4, 32)
    map = image_map(x, corners, corners, 32, 16)
    got = loaded(map, x.view(np.uint8).reshape(-1), (0, *base, 0), offsets=(offsets, offsets)).view(np.float32)
    np.testing.assert_array_equal(got.reshape(16, 32)[:, 0], expected)


@pytest.mark.parametrize(
    ("space", "filter", "stride", "padding", "dilation"),
    [
        ((9,), (3,), (2,), (1,), (1,)),
        ((6, 7), (3, 3), (1, 1), (1, 1), (1, 1)),
        ((8, 9), (3, 2), (2, 3), (2, 1), (1, 2)),
        ((7, 8), (1, 1), (2, 2), (0, 0), (1, 1)),
        ((4, 5, 6), (2, 3, 3), (1, 2, 2), (1, 1, 2), (2, 1, 1)),
    ],
)
def test_columns_are_the_taps_of_a_convolution(space, filter, stride, padding, dilation) -> None:
    rng = np.random.default_rng(len(space))
    x = rng.integers(1, 1000, (3, *space, 12)).astype(np.float32)
    memory = x.view(np.uint8).reshape(-1)
    lower = [-p for p in padding]
    upper = [p - d * (k - 1) for p, d, k in zip(padding, dilation, filter, strict=True)]
    out = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(space, padding, dilation, filter, stride, strict=True)
    ]
    pixels = 16
    map = image_map(x, lower[::-1], upper[::-1], 8, pixels, stride[::-1])
    assert map.bytes == pixels * 8 * 4
    for first in range(0, 3 * int(np.prod(out)), 7):
        (*where,) = np.unravel_index(first, (3, *out))
        base = [int(o) * t - p for o, t, p in zip(where[1:], stride, padding, strict=True)]
        for tap in itertools.product(*(range(k) for k in filter)):
            shift = [k * d for k, d in zip(tap, dilation, strict=True)]
            expected = np.zeros((pixels, 8), np.float32)
            for row in range(pixels):
                if first + row >= 3 * np.prod(out):
                    continue
                image, *place = np.unravel_index(first + row, (3, *out))
                at = [int(o) * t - p + s for o, t, p, s in zip(place, stride, padding, shift, strict=True)]
                if all(0 <= i < size for i, size in zip(at, space, strict=True)):
                    part = x[(image, *at)][8:16]
                    expected[row, : len(part)] = part
            got = loaded(map, memory, (8, *base[::-1], int(where[0])), offsets=tuple(shift[::-1]))
            np.testing.assert_array_equal(got.view(np.float32).reshape(pixels, 8), expected)


def test_columns_undefined() -> None:
    x = np.zeros((1, 4, 4, 8), np.float32)
    map = image_map(x, (-1, -1), (-1, -1), 8, 16)
    for base in ((-2, 0), (0, 3)):
        with pytest.raises(KernelError, match="bounding box"):
            tensor_map.load(map, (0, *base, 0), (0, 0))
    with pytest.raises(KernelError, match="im2colInfo"):
        tensor_map.load(map, (0, 0, 0, 0), (256, 0))
    with pytest.raises(KernelError, match="leave the tensor"):
        tensor_map.store(map, (0, 0, 0, 0))


TILE = {
    "data_type": F16, "rank": 3, "address": 4096, "sizes": (64, 8, 8), "strides": (128, 1024), "box": (64, 8, 1),
    "steps": (1, 1, 1), "interleave": 0, "swizzle": 3, "promotion": 2, "fill": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_type": 13}, "tensorDataType"),
        ({"rank": 0}, "tensorRank"),
        ({"rank": 6}, "tensorRank"),
        ({"address": 4104}, "globalAddress"),
        ({"sizes": (64, 0, 8)}, "globalDim"),
        ({"sizes": (64, (1 << 32) + 1, 8)}, "globalDim"),
        ({"strides": (128,)}, "globalStrides"),
        ({"strides": (120, 1024)}, "globalStrides"),
        ({"strides": (128, 1 << 40)}, "globalStrides"),
        ({"box": (64, 257, 1)}, "boxDim"),
        ({"box": (64, 0, 1)}, "boxDim"),
        ({"box": (4, 8, 1)}, "multiple of 16"),
        ({"box": (72, 8, 1)}, "swizzle's 128"),
        ({"steps": (1, 9, 1)}, "elementStrides"),
        ({"interleave": 1}, "interleave"),
        ({"swizzle": 4}, "swizzle"),
        ({"promotion": 4}, "l2Promotion"),
        ({"data_type": 0, "fill": 1}, "oobFill"),
    ],
)
def test_tiles_that_the_driver_refuses(change: dict[str, object], words: str) -> None:
    tensor_map.encode_tiled(**TILE)
    with pytest.raises(KernelError, match=words):
        tensor_map.encode_tiled(**(TILE | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 2}, "tensorRank"),
        ({"lower": (-129, 0)}, "pixelBoxLowerCorner"),
        ({"upper": (0, 128)}, "pixelBoxUpperCorner"),
        ({"upper": (-9, 0)}, "empty box"),
        ({"channels": 257}, "channelsPerPixel"),
        ({"channels": 4}, "multiple of 16"),
        ({"pixels": 1025}, "pixelsPerColumn"),
        ({"steps": (1, 0, 1, 1)}, "elementStrides"),
    ],
)
def test_columns_that_the_driver_refuses(change: dict[str, object], words: str) -> None:
    good = {key: value for key, value in TILE.items() if key != "box"}
    good |= {"rank": 4, "sizes": (64, 8, 8, 2), "strides": (128, 1024, 8192), "steps": (1, 1, 1, 1)}
    good |= {"lower": (-1, -1), "upper": (-1, -1), "channels": 64, "pixels": 128}
    map = tensor_map.encode_im2col(**good)
    assert tensor_map.from_bytes(tensor_map.as_bytes(map)) == map
    with pytest.raises(KernelError, match=words):
        tensor_map.encode_im2col(**(good | change))


def test_a_map_is_128_bytes() -> None:
    for change in (
        {},
        {"sizes": (64, 1 << 32, 8), "swizzle": 0},
        {"rank": 1, "sizes": (9,), "strides": (), "box": (64,), "steps": (1,)},
    ):
        map = tensor_map.encode_tiled(**(TILE | change))
        image = tensor_map.as_bytes(map)
        assert len(image) == 128
        assert tensor_map.from_bytes(image) == map
    with pytest.raises(KernelError, match="no tensor map"):
        tensor_map.from_bytes(bytes(128))
