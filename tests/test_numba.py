"""What kernels in Numba are made of: functions on vectors, rows, loops that are written out, names that follow helpers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.kernels import capabilities, numba_jit, numba_rows
from ulpgrad.kernels.attention import numba_blocks
from ulpgrad.kernels.cast import numba_bits
from ulpgrad.kernels.conv import numba_blocks as conv_blocks
from ulpgrad.kernels.elementwise.reference import FUNCTIONS
from ulpgrad.kernels.numba_jit import Jit, PerFormat
from ulpgrad.kernels.numba_source import LINE, OURS, load, loop
from ulpgrad.kernels.reduction import numba_chunks

pytestmark = pytest.mark.skipif(capabilities.missing("numba") is not None, reason="needs Numba")
ONE_OPERAND = [name for name in OURS if name not in ("copysign", "maximum", "minimum")]
ULPS = {"normal_cdf": 6.0}  # others: 2 in float32; float64 is held to what NumPy's own last digit leaves


@pytest.fixture(scope="module")
def loops() -> Any:
    return load("functions", "".join(loop(f"run_{n}", {"x": "full"}, (), (), [f"_{n}(x)"]) for n in ONE_OPERAND))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ONE_OPERAND)
def test_functions_are_near_the_reference(loops: Any, name: str, dtype: str) -> None:
    sizes = np.geomspace(1e-30, 1e30, 4001)
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan]
    x = np.concatenate([np.linspace(-12, 12, 9001), sizes, -sizes, edges]).astype(dtype)
    y = np.empty_like(x)
    getattr(loops, f"run_{name}")(x, y, LINE)
    with np.errstate(all="ignore"):
        expected = np.asarray(FUNCTIONS[name](x.astype(np.float64)))
        rounded = expected.astype(dtype)
        unit = np.spacing(np.maximum(np.abs(rounded), np.finfo(dtype).tiny))
        error = np.where((y == rounded) | (np.isnan(y) & np.isnan(rounded)), 0.0, np.abs(y - expected) / unit)
    assert error.max() <= ULPS.get(name, 2.0 if dtype == "float32" else 4.0)
    assert (np.signbit(y[-5:-3]) == np.signbit(rounded[-5:-3])).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 100, 5000])
def test_extremes_see_every_value_and_every_nan(size: int, dtype: Any) -> None:
    rng = np.random.default_rng(size)
    x = rng.standard_normal((8, size)).astype(dtype)
    how: dict[str, Any] = {"axis": (1,), "keepdims": False}
    for _ in range(2):
        assert (numba_chunks._max(x, **how) == x.max(axis=1)).all()
        assert (numba_chunks._min(x, **how) == x.min(axis=1)).all()
        x = -np.abs(x)
    for k, nan in enumerate((np.nan, -np.nan)):
        x[k, size // 2] = math.copysign(1.0, nan) * np.nan
        assert np.isnan(numba_chunks._max(x, **how)[k])
        assert np.isnan(numba_chunks._min(x, **how)[k])
    assert not np.isnan(numba_chunks._max(x, **how)[2:]).any()


@pytest.mark.parametrize(
    "shapes", [((130, 300), (300,), (130, 1)), ((39_000,), (), (39_000,)), ((2, 65, 300), (65, 300), ())]
)
def test_a_chain_in_one_loop_reads_operands_that_broadcast(shapes: tuple[tuple[int, ...], ...]) -> None:
    def gate(x: Any, y: Any, z: Any) -> Any:
        return ug.where(x > y, ug.tanh(x) * z, ug.sigmoid(y) - 0.5)

    rng = np.random.default_rng(0)
    x, y, z = (ug.asarray(rng.standard_normal(s), dtype=ug.float64) for s in shapes)
    with ug.use(fused="cpu/numba-loop"):
        got = ug.fused(gate)(x, y, z)
    np.testing.assert_allclose(got.numpy(), gate(x, y, z).numpy(), rtol=1e-14, atol=1e-15)


def test_what_a_loop_cannot_hold_is_refused() -> None:
    x = ug.ones((40_000,))
    verdicts = str(ug.fused(lambda x: ug.sin(x) + 1.0).explain(x))
    assert "sin has no vectors in Numba" in verdicts
    assert "from 32768 elements" in str(ug.fused(lambda x: ug.exp(x) + 1.0).explain(x[:10]))


def _kernel(helper: Any) -> Callable[..., Any]:
    scope: dict[str, Any] = {"helper": helper}
    exec(compile("def run(x):\n    return helper(x[0])", __file__, "exec"), scope)
    run: Callable[..., Any] = scope["run"]
    return run


def test_helpers_elsewhere_are_part_of_the_name_of_compiled_code(tmp_path: Any) -> None:
    names = set()
    for number in ("1", "2", "2"):
        file = tmp_path / "helper.py"
        file.write_text(f"def helper(x):\n    return x + C  # {number}")
        scope: dict[str, Any] = {"C": PerFormat(np.float32(0.5), np.float64(0.25))}
        exec(compile(file.read_text(), str(file), "exec"), scope)
        run = Jit(_kernel(Jit(scope["helper"], {})), {})
        assert run(np.ones(1, np.float32)) == 1.5
        assert run(np.ones(1)) == 1.25
        names.add(run.compile("float64").__qualname__)
    assert len(names) == 2


def test_rows_are_added_in_one_order() -> None:
    x = np.random.default_rng(0).standard_normal(10_007).astype(np.float32)
    assert len({float(numba_rows.total(x)) for _ in range(3)}) == 1
    assert abs(float(numba_rows.total(x)) - x.astype(np.float64).sum()) < 1e-2


def test_attention_has_the_same_bits_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.standard_normal((1, heads, 300, 24)).astype(np.float32) for heads in (4, 2, 2, 4))
    found = []
    for count in (1, 2):
        numba_jit.set_num_threads(count)
        y, lse = numba_blocks.attention(q, k, v, None, is_causal=True, scale=0.2)
        gradients = numba_blocks.attention_gradient(g, q, k, v, None, y, lse, is_causal=True, scale=0.2)
        found.append([a.tobytes() for a in (y, lse, *gradients)])
    assert found[0] == found[1]


@pytest.mark.parametrize("small", [ug.bfloat16, ug.float16])
def test_sixteen_bits_and_back(small: Any) -> None:
    """Every code, the middle between any two, and what lies just beside it."""
    codes = np.arange(1 << 16, dtype=np.uint16).view(small.storage)
    values = np.asarray(small.exact(codes))
    wide = numba_bits.converted(codes.reshape(256, 256)[:, ::-1], small, ug.float32)[:, ::-1].reshape(-1)
    np.testing.assert_array_equal(wide, values)
    assert (np.signbit(wide) == np.signbit(values))[~np.isnan(values)].all()
    with np.errstate(all="ignore"):
        middles = ((values[1:] + values[:-1]) / 2).astype(np.float32)
        beside = [np.nextafter(middles, np.float32(v)) for v in (-np.inf, np.inf)]
        given = np.concatenate([wide, middles, *beside, np.float32([65519.996, 65520, 3.4e38, 1e-45, -1e-45])])
        expected = small.encode(given)
    got = numba_bits.converted(given, ug.float32, small)
    is_nan = np.isnan(given)
    assert (got.view(np.uint16) == expected.view(np.uint16))[~is_nan].all()
    assert np.isnan(small.exact(got[is_nan])).all()


@pytest.mark.parametrize("images", [2, 5])
def test_convolution_has_the_same_bits_for_any_number_of_threads(images: int) -> None:
    rng = np.random.default_rng(images)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((images, 6, 21, 19), (8, 3, 3, 3)))
    how: dict[str, Any] = {"stride": (1, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 2}
    found = []
    for count in (1, 2):
        numba_jit.set_num_threads(count)
        y = conv_blocks.conv2d(x, weight, None, **how)
        dx = conv_blocks.input_gradient(y, weight, size=(21, 19), **how)
        found.append([a.tobytes() for a in (y, dx, conv_blocks.weight_gradient(y, x, size=(3, 3), **how))])
    assert found[0] == found[1]


def test_without_openmp_kernels_take_turns() -> None:
    """Two Python threads at once, in a process where OpenMP is not installed."""
    code = (
        "import sys, threading\n"
        "sys.modules['numba.np.ufunc.omppool'] = None\n"
        "import numpy as np\n"
        "from ulpgrad.kernels import numba_jit\n"
        "from ulpgrad.kernels.cast.numba_bits import widen\n"
        "numba_jit.set_num_threads(2)\n"
        "codes, results = np.arange(1 << 16, dtype=np.uint16), [np.empty(1 << 16, np.uint32) for _ in range(4)]\n"
        "run = lambda out: [widen(codes, out) for _ in range(100)]\n"
        "threads = [threading.Thread(target=run, args=(out,)) for out in results]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "assert all((out == codes.astype(np.uint32) << 16).all() for out in results)\n"
        "import numba; print(numba.threading_layer())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stdout) == (0, "workqueue\n"), done.stderr


def test_arrays_that_cannot_be_written_to_are_compiled_for_once() -> None:
    run = Jit(_kernel(Jit(lambda x: x + 1, {})), {})
    given = np.ones(3)
    locked = np.broadcast_to(np.float64(4.0), 3)
    given.flags.writeable = False
    assert run(given) == 2.0
    assert run(locked) == 5.0
    assert run(np.ones(3)) == 2.0
    assert not given.flags.writeable
    layouts = [signature[0].layout for signature in run.compile("float64").signatures]  # type: ignore[attr-defined]
    assert sorted(layouts) == ["A", "C"]


def test_threads_set_before_numba_is_loaded() -> None:
    code = (
        "import ulpgrad as ug, numpy as np\n"
        "ug.set_num_threads(1)\n"
        "from ulpgrad.kernels import numba_jit\n"
        "print(numba_jit._numba().get_num_threads())\n"
    )
    environment = {**os.environ, "ULPGRAD_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP")
@pytest.mark.parametrize("chosen", [{}, {"GOMP_SPINCOUNT": "77"}])
def test_threads_that_wait_sleep_soon(chosen: dict[str, str]) -> None:
    code = "import os\nfrom ulpgrad.kernels import numba_jit\nnumba_jit._numba()\nprint(os.environ.get('GOMP_SPINCOUNT'))\n"
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment |= {"ULPGRAD_NATIVE": "0", "OMP_DISPLAY_ENV": "verbose", **chosen}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    expected = chosen.get("GOMP_SPINCOUNT", "1000")
    assert f"GOMP_SPINCOUNT = '{expected}'" in done.stderr
    assert done.stdout == f"{chosen.get('GOMP_SPINCOUNT')}\n"
