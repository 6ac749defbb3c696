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

from ulpgrad.kernels.optimizer import triton_multi, triton_squares

SHAPES = ((3, 4), (64,), (0,), (1,), (10, 13), (32,))
STEPS = [
    ("sgd_step", 0, {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.1, "first": False}),
    ("sgd_step", 1, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "nesterov": True, "weight_decay": 0.1, "first": False}),
    ("adam_step", 2, {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1, "decoupled": True,
                      "step": 7}),
    ("adagrad_step", 1, {"lr": 0.1, "eps": 1e-10, "weight_decay": 0.1}),
    ("rmsprop_step", 2, {"lr": 0.01, "alpha": 0.99, "eps": 1e-8, "momentum": 0.9, "weight_decay": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize("factors", [None, (0.37, 1 / 3)], ids=["as it is", "scaled"])
@pytest.mark.parametrize("form", [float32, float64], ids=str)
@pytest.mark.parametrize(("name", "states", "params"), STEPS, ids=lambda v: v if isinstance(v, str) else "")
def test_many_parameters_in_one_launch(
    name: str, states: int, params: Any, form: Any, factors: Any, monkeypatch: pytest.MonkeyPatch
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
    missing = [None] * (operands - 2 - states - (factors is not None))
    numbers = [] if factors is None else [np.array((1.0, *factors), form.storage)]
    forms = [(form,) * (2 + states) + tuple(missing) + (form,) * len(numbers) for _ in groups]
    there = [gpu.to_device(n) for n in numbers]
    multi.step(name, [[*g, *missing, *numbers] for g in groups], forms, **params)
    multi.step(name, [[*g, *missing, *there] for g in on_gpu], forms, **params)
    assert launched == [(1 + 2 + 1 + 5 + 1,)], "one program for each 32 values, all in one launch"
    for wanted, found in zip(groups, on_gpu, strict=True):
        for a, b in zip(wanted, found, strict=True):
            eps = 16 * np.finfo(a.dtype).eps
            np.testing.assert_allclose(gpu.to_host(b), a, rtol=eps, atol=eps)
    assert all((gpu.to_host(g) == 7).all() for g in guards)


@pytest.mark.parametrize(("name", "states", "params"), STEPS, ids=lambda v: v if isinstance(v, str) else "")
def test_factors_and_switch(name: str, states: int, params: Any) -> None:
    """Factors that lie on the device give the bits of products made before, subnormals among them; a switch that is off writes
    nothing."""
    rng = np.random.default_rng(4)
    operands = max(len(registry.find(name).signature.split("*")[0].split(",")) - 1, 2)
    missing = [None] * (operands - 3 - states)
    numbers = np.array([1, 1 / 65536, 0.7], np.float32)
    given = [rng.random(50).astype(np.float32) for _ in range(2 + states)]
    given[1][:6] = 1e-45, 3e-39, -2e-34, 1e30, -7.7e-40, 65504
    apart, together, off = ([gpu.to_device(a.copy()) for a in given] for _ in range(3))
    apart[1] = gpu.to_device(given[1] * numbers[1] * numbers[2])
    forms = (float32,) * (2 + states) + (None,) * len(missing)
    multi.step(name, [[*apart, *missing, None]], [(*forms, None)], **params)
    multi.step(name, [[*together, *missing, gpu.to_device(numbers)]], [(*forms, float32)], **params)
    multi.step(name, [[*off, *missing, gpu.to_device(numbers * 0)]], [(*forms, float32)], **params)
    for i, (a, b, c, start) in enumerate(zip(apart, together, off, given, strict=True)):
        assert i == 1 or gpu.to_host(a).tobytes() == gpu.to_host(b).tobytes()
        assert gpu.to_host(c).tobytes() == start.tobytes()


def test_squares_of_many_in_two_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_squares, "CHUNK", 32 * 4)
    monkeypatch.setattr(triton_squares, "BLOCK", 2)
    rng = np.random.default_rng(3)
    gradients = [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    numbers = np.array([1, 1 / 3], np.float32)
    there = gpu.to_device(numbers)
    found = multi.squares([(gpu.to_device(g), there) for g in gradients], [float32] * len(gradients))
    assert len({id(array) for array, _ in found}) == 1
    for g, (array, i) in zip(gradients, found, strict=True):
        np.testing.assert_allclose(gpu.to_host(array)[i], ((g * numbers[1]).astype(np.float64) ** 2).sum(), rtol=1e-14)
