"""What the PTX machine counts: sectors of global memory, and turns at shared memory."""

from typing import Any

import numpy as np
import pytest

from ulpgrad.kernels.ptx.counts import Counts, counted
from ulpgrad.kernels.ptx.launch import run_text

HEAD = ".version 8.6 .target sm_90 .address_size 64 .visible .entry k(.param .u64 k_out) {"


def counts_of(body: str, out: Any, threads: int = 32) -> Counts:
    """Of a kernel of one block: %i is the thread, %out where the array lies."""
    text = f"""{HEAD} .reg .b32 %i, %x, %s; .reg .b64 %out, %at; .shared .align 16 .b8 memory[8448];
      ld.param.u64 %out, [k_out]; mov.u32 %i, %tid.x; mov.u32 %s, memory;
      {body} ret; }}"""
    with counted() as found:
        run_text(text, (1, 1, 1), (threads, 1, 1), [out])
    return found


@pytest.mark.parametrize(("step", "sectors"), [(0, 1), (1, 4), (2, 8), (8, 32), (32, 32)])
def test_sectors(step: int, sectors: int) -> None:
    """Neighbours share sectors of 32 bytes; threads that are far from each other have one each."""
    found = counts_of(f"mad.wide.u32 %at, %i, {4 * step}, %out; ld.global.u32 %x, [%at];", np.zeros(32 * 32, np.uint32))
    assert (found.requests, found.sectors) == (1, sectors)
    assert found.instructions["ld.global"] == 1


@pytest.mark.parametrize(("step", "turns"), [(0, 1), (1, 1), (2, 2), (3, 1), (8, 8), (32, 32), (33, 1)])
def test_turns_of_words(step: int, turns: int) -> None:
    """A step of the banks' number has all threads at one bank; with one word of padding they are at one each."""
    found = counts_of(f"mad.lo.u32 %s, %i, {4 * step}, %s; st.shared.u32 [%s], %i;", np.zeros(8, np.uint32))
    assert (found.turns, found.least) == (turns, 1)


@pytest.mark.parametrize(("size", "least"), [(2, 1), (4, 1), (8, 2), (16, 4)])
def test_turns_of_neighbours(size: int, least: int) -> None:
    """Wide accesses take the turns that their bytes need, and no more."""
    vector = {2: "u16 [%s], 0", 4: "u32 [%s], 0", 8: "v2.u32 [%s], {0, 0}", 16: "v4.u32 [%s], {0, 0, 0, 0}"}[size]
    found = counts_of(f"mad.lo.u32 %s, %i, {size}, %s; st.shared.{vector};", np.zeros(8, np.uint32))
    assert (found.turns, found.least) == (least, least)


def test_warps_count_for_themselves() -> None:
    body = "mad.wide.u32 %at, %i, 4, %out; st.global.u32 [%at], %i;"
    out = np.zeros(96, np.uint32)
    found = counts_of(body, out, threads=96)
    assert found.requests == 3
    assert found.instructions["st.global"] == 3
    np.testing.assert_array_equal(out, np.arange(96))


def test_nothing_is_counted_outside() -> None:
    with counted() as found:
        pass
    counts_of("st.shared.u32 [%s], %i;", np.zeros(8, np.uint32))
    assert found == Counts()
