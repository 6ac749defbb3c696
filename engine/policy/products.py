"""A product under a policy: one node that rounds what enters it, computes with the accumulator asked for, and does the same
with the gradient on its way back.

The three products of a layer, y = x w, dx = g w' and dw = x' g, get operands on their grids. Blocks lie along the axis that a
product sums over, so they are made anew, from the values before rounding, for each of the three.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad.autograd import Node, Saved, is_grad_enabled
from ulpgrad.device import as_array, beside
from ulpgrad.differentiable import Primitive
from ulpgrad.errors import GradientError
from ulpgrad.formats import Array, Fixed, Format, as_format
from ulpgrad.ops.blocks import multiplied, turned
from ulpgrad.ops.quantize import Estimator
from ulpgrad.policy.accumulating import Accumulation
from ulpgrad.policy.quantizers import Grid, InBlocks, Quantizer
from ulpgrad.policy.rounding import carrier
from ulpgrad.policy.tables import BLOCK_AXES, IN_BLOCKS
from ulpgrad.tensor import Tensor

Rounder = Callable[[Quantizer, Array, int, str], Grid]  # quantizer, values, axis, role


class Entered:
    """A tensor that enters products: before rounding, and on its grid. `form` is of one that lies on a grid already."""

    __slots__ = ("estimate", "grids", "quantizer", "raw", "role", "round")

    def __init__(
        self,
        raw: Array,
        quantizer: Quantizer | None,
        role: str,
        round: Rounder,
        form: Format | None = None,
        estimate: Estimator | None = None,
    ) -> None:
        self.raw, self.quantizer, self.role, self.round, self.estimate = raw, quantizer, role, round, estimate
        self.grids: dict[int, Grid] = {} if quantizer is not None else {0: Grid(raw, 1.0, form)}

    def along(self, axis: int) -> Grid:
        """On its grid; of blocks, those along an axis."""
        key = axis % self.raw.ndim if self.quantizer is not None and self.quantizer.blocks else 0
        found = self.grids.get(key)
        if found is None:
            assert self.quantizer is not None
            found = self.grids[key] = self.round(self.quantizer, self.raw, axis, self.role)
        return found

    def estimated(self, g: Array) -> Array:
        """The gradient of the values before rounding, from that of the rounded ones."""
        form = next((grid.form for grid in self.grids.values()), None)
        if self.estimate is None or self.quantizer is None or form is None:
            return g
        out: Array = self.estimate(Tensor(g, carrier(g)), Tensor(self.raw, carrier(self.raw)), form).storage
        return out


@dataclass
class Rules:
    """The three products of an op's call: forward, and from its gradient rules those of its two operands."""

    primitive: Primitive
    params: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    accumulation: Accumulation | None

    def forward(self, a: Entered, b: Entered, bias: Array | None) -> Array:
        """The product, in float32 or float64. Integer accumulators give float64, which holds sums up to 53 bits."""
        axes = BLOCK_AXES[self.primitive.op.name][0]
        u, v = a.along(axes[0]), b.along(axes[1])
        fused = self.accumulation is None and u.scale * v.scale == 1.0
        last = (
            ()
            if len(self.primitive.operands) == 2
            else (Tensor(bias, carrier(bias)) if fused and bias is not None else None,)
        )

        def run(left: Tensor, right: Tensor, active: bool) -> Tensor:
            if active:
                return self.primitive(left, right, *last, **self.params)
            return self.primitive.plain((left, right, *last), self.params)[0]

        out = self._of_blocks(0, u, v)
        fused = fused and out is None
        out = self._contract(run, u, v) if out is None else out
        if bias is not None and not fused:
            out = out + bias.reshape(-1, *(1,) * (out.ndim - 2)) if out.ndim == 4 else out + bias
        return out

    def backward(self, position: int, g: Entered, other: Entered) -> Array:
        """The gradient of the operand at a position, from the incoming one and the other operand."""
        axes, names = BLOCK_AXES[self.primitive.op.name][1 + position], self.primitive.operands
        name = names[position]
        fixed = {f"{n}_shape": shape for n, shape in zip(names, self.shapes, strict=False)} | self.params

        def run(left: Tensor, right: Tensor, active: bool) -> Tensor:
            given = {"g": left, names[1 - position]: right, **fixed}
            out: Tensor = self.primitive.rules[name](*[given[n] for n in self.primitive.reads[name]])
            return out

        u, v = g.along(axes[0]), other.along(axes[1])
        out = self._of_blocks(1 + position, u, v)
        return unbroadcast(self._contract(run, u, v) if out is None else out, self.shapes[position])

    def _of_blocks(self, which: int, u: Grid, v: Grid) -> Array | None:
        """One of the three products from codes and scales; None where operands are not such, or it is no product of matrices."""
        found = IN_BLOCKS.get(self.primitive.op.name)
        if found is None or self.accumulation is not None:
            return None
        if not (isinstance(u, InBlocks) and isinstance(v, InBlocks)) or min(u.blocks.ndim, v.blocks.ndim) < 2:
            return None
        swapped, left_turned, right_turned = found[which]
        left, right = (v, u) if swapped else (u, v)
        a = turned(left.blocks) if left_turned else left.blocks
        b = turned(right.blocks) if right_turned else right.blocks
        out: Array | None = multiplied(a, b, (left.form, right.form))  # type: ignore[arg-type]
        return out

    def _contract(self, run: Callable[[Tensor, Tensor, bool], Tensor], u: Grid, v: Grid) -> Array:
        how, a, b = self.accumulation, u.values, v.values
        if how is not None and how.integer and isinstance(u.form, Fixed) and isinstance(v.form, Fixed):
            a, b = u.codes(), v.codes()
            with how:
                sums = run(Tensor(a, as_format(a.dtype)), Tensor(b, as_format(b.dtype)), True).storage
            return as_array(sums * math.ldexp(1.0, how.shift - u.form.fraction_bits - v.form.fraction_bits))  # type: ignore[no-any-return]
        left, right = Tensor(a, carrier(a)), Tensor(b, carrier(b))
        if how is not None and not how.integer:
            with how:
                out = run(left, right, True).storage
        else:
            out = run(left, right, False).storage
        scale = u.scale * v.scale
        return as_array(out if scale == 1.0 else out * out.dtype.type(scale))  # type: ignore[no-any-return]


