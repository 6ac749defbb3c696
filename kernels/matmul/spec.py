"""Matrix products: what they are, what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import FLOATS, REALS, Array, Float, Format, as_format, bfloat16, float16, float32, float64
from ulpgrad.formats.rounding import check as check_rounding
from ulpgrad.kernels.matmul import strided
from ulpgrad.kernels.quantize import spec as quantize_spec
from ulpgrad.kernels.random import spec as random_spec
from ulpgrad.kernels.spec import Op, Sample, promoted

ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "sigmoid")

RESULTS = (float32, bfloat16, float16)  # what linear rounds its sums to, beside the operands' own format

# Of |a| @ |b|: the rounding of each product and each sum can add up, but by far not to the bound of k / 2.
ULPS: dict[Format, float] = {float32: 4, float64: 4}


def check_matmul(a: Any, b: Any) -> None:
    if a.ndim < 2 or b.ndim < 2:
        raise ShapeError(f"matmul: expected two matrices or stacks of them, got {a.shape} @ {b.shape}")
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(f"matmul: inner sizes differ: {a.shape} @ {b.shape}: {a.shape[-1]} != {b.shape[-2]}")
    if a.ndim == b.ndim == 2:
        return
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"matmul: stacks do not broadcast: {a.shape} @ {b.shape}: {a.shape[:-2]} with {b.shape[:-2]}"
        ) from None


def check_linear(
    x: Any, weight: Any, bias: Any, scale: Any = None, residual: Any = None, *, activation: str | None = None,
    factor: float = 1.0, dtype: Format | None = None, packed: Any = None,
) -> None:  # fmt: skip
    if weight.ndim != 2:
        raise ShapeError(f"linear: expected a weight of shape (outputs, inputs), got {weight.shape}")
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        given = f"{x.shape[-1]} != {weight.shape[1]}" if x.ndim else "x has no axes"
        raise ShapeError(f"linear: input sizes differ: x {x.shape}, weight {weight.shape}: {given}")
    for name, values in (("bias", bias), ("scale", scale)):
        if values is not None and values.shape != weight.shape[:1]:
            raise ShapeError(f"linear: expected a {name} of shape {weight.shape[:1]}, got {values.shape}")
    if residual is not None and residual.shape != (*x.shape[:-1], weight.shape[0]):
        raise ShapeError(
            f"linear: expected a residual of the result's shape {(*x.shape[:-1], weight.shape[0])}, got {residual.shape}"
        )
    if activation is not None and activation not in ACTIVATIONS:
        raise ArgumentError(f"linear: activation={activation!r}: expected None or one of {', '.join(ACTIVATIONS)}")
    if dtype is not None and dtype not in RESULTS:
        raise FormatError(f"linear: dtype={dtype}: expected one of {', '.join(f.name for f in RESULTS)}")


def activate(x: Array, activation: str | None) -> Array:
    """The activation's definition, in the format x is in."""
    match activation:
        case "relu":
            return np.where(x < 0, 0.0, x)
        case "gelu":
            erfc = np.frompyfunc(math.erfc, 1, 1)
            return np.asarray(0.5 * x * np.asarray(erfc(-x / math.sqrt(2)), dtype=np.float64))
        case "silu":
            return np.asarray(x / (1 + np.exp(-x)))
        case "tanh":
            return np.asarray(np.tanh(x))
        case "sigmoid":
            return np.asarray(1 / (1 + np.exp(-x)))
    return x


def linear_reference(
    x: Array, weight: Array, bias: Array | None, scale: Array | None = None, residual: Array | None = None, *,
    activation: str | None = None, factor: float = 1.0, dtype: Format | None = None, packed: Any = None,
) -> Array:  # fmt: skip
    y = np.matmul(x, weight.T) * factor
    y = y if scale is None else y * scale
    y = activate(y if bias is None else y + bias, activation)
    return y if residual is None else y + residual


