"""Programs that run at the same time compute a block of neighbouring tiles, a few rows of tiles high, so that what one of them
loads of A and B the others find in the L2 cache; and loads of later steps are under way while a step is multiplied
(`num_stages` buffers in shared memory). float32 goes through the tensor cores as well, each value as the sum of two tf32
(unless ULPGRAD_FLOAT32_MATMUL says otherwise).

Next limit: every warp computes addresses and issues copies beside its products, and the last programs leave processors idle.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad import settings
from ulpgrad.errors import ArgumentError
from ulpgrad.formats import bfloat16, float8_e4m3fn, float8_e5m2, float16, float32
from ulpgrad.kernels import gpu, replay
from ulpgrad.kernels.matmul import spec, triton_configs as configs, triton_operands as operands
from ulpgrad.kernels.matmul.triton_epilogue import write
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

FORMATS = (float16, bfloat16, float32, float8_e4m3fn, float8_e5m2)
PRECISIONS = ("tf32x3", "ieee", "tf32")


@triton.jit
def place_of(tile, down, across, GROUP: tl.constexpr):
    """Row and column of a tile, in an order that walks columns of GROUP tiles."""
    first = (tile // (GROUP * across)) * GROUP
    high = tl.minimum(down - first, GROUP)
    within = tile % (GROUP * across)
    return first + within % high, within // high


@triton.jit
def tile_of(
    m, n, inner, stride_a0, stride_a1, stride_b0, stride_b1, INDEX: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """This program's rows [r, 1] and columns [1, c], where its matrices begin in a and b, and which of the stack they are."""
    down, across = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    matrix = (tl.program_id(0) // (down * across)).to(tl.int64)
    i, j = place_of(tl.program_id(0) % (down * across), down, across, GROUP)
    rows = (i * BLOCK_M + tl.arange(0, BLOCK_M)).to(INDEX)[:, None]
    columns = (j * BLOCK_N + tl.arange(0, BLOCK_N)).to(INDEX)[None, :]
    from_a = (matrix // inner) * stride_a0 + (matrix % inner) * stride_a1
    from_b = (matrix // inner) * stride_b0 + (matrix % inner) * stride_b1
    return rows, columns, from_a, from_b, matrix


@triton.jit
def multiply(
    out, a, b, scale, bias, residual, factor, k0, k1, c0, c1, c2, c3, m, n, k, inner, stride_a0, stride_a1,
    stride_am, stride_ak, stride_b0, stride_b1, stride_bk, stride_bn, stride_rm, stride_rn,
    ACTIVATION: tl.constexpr, FACTOR: tl.constexpr, EXPONENT_BITS: tl.constexpr, GRID: tl.constexpr, BITS: tl.constexpr,
    WORDS: tl.constexpr, INDEX: tl.constexpr,
    PRECISION: tl.constexpr, WHOLE_K: tl.constexpr, WIDEN: tl.constexpr, IMPRECISE: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows, columns, start_a, start_b, matrix = tile_of(
        m, n, inner, stride_a0, stride_a1, stride_b0, stride_b1, INDEX, GROUP, BLOCK_M, BLOCK_N
    )  # fmt: skip
    steps = tl.arange(0, BLOCK_K).to(INDEX)
    from_a = a + start_a + rows * stride_am + steps[None, :] * stride_ak
    from_b = b + start_b + steps[:, None] * stride_bk + columns * stride_bn
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        if WHOLE_K:
            left = tl.load(from_a, rows < m, 0.0)
            right = tl.load(from_b, columns < n, 0.0)
        else:
            left = tl.load(from_a, (rows < m) & (start + steps[None, :] < k), 0.0)
            right = tl.load(from_b, (columns < n) & (start + steps[:, None] < k), 0.0)
        if WIDEN:  # 8-bit floats are float16 as well, whose products are summed in float32 throughout
            left, right = left.to(tl.float16), right.to(tl.float16)
        sums = tl.dot(left, right, sums, input_precision=PRECISION, max_num_imprecise_acc=IMPRECISE)
        from_a += BLOCK_K * stride_ak
        from_b += BLOCK_K * stride_bk
    write(
        out, sums, rows, columns, matrix * m * n, m, n, scale, bias, residual, factor, k0, k1, c0, c1, c2, c3,
        stride_rm, stride_rn, ACTIVATION, FACTOR, EXPONENT_BITS, GRID, BITS, WORDS,
    )  # fmt: skip


def precision() -> str:
    """How float32 is multiplied, as the user has chosen."""
    replay.hangs_on("ULPGRAD_FLOAT32_MATMUL")
    given = settings.get("ULPGRAD_FLOAT32_MATMUL")
    if given not in PRECISIONS:
        raise ArgumentError(f"ULPGRAD_FLOAT32_MATMUL={given!r}: expected one of {', '.join(PRECISIONS)}")
    return given


def widens(product: operands.Product) -> bool:
    """Whether 8-bit floats are multiplied as float16: the units that take them sum in about 14 bits, enough for a result of 8 or
    16 bits, not for float32, which random words round."""
    return product.form.bits == 8 and (product.out_form is float32 or product.drawn is not None)


def run(product: operands.Product) -> Any:
    """The whole product, a program a tile."""
    out = product.result()
    how = precision() if product.form is float32 else "ieee"
    name = "ieee" if product.form is float32 and how == "ieee" else configs.kind(product.form)
    config = configs.choose(product.question("triton-grouped", name))
    tiles = cdiv(product.m, config.m) * cdiv(product.n, config.n)
    launch(
        multiply, (product.count * tiles if out.size else 0,), *product.arguments(out), **product.constants(),
        INDEX=product.index, PRECISION=how, WHOLE_K=product.k % config.k == 0, WIDEN=widens(product),
        IMPRECISE=min(operands.PROMOTED, config.k) if product.form.bits == 8 else None, GROUP=config.group, **config.blocks,
    )  # fmt: skip
    return out


def _units(request: Request) -> str | None:
    """Refusal of 8-bit floats where there is no unit for them: they are widened before."""
    form = request.formats[0]
    assert form is not None
    lacks = form.bits == 8 and gpu.capability() < 89
    return f"multiplies {form.name} from sm_89 on; this is sm_{gpu.capability()}" if lacks else None


@kernel(spec.matmul, "cuda/triton-grouped", rank=45, formats=FORMATS, where=_units, build=True, replays=True)
def matmul(request: Request) -> Any:
    return operands.matmul_by(run, request)


@kernel(spec.linear, "cuda/triton-grouped", rank=45, formats=FORMATS, where=_units, build=True, replays=True)
def linear(request: Request) -> Any:
    return operands.linear_by(run, request)


def _drawn(request: Request) -> str | None:
    return _units(request) or operands.stochastic_refusal(request)


@kernel(spec.matmul_stochastic, "cuda/triton-grouped", rank=45, formats=FORMATS, where=_drawn, build=True)
def matmul_stochastic(request: Request) -> Any:
    return operands.stochastic_matmul_by(run, request)


@kernel(spec.linear_stochastic, "cuda/triton-grouped", rank=45, formats=FORMATS, where=_drawn, build=True)
def linear_stochastic(request: Request) -> Any:
    return operands.stochastic_linear_by(run, request)
