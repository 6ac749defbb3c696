"""Conversions by every road and instruction set, bit for bit as the formats define them: all midpoints of small formats and
their neighbours, every code back, random words at their places, blocks' edge cases by name, and what has to raise."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.errors import FormatError
from ulpgrad.formats import Block, BlockArray, Counts, Fixed, Float, Format, Q, as_format, float32, float64
from ulpgrad.formats.rounding import ROUNDINGS
from ulpgrad.kernels import native, registry, threads
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.cast.compiled import compiled
from ulpgrad.kernels.cast.convert import numpy_converter
from ulpgrad.kernels.quantize import spec
from ulpgrad.kernels.quantize.counts import counted, native_grid
from ulpgrad.kernels.quantize.grid import carry_from, grid, options, refusal

ISAS = () if native.missing() else tuple(native.module().cpu_isas())
ROADS = ("numba", *ISAS)
SMALL = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e4m3", "float8_e3m4",
         "float8_e4m3b11fnuz", "float6_e3m2fn", "float6_e2m3fn", "float4_e2m1fn", "e5m0fn", "e4m3none", "binary8p3se",
         "binary8p4sf", "binary8p4ue", "q3.4", "q0.7", "uq4.4", "q-2.6", "q9.-2"]  # fmt: skip
LARGE = ["bfloat16", "float16", "e6m9", "e9m4", "e10m3", "e4m11", "e4m3b140fn", "e8m10", "float32", "q7.8", "uq8.8",
         "q15.16", "uq0.32", "q-4.10", "q20.-10"]  # fmt: skip
BLOCKS = [
    "mxfp8_e4m3",
    "mxfp8_e5m2_even",
    "mxfp6_e3m2_rceil",
    "mxfp6_e2m3",
    "mxfp4_e2m1_even",
    "mxint8",
    "mxint8_rceil",
]
SOURCES = (np.float32, np.float64)
DRAWN = {"key": 5, "counter": 2**64 - 3, "random_bits": 9}  # the counter's lower half overflows


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Most arrays here are small, and there are many of them; threads have a test of their own."""
    before = threads.get_num_threads()
    threads.set_num_threads(1)
    yield
    threads.set_num_threads(before)


