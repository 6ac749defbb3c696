"""Philox: the authors' known answers, the same bits from every rung and any number of threads, and good statistics.

Statistical tests use fixed keys, so they pass or fail for good; each says how small a fault it would notice.
"""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import FLOATS, bfloat16, float16, float32, float64
from ulpgrad.kernels import capabilities, native, registry
from ulpgrad.kernels.random import philox, spec

# Random123's kat_vectors, lines "philox4x32 10": counter, key, result, lowest word first.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def number(words: str) -> int:
    """Words, lowest first, as one integer."""
    return sum(int(w, 16) << (32 * i) for i, w in enumerate(words.split()))


def runner(op, rung_name="cpu/reference", formats=()):
    """A rung as a function of stored arrays."""
    rung = next(r for r in registry.ladder(op) if r.name == rung_name)
    request = registry.Request(op, "cpu", formats, (), {})
    return rung.run(request) if rung.build else rung.run


def rung_names(op):
    return [r.name for r in registry.ladder(op) if r.unavailable() is None]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
@pytest.mark.parametrize("name", rung_names(spec.random_bits))
def test_known_answers(name, counter, key, expected):
    got = runner(spec.random_bits, name)(key=number(key), counter=number(counter), size=4)
    assert [f"{w:08x}" for w in got] == expected.split()


@pytest.mark.parametrize("name", rung_names(spec.random_bits))
def test_streams_can_be_entered_anywhere(name):
    run = runner(spec.random_bits, name)
    whole = run(key=7, counter=2**64 - 50, size=1000)
    for block in (0, 1, 17, 49, 50, 51, 249):
        part = run(key=7, counter=2**64 - 50 + block, size=1000 - 4 * block)
        assert np.array_equal(part, whole[4 * block :])


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 63, 64, 65, 127, 4096, 70_001])
@pytest.mark.parametrize(
    "op", [spec.random_bits, spec.random_uniform, spec.random_normal, spec.random_permutation], ids=lambda op: op.name
)
def test_rungs_agree_for_every_size(op, size):
    for dtype in FLOATS if op in (spec.random_uniform, spec.random_normal) else (None,):
        params = {"key": 0x0123456789ABCDEF, "counter": 2**128 - 3, "size": size}
        params |= {} if dtype is None else {"dtype": dtype}
        expected = op.run_reference((), (), params)
        form = op.result_formats((), params)[0]
        for name in rung_names(op):
            got = runner(op, name)(**params)
            assert got.shape == (size,)
            assert got.dtype == form.storage
            if op is spec.random_normal:
                exact = form.exact(expected)
                assert (np.abs(form.exact(got) - exact) <= op.allowed_ulps(form) * form.spacing(exact)).all()
            else:
                assert np.array_equal(got, expected)


@pytest.mark.skipif(native.missing() is not None, reason="needs the C++ extension")
def test_every_instruction_set_gives_the_same_bits():
    module = native.module()
    x = np.linspace(-3, 3, 10_001)
    calls = {
        "bits": lambda isa: module.random_bits(5, 2**64 - 9, 1, 10_001, isa=isa),
        "uniform": lambda isa: module.random_uniform(5, 2**64 - 9, 1, 10_001, 24, isa=isa),
        "uniform53": lambda isa: module.random_uniform(5, 2**64 - 9, 1, 10_001, 53, isa=isa),
        "normal": lambda isa: module.random_normal(5, 2**64 - 9, 1, 10_001, False, isa=isa),
        "normal53": lambda isa: module.random_normal(5, 2**64 - 9, 1, 10_001, True, isa=isa),
        "permutation": lambda isa: module.random_permutation(5, 2**64 - 9, 1, 10_001, isa=isa),
        "dropout": lambda isa: module.dropout(x, 5, 2**64 - 9, 1, 2**31, 2.0, isa=isa),
    }
    for name, call in calls.items():
        first, *others = [call(isa) for isa in module.cpu_isas()]
        for other in others:
            assert first.tobytes() == other.tobytes(), name


