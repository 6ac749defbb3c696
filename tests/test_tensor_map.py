"""What the copy unit of sm_90 is told of arrays: corners of windows against their definition, documented limits, and the driver's
call against a stub that writes its arguments down. No device is needed."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad.formats import Format, bfloat16
from ulpgrad.kernels import registry
from ulpgrad.kernels.conv import cuda_units, cuda_warpgroup, cuda_warpgroup_weight, spec
from ulpgrad.kernels.conv.cuda_arguments import Shape
from ulpgrad.kernels.cuda_tensor_map import CODES, FIELDS, WORDS, Pixels, Tiles, encode, walk

PIXELS = Pixels((64, 20, 10, 4), (128, 2560, 25600), (-1, -2), (-1, 0), (1, 2), (2, 4), 64, 128)
TILES = Tiles((64, 9, 256), (128, 1152), (64, 1, 128))


def test_the_walk_sees_what_windows_do() -> None:
    """Base coordinates from corner to corner are those of the lowest taps, one for each window, and the last does not leave."""
    for size, kernel, stride, padding, dilation in itertools.product(
        range(1, 8), (1, 2, 3), (1, 2, 3), range(5), (1, 2)
    ):
        positions = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        if positions < 1:
            continue
        lower, upper, offset = walk(size, positions, kernel, -padding, stride, dilation)
        bases = range(lower, size - 1 + upper + 1, stride)
        assert [b + padding for b in bases] == [p * stride for p in range(positions)]
        assert offset == (kernel - 1) * dilation
        assert upper <= padding - offset
        if stride == 1:  # backwards: pixel i gathers the windows i + padding - t * dilation
            lower, upper, offset = walk(positions, size, kernel, padding, 1, -dilation)
            lowest = [min(i + padding - t * dilation for t in range(kernel)) for i in range(size)]
            assert list(range(lower, positions - 1 + upper + 1)) == lowest


def test_limits_are_those_of_the_manual() -> None:
    assert PIXELS.refusal() is None
    assert TILES.refusal() is None
    refused: list[tuple[Any, str]] = [
        (replace(PIXELS, lower=(-129, 0)), "corners of windows from -128 to 127"),
        (replace(PIXELS, upper=(0, 128)), "corners of windows from -128 to 127"),
        (replace(PIXELS, offset=(0, 256)), "offsets of taps from 0 to 255"),
        (replace(PIXELS, step=(9, 1)), "strides from 1 to 8"),
        (replace(PIXELS, pixels=1025), "pixels in a copy from 1 to 1024"),
        (replace(PIXELS, upper=(-21, 0)), "windows that fit"),
        (replace(PIXELS, channels=128), "lines of up to 128 bytes"),
        (replace(PIXELS, strides=(24, 2560, 25600)), "strides of a multiple of 16 bytes"),
        (replace(PIXELS, strides=(128, 2560, 1 << 40)), "below 2^40"),
        (replace(PIXELS, sizes=(0, 20, 10, 4)), "not empty"),
        (replace(TILES, box=(64, 1, 512)), "tiles of 1 to 256 values"),
        (replace(TILES, box=(72, 1, 64)), "lines of up to 128 bytes"),
        (replace(TILES, box=(4, 1, 64)), "in chunks of 16"),
    ]
    for told, reason in refused:
        assert reason in (told.refusal() or ""), told


def shape(op: Any, x: tuple[int, ...], weight: tuple[int, ...], **given: Any) -> Shape:
    params = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, **given}
    if op is spec.conv2d:
        return Shape(op, (np.empty(x), np.empty(weight)), params)
    g = spec.conv2d.reference(np.zeros(x), np.zeros(weight), None, **params)
    if op is spec.conv2d_weight_gradient:
        return Shape(op, (g, np.empty(x)), {**params, "size": weight[2:]})
    return Shape(op, (g, np.empty(weight)), {**params, "size": x[2:]})


def test_what_is_told_of_a_convolution() -> None:
    forward = shape(spec.conv2d, (2, 12, 6, 7), (40, 12, 3, 2), stride=(2, 1), padding=(1, 0))
    (walks,) = cuda_warpgroup.walks(forward)
    assert cuda_warpgroup.pixels(forward, walks) == Pixels(
        (16, 7, 6, 2), (32, 224, 1344), (0, -1), (-1, -2), (1, 2), (1, 2), 64, 128
    )
    assert cuda_warpgroup.filters(forward, 64) == Tiles((16, 6, 40), (32, 192), (64, 1, 64))
    backward = shape(spec.conv2d_input_gradient, (2, 24, 6, 7), (40, 24, 3, 3), padding=(0, 2))
    (walks,) = cuda_warpgroup.walks(backward)
    assert cuda_warpgroup.pixels(backward, walks) == Pixels(
        (40, 9, 4, 2), (80, 720, 2880), (0, -2), (-2, 0), (1, 1), (2, 2), 64, 128
    )
    assert cuda_warpgroup.filters(backward, 128) == Tiles((40, 9, 24), (80, 720), (64, 1, 128))


def test_what_is_told_of_a_weight_gradient() -> None:
    """Images as in the forward pass, fewer positions at once; of the gradient, as many."""
    given = shape(spec.conv2d_weight_gradient, (2, 12, 6, 7), (40, 12, 3, 2), stride=(2, 1), padding=(1, 0))
    assert cuda_warpgroup_weight.images(given) == Pixels(
        (16, 7, 6, 2), (32, 224, 1344), (0, -1), (-1, -2), (1, 2), (1, 2), 64, 64
    )
    assert cuda_warpgroup_weight.gradients(given) == Tiles((40, 36, 1), (80, 2880), (64, 64, 1))
    assert cuda_warpgroup_weight.blocks(given) == 6
    assert [cuda_warpgroup_weight.tiles(given, w) for w in cuda_warpgroup.WIDTHS] == [3, 3, 3]
    groups = shape(spec.conv2d_weight_gradient, (1, 144, 4, 4), (48, 72, 3, 3), groups=2)
    assert cuda_warpgroup_weight.gradients(groups) == Tiles((48, 16, 1), (96, 1536), (64, 64, 1))
    assert cuda_warpgroup_weight.blocks(groups) == 18


def test_slices_give_processors_work_that_is_worth_its_sums() -> None:
    count = cuda_warpgroup_weight.slice_count
    assert count(5, 1568, 64 * 64 * 9) == 26  # a wave of tiles
    assert count(72, 25, 512 * 512 * 9) == 1  # sums would cost more than they save
    assert count(1, 3, 64) == 3  # no slice is empty
    assert count(1, 1 << 20, 1 << 26) == 1  # no more memory for sums than that
    assert count(4, 1 << 20, 1 << 12) * 4 >= 132


def test_a_phase_of_the_strides_is_walked_by_itself() -> None:
    """Its pixels see the positions that have read them, by the taps that have, the lowest first."""
    for size, kernel, stride, padding, dilation in itertools.product(
        range(1, 8), (1, 2, 3), (1, 2, 3, 4), range(5), (1, 2, 3)
    ):
        positions = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        if positions < 1:
            continue
        for phase in range(min(stride, size)):
            found = cuda_warpgroup.phase_walk(size, kernel, stride, padding, dilation, phase)
            pixels = range(phase, size, stride)
            taps = [t for t in range(kernel) if (phase + padding - t * dilation) % stride == 0]
            if not taps:
                assert found is None
                continue
            assert found is not None
            assert (found.positions, found.taps, found.stride) == (len(pixels), len(taps), 1)
            seen = [[found.first + p + t * found.step for t in range(found.taps)] for p in range(found.positions)]
            assert seen == [[(i + padding - t * dilation) // stride for t in taps] for i in pixels]
            lower, upper, _ = walk(positions, found.positions, found.taps, found.first, 1, found.step)
            assert list(range(lower, positions - 1 + upper + 1)) == [min(places) for places in seen]


def test_phases_are_in_the_order_of_the_kernel() -> None:
    two = shape(spec.conv2d_input_gradient, (1, 8, 7, 6), (8, 8, 3, 1), stride=(2, 3), padding=(1, 0))
    rows, columns = ([cuda_warpgroup.phase_walk(*axis, phase) for phase in range(axis[2])] for axis in (
        (7, 3, 2, 1, 1), (6, 1, 3, 0, 1)))  # fmt: skip
    assert columns[1:] == [None, None]
    assert cuda_warpgroup.walks(two) == [(y, x) if x else None for y in rows for x in columns]
    small = shape(spec.conv2d_input_gradient, (1, 8, 2, 2), (8, 8, 1, 1), stride=(5, 1), padding=(0, 0))
    assert len(cuda_warpgroup.walks(small)) == small.phases == 2  # rows beyond the image are none


def test_a_block_has_the_shared_memory_that_it_asks_for() -> None:
    static = 1024
    for width in cuda_warpgroup.WIDTHS:
        assert cuda_warpgroup.shared_bytes(width) + static <= 227 << 10
        assert cuda_warpgroup_weight.shared_bytes(width) == 192 << 10


def test_wide_tiles_are_for_many_results() -> None:
    assert cuda_warpgroup.width(128, 512, 1) == 64
    assert cuda_warpgroup.width(128 * 200, 512, 1) == 256
    assert cuda_warpgroup.width(128 * 200, 128, 1) == 128
    assert cuda_warpgroup.width(128 * 200, 64, 1) == 64
    assert cuda_warpgroup.width(128 * 200, 270, 1) == 64


@pytest.mark.parametrize("form", cuda_warpgroup.FORMATS, ids=str)
def test_it_is_taken_only_where_it_is_asked_for(form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it has run on a GPU, the rung below is preferred, which takes all that this one takes."""
    rungs = {r.name: r for r in registry.ladder(spec.conv2d, "cuda")}
    assert rungs["cuda/cuda-warpgroup"].rank < rungs["cuda/cuda-matrix"].rank
    for op in (spec.conv2d, spec.conv2d_finished, spec.conv2d_input_gradient, spec.conv2d_weight_gradient):
        ladder = [r.name for r in registry.ladder(op, "cuda")]
        assert ladder.index("cuda/cuda-warpgroup") < ladder.index("cuda/cuda-matrix")
    arrays = (np.empty((1, 8, 4, 4), form.storage), np.empty((8, 8, 3, 3), form.storage), None)
    params = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    request = registry.Request(spec.conv2d, "cuda", (form, form, None), arrays, params)
    monkeypatch.setattr(cuda_units, "refusal", lambda *_: "no")
    assert cuda_warpgroup.refusal(request) == "no"


