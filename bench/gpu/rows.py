"""The rows of the GPU's table: our kernels beside the peers that they are to beat (the second table of targets)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.bench.gpu import ceilings, draw
from ulpgrad.bench.gpu.draw import torch
from ulpgrad.bench.gpu.turns import SETS, at_first, in_turn
from ulpgrad.bench.peers.others import imported
from ulpgrad.bench.peers.work import OURS, Contender, Target, Work
from ulpgrad.formats import as_format, float16
from ulpgrad.kernels import gpu
from ulpgrad.kernels.attention import spec as attend
from ulpgrad.kernels.conv import cuda_warpgroup, spec as conv
from ulpgrad.kernels.integer import spec as integer

TERA, GIGA = 1e12, 1e9
CHECKED = 64  # rows of a result, spread over all of them, that are held against float64
LR, DECAY = 1e-3, 0.01  # of AdamW
MATRIX, WARPGROUP = "cuda/cuda-matrix", "cuda/cuda-warpgroup"  # rungs of conv2d
TUNED, GLUON = "cuda/triton-tuned", "cuda/triton-gluon"  # rungs of attention
SAME: dict[str, Any] = {"stride": (1, 1), "dilation": (1, 1), "groups": 1}
LAYERS = ((32, 64, 56, 64), (32, 256, 14, 256), (8, 256, 112, 512))  # images, channels, side, results' channels
WITHIN = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2, "float8_e4m3fn": 8e-2, "int8": 0.0}
LIMITS = {
    "float32": ("tf32", 3),
    "float8_e5m2": ("float8_e4m3fn", 1),
}  # the unit, and its products for each one of ours


def small(size: int, least: int = 32) -> int:
    """A size of a problem; on an emulated device one that it can do."""
    return size if not gpu.mode() else max(1, min(size, least))


def spread(count: int) -> slice:
    """Rows from all over a result, so that every part of the work is in what is checked."""
    return slice(0, count, max(1, count // CHECKED))


def limit(form: str) -> Callable[[], float | None]:
    """What the matrix units do at most in products of a format, measured in the same run, in TFLOP/s."""
    unit, products = LIMITS.get(form, (form, 1))

    def measured() -> float | None:
        rate = ceilings.product_rate(unit)
        return None if rate is None else rate / products / TERA

    return measured


def _sums(a: Any, b: Any) -> Any:
    """Products of int8 codes, in int32."""
    storage, formats = dispatch.call(
        integer.integer_matmul, (a.dtype, b.dtype), (a.storage, b.storage), {"accumulator": None}
    )
    return ug.Tensor(storage, formats[0])


def product(form: str, side: int, *targets: Target) -> Work:
    """Square matrices."""
    side, t = small(side), torch()
    rows, scale = (
        spread(side),
        0.5 if form.startswith("float8") else 1.0,
    )  # sums of 8-bit floats stay below their largest
    sets = [tuple(draw.tensor((side, side), form, 2 * s + i, scale) for i in (0, 1)) for s in range(SETS)]

    def ours(s: int) -> Callable[[], Any]:
        a, b = sets[s]
        return (lambda: _sums(a, b)) if form == "int8" else lambda: a @ b

    def theirs(s: int) -> Callable[[], Any]:
        a, b = (draw.to_torch(t, x) for x in sets[s])
        return draw.torch_product(t, form, a, b)

    def exact() -> Any:
        a, b = sets[0]
        return draw.host(draw.exact(a)[rows] @ draw.exact(b))

    def values(out: Any) -> Any:
        return draw.host(draw.result(out)[rows])

    amount = 2.0 * side**3
    peers = [] if t is None else [Contender("cuBLAS", at_first(lambda: in_turn(theirs)), amount, values)]
    return Work(f"matmul {form} {side}³", Contender(OURS, in_turn(ours), amount, values), peers, "TFLOP/s", TERA,
                limit(form), targets, exact=exact, within=WITHIN[form])  # fmt: skip


def stochastic(form: str, side: int, *targets: Target) -> Work:
    """Square matrices, each result rounded by a random word; what it costs shows beside the row of the same product."""
    work, sets = product(form, side, *targets), []
    side = small(side)
    for s in range(SETS):
        sets.append(tuple(draw.tensor((side, side), form, 2 * s + i) for i in (0, 1)))
    generator = ug.Generator(0)

    def ours(s: int) -> Callable[[], Any]:
        a, b = sets[s]
        return lambda: ug.matmul(a, b, dtype=form, rounding="stochastic", generator=generator)

    return replace(work, name=f"matmul {form} {side}³, rounded stochastically", within=2 * WITHIN[form], peers=[],
                   ours=replace(work.ours, call=in_turn(ours)))  # fmt: skip


def block_product(form: str, side: int, dtype: str, *targets: Target) -> Work:
    """Square matrices in blocks along the summed axis."""
    side, rows = small(side), spread(small(side))
    sets = [tuple(draw.tensor((side, side), form, 2 * s + i) for i in (0, 1)) for s in range(SETS)]

    def ours(s: int) -> Callable[[], Any]:
        x, weight = sets[s]
        return lambda: ug.linear(x, weight, dtype=dtype)

    def exact() -> Any:
        x, weight = (t.to("float32").storage.astype(np.float64) for t in sets[0])
        return draw.host(x[rows] @ weight.T)

    def values(out: Any) -> Any:
        return draw.host(draw.result(out)[rows])

    amount, most = 2.0 * side**3, limit("bfloat16" if dtype == "float32" else "float8_e4m3fn")
    return Work(f"matmul {form} {side}³ to {dtype}", Contender(OURS, in_turn(ours), amount, values), [], "TFLOP/s", TERA,
                most, targets, exact=exact, within=WITHIN[dtype])  # fmt: skip


def attention(
    form: str, length: int, size: int, *targets: Target, causal: bool = False, backward: bool = False, rung: str = ""
) -> Work:
    """16k tokens of a model of width 2048, as FlashAttention's papers measure. A `rung` that is named is also beside the one that
    is taken otherwise; heads have its size on an emulated GPU too."""
    length, t = small(length), torch()
    batch, heads = max(1, small(16384) // length), small(2048) // min(size, small(2048)) or 1
    size = size if rung else min(size, small(size))
    shape = (batch, heads, length, size)
    q, k, v, g = (draw.tensor(shape, form, seed) for seed in range(4))
    rows = spread(length)

    def ours() -> Callable[[], Any]:
        if not backward:
            return lambda: ug.scaled_dot_product_attention(q, k, v, is_causal=causal)
        given = [x.detach().requires_grad_() for x in (q, k, v)]
        y = ug.scaled_dot_product_attention(given[0], given[1], given[2], is_causal=causal)
        return lambda: ug.grad(y, given, g, retain_graph=True)

    def theirs(backend: Any) -> Callable[[], Any]:
        sdpa_kernel = imported("torch.nn.attention").sdpa_kernel
        tq, tk, tv, tg = (draw.to_torch(t, x) for x in (q, k, v, g))
        function = t.nn.functional.scaled_dot_product_attention
        if not backward:

            def call() -> Any:
                with sdpa_kernel(backend):
                    return function(tq, tk, tv, is_causal=causal)

            return call
        leaves = [x.requires_grad_() for x in (tq, tk, tv)]
        with sdpa_kernel(backend):
            y = function(*leaves, is_causal=causal)
        return lambda: t.autograd.grad(y, leaves, tg, retain_graph=True)

    def exact() -> Any:
        """One head by the definition: rows of the result, or of the gradients of q, k and v, which all queries add to."""
        xp, queries = gpu.xp(), slice(None) if backward else rows
        one = [draw.exact(x)[0, 0] for x in (q, k, v)]
        scores = one[0][queries] @ one[1].T / math.sqrt(size)
        if causal:
            scores = xp.where(xp.arange(length)[None, :] <= xp.arange(length)[queries, None], scores, -np.inf)
        e = xp.exp(scores - scores.max(-1, keepdims=True))
        p = e / e.sum(-1, keepdims=True)
        if not backward:
            return draw.host(p @ one[2])
        dy = draw.exact(g)[0, 0]
        dp = dy @ one[2].T
        ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / math.sqrt(size)
        return np.stack([draw.host(found[rows]) for found in (ds @ one[1], ds.T @ one[0], p.T @ dy)])

    def values(out: Any) -> Any:
        parts = [draw.host(draw.result(part)[0, 0][rows]) for part in (out if backward else [out])]
        return np.stack(parts) if backward else parts[0]

    def by(name: str) -> Callable[[], Any]:
        arrays, params = (q.storage, k.storage, v.storage, None), {"is_causal": causal, "scale": 1 / math.sqrt(size)}
        with dispatch.use(attention=name):
            plan = dispatch.make_plan(attend.attention, str(q.device), (q.dtype,) * 3 + (None,), arrays, params)
        return lambda: ug.Tensor(plan.run(*arrays, **params)[0], q.dtype)

    amount = 4.0 * batch * heads * length**2 * size * (0.5 if causal else 1) * (2.5 if backward else 1)
    peers = [Contender(TUNED, by(TUNED), amount, values)] if rung else []
    if t is not None:
        backends = imported("torch.nn.attention").SDPBackend
        for name, backend in (("FlashAttention", backends.FLASH_ATTENTION), ("cuDNN", backends.CUDNN_ATTENTION)):
            note = f"as torch {t.__version__} has it"  # of FlashAttention, the second version if it has not been told otherwise
            peers.append(Contender(name, at_first(partial(theirs, backend)), amount, values, note=note))
    name = f"attention {form} {'backward ' if backward else ''}{'causal ' if causal else ''}{batch}x{heads}x{length}x{size}"
    if rung:
        name = f"{name} by {rung}"
    return Work(name, Contender(OURS, by(rung) if rung else ours(), amount, values), peers, "TFLOP/s", TERA, limit(form),
                targets, exact=exact, within=3e-2 if backward else WITHIN[form])  # fmt: skip


def attention_float8(length: int, size: int, *targets: Target, causal: bool = False) -> Work:
    """The row of 16-bit attention, with operands in float8_e4m3fn and the result in bfloat16."""
    work = attention("float8_e4m3fn", length, size, *targets, causal=causal)
    batch, heads = max(1, small(16384) // small(length)), small(2048) // min(size, small(2048)) or 1
    shape = (batch, heads, small(length), min(size, small(size)))
    q, k, v = (draw.tensor(shape, "float8_e4m3fn", seed) for seed in range(3))
    return replace(work, peers=[], within=WITHIN["bfloat16"], ours=replace(
        work.ours, call=lambda: ug.scaled_dot_product_attention(q, k, v, is_causal=causal, dtype="bfloat16")
    ))  # fmt: skip


def decoding(form: str, keys: int, *targets: Target, heads: int = 32, groups: int = 8, size: int = 128) -> Work:
    """One query of each head on many keys, as where a token is generated; bytes of keys and values are counted."""
    keys, size, t = small(keys, 128), small(size), torch()
    heads, groups = small(heads, 4), small(groups, 2)
    share = heads // groups
    sets = [
        tuple(draw.tensor((1, n, length, size), form, 3 * s + i) for i, (n, length) in
              enumerate(((heads, 1), (groups, keys), (groups, keys)))) for s in range(SETS)
    ]  # fmt: skip

    def ours(s: int) -> Callable[[], Any]:
        q, k, v = sets[s]
        return lambda: ug.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    def theirs(s: int) -> Callable[[], Any]:
        q, k, v = (draw.to_torch(t, x) for x in sets[s])
        return lambda: t.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    def exact() -> Any:
        """The heads that share the first head of keys, by the definition."""
        q, k, v = (draw.exact(x)[0] for x in sets[0])
        scores = q[:share, 0] @ k[0].T / math.sqrt(size)
        e = gpu.xp().exp(scores - scores.max(-1, keepdims=True))
        return draw.host(e / e.sum(-1, keepdims=True) @ v[0])

    def values(out: Any) -> Any:
        return draw.host(draw.result(out)[0, :share, 0])

    amount = 2.0 * groups * keys * size * as_format(form).itemsize
    peers = [] if t is None else [Contender("torch", at_first(lambda: in_turn(theirs)), amount, values)]
    return Work(f"attention {form} decoding, {heads} heads on {groups}x{keys}x{size}",
                Contender(OURS, in_turn(ours), amount, values), peers, "GB/s", GIGA,
                lambda: ceilings.copy_bandwidth() / GIGA, targets, exact=exact, within=WITHIN[form])  # fmt: skip


def _row_function(op: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[[Any], Any], Callable[..., Any]]:
    """Ours, torch's, and on float64 arrays the definition and its gradient, from g and x."""
    xp, t = gpu.xp(), torch()

    def mean(x: Any) -> Any:
        return x.mean(-1, keepdims=True)

    def softmax(x: Any) -> Any:
        e = xp.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def softmax_gradient(g: Any, x: Any) -> Any:
        y = softmax(x)
        return y * (g - (g * y).sum(-1, keepdims=True))

    def centred(x: Any) -> Any:
        return (x - mean(x)) / xp.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def centred_gradient(g: Any, x: Any) -> Any:
        y = centred(x)
        return (g - mean(g) - y * mean(g * y)) / xp.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def by_size(x: Any) -> Any:
        return x / xp.sqrt(mean(x * x) + 1e-6)

    def by_size_gradient(g: Any, x: Any) -> Any:
        y = by_size(x)
        return (g - y * mean(g * y)) / xp.sqrt(mean(x * x) + 1e-6)

    f: Any = None if t is None else t.nn.functional
    return {
        "softmax": (lambda x: ug.softmax(x, axis=-1), lambda x: f.softmax(x, -1), softmax, softmax_gradient),
        "layer_norm": (lambda x: ug.layer_norm(x, x.shape[-1]), lambda x: f.layer_norm(x, x.shape[-1:]), centred,
                       centred_gradient),
        "rms_norm": (lambda x: ug.rms_norm(x, x.shape[-1], eps=1e-6), lambda x: f.rms_norm(x, x.shape[-1:], eps=1e-6),
                     by_size, by_size_gradient),
    }[op]  # fmt: skip