def stored(road: str, x: np.ndarray, form: Any, rounding: str, overflow: str | None = None, subnormals: bool = True,
           values: bool = False, **drawn: Any) -> np.ndarray:  # fmt: skip
    """Codes, or values on the grid, by one road."""
    drawn = drawn or DRAWN
    if road == "numba":
        name = "fake_quantize" if values else "quantize"
        with dispatch.use(**{name: "cpu/numba-bits"}):
            given = {"dtype": form, "rounding": rounding, "overflow": overflow, "subnormals": subnormals, **drawn}
            out, _ = dispatch.call(registry.find(name), (as_format(x.dtype),), (x,), given)
            return out
    mode, stream = options(rounding, drawn["counter"], drawn["key"], drawn["random_bits"])
    size = 0 if values else form.itemsize
    if isinstance(form, Float):
        known = native_grid(form, rounding, overflow, subnormals)
        out = native.module().quantize_float(x, known, mode, size, stream, road)
    else:
        wraps = overflow == "wrap"
        out, wild = native.module().quantize_fixed(
            x, form.fraction_bits, form.bits, form.signed, wraps, mode, size, stream, road
        )
        assert not wild
    return out if values else out.view(form.storage)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where bits differ, NaN apart."""
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    if a.dtype.kind != "f":
        return a != b
    return (a.view(f"u{a.itemsize}") != b.view(f"u{b.itemsize}")) & ~(np.isnan(a) & np.isnan(b))


@cache
def cases(form: Any, source: type) -> np.ndarray:
    """All values of a format (a sample above 12 bits), the midpoints of neighbours, what lies just beside those, and values
    at the edges of the source."""
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        if form.bits <= 12:
            values = np.unique(form.values())
        elif form.bits <= 16:
            values = np.sort(rng.choice(np.unique(form.values()), 800))
        else:
            codes = rng.integers(0, 2**form.bits, 800).astype(f"u{form.itemsize}")
            values = np.unique(form.exact(codes.view(form.storage)))
        values = values[np.isfinite(values)].astype(source)
        near = form.exact(form.encode(values.astype(np.float64) * (1 + 2.0**-9)))
        top = form.max + float(form.spacing(np.array(form.max))) / 2
        middle = np.concatenate(
            [(values[1:] + values[:-1]) / 2, (near + values) / 2, [top, -top, 1.5 * top, -4 * top]]
        ).astype(source)
        beside = np.nextafter(middle, source(np.inf)), np.nextafter(middle, source(-np.inf))
        edges = np.array(
            [0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 1e-40, 1e-300, -5e-324, 3e38, -1.7e308, np.nan, -np.nan]
        ).astype(source)
        spread = (rng.standard_normal(500) * form.max / 3).astype(source), rng.standard_normal(500).astype(source)
        return np.concatenate([values, middle, *beside, edges, *spread])


def choices(form: Format) -> Iterator[tuple[str, str | None, bool]]:
    for rounding in ROUNDINGS:
        for overflow in ("saturate", "wrap") if isinstance(form, Fixed) else ("ieee", "saturate"):
            yield rounding, overflow, True
        if isinstance(form, Float):
            yield rounding, "ieee", False


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_every_road_rounds_as_the_format_does(name: str) -> None:
    form: Any = as_format(name)
    for source in SOURCES:
        x = cases(form, source)
        if isinstance(form, Fixed) or form.nan_code is None:
            x = x[~np.isnan(x)]
        for rounding, overflow, subnormals in choices(form):
            given = x[np.isfinite(x)] if overflow == "wrap" else x
            assert refusal(form, overflow) is None
            drawn = DRAWN | {"rounding": rounding, "overflow": overflow, "subnormals": subnormals}
            codes = spec.encoded(given, dtype=form, **drawn)
            values = form.exact(codes).astype(source)
            for road in ROADS:
                got = stored(road, given, form, rounding, overflow, subnormals)
                wrong = difference(got, codes)
                assert not wrong.any(), (road, source, rounding, overflow, given[wrong][:3], got[wrong][:3])
                grown = stored(road, given, form, rounding, overflow, subnormals, values=True)
                wrong = difference(grown + 0, values + 0) if isinstance(form, Fixed) else difference(grown, values)
                assert not wrong.any(), (road, source, rounding, overflow, given[wrong][:3], grown[wrong][:3])


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", SMALL[:10])
def test_ml_dtypes_agrees(name: str) -> None:
    """From float32, to nearest even, and every code back; the same through `convert`, which plain conversions take."""
    form, oracle = as_format(name), np.dtype(getattr(ml_dtypes, name))
    x = cases(form, np.float32)
    if form.nan_code is None:  # type: ignore[attr-defined]
        x = x[~np.isnan(x)]
    expected = x.astype(oracle).astype(np.float32)
    for road in ROADS:
        assert not difference(form.decode(stored(road, x, form, "nearest_even")), expected).any(), road
    assert not difference(form.decode(convert(x, float32, form)), expected).any()
    codes = np.arange(2**form.bits, dtype=np.uint8)
    back = codes.view(oracle).astype(np.float32)
    assert not difference(convert(codes, form, float32), back).any()
    assert not difference(convert(codes, form, float64), back.astype(np.float64)).any()
    with np.errstate(all="ignore"):
        assert not difference(convert(codes, form, as_format("bfloat16")).view(ml_dtypes.bfloat16).astype(np.float32),
                              back.astype(ml_dtypes.bfloat16).astype(np.float32)).any()  # fmt: skip


@pytest.mark.parametrize("road", ROADS)
def test_float64_rounds_once(road: str) -> None:
    """1 + eps/2 + 2^-40 lies above the midpoint; through float32 it would become the midpoint, and then 1."""
    for name in ("float8_e4m3fn", "float8_e5m2", "e6m9", "q3.4"):
        form: Any = as_format(name)
        step = float(form.spacing(np.array(1.0)))
        x = np.array([1 + step / 2 + 2.0**-40, 1 + step / 2 - 2.0**-40, -(1 + step / 2 + 2.0**-40)])
        assert form.exact(stored(road, x, form, "nearest_even")).tolist() == [1 + step, 1, -(1 + step)]


@np.errstate(all="ignore")
def test_codes_of_16_bits_are_looked_up() -> None:
    for name in ("e6m9", "e4m11", "e9m4", "binary16p11se", "e3m5"):
        form: Any = as_format(name)
        codes = np.arange(2**form.bits, dtype=np.uint16)
        for target in (float32, float64):
            expected = form.exact(codes).astype(target.storage)
            assert not difference(convert(codes, form, target), expected).any()
    for name in ("q3.4", "uq8.8", "q15.8", "q15.16", "q-4.10"):
        form = as_format(name)
        rng = np.random.default_rng(0)
        codes = rng.integers(form.min_code, form.max_code + 1, 500).astype(form.storage)
        for target in (float32, float64):
            assert not difference(convert(codes, form, target), form.exact(codes).astype(target.storage)).any()


def test_layouts_are_kept() -> None:
    x = np.random.default_rng(0).standard_normal((60, 70)).astype(np.float32)
    for name in ("float8_e4m3fn", "float4_e2m1fn", "e6m9"):
        form = as_format(name)
        plain = convert(x, float32, form)
        assert (plain == numpy_converter(float32, form)(x)).all()
        for view in (x.T, x[::-1, ::3], np.broadcast_to(x[:1], x.shape)):
            assert (convert(view, float32, form) == numpy_converter(float32, form)(np.ascontiguousarray(view))).all()
        for shape in ((), (0,), (3, 0)):
            assert convert(np.zeros(shape, np.float32), float32, form).shape == shape
        if ISAS:
            assert convert(x.T, float32, form).flags.f_contiguous
            assert convert(plain.T, form, float32).flags.f_contiguous


@pytest.mark.parametrize("name", ["float8_e4m3fn", "bfloat16", "q7.8"])
def test_random_words_stand_at_their_places(name: str) -> None:
    """Element i takes word i whatever the road, the size, the chunk or the number of threads: so a part of an array, with
    the stream moved on, gives a part of the result."""
    form = as_format(name)
    x = np.random.default_rng(0).standard_normal(70001).astype(np.float32)
    drawn = {"key": 11, "counter": 7, "random_bits": 24}
    whole = spec.encoded(x, dtype=form, rounding="stochastic", overflow=None, subnormals=True, **drawn)
    assert len(np.unique(whole == stored(ROADS[0], x, form, "toward_zero"))) == 2
    for road in ROADS:
        assert (stored(road, x, form, "stochastic", **drawn) == whole).all(), road
        for size in (1, 3, 2047, 2049, 32771):
            assert (stored(road, x[:size], form, "stochastic", **drawn) == whole[:size]).all(), (road, size)
        for first in (4, 2052, 40000):
            moved = drawn | {"counter": 7 + first // 4}
            assert (stored(road, x[first:], form, "stochastic", **moved) == whole[first:]).all(), (road, first)


def test_threads_change_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((50, 4001)).astype(np.float32)
    results = []
    for count in (1, 2, 3):
        threads.set_num_threads(count)
        runs = []
        for road in ROADS:
            runs += [stored(road, x, as_format(n), r) for n in ("float8_e5m2fnuz", "q7.8") for r in ROUNDINGS]
            runs += [run for name in BLOCKS for run in blocks_by(road, x, as_format(name), "stochastic")]
        results.append([run.tobytes() for run in runs])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("bits", [1, 3, 32])
def test_stochastic_rounding_is_a_threshold_on_its_word(bits: int) -> None:
    """A fraction rounded to `bits` digits goes up for exactly that share of all words (by Fractions)."""
    form = Q(7, 0)
    x = np.repeat(np.array([0.25, 0.5, 1 / 3, 0.999, 2.0**-30]), 64)
    drawn = {"key": 3, "counter": 0, "random_bits": bits}
    words = spec.random_words("stochastic", 3, 0, bits, x.shape)
    assert words is not None
    want = []
    for value, word in zip(x.tolist(), words.words.tolist(), strict=True):
        scaled = Fraction(value) * 2**bits
        digits = round(scaled)  # ties to even
        want.append(int(digits + (word >> (32 - bits)) >= 2**bits))
    for road in ROADS:
        assert stored(road, x, form, "stochastic", **drawn).tolist() == want, road


def whole_number(value: float, n: int, rounding: str) -> int:
    """value * 2^n as an integer, by Fractions."""
    size = abs(Fraction(value) * Fraction(2) ** n)
    low = size.numerator // size.denominator
    rest, negative = size - low, value < 0
    half = Fraction(1, 2)
    up = {
        "nearest_even": rest > half or (rest == half and low % 2 == 1),
        "nearest_away": rest >= half,
        "toward_zero": False,
        "up": rest > 0 and not negative,
        "down": rest > 0 and negative,
        "to_odd": rest > 0 and low % 2 == 0,
    }[rounding]
    return -(low + up) if negative else low + up


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", ["q7.8", "uq3.5", "q0.15", "q10.-3", "q15.16"])
def test_fixed_point_is_integer_arithmetic(name: str) -> None:
    form: Any = as_format(name)
    rng = np.random.default_rng(1)
    x = np.concatenate(
        [rng.standard_normal(150) * form.max, (rng.integers(-999, 999, 150) + 0.5) * form.scale, [1e30, -3e9, 0.0]]
    )
    for source in SOURCES:
        given = x.astype(source)
        for rounding in ROUNDINGS[:-1]:
            whole = [whole_number(v, form.fraction_bits, rounding) for v in given.tolist()]
            clamped = [min(max(w, form.min_code), form.max_code) for w in whole]
            wrapped = [(w - form.min_code) % 2**form.bits + form.min_code for w in whole]
            for road in ROADS:
                assert stored(road, given, form, rounding).tolist() == clamped, (road, rounding)
                assert stored(road, given, form, rounding, "wrap").tolist() == wrapped, (road, rounding)


def blocks_by(road: str, x: np.ndarray, form: Any, rounding: str, subnormals: bool = True) -> list[np.ndarray]:
    """Codes and scales of blocks on the last axis, by one road."""
    if road == "numba":
        with dispatch.use(block_quantize="cpu/numba-blocks"):
            given = {
                "dtype": form,
                "axis": -1,
                "rounding": rounding,
                "overflow": None,
                "subnormals": subnormals,
                **DRAWN,
            }
            (codes, scales), _ = dispatch.call(spec.block_quantize, (as_format(x.dtype),), (x,), given)
            return [codes, scales]
    element = form.element
    is_float = isinstance(element, Float)
    known = (
        native_grid(element, "nearest_even", "saturate", subnormals)
        if is_float
        else (element.fraction_bits, element.bits)
    )
    mode, stream = options(rounding, DRAWN["counter"], DRAWN["key"], DRAWN["random_bits"])
    codes, scales = native.module().quantize_blocks(
        x.reshape(-1, x.shape[-1]), known, form.max_exponent, carry_from(form), form.size, mode, stream, road
    )
    return [codes.view(element.storage).reshape(x.shape), scales.reshape(*x.shape[:-1], -1)]


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("road", ISAS)
def test_blocks_do_not_depend_on_their_neighbours(name: str, road: str) -> None:
    """Blocks whose scales are found together give what each gives alone, whatever stands beside it."""
    form: Any = as_format(name)
    rng = np.random.default_rng(4)
    x = (rng.normal(size=(70, form.size)) * np.exp2(rng.integers(-126, 127, (70, 1)))).astype(np.float32)
    x[3], x[20, 1], x[37, :2], x[61] = 0.0, np.nan, np.inf, 2.0**-140
    codes, scales = blocks_by(road, x, form, "nearest_even")
    together_codes, together_scales = blocks_by(road, x.reshape(1, -1), form, "nearest_even")
    np.testing.assert_array_equal(together_codes.reshape(codes.shape), codes)
    np.testing.assert_array_equal(together_scales.reshape(scales.shape), scales)


BLOCK_EDGES = {
    "amax = 2^100 (1 - 2^-24)": 2.0**100 * (1 - 2.0**-24),
    "NaN": np.nan,
    "infinity": np.inf,
    "minus infinity": -np.inf,
    "zero": 0.0,
    "the largest float32": 3.4028234663852886e38,
    "the smallest subnormal float32": 2.0**-149,
    "a subnormal that rceil moves to scale 2^-126": 2.0**-127 * 1.9999,
    "the smallest normal float32": 2.0**-126,
    "an exponent below that of the largest element": 2.0**-120,
    "448 times a scale": 448 * 2.0**5,
    "just past 448 times a scale": np.nextafter(np.float32(448 * 2.0**5), np.float32(np.inf)),
    "a carry under even": 1.9375 * 2.0**5,
    "no carry under even": np.nextafter(np.float32(1.9375 * 2.0**5), np.float32(0)),
}


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("edge", BLOCK_EDGES)
def test_edges_of_blocks(name: str, edge: str) -> None:
    form: Any = as_format(name)
    amax = float(BLOCK_EDGES[edge])
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 75)) * (amax if np.isfinite(amax) else 1.0)
    x[0, 5], x[1, 40], x[2, 74] = amax, -amax, amax
    for source in SOURCES:
        given = x.astype(source)
        for rounding in ROUNDINGS:
            want = form.encode(given, rounding, random=spec.random_words(rounding, *DRAWN.values(), given.shape))
            for road in ROADS:
                codes, scales = blocks_by(road, given, form, rounding)
                assert (scales == want.scales).all(), (road, rounding, scales, want.scales)
                assert (codes == want.codes).all(), (road, rounding, source)
        if np.isnan(amax) or np.isinf(amax):
            assert scales[0, 0] == scales[1, 1] == scales[2, 2] == 0xFF
        if amax == 0:
            assert not scales.any()
            assert not form.element.exact(codes).any()


@np.errstate(all="ignore")
@pytest.mark.parametrize(
    "form", [Block(as_format("float8_e5m2"), 16, "even"), Block(Q(0, 4), 8), Block(as_format("e3m4"), 7)]
)
def test_blocks_of_other_sizes(form: Any) -> None:
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((4, 50)) * 2.0 ** rng.integers(-140, 120, (4, 50))).astype(np.float32)
    for rounding in ROUNDINGS:
        for subnormals in (True, False):
            want = form.encode(x, rounding, None, subnormals, spec.random_words(rounding, *DRAWN.values(), x.shape))
            for road in ROADS:
                codes, scales = blocks_by(road, x, form, rounding, subnormals)
                assert (codes == want.codes).all(), (road, rounding)
                assert (scales == want.scales).all(), (road, rounding)


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", BLOCKS)
def test_every_code_and_scale_of_blocks(name: str) -> None:
    form: Any = as_format(name)
    codes = np.tile(np.arange(2**form.bits, dtype=np.uint8), (256, 1)).view(form.element.storage)
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, None], -(-codes.shape[1] // 32), axis=1)
    kinds, want = (as_format(codes.dtype), as_format(scales.dtype)), form.decode(BlockArray(codes, scales, 1, 32))
    for rung in registry.ladder(spec.block_dequantize):
        if rung.unavailable() is None:
            with dispatch.use(block_dequantize=rung.name):
                values, _ = dispatch.call(spec.block_dequantize, kinds, (codes, scales), {"dtype": form, "axis": -1})
            assert not difference(values, want).any(), rung.name


@np.errstate(all="ignore")
@pytest.mark.skipif(not ISAS, reason="the C++ extension is not built")
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float4_e2m1fn", "bfloat16", "e9m4"])
def test_counts(name: str) -> None:
    form: Any = as_format(name)
    for source in SOURCES:
        x = cases(form, source)
        if form.nan_code is None:
            x = x[~np.isnan(x)]
        for rounding in ROUNDINGS:
            for subnormals in (True, False):
                want = Counts()
                random = spec.random_words(rounding, *DRAWN.values(), x.shape)
                form.encode(x.astype(np.float64), rounding, None, subnormals, random, want)
                assert counted(x, form, rounding=rounding, subnormals=subnormals, **DRAWN) == want, (
                    rounding,
                    subnormals,
                )


@pytest.mark.parametrize("rung", ["numpy-codes", "numba-bits", "native-bits"])
@pytest.mark.parametrize("name", ["quantize", "fake_quantize"])
def test_what_has_no_code_raises(name: str, rung: str) -> None:
    op = registry.find(name)
    if rung == "native-bits" and not ISAS:
        pytest.skip("the C++ extension is not built")

    def run(form: str, value: float, rung: str = rung, **given: Any) -> None:
        x = np.full(300, 1.0, np.float32)
        x[217] = value
        with dispatch.use(**{name: f"cpu/{rung}"}):
            dispatch.call(op, (float32,), (x,), spec.OPTIONS | {"dtype": as_format(form)} | given)

    for form in ("float4_e2m1fn", "e4m3none", "q7.8", "uq0.32"):
        with pytest.raises(FormatError, match="has no NaN, and one was given"):
            run(form, np.nan)
    with pytest.raises(FormatError, match="an infinity was given"):
        run("q7.8", np.inf, overflow="wrap")
    run("q7.8", np.inf)
    run("q7.8", 1e9, overflow="wrap")
    if rung != "numba-bits":
        for value in (465.0, np.inf, -1e9):
            with pytest.raises(FormatError, match="overflows: it holds -448"):
                run("float8_e4m3fn", value, overflow="raise")
        run("float8_e4m3fn", 464.0, overflow="raise")


@pytest.mark.skipif(not ISAS, reason="the C++ extension is not built")
def test_arguments_are_checked() -> None:
    """Nothing that Python passes may crash the interpreter."""
    module, x = native.module(), np.ones(8, np.float32)
    known = grid(as_format("float8_e4m3fn"))  # type: ignore[arg-type]
    good = module.FloatGrid(**known._asdict())
    for field, value in (("mantissa_bits", 24), ("mantissa_bits", -1), ("min_exponent", -1100), ("min_exponent", 2000),
                         ("max_code", 0), ("kept_from", 9), ("sign", 0x81)):  # fmt: skip
        with pytest.raises((ValueError, TypeError)):
            module.FloatGrid(**known._asdict() | {field: value})
    for bad in (x.astype(np.int32), x[::2], x.astype(np.float16), x.astype(">f4")):
        with pytest.raises((ValueError, TypeError)):
            module.quantize_float(bad, good, 0, 1)
    for rounding, size in ((7, 1), (-1, 1), (0, 3), (6, 1)):  # the last: no random bits
        with pytest.raises(ValueError, match="expected"):
            module.quantize_float(x, good, rounding, size)
    for n, bits, size in ((2000, 16, 2), (8, 33, 4), (8, 0, 1), (8, 16, 1)):
        with pytest.raises(ValueError, match=r"bits|bytes"):
            module.quantize_fixed(x, n, bits, True, False, 0, size)
    rows = np.ones((2, 40), np.float32)
    for given in ((x, good, 8, 0, 32), (rows, good, 8, 0, 0), (rows, (6, 9), 0, 0, 32), (rows, good, 5000, 0, 32)):
        with pytest.raises(ValueError, match="expected"):
            module.quantize_blocks(*given, 0)
    codes, table = np.zeros((2, 40), np.uint8), np.zeros(256, np.float32)
    for scales, values in ((np.zeros((2, 1), np.uint8), table), (np.zeros((2, 2), np.uint8), table[:128])):
        with pytest.raises(ValueError, match="expected shape"):
            module.dequantize_blocks(codes, scales, values, 32, False)
    for values in (np.zeros(100, np.float32), np.zeros((2, 2), np.float32), np.zeros(1, np.float64)):
        with pytest.raises(ValueError, match="expected"):
            module.table_decoder(values, 1)
    assert compiled(float32, as_format("float8_e4m3fn"))(np.ones(3, np.float32)).tolist() == [0x38] * 3  # type: ignore[misc]
    with pytest.raises(TypeError, match="float32"):
        compiled(float32, as_format("float8_e4m3fn"))(np.ones(3))  # type: ignore[misc]
