"""From arrays on a GPU to what Triton's products are launched with: leading axes folded, strides, what follows the sums."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.formats import Float, Format, float8_e4m3fn, float8_e5m2, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.matmul import layout
from ulpgrad.kernels.matmul.strided import is_more_rows, stack, strides
from ulpgrad.kernels.matmul.triton_configs import Question
from ulpgrad.kernels.matmul.triton_epilogue import BLOCKS_OF_WORDS, NO_WORDS, SINGLE_WORDS
from ulpgrad.kernels.quantize import triton_round
from ulpgrad.kernels.random.triton_philox import stream
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.triton_launch import tl, typed

FLOAT8 = (float8_e4m3fn, float8_e5m2)
PROMOTED = 128  # products of 8-bit floats that the units sum, in about 14 bits, before float32 takes over


@dataclass(frozen=True)
class End:
    """What `triton_epilogue.finish` does to the sums. `residual` has the shape of the folded result."""

    scale: Any = None
    bias: Any = None
    residual: Any = None
    activation: str | None = None
    factor: float = 1.0


class Drawn(NamedTuple):
    """The random words that results are rounded by."""

    key: int
    counter: int
    random_bits: int


@dataclass(frozen=True)
class Product:
    """a [..., m, k] @ b [..., k, n] with leading axes folded to at most two: (outer, inner), of which each operand has a stride
    (in elements, 0 where it is repeated). `shape` is the result's as the caller knows it, `form` that of the operands."""

    a: Any
    b: Any
    form: Format
    shape: tuple[int, ...]
    out_form: Format
    outer: int = 1
    inner: int = 1
    a_steps: tuple[int, int] = (0, 0)
    b_steps: tuple[int, int] = (0, 0)
    end: End = field(default_factory=End)
    drawn: Drawn | None = None

    @property
    def m(self) -> int:
        return int(self.a.shape[-2])

    @property
    def n(self) -> int:
        return int(self.b.shape[-1])

    @property
    def k(self) -> int:
        return int(self.a.shape[-1])

    @property
    def count(self) -> int:
        """Matrices in the stack."""
        return self.outer * self.inner

    @property
    def index(self) -> Any:
        """The integers that hold every offset within a tile's reach: int64 only where an operand is that large."""
        residual = self.end.residual
        reach = max(_reach(x) for x in (self.a, self.b, residual) if x is not None)
        return tl.int64 if reach >= 2**31 or self.m * self.n >= 2**31 else tl.int32

    def result(self) -> Any:
        """Room for the result, in C order."""
        return gpu.empty(self.shape, self.out_form.storage)

    @property
    def exponent_bits(self) -> int:
        """Of an 8-bit result whose codes the kernel makes, to nearest even; 0 for others."""
        plain = self.drawn is None and isinstance(self.out_form, Float) and self.out_form in FLOAT8
        return self.out_form.exponent_bits if plain else 0  # type: ignore[attr-defined]

    def shown(self, out: Any) -> Any:
        """The result as an argument: its codes where the kernel makes them."""
        if self.drawn is not None:
            return out.view(f"u{out.itemsize}")
        return out if self.exponent_bits else typed(out, self.out_form)

    def stream(self) -> tuple[Any, ...]:
        """The random words as the kernels take them."""
        return (None,) * 6 if self.drawn is None else stream(self.drawn.key, self.drawn.counter)

    def ends(self) -> tuple[Any, ...]:
        """scale, bias, residual, factor and the random words, as the kernels take them."""
        end = self.end
        return (
            *(None if x is None else typed(x, self.form) for x in (end.scale, end.bias, end.residual)),
            bits(end.factor),
            *self.stream(),
        )

    def residual_strides(self) -> tuple[int, int]:
        """Of rows and columns; zeros where there is none."""
        return (0, 0) if self.end.residual is None else strides(self.end.residual)  # type: ignore[return-value]

    def arguments(self, out: Any) -> tuple[Any, ...]:
        """out, a, b, the end's operands, sizes, steps and strides, in the order of the kernels' parameters."""
        a, b = typed(self.a, self.form), typed(self.b, self.form)
        return (self.shown(out), a, b, *self.ends(), *self.places(), *self.residual_strides())

    def places(self) -> tuple[int, ...]:
        """m, n, k, the inner axis of the stack, and steps and strides of a and b."""
        of_a, of_b = (*self.a_steps, *strides(self.a)[-2:]), (*self.b_steps, *strides(self.b)[-2:])
        return (self.m, self.n, self.k, self.inner, *of_a, *of_b)

    def matrices(self) -> tuple[Any, Any]:
        """The operands as one matrix or one stack of them, where at most one leading axis is left."""
        a, b = (
            x.reshape(self.count, *x.shape[-2:]) if steps[1] else x[(0,) * (x.ndim - 2)]
            for x, steps in ((self.a, self.a_steps), (self.b, self.b_steps))
        )
        return a, b

    def question(self, rung: str, kind: str) -> Question:
        """What is asked of the table of configurations."""
        finished = self.end.activation is not None or self.end.residual is not None or self.drawn is not None
        scattered = not (_in_packets(self.a, self.a_steps) and _in_packets(self.b, self.b_steps))
        return Question(rung, kind, self.m, self.n, self.k, self.count, finished, scattered)

    def constants(self) -> dict[str, Any]:
        """Constexprs that every kernel of this family has."""
        return {
            "ACTIVATION": self.end.activation,
            "FACTOR": self.end.factor != 1.0,
            "EXPONENT_BITS": self.exponent_bits,
            **self._rounding(),
        }

    def _rounding(self) -> dict[str, Any]:
        if self.drawn is None:
            return {"GRID": None, "BITS": 0, "WORDS": NO_WORDS.value}
        how = BLOCKS_OF_WORDS if self.n % 4 == 0 else SINGLE_WORDS
        return {
            "GRID": triton_round.constants(self.out_form, "stochastic"),
            "BITS": self.drawn.random_bits,
            "WORDS": how.value,
        }  # fmt: skip


