"""Generators and random tensors: repeatable, never overlapping, exactly unbiased where they say so."""

import itertools
import math
import pickle
import threading

import numpy as np
import pytest
from scipy import stats

from ulpgrad import random
from ulpgrad.errors import ArgumentError, FormatError, GradientError, ShapeError
from ulpgrad.formats import FLOATS, INTEGERS, as_format, bfloat16, float16, float32, float64, int8, uint64
from ulpgrad.random import Generator
from ulpgrad.tensor import Tensor


@pytest.fixture(autouse=True)
def fresh_default():
    state = random.get_state()
    random.manual_seed(0)
    yield
    random.set_state(state)


def test_the_first_words_are_philox_of_zeros():
    assert [f"{w:08x}" for w in Generator(0).words(4)] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    assert Generator(0).words64(2).tolist() == [0xE169C58D6627E8D5, 0x9B00DBD8BC57AC4C]


@pytest.mark.parametrize(
    ("draw", "blocks"),
    [
        (lambda g: g.words(1), 1),
        (lambda g: g.words(4), 1),
        (lambda g: g.words(5), 2),
        (lambda g: g.words(0), 0),
        (lambda g: g.words64(3), 2),
        (lambda g: g.uniform(9), 3),
        (lambda g: g.uniform(9, float64), 5),
        (lambda g: g.normal(5), 2),
        (lambda g: g.normal(5, float64), 3),
        (lambda g: g.permutation(10), 5),
        (lambda g: g.bernoulli(0.5, 4), 1),
        (lambda g: g.integers(0, 2**20, 4), 1),
    ],
)
def test_the_position_advances_by_the_blocks_used(draw, blocks):
    g = Generator(3, position=7)
    draw(g)
    assert g.get_state() == {"seed": 3, "position": 7 + blocks}
    assert np.array_equal(g.words(8), Generator(3, position=7 + blocks).words(8))


def test_state_goes_out_and_back():
    g = Generator(5)
    g.normal(100)
    state = g.get_state()
    first = g.words(10)
    g.set_state(state)
    assert np.array_equal(g.words(10), first)
    assert repr(g) == "Generator(seed=5, position=28)"
    with pytest.raises(ArgumentError, match="get_state"):
        g.set_state({"seed": 1})
    with pytest.raises(ArgumentError, match="position=-1"):
        g.set_state({"seed": 1, "position": -1})
    assert g.seed == 5


def test_the_position_wraps_like_the_counter():
    g = Generator(1, position=2**128 - 1)
    words = g.words(8)
    assert g.position == 1
    assert np.array_equal(words[4:], Generator(1).words(4))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "a", None, True])
def test_bad_seeds(seed):
    with pytest.raises(ArgumentError, match="seed="):
        Generator(seed)
    with pytest.raises(ArgumentError, match="seed="):
        random.manual_seed(seed)


def test_manual_seed_makes_everything_repeat():
    def draw():
        return [
            random.rand(3),
            random.randn(3),
            random.randint(0, 9, (3,)),
            random.randperm(5),
            random.bernoulli(0.5, (9,)),
        ]

    random.manual_seed(12)
    first = draw()
    other = draw()
    random.manual_seed(12)
    assert all(np.array_equal(a.storage, b.storage) for a, b in zip(first, draw(), strict=True))
    assert not np.array_equal(first[0].storage, other[0].storage)


def test_threads_never_share_words():
    g, drawn = Generator(1), []

    def draw():
        for _ in range(50):
            drawn.append(g.reserve(40)[1])

    workers = [threading.Thread(target=draw) for _ in range(8)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert sorted(drawn) == [10 * i for i in range(400)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rand_and_randn_make_tensors_of_the_format(dtype):
    for make in (random.rand, random.randn):
        x = make(2, 3, dtype=dtype)
        assert isinstance(x, Tensor)
        assert x.shape == (2, 3)
        assert x.dtype is dtype
        assert make((2, 3)).shape == make(*[2, 3]).shape == (2, 3)
        assert make().shape == ()
        assert make(0, 4).shape == (0, 4)
        assert make(3).dtype is float32
        assert make(2, dtype=dtype, requires_grad=True).requires_grad


def test_bad_shapes_and_formats():
    for shape in ((2.5,), (-1,), ("a",), (2, -3)):
        with pytest.raises(ShapeError, match="shape"):
            random.rand(*shape)
    with pytest.raises(FormatError, match="floating"):
        random.randn(2, dtype="int32")
    with pytest.raises(FormatError, match="integer"):
        random.randint(0, 2, (2,), dtype="float32")
    with pytest.raises(GradientError):
        random.randint(0, 2, (2,)).requires_grad_()


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (0, 8), (-5, 5), (0, 2**31 + 1), (0, 2**32), (0, 3 * 2**30), (2**63 - 10, 2**63 - 1), (7, 2**40)],
)
def test_whole_numbers_are_words_modulo_the_range(low, high, monkeypatch):
    """With and without the pass of C++, and where words are drawn again."""
    found = [Generator(5).integers(low, high, size) for size in (0, 1, 70_000)]
    monkeypatch.setattr("ulpgrad.generator.among", lambda *_: None)
    for one in found:
        np.testing.assert_array_equal(one, Generator(5).integers(low, high, one.size))
    assert found[2].min() >= low
    assert found[2].max() < high


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_randint_covers_the_whole_range_of_a_format(dtype):
    x = random.randint(dtype.min, dtype.max + 1, (4000,), dtype=dtype)
    assert x.dtype is dtype
    values = x.storage.astype(object)
    assert values.min() < dtype.min + (dtype.max - dtype.min) * 0.01
    assert values.max() > dtype.max - (dtype.max - dtype.min) * 0.01


