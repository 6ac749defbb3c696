"""A representative problem for each op: what `ulpgrad ladder` and the benchmarks run.

A maker takes a random generator and a size and gives operands as exact values (see `Sample`). `n` means what the table says;
an op without a row of its own is given its family's, and one without either its largest sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.formats import FORMATS, Array, Format, Q, as_format, bfloat16, compute_format, float32
from ulpgrad.kernels import registry
from ulpgrad.kernels.fixed.cut import cut_to
from ulpgrad.kernels.spec import Op, Sample

Maker = Callable[[np.random.Generator, int, Op], Sample]
MILLION = 1 << 20
COLUMNS = 1024
STOCHASTIC: dict[str, Any] = {
    "dtype": as_format("bfloat16"),
    "key": 1,
    "counter": 0,
    "random_bits": 24,
}  # how results are rounded


@dataclass(frozen=True)
class Shape:
    """A maker, the size it is made for, and what the size counts."""

    make: Maker
    size: int
    counts: str


@dataclass(frozen=True)
class Problem:
    """One call ready to run: stored operands, their formats, parameters."""

    op: Op
    arrays: tuple[Any, ...]
    formats: tuple[Format | None, ...]
    params: dict[str, Any]

    @property
    def call(self) -> str:
        """The call in one line."""
        operands = [
            "None" if a is None else f"{f}[{', '.join(map(str, a.shape))}]"
            for a, f in zip(self.arrays, self.formats, strict=True)
        ]
        return f"{self.op.name}({', '.join([*operands, *(f'{k}={v}' for k, v in self.params.items())])})"


def problem(op: Op, form: Format | None = None, size: int | None = None, seed: int = 0) -> Problem:
    """The op's representative problem, with its operands in a format (default: float32 where the op takes it)."""
    return in_format(op, sample(op, size, seed), form or default_format(op))


def in_format(op: Op, made: Sample, form: Format) -> Problem:
    """A sample as a call with its operands in a format. FormatError where the op does not take it."""
    op.takes([form])
    params = dict(made.params)
    if not made.arrays and "dtype" in params:
        params["dtype"] = form
    return stored(op, made.arrays, form, params)


def sample(op: Op, size: int | None = None, seed: int = 0) -> Sample:
    """The operands of that problem as exact values."""
    shape = shape_of(op)
    if shape is None:
        return max(op.samples(), key=lambda s: sum(a.size for a in s.arrays if a is not None))
    return shape.make(np.random.default_rng(seed), size or shape.size, op)


def shape_of(op: Op) -> Shape | None:
    """The row that makes an op's problems, if it has one."""
    return SHAPES.get(op.name) or SHAPES.get(op.family)


def stored(op: Op, arrays: tuple[Array | None, ...], form: Format, params: dict[str, Any]) -> Problem:
    """Exact values as operands in a format; what is not a value (an index, a mask) keeps its own."""
    formats: list[Format | None] = []
    for i, a in enumerate(arrays):
        takes_part = a is not None and (i in op.promote if isinstance(op.promote, tuple) else a.dtype.kind == "f")
        own = compute_format(form) if a is not None and a.dtype.kind == "f" else None  # statistics
        formats.append(None if a is None else form if takes_part else own or as_format(a.dtype))
    return Problem(
        op, tuple(None if a is None or f is None else _encode(a, f) for a, f in zip(arrays, formats, strict=True)),
        tuple(formats), params,
    )  # fmt: skip


def _encode(values: Array, form: Format) -> Array:
    if form.kind == "float":
        return np.asarray(form.encode(values.astype(np.float64)))  # 0-d too
    if values.dtype.kind == "f":
        values = np.rint(values * 8)  # 0 to 8, and some below where signs are allowed
        return np.abs(values).astype(form.storage) if form.kind == "integer" else values > 4
    return values.astype(form.storage)


def default_format(op: Op) -> Format:
    """float32, else int32, else the first one that the op takes: codes or floats, not what stands beside them."""
    if op.name in ("integer_linear", "integer_conv2d_requantized", "fixed_conv2d"):
        return FORMATS["int8"]
    usual: list[Format] = [float32] if op.formats[0].kind == "float" else [float32, FORMATS["int32"]]
    return next(f for f in (*usual, *op.formats) if f in op.formats)