STUB = r"""
#include <stdint.h>
#include <string.h>
static int put(uint32_t *to, const void *from, int bytes) { memcpy(to, from, bytes); return bytes / 4; }
static int same(uint32_t *m, uint32_t type, uint32_t rank, void *at, const uint64_t *sizes, const uint64_t *strides) {
  memset(m, 0, 128);
  m[0] = type, m[1] = rank;
  put(m + 30, &at, 8);
  int i = 2;
  for (uint32_t r = 0; r < rank; ++r) m[i++] = sizes[r];
  for (uint32_t r = 0; r + 1 < rank; ++r) m[i++] = strides[r];
  return i;
}
static void how(uint32_t *m, int i, int a, int b, int c, int d) { m[i] = a, m[i + 1] = b, m[i + 2] = c, m[i + 3] = d; }
int cuTensorMapEncodeIm2col(uint32_t *m, int type, uint32_t rank, void *at, const uint64_t *sizes, const uint64_t *strides,
    const int *lower, const int *upper, uint32_t channels, uint32_t pixels, const uint32_t *steps, int a, int b, int c, int d) {
  if ((uintptr_t)m % 64) return 1;
  int i = same(m, type, rank, at, sizes, strides);
  i += put(m + i, lower, 4 * (rank - 2)), i += put(m + i, upper, 4 * (rank - 2));
  m[i++] = channels, m[i++] = pixels;
  i += put(m + i, steps, 4 * rank);
  how(m, i, a, b, c, d);
  return channels == 63;
}
int cuTensorMapEncodeTiled(uint32_t *m, int type, uint32_t rank, void *at, const uint64_t *sizes, const uint64_t *strides,
    const uint32_t *box, const uint32_t *steps, int a, int b, int c, int d) {
  if ((uintptr_t)m % 64) return 1;
  int i = same(m, type, rank, at, sizes, strides);
  i += put(m + i, box, 4 * rank), i += put(m + i, steps, 4 * rank);
  how(m, i, a, b, c, d);
  return 0;
}
"""


