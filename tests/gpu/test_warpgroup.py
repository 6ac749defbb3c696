"""The rung of convolution on warp groups, from one tile to many, into results that start as garbage. `make gpu-check` runs this
file before all others, in a process of its own: the rung waits for copies by barriers, and has run on no GPU so far. Emulated,
copies and products come as late as they may, and mistakes in the pipeline are seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad.errors import ArgumentError, KernelError
from ulpgrad.formats import Format, bfloat16, float16
from ulpgrad.kernels import cuda_compile, gpu
from ulpgrad.kernels.conv import cuda_frames, cuda_warpgroup, spec
from ulpgrad.kernels.cuda_compile import FOLDER, Kernel
from ulpgrad.kernels.spec import Op

sys.path.insert(0, str(Path(__file__).parent))
from test_conv_cuda import UNIT, problem, run, stored

NAME = "cuda/cuda-warpgroup"
pytestmark = pytest.mark.skipif(
    cuda_warpgroup.FORWARD[float16][64].refusal() is not None, reason=str(cuda_warpgroup.FORWARD[float16][64].refusal())
)
# From one copy of patches and one of filters to all that there is: more steps than stages, more tiles than blocks.
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one step": ((2, 64, 8, 8), (64, 64, 1, 1), {"padding": (0, 0)}),
    "part of a tile": ((1, 8, 3, 5), (8, 8, 1, 1), {"padding": (0, 0)}),
    "two chunks of channels": ((1, 72, 8, 16), (64, 72, 1, 1), {"padding": (0, 0)}),
    "taps along a row": ((1, 64, 4, 32), (64, 64, 1, 3), {"padding": (0, 1)}),
    "taps along a column": ((1, 64, 32, 4), (64, 64, 3, 1), {"padding": (1, 0)}),
    "more steps than stages": ((1, 64, 8, 16), (64, 64, 3, 3), {}),
    "more tiles than blocks": ((5, 16, 20, 20), (70, 16, 3, 3), {}),
    "even kernel, much padding": ((2, 24, 7, 5), (40, 24, 4, 2), {"padding": (3, 2)}),
    "dilation": ((2, 16, 9, 11), (16, 16, 3, 2), {"dilation": (2, 3), "padding": (2, 1)}),
    "strides": ((3, 16, 13, 10), (24, 16, 3, 3), {"stride": (2, 3)}),
    "a stride beyond the kernel": ((2, 16, 13, 10), (24, 16, 2, 1), {"stride": (5, 4), "padding": (0, 0)}),
    "groups": ((2, 128, 6, 5), (128, 64, 3, 3), {"groups": 2}),
    "three channels": ((2, 3, 9, 9), (16, 3, 3, 3), {}),
    "filters that leave no padding": ((2, 8, 6, 6), (8, 8, 6, 6), {"padding": (0, 0)}),
}


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that is not written is NaN."""
    made = cuda_frames.images_like

    def poisoned(*given: Any, **how: Any) -> Any:
        images = made(*given, **how)
        images[...] = np.uint16(0xFFFF).view(images.dtype) if images.dtype.itemsize == 2 else np.nan
        return images

    monkeypatch.setattr(cuda_frames, "images_like", poisoned)


def held(op: Op, form: Format, arrays: tuple[Any, ...], params: dict[str, Any], last: bool = True) -> None:
    """The rung's result is within rounding of the definition's."""
    found = form.exact(gpu.to_host(run(op, NAME, form, tuple(stored(form, a, last) for a in arrays), params)))
    want, size = op.reference(*arrays, **params), op.magnitude(*arrays, **params)  # type: ignore[misc]
    error = np.abs(found - want)
    assert (error <= 8 * UNIT[bfloat16] ** 3 * size + UNIT[form] * np.abs(want)).all(), f"off by up to {error.max()}"


