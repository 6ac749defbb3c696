"""Conversions between formats: every 16-bit code, every midpoint and its neighbours, by every road and instruction set."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from ulpgrad.errors import FormatError
from ulpgrad.formats import (
    Float,
    Format,
    Integer,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
    uint64,
)
from ulpgrad.kernels import native
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.cast.convert import numpy_converter

ISAS = () if native.missing() else tuple(native.module().cpu_isas())
ROADS = ("numpy", *ISAS)
HALVES = (bfloat16, float16)
CODES = np.arange(2**16, dtype=np.uint16)


def road(name: str, source: Format, target: Format) -> Callable[[np.ndarray], np.ndarray]:
    if name == "numpy":
        return numpy_converter(source, target)
    loop: Callable[[np.ndarray], np.ndarray] = native.module().cast(source.name, target.name, name)
    return loop


def stored(form: Format, codes: np.ndarray) -> np.ndarray:
    return codes.view(form.storage)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bits, or NaN in both."""
    nan = np.isnan(a.astype(np.float64)) & np.isnan(b.astype(np.float64))
    bits = f"u{a.itemsize}"
    return a.shape == b.shape and bool((nan | (a.view(bits) == b.view(bits))).all())


def rounding_cases(form: Float) -> np.ndarray:
    """In float64: every finite code, every midpoint of neighbours, and what lies just beside each midpoint."""
    with np.errstate(all="ignore"):
        values = form.exact(stored(form, CODES))
        values = np.sort(values[np.isfinite(values)])
        largest = form.max + form.spacing(np.array(form.max)) / 2  # the overflow threshold
        middle = np.concatenate([(values[1:] + values[:-1]) / 2, [largest, -largest]])
    return np.concatenate([values, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)])


def rounded(form: Float, values: np.ndarray) -> np.ndarray:
    """Nearest even in float64 arithmetic: the oracle where a library would round twice."""
    values = np.asarray(values, np.float64)
    step = form.spacing(values)
    with np.errstate(all="ignore"):
        near = np.where(np.isfinite(values), np.rint(values / step) * step, values)
        return np.where(np.isfinite(values) & (np.abs(near) > form.max), np.copysign(np.inf, values), near)


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", ROADS)
@pytest.mark.parametrize("form", HALVES)
def test_every_code_widens_exactly(form: Float, name: str) -> None:
    oracle = CODES.view(ml_dtypes.bfloat16 if form is bfloat16 else np.float16)
    for wide in (float32, float64):
        assert same(road(name, form, wide)(stored(form, CODES)), oracle.astype(wide.storage))


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", ROADS)
@pytest.mark.parametrize("form", HALVES)
def test_every_code_comes_back(form: Float, name: str) -> None:
    for wide in (float32, float64):
        back = road(name, wide, form)(road(name, form, wide)(stored(form, CODES)))
        assert same(form.decode(back), form.decode(stored(form, CODES)))


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", ROADS)
@pytest.mark.parametrize("form", HALVES)
def test_midpoints_and_neighbours_from_float64(form: Float, name: str) -> None:
    x = rounding_cases(form)
    got = form.exact(road(name, float64, form)(x))
    np.testing.assert_array_equal(got, rounded(form, x))
    assert (np.signbit(got) == np.signbit(x)).all()


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", ROADS)
@pytest.mark.parametrize("form", HALVES)
def test_midpoints_and_neighbours_from_float32(form: Float, name: str) -> None:
    middle = rounding_cases(form).astype(np.float32)
    x = np.concatenate([middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(-np.inf))])
    x = np.concatenate([x, np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)])
    oracle = x.astype(ml_dtypes.bfloat16 if form is bfloat16 else np.float16)
    assert same(
        np.asarray(form.decode(road(name, float32, form)(x))), oracle.astype(np.float32) if form is bfloat16 else oracle
    )


@pytest.mark.parametrize("name", ROADS)
def test_float64_rounds_once(name: str) -> None:
    """1 + eps/2 + 2^-40 lies above the midpoint; through float32 it would become the midpoint, and then 1."""
    for form in HALVES:
        x = np.array([1 + form.eps / 2 + 2.0**-40, 1 + form.eps / 2, -(1 + form.eps / 2 + 2.0**-40)])
        assert form.exact(road(name, float64, form)(x)).tolist() == [1 + form.eps, 1, -(1 + form.eps)]


