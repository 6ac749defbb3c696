"""Every float against the libraries that know it: each code, each midpoint and its neighbours, each direction of rounding."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gfloat
import gfloat.formats as known
import ml_dtypes
import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import FORMATS, Float, Random, as_format
from ulpgrad.formats.rounding import ROUNDINGS

SMALL = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e4m3", "float8_e3m4", "float8_e4m3b11fnuz",
         "float6_e3m2fn", "float6_e2m3fn", "float4_e2m1fn"]  # fmt: skip
HALVES = ["bfloat16", "float16"]
P3109 = [info for info in known.p3109_binary8_formats if info.expBits >= 1]
DIRECTED = {
    "nearest_even": gfloat.RoundMode.TiesToEven,
    "nearest_away": gfloat.RoundMode.TiesToAway,
    "toward_zero": gfloat.RoundMode.TowardZero,
    "up": gfloat.RoundMode.TowardPositive,
    "down": gfloat.RoundMode.TowardNegative,
}


def float_named(name: str) -> Float:
    form = as_format(name)
    assert isinstance(form, Float)
    return form


def of_gfloat(info: Any) -> Float:
    """Our format of the same parameters as one of gfloat's P3109 family."""
    sign = "s" if info.is_signed else "u"
    domain = "e" if info.domain == gfloat.Domain.Extended else "f"
    return float_named(f"binary{info.k}p{info.precision}{sign}{domain}")