def rows_of(op: str, form: str, shape: tuple[int, int], *targets: Target, backward: bool = False) -> Work:
    """A function of rows; bytes read and written at least are counted."""
    shape, t = (small(shape[0]), small(shape[1])), torch()
    mine, other, define, gradient = _row_function(op)
    sets = [(draw.tensor(shape, form, 2 * s), draw.tensor(shape, form, 2 * s + 1)) for s in range(SETS)]
    rows = spread(shape[0])

    def ours(s: int) -> Callable[[], Any]:
        x, g = sets[s]
        if not backward:
            return lambda: mine(x)
        leaf = x.detach().requires_grad_()
        y = mine(leaf)
        return lambda: ug.grad(y, leaf, g, retain_graph=True)

    def theirs(s: int) -> Callable[[], Any]:
        x, g = (draw.to_torch(t, v) for v in sets[s])
        if not backward:
            return lambda: other(x)
        leaf = x.requires_grad_()
        y = other(leaf)
        return lambda: t.autograd.grad(y, leaf, g, retain_graph=True)[0]

    def exact() -> Any:
        x, g = (draw.exact(v)[rows] for v in sets[0])
        return draw.host(gradient(g, x) if backward else define(x))

    def values(out: Any) -> Any:
        return draw.host(draw.result(out)[rows])

    amount = float(math.prod(shape) * as_format(form).itemsize * (3 if backward else 2))
    peers = [] if t is None else [Contender("torch", at_first(lambda: in_turn(theirs)), amount, values)]
    name = f"{op} {form} {'backward ' if backward else ''}{shape[0]}x{shape[1]}"
    return Work(name, Contender(OURS, in_turn(ours), amount, values), peers, "GB/s", GIGA,
                lambda: ceilings.copy_bandwidth() / GIGA, targets,
                exact=exact, within=WITHIN[form] * (2 if backward else 1))  # fmt: skip


