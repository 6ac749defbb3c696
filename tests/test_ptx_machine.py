"""How the PTX machine runs threads: control, warps, copies and barriers, and every fault that it stops for."""

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ulpgrad.errors import ArgumentError, KernelError
from ulpgrad.kernels.ptx.launch import run_text

REGISTERS = ".reg .pred %p, %q, %r; .reg .b16 %h<8>; .reg .b32 %t<24>, %i; .reg .b64 %d<16>, %in, %out, %at;"
HEAD = ".version 8.6 .target sm_90 .address_size 64\n"


def run(
    body: str,
    out: Any,
    given: Any = None,
    block: Any = 32,
    grid: Any = 1,
    shared: int = 0,
    before: str = "",
    inside: str = "",
) -> Any:
    """Run instructions: %i is the thread, %in and %out the arrays, %at where the thread's 4 bytes of `out` lie."""
    given = np.zeros(4, np.uint32) if given is None else given
    sizes = [(*np.atleast_1d(v), 1, 1)[:3] for v in (grid, block)]
    text = f"""{HEAD}{before}
      .visible .entry k(.param .u64 k_in, .param .u64 k_out) {{ {REGISTERS} {inside}
      ld.param.u64 %in, [k_in]; ld.param.u64 %out, [k_out]; mov.u32 %i, %tid.x; mad.wide.u32 %at, %i, 4, %out;
      {body}
      ret; }}"""
    run_text(text, tuple(map(int, sizes[0])), tuple(map(int, sizes[1])), [given, out], shared)
    return out


def words(count: int) -> Any:
    return np.zeros(count, np.uint32)


LANES = np.arange(32, dtype=np.uint32)

# Control.


def test_branches_meet_again() -> None:
    body = """and.b32 %t0, %i, 3; setp.eq.u32 %p, %t0, 0; @%p bra A; setp.eq.u32 %q, %t0, 1; @%q bra B;
      mov.u32 %t1, 30; bra.uni END; A: mov.u32 %t1, 10; bra END; B: mov.u32 %t1, 20;
      END: vote.sync.ballot.b32 %t2, %p, -1; add.u32 %t1, %t1, %t2; st.global.u32 [%at], %t1;"""
    found = run(body, words(32))
    np.testing.assert_array_equal(found, np.where(LANES % 4 == 0, 10, np.where(LANES % 4 == 1, 20, 30)) + 0x11111111)


