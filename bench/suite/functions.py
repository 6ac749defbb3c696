"""What other libraries call an op. A name of ours that a library shares needs no line here; a wrong one would be found out,
because every output is checked.

Each function takes a library's own arrays and the op's parameters, and gives the op's first result, or the first few.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

Function = Callable[..., Any]
Table = dict[str, Callable[[Any], Function]]
SHARED = ("elementwise", "reduction")  # families whose names are the array API's


def numpy(np: Any, op: str, family: str) -> Function | None:
    """NumPy's own function, or what one writes in it."""
    return _found(np, op, family, NUMPY)


def torch(torch: Any, op: str, family: str) -> Function | None:
    """torch's function, or its kernel of a gradient."""
    return _found(torch, op, family, TORCH) or _shared(torch.nn.functional, op, family)


def jax(jax: Any, op: str, family: str) -> Function | None:
    """JAX's function, before it is compiled."""
    if op in JAX:
        return JAX[op](jax)
    return _shared(jax.numpy, op, family) or _shared(jax.nn, op, family)


def _found(library: Any, op: str, family: str, table: Table) -> Function | None:
    return table[op](library) if op in table else _shared(library, op, family)


def _shared(library: Any, op: str, family: str) -> Function | None:
    return getattr(library, op, None) if family in SHARED and not op.endswith("_gradient") else None


def _softmax(np: Any, x: Any, axis: int) -> Any:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    e /= e.sum(axis=axis, keepdims=True)
    return e


def _log_softmax(np: Any, x: Any, axis: int) -> Any:
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def _layer_norm(np: Any, x: Any, weight: Any, bias: Any, eps: float) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps) * weight + bias


def _rms_norm(np: Any, x: Any, weight: Any, eps: float) -> Any:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def _batch_norm(np: Any, x: Any, weight: Any, bias: Any, eps: float) -> Any:
    centred = x - x.mean((0, 2), keepdims=True)
    rstd = 1 / np.sqrt((centred * centred).mean((0, 2), keepdims=True) + eps)
    return centred * rstd * weight[:, None] + bias[:, None]


def _topk(np: Any, x: Any, k: int, axis: int, largest: bool) -> Any:
    values = -x if largest else x
    first = np.argpartition(values, k - 1, axis=axis).take(range(k), axis)
    order = np.argsort(np.take_along_axis(values, first, axis), axis=axis)
    return np.take_along_axis(first, order, axis)


def _scatter_add(np: Any, g: Any, indices: Any, axis: int, size: int) -> Any:
    made = np.zeros((*g.shape[:axis], size, *g.shape[axis + 1 :]), g.dtype)
    where = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    where[axis] = indices
    np.add.at(made, tuple(where), g)
    return made


def _steps(chain: Any, of: Callable[[str], Function | None]) -> Function:
    """A chain of elementwise ops, one after the other."""

    def run(*arrays: Any) -> Any:
        known = [*arrays, *chain.constants]
        for step in chain.steps:
            function = of(step.op)
            assert function is not None
            known.append(function(*(known[i] for i in step.sources), **dict(step.params)))
        return tuple(known[i] for i in chain.results)

    return run


def _owned(np: Any, g: Any, indices: Any, rows: int) -> Any:
    made = np.zeros((rows, g.shape[-1]), g.dtype)
    np.add.at(made, indices, g)
    return made


