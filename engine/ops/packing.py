"""Weights packed once for many products."""

from __future__ import annotations

from ulpgrad.errors import FormatError, ShapeError
from ulpgrad.formats import FLOATS
from ulpgrad.kernels.matmul.prepacked import Prepacked
from ulpgrad.ops.creation import copy
from ulpgrad.tensor import Tensor


class PackedWeight:
    """A weight as it was when it was packed: `linear` takes it in the place of a weight, and gives the same bits.

    `shape` and `dtype` are the weight's. It has no gradient; that of the other operands is as ever.
    """

    FEW = 8  # rows that no kernel packs a weight for

    def __init__(self, weight: Tensor) -> None:
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            given = f"shape {weight.shape}" if isinstance(weight, Tensor) else type(weight).__name__
            raise ShapeError(f"prepack: expected a weight of shape (outputs, inputs), got {given}")
        if weight.dtype not in FLOATS:
            raise FormatError(
                f"prepack: {weight.dtype} is not taken; expected one of {', '.join(f.name for f in FLOATS)}"
            )
        self.tensor = copy(weight.detach())
        self.prepacked: Prepacked | None = None  # on a GPU, whose kernels read a weight as it stands
        if self.tensor.device.type == "cpu":
            self.tensor.storage.flags.writeable = False
            self.prepacked = Prepacked(self.tensor.storage)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> object:
        return self.tensor.dtype

    def __repr__(self) -> str:
        return f"PackedWeight({self.shape[0]}, {self.shape[1]}, {self.dtype})"


def prepack(weight: Tensor, /) -> PackedWeight:
    """A copy of a weight (outputs, inputs) for many calls of `linear`, which packs it at the first and then no more.

    It pays from 17 rows of x (bfloat16: from 9) up to some hundreds; fewer are multiplied with the weight as it stands, and for
    many rows packing does not count. Later writes to the weight do not reach it.
    """
    return PackedWeight(weight)


__all__ = ["PackedWeight", "prepack"]
