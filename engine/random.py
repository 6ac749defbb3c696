"""Random tensors, drawn from a generator's stream of words (`generator`): the default one, or one that is given."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import CPU, Device, as_device, beside, current, moved_to
from ulpgrad.differentiable import made, moved, plain_calls
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import (
    Array,
    Float,
    Format,
    as_format,
    bool_,
    compute_format,
    float64,
    get_default_dtype,
    int64,
)
from ulpgrad.generator import (
    Generator,
    default_generator,
    float_format,
    generator_or_default,
    get_state,
    manual_seed,
    normal_words,
    set_state,
    uniform_words,
    words_below,
)
from ulpgrad.kernels import gpu
from ulpgrad.kernels.random import spec
from ulpgrad.kernels.spec import Op
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

LARGEST = 2**60  # elements: NumPy counts bytes in 63 bits
Shape = int | Sequence[int]


@remembered
def rand(
    *shape: Any, dtype: Any = None, device: Any = None, generator: Generator | None = None, requires_grad: bool = False
) -> Tensor:
    """Uniform in [0, 1): `rand(2, 3)` or `rand((2, 3))`. float32 values are multiples of 2^-24, float64 ones of 2^-53,
    16-bit ones of half their eps; 1.0 is never reached. Raises FormatError where dtype is no float, ShapeError for a
    bad shape."""
    form = float_format("rand", dtype)
    return _drawn("rand", spec.random_uniform, uniform_words, form, shape, device, generator, requires_grad)


@remembered
def randn(
    *shape: Any, dtype: Any = None, device: Any = None, generator: Generator | None = None, requires_grad: bool = False
) -> Tensor:
    """Standard normal values (Box-Muller): `randn(2, 3)` or `randn((2, 3))`. Raises as `rand` does."""
    form = float_format("randn", dtype)
    return _drawn("randn", spec.random_normal, normal_words, form, shape, device, generator, requires_grad)


def uniform(
    low: float = 0.0,
    high: float = 1.0,
    shape: Shape = (),
    *,
    dtype: Any = None,
    device: Any = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform in [low, high), computed as low + (high - low) u in float32 or float64; 16-bit formats are rounded from
    float32 and may reach high. Raises ArgumentError unless low <= high, both finite."""
    if not (_finite(low) and _finite(high) and low <= high):
        raise ArgumentError(f"uniform: low={low!r}, high={high!r}: expected finite numbers, low not above high")
    form, sizes = float_format("uniform", dtype), _shape("uniform", (shape,))
    wide = compute_format(form)
    assert isinstance(wide, Float)
    if not high - low <= wide.max:
        raise ArgumentError(f"uniform: low={low}, high={high}: {wide.name} cannot hold the distance between them")
    place = as_device(device)
    values = generator_or_default("uniform", generator).uniform(math.prod(sizes), wide, place)
    with np.errstate(all="ignore"), current(place):
        values *= wide.storage.type(high - low)
        values += wide.storage.type(low)
        if low < high:  # a value that rounding brought to high goes to its neighbour
            np.minimum(values, np.nextafter(wide.storage.type(high), wide.storage.type(low)), out=values)
    return _finish(_in_format(values, wide, form), form, sizes, requires_grad)


def _in_format(values: Array, wide: Format, form: Format) -> Array:
    """Values of the format that they were computed in, rounded to the one asked for."""
    if form is wide:
        return values
    out: Array = form.encode(values) if isinstance(values, np.ndarray) else dispatch.convert(values, wide, form)
    return out