NUMPY: Table = {
    "matmul": lambda np: np.matmul,
    "linear": lambda np: lambda x, w, b, activation: np.maximum(x @ w.T + b, 0),
    "relu": lambda np: lambda x: np.maximum(x, 0),
    "sigmoid": lambda np: lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda np: lambda x: x / (1 + np.exp(-x)),
    "softmax": lambda np: lambda x, axis: _softmax(np, x, axis),
    "layer_norm": lambda np: lambda x, w, b, eps: _layer_norm(np, x, w, b, eps),
    "var": lambda np: lambda x, axis, keepdims, correction: np.var(x, axis=axis, keepdims=keepdims, ddof=correction),
    "cumulative_sum": lambda np: lambda x, axis: np.cumsum(x, axis=axis),
    "cumulative_prod": lambda np: lambda x, axis: np.cumprod(x, axis=axis),
    "cast": lambda np: lambda x, dtype: x.astype(dtype.interchange),
    "quantize": lambda np: lambda x, dtype, **nearest_even: x.astype(dtype.interchange),
    "fake_quantize": lambda np: lambda x, dtype, **nearest_even: x.astype(dtype.interchange).astype(x.dtype),
    "copy": lambda np: np.ascontiguousarray,
    "take_along_axis": lambda np: lambda x, i, axis: np.take_along_axis(x, i, axis=axis),
    "embedding": lambda np: lambda w, i: np.take(w, i, axis=0),
    "integer_matmul": lambda np: lambda a, b, accumulator: np.matmul(a, b, dtype=np.int32),
    "searchsorted": lambda np: lambda x, v, side: np.searchsorted(x, v, side=side),
    "clamp": lambda np: lambda x, low, high: np.clip(x, low, high),
    "log_softmax": lambda np: lambda x, axis: _log_softmax(np, x, axis),
    "embedding_gradient": lambda np: lambda g, i, rows: _owned(np, g, i, rows),
    "unique": lambda np: lambda x: np.unique(x, True, True, True),
    "softplus": lambda np: lambda x: np.logaddexp(x, np.zeros((), x.dtype)),
    "leaky_relu": lambda np: lambda x, negative_slope: np.where(x > 0, x, x * x.dtype.type(negative_slope)),
    "relu_gradient": lambda np: lambda g, x: g * (x > 0),
    "leaky_relu_gradient": lambda np: lambda g, x, negative_slope: np.where(x > 0, g, g * g.dtype.type(negative_slope)),
    "clamp_gradient": lambda np: lambda g, x, low, high: g * ((low <= x) & (x <= high)),
    "tanh_gradient": lambda np: lambda g, y: g * (1 - y * y),
    "sigmoid_gradient": lambda np: lambda g, y: g * (y * (1 - y)),
    "softmax_gradient": lambda np: lambda g, y, axis: y * (g - (g * y).sum(axis, keepdims=True)),
    "log_softmax_gradient": lambda np: lambda g, y, axis: g - np.exp(y) * g.sum(axis, keepdims=True),
    "cross_entropy": lambda np: lambda x, y, ignore_index, label_smoothing: -np.take_along_axis(
        _log_softmax(np, x, 1), y[:, None], 1)[:, 0],
    "rms_norm": lambda np: lambda x, w, eps: _rms_norm(np, x, w, eps),
    "batch_norm": lambda np: lambda x, w, b, eps: _batch_norm(np, x, w, b, eps),
    "sum_of_squares": lambda np: lambda g, *_: np.square(g, dtype=np.float64).sum(),
    "argsort": lambda np: lambda x, axis, descending: np.argsort(-x if descending else x, axis=axis, kind="stable"),
    "topk": lambda np: lambda x, k, axis, largest: _topk(np, x, k, axis, largest),
    "scatter_add": lambda np: lambda g, i, axis, size: _scatter_add(np, g, i, axis, size),
    "fused": lambda np: lambda *arrays, chain: _steps(chain, lambda op: numpy(np, op, "elementwise"))(*arrays),
}  # fmt: skip


def _reduced(name: str) -> Callable[[Any], Function]:
    return lambda torch: lambda x, axis, keepdims: getattr(torch, name)(x, dim=axis, keepdim=keepdims)


def _one_axis(name: str) -> Callable[[Any], Function]:
    return lambda torch: lambda x, axis, keepdims: getattr(torch, name)(x, dim=axis[0], keepdim=keepdims)