def test_randint_is_unbiased_where_a_plain_modulus_is_not():
    """Range 3 * 2^30: a plain modulus of 32-bit words gives the first third twice the share of each other. 5 sigma."""
    n = 30_000
    x = random.randint(0, 3 * 2**30, (n,)).storage
    share = np.count_nonzero(x < 2**30)
    assert abs(share - n / 3) < 5 * math.sqrt(n * 2 / 9)
    wide = random.randint(-(2**62), 2**62 + 2**61, (n,)).storage
    share = np.count_nonzero(wide < 0)
    assert abs(share - n * 2 / 5) < 5 * math.sqrt(n * 6 / 25)


def test_randint_shares():
    """Chi-square of 60,000 throws of a die below its 1 - 10^-6 quantile: 3 % off in one face is noticed."""
    x = random.randint(1, 7, (60_000,))
    counts = np.bincount(x.storage, minlength=7)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-6


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(3, 3, None), (5, 2, None), (0, 129, int8), (-1, 5, uint64), (0, 2**63 + 1, None)]
)
def test_bad_ranges(low, high, dtype):
    with pytest.raises(ArgumentError, match="randint"):
        random.randint(low, high, (2,), dtype=dtype)


def test_randint_of_one_value_and_of_none():
    assert random.randint(7, 8, (3,)).tolist() == [7, 7, 7]
    assert random.randint(0, 5, (0,)).shape == (0,)
    assert random.randint(0, 5).shape == ()


def test_randperm_is_a_permutation_and_every_one_is_as_likely():
    """Chi-square over the 24 orders of 4 in 12,000 draws, below the 1 - 10^-6 quantile."""
    for n in (0, 1, 2, 1000):
        assert sorted(random.randperm(n).tolist()) == list(range(n))
    g = Generator(8)
    order = {p: i for i, p in enumerate(itertools.permutations(range(4)))}
    counts = np.bincount([order[tuple(g.permutation(4).tolist())] for _ in range(12_000)], minlength=24)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_bernoulli():
    n = 100_000
    x = random.bernoulli(0.3, (n,))
    assert x.dtype is float32
    assert set(np.unique(x.storage)) == {0, 1}
    assert abs(x.storage.sum() - 0.3 * n) < 5 * math.sqrt(n * 0.21)
    assert random.bernoulli(0.0, (1000,)).storage.sum() == 0
    assert random.bernoulli(1.0, (1000,)).storage.sum() == 1000
    assert random.bernoulli(0.5, (3,), dtype=as_format("bool")).dtype.name == "bool"
    chances = Tensor(bfloat16.encode(np.array([0.0, 1.0], np.float32)), bfloat16)
    y = random.bernoulli(chances)
    assert y.dtype is bfloat16
    assert y.tolist() == [0, 1]
    assert random.bernoulli(chances, (5, 2)).tolist() == [[0, 1]] * 5
    for bad in (1.5, -0.1, math.nan):
        with pytest.raises(ArgumentError, match="from 0 to 1"):
            random.bernoulli(bad, (2,))
    with pytest.raises(ShapeError, match="broadcast"):
        random.bernoulli(chances, (3,))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_uniform_and_normal(dtype):
    n = 20_000
    u = dtype.exact(random.uniform(-2, 6, (n,), dtype=dtype).storage)
    assert u.min() >= -2
    assert u.max() <= 6
    assert abs(u.mean() - 2) < 5 * 8 / math.sqrt(12 * n)
    z = dtype.exact(random.normal(10, 0.5, (n,), dtype=dtype).storage)
    assert abs(z.mean() - 10) < 5 * 0.5 / math.sqrt(n)
    assert random.uniform(3, 3, (2,), dtype=dtype).tolist() == [3, 3]
    assert random.normal(3, 0, (2,), dtype=dtype).tolist() == [3, 3]


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_uniform_never_reaches_high_by_rounding(dtype, monkeypatch):
    nearly = dtype.storage.type(1) - dtype.storage.type(dtype.eps / 2)
    monkeypatch.setattr(
        Generator, "uniform", lambda self, size, form, device=None: np.full(size, nearly, dtype.storage)
    )
    assert (random.uniform(1e6, 1e6 + 1, (3,), dtype=dtype).storage < 1e6 + 1).all()


@pytest.mark.parametrize("bounds", [(1, 0), (math.nan, 1), (0, math.inf)])
def test_bad_bounds(bounds):
    with pytest.raises(ArgumentError, match="uniform"):
        random.uniform(*bounds, (2,))
    with pytest.raises(ArgumentError, match="normal"):
        random.normal(0, -1, (2,))


def test_a_generator_of_ones_own_leaves_the_default_alone():
    before = random.get_state()
    x = random.rand(5, generator=Generator(4))
    assert random.get_state() == before
    assert np.array_equal(x.storage, Generator(4).uniform(5))
    assert np.array_equal(random.rand(4, dtype=float16).storage, Generator(0).uniform(4, float16))


def test_state_is_plain_data():
    assert pickle.loads(pickle.dumps(random.get_state())) == {"seed": 0, "position": 0}
