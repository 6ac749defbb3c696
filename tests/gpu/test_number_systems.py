"""Fixed-point, affine and block tensors on a GPU: the CPU's bits, computed there, for the whole of their arithmetic."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import DeviceError, HostFallbackWarning, UlpgradError
from ulpgrad.kernels import gpu

RNG = np.random.default_rng(0)
Q, F = ug.Q(7, 8), ug.fixed
BYTES, UNSIGNED = ug.Q(3, 4), ug.Q(4, 4, signed=False)
WORDS, WIDE, WIDEST = ug.Q(11, 11), ug.Q(20, 11), ug.Q(30, 33)  # sums of products of 64 bits, and of more; sums of more


def floats(*shape: int, low: float = -3.0, high: float = 3.0) -> Any:
    return RNG.uniform(low, high, shape).astype(np.float32)


class Case(NamedTuple):
    """A function of tensors, and their values with their formats. `host`: whether it goes through the CPU, which warns. `exact`:
    whether gradients, too, are the CPU's bits."""

    name: str
    run: Callable[..., Any]
    given: tuple[tuple[Any, Any], ...]
    host: bool = False
    exact: bool = True


def case(name: str, run: Callable[..., Any], *given: Any, host: bool = False, exact: bool = True) -> Any:
    pairs = tuple(g if isinstance(g, tuple) else (g, Q) for g in given)
    return pytest.param(Case(name, run, pairs, host, exact), id=name)


A, B, V = floats(3, 5), floats(3, 5), floats(5)
LARGE, FAR = floats(3, 5, low=-150, high=150), floats(3, 5, low=-10, high=10)
SQUARE, IMAGE, FILTERS, BIAS = floats(5, 4), floats(2, 4, 7, 6), floats(6, 2, 3, 2), floats(6)
OTHERS = floats(2, 6, 4, 5)
LIMITS = np.array([-(2**63), 2**63 - 1, 2**53 + 1, -(2**53) - 1, 128, -129, 3, 0])
PLACES = np.array([2, 0, 1, 2])
AMOUNTS = np.array([[0, 1, 3, 0, 2]] * 3)


def ruled(name: str, **rule: Any) -> Callable[..., Any]:
    """A function of `ug.fixed` under a rule."""
    return lambda *tensors: getattr(F, name)(*tensors, **rule)


def drawn(function: Callable[..., Any], **rule: Any) -> Callable[..., Any]:
    """The same, rounded by the same random words each time."""

    def run(*tensors: Any) -> Any:
        with F.arithmetic(rounding="stochastic", generator=ug.Generator(5), **rule):
            return function(*tensors)

    return run


