"""A GPU that is not there: CuPy's arrays over host memory, so that everything above them runs on a machine without one.

What `ulpgrad.kernels.gpu.xp()` gives under ULPGRAD_CUDA=emulated. Functions are NumPy's, under CuPy's rules: arrays of the host
are not taken (`asarray` moves them, `.get()` moves back), nothing becomes one by itself, results are arrays also where they have
no axes, and an array works only on the device that is current. There are two devices, so that mixing them up is noticed.
"""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ulpgrad.kernels.emulated_streams import (
    FORBIDDEN,
    Event,
    Graph,
    Memory,
    MemoryPool,
    OutOfMemoryError,
    PinnedMemoryPointer,
    Stream,
    get_default_memory_pool as get_default_memory_pool,
    get_default_pinned_memory_pool as get_default_pinned_memory_pool,
    get_elapsed_time,
    record,
    recording,
    store,
    using_allocator,
)

DEVICES = 2
used: set[str] = set()  # NumPy's functions that were called: tests look for each in CuPy

_FIELDS = ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides")
_METHODS = frozenset((
    "all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy", "cumprod", "cumsum", "diagonal", "dot", "fill",
    "flatten", "item", "max", "mean", "min", "nonzero", "prod", "put", "ravel", "repeat", "reshape", "round", "sort",
    "squeeze", "std", "sum", "swapaxes", "take", "tobytes", "tolist", "trace", "transpose", "var", "view",
))  # fmt: skip
_VIEWS = frozenset(("ravel", "reshape", "squeeze", "swapaxes", "transpose", "view"))


class Device:
    """One of the devices; as a context it is the current one inside the block."""

    current = 0

    def __init__(self, device: int | None = None) -> None:
        self.id = Device.current if device is None else int(device)
        if not 0 <= self.id < DEVICES:
            raise RuntimeError(f"cudaErrorInvalidDevice: invalid device ordinal: {self.id} of {DEVICES}")
        self._before: list[int] = []

    def __enter__(self) -> Device:
        self._before.append(Device.current)
        Device.current = self.id
        return self

    def __exit__(self, *_: object) -> None:
        Device.current = self._before.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<emulated CUDA Device {self.id}>"

    def use(self) -> None:
        Device.current = self.id

    def synchronize(self) -> None:
        """Nothing is under way here."""

    @property
    def compute_capability(self) -> str:
        return "90"

    @property
    def attributes(self) -> dict[str, int]:
        """Few multiprocessors, so that small problems have more parts than there are of them; and a small cache."""
        return {"MultiProcessorCount": 2, "L2CacheSize": 1 << 20}

    @property
    def mem_info(self) -> tuple[int, int]:
        return (1 << 33, 1 << 33)


