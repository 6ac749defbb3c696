"""bfloat16 through DLPack: NumPy has no such type and refuses it, so its capsule is read here, and its memory shared."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ulpgrad.formats import Array

CPU, BFLOAT = 1, 4  # codes of the protocol
VERSION = (1, 0)  # the newest major version whose layout is the one below
READ_ONLY = 1  # flag


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", _Tensor),
    )  # fmt: skip


# name of a fresh capsule, of one whose memory was taken over (kept here: a capsule does not copy its name), its struct
_KINDS = ((b"dltensor_versioned", b"used_dltensor_versioned", _Versioned), (b"dltensor", b"used_dltensor", _Managed))


def _python(name: str, result: Any, *arguments: Any) -> Any:
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_is_valid = _python("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_pointer = _python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
_rename = _python("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)


class _Owner:
    """What an array's memory hangs on: gives it back to its library at the end."""

    def __init__(self, managed: Any, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface
        self._address = ctypes.addressof(managed)
        self._deleter = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(managed.deleter) if managed.deleter else None

    def __del__(self) -> None:
        if self._deleter is not None:
            self._deleter(self._address)


def bfloat16_bits(obj: Any) -> Array | None:
    """The memory of another library's bfloat16 tensor on the CPU as uint16, shared; None for any other tensor.

    Only in the first case is the capsule taken over.
    """
    try:
        capsule = obj.__dlpack__(max_version=VERSION)
    except TypeError:  # a library from before versions
        capsule = obj.__dlpack__()
    found = next((known for known in _KINDS if _is_valid(capsule, known[0])), None)
    if found is None:
        return None
    fresh, used, kind = found
    managed = kind.from_address(_pointer(capsule, fresh))
    if kind is _Versioned and managed.major > VERSION[0]:
        return None
    t = managed.tensor
    if (t.device, t.code, t.bits, t.lanes) != (CPU, BFLOAT, 16, 1):
        return None
    shape = tuple(t.shape[: t.ndim])
    strides = tuple(2 * s for s in t.strides[: t.ndim]) if t.strides and 0 not in shape else None
    read_only = kind is _Versioned and bool(managed.flags & READ_ONLY)
    data = ((t.data or 0) + t.byte_offset, read_only)
    interface = {"version": 3, "shape": shape, "strides": strides, "typestr": np.dtype(np.uint16).str, "data": data}
    _rename(capsule, used)
    bits = np.asarray(_Owner(managed, interface))
    return bits if bits.flags.aligned else bits.copy()
