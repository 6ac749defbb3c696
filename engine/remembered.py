"""Functions that remember what their calls came to: see `csrc/cpu/remembered.cpp`.

Before a kernel runs, Python turns arguments into operands, checks them and looks for the kernel; for a few values that takes
ten times as long as the kernel. A function is `remembered` where all this depends on nothing but the tensors' formats, shapes
and layouts and on the other arguments, never on values, and where it comes down to ops, movements of data (`moved`, `viewed`)
and new tensors (`made`), each on tensors among the arguments or on what came before:

    @remembered
    def softmax(x, /, axis=-1): ...

What does not (because arrays were given, or values were looked at: `plain_calls.varies`) runs as it stands each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ulpgrad import formats
from ulpgrad.kernels import native, registry

F = TypeVar("F", bound=Callable[..., Any])

if not TYPE_CHECKING and native.missing() is None:
    Remembered = native.module().Remembered
    registry.on_change(native.module().forget_calls)
    formats.on_default_dtype(native.module().forget_calls)
else:

    class Remembered:
        """A function that is called as it stands: without the C++ extension there is no faster way."""

        def __init__(self, function: Callable[..., Any]) -> None:
            self.__wrapped__ = function

        def __call__(self, *args: Any, **options: Any) -> Any:
            return self.__wrapped__(*args, **options)


def remembered(function: F) -> F:
    """The function, with a memory of its calls where the C++ extension is there to keep one."""
    if native.missing() is not None:
        return function
    kept: Any = Remembered(function)
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(kept, name, getattr(function, name))
    return kept  # type: ignore[no-any-return]