@pytest.mark.parametrize("name", ROADS)
def test_nan_stays_nan_whatever_its_payload(name: str) -> None:
    payloads = np.concatenate([np.arange(1, 2**23, 4099), [1, 2**13 - 1, 2**16 - 1, 2**22, 2**23 - 1]]).astype(
        np.uint32
    )
    bits = np.concatenate([payloads | np.uint32(0x7F800000), payloads | np.uint32(0xFF800000)])
    with np.errstate(invalid="ignore"):
        for form in HALVES:
            assert np.isnan(form.decode(road(name, float32, form)(bits.view(np.float32)))).all()
            wide = (bits.astype(np.uint64) << np.uint64(29) | np.uint64(0x7FF0000000000001)).view(np.float64)
            assert np.isnan(form.decode(road(name, float64, form)(wide))).all()


def test_layouts_and_threads() -> None:
    x = np.random.default_rng(0).normal(size=(300, 700)).astype(np.float32)
    for form in HALVES:
        plain = convert(x, float32, form)
        assert same(convert(np.asfortranarray(x), float32, form).view(np.int16), plain.view(np.int16))
        assert same(convert(x[::-1, ::3], float32, form).view(np.int16), plain[::-1, ::3].view(np.int16))
        if ISAS:  # NumPy copies to C order on the way to bits
            assert convert(x.T, float32, form).flags.f_contiguous
        for shape in ((), (0,), (3, 0)):
            assert convert(np.zeros(shape, np.float32), float32, form).shape == shape
        if ISAS:
            threads = native.module().get_num_threads()
            try:
                native.module().set_num_threads(1)
                assert convert(x, float32, form).tobytes() == plain.tobytes()
            finally:
                native.module().set_num_threads(threads)


def test_a_new_array_is_returned() -> None:
    for form, x in (
        (float32, np.ones(3, np.float32)),
        (int32, np.ones(3, np.int32)),
        (bfloat16, np.ones(3, np.uint16)),
    ):
        assert not np.shares_memory(convert(x, form, form), x)


@pytest.mark.parametrize("source", [float64, float32, float16, bfloat16])
@pytest.mark.parametrize("target", [int8, uint8, int32, int64, uint64])
def test_floats_truncate_to_integers(source: Float, target: Integer) -> None:
    low = -1.75 if target.signed else -0.75
    x = source.encode(np.array([0.0, -0.0, 2.5, 99.5, low, 1e-3]))
    assert convert(x, source, target).tolist() == [0, 0, 2, 99, int(low), 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 128.0, -129.0, 3e4])
@pytest.mark.parametrize("source", [float64, float32, float16, bfloat16])
def test_what_no_integer_holds_raises(source: Float, bad: float) -> None:
    with pytest.raises(FormatError, match="has no value in int8, which holds -128 to 127"):
        convert(source.encode(np.array([1.0, bad])), source, int8)


def test_limits_of_64_bits() -> None:
    assert convert(np.array([-(2.0**63), 2.0**63 - 1024]), float64, int64).tolist() == [-(2**63), 2**63 - 1024]
    assert convert(np.array([2.0**64 - 2048]), float64, uint64).tolist() == [2**64 - 2048]
    for value, target in ((2.0**63, int64), (2.0**64, uint64), (-1.0, uint64)):
        with pytest.raises(FormatError, match="has no value in"):
            convert(np.array([value]), float64, target)


def test_large_integers_round_once() -> None:
    """2^62 + 2^54 is a midpoint of bfloat16; one more lies above it, though float64 cannot tell."""
    whole = np.array([2**62 + 2**54, 2**62 + 2**54 + 1, -(2**62) - 2**54 - 1, 2**62 + 2**54 - 1, 7, -(2**63)], np.int64)
    up = 2.0**62 + 2.0**55
    assert bfloat16.exact(convert(whole, int64, bfloat16)).tolist() == [2.0**62, up, -up, 2.0**62, 7.0, -(2.0**63)]
    unsigned = np.array([2**63 + 2**55 + 1, 2**63 + 2**55, 2**64 - 1], np.uint64)
    assert bfloat16.exact(convert(unsigned, uint64, bfloat16)).tolist() == [2.0**63 + 2.0**56, 2.0**63, 2.0**64]


def test_integers_wrap_and_bools_are_not_zero() -> None:
    assert convert(np.array([255, 256, -1, 300]), int64, uint8).tolist() == [255, 0, 255, 44]
    assert convert(np.array([0, 3, -1]), int64, bool_).tolist() == [False, True, True]
    assert convert(np.array([0.0, -0.0, np.nan, 1e-9]), float64, bool_).tolist() == [False, False, True, True]
    assert float16.exact(convert(np.array([True, False]), bool_, float16)).tolist() == [1.0, 0.0]
    assert bfloat16.exact(convert(np.array([True, False]), bool_, bfloat16)).tolist() == [1.0, 0.0]
