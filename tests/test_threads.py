"""The same bits for one thread and for two, from every rung, at sizes where threads are really used."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError
from ulpgrad.formats import as_format
from ulpgrad.kernels import registry
from ulpgrad.kernels.integer.accumulator import Accumulator
from ulpgrad.kernels.registry import Request

RNG = np.random.default_rng(1)


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def codes(*shape: int) -> np.ndarray:
    return RNG.integers(-128, 128, shape).astype(np.int8)


def ints(high: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, high, shape)


CONV: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
DEEP: dict[str, Any] = {"stride": (1, 1, 1), "padding": (1, 1, 1), "dilation": (1, 1, 1), "groups": 1}
POOL: dict[str, Any] = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0)}
BIG: dict[str, Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "matmul": lambda: ((f32(130, 257), f32(257, 301)), {}),
    "linear": lambda: ((f32(64, 300), f32(200, 300), f32(200)), {"activation": "gelu"}),
    "add": lambda: ((f32(500, 400), f32(500, 400)), {}),
    "gelu": lambda: ((f32(500, 400),), {"approximate": "none"}),
    "sum": lambda: ((f32(300, 700),), {"axis": (0, 1), "keepdims": False}),
    "mean": lambda: ((f32(300, 700),), {"axis": (0,), "keepdims": False}),
    "var": lambda: ((f32(300, 700),), {"axis": (1,), "keepdims": False, "correction": 0.0}),
    "cumulative_sum": lambda: ((f32(300, 700),), {"axis": 0}),
    "softmax": lambda: ((f32(300, 700),), {"axis": 1}),
    "log_softmax": lambda: ((f32(300, 700),), {"axis": 1}),
    "softmax_gradient": lambda: ((f32(300, 700), f32(300, 700)), {"axis": 1}),
    "layer_norm": lambda: ((f32(300, 700), f32(700), f32(700)), {"eps": 1e-5}),
    "layer_norm_gradient": lambda: ((f32(300, 700), f32(300, 700), f32(700), f32(300), abs(f32(300))), {}),
    "rms_norm_gradient": lambda: ((f32(300, 700), f32(300, 700), f32(700), abs(f32(300))), {}),
    "batch_norm": lambda: ((f32(64, 16, 200), f32(16), f32(16)), {"eps": 1e-5}),
    "batch_norm_gradient": lambda: ((f32(64, 16, 200), f32(64, 16, 200), f32(16), f32(16), abs(f32(16))), {}),
    "cross_entropy": lambda: ((f32(500, 300), ints(300, 500)), {"ignore_index": -100, "label_smoothing": 0.1}),
    "conv2d": lambda: ((f32(8, 6, 20, 20), f32(12, 6, 3, 3), f32(12)), CONV),
    "conv2d_input_gradient": lambda: ((f32(8, 12, 20, 20), f32(12, 6, 3, 3)), {**CONV, "size": (20, 20)}),
    "conv2d_weight_gradient": lambda: ((f32(8, 12, 20, 20), f32(8, 6, 20, 20)), {**CONV, "size": (3, 3)}),
    "conv2d_finished": lambda: ((f32(8, 6, 20, 20), f32(12, 6, 3, 3), f32(12), f32(12), f32(8, 12, 20, 20)), CONV),
    "conv3d": lambda: ((f32(2, 6, 9, 20, 20), f32(12, 6, 3, 3, 3), f32(12)), DEEP),
    "conv3d_input_gradient": lambda: ((f32(2, 12, 9, 20, 20), f32(12, 6, 3, 3, 3)), {**DEEP, "size": (9, 20, 20)}),
    "conv3d_weight_gradient": lambda: ((f32(2, 12, 9, 20, 20), f32(2, 6, 9, 20, 20)), {**DEEP, "size": (3, 3, 3)}),
    "max_pool2d": lambda: ((f32(32, 16, 20, 20),), {**POOL, "dilation": (1, 1)}),
    "adaptive_avg_pool2d": lambda: ((f32(32, 16, 20, 20),), {"output_size": (7, 6)}),
    "adaptive_avg_pool2d_gradient": lambda: ((f32(32, 16, 7, 6),), {"size": (20, 20)}),
    "adaptive_max_pool2d": lambda: ((f32(32, 16, 20, 20),), {"output_size": (7, 6)}),
    "integer_matmul": lambda: ((codes(130, 257), codes(257, 301)), {"accumulator": Accumulator(16, 4, chunk=20)}),
    "integer_conv2d": lambda: ((codes(2, 6, 20, 20), codes(12, 6, 3, 3)), {**CONV, "accumulator": "int64"}),
    "integer_conv2d_input_gradient": lambda: ((codes(2, 12, 20, 20), codes(12, 6, 3, 3)), {**CONV, "size": (20, 20)}),
    "integer_conv2d_weight_gradient": lambda: ((codes(2, 12, 20, 20), codes(2, 6, 20, 20)), {**CONV, "size": (3, 3)}),
    "attention": lambda: ((f32(2, 4, 150, 32), f32(2, 4, 150, 32), f32(2, 4, 150, 32), None), {"is_causal": True, "scale": 0.2}),
    "embedding_gradient": lambda: ((f32(5000, 40), ints(50, 5000)), {"rows": 50}),
    "take_along_axis": lambda: ((f32(300, 700), ints(300, 400, 700)), {"axis": 0}),
    "scatter_add": lambda: ((f32(300, 700), ints(50, 300, 700)), {"axis": 0, "size": 50}),
    "argsort": lambda: ((f32(300, 700),), {"axis": 1, "descending": False}),
    "topk": lambda: ((f32(300, 700),), {"k": 20, "axis": 1, "largest": True}),
    "searchsorted": lambda: ((np.sort(f32(1000)), f32(300, 700)), {"side": "left"}),
    "requantize": lambda: ((ints(10**6, 500, 300).astype(np.int32), ints(2**31, 300).astype(np.int32), np.full(300, 45, np.int32),
                            None), {"axis": 1, "zero_point": 3, "low": -128, "high": 127, "ties": "up", "dtype": ug.int8}),
    "integer_max_pool2d": lambda: ((ints(99, 32, 16, 20, 20).astype(np.int8),), {**POOL, "dilation": (1, 1)}),
    "integer_avg_pool2d": lambda: ((ints(99, 32, 16, 20, 20).astype(np.int8),),
                                   {**POOL, "count_include_pad": True, "padding_value": 0, "ties": "even"}),
    "integer_adaptive_avg_pool2d": lambda: ((ints(99, 32, 16, 20, 20).astype(np.int8),), {"output_size": (5, 4), "ties": "even"}),
    "random_normal": lambda: ((), {"key": 7, "counter": 3, "size": 200_001, "dtype": ug.float32}),
}  # fmt: skip


def cases() -> Iterator[Any]:
    for name in BIG:
        for rung in registry.ladder(registry.find(name)):
            if rung.name != "cpu/reference":
                yield pytest.param(name, rung, id=f"{name}-{rung.name}")


@pytest.fixture(autouse=True)
def _two_threads_after() -> Iterator[None]:
    before = ug.get_num_threads()
    yield
    ug.set_num_threads(before)


@pytest.mark.parametrize(("name", "rung"), list(cases()))
def test_same_bits_for_any_number_of_threads(name: str, rung: registry.Rung) -> None:
    op = registry.find(name)
    arrays, params = BIG[name]()
    formats = tuple(None if a is None else as_format(a.dtype) for a in arrays)
    reason = rung.refusal(Request(op, "cpu", formats, arrays, params))
    if reason:
        pytest.skip(f"the machine or the rung refuses: {reason}")
    results = []
    for threads in (1, 2, 2):
        ug.set_num_threads(threads)
        with dispatch.use(**{name: rung.name}):
            out, _ = dispatch.call(op, formats, arrays, params)
        results.append(b"".join(np.asarray(o).tobytes() for o in (out if isinstance(out, tuple) else (out,))))
    assert results[0] == results[1] == results[2]


def called(name: str) -> bytes:
    """The bits of what dispatch's own choice makes of a problem."""
    op, (arrays, params) = registry.find(name), GIVEN[name]
    formats = tuple(None if a is None else as_format(a.dtype) for a in arrays)
    out, _ = dispatch.call(op, formats, arrays, params)
    return b"".join(np.asarray(o).tobytes() for o in (out if isinstance(out, tuple) else (out,)))