def convolution(
    n: int, c: int, side: int, o: int, *targets: Target, form: str = "bfloat16", rung: str = "", first: bool = False
) -> Work:
    """3x3, padding 1, channels last, or `first`; beside cuDNN in both of its layouts. A `rung` that is named is also beside the
    one that is taken otherwise."""
    n, c, side, o = small(n, 2), small(c, 16), small(side, 8), small(o, 16)
    t = torch()
    x, w = draw.tensor((n, side, side, c), form, 1), draw.tensor((o, 3, 3, c), form, 2, scale=(9 * c) ** -0.5)
    image, filters = ug.permute_dims(x, (0, 3, 1, 2)), ug.permute_dims(w, (0, 3, 1, 2))
    if first:
        image = ug.Tensor(gpu.contiguous(image.storage), image.dtype)

    def exact() -> Any:
        """The last image, by the definition."""
        xp = gpu.xp()
        one, ws = draw.exact(image)[-1], draw.exact(filters)
        padded = xp.zeros((c, side + 2, side + 2))
        padded[:, 1:-1, 1:-1] = one
        total = xp.zeros((o, side, side))
        for i, j in itertools.product(range(3), range(3)):
            total += xp.einsum("oc,chw->ohw", ws[:, :, i, j], padded[:, i : i + side, j : j + side])
        return draw.host(total)

    def values(out: Any) -> Any:
        return draw.host(draw.result(out)[-1])

    def by(name: str) -> Callable[[], Any]:
        arrays, params = (image.storage, filters.storage, None), {**SAME, "padding": (1, 1)}
        with dispatch.use(conv2d=name):
            plan = dispatch.make_plan(conv.conv2d, str(x.device), (x.dtype, x.dtype, None), arrays, params)
        return lambda: ug.Tensor(plan.run(*arrays, **params), x.dtype)

    amount = 2.0 * 9 * n * c * o * side * side
    peers = [Contender(MATRIX, by(MATRIX), amount, values)] if rung else []
    if t is not None:
        tx, tw = (draw.to_torch(t, v).permute(0, 3, 1, 2) for v in (x, w))
        nx, nw = tx.contiguous(), tw.contiguous()
        f = t.nn.functional.conv2d
        peers += [Contender("cuDNN channels last", lambda: f(tx, tw, padding=1), amount, values),
                  Contender("cuDNN NCHW", lambda: f(nx, nw, padding=1), amount, values)]  # fmt: skip
    ours = by(rung) if rung else lambda: ug.conv2d(image, filters, padding=1)
    return Work(f"conv2d {form} {n}x{c}x{side}x{side} -> {o}{', NCHW' if first else ''}{f' by {rung}' if rung else ''}",
                Contender(OURS, ours, amount, values), peers, "TFLOP/s", TERA,
                limit(form), targets, exact=exact, within=WITHIN[form])  # fmt: skip