class Flags:
    """The layout of an array, as CuPy tells it."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous: bool = flags.c_contiguous
        self.f_contiguous: bool = flags.f_contiguous
        self.owndata: bool = flags.owndata

    @property
    def forc(self) -> bool:
        return self.c_contiguous or self.f_contiguous

    @property
    def fnc(self) -> bool:
        return self.f_contiguous and not self.c_contiguous


class MemoryPointer:
    def __init__(self, ptr: int, device_id: int) -> None:
        self.ptr, self.device_id = ptr, device_id


class ndarray:
    """An array on an emulated device; `host` is the memory it stands for, which only this file and the launchers touch."""

    __slots__ = ("__weakref__", "device", "host")
    __array_priority__ = 100.0
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray[Any, Any], device: Device | None = None) -> None:
        self.host, self.device = host, device or Device()

    @property
    def flags(self) -> Flags:
        return Flags(self.host.flags)

    @property
    def data(self) -> MemoryPointer:
        return MemoryPointer(int(self.host.ctypes.data), self.device.id)

    @property
    def T(self) -> ndarray:
        return ndarray(self.host.T, self.device)

    @property
    def base(self) -> ndarray | None:
        return None if self.host.base is None else ndarray(np.asarray(self.host.base), self.device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        a = self.host
        return {
            "shape": a.shape, "typestr": a.dtype.str, "data": (int(a.ctypes.data), False), "version": 3, "stream": 1,
            "strides": None if a.flags.c_contiguous else a.strides,
        }  # fmt: skip

    def get(self, stream: Any = None, order: Any = "C", out: Any = None, blocking: bool = True) -> Any:
        """A copy on the host."""
        if recording() is not None and (out is None or blocking):
            raise RuntimeError(FORBIDDEN)
        if out is None:
            return self.host.copy(order)
        record([self.host, out], lambda: np.copyto(out, self.host))
        return out

    def set(self, values: Any, stream: Any = None) -> None:
        """Values of the host into this array."""
        _check_device(self)
        if not isinstance(values, np.ndarray) or values.shape != self.shape or values.dtype != self.dtype:
            raise ValueError(f"set: expected a NumPy array of {self.dtype} {self.shape}, got {values!r:.60}")
        if recording() is not None:
            raise RuntimeError(FORBIDDEN)
        np.copyto(self.host, values)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        return _call(name, getattr(ufunc, method), inputs, options)

    def __array_function__(self, function: Any, kinds: Any, args: Any, options: Any) -> Any:
        if function is np.broadcast_to:
            return ndarray(np.broadcast_to(self.host, *args[1:], **options), self.device)
        return _call(function.__name__, function, args, options)

    def __getattr__(self, name: str) -> Any:
        if name in _FIELDS:
            return getattr(self.host, name)
        if name not in _METHODS:
            raise AttributeError(f"{name!r}: CuPy's arrays have it not, or the emulated ones lack it")

        def method(*args: Any, **options: Any) -> Any:
            if name in _VIEWS:
                return self._viewed(lambda: getattr(self.host, name)(*args, **options))
            return _call(f"ndarray.{name}", getattr(type(self.host), name), (self, *args), options)

        return method

    def _viewed(self, make: Callable[[], Any]) -> ndarray:
        """What is a view of this array needs no work on its device; a copy does."""
        made = ndarray(make(), self.device)
        if not np.may_share_memory(made.host, self.host):
            _check_device(self)
            again(self, made, make)
        return made

    def __getitem__(self, index: Any) -> ndarray:
        items = index if isinstance(index, tuple) else (index,)
        if not all(item is None or isinstance(item, (int, slice, types.EllipsisType)) for item in items):
            _check_device(self)
        place, shape = _unwrapped(index), self.host.shape
        if isinstance(self.host[_around(place, shape)], np.generic):  # a view without axes
            place = (*_unwrapped(items), ...)
        return self._viewed(lambda: np.asarray(self.host[_around(place, shape)]))

    def __setitem__(self, index: Any, value: Any) -> None:
        _check_device(self)
        place, new = _unwrapped(index), _unwrapped(value)
        record([self.host], lambda: self.host.__setitem__(place, new))

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def _single(self) -> Any:
        """What the host reads of an array that it asks for one value."""
        if recording() is not None:
            raise RuntimeError(FORBIDDEN)
        return self.host

    def __bool__(self) -> bool:
        return bool(self._single())

    def __int__(self) -> int:
        return int(self._single())

    def __float__(self) -> float:
        return float(self._single())

    def __index__(self) -> int:
        return operator.index(self._single())

    def __repr__(self) -> str:
        return f"emulated {self.host!r}"

    def __deepcopy__(self, memo: Any) -> ndarray:
        return ndarray(self.host.copy(), self.device)


def _add_operators() -> None:
    def forward(function: Any, name: str) -> Callable[..., Any]:
        return lambda self, other: _call(f"operator.{name}", function, (self, other), {})

    def backward(function: Any, name: str) -> Callable[..., Any]:
        return lambda self, other: _call(f"operator.{name}", function, (other, self), {})

    for name in (
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "and",
        "or",
        "xor",
        "lshift",
        "rshift",
        "matmul",
    ):
        function = getattr(operator, f"__{name}__")
        setattr(ndarray, f"__{name}__", forward(function, name))
        setattr(ndarray, f"__r{name}__", backward(function, name))
        setattr(ndarray, f"__i{name}__", forward(getattr(operator, f"__i{name}__"), name))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(ndarray, f"__{name}__", forward(getattr(operator, f"__{name}__"), name))
    for name in ("neg", "pos", "abs", "invert"):
        one: Any = getattr(operator, f"__{name}__")
        setattr(ndarray, f"__{name}__", lambda self, one=one, name=name: _call(f"operator.{name}", one, (self,), {}))


_add_operators()


def _check_device(array: ndarray) -> None:
    if array.device.id != Device.current:
        raise ValueError(
            "Array device must be same as the current device: "
            f"array device = {array.device.id} while current = {Device.current}"
        )


def _unwrapped(value: Any) -> Any:
    """What NumPy is to see of an argument; TypeError for an array of the host."""
    match value:
        case ndarray():
            _check_device(value)
            return value.host
        case np.ndarray():
            raise TypeError(f"Unsupported type {type(value)}: an array of the host among those of a device")
        case tuple() | list():
            return type(value)(map(_unwrapped, value))
        case dict():
            return {key: _unwrapped(v) for key, v in value.items()}
    return value


def _wrapped(value: Any, given: dict[int, ndarray]) -> Any:
    match value:
        case np.ndarray():
            known = given.get(id(value))
            return ndarray(value) if known is None else known
        case np.generic():
            return ndarray(np.asarray(value))
        case tuple() | list():
            return tuple(_wrapped(v, given) for v in value)
    return value


def _around(place: Any, shape: tuple[int, ...]) -> Any:
    """An index as CuPy reads it: positions in arrays that are nowhere are taken around the axis."""
    items = place if isinstance(place, tuple) else (place,)
    if any(item is None or item is Ellipsis or getattr(item, "dtype", None) == np.bool_ for item in items):
        return place
    found = (
        item % shape[axis] if isinstance(item, np.ndarray) and shape[axis] else item for axis, item in enumerate(items)
    )
    return tuple(found) if isinstance(place, tuple) else next(found)


def again(source: ndarray, made: ndarray, make: Callable[[], Any]) -> None:
    """Have a replay of what is being captured make an array anew."""
    recorder = recording()
    if recorder is not None:
        recorder.touch(iter((source.host,)))
        recorder.steps.append(lambda: np.copyto(made.host, make()))


def _operands(value: Any) -> Iterator[ndarray]:
    if isinstance(value, ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from _operands(v)


def _call(name: str, function: Callable[..., Any], args: Any, options: dict[str, Any]) -> Any:
    used.add(name)
    given = {id(a.host): a for a in _operands((*args, *options.values()))}
    to_host = name in ("ndarray.item", "ndarray.tolist", "ndarray.tobytes")
    recorder, operands, named = recording(), _unwrapped(tuple(args)), _unwrapped(options)
    if recorder is not None:
        if to_host:
            raise RuntimeError(FORBIDDEN)
        recorder.touch(a.host for a in given.values())

    def run() -> Any:
        with np.errstate(all="ignore"):  # a GPU raises no flags
            return function(*operands, **named)

    found = run()
    if to_host:
        return found
    results = _wrapped(found, given)
    if recorder is not None:
        recorder.steps.append(lambda: store(results, run()))
    return results


# The module's functions: those that cross between host and device, then all of NumPy's.


def asarray(values: Any, dtype: Any = None, order: Any = None, **_: Any) -> ndarray:
    """A device array of values of the host; a device array as it is."""
    if isinstance(values, ndarray):
        return values if dtype is None or values.dtype == dtype else values.astype(dtype)
    if recording() is not None:
        raise RuntimeError(FORBIDDEN)
    return ndarray(np.array(values, dtype=dtype, order=order or "K"))


def array(values: Any, dtype: Any = None, copy: bool = True, order: Any = None, **_: Any) -> ndarray:
    """A new device array."""
    made = asarray(values, dtype)
    return made._viewed(lambda: np.array(made.host, order=order or "K")) if made is values and copy else made


def asnumpy(values: Any, **_: Any) -> Any:
    """A copy on the host."""
    return values.get() if isinstance(values, ndarray) else np.asarray(values)


def ascontiguousarray(values: Any, dtype: Any = None) -> ndarray:
    made = asarray(values, dtype)
    return made if made.flags.c_contiguous else made._viewed(lambda: np.ascontiguousarray(made.host))


def may_share_memory(a: ndarray, b: ndarray) -> bool:
    return np.may_share_memory(a.host, b.host)


def from_dlpack(obj: Any) -> ndarray:
    """Only what lies on an emulated device already: DLPack has no name for one."""
    if isinstance(obj, ndarray):
        return obj
    raise BufferError(f"from_dlpack: {type(obj).__name__} does not lie on an emulated device")


def __getattr__(name: str) -> Any:
    found = getattr(np, name)
    if not callable(found) or isinstance(found, type):
        return found

    def function(*args: Any, **options: Any) -> Any:
        return _call(name, found, args, options)

    function.__name__ = name
    return function


cuda = types.SimpleNamespace(
    Device=Device,
    Stream=Stream,
    Event=Event,
    Graph=Graph,
    Memory=Memory,
    MemoryPointer=MemoryPointer,
    MemoryPool=MemoryPool,
    using_allocator=using_allocator,
    get_elapsed_time=get_elapsed_time,
    get_current_stream=lambda: Stream._current[-1],
    memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    alloc_pinned_memory=PinnedMemoryPointer,
    runtime=types.SimpleNamespace(
        getDevice=lambda: Device.current,
        setDevice=lambda device: Device(device).use(),
        getDeviceCount=lambda: DEVICES,
        deviceSynchronize=lambda: Stream._current[-1].synchronize(),
        streamCaptureModeRelaxed=2,
        CUDARuntimeError=RuntimeError,
    ),
)
__version__ = f"emulated by NumPy {np.__version__}"
module = sys.modules[__name__]
