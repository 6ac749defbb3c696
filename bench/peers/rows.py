"""Rows of operations that memory limits: softmax, layer norm, cross-entropy, sums, activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import ulpgrad as ug
from ulpgrad.bench import peak
from ulpgrad.bench.peers import others
from ulpgrad.bench.peers.products import operands, values
from ulpgrad.bench.peers.work import Contender, Target, Work
from ulpgrad.formats import Array, as_format
from ulpgrad.kernels.threads import get_num_threads

BYTES = "GB/s"
WITHIN = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1e-2}


def softmax_of(x: Array) -> Array:
    """By its definition."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def layer_norm_of(x: Array, eps: float = 1e-5) -> Array:
    """By its definition, without weight and bias."""
    return np.asarray((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps))


def gelu_of(x: Array) -> Array:
    """By its definition."""
    erf = np.frompyfunc(math.erf, 1, 1)
    return np.asarray(0.5 * x * (1 + np.asarray(erf(x / math.sqrt(2)), np.float64)))


def nothing(x: Array) -> Array:
    """Sums are of one value a row."""
    return np.asarray(x.sum(-1))


Function = Callable[[Any], Any]
OURS: dict[str, Function] = {
    "softmax": lambda x: ug.softmax(x, axis=-1),
    "layer_norm": lambda x: ug.layer_norm(x, x.shape[-1]),
    "gelu": ug.gelu,
    "sum": lambda x: ug.sum(x, axis=-1),
}
EXACT: dict[str, Function] = {"softmax": softmax_of, "layer_norm": layer_norm_of, "gelu": gelu_of, "sum": nothing}


def theirs(torch: Any) -> dict[str, Function]:
    functional = torch.nn.functional
    return {
        "softmax": lambda x: torch.softmax(x, -1),
        "layer_norm": lambda x: functional.layer_norm(x, x.shape[-1:]),
        "gelu": functional.gelu,
        "sum": lambda x: x.sum(-1),
    }


def rowwise(
    name: str, op: str, form: Any, shape: tuple[int, ...], targets: tuple[Target, ...] = (), *, few: bool = False
) -> Work:
    """A function of rows; bytes read and written at least are counted."""
    form = as_format(form)
    (x,), (x64,) = operands(form, shape)
    size = form.bits // 8
    amount = float(size * (math.prod(shape) + (math.prod(shape[:-1]) if op == "sum" else math.prod(shape))))
    found = []
    torch = others.imported("torch")
    if torch is not None:
        t, run = others.to_torch(torch, x64, form), theirs(torch)[op]
        found.append(Contender("torch", lambda: run(t), amount, others.from_torch))
    if op == "softmax" and not few:
        found += others.jax_call("softmax", form, amount, x64)
    call = OURS[op]
    return Work(
        name, Contender("ulpgrad", lambda: call(x), amount, values), found, BYTES, 1e9,
        lambda: peak.bandwidth(int(amount), get_num_threads()) / 1e9, targets,
        exact=lambda: EXACT[op](x64), within=WITHIN[form.name],
    )  # fmt: skip


WIDE = (4096, 1024)
T = Target

WORKS: dict[str, Callable[[str], Work]] = {
    "softmax float32, 4096x1024": partial(rowwise, op="softmax", form="float32", shape=WIDE, targets=(T(1.2, "torch"),)),
    "softmax bfloat16, 4096x1024": partial(rowwise, op="softmax", form="bfloat16", shape=WIDE),
    "layer norm float32, 4096x1024": partial(rowwise, op="layer_norm", form="float32", shape=WIDE, targets=(T(1.2, "torch"),)),
    "layer norm bfloat16, 4096x1024": partial(rowwise, op="layer_norm", form="bfloat16", shape=WIDE),
    "gelu float32, 4096x1024": partial(rowwise, op="gelu", form="float32", shape=WIDE),
    "sum of rows float32, 4096x1024": partial(rowwise, op="sum", form="float32", shape=WIDE),
    "sum of rows bfloat16, 4096x1024": partial(rowwise, op="sum", form="bfloat16", shape=WIDE),
}  # fmt: skip

__all__ = ["WORKS", "rowwise"]
