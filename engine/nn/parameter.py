"""Parameter: a tensor that a module learns."""

from __future__ import annotations

from typing import Any

from ulpgrad.device import as_device, moved_to
from ulpgrad.errors import GradientError
from ulpgrad.formats import Array, Format
from ulpgrad.kernels.copy import copied
from ulpgrad.ops.creation import asarray
from ulpgrad.tensor import Tensor


class Parameter(Tensor):
    """A leaf that requires a gradient, and that a Module finds among its attributes.

    `data` is anything `asarray` takes; memory is shared where it is contiguous. Raises GradientError for formats that
    are not floating.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        given = asarray(data)
        storage = given.storage
        super().__init__(storage if storage.flags.c_contiguous else copied(storage), given.dtype)
        self._cell = given._version_cell()
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return f"Parameter({super().__repr__()})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._node is not None:
            raise GradientError("a parameter that was computed cannot be pickled or copied; use x.detach()")
        return _rebuild, super().__reduce__()[1]


def _rebuild(storage: Array, form: Format, requires_grad: bool, grad: Tensor | None, device: str = "cpu") -> Parameter:
    """What unpickling calls."""
    out = Parameter(Tensor(moved_to(storage, as_device(device)), form), requires_grad)
    out.grad = grad
    return out
