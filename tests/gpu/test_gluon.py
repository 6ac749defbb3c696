"""Attention by partitions of warps, in Gluon: every bound of the tile loop, into results that start as garbage. `make gpu-check`
runs this file in a process of its own, before those of other rungs: partitions wait for each other at barriers, without end where
one is wrong, and the rung has run on no GPU so far. Emulated, the kernel's own Python runs, copies and products come as late as
they may, and mistakes in the pipeline are seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import KernelError
from ulpgrad.formats import Format, bfloat16, float16, float32
from ulpgrad.kernels import capabilities, gpu, registry
from ulpgrad.kernels.attention import spec

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

from ulpgrad.kernels import gluon_host
from ulpgrad.kernels.attention import triton_gluon
from ulpgrad.kernels.generated import load

NAME = "cuda/triton-gluon"
UNIT = {float16: 2.0**-11, bfloat16: 2.0**-8}
pytestmark = pytest.mark.skipif(gpu.capability() != 90, reason=f"needs sm_90; this is sm_{gpu.capability()}")
# Queries, keys, features, whether causal, where the queries stand, heads of queries and of keys.
CASES: dict[str, tuple[int, int, int, bool, bool, int, int]] = {
    "one of each": (1, 1, 64, False, False, 1, 1),
    "one whole tile": (128, 128, 128, False, False, 1, 1),
    "one group of two": (64, 128, 64, True, False, 2, 2),
    "part of a block": (65, 100, 128, False, False, 2, 1),
    "causal in one block": (100, 100, 64, True, False, 1, 1),
    "whole blocks": (130, 384, 64, False, False, 1, 1),
    "more blocks than stages": (70, 700, 64, False, False, 3, 1),
    "causal, whole blocks in front": (384, 384, 128, True, False, 2, 1),
    "causal, more keys": (140, 500, 64, True, False, 1, 1),
    "causal, more queries": (300, 90, 64, True, False, 1, 1),
    "causal to the last key": (200, 650, 64, True, True, 2, 1),
    "causal to the last key, off the blocks": (131, 517, 128, True, True, 1, 1),
    "queries that see nothing": (300, 140, 64, True, True, 1, 1),
}


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that is not written is NaN."""
    xp = gpu.xp()
    made = xp.empty

    def poisoned(shape: Any, dtype: Any = float, *given: Any, **how: Any) -> Any:
        array = made(shape, dtype, *given, **how)
        array[...] = np.nan if array.dtype.kind == "f" else 0xFFFF
        return array

    monkeypatch.setattr(xp, "empty", poisoned)