@pytest.mark.skipif(native.missing() is not None, reason="needs the C++ extension")
@pytest.mark.skipif(capabilities.missing("numba") is not None, reason="needs Numba")
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_numba_and_native_normals_have_the_same_bits(dtype):
    params = {"key": 11, "counter": 3, "size": 200_001, "dtype": dtype}
    a = runner(spec.random_normal, "cpu/numba-blocks")(**params)
    b = runner(spec.random_normal, "cpu/native-lanes")(**params)
    assert a.tobytes() == b.tobytes()


DIGESTS = """
import hashlib, numpy as np
import ulpgrad as ug
from ulpgrad.kernels import registry
from ulpgrad.formats import float32, float64
for threads in (1, 2, 3):
    ug.set_num_threads(threads)
    digest = hashlib.sha256()
    for name in ("random_bits", "random_uniform", "random_normal", "random_permutation", "dropout"):
        for rung in registry.ladder(registry.find(name)):
            if rung.name.startswith("cpu/n") and rung.unavailable() is None:
                for dtype in (float32, float64):
                    extra = {"dtype": dtype} if name in ("random_uniform", "random_normal") else {}
                    given = () if name != "dropout" else (np.linspace(-1, 1, 300_003).astype(dtype.storage),)
                    params = {"size": 300_003, **extra} if name != "dropout" else {"p": 0.25}
                    digest.update(rung.run(*given, key=9, counter=2**64 - 20_000, **params).tobytes())
    print(digest.hexdigest())
"""


def test_any_number_of_threads_gives_the_same_bits():
    """In a process of its own, because Numba settles at its start how many it may use."""
    done = subprocess.run([sys.executable, "-c", DIGESTS], env={**os.environ, "NUMBA_NUM_THREADS": "4"},
                          capture_output=True, text=True, check=True)  # fmt: skip
    digests = done.stdout.split()
    assert len(digests) == 3
    assert len(set(digests)) == 1


def counter_of(words, key):
    """The counter whose block is these four words: Philox is a bijection, undone round by round."""
    c0, c1, c2, c3 = words
    m0, m1 = philox.MULTIPLIERS
    for step in reversed(range(philox.ROUNDS)):
        k0, k1 = ((key >> 32 * i) + step * philox.WEYL[i] & philox.LOW32 for i in (0, 1))
        a2, a0 = c1 * pow(m1, -1, 2**32) % 2**32, c3 * pow(m0, -1, 2**32) % 2**32
        c0, c1, c2, c3 = a0, c0 ^ (m1 * a2 >> 32) ^ k0, a2, c2 ^ (m0 * a0 >> 32) ^ k1
    return number(f"{c0:x} {c1:x} {c2:x} {c3:x}")


def test_philox_is_undone():
    for counter, key, result in KNOWN:
        assert counter_of([int(w, 16) for w in result.split()], number(key)) == number(counter)