def forward(name: str, *arrays: Array | None, **params: Any) -> Any:
    """Results of another op in float64, for gradients that take them."""
    formats = tuple(None if a is None else as_format(a.dtype) for a in arrays)
    return dispatch.call(registry.find(name), formats, arrays, params)[0]


# Makers


def vectors(rng: np.random.Generator, n: int, op: Op) -> Sample:
    """Elementwise: values within (0, 1), or (1, 2) for acosh; a mask for `where`."""
    count = len(next(iter(op.samples())).arrays)
    low = 1.0 if op.name == "acosh" else 0.01
    arrays: list[Array | None] = [rng.uniform(low, low + 0.98, n) for _ in range(count)]
    if op.name == "where":
        arrays[0] = rng.random(n) < 0.5
    if op.name == "clip":
        arrays[1:] = [np.asarray(0.25), np.asarray(0.75)]
    return Sample(tuple(arrays), next(iter(op.samples())).params)


def rows(rng: np.random.Generator, n: int, op: Op) -> Sample:
    x = rng.standard_normal((n, COLUMNS))
    if op.name.endswith("_gradient"):
        y = forward(op.name.removesuffix("_gradient"), x, axis=1)
        return Sample((rng.standard_normal(x.shape), y), {"axis": 1})
    return Sample((x,), {"axis": 1})


def reduced(rng: np.random.Generator, n: int, op: Op) -> Sample:
    params = dict(next(iter(op.samples())).params)
    params["axis"] = (1,) if isinstance(params["axis"], tuple) else 1
    return Sample((rng.uniform(0.9, 1.1, (n, COLUMNS)),), params)


def square_matrices(rng: np.random.Generator, n: int, op: Op) -> Sample:
    params = STOCHASTIC if op.name == "matmul_stochastic" else {}
    return Sample((rng.standard_normal((n, n)), rng.standard_normal((n, n))), params)


def matrices_in_blocks(rng: np.random.Generator, n: int, op: Op) -> Sample:
    form: Any = as_format("mxfp8_e4m3")
    a, b = (form.encode(rng.standard_normal((n, n)), axis=axis) for axis in (-1, -2))
    return Sample((a.codes, a.scales, b.codes, b.scales), {"a_format": form, "b_format": form})


def codes(rng: np.random.Generator, n: int, op: Op) -> Sample:
    """Integer matrices, or images of 16 channels and filters 3 x 3 and the gradients, on int32 sums."""
    if op.name == "integer_matmul":
        return Sample((rng.standard_normal((n, n)), rng.integers(-128, 128, (n, n), np.int8)), {"accumulator": None})
    params: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, "accumulator": None}
    x, weight = (rng.integers(-128, 128, shape, np.int8) for shape in ((n, 16, 32, 32), (32, 16, 3, 3)))
    g = rng.standard_normal((n, 32, 32, 32))
    if op.name == "integer_conv2d_input_gradient":
        return Sample((g, weight), {"size": (32, 32), **params})
    if op.name == "integer_conv2d_weight_gradient":
        return Sample((g, x), {"size": (3, 3), **params})
    if op.name == "fixed_conv2d":
        half = 2**7 * 2**7 * 16 * 9
        bias, cut = rng.integers(-128, 128, 32, np.int8), cut_to(Q(3, 4), 8, -half - 2**11, half + 2**11)
        return Sample((rng.standard_normal(x.shape), weight, bias, None), {**params, "left": 0, "right": 4, "cut": cut})
    if op.name == "integer_conv2d_requantized":
        multiplier, bias = (rng.integers(low, high, 32).astype(np.int32) for low, high in ((2**30, 2**31), (-999, 999)))
        how = {"zero_point": 0, "low": 0, "high": 127, "ties": "up", "dtype": FORMATS["int8"], "accumulator": "int32"}
        arrays = rng.standard_normal(x.shape), weight, multiplier, np.full(32, 40, np.int32), bias
        return Sample(arrays, {**params, **how})
    return Sample((rng.standard_normal(x.shape), weight), params)


