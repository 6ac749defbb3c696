"""The same work as others do it: recipes in NumPy and torch, APyTypes, JAX, ONNX Runtime. More recipes: bench_conversions,
bench_accumulate."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np

from ulpgrad.bench.peers.work import Contender
from ulpgrad.formats import Array, Fixed, Float, Format
from ulpgrad.kernels.integer.accumulator import Accumulator
from ulpgrad.kernels.threads import get_num_threads
from ulpgrad.settings import cores

MX_BLOCK = 32
E8M0_BIAS = 127
E4M3_TOP_EXPONENT = 8  # of 448


def imported(name: str) -> Any:
    """A module, or None where it is not installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


# NumPy


def rounded_product(a: Array, b: Array, form: Fixed) -> Array:
    """a * b of int16 codes to the nearest, ties up, saturating."""
    n = form.fraction_bits
    t = a.astype(np.int32) * b
    t += 1 << (n - 1)
    t >>= n
    return np.clip(t, form.min_code, form.max_code, out=t).astype(form.storage)


# torch


def torch() -> Any:
    """torch, on as many threads as ulpgrad, or None."""
    found = imported("torch")
    if found is not None:
        found.set_num_threads(get_num_threads())
    return found


def torch_saturated(torch: Any, x: Any, form: Fixed) -> Any:
    """Codes as one writes it in torch: scale, round, clamp, convert, without more temporaries than it needs."""
    t = x * (1 / form.scale)
    return t.round_().clamp_(form.min_code, form.max_code).to(torch.int16)


def torch_mxfp8(torch: Any, x: Any) -> tuple[Any, Any]:
    """Codes (e4m3) and scales (uint8, E8M0) of blocks of 32, by the floor rule, in the manner of torchao's `to_mx`."""
    blocks = x.reshape(-1, MX_BLOCK)
    amax = blocks.abs().amax(dim=1, keepdim=True)
    exponent = (amax.view(torch.int32) >> 23) & 0xFF
    biased = (exponent - E4M3_TOP_EXPONENT).clamp_(min=0, max=2 * E8M0_BIAS)
    scale = (biased.clamp(min=1) << 23).view(torch.float32)
    codes = (blocks / scale).clamp_(-448.0, 448.0).to(torch.float8_e4m3fn)
    return codes.reshape(x.shape), biased.to(torch.uint8).reshape(-1)


def to_torch(torch: Any, x: Array, form: Format) -> Any:
    """A tensor of that format, whose values x holds exactly."""
    return torch.from_numpy(np.ascontiguousarray(x)).to(getattr(torch, form.name))


def from_torch(t: Any) -> Array:
    """Its values in float64."""
    return np.asarray(t.detach().double().numpy())


# JAX and ONNX Runtime


def jax_call(which: str, form: Format, amount: float, *arrays: Array, causal: bool = False) -> list[Contender]:
    """JAX's compiled matmul, attention (operands of batch, length, heads, size) or softmax; it takes all cores, and so
    no part where fewer threads are asked for."""
    jax = imported("jax")
    if jax is None or get_num_threads() != cores():
        return []
    if form.name == "float64":
        jax.config.update("jax_enable_x64", True)
    given = [jax.numpy.asarray(a, getattr(jax.numpy, form.name)) for a in arrays]
    functions = {
        "matmul": jax.numpy.matmul,
        "attention": lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=causal),
        "softmax": jax.nn.softmax,
    }
    run = jax.jit(functions[which])

    def values(y: Any) -> Array:
        found = np.asarray(y.astype(jax.numpy.float32) if form.bits < 32 else y, np.float64)
        return np.swapaxes(found, 1, 2) if which == "attention" else found

    return [Contender("JAX", lambda: run(*given).block_until_ready(), amount, values)]


def onnx_matmul(a: Array, b: Array, amount: float) -> list[Contender]:
    """ONNX Runtime on a graph of one MatMul."""
    runtime, onnx = imported("onnxruntime"), imported("onnx")
    if runtime is None or onnx is None:
        return []
    make = onnx.helper
    kind = onnx.TensorProto.FLOAT
    (left, right, out) = (make.make_tensor_value_info(name, kind, None) for name in ("a", "b", "c"))
    graph = make.make_graph([make.make_node("MatMul", ["a", "b"], ["c"])], "matmul", [left, right], [out])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # its threads would spin in others' turns
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [Contender("ONNX Runtime", lambda: session.run(None, {"a": a, "b": b})[0], amount)]


# APyTypes, whose integer bits count the sign


def apy_fixed(apytypes: Any, codes: Array, form: Fixed) -> Any:
    """An array of these codes."""
    return apytypes.APyFixedArray.from_array(
        codes.astype(np.float64) * form.scale, int_bits=form.integer_bits + 1, frac_bits=form.fraction_bits
    )


def apy_codes(x: Any) -> Array:
    """Codes of an APyFixedArray of up to 64 bits."""
    bits = x.bits
    codes = np.asarray(x.to_bits(numpy=True)).astype(np.uint64)
    return (codes << np.uint64(64 - bits)).astype(np.int64) >> np.int64(64 - bits)


def apy_cast(apytypes: Any, x: Any, form: Fixed) -> Any:
    """To a format, to the nearest even, saturating."""
    return x.cast(
        int_bits=form.integer_bits + 1, frac_bits=form.fraction_bits,
        quantization=apytypes.QuantizationMode.TIES_EVEN, overflow=apytypes.OverflowMode.SAT,
    )  # fmt: skip


def apy_matmul(apytypes: Any, a: Any, b: Any, accumulator: Accumulator) -> Any:
    """a @ b, every product and every sum in that accumulator."""
    fraction = a.frac_bits + b.frac_bits - accumulator.shift
    with apytypes.APyFixedAccumulatorContext(
        int_bits=accumulator.bits - fraction, frac_bits=fraction,
        quantization=apytypes.QuantizationMode.TIES_EVEN, overflow=apytypes.OverflowMode.SAT,
    ):  # fmt: skip
        return a @ b


def apy_float_matmul(apytypes: Any, a: Any, b: Any, form: Float) -> Any:
    """a @ b, every product and every sum rounded to that format."""
    with apytypes.APyFloatAccumulatorContext(
        exp_bits=form.exponent_bits, man_bits=form.mantissa_bits, quantization=apytypes.QuantizationMode.TIES_EVEN
    ):
        return a @ b


__all__ = ["apy_cast", "apy_codes", "apy_fixed", "apy_float_matmul", "apy_matmul", "from_torch", "imported", "jax_call",
           "onnx_matmul", "rounded_product", "to_torch", "torch", "torch_mxfp8", "torch_saturated"]  # fmt: skip
