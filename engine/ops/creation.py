"""Creation functions of the array API standard (2024.12), and conversion between formats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.device import CPU, Device, as_device, current, elsewhere, moved_to, retried
from ulpgrad.differentiable import Primitive, carried, made, moved, plain_calls
from ulpgrad.errors import ArgumentError, FormatError, GradientError, ShapeError
from ulpgrad.formats import (
    Array,
    Format,
    Integer,
    as_format,
    bfloat16,
    float32,
    float64,
    get_default_dtype,
    int64,
    of_dtype,
    uint64,
)
from ulpgrad.kernels import gpu
from ulpgrad.kernels.cast import spec as cast_spec
from ulpgrad.kernels.copy import copied
from ulpgrad.ops.common import LARGEST, checked_shape, scalar
from ulpgrad.ops.dlpack import bfloat16_bits
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = [
    "arange",
    "asarray",
    "astype",
    "copy",
    "empty",
    "empty_like",
    "eye",
    "from_dlpack",
    "full",
    "full_like",
    "linspace",
    "meshgrid",
    "ones",
    "ones_like",
    "zeros",
    "zeros_like",
]

ON_GPU = (2, 13)  # DLPack's codes of CUDA memory and of what CUDA manages

_cast: Primitive = Primitive(
    cast_spec.cast, "x", gradients={"x": lambda g: g}
)  # the graph converts g to the operand's format


def asarray(
    obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """A Tensor from a Tensor, an array of NumPy, ml_dtypes, CuPy or any DLPack library, or (nested) Python numbers.

    Python floats become the default format (float32), ints int64, bools bool; arrays keep their format unless `dtype` is
    given, and their device unless `device` is. Memory is shared where that is possible and `copy` is not True; `copy=False`
    raises where it is not. Raises FormatError for data that is not numeric and ShapeError for ragged lists.
    """
    plain = obj.__class__ is np.ndarray and dtype is None and device is None and not copy and not requires_grad
    if plain and (known := of_dtype.get(obj.dtype)) is not None and obj.flags.aligned:
        return Tensor(obj, known)
    target = None if device is None else as_device(device)
    form = None if dtype is None else as_format(dtype)
    if isinstance(obj, (list, tuple)) and any(isinstance(o, Tensor) for o in obj):
        from ulpgrad.ops.manipulation import stack

        obj = stack([asarray(o) for o in obj])
    if isinstance(obj, Tensor):
        out = obj
    else:
        storage, found = _stored(obj, form)
        foreign = isinstance(obj, np.ndarray) and not (obj.dtype.isnative and obj.flags.aligned)
        speaks = hasattr(obj, "__dlpack__") or hasattr(obj, "__cuda_array_interface__")
        shared = speaks and not isinstance(obj, np.generic) and not foreign
        if copy is False and not shared:
            raise ArgumentError(f"asarray: {type(obj).__name__} cannot become a tensor without a copy; drop copy=False")
        out = Tensor(copied(storage) if copy and shared else storage, found)
    if target is not None and out.device != target:
        if copy is False:
            raise ArgumentError(
                f"asarray: what lies on {out.device} cannot be on {target} without a copy; drop copy=False"
            )
        out = _to(out, target)
    if form is not None and out.dtype is not form:
        if copy is False:
            raise ArgumentError(f"asarray: {out.dtype.name} cannot become {form.name} without a copy; drop copy=False")
        out = astype(out, form)
    elif isinstance(obj, Tensor) and copy:
        out = astype(out, out.dtype, copy=True)
    if requires_grad:
        out = (out.detach() if out is obj else out).requires_grad_()
    return out


def _stored(obj: Any, form: Format | None) -> tuple[Array, Format]:
    """Storage and Format of foreign data. Python numbers go straight to `form` if given, with one rounding."""
    if isinstance(obj, (np.ndarray, np.generic)):
        found = _format_of(obj.dtype)
        values = np.asarray(obj)
        if not values.dtype.isnative:
            values = values.astype(values.dtype.newbyteorder("="))
        if not values.flags.aligned:
            values = values.copy()
        return (values if found.is_native else values.view(found.storage)), found
    if gpu.is_array(obj):
        return _on_gpu(obj)
    if hasattr(obj, "__dlpack__") and not isinstance(obj, (list, tuple)):
        return _from_dlpack(obj)
    if hasattr(obj, "__cuda_array_interface__"):
        return _on_gpu(gpu.xp().asarray(obj))
    if hasattr(obj, "__array__"):
        return _stored(np.asarray(obj.__array__()), form)
    try:
        values = np.asarray(obj)
    except OverflowError as error:
        raise FormatError(f"asarray: a number does not fit any format: {error}") from None
    except (ValueError, TypeError) as error:
        if isinstance(obj, (list, tuple)):
            raise ShapeError(f"asarray: nested lists must have equal lengths (ragged data?): {error}") from None
        raise FormatError(f"asarray: cannot make numbers of {type(obj).__name__}") from None
    if values.dtype.kind not in "biuf":
        raise FormatError(
            f"asarray: cannot make a tensor of {type(obj).__name__} holding {values.dtype}; expected numbers or bools"
        )
    if values.dtype == np.float64 or (values.size == 0 and isinstance(obj, (list, tuple))):
        target = form or get_default_dtype()
        if (target.kind != "float" or target.routed) and values.size:
            return values, float64  # exactly: the conversion that follows is the only one
        return target.encode(values.astype(np.float64, copy=False)), target
    found = _format_of(values.dtype)
    if found.kind == "integer" and form is not None and form.kind == "integer":
        return _integers_that_fit("asarray", values, form), form
    if form is None and found is uint64:
        raise FormatError(f"asarray: {values.max()} does not fit int64; pass dtype=uint64, or another format")
    return values, found


def _on_gpu(array: Any) -> tuple[Any, Format]:
    """An array of the GPU's library as storage, and its format."""
    form = _format_of(array.dtype)
    return (array if form.is_native else array.view(form.storage)), form


