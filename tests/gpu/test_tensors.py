"""Functions on tensors of a GPU: the CPU's results and gradients, on the device, and no copies to the host on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.kernels import gpu

pytestmark = pytest.mark.filterwarnings("ignore::ulpgrad.errors.HostFallbackWarning")
RNG = np.random.default_rng(0)


def floats(*shape: int, low: float = -2.0, high: float = 2.0) -> Any:
    return RNG.uniform(low, high, shape).astype(np.float32)


class Case(NamedTuple):
    """A function of tensors, and their values; `exact` says that results have the same bits, `waits` that it looks at values."""

    name: str
    run: Callable[..., Any]
    arrays: tuple[Any, ...]
    exact: bool = True
    waits: bool = False


def case(name: str, run: Callable[..., Any], *arrays: Any, exact: bool = True, waits: bool = False) -> Any:
    return pytest.param(Case(name, run, arrays, exact, waits), id=name)


A, B, V, POSITIVE = floats(3, 4), floats(3, 4), floats(4), floats(3, 4, low=0.2, high=2.0)
IMAGE, FILTERS = floats(2, 3, 7, 6), floats(4, 3, 3, 2)
WHOLE = np.array([2, 0, 1, 2])
MASK = A > 0

CASES = [
    # movement, indexing, creation: no value changes
    case("getitem basic", lambda x: x[1:, ..., None, ::2], A),
    case("getitem integer", lambda x: x[-1], A),
    case("getitem one value", lambda x: x[1, 2], A),
    case("getitem 0-d tensor", lambda x, i: x[i[0]], A, WHOLE, waits=True),
    case("getitem integers", lambda x, i: x[i], A, WHOLE, waits=True),
    case("getitem integers of the host", lambda x: x[:, [0, 3, 0]], A),
    case("getitem NumPy indices", lambda x: x[np.array([2, 0, 2])], A),
    case("getitem two arrays", lambda x, i: x[i, i], A, WHOLE, waits=True),
    case("getitem arrays apart", lambda x, i: x[[0, 1, 0, 0], None, i], A, WHOLE, waits=True),
    case("getitem mask", lambda x, m: x[m], A, MASK, waits=True),
    case("getitem mask of the host", lambda x: x[MASK], A, waits=True),
    case("getitem mask of rows", lambda x: x[np.array([True, False, True])], A, waits=True),
    case("getitem pieces", lambda x: x[0] * x[1] + x[0], A),
    case("take", lambda x, i: ug.take(x, i, axis=1), A, WHOLE, waits=True),
    case("take_along_axis", lambda x: ug.take_along_axis(x, np.array([[1, 1, 0, 2]]), axis=0), A),
    case("nonzero", lambda x, m: ug.nonzero(m), A, MASK, waits=True),
    case("count_nonzero", lambda x, m: ug.count_nonzero(m, axis=1), A, MASK),
    case("reshape", lambda x: x.reshape(2, 6), A),
    case("reshape of a transposed one", lambda x: x.T.reshape(-1), A),
    case("reshape copy", lambda x: ug.reshape(x, (4, 3), copy=True), A),
    case("permute_dims", lambda x: ug.permute_dims(x, (2, 0, 1)), floats(2, 3, 4)),
    case("moveaxis", lambda x: ug.moveaxis(x, 0, -1), floats(2, 3, 4)),
    case("mT", lambda x: x.mT, floats(2, 3, 4)),
    case("squeeze", lambda x: ug.squeeze(ug.expand_dims(x, axis=1), axis=1), A),
    case("flatten", lambda x: x.flatten(), A),
    case("broadcast_to", lambda x: ug.broadcast_to(x, (2, 3, 4)), A),
    case("concat", lambda x, y: ug.concat([x, y], axis=1), A, B),
    case("stack", lambda x, y: ug.stack([x, y], axis=1), A, B),
    case("stack in front", lambda x, y: ug.stack([x, y]), A, B),
    case("unstack", lambda x: ug.unstack(x, axis=1)[2], A),
    case("flip", lambda x: ug.flip(x, axis=1), A),
    case("roll", lambda x: ug.roll(x, (1, -2), axis=(0, 1)), A),
    case("roll flattened", lambda x: ug.roll(x, 5), A),
    case("tile", lambda x: ug.tile(x, (2, 1, 3)), A),
    case("repeat", lambda x: ug.repeat(x, 3, axis=1), A),
    case("repeat each", lambda x, n: ug.repeat(x, n, axis=1), A, WHOLE, waits=True),
    case("meshgrid", lambda x: ug.meshgrid(x, x)[1], V),
    case("copy", lambda x: ug.copy(x.T), A),
    case("tril", lambda x: ug.tril(x, k=1), A),
    case("triu", lambda x: ug.triu(x), A),
    case("zeros_like", lambda x: x + ug.zeros_like(x) + ug.ones_like(x) + ug.full_like(x, 3), A),
    case("sort", lambda x: ug.sort(x, axis=0), A),
    case("sort falling", lambda x: ug.sort(x, descending=True), A),
    case("argsort", lambda x: ug.argsort(x, axis=1), A),
    case("topk", lambda x: ug.topk(x, 2), A),
    case("searchsorted", lambda x, y: ug.searchsorted(ug.sort(x), y), V, floats(5)),
    case("unique", lambda x, i: tuple(ug.unique_all(i)), A, WHOLE, waits=True),
    case("where", lambda x, y, m: ug.where(m, x, y), A, B, MASK),
    case("where number", lambda x, m: ug.where(m, x, 0.0), A, MASK),
    # one value at a time
    case("arithmetic", lambda x, y: x * y - x / 2 + 3 * y, A, B, exact=False),
    case("broadcasting", lambda x, y: x * y, A, V, exact=False),
    case("0-d of the host", lambda x: x * ug.asarray(1.5), A),
    case("compare", lambda x, y: (x < y) & (x != 0), A, B),
    case("maximum", lambda x, y: ug.maximum(x, y), A, B),
    case("pow", lambda x, y: x**y, POSITIVE, B, exact=False),
    case("clip", lambda x: ug.clip(x, -1.0, 0.5), A),
    case("clip by tensors", lambda x, y: ug.clip(x, y), A, V),
    case("functions", lambda x: ug.exp(x) + ug.log(x) + ug.sqrt(x) + ug.sin(x) + ug.tanh(x), POSITIVE, exact=False),
    case("rounding", lambda x: ug.floor(x) + ug.sign(x) * ug.round(x), A),
    case("activations", lambda x: ug.relu(x) + ug.gelu(x) + ug.silu(x) + ug.sigmoid(x) + ug.leaky_relu(x), A, exact=False),
    case("fused", ug.fused(lambda x, y: ug.tanh(x) * y + x), A, B, exact=False),
    case("integers", lambda x, i: (i + 3) * i // 2 % 5, A, WHOLE),
    # reductions and products
    case("sum", lambda x: x.sum(axis=0), A, exact=False),
    case("mean", lambda x: x.mean(axis=1, keepdims=True), A, exact=False),
    case("var and std", lambda x: x.var() + x.std(axis=1), A, exact=False),
    case("prod", lambda x: x.prod(axis=1), POSITIVE, exact=False),
    case("max and min", lambda x: x.max(axis=0) - x.min(axis=0), A),
    case("any and all", lambda x, m: (m.any(axis=0), m.all()), A, MASK),
    case("argmax", lambda x: (x.argmax(axis=1), x.argmin()), A),
    case("cumulative_sum", lambda x: ug.cumulative_sum(x, axis=1, include_initial=True), A, exact=False),
    case("cumulative_prod", lambda x: ug.cumulative_prod(x, axis=1), POSITIVE, exact=False),
    case("diff", lambda x: ug.diff(x, axis=1), A),
    case("logsumexp", lambda x: ug.logsumexp(x, axis=1), A, exact=False),
    case("matmul", lambda x, y: x @ y.T, A, B, exact=False),
    case("matmul vector", lambda x, y: x @ y, A, V, exact=False),
    case("linear", lambda x, w, b: ug.linear(x, w, b), A, floats(5, 4), floats(5), exact=False),
    case("linear finished", lambda x, w, b: ug.linear(x, w, b, "relu", scale=0.5), A, floats(5, 4), floats(5), exact=False),
    case("tensordot", lambda x, y: ug.tensordot(x, y, axes=([0, 1], [0, 1])), A, B, exact=False),
    case("vecdot", lambda x, y: ug.vecdot(x, y), A, B, exact=False),
    case("einsum", lambda x, y: ug.einsum("ij,kj->ik", x, y), A, B, exact=False),
    case("einsum diagonal", lambda x: ug.einsum("ii->i", x[:, :3]), A, exact=False),
    case("accumulate", lambda x, y: ug.matmul(x, y.T, accumulate="e6m9"), A, B),
    # layers
    case("softmax", lambda x: ug.softmax(x) + ug.log_softmax(x, axis=0), A, exact=False),
    case("layer_norm", lambda x, w: ug.layer_norm(x, 4, w, w), A, V, exact=False),
    case("rms_norm", lambda x, w: ug.rms_norm(x, 4, w), A, V, exact=False),
    case("embedding", lambda w, i: ug.embedding(i, w), A, WHOLE),
    case("attention", lambda q, k, v: ug.scaled_dot_product_attention(q, k, v, is_causal=True),
         floats(2, 3, 4), floats(2, 3, 4), floats(2, 3, 4), exact=False),
    case("attention with a mask", lambda q, m: ug.scaled_dot_product_attention(q, q, q, m), floats(2, 3, 4), floats(3, 3),
         exact=False),
    case("conv2d", lambda x, w: ug.conv2d(x, w, stride=2, padding=1), IMAGE, FILTERS, exact=False),
    case("conv2d same", lambda x, w: ug.conv2d(x, w, padding="same", activation="relu"), IMAGE, FILTERS, exact=False),
    case("conv2d accumulate", lambda x, w: ug.conv2d(x, w, padding=1, accumulate="e8m10"), IMAGE, FILTERS),
    case("conv1d", lambda x, w: ug.conv1d(x, w, stride=2, padding=1), floats(2, 3, 9), floats(4, 3, 2), exact=False),
    case("conv3d", lambda x, w: ug.conv3d(x, w, padding=(1, 0, 1)), floats(1, 2, 3, 4, 4), floats(3, 2, 2, 3, 2), exact=False),
    case("conv_transpose3d", lambda x, w: ug.conv_transpose3d(x, w, stride=(2, 1, 1)), floats(1, 3, 2, 3, 3),
         floats(3, 2, 2, 2, 2), exact=False),
    case("conv_transpose2d", lambda x, w: ug.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1), floats(2, 3, 4, 4),
         floats(3, 2, 3, 3), exact=False),
    case("max_pool2d", lambda x: ug.max_pool2d(x, 2), IMAGE),
    case("avg_pool2d", lambda x: ug.avg_pool2d(x, 3, 2, 1), IMAGE, exact=False),
    case("adaptive_avg_pool2d", lambda x: ug.adaptive_avg_pool2d(x, (3, 2)), IMAGE),
    case("adaptive_max_pool2d", lambda x: ug.adaptive_max_pool2d(x, (3, 2)), IMAGE),
    case("lstm", lambda x, wi, wh: ug.ops.lstm(x, wi, wh)[0], floats(3, 2, 4), floats(8, 4), floats(8, 2), exact=False),
    case("cross_entropy", lambda x, t: ug.cross_entropy(x, t), floats(4, 3), WHOLE, exact=False),
    case("cross_entropy ignoring", lambda x, t: ug.cross_entropy(x, t, ignore_index=2), floats(4, 3), WHOLE, exact=False),
    case("cross_entropy weighted", lambda x, t: ug.cross_entropy(x, t, np.array([1, 2, 3], np.float32).tolist()),
         floats(4, 3), WHOLE, exact=False, waits=True),
    case("cross_entropy of chances", lambda x, t: ug.cross_entropy(x, ug.softmax(t.detach())), A, B, exact=False),
    case("nll_loss", lambda x, t: ug.nll_loss(x, t), floats(4, 3), WHOLE, exact=False, waits=True),
    case("mse_loss", lambda x, y: ug.mse_loss(x, y), A, B, exact=False),
    case("bce_with_logits", lambda x, y: ug.bce_with_logits(x, ug.sigmoid(y)), A, B, exact=False),
    # formats
    case("bfloat16", lambda x: x.to(ug.bfloat16)[1:] * 2, A),
    case("float16 product", lambda x, y: x.to(ug.float16) @ y.to(ug.float16).T, A, B, exact=False),
    case("float8", lambda x: x.to(ug.float8_e4m3fn).to(ug.float32), A),
    case("sort bfloat16", lambda x: ug.sort(x.to(ug.bfloat16)), A),
    case("to integers", lambda x: x.to(ug.int32), A, waits=True),
    case("saturate", lambda x: ug.quantize(x * 1e6, ug.float16, overflow="saturate"), A),
    case("fake_quantize", lambda x: ug.fake_quantize(x, "e4m3fn"), A),
    case("fixed point", lambda x: (x.to(ug.Q(3, 4)) + 1).to(ug.float32), A),
    case("blocks", lambda x: (x.to("mxfp8_e4m3") @ x.T.to("mxfp8_e4m3", axis=0)), A, exact=False),
    case("affine", lambda x: x.to(ug.Affine("int8", 0.05, 3)).to(ug.float32), A),
]  # fmt: skip


@pytest.fixture
def host_copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the engine read values of the (emulated) device; dispatch's own road through the CPU does so too, and rungs that
    check indices."""
    seen: list[str] = []
    if gpu.mode() == "emulated":
        from ulpgrad.kernels import emulated

        def noting(function: Any) -> Any:
            def call(self: Any, *args: Any, **options: Any) -> Any:
                frame: Any = sys._getframe(1)
                names, files = [], []
                while frame is not None:
                    names.append(frame.f_code.co_qualname)
                    files.append(Path(frame.f_code.co_filename).name)
                    frame = frame.f_back
                in_rung = any(file.startswith(("triton_", "cupy_", "cuda_")) for file in files)
                if not in_rung and not any("_through_host" in n or n == "make_plan" for n in names):
                    seen.append(" < ".join(names[:5]))
                return function(self, *args, **options)

            return call

        for name in ("get", "__bool__", "__int__", "__float__", "__index__"):
            monkeypatch.setattr(emulated.ndarray, name, noting(getattr(emulated.ndarray, name)))
    return seen


