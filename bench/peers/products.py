"""Rows of products: matmul, attention and convolution in floats, beside torch, NumPy, JAX and ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import ulpgrad as ug
from ulpgrad.bench import peak
from ulpgrad.bench.peers import others
from ulpgrad.bench.peers.work import Contender, Target, Work
from ulpgrad.formats import Array, Format, as_format
from ulpgrad.kernels.threads import get_num_threads

Found = list[Contender]
Shape = tuple[int, ...]

FLOPS = "GFLOP/s"
WITHIN = {"float64": 1e-14, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}
CHECKED = 4  # rows of float64 products, which are held against NumPy's long double: it is slow
SLOW_FLOAT16 = 256  # torch multiplies float16 matrices one value at a time: larger ones take seconds


def units(form: Format) -> Callable[[], float | None]:
    """GFLOP/s of the multiply-add units for that format."""

    def limit() -> float | None:
        found = peak.flops(form, get_num_threads(), dots=True)
        return None if found is None else found / 1e9

    return limit


def normal(shape: Shape, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def operands(form: Format, *shapes: Shape) -> tuple[list[Any], list[Array]]:
    """Random tensors of that format, and what they hold in float64."""
    tensors = [ug.asarray(normal(shape, seed)).to(form) for seed, shape in enumerate(shapes)]
    return tensors, [t.to("float64").numpy() for t in tensors]


def values(t: Any) -> Array:
    """Of one of our tensors."""
    return np.asarray(t.to("float64").numpy())


# Matmul


def matmul(name: str, form: Any, a: Shape, b: Shape, targets: tuple[Target, ...] = (), *, few: bool = False) -> Work:
    """a @ b of random values; `few`: beside torch and NumPy only, as a sweep wants it."""
    form = as_format(form)
    (x, y), (x64, y64) = operands(form, a, b)
    amount = 2.0 * math.prod(np.broadcast_shapes(a[:-2], b[:-2])) * a[-2] * a[-1] * b[-1]
    found: Found = []
    torch = others.imported("torch")
    if torch is not None and not (form.name == "float16" and amount > 2 * SLOW_FLOAT16**3):
        p, q = (others.to_torch(torch, v, form) for v in (x64, y64))
        found.append(Contender("torch", lambda: p @ q, amount, others.from_torch))
    elif torch is not None:
        p, q = (others.to_torch(torch, v, form) for v in (x64[..., :SLOW_FLOAT16, :SLOW_FLOAT16],
                                                          y64[..., :SLOW_FLOAT16, :SLOW_FLOAT16]))  # fmt: skip
        found.append(Contender("torch", lambda: p @ q, 2.0 * SLOW_FLOAT16**3, None,
                               note=f"at {SLOW_FLOAT16}³, its rate taken as that of the whole"))  # fmt: skip
    if form.name in ("float32", "float64"):
        left, right = x.numpy(), y.numpy()
        found.append(Contender("NumPy", lambda: left @ right, amount))
    if not few:
        found += others.jax_call("matmul", form, amount, x64, y64)
        if form.name == "float32":
            found += others.onnx_matmul(x.numpy(), y.numpy(), amount)
    found = [Contender("ulpgrad", lambda: x @ y, amount, values), *found]
    if form.name == "float64":
        found = [replace(c, values=partial(first_rows, of=c.values)) for c in found if c.values is not None]

    def exact() -> Array:
        if form.name == "float64":
            return np.asarray(x64[..., :CHECKED, :].astype(np.longdouble) @ y64.astype(np.longdouble))
        return np.asarray(x64 @ y64)

    return Work(name, found[0], found[1:], FLOPS, 1e9, units(form), targets, exact=exact, within=WITHIN[form.name])


def first_rows(y: Any, of: Callable[[Any], Array]) -> Array:
    """The rows that are checked."""
    return of(y)[..., :CHECKED, :]


# Attention


def attended(q: Array, k: Array, v: Array, *, causal: bool = False) -> Array:
    """Attention by its definition, in float64."""
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tri(q.shape[-2], k.shape[-2], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True) @ v)


def attention(
    name: str, form: Any, shape: Shape, targets: tuple[Target, ...] = (), *, causal: bool = False, few: bool = False
) -> Work:
    """Scaled dot-product attention of (batch, heads, length, size) with itself in shape."""
    form = as_format(form)
    (q, k, v), exact = operands(form, shape, shape, shape)
    amount = 4.0 * math.prod(shape) * shape[-2] / (2 if causal else 1)
    found: Found = []
    torch = others.imported("torch")
    if torch is not None:
        theirs = [others.to_torch(torch, v, form) for v in exact]
        sdpa = torch.nn.functional.scaled_dot_product_attention
        found.append(Contender("torch", lambda: sdpa(*theirs, is_causal=causal), amount, others.from_torch))
    if not few:
        found += others.jax_call("attention", form, amount, *(np.swapaxes(v, 1, 2) for v in exact), causal=causal)
    ours = Contender("ulpgrad", lambda: ug.scaled_dot_product_attention(q, k, v, is_causal=causal), amount, values)
    return Work(name, ours, found, FLOPS, 1e9, units(form), targets,
                exact=lambda: attended(exact[0], exact[1], exact[2], causal=causal), within=WITHIN[form.name])  # fmt: skip


def attention_step(name: str, form: Any, shape: Shape, targets: tuple[Target, ...] = ()) -> Work:
    """Forward and backward: seven products instead of two."""
    form = as_format(form)
    tensors, exact = operands(form, shape, shape, shape)
    for t in tensors:
        t.requires_grad = True
    (g,), _ = operands(form, shape)
    amount = 3.5 * 4.0 * math.prod(shape) * shape[-2]

    def ours() -> Any:
        for t in tensors:
            t.grad = None
        ug.scaled_dot_product_attention(*tensors).backward(g)
        return tensors[0].grad

    found: Found = []
    torch = others.imported("torch")
    if torch is not None:
        theirs = [others.to_torch(torch, v, form).requires_grad_() for v in exact]
        gradient = others.to_torch(torch, values(g), form)

        def peer() -> Any:
            for t in theirs:
                t.grad = None
            torch.nn.functional.scaled_dot_product_attention(*theirs).backward(gradient)
            return theirs[0].grad

        found.append(Contender("torch", peer, amount, others.from_torch))
    note = "seven products are counted, two forward and five backward; the gradient of the queries is checked"
    return Work(name, Contender("ulpgrad", ours, amount, values), found, FLOPS, 1e9, units(form), targets, note=note,
                exact=lambda: query_gradient(exact[0], exact[1], exact[2], values(g)), within=WITHIN[form.name])  # fmt: skip


def query_gradient(q: Array, k: Array, v: Array, g: Array) -> Array:
    """The gradient of attention's queries by its definition, in float64."""
    scale = 1 / math.sqrt(q.shape[-1])
    scores = q @ np.swapaxes(k, -1, -2) * scale
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    wanted = g @ np.swapaxes(v, -1, -2)
    wanted -= (wanted * weights).sum(-1, keepdims=True)
    return np.asarray((weights * wanted * scale) @ k)