def values_of(x: Tensor) -> Any:
    """The values of a tensor as an array, where it lies, in a type that holds them all."""
    form = x.dtype
    if x.device == CPU:
        return form.decode(x.storage)
    if form.routed:
        raise FormatError(f"{form.name}: its values are not computed on a GPU: use .to(float32), or .cpu()")
    return x.storage if form.is_native else astype(x.detach(), as_format(form.carrier)).storage  # type: ignore[attr-defined]


def _to(x: Tensor, device: Device) -> Tensor:
    """x on a device: itself if it is there."""
    return x if x.device == device else carried(x, device)


def _integers_that_fit(name: str, values: Array, form: Format) -> Array:
    low, high = int(form.min), int(form.max)  # type: ignore[attr-defined]
    if values.size and (int(values.min()) < low or int(values.max()) > high):
        raise FormatError(
            f"{name}: numbers from {values.min()} to {values.max()} do not fit {form.name} ({low} to {high})"
        )
    return values.astype(form.storage)


def _format_of(dtype: np.dtype[Any]) -> Format:
    try:
        return as_format(dtype)
    except FormatError:
        raise FormatError(f"asarray: arrays of {dtype} are not taken; expected a real number type or bool") from None


def _from_dlpack(obj: Any) -> tuple[Array, Format]:
    if getattr(obj, "requires_grad", False):
        raise ArgumentError(
            "from_dlpack: the other library's tensor requires a gradient, which would be lost; detach it there"
        )
    errors = AttributeError, RuntimeError, BufferError, TypeError
    if hasattr(obj, "__dlpack_device__") and obj.__dlpack_device__()[0] in ON_GPU:
        return _dlpack_on_gpu(obj)
    try:
        array = np.from_dlpack(obj)
    except errors as error:
        try:
            bits = bfloat16_bits(obj)
        except errors:
            bits = None
        if bits is not None:
            return bits, bfloat16
        raise FormatError(f"from_dlpack: {type(obj).__name__} cannot be read: {error}") from None
    return _stored(array, None)