def adamw(*targets: Target) -> Work:
    """One step on parameters of many sizes: 28 bytes a parameter are read and written."""
    t = torch()
    sizes = [small(4096) * small(1024)] * 24 + [small(4096)] * 24
    ours = [draw.tensor((n,), "float32", i, 0.02) for i, n in enumerate(sizes)]
    gradients = [draw.tensor((n,), "float32", 1000 + i, 0.02) for i, n in enumerate(sizes)]
    p, g = draw.exact(ours[-1]), draw.exact(gradients[-1])
    after_one = draw.host(
        p * (1 - LR * DECAY) - LR * g / (abs(g) + 1e-8)
    )  # both moments of one step are g and g squared
    for leaf, gradient in zip(ours, gradients, strict=True):
        leaf.requires_grad_().grad = gradient
    step = ug.optim.AdamW(ours, lr=LR, weight_decay=DECAY).step
    amount = 28.0 * sum(sizes)
    peers = []
    if t is not None:
        others = [draw.for_torch(t, (n,), "float32", i).mul(0.02).requires_grad_() for i, n in enumerate(sizes)]
        for i, theirs in enumerate(others):
            theirs.grad = draw.for_torch(t, tuple(theirs.shape), "float32", 1000 + i).mul(0.02)
        fused = t.optim.AdamW(others, lr=LR, weight_decay=DECAY, fused=True).step
        peers = [Contender("torch fused", fused, amount, lambda _: draw.host(draw.result(others[-1].detach())))]
    return Work(f"AdamW of {sum(sizes) / 1e6:.0f} M parameters",
                Contender(OURS, step, amount, lambda _: draw.host(draw.exact(ours[-1].detach()))), peers, "GB/s", GIGA,
                lambda: ceilings.copy_bandwidth() / GIGA, targets, exact=lambda: after_one, within=1e-6)  # fmt: skip


