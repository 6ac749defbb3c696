"""The C++ extension as such: instruction sets, threads, forks, and arguments it must refuse rather than read."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ulpgrad.kernels import native

pytestmark = pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")

ISAS = [] if native.missing() else native.module().cpu_isas()


@pytest.fixture
def module() -> Iterator[Any]:
    """The extension, its number of threads put back afterwards."""
    loaded = native.module()
    threads = loaded.get_num_threads()
    yield loaded
    loaded.set_num_threads(threads)


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def python(code: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_isas_rise(module: Any) -> None:
    known = module.isa_names()
    assert known[0] == module.cpu_isas()[0] == "portable"
    assert [n for n in known if n in {*module.cpu_isas(), *module.cpu_extensions()}] == sorted(
        [*module.cpu_isas(), *module.cpu_extensions()], key=known.index
    )
    assert set(module.cpu_isas()) <= set(module.build_info()["isas"]) <= set(known)


@pytest.mark.parametrize("limit", [] if native.missing() else native.module().isa_names())
def test_each_name_caps_what_is_used(module: Any, limit: str) -> None:
    """What is left is what the machine has up to that name, and what is above is refused by the name of the limit."""
    names = module.isa_names()
    allowed = names[: names.index(limit) + 1]
    code = """
from ulpgrad.kernels import capabilities, native
module = native.module()
print(*module.cpu_isas(), *module.cpu_extensions())
print(*(f"{name}:{capabilities.missing(name)}" for name in module.isa_names() if name in capabilities.PROBES), sep=";")
"""
    usable, reasons = python(code, ULPGRAD_ISA=limit).split("\n")
    here = {*module.cpu_isas(), *module.cpu_extensions()}
    if not os.environ.get("ULPGRAD_ISA"):
        assert set(usable.split()) == here.intersection(allowed)
    for name, reason in (pair.split(":") for pair in reasons.split(";")):
        if name not in allowed:
            assert reason == f"ULPGRAD_ISA={limit} forbids {name}"
        else:
            assert reason == "None" or reason.startswith("this CPU has no")


def test_unknown_isa_is_named() -> None:
    code = "from ulpgrad.kernels import native; print(native.missing())"
    told = python(code, ULPGRAD_ISA="sse9")
    assert "ULPGRAD_ISA='sse9': expected one of portable, " in told
    assert all(name in told for name in native.module().isa_names())


def test_isa_that_is_not_allowed_is_refused() -> None:
    code = """
from ulpgrad.kernels import native
import numpy as np
try:
    native.module().matmul(np.ones((2, 2)), np.ones((2, 2)), "avx2")
except ValueError as error:
    print(error)