def test_the_driver_is_told_all_of_it(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "stub.c").write_text(STUB)
    subprocess.run([compiler, "-shared", "-fPIC", tmp_path / "stub.c", "-o", tmp_path / "stub.so"], check=True)
    driver, address = ctypes.CDLL(str(tmp_path / "stub.so")), 0x7F0012345670
    made = encode(driver, PIXELS, address, CODES["bfloat16"])
    assert made.dtype == WORDS
    assert made.shape == ()
    want = [9, 4, 64, 20, 10, 4, 128, 2560, 25600, -1, -2, -1, 0, 64, 128, 1, 1, 2, 1, 0, 3, 3, 0]
    assert made["words"].view(np.int32)[: len(want)].tolist() == want
    assert made["words"][15] == address
    made = encode(driver, TILES, address, CODES["float16"])
    want = [6, 3, 64, 9, 256, 128, 1152, 64, 1, 128, 1, 1, 1, 0, 3, 3, 0]
    assert made["words"].view(np.int32)[: len(want)].tolist() == want
    with pytest.raises(cuda_warpgroup.maps.KernelError, match="cuTensorMapEncodeIm2col refused with CUDA error 1"):
        encode(driver, replace(PIXELS, channels=63), address, CODES["bfloat16"])


def test_both_forms_are_as_large_as_the_parameter() -> None:
    assert FIELDS.itemsize == WORDS.itemsize == 128
    assert set(CODES) == {f.name for f in cuda_warpgroup.FORMATS}
    assert bfloat16.storage.itemsize == 2
