"""Every configuration of Triton's matrix products, compiled for GPUs that are not there: registers suffice, shared memory does,
and products are the instructions that are meant."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad.formats import Format, as_format, float32, int8
from ulpgrad.kernels import gpu, triton_compile
from ulpgrad.kernels.integer import triton_bytes
from ulpgrad.kernels.integer.accumulator import INT32, INT64, Accumulator
from ulpgrad.kernels.matmul import (
    triton_configs as configs,
    triton_float8,
    triton_grouped,
    triton_operands as operands,
    triton_persistent,
    triton_plain,
)  # fmt: skip
from ulpgrad.kernels.requantize import triton_linear

SHARED = {80: 163 << 10, 90: 227 << 10}
STACK = 16  # bytes: a few scalars of three products of tf32, which no loop touches
LAYOUTS = {"nn": (False, False), "nt": (False, True), "tt": (True, True)}  # which operands are transposed

# Products of what is at least as large as a warp group's tile (64 rows), and of smaller ones, which go to mma.sync on Hopper too.
LARGE = {
    90: {
        "half": r"wgmma\.mma_async\S*\.m64n\d+k16\.f32\.b?f16", "single": r"wgmma\.mma_async\S*\.m64n\d+k8\.f32\.tf32",
        "float8": r"wgmma\.mma_async\S*\.m64n\d+k32\.f32\.e[45]m[32]", "bytes": r"wgmma\.mma_async\S*\.m64n\d+k32\S*\.s32\.s8",
    },
}  # fmt: skip
SMALL = {
    "half": r"mma\.sync\S*m16n8k16\.row\.col\.f32\.b?f16", "single": r"mma\.sync\S*m16n8k8\.row\.col\.f32\.tf32",
    "float8": r"mma\.sync\S*m16n8k(16|32)\.row\.col\.f32", "bytes": r"mma\.sync\S*m16n8k32\.row\.col\S*\.s32\.s8",
    "double": r"mma\.sync\S*m8n8k4\.row\.col\.f64", "ieee": r"fma\.rn\.f32",
}  # fmt: skip


def meant(kind: str, arch: int, config: configs.Config) -> str:
    """The instruction that multiplies."""
    name = {"words": "bytes", "exact": "bytes", "float8, unpromoted": "float8"}.get(kind, kind)
    return LARGE.get(arch, {}).get(name, SMALL[name]) if config.m >= 64 else SMALL[name]


def rows() -> Iterator[Any]:
    """rung, kind of configurations, formats of the operands, architecture, layout."""
    for form in ("bfloat16", "float32"):
        for arch in (80, 90):
            kind = configs.kind(as_format(form))
            yield triton_grouped.run, kind, form, form, arch, "nn"
            yield triton_plain.run, "ieee" if form == "float32" else kind, form, form, arch, "nt"
        yield triton_persistent.run, kind, form, form, 90, "nn"
    yield triton_plain.run, "double", "float64", "float64", 80, "nn"
    for rung in (triton_grouped.run, triton_persistent.run):
        yield rung, "half", "float16", "float16", 90, "tt"
    yield triton_grouped.run, "float8", "float8_e4m3fn", "float8_e4m3fn", 90, "nt"
    yield triton_float8.promoted, "float8", "float8_e4m3fn", "float8_e4m3fn", 90, "nt"
    yield triton_float8.unpromoted, "float8, unpromoted", "float8_e5m2", "float8_e5m2", 90, "nt"
    for arch in (80, 90):
        yield lambda p: triton_bytes.run(p, INT32), "bytes", "int8", "int32", arch, "nt"
        yield lambda p: triton_bytes.run(p, INT32), "words", "int16", "int32", arch, "nt"
        yield lambda p: triton_bytes.run(p, INT64), "exact", "int16", "int64", arch, "nt"


CASES = [
    pytest.param(run, kind, as_format(form), as_format(out), arch, layout, config,
                 id=f"{run.__module__.rsplit('.', 1)[-1]}-{form}-{layout}-sm_{arch}-{'x'.join(map(str, config))}")
    for run, kind, form, out, arch, layout in rows()
    for config in configs.TABLE.get((arch, kind), configs.TABLE.get((80, kind), ()))
]  # fmt: skip


def used(compiled: Any) -> dict[str, int]:
    """Registers of a thread (REG), and bytes of memory in their place (STACK, LOCAL), as the assembler counted."""
    tool = Path(sys.modules["triton"].__file__).parent / "backends/nvidia/bin/cuobjdump"  # type: ignore[arg-type]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {name: int(count) for name, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", told)}


@pytest.mark.parametrize(("run", "kind", "form", "out", "arch", "layout", "config"), CASES)
def test_configuration(
    run: Any, kind: str, form: Format, out: Format, arch: int, layout: str, config: configs.Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ULPGRAD_CUDA_ARCH", str(arch))
    monkeypatch.setattr(configs, "choose", lambda *_: config)
    a, b = (gpu.xp().empty((512, 512), form.storage) for _ in range(2))
    a, b = (x.T if turned else x for x, turned in zip((a, b), LAYOUTS[layout], strict=True))
    triton_compile.launches.clear()
    run(operands.folded(a, b, form, out))
    (launch,) = triton_compile.launches
    needs = used(launch.compiled)
    assert needs["STACK"] + needs["LOCAL"] <= STACK, needs
    assert launch.compiled.metadata.shared <= SHARED[arch], launch.compiled.metadata.shared
    text = launch.compiled.asm["ptx"]
    assert re.search(meant(kind, arch, config), text), re.findall(r"\S*mma\S*", text)[:3]
    by_blocks = run in (triton_persistent.run, triton_float8.promoted, triton_float8.unpromoted)
    assert ("cp.async.bulk.tensor" in text) == by_blocks, "whether the tensor memory accelerator copies"


ODD = 4099  # nothing is a multiple of 16, so that operands pass through registers value by value


def codes_of_linear(a: Any, b: Any, accumulator: str) -> None:
    """integer_linear, which rounds its sums to codes where they were made."""
    n, xp = len(b), gpu.xp()
    ends = xp.empty(n, np.int32), xp.empty(n, np.int32), xp.empty(n, f"i{int(accumulator[3:]) // 8}")
    triton_linear.integer_linear(
        a, b, *ends, accumulator=accumulator, zero_point=3, low=-128, high=127, ties="even", dtype=int8
    )


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("size", [ODD, 4096])
@pytest.mark.parametrize(("form", "out", "accumulator"), [
    ("bfloat16", "bfloat16", None), ("float32", "float32", None), ("float8_e5m2", "float16", None),
    *[(form, f"int{bits}", accumulator) for form, bits in (("int8", 32), ("int16", 32), ("int16", 64))
      for accumulator in ("plain", "rounded", "linear")],
])  # fmt: skip
def test_chosen_tiles_of_any_size(
    form: str, out: str, accumulator: str | None, size: int, arch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is chosen for large products spills nothing, whether operands are copied in packets or value by value, and whatever is
    done with the sums."""
    monkeypatch.setenv("ULPGRAD_CUDA_ARCH", str(arch))
    monkeypatch.setattr(gpu, "capability", lambda: arch)
    a, b = (gpu.xp().empty((size, size), as_format(form).storage) for _ in range(2))
    triton_compile.launches.clear()
    if accumulator == "linear":
        codes_of_linear(a, b, out)
    else:
        product = operands.folded(a, b, as_format(form), as_format(out))
        bits = int(out[3:]) if accumulator else 0
        chosen = Accumulator(3 * bits // 4, shift=4) if accumulator == "rounded" else INT64 if bits == 64 else INT32
        triton_bytes.run(product, chosen) if accumulator else triton_grouped.run(product)
    (launch,) = triton_compile.launches
    needs = used(launch.compiled)
    assert needs["STACK"] + needs["LOCAL"] <= STACK, (needs, launch.constants)


def test_float32_is_multiplied_as_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly enough by itself, with fewer bits only where a user asked for them."""
    monkeypatch.setenv("ULPGRAD_CUDA_ARCH", "80")
    monkeypatch.setattr(configs, "choose", lambda *_: configs.Config(64, 64, 16, 4, 2))
    a, b = (gpu.xp().empty((512, 512), float32.storage) for _ in range(2))
    products = {}
    for precision in ("", "tf32x3", "tf32", "ieee"):
        if precision:
            monkeypatch.setenv("ULPGRAD_FLOAT32_MATMUL", precision)
        triton_compile.launches.clear()
        triton_grouped.run(operands.folded(a, b, float32))
        (launch,) = triton_compile.launches
        products[precision] = len(re.findall(r"mma\.sync", launch.compiled.asm["ptx"]))
    assert products[""] == products["tf32x3"] >= 3 * products["tf32"] > products["ieee"] == 0
