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
from ulpgrad.formats import Format, as_format, bfloat16, float16, float32
from ulpgrad.kernels import capabilities, gpu, registry
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.registry import Request

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_kernels import check

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

RUNGS = [r.name for r in registry.ladder(spec.attention, "cuda") if r.name.startswith("cuda/triton")]
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
