"""What a library inside a larger program must bear: forks, signals, other threads, limits set by others, memory that runs out,
sizes that no memory holds. Each in a process of its own."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ShapeError
from ulpgrad.kernels import native

needs_native = pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
needs_limits = pytest.mark.skipif(
    importlib.util.find_spec("threadpoolctl") is None, reason="threadpoolctl is not installed"
)

START = """
import hashlib, os, sys, threading, time
import numpy as np
import ulpgrad as ug
from ulpgrad.kernels import native
a = ug.asarray(np.random.default_rng(0).standard_normal((400, 400)).astype(np.float32))
def bits():
    return (a @ a).numpy().tobytes() + ug.softmax(a, 1).numpy().tobytes() + (a + a).sum().numpy().tobytes()
def workers():
    time.sleep(0.05)  # a thread that has ended is listed a moment longer
    return len(os.listdir("/proc/self/task"))
"""


def python(code: str, **variables: str) -> str:
    outer = {k: v for k, v in os.environ.items() if k not in ("ULPGRAD_NUM_THREADS", "OMP_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", START + code], capture_output=True,
                          text=True, timeout=120, env={**outer, **variables}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr or done.returncode
    return done.stdout.strip()


# Forks


@needs_fork
@pytest.mark.parametrize("threads", [1, 3])
def test_children_and_grandchildren_compute_the_same(threads: int) -> None:
    """Also with threads of their own: the parent's are not copied into them."""
    python(f"""
ug.set_num_threads({threads})
expected = bits()
def descend(generations):
    if generations == 0:
        return 0 if bits() == expected else 1
    pid = os.fork()
    if pid == 0:
        os._exit(descend(generations - 1) if bits() == expected else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert descend(2) == 0
assert bits() == expected
""")


@needs_fork
def test_a_fork_while_other_threads_compute() -> None:
    """Their locks may be held at that moment, and nobody lets them go in the child."""
    python("""
ug.set_num_threads(2)
expected, stop = bits(), threading.Event()
def work():
    while not stop.is_set():
        bits()
others = [threading.Thread(target=work) for _ in range(2)]
for t in others:
    t.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if bits() == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stop.set()
for t in others:
    t.join()
""")


@needs_fork
def test_a_pool_of_forked_processes() -> None:
    python("""
import multiprocessing
ug.set_num_threads(2)
expected = bits()
def same(_):
    return bits() == expected
with multiprocessing.get_context("fork").Pool(3) as pool:
    assert all(pool.map(same, range(12)))
""")


# Threads of Python


def test_python_threads_get_the_same_bits_and_gradients() -> None:
    python("""
ug.set_num_threads(2)
def step():
    w = ug.asarray(a.numpy(), requires_grad=True)
    (ug.softmax(a @ w, 1) * a).sum().backward()
    return bits() + w.grad.numpy().tobytes()
expected, wrong = step(), []
def work():
    for _ in range(8):
        if step() != expected:
            wrong.append(1)
others = [threading.Thread(target=work) for _ in range(4)]
for t in others:
    t.start()
for t in others:
    t.join()
assert not wrong
""")


# Limits


@needs_native
@needs_proc
@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({"ULPGRAD_NUM_THREADS": "1"}, 1),
        ({"ULPGRAD_NUM_THREADS": "2"}, 2),
        ({"ULPGRAD_NUM_THREADS": "3"}, 3),
        ({"ULPGRAD_NUM_THREADS": "7"}, 7),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "3,1"}, 3),
        ({"OMP_NUM_THREADS": "3", "ULPGRAD_NUM_THREADS": "2"}, 2),
        ({"OMP_NUM_THREADS": "often"}, None),
    ],
)
def test_the_environment_decides_how_many_threads_there_are(variables: dict[str, str], threads: int | None) -> None:
    """Work for all of them starts one less, the caller being one; and the bits are those of one thread."""
    threads = threads or len(os.sched_getaffinity(0))
    code = """
x = ug.ones((1000, 1000))
before = workers()
ug.softmax(x, 1)
print(ug.get_num_threads(), workers() - before, hashlib.sha256(bits()).hexdigest())
"""
    count, more, digest = python(code, **variables).split()
    assert (int(count), int(more)) == (threads, threads - 1)
    assert digest == alone()


@functools.cache
def alone() -> str:
    """What one thread makes of it."""
    return python("print(hashlib.sha256(bits()).hexdigest())", ULPGRAD_NUM_THREADS="1")


