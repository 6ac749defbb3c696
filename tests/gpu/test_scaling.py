"""A loss scaler and clipping on a GPU: what the CPU does, and the host reads nothing on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn, optim
from ulpgrad.kernels import capabilities, gpu
from ulpgrad.scaled import Flag

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

SHAPES = ((5,), (3, 4), ())
HUGE = (1, 2)  # steps whose gradients are not finite


def train(device: str, form: Any, clip: float | None, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    params = [nn.Parameter(ug.asarray(rng.standard_normal(s).astype(np.float32)).to(form).to(device)) for s in SHAPES]
    optimizer, scaler = optim.AdamW(params, lr=0.1), ug.GradScaler(init_scale=48.0, growth_interval=2)
    norms, scales, stepped = [], [], []
    for i in range(6):
        for p in params:
            values = np.asarray(rng.standard_normal(p.shape), np.float32) * 48
            if i in HUGE:
                values.reshape(-1)[0] = (np.inf, np.nan)[i % 2]
            p.grad = ug.asarray(values).to(form).to(device)
        with monkeypatch.context() as patched:
            if device == "cuda":
                patched.setattr(gpu, "to_host", lambda array: pytest.fail("the host reads"))
                if gpu.mode() == "emulated":
                    patched.setattr(gpu.xp().ndarray, "_single", lambda array: pytest.fail("the host reads a value"))
            if clip is not None:
                scaler.unscale_(optimizer)
                norms.append(optim.clip_grad_norm_(params, clip))
            stepped.append(scaler.step(optimizer))
            scaler.update()
        scales.append(scaler.get_scale())
    assert all(isinstance(found, Flag if device == "cuda" else bool) for found in stepped)
    steps = [s["step"] for s in optimizer.state_dict()["state"].values()]
    return list(map(bool, stepped)), scales, scaler.skipped, steps, list(map(float, norms)), [
        p.detach().to(ug.float64).numpy() for p in params]  # fmt: skip


@pytest.mark.parametrize("clip", [None, 1.5])
@pytest.mark.parametrize("form", [ug.float32, ug.float64, ug.bfloat16], ids=str)
def test_as_on_the_cpu(form: Any, clip: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = (train(device, form, clip, monkeypatch) for device in ("cpu", "cuda"))
    assert here[:4] == there[:4]
    assert here[0] == [i not in HUGE for i in range(6)]
    assert here[2:4] == (2, [4, 4, 4])
    np.testing.assert_allclose(there[4], here[4], rtol=1e-12)
    for a, b in zip(there[5], here[5], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-2 if form is ug.bfloat16 else 2e-6, atol=1e-6)


def test_products_are_made_where_they_are_read() -> None:
    """By the step, or by who looks before it: the same bits, subnormals among them."""
    bits = []
    values = np.array([1e-45, 3e-39, -2e-34, 7.7, 65504.0], np.float32)
    for looks in (False, True):
        p = nn.Parameter(ug.ones(5, device="cuda"))
        p.grad = ug.asarray(values, device="cuda")
        optimizer, scaler = optim.SGD([p], lr=0.1, momentum=0.5), ug.GradScaler(init_scale=3.0)
        scaler.unscale_(optimizer)
        optim.clip_grad_norm_([p], 0.7)
        if looks:
            assert p.grad.shape == (5,)
        scaler.step(optimizer)
        bits.append(
            [p.detach().numpy().tobytes(), optimizer.state[p].arrays[0].get().tobytes(), p.grad.numpy().tobytes()]
        )
    assert bits[0] == bits[1]


def test_an_optimizer_with_a_step_of_its_own_waits() -> None:
    class Counted(optim.SGD):
        calls = 0

        def step(self) -> None:
            Counted.calls += 1
            super().step()

    p = nn.Parameter(ug.ones(2, device="cuda"))
    optimizer, scaler = Counted([p], lr=1.0), ug.GradScaler(init_scale=2.0)
    for bad, calls in ((np.inf, 0), (2.0, 1)):
        p.grad = ug.asarray([bad, 2.0], device="cuda")
        assert bool(scaler.step(optimizer)) == bool(calls)
        scaler.update()
        assert Counted.calls == calls