GIVEN = {name: given() for name, given in BIG.items()}


def test_python_threads_that_call_every_op_at_once_get_the_bits_of_one_alone() -> None:
    """Four callers, each with another op at any moment; then all four with the same one."""
    ug.set_num_threads(3)
    names = list(BIG)
    expected = {name: called(name) for name in names}
    wrong: list[Any] = []
    together = threading.Barrier(4)

    def work(which: int) -> None:
        try:
            turned = names[which * len(names) // 4 :] + names[: which * len(names) // 4]
            wrong.extend(name for name in turned if called(name) != expected[name])
            for name in names:
                together.wait(60)
                if called(name) != expected[name]:
                    wrong.append(name)
        except BaseException as error:
            wrong.append(error)
            together.abort()

    workers = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def test_a_forked_child_computes_instead_of_hanging() -> None:
    code = """
import os, sys
import ulpgrad as ug
a = ug.ones((300, 300))
first = (a @ a).sum().item()
pid = os.fork()
if pid == 0:
    os._exit(0 if (a @ a).sum().item() == first else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=True, timeout=60)


def test_thread_count_is_checked() -> None:
    with pytest.raises(ArgumentError, match="at least 1"):
        ug.set_num_threads(0)
    result = subprocess.run(
        [sys.executable, "-c", "import ulpgrad as ug; ug.ones((4, 4)) @ ug.ones((4, 4))"],
        env={"ULPGRAD_NUM_THREADS": "many"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "ULPGRAD_NUM_THREADS='many': expected a whole number of at least 1" in result.stderr
