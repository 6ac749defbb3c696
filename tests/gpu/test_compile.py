"""Every Triton rung, compiled for GPUs that are not there: it compiles for each architecture, spills nothing beyond what is said
here, fits into shared memory, and has matrix instructions where it is meant to."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.errors import AccumulatorError, FormatError
from ulpgrad.formats import Format, as_format
from ulpgrad.kernels import gpu, registry, triton_compile
from ulpgrad.kernels.attention.spec import Dropout
from ulpgrad.kernels.registry import Request, Rung
from ulpgrad.kernels.spec import Op, Sample

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_kernels import OPS, claimed, meant, operands, samples_of

SHARED = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10}  # bytes a block may have
LARGE = "large"
SAMPLES = 2  # of each op in the first format of a rung, beside its sizes below; the most general one in the others
SPILLS = {
    "attention_product": 208,  # float32 of any strides, most on sm_90: three products for one; float64 on sm_80 16
    "conv_weights": 16,  # float64 on sm_90, the same
    "attention_keys_gradient_tuned": 64,  # causal, heads of 16: two loops over queries, in float32 with three products for one
    "attention_queries_gradient_tuned": 16,  # the same with its one loop, by Triton 3.6 for sm_90
    "attention_softmax": 16,  # on sm_80, a dropped softmax of any sizes: two scalars
    "attention_split": 48,  # float32 heads of 256: three products for one; most by Triton 3.6 for sm_80
    "multiply": 16,  # for sm_90: float32 as three products, with random words behind them: two scalars
    "pool_max": 16,  # on sm_80, of sizes that are no multiples of 16: two values
    "_pool": 16,  # the same, of codes of 16 bits
    "recurrent_step": 16,  # float64 on sm_90, of any sizes: a value
    "_affine": 16,  # by Triton 3.6, to codes of 32 bits: a value
    "attention_keys_gradient": 32,  # by Triton 3.6: dropped weights in float32, three products for one
    "multiply_add": 16,  # on sm_80: a scalar or two of a loop over k that is unrolled
}  # bytes by kernel: an allowance, with the reason beside it

RUNGS = [
    (op, rung) for op in OPS.values() for rung in registry.ladder(op, "cuda") if rung.name.startswith("cuda/triton")
]


def tried(op: Op, rung: Rung) -> list[Format]:
    """What a rung is compiled in: all that it claims. Of elementwise kernels, which are many, the widest floats and integers, as
    these take the most registers."""
    forms = list(claimed(op, rung))
    return forms if op.family != "elementwise" else [f for f in forms if f.name in ("float64", "int64")] or forms[:1]


CASES = [pytest.param(op, rung, f, id=f"{op.name}-{rung.name}-{f.name}") for op, rung in RUNGS for f in tried(op, rung)]


def large(op: Op) -> Iterator[Sample]:
    """Calls of the size that a rung is made for: what it is tuned for is chosen by size."""

    def of(*shapes: Any, **params: Any) -> Sample:
        return Sample(tuple(None if s is None else np.broadcast_to(np.float64(0), s) for s in shapes), params, LARGE)

    match op.name:
        case "matmul":
            yield of((4096, 4096), (4096, 4096))
        case "matmul_stochastic":
            yield of((4096, 4096), (4096, 4096), dtype=as_format("bfloat16"), key=1, counter=0, random_bits=24)
        case "linear":
            yield of((4096, 1024), (4096, 1024), (4096,), None, None, activation="gelu")
        case "softmax" | "log_softmax":
            yield of((1024, 4096), axis=1)


def zeros(sample: Sample, form: Format) -> tuple[tuple[Any, ...], tuple[Format | None, ...]]:
    """Stored operands of a sample's shapes: what they hold does not matter, and to round millions of values takes long."""
    arrays = tuple(None if a is None else np.zeros(a.shape, form.storage) for a in sample.arrays)
    return arrays, tuple(None if a is None else form for a in arrays)