def linear_magnitude(
    x: Array, weight: Array, bias: Array | None, scale: Array | None = None, residual: Array | None = None, *,
    activation: str | None = None, factor: float = 1.0, dtype: Format | None = None, packed: Any = None,
) -> Array:  # fmt: skip
    """The terms' sizes; and the result's, which may be larger (sigmoid(0) = 0.5)."""
    sizes = [None if a is None else abs(a) for a in (x, weight, bias, scale, residual)]
    result = linear_reference(x, weight, bias, scale, residual, activation=activation, factor=factor)
    return np.asarray(linear_reference(*sizes, factor=abs(factor)) + abs(result))  # type: ignore[arg-type]


def matmul_flops(a: Any, b: Any) -> float:
    stack = math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    return 2.0 * stack * a.shape[-2] * a.shape[-1] * b.shape[-1]


def matmul_samples() -> Iterable[Sample]:
    rng = np.random.default_rng(0)

    def pair(a: tuple[int, ...], b: tuple[int, ...], name: str) -> Sample:
        return Sample((rng.integers(-8, 9, a) / 4, rng.integers(-8, 9, b) / 4), name=name)

    yield pair((2, 3), (3, 4), "small")
    yield pair((1, 1), (1, 1), "one value")
    yield pair((0, 3), (3, 4), "no rows")
    yield pair((3, 4), (4, 0), "no columns")
    yield pair((3, 0), (0, 4), "nothing to sum")
    yield pair((1, 37), (37, 21), "one row")
    yield pair((21, 37), (37, 1), "one column")
    yield pair((16, 64), (64, 32), "whole tiles")
    yield pair((3, 32, 48), (3, 48, 16), "stack of whole tiles")
    yield pair((17, 33), (33, 35), "odd sizes")
    yield pair((2, 3, 5, 7), (3, 7, 4), "stacks broadcast")
    yield pair((1, 5, 7), (4, 7, 3), "one matrix for a stack")
    yield pair((0, 5, 7), (7, 3), "empty stack")
    yield Sample((rng.standard_normal((70, 300)), rng.standard_normal((300, 130))), name="across blocks")
    yield Sample((rng.standard_normal((5, 1100)) * 100, rng.standard_normal((1100, 40))), name="long sums")
    yield pair((7, 1024), (1024, 9), "few results of long sums")
    yield Sample((np.arange(-60, 60).reshape(8, 15), np.arange(-60, 60).reshape(15, 8)), name="integers")
    yield Sample((np.full((3, 40), 127), np.full((40, 3), 127)), name="integers that wrap")
    yield Sample((np.array([[np.inf, 1.0], [np.nan, 1.0], [0.0, 1.0]]), np.array([[2.0, 1.0], [1.0, 0.0]])),
                 name="inf and nan")  # fmt: skip