def _dlpack_on_gpu(obj: Any) -> tuple[Any, Format]:
    """The memory of another library's tensor on a GPU."""
    index = int(obj.__dlpack_device__()[1])
    as_device(Device("cuda", index))  # raises where CuPy or the device is missing
    try:
        with gpu.on_device(index):
            array = gpu.xp().from_dlpack(obj)
    except (AttributeError, RuntimeError, BufferError, TypeError, ValueError) as error:
        raise FormatError(f"from_dlpack: {type(obj).__name__} cannot be read: {error}") from None
    return _on_gpu(array)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A Tensor on the memory of any object that speaks DLPack, on its device or a copy on another (read-only memory of
    the host is copied; on a GPU CuPy does not tell it from other memory). Raises ArgumentError where `copy=False` cannot be
    kept."""
    target = None if device is None else as_device(device)
    if isinstance(x, Tensor):
        if x.requires_grad:
            raise GradientError("from_dlpack: the tensor requires a gradient, which would be lost; pass x.detach()")
        out = x.detach()
    else:
        out = Tensor(*_from_dlpack(x))
    if target is not None and target != out.device:
        if copy is False:
            raise ArgumentError(f"from_dlpack: what lies on {out.device} cannot be on {target} without a copy")
        return _to(out, target)
    return _copy(out) if copy or not writeable(out.storage) else out


def writeable(storage: Any) -> bool:
    """Whether values may be written into an array: not where it is read only, or (on a GPU) repeated by a stride of 0."""
    if isinstance(storage, np.ndarray):
        return storage.flags.writeable
    return all(step or size < 2 for step, size in zip(storage.strides, storage.shape, strict=True))


@remembered
def astype(x: Tensor, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """`x` in another format, each value rounded once to nearest even. Differentiable, but for integers and bools.

    NaN and infinity do not convert to integers: FormatError. With `copy=False` a tensor already in the format is returned.
    `Tensor.to` takes other roundings and overflows.
    """
    form = as_format(dtype)
    if device is not None:
        x = _to(x, as_device(device))
    if x.dtype is form:
        return _copy(x) if copy else x
    if form.routed or x.dtype.routed:
        from ulpgrad.ops.quantize import to_format

        return to_format(x, form)
    return _cast(x, dtype=form)


def _copy(x: Tensor) -> Tensor:
    return moved("copy", [x], _copied_block if x.dtype.kind == "block" else copied, lambda g: g)


def _copied_block(storage: Any) -> Any:
    return storage.copy()


@remembered
def copy(x: Tensor, /) -> Tensor:
    """The same values in memory of their own. Differentiable."""
    return _copy(x)


def _new(storage: Array, form: Format, requires_grad: bool) -> Tensor:
    out = made(Tensor(storage, form))
    if requires_grad:
        plain_calls.varies()
        out.requires_grad_()
    return out


def _float_or(dtype: Any) -> Format:
    return get_default_dtype() if dtype is None else as_format(dtype)


def empty(shape: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor whose values are whatever was in memory."""
    form = _float_or(dtype)
    sizes = checked_shape("empty", shape)
    return _new(_filled("empty", sizes, form.storage, device), form, requires_grad)


def _filled(kind: str, *given: Any) -> Any:
    """`empty`, `zeros` or `full` of NumPy, or on a GPU; the device comes last."""
    device = as_device(given[-1])
    if device == CPU:
        return getattr(np, kind)(*given[:-1])
    return retried(device.index, getattr(gpu.xp(), kind), *given[:-1])


