"""The weight gradient on warp groups, from one step of one block to slices of many, into sums that start as garbage. `make
gpu-check` runs this file in a process of its own, as it does test_warpgroup.py, and for the same reason."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad.errors import ArgumentError, KernelError
from ulpgrad.formats import Format, bfloat16, float16
from ulpgrad.kernels import cuda_compile, gpu
from ulpgrad.kernels.conv import cuda_slices, cuda_warpgroup, cuda_warpgroup_weight as rung, spec
from ulpgrad.kernels.cuda_compile import Kernel
from ulpgrad.kernels.registry import Request

sys.path.insert(0, str(Path(__file__).parent))
from test_conv_cuda import UNIT, problem, run, stored
from test_warpgroup import FAULTS, NAME, with_mistake

OP = spec.conv2d_weight_gradient
pytestmark = pytest.mark.skipif(
    rung.KERNELS[float16][64].refusal() is not None, reason=str(rung.KERNELS[float16][64].refusal())
)
# Images, filters (outputs first), geometry. A step is 64 positions, a block 64 input channels under a tap.
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one step of one block": ((1, 64, 8, 8), (64, 64, 1, 1), {"padding": (0, 0)}),
    "part of a step": ((1, 8, 3, 5), (8, 8, 1, 1), {"padding": (0, 0)}),
    "two blocks of channels": ((1, 72, 8, 9), (24, 72, 1, 1), {"padding": (0, 0)}),
    "a tap that not both groups have": ((1, 24, 6, 20), (40, 24, 1, 3), {"padding": (0, 1)}),
    "3 x 3 with padding": ((2, 72, 10, 7), (72, 72, 3, 3), {}),
    "more steps than stages": ((3, 8, 16, 16), (16, 8, 1, 1), {"padding": (0, 0)}),
    "more tiles than processors": ((5, 16, 20, 20), (70, 16, 3, 3), {}),
    "stride 2": ((2, 16, 13, 12), (24, 16, 3, 3), {"stride": (2, 2)}),
    "strides": ((3, 16, 13, 10), (24, 16, 3, 3), {"stride": (2, 3)}),
    "even kernel, much padding": ((2, 24, 7, 5), (40, 24, 4, 2), {"padding": (3, 2)}),
    "even kernel, stride 2": ((2, 8, 12, 11), (16, 8, 2, 2), {"stride": (2, 2), "padding": (0, 0)}),
    "dilation": ((2, 16, 9, 11), (16, 16, 3, 2), {"dilation": (2, 3), "padding": (2, 1)}),
    "a stride beyond the kernel": ((2, 16, 13, 10), (24, 16, 2, 1), {"stride": (5, 4), "padding": (0, 0)}),
    "groups": ((2, 144, 6, 5), (48, 72, 3, 3), {"groups": 2}),
    "small groups": ((2, 24, 9, 9), (48, 8, 3, 3), {"groups": 3}),
    "the first layer of a network": ((1, 3, 15, 12), (64, 3, 7, 7), {"stride": (2, 2), "padding": (3, 3)}),
    "odd channels": ((2, 13, 9, 9), (21, 13, 3, 3), {}),
    "filters that leave no padding": ((2, 8, 6, 6), (8, 8, 6, 6), {"padding": (0, 0)}),
}


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum that is not written is NaN."""
    made = cuda_slices.Slices.__init__

    def poisoned(self: Any, *given: Any) -> None:
        made(self, *given)
        self.parts[...] = np.nan

    monkeypatch.setattr(cuda_slices.Slices, "__init__", poisoned)


def held(form: Format, arrays: tuple[Any, ...], params: dict[str, Any], last: bool = True) -> None:
    """The gradient is within rounding of the definition's."""
    found = form.exact(gpu.to_host(run(OP, NAME, form, tuple(stored(form, a, last) for a in arrays), params)))
    want, size = OP.reference(*arrays, **params), OP.magnitude(*arrays, **params)  # type: ignore[misc]
    assert found.shape == want.shape
    error = np.abs(found - want)
    assert (error <= 8 * UNIT[bfloat16] ** 3 * size + UNIT[form] * np.abs(want)).all(), f"off by up to {error.max()}"


