"""Tensor: storage, a Format, and a place in the autograd graph.

Operators and methods are the functions of `ulpgrad.ops`, bound to the class when that package is imported, so that this
file knows no operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ulpgrad import autograd
from ulpgrad.device import CPU, Device, as_device, beside, device_of, moved_to
from ulpgrad.errors import ArgumentError, FormatError, GradientError
from ulpgrad.formats import Array, Format
from ulpgrad.kernels.gpu import to_host

if TYPE_CHECKING:
    from types import ModuleType

    from ulpgrad.autograd import Hook

    Axis = int | tuple[int, ...] | None


class Tensor:
    """An n-dimensional array of one Format. Make one with `ulpgrad.asarray` or another creation function.

    Attributes: `storage`, the NumPy (or CuPy) array that holds the bits; `dtype`, the Format; `requires_grad`; `grad`, the
    accumulated gradient of a leaf, or None.
    """

    __array_priority__ = 1000.0  # operators of NumPy arrays and scalars leave the work to ours, which know gradients
    __slots__ = ("__weakref__", "_cell", "_hooks", "_node", "dtype", "grad", "requires_grad", "storage")

    storage: Any
    dtype: Format
    requires_grad: bool
    grad: Tensor | None
    _node: tuple[autograd.Node, int] | None
    _cell: list[int] | None
    _hooks: list[Hook] | None

    def __init__(self, storage: Any, dtype: Format) -> None:
        self.storage = (
            storage if storage.__class__ is np.ndarray or not isinstance(storage, np.generic) else np.asarray(storage)
        )
        self.dtype = dtype
        self.requires_grad = False
        self.grad = None
        self._node = None
        self._cell = None
        self._hooks = None

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.storage.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return self.storage.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.storage.size  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements as stored."""
        return self.storage.nbytes  # type: ignore[no-any-return]

    @property
    def device(self) -> Device:
        return CPU if self.storage.__class__ is np.ndarray else device_of(self.storage)

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user, not by a recorded op."""
        return self._node is None

    # What it holds

    def numpy(self) -> Array:
        """The values as a NumPy array that shares memory (bfloat16 and small floats: with ml_dtypes' dtype); from a GPU, a copy.
        A format that neither library knows, fixed point and blocks among them, gives its exact values in float32 or float64,
        as a copy.
        Raises GradientError if the tensor requires a gradient: call `.detach()` first."""
        if self.requires_grad:
            raise GradientError("numpy: the tensor requires a gradient, which NumPy would lose; use x.detach().numpy()")
        values: Array = to_host(self.storage)
        if self.dtype.is_native:
            return values
        known = self.dtype.interchange
        return values.view(known) if known is not None else self.dtype.decode(values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> Any:
        """The single value as a Python number."""
        storage = self.storage
        if storage.size != 1:
            raise ArgumentError(f"item: a tensor of shape {self.shape} has {self.size} elements, expected 1")
        if storage.__class__ is np.ndarray and self.dtype.is_native:
            return storage.item()
        return self.dtype.decode(to_host(storage)).item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self.dtype.decode(to_host(self.storage)).tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind != "integer":
            raise FormatError(f"only an integer tensor can be an index, this one is {self.dtype.name}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ArgumentError(
                f"the truth of a tensor of shape {self.shape} is ambiguous; use ulpgrad.any or ulpgrad.all"
            )
        return bool(self.item())

    def __len__(self) -> int:
        if self.ndim == 0:
            raise FormatError("len of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        for i in range(len(self)):
            yield self[i]

    def __contains__(self, value: Any) -> bool:
        return bool((self.detach() == value).any())

    def __repr__(self) -> str:
        values = np.array2string(
            self.dtype.decode(to_host(self.storage)),
            separator=", ",
            prefix="tensor(",
            threshold=200,
            edgeitems=3,
            precision=6,
        )
        notes = [self.dtype.name]
        if self.size == 0:
            notes.insert(0, f"shape={self.shape}")
        if self.device != CPU:
            notes.append(f"device={str(self.device)!r}")
        if self._node is not None:
            notes.append(f"gradient={self._node[0].name}")
        elif self.requires_grad:
            notes.append("requires_grad=True")
        return f"tensor({values}, {', '.join(notes)})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.size == 1 and spec else repr(self)

    __hash__ = object.__hash__

    # Its place in the graph

    def _edge(self) -> Any:
        if self._node is not None:
            return self._node
        return self if self.requires_grad else None

    def _version_cell(self) -> list[int]:
        """A counter of writes in place, shared by all tensors on the same memory."""
        if self._cell is None:
            self._cell = [0]
        return self._cell

    def _written(self) -> None:
        """Note a write in place, so that a later backward through the old values raises."""
        if self._cell is None:
            self._cell = [0]
        self._cell[0] += 1

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Ask for a gradient (of a floating leaf), in place; returns self."""
        if on and not self.dtype.differentiable:
            raise GradientError(
                f"requires_grad_: integers and bools have no gradients, this tensor is {self.dtype.name}"
            )
        if not on and self._node is not None:
            raise GradientError("requires_grad_: this tensor was computed; use x.detach() to cut it off")
        self.requires_grad = on
        return self

    def detach(self) -> Tensor:
        """The same memory outside the graph."""
        out = Tensor(self.storage, self.dtype)
        out._cell = self._version_cell()
        return out

    def backward(
        self, gradient: Tensor | None = None, *, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        """Add the gradient of this tensor to the `.grad` of every leaf it depends on. See `ulpgrad.autograd.backward`."""
        autograd.backward(self, gradient, retain_graph=retain_graph, create_graph=create_graph)

    def retain_grad(self) -> None:
        """Keep `.grad` of a computed tensor too when backward passes it."""
        if self._node is not None:
            import weakref

            node, index = self._node
            node.retained = {**(node.retained or {}), index: weakref.ref(self)}

    def register_hook(self, hook: Hook) -> Callable[[], None]:
        """Call `hook(gradient)` when this tensor's gradient is known; what it returns replaces the gradient.

        Returns a function that removes the hook.
        """
        if not self.requires_grad:
            raise GradientError("register_hook: the tensor does not require a gradient")
        if self._node is None:
            hooks = self._hooks = self._hooks or []
        else:
            node, index = self._node
            node.hooks = node.hooks or {}
            hooks = node.hooks.setdefault(index, [])
        hooks.append(hook)
        return lambda: hooks.remove(hook) if hook in hooks else None

    # Interchange

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """DLPack capsule, on the tensor's device. Formats that NumPy lacks, bfloat16 among them, travel as their bits (unsigned
        integers)."""
        if self.requires_grad:
            raise GradientError("__dlpack__: the tensor requires a gradient; export x.detach()")
        if self.dtype.kind == "block":
            raise FormatError(
                f"__dlpack__: {self.dtype.name} is codes and scales; export x.to(float32), or the two arrays"
            )
        options = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        with beside(self.storage):
            return self.storage.__dlpack__(**{name: value for name, value in options.items() if value is not None})

    def __dlpack_device__(self) -> tuple[int, int]:
        storage = self.storage.codes if self.dtype.kind == "block" else self.storage
        return storage.__dlpack_device__()  # type: ignore[no-any-return]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """How other libraries read memory on a GPU without a copy; AttributeError for a tensor on the CPU. Formats that NumPy
        lacks travel as their bits."""
        if self.device.type != "cuda" or self.dtype.kind == "block":
            raise AttributeError(f"__cuda_array_interface__: a {self.dtype.name} tensor on {self.device} has none")
        if self.requires_grad:
            raise GradientError("__cuda_array_interface__: the tensor requires a gradient; export x.detach()")
        return self.storage.__cuda_array_interface__  # type: ignore[no-any-return]

    def __array_namespace__(self, *, api_version: str | None = None) -> ModuleType:
        if api_version not in (None, "2021.12", "2022.12", "2023.12", "2024.12"):
            raise ArgumentError(f"array API version {api_version!r} is not supported: expected 2024.12 or older")
        import ulpgrad

        return ulpgrad

    def __reduce__(self) -> tuple[Any, ...]:
        if self._node is not None:
            raise GradientError("only leaf tensors can be pickled or deep-copied; use x.detach()")
        values = to_host(self.storage)
        if self.dtype.kind != "block":
            values = np.ascontiguousarray(values).reshape(self.shape)
        return _rebuild, (values, self.dtype, self.requires_grad, self.grad, str(self.device))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        import copy

        from ulpgrad import ops

        if self._node is not None:
            raise GradientError("only leaf tensors can be pickled or deep-copied; use x.detach()")
        out = type(self).__new__(type(self))
        Tensor.__init__(out, ops.copy(self.detach()).storage, self.dtype)
        out.requires_grad, out.grad = self.requires_grad, copy.deepcopy(self.grad, memo)
        memo[id(self)] = out
        return out

    def cpu(self) -> Tensor:
        """The tensor on the CPU: itself if it is there."""
        return self.to(CPU)  # type: ignore[no-any-return]

    def cuda(self, device: Any = None, *, non_blocking: bool = False) -> Tensor:
        """The tensor on a GPU, the current one unless a number or a name is given: itself if it is there."""
        place = as_device("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)
        return self.to(place, non_blocking=non_blocking)  # type: ignore[no-any-return]

    def to(self, target: Any, dtype: Any = None, *, copy: bool = False, **options: Any) -> Any:
        """The tensor in another format, or on another device: `x.to(ug.bfloat16)`, `x.to("cuda")`, `x.to("cuda", ug.float16)`.

        With `non_blocking=True` a copy from pinned memory to a GPU (`ulpgrad.cuda.pin_memory`) runs on while the caller goes on.
        Options of a conversion: `rounding` ("nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd",
        "stochastic"), `overflow`, `subnormals`, `generator` and `random_bits` (for stochastic rounding), `axis` (of blocks),
        `estimator` (of the gradient), `report=True` for (tensor, counts): see `ulpgrad.quantize`.
        """
        from ulpgrad import ops

        if isinstance(target, Device) or (isinstance(target, str) and target.split(":")[0] in ("cpu", "cuda")):
            non_blocking = options.pop("non_blocking", False)
            out = ops.to_device(self, as_device(target), copy=copy, non_blocking=non_blocking)
            return out if dtype is None else out.to(dtype, **options)
        if dtype is not None:
            raise ArgumentError(
                f"to: {target!r} is no device: expected x.to(format), x.to(device) or x.to(device, format)"
            )
        return ops.quantize(self, target, **options) if options else ops.astype(self, target, copy=copy)

    def to_device(self, device: Any, /, *, stream: Any = None) -> Tensor:
        """The tensor on a device, as the standard has it: itself if it is there. Copies are made in the current stream, so
        `stream` must be None."""
        if stream is not None:
            raise ArgumentError(
                f"to_device: stream={stream!r}: expected None; copies are made in the current stream, see ulpgrad.cuda.stream"
            )
        return self.to(as_device(device))  # type: ignore[no-any-return]

    if TYPE_CHECKING:  # bound to the functions of ulpgrad.ops by ulpgrad.ops.methods

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __rand__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __ror__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __rxor__(self, other: Any) -> Tensor: ...
        def __lshift__(self, other: Any) -> Tensor: ...
        def __rlshift__(self, other: Any) -> Tensor: ...
        def __rshift__(self, other: Any) -> Tensor: ...
        def __rrshift__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __eq__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        @property
        def T(self) -> Tensor: ...
        @property
        def mT(self) -> Tensor: ...
        def sum(self, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False) -> Tensor: ...
        def mean(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor: ...
        def var(self, axis: Axis = None, *, correction: float = 0.0, keepdims: bool = False) -> Tensor: ...
        def std(self, axis: Axis = None, *, correction: float = 0.0, keepdims: bool = False) -> Tensor: ...
        def prod(self, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False) -> Tensor: ...
        def max(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor: ...
        def min(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor: ...
        def all(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor: ...
        def any(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor: ...
        def argmax(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor: ...
        def argmin(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor: ...
        def reshape(self, *shape: Any, copy: bool | None = None) -> Tensor: ...
        def astype(self, dtype: Any, *, copy: bool = True) -> Tensor: ...
        def exp(self) -> Tensor: ...
        def log(self) -> Tensor: ...
        def sqrt(self) -> Tensor: ...
        def tanh(self) -> Tensor: ...
        def sigmoid(self) -> Tensor: ...
        def relu(self) -> Tensor: ...
        def flatten(self, start: int = 0, end: int = -1) -> Tensor: ...


def _rebuild(storage: Array, form: Format, requires_grad: bool, grad: Tensor | None, device: str = "cpu") -> Tensor:
    """What unpickling calls: on the device that the tensor was on. DeviceError if that is not there."""
    out = Tensor(moved_to(storage, as_device(device)), form)
    out.requires_grad, out.grad = requires_grad, grad
    return out