def layer(rng: np.random.Generator, n: int, op: Op) -> Sample:
    x, weight = rng.standard_normal((n, 784)), rng.standard_normal((512, 784)) / 28
    params = STOCHASTIC if op.name == "linear_stochastic" else {}
    return Sample((x, weight, rng.standard_normal(512)), {"activation": "relu", **params})


def images(rng: np.random.Generator, n: int, op: Op) -> Sample:
    """A 3 x 3 convolution of n images of 16 channels, and its gradients."""
    x, weight = rng.standard_normal((n, 16, 32, 32)), rng.standard_normal((32, 16, 3, 3)) / 12
    params: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    g = rng.standard_normal((n, 32, 32, 32))
    if op.name == "conv2d_input_gradient":
        return Sample((g, weight), {"size": (32, 32), **params})
    if op.name == "conv2d_weight_gradient":
        return Sample((g, x), {"size": (3, 3), **params})
    if op.name == "conv2d_max_pool":
        del params["groups"]
        params |= {"window": (2, 2), "activation": "relu"}
    if op.name == "conv2d_stochastic":
        return Sample((x, weight, rng.standard_normal(32), None), {**params, **STOCHASTIC})
    if op.name == "conv2d_finished":
        params |= {"activation": "relu", "residual_first": True}
        return Sample((x, weight, rng.standard_normal(32), rng.standard_normal(32), g), params)
    return Sample((x, weight, rng.standard_normal(32)), params)


def volumes(rng: np.random.Generator, n: int, op: Op) -> Sample:
    """A 3 x 3 x 3 convolution of n volumes of 16 channels, and its gradients."""
    x, weight = rng.standard_normal((n, 16, 16, 16, 16)), rng.standard_normal((32, 16, 3, 3, 3)) / 21
    params: dict[str, Any] = {"stride": (1, 1, 1), "padding": (1, 1, 1), "dilation": (1, 1, 1), "groups": 1}
    g = rng.standard_normal((n, 32, 16, 16, 16))
    if op.name == "conv3d_input_gradient":
        return Sample((g, weight), {"size": (16, 16, 16), **params})
    if op.name == "conv3d_weight_gradient":
        return Sample((g, x), {"size": (3, 3, 3), **params})
    return Sample((x, weight, rng.standard_normal(32)), params)


def pooled(rng: np.random.Generator, n: int, op: Op) -> Sample:
    x, g = rng.standard_normal((n, 16, 64, 64)), rng.standard_normal((n, 16, 32, 32))
    window: dict[str, Any] = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0)}
    if op.name == "max_pool2d":
        return Sample((x,), {**window, "dilation": (1, 1)})
    if op.name == "max_pool2d_gradient":
        indices = forward("max_pool2d", x, **window, dilation=(1, 1))[1]
        return Sample((g, indices), {"size": (64, 64)})
    window["count_include_pad"] = True
    return Sample((x,), window) if op.name == "avg_pool2d" else Sample((g,), {"size": (64, 64), **window})


def pooled_to(rng: np.random.Generator, n: int, op: Op) -> Sample:
    """Images of 30 x 30 to 7 x 7: windows of five, which overlap."""
    if op.name == "adaptive_avg_pool2d_gradient":
        return Sample((rng.standard_normal((n, 64, 7, 7)),), {"size": (30, 30)})
    return Sample((rng.standard_normal((n, 64, 30, 30)),), {"output_size": (7, 7)})


def heads(rng: np.random.Generator, n: int, op: Op) -> Sample:
    q, k, v, g = (rng.standard_normal((2, 4, n, 64)) for _ in range(4))
    params = {"is_causal": True, "scale": 0.125}
    if op.name == "attention_float8":
        return Sample((q, k, v), {**params, "dtype": as_format("bfloat16")})
    if op.name == "attention":
        return Sample((q, k, v, None), params)
    y, lse = forward("attention", q, k, v, None, **params)
    return Sample((g, q, k, v, None, y, lse), params)