TORCH: Table = {
    "matmul": lambda t: t.matmul,
    "linear": lambda t: lambda x, w, b, activation: t.nn.functional.linear(x, w, b).relu_(),
    "positive": lambda t: t.clone,  # its own gives back the same tensor
    "equal": lambda t: t.eq,
    "bitwise_invert": lambda t: t.bitwise_not,
    "where": lambda t: t.where,
    "clamp": lambda t: lambda x, low, high: t.clamp(x, low, high),
    "relu_gradient": lambda t: lambda g, x: t.ops.aten.threshold_backward(g, x, 0),
    "gelu_gradient": lambda t: lambda g, x, approximate: t.ops.aten.gelu_backward(g, x, approximate=approximate),
    "silu_gradient": lambda t: t.ops.aten.silu_backward,
    "tanh_gradient": lambda t: t.ops.aten.tanh_backward,
    "sigmoid_gradient": lambda t: t.ops.aten.sigmoid_backward,
    **{name: _reduced(name) for name in ("sum", "mean", "all", "any", "argmax", "argmin")},
    "prod": _one_axis("prod"),
    "max": _reduced("amax"),
    "min": _reduced("amin"),
    "var": lambda t: lambda x, axis, keepdims, correction: t.var(x, dim=axis, keepdim=keepdims, correction=correction),
    "cumulative_sum": lambda t: lambda x, axis: t.cumsum(x, axis),
    "cumulative_prod": lambda t: lambda x, axis: t.cumprod(x, axis),
    "softmax": lambda t: lambda x, axis: t.softmax(x, axis),
    "log_softmax": lambda t: lambda x, axis: t.log_softmax(x, axis),
    "softmax_gradient": lambda t: lambda g, y, axis: t.ops.aten._softmax_backward_data(g, y, axis, y.dtype),
    "log_softmax_gradient": lambda t: lambda g, y, axis: t.ops.aten._log_softmax_backward_data(g, y, axis, y.dtype),
    "attention": lambda t: lambda q, k, v, mask, is_causal, scale: t.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_causal, scale=scale),
    "conv2d": lambda t: t.nn.functional.conv2d,
    "conv2d_input_gradient": lambda t: lambda g, w, size, stride, padding, dilation, groups: t.nn.grad.conv2d_input(
        (g.shape[0], w.shape[1] * groups, *size), w, g, stride, padding, dilation, groups),
    "conv2d_weight_gradient": lambda t: lambda g, x, size, stride, padding, dilation, groups: t.nn.grad.conv2d_weight(
        x, (g.shape[1], x.shape[1] // groups, *size), g, stride, padding, dilation, groups),
    "conv3d": lambda t: t.nn.functional.conv3d,
    "conv3d_input_gradient": lambda t: lambda g, w, size, stride, padding, dilation, groups: t.nn.grad.conv3d_input(
        (g.shape[0], w.shape[1] * groups, *size), w, g, stride, padding, dilation, groups),
    "conv3d_weight_gradient": lambda t: lambda g, x, size, stride, padding, dilation, groups: t.nn.grad.conv3d_weight(
        x, (g.shape[1], x.shape[1] // groups, *size), g, stride, padding, dilation, groups),
    "max_pool2d": lambda t: lambda x, kernel_size, stride, padding, dilation: t.nn.functional.max_pool2d(
        x, kernel_size, stride, padding, dilation, return_indices=True),
    "avg_pool2d": lambda t: lambda x, kernel_size, stride, padding, count_include_pad: t.nn.functional.avg_pool2d(
        x, kernel_size, stride, padding, count_include_pad=count_include_pad),
    "adaptive_avg_pool2d": lambda t: t.nn.functional.adaptive_avg_pool2d,
    "adaptive_max_pool2d": lambda t: lambda x, output_size: t.nn.functional.adaptive_max_pool2d(
        x, output_size, return_indices=True),
    "cross_entropy": lambda t: lambda x, y, ignore_index, label_smoothing: t.nn.functional.cross_entropy(
        x, y, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="none"),
    "layer_norm": lambda t: lambda x, w, b, eps: t.nn.functional.layer_norm(x, w.shape, w, b, eps),
    "rms_norm": lambda t: lambda x, w, eps: t.nn.functional.rms_norm(x, w.shape, w, eps),
    "batch_norm": lambda t: lambda x, w, b, eps: t.nn.functional.batch_norm(x, None, None, w, b, training=True, eps=eps),
    "embedding": lambda t: lambda w, i: t.nn.functional.embedding(i, w),
    "take_along_axis": lambda t: lambda x, i, axis: t.take_along_dim(x, i, axis),
    "argsort": lambda t: lambda x, axis, descending: t.argsort(x, dim=axis, descending=descending, stable=True),
    "topk": lambda t: lambda x, k, axis, largest: t.topk(x, k, axis, largest)[1],
    "searchsorted": lambda t: lambda x, v, side: t.searchsorted(x, v, side=side),
    "cast": lambda t: lambda x, dtype: x.to(getattr(t, dtype.name)),
    "quantize": lambda t: lambda x, dtype, **nearest_even: x.to(getattr(t, dtype.name)),
    "copy": lambda t: lambda x: x.contiguous(),
    "sum_of_squares": lambda t: lambda g, *_: t.linalg.vector_norm(g, dtype=t.float64) ** 2,
    "integer_matmul": lambda t: lambda a, b, accumulator: t._int_mm(a, b),
    "integer_max_pool2d": lambda t: lambda x, kernel_size, stride, padding, dilation: t.nn.functional.max_pool2d(
        x, kernel_size, stride, padding, dilation),
    "clamp_gradient": lambda t: lambda g, x, low, high: t.ops.aten.hardtanh_backward(g, x, low, high),
    "leaky_relu_gradient": lambda t: lambda g, x, negative_slope: t.ops.aten.leaky_relu_backward(
        g, x, negative_slope, False),
    "conv2d_max_pool": lambda t: _pooled_convolution(t.nn.functional),
    "scatter_add": lambda t: lambda g, i, axis, size: t.zeros(
        (*g.shape[:axis], size, *g.shape[axis + 1 :]), dtype=g.dtype).scatter_add_(axis, i, g),
    "unique": lambda t: lambda x: _unique(*t.unique(x, return_inverse=True, return_counts=True)),
    "fake_quantize": lambda t: lambda x, dtype, **nearest_even: x.to(getattr(t, dtype.name)).to(x.dtype),
    "fused": lambda t: lambda *arrays, chain: _steps(chain, lambda op: torch(t, op, "elementwise"))(*arrays),
}  # fmt: skip


def _unique(values: Any, inverse: Any, counts: Any) -> tuple[Any, ...]:
    return values, None, inverse, counts  # torch does not say where each was first


def _pooled_convolution(f: Any) -> Function:
    def run(
        x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, window: Any, activation: str | None
    ) -> Any:
        y = f.conv2d(x, w, b, stride, padding, dilation)
        return f.max_pool2d(y if activation is None else getattr(f, activation)(y), window)

    return run


def _jax_attention(jax: Any) -> Function:
    def run(q: Any, k: Any, v: Any, mask: Any, is_causal: bool, scale: float) -> Any:
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        return jax.nn.dot_product_attention(q, k, v, is_causal=is_causal, scale=scale).swapaxes(1, 2)

    return run


def _jax_convolution(jax: Any) -> Function:
    def run(x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, groups: int = 1) -> Any:
        edges = [(p, p) for p in padding]
        y = jax.lax.conv_general_dilated(x, w, stride, edges, rhs_dilation=dilation, feature_group_count=groups)
        return y + b[:, None, None]

    return run


def _jax_pooled_convolution(jax: Any) -> Function:
    def run(*operands: Any, window: Any, activation: str | None, **settings: Any) -> Any:
        y = _jax_convolution(jax)(*operands, **settings)
        return _jax_largest(jax)(
            y if activation is None else getattr(jax.nn, activation)(y), window, window, (0, 0), (1, 1)
        )

    return run


def _jax_window(
    jax: Any, x: Any, start: Any, function: Any, size: Any, stride: Any, padding: Any, dilation: Any
) -> Any:
    edges = [(0, 0), (0, 0), *((p, p) for p in padding)]
    return jax.lax.reduce_window(x, start, function, (1, 1, *size), (1, 1, *stride), edges, None, (1, 1, *dilation))


def _jax_largest(jax: Any) -> Function:
    def run(x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> Any:
        least = jax.numpy.iinfo(x.dtype).min if x.dtype.kind in "iu" else -jax.numpy.inf
        return _jax_window(jax, x, x.dtype.type(least), jax.lax.max, kernel_size, stride, padding, dilation)

    return run


def _jax_mean(jax: Any) -> Function:
    def run(x: Any, kernel_size: Any, stride: Any, padding: Any, count_include_pad: bool) -> Any:
        total = _jax_window(jax, x, x.dtype.type(0), jax.lax.add, kernel_size, stride, padding, (1, 1))
        return total / (kernel_size[0] * kernel_size[1])

    return run


def _jax_gradient(library: Any, op: str) -> Function:
    """Of an elementwise function, at its operand."""
    function = jax(library, op, "elementwise")
    assert function is not None

    def run(g: Any, x: Any, **params: Any) -> Any:
        return library.vjp(lambda x: function(x, **params), x)[1](g)[0]

    return run


def _as_in_numpy(jax: Any, op: str) -> Function:
    return NUMPY[op](jax.numpy)


JAX: Table = {
    "matmul": lambda j: j.numpy.matmul,
    "linear": lambda j: lambda x, w, b, activation: j.nn.relu(x @ w.T + b),
    "erf": lambda j: j.scipy.special.erf,
    "gelu": lambda j: lambda x, approximate: j.nn.gelu(x, approximate=approximate == "tanh"),
    "var": lambda j: lambda x, axis, keepdims, correction: j.numpy.var(x, axis=axis, keepdims=keepdims, ddof=correction),
    "cumulative_sum": lambda j: lambda x, axis: j.numpy.cumsum(x, axis=axis),
    "cumulative_prod": lambda j: lambda x, axis: j.numpy.cumprod(x, axis=axis),
    "softmax": lambda j: lambda x, axis: j.nn.softmax(x, axis=axis),
    "log_softmax": lambda j: lambda x, axis: j.nn.log_softmax(x, axis=axis),
    "attention": _jax_attention,
    "conv2d": _jax_convolution,
    "layer_norm": lambda j: lambda x, w, b, eps: _layer_norm(j.numpy, x, w, b, eps),
    "embedding": lambda j: lambda w, i: j.numpy.take(w, i, axis=0),
    "take_along_axis": lambda j: lambda x, i, axis: j.numpy.take_along_axis(x, i, axis=axis),
    "cast": lambda j: lambda x, dtype: x.astype(dtype.interchange),
    "quantize": lambda j: lambda x, dtype, **nearest_even: x.astype(dtype.interchange),
    "fake_quantize": lambda j: lambda x, dtype, **nearest_even: x.astype(dtype.interchange).astype(x.dtype),
    "clamp": lambda j: lambda x, low, high: j.numpy.clip(x, low, high),
    **{f"{name}_gradient": partial(_jax_gradient, op=name) for name in ("clamp", "gelu", "leaky_relu", "relu", "silu")},
    **{name: partial(_as_in_numpy, op=name)
       for name in ("tanh_gradient", "sigmoid_gradient", "softmax_gradient", "log_softmax_gradient")},
    "conv2d_max_pool": _jax_pooled_convolution,
    "max_pool2d": _jax_largest,
    "avg_pool2d": _jax_mean,
    "integer_max_pool2d": _jax_largest,
    "integer_matmul": lambda j: lambda a, b, accumulator: j.lax.dot(a, b, preferred_element_type=j.numpy.int32),
    "integer_conv2d": lambda j: lambda x, w, stride, padding, dilation, groups, accumulator: j.lax.conv_general_dilated(
        x, w, stride, [(p, p) for p in padding], rhs_dilation=dilation, feature_group_count=groups,
        preferred_element_type=j.numpy.int32),
    "cross_entropy": lambda j: lambda x, y, ignore_index, label_smoothing: -j.numpy.take_along_axis(
        j.nn.log_softmax(x), y[:, None], 1)[:, 0],
    "rms_norm": lambda j: lambda x, w, eps: _rms_norm(j.numpy, x, w, eps),
    "batch_norm": lambda j: lambda x, w, b, eps: _batch_norm(j.numpy, x, w, b, eps),
    "scatter_add": lambda j: lambda g, i, axis, size: j.numpy.zeros((g.shape[0], size), g.dtype).at[
        j.numpy.arange(g.shape[0])[:, None], i].add(g),
    "topk": lambda j: lambda x, k, axis, largest: j.lax.top_k(x, k)[1],
    "searchsorted": lambda j: lambda x, v, side: j.numpy.searchsorted(x, v, side=side),
    "fused": lambda j: lambda *arrays, chain: _steps(chain, lambda op: jax(j, op, "elementwise"))(*arrays),
}  # fmt: skip

# ONNX's operators, for graphs of one node. Parameters of ours that are not among their attributes are the ones they have.
ONNX: dict[str, str] = {
    "matmul": "MatMul", "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "pow": "Pow", "abs": "Abs",
    "negative": "Neg", "sqrt": "Sqrt", "exp": "Exp", "log": "Log", "tanh": "Tanh", "sin": "Sin", "cos": "Cos", "erf": "Erf",
    "sigmoid": "Sigmoid", "relu": "Relu", "softplus": "Softplus", "gelu": "Gelu", "softmax": "Softmax",
    "log_softmax": "LogSoftmax", "floor": "Floor", "ceil": "Ceil", "round": "Round", "reciprocal": "Reciprocal",
    "sign": "Sign", "where": "Where", "maximum": "Max", "minimum": "Min",
}  # fmt: skip
ATTRIBUTES = ("axis", "approximate")

__all__ = ["ATTRIBUTES", "ONNX", "Function", "jax", "numpy", "torch"]