FIXED = [
    case("add", lambda x, y: x + y, A, B),
    case("saturates", lambda x, y: x + y - (y * y), LARGE, LARGE),
    case("wraps", lambda x, y: ruled("add", overflow="wrap")(x, y), LARGE, LARGE),
    case("multiply", lambda x, y: x * y, A, B),
    case("numbers", lambda x: 2 * x - 0.5 + x / 4, A),
    case("broadcasting", lambda x, y: x * y, A, V),
    case("0-d of the host", lambda x: x * ug.asarray(1.5, dtype=Q), A),
    case("divide", lambda x, y: x / y, A, floats(3, 5, low=0.5)),
    case("divide by zero", lambda x: x / ug.zeros((5,), dtype=Q, device=x.device), A),
    case("full", ruled("multiply", result="full"), A, B),
    case("named result", ruled("multiply", result=ug.Q(3, 4), rounding="up"), A, (B, WIDE)),
    case("wide words", lambda x, y: x * y + y, (FAR, WIDE), (FAR, WIDE)),
    case("widest words", lambda x, y: x + y, (FAR, WIDEST), (FAR, WIDEST), host=True),
    case("unsigned", lambda x, y: x * y - y, (np.abs(A), UNSIGNED), (np.abs(B), UNSIGNED)),
    case("stochastic", drawn(lambda x, y: x * y), A, B),
    case("stochastic quotient", drawn(lambda x, y: x / y), A, floats(3, 5, low=0.5)),
    case("negative and abs", lambda x: -x + abs(x) + +x, A),
    case("negative in full", ruled("negative", result="full"), A),
    case("square", ug.square, A),
    case("shifts", lambda x: (x << 2) + (x >> 3), A),
    case("shifts by a tensor", lambda x, n: (x >> n) + (x << n), A, (AMOUNTS, ug.int64)),
    case("stochastic shifts", drawn(lambda x, n: x >> n), A, (AMOUNTS, ug.int64)),
    case("shift in full", ruled("bitwise_left_shift", result="full"), A, (np.array(3), ug.int64)),
    case("maximum and minimum", lambda x, y: ug.maximum(x, y) - ug.minimum(x, y), A, B),
    case("extremes of formats", ruled("maximum", result=WIDE), A, (B, BYTES)),
    case("where", lambda x, y: ug.where(x > y, x, y), A, B),
    case("clip", lambda x: ug.clip(x, -1.0, 0.5), A),
    case("relu and sign", lambda x: ug.relu(x) - ug.sign(x), A),
    case("whole", lambda x: ug.floor(x) + ug.ceil(x) + ug.round(x) + ug.trunc(x), A),
    case("comparisons", lambda x, y: (x < y) & (x != y) | (x >= 1.0), A, B),
    case("comparisons of formats", ruled("less_equal", result=Q), A, (B, BYTES)),
    case("comparisons of wide formats", ruled("less_equal", result=Q), A, (B, WIDEST), host=True),
    case("isfinite", lambda x: (ug.isfinite(x), ug.isnan(x), ug.signbit(x)), A),
    case("exp", lambda x: ug.exp(x), A, exact=False),
    case("tanh and sigmoid", lambda x: ug.tanh(x) + ug.sigmoid(x), A, exact=False),
    case("stochastic tanh", drawn(ug.tanh), A, exact=False),
    case("exp of wide words", lambda x: ug.exp(x), (A, WIDE), host=True, exact=False),
    case("sigmoid of wide words", lambda x: ug.sigmoid(x), (A, WIDE), host=True, exact=False),
    case("softmax", lambda x: ug.softmax(x, axis=0), A, exact=False),
    case("softmax of wide words", lambda x: ug.softmax(x), (A, WIDE), host=True, exact=False),
    case("sum", lambda x: x.sum(axis=0) + x.sum(), A),
    case("sum in full", ruled("sum", result="full"), A),
    case("sum of widest words", lambda x: x.sum(axis=1), (A, WIDEST), host=True),
    case("mean", lambda x: x.mean(axis=1, keepdims=True), A, exact=False),
    case("mean of nothing", lambda x: x[:0].mean(axis=1), A),
    case("max and min", lambda x: x.max(axis=0) - x.min(), A),
    case("argmax", lambda x: (x.argmax(axis=1), x.argmin()), A),
    case("any and all", lambda x: (x.any(axis=0), x.all()), A),
    case("matmul", lambda x, y: x @ y, A, SQUARE, exact=False),
    case("matmul of a stack", lambda x, y: x @ y, floats(2, 3, 5), SQUARE, exact=False),
    case("matmul in full", ruled("matmul", result="full"), (A, BYTES), (SQUARE, BYTES), exact=False),
    case("matmul stochastic", drawn(lambda x, y: x @ y), A, SQUARE, exact=False),
    case("matmul of wide words", lambda x, y: x @ y, (A, WIDE), (SQUARE, WIDE), host=True, exact=False),
    case("matmul of wider words", lambda x, y: x @ y, (A, WORDS), (SQUARE, WORDS), exact=False),
    case("conv2d of wider words", lambda x, w, b: ug.conv2d(x, w, b, padding=1, groups=2), (IMAGE, WORDS), (FILTERS, WORDS),
         (BIAS, WORDS), exact=False),
    case("matmul in an accumulator", ruled("matmul", accumulator=F.Accumulator(20, shift=4, overflow="saturate")), A, SQUARE,
         exact=False),
    case("linear", lambda x, w, b: ug.linear(x, w, b), A, floats(4, 5), floats(4), exact=False),
    case("linear relu", lambda x, w, b: ug.linear(x, w, b, "relu"), A, floats(4, 5), floats(4), exact=False),
    case("linear of wide words", lambda x, w, b: ug.linear(x, w, b), (A, WIDE), (floats(4, 5), WIDE), (floats(4), WIDE),
         host=True, exact=False),
    case("vecdot", lambda x, y: ug.vecdot(x, y), A, B, exact=False),
    case("conv2d", lambda x, w, b: ug.conv2d(x, w, b, stride=2, padding=1, groups=2), IMAGE, FILTERS, BIAS, exact=False),
    case("conv2d of wide words", lambda x, w, b: ug.conv2d(x, w, b, padding=1, groups=2), (IMAGE, WIDE), (FILTERS, WIDE),
         (BIAS, WIDE), host=True, exact=False),
    case("conv_transpose2d", lambda x, w, b: ug.conv_transpose2d(x, w, b, 2, 1, 1, groups=2), OTHERS, FILTERS, floats(4),
         exact=False),
    case("conv_transpose2d of wider words", lambda x, w: ug.conv_transpose2d(x, w, groups=2), (OTHERS, WORDS),
         (FILTERS, WORDS), exact=False),
    case("conv2d's gradient with respect to filters", lambda x, g: ug.nn.grad.conv2d_weight(x, FILTERS.shape, g, 1, (1, 1), 1, 2),
         IMAGE, floats(2, 6, 7, 7), exact=False),
    case("max_pool2d", lambda x: ug.max_pool2d(x, 3, 2, 1), IMAGE),
    case("avg_pool2d", lambda x: ug.avg_pool2d(x, 3, 2, 1, count_include_pad=False), IMAGE, exact=False),
    case("adaptive pooling", lambda x: ug.adaptive_max_pool2d(x, (3, 4)) + ug.adaptive_avg_pool2d(x, (3, 4)), IMAGE,
         exact=False),
    # movement
    case("indexing", lambda x, i: x[1:, i] + x[0, :4], A, (PLACES, ug.int64)),
    case("writing", lambda x: ug.flip(ug.concat([x, x.T.reshape(3, 5)], axis=1), axis=1), A),
    case("stack and tile", lambda x, y: ug.tile(ug.stack([x, y]), (1, 2, 1)), A, B),
    # conversions
    case("to another Q", lambda x: x.to(ug.Q(3, 4)), FAR),
    case("to another Q, wrapped", lambda x: x.to(ug.Q(1, 4), overflow="wrap", rounding="down"), FAR),
    case("to another Q, drawn", lambda x: x.to(ug.Q(3, 4), rounding="stochastic", generator=ug.Generator(1)), FAR),
    case("to wide words", lambda x: x.to(WIDEST).to(WIDE), FAR),
    case("to floats", lambda x: (x.to(ug.float32), x.to(ug.bfloat16), x.to(ug.float64), x.to("float8_e4m3fn")), FAR),
    case("wide words to floats", lambda x: (x.to(ug.float32), x.to(ug.float64)), (FAR, WIDE)),
    case("widest words to floats", lambda x: (x.to(ug.float32), x.to(ug.bfloat16), x.to(ug.float64)), (FAR, WIDEST)),
    case("to integers", lambda x: x.to(ug.int32), FAR),
    case("to blocks", lambda x: x.to("mxfp8_e4m3").to(ug.float32), FAR),
    case("to affine", lambda x: x.to(ug.Affine("int8", 0.05, 3)), FAR),
    case("wide words, drawn", lambda x: x.to(WIDE, rounding="stochastic", generator=ug.Generator(1)), (FAR, WIDEST)),
    case("from large integers", lambda x: (x.to(Q), x.to(WIDE)), (LIMITS, ug.int64)),
    case("from large integers, wrapped", lambda x: x.to(Q, overflow="wrap"), (LIMITS, ug.int64), host=True),
    case("from integers", lambda x: x.to(Q), (PLACES, ug.int64)),
    case("from floats", lambda x: x.to(Q), (FAR, ug.float32)),
    case("from half floats", lambda x: x.to(Q, rounding="nearest_away"), (FAR, ug.bfloat16)),
    case("encode and decode", lambda x: ug.decode(ug.encode(x, Q), Q), (FAR, ug.float32)),
]  # fmt: skip