@pytest.mark.parametrize("form", [bfloat16, float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_forward(name: str, form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "processors", lambda: 2)  # a large GPU would have a block for each of these tiles
    x, weight, given = CASES[name]
    held(spec.conv2d, form, *problem(spec.conv2d, x, weight, **given))


# Phases of the strides: pixels that no window has seen, taps that only some have, more phases along one axis than the other.
PHASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one tap with strides": ((2, 16, 9, 8), (24, 16, 1, 1), {"stride": (2, 2), "padding": (0, 0)}),
    "the first layer of a network": ((1, 16, 15, 12), (64, 16, 7, 7), {"stride": (2, 2), "padding": (3, 3)}),
    "strides and dilation": ((2, 8, 14, 11), (16, 8, 3, 2), {"stride": (4, 3), "dilation": (2, 3), "padding": (3, 1)}),
    "dilation by the stride": ((1, 8, 9, 9), (8, 8, 2, 3), {"stride": (2, 2), "dilation": (2, 2), "padding": (2, 2)}),
    "a stride beyond the image": ((2, 8, 3, 9), (8, 8, 3, 3), {"stride": (5, 2)}),
    "strides and groups": ((2, 128, 6, 5), (128, 64, 3, 3), {"groups": 2, "stride": (1, 2)}),
}


@pytest.mark.parametrize("name", {**CASES, **PHASES})
def test_input_gradient(name: str) -> None:
    x, weight, given = {**CASES, **PHASES}[name]
    if name == "three channels":
        weight = (3, 16, 3, 3)  # of the result, which is what is read
        x = (2, 16, 9, 9)
    held(spec.conv2d_input_gradient, bfloat16, *problem(spec.conv2d_input_gradient, x, weight, **given))


@pytest.mark.parametrize("columns", [64, 128, 256])
def test_every_width_of_a_tile(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_warpgroup, "width", lambda *_: columns)
    for op in (spec.conv2d, spec.conv2d_input_gradient):
        arrays, params = problem(op, (2, 72, 10, 14), (72, 72, 3, 3))
        held(op, bfloat16, arrays, params)
        held(op, float16, arrays, params, last=False)


def test_many_launches_give_the_same_bits() -> None:
    """On a GPU a race would show itself now and then."""
    images, channels, side, times = (2, 64, 9, 3) if gpu.mode() else (32, 128, 28, 200)
    arrays, params = problem(spec.conv2d, (images, channels, side, side), (channels, channels, 3, 3))
    random = np.random.default_rng(1)
    codes = tuple(stored(bfloat16, random.normal(size=a.shape), True) for a in arrays)
    bits = {gpu.to_host(run(spec.conv2d, NAME, bfloat16, codes, params)).tobytes() for _ in range(times)}
    assert len(bits) == 1


@pytest.mark.parametrize(
    ("x", "weight", "given", "reason"),
    [
        ((1, 8, 9, 300), (8, 8, 1, 5), {"dilation": (1, 70), "padding": (0, 130)}, "corners of windows"),
        ((1, 8, 9, 300), (8, 8, 1, 5), {"dilation": (1, 64), "padding": (0, 128)}, "offsets of taps from 0 to 255"),
        ((1, 8, 90, 9), (8, 8, 1, 1), {"stride": (9, 1)}, "strides from 1 to 8"),
        ((1, 16, 9, 9), (16, 8, 3, 3), {"groups": 2}, "groups of a multiple of 64"),
    ],
)
def test_a_refusal_says_what_the_unit_cannot_do(x: Any, weight: Any, given: Any, reason: str) -> None:
    arrays, params = problem(spec.conv2d, x, weight, **given)
    with pytest.raises(KernelError, match=reason):
        run(spec.conv2d, NAME, bfloat16, tuple(stored(bfloat16, a, True) for a in arrays), params)


def test_an_input_gradient_of_too_many_phases_is_refused() -> None:
    op = spec.conv2d_input_gradient
    arrays, params = problem(op, (1, 8, 20, 20), (8, 8, 3, 3), stride=(9, 8))
    with pytest.raises(KernelError, match="up to 64 phases of the strides, not 72"):
        run(op, NAME, bfloat16, tuple(stored(bfloat16, a, True) for a in arrays), params)


FAULTS = (
    r"off by|no thread can go on|nobody has written|arrive at the mbarrier|before the product was waited for|outside of"
    if gpu.runs_ptx()
    else r"off by|nobody went on|than it was made for"
)
SHARED = ("warpgroup_tile.cuh", "warpgroup.cuh")  # headers that mistakes are made in


def with_mistake(source: str, right: str, wrong: str, folder: Path) -> Path:
    """A source, and the headers that it shares with others, with one thing in them that is wrong."""
    texts = {name: (FOLDER / name).read_text() for name in (source, *SHARED)}
    assert any(right in text for text in texts.values())
    for name, text in texts.items():
        (folder / name).write_text(text.replace(right, wrong))
    return folder / source


MISTAKES = {
    "a stage is read before it is full": ("wait_for(&pipeline.filled[ring.stage], ring.parity);", ""),
    "a stage is filled while it is read": ("wait_for(&pipeline.empty[ring.stage], ring.parity ^ 1);", ""),
    "a stage is given back before its products are made": ("wait_for_products<1>();", ""),
    "one copy of two is waited for": ("arrive_expecting(filled, Tile::STAGE_BYTES)", "arrive_expecting(filled, Tile::A_BYTES)"),
    "the wrong round is waited for": ("ring.parity ^ 1", "ring.parity"),
    "a stage is never given back": ("if (step > 0 && lane == 0) arrive(&pipeline.empty[before]);", ""),
}  # fmt: skip


@pytest.mark.skipif(gpu.mode() != "emulated", reason="a GPU would wait, or read what is not there")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_the_pipeline_are_seen(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = with_mistake("conv_warpgroup.cu", *MISTAKES[mistake], tmp_path)
    monkeypatch.setattr(cuda_compile, "_declared", {})
    kernel = Kernel(str(source), "conv_warpgroup<Bfloat16, false, 64>")
    monkeypatch.setitem(cuda_warpgroup.FORWARD[bfloat16], 64, kernel)
    with pytest.raises((AssertionError, ArgumentError, KernelError), match=FAULTS):
        held(spec.conv2d, bfloat16, *problem(spec.conv2d, (1, 64, 8, 16), (64, 64, 3, 3)))
