"""Inference in integers beside float32: the MLP 784-512-256-10 on 256 rows, and a CNN on 64 images of 28 x 28."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn
from ulpgrad.quantization import quantize

ROADS = ("float32", "int8 per channel", "q8", "q16")


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    mlp = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    cnn = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    return {"mlp": (mlp, (256, 784)), "cnn": (cnn, (64, 1, 28, 28))}


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_inference(benchmark: Any, name: str, road: str) -> None:
    ug.manual_seed(0)
    model, shape = networks()[name]
    x = ug.asarray(np.random.default_rng(0).random(shape, dtype=np.float32))
    run: nn.Module = model.eval() if road == "float32" else quantize(model, x, weight=road)
    benchmark.group = f"{name}, {shape[0]} inputs"
    benchmark.extra_info["bytes"] = sum(tensor.nbytes for tensor in run.state_dict().values())
    with ug.no_grad():
        benchmark.pedantic(lambda: run(x), rounds=20, iterations=1, warmup_rounds=3)