@needs_native
@needs_proc
@needs_limits
@pytest.mark.parametrize("limit_first", [True, False])
def test_limits_of_threadpoolctl_hold(limit_first: bool) -> None:
    """Set before our own number and the first kernel, or after them; and until its block ends."""
    inside = "ug.set_num_threads(3); bits()" if limit_first else "bits()"
    python(f"""
from threadpoolctl import threadpool_limits
{"" if limit_first else "ug.set_num_threads(3)"}
before = workers()
with threadpool_limits(limits=1):
    {inside}
    expected = bits()
    assert workers() == before, workers() - before
with threadpool_limits(limits=1, user_api="openmp"):
    assert bits() == expected
    assert workers() == before
assert bits() == expected
assert workers() > before
""")


@needs_native
@needs_proc
@needs_limits
def test_a_limit_above_one_gives_as_many() -> None:
    """Of more that were asked for; a block inside counts until it ends."""
    python("""
from threadpoolctl import threadpool_limits
more = len(os.sched_getaffinity(0)) + 1  # a limit of as many as there are cores is none
ug.set_num_threads(more + 2)
x = ug.ones((1000, 1000))
before = workers()
with threadpool_limits(limits=more, user_api="openmp"):
    with threadpool_limits(limits=1, user_api="openmp"):
        expected = ug.softmax(x, 1).numpy().tobytes()
        assert workers() == before
    assert ug.softmax(x, 1).numpy().tobytes() == expected
    assert workers() == before + more - 1, (workers(), before)
assert ug.softmax(x, 1).numpy().tobytes() == expected
assert workers() == before + more + 1, (workers(), before)
""")


@needs_native
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds threads to cores")
def test_helpers_keep_to_the_cores_of_their_caller() -> None:
    """On one core, on all, and on another one; they rest in between, so that they are woken. The caller keeps its own."""
    python(
        """
import time
ug.set_num_threads(3)
cores = os.sched_getaffinity(0)
native.module()
before = set(os.listdir("/proc/self/task"))
expected = bits()
helpers = {int(t) for t in set(os.listdir("/proc/self/task")) - before}
assert len(helpers) == 2, helpers
for allowed in ({min(cores)}, cores, {max(cores)}, cores):
    os.sched_setaffinity(0, allowed)
    for _ in range(3):
        time.sleep(0.05)
        assert bits() == expected
    assert os.sched_getaffinity(0) == allowed
    assert all(os.sched_getaffinity(t) <= allowed for t in helpers)
""",
        OPENBLAS_NUM_THREADS="1",
    )


@needs_native
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds threads to cores")
def test_helpers_make_way_when_their_caller_moves() -> None:
    """While they are awake, so that nothing but the caller's next call tells them. It may move on by itself: most tries count."""
    python("""
ug.set_num_threads(2)
cores = os.sched_getaffinity(0)
native.module()
before = set(os.listdir("/proc/self/task"))
ug.softmax(a, 1)
(helper,) = (int(t) for t in set(os.listdir("/proc/self/task")) - before)
tries = sorted(cores)[:2] * 10 if len(cores) > 1 else []
made_way = 0
for core in tries:
    ug.softmax(a, 1)
    ug.softmax(a, 1)
    os.sched_setaffinity(0, {core})
    os.sched_setaffinity(0, cores)  # from here on it may be anywhere, and mostly stays where it is
    ug.softmax(a, 1)
    made_way += os.sched_getaffinity(helper) == cores - {core}
assert made_way >= 0.6 * len(tries), made_way
""", OPENBLAS_NUM_THREADS="1")  # fmt: skip


# Signals


@needs_native
def test_an_interrupt_ends_a_loop_of_kernels_and_leaves_them_sound() -> None:
    """The signal reaches the program's own thread, never one of the kernels', and the next call is right."""
    python("""
import signal
ug.set_num_threads(2)
expected = bits()
for _ in range(5):
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        while True:
            bits()
    except KeyboardInterrupt:
        pass
    assert bits() == expected
for task in os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else ():
    status = dict(line.split(":", 1) for line in open(f"/proc/self/task/{task}/status"))
    assert int(task) == os.getpid() or int(status["SigBlk"], 16) >> (signal.SIGINT - 1) & 1
""", OPENBLAS_NUM_THREADS="1")  # fmt: skip