# Convolution


def convolved(x: Array, w: Array, padding: int, stride: int) -> Array:
    """Convolution as a sum over taps, in float64."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows, columns = ((x.shape[2 + i] - w.shape[2 + i]) // stride + 1 for i in range(2))
    y = np.zeros((len(x), len(w), rows, columns))
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            part = x[:, :, i : i + rows * stride : stride, j : j + columns * stride : stride]
            y += np.einsum("ncij,oc->noij", part, w[:, :, i, j], optimize=True)
    return y


def channels_last(x: Array) -> Array:
    """The same values and axes, with the channels beside each other in memory."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def conv2d(
    name: str, form: Any, x: Shape, w: Shape, targets: tuple[Target, ...] = (), *, last: bool, padding: int = 1,
    stride: int = 1,
) -> Work:  # fmt: skip
    """conv2d of images that lie channels last or first, beside torch on both."""
    form = as_format(form)
    (image, weight), (x64, w64) = operands(form, x, w)
    if last:
        image = ug.asarray(channels_last(normal(x, 0))).to(form)
    exact = partial(convolved, x64, w64, padding, stride)
    rows, columns = ((x[i] + 2 * padding - w[i]) // stride + 1 for i in (2, 3))
    amount = 2.0 * x[0] * math.prod(w) * rows * columns
    found: Found = []
    torch = others.imported("torch")
    if torch is not None:
        p, q = (others.to_torch(torch, v, form) for v in (x64, w64))
        p2, q2 = (t.to(memory_format=torch.channels_last) for t in (p, q))
        run = torch.nn.functional.conv2d
        found.append(Contender("torch channels last", lambda: run(p2, q2, padding=padding, stride=stride), amount,
                               others.from_torch))  # fmt: skip
        found.append(Contender("torch NCHW", lambda: run(p, q, padding=padding, stride=stride), amount,
                               others.from_torch))  # fmt: skip
    ours = Contender("ulpgrad", lambda: ug.conv2d(image, weight, padding=padding, stride=stride), amount, values)
    return Work(name, ours, found, FLOPS, 1e9, units(form), targets, exact=exact, within=WITHIN[form.name])


SQUARE = (1024, 1024)
HEADS, SHORT = (1, 8, 2048, 64), (1, 8, 512, 64)
IMAGES, FILTERS = (8, 64, 56, 56), (64, 64, 3, 3)
T = Target
LAST = "torch channels last"

WORKS: dict[str, Callable[[str], Work]] = {
    "matmul float32, 1024³": partial(matmul, form="float32", a=SQUARE, b=SQUARE,
                                     targets=(T(2, "NumPy"), T(2, "torch"), T(1, "JAX"))),
    "matmul float64, 1024³": partial(matmul, form="float64", a=SQUARE, b=SQUARE, targets=(T(1.8, "NumPy"),)),
    "matmul bfloat16, 1024³": partial(matmul, form="bfloat16", a=SQUARE, b=SQUARE, targets=(T(1, "torch"),)),
    "matmul float16, 1024³": partial(matmul, form="float16", a=SQUARE, b=SQUARE, targets=(T(1, "JAX"), T(150, "torch"))),
    "attention float32, 1x8x2048x64": partial(attention, form="float32", shape=HEADS, targets=(T(2, "torch"),)),
    "attention float32, causal, 1x8x2048x64": partial(attention, form="float32", shape=HEADS, causal=True),
    "attention bfloat16, 1x8x2048x64": partial(attention, form="bfloat16", shape=HEADS, targets=(T(3, "torch"),)),
    "attention float32, forward and backward, 1x8x512x64": partial(attention_step, form="float32", shape=SHORT,
                                                                   targets=(T(2, "torch"),)),
    "conv2d float32 3x3, 64 channels 56x56, channels last": partial(conv2d, form="float32", x=IMAGES, w=FILTERS, last=True,
                                                                    targets=(T(0.95, LAST),)),
    "conv2d float32 3x3, 64 channels 56x56, NCHW": partial(conv2d, form="float32", x=IMAGES, w=FILTERS, last=False,
                                                           targets=(T(0.95, LAST),)),
    "conv2d bfloat16 3x3, 64 channels 56x56, channels last": partial(conv2d, form="bfloat16", x=IMAGES, w=FILTERS, last=True,
                                                                     targets=(T(0.9, LAST),)),
}  # fmt: skip

__all__ = ["FLOPS", "WORKS", "attention", "conv2d", "matmul", "normal", "operands", "units", "values"]