CHANNELS = ug.Affine("uint8", [0.02, 0.05, 0.03, 0.04, 0.01, 0.06], [3, 0, 128, 7, 9, 255], axis=0)
AFFINE, COLUMNS = ug.Affine("int8", 0.03, 5), ug.Affine("int8", [0.02, 0.05, 0.03, 0.04], [1, 0, -2, 3], axis=1)
ROWS = ug.Affine("uint8", 0.05, 99)
OTHERS = [
    case("affine to floats", lambda x: (x.to(ug.float32), x.to(ug.float64), x.to(ug.bfloat16)), (A, AFFINE)),
    case("affine channels to floats", lambda x: x.to(ug.float32), (floats(6, 3), CHANNELS)),
    case("affine to affine", lambda x: x.to(ROWS), (A, AFFINE)),
    case("affine to fixed", lambda x: x.to(Q), (A, AFFINE)),
    case("affine arithmetic", lambda x, y: x * y + ug.relu(x), (A, AFFINE), (B, ROWS)),
    case("affine numbers", lambda x: 2 * x + 1, (A, AFFINE)),
    case("affine matmul", lambda x, y: x @ y, (A, AFFINE), (SQUARE, AFFINE), exact=False),
    case("affine matmul by columns", lambda x, y: x @ y, (A, ROWS), (SQUARE, COLUMNS), exact=False),
    case("affine linear", lambda x, w, b: ug.linear(x, w, b, "relu"), (A, ROWS), (floats(6, 5), CHANNELS), (BIAS, ug.float32),
         exact=False),
    case("affine conv2d", lambda x, w, b: ug.conv2d(x, w, b, stride=2, padding=1, groups=2), (IMAGE, AFFINE),
         (FILTERS, CHANNELS), (BIAS, ug.float32), exact=False),
    case("affine sum", lambda x: x.reshape(-1)[3:].to(ug.float64), (A, AFFINE)),
    case("blocks arithmetic", lambda x, y: x * y + 1, (A, "mxfp8_e4m3"), (B, "mxfp4_e2m1")),
    case("affine beside blocks", lambda x, y: x * y, (A, AFFINE), (B, "mxfp8_e4m3")),
    case("blocks relu", ug.relu, (A, "mxfp8_e4m3")),
    case("blocks to blocks", lambda x: x.to("mxint8").to(ug.float32), (A, "mxfp8_e4m3")),
    case("blocks to fixed", lambda x: x.to(Q), (A, "mxfp8_e5m2")),
    case("blocks drawn", lambda x: x.to("mxfp4_e2m1", rounding="stochastic", generator=ug.Generator(2)).to(ug.float32),
         (A, ug.float32)),
]  # fmt: skip