# Memory


@needs_native
@needs_fork
@needs_proc
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_that_runs_out_raises(threads: int) -> None:
    """In results and in working memory alike, in the caller and in its helpers; with memory again, the next call is right."""
    python(
        f"""
import resource
threads = {threads}
"""
        + """
ug.set_num_threads(threads)
rng = np.random.default_rng(1)
def f32(*shape):
    return ug.asarray(rng.standard_normal(shape).astype(np.float32))
x, image, kernel, rows = f32(700, 900), f32(8, 32, 28, 28), f32(64, 32, 3, 3), f32(2, 4, 300, 64)
codes = np.ones((700, 700), np.int8)
calls = {
    "matmul": lambda: x @ x.T,
    "linear": lambda: ug.linear(x, x),
    "integer": lambda: native.module().integer_matmul_by()(codes, codes),
    "conv2d": lambda: ug.conv2d(image, kernel, padding=1),
    "attention": lambda: ug.scaled_dot_product_attention(rows, rows, rows),
    "softmax": lambda: ug.softmax(x, 1),
    "sum": lambda: x.sum(axis=0),
    "bfloat16": lambda: x.to("bfloat16") @ x.to("bfloat16").T,
    "sort": lambda: ug.sort(x),
}
def used():
    return int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
raised = 0
for name, call in calls.items():
    for extra in (1 << 16, 1 << 19, 1 << 21):
        pid = os.fork()
        if pid == 0:
            none = resource.RLIM_INFINITY
            native.module().peak_arithmetic("float32", 1, threads)  # the helpers start while there is memory
            resource.setrlimit(resource.RLIMIT_AS, (used() + extra, none))
            code = 0
            try:
                call()
            except MemoryError:
                code = 1
            resource.setrlimit(resource.RLIMIT_AS, (none, none))
            call()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, 1), (name, extra, code)
        raised += code
assert raised >= len(calls), raised
"""
    )


def huge(*shape: int, dtype: Any = np.float32) -> ug.Tensor:
    return ug.broadcast_to(ug.asarray(np.ones((1,) * len(shape), dtype)), shape)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ug.zeros((2**62, 4)), "zeros: no array can hold"),
        (lambda: huge(2**40, 2**40), "broadcast_to: no array can hold"),
        (lambda: huge(2**31, 1) + huge(1, 2**33), r"add of \(2147483648, 1\), \(1, 8589934592\): .*(too big|counted)"),
        (lambda: huge(2**32, 1) @ huge(1, 2**32), "matmul of .*(too big|counted)"),
        (lambda: huge(2**32, 1, dtype=np.int8) @ huge(1, 2**32, dtype=np.int8), "matmul of .*(too big|counted)"),
        (lambda: ug.repeat(ug.ones((4,)), 2**62), "repeat: no array can hold"),
        (lambda: ug.arange(2**62), "arange: no array can hold"),
    ],
)
def test_sizes_whose_product_overflows_are_refused(call: Any, named: str) -> None:
    with pytest.raises(ShapeError, match=named):
        call()


@needs_native
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_a_stack_too_large_is_refused_before_its_matrices_are_listed(dtype: Any) -> None:
    """There are as many of them as would fill the memory by themselves."""
    left, right = huge(2**30, 2**20, 1, dtype=dtype), huge(2**30, 1, 2**20, dtype=dtype)
    with pytest.raises(ShapeError, match=r"matmul of .*(too big|counted)"):
        left @ right


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ug.zeros_like(x),
        lambda x: ug.randn(2**50),
        lambda x: ug.concat([x, x]),
        lambda x: ug.stack([x, x]),
        lambda x: x.to("bfloat16"),
        lambda x: x.to("q7.8"),
        lambda x: x + x,
        lambda x: ug.softmax(x, 0),
        lambda x: ug.sort(x),
        lambda x: ug.cumulative_sum(x),
        lambda x: ug.conv2d(huge(2**20, 1, 2**15, 2**15), ug.ones((8, 1, 1, 1))),
        lambda x: ug.scaled_dot_product_attention(huge(1, 1, 2**44, 64), huge(1, 1, 4, 64), huge(1, 1, 4, 64)),
    ],
)
def test_sizes_that_no_machine_holds_raise(call: Any) -> None:
    """More than an address reaches, and yet no overflow: nothing else is begun before."""
    with pytest.raises(MemoryError):
        call(huge(2**50))