def on(device: str, given: Case) -> list[Any]:
    """The arrays as tensors; floats require gradients."""
    tensors = [ug.asarray(a, device=device, copy=True) for a in given.arrays]
    return [t.requires_grad_() if t.dtype.kind == "float" else t for t in tensors]


def outputs(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def close(found: Any, expected: Any, exact: bool) -> None:
    assert found.dtype is expected.dtype
    a, b = (
        np.asarray(t.detach().to(ug.float64).numpy() if t.dtype.routed else t.detach().numpy())
        for t in (found, expected)
    )
    if exact or a.dtype.kind in "biu":
        assert a.tobytes() == b.tobytes()
    else:
        bound = 2e-3 if a.dtype.itemsize < 4 else 2e-5
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=bound, atol=bound)


@pytest.mark.parametrize("given", CASES)
def test_function(given: Case, host_copies: list[str]) -> None:
    """Results and gradients are the CPU's and lie on the device; values are only waited for where the table says so."""
    here, there = on("cpu", given), on("cuda", given)
    expected, found = outputs(given.run(*here)), outputs(given.run(*there))
    forward = list(host_copies)
    assert all(t.device.type == "cuda" for t in found)
    y, z = expected[0], found[0]
    if y.requires_grad:
        g = np.asarray(np.random.default_rng(1).uniform(-1, 1, y.shape), np.float32)
        y.backward(ug.asarray(g).to(y.dtype))
        z.backward(ug.asarray(g, device="cuda").to(z.dtype))
    assert z.requires_grad == y.requires_grad
    copies = list(host_copies)
    for a, b in zip(found, expected, strict=True):
        close(a, b, given.exact)
    for a, b in zip(there, here, strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            assert a.grad.device == a.device
            close(a.grad, b.grad, False)
    if not given.waits:
        assert not copies, (forward, copies)


CREATED = {
    "zeros": lambda d: ug.zeros((2, 3), device=d),
    "ones bfloat16": lambda d: ug.ones((2, 3), dtype=ug.bfloat16, device=d),
    "full": lambda d: ug.full((3,), 2.5, device=d),
    "full integer": lambda d: ug.full((3,), 7, device=d),
    "arange": lambda d: ug.arange(-3, 9, 2, device=d),
    "arange float": lambda d: ug.arange(0.0, 1.0, 0.1, device=d),
    "arange empty": lambda d: ug.arange(0, device=d),
    "linspace": lambda d: ug.linspace(0, 1, 7, dtype=ug.float16, device=d),
    "eye": lambda d: ug.eye(3, 4, k=1, device=d),
    "asarray": lambda d: ug.asarray([[1.0, 2.0]], dtype=ug.bfloat16, device=d),
    "rand": lambda d: ug.rand(9, device=d, generator=ug.Generator(3)),
    "rand bfloat16": lambda d: ug.rand(9, dtype=ug.bfloat16, device=d, generator=ug.Generator(3)),
    "randint": lambda d: ug.randint(0, 10, (9,), device=d, generator=ug.Generator(3)),
    "randperm": lambda d: ug.randperm(9, device=d, generator=ug.Generator(3)),
    "bernoulli": lambda d: ug.bernoulli(0.3, (9,), device=d, generator=ug.Generator(3)),
    "uniform": lambda d: ug.random.uniform(-1, 2, (9,), dtype=ug.float16, device=d, generator=ug.Generator(3)),
    "dropout": lambda d: ug.dropout(ug.ones((40,), device=d), 0.4, generator=ug.Generator(3)),
}


@pytest.mark.parametrize("name", CREATED)
def test_creation(name: str) -> None:
    """What is made on a device has the CPU's bits."""
    made, expected = CREATED[name]("cuda:0"), CREATED[name]("cpu")
    assert str(made.device) == "cuda:0"
    close(made, expected, True)


def test_normal_values() -> None:
    made, expected = (ug.randn(33, device=d, generator=ug.Generator(3)) for d in ("cuda", "cpu"))
    np.testing.assert_array_max_ulp(made.numpy(), expected.numpy(), 2)
