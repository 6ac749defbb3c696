"""The weight gradient on warp groups of sm_90: both operands lie with the channels of a position side by side, and the units read
them across, so that nobody transposes.

A tile is two blocks of 64 input channels under one tap, one for each warp group, x 64, 128 or 256 outputs, in steps of 64
positions. A step is one copy of patches for each block (im2col) and one of 64 positions of the gradient for each 64 outputs;
positions behind the last are zeros in both. Slices of the positions are summed apart and added in their order by a second
pass; a block makes one tile of one slice after the other, and the copies for the next run while sums are stored.

It has run on the host, where the units do as NVIDIA documents them, but not on a GPU: it is ranked below `cuda-matrix`, and
taken only where it is asked for. Next limit, as arithmetic has it: 128 x 256 results take 48 KiB of shared memory for each 4.2
MFLOP, all of which comes from the cache, where a cluster of blocks would share half of it. Three channels, as in the first layer
of a network, fill a twentieth of a block: such layers are left to `cuda-matrix`. 64 under a single tap leave one of the groups
with nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ulpgrad.formats import Format, float16
from ulpgrad.kernels import cuda_tensor_map as maps, gpu
from ulpgrad.kernels.conv import cuda_units as units, cuda_warpgroup as group, spec
from ulpgrad.kernels.conv.cuda_arguments import Shape, cdiv, shape_of
from ulpgrad.kernels.conv.cuda_slices import MOST_SUMS, Slices
from ulpgrad.kernels.cuda_compile import Kernel, c_type
from ulpgrad.kernels.registry import Request, kernel

KERNELS: dict[Format | None, units.Kernels] = {
    form: {
        columns: Kernel(
            "conv_weight_warpgroup.cu", f"conv_weight_warpgroup<{c_type(form)}, {columns}>", since=90, only="sm_90a"
        )
        for columns in group.WIDTHS
    }
    for form in group.FORMATS
}
CHANNELS = POSITIONS = 64  # of one copy, as in csrc/cuda/conv_weight_blocks.cuh
STAGES_BYTES = 192 << 10
PROCESSORS, WAVES = 132, 8
# What a tile's sums cost, in steps: 8 bytes of each are written and read at 4.3 TB/s, and 128 operations made at 990 TFLOP/s.
SUMS = 14
WORTH = 0.6  # of what these units make in a time, those of `cuda-matrix` make so much
BALANCE = 230  # operations that these units make while a byte comes from memory


def shared_bytes(columns: int) -> int:
    """For as many stages as there is room for."""
    stage = group.LINE * (group.ROWS + columns)
    return STAGES_BYTES // stage * stage


def blocks(shape: Shape) -> int:
    """Of 64 inputs under one tap, in a filter."""
    return prod(shape.kernel) * cdiv(shape.inputs, CHANNELS)


def tiles(shape: Shape, columns: int) -> int:
    """Of one slice and one group."""
    return cdiv(blocks(shape) * CHANNELS, group.ROWS) * cdiv(shape.outputs, columns)


def width(shape: Shape) -> int:
    """Outputs of a tile: slices give the processors work, where there are enough positions."""
    steps = cdiv(shape.rows, POSITIONS)
    return group.width(blocks(shape) * CHANNELS, shape.outputs, shape.groups * steps)


def slice_count(tiles: int, steps: int, weights: int) -> int:
    """How many slices of so many steps are made at once in the shortest time, with sums that cost something. Sizes alone
    decide, so that bits repeat on every device."""
    most = max(1, min(steps, MOST_SUMS // weights))
    counts = {min(most, max(1, waves * PROCESSORS // tiles)) for waves in range(1, WAVES + 1)}
    return min(sorted(counts), key=lambda n: cdiv(tiles * n, PROCESSORS) * (cdiv(steps, n) + SUMS))


def gradients(shape: Shape) -> maps.Tiles:
    """What is told of the gradient of the results: positions one after the other, each with its channels."""
    channels = shape.groups * shape.outputs
    channels += -channels % (units.PACKET // group.ITEM)
    pitch = channels * group.ITEM
    return maps.Tiles((channels, shape.rows, 1), (pitch, shape.rows * pitch), (CHANNELS, POSITIONS, 1))


def images(shape: Shape) -> maps.Pixels:
    """What is told of the images: they are walked along as in the forward pass."""
    (walks,) = group.walks(shape)
    assert walks is not None
    return group.pixels(shape, walks, POSITIONS)


def filled(shape: Shape) -> float:
    """The part of what the tiles make that is wanted: a block of 64 inputs under one tap, for a layer of few, is mostly empty."""
    columns = width(shape)
    return shape.depth * shape.outputs / (tiles(shape, columns) * group.ROWS * columns)


def filled_by_matrix(shape: Shape) -> float:
    """The same of `cuda-matrix`, whose tiles run over inputs and taps alike."""
    depth = prod(shape.kernel) * cdiv(shape.inputs, units.PACKET // group.ITEM) * (units.PACKET // group.ITEM)
    columns = units.width(shape.outputs, depth, shape.groups)
    made = cdiv(shape.outputs, units.ROWS) * units.ROWS * cdiv(depth, columns) * columns
    return shape.depth * shape.outputs / made


def time_by(shape: Shape, rate: float) -> float:
    """How long products take at a part of what the units make, at least what it takes to read both operands, which is 1."""
    products = shape.rows * shape.groups * shape.outputs * shape.depth
    values = shape.groups * (shape.rows * shape.outputs + shape.images * prod(shape.size) * shape.inputs)
    return max(1.0, 2 * products / (values * group.ITEM * BALANCE * rate))


def refusal(request: Request) -> str | None:
    shape = shape_of(request)
    reason = units.refusal(request, KERNELS[float16][group.WIDTHS[0]])
    if reason is not None or not shape.weights or not shape.rows:
        return reason
    if tiles(shape, group.WIDTHS[0]) > group.MOST_TILES:
        return f"makes up to {group.MOST_TILES} tiles"
    reason = images(shape).refusal() or gradients(shape).refusal()
    ours, other = filled(shape), filled_by_matrix(shape)
    if reason is None and time_by(shape, ours) > time_by(shape, WORTH * other):
        return (
            f"makes blocks of {CHANNELS} inputs under a tap, of which {shape.inputs} inputs and {shape.outputs} outputs fill "
            f"{ours:.0%}: cuda/cuda-matrix fills {other:.0%} of its tiles, and is faster"
        )
    return reason


@kernel(spec.conv2d_weight_gradient, "cuda/cuda-warpgroup", rank=85, formats=group.FORMATS, where=refusal, build=True)
def weight_gradient(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None

    def run(g: Any, x: Any, **geometry: Any) -> Any:
        outputs, inputs = g.shape[1], x.shape[1] // geometry["groups"]
        g, x = units.laid(g), units.laid(x)
        shape = Shape(spec.conv2d_weight_gradient, (g, x), geometry)
        if not shape.weights or not shape.rows:
            return gpu.xp().zeros((outputs, inputs, *shape.kernel), g.dtype)
        columns = width(shape)
        each = tiles(shape, columns)
        count = slice_count(each * shape.groups, cdiv(shape.rows, POSITIONS), shape.weights)
        slices = Slices(form, shape, count)
        grid = (min(each * count, cdiv(gpu.processors(), shape.groups)), 1, shape.groups)
        copies = maps.argument(images(shape), x, form), maps.argument(gradients(shape), g, form)
        KERNELS[form][columns].launch(
            grid,
            (group.THREADS, 1, 1),
            slices.parts,
            shape.argument,
            np.int32(count),
            *copies,
            shared=shared_bytes(columns),
        )
        return gpu.contiguous(slices.sum(g, x)[:outputs, :inputs])

    return run