def sequences(rng: np.random.Generator, n: int, op: Op) -> Sample:
    """n steps of 32 rows of 256 units, and their gradients.

    The inputs' share of the gates is that of one feature a step, times powers of two: libraries that are given features find
    them again, exactly.
    """
    name, size, params = op.name.removesuffix("_gradient"), 256, dict(next(iter(op.samples())).params)
    rows = {"lstm": 4, "gru": 3, "rnn": 1}[name] * size
    weight, states = (
        rng.standard_normal((rows, size)) / 16,
        [rng.standard_normal((32, size))] * (2 if name == "lstm" else 1),
    )
    of_inputs = np.exp2(rng.integers(-2, 2, rows)) * rng.choice([-1.0, 1.0], rows)
    operands = (rng.standard_normal((n, 32, 1)) * of_inputs, weight, rng.standard_normal(rows), *states)
    if name == op.name:
        return Sample(operands, params)
    made = forward(name, *operands, **params)
    saved = made if isinstance(made, tuple) else (made,)
    return Sample((rng.standard_normal(saved[0].shape), weight, *states, *saved), params)


def classes(rng: np.random.Generator, n: int, op: Op) -> Sample:
    logits, target = rng.standard_normal((n, 1000)), rng.integers(0, 1000, n)
    params = {"ignore_index": -100, "label_smoothing": 0.0}
    if op.name == "cross_entropy":
        return Sample((logits, target), params)
    lse = forward("cross_entropy", logits, target, **params)[1]
    return Sample((np.full(n, 1 / n), logits, target, lse), params)


