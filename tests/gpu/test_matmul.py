"""What the stamped tests of products do not reach: long sums of bytes, results that overflow an 8-bit float, exact factors, the
choice of a kernel by how operands lie, and the order in which tiles are walked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.errors import AccumulatorError, ArgumentError
from ulpgrad.formats import as_format, float8_e4m3fn, float8_e5m2, float16, float32, float64, int8, int16
from ulpgrad.kernels import capabilities, gpu, registry
from ulpgrad.kernels.blocks import spec as blocks
from ulpgrad.kernels.integer import spec as integer
from ulpgrad.kernels.integer.accumulator import Accumulator
from ulpgrad.kernels.matmul import spec, strided
from ulpgrad.kernels.registry import Request

pytestmark = pytest.mark.skipif(capabilities.missing("triton") is not None, reason="needs Triton")


def called(op: Any, formats: Any, *arrays: Any, rung: str | None = None, **params: Any) -> Any:
    """The op on the device, its result on the host."""
    given = tuple(None if a is None else gpu.to_device(a) for a in arrays)
    with dispatch.use(**({op.name: rung} if rung else {})):
        return gpu.to_host(dispatch.call(op, formats, given, params)[0])


@pytest.mark.parametrize("accumulator", [None, "int64"])
def test_bytes_are_summed_in_chunks(accumulator: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of bytes beyond 2^15 steps, where one more chunk of 100 is left, at the ends of the codes' range."""
    if (
        gpu.mode() == "emulated"
    ):  # larger blocks of k than a device has room for: the interpreter takes its time for each
        from ulpgrad.kernels.matmul import triton_configs as configs

        monkeypatch.setattr(configs, "choose", lambda *_: configs.Config(16, 32, 4096, 4, 1))
    k = (1 << 15) + 100
    a, b = np.full((1, k), -32768, np.int16), np.full((k, 2), [[-32768, 32767]], np.int16)
    a[0, ::3] = 32767
    found = called(integer.integer_matmul, (int16, int16), a, b, rung="cuda/triton-bytes", accumulator=accumulator)
    wanted = (a.astype(np.int64) @ b.astype(np.int64)).astype(found.dtype)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("rung", ["cuda/triton-bytes", "cuda/triton-steps"])
def test_overflow_is_told(rung: str) -> None:
    a, b = np.array([[1, 1], [100, 100]], np.int8), np.array([[1, 2], [1, 100]], np.int8)
    how = Accumulator(12, overflow="raise", chunk=2)
    with pytest.raises(AccumulatorError, match=r"result \(1, 1\) leaves its 12-bit accumulator") as error:
        called(integer.integer_matmul, (int8, int8), a, b, rung=rung, accumulator=how)
    assert (error.value.index, error.value.k) == ((1, 1), 0)


@pytest.mark.parametrize("form", [float8_e4m3fn, float8_e5m2], ids=str)
@pytest.mark.parametrize("rung", ["cuda/triton-grouped", "cuda/triton-float8"])
def test_results_overflow_as_their_format_does(form: Any, rung: str) -> None:
    """Every value of the format times one; and products at, between and beyond the largest values."""
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = called(spec.matmul, (form, form), codes, form.encode(np.eye(16)), rung=rung)
    values = form.decode(codes)
    finite = np.isfinite(values).all(axis=1)  # elsewhere a row meets NaN or infinity times zero
    np.testing.assert_array_equal(form.decode(found)[finite], values[finite])
    factors = form.max / 16 * np.linspace(0.5, 1.2, 16)[None, :]
    a, b = form.encode(np.eye(16) * 16), form.encode(np.broadcast_to(factors, (16, 16)))
    want = form.encode(16 * form.decode(b).astype(np.float64))
    np.testing.assert_array_equal(form.decode(called(spec.matmul, (form, form), a, b, rung=rung)), form.decode(want))


@pytest.mark.parametrize("form", [float8_e4m3fn, float8_e5m2], ids=str)
def test_nan_has_the_code_of_a_cast(form: Any) -> None:
    """float8_e5m2 has several codes for it."""
    a = form.encode(np.where(np.eye(16) > 0, np.nan, 1.0))
    found = called(spec.matmul, (form, form), a, form.encode(np.ones((16, 16))), rung="cuda/triton-grouped")
    np.testing.assert_array_equal(found & 0x7F, np.full((16, 16), form.nan_code & 0x7F))


