"""Optimizer steps on many parameters in one launch: what the CPU gives, for parameters of any size, and no memory beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ulpgrad.formats import float32, float64
from ulpgrad.kernels import capabilities, gpu, registry
from ulpgrad.kernels.optimizer import multi

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

from ulpgrad.kernels.optimizer import triton_multi

SHAPES = ((3, 4), (64,), (0,), (1,), (10, 13), (32,))
STEPS = [
    ("sgd_step", 0, {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.1, "first": False}),
    ("sgd_step", 1, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "nesterov": True, "weight_decay": 0.1, "first": False}),
    ("adam_step", 2, {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1, "decoupled": True,
                      "step": 7}),
    ("adagrad_step", 1, {"lr": 0.1, "eps": 1e-10, "weight_decay": 0.1}),
    ("rmsprop_step", 2, {"lr": 0.01, "alpha": 0.99, "eps": 1e-8, "momentum": 0.9, "weight_decay": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize("form", [float32, float64], ids=str)
@pytest.mark.parametrize(("name", "states", "params"), STEPS, ids=lambda v: v if isinstance(v, str) else "")
def test_many_parameters_in_one_launch(
    name: str, states: int, params: Any, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_multi, "CHUNK", 32 * form.itemsize)
    launched: list[Any] = []
    real = triton_multi.launch
    monkeypatch.setattr(triton_multi, "launch", lambda *a, **k: (launched.append(a[1]), real(*a, **k))[1])
    rng = np.random.default_rng(3)
    operands = max(len(registry.find(name).signature.split("*")[0].split(",")) - 1, 2)
    groups = [[rng.random(shape).astype(form.storage) for _ in range(2 + states)] for shape in SHAPES]
    on_gpu, guards = [], []
    for group in groups:
        moved = []
        for a in group:  # with memory behind it that nobody may write to
            whole = gpu.to_device(np.concatenate([a.reshape(-1), np.full(40, 7, a.dtype)]))
            moved.append(whole[: a.size].reshape(a.shape))
            guards.append(whole[a.size :])
        on_gpu.append(moved)
    missing = [None] * (operands - 2 - states)
    forms = [(form,) * (2 + states) + tuple(missing) for _ in groups]
    multi.step(name, [[*g, *missing] for g in groups], forms, **params)
    multi.step(name, [[*g, *missing] for g in on_gpu], forms, **params)
    assert launched == [(1 + 2 + 1 + 5 + 1,)], "one program for each 32 values, all in one launch"
    for wanted, found in zip(groups, on_gpu, strict=True):
        for a, b in zip(wanted, found, strict=True):
            eps = 16 * np.finfo(a.dtype).eps
            np.testing.assert_allclose(gpu.to_host(b), a, rtol=eps, atol=eps)
    assert all((gpu.to_host(g) == 7).all() for g in guards)
