"""Operands of convolution on a GPU that lie anywhere, and those that are too large to be numbered."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.formats import Format, bfloat16, float32
from ulpgrad.kernels import cuda_host, gpu
from ulpgrad.kernels.conv import cuda_arguments, cuda_matrix, cuda_units, spec, triton_operands
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op

sys.path.insert(0, str(Path(__file__).parent))
from test_conv_cuda import RUNG, SAME, can, channels_last, problem, run, stored


def misplaced(codes: np.ndarray, last: bool) -> Any:
    """On the device, one element behind where packets and copies would be aligned."""
    lines = codes.transpose(0, 2, 3, 1) if last and codes.ndim == 4 else codes
    flat = gpu.xp().asarray(np.concatenate([np.zeros(1, lines.dtype), lines.reshape(-1)]))[1:]
    found = flat.reshape(lines.shape)
    assert found.data.ptr % 16
    return found.transpose(0, 3, 1, 2) if last and codes.ndim == 4 else found


@RUNG
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_operands_may_begin_at_odd_addresses(op: Op, rung: str, last: bool) -> None:
    """Views begin anywhere; instructions that move 16 bytes do not."""
    random = np.random.default_rng(4)
    arrays, params = problem(op, (2, 16, 6, 7), (16, 16, 3, 3))
    form = float32 if can(op, rung, float32, arrays, params) else bfloat16
    if not can(op, rung, form, arrays, params):
        pytest.skip(f"{rung} cannot run here")
    codes = tuple(stored(form, random.normal(size=a.shape), False) for a in arrays)
    given, formats = tuple(misplaced(a, last) for a in codes), (form,) * len(codes)
    with dispatch.use(**{op.name: rung}):
        found = dispatch.make_plan(op, "cuda:0", formats, given, params).run(*given, **params)
    wanted = run(op, rung, form, tuple(channels_last(a) if last and a.ndim == 4 else a for a in codes), params)
    assert gpu.to_host(found).tobytes() == gpu.to_host(wanted).tobytes()


LAYOUTS = {
    "channels first": lambda a: a,
    "rows last": lambda a: a.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2),
    "every second pixel": lambda a: a.repeat(2, axis=2).repeat(2, axis=3)[:, :, ::2, ::2],
    "backwards": lambda a: a[:, ::-1, :, ::-1].copy()[:, ::-1, :, ::-1],
    "channels last": lambda a: a.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
    "some of the channels": lambda a: a.repeat(2, axis=1).transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)[:, ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 3, 5, 7), (2, 8, 16, 17), (2, 13, 9, 4), (1, 64, 6, 6), (70, 70, 1, 2), (2, 130, 3, 11)]
)
def test_images_are_laid_with_their_channels_side_by_side(shape: tuple[int, ...], kind: Any, layout: str) -> None:
    """Of any strides, with zeros behind the channels, and untouched where they are so already."""
    values = np.random.default_rng(0).integers(1, 60000, shape).astype(kind)
    images = LAYOUTS[layout](gpu.xp().asarray(values))
    found = cuda_units.laid(images)
    chunk = 16 // values.itemsize
    assert found.shape == (shape[0], -(-shape[1] // chunk) * chunk, *shape[2:])
    assert found.transpose(0, 2, 3, 1).flags.c_contiguous
    assert found.data.ptr % 16 == 0
    there = gpu.to_host(found)
    np.testing.assert_array_equal(there[:, : shape[1]], values)
    assert not there[:, shape[1] :].any()
    assert (found is images) == (layout == "channels last" and shape[1] % chunk == 0)


@pytest.mark.skipif(gpu.mode() != "emulated", reason="launches are looked at, not made")
@pytest.mark.parametrize("rung", ["registers", "matrix", "tf32"])
def test_filters_of_millions_of_values_fit_a_grid(rung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second and third axis of a grid take 65,535 blocks."""
    op, form = spec.conv2d_weight_gradient, bfloat16 if rung == "matrix" else float32
    size, grids = (1024, 1025), []
    x, g = (gpu.xp().zeros((1, *rest, 8), form.storage).transpose(0, 3, 1, 2) for rest in (size, (1, 1)))
    monkeypatch.setattr(cuda_host, "launch", lambda kernel, grid, *_: grids.append(grid))
    params = {**SAME, "padding": (0, 0), "size": size}
    with dispatch.use(**{op.name: f"cuda/cuda-{rung}"}):
        dispatch.make_plan(op, "cuda:0", (form, form), (g, x), params).run(g, x, **params)
    assert len(grids) == 2
    assert max(max(grid[1:]) for grid in grids) < 65536


def test_what_cannot_be_numbered_is_refused() -> None:
    """Tiles reach behind the last position, which has to have a number too."""

    def request(op: Op, form: Format, *shapes: tuple[int, ...], **given: Any) -> Request:
        arrays = tuple(np.broadcast_to(form.storage.type(0), shape) for shape in shapes)
        return Request(op, "cuda", (form,) * len(shapes), arrays, {**SAME, "padding": (0, 0), **given})

    most = cuda_arguments.MOST_NUMBERED
    for count in (most, most + 1):
        positions = request(spec.conv2d, float32, (1, 1, count, 1), (1, 1, 1, 1))
        half = count // 2
        values = request(spec.conv2d_weight_gradient, float32, (1, 1, 1, 1), (1, 2, half, 1), size=(half, 1))
        for found in map(cuda_arguments.too_large, (positions, values)):
            assert (found is None) == (count == most)
            assert found is None or f"not {count}" in found
    one = (1, 1, 1 << 14, 1 << 14)  # channels are filled up to 8
    reason = cuda_units.refusal(request(spec.conv2d, bfloat16, one, one), cuda_matrix.FORWARD[bfloat16][64])
    assert "where channels are multiples of 8, not 2147483648" in str(reason)


@pytest.mark.parametrize(
    ("op", "shapes", "given"),
    [
        (spec.conv2d, ((2, 5, 1 << 15, 1 << 14), (1, 5, 1, 1)), {}),
        (spec.conv2d, ((2, 1, 1 << 15, 1 << 14), (4, 1, 1, 1)), {}),
        (spec.conv2d_input_gradient, ((2, 4, 1 << 15, 1 << 14), (4, 1, 1, 1)), {"size": (1 << 15, 1 << 14)}),
        (spec.conv2d_weight_gradient, ((2, 1, 1 << 15, 1 << 14), (2, 4, 1 << 15, 1 << 14)), {"size": (1, 1)}),
        (spec.conv2d, ((1, 1 << 16, 1, 1), (1 << 15, 1 << 16, 1, 1)), {}),
    ],
    ids=["images", "results", "gradient", "images of filters", "filters"],
)
def test_images_beyond_the_offsets_of_triton_are_refused(op: Op, shapes: Any, given: dict[str, Any]) -> None:
    """They have 32 bits within an image and a group's filters, whatever the number of images."""
    for cut in (False, True):
        arrays = []
        for shape in shapes:
            few = tuple(n // 4 if cut and n > 1 << 13 else n for n in shape)
            steps = tuple(2 * prod(few[i + 1 :]) for i in range(4))
            arrays.append(SimpleNamespace(shape=few, strides=steps, itemsize=2))
        params = {**SAME, "padding": (0, 0), **given}
        if cut and op is spec.conv2d_input_gradient:
            params["size"] = tuple(n // 4 for n in params["size"])
        reason = triton_operands.narrow_groups(Request(op, "cuda", (bfloat16,) * 2, tuple(arrays), params))  # type: ignore[arg-type]
        assert (reason is None) == cut, reason
        assert cut or "2^31 - 1 values" in str(reason)