@pytest.mark.parametrize(("capability", "rows"), [(86, 80), (89, 80), (90, 90), (103, 90), (120, 80), (121, 80)])
def test_small_cards_of_new_architectures_get_small_tiles(
    capability: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sm_120 has the shared memory of sm_89, in which no tile for sm_90 has room."""
    from ulpgrad.kernels.attention import triton_split, triton_tuned
    from ulpgrad.kernels.blocks import triton_scaled
    from ulpgrad.kernels.matmul import triton_configs, triton_persistent

    monkeypatch.setattr(gpu, "capability", lambda: capability)
    assert triton_configs.table("half") == triton_configs.TABLE[rows, "half"]
    q = np.zeros(1, np.uint16)
    assert triton_tuned.blocks_for(triton_tuned.FORWARD, q, 128) == triton_tuned.FORWARD[rows, 16][128]
    assert triton_split.tile_for(q, 128) == triton_split.TILES[rows, 16][128]
    assert ("shared memory of sm_90" in triton_persistent.refusal(None, 2)) == (rows < 90)
    form = as_format("mxfp8_e4m3")
    request = Request(blocks.block_matmul, "cuda", (), (), {"a_format": form, "b_format": form})
    assert (triton_scaled._units(request) is None) == (100 <= capability < 120)


def test_factor_is_float64() -> None:
    """Triton passes floats as float32."""
    x, weight = np.ones((2, 1)), np.ones((3, 1))
    found = called(spec.linear, (float64,) * 2 + (None,) * 3, x, weight, None, None, None, factor=-0.1)
    np.testing.assert_array_equal(found, np.full((2, 3), -0.1))


@pytest.mark.parametrize(
    ("a", "b", "form", "rung"),
    [
        ((32, 64), (64, 32), float16, "cuda/triton-persistent"),
        ((5, 32, 64), (64, 32), float16, "cuda/triton-persistent"),
        ((5, 32, 64), (5, 64, 32), float32, "cuda/triton-persistent"),
        ((32, 60), (60, 32), float16, "cuda/triton-grouped"),  # rows of 120 bytes
        ((32, 64), (64, 33), float16, "cuda/triton-grouped"),
        ((2, 3, 32, 64), (3, 64, 32), float16, "cuda/triton-grouped"),  # two leading axes that do not fold
        ((0, 64), (64, 32), float16, "cuda/triton-grouped"),
        ((1, 64), (64, 32), float16, "cuda/triton-vector"),
        ((32, 64), (64, 1), float32, "cuda/triton-vector"),
        ((32, 64), (64, 32), float8_e4m3fn, "cuda/triton-float8"),
        ((32, 64), (64, 32), float64, "cuda/triton-plain"),
    ],
    ids=str,
)
def test_choice_by_layout(a: tuple[int, ...], b: tuple[int, ...], form: Any, rung: str) -> None:
    """What is chosen among Triton's rungs; twice, since the choice is remembered by its key."""
    arrays = tuple(gpu.xp().zeros(shape, form.storage) for shape in (a, b))
    request = Request(spec.matmul, "cuda", (form, form), arrays, {})
    taken = [c for c in registry.explain(request) if c.refusal is None and c.rung.name.startswith("cuda/triton")]
    assert taken[0].rung.name == rung


def test_a_choice_is_not_kept_for_another_layout() -> None:
    rng = np.random.default_rng(0)
    for shape in ((16, 64, 32), (16, 63, 32), (1, 64, 32), (16, 64, 33), (16, 64, 1), (16, 64, 32)):
        m, k, n = shape
        a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
        np.testing.assert_allclose(called(spec.matmul, (float32, float32), a, b), a @ b, rtol=1e-4, atol=1e-4)


def test_tiles_are_walked_once_each() -> None:
    """The grouped order is a permutation of the tiles, with columns of at most GROUP tiles."""
    if gpu.mode() != "emulated":
        pytest.skip("reads the order in the interpreter")
    from ulpgrad.kernels.matmul import triton_configs as configs

    rng = np.random.default_rng(0)
    a, b = rng.integers(-3, 4, (130, 16)).astype(np.float16), rng.integers(-3, 4, (16, 96)).astype(np.float16)
    with pytest.MonkeyPatch.context() as patch:
        for group in (2, 8):
            patch.setattr(configs, "choose", lambda *_, group=group: configs.Config(32, 32, 32, 4, 3, group))
            for rung in ("cuda/triton-grouped", "cuda/triton-persistent"):
                found = called(spec.matmul, (float16, float16), a, b, rung=rung)
                np.testing.assert_array_equal(found, (a.astype(np.float32) @ b).astype(np.float16))


def test_an_unknown_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULPGRAD_FLOAT32_MATMUL", "bf16")
    a = np.ones((16, 16), np.float32)
    with pytest.raises(ArgumentError, match="ULPGRAD_FLOAT32_MATMUL='bf16': expected one of tf32x3, ieee, tf32"):
        called(spec.matmul, (float32, float32), a, a, rung="cuda/triton-grouped")


SPLIT = [(64, 64, 8192, 16), (64, 64, 8193, 1), (16, 512, 4096, 8), (1024, 1024, 8192, 1), (65, 64, 1 << 20, 32), (8, 8, 512, 1),
         (0, 8, 4096, 1)]  # fmt: skip


@pytest.mark.parametrize(("m", "n", "k", "parts"), SPLIT)
def test_long_sums_are_split_where_tiles_are_few(
    m: int, n: int, k: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "processors", lambda: 132)
    assert strided.parts_of(m, n, k) == parts


@pytest.mark.parametrize("form", [float32, float16], ids=str)
def test_split_sums(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """More parts than the emulated device has processors for, operands that lie any way, a residual of another layout; the
    same bits again, for parts are added in one order."""
    monkeypatch.setattr(gpu, "processors", lambda: 8)
    rng = np.random.default_rng(0)
    x, weight = (form.encode(rng.standard_normal(s)) for s in ((3, 5, 4096), (4096, 37)))
    bias, residual = (
        form.encode(rng.standard_normal(37)),
        form.encode(rng.standard_normal((37, 3, 5))).transpose(1, 2, 0),
    )
    arrays = (x, weight.T, bias, None, residual)
    formats = tuple(None if a is None else form for a in arrays)
    found = [
        called(spec.linear, formats, *arrays, rung="cuda/triton-split", activation="relu", factor=0.25)
        for _ in range(2)
    ]
    exact = [None if a is None else a.astype(np.float64) for a in arrays]
    wanted = spec.linear_reference(*exact, activation="relu", factor=0.25)  # type: ignore[arg-type]
    np.testing.assert_allclose(found[0].astype(np.float64), wanted, rtol=2e-3 if form is float16 else 1e-5, atol=1e-4)
    assert found[0].tobytes() == found[1].tobytes()


def test_large_results_are_not_split() -> None:
    rung = next(r for r in registry.ladder(spec.matmul, "cuda") if r.name == "cuda/triton-split")
    a = gpu.xp().zeros((1024, 1024), np.float32)
    assert "few results" in str(rung.refusal(Request(spec.matmul, "cuda", (float32, float32), (a, a), {})))
