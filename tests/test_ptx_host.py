"""Two readings of NVIDIA's documents against each other: the units of the PTX machine, and what our device code tells those units
and the host does in their place."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad.kernels import cuda_host, cuda_tensor_map as maps
from ulpgrad.kernels.ptx import tensor_map, warpgroup

sys.path.insert(0, str(Path(__file__).parent))
from test_ptx_units import draw, registers_of

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(cuda_host.missing() is not None, reason="needs a C++ compiler")
CODE = maps.CODES["bfloat16"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Any:
    library = tmp_path_factory.mktemp("units") / "units.so"
    flags = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", f"-I{HERE.parent / 'csrc' / 'cuda'}")
    subprocess.run([*cuda_host.compiler(), *flags, HERE / "hopper_units.cpp", "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.operand.restype = ctypes.c_ulonglong
    return loaded


def described(told: maps.Tiles | maps.Pixels, array: np.ndarray) -> tuple[tensor_map.TensorMap, np.ndarray]:
    """What is told of an array, as the driver is called and as the host's stand-in reads it."""
    address = array.ctypes.data
    image = maps.encode(tensor_map.Driver, told, address, CODE)
    return tensor_map.from_bytes(image.tobytes()), maps._plain(told, address, CODE)


def aligned(values: np.ndarray) -> np.ndarray:
    """The same in memory whose address is a multiple of 64."""
    room = np.zeros(values.nbytes + 64, np.uint8)
    held = room[-room.ctypes.data % 64 :][: values.nbytes].view(values.dtype).reshape(values.shape)
    held[...] = values
    return held


def copied(
    host: Any, told: maps.Tiles | maps.Pixels, array: np.ndarray, at: tuple[int, ...], offsets: tuple[int, ...], to: int
) -> np.ndarray:
    """Shared memory after one copy, by both, which agree."""
    map, fields = described(told, array)
    found = np.zeros(map.bytes, np.uint8)
    four = (ctypes.c_int * 4)(*at, *(0,) * (4 - len(at)))
    given = (ctypes.c_int * 2)(*offsets) if offsets else None
    host.copy(fields.ctypes.data_as(ctypes.c_void_p), four, given, to, map.bytes, found.ctypes.data_as(ctypes.c_void_p))

    move = tensor_map.load(map, at, offsets, to)
    shared = np.zeros(map.bytes // 2, np.uint16)
    memory = array.reshape(-1)
    shared[move.places[move.valid] // 2] = memory[(move.addresses[move.valid] - array.ctypes.data) // 2]
    np.testing.assert_array_equal(found, shared.view(np.uint8))
    return found


@pytest.mark.parametrize("across", [0, 1])
def test_operands_lie_where_the_host_reads_them(host: Any, across: int) -> None:
    for address, steps, rows in itertools.product((0, 1024, 99 * 1024), (0, 16, 32, 48), (64, 256)):
        descriptor = host.operand(address, steps, across)
        found = np.zeros((rows, 16), np.int64)
        host.places(ctypes.c_ulonglong(descriptor), across, rows, found.ctypes.data_as(ctypes.c_void_p))
        np.testing.assert_array_equal(warpgroup.places(descriptor, rows, across)[:, ::2], found)


def test_sums_stand_where_the_device_stores_them_from(host: Any) -> None:
    held = registers_of(np.arange(64 * 256).reshape(64, 256), "s32")
    spot = (ctypes.c_int * 2)()
    for thread, i in itertools.product(range(128), range(128)):
        host.spot(thread, i, spot)
        assert held[i][thread] == spot[0] * 256 + spot[1]


def test_boxes_are_copied_alike(host: Any) -> None:
    rng = np.random.default_rng(0)
    array = aligned(rng.integers(1, 1 << 16, (70, 5, 72), np.uint16))
    told = maps.Tiles((72, 5, 70), (144, 720), (64, 1, 64))
    for at in ((0, 0, 0), (64, 4, 32), (8, 2, -5), (72, 0, 0), (-16, 5, 0)):
        copied(host, told, array, at, (), 8192)
        copied(host, told, array, at, (), 128 * 3)  # not where the pattern begins: both go by the address


def test_pixels_are_copied_alike(host: Any) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        height, width, images = rng.integers(3, 12, 3)
        taps, stride, dilation = rng.integers(1, 4, 2), rng.integers(1, 4, 2), rng.integers(1, 3, 2)
        padding = rng.integers(0, 3, 2)
        positions = (np.array([width, height]) + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        if (positions < 1).any():
            continue
        lower, upper, farthest = zip(
            *(
                maps.walk(int(s), int(n), int(k), -int(p), int(t), int(d))
                for s, n, k, p, t, d in zip((width, height), positions, taps, padding, stride, dilation, strict=True)
            ),
            strict=True,
        )
        channels = 72
        array = aligned(rng.integers(1, 1 << 16, (images, height, width, channels), np.uint16))
        told = maps.Pixels(
            (channels, int(width), int(height), int(images)), (144, 144 * int(width), 144 * int(width * height)), lower, upper,
            tuple(map(int, stride)), farthest, 64, 128,
        )  # fmt: skip
        assert told.refusal() is None
        first = [int(low + rng.integers(0, n) * t) for low, n, t in zip(lower, positions, stride, strict=True)]
        tap = tuple(int(rng.integers(0, k) * d) for k, d in zip(taps, dilation, strict=True))
        copied(host, told, array, (int(rng.choice([0, 64])), *first, int(rng.integers(0, images))), tap, 4096)


@pytest.mark.parametrize("across", [0, 1])
def test_a_step_of_a_tile_as_the_device_code_has_it(host: Any, across: int) -> None:
    """Two blocks of A and 128 columns of B, copied into a stage and multiplied by the descriptors of `sum_steps`."""
    rng = np.random.default_rng(across)
    rows, columns, depth, stage = 128, 128, 64, 3 * 32768
    a_bytes, a = draw("bf16", (rows, depth), rng)
    b_bytes, b = draw("bf16", (columns, depth), rng)
    memory = np.zeros(1 << 18, np.uint8)
    for matrix, place in ((a_bytes, stage), (b_bytes, stage + rows * 128)):
        lines = aligned(matrix.view(np.uint16).T if across else matrix.view(np.uint16))
        sizes, count = lines.shape[::-1], lines.shape[0]
        told = maps.Tiles((*sizes, 1), (sizes[0] * 2, lines.nbytes), (64, min(count, 128), 1))
        for block in range(sizes[0] // 64):
            found = copied(host, told, lines, (64 * block, 0, 0), (), place + block * 8192)
            memory[place + block * 8192 :][: len(found)] = found
    for group in (0, 1):
        held = [np.zeros(128, np.uint32)] * (columns // 2)
        for k in range(0, depth, 16):
            left, right = (
                np.full(128, host.operand(at, k, across), np.uint64)
                for at in (stage + group * 8192, stage + rows * 128)
            )
            kinds = ("f32", "bf16", "bf16")
            held = warpgroup.multiply(
                f"m64n{columns}k16", kinds, held, left, right, k > 0, 1, 1, across, across, lambda _, x: memory[x]
            )
        np.testing.assert_array_equal(held, registers_of(a[group * 64 : group * 64 + 64] @ b.T, "f32"))