@remembered
def zeros(shape: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    form = _float_or(dtype)
    sizes = checked_shape("zeros", shape)
    if form.kind in ("affine", "block"):  # whose zero is not the code 0, or has a scale beside it
        return _new(astype(zeros(sizes, dtype=float32, device=device), form).storage, form, requires_grad)
    return _new(_filled("zeros", sizes, form.storage, device), form, requires_grad)


@remembered
def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of one value; its format follows the value as in `asarray` unless given."""
    form = None if dtype is None else as_format(dtype)
    if form is not None and form.kind in ("affine", "block"):
        plain = full(shape, fill_value, dtype=float32, device=device)
        return _new(astype(plain, form).storage, form, requires_grad)
    value = asarray(fill_value, dtype=form)
    device = value.device if device is None else device
    if value.ndim:
        raise ShapeError(f"full: the fill value must be a single number, got shape {value.shape}")
    sizes = checked_shape("full", shape)
    return _new(_full(sizes, value.storage, device), value.dtype, requires_grad)


def _full(sizes: tuple[int, ...], value: Any, device: Any) -> Any:
    """An array of one value, given as an array without axes."""
    place = as_device(device)
    if place == CPU:
        return np.full(sizes, moved_to(value, CPU))
    if isinstance(value, np.ndarray):  # as a number, which needs no copy to the device
        return retried(place.index, gpu.xp().full, sizes, value[()], value.dtype)
    return retried(place.index, gpu.xp().full, sizes, moved_to(value, place))


@remembered
def ones(shape: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    form = _float_or(dtype)
    sizes = checked_shape("ones", shape)
    if form.kind in ("affine", "block"):
        return _new(astype(ones(sizes, dtype=float32, device=device), form).storage, form, requires_grad)
    return _new(_full(sizes, scalar(1, form).storage, device), form, requires_grad)


def empty_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`empty` in the shape and format of x, and on its device unless given."""
    return empty(x.shape, dtype=dtype or x.dtype, device=_or_of(x, device))


def _or_of(x: Tensor, device: Any) -> Any:
    return elsewhere(x.storage) if device is None else device


@remembered
def zeros_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`zeros` in the shape and format of x, and on its device unless given."""
    return zeros(x.shape, dtype=dtype or x.dtype, device=_or_of(x, device))


@remembered
def ones_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`ones` in the shape and format of x, and on its device unless given."""
    return ones(x.shape, dtype=dtype or x.dtype, device=_or_of(x, device))


@remembered
def full_like(x: Tensor, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`full` in the shape and format of x, and on its device unless given."""
    return full(x.shape, fill_value, dtype=dtype or x.dtype, device=_or_of(x, device))


@remembered
def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Tensor:
    """start, start + step, ... up to but without stop: int64 for integers, else the default format."""
    place = as_device(device)
    if stop is None:
        start, stop = 0, start
    whole = all(isinstance(v, (int, np.integer)) for v in (start, stop, step))
    try:
        numbers = tuple((int if whole else _finite)(v) for v in (start, stop, step))
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(
            f"arange: start, stop and step must be finite numbers, got {start!r}, {stop!r}, {step!r}"
        ) from None
    if step == 0:
        raise ArgumentError("arange: step must not be 0")
    start, stop, step = numbers
    form = (int64 if whole else get_default_dtype()) if dtype is None else as_format(dtype)
    if whole:
        return made(_whole_range(range(start, stop, step), form, place))
    with np.errstate(all="ignore"):
        steps = float((np.float64(stop) - start) / step)
    if not steps < LARGEST:
        raise ShapeError(f"arange: no array can hold the {steps:g} numbers from {start!r} to {stop!r} by {step!r}")
    with current(place):
        values = _module(place).arange(max(0, math.ceil(steps)), dtype=np.float64) * step + start
    return made(astype(Tensor(values, float64), form, copy=False))


def _module(device: Device) -> Any:
    return np if device == CPU else gpu.xp()


def _finite(value: Any) -> float:
    if isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value):
        return float(value)
    raise ValueError("not a finite number")


def _whole_range(numbers: range, form: Format, place: Device) -> Tensor:
    """The numbers of a range, whatever they pass by on the way: computed modulo 2^64."""
    if not numbers:
        return astype(Tensor(_filled("empty", 0, np.int64, place), int64), form, copy=False)
    low, high = sorted((numbers[0], numbers[-1]))
    held = form if isinstance(form, Integer) else int64
    if low < held.min or high > held.max:
        raise FormatError(f"arange: numbers from {low} to {high} do not fit {held.name} ({held.min} to {held.max})")
    count = (high - low) // abs(numbers.step) + 1
    if count >= LARGEST:
        raise ShapeError(f"arange: no array can hold the {count} numbers of {numbers}")
    with current(place):
        values = _module(place).arange(count, dtype=np.uint64)
        values *= np.uint64(numbers.step % 2**64)
        values += np.uint64(numbers.start % 2**64)
        values = values.view(np.int64).astype(held.storage, copy=False)
    return astype(Tensor(values, held), form, copy=False)


@remembered
def linspace(
    start: float, stop: float, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Tensor:
    """`num` evenly spaced values from start to stop."""
    place = as_device(device)
    if not isinstance(num, (int, np.integer)) or num < 0:
        raise ArgumentError(f"linspace: num must be an integer and must not be negative, got {num!r}")
    (count,) = checked_shape("linspace", num)
    form = _float_or(dtype)
    try:
        with np.errstate(all="ignore"):
            values = np.linspace(float(start), float(stop), count, endpoint=endpoint, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"linspace: start and stop must be numbers, got {start!r}, {stop!r}") from None
    return made(astype(Tensor(moved_to(values, place), float64), form, copy=False))


@remembered
def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones on the k-th diagonal of an (n_rows, n_cols) matrix of zeros."""
    form = _float_or(dtype)
    rows, columns = checked_shape("eye", (n_rows, n_rows if n_cols is None else n_cols))
    try:
        return made(Tensor(moved_to(form.encode(np.eye(rows, columns, k=k)), as_device(device)), form))
    except TypeError:
        raise ArgumentError(f"eye: k must be an integer, got {k!r}") from None


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinate grids of 1-d tensors, with Cartesian ("xy") or matrix ("ij") indexing."""
    from ulpgrad.ops.manipulation import broadcast_to, permute_dims, reshape

    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    if any(a.ndim != 1 for a in arrays):
        raise ShapeError(f"meshgrid: expected 1-d tensors, got shapes {[a.shape for a in arrays]}")
    shape = tuple(a.size for a in arrays)
    grids = []
    for i, a in enumerate(arrays):
        grid = broadcast_to(reshape(a, tuple(-1 if j == i else 1 for j in range(len(arrays)))), shape)
        if indexing == "xy" and len(arrays) > 1:
            grid = permute_dims(grid, (1, 0, *range(2, len(arrays))))
        grids.append(grid)
    return tuple(grids)
