"""What compiled kernels ask of memory, counted on the host where their PTX runs (ULPGRAD_CUDA=ptx)."""

from __future__ import annotations

import numpy as np
import pytest

from ulpgrad import bfloat16, dispatch, float32
from ulpgrad.formats import Format
from ulpgrad.kernels import gpu
from ulpgrad.kernels.matmul import spec
from ulpgrad.kernels.ptx.counts import Counts, counted

pytestmark = pytest.mark.skipif(not gpu.runs_ptx(), reason="instructions are counted where they run on the host")


def counts_of(rung: str, form: Format, size: int) -> Counts:
    chance = np.random.default_rng(0)
    a, b = (gpu.xp().asarray(form.encode(chance.standard_normal((size, size)).astype(np.float32))) for _ in "ab")
    with dispatch.use(matmul=rung), counted() as found:
        dispatch.make_plan(spec.matmul, "cuda:0", (form, form), (a, b), {}).run(a, b)
    return found


def test_each_rung_counted_reads_less() -> None:
    """What the ladder says of its rungs: tiles in shared memory spare global memory, tiles in registers shared memory."""
    naive, tiles, registers = (counts_of(f"cuda/cuda-{name}", float32, 128) for name in ("naive", "tiles", "registers"))
    assert naive.sectors > 4 * tiles.sectors > 4 * registers.sectors
    assert naive.turns == 0
    assert tiles.turns > 2 * registers.turns


def test_matrices_counted_without_conflicts() -> None:
    """The pattern in which chunks lie: loads of matrices take as many turns as their bytes need."""
    found = counts_of("cuda/cuda-matrix", bfloat16, 128)
    loads = found.instructions["ldmatrix"]
    assert loads > 0
    assert found.of_matrices == (4 * loads, 4 * loads)
