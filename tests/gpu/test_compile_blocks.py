"""Every configuration of the products of matrices in blocks, compiled for GPUs that are not there: nothing spills, and the units
that are meant multiply."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad.formats import Block, bfloat16, float8_e4m3fn, float8_e5m2, float32
from ulpgrad.kernels import gpu, triton_compile
from ulpgrad.kernels.blocks import triton_blocks, triton_scaled, triton_unpacked
from ulpgrad.kernels.matmul import triton_configs as configs

sys.path.insert(0, str(Path(__file__).parent))
from test_compile_matmul import SHARED, used

WIDENED = {True: r"wgmma\.mma_async\S*\.m64n\d+k16\.f32\.f16", False: r"mma\.sync\S*m16n8k16\.row\.col\.f32\.f16"}
FLOAT8 = {True: r"wgmma\.mma_async\S*\.m64n\d+k32\.f32\.e4m3\.e5m2", False: r"mma\.sync\S*m16n8k(16|32)\.row\.col\.f32"}
SCALED = r"tcgen05\.mma\S*mxf8f6f4\.block_scale"
E4M3, E5M2 = Block(float8_e4m3fn), Block(float8_e5m2)

CASES = [
    pytest.param(run, kind, arch, turned, config, id=f"{name}-sm_{arch}-{'kn'[not turned]}-{'x'.join(map(str, config))}")
    for name, run, kind, archs in (
        ("blocks", triton_blocks.run, "blocks", (80, 90)),
        ("float8", triton_blocks.run_float8, "blocks, float8", (90,)),
        ("scaled", triton_scaled.run, "blocks, scaled", (100,)),
    )
    for arch in archs for config in configs.TABLE[arch, kind] for turned in (True, False)
]  # fmt: skip


def operands(turned: bool) -> tuple[Any, ...]:
    """Codes and scales of two matrices; turned, of which the right one lies along k."""
    xp = gpu.xp()
    a, a_scales = xp.zeros((512, 512), np.uint8), xp.zeros((512, 16), np.uint8)
    return (a, a_scales, a.T, a_scales.T) if turned else (a, a_scales, a, xp.zeros((16, 512), np.uint8))


@pytest.mark.parametrize(("run", "kind", "arch", "turned", "config"), CASES)
def test_configuration(
    run: Any, kind: str, arch: int, turned: bool, config: configs.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULPGRAD_CUDA_ARCH", str(arch))
    triton_compile.launches.clear()
    with configs.forced(config):
        run(*operands(turned), a_format=E4M3, b_format=E5M2, dtype=bfloat16)
    (launch,) = triton_compile.launches
    needs = used(launch.compiled)
    assert needs["STACK"] + needs["LOCAL"] == 0, needs
    assert launch.compiled.metadata.shared <= SHARED.get(arch, SHARED[90])
    large = arch == 90 and config.m >= 64
    meant = SCALED if kind == "blocks, scaled" else (FLOAT8 if "float8" in kind else WIDENED)[large]
    text = launch.compiled.asm["ptx"]
    assert re.search(meant, text), re.findall(r"\S*mma\S*", text)[:3]


@pytest.mark.parametrize("arch", [80, 90])
def test_unpacked(arch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes that write bfloat16, and the product of 16-bit floats."""
    monkeypatch.setenv("ULPGRAD_CUDA_ARCH", str(arch))
    monkeypatch.setattr(gpu, "capability", lambda: arch)
    triton_compile.launches.clear()
    triton_unpacked.block_matmul(*operands(True), a_format=E4M3, b_format=E5M2, dtype=float32)
    assert [launch.kernel for launch in triton_compile.launches] == ["_values", "_values", "multiply"]
    for launch in triton_compile.launches:
        needs = used(launch.compiled)
        assert needs["STACK"] + needs["LOCAL"] == 0, needs