def stored(t: Any) -> bytes:
    parts = (t.storage.codes, t.storage.scales) if t.dtype.kind == "block" else (t.storage,)
    return b"".join(np.ascontiguousarray(gpu.to_host(part)).tobytes() for part in parts)


def on(device: str, given: Case) -> list[Any]:
    """The values as tensors, converted on the CPU; those that can have gradients require them."""
    made = []
    for values, form in given.given:
        t = ug.asarray(values).to(form).to(device, copy=True)
        made.append(t.requires_grad_() if t.dtype.differentiable else t)
    return made


@pytest.fixture
def fallbacks() -> Iterator[list[str]]:
    """What went through the CPU."""
    seen: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        show = warnings.showwarning
        warnings.showwarning = lambda message, category, *rest, **more: (
            seen.append(str(message)) if category is HostFallbackWarning else show(message, category, *rest, **more)
        )
        yield seen


@pytest.mark.parametrize("given", [*FIXED, *OTHERS])
def test_function(given: Case, fallbacks: list[str]) -> None:
    """Results have the CPU's bits and gradients its values; only what the table says goes through the CPU."""
    here, there = on("cpu", given), on("cuda", given)
    expected, found = given.run(*here), given.run(*there)
    expected, found = (r if isinstance(r, tuple) else (r,) for r in (expected, found))
    forward = list(fallbacks)
    for a, b in zip(found, expected, strict=True):
        assert a.device.type == "cuda"
        assert a.dtype is b.dtype
        assert a.shape == b.shape
        assert stored(a) == stored(b), (a, b)
        assert a.requires_grad == b.requires_grad
    if expected[0].requires_grad and expected[0].size:
        g = np.random.default_rng(1).uniform(-1, 1, expected[0].shape).astype(np.float32)
        for y in (expected[0], found[0]):
            kind = ug.float64 if ug.formats.gradient_format(y.dtype) is ug.float64 else ug.float32
            y.backward(ug.asarray(g, dtype=kind, device=y.device))
        for a, b in zip(there, here, strict=True):
            if b.requires_grad:
                assert a.grad is not None
                assert a.grad.device == a.device
                assert a.grad.dtype is b.grad.dtype
                if given.exact:
                    assert stored(a.grad) == stored(b.grad)
                else:
                    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=2e-5, atol=2e-5)
    assert bool(forward) == given.host, forward


