"""The emulated GPU: its arrays keep CuPy's rules, and Triton's interpreter gets narrow floats as stand-ins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ulpgrad.errors import DeviceError
from ulpgrad.formats import bfloat16, float8_e4m3fn
from ulpgrad.kernels import capabilities, gpu

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

from ulpgrad.kernels.triton_launch import descriptor, launch, tl, triton, typed


@triton.jit
def doubled(x, out, n, stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i * stride, i < n).to(tl.float32) * 2
    tl.store(out + i * stride, v.to(out.dtype.element_ty), i < n)


@triton.jit
def block_doubled(x, out, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    t = tl.program_id(0) * BLOCK
    out.store([t, 0], x.load([t, 0]) * 2)


@pytest.mark.parametrize("form", [bfloat16, float8_e4m3fn])
@pytest.mark.parametrize("step", [1, 2, -1, -2])
def test_narrow_floats_round_once(form: Any, step: int) -> None:
    """Codes that are read as the values they stand for, and written back rounded; what lies between strides stays as it was."""
    xp = gpu.xp()
    values = np.linspace(-3.3, 7.7, 40)
    codes = form.encode(values)
    x = xp.asarray(codes)[::step]
    out = xp.asarray(np.full(40, form.encode(np.array(1.0)), codes.dtype))[::step]
    launch(doubled, (3,), typed(x, form), typed(out, form), x.size, step, BLOCK=16)
    expected = form.encode(2 * form.decode(codes))
    assert np.array_equal(gpu.to_host(out), expected[::step])


def test_descriptor_of_narrow_floats() -> None:
    xp = gpu.xp()
    codes = bfloat16.encode(np.arange(32 * 16, dtype=np.float64).reshape(32, 16))
    x, out = xp.asarray(codes), xp.zeros((32, 16), np.uint16)
    launch(block_doubled, (2,), descriptor(x, bfloat16, (16, 16)), descriptor(out, bfloat16, (16, 16)), BLOCK=16)
    assert np.array_equal(gpu.to_host(out), bfloat16.encode(2 * bfloat16.decode(codes)))


def test_a_grid_without_programs_does_nothing() -> None:
    empty = gpu.xp().zeros(0, np.float32)
    launch(doubled, (0,), empty, empty, 0, 1, BLOCK=16)


def test_memory_of_two_places_is_refused() -> None:
    xp = gpu.xp()
    with pytest.raises((DeviceError, TypeError)):
        launch(doubled, (1,), np.zeros(3, np.float32), xp.zeros(3, np.float32), 3, 1, BLOCK=16)


@pytest.mark.skipif(gpu.mode() != "emulated", reason="of the emulated arrays")
class TestEmulation:
    def test_nothing_crosses_by_itself(self) -> None:
        xp = gpu.xp()
        x = xp.arange(3)
        with pytest.raises(TypeError, match="Implicit conversion"):
            np.asarray(x)
        for mix in (lambda: x + np.arange(3), lambda: xp.where(x > 1, x, np.arange(3)), lambda: x[np.array([0])]):
            with pytest.raises(TypeError, match="Unsupported type"):
                mix()
        assert isinstance(np.exp(x), xp.ndarray)
        assert isinstance(np.concatenate([x, x]), xp.ndarray)
        assert isinstance(x.sum(), xp.ndarray), "what has no axes is an array too"
        assert x.get().tolist() == [0, 1, 2]

    def test_an_array_works_on_its_own_device(self) -> None:
        xp = gpu.xp()
        with xp.cuda.Device(1):
            x = xp.arange(3)
        assert x.device.id == 1
        with pytest.raises(ValueError, match="same as the current device"):
            x + 1
        with xp.cuda.Device(1):
            assert (x + 1).device.id == 1

    def test_writes_in_place_are_seen_through_views(self) -> None:
        xp = gpu.xp()
        x = xp.zeros((2, 3))
        y = x.T
        y += 1
        x[0, 1] = 5
        assert gpu.to_host(y).tolist() == [[1, 1], [5, 1], [1, 1]]