@pytest.mark.parametrize("name", rung_names(spec.random_permutation))
@pytest.mark.parametrize(("i", "words"), [(2, (0, 0, 7, 7)), (5, (7, 7, 0, 0)), (6, (0, 0, 1, 2))])
def test_permutation_draws_again_what_would_favour_a_place(name, i, words):
    """x = 0 is one value too many for place 0 unless i + 1 divides 2^64: it happens once in 2^64, here on purpose."""
    key = 0x0123456789ABCDEF
    start = (counter_of(words, key) - i // 2) % 2**128
    again = bits(4, key, (start + i // 2 + philox.RETRY) % 2**128).reshape(2, 2)[i % 2].tolist()
    place = ((again[0] | again[1] << 32) * (i + 1)) >> 64
    shorter, whole = (runner(spec.random_permutation, name)(key=key, counter=start, size=n) for n in (i, i + 1))
    assert whole[place] == i
    assert whole[i] == (shorter[place] if place < i else i)


# What comes out looks as it should


def bits(size, key=1, counter=0):
    return spec.random_bits.run_reference((), (), {"key": key, "counter": counter, "size": size})


def test_bits_are_balanced_and_uncorrelated():
    """A million words: each of the 32 bits, and each pair of a bit with the same bit of the next words, 1 or 4 on.

    A single z score above 5 has probability 6e-7; a bias of 0.25 % (5 sigma / sqrt(10^6) / 2) in any bit is noticed.
    """
    n = 1_000_000
    words = bits(n)
    for lag in (0, 1, 4):
        mixed = words if lag == 0 else words[lag:] ^ words[:-lag]
        ones = np.array([((mixed >> np.uint32(b)) & np.uint32(1)).sum() for b in range(32)])
        z = (ones - mixed.size / 2) / math.sqrt(mixed.size / 4)
        assert np.abs(z).max() < 5


def test_neighbouring_keys_and_counters_are_unrelated():
    """One flipped key or counter bit changes half of the output bits: 2^18 words, noticed beyond 0.1 % (5 sigma)."""
    n = 2**18
    base = bits(n, key=1 << 40)
    for other in (bits(n, key=(1 << 40) + 1), bits(n, key=1 << 41), bits(n, key=1 << 40, counter=1 << 100)):
        changed = int(np.bitwise_count(base ^ other).sum())
        assert abs(changed - 16 * n) < 5 * math.sqrt(8 * n)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_uniform_fills_its_grid_evenly(dtype):
    """Every value is a multiple of 2^-b in [0, 1); 256 equal cells (2^b, if there are fewer) hold what they should.

    Chi-square below its 1 - 10^-6 quantile; of 256 cells one 5 % off in 500,000 values is noticed.
    """
    n = 500_000
    stored = spec.random_uniform.run_reference((), (), {"key": 2, "counter": 0, "size": n, "dtype": dtype})
    u = dtype.exact(stored)
    grid = u * 2.0 ** philox.uniform_bits(dtype)
    assert (grid == np.floor(grid)).all()
    assert u.min() >= 0
    assert u.max() < 1
    cells = min(256, 2 ** philox.uniform_bits(dtype))
    counts = np.bincount((u * cells).astype(int), minlength=cells)
    assert ((counts - n / cells) ** 2 / (n / cells)).sum() < stats.chi2.ppf(1 - 1e-6, cells - 1)


@pytest.mark.parametrize(("dtype", "largest"), [(float16, 1 - 2**-11), (bfloat16, 1 - 2**-8)], ids=str)
def test_small_formats_reach_their_whole_grid_but_not_one(dtype, largest):
    stored = spec.random_uniform.run_reference((), (), {"key": 3, "counter": 0, "size": 100_000, "dtype": dtype})
    values = np.unique(dtype.exact(stored))
    assert values.size == 2 ** philox.uniform_bits(dtype)
    assert values.max() == largest


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_normal_is_normal(dtype):
    """A Kolmogorov-Smirnov distance below the 1 - 10^-6 quantile for 400,000 values: 0.0043 in probability is noticed.

    Neighbours (the cosine and the sine of one angle) and their squares are uncorrelated, to 0.8 % (5 sigma).
    """
    n = 400_000
    z = spec.random_normal.run_reference((), (), {"key": 4, "counter": 0, "size": n, "dtype": dtype}).astype(np.float64)
    assert np.abs(np.arange(1, n + 1) / n - stats.norm.cdf(np.sort(z))).max() < math.sqrt(math.log(2e6) / 2 / n) + 1 / n
    assert abs(stats.kurtosis(z)) < 5 * math.sqrt(24 / n)
    for power in (1, 2):
        a, b = z[0::2] ** power, z[1::2] ** power
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(n / 2)


def test_normal_at_the_ends_of_its_uniforms(monkeypatch):
    """The smallest u gives the farthest value, u = 1 gives 0; the four axes are met exactly."""
    drawn = np.array([0, 0, 0, 2**30, 0, 2**31, 0, 3 * 2**30, 2**32 - 1, 5], dtype=np.uint32)
    monkeypatch.setattr(philox, "words", lambda key, counter, size: drawn[:size])
    z = philox.normal(key=0, counter=0, size=10, dtype=float32)
    far = math.sqrt(64 * math.log(2))
    assert z[:8] == pytest.approx([far, 0, 0, far, -far, 0, 0, -far], abs=0)
    assert (z[8:] == 0).all()


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", rung_names(spec.dropout))
def test_dropout_keeps_the_right_share(name, p):
    """5 sigma of a binomial over 200,000 elements: 0.56 % off is noticed at p = 0.5."""
    n = 200_000
    x = np.ones(n, np.float32)
    y = runner(spec.dropout, name, (float32,))(x, p=p, key=5, counter=0)
    kept = np.count_nonzero(y)
    assert abs(kept - n * (1 - p)) <= 5 * math.sqrt(n * p * (1 - p))
    assert set(np.unique(y)) <= {np.float32(0), np.float32(spec.scale(p))}
    assert np.array_equal(x, np.ones(n, np.float32))


@pytest.mark.parametrize("name", rung_names(spec.dropout))
def test_dropout_draws_word_i_for_element_i(name):
    x = np.arange(1, 71, dtype=np.float64).reshape(7, 10)
    y = runner(spec.dropout, name, (float64,))(x, p=0.5, key=6, counter=9)
    words = bits(70, key=6, counter=9).reshape(7, 10)
    assert np.array_equal(y, np.where(words >= 2**31, 2 * x, 0))


@pytest.mark.parametrize(
    ("op", "arrays", "params", "error", "text"),
    [
        (spec.random_bits, (), {"key": -1, "counter": 0, "size": 1}, ArgumentError, "key=-1"),
        (spec.random_bits, (), {"key": 2**64, "counter": 0, "size": 1}, ArgumentError, "key"),
        (spec.random_bits, (), {"key": 0, "counter": 2**128, "size": 1}, ArgumentError, "counter"),
        (spec.random_bits, (), {"key": 0.5, "counter": 0, "size": 1}, ArgumentError, "key=0.5"),
        (spec.random_bits, (), {"key": 0, "counter": 0, "size": -1}, ArgumentError, "size=-1"),
        (spec.random_uniform, (), {"key": 0, "counter": 0, "size": 1, "dtype": "int8"}, FormatError, "float32"),
        (spec.random_normal, (), {"key": 0, "counter": 0, "size": 1.0, "dtype": float32}, ArgumentError, "size=1.0"),
        (spec.dropout, (np.ones(2),), {"p": 1.5, "key": 0, "counter": 0}, ArgumentError, "p=1.5"),
        (spec.dropout, (np.ones(2),), {"p": math.nan, "key": 0, "counter": 0}, ArgumentError, "p=nan"),
    ],
)
def test_bad_arguments(op, arrays, params, error, text):
    with pytest.raises(error, match=text):
        op.check(*arrays, **params)


@pytest.mark.skipif(native.missing() is not None, reason="needs the C++ extension")
def test_the_extension_refuses_what_it_cannot_run():
    module = native.module()
    with pytest.raises(ValueError, match="size"):
        module.random_bits(0, 0, 0, -1)
    with pytest.raises(ValueError, match="bits"):
        module.random_uniform(0, 0, 0, 4, 30)
    with pytest.raises(TypeError, match="x"):
        module.dropout(np.ones(3, np.int32), 0, 0, 0, 1, 1.0)
    with pytest.raises(ValueError, match="contiguous"):
        module.dropout(np.ones(6, np.float32)[::2], 0, 0, 0, 1, 1.0)
    with pytest.raises(ValueError, match="limit"):
        module.dropout(np.ones(3, np.float32), 0, 0, 0, 2**33, 1.0)