def asked(op: Op, rung: Rung, form: Format, sample: Sample) -> list[tuple[Any, ...]]:
    """What the rung would launch on a sample, as arguments of `triton_compile.run`; nothing where it does not take it."""
    given = zeros(sample, form) if sample.name == LARGE else operands(op, sample, form, "contiguous")
    if given is None or any(a is not None and np.size(a) == 0 for a in given[0]):
        return []
    arrays, formats = given
    params = dict(sample.params)
    if not meant(op, arrays, formats, params, form):
        return []
    common = dispatch._promoted(op, formats)
    on_gpu = tuple(None if a is None else gpu.xp().asarray(a) for a in arrays)
    request = Request(op, "cuda", common, on_gpu, params)
    if any(c is not f for c, f in zip(common, formats, strict=True)) or rung.refusal(request):
        return []
    found: list[tuple[Any, ...]] = []
    with pytest.MonkeyPatch.context() as patch, dispatch.use(**{op.name: rung.name}):
        patch.setattr(triton_compile, "run", lambda *call: found.append(call))
        with contextlib.suppress(FormatError, AccumulatorError):  # of values that were never computed
            dispatch.make_plan(op, "cuda:0", formats, on_gpu, params).run(*on_gpu, **params)
    return found


def fixed(calls: list[tuple[Any, ...]]) -> tuple[int, int]:
    """How many numbers Triton would take for a constant, as it does with 1, and how many for multiples of 16."""
    numbers = [a for _, _, arguments, _ in calls for a in arguments if type(a) is int]
    return sum(n == 1 for n in numbers), sum(n % 16 == 0 for n in numbers)


def leaves_out(sample: Sample) -> tuple[Any, ...]:
    """Which operands and parameters a sample does without: what leaves out the same goes the same way."""
    return tuple(a is None for a in sample.arrays), {k for k, v in sample.params.items() if v is None or v is False}


def launched(op: Op, rung: Rung, form: Format) -> list[triton_compile.Launch]:
    """What the rung launches on large samples, on the first of the others, and before it on the most general one of its kind, of
    which Triton takes the fewest numbers for constants."""
    is_first = form is tried(op, rung)[0] and op.family != "elementwise"
    most = (SAMPLES if is_first else 1) + len(list(large(op)))
    chosen, others = (
        [(sample, calls) for sample in samples if (calls := asked(op, rung, form, sample))]
        for samples in (large(op), samples_of(op))
    )
    if others:
        alike = [i for i, (sample, _) in enumerate(others) if leaves_out(sample) == leaves_out(others[0][0])]
        others.insert(0, others.pop(min(alike, key=lambda i: fixed(others[i][1]))))
    triton_compile.launches.clear()
    for _, calls in (*chosen, *others)[:most]:
        for call in calls:
            triton_compile.run(*call)
    return list(triton_compile.launches)