def normal(
    mean: float = 0.0,
    std: float = 1.0,
    shape: Shape = (),
    *,
    dtype: Any = None,
    device: Any = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal values, computed as mean + std z in float32 or float64 and rounded from float32 to 16-bit formats.
    Raises ArgumentError unless both are finite and std is not negative."""
    if not (_finite(mean) and _finite(std) and std >= 0):
        raise ArgumentError(f"normal: mean={mean!r}, std={std!r}: expected finite numbers, std not negative")
    form, sizes = float_format("normal", dtype), _shape("normal", (shape,))
    wide = compute_format(form)
    place = as_device(device)
    values = generator_or_default("normal", generator).normal(math.prod(sizes), wide, place)
    with np.errstate(all="ignore"), current(place):
        values *= wide.storage.type(std)
        values += wide.storage.type(mean)
    return _finish(_in_format(values, wide, form), form, sizes, requires_grad)


@remembered
def randint(
    low: int, high: int, shape: Shape = (), *, dtype: Any = None, device: Any = None, generator: Generator | None = None
) -> Tensor:
    """Whole numbers in [low, high), each exactly equally likely; int64 unless dtype says otherwise. Raises
    ArgumentError where the range is empty or does not fit the format."""
    form = int64 if dtype is None else as_format(dtype)
    sizes = _shape("randint", (shape,))
    source, size = generator_or_default("randint", generator), math.prod(sizes)
    out = _finish(source.integers(low, high, size, form, device), form, sizes, False)
    if not plain_calls.listeners or as_device(device) != CPU or high - low > 2**32:
        plain_calls.varies()
        return out
    draw = source._drawing(spec.random_bits, size, (size,))
    return made(out, lambda: source._among(draw(), low, high - low, form, source.words).reshape(sizes))


def randperm(n: int, *, device: Any = None, generator: Generator | None = None) -> Tensor:
    """The numbers 0 to n - 1 in random order, every order exactly equally likely: int64[n]."""
    (size,) = _shape("randperm", (n,))
    return _finish(generator_or_default("randperm", generator).permutation(size, device), int64, (size,), False)


@remembered
def bernoulli(
    p: Any, shape: Shape | None = None, *, dtype: Any = None, device: Any = None, generator: Generator | None = None
) -> Tensor:
    """1 with probability p, else 0, in the default format unless dtype says otherwise (a Tensor p: in p's format).

    `p` is a number, or a floating Tensor of probabilities whose shape is the result's unless `shape` (to which it then
    broadcasts) is given. Probabilities are taken to the next multiple of 2^-32. Raises ArgumentError for p outside
    [0, 1], for which the host waits for a Tensor p of a GPU. The result lies where a Tensor p does, or on `device`.
    """
    place = p.device if device is None and isinstance(p, Tensor) else as_device(device)
    source = generator_or_default("bernoulli", generator)
    if isinstance(p, Tensor):
        form = p.dtype if dtype is None else as_format(dtype)
        if place == CPU == p.device and form is p.dtype and not form.routed:
            return moved("bernoulli", [p], _hitting(source, p.shape, shape, form), None)
        plain_calls.varies()
        chances = _chances(p, place)
    else:
        try:
            chances = np.asarray(p, dtype=np.float64)
        except (TypeError, ValueError):
            raise ArgumentError(f"bernoulli: p={p!r}: expected a probability, or a Tensor of them") from None
        if chances.ndim:
            chances = moved_to(chances, place)
        form = get_default_dtype() if dtype is None else as_format(dtype)
    sizes = chances.shape if shape is None else _shape("bernoulli", (shape,))
    spread = _spread(chances, sizes)
    if place == CPU:
        out = Tensor(_as_ones(source.bernoulli(spread, math.prod(sizes), place), form).reshape(sizes), form)
        if chances.ndim or form.routed or not plain_calls.listeners:
            plain_calls.varies()
            return out
        draw, chance = source._drawing(spec.random_bits, math.prod(sizes), sizes), float(chances)
        return made(out, lambda: _as_ones(words_below(draw(), chance), form))
    plain_calls.varies()
    hits = source.bernoulli(spread, math.prod(sizes), place)
    return _finish(dispatch.convert(hits, bool_, form), form, sizes, False)


def _hitting(source: Generator, given: tuple[int, ...], shape: Shape | None, form: Format) -> Callable[[Array], Array]:
    """What draws ones and zeros of a format by probabilities of it, on the host."""
    sizes = given if shape is None else _shape("bernoulli", (shape,))
    draw = source._drawing(spec.random_bits, math.prod(sizes), sizes)

    def run(storage: Array) -> Array:
        chances = form.exact(storage)
        _check_chances(chances)
        if chances.shape != sizes:
            chances = _spread(chances, sizes).reshape(sizes)
        return _as_ones(draw() < np.ceil(chances * 2.0**32), form)

    return run


def _check_chances(chances: Array) -> None:
    if chances.size and not (chances.min() >= 0 and chances.max() <= 1):
        raise ArgumentError("bernoulli: expected probabilities from 0 to 1, got one outside or NaN")


def _spread(chances: Array, sizes: tuple[int, ...]) -> Array:
    """A probability, or one for each element of a shape; all of them from 0 to 1."""
    with beside(chances):
        _check_chances(chances)
        try:
            return np.broadcast_to(chances, sizes).reshape(-1) if chances.ndim else chances
        except ValueError:
            raise ShapeError(f"bernoulli: p of shape {chances.shape} does not broadcast to {sizes}") from None


def _as_ones(hits: Array, form: Format) -> Array:
    """Bools of the host as 0 and 1 of a format."""
    numbers = hits.astype(np.float32) if form.kind == "float" else hits
    ones: Array = hits.astype(form.storage) if form.kind == "float" and form.is_native else form.encode(numbers)
    return ones


def _chances(p: Tensor, place: Device) -> Array:
    """The exact values of a tensor of probabilities on a device, in float64."""
    on_gpu = place != CPU and isinstance(p.dtype, Float)
    out: Array = (
        dispatch.convert(moved_to(p.storage, place), p.dtype, float64)
        if on_gpu
        else moved_to(p.dtype.exact(gpu.to_host(p.storage)), place)
    )
    return out


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def _shape(op: str, given: tuple[Any, ...]) -> tuple[int, ...]:
    """A shape from rand(2, 3), rand((2, 3)) or rand(2)."""
    sizes = tuple(given[0]) if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
    try:
        shape = tuple(operator.index(size) for size in sizes)
    except TypeError:
        raise ShapeError(f"{op}: shape {sizes}: expected whole numbers") from None
    if any(size < 0 for size in shape):
        raise ShapeError(f"{op}: shape {shape}: sizes must not be negative")
    if math.prod(size for size in shape if size) >= LARGEST:
        raise ShapeError(f"{op}: no array can hold the elements of shape {shape}")
    return shape


def _drawn(
    name: str, op: Op, words_of: Any, form: Float, given: Any, device: Any, generator: Any, requires_grad: bool
) -> Tensor:
    """A tensor of one draw; as often as the same is asked of the default generator, the same kernel draws it."""
    source, shape, place = generator_or_default(name, generator), _shape(name, given), as_device(device)
    size = math.prod(shape)
    words = words_of(size, form)
    out = _finish(source._draw(op, words, size, place, dtype=form), form, shape, requires_grad)
    if requires_grad or not plain_calls.listeners or place != CPU:
        plain_calls.varies()
        return out
    return made(out, source._drawing(op, words, shape, dtype=form))


def _finish(values: Array, form: Format, shape: tuple[int, ...], requires_grad: bool) -> Tensor:
    out = Tensor(values.reshape(shape), form)
    return out.requires_grad_() if requires_grad else out


__all__ = [
    "Generator", "bernoulli", "default_generator", "get_state", "manual_seed", "normal", "rand", "randint", "randn",
    "randperm", "set_state", "uniform",
]  # fmt: skip