def bits(value: float) -> int:
    """The bits of a float64 as a signed integer: Triton passes floats as float32."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def _in_packets(x: Any, steps: tuple[int, int]) -> bool:
    """Whether Triton knows that matrices can be copied in packets of 16 bytes: their lines lie without gaps between values, begin
    at multiples of 16 values, and have as many."""
    (rows, columns), (down, right) = x.shape[-2:], strides(x)[-2:]
    along, across, length = (right, down, columns) if right == 1 else (down, right, rows)
    return along == 1 and x.data.ptr % 16 == 0 and not any(s % 16 for s in (across, length, *steps))


def _reach(x: Any) -> int:
    return sum((n - 1) * abs(s) for n, s in zip(x.shape[-2:], strides(x)[-2:], strict=True) if n)


def folded(a: Any, b: Any, form: Format, out_form: Format | None = None, drawn: Drawn | None = None) -> Product:
    """The product of two stacks of matrices that broadcast. Nothing is copied, but where three or more leading axes stay."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape, out_form = (*lead, a.shape[-2], b.shape[-1]), out_form or form
    if is_more_rows(a, b):
        return Product(layout.rows(a), b.reshape(b.shape[-2:]), form, shape, out_form, drawn=drawn)
    axes = stack(a, b)
    if len(axes) > 2:
        a, b = (gpu.contiguous(gpu.xp().broadcast_to(x, (*lead, *x.shape[-2:]))) for x in (a, b))
        axes = stack(a, b)
    (outer, first), (inner, second) = [(1, (0, 0))] * (2 - len(axes)) + axes
    steps = (first[0], second[0]), (first[1], second[1])
    return Product(a, b, form, shape, out_form, outer, inner, *steps, drawn=drawn)


def linear(
    x: Any, weight: Any, bias: Any, scale: Any = None, residual: Any = None, *, form: Format, activation: str | None = None,
    factor: float = 1.0, dtype: Format | None = None, packed: Any = None, drawn: Drawn | None = None,
) -> Product:  # fmt: skip
    """x @ weight.T and what follows, with the leading axes of x folded to rows."""
    end = End(vector(scale), vector(bias), None if residual is None else layout.rows(residual), activation, factor)
    shape = (*x.shape[:-1], weight.shape[0])
    return Product(layout.rows(x), weight.T, form, shape, dtype or form, end=end, drawn=drawn)


def vector(x: Any) -> Any:
    """One value for each column, contiguous; None as it is."""
    return None if x is None else gpu.contiguous(x)


Run = Callable[[Product], Any]


def matmul_by(run: Run, request: Request) -> Callable[..., Any]:
    """The op matmul on arrays, for a rung that runs a `Product`."""
    form = _form(request)
    return lambda a, b: run(folded(a, b, form))


def linear_by(run: Run, request: Request) -> Callable[..., Any]:
    """The op linear on arrays, for a rung that runs a `Product`."""
    form = _form(request)
    return lambda *arrays, **finish: run(linear(*arrays, form=form, **finish))


def stochastic_matmul_by(run: Run, request: Request) -> Callable[..., Any]:
    """The op matmul_stochastic on arrays, for a rung that runs a `Product`."""
    form = _form(request)
    return lambda a, b, *, dtype, **stream: run(folded(a, b, form, dtype, Drawn(**stream)))


def stochastic_linear_by(run: Run, request: Request) -> Callable[..., Any]:
    """The op linear_stochastic on arrays, for a rung that runs a `Product`."""
    form = _form(request)

    def call(*arrays: Any, key: int, counter: int, random_bits: int, **finish: Any) -> Any:
        return run(linear(*arrays, form=form, drawn=Drawn(key, counter, random_bits), **finish))

    return call


def stochastic_refusal(request: Request) -> str | None:
    """Why results are not rounded by random words within a product."""
    form = request.params["dtype"]
    if triton_round.registers(form, "stochastic", np.dtype(np.float32))[0]:
        return f"rounds to ranges inside that of float32, unlike that of {form.name}"
    return triton_round.refusal(form)


def _form(request: Request) -> Format:
    assert request.formats[0] is not None
    return request.formats[0]


def sum_type(form: Format) -> Any:
    """What products of a format are summed in."""
    if form is float64:
        return tl.float64
    if form.kind == "integer":
        return getattr(tl, form.name)
    return tl.float32


__all__ = [
    "FLOAT8",
    "PROMOTED",
    "Drawn",
    "End",
    "Product",
    "bits",
    "folded",
    "linear",
    "linear_by",
    "matmul_by",
    "stochastic_linear_by",
    "stochastic_matmul_by",
    "stochastic_refusal",
    "sum_type",
    "vector",
]
