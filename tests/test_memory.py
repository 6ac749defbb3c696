"""The cache of memory for results: what it keeps, how much of it, and that arrays in it are arrays like any other."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import memory
from ulpgrad.errors import ArgumentError
from ulpgrad.kernels import native

pytestmark = pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")

MIB = 1 << 20


@pytest.fixture(autouse=True)
def own_limit() -> Iterator[None]:
    """An empty cache of 64 MiB; as it was afterwards."""
    before = memory.stats()["limit"]
    gc.collect()
    memory.empty_cache()
    memory.set_limit(64 * MIB)
    if not is_on():
        pytest.skip("the extension takes each array from the system: it was built with a sanitizer")
    yield
    memory.set_limit(before)


def is_on() -> bool:
    before = memory.stats()["allocated"] + memory.stats()["reused"]
    memory.empty((4096,), "float64")
    return memory.stats()["allocated"] + memory.stats()["reused"] > before


def python(code: str, **variables: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


def test_a_block_that_was_let_go_is_taken_again() -> None:
    a = memory.empty((1000, 100), "float32")
    where = address(a)
    del a
    assert address(memory.empty((100_000,), "int32")) == where


@pytest.mark.parametrize("elements", [129, 200, 1024, 1025, 5000, 262_143, 262_144, 262_145, 3_000_001])
def test_blocks_are_aligned_and_hold_what_is_written(elements: int) -> None:
    arrays = [memory.empty((elements,), "float64") for _ in range(3)]
    for i, a in enumerate(arrays):
        assert address(a) % 64 == 0
        a[:] = i
    assert [set(a.tolist()) for a in arrays] == [{0.0}, {1.0}, {2.0}]


def test_arrays_own_their_memory() -> None:
    a = memory.empty((50, 60), "float32")
    assert a.base is None
    assert a.flags.owndata
    assert a.flags.writeable
    assert a.flags.c_contiguous
    assert a.flags.aligned
    a[:] = 3
    assert (pickle.loads(pickle.dumps(a)) == a).all()
    assert (a.copy() == a).all()
    assert (a.T + 0 == 3).all()


def test_a_view_keeps_the_block() -> None:
    a = memory.empty((5000,), "float64")
    a[:] = 7
    view = a[100:200]
    held = memory.stats()["in_use"]
    del a
    assert memory.stats()["in_use"] == held
    memory.empty((5000,), "float64")[:] = 8
    assert (view == 7).all()


@pytest.mark.parametrize("size", [10, 900, 5000, 600_000])
def test_resize_in_place(size: int) -> None:
    a = memory.empty((1000,), "float64")
    a[:] = np.arange(1000)
    held = memory.stats()["in_use"]
    for n in (size, size + 7):
        a.resize(n, refcheck=False)
        assert (a[: min(n, 1000, size)] == np.arange(min(n, 1000, size))).all()
        assert not a[1000:].any()
    assert memory.stats()["in_use"] < held
    del a


def test_results_of_ops_come_from_the_cache() -> None:
    x = ug.ones((300, 300))
    before = memory.stats()
    for _ in range(5):
        y = ug.exp(x) @ x + x
    after = memory.stats()
    assert after["reused"] > before["reused"]
    assert y.storage.flags.owndata


def test_gradients_do_not_take_owned_memory_for_a_view() -> None:
    x = ug.ones((300, 300)).requires_grad_()
    (x * x).sum().backward()
    assert x.grad is not None
    assert x.grad.storage.base is None


def test_no_more_than_the_limit_is_kept() -> None:
    memory.set_limit(10 * MIB)
    arrays = [memory.empty((MIB,), "float32") for _ in range(4)]
    assert memory.stats()["in_use"] >= 16 * MIB
    del arrays
    assert memory.stats()["cached"] == 8 * MIB
    memory.set_limit(5 * MIB)
    assert memory.stats()["cached"] == 4 * MIB
    memory.empty((2 * MIB,), "float32")  # a block larger than the limit is not kept
    assert memory.stats()["cached"] == 4 * MIB
    memory.empty_cache()
    assert memory.stats()["cached"] == 0


def test_sizes_unused_for_longest_go_first() -> None:
    memory.set_limit(8 * MIB)
    memory.empty((3 * MIB,), "uint8")
    memory.empty((4 * MIB,), "uint8")
    memory.empty((2 * MIB,), "uint8")
    assert memory.stats()["cached"] == 6 * MIB
    before = memory.stats()["reused"]
    memory.empty((4 * MIB,), "uint8")
    assert memory.stats()["reused"] == before + 1


def test_a_limit_of_zero_leaves_memory_to_numpy() -> None:
    memory.set_limit(0)
    before = memory.stats()
    memory.empty((10_000,), "float32")[:] = 1
    assert memory.stats() == before


@pytest.mark.parametrize("limit", [-1, 2**63, 1.5, "1"])
def test_limits_that_are_none_are_refused(limit: object) -> None:
    with pytest.raises(ArgumentError, match="set_limit"):
        memory.set_limit(limit)  # type: ignore[arg-type]


def test_nothing_is_lost_or_counted_twice() -> None:
    gc.collect()
    before = memory.stats()["in_use"]
    arrays = [memory.empty((n,), "uint8") for n in range(1000, 200_000, 777)]
    assert memory.stats()["in_use"] - before >= sum(a.nbytes for a in arrays if a.nbytes > 1024)
    del arrays
    assert memory.stats()["in_use"] == before
    assert memory.stats()["peak"] > before


@pytest.mark.parametrize("size", [(-1,), (2**62, 2**62), (2**61, 8), (2,) * 65])
def test_impossible_shapes_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"at least 0|counted|64 axes"):
        memory.empty(size, "float64")


@pytest.mark.parametrize("size", [(0,), (2**40, 0), ()])
def test_empty_and_single_results(size: tuple[int, ...]) -> None:
    assert memory.empty(size, "float64").shape == size


@pytest.mark.parametrize("dtype", ["O", "U3", "V5"])
def test_only_numbers_are_held(dtype: str) -> None:
    with pytest.raises(TypeError, match="dtype of numbers"):
        memory.empty((3000,), dtype)


def test_what_does_not_fit_names_its_size() -> None:
    """Cached blocks are given back first: with 300 MiB kept and a limit of address space, 300 MiB of another size fit."""
    code = """