"""
    assert "no more than portable" in python(code, ULPGRAD_ISA="portable")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("m", "n", "k"), [(300, 290, 310), (1500, 20, 110), (20, 1500, 110), (1, 3001, 500), (3001, 1, 500)]
)
def test_bits_do_not_depend_on_threads(module: Any, isa: str, dtype: str, m: int, n: int, k: int) -> None:
    a, b = normal(m, k, dtype=dtype), normal(k, n, dtype=dtype)
    module.set_num_threads(1)
    once = module.matmul(a, b, isa)
    for threads in (2, 3, 4):
        module.set_num_threads(threads)
        assert module.matmul(a, b, isa).tobytes() == once.tobytes()
    assert module.matmul(np.asfortranarray(a), np.asfortranarray(b), isa).shape == (m, n)


def test_stacks_do_not_depend_on_threads(module: Any) -> None:
    a, b = normal(9, 60, 70), normal(70, 80)
    module.set_num_threads(1)
    once = module.matmul(a, b)
    module.set_num_threads(3)
    assert module.matmul(a, b).tobytes() == once.tobytes()
    assert module.matmul(a[4], b).tobytes() == once[4].tobytes()


def in_child(queue: Any, a: np.ndarray) -> None:
    queue.put(native.module().matmul(a, a))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_child_computes_the_same(module: Any) -> None:
    a = normal(400, 400)
    module.set_num_threads(2)
    ours = module.matmul(a, a)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=in_child, args=(queue, a))
    child.start()
    theirs = queue.get(timeout=60)
    child.join(60)
    assert theirs.tobytes() == ours.tobytes()


def test_fields_and_unaligned_arrays(module: Any) -> None:
    records = np.zeros((5, 4), np.dtype([("tag", "u1"), ("value", "f4")]))
    records["value"] = normal(5, 4)
    field = records["value"]  # neither aligned nor a whole number of values apart
    plain = np.ascontiguousarray(field)
    assert module.matmul(field, field.T).tobytes() == module.matmul(plain, plain.T).tobytes()


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (np.ones((2, 3)), np.ones((4, 5)), ValueError, "inner sizes differ: (2, 3) @ (4, 5)"),
        (np.ones(3), np.ones((3, 5)), ValueError, "inner sizes differ"),
        (np.ones((2, 2, 3)), np.ones((4, 3, 5)), ValueError, "do not broadcast"),
        (
            np.ones((2, 2), "i4"),
            np.ones((2, 2), "i4"),
            TypeError,
            "expected float32, float64, float16 or uint16 (bfloat16) values, got int32",
        ),
        (np.ones((2, 2), "f4"), np.ones((2, 2), "f8"), TypeError, "expected float32 values, got float64"),
        (np.ones((2, 2), ">f4"), np.ones((2, 2), ">f4"), TypeError, "expected float32 values"),
        (np.ones((2, 2), object), np.ones((2, 2), object), TypeError, "values, got object"),
    ],
)
def test_matmul_refuses(module: Any, a: np.ndarray, b: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        module.matmul(a, b)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("bias", "activation", "error"),
    [
        (np.ones(3, "f4"), "", ValueError),
        (np.ones(4, "f8"), "", TypeError),
        (None, "relu6", ValueError),
    ],
)
def test_linear_refuses(module: Any, bias: np.ndarray | None, activation: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        module.linear(np.ones((2, 5), "f4"), np.ones((4, 5), "f4"), bias, activation)


def test_threads_must_be_positive(module: Any) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        module.set_num_threads(0)


X, I = np.ones((3, 4), "f4"), np.zeros((3, 4), "i8")


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("take_along_axis", (X, I, 2), ValueError),
        ("take_along_axis", (X, I[:2], 1), ValueError),
        ("take_along_axis", (X, I[0], 1), ValueError),
        ("take_along_axis", (X, I.astype("i4"), 1), TypeError),
        ("take_along_axis", (X, I[:, ::-1], 1), ValueError),
        ("take_along_axis", (X, I + 4, 1), IndexError),
        ("take_along_axis", (X, I - 5, 1), IndexError),
        ("take_along_axis", (X[:, :0], I, 1), IndexError),
        ("take_along_axis", (X.astype("O"), I, 1), TypeError),
        ("scatter_add", (X, I, -1, 4), ValueError),
        ("scatter_add", (X, I[:2], 1, 4), ValueError),
        ("scatter_add", (X, I, 1, -1), ValueError),
        ("scatter_add", (X, I + 3, 1, 3), IndexError),
        ("scatter_add", (X[:, ::2], I[:, ::2], 1, 4), ValueError),
        ("scatter_add", (X.astype("f2"), I, 1, 4), TypeError),
        ("argsort", (X, 2, True), ValueError),
        ("argsort", (X, -1, False), ValueError),
        ("argsort", (X.astype("f2"), 1, True), TypeError),
        ("topk", (X, 5, 1, True), ValueError),
        ("topk", (X, -1, 1, True), ValueError),
        ("topk", (X, 1, 2, True), ValueError),
        ("topk", (X.astype("f2"), 1, 1, True), TypeError),
        ("searchsorted", (X, X, False), ValueError),
        ("searchsorted", (X[0], X.astype("f8"), False), TypeError),
        ("searchsorted", (X[0, ::2], X, False), ValueError),
        ("unique", (X,), ValueError),
        ("unique", (X[0].astype("c8"),), TypeError),
        ("embedding_gradient", (X, I[0, :3] + 9, 9), ValueError),
    ],
)  # fmt: skip
def test_gather_and_order_refuse(module: Any, name: str, arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        getattr(module, name)(*arguments)


M = np.arange(12, dtype="f4")


@pytest.mark.parametrize(
    ("out", "x", "error"),
    [
        (M[:6], M[6:11], ValueError),
        (M[:6].reshape(2, 3), M[6:].reshape(3, 2), ValueError),
        (M[:6], M[6:].astype("f8"), TypeError),
        (M[:6].astype(">f4"), M[6:], TypeError),
        (M.astype("O"), M.astype("O"), TypeError),
        (M.astype("c8"), M.astype("c8"), TypeError),
        (M[:6], M[5:11], ValueError),
        (M[::-1], M, ValueError),
        (np.broadcast_to(np.float32(0), 12), M, ValueError),
        (np.lib.stride_tricks.as_strided(M.copy(), (3, 4), (4, 4)), M.reshape(3, 4), ValueError),
        (np.frombuffer(bytearray(49), "f4", 12, 1), M, ValueError),
        (list(M), M, TypeError),
    ],
)
def test_copy_refuses(module: Any, out: Any, x: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        module.copy_into(out, x)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
def test_copy_writes_any_layout_and_nothing_beside_it(module: Any, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for case in range(60):
        shape = tuple(int(n) for n in rng.choice([1, 2, 5, 16, 33, 70], int(rng.choice([1, 2, 2, 3])) + (case == 0)))
        x = rng.integers(0, 200, shape).astype(dtype).transpose(rng.permutation(len(shape)))
        wide = len(shape) < 4
        around = np.full([(1 + wide) * n + 3 for n in x.shape], 7, dtype, order="F" if case % 2 else "C")
        inner = tuple(slice(1, 2 * n + 1, 2) if wide and case % 3 else slice(n, 0, -1) for n in x.shape)
        x = x[tuple(slice(None, None, int(s)) for s in rng.choice([1, -1], x.ndim))]
        expected = around.copy()
        expected[inner] = x
        for threads in (1, 2):
            got = around.copy(order="K")
            module.set_num_threads(threads)
            module.copy_into(got[inner], x)
            assert (got == expected).all(), (case, x.shape, x.strides)


def test_an_extension_older_than_the_sources_is_left_unused_and_says_what_to_do() -> None:
    """An import that finds a name missing falls back, with a warning; a function missing at a call raises."""
    code = """
import sys, types, warnings
sys.modules["ulpgrad._native"] = types.ModuleType("ulpgrad._native")  # nothing that was added since is there
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import ulpgrad as ug
print([(w.category.__name__, "forget_calls" in str(w.message), "build it again" in str(w.message)) for w in caught])
print(ug.kernels.native.missing().startswith("the C++ extension is older"), (ug.ones(2) + 1.0).tolist())
"""
    assert python(code).splitlines() == ["[('StaleExtensionWarning', True, True)]", "True [2.0, 2.0]"]
    code = """
import ulpgrad as ug
from ulpgrad.kernels import native
del native.module().softmax
x = ug.ones(2)
try:
    ug.softmax(x)
except ug.errors.KernelError as error:
    print(error)
"""
    assert "lacks softmax); build it again" in python(code)
