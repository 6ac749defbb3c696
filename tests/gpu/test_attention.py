"""Attention on a GPU where samples do not reach: several blocks of odd lengths, heads that share keys, rows that see nothing, and
operands as a layer of heads gives them, with the axis of heads behind that of lengths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.formats import Format, as_format, bfloat16, float16, float32, int64
from ulpgrad.kernels import capabilities, gpu, registry
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.visible import local
from ulpgrad.kernels.random import philox
from ulpgrad.kernels.registry import Request

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_kernels import check

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

SPLIT = "cuda/triton-split"
OTHERS = (SPLIT, "cuda/triton-gluon")  # have tests of their own: they take calls of another kind, or few
RUNGS = [
    r.name for r in registry.ladder(spec.attention, "cuda") if r.name.startswith("cuda/triton") and r.name not in OTHERS
]
HEADS_LAST = (0, 2, 1, 3)


def operands(causal: bool, masked: str, form: Format) -> tuple[Any, ...]:
    """q, k, v, mask: two heads of queries on one of keys, lengths that no block divides, the first rows masked entirely."""
    rng = np.random.default_rng(3)
    arrays = [form.encode(rng.standard_normal(s)) for s in ((1, 2, 141, 24), (1, 1, 133, 24), (1, 1, 133, 40))]
    seen = rng.random((141, 133)) < 0.5
    seen[:3] = False
    added = np.where(seen, rng.standard_normal(seen.shape), -np.inf).astype(np.float32)
    return *arrays, {"": None, "bool": seen, "added": added}[masked]


def run(op: Any, rung: str, arrays: Any, formats: Any, params: dict[str, Any]) -> Any:
    """On the device, images of heads given as views with their axes swapped."""
    on_gpu = []
    for a in arrays:
        turned = a is not None and a.ndim == 4
        made = None if a is None else gpu.xp().asarray(np.ascontiguousarray(a.transpose(HEADS_LAST) if turned else a))
        on_gpu.append(made.transpose(HEADS_LAST) if turned else made)
    with dispatch.use(**{op.name: rung}):
        found = dispatch.make_plan(op, "cuda:0", formats, tuple(on_gpu), params).run(*on_gpu, **params)
    return tuple(map(gpu.to_host, found))


SEEN = [(False, "", None), (True, "", None), (False, "bool", None), (True, "added", None), (False, "", (37, 5)),
        (True, "", (70, -1)), (False, "bool", (3, 90)), (False, "", (0, 0))]  # fmt: skip


@pytest.mark.parametrize(("causal", "masked", "window"), SEEN)
@pytest.mark.parametrize("rung", RUNGS)
def test_blocks(rung: str, causal: bool, masked: str, window: Any) -> None:
    arrays = operands(causal, masked, float32)
    formats = tuple(None if a is None else as_format(a.dtype) for a in arrays)
    params = {"is_causal": causal, "scale": 0.3, **({} if window is None else {"window": window})}
    check(spec.attention, arrays, formats, params, lambda *a, **p: run(spec.attention, rung, a, formats, p))
    y, lse = (np.asarray(a, np.float32) for a in spec.attention.reference(*arrays, **params))
    if masked:
        assert (lse[..., :3] == -np.inf).all()
    arrays = (np.random.default_rng(4).standard_normal(y.shape).astype(np.float32), *arrays, y, lse)
    formats = (float32, *formats, float32, float32)
    op = spec.attention_gradient
    check(op, arrays, formats, params, lambda *a, **p: run(op, rung, a, formats, p))


@pytest.mark.parametrize("rung", RUNGS[1:])
def test_keys_behind_a_window_are_not_read(rung: str) -> None:
    """What lies a block further would make NaN of every result, for a weight of zero does not hide it."""
    rng = np.random.default_rng(5)
    q, k, v, g = (rng.standard_normal((1, 1, 400, 16)).astype(np.float32) for _ in range(4))
    v[:, :, 300:] = k[:, :, 300:] = np.nan
    params = {"is_causal": False, "scale": 0.3, "window": (9, 9)}
    formats = (float32, float32, float32, None)
    y, lse = run(spec.attention, rung, (q, k, v, None), formats, params)
    assert np.isfinite(y[:, :, :128]).all()
    g[:, :, 128:] = 0
    dq, dk, dv = run(
        spec.attention_gradient, rung, (g, q, k, v, None, y, lse), (float32, *formats, float32, float32), params
    )
    assert np.isfinite(dq[:, :, :128]).all()
    assert np.isfinite(dk[:, :, :64]).all()
    assert np.isfinite(dv[:, :, :64]).all()


def test_a_choice_is_not_kept_for_other_heads() -> None:
    """Wide heads, and scales that are not positive, after those that the highest rung takes."""
    for scale, width in ((0.3, 8), (-0.3, 8), (0.3, 300)):
        q = ug.randn(1, 1, 80, width, generator=ug.Generator(1))
        found = ug.scaled_dot_product_attention(*[q.to("cuda")] * 3, scale=scale)
        expected = ug.scaled_dot_product_attention(q, q, q, scale=scale)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


DROPPED = [
    (keys, causal, window) for keys in (132, 133) for causal, window in ((False, None), (True, None), (False, (37, 5)))
]


@pytest.mark.parametrize(("keys", "causal", "window"), DROPPED)
@pytest.mark.parametrize("rung", RUNGS)
def test_dropped_weights_are_those_of_the_cpu(rung: str, keys: int, causal: bool, window: Any) -> None:
    """Bit for bit: values that are the identity make the result the matrix of weights, gradients that are make dv so. Rows of
    weights are whole blocks of words, or begin within one."""
    rng = np.random.default_rng(6)
    q, k = (rng.standard_normal((1, 2, n, 16)).astype(np.float32) for n in (70, keys))
    v = np.broadcast_to(np.eye(keys, dtype=np.float32), (1, 2, keys, keys)).copy()
    dropout = spec.Dropout(0.4, 0x299F31D0A4093822, 2**64 - 50)
    params = {"is_causal": causal, "scale": 0.3, "dropout": dropout, **({} if window is None else {"window": window})}
    formats = (float32, float32, float32, None)
    kept = philox.kept((1, 2, 70, keys), *dropout)
    if causal:
        kept = kept & np.tri(70, keys, dtype=bool)
    if window is not None:
        kept = kept & local(70, keys, window)
    y = run(spec.attention, rung, (q, k, v, None), formats, params)[0]
    np.testing.assert_array_equal(y != 0, kept)
    v = rng.standard_normal((1, 2, keys, 70)).astype(np.float32)
    y, lse = run(spec.attention, rung, (q, k, v, None), formats, params)
    g = np.broadcast_to(np.eye(70, dtype=np.float32), (1, 2, 70, 70)).copy()
    arrays, formats = (g, q, k, v, None, y, lse), (float32, *formats, float32, float32)
    found = run(spec.attention_gradient, rung, arrays, formats, params)
    np.testing.assert_array_equal(found[2].swapaxes(-1, -2) != 0, kept)
    check(spec.attention_gradient, arrays, formats, params, lambda *_, **__: found)


def test_dropout_of_tensors() -> None:
    """The same from both devices, gradients too, without a way through the host."""
    made = [ug.randn(2, 2, 20, 8, generator=ug.Generator(i)) for i in range(3)]
    results = []
    for device in ("cpu", "cuda"):
        q, k, v = (x.to(device).detach().requires_grad_() for x in made)
        y = ug.scaled_dot_product_attention(q, k, v, dropout_p=0.3, generator=ug.Generator(9))
        (y * y).sum().backward()
        results.append([y.detach(), q.grad, k.grad, v.grad])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-4, atol=1e-5)


def test_window_of_tensors() -> None:
    """The same from both devices, gradients too; on the CPU the window is a mask."""
    made = [ug.randn(2, 2, 20, 8, generator=ug.Generator(i)) for i in range(3)]
    results = []
    for device in ("cpu", "cuda"):
        q, k, v = (x.to(device).detach().requires_grad_() for x in made)
        y = ug.scaled_dot_product_attention(q, k, v, is_causal=True, window_size=(4, -1))
        (y * y).sum().backward()
        results.append([y.detach(), q.grad, k.grad, v.grad])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rung", "form"),
    [(r, f) for r in RUNGS[1:] for f in (bfloat16, float16)] + [("cuda/triton-unfused", float32)],
    ids=str,
)
def test_bits_repeat(rung: str, form: Format) -> None:
    q, k, v, _ = operands(False, "", form)
    formats = (form, form, form, None)
    params = {"is_causal": True, "scale": 0.2}
    first, again = (run(spec.attention, rung, (q, k, v, None), formats, params) for _ in range(2))
    assert [a.tobytes() for a in first] == [a.tobytes() for a in again]
    given, formats = (first[0], q, k, v, None, *first), (form, *formats, form, float32)
    results = [run(spec.attention_gradient, rung, given, formats, params) for _ in range(2)]
    assert [a.tobytes() for a in results[0]] == [a.tobytes() for a in results[1]]


@pytest.mark.parametrize("op", [spec.attention, spec.attention_gradient], ids=lambda op: op.name)
def test_without_descriptors(op: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The road of GPUs before sm_90, where operands are read through pointers, gives the same."""
    q, k, v, mask = operands(True, "bool", float32)
    results = []
    for capability in (gpu.capability(), 80):
        monkeypatch.setattr(gpu, "capability", lambda capability=capability: capability)
        arrays, formats = (q, k, v, mask), (float32, float32, float32, as_format(mask.dtype))
        params = {"is_causal": True, "scale": 0.2}
        found = run(spec.attention, "cuda/triton-tuned", arrays, formats, params)
        if op is spec.attention_gradient:
            arrays, formats = (found[0], *arrays, *found), (float32, *formats, float32, float32)
            found = run(op, "cuda/triton-tuned", arrays, formats, params)
        results.append(found)
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rung", RUNGS)
def test_wide_heads(rung: str) -> None:
    """Where blocks would not fit a program the rung says so; the plain one takes every size."""
    q = gpu.xp().zeros((1, 2, 300), np.float32)
    found = next(r for r in registry.ladder(spec.attention, "cuda") if r.name == rung)
    reason = found.refusal(Request(spec.attention, "cuda", (float32,) * 3, (q, q, q), {"scale": 1.0}))
    assert reason is None if rung == "cuda/triton-unfused" else "256" in str(reason)


