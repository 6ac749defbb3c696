"""Volumes on the kernels of images: the slices that a filter's taps in depth see are laid side by side as channels, channels last
as the matrix units want them, so that one convolution of images sums over all taps, and its result is rounded once.

The input gradient gathers too: the slices of g that a slice of the input has gone into lie side by side, fewer of them for slices
at the rims (zeros in their place would meet weights that are not finite), and each phase of the stride in depth has taps of its
own. Next limit: a slice is copied once for each tap that sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv.cuda_arguments import FORMATS
from ulpgrad.kernels.conv.geometry import Triple, output_size
from ulpgrad.kernels.conv3d import spec
from ulpgrad.kernels.conv3d.plane import format_of, plane
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.steps import best_on


def _last(volumes: Any) -> Any:
    """[n, c, d, h, w] -> [n, d, h, w, c], a view."""
    return volumes.transpose(0, 2, 3, 4, 1)


def _is_last(volumes: Any) -> bool:
    return bool(volumes.shape[1] > 1 and _last(volumes).flags.c_contiguous)


def _images(x: Any, firsts: Sequence[int], rows: int, step: int, groups: int) -> Any:
    """Images [n * rows, taps * c, h, w], channels last: that of row r has beside each other, for each tap t, the channels of the
    slice firsts[t] + r * step, or zeros where there is none. The channels of a group stay together."""
    n, c, depth, h, w = x.shape
    if len(firsts) == 1 and firsts[0] >= 0 and (rows - 1) * step + firsts[0] < depth:
        seen = gpu.contiguous(_last(x[:, :, firsts[0] : firsts[0] + (rows - 1) * step + 1 : step]))
    else:
        seen = gpu.xp().empty((n, rows, h, w, groups, len(firsts), c // groups), x.dtype)
        apart = _last(x).reshape(n, depth, h, w, groups, c // groups)
        for t, first in enumerate(firsts):
            low = min(rows, max(0, -(first // step)))
            high = min(rows, max(low, (depth - 1 - first) // step + 1))
            tap = seen[..., t, :]
            for rim in (tap[:, :low], tap[:, high:]):
                if rim.size:
                    rim[...] = 0
            if high > low:
                tap[:, low:high] = apart[:, first + low * step : first + (high - 1) * step + 1 : step]
    return seen.reshape(n * rows, h, w, len(firsts) * c).transpose(0, 3, 1, 2)


def _volumes(images: Any, n: int, last: bool) -> Any:
    """[n * d, c, h, w] -> [n, c, d, h, w], contiguous unless `last`."""
    _, c, h, w = images.shape
    d = images.shape[0] // n if n else 0
    found = images.transpose(0, 2, 3, 1).reshape(n, d, h, w, c).transpose(0, 4, 1, 2, 3)
    return found if last else gpu.contiguous(found)


@kernel(spec.conv3d, "cuda/cuda-slices", rank=60, formats=FORMATS, build=True)
def conv3d(request: Request) -> Any:
    form = format_of(request)

    def run(x: Any, weight: Any, bias: Any, **geometry: Any) -> Any:
        across, (o, c, taps, *kernel) = plane(**geometry), weight.shape
        how = {k: v for k, v in geometry.items() if k != "groups"}
        n, size = x.shape[0], output_size(x.shape[2:], weight.shape[2:], **how)
        firsts = [t * how["dilation"][0] - how["padding"][0] for t in range(taps)]
        images = _images(x, firsts, size[0], how["stride"][0], geometry["groups"])
        filters = weight.transpose(0, 2, 1, 3, 4).reshape(o, taps * c, *kernel)
        if not n:
            return gpu.xp().empty((n, o, *size), x.dtype)
        given = images, filters, bias
        return _volumes(best_on("cuda", "conv2d", form, *given, **across)(*given, **across), n, _is_last(x))

    return run


def _phases(depth: int, rows: int, taps: int, stride: int, padding: int, dilation: int) -> Iterator[Any]:
    """Slices of the input that the same taps have seen: the first, how many there are, `stride` apart, and for each of these taps
    the row of g that the first slice has gone into; the next slice's is the next row."""
    for start in range(min(stride, depth)):
        count = (depth - 1 - start) // stride + 1
        seen = {}  # by tap, the row of g for this phase's first slice, which may lie outside
        for tap in range(taps):
            row, rest = divmod(start + padding - tap * dilation, stride)
            if not rest:
                seen[tap] = row
        inside = {tap: (max(0, -row), min(count, rows - row)) for tap, row in seen.items()}
        edges = {0, count, *(min(max(edge, 0), count) for both in inside.values() for edge in both)}
        for low, high in pairwise(sorted(edges)):
            here = {tap: seen[tap] + low for tap, (first, end) in inside.items() if first <= low and high <= end}
            yield start + low * stride, high - low, here


@kernel(spec.conv3d_input_gradient, "cuda/cuda-slices", rank=60, formats=FORMATS, build=True)
def input_gradient(request: Request) -> Any:
    form = format_of(request)

    def run(g: Any, weight: Any, *, size: Triple, **geometry: Any) -> Any:
        across, groups = {"size": size[1:], **plane(**geometry)}, geometry["groups"]
        (n, o, rows, *_), (_, c, taps, *kernel), xp = g.shape, weight.shape, gpu.xp()
        stride, padding, dilation = (geometry[name][0] for name in ("stride", "padding", "dilation"))
        parts = list(_phases(size[0], rows, taps, stride, padding, dilation))
        by_group = weight.reshape(groups, o // groups, c, taps, *kernel)
        is_last, dx = _is_last(g), None
        if len(parts) > 1 or not n or not parts[0][2]:
            shape = (n, c * groups, *size)
            dx = (
                xp.zeros((n, *size, shape[1]), g.dtype).transpose(0, 4, 1, 2, 3)
                if is_last
                else xp.zeros(shape, g.dtype)
            )
        for first, count, seen in parts:
            if not n or not seen:
                continue
            images = _images(g, list(seen.values()), count, 1, groups)
            filters = xp.stack([by_group[:, :, :, tap] for tap in seen], axis=1)
            given = images, filters.reshape(groups * len(seen) * (o // groups), c, *kernel)
            found = best_on("cuda", "conv2d_input_gradient", form, *given, **across)(*given, **across)
            if dx is None:
                return _volumes(found, n, is_last)
            dx[:, :, first : first + (count - 1) * stride + 1 : stride] = _volumes(found, n, last=True)
        return dx

    return run


@kernel(spec.conv3d_weight_gradient, "cuda/cuda-slices", rank=60, formats=FORMATS, build=True)
def weight_gradient(request: Request) -> Any:
    form = format_of(request)

    def run(g: Any, x: Any, *, size: Triple, **geometry: Any) -> Any:
        across = {"size": size[1:], **plane(**geometry)}
        taps, rows, c = size[0], g.shape[2], x.shape[1] // geometry["groups"]
        stride, padding, dilation = (geometry[name][0] for name in ("stride", "padding", "dilation"))
        firsts = [t * dilation - padding for t in range(taps)]
        given = _images(g, [0], rows, 1, 1), _images(x, firsts, rows, stride, geometry["groups"])
        if not x.shape[0]:
            return gpu.xp().zeros((g.shape[1], c, *size), g.dtype)
        dw = best_on("cuda", "conv2d_weight_gradient", form, *given, **across)(*given, **across)
        return gpu.contiguous(dw.reshape(g.shape[1], taps, c, *size[1:]).transpose(0, 2, 1, 3, 4))

    return run
