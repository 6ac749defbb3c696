"""CUDA C++ of convolution and pooling without a GPU: what the compiler makes of it, and what sanitizers say on the host."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ulpgrad.kernels import cuda_compile, cuda_host, registry
from ulpgrad.kernels.cuda_compile import Kernel

compiled = pytest.mark.skipif(cuda_compile.nvrtc_missing() is not None, reason=str(cuda_compile.nvrtc_missing()))
built = pytest.mark.skipif(cuda_host.missing() is not None, reason=str(cuda_host.missing()))

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90a")
for family in ("conv", "integer", "pool", "adaptive_pool"):
    registry.scan(family, "cuda")
KERNELS = [k for k in cuda_compile.declared() if k.source.startswith(("conv_", "pool_"))]
# Registers of a thread and bytes of static shared memory, at most, on every architecture; no kernel spills. By the name
# of a kernel, or of its first instances. With 128 registers a processor holds two blocks of 256 threads; a table of the
# block's geometry is what takes a kilobyte beside dynamic shared memory.
LIMITS = {
    "adaptive_avg_pool": (64, 64),
    "adaptive_avg_pool_gradient": (96, 64),
    "adaptive_max_pool": (64, 64),
    "avg_pool": (64, 64),
    "avg_pool_gradient": (80, 64),
    "avg_pool_runs": (48, 3072),
    "conv_finish": (64, 64),
    "conv_forward_direct": (56, 192),
    "conv_input_gradient_direct": (80, 64),
    "conv_integer<64>": (168, 1024),  # exact sums are read in many at a time; still three blocks of 128 threads
    "conv_integer<128>": (216, 1024),  # and one of 256, as with 140 registers
    "conv_matrix": (160, 1024),
    "conv_matrix<Bfloat16, false, 128>": (128, 1024),
    "conv_matrix<Bfloat16, true, 128>": (128, 1024),
    "conv_matrix<Float16, false, 128>": (128, 1024),
    "conv_matrix<Float16, true, 128>": (128, 1024),
    "conv_matrix<float, ": (232, 1024),
    "conv_registers": (128, 13312),
    "conv_registers<double, ": (216, 26112),
    "conv_tiles": (112, 2560),
    "conv_tiles<double, ": (112, 4672),
    "conv_unfold": (64, 64),
    "conv_warpgroup": (168, 1024),  # 384 threads; those that multiply take 232 of those that the copying ones give back
    "conv_weight_gradient_direct": (64, 64),
    "conv_weight_matrix": (160, 0),
    "conv_weight_matrix<Bfloat16, 128>": (128, 0),
    "conv_weight_matrix<Float16, 128>": (128, 0),
    "conv_weight_matrix<float, ": (176, 0),
    "conv_weight_registers": (128, 13312),
    "conv_weight_registers<double>": (192, 26112),
    "conv_weight_sum": (64, 0),
    "conv_weight_warpgroup": (168, 1024),  # as conv_warpgroup
    "lay_channels_last": (48, 8512),
    "max_pool": (48, 64),
    "max_pool_gradient": (48, 2048),
    "winograd_filters": (64, 64),
    "winograd_images": (64, 64),
    "winograd_results": (64, 64),
}
# Beside products of warp groups: copies by the copy unit (of patches and of filters), barriers that it and threads count
# at, and registers that change hands.
WARPGROUP = ("UTMALDG.4D.IM2COL", "UTMALDG.3D", "SYNCS.ARRIVE.TRANS64", "SYNCS.PHASECHK.TRANS64.TRYWAIT",
             "USETMAXREG.TRY_ALLOC")  # fmt: skip
# What the machine code is to contain: products of matrices, loads of matrices, copies past the registers, packets.
INSTRUCTIONS = {
    "conv_registers": ("FFMA", "LDS.128", "LDG.E.128"),
    "conv_registers<double, ": ("DFMA", "LDS.128", "LDG.E.128"),
    "conv_registers<Float16, ": ("FFMA", "LDS.128", "LDG.E.64"),
    "conv_registers<Bfloat16, ": ("FFMA", "LDS.128", "LDG.E.64"),
    "conv_weight_registers": ("FFMA", "LDS.128"),
    "conv_weight_registers<double>": ("DFMA", "LDS.128"),
    "conv_integer": ("IMMA.16832.S8.S8", "IMMA.16832.U8.U8", "LDSM.16.M88.4", "LDGSTS.E.BYPASS.128"),
    "conv_matrix": ("HMMA.16816.F32", "LDSM.16.M88.4", "LDGSTS.E.BYPASS.128", "STG.E.128"),
    "conv_matrix<float, ": ("HMMA.1688.F32.TF32", "LDSM.16.M88.4", "LDGSTS.E.BYPASS.128", "STG.E.128"),
    **{
        f"conv_warpgroup<{form}, {gradient}, {columns}>": (f"HGMMA.64x{columns}x16.F32{kind}", *WARPGROUP, "STG.E.128")
        for form, kind in (("Float16", ""), ("Bfloat16", ".BF16"))
        for gradient in ("false", "true")
        for columns in (64, 128, 256)
    },
    **{
        f"conv_weight_warpgroup<{form}, {columns}>": (f"HGMMA.64x{columns}x16.F32{kind}", *WARPGROUP)
        for form, kind in (("Float16", ""), ("Bfloat16", ".BF16"))
        for columns in (64, 128, 256)
    },
    "lay_channels_last<unsigned short, ": ("LDG.E.U16", "STS.U16", "LDS.U16", "STG.E"),
    "lay_channels_last<unsigned, ": ("LDG.E", "STS", "LDS", "STG.E.64"),
    "conv_weight_matrix": ("HMMA.16816.F32", "LDSM.16.MT88.4", "LDGSTS.E.BYPASS.128"),
    "conv_weight_matrix<float, ": ("HMMA.1688.F32.TF32", "LDGSTS.E.BYPASS.128"),
}
# How many products of matrices a step of the pipeline has, by a warp: 4 x 4 tiles, two steps of k, or one of three parts of
# float32; of bytes for each pair of signs; by a warp group, one for each of four steps of k.
PRODUCTS = {
    "conv_integer": 128,
    "conv_matrix": 32,
    "conv_warpgroup": 4,
    "conv_weight_matrix": 32,
    "conv_weight_warpgroup": 4,
    "conv_matrix<float, ": 48,
    "conv_weight_matrix<float, ": 48,
}
HERE = Path(__file__).parent


def disassembler() -> Path | None:
    """nvdisasm, which comes with Triton."""
    found = importlib.util.find_spec("triton")
    path = Path(found.origin).parent / "backends/nvidia/bin/nvdisasm" if found and found.origin else None
    return path if path is not None and path.exists() else None


def of(table: dict[str, Any], kernel: Kernel) -> Any:
    """What a table says of a kernel, by the longest of its keys that fits; None where it says nothing."""
    keys = (k for k in table if kernel.name.startswith(k if "<" in k else f"{k}<"))
    return table.get(max(keys, key=len, default=""))


@compiled
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kernel", [pytest.param(k, id=k.name) for k in KERNELS])
def test_resources(kernel: Kernel, architecture: str) -> None:
    if not kernel.suits(architecture):
        pytest.skip(f"is written for {kernel.only}")
    cubin = kernel.compile(architecture)
    registers, shared = of(LIMITS, kernel)
    assert cubin.spills == 0
    assert 0 < cubin.registers <= registers
    assert cubin.shared <= shared


@compiled
@pytest.mark.skipif(disassembler() is None, reason="nvdisasm, which comes with Triton, is not installed")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("kernel", [pytest.param(k, id=k.name) for k in KERNELS if of(INSTRUCTIONS, k)])
def test_instructions(kernel: Kernel, architecture: str, tmp_path: Path) -> None:
    if not kernel.suits(architecture):
        pytest.skip(f"is written for {kernel.only}")
    path = tmp_path / "kernel.cubin"
    path.write_bytes(kernel.compile(architecture).image)
    text = subprocess.run([disassembler(), "-ndf", path], capture_output=True, text=True, check=True).stdout  # type: ignore[list-item]
    found = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+ )?([A-Z][A-Za-z0-9_.]+)", text, re.MULTILINE)
    missing = [w for w in of(INSTRUCTIONS, kernel) if not any(f.startswith(w) for f in found)]
    assert not missing, sorted(set(found))
    products = sum(f.startswith(("HMMA", "IMMA", "HGMMA")) for f in found)
    assert products == (of(PRODUCTS, kernel) or 0)
    across = len(re.findall(r"HGMMA[^;]*\.tnspA\.tnspB", text))  # operands whose lines are steps
    assert across == (products if kernel.name.startswith("conv_weight_warpgroup") else 0)


GIVEN, TAKEN, COPYING, MULTIPLYING = (
    40,
    232,
    128,
    256,
)  # registers of a thread, and threads, as conv_warpgroup.cu has them


def reached(text: str, first: str) -> list[str]:
    """The instructions that may follow the one that begins so, of a disassembled kernel."""
    code: list[str] = []
    places: dict[str, int] = {}
    for line in text.splitlines():
        if found := re.match(r"\s*([.$][\w$.]+):", line):
            places[found[1]] = len(code)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(.*?)\s*;", line):
            code.append(found[1])
    waiting, seen = [next(i for i, one in enumerate(code) if one.startswith(first))], set[int]()
    while waiting:
        at = waiting.pop()
        while at < len(code) and at not in seen:
            seen.add(at)
            waiting += [places[name] for name in re.findall(r"`\((.*?)\)", code[at]) if name in places]
            if re.match(r"(BRA|EXIT|RET|BPT)\b", code[at]):
                break
            at += 1
    return [code[at] for at in sorted(seen)]


@compiled
@pytest.mark.skipif(disassembler() is None, reason="nvdisasm, which comes with Triton, is not installed")
@pytest.mark.parametrize("kernel", [pytest.param(k, id=k.name) for k in KERNELS if "warpgroup" in k.name])
def test_registers_change_hands(kernel: Kernel, tmp_path: Path) -> None:
    """What multiplying threads take is there when the others have given theirs back, else they would wait for ever; the thread
    that copies lives on what it has kept; and nobody waits for products before the next ones are asked for."""
    cubin = kernel.compile("sm_90a")
    threads = COPYING + MULTIPLYING
    assert COPYING * GIVEN + MULTIPLYING * TAKEN <= cubin.registers * threads <= 65536
    path = tmp_path / "kernel.cubin"
    path.write_bytes(cubin.image)
    text = subprocess.run([disassembler(), "-ndf", path], capture_output=True, text=True, check=True).stdout  # type: ignore[list-item]
    kept = reached(text, "USETMAXREG.DEALLOC")
    assert kept[0].endswith(f"{GIVEN:#x}")
    assert any(one.startswith("UTMALDG") for one in kept)
    assert not any("HGMMA" in one for one in kept)
    assert max(int(number) for one in kept for number in re.findall(r"\bR(\d+)\b", one)) < GIVEN
    assert f"USETMAXREG.TRY_ALLOC.CTAPOOL UP0, {TAKEN:#x}" in text
    waits = re.findall(r"(HGMMA|WARPGROUP\.DEPBAR\.LE gsb0, 0x[01])", text)
    assert waits == ["HGMMA"] * 4 + ["WARPGROUP.DEPBAR.LE gsb0, 0x1", "WARPGROUP.DEPBAR.LE gsb0, 0x0"]


@built
def test_tiled_rungs_on_the_host(tmp_path: Path) -> None:
    """Results are those of the direct rung, and nothing is read or written that is not there. Not optimised, which compiles in a
    third of the time and leaves more to be seen."""
    done = run(tmp_path, "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    assert done.returncode == 0, done.stdout + done.stderr[:4000]


@built
def test_threads_race_only_without_barriers(tmp_path: Path) -> None:
    done = run(tmp_path, "-O1", "-fsanitize=thread", "-DULPGRAD_HOST_THREADS")
    assert done.returncode == 0, done.stdout + done.stderr[:4000]
    env = {"TSAN_OPTIONS": "halt_on_error=1", "WITHOUT_BARRIERS": "1"}
    again = subprocess.run(done.args, capture_output=True, text=True, env=env)
    assert "ThreadSanitizer" in again.stderr


def run(tmp_path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """tests/gpu/cuda_conv_on_host.cpp, built with these flags."""
    program = tmp_path / "conv"
    command = [*cuda_host.compiler(), "-std=c++17", "-g1", "-pthread", "-Wno-unknown-pragmas", *flags]
    subprocess.run([*command, f"-I{cuda_compile.FOLDER}", HERE / "cuda_conv_on_host.cpp", "-o", program], check=True)
    return subprocess.run([program], capture_output=True, text=True, env={"TSAN_OPTIONS": "halt_on_error=1"})
