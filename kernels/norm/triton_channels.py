"""Batch norm by tiles of channels x values: each notes the mean and the squared distances from it, which are then combined
without cancellation (Chan et al. 1983); another launch normalises. The order of sums follows from the shape alone.

Where there are no positions, channels lie side by side and tiles run across them. Next limit: values are read twice, and twice
again in the gradient.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import Format, compute_format
from ulpgrad.kernels import gpu
from ulpgrad.kernels.norm import spec
from ulpgrad.kernels.norm.triton_ops import FORMATS, argument
from ulpgrad.kernels.reduction.triton_tree import reduce_lines
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.statistics import beside
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton
from ulpgrad.kernels.triton_lines import power, warps, wide

TILE = 4096
ACROSS = 64  # bytes of neighbouring channels, where there are no positions
NOTES = 1024  # pieces that are combined at once


@triton.jit
def _tile(channels, values, pieces, S: tl.constexpr, CHANNELS: tl.constexpr, VALUES: tl.constexpr):
    """The number of this program's piece, its channels, where its values lie, and which of both there are."""
    piece = (tl.program_id(0) % pieces).to(tl.int64)
    channel = tl.program_id(0) // pieces * CHANNELS + tl.arange(0, CHANNELS)
    value = piece * VALUES + tl.arange(0, VALUES)
    at = channel.to(tl.int64)[:, None] * S + ((value // S) * channels * S + value % S)[None, :]
    return piece, channel, at, channel < channels, (channel < channels)[:, None] & (value < values)[None, :]


@triton.jit
def _moments(
    means, squares, x, channels, values, pieces, S: tl.constexpr, CHANNELS: tl.constexpr, VALUES: tl.constexpr
):  # fmt: skip
    piece, channel, at, there, inside = _tile(channels, values, pieces, S, CHANNELS, VALUES)
    v = wide(tl.load(x + at, mask=inside, other=0.0))
    count = tl.minimum(values - piece * VALUES, VALUES)
    mean = tl.sum(v, 1) / count
    v = tl.where(inside, v - mean[:, None], 0.0)
    to = piece * channels + channel
    tl.store(means + to, mean, mask=there)
    tl.store(squares + to, tl.sum(v * v, 1), mask=there)


@triton.jit
def _statistics(
    mean, rstd, means, squares, channels, values, pieces, VALUES: tl.constexpr, EPS: tl.constexpr, NOTES: tl.constexpr
):  # fmt: skip
    channel = tl.program_id(0)
    kind: tl.constexpr = means.dtype.element_ty
    total = tl.zeros([NOTES], kind)
    for start in range(0, pieces, NOTES):
        piece = start + tl.arange(0, NOTES)
        known = piece < pieces
        count = tl.minimum(values - piece.to(tl.int64) * VALUES, VALUES)
        note = tl.load(means + piece.to(tl.int64) * channels + channel, mask=known, other=0.0)
        total += tl.where(known, note * count, 0.0)
    middle = tl.sum(total, 0) / values
    spread = tl.zeros([NOTES], kind)
    for start in range(0, pieces, NOTES):
        piece = start + tl.arange(0, NOTES)
        known = piece < pieces
        count = tl.minimum(values - piece.to(tl.int64) * VALUES, VALUES)
        at = piece.to(tl.int64) * channels + channel
        off = tl.load(means + at, mask=known, other=0.0) - middle
        spread += tl.where(known, tl.load(squares + at, mask=known, other=0.0) + off * off * count, 0.0)
    tl.store(mean + channel, middle)
    tl.store(rstd + channel, 1 / tl.sqrt(tl.sum(spread, 0) / values + EPS))


@triton.jit
def _normalise(
    y, x, weight, bias, mean, rstd, channels, values, pieces, S: tl.constexpr, CHANNELS: tl.constexpr, VALUES: tl.constexpr
):  # fmt: skip
    _, channel, at, there, inside = _tile(channels, values, pieces, S, CHANNELS, VALUES)
    v = wide(tl.load(x + at, mask=inside, other=0.0)) - tl.load(mean + channel, mask=there, other=0.0)[:, None]
    v *= tl.load(rstd + channel, mask=there, other=0.0)[:, None]
    if weight is not None:
        v *= wide(tl.load(weight + channel, mask=there, other=0.0))[:, None]
    if bias is not None:
        v += wide(tl.load(bias + channel, mask=there, other=0.0))[:, None]
    tl.store(y + at, v.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _normal(x, mean, rstd, channel, at, there, inside):
    """The normalised values, and what they were scaled by."""
    scale = wide(tl.load(rstd + channel, mask=there, other=0.0))[:, None]
    return (
        wide(tl.load(x + at, mask=inside, other=0.0)) - wide(tl.load(mean + channel, mask=there, other=0.0))[:, None]
    ) * scale, scale


@triton.jit
def _sums(
    dweights, dbiases, g, x, mean, rstd, channels, values, pieces,
    S: tl.constexpr, CHANNELS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    piece, channel, at, there, inside = _tile(channels, values, pieces, S, CHANNELS, VALUES)
    gs = wide(tl.load(g + at, mask=inside, other=0.0))
    normal, _ = _normal(x, mean, rstd, channel, at, there, inside)
    to = piece * channels + channel
    tl.store(dweights + to, tl.sum(gs * normal, 1), mask=there)
    tl.store(dbiases + to, tl.sum(gs, 1), mask=there)


@triton.jit
def _backward(
    dx, dweight, dbias, g, x, weight, mean, rstd, total_weight, total_bias, channels, values, pieces,
    S: tl.constexpr, CHANNELS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    piece, channel, at, there, inside = _tile(channels, values, pieces, S, CHANNELS, VALUES)
    gs = wide(tl.load(g + at, mask=inside, other=0.0))
    normal, scale = _normal(x, mean, rstd, channel, at, there, inside)
    dw = tl.load(total_weight + channel, mask=there, other=0.0)
    db = tl.load(total_bias + channel, mask=there, other=0.0)
    left = scale * (gs - (db[:, None] + normal * dw[:, None]) / values)
    if weight is not None:
        left *= wide(tl.load(weight + channel, mask=there, other=0.0))[:, None]
    tl.store(dx + at, left.to(dx.dtype.element_ty), mask=inside)
    is_first = channel < tl.where(piece == 0, channels, 0)
    tl.store(dweight + channel, dw.to(dweight.dtype.element_ty), mask=is_first)
    tl.store(dbias + channel, db.to(dbias.dtype.element_ty), mask=is_first)


def cut(shape: tuple[int, int, int], itemsize: int) -> tuple[int, int, dict[str, int]]:
    """Programs, pieces of a channel, and a tile of channels x values: across channels where these lie side by side."""
    n, c, s = shape
    if s == 1:
        across = min(power(c), max(ACROSS // itemsize, TILE // power(n)))
    else:
        across = min(power(c), max(TILE // power(n * s), 1))
    values = min(power(n * s), max(TILE // across, 1))
    tile = {"S": s, "CHANNELS": across, "VALUES": values, "num_warps": warps(across * values)}
    pieces = cdiv(n * s, values)
    return pieces * cdiv(c, across), pieces, tile


@kernel(spec.batch_norm, "cuda/triton-channels", rank=60, formats=FORMATS, contiguous=True, build=True)
def batch_norm(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None
    kept = compute_format(form).storage

    def run(x: Any, weight: Any, bias: Any, *, eps: float) -> tuple[Any, Any, Any]:
        xp, (n, c, s) = gpu.xp(), x.shape
        y = xp.empty(x.shape, x.dtype)
        if not x.size:  # the mean of nothing
            return y, xp.full(c, np.nan, kept), xp.full(c, np.nan, kept)
        mean, rstd = xp.empty(c, kept), xp.empty(c, kept)
        programs, pieces, tile = cut(x.shape, x.itemsize)
        shape = (c, n * s, pieces)
        means, squares = xp.empty((pieces, c), kept), xp.empty((pieces, c), kept)
        given, *parameters = (argument(a, form) for a in (x, weight, bias))
        launch(_moments, (programs,), means, squares, given, *shape, **tile)
        launch(_statistics, (c,), mean, rstd, means, squares, *shape, VALUES=tile["VALUES"], EPS=float(eps),
               NOTES=min(power(pieces), NOTES), num_warps=1)  # fmt: skip
        launch(_normalise, (programs,), argument(y, form), given, *parameters, mean, rstd, *shape, **tile)
        return y, mean, rstd

    return run


@kernel(spec.batch_norm_gradient, "cuda/triton-channels", rank=60, formats=FORMATS, contiguous=True, build=True,
        where=beside((0, 1, 2), (3, 4)))  # fmt: skip
def batch_norm_gradient(request: Request) -> Callable[..., Any]:
    form = request.formats[1]
    assert form is not None
    between: Format = compute_format(form)

    def run(g: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> tuple[Any, Any, Any]:
        xp, (n, c, s) = gpu.xp(), x.shape
        if not x.size:
            return xp.empty(x.shape, x.dtype), xp.zeros(c, x.dtype), xp.zeros(c, x.dtype)
        dx, dweight, dbias = xp.empty(x.shape, x.dtype), xp.empty(c, x.dtype), xp.empty(c, x.dtype)
        programs, pieces, tile = cut(x.shape, x.itemsize)
        shape = (c, n * s, pieces)
        sums = [xp.empty((pieces, c), between.storage) for _ in range(2)]
        totals = [xp.empty(c, between.storage) for _ in range(2)]
        gs, xs, ws, *statistics = (
            argument(a, f) for a, f in zip((g, x, weight, mean, rstd), request.formats, strict=True)
        )
        launch(_sums, (programs,), *sums, gs, xs, *statistics, *shape, **tile)
        for part, total in zip(sums, totals, strict=True):
            reduce_lines("sum", part, between, (1, *part.shape), total, between)
        launch(_backward, (programs,), *(argument(a, form) for a in (dx, dweight, dbias)), gs, xs, ws, *statistics, *totals,
               *shape, **tile)  # fmt: skip
        return dx, dweight, dbias

    return run