@pytest.mark.parametrize("form", [bfloat16, float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_weight_gradient(name: str, form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "processors", lambda: 2)  # a large GPU would have a block for each tile of each slice
    x, weight, given = CASES[name]
    held(form, *problem(OP, x, weight, **given))


@pytest.mark.parametrize("columns", cuda_warpgroup.WIDTHS)
@pytest.mark.parametrize("slices", [1, 3])
def test_every_width_of_a_tile_and_any_slices(columns: int, slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_warpgroup, "width", lambda *_: columns)
    monkeypatch.setattr(rung, "slice_count", lambda *_: slices)
    arrays, params = problem(OP, (2, 72, 10, 14), (136, 72, 2, 1), padding=(1, 0))
    held(bfloat16, arrays, params)
    held(float16, arrays, params, last=False)


@pytest.mark.parametrize("shape", [(0, 16, 5, 4), (2, 0, 5, 4)], ids=["no images", "no channels"])
def test_nothing_to_sum(shape: tuple[int, ...]) -> None:
    arrays, params = problem(OP, shape, (24, shape[1], 3, 3))
    found = gpu.to_host(run(OP, NAME, bfloat16, tuple(stored(bfloat16, a, False) for a in arrays), params))
    assert found.shape == (24, shape[1], 3, 3)
    assert not found.any()


def test_padding_makes_nan_of_infinities_as_the_definition_says() -> None:
    """What is beside the image is zeros, and so is what is behind the last position: the second meets no infinity."""
    (g, x), params = problem(OP, (1, 8, 5, 5), (16, 8, 3, 3))
    g[0, 3, 0, 0], g[0, 5, 4, 4], x[0, 2, 2, 2] = np.inf, -np.inf, np.nan
    with np.errstate(invalid="ignore"):
        want = OP.reference(g, x, **params)
    codes = tuple(stored(bfloat16, a, True) for a in (g, x))
    found = bfloat16.exact(gpu.to_host(run(OP, NAME, bfloat16, codes, params)))
    assert 0 < np.isnan(want).sum() < want.size
    assert np.isinf(want).any()
    np.testing.assert_array_equal(np.where(np.isfinite(found), 0, found), np.where(np.isfinite(want), 0, want))


def test_many_launches_give_the_same_bits() -> None:
    """On a GPU a race would show itself now and then."""
    images, channels, side, times = (2, 64, 9, 2) if gpu.mode() else (32, 128, 28, 200)
    arrays, params = problem(OP, (images, channels, side, side), (channels, channels, 3, 3))
    random = np.random.default_rng(1)
    codes = tuple(stored(bfloat16, random.normal(size=a.shape), True) for a in arrays)
    bits = {gpu.to_host(run(OP, NAME, bfloat16, codes, params)).tobytes() for _ in range(times)}
    assert len(bits) == 1


@pytest.mark.parametrize(
    ("x", "weight", "given", "reason"),
    [
        ((1, 8, 9, 300), (8, 8, 1, 5), {"dilation": (1, 70), "padding": (0, 130)}, "corners of windows"),
        ((1, 8, 90, 9), (8, 8, 1, 1), {"stride": (9, 1)}, "strides from 1 to 8"),
        ((1, 12, 9, 9), (16, 6, 3, 3), {"groups": 2}, "groups of a multiple of 8"),
    ],
)
def test_a_refusal_says_what_the_unit_cannot_do(x: Any, weight: Any, given: Any, reason: str) -> None:
    arrays, params = problem(OP, x, weight, **given)
    with pytest.raises(KernelError, match=reason):
        run(OP, NAME, bfloat16, tuple(stored(bfloat16, a, True) for a in arrays), params)


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "is_taken"),
    [
        (3, 64, 7, False),  # the first layers of ResNet-50, VGG-16 and U-Net
        (3, 64, 3, False),
        (1, 64, 3, False),
        (8, 64, 3, False),
        (64, 64, 1, True),  # half of each tile, as with cuda-matrix
        (64, 64, 3, True),
        (64, 256, 1, True),
        (72, 72, 3, True),
        (512, 2048, 1, True),
        (512, 512, 3, True),
    ],
)
def test_layers_of_few_channels_are_left_to_another_rung(
    inputs: int, outputs: int, kernel: int, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rung, "WORTH", 0.6)
    x, g = (np.broadcast_to(np.uint16(0), (32, channels, 28, 28)) for channels in (inputs, outputs))
    params = {
        "stride": (1, 1),
        "padding": (kernel // 2,) * 2,
        "dilation": (1, 1),
        "groups": 1,
        "size": (kernel, kernel),
    }
    reason = rung.refusal(Request(OP, "cuda", (bfloat16,) * 2, (g, x), params))
    assert is_taken == (reason is None), reason
    assert is_taken or "cuda/cuda-matrix fills" in str(reason)


MISTAKES = {
    "a stage is read before it is full": ("wait_for(&pipeline.filled[ring.stage], ring.parity);", ""),
    "a stage is filled while it is read": ("wait_for(&pipeline.empty[ring.stage], ring.parity ^ 1);", ""),
    "a stage is given back before its products are made": ("wait_for_products<1>();", ""),
    "one copy is not announced": ("(both ? 0 : Tile::BLOCK_BYTES)", "Tile::BLOCK_BYTES"),
    "a group without a block holds stages": ("if (lane == 0) arrive(&pipeline.empty[ring.stage]);", ""),
    "operands are not read across": ("sum_steps<Tile, true>", "sum_steps<Tile, false>"),
    "the distance of blocks is not told": ("ACROSS ? GROUP_LINES * LINE / 16 : 1", "1"),
}


@pytest.mark.skipif(gpu.mode() != "emulated", reason="a GPU would wait, or read what is not there")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_the_pipeline_are_seen(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = with_mistake("conv_weight_warpgroup.cu", *MISTAKES[mistake], tmp_path)
    monkeypatch.setattr(cuda_compile, "_declared", {})
    monkeypatch.setattr(cuda_warpgroup, "width", lambda *_: 128)
    monkeypatch.setattr(rung, "slice_count", lambda *_: 1)
    monkeypatch.setitem(rung.KERNELS[bfloat16], 128, Kernel(str(source), "conv_weight_warpgroup<Bfloat16, 128>"))
    with pytest.raises((AssertionError, ArgumentError, KernelError), match=FAULTS):
        held(bfloat16, *problem(OP, (3, 64, 16, 16), (128, 64, 1, 3), padding=(0, 1)))


@pytest.mark.skipif(gpu.mode() != "emulated", reason="a GPU would read what is not there")
def test_a_launch_that_is_given_up_leaves_nothing_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products that were asked for and never waited for have sums that are gone."""
    given = problem(OP, (3, 64, 16, 16), (64, 64, 1, 1), padding=(0, 0))
    with monkeypatch.context() as patch:
        whole = rung.images
        patch.setattr(rung, "images", lambda shape: dataclasses.replace(whole(shape), sizes=(64, 16, 9, 3)))
        with pytest.raises((ArgumentError, KernelError), match=r"beside their box|bounding box"):
            held(bfloat16, *given)
    held(bfloat16, *given)