class ProductNode(Node):
    """A recorded product: gradients of operands and bias, the incoming one rounded first.

    `gradient` rounds what comes in; if that holds everywhere, `of_weight` and `of_bias` round what goes to parameters.
    """

    def __init__(
        self,
        inputs: Sequence[Tensor | None],
        rules: Rules,
        operands: tuple[Entered, Entered],
        result: Entered | None,
        rounders: tuple[Quantizer | None, Quantizer | None, Quantizer | None],
        weight: int | None,
        round: Rounder,
    ) -> None:
        super().__init__(rules.primitive.op.name, inputs)
        self.rules, self.result, self.weight, self.round = rules, result, weight, round
        self.entered: tuple[Entered, Entered] | None = operands
        self.gradient, self.of_weight, self.of_bias = rounders
        self.saved = [Saved(t) for t in inputs[:2] if t is not None]

    def vjp(self, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
        if self.entered is None:
            raise GradientError(
                f"backward of {self.name}: the graph has been freed by an earlier backward; pass retain_graph=True there"
            )
        refuse_second(self.name)
        for saved in self.saved:
            saved.get(self.name)
        assert gradients[0] is not None
        with beside(gradients[0].storage):
            return self._back(gradients[0].storage)

    def _back(self, values: Array) -> Sequence[Tensor | None]:
        assert self.entered is not None
        if self.result is not None:
            values = self.result.estimated(values)
        g = Entered(values, self.gradient, "gradient", self.round)
        everywhere = self.of_bias is not None
        found: list[Tensor | None] = []
        for position in (0, 1):
            if self.edges[position] is None:
                found.append(None)
                continue
            out = self.rules.backward(position, g, self.entered[1 - position])
            out = self.entered[position].estimated(out)
            if position == self.weight and self.of_weight is not None:
                out = self.round(self.of_weight, out, -1, "weight gradient").plain()
            found.append(Tensor(out, carrier(out)))
        if len(self.edges) > 2:
            found.append(
                None if self.edges[2] is None else self._bias(g.along(0).plain() if everywhere else values, everywhere)
            )
        return found

    def _bias(self, g: Array, everywhere: bool) -> Tensor:
        axes = tuple(i for i in range(g.ndim) if i != (1 if g.ndim == 4 else g.ndim - 1))
        total = g.sum(axis=axes, dtype=np.float64).astype(g.dtype)
        if everywhere and self.of_bias is not None:
            total = self.round(self.of_bias, total, -1, "bias gradient").plain()
        return Tensor(total, carrier(total))

    def free(self) -> None:
        self.entered, self.result, self.saved = None, None, []

    @property
    def freed(self) -> bool:
        return self.entered is None


class RoundedNode(Node):
    """A recorded rounding: the gradient is estimated, and rounded to a format of its own."""

    def __init__(self, name: str, x: Tensor, entered: Entered, gradient: Quantizer | None, round: Rounder) -> None:
        super().__init__(name, [x])
        self.entered: Entered | None = entered if entered.estimate is not None else None
        self.gradient, self.round = gradient, round

    def vjp(self, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
        refuse_second(self.name)
        assert gradients[0] is not None
        g = gradients[0].storage
        with beside(g):
            if self.entered is not None:
                g = self.entered.estimated(g)
            if self.gradient is not None:
                g = self.round(self.gradient, g, -1, "gradient").plain()
        return [Tensor(g, carrier(g))]


def refuse_second(name: str) -> None:
    """GradientError where a gradient through a rounding is to be differentiated again."""
    if is_grad_enabled():
        raise GradientError(
            f"backward of {name} under a policy with create_graph=True: estimates of gradients through a rounding have no "
            "gradient themselves; leave the policy's block for what is to be differentiated twice"
        )


def unbroadcast(values: Array, shape: tuple[int, ...]) -> Array:
    """A gradient summed over the axes that its operand was broadcast along."""
    if values.shape == shape:
        return values
    extra = values.ndim - len(shape)
    axes = (*range(extra), *(i + extra for i, s in enumerate(shape) if s == 1 and values.shape[i + extra] != 1))
    return as_array(values.sum(axis=axes)).reshape(shape)  # type: ignore[no-any-return]
