"""Attention in Gluon as machine code for sm_90: the units and the registers that it asks for, and exponentials that stand where a
product is under way. It runs nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from ulpgrad.kernels import gpu, registry, triton_compile
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.triton_gluon import KEYS, ROWS, STAGES

sys.path.insert(0, str(Path(__file__).parent))
from test_compile import SHARED, used

GROUPS, PRODUCTS = 2, 6  # in a group: the first scores, two loops with scores and results, the last results
DEPTH = 16  # values that one instruction sums over


def machine_code(launch: triton_compile.Launch) -> list[str]:
    """Instructions, one a line."""
    tool = Path(sys.modules["triton"].__file__).parent / "backends/nvidia/bin/cuobjdump"  # type: ignore[arg-type]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(launch.compiled.asm["cubin"])
        file.flush()
        told = subprocess.run([tool, "-sass", file.name], capture_output=True, text=True, check=True).stdout
    return re.findall(r"/\*[0-9a-f]{4,}\*/\s+([^;]+);", told)


@pytest.mark.parametrize(
    ("width", "form", "causal"),
    [(64, "float16", True), (64, "bfloat16", False), (128, "bfloat16", True), (128, "float16", False)],
)
def test_launch(width: int, form: str, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "capability", lambda: 90)
    monkeypatch.setattr(triton_compile, "architectures", lambda: [90])
    triton_compile.launches.clear()
    rung = next(r for r in registry.ladder(spec.attention, "cuda") if r.name == "cuda/triton-gluon")
    q = gpu.xp().zeros((2, 4, 300, width), np.float16 if form == "float16" else np.uint16)
    rung.run(q, q[:, :2], q[:, :2], None, is_causal=causal, scale=0.1)
    (launch,) = triton_compile.launches
    assert launch.grid == (3 * 2 * 4,)
    assert launch.compiled.metadata.num_warps == 12, "two groups, and a third of which one warp loads"
    assert used(launch)["STACK"] + used(launch)["LOCAL"] == 0, "it spills"
    held = (2 * ROWS + 2 * STAGES * KEYS) * width * 2
    assert held <= launch.compiled.metadata.shared <= min(held + 4096, SHARED[90])
    code = machine_code(launch)
    products = [line for line in code if "HGMMA" in line]
    scores, results = width // DEPTH, KEYS // DEPTH
    assert len(products) == GROUPS * (3 * scores + 3 * results)
    ends = [line for line in products if "gsb0" in line]
    assert len(ends) == GROUPS * PRODUCTS, "the assembler made products wait for each other"
    lines = width * 2 // 128  # copies of a block, whose lines are of 128 bytes
    assert sum("UTMALDG.4D" in line for line in code) == 4 * lines
    assert sum("UTMASTG.4D" in line for line in code) == GROUPS  # a warp for each copy
    registers = {int(line.split()[-1], 16) for line in code if "USETMAXREG" in line}
    assert {240, 24} <= registers
    for count in overlaps(code):
        assert count >= KEYS * ROWS // 128, (
            "exponentials stand behind the wait for the product that they are to overlap"
        )


def overlaps(code: list[str]) -> list[int]:
    """Exponentials between the wait for scores and that for results, for each loop of each group."""
    found, count = [], -1
    for line in code:
        if "DEPBAR.LE gsb0, 0x1" in line:
            count = 0
        elif "DEPBAR.LE gsb0, 0x0" in line and count >= 0:
            found.append(count)
            count = -1
        elif "MUFU.EX2" in line and count >= 0:
            count += 1
    assert len(found) == GROUPS * 2
    return found
