"""What a launch may be given beside arrays and numbers: arrays in formats that NumPy lacks, and as tensor descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ulpgrad.formats import Format


class Unknown(Exception):
    """An argument that a launcher does not take."""


class Typed(NamedTuple):
    """An array whose elements a kernel is to see in a format that NumPy lacks."""

    array: Any
    form: Format


class Described(NamedTuple):
    """An array as blocks that a tensor memory access moves; in Gluon with the layout that they have in shared memory."""

    array: Any
    form: Format | None
    block: tuple[int, ...]
    layout: Any = None


def typed(array: Any, form: Format) -> Any:
    """The array as an argument of this format: bfloat16 and 8-bit floats are stored as integers, which a kernel takes as they
    are where it is given the array itself."""
    return array if form.is_native else Typed(array, form)


def descriptor(array: Any, form: Format | None, block: Sequence[int]) -> Described:
    """The array as a tensor descriptor of blocks of these sizes. Its last axis is contiguous; the other strides and the address
    are multiples of 16 bytes."""
    return Described(array, form, tuple(block))


def descriptor_of(base: Any, array: Any, block: tuple[int, ...], layout: Any = None) -> Any:
    """Triton's own descriptor, or Gluon's with a layout, on what stands for the array's memory."""
    if layout is None:
        from triton.tools.tensor_descriptor import TensorDescriptor
    else:
        from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    made = TensorDescriptor.__new__(TensorDescriptor)  # its own checks ask torch's questions of the base
    if layout is not None:
        made.layout = layout
    made.base, made.shape, made.block_shape = base, list(array.shape), list(block)
    made.strides = [s // array.itemsize for s in array.strides]
    made.padding, made.round_f32_to_tf32 = "zero", False
    return made


__all__ = ["Described", "Typed", "Unknown", "descriptor", "descriptor_of", "typed"]