@pytest.mark.parametrize("causal", [False, True, "lower_right"])
def test_lengths_are_the_tensors_cut(causal: Any) -> None:
    """Of tensors on both sides of the diagonal's blocks, forwards and backwards; what lies behind is NaN and nobody reads it."""
    queries, keys = [141, 70, 3], [133, 90, 0]
    rng = np.random.default_rng(6)
    q, g = (rng.standard_normal((3, 2, 141, 16)).astype(np.float32) for _ in range(2))
    k, v = (rng.standard_normal((3, 1, 133, 16)).astype(np.float32) for _ in range(2))
    results = []
    for device, scale in (("cpu", 0.3), ("cuda", 0.3), ("cuda", -0.3)):  # a negative scale takes another rung
        given = [ug.asarray(np.where(np.arange(a.shape[2])[:, None] < np.reshape(n, (3, 1, 1, 1)), a, np.nan), dtype="float32")
                 for a, n in ((q if scale > 0 else -q, queries), (k, keys), (v, keys), (g, queries))]  # fmt: skip
        on_device = [t.to(device).detach().requires_grad_() for t in given[:3]]
        lengths = {
            "query_lengths": ug.asarray(queries).to(device),
            "key_lengths": ug.asarray(keys, dtype="int32").to(device),
        }
        y = ug.scaled_dot_product_attention(*on_device, is_causal=causal, scale=scale, enable_gqa=True, **lengths)
        y.backward(given[3].to(device))
        signs = (1, 1 if scale > 0 else -1, 1, 1)
        results.append(
            [t.numpy() * sign for t, sign in zip((y.detach(), *(t.grad for t in on_device)), signs, strict=True)]
        )
    for found in results[1:]:
        for a, b in zip(results[0], found, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


# Of the rung that splits the keys: queries, heads of them, heads of keys, keys, and how it sees them.
FEW = [
    (1, 4, 2, 700, {}, ""),
    (1, 8, 1, 513, {"lengths": ([1, 1], [400, 257])}, ""),
    (3, 4, 2, 700, {"is_causal": True, "lower_right": True, "lengths": ([3, 2], [699, 3])}, ""),
    (3, 4, 4, 300, {"is_causal": True}, ""),
    (2, 6, 2, 530, {"lengths": ([2, 1], [530, 0])}, "bool"),
    (2, 4, 2, 530, {"is_causal": True, "lower_right": True}, "added"),
    (2, 4, 2, 600, {"window": (300, 5), "lower_right": True, "lengths": ([2, 2], [600, 320])}, ""),
    (
        10,
        4,
        1,
        700,
        {"is_causal": True, "lower_right": True, "lengths": ([10, 7], [699, 300])},
        "",
    ),  # two blocks of rows
    (1, 2, 2, 200, {"lengths": ([1, 1], [200, 7])}, ""),
]


@pytest.mark.parametrize(("length", "heads", "groups", "keys", "how", "masked"), FEW)
def test_keys_that_are_shared_out(
    length: int, heads: int, groups: int, keys: int, how: dict[str, Any], masked: str
) -> None:
    rng = np.random.default_rng(7)
    q, k, v = (
        rng.standard_normal((2, *s)).astype(np.float32)
        for s in ((heads, length, 20), (groups, keys, 20), (groups, keys, 36))
    )
    seen = rng.random((heads, length, keys)) < 0.5
    mask = {
        "": None,
        "bool": seen,
        "added": np.where(seen, rng.standard_normal(seen.shape), -np.inf).astype(np.float32),
    }[masked]
    params = {"is_causal": False, "scale": 0.3, **how}
    lengths = [np.array(n) for n in params.pop("lengths", ())]
    if lengths:
        k, v = (
            np.where(np.arange(keys)[:, None] < lengths[1].reshape(2, 1, 1, 1), a, np.float32(np.nan)) for a in (k, v)
        )
    arrays = (q, k, v, mask, *lengths)
    formats = tuple(None if a is None else as_format(a.dtype) for a in arrays)
    check(spec.attention, arrays, formats, params, lambda *a, **p: run(spec.attention, SPLIT, a, formats, p))


@pytest.mark.filterwarnings("ignore:All-NaN slice encountered")
def test_nan_that_all_keys_of_a_share_give_is_joined() -> None:
    """A query that is NaN makes every score so, and the largest of such, which passes NaN over, is that of no keys."""
    rng = np.random.default_rng(11)
    q, k, v = (rng.standard_normal((1, h, n, 16)).astype(np.float32) for h, n in ((2, 1), (2, 600), (2, 600)))
    q[0, 0, 0, 3] = np.nan
    params = {"is_causal": False, "scale": 0.2}
    y, lse = run(spec.attention, SPLIT, (q, k, v, None), (float32, float32, float32, None), params)
    assert np.isnan(y[0, 0]).all()
    assert np.isnan(lse[0, 0]).all()
    assert np.isfinite(y[0, 1]).all()


@pytest.mark.parametrize("form", [float32, bfloat16, float16], ids=str)
def test_memory_behind_a_length_changes_no_bit(form: Format) -> None:
    """Nor does it repeat otherwise: shares of keys are the same, and are joined in the same order."""
    rng = np.random.default_rng(8)
    q, k, v = (form.encode(rng.standard_normal((1, h, n, 16))) for h, n in ((4, 1), (2, 5000), (2, 5000)))
    k[:, :, 777:] = v[:, :, 777:] = form.encode(np.float64(np.nan))
    params = {"is_causal": False, "scale": 0.2}
    cut = run(spec.attention, SPLIT, (q, k[:, :, :777], v[:, :, :777], None), (form, form, form, None), params)
    for _ in range(2):
        arrays = (q, k, v, None, None, np.array([777]))
        found = run(spec.attention, SPLIT, arrays, (form, form, form, None, None, int64), params)
        assert [a.tobytes() for a in found] == [a.tobytes() for a in cut]


def test_few_queries_on_many_keys_take_the_rung_that_splits() -> None:
    """And others are told why not."""
    q, k = ug.zeros((1, 8, 1, 16), device="cuda"), ug.zeros((1, 2, 4096, 16), device="cuda")
    assert ug.explain("attention", q, k, k, None, is_causal=False, scale=1.0).taken == SPLIT
    q = ug.zeros((1, 8, 40, 16), device="cuda")
    found = ug.explain("attention", q, k, k, None, is_causal=False, scale=1.0)
    assert found.taken == "cuda/triton-tuned"
    assert "here are 160 on 4096 keys" in str(found)


@pytest.mark.parametrize("form", ["float32", "bfloat16"])
def test_cache(form: str) -> None:
    """Generation with a cache on a GPU is that of the CPU, and of attention on all tokens."""
    rng = np.random.default_rng(9)
    made = [ug.asarray(rng.standard_normal((2, h, 50, 16)).astype(np.float32)).to(form) for h in (4, 2, 2)]
    results = []
    for device in ("cpu", "cuda"):
        q, k, v = (t.to(device) for t in made)
        cache = ug.nn.KeyValueCache(2, 2, 300, 16, dtype=form, device=device)
        cache.append(k[:, :, :40], v[:, :, :40], [40, 31])
        found = [cache.attend(q[:, :, :40])]
        for at, counts in ((40, None), (41, [1, 0]), (42, None)):
            cache.append(k[:, :, at : at + 1], v[:, :, at : at + 1], counts)
            found.append(cache.attend(q[:, :, at : at + 1]))
        assert cache.lengths.numpy().tolist() == [43, 33]
        results.append([y.to("float32").numpy() for y in found])
    close = 1e-5 if form == "float32" else 2e-2
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=close, atol=close)
