"""Streams of random words from Philox4x32-10: a generator is a seed and a position, and draws are a function of the two.

The seed is Philox's key, the position its 128-bit block counter; every draw takes the next whole blocks of four 32-bit
words. The same seed and the same calls give the same bits on every machine, instruction set and number of threads
(normal values: as exactly as `random_normal` states). Source: Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
import operator
from _thread import allocate_lock  # the whole of `threading` takes as long to import as ten modules of ours
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import as_device, beside
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import Array, Float, Format, Integer, as_format, get_default_dtype, int64
from ulpgrad.kernels import capture, gpu
from ulpgrad.kernels.random import philox, spec
from ulpgrad.kernels.random.among import among
from ulpgrad.kernels.spec import Op

BLOCK = 4  # words
LAST = 2**128 - 1  # the highest position


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
        form = float_format("uniform", dtype)
        return self._draw(spec.random_uniform, uniform_words(size, form), size, device, dtype=form)

    def normal(self, size: int, dtype: Any = None, device: Any = None) -> Array:
        """Storage [size] of standard normal values, as `random_normal` makes them."""
        form = float_format("normal", dtype)
        return self._draw(spec.random_normal, normal_words(size, form), size, device, dtype=form)

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
        return words_below(self.words(size, device), p)


def float_format(op: str, dtype: Any) -> Float:
    """The float format asked for, or the default one. Raises FormatError for any other."""
    form: Format = get_default_dtype() if dtype is None else as_format(dtype)
    if not isinstance(form, Float):
        raise FormatError(f"{op}: dtype={form}: expected a floating format")
    return form


def uniform_words(size: int, form: Float) -> int:
    """How many words this many uniform values take."""
    return philox.words_per_value(form) * size


def normal_words(size: int, form: Float) -> int:
    """How many words this many normal values take, which come in pairs."""
    return philox.words_per_value(form) * (size + size % 2)


def words_below(words: Array, p: Any) -> Array:
    """Which words are below p of 2^32: p is a number, or has one for each word."""
    if isinstance(words, np.ndarray) and not getattr(p, "ndim", 0):
        below: Array = words < math.ceil(float(p) * 2.0**32)
        return below
    with beside(words):
        limits = np.ceil((p if gpu.is_array(p) else np.asarray(p, dtype=np.float64)) * 2.0**32)
        out: Array = words < limits
        return out


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


def generator_or_default(op: str, generator: Generator | None) -> Generator:
    """What an op draws from. ArgumentError for anything but a Generator or None."""
    if generator is None:
        return default_generator
    if not isinstance(generator, Generator):
        raise ArgumentError(f"{op}: generator={generator!r}: expected an ulpgrad.random.Generator, or None")
    return generator