def used(launch: triton_compile.Launch) -> dict[str, int]:
    """What a thread takes, as the assembler counted: registers (REG), bytes of memory in their place (STACK, LOCAL)."""
    key = launch.compiled.hash
    if key not in _used:
        tool = Path(sys.modules["triton"].__file__).parent / "backends/nvidia/bin/cuobjdump"  # type: ignore[arg-type]
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(launch.compiled.asm["cubin"])
            file.flush()
            told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        _used[key] = {name: int(count) for name, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", told)}
    return _used[key]


_used: dict[str, dict[str, int]] = {}


@pytest.mark.parametrize(("op", "rung", "form"), CASES)
def test_rung_compiles(op: Op, rung: Rung, form: Format) -> None:
    found = launched(op, rung, form)
    if not found:
        pytest.skip("launches nothing on these samples")
    check(found)


DRAWN = [pytest.param(op, rung, id=f"{op.name}-{rung.name}") for op, rung in RUNGS if not rung.formats]


@pytest.mark.parametrize(("op", "rung"), DRAWN)
def test_rung_without_operands_compiles(op: Op, rung: Rung) -> None:
    """What is drawn, in every format of results."""
    triton_compile.launches.clear()
    samples = {sample.params.get("dtype"): sample for sample in op.samples() if sample.params["size"] == 17}
    for sample in samples.values():
        rung.run(**sample.params)
    assert len(triton_compile.launches) >= len(samples)
    check(triton_compile.launches)


def check(found: list[triton_compile.Launch], allowed: int = 0) -> None:
    """No launch takes more than there is, or spills more than its allowance or this one."""
    for launch in found:
        name = f"{launch.kernel} for sm_{launch.arch}, {launch.constants}"
        assert launch.compiled.metadata.shared <= SHARED[launch.arch], (
            f"{name}: {launch.compiled.metadata.shared} bytes shared"
        )
        spilled = used(launch)["STACK"] + used(launch)["LOCAL"]
        assert spilled <= max(allowed, SPILLS.get(launch.kernel, 0)), f"{name} spills {spilled} bytes"


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("form", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", [80, 90])
def test_heads_of_attention_compile(arch: int, form: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the sizes that blocks are chosen for: within a window, and causal where two loops take more registers."""
    monkeypatch.setattr(gpu, "capability", lambda: arch)
    monkeypatch.setattr(triton_compile, "architectures", lambda: [arch])
    triton_compile.launches.clear()
    x = gpu.xp().zeros((1, 2, 300, size), np.float32 if form == "float32" else np.uint16)
    lse = gpu.xp().zeros((1, 2, 300), np.float32)
    for name, arrays in (("attention", (x, x, x, None)), ("attention_gradient", (x, x, x, x, None, x, lse))):
        rungs = {rung.name: rung for rung in registry.ladder(OPS[name], "cuda")}
        fused, tuned = rungs["cuda/triton-fused"], rungs["cuda/triton-tuned"]
        for rung, window in ((fused, (100, 20)), (tuned, (100, 20)), (tuned, None)):
            rung.run(*arrays, is_causal=True, scale=0.1, window=window)
    # Three products for one in float32: of 256 features even a block of 16 rows fills the registers; else a few scalars spill.
    check(triton_compile.launches, 384 if (form, size) == ("float32", 256) else 32)


@pytest.mark.parametrize(("size", "keys"), [(64, 300), (64, 301), (128, 300), (256, 300)])
@pytest.mark.parametrize("form", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", [80, 90])
def test_dropout_in_attention_compiles(
    arch: int, form: str, size: int, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rows of weights that are whole blocks of words, and others."""
    monkeypatch.setattr(gpu, "capability", lambda: arch)
    monkeypatch.setattr(triton_compile, "architectures", lambda: [arch])
    triton_compile.launches.clear()
    x, y = (gpu.xp().zeros((1, 2, n, size), np.float32 if form == "float32" else np.uint16) for n in (keys, 300))
    lse = gpu.xp().zeros((1, 2, 300), np.float32)
    params = {"is_causal": True, "scale": 0.1, "dropout": Dropout(0.1, 5, 7)}
    for name, arrays in (("attention", (y, x, x, None)), ("attention_gradient", (y, y, x, x, None, y, lse))):
        for rung in registry.ladder(OPS[name], "cuda"):
            if rung.name == "cuda/triton-tuned" or (rung.name == "cuda/triton-fused" and size < 256):
                rung.run(*arrays, **params)
    # As above; float32's gradient of queries for sm_90 spills ten scalars by Triton 3.6, and 26 where rows of weights begin
    # within a block of words, of which twice as many are drawn.
    allowed = 112 if form == "float32" and keys % 4 else 48
    check(triton_compile.launches, 384 if (form, size) == ("float32", 256) else allowed)


@pytest.mark.parametrize("window", [None, (256, 0)], ids=["causal", "window"])
@pytest.mark.parametrize(("arch", "instruction"), [(80, "mma.sync"), (90, "wgmma.mma_async")])
def test_attention_multiplies_on_matrix_units(
    arch: int, instruction: str, window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is tuned for each architecture, at the size of head that it is tuned for."""
    monkeypatch.setattr(gpu, "capability", lambda: arch)
    monkeypatch.setattr(triton_compile, "architectures", lambda: [arch])
    triton_compile.launches.clear()
    x, lse = gpu.xp().zeros((1, 2, 1024, 128), np.uint16), gpu.xp().zeros((1, 2, 1024), np.float32)
    params = {"is_causal": True, "scale": 0.1, "window": window}
    for name, arrays in (("attention", (x, x, x, None)), ("attention_gradient", (x, x, x, x, None, x, lse))):
        rung = next(r for r in registry.ladder(OPS[name], "cuda") if r.name == "cuda/triton-tuned")
        rung.run(*arrays, **params)
    products = [launch for launch in triton_compile.launches if launch.kernel != "attention_delta"]
    assert len(products) == 3
    for launch in products:
        assert instruction in launch.compiled.asm["ptx"], launch.kernel
        assert used(launch)["STACK"] + used(launch)["LOCAL"] == 0, f"{launch.kernel} spills"
        assert launch.compiled.metadata.shared <= SHARED[arch], launch.kernel


@pytest.mark.parametrize("rows", [4, 64])
@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("form", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", [80, 90])
def test_shared_out_keys_compile(arch: int, form: str, size: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token of heads that share keys, and as many rows of queries as there may be, plain, and causal with lengths."""
    monkeypatch.setattr(gpu, "capability", lambda: arch)
    monkeypatch.setattr(triton_compile, "architectures", lambda: [arch])
    triton_compile.launches.clear()
    stored, xp = np.float32 if form == "float32" else np.uint16, gpu.xp()
    q, k = xp.zeros((2, 8, max(1, rows // 4), size), stored), xp.zeros((2, 2, 4096, size), stored)
    rung = next(r for r in registry.ladder(OPS["attention"], "cuda") if r.name == "cuda/triton-split")
    rung.run(q, k, k, None, is_causal=False, scale=0.1)
    lengths = xp.zeros((2,), np.int64)
    rung.run(q, k, k, None, lengths, lengths, is_causal=True, scale=0.1, lower_right=True)
    check(triton_compile.launches, 0)
    shared_out = [launch for launch in triton_compile.launches if launch.kernel == "attention_split"]
    assert len(shared_out) == 2
    assert len(triton_compile.launches) == 4  # and a join of each
    for launch in shared_out:
        assert "mma.sync" in launch.compiled.asm["ptx"] or "wgmma.mma_async" in launch.compiled.asm["ptx"], (
            launch.kernel
        )


@pytest.mark.parametrize("name", ["sgd_step", "adam_step", "adagrad_step", "rmsprop_step", "sum_of_squares"])
def test_factors_of_gradients_are_products_of_their_own(name: str) -> None:
    """Steps that scale and switch compile without spills, and join no product with a sum: a factor rounds as in its own pass."""
    op = OPS[name]
    rung = next(r for r in registry.ladder(op, "cuda") if r.name.startswith("cuda/triton"))
    for form in claimed(op, rung):
        triton_compile.launches.clear()
        sample = next(s for s in op.samples() if s.arrays[-1] is not None and s.arrays[-1].size == 3)
        arrays, formats = operands(op, sample, form, "contiguous")
        on_gpu = tuple(None if a is None else gpu.xp().asarray(a) for a in arrays)
        dispatch.make_plan(op, "cuda:0", formats, on_gpu, dict(sample.params)).run(*on_gpu, **sample.params)
        found = list(triton_compile.launches)
        assert found
        check(found)
        for launch in found if name.endswith("step") else ():
            assert "fma." not in launch.compiled.asm["ptx"], f"{launch.kernel} for sm_{launch.arch}"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("arch", [80, 90])
def test_attention_of_8_bits_compiles(arch: int, size: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each size of head, causal and not, with a mask and scales of heads and without: nothing spills, and scores come
    from units for 8 bits where these are meant."""
    monkeypatch.setattr(gpu, "capability", lambda: arch)
    monkeypatch.setattr(triton_compile, "architectures", lambda: [arch])
    triton_compile.launches.clear()
    q = gpu.xp().zeros((1, 2, 1024, size), np.uint8)
    op, form = OPS["attention_float8"], as_format("float8_e4m3fn")
    (rung,) = registry.ladder(op, "cuda")
    run = rung.run(Request(op, "cuda", (form,) * 3, (q, q, q), {}))
    mask, scales = gpu.xp().zeros((1024, 1024), np.bool_), gpu.xp().zeros((1, 2, 2), np.int32)
    for causal in (True, False):
        run(q, q, q, is_causal=causal, scale=0.1, dtype=as_format(dtype))
        run(q, q, q, mask, scales, is_causal=causal, scale=0.1, dtype=as_format(dtype))
    check(triton_compile.launches)
    for launch in triton_compile.launches:
        text = launch.compiled.asm["ptx"]
        in_8_bits = re.search(r"wgmma\.mma_async\S*k32\.f32\.e4m3\.e4m3", text) is not None
        assert in_8_bits == (arch == 90 and dtype == "bfloat16")
        assert re.search(r"wgmma\.mma_async\S*k16\.f32\.f16" if arch == 90 else r"mma\.sync\S*f32\.f16", text)


def test_draws_of_a_graph_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a graph is going to be captured, key and counter lie in memory."""
    monkeypatch.setattr(gpu.state, "rehearsed", {(1, 2)})
    triton_compile.launches.clear()
    x = gpu.xp().zeros(100, np.float32)
    for op, arrays, params in (
        ("dropout", (x,), {"p": 0.5}),
        ("random_normal", (), {"size": 100, "dtype": as_format("float32")}),
    ):
        given = {**params, "key": 1, "counter": 2}
        forms = tuple(as_format("float32") for _ in arrays)
        dispatch.make_plan(OPS[op], "cuda:0", forms, arrays, given).run(*arrays, **given)
    found = list(triton_compile.launches)
    assert {launch.kernel for launch in found} == {"_dropout", "_normal"}
    for launch in found:
        assert [launch.signature[name] for name in ("k0", "k1", "c0", "c1", "c2", "c3")] == ["*i64"] * 6
    check(found)