def all_codes(form: Float) -> np.ndarray:
    return np.arange(2**form.bits).astype(f"u{form.storage.itemsize}").view(form.storage)


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equal in value and sign, or NaN in both."""
    return ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))


def hard_cases(form: Float) -> np.ndarray:
    """float64: every finite value, every midpoint of neighbours, what lies beside each, and what lies beyond the range."""
    values = form.values() if form.bits <= 16 else np.array([])
    values = np.unique(values[np.isfinite(values)])
    middle = (values[1:] + values[:-1]) / 2
    limit = form.max + form.spacing(np.array(form.max)) / 2
    ends = np.array([limit, 2 * form.max, 1e300, form.smallest_subnormal / 2, 1e-300, 0.0])
    x = np.concatenate([values, middle, ends, -ends])
    return np.concatenate([x, np.nextafter(x, np.inf), np.nextafter(x, -np.inf), [np.inf, -np.inf]])


def in_float32(x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        near = x.astype(np.float32)
        return np.concatenate([near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))])


# Against ml_dtypes


@pytest.mark.parametrize("name", [*SMALL, *HALVES, "float8_e8m0fnu"])
@np.errstate(all="ignore")
def test_every_code_is_worth_what_ml_dtypes_says(name: str) -> None:
    form, dtype = float_named(name), np.dtype(getattr(ml_dtypes, name, name))
    codes = all_codes(form)
    theirs = codes.view(dtype).astype(np.float64)
    assert same(form.exact(codes), theirs).all()
    assert form.interchange == dtype
    number = ~np.isnan(theirs)
    assert (form.encode(theirs[number]) == codes[number]).all()


@pytest.mark.parametrize("name", [*SMALL, *HALVES])
@np.errstate(all="ignore")
def test_float32_midpoints_as_ml_dtypes(name: str) -> None:
    form, dtype = float_named(name), np.dtype(getattr(ml_dtypes, name, name))
    x = in_float32(hard_cases(form))
    if form.nan_code is not None:
        x = np.append(x, np.float32(np.nan))
    assert same(form.exact(form.encode(x)), x.astype(dtype).astype(np.float64)).all()


def nearest(form: Float, x: np.ndarray) -> np.ndarray:
    """Codes by search among all values: the oracle for float64, where ml_dtypes rounds twice."""
    count = form.max_code + 1
    points = form.exact(np.arange(count).astype(f"u{form.storage.itemsize}").view(form.storage))
    points = np.append(points, form.max + form.spacing(np.array(form.max)))  # where the next value would be
    size = np.minimum(np.abs(x), points[-1])
    above = np.clip(np.searchsorted(points, size), 1, count)
    below, middle = above - 1, (points[above - 1] + points[above]) / 2
    even = np.where(below % 2 == 0, below, above)
    found = np.where(size < middle, below, np.where(size > middle, above, even))
    beyond = (
        form.inf_code if form.inf_code is not None else form.nan_code if form.nan_code is not None else form.max_code
    )
    found = np.where(found == count, beyond, found)
    bare = ((found == 0) | (found == form.nan_code)) & (not form.has_negative_zero)
    return np.asarray(found + np.where(np.signbit(x) & ~bare, 1 << (form.bits - 1), 0)).astype(
        f"u{form.storage.itemsize}"
    )


@pytest.mark.parametrize("name", [*SMALL, *HALVES, "e6m9", "e2m4none", "e5m6fn"])
def test_float64_rounds_once(name: str) -> None:
    form = float_named(name)
    x = hard_cases(form)
    assert (form.encode(x).view(f"u{form.storage.itemsize}") == nearest(form, x)).all()


@pytest.mark.parametrize("name", [*SMALL, "bfloat16", "float16", "e6m9"])
def test_the_double_rounding_case_by_name(name: str) -> None:
    """1 + eps/2 + 2^-40 lies above the midpoint; through float32 it would become the midpoint, and then 1."""
    form = float_named(name)
    x = ug.asarray([1 + form.eps / 2 + 2.0**-40], dtype=ug.float64)
    assert x.to(form).to(ug.float64).tolist() == [1 + form.eps]


def test_float8_e8m0fnu_is_a_scale() -> None:
    """Powers of two, NaN for what has no logarithm. One digit is always odd, so ties go up (IEEE 754-2019, 4.3.1). Below
    2^-127 everything is 2^-127; there ml_dtypes takes the next power for values just above it."""
    form = float_named("float8_e8m0fnu")
    x = np.array(
        [1, 1.25, 1.5, 3, 6, 2.0**-127, 2.0**-140, 2.0**127, 2.0**127 * 1.49, 2.0**127 * 1.5, 0, -1, np.inf, np.nan]
    )
    wanted = [127, 127, 128, 129, 130, 0, 0, 254, 254, 255, 255, 255, 255, 255]
    assert form.encode(x).tolist() == wanted
    usual = np.ldexp(np.linspace(1, 2, 1000, endpoint=False), np.arange(1000) % 250 - 124).astype(np.float32)
    assert (form.encode(usual) == usual.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)).all()


# Against gfloat: directions, and the P3109 family


GFLOATS = {
    "float8_e4m3fn": known.format_info_ocp_e4m3,
    "float8_e5m2": known.format_info_ocp_e5m2,
    "float6_e3m2fn": known.format_info_ocp_e3m2,
    "float6_e2m3fn": known.format_info_ocp_e2m3,
    "float4_e2m1fn": known.format_info_ocp_e2m1,
    "bfloat16": known.format_info_bfloat16,
    "float16": known.format_info_binary16,
}


@pytest.mark.parametrize("info", P3109, ids=lambda info: info.name)
def test_every_code_of_the_p3109_family(info: Any) -> None:
    form = of_gfloat(info)
    theirs = np.array([gfloat.decode_float(info, code).fval for code in range(256)])
    assert same(form.exact(np.arange(256, dtype=np.uint8)), theirs).all()
    assert (form.max, form.bias) == (info.max, info.bias)


@pytest.mark.parametrize("mode", DIRECTED)
@pytest.mark.parametrize("info", [*GFLOATS.values(), *P3109[::3]], ids=lambda info: info.name)
@pytest.mark.parametrize("overflow", ["ieee", "saturate"])
def test_directions_as_gfloat(info: Any, mode: str, overflow: str) -> None:
    form = next((float_named(n) for n, i in GFLOATS.items() if i is info), None) or of_gfloat(info)
    x = hard_cases(form)
    x = x[np.isfinite(x)] if form.inf_code is None and form.nan_code is None else x
    x = x if form.signed else np.abs(x)
    if (
        mode == "nearest_away"
    ):  # gfloat adds a half in float64, which rounds: the last float64 below a midpoint goes wrong
        x = in_float32(x).astype(np.float64)
        x = x[np.isfinite(x) | (form.nan_code is not None)]
        x = x if form.signed else np.abs(x)
    if x.size > 2000:
        x = np.random.default_rng(0).choice(x, 2000, replace=False)
    clamps = overflow == "saturate" or form.nan_code is None
    theirs = np.array([gfloat.round_float(info, float(v), DIRECTED[mode], clamps) for v in x])
    ours = form.exact(form.encode(x, mode, overflow))
    wrong = ~same(ours, theirs)
    assert not wrong.any(), list(zip(x[wrong], ours[wrong], theirs[wrong], strict=True))[:5]


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float6_e3m2fn"])
@pytest.mark.parametrize("bits", [1, 3, 8, 16, 24])
def test_stochastic_as_gfloat(name: str, bits: int) -> None:
    """gfloat's `Stochastic`, the unbiased one, given the same random bits."""
    form, info, rng = float_named(name), GFLOATS[name], np.random.default_rng(bits)
    x = np.concatenate([rng.standard_normal(300), hard_cases(form)[:: max(1, hard_cases(form).size // 300)]])
    x = x[np.isfinite(x) & (np.abs(x) < form.max)]
    drawn = rng.integers(0, 2**bits, x.size)
    theirs = [
        gfloat.round_float(info, float(v), gfloat.RoundMode.Stochastic, True, srbits=int(r), srnumbits=bits)
        for v, r in zip(x, drawn, strict=True)
    ]
    words = Random((drawn << (32 - bits)).astype(np.uint32), bits)
    assert same(form.exact(form.encode(x, "stochastic", "saturate", random=words)), np.array(theirs)).all()


@pytest.mark.parametrize("name", [*SMALL, "bfloat16", "e6m9", "binary8p1se"])
def test_to_odd(name: str) -> None:
    """Exact values stay; of two neighbours the one with the odd code is taken; beyond the range, the largest value."""
    form = float_named(name)
    x = hard_cases(form)
    x = x[np.isfinite(x) & (np.abs(x) < form.max)]
    bits = form.encode(x, "to_odd").view(f"u{form.storage.itemsize}").astype(np.int64)
    low = form.exact(form.encode(x, "toward_zero"))
    assert ((bits & 1 == 1) | (low == x))[low != 0].all()
    assert (form.exact(form.encode(x, "to_odd"))[low == x] == x[low == x]).all()
    assert form.exact(form.encode(np.array([2 * form.max]), "to_odd"))[0] == form.max


# Overflow, subnormals, NaN


@pytest.mark.parametrize(
    ("name", "overflow", "given", "wanted"),
    [("float8_e4m3fn", "ieee", [464, 464.01, np.inf, -500], [448, np.nan, np.nan, np.nan]),
     ("float8_e4m3fn", "saturate", [464, 464.01, np.inf, -500, -np.inf], [448, 448, 448, -448, -448]),
     ("float8_e5m2", "ieee", [61439, 61440, np.inf, -1e9], [57344, np.inf, np.inf, -np.inf]),
     ("float8_e5m2", "saturate", [61440, np.inf, -1e9], [57344, 57344, -57344]),
     ("float8_e4m3fnuz", "saturate", [1e9, -1e9, np.inf], [240, -240, np.nan]),
     ("float8_e5m2fnuz", "ieee", [1e9, np.inf], [np.nan, np.nan]),
     ("float6_e3m2fn", "ieee", [1e9, np.inf, -np.inf], [28, 28, -28]),
     ("float4_e2m1fn", "ieee", [1e9, -np.inf, 6.9], [6, -6, 6]),
     ("float16", "ieee", [65519.99, 65520], [65504, np.inf]),
     ("float16", "saturate", [65520, -np.inf], [65504, -65504]),
     ("bfloat16", "saturate", [3.4e38, -np.inf], [3.3895313892515355e38, -3.3895313892515355e38])],
)  # fmt: skip
def test_overflow_is_a_choice(name: str, overflow: str, given: list[float], wanted: list[float]) -> None:
    x = ug.asarray(given, dtype=ug.float64).to(name, overflow=overflow).to(ug.float64).tolist()
    np.testing.assert_array_equal(x, wanted)


def test_only_bfloat16_is_the_upper_half_of_float32() -> None:
    """Formats of the same widths, but other codes at the top or another bias, are rounded as what they are."""
    values = np.array([np.nan, np.inf, -3.4e38, 3.0, 2e-40], np.float32)
    for name in ("e8m7fn", "e8m7fnuz", "e8m7b120"):
        form = float_named(name)
        with np.errstate(all="ignore"):
            found, wanted = form.encode(values), form.encode(values.astype(np.float64))
        np.testing.assert_array_equal(found, wanted, name)


def test_overflow_can_raise() -> None:
    with pytest.raises(FormatError, match=r"float8_e4m3fn: 500\.0 overflows: it holds -448\.0 to 448\.0"):
        ug.asarray([1.0, 500.0]).to("float8_e4m3fn", overflow="raise")


def test_formats_without_nan_refuse_it() -> None:
    with pytest.raises(FormatError, match="float4_e2m1fn has no NaN"):
        ug.asarray([np.nan]).to("float4_e2m1fn")


@pytest.mark.parametrize("name", [*SMALL, "bfloat16"])
def test_flushing_is_explicit(name: str) -> None:
    form = float_named(name)
    normal, small = form.smallest_normal, form.smallest_subnormal
    x = np.array([normal, normal - small, -small, small])
    kept, flushed = form.exact(form.encode(x)), form.exact(form.encode(x, subnormals=False))
    assert (kept == x).all()
    assert flushed[0] == x[0]
    assert (flushed[1:] == 0).all()


def test_report_counts() -> None:
    x = ug.asarray([500.0, -1e9, 1e-9, 2.0**-8, 0.0, np.nan, 1.0], dtype=ug.float64)
    _, counts = x.to("float8_e4m3fn", overflow="saturate", subnormals=False, report=True)
    assert (counts.overflowed, counts.underflowed, counts.flushed, counts.nan, counts.values) == (2, 1, 1, 1, 7)
    _, counts = ug.asarray([200.0, 0.001, 1.0]).to("q7.8", report=True)
    assert (counts.overflowed, counts.underflowed) == (1, 1)


# What a format is


@pytest.mark.parametrize("form", [f for f in FORMATS.values() if isinstance(f, Float)], ids=str)
def test_a_format_knows_itself(form: Float) -> None:
    assert as_format(form.name) is form
    assert pickle.loads(pickle.dumps(form)) is copy.deepcopy(form) is form
    assert form.exact(form.encode(np.array([form.max]))) == [form.max]
    assert form.exact(form.encode(np.array([form.smallest_subnormal]))) == [form.smallest_subnormal]
    assert form.binades == np.log2(form.max) - np.log2(form.smallest_subnormal)
    assert abs(form.decibels - 6.0206 * form.binades) < 0.01
    if form.bits <= 8:
        values = form.values()
        assert values.size == 2**form.bits
        finite = np.unique(values[np.isfinite(values)])
        assert (finite[-1], finite[finite > 0][0]) == (form.max, form.smallest_subnormal)
        steps = np.diff(finite[finite >= form.smallest_normal])
        assert (steps == form.spacing(finite[finite >= form.smallest_normal][:-1])).all()


def test_formats_are_made_once_and_found_by_name() -> None:
    assert Float(5, 10) is ug.float16
    assert Float(4, 3, specials="fn") is ug.float8_e4m3fn is as_format("float8_e4m3fn")
    assert as_format("e6m9") is Float(6, 9) is Float(6, 9, bias=31)
    assert as_format("binary8p3se").bits == 8
    assert as_format(ml_dtypes.float8_e4m3fnuz) is ug.float8_e4m3fnuz
    assert ug.asarray(np.array([1, 2], ml_dtypes.float4_e2m1fn)).dtype is ug.float4_e2m1fn
    assert pickle.loads(pickle.dumps(Float(6, 9, bias=20))) is Float(6, 9, bias=20)
    for name in ("e99m1", "binary8p9se", "q60.9", "float9", "uq0.0"):
        with pytest.raises(FormatError):
            as_format(name)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_infinity_and_zero_stay(rounding: str) -> None:
    x = ug.asarray([0.0, -0.0, np.inf, -np.inf])
    y = x.to("float8_e5m2", rounding=rounding).to(ug.float32).numpy()
    assert same(y.astype(np.float64), np.array([0.0, -0.0, np.inf, -np.inf])).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rounding": "nearest"}, "rounding='nearest': expected one of nearest_even"), ({"overflow": "clip"}, "overflow='clip'"),
     ({"rounding": "stochastic", "random_bits": 40}, "random_bits=40: expected 1 to 32"), ({"axis": 0}, "only block formats"),
     ({"rounding": "stochastic", "generator": 3}, "expected an ulpgrad.Generator")],
)  # fmt: skip
def test_options_that_are_not_there(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ug.ones(3).to("float8_e5m2", **options)


def test_bits_in_and_out() -> None:
    bits = ug.encode([1.0, -2.0, 448.0], "float8_e4m3fn")
    assert (bits.dtype, bits.tolist()) == (ug.uint8, [0x38, 0xC0, 0x7E])
    assert ug.decode(bits, "float8_e4m3fn").tolist() == [1.0, -2.0, 448.0]
    assert ug.decode(ug.asarray([0x38, 0x7E]), "float8_e4m3fn").tolist() == [1.0, 448.0]
    with pytest.raises(FormatError, match="expected 0 to 255"):
        ug.decode(ug.asarray([256]), "float8_e4m3fn")