import resource
import ulpgrad as ug
from ulpgrad import memory
memory.set_limit(1 << 30)
del_me = [memory.empty((100 << 20,), "uint8") for _ in range(3)]
del_me.clear()
assert memory.stats()["cached"] >= 300 << 20
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (50 << 20),) * 2)
kept = memory.empty((280 << 20,), "uint8")
assert memory.stats()["cached"] == 0
try:
    memory.empty((500, 1 << 20), "uint8")
except MemoryError as error:
    print(error)
"""
    assert python(code) == "no memory for a result of shape (500, 1048576) (500 MiB)"


def test_the_environment_sets_the_limit() -> None:
    code = "import ulpgrad as ug; print(ug.memory.stats()['limit'])"
    assert python(code, ULPGRAD_CACHE_MB="3") == str(3 * MIB)
    assert python(code, ULPGRAD_CACHE_MB="0") == "0"
    assert 0 < int(python(code, ULPGRAD_CACHE_MB="")) <= 1024 * MIB
    assert "expected a whole number of MiB" in python(
        f"try:\n {code}\nexcept ValueError as e: print(e)", ULPGRAD_CACHE_MB="x"
    )


def test_without_the_extension_numpy_allocates() -> None:
    code = "from ulpgrad import memory; print(memory.empty((3000,), 'float32').shape, memory.stats()['limit'])"
    assert python(code, ULPGRAD_NATIVE="0") == "(3000,) 0"


def test_threads_share_the_cache() -> None:
    wrong = []

    def work(seed: int) -> None:
        sizes = np.random.default_rng(seed).integers(1000, 60_000, 400)
        held: list[np.ndarray] = []
        for n in sizes:
            a = memory.empty((int(n),), "int64")
            a[:] = seed
            held.append(a)
            if len(held) > 8:
                wrong.extend(1 for b in held if not (b == seed).all())
                held = held[5:]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_goes_on_with_its_copy() -> None:
    a = memory.empty((100_000,), "float64")
    a[:] = 5
    memory.empty((50_000,), "float64")

    def child() -> None:
        fresh = memory.empty((50_000,), "float64")
        fresh[:] = 1
        os._exit(0 if (a == 5).all() and memory.stats()["reused"] else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
