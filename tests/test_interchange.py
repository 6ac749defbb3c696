"""Tensors in and out: pickle, copies, DLPack, memory shared with NumPy, and how they print."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ArgumentError, GradientError


def leaf(*values: Any) -> ug.Tensor:
    return ug.asarray(list(values), dtype=ug.float64, requires_grad=True)


def equal(x: ug.Tensor | None, expected: Any) -> None:
    assert x is not None
    np.testing.assert_allclose(x.detach().numpy(), expected, rtol=1e-14)


def test_pickle_and_deepcopy() -> None:
    for form in (ug.float32, ug.bfloat16, ug.int8, ug.bool):
        x = ug.ones((2, 3), dtype=form).mT
        for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
            assert (y.dtype, y.shape) == (form, (3, 2))
            np.testing.assert_array_equal(y.storage, x.storage)
            assert not np.shares_memory(y.storage, x.storage)
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert y.requires_grad
        equal(y.grad, [2, 4])
        assert y.grad is not x.grad
    shared = [x, x]
    twice = copy.deepcopy(shared)
    assert twice[0] is twice[1]
    with pytest.raises(GradientError, match="only leaf tensors"):
        copy.deepcopy(x * 2)
    with pytest.raises(GradientError, match="only leaf tensors"):
        pickle.dumps(x * 2)
    scalar = copy.deepcopy(ug.asarray(2.5, requires_grad=True))
    assert scalar.shape == ()


def test_dlpack_both_ways() -> None:
    array = np.arange(6.0).reshape(2, 3)[:, ::2]
    x = ug.from_dlpack(array)
    assert np.shares_memory(x.storage, array)
    x[0, 0] = 9
    assert array[0, 0] == 9
    back = np.from_dlpack(x)
    assert np.shares_memory(back, array)
    back[0, 1] = 8
    assert float(x[0, 1]) == 8
    assert x.__dlpack_device__() == (1, 0)
    copied = ug.from_dlpack(x, copy=True)
    assert not np.shares_memory(copied.storage, x.storage)
    array.flags.writeable = False
    x = ug.from_dlpack(array)
    x[0, 0] = 1  # read-only memory was copied
    assert array[0, 0] == 9
    with pytest.raises(GradientError, match=r"export x\.detach"):
        leaf(1.0).__dlpack__()
    bits = np.from_dlpack(ug.ones(2, dtype=ug.bfloat16))
    assert bits.dtype == np.uint16
    assert ug.from_dlpack(ug.ones(2, dtype=ug.bfloat16)).dtype is ug.bfloat16


class Foreign:
    """A bfloat16 tensor of a library that NumPy cannot read: a C struct, and a count of the calls of its deleter."""

    def __init__(self, bits: Any, shape: tuple[int, ...], strides: tuple[int, ...] | None, flags: int | None) -> None:
        self.bits, self.deleted = bits, 0
        self.sizes = (ctypes.c_int64 * len(shape))(*shape)
        self.steps = None if strides is None else (ctypes.c_int64 * len(strides))(*strides)
        self.name = b"dltensor" if flags is None else b"dltensor_versioned"
        self.deleter = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(self.delete)
        deleter = ctypes.cast(self.deleter, ctypes.c_void_p).value or 0
        shape_at = ctypes.addressof(self.sizes)
        strides_at = 0 if self.steps is None else ctypes.addressof(self.steps)
        # data, device, ndim, dtype, shape, strides, offset: the data begin one value after the pointer
        tensor = struct.pack("=QiiiBBHQQQ", bits.ctypes.data, 1, 0, len(shape), 4, 16, 1, shape_at, strides_at, 2)
        versioned = flags is not None
        head = struct.pack("=IIQQQ", 1, 0, 0, deleter, flags) if versioned else b""
        self.memory = ctypes.create_string_buffer(head + tensor + struct.pack("=QQ", 0, deleter))

    def delete(self, address: int) -> None:
        assert address == ctypes.addressof(self.memory)
        self.deleted += 1

    def __dlpack__(self, *, max_version: Any = None) -> Any:
        new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        self.capsule = new(("PyCapsule_New", ctypes.pythonapi))(ctypes.addressof(self.memory), self.name, None)
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


@pytest.mark.parametrize("flags", [None, 0])
@pytest.mark.parametrize("make", [ug.asarray, ug.from_dlpack])
def test_bfloat16_of_another_library_shares_its_memory(make: Any, flags: int | None) -> None:
    bits = np.arange(13, dtype=np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)
    foreign = Foreign(bits, (3, 2), (4, 2), flags)
    x = make(foreign)
    assert x.dtype is ug.bfloat16
    assert x.tolist() == [[1.0, 3.0], [5.0, 7.0], [9.0, 11.0]]
    assert np.shares_memory(x.storage, bits)
    x[2, 1] = 0.5
    assert bits.view(ml_dtypes.bfloat16)[11] == 0.5
    assert repr(foreign.capsule).startswith('<capsule object "used_dltensor')
    row = x[1]
    del x
    gc.collect()
    assert foreign.deleted == 0
    assert row.tolist() == [5.0, 7.0]
    del row
    assert foreign.deleted == 1


def test_bfloat16_of_another_library_row_by_row_empty_and_read_only() -> None:
    bits = np.ones(7, np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)
    assert ug.asarray(Foreign(bits, (2, 3), None, None)).shape == (2, 3)
    assert ug.asarray(Foreign(bits, (), None, 0)).item() == 1.0
    assert ug.asarray(Foreign(bits, (0, 3), (3, 1), 0)).tolist() == []
    read_only = Foreign(bits, (6,), None, 1)
    copied = ug.from_dlpack(read_only)
    copied[0] = 2.0
    assert bits[1] == bits[0]
    assert read_only.deleted == 1


def test_sharing_with_numpy_and_read_only_memory() -> None:
    array = np.zeros(3, np.float32)
    x = ug.asarray(array)
    x[0] = 1
    assert array[0] == 1
    assert np.shares_memory(np.asarray(x), array)
    assert not np.shares_memory(ug.asarray(array, copy=True).storage, array)
    array.flags.writeable = False
    frozen = ug.asarray(array)
    with pytest.raises(ArgumentError, match=r"read-only.*copy\(x\)"):
        frozen[0] = 2
    with pytest.raises(ArgumentError, match="read-only"):
        ug.broadcast_to(ug.zeros(1), (3,))[0] = 1
    with pytest.raises(ArgumentError, match="read-only"):
        ug.broadcast_to(ug.zeros(1), (3,))[1:][0] = 1
    b = ug.ones(3, dtype=ug.bfloat16)
    assert b.numpy().dtype == ml_dtypes.bfloat16
    assert ug.asarray(b.numpy()).dtype is ug.bfloat16


def test_repr() -> None:
    x = ug.asarray([[1.0, 2.5]], requires_grad=True)
    assert repr(x) == "tensor([[1. , 2.5]], float32, requires_grad=True)"
    assert repr(x * 2) == "tensor([[2., 5.]], float32, gradient=multiply)"
    assert repr(ug.zeros((2, 0), dtype=ug.int8)) == "tensor([], shape=(2, 0), int8)"
    assert repr(ug.asarray(1.5, dtype=ug.bfloat16)) == "tensor(1.5, bfloat16)"
    assert "..." in repr(ug.zeros(1000))
    assert len(repr(ug.zeros((100, 100)))) < 800
    assert f"{ug.asarray(1.23456):.2f}" == "1.23"
    assert str(ug.bool) == "bool"