def linear_samples() -> Iterable[Sample]:
    rng = np.random.default_rng(0)

    def sample(x: tuple[int, ...], outputs: int, activation: str | None, *, bias: bool, name: str) -> Sample:
        weight = rng.standard_normal((outputs, x[-1])) / max(1, x[-1]) ** 0.5
        arrays = (rng.standard_normal(x), weight, rng.standard_normal(outputs) if bias else None)
        return Sample(arrays, {"activation": activation}, name)

    yield sample((2, 3), 4, None, bias=False, name="small")
    yield sample((5, 7), 3, None, bias=True, name="bias")
    yield sample((37,), 21, None, bias=True, name="one vector")
    yield sample((2, 3, 17), 35, None, bias=True, name="leading axes")
    yield sample((0, 4), 3, "relu", bias=True, name="no rows")
    yield sample((3, 0), 4, None, bias=True, name="nothing to sum")
    yield sample((3, 4), 0, None, bias=True, name="no outputs")
    yield sample((64, 300), 130, "relu", bias=True, name="across blocks")
    for activation in ACTIVATIONS:
        yield sample((19, 33), 37, activation, bias=True, name=activation)
        yield sample((1, 600), 5, activation, bias=False, name=f"one row, {activation}")
    finished: tuple[tuple[int, int, int, dict[str, Any], str], ...] = (
        (1, 40, 33, {"factor": 0.25}, "scale"),
        (19, 33, 37, {"activation": "gelu", "factor": -0.3, "dtype": float32}, "bias scale residual"),
        (21, 600, 1, {"activation": "relu", "dtype": bfloat16}, "residual"),
        (7, 130, 18, {"activation": "tanh", "dtype": float16}, "bias scale"),
        (70, 20, 45, {}, "residual"),
    )
    for m, k, n, finish, operands in finished:
        shapes = {"bias": (n,), "scale": (n,), "residual": (m, n)}
        rest = (rng.standard_normal(shape) if name in operands else None for name, shape in shapes.items())
        x, weight = rng.standard_normal((m, k)), rng.standard_normal((n, k)) / k**0.5
        yield Sample((x, weight, *rest), finish, f"finished, {m} x {k} x {n}")
    x, weight, residual = (rng.standard_normal(shape) for shape in ((40, 64), (48, 64), (40, 48)))
    yield Sample((x, weight / 8, rng.standard_normal(48), rng.standard_normal(48), residual),
                 {"activation": "silu", "factor": 0.5}, "whole tiles, finished")  # fmt: skip
    arrays = (rng.standard_normal(shape) for shape in ((7, 1024), (9, 1024), (9,), (9,), (7, 9)))
    yield Sample(
        tuple(a / 32 for a in arrays), {"activation": "tanh", "factor": 3.0}, "few results of long sums, finished"
    )
    yield Sample((rng.standard_normal((2, 3, 5)), rng.standard_normal((4, 5)), None, None, rng.standard_normal((2, 3, 4))),
                 name="residual with leading axes")  # fmt: skip
    wide = np.linspace(-30, 30, 121).reshape(-1, 1)
    for activation in ACTIVATIONS:
        yield Sample((wide, np.ones((1, 1)), None), {"activation": activation}, f"wide range, {activation}")


matmul = Op(
    "matmul",
    "(a: [..., m, k], b: [..., k, n]) -> [..., m, n]",
    doc="Matrix product; stacks of matrices broadcast. Integers wrap, as all integer arithmetic here does.",
    reference=lambda a, b: np.matmul(a, b),
    check=check_matmul,
    formats=REALS,
    flops=matmul_flops,
    samples=matmul_samples,
    ulps=ULPS,
    magnitude=lambda a, b: np.matmul(abs(a), abs(b)),
    key=strided.of_product,
)

linear = Op(
    "linear",
    "(x: [..., k], weight: [n, k], bias: [n] | None, scale: [n] | None, residual: [..., n] | None, *, activation=None, "
    "factor=1.0, dtype=None, packed=None) -> [..., n]",
    doc="activation(x @ weight.T * factor * scale + bias) + residual in one pass, rounded once to dtype; gelu is the exact one, "
    "by erf. packed: what kernels made of the weight before, or None.",
    reference=linear_reference,
    check=check_linear,
    result=lambda *formats, dtype=None, **_: promoted(*formats) if dtype is None else dtype,
    formats=FLOATS,
    flops=lambda x, weight, *_, **__: 2.0 * x.size * weight.shape[0],
    samples=linear_samples,
    ulps=ULPS,
    magnitude=linear_magnitude,
    key=lambda x, weight, *_, dtype=None, **__: (dtype, strided.of_layer(x, weight)),
)


def check_drawn(op: str, dtype: Format, key: int, counter: int, random_bits: int) -> None:
    """What a stochastic rounding of products is told."""
    if not isinstance(dtype, Float) or dtype.nan_code is None or dtype.bits > 16:
        raise FormatError(f"{op}: dtype={dtype}: expected a float of at most 16 bits that has NaN")
    check_rounding("stochastic", random_bits)
    random_spec.check_stream(op, key, counter)


def drawn(y: Array, dtype: Format, **stream: int) -> Array:
    """Values in float32, each rounded by a word of the stream: word i for the value with index i in C order."""
    narrow = np.asarray(y, np.float32)
    codes = quantize_spec.encoded(narrow, dtype=dtype, rounding="stochastic", overflow=None, subnormals=True, **stream)
    return dtype.exact(codes)


