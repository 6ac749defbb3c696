"""What the machine can do at most: measured by unit and by level of memory, and what the roofline takes from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad.bench import ladder, machine, peak, shapes
from ulpgrad.formats import bfloat16, float16, float32, float64, int32
from ulpgrad.kernels import native, registry

needs_native = pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "TRIES", 3)
    monkeypatch.setattr(peak, "SWEPT", 1 << 23)


def lines(size: int) -> np.ndarray:
    return peak._aligned(size)


@needs_native
@pytest.mark.parametrize("unit", peak.UNITS)
def test_every_instruction_set_counts_its_operations(unit: str) -> None:
    module = native.module()
    for isa in module.cpu_isas():
        once = module.peak_arithmetic(unit, 1, 1, isa)
        assert module.peak_arithmetic(unit, 7, 3, isa) == 21 * once
        assert (once > 0) == bool(module.peak_instruction(unit, isa))
        assert once > 0 or unit == "bfloat16"


@needs_native
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("sweep", peak.SWEEPS)
def test_sweeps_touch_what_they_say(sweep: peak.Sweep, past: bool) -> None:
    for isa in native.module().cpu_isas():
        for threads in (1, 2, 3):
            buffer = lines(1 << 16)
            buffer[:] = np.arange(buffer.size)
            before = buffer.copy()
            moved = native.module().peak_memory(sweep, buffer, 5, threads, past, isa)
            assert 0.9 * 5 * buffer.nbytes < moved <= 5 * buffer.nbytes
            changed = np.count_nonzero(buffer != before) * 4
            written = {"read": 0.0, "write": 1.0, "copy": 1 / 2, "triad": 1 / 3}[sweep]
            assert changed == pytest.approx(written * moved / 5, abs=8)


@needs_native
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("read", lines(1 << 12).astype("f8"), 1, 1), "float32"),
        (("read", lines(1 << 12)[1:], 1, 1), "aligned to 64 bytes"),
        (("add", lines(1 << 12), 1, 1), "kind='add': expected read, write, copy or triad"),
        (("read", lines(1 << 12), -1, 1), "passes >= 0"),
        (("read", lines(1 << 12), 1, 0), "threads >= 1"),
        (("triad", lines(1 << 12), 1, 9), "too small for so many threads"),
    ],
)
def test_sweeps_refuse(arguments: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        native.module().peak_memory(*arguments)


@needs_native
def test_units_that_there_are_not_are_named() -> None:
    with pytest.raises(ValueError, match="unit='int12': expected float32, float64, bfloat16, int16 or int8"):
        native.module().peak_arithmetic("int12", 1, 1)
    with pytest.raises(ValueError, match="rounds >= 0 and threads >= 1"):
        native.module().peak_arithmetic("int8", -1, 1)


def test_units_stand_in_proportion() -> None:
    single, double = peak.flops(float32, 1), peak.flops(float64, 1)
    assert single is not None
    assert double is not None
    assert 1e8 < double < 1.5 * single
    assert peak.flops(int32) is None
    assert peak.flops(float16, 1) == single


def test_only_dot_products_are_held_against_the_unit_of_bfloat16() -> None:
    single, plain, dots = peak.flops(float32, 1), peak.flops(bfloat16, 1), peak.flops(bfloat16, 1, dots=True)
    assert single is not None
    assert plain == single
    assert dots is not None
    has_unit = native.missing() is None and "avx512_bf16" in native.module().cpu_extensions()
    assert dots > 1.3 * single if has_unit else dots == single
    problem = shapes.problem(registry.find("matmul"), bfloat16, 64)
    assert ladder.climb(problem, samples=3).peak_flops == peak.flops(bfloat16, dots=True)


def test_caches_are_faster_than_memory() -> None:
    found = peak.memory()
    assert found[-1].level == "memory"
    assert {level.level for level in found[:-1]} == set(machine.cache_bytes())
    for level in found:
        assert all(rate > 0.1 for rate in (*level.one.values(), *level.all.values()))
    if len(found) > 1:
        assert found[0].one["copy"] > found[-1].one["copy"]


def test_doctor_shows_them(tmp_path: Path) -> None:
    file = tmp_path / "doctor.json"
    done = subprocess.run(
        [sys.executable, "-m", "ulpgrad.cli", "doctor", "--ceilings", "--json", str(file)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ceilings = json.loads(file.read_text())["ceilings"]
    assert {a["unit"] for a in ceilings["arithmetic"]} <= set(peak.UNITS)
    assert ceilings["memory"][-1]["all"]["copy"] > 0
    assert "multiply-add is two" in done.stdout
    assert "memory" in done.stdout
