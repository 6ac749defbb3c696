"""Attention of 8-bit floats on a GPU beyond the stamped tests: mixed formats, tensors with their scales, and what is refused."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.formats import bfloat16, float8_e4m3fn, float8_e5m2, float16, float32
from ulpgrad.kernels import capabilities, gpu, registry
from ulpgrad.kernels.attention_float8 import spec
from ulpgrad.kernels.registry import Request

pytestmark = pytest.mark.skipif(capabilities.missing("triton") is not None, reason="needs Triton")
OP = spec.attention_float8


def run(forms: Any, arrays: Any, **params: Any) -> Any:
    given = [gpu.to_device(form.encode(a)) for form, a in zip(forms, arrays, strict=True)]
    with dispatch.use(attention_float8="cuda/triton-float8"):
        return gpu.to_host(dispatch.call(OP, forms, tuple(given), params)[0])


def errors(found: Any, wanted: Any) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [float32, bfloat16, float16], ids=str)
def test_mixed_formats(dtype: Any, capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """q and k in one format, v in the other; on GPUs without units for them too. Blocks before, on and behind the diagonal."""
    if gpu.mode() == "emulated":
        monkeypatch.setattr(gpu, "capability", lambda: capability)
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, h, n, 40)) for h, n in ((2, 139), (1, 270), (1, 270)))
    forms = (float8_e5m2, float8_e4m3fn, float8_e5m2)
    for how in ({"is_causal": False}, {"is_causal": True}, {"is_causal": True, "lower_right": True}):
        found = run(forms, (q, k, v), scale=0.2, factor=1.5, dtype=dtype, **how)
        exact = [form.exact(form.encode(a)) for form, a in zip(forms, (q, k, v), strict=True)]
        wanted = OP.reference(*exact, scale=0.2, factor=1.5, dtype=dtype, **how)
        assert errors(dtype.exact(found), wanted) < (3e-4 if dtype is not bfloat16 else 3e-3)


def test_wide_heads_are_refused() -> None:
    q = gpu.xp().zeros((1, 2, 300), np.uint8)
    rung = registry.ladder(OP, "cuda")[0]
    assert "256" in str(rung.refusal(Request(OP, "cuda", (float8_e4m3fn,) * 3, (q, q, q), {})))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_tensors(device: str) -> None:
    """Values that were scaled to the format's range, as delayed scaling does, as a whole or by heads; with a mask, and on the
    wider road for a mask that is added."""
    rng = np.random.default_rng(1)
    q, k, v = (
        ug.asarray(rng.standard_normal(s).astype(np.float32)) for s in ((2, 4, 60, 16), (2, 2, 60, 16), (2, 2, 60, 16))
    )
    scales = (2**-5, 2**-6, 2**-4)
    given = [(t * (1 / s)).to("float8_e4m3fn") for t, s in zip((q, k, v), scales, strict=True)]
    values = [t.to("float32") * s for t, s in zip(given, scales, strict=True)]
    wanted = ug.scaled_dot_product_attention(*values, is_causal=True, enable_gqa=True).numpy()
    moved = [t.to(device) for t in given]
    how: dict[str, Any] = {"is_causal": True, "enable_gqa": True, "descale": scales}
    for dtype, close in (("float32", 5e-4), ("bfloat16", 4e-3)):
        found = ug.scaled_dot_product_attention(*moved, dtype=dtype, **how)
        assert (found.dtype.name, found.device.type) == (dtype, device)
        assert errors(found.to("float32").numpy(), wanted) < close
        heads = rng.uniform(0.5, 2, (2, 4)).astype(np.float32)
        by_head = [
            ug.asarray(heads),
            ug.asarray(heads[:1, :2]),
            ug.asarray(heads[1, 1:3]),
        ]  # of q, k and v, as they broadcast
        scaled = [t * (s * h.reshape(*h.shape, 1, 1)) for t, s, h in zip(values, (1, 1, 1), by_head, strict=True)]
        seen = rng.random((60, 60)) < 0.7
        masks = (ug.asarray(seen), ug.asarray(np.where(seen, 0, -np.inf).astype(np.float32)))
        exact = ug.scaled_dot_product_attention(*scaled, masks[0], is_causal=True, enable_gqa=True).numpy()
        descale = tuple((h * s).to(device) for h, s in zip(by_head, scales, strict=True))
        for mask in masks:
            run = functools.partial(
                ug.scaled_dot_product_attention, *moved, mask.to(device), dtype=dtype, **{**how, "descale": descale}
            )
            calls = [call[0].name for call in dispatch.calls_of(run)]
            assert ("attention_float8" in calls) == (mask.dtype is ug.bool)
            assert errors(run().to("float32").numpy(), exact) < close
