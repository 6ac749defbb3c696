"""Random numbers drawn on a GPU: the CPU's bits also where something is drawn again, and nothing through the host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ArgumentError
from ulpgrad.kernels import capabilities, gpu, registry
from ulpgrad.kernels.random import philox, spec
from ulpgrad.kernels.registry import Request

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_random_kernels import bits, counter_of

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

SHUFFLE = next(r for r in registry.ladder(spec.random_permutation, "cuda") if r.name == "cuda/triton-sorted")


@pytest.mark.parametrize("size", [2, 3, 255, 256, 257, 1300])
@pytest.mark.parametrize("key", [0, 2**63 + 12345])
def test_permutations(size: int, key: int) -> None:
    stream = {"key": key, "counter": 2**128 - 7}
    expected = philox.permutation(**stream, size=size)
    assert np.array_equal(gpu.to_host(SHUFFLE.run(**stream, size=size)), expected)


@pytest.mark.parametrize(("i", "words"), [(2, (0, 0, 7, 7)), (5, (7, 7, 0, 0)), (6, (0, 0, 1, 2))])
@pytest.mark.parametrize("in_memory", [False, True])
def test_permutation_draws_again(i: int, words: Any, in_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """x = 0 is one value too many for place 0 unless i + 1 divides 2^64: once in 2^64, here on purpose. Kernels read key and
    counter from memory where a graph is going to be captured."""
    key = 0x0123456789ABCDEF
    start = (counter_of(words, key) - i // 2) % 2**128
    if in_memory:
        monkeypatch.setattr(gpu.state, "rehearsed", {(key, start)})
    again = bits(4, key, (start + i // 2 + philox.RETRY) % 2**128).reshape(2, 2)[i % 2].tolist()
    place = ((again[0] | again[1] << 32) * (i + 1)) >> 64
    found = gpu.to_host(SHUFFLE.run(key=key, counter=start, size=i + 1))
    assert found[place] == i
    assert np.array_equal(found, philox.permutation(key=key, counter=start, size=i + 1))


def test_numbers_that_make_no_key_are_refused() -> None:
    def refusal(size: int) -> str | None:
        return SHUFFLE.refusal(Request(spec.random_permutation, "cuda", (), (), {"size": size}))

    assert refusal(2**31 - 1) is None
    assert "2147483648" in str(refusal(2**31))
    key = spec.random_permutation.key
    assert key is not None
    assert key(size=2**31) != key(size=5), "what was chosen for few is not kept for many"


DRAWN = {
    "half of all drawn again": lambda d, g: ug.randint(0, 2**31 + 1, (300,), device=d, generator=g),
    "two words each": lambda d, g: ug.randint(-(2**62), 2**62 + 1, (200,), device=d, generator=g),
    "a power of two": lambda d, g: ug.randint(-8, 8, (7, 3), dtype=ug.int8, device=d, generator=g),
    "all of a format": lambda d, g: ug.randint(0, 2**64, (9,), dtype=ug.uint64, device=d, generator=g),
    "none": lambda d, g: ug.randint(0, 5, (0,), device=d, generator=g),
    "hits": lambda d, g: ug.bernoulli(0.3, (300,), device=d, generator=g),
    "hits for sure": lambda d, g: ug.bernoulli(1.0, (9,), device=d, generator=g),
    "hits as bool": lambda d, g: ug.bernoulli(0.5, (9,), dtype=ug.bool, device=d, generator=g),
    "hits by a list": lambda d, g: ug.bernoulli([0.0, 0.4, 1.0], (100, 3), device=d, generator=g),
}


@pytest.mark.parametrize("name", DRAWN)
def test_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's bits, and a generator that goes on where the CPU's does."""
    monkeypatch.setenv("ULPGRAD_HOST_FALLBACK", "0")
    ours, theirs = ug.Generator(3), ug.Generator(3)
    expected, made = DRAWN[name]("cpu", theirs), DRAWN[name]("cuda:0", ours)
    assert str(made.device) == "cuda:0"
    assert made.dtype is expected.dtype
    assert np.array_equal(made.numpy(), expected.numpy())
    assert ours.position == theirs.position


@pytest.mark.parametrize("form", [ug.float32, ug.bfloat16, ug.float64], ids=str)
def test_chances_of_a_tensor(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities on a GPU stay there: only whether they are any comes to the host."""
    p = ug.rand(5, 40, dtype=form, generator=ug.Generator(1))
    expected = ug.bernoulli(p, generator=ug.Generator(2))
    on_gpu = p.to("cuda")
    monkeypatch.setenv("ULPGRAD_HOST_FALLBACK", "0")
    monkeypatch.setattr(type(on_gpu.storage), "get", None)
    found = ug.bernoulli(on_gpu, generator=ug.Generator(2))
    monkeypatch.undo()
    assert np.array_equal(found.numpy(), expected.numpy())
    with pytest.raises(ArgumentError, match="probabilities"):
        ug.bernoulli(on_gpu + 1)
