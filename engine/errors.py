"""The errors users meet. Each says what was given, what was expected and what to do; each is also the built-in error that
NumPy users catch for the same mistake."""

from __future__ import annotations


class UlpgradError(Exception):
    """Base of every error that ulpgrad raises on purpose."""


class ShapeError(UlpgradError, ValueError):
    """Shapes or axes that do not fit together."""


class AxisError(ShapeError, IndexError):
    """An axis outside the tensor's dimensions."""


class FormatError(UlpgradError, TypeError):
    """A number format that is unknown, or that an operation does not take."""


class ArgumentError(UlpgradError, ValueError):
    """An argument outside its domain."""


class CapacityError(UlpgradError, IndexError):
    """Memory of a fixed size that has no room for what is to be written."""


class DeviceError(UlpgradError, RuntimeError):
    """A device that is not there, or tensors on different devices."""


class DeviceMemoryError(UlpgradError, MemoryError):
    """A GPU's memory does not hold what was asked for, even after what its pool kept was given back."""


class CaptureError(UlpgradError, RuntimeError):
    """Work that a CUDA graph cannot hold: the host would have to read, to wait, or to decide anew at each replay."""


class KernelError(UlpgradError, RuntimeError):
    """No kernel can run a call, or a pinned kernel refuses it."""


class GradientError(UlpgradError, RuntimeError):
    """A gradient that does not exist, a freed graph, or a saved tensor that was written to."""


class DataError(UlpgradError, ValueError):
    """A data or weight file that is missing, corrupt, truncated or of another kind."""


class DivergenceError(UlpgradError, ArithmeticError):
    """Training that left the numbers: a value that is not finite, or a loss that ran away.

    Attributes: `step` (steps before it), `where` (op and place, or parameter), `role`, `format` (name, or None), `value`.
    """

    def __init__(
        self, message: str, *, step: int, where: str, role: str, format: str | None = None, value: float = float("nan")
    ) -> None:
        super().__init__(message)
        self.step, self.where, self.role, self.format, self.value = step, where, role, format, value


class AccumulatorError(UlpgradError, OverflowError):
    """A chosen accumulator with overflow="raise" met a sum that does not fit.

    Attributes: `index`, of the first result (in row-major order) in which it happened; `k`, where the chunk that did it begins.
    """

    def __init__(self, message: str, *, index: tuple[int, ...], k: int) -> None:
        super().__init__(message)
        self.index, self.k = index, k


class StaleExtensionWarning(UserWarning):
    """The C++ extension was built before the sources changed, and is left unused."""


class HostFallbackWarning(UserWarning):
    """A call on a GPU ran on the CPU, between copies there and back: no GPU kernel takes it."""