def drawn(name: str, form: Format, seed: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Codes of q, k and v, and parameters."""
    length, keys, width, causal, late, heads, shared = CASES[name]
    random = np.random.default_rng(seed)
    sizes = ((heads, length), (shared, keys), (shared, keys))
    codes = tuple(form.encode(random.normal(size=(2, h, n, width)).astype(np.float32)) for h, n in sizes)
    return codes, {"is_causal": causal, "scale": 0.11, "lower_right": late}


def run(form: Format, codes: tuple[Any, ...], params: dict[str, Any], rung: str = NAME) -> tuple[Any, ...]:
    on_gpu = tuple(map(gpu.xp().asarray, codes))
    with dispatch.use(attention=rung):
        plan = dispatch.make_plan(spec.attention, "cuda:0", (form,) * 3 + (None,), (*on_gpu, None), params)
        return tuple(map(gpu.to_host, plan.run(*on_gpu, None, **params)))


def held(form: Format, codes: tuple[Any, ...], params: dict[str, Any]) -> None:
    """The results are within rounding of the definition's: of weights in the format, and of results."""
    y, lse = run(form, codes, params)
    exact = [np.asarray(form.exact(c), np.float64) for c in codes]
    want, logs = spec.attention.reference(*exact, None, **params)
    assert (np.isneginf(lse) == np.isneginf(logs)).all()
    seen = np.isfinite(logs)
    np.testing.assert_allclose(lse[seen], logs[seen], rtol=1e-5, atol=1e-5, err_msg="logarithms are off by")
    most = np.abs(exact[2]).max()
    error = np.abs(np.asarray(form.exact(y), np.float64) - want)
    assert (error <= UNIT[form] * (most + 2 * np.abs(want))).all(), f"off by up to {error.max()}"


@pytest.mark.parametrize("form", [bfloat16, float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_launch(name: str, form: Format) -> None:
    held(form, *drawn(name, form))


def test_operands_of_a_layer_and_others() -> None:
    """Heads behind lengths are read where they lie; what the copy unit cannot read is copied."""
    codes, params = drawn("part of a block", bfloat16)
    first = [a.tobytes() for a in run(bfloat16, codes, params)]
    turned = tuple(np.ascontiguousarray(c.transpose(0, 2, 1, 3)) for c in codes)
    odd = tuple(np.concatenate([c, c[..., :1]], -1) for c in codes)
    for others, view in ((turned, lambda a: a.transpose(0, 2, 1, 3)), (odd, lambda a: a[..., :-1])):
        on_gpu = tuple(view(gpu.xp().asarray(c)) for c in others)
        found = triton_gluon.attention(*on_gpu, None, **params)
        assert [gpu.to_host(a).tobytes() for a in found] == first


def test_gradient_follows() -> None:
    """From the rung's results, the gradient of others is that of the definition."""
    codes, params = drawn("causal in one block", bfloat16)
    y, lse = run(bfloat16, codes, params)
    exact = [np.asarray(bfloat16.exact(c), np.float64) for c in codes]
    g = bfloat16.encode(np.random.default_rng(5).normal(size=y.shape))
    arrays, formats = (g, *codes, None, y, lse), (bfloat16,) * 4 + (None, bfloat16, float32)
    on_gpu = tuple(None if a is None else gpu.xp().asarray(a) for a in arrays)
    found = dispatch.make_plan(spec.attention_gradient, "cuda:0", formats, on_gpu, params).run(*on_gpu, **params)
    results = spec.attention.reference(*exact, None, **params)
    for a, b in zip(
        found, spec.attention_gradient.reference(bfloat16.exact(g), *exact, None, *results, **params), strict=True
    ):
        error = np.abs(np.asarray(bfloat16.exact(gpu.to_host(a)), np.float64) - b)
        assert error.max() < 0.03 * np.abs(b).max()


def test_many_launches_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a race would show itself now and then; on the host partitions take turns in another order each time."""
    random = np.random.default_rng(1)
    heads, length, times = (1, 300, 4) if gpu.mode() else (16, 4096, 200)
    codes = tuple(bfloat16.encode(random.normal(size=(1, heads, length, 64)).astype(np.float32)) for _ in range(3))
    bits = set()
    for seed in range(times):
        monkeypatch.setattr(gluon_host, "SEED", seed)
        bits.add(b"".join(a.tobytes() for a in run(bfloat16, codes, {"is_causal": True, "scale": 0.1})))
    assert len(bits) == 1


def test_dispatch_takes_it_only_by_name() -> None:
    codes, params = drawn("whole blocks", bfloat16)
    q, k, v = (ug.Tensor(gpu.xp().asarray(c), bfloat16) for c in codes)
    found = ug.explain("attention", q, k, v, None, **params)
    assert found.taken == "cuda/triton-tuned"
    ranks = {r.name: r.rank for r in registry.ladder(spec.attention, "cuda")}
    assert ranks["cuda/triton-fused"] < ranks[NAME] < ranks["cuda/triton-tuned"]


REFUSED: dict[str, tuple[tuple[int, int, int], dict[str, Any], str]] = {
    "other heads": ((8, 8, 96), {}, "64 or 128 features"),
    "no keys": ((8, 0, 64), {}, "one key at least"),
    "a scale below zero": ((8, 8, 64), {"scale": -1.0}, "a positive scale"),
    "a window": ((8, 8, 64), {"window": (4, 4)}, "knows no window"),
    "dropout": ((8, 8, 64), {"dropout": spec.Dropout(0.5, 1, 2)}, "knows no dropout"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_why(name: str) -> None:
    (length, keys, width), given, reason = REFUSED[name]
    q, k = (bfloat16.encode(np.ones((1, 1, n, width))) for n in (length, keys))
    with pytest.raises(KernelError, match=reason):
        run(bfloat16, (q, k, k), {"is_causal": False, "scale": 0.1, **given})


def test_a_mask_and_other_units_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = gpu.xp().zeros((1, 1, 8, 64), np.uint16)
    rung = next(r for r in registry.ladder(spec.attention, "cuda") if r.name == NAME)
    request = registry.Request(spec.attention, "cuda", (bfloat16,) * 3, (x, x, x, None), {"scale": 1.0})
    assert rung.refusal(request) is None
    assert "no mask" in str(rung.refusal(request._replace(arrays=(x, x, x, x))))
    monkeypatch.setattr(gpu, "capability", lambda: 100)
    assert "this is sm_100" in str(rung.refusal(request))


MISTAKES = {
    "keys are read before they are there": ("mbarrier.wait(k_full.index(stage), parity)\n    key", "key"),
    "values are read before they are there": ("        mbarrier.wait(v_full.index(stage), parity)\n", ""),
    "queries are read before they are there": ("    mbarrier.wait(q_full.index(side), 0)\n", ""),
    "keys are loaded over those that are read": ("        mbarrier.wait(k_empty.index(stage), parity ^ 1)\n", ""),
    "values are loaded over those that are read": ("        mbarrier.wait(v_empty.index(stage), parity ^ 1)\n", ""),
    "the wrong round is waited for": ("k_empty.index(stage), parity ^ 1", "k_empty.index(stage), parity"),
    "values are given back before their product is made": (
        "result, operand, weights = warpgroup_mma_wait(0, deps=(result, operand, weights))\n"
        "        mbarrier.arrive(v_empty.index(before), count=1)",
        "mbarrier.arrive(v_empty.index(before), count=1)\n"
        "        result, operand, weights = warpgroup_mma_wait(0, deps=(result, operand, weights))",
    ),
    "values of the wrong stage are given back": ("index(before), count=1)\n", "index(step % STAGES), count=1)\n"),
    "keys are never given back": ("        mbarrier.arrive(k_empty.index(step % STAGES), count=1)\n", ""),
    "one group of two gives back": ("k_empty.index(stage), count=2)", "k_empty.index(stage), count=1)"),
    "too few bytes are waited for": ("k_full.index(stage), N * WIDTH * 2", "k_full.index(stage), N * WIDTH"),
    "a product is not waited for": ("s = warpgroup_mma_wait(1, deps=(s,))", "s = warpgroup_mma_wait(2, deps=(s,))"),
    "results are stored without a fence": ("any more\n    fence_async_shared()", "any more"),
    "the store is not waited for": ("    tma.store_wait(0)\n", ""),
    "a whole block too many": ("max(first + 1, 0) // N)", "max(first + N, 0) // N)"),
    "a block too few": ("return (end + N - 1) // N, whole", "return max(end // N, 1), whole"),
    "blocks in another order than they are loaded": ("start = (count - 1 - step) * N", "start = step * N"),
    "earlier results are not shrunk": ("* gl.convert_layout(shrink,", "* gl.convert_layout(shrink * 0 + 1,"),
}  # fmt: skip


def in_other_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """More blocks than stages, with partitions that take turns in several orders."""
    for seed in range(4):
        monkeypatch.setattr(gluon_host, "SEED", seed)
        held(bfloat16, *drawn("causal to the last key", bfloat16, seed))


@pytest.mark.skipif(gpu.mode() != "emulated", reason="partitions of a GPU take turns as they will")
def test_any_order_of_turns_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    in_other_orders(monkeypatch)


@pytest.mark.skipif(gpu.mode() != "emulated", reason="a GPU would wait, or read what is not there")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_the_pipeline_are_seen(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, (right, wrong) = Path(triton_gluon.__file__).read_text(), MISTAKES[mistake]
    assert text.count(right) == 1
    text = text.replace(right, wrong).replace("@kernel(", "@(lambda *_, **__: lambda function: function)(")
    module = load("triton", f"mistake_{list(MISTAKES).index(mistake)}", text)
    monkeypatch.setattr(triton_gluon, "attention_forward_gluon", module.attention_forward_gluon)
    told = r"off by|a barrier of|nobody goes on|a fence|not made|before its copies"
    with pytest.raises((AssertionError, KernelError), match=told):
        in_other_orders(monkeypatch)