REFUSED = {
    "formats that differ": lambda x: x + x.to(ug.Q(3, 4)),
    "floats beside it": lambda x: x + ug.ones((3, 5), device=x.device),
    "no arithmetic": lambda x: ug.sin(x),
    "no full precision": lambda x: F.softmax(x, axis=1, result="full"),
    "overflow": lambda x: F.add(x, 127.0, overflow="raise"),
    "overflow of a product": lambda x: F.matmul(x, 100 * x.T, overflow="raise"),
    "overflow of a table": lambda x: F.exp(x, result=ug.Q(1, 4), overflow="raise"),
    "overflow of a conversion": lambda x: x.to(ug.Q(0, 4), overflow="raise"),
    "0 / 0": lambda x: (x - x) / (x - x),
    "x / 0 that wraps": lambda x: F.divide(x, x - x, overflow="wrap"),
    "blocks that are indexed": lambda x: x.to("mxfp8_e4m3")[0],
    "blocks by DLPack": lambda x: x.to("mxfp8_e4m3").__dlpack__(),
    "NaN": lambda x: (x.to(ug.float32) * float("nan")).to(Q),
    "places to shift by": lambda x: x << ug.asarray(-1, device=x.device),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    """What has no value is refused as on the CPU: the same error, with the same words."""
    said = []
    for device in ("cpu", "cuda"):
        x = ug.asarray(A + 2).to(Q).to(device)
        with pytest.raises(UlpgradError) as caught:
            REFUSED[name](x)
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]


def test_what_stays_where_it_is() -> None:
    """Printing, values, lists and copies tell of the device; operands on two devices do not meet."""
    for form in (Q, AFFINE, "mxfp8_e4m3"):
        here = ug.asarray(A).to(form)
        there = here.to("cuda")
        assert repr(there) == repr(here)[:-1] + ", device='cuda:0')"
        assert there.tolist() == here.tolist()
        assert there.numpy().tobytes() == here.numpy().tobytes()
        for again in (there.to("cpu"), copy.deepcopy(there), pickle.loads(pickle.dumps(there))):
            assert stored(again) == stored(here)
    if gpu.count() > 1:
        with pytest.raises(DeviceError, match="different devices"):
            ug.asarray(A).to(Q).to("cuda:0") + ug.asarray(A).to(Q).to("cuda:1")
        x = ug.asarray(A).to(Q).to("cuda:1")
        assert str((x * x + 1 - ug.tanh(x)).device) == "cuda:1"
    with pytest.raises(DeviceError, match="different devices"):
        ug.asarray(A).to(Q).to("cuda") + ug.asarray(A).to(Q)


ACCUMULATED = {
    "int32": lambda: ug.policy.Policy(weight=Q, activation=BYTES, gradient=BYTES, accumulate="int32"),
    "words that saturate": lambda: ug.policy.Policy(
        weight=BYTES, activation=Q, gradient=Q, accumulate=F.Accumulator(18, shift=3, overflow="saturate", rounding="down")
    ),
    "floats": lambda: ug.policy.Policy(
        weight="e4m3fn", activation="e4m3fn", gradient="e5m2", accumulate=ug.Accumulate("e6m9", 16)
    ),
    "stochastic": lambda: ug.policy.Policy(
        weight=Q, activation=Q, gradient=Q, rounding="stochastic", accumulate=ug.Accumulate("e6m9", rounding="stochastic")
    ),
}  # fmt: skip
PRODUCTS = {
    "linear": (lambda x, w, b: ug.linear(x, w, b, "relu"), (floats(2, 3, 5), floats(4, 5), floats(4))),
    "matmul": (lambda x, w, b: x @ w + b, (A, SQUARE, floats(4))),
    "conv2d": (
        lambda x, w, b: ug.conv2d(x, w, b, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
        (IMAGE, FILTERS, BIAS),
    ),
}


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("name", ACCUMULATED)
def test_accumulators_of_policies(name: str, product: str, fallbacks: list[str]) -> None:
    """A product under a policy with an accumulator has the CPU's bits on a GPU, and so have its three gradients."""
    run, arrays = PRODUCTS[product]
    found = []
    for device in ("cpu", "cuda"):
        policy = ACCUMULATED[name]()
        ug.manual_seed(1)
        x, w, b = (ug.asarray(a, device=device).requires_grad_() for a in arrays)
        with policy:
            y = run(x, w, b)
        y.backward(ug.asarray(np.random.default_rng(1).uniform(-1, 1, y.shape).astype(np.float32), device=device))
        found.append([stored(t) for t in (y, x.grad, w.grad, b.grad)])
    assert found[0] == found[1]
    assert not fallbacks