def training_step(layers: int = 4) -> Work:
    """A small network's training step, whose kernels take less time than their launches: as one graph, and as it is. Losses and
    parameters after some steps are the same bits."""
    rows, width = small(64, 4), small(256, 8)
    x, y = draw.tensor((rows, width), "float32", 1), ug.asarray(np.arange(rows) % width, device="cuda")

    def made() -> tuple[Callable[..., Any], list[Any]]:
        ug.manual_seed(0)
        parts = [part for _ in range(layers) for part in (ug.nn.Linear(width, width), ug.nn.ReLU())]
        model = ug.nn.Sequential(*parts).cuda()
        optimizer = ug.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY)

        def step(x: Any, y: Any) -> Any:
            loss = ug.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            ug.optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss.detach()

        return step, list(model.parameters())

    def trained(step: Callable[..., Any], parameters: list[Any]) -> Any:
        losses = [float(step(x, y).item()) for _ in range(5)]
        return np.concatenate([losses, *(draw.host(draw.exact(p.detach())).reshape(-1) for p in parameters)])

    plain, there = made()
    captured, other = made()
    graph = ug.cuda.make_graphed(captured)
    after, found = trained(plain, there), trained(graph, other)
    eager = Contender("without a graph", lambda: plain(x, y), 1.0, lambda _: after)
    return Work(f"training step of {layers} layers of {width}", Contender(OURS, lambda: graph(x, y), 1.0, lambda _: found),
                [eager], "steps/s", 1.0, exact=lambda: after)  # fmt: skip