def normalized(rng: np.random.Generator, n: int, op: Op) -> Sample:
    x, g = rng.standard_normal((n, COLUMNS)), rng.standard_normal((n, COLUMNS))
    name = op.name.removesuffix("_gradient")
    weight: tuple[Array, ...] = (np.ones(COLUMNS), np.zeros(COLUMNS))
    if name == "batch_norm":
        x, g = rng.standard_normal((2, max(1, n // 16), 16, COLUMNS))
        weight = (np.ones(16), np.zeros(16))
    operands = (x, *weight[: 1 if name == "rms_norm" else 2])
    if name == op.name:
        return Sample(operands, {"eps": 1e-5})
    return Sample((g, x, weight[0], *forward(name, *operands, eps=1e-5)[1:]))


def table(rng: np.random.Generator, n: int, op: Op) -> Sample:
    indices = rng.integers(0, 10_000, n)
    if op.name == "embedding":
        return Sample((rng.standard_normal((10_000, 128)), indices))
    return Sample((rng.standard_normal((n, 128)), indices), {"rows": 10_000})


def transposed(rng: np.random.Generator, n: int, op: Op) -> Sample:
    return Sample((rng.standard_normal((n, n)).T,))


def gathered(rng: np.random.Generator, n: int, op: Op) -> Sample:
    params = {"axis": 1} if op.name == "take_along_axis" else {"axis": 1, "size": COLUMNS}
    return Sample((rng.standard_normal((n, COLUMNS)), rng.integers(0, COLUMNS, (n, COLUMNS))), params)


def ordered(rng: np.random.Generator, n: int, op: Op) -> Sample:
    x = rng.standard_normal((n, COLUMNS))
    if op.name == "argsort":
        return Sample((x,), {"axis": 1, "descending": False})
    if op.name == "topk":
        return Sample((x,), {"k": 10, "axis": 1, "largest": True})
    if op.name == "searchsorted":
        return Sample((np.sort(x[0]), x), {"side": "left"})
    return Sample((x,))


def parameters(rng: np.random.Generator, n: int, op: Op) -> Sample:
    sample = next(iter(op.samples()))
    return Sample(tuple(None if a is None else rng.uniform(0.01, 1, n) for a in sample.arrays), sample.params)


def streams(rng: np.random.Generator, n: int, op: Op) -> Sample:
    sample = next(iter(op.samples()))
    if op.name == "dropout":
        return Sample((rng.standard_normal(n),), {"p": 0.1, "key": 1, "counter": 0})
    return Sample((), {**sample.params, "size": n})


def converted(rng: np.random.Generator, n: int, op: Op) -> Sample:
    return Sample((rng.standard_normal(n),), {"dtype": bfloat16})


def sums(rng: np.random.Generator, n: int, op: Op) -> Sample:
    """Accumulators of an int8 layer, with a scale for each of 1024 channels."""
    x, bias = (rng.integers(-(2**19), 2**19, shape).astype(np.int32) for shape in ((n, COLUMNS), COLUMNS))
    multiplier = rng.integers(2**30, 2**31, COLUMNS).astype(np.int32)
    params: dict[str, Any] = {"zero_point": 0, "low": 0, "high": 127, "ties": "up", "dtype": FORMATS["int8"]}
    if op.name == "integer_linear":
        weight = rng.integers(-128, 128, (COLUMNS, COLUMNS)).astype(np.int8)
        codes = rng.uniform(0, 15, (n, COLUMNS))
        return Sample(
            (codes, weight, multiplier, np.full(COLUMNS, 42, np.int32), bias), {"accumulator": "int32", **params}
        )
    params = {"axis": 1, **params}
    return Sample((x, multiplier, np.full(COLUMNS, 42, np.int32), bias), params)


def pooled_codes(rng: np.random.Generator, n: int, op: Op) -> Sample:
    if op.name == "integer_adaptive_avg_pool2d":
        return Sample((rng.integers(0, 128, (n, 16, 64, 64)).astype(np.int8),), {"output_size": (32, 32), "ties": "up"})
    window: dict[str, Any] = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0)}
    mean: dict[str, Any] = {"count_include_pad": True, "padding_value": 0, "ties": "up"}
    more = {"dilation": (1, 1)} if op.name == "integer_max_pool2d" else mean
    return Sample((rng.integers(0, 128, (n, 16, 64, 64)).astype(np.int8),), {**window, **more})


def rounded(rng: np.random.Generator, n: int, op: Op) -> Sample:
    """Values to codes of the format, in the mode, of the op's first sample; blocks in rows, and back."""
    params = next(iter(op.samples())).params
    if op.name == "block_dequantize":
        codes, scales = (rng.integers(low, high, (n // COLUMNS, width)).astype(np.uint8)
                         for low, high, width in ((0, 127, COLUMNS), (117, 137, COLUMNS // 32)))  # fmt: skip
        return Sample((codes, scales), params)
    shape = (n // COLUMNS, COLUMNS) if op.name == "block_quantize" else (n,)
    return Sample((rng.standard_normal(shape),), params)


def accumulated(rng: np.random.Generator, n: int, op: Op) -> Sample:
    """Sums in a 1-6-9 float: a product of square matrices in chunks of 64, or rows."""
    rule: dict[str, Any] = {"format": as_format("e6m9")}
    if op.name == "accumulate_matmul":
        return Sample((rng.standard_normal((n, n)), rng.standard_normal((n, n))), {**rule, "chunk": 64})
    rows = reduced(rng, n, op)
    return Sample(rows.arrays, {**rows.params, **rule})


def chained(rng: np.random.Generator, n: int, op: Op) -> Sample:
    """x (2 x + 0.5) + y, the op's first chain."""
    first = next(iter(op.samples()))
    return Sample(tuple(rng.standard_normal(n) for _ in first.arrays), first.params)


def fixed_point(rng: np.random.Generator, n: int, op: Op) -> Sample:
    """Codes of Q7.8, to Q7.8."""
    shape, q, half = (n, n) if op.name == "fixed_matmul" else (n,), Q(7, 8), 2**15
    a, b = (rng.integers(-half, half, shape).astype(np.int16) for _ in range(2))
    if op.name in ("fixed_multiply", "fixed_matmul"):
        most = half**2 * (n if op.name == "fixed_matmul" else 1)
        return Sample((a, b, None), {"cut": cut_to(q, 16, -most, most)})
    if op.name == "fixed_rescale":
        return Sample((a, None), {"sign": "negate", "cut": cut_to(q, 8, -half, half)})
    params: dict[str, Any] = {"left": 0, "right": 0, "subtract": False, "cut": cut_to(q, 8, -2 * half, 2 * half)}
    if op.name == "fixed_divide":
        params = {"left": 8, "right": 0, "cut": cut_to(q, 8, -half << 8, half << 8)}
    return Sample((a, b | 1, None), params)


SHAPES: dict[str, Shape] = {
    "elementwise": Shape(vectors, MILLION, "elements"),
    "cast": Shape(converted, MILLION, "elements, to bfloat16"),
    "copy": Shape(transposed, 1024, "rows and columns, transposed"),
    "reduction": Shape(reduced, 1024, "rows of 1024"),
    "softmax": Shape(rows, 1024, "rows of 1024"),
    "matmul": Shape(square_matrices, 512, "rows and columns of square matrices"),
    "integer_matmul": Shape(codes, 512, "rows and columns of square matrices"),
    "integer_conv2d": Shape(codes, 8, "images of 16 channels, 32 x 32, through 32 filters 3 x 3"),
    "fixed_conv2d": Shape(codes, 8, "images of 16 channels of Q3.4, 32 x 32, through 32 filters 3 x 3"),
    "integer_conv2d_requantized": Shape(codes, 8, "images of 16 channels, 32 x 32, through 32 filters 3 x 3, to int8"),
    "integer_gradients": Shape(codes, 8, "images of 16 channels, 32 x 32, through 32 filters 3 x 3"),
    "blocks": Shape(matrices_in_blocks, 512, "rows and columns of square matrices of mxfp8_e4m3"),
    "linear_stochastic": Shape(layer, 64, "rows through a layer 784-512 with bias and ReLU, to bfloat16"),
    "linear": Shape(layer, 64, "rows through a layer 784-512 with bias and ReLU"),
    "conv": Shape(images, 8, "images of 16 channels, 32 x 32, through 32 filters 3 x 3"),
    "conv3d": Shape(volumes, 4, "volumes of 16 channels, 16 x 16 x 16, through 32 filters 3 x 3 x 3"),
    "pool": Shape(pooled, 8, "images of 16 channels, 64 x 64, in windows 2 x 2"),
    "adaptive_pool": Shape(pooled_to, 8, "images of 64 channels, 30 x 30, to 7 x 7"),
    "integer_pool": Shape(pooled_codes, 8, "images of 16 channels of codes, 64 x 64, in windows 2 x 2"),
    "quantize": Shape(rounded, MILLION, "elements, to float8_e4m3fn"),
    "requantize": Shape(sums, 1024, "rows of 1024 sums, or of 1024 codes through a layer of 1024, to int8"),
    "fused": Shape(chained, MILLION, "elements through x (2 x + 0.5) + y"),
    "fixed": Shape(fixed_point, MILLION, "elements of Q7.8"),
    "fixed_matmul": Shape(fixed_point, 256, "rows and columns of square matrices of Q7.8"),
    "attention_float8": Shape(heads, 512, "positions, 2 x 4 causal heads of 64, to bfloat16"),
    "attention": Shape(heads, 512, "positions, 2 x 4 causal heads of 64"),
    "recurrent": Shape(sequences, 64, "steps of 32 rows of 256 units"),
    "cross_entropy": Shape(classes, 1024, "rows of 1000 classes"),
    "norm": Shape(normalized, 1024, "rows of 1024"),
    "embedding": Shape(table, 16_384, "indices into 10000 rows of 128"),
    "accumulate": Shape(accumulated, 128, "rows and columns, or rows of 1024"),
    "gather": Shape(gathered, 1024, "rows of 1024"),
    "order": Shape(ordered, 1024, "rows of 1024"),
    "optimizer": Shape(parameters, MILLION, "parameters"),
    "random": Shape(streams, MILLION, "numbers"),
    "random_permutation": Shape(streams, 1 << 16, "numbers"),
}

__all__ = ["SHAPES", "Problem", "Shape", "default_format", "forward", "in_format", "problem", "sample",
           "shape_of", "stored"]  # fmt: skip
