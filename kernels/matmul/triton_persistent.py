"""As many programs as there are multiprocessors, each of which computes tile after tile: the copies for its next tile run while
the results of the last are finished and stored. Blocks are moved by the tensor memory accelerator (Hopper), one instruction
for a block, which leaves registers and issue slots to the products; a tile is stored in two halves, so that the buffers of one
more stage fit.

Next limit: products wait where the warps that issue them also finish tiles; warp specialisation by hand would take that apart.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Format, bfloat16, float16, float32
from ulpgrad.kernels import gpu
from ulpgrad.kernels.matmul import spec, triton_configs as configs, triton_operands as operands
from ulpgrad.kernels.matmul.strided import Facts, lies, of_layer, of_product
from ulpgrad.kernels.matmul.triton_epilogue import finish, stored
from ulpgrad.kernels.matmul.triton_grouped import place_of, precision
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, descriptor, launch, tl, triton

FORMATS = (float16, bfloat16, float32)


@triton.jit
def block(described, matrix, row, column, STACKED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A block of a matrix, or of one matrix of a stack."""
    if STACKED:
        values = described.load([matrix, row, column]).reshape(ROWS, COLUMNS)
    else:
        values = described.load([row, column])
    return values


@triton.jit
def multiply(
    out, a, b, scale, bias, residual, factor, k0, k1, c0, c1, c2, c3, m, n, k, count, stride_rm, stride_rn,
    ACTIVATION: tl.constexpr, FACTOR: tl.constexpr, EXPONENT_BITS: tl.constexpr, GRID: tl.constexpr, BITS: tl.constexpr,
    WORDS: tl.constexpr, PRECISION: tl.constexpr, IMPRECISE: tl.constexpr,
    A_STACKED: tl.constexpr, A_TURNED: tl.constexpr, B_STACKED: tl.constexpr, B_TURNED: tl.constexpr,
    OUT_STACKED: tl.constexpr, GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    down, across = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tiles, half = down * across, BLOCK_N // 2
    for tile in tl.range(tl.program_id(0), tiles * count, tl.num_programs(0), flatten=True):
        matrix = tile // tiles
        i, j = place_of(tile % tiles, down, across, GROUP)
        sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for start in range(0, k, BLOCK_K):
            if A_TURNED:
                left = block(a, matrix, start, i * BLOCK_M, A_STACKED, BLOCK_K, BLOCK_M).T
            else:
                left = block(a, matrix, i * BLOCK_M, start, A_STACKED, BLOCK_M, BLOCK_K)
            if B_TURNED:
                right = block(b, matrix, j * BLOCK_N, start, B_STACKED, BLOCK_N, BLOCK_K).T
            else:
                right = block(b, matrix, start, j * BLOCK_N, B_STACKED, BLOCK_K, BLOCK_N)
            sums = tl.dot(left, right, sums, input_precision=PRECISION, max_num_imprecise_acc=IMPRECISE)
        halves = tl.split(sums.reshape(BLOCK_M, 2, BLOCK_N // 2).permute(0, 2, 1))
        rows = i * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
        for side in tl.static_range(2):
            first = j * BLOCK_N + side * half
            columns = first + tl.arange(0, BLOCK_N // 2)[None, :]
            result = finish(
                halves[side], rows, columns, m, n, scale, bias, residual, factor, stride_rm, stride_rn, ACTIVATION, FACTOR
            )  # fmt: skip
            result = stored(
                result, rows, columns, matrix.to(tl.int64) * m * n, n, k0, k1, c0, c1, c2, c3, out.dtype, EXPONENT_BITS, GRID,
                BITS, WORDS,
            )  # fmt: skip
            if OUT_STACKED:
                out.store([matrix, i * BLOCK_M, first], result.reshape(1, BLOCK_M, BLOCK_N // 2))
            else:
                out.store([i * BLOCK_M, first], result)


def described(x: Any, form: Format | None, rows: int, columns: int) -> tuple[Any, bool, bool]:
    """A matrix or stack as a descriptor of blocks, whether it is a stack, and whether it lies with its columns together, which
    are then the descriptor's rows."""
    turned, stacked = lies(x) == "columns", x.ndim == 3
    shown, size = (x.swapaxes(-1, -2), (columns, rows)) if turned else (x, (rows, columns))
    return descriptor(shown, form, (1, *size) if stacked else size), stacked, turned


def run(product: operands.Product, imprecise: int | None = None, kind: str = "") -> Any:
    """The whole product, a program a multiprocessor."""
    out, m, n, count = product.result(), product.m, product.n, product.count
    config = configs.choose(product.question("triton-persistent", kind or configs.kind(product.form)))
    left, right = product.matrices()
    a, a_stacked, a_turned = described(left, product.form, config.m, config.k)
    b, b_stacked, b_turned = described(right, product.form, config.k, config.n)
    whole = out.reshape((count, m, n) if count > 1 else (m, n))
    by_codes = product.exponent_bits > 0 or product.drawn is not None
    whole = product.shown(whole) if product.drawn is not None else whole
    to, out_stacked, _ = described(whole, None if by_codes else product.out_form, config.m, config.n // 2)
    tiles = count * cdiv(m, config.m) * cdiv(n, config.n)
    launch(
        multiply, (min(tiles, gpu.processors()),), to, a, b, *product.ends(), m, n, product.k, count,
        *product.residual_strides(), **product.constants(),
        PRECISION=precision() if product.form is float32 else "ieee", A_STACKED=a_stacked,
        IMPRECISE=imprecise and min(imprecise, config.k),
        A_TURNED=a_turned, B_STACKED=b_stacked, B_TURNED=b_turned, OUT_STACKED=out_stacked, GROUP=config.group,
        **config.blocks,
    )  # fmt: skip
    return out


def refusal(facts: Facts | None, itemsize: int) -> str | None:
    """Why this rung does not take a call, by how its operands lie and the size of a result."""
    if gpu.generation() < 90:
        return f"needs the tensor memory accelerator and the shared memory of sm_90; this is sm_{gpu.capability()}"
    if facts is None or facts.a is None or facts.b is None:
        return "moves matrices whose address and rows (or columns) lie at multiples of 16 bytes, and that are not empty"
    if facts.aligned * itemsize % 16:
        return "writes results whose rows are multiples of 16 bytes"
    return "takes one stack of matrices" if facts.axes > 1 else None


@kernel(
    spec.matmul, "cuda/triton-persistent", rank=60, formats=FORMATS, build=True, replays=True,
    where=lambda request: refusal(of_product(*request.arrays), request.arrays[0].itemsize),
)  # fmt: skip
def matmul(request: Request) -> Any:
    return operands.matmul_by(run, request)


def _layer(request: Request) -> str | None:
    dtype = request.params.get("dtype")
    return refusal(of_layer(*request.arrays), request.arrays[0].itemsize if dtype is None else dtype.storage.itemsize)


@kernel(spec.linear, "cuda/triton-persistent", rank=60, formats=FORMATS, where=_layer, build=True, replays=True)
def linear(request: Request) -> Any:
    return operands.linear_by(run, request)


def _drawn(request: Request, facts: Facts | None) -> str | None:
    size = request.params["dtype"].storage.itemsize
    reason = refusal(facts, size) if size > 1 else "writes results of 16 bits: half a small tile of bytes is no copy"
    return reason or operands.stochastic_refusal(request)


@kernel(
    spec.matmul_stochastic, "cuda/triton-persistent", rank=60, formats=FORMATS, build=True,
    where=lambda request: _drawn(request, of_product(*request.arrays)),
)  # fmt: skip
def matmul_stochastic(request: Request) -> Any:
    return operands.stochastic_matmul_by(run, request)


@kernel(
    spec.linear_stochastic, "cuda/triton-persistent", rank=60, formats=FORMATS, build=True,
    where=lambda request: _drawn(request, of_layer(*request.arrays)),
)  # fmt: skip
def linear_stochastic(request: Request) -> Any:
    return operands.stochastic_linear_by(run, request)