def _matmul_stochastic(a: Array, b: Array, *, dtype: Format, key: int, counter: int, random_bits: int) -> Array:
    return drawn(np.matmul(a, b), dtype, key=key, counter=counter, random_bits=random_bits)


def _check_matmul_stochastic(a: Any, b: Any, *, dtype: Format, key: int, counter: int, random_bits: int) -> None:
    check_matmul(a, b)
    check_drawn("matmul_stochastic", dtype, key, counter, random_bits)


def _linear_stochastic(
    x: Array, weight: Array, bias: Array | None, scale: Array | None = None, residual: Array | None = None, *,
    dtype: Format, key: int, counter: int, random_bits: int, activation: str | None = None, factor: float = 1.0,
) -> Array:  # fmt: skip
    y = linear_reference(x, weight, bias, scale, residual, activation=activation, factor=factor)
    return drawn(y, dtype, key=key, counter=counter, random_bits=random_bits)


def _check_linear_stochastic(
    x: Any, weight: Any, bias: Any, scale: Any = None, residual: Any = None, *, dtype: Format, key: int, counter: int,
    random_bits: int, activation: str | None = None, factor: float = 1.0,
) -> None:  # fmt: skip
    check_linear(x, weight, bias, scale, residual, activation=activation)
    check_drawn("linear_stochastic", dtype, key, counter, random_bits)


STREAMS = (  # formats, and streams that carry
    {"dtype": bfloat16, "key": 7, "counter": 2**64 - 3, "random_bits": 24},
    {"dtype": float16, "key": 0x299F31D0A4093822, "counter": 5, "random_bits": 32},
    {"dtype": as_format("float8_e4m3fn"), "key": 1, "counter": 2**128 - 9, "random_bits": 3},
    {"dtype": as_format("float8_e5m2"), "key": 2**63, "counter": 0, "random_bits": 16},
)


def _stochastic_samples(samples: Iterable[Sample]) -> Iterable[Sample]:
    for i, sample in enumerate(s for s in samples if s.name != "integers that wrap"):
        finish = {name: value for name, value in sample.params.items() if name != "dtype"}
        stream = STREAMS[i % (2 if "whole tiles" in sample.name else len(STREAMS))]
        yield Sample(sample.arrays, finish | stream, f"{sample.name}, to {stream['dtype']}")


matmul_stochastic = Op(
    "matmul_stochastic",
    "(a: [..., m, k], b: [..., k, n], *, dtype, key, counter, random_bits) -> [..., m, n] in dtype",
    doc="Matrix product in float32, each result rounded to dtype stochastically: the result with index i in C order by word i of "
    "the Philox stream that begins at block counter, to random_bits bits, as quantize does it.",
    reference=_matmul_stochastic,
    check=_check_matmul_stochastic,
    result=lambda *_, dtype, **__: dtype,
    formats=FLOATS,
    flops=lambda a, b, **_: matmul_flops(a, b),
    samples=lambda: _stochastic_samples(matmul_samples()),
    magnitude=lambda a, b, **_: np.matmul(abs(a), abs(b)),
    key=lambda a, b, *, dtype, **_: (dtype, strided.of_product(a, b)),
)

linear_stochastic = Op(
    "linear_stochastic",
    "(x: [..., k], weight: [n, k], bias: [n] | None, scale: [n] | None, residual: [..., n] | None, *, dtype, key, counter, "
    "random_bits, activation=None, factor=1.0) -> [..., n] in dtype",
    doc="linear in float32, each result rounded to dtype stochastically, as matmul_stochastic does it.",
    reference=_linear_stochastic,
    check=_check_linear_stochastic,
    result=lambda *_, dtype, **__: dtype,
    formats=FLOATS,
    flops=lambda x, weight, *_, **__: 2.0 * x.size * weight.shape[0],
    samples=lambda: _stochastic_samples(linear_samples()),
    magnitude=lambda *arrays, activation=None, factor=1.0, **_: linear_magnitude(
        *arrays, activation=activation, factor=factor
    ),
    key=lambda x, weight, *_, dtype, **__: (dtype, strided.of_layer(x, weight)),
)