def test_each_thread_loops_as_long_as_it_has_to() -> None:
    body = """mov.u32 %t0, 0; mov.u32 %t1, 0; LOOP: setp.ge.u32 %p, %t1, %i; @%p bra DONE;
      add.u32 %t1, %t1, 1; add.u32 %t0, %t0, %t1; bra LOOP; DONE: st.global.u32 [%at], %t0;"""
    np.testing.assert_array_equal(run(body, words(50), block=50), np.arange(50) * np.arange(1, 51) // 2)


def test_nested_branches_and_a_barrier_behind_them() -> None:
    body = """mul.lo.u32 %t5, %i, 4; mov.u32 %t6, s; add.u32 %t5, %t5, %t6; and.b32 %t0, %i, 1; setp.ne.u32 %p, %t0, 0;
      mov.u32 %t1, 1; @!%p bra OUT; and.b32 %t0, %i, 2; setp.ne.u32 %q, %t0, 0; mov.u32 %t1, 2; @!%q bra OUT; mov.u32 %t1, 3;
      OUT: st.shared.u32 [%t5], %t1; bar.sync 0; xor.b32 %t7, %i, 67; shl.b32 %t7, %t7, 2; add.u32 %t7, %t7, %t6;
      ld.shared.u32 %t8, [%t7]; st.global.u32 [%at], %t8;"""
    found = run(body, words(128), block=128, inside=".shared .align 4 .b8 s[512];")
    other = np.arange(128) ^ 67
    np.testing.assert_array_equal(found, np.where(other % 2 == 0, 1, np.where(other & 2, 3, 2)))


def test_jumps_by_table() -> None:
    body = """and.b32 %t0, %i, 3; mov.u32 %t1, 0; T: .branchtargets L2, L0, L1, L0; brx.idx %t0, T;
      L0: mov.u32 %t1, 5; bra END; L1: mov.u32 %t1, 6; bra END; L2: mov.u32 %t1, 7; END: st.global.u32 [%at], %t1;"""
    np.testing.assert_array_equal(run(body, words(32)), np.array([7, 5, 6, 5])[LANES % 4])


def test_threads_that_end_early_are_not_waited_for() -> None:
    body = """setp.ge.u32 %p, %i, 40; @%p exit; st.global.u32 [%at], 1; bar.sync 0; setp.lt.u32 %q, %i, 3;
      @%q st.global.u32 [%at], 2; @!%q add.u32 %i, %i, 0;"""
    found = run(body, words(64), block=64)
    np.testing.assert_array_equal(found, [2] * 3 + [1] * 37 + [0] * 24)


def test_only_guarded_threads_meet_at_a_guarded_barrier() -> None:
    body = """mov.u32 %t0, s; setp.lt.u32 %p, %i, 64; setp.lt.u32 %q, %i, 32; @%q st.shared.u32 [%t0], 9;
      @%p bar.sync 1, 64; mov.u32 %t1, 4; @%p ld.shared.u32 %t1, [%t0]; st.global.u32 [%at], %t1;"""
    found = run(body, words(96), block=96, inside=".shared .align 4 .b8 s[4];")
    np.testing.assert_array_equal(found, [9] * 64 + [4] * 32)


def test_scopes_have_names_of_their_own() -> None:
    body = """mov.u32 %t0, 1; { .reg .b32 %t0; mov.u32 %t0, 50; bra L; mov.u32 %t0, 60; L: st.global.u32 [%at], %t0; }
      { .reg .b32 %x; mov.u32 %x, 7; bra L; mov.u32 %x, 8; L: add.u32 %t0, %t0, %x; }
      ld.global.u32 %t1, [%at]; add.u32 %t0, %t0, %t1; st.global.u32 [%at], %t0;"""
    np.testing.assert_array_equal(run(body, words(32)), [58] * 32)


def test_functions_are_called() -> None:
    before = """.func (.param .b32 r) twice(.param .b32 a) { .reg .b32 %x; .reg .pred %p; ld.param.b32 %x, [a];
      setp.gt.u32 %p, %x, 20; @%p bra BIG; add.u32 %x, %x, %x; st.param.b32 [r], %x; ret;
      BIG: mov.u32 %x, 99; st.param.b32 [r], %x; ret; }"""
    body = """{ .param .b32 p0; .param .b32 p1; st.param.b32 [p0], %i; call.uni (p1), twice, (p0); ld.param.b32 %t0, [p1]; }
      { .param .b32 p0; .param .b32 p1; st.param.b32 [p0], %t0; call (p1), twice, (p0); ld.param.b32 %t1, [p1]; }
      st.global.u32 [%at], %t1;"""

    def twice(x: Any) -> Any:
        return np.where(x > 20, 99, 2 * x)

    np.testing.assert_array_equal(run(body, words(32), before=before), twice(twice(LANES)))


def test_variables_of_each_space() -> None:
    before = """.const .align 4 .u32 table[4] = {11, 22, 0x21, 44}; .global .align 4 .s32 below[2] = {-5, 6};
      .global .align 1 .b8 bytes[] = {1, 2, 255, 4};"""
    body = """and.b32 %t0, %i, 3; mul.wide.u32 %d0, %t0, 4; mov.u64 %d1, table; add.u64 %d1, %d1, %d0; ld.const.u32 %t1, [%d1];
      ld.global.s32 %t2, [below]; ld.global.s32 %t3, [below+4]; add.u32 %t1, %t1, %t2; add.u32 %t1, %t1, %t3;
      mov.u64 %d2, own; cvta.local.u64 %d3, %d2; st.local.u32 [own+4], %i; ld.u32 %t4, [%d3+4]; add.u32 %t1, %t1, %t4;
      mov.u64 %d4, s; cvta.shared.u64 %d5, %d4; st.u32 [%d5], 100; ld.shared.u32 %t5, [s]; add.u32 %t1, %t1, %t5;
      ld.global.u8 %t6, [bytes+2]; ld.global.s8 %t7, [bytes+2]; add.u32 %t1, %t1, %t6; add.u32 %t1, %t1, %t7;
      st.global.u32 [%at], %t1;"""
    found = run(body, words(32), before=before, inside=".local .align 8 .b8 own[8]; .shared .align 4 .u32 s;")
    np.testing.assert_array_equal(found, np.array([11, 22, 33, 44])[LANES % 4] + 1 + LANES + 100 + 254)


def test_blocks_and_threads_have_their_numbers() -> None:
    body = """mov.u32 %t0, %tid.y; mov.u32 %t1, %ntid.x; mad.lo.u32 %t2, %t0, %t1, %i;
      mov.u32 %t3, %ctaid.x; mov.u32 %t4, %ctaid.y;
      mov.u32 %t5, %nctaid.x; mad.lo.u32 %t6, %t4, %t5, %t3; mad.lo.u32 %t7, %t6, 40, %t2; mul.wide.u32 %d0, %t7, 4;
      add.u64 %d0, %out, %d0; shl.b32 %t8, %t4, 24; shl.b32 %t9, %t3, 16; shl.b32 %t10, %t0, 8; or.b32 %t8, %t8, %t9;
      or.b32 %t8, %t8, %t10; or.b32 %t8, %t8, %i; st.global.u32 [%d0], %t8;"""
    found = run(body, words(6 * 40), block=(8, 5), grid=(3, 2)).reshape(2, 3, 5, 8)
    y, x, row, column = np.indices(found.shape)
    np.testing.assert_array_equal(found, y << 24 | x << 16 | row << 8 | column)


def test_shared_memory_belongs_to_a_block_and_atomics_are_no_races() -> None:
    body = """mov.u32 %t0, %ctaid.x; setp.eq.u32 %p, %i, 0; @%p st.shared.u32 [s], %t0; bar.sync 0;
      atom.shared.add.u32 %t1, [s], 1;
      bar.sync 0; ld.shared.u32 %t2, [s]; mul.wide.u32 %d0, %t0, 4; add.u64 %d0, %out, %d0; @%p st.global.u32 [%d0], %t2;
      red.global.add.u32 [%out+16], 1;"""
    found = run(body, words(5), block=128, grid=4, inside=".shared .align 4 .u32 s;")
    np.testing.assert_array_equal(found, [128, 129, 130, 131, 512])


# Warps.


@pytest.mark.parametrize("width", [32, 16, 8, 2])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffles_stay_in_their_segment(mode: str, width: int) -> None:
    bounds = (32 - width) << 8 | (0 if mode == "up" else 31)
    for step in (0, 1, 3, width - 1):
        found = run(f"""add.u32 %t0, %i, 100; shfl.sync.{mode}.b32 %t1|%p, %t0, {step}, {bounds}, -1; selp.u32 %t2, 1000, 0, %p;
          add.u32 %t1, %t1, %t2; st.global.u32 [%at], %t1;""", words(64), block=64)  # fmt: skip
        for i in range(64):
            first = i // width * width
            source = {"up": i - step, "down": i + step, "bfly": i ^ step, "idx": first + step % width}[mode]
            inside = source < first + width and (source >= first or mode == "bfly")
            assert found[i] == (1100 + source if inside else 100 + i), (step, i)


def test_votes() -> None:
    body = """setp.ge.u32 %p, %i, 40; vote.sync.all.pred %q, %p, -1; selp.u32 %t0, 1, 0, %q; vote.sync.any.pred %q, %p, -1;
      selp.u32 %t1, 2, 0, %q; vote.sync.uni.pred %q, !%p, -1; selp.u32 %t2, 4, 0, %q; vote.sync.ballot.b32 %t3, %p, -1;
      popc.b32 %t3, %t3; shl.b32 %t3, %t3, 3; or.b32 %t0, %t0, %t1; or.b32 %t0, %t0, %t2; or.b32 %t0, %t0, %t3;
      st.global.u32 [%at], %t0;"""
    found = run(body, words(96), block=96)
    np.testing.assert_array_equal(found, [4] * 32 + [2 | 24 << 3] * 32 + [7 | 32 << 3] * 32)


def test_redux_and_elect() -> None:
    body = """sub.s32 %t0, %i, 5; redux.sync.add.s32 %t1, %t0, -1; redux.sync.min.s32 %t2, %t0, -1;
      redux.sync.min.u32 %t3, %t0, -1;
      redux.sync.or.b32 %t4, %i, -1; elect.sync _|%p, -1; selp.u32 %t5, 1000, 0, %p; add.u32 %t1, %t1, %t2;
      add.u32 %t1, %t1, %t3; add.u32 %t1, %t1, %t4; add.u32 %t1, %t1, %t5; st.global.u32 [%at], %t1;"""
    found = run(body, words(32)).view(np.int32)
    assert found[1:].tolist() == [sum(range(-5, 27)) - 5 + 0 + 31] * 31
    assert found[0] == found[1] + 1000


# A row of matrix i is named by thread 8 i + row; a thread gets the elements 2 (lane mod 4) and the next of row lane / 4.


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("turned", ["", ".trans"])
def test_matrices_are_loaded_and_stored(count: int, turned: str) -> None:
    rows = np.random.default_rng(0).integers(0, 2**16, (8 * count, 8), np.uint16)
    registers = ", ".join(f"%t{n}" for n in range(count))
    copy = f"""mul.wide.u32 %d0, %i, 16; add.u64 %d1, %in, %d0; mov.u32 %t9, s; mad.lo.u32 %t10, %i, 16, %t9;
      setp.lt.u32 %p, %i, {8 * count}; @%p ld.global.v4.u32 {{%t0, %t1, %t2, %t3}}, [%d1];
      @%p st.shared.v4.u32 [%t10], {{%t0, %t1, %t2, %t3}}; bar.sync 0; mov.u32 %t11, %t10; @!%p mov.u32 %t11, %t9;
      ldmatrix.sync.aligned.m8n8.x{count}{turned}.shared.b16 {{{registers}}}, [%t11];"""
    body = copy + "".join(f"st.global.u32 [%at+{128 * n}], %t{n};" for n in range(count))
    found = (
        run(body, words(32 * count), rows, inside=".shared .align 16 .b8 s[1024];")
        .view(np.uint16)
        .reshape(count, 32, 2)
    )
    for n, lane, j in np.ndindex(found.shape):
        row, column = lane // 4, lane % 4 * 2 + j
        assert found[n, lane, j] == (rows[8 * n + column, row] if turned else rows[8 * n + row, column])
    back = (
        copy
        + f"""bar.sync 0; add.u32 %t12, %t11, 512;
      stmatrix.sync.aligned.m8n8.x{count}{turned}.shared.b16 [%t12], {{{registers}}}; bar.sync 0;
      @%p ld.shared.v4.u32 {{%t0, %t1, %t2, %t3}}, [%t10+512]; add.u64 %d1, %out, %d0;
      @%p st.global.v4.u32 [%d1], {{%t0, %t1, %t2, %t3}};"""
    )
    np.testing.assert_array_equal(run(back, np.zeros_like(rows), rows, inside=".shared .align 16 .b8 s[1024];"), rows)


def mma(shape: str, kinds: str, of: Any, result: Any, a: Any, b: Any, c: Any, more: str = "") -> Any:
    """D = A B + C with fragments by the tables of the ISA: `a` (M, K), `b` (K, N), `c` (M, N)."""
    (m, k), n = a.shape, b.shape[1]
    size, step = np.dtype(of).itemsize, max(1, 4 // np.dtype(of).itemsize)  # elements of a register
    of_a, of_b, of_c = ([[] for _ in range(32)] for _ in range(3))
    for lane in range(32):
        group, place = lane // 4, lane % 4
        for half in range(k // (4 * step)):
            columns = 4 * step * half + step * place + np.arange(step)
            of_a[lane] += [a[group + 8 * high, j] for high in range(m // 8) for j in columns]
            of_b[lane] += [b[j, group] for j in columns]
        of_c[lane] = [c[group + 8 * high, 2 * place + j] for high in range(m // 8) for j in range(2)]
    parts = [np.array(of_a, of), np.array(of_b, of), np.array(of_c, result)]
    wide = 8 if size == 8 else 4
    given = np.concatenate([p.view(np.uint8).reshape(32, -1) for p in parts], 1)
    counts = [p.view(np.uint8).size // 32 // wide for p in parts]
    names = [f"%{'d' if wide == 8 else 't'}{j}" for j in range(sum(counts))]
    lists = ["{" + ", ".join(names[sum(counts[:j]) : sum(counts[: j + 1])]) + "}" for j in range(3)]
    body = (
        f"mul.wide.u32 %d14, %i, {given.shape[1]}; add.u64 %d14, %in, %d14; mul.wide.u32 %d15, %i, {wide * counts[2]};"
    )
    body += "add.u64 %d15, %out, %d15;" + "".join(
        f"ld.global.b{8 * wide} {r}, [%d14+{wide * j}];" for j, r in enumerate(names)
    )
    body += f"mma.sync.aligned.{shape}.row.col{more}.{kinds} {lists[2]}, {lists[0]}, {lists[1]}, {lists[2]};"
    body += "".join(
        f"st.global.b{8 * wide} [%d15+{wide * j}], {r};" for j, r in enumerate(names[counts[0] + counts[1] :])
    )
    found = run(body, np.zeros_like(parts[2]), given)
    out = np.zeros((m, n), result)
    for lane in range(32):
        for e, value in enumerate(found[lane]):
            out[lane // 4 + e // 2 * 8, lane % 4 * 2 + e % 2] = value
    return out


@pytest.mark.parametrize(
    ("shape", "kinds", "of", "result"),
    [
        ("m16n8k16", "f32.bf16.bf16.f32", ml_dtypes.bfloat16, np.float32),
        ("m16n8k16", "f32.f16.f16.f32", np.float16, np.float32),
        ("m16n8k16", "f16.f16.f16.f16", np.float16, np.float16), ("m16n8k8", "f32.bf16.bf16.f32", ml_dtypes.bfloat16, np.float32),
        ("m16n8k8", "f32.tf32.tf32.f32", np.float32, np.float32), ("m16n8k4", "f32.tf32.tf32.f32", np.float32, np.float32),
        ("m16n8k32", "s32.s8.s8.s32", np.int8, np.int32), ("m16n8k32", "s32.u8.u8.s32", np.uint8, np.int32),
        ("m16n8k16", "s32.s8.s8.s32", np.int8, np.int32), ("m8n8k4", "f64.f64.f64.f64", np.float64, np.float64),
        ("m16n8k32", "f32.e4m3.e4m3.f32", ml_dtypes.float8_e4m3fn, np.float32),
    ],
)  # fmt: skip
def test_products_of_matrices(shape: str, kinds: str, of: Any, result: Any) -> None:
    m, n, k = (int(v) for v in shape[1:].replace("n", " ").replace("k", " ").split())
    chance = np.random.default_rng(1)
    low = 0 if of is np.uint8 else -6
    a, b, c = (chance.integers(low, 7, s) for s in ((m, k), (k, n), (m, n)))
    found = mma(shape, kinds, of, result, a, b, c)
    np.testing.assert_array_equal(found.astype(np.int64), a @ b + c)


def test_sums_of_bytes_stop_at_the_limits() -> None:
    a, b = np.full((16, 32), 127), np.full((32, 8), -128)
    c = np.full((16, 8), -(2**31) + 5)
    np.testing.assert_array_equal(mma("m16n8k32", "s32.s8.s8.s32", np.int8, np.int32, a, b, c, ".satfinite"), -(2**31))
    around = (a @ b + c).astype(np.int64).astype(np.int32)
    np.testing.assert_array_equal(mma("m16n8k32", "s32.s8.s8.s32", np.int8, np.int32, a, b, c), around)


# Copies and barriers that go on beside the threads.


def test_copies_are_there_when_waited_for() -> None:
    before_wait = """mov.u32 %t0, s; mad.lo.u32 %t1, %i, 16, %t0; mul.wide.u32 %d0, %i, 16; add.u64 %d1, %in, %d0;
      st.shared.v4.u32 [%t1], {1, 1, 1, 1}; st.shared.v4.u32 [%t1+512], {1, 1, 1, 1};
      cp.async.cg.shared.global [%t1], [%d1], 16; cp.async.commit_group;
      cp.async.ca.shared.global [%t1+512], [%d1], 8, 4; cp.async.commit_group;"""
    read = "ld.shared.u32 %t2, [%t1]; ld.shared.u32 %t3, [%t1+512]; ld.shared.u32 %t4, [%t1+516];"
    tell = "mad.lo.u32 %t2, %t2, 16, %t3; mad.lo.u32 %t2, %t2, 16, %t4; st.global.u32 [%at], %t2;"
    given = np.full(128, 5, np.uint32)
    for wait, expected in (
        ("", 0x111),
        ("cp.async.wait_group 1;", 0x511),
        ("cp.async.wait_group 0;", 0x550),
        ("cp.async.wait_all;", 0x550),
    ):
        found = run(before_wait + wait + read + tell, words(32), given, inside=".shared .align 16 .b8 s[1024];")
        np.testing.assert_array_equal(found, expected, wait)


BARRIER = """.shared .align 8 .b64 b; .shared .align 4 .u32 s;"""
BEGUN = "setp.eq.u32 %p, %i, 0; @%p mbarrier.init.shared.b64 [b], {}; bar.sync 0; "


def wait(parity: int, label: str) -> str:
    return f"{label}: mbarrier.try_wait.parity.shared.b64 %q, [b], {parity}; @!%q bra {label};"


def test_phases_of_an_mbarrier() -> None:
    body = (
        BEGUN.format(64)
        + f"""setp.ge.u32 %r, %i, 32; mov.u32 %t0, 5; @%r bra OTHERS;
      {wait(0, "A")} ld.shared.u32 %t0, [s]; mbarrier.arrive.shared.b64 _, [b]; {wait(1, "B")} bra END;
      OTHERS: st.shared.u32 [s], 8; mbarrier.arrive.shared.b64 _, [b], 2; mbarrier.arrive.shared.b64 _, [b];
      END: st.global.u32 [%at], %t0;"""
    )
    found = run(body, words(64), block=64, inside=BARRIER)
    np.testing.assert_array_equal(found, [8] * 32 + [5] * 32)


def test_bytes_that_were_announced_are_waited_for() -> None:
    body = BEGUN.format(1) + """@%p mbarrier.arrive.expect_tx.shared.b64 _, [b], 16; """ + wait(0, "A")
    with pytest.raises(KernelError, match="try_wait"):
        run(body, words(32), inside=BARRIER)
    body = (
        BEGUN.format(1)
        + """@%p mbarrier.arrive.expect_tx.shared.b64 _, [b], 0; """
        + wait(0, "A")
        + "st.global.u32 [%at], 1;"
    )
    assert run(body, words(32), inside=BARRIER).all()


# What a card would stop for.

LONE = ".shared .align 8 .b64 b; "
SHARED = ".shared .align 16 .b8 s[256];"
WRITE = "mov.u32 %t0, s; mad.lo.u32 %t1, %i, 4, %t0; "
FAULTS = {
    "behind an array": ("ld.global.u32 %t0, [%in+16];", "ld.global.u32", 32, "outside"),
    "before an array": ("ld.global.u32 %t0, [%in+-4];", "ld.global.u32", 32, "outside"),
    "a vector that leaves an array": ("ld.global.v2.u32 {%t0, %t1}, [%in+16];", "ld.global.v2.u32", 32, "outside"),
    "a store behind an array": ("st.global.u32 [%at+4], 1;", "st.global.u32", 32, "outside"),
    "a store before an array": ("st.global.u32 [%at+-4], 1;", "st.global.u32", 32, "outside"),
    "an atomic behind an array": ("red.global.add.u32 [%at+4], 1;", "red.global", 32, "outside"),
    "a null pointer": ("mov.u64 %d0, 0; ld.global.u32 %t0, [%d0];", "ld.global.u32", 32, "outside"),
    "a vector that is not aligned": ("ld.global.v2.u32 {%t0, %t1}, [%in+4];", "ld.global.v2.u32", 32, "multiple"),
    "a word that is not aligned": ("ld.global.u32 %t0, [%in+2];", "ld.global.u32", 32, "multiple"),
    "a shared vector that is not aligned": ("st.shared.v4.u32 [s+8], {1, 1, 1, 1};", "st.shared.v4", 32, "multiple"),
    "shared memory that nobody wrote": ("ld.shared.u32 %t0, [s];", "ld.shared.u32", 32, "nobody has written"),
    "behind shared memory": ("st.shared.u32 [s+256], 1;", "st.shared.u32", 32, "outside"),
    "before shared memory": ("mov.u32 %t0, s; st.shared.u32 [%t0+-4], 1;", "st.shared.u32", 32, "outside"),
    "a read without a barrier": (
        WRITE + "st.shared.u32 [%t1], 1; xor.b32 %t2, %i, 32; mad.lo.u32 %t2, %t2, 4, %t0; ld.shared.u32 %t3, [%t2];",
        "ld.shared.u32", 64, "another warp wrote",
    ),
    "a write without a barrier": (
        WRITE + """st.shared.u32 [%t1], 1; bar.sync 0; xor.b32 %t2, %i, 32; mad.lo.u32 %t2, %t2, 4, %t0; ld.shared.u32 %t3, [%t2];
        st.shared.u32 [%t1], 2;""", "st.shared.u32", 64, "another warp read",
    ),
    "two warps that write one word": ("st.shared.u32 [s], %i;", "st.shared.u32", 64, "another warp wrote"),
    "a barrier with too few": ("setp.lt.u32 %p, %i, 32; @%p bra OUT; bar.sync 1, 64; OUT:", "bar.sync", 64, "waits"),
    "two barriers": (
        "setp.lt.u32 %p, %i, 32; @%p bra A; bar.sync 1, 64; bra OUT; A: bar.sync 2, 64; OUT:", "bar.sync", 64, "waits",
    ),
    "an mbarrier with too few": (
        LONE + BEGUN.format(33) + "mbarrier.arrive.shared.b64 _, [b]; " + wait(0, "A"),
        "try_wait", 32, "waits",
    ),
    "an mbarrier with too many": (
        LONE + BEGUN.format(31) + "mbarrier.arrive.shared.b64 _, [b];", "mbarrier.arrive", 32, "more threads",
    ),
    "no mbarrier": (LONE + "mbarrier.arrive.shared.b64 _, [b];", "mbarrier.arrive", 32, "no mbarrier"),
    "trap": ("setp.eq.u32 %p, %i, 3; @%p trap;", "trap", 32, "trap"),
    "part of a warp at mma.sync": (
        "setp.lt.u32 %p, %i, 16; @%p bra OUT; mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%t0, %t1, %t2, %t3}, "
        "{%t4, %t5, %t6, %t7}, {%t8, %t9}, {%t0, %t1, %t2, %t3}; setp.eq.u32 %q, %t0, 77; @%q bra DONE; add.u32 %t1, %t1, 1; "
        "OUT: shfl.sync.idx.b32 %t2, %t1, 0, 31, -1; DONE:", "mma.sync", 32, "",
    ),
    "ended threads at mma.sync": (
        "setp.lt.u32 %p, %i, 16; @%p exit; mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%t0, %t1, %t2, %t3}, "
        "{%t4, %t5, %t6, %t7}, {%t8, %t9}, {%t0, %t1, %t2, %t3};", "mma.sync", 32, "part of a warp",
    ),
    "a guard at mma.sync": (
        "setp.lt.u32 %p, %i, 16; @%p mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%t0, %t1, %t2, %t3}, "
        "{%t4, %t5, %t6, %t7}, {%t8, %t9}, {%t0, %t1, %t2, %t3};", "mma.sync", 32, "part of a warp",
    ),
    "a row outside for ldmatrix": (
        "mov.u32 %t0, s; mad.lo.u32 %t0, %i, 16, %t0; add.u32 %t0, %t0, 256; "
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%t1}, [%t0];",
        "ldmatrix", 32, "outside",
    ),
    "a copy from outside": ("cp.async.cg.shared.global [s], [%in+16], 16; cp.async.wait_all;", "cp.async", 32, "outside"),
    "a copy to outside": ("cp.async.cg.shared.global [s+256], [%in], 16; cp.async.wait_all;", "cp.async", 32, "outside"),
    "a table that is too short": (
        "T: .branchtargets A, A; brx.idx %i, T; A: st.global.u32 [%out], 1;", "brx.idx", 32, "",
    ),
    **{
        text.rstrip(";").partition(" ")[0]: (text, text.rstrip(";").partition(" ")[0], 32, "not known")
        for text in (
            "frobnicate.u32 %t0, %t1;", "add.s32.weird %t0, %t1, %t2;", "add.sat.s32 %t0, %t1, %t2;",
            "min.xorsign.abs.f32 %t0, %t1, %t2;",
            "fns.b32 %t0, %t1, 0, 1;", "atom.global.inc.u32 %t0, [%out], 5;", "mbarrier.test_wait.shared.b64 %p, [s], %d0;",
            "bar.red.popc.u32 %t0, 0, %p;", "setp.lt.f16x2 %p|%q, %t0, %t1;", "cvt.rn.satfinite.f16x2.f32 %t0, %t1, %t2;",
            "barrier.cluster.arrive;", "match.any.sync.b32 %t0, %t1, -1;", "prmt.b32.f4e %t0, %t1, %t2, %t3;",
            "mma.sp.sync.aligned.m16n8k16.row.col.f32.tf32.tf32.f32 {%t0, %t1, %t2, %t3}, {%t4, %t5, %t6, %t7}, "
            "{%t8, %t9, %t10, %t11}, {%t0, %t1, %t2, %t3}, %t12, 0;",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_their_instruction(fault: str) -> None:
    body, named, block, said = FAULTS[fault]
    with pytest.raises(KernelError) as error:
        run(body, words(block), block=block, inside=SHARED)
    assert named in str(error.value)
    assert said in str(error.value)


def test_arguments_are_the_kernels() -> None:
    with pytest.raises(KernelError, match="no kernel other"):
        run_text(f"{HEAD}.visible .entry k() {{ ret; }}", (1, 1, 1), (32, 1, 1), [], name="other")
    a, out = np.arange(4.0), np.zeros(1, np.float32)
    text = f"""{HEAD}.visible .entry k(.param .u64 p, .param .u16 h, .param .f32 f, .param .u32 n, .param .f64 g) {{
      .reg .b64 %a; .reg .f32 %f<4>; .reg .b32 %n; .reg .f64 %g; .reg .b16 %h; ld.param.u64 %a, [p]; ld.param.u16 %h, [h];
      ld.param.f32 %f0, [f]; ld.param.u32 %n, [n]; ld.param.f64 %g, [g]; cvt.rn.f32.u16 %f1, %h; cvt.rn.f32.s32 %f2, %n;
      cvt.rn.f32.f64 %f3, %g; add.f32 %f0, %f0, %f1; add.f32 %f0, %f0, %f2; add.f32 %f0, %f0, %f3;
      st.global.f32 [%a], %f0; ret; }}"""
    run_text(text, (1, 1, 1), (1, 1, 1), [out, 7, 0.5, np.int32(-3), math.pi])
    assert out[0] == np.float32(np.float32(4.5) + np.float32(math.pi))
    assert a[3] == 3


@pytest.mark.parametrize(
    ("grid", "block", "arguments", "expected"),
    [
        ((1, 1, 1), (0, 1, 1), [np.zeros(1), 1], "block .0, 1, 1.: expected three sizes, 1 to 1024"),
        ((1, 1), (32, 1, 1), [np.zeros(1), 1], "grid .1, 1.: expected three sizes"),
        ((1, 1, 1), (32, 1, 1), [np.zeros(1)], "1 arguments: expected 2"),
        ((1, 1, 1), (32, 1, 1), [np.zeros(1), np.uint64(1)], "argument 1 has 8 bytes: expected 4 for n"),
        ((1, 1, 1), (32, 1, 1), [np.zeros(1), np.zeros(1)], "argument 1 has 8 bytes: expected 4 for n"),
    ],
)
def test_what_a_launch_refuses(grid: Any, block: Any, arguments: Any, expected: str) -> None:
    with pytest.raises(ArgumentError, match=expected):
        run_text(f"{HEAD} .visible .entry k(.param .u64 at, .param .u32 n) {{ ret; }}", grid, block, arguments)


def test_addresses_that_do_not_say_their_space() -> None:
    """Generic ones, of which a kernel's parameters may be read, and not written to."""
    body = "mov.u64 %d0, k_in; cvta.param.u64 %d1, %d0; ld.u64 %d2, [%d1]; setp.eq.u64 %p, %d2, %in; selp.u32 %t0, 1, 0, %p; "
    assert run(body + "st.u32 [%at], %t0;", words(32)).all()
    with pytest.raises(KernelError, match="writes to the kernel's parameters"):
        run(body + "st.u32 [%d1], 1;", words(32))
