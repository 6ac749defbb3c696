"""Random tensors from Philox4x32-10: a generator is a seed and a position, and draws are a function of the two.

The seed is Philox's key, the position its 128-bit block counter; every draw takes the next whole blocks of four 32-bit
words. The same seed and the same calls give the same bits on every machine, instruction set and number of threads
(normal values: as exactly as `random_normal` states). Source: Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
import operator
from _thread import allocate_lock  # the whole of `threading` takes as long to import as ten modules of ours
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import CPU, Device, as_device, beside, current, moved_to
from ulpgrad.differentiable import made, moved, plain_calls
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import (
    Array,
    Float,
    Format,
    Integer,
    as_format,
    bool_,
    compute_format,
    float64,
    get_default_dtype,
    int64,
)
from ulpgrad.kernels import capture, gpu
from ulpgrad.kernels.random import philox, spec
from ulpgrad.kernels.random.among import among
from ulpgrad.kernels.spec import Op
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

BLOCK = 4  # words
LAST = 2**128 - 1  # the highest position
LARGEST = 2**60  # elements: NumPy counts bytes in 63 bits
Shape = int | Sequence[int]


class State(TypedDict):
    """A generator's whole state: plain integers, fit for a checkpoint."""

    seed: int
    position: int


def _whole(op: str, name: str, value: Any, bits: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or not 0 <= number < 2**bits:
        raise ArgumentError(f"{op}: {name}={value!r}: expected a whole number from 0 to 2^{bits} - 1")
    return number


class Generator:
    """A stream of random words. Its methods return storage arrays, on the CPU unless `device` says otherwise, with the same bits
    everywhere; the functions of this module return Tensors.

    `seed` is a whole number below 2^64, `position` (below 2^128) the block the next draw starts at: generators with
    different seeds, or whose positions stay apart, share no words. Draws from several threads do not overlap either.
    Raises ArgumentError for a seed or position out of range.
    """

    def __init__(self, seed: int = 0, position: int = 0) -> None:
        self._lock = allocate_lock()
        self._seed = _whole("Generator", "seed", seed, 64)
        self._position = _whole("Generator", "position", position, 128)

    @property
    def seed(self) -> int:
        return self._seed

    @property
    def position(self) -> int:
        """The block that the next draw starts at."""
        return self._position

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, position={self.position})"

    def manual_seed(self, seed: int) -> Generator:
        """Start again at block 0 of another seed's stream; returns self."""
        self._seed, self._position = _whole("manual_seed", "seed", seed, 64), 0
        return self

    def get_state(self) -> State:
        return {"seed": self.seed, "position": self.position}

    def set_state(self, state: State) -> None:
        """Go back to what `get_state` gave. Raises ArgumentError for anything else."""
        if not isinstance(state, dict) or state.keys() != {"seed", "position"}:
            raise ArgumentError(f"set_state: expected a dict of seed and position, as from get_state(); got {state!r}")
        seed = _whole("set_state", "seed", state["seed"], 64)
        self._position = _whole("set_state", "position", state["position"], 128)
        self._seed = seed

    def reserve(self, words: int) -> tuple[int, int]:
        """Take the next `words` words out of the stream, in whole blocks; returns (key, counter) for an op that draws
        them itself, as dropout does."""
        key, counter = self._next(words)
        captured = capture.current()
        if captured is not None:  # each replay takes the next words, and writes to the GPU where they are
            captured.draw((key, counter), lambda: self._next(words), self.set_state)
        elif gpu.state.rehearsed is not None:
            gpu.state.rehearsed.add((key, counter))
        return key, counter

    def _next(self, words: int) -> tuple[int, int]:
        with self._lock:
            counter = self._position
            self._position = (counter + -(-words // BLOCK)) & LAST
            return self._seed, counter

    def _draw(self, op: Op, words: int, size: int, device: Any = None, **params: Any) -> Array:
        key, counter = self.reserve(words)
        params = {"key": key, "counter": counter, "size": size, **params}
        out: Array = dispatch.call(op, (), (), params, str(as_device(device)))[0]
        return out

    def _drawing(self, op: Op, words: int, shape: tuple[int, ...], **params: Any) -> Callable[[], Array]:
        """A function that draws arrays of a shape, on the CPU, by the kernel that `_draw` comes down to now."""
        given = {"size": math.prod(shape), **params}
        run = dispatch.plan(op, (), (), {"key": 0, "counter": 0, **given}, "cpu").run

        def draw() -> Array:
            key, counter = self.reserve(words)
            out: Array = run(key=key, counter=counter, **given)
            return out.reshape(shape)

        return draw

    def words(self, size: int, device: Any = None) -> Array:
        """uint32[size], every value equally likely."""
        return self._draw(spec.random_bits, size, size, device)

    def words64(self, size: int, device: Any = None) -> Array:
        """uint64[size]: word 2i is the low half of value i."""
        words = self.words(2 * size, device)
        with beside(words):
            wide = words.astype(np.uint64)
            return wide[0::2] | (wide[1::2] << np.uint64(32))

    def uniform(self, size: int, dtype: Any = None, device: Any = None) -> Array:
        """Storage [size] of values in [0, 1), as `random_uniform` makes them."""
        form = _float("uniform", dtype)
        return self._draw(spec.random_uniform, _uniform_words(size, form), size, device, dtype=form)

    def normal(self, size: int, dtype: Any = None, device: Any = None) -> Array:
        """Storage [size] of standard normal values, as `random_normal` makes them."""
        form = _float("normal", dtype)
        return self._draw(spec.random_normal, _normal_words(size, form), size, device, dtype=form)

    def integers(self, low: int, high: int, size: int, dtype: Any = None, device: Any = None) -> Array:
        """Whole numbers in [low, high), each exactly equally likely: int64[size], or another integer format.

        A word at or above the largest multiple of high - low is drawn again; the rest is taken modulo high - low. How many
        are drawn again moves the position, so that the host waits for a GPU, but where high - low is a power of two.
        Ranges above 2^32 take two words a value. Raises ArgumentError where the range is empty or does not fit.
        """
        form = int64 if dtype is None else as_format(dtype)
        if not isinstance(form, Integer):
            raise FormatError(f"randint: dtype={form}: expected an integer format")
        try:
            low, high = operator.index(low), operator.index(high)
        except TypeError:
            raise ArgumentError(f"randint: low={low!r}, high={high!r}: expected whole numbers") from None
        if not low < high:
            raise ArgumentError(f"randint: low={low}, high={high}: the range [low, high) is empty")
        if low < form.min or high - 1 > form.max:
            raise ArgumentError(f"randint: [{low}, {high}) does not fit {form}, which holds {form.min} to {form.max}")
        words = self.words if high - low <= 2**32 else self.words64
        return self._among(words(size, device), low, high - low, form, lambda n: words(n, device))

    def _among(self, values: Array, low: int, span: int, form: Format, draw: Callable[[int], Array]) -> Array:
        """Words as numbers from low on; those that would favour some number are drawn again."""
        found = among(values, low, span)
        if found is not None:
            return found if form is int64 else found.astype(form.storage)
        top = 2 ** (8 * values.itemsize)
        with beside(values):
            if top % span:
                limit = values.dtype.type(top - top % span)
                while (rejected := np.flatnonzero(values >= limit)).size:
                    values[rejected] = draw(rejected.size)
            if span < top:
                values %= values.dtype.type(span)
            shifted = values.astype(np.uint64, copy=False)
            shifted += np.uint64(low % 2**64)  # wraps to the two's complement of what is negative
            return shifted.view(np.int64) if form is int64 else shifted.astype(form.storage)

    def permutation(self, n: int, device: Any = None) -> Array:
        """The numbers 0 to n - 1 in random order, every order exactly equally likely: int64[n]."""
        return self._draw(spec.random_permutation, 2 * n, n, device)

    def bernoulli(self, p: Any, size: int, device: Any = None) -> Array:
        """bool[size], True with probability p: a number, or float64[size] on the device; p is taken to the next multiple of
        2^-32."""
        return _hits(self.words(size, device), p)


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator, which everything random draws from unless given another; returns it."""
    return default_generator.manual_seed(seed)


def get_state() -> State:
    """The state of the default generator."""
    return default_generator.get_state()


def set_state(state: State) -> None:
    """Set the default generator to a state from `get_state`."""
    default_generator.set_state(state)


@remembered
def rand(
    *shape: Any, dtype: Any = None, device: Any = None, generator: Generator | None = None, requires_grad: bool = False
) -> Tensor:
    """Uniform in [0, 1): `rand(2, 3)` or `rand((2, 3))`. float32 values are multiples of 2^-24, float64 ones of 2^-53,
    16-bit ones of half their eps; 1.0 is never reached. Raises FormatError where dtype is no float, ShapeError for a
    bad shape."""
    form = _float("rand", dtype)
    return _drawn("rand", spec.random_uniform, _uniform_words, form, shape, device, generator, requires_grad)


@remembered
def randn(
    *shape: Any, dtype: Any = None, device: Any = None, generator: Generator | None = None, requires_grad: bool = False
) -> Tensor:
    """Standard normal values (Box-Muller): `randn(2, 3)` or `randn((2, 3))`. Raises as `rand` does."""
    form = _float("randn", dtype)
    return _drawn("randn", spec.random_normal, _normal_words, form, shape, device, generator, requires_grad)


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
    form, sizes = _float("uniform", dtype), _shape("uniform", (shape,))
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
    form, sizes = _float("normal", dtype), _shape("normal", (shape,))
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
        return made(out, lambda: _as_ones(_hits(draw(), chance), form))
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


def _hits(words: Array, p: Any) -> Array:
    """Which words are below p of 2^32: p is a number, or has one for each word."""
    if isinstance(words, np.ndarray) and not getattr(p, "ndim", 0):
        below: Array = words < math.ceil(float(p) * 2.0**32)
        return below
    with beside(words):
        limits = np.ceil((p if gpu.is_array(p) else np.asarray(p, dtype=np.float64)) * 2.0**32)
        out: Array = words < limits
        return out


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


def generator_or_default(op: str, generator: Generator | None) -> Generator:
    """What an op draws from. ArgumentError for anything but a Generator or None."""
    if generator is None:
        return default_generator
    if not isinstance(generator, Generator):
        raise ArgumentError(f"{op}: generator={generator!r}: expected an ulpgrad.random.Generator, or None")
    return generator


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def _float(op: str, dtype: Any) -> Float:
    form: Format = get_default_dtype() if dtype is None else as_format(dtype)
    if not isinstance(form, Float):
        raise FormatError(f"{op}: dtype={form}: expected a floating format")
    return form


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


def _uniform_words(size: int, form: Float) -> int:
    return philox.words_per_value(form) * size


def _normal_words(size: int, form: Float) -> int:
    return philox.words_per_value(form) * (size + size % 2)


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
