"""What becomes of a tile of sums before it is stored: scale, bias, activation, residual, and rounding: to 8-bit floats on the
bits, to any by random words."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from ulpgrad.kernels.quantize.triton_round import STOCHASTIC, float_code
from ulpgrad.kernels.random.triton_philox import block, in_order, word_at
from ulpgrad.kernels.triton_launch import tl, triton
from ulpgrad.kernels.triton_math import normal_cdf, sigmoid, tanh

# How random words are drawn for results: not at all, by blocks of four neighbours, each by itself
NO_WORDS, BLOCKS_OF_WORDS, SINGLE_WORDS = (tl.constexpr(i) for i in range(3))


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """The activation of that name, of float32 or float64 values; none for None."""
    y = x
    if ACTIVATION == "relu":
        y = tl.where(x < 0, 0.0, x)  # NaN stays
    elif ACTIVATION == "gelu":
        y = x * normal_cdf(x)
    elif ACTIVATION == "silu":
        y = x * sigmoid(x)
    elif ACTIVATION == "sigmoid":
        y = sigmoid(x)
    elif ACTIVATION == "tanh":
        y = tanh(x)
    return y


@triton.jit
def finish(
    y, rows, columns, m, n, scale, bias, residual, factor, stride_rm, stride_rn,
    ACTIVATION: tl.constexpr, FACTOR: tl.constexpr,
):  # fmt: skip
    """activation(y * factor * scale + bias) + residual, for the tile of these rows [r, 1] and columns [1, c]. Operands that are
    None are left out; `factor` is a float64, as the integer of its bits."""
    if FACTOR:
        y *= tl.full((1, 1), factor, tl.int64).to(tl.float64, bitcast=True).to(y.dtype)
    if scale is not None:
        y *= tl.load(scale + columns, columns < n, 0.0).to(y.dtype)
    if bias is not None:
        y += tl.load(bias + columns, columns < n, 0.0).to(y.dtype)
    y = activate(y, ACTIVATION)
    if residual is not None:
        at = rows.to(tl.int64) * stride_rm + columns.to(tl.int64) * stride_rn
        y += tl.load(residual + at, (rows < m) & (columns < n), 0.0).to(y.dtype)
    return y


@triton.jit
def as_float8(x, EXPONENT_BITS: tl.constexpr):
    """float32 values as codes of float8_e4m3fn (4) or float8_e5m2 (5), to nearest even. What is too large becomes NaN or
    infinity, as these formats say: the hardware's own conversion would give the largest value."""
    bias: tl.constexpr = (1 << (EXPONENT_BITS - 1)) - 1
    mantissa: tl.constexpr = 7 - EXPONENT_BITS
    shift: tl.constexpr = 23 - mantissa
    largest: tl.constexpr = 0x7E if EXPONENT_BITS == 4 else 0x7B
    beyond: tl.constexpr = 0x7F if EXPONENT_BITS == 4 else 0x7C
    nan: tl.constexpr = 0x7F if EXPONENT_BITS == 4 else 0x7E
    # Below the least normal value: added to a power of two whose last place is the least subnormal, the sum rounds as it should.
    anchor: tl.constexpr = (127 + 23 + 1 - bias - mantissa) << 23
    bits = x.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    normal = ((size + ((1 << (shift - 1)) - 1) + ((size >> shift) & 1)) >> shift) - ((127 - bias) << mantissa)
    moved = size.to(tl.float32, bitcast=True) + tl.full((1, 1), anchor, tl.int32).to(tl.float32, bitcast=True)
    code = tl.where(size < ((128 - bias) << 23), moved.to(tl.int32, bitcast=True) - anchor, normal)
    code = tl.where(code > largest, beyond, code)
    code = tl.where(size > 0x7F800000, nan, code)
    return (code | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def word_of(rows, columns, first, n, k0, k1, c0, c1, c2, c3, WORDS: tl.constexpr):
    """The words of the stream for results of these rows [r, 1] and columns [1, c], which follow each other; `first` is the index
    of the matrix's first result. Where rows of results begin with a block of words, four neighbours share one."""
    at = first + rows.to(tl.int64) * n
    COUNT: tl.constexpr = columns.shape[1]
    if WORDS == BLOCKS_OF_WORDS and COUNT >= 4:
        start = tl.min(columns, axis=1, keep_dims=True).to(tl.int64)
        w0, w1, w2, w3 = block(
            ((at + start) >> 2) + tl.arange(0, COUNT // 4)[None, :], k0, k1, c0, c1, c2, c3
        )  # fmt: skip
        word = in_order(w0, w1, w2, w3)
    else:
        word = word_at(at + columns, k0, k1, c0, c1, c2, c3)
    return word


@triton.jit
def stored(
    y, rows, columns, first, n, k0, k1, c0, c1, c2, c3, TYPE: tl.constexpr, EXPONENT_BITS: tl.constexpr,
    GRID: tl.constexpr, BITS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """Values as a result's elements: rounded stochastically to BITS bits where there is a GRID, codes of an 8-bit float where
    `EXPONENT_BITS` says so, else converted to `TYPE`. `first` is the index of the first result of the matrix with these rows and
    columns."""
    if WORDS > 0:
        word = word_of(rows, columns, first, n, k0, k1, c0, c1, c2, c3, WORDS)
        code, _, _ = float_code(y.to(tl.float32), word, GRID, STOCHASTIC, BITS, False)
        result = code.to(TYPE)
    elif EXPONENT_BITS > 0:
        result = as_float8(y, EXPONENT_BITS)
    else:
        result = y.to(TYPE)
    return result


@triton.jit
def write(
    out, y, rows, columns, first, m, n, scale, bias, residual, factor, k0, k1, c0, c1, c2, c3, stride_rm, stride_rn,
    ACTIVATION: tl.constexpr, FACTOR: tl.constexpr, EXPONENT_BITS: tl.constexpr, GRID: tl.constexpr, BITS: tl.constexpr,
    WORDS: tl.constexpr,
):  # fmt: skip
    """Sums as results of these rows and columns of a matrix whose first result is `out[first]`: finished, rounded and stored."""
    y = finish(y, rows, columns, m, n, scale, bias, residual, factor, stride_rm, stride_rn, ACTIVATION, FACTOR)
    y = stored(
        y, rows, columns, first, n, k0, k1, c0, c1, c2, c3, out.dtype.element_ty, EXPONENT_BITS, GRID, BITS, WORDS
    )  # fmt: skip
    tl.store(out + first + rows.to(tl.int64) * n + columns, y, (rows < m) & (columns < n))