def works() -> Iterator[Callable[[], Work]]:
    """Every row, made when it is its turn, so that one row's operands are gone before the next ones come."""
    yield lambda: product("bfloat16", 8192, Target(0.95, "cuBLAS"))
    yield lambda: product("float16", 8192, Target(0.95, "cuBLAS"))
    yield lambda: product("float32", 4096, Target(2, "cuBLAS"))
    yield lambda: product("float8_e4m3fn", 8192, Target(1, "cuBLAS"))
    yield lambda: product("int8", 8192, Target(0.9, "cuBLAS"))
    yield lambda: stochastic("bfloat16", 8192)
    for dtype in ("bfloat16", "float32"):
        yield partial(block_product, "mxfp8_e4m3", 8192, dtype)
    for causal in (False, True):
        forward = Target(1.1, "FlashAttention"), Target(0.9, "cuDNN")
        yield partial(attention, "bfloat16", 16384, 128, *forward, causal=causal)
        yield partial(attention, "bfloat16", 4096, 128, Target(1, "FlashAttention"), causal=causal, backward=True)
    yield lambda: attention("float16", 4096, 64, Target(1.1, "FlashAttention"))
    for causal in (False, True):
        yield partial(attention_float8, 16384, 128, causal=causal)
    for keys in (4096, 16384, 65536):
        yield partial(decoding, "bfloat16", keys, Target(1, "torch"))
    yield partial(decoding, "float32", 16384, Target(1, "torch"))
    for layer in LAYERS:
        yield partial(convolution, *layer, Target(0.5, "cuDNN channels last"))
    yield partial(convolution, *LAYERS[0], Target(1, "cuDNN NCHW"), first=True)
    for op, form in itertools.product(("softmax", "layer_norm", "rms_norm"), ("bfloat16", "float32")):
        for backward in (False, True):
            yield partial(rows_of, op, form, (16384, 4096), Target(0.88, "limit"), backward=backward)
    yield lambda: adamw(Target(0.85, "limit"))
    yield training_step


def unverified() -> Iterator[Callable[[], Work]]:
    """Rows of a rung that is not taken by itself before it has run on a GPU; none where it cannot run."""
    if cuda_warpgroup.FORWARD[float16][64].refusal() is None:
        for layer in LAYERS:
            targets = Target(1.2, MATRIX), Target(0.9, "cuDNN channels last")
            yield partial(convolution, *layer, *targets, rung=WARPGROUP)


def in_gluon() -> Iterator[Callable[[], Work]]:
    """Rows of attention's rung for sm_90, which is not taken by itself either; none where it cannot run."""
    if gpu.capability() == 90:
        for size, causal in itertools.product((64, 128), (False, True)):
            targets = Target(1.2, TUNED), Target(0.9, "cuDNN")
            yield partial(attention, "bfloat16", 16384, size, *targets, causal=causal, rung=GLUON)


# Rows of unverified rungs whose barriers wait without end: who measures them does so in a process that can be ended.
WAITING = {"gluon": in_gluon}
