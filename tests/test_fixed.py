"""Fixed-point arithmetic, one value at a time: every operation, mode and word length against Python's integers."""

from __future__ import annotations

import operator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

import ulpgrad as ug
from ulpgrad import fixed
from ulpgrad.errors import FormatError
from ulpgrad.fixed import oracle
from ulpgrad.formats import ROUNDINGS, Fixed, Q

settings.register_profile("fixed", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fixed")

STEADY = [mode for mode in ROUNDINGS if mode != "stochastic"]


@st.composite
def forms(draw: st.DrawFn, widest: int = 64, signed: bool | None = None) -> Fixed:
    """Any format, the radix point inside the word or a little outside."""
    bits = draw(st.integers(2, widest))
    has_sign = draw(st.booleans()) if signed is None else signed
    n = draw(st.integers(-4, bits + 4))
    return Q(bits - has_sign - n, n, has_sign)


def codes(form: Fixed, size: int = 5) -> st.SearchStrategy[list[int]]:
    edges = [form.min_code, form.min_code + 1, form.max_code, form.max_code - 1, 0, 1]
    return st.lists(st.integers(form.min_code, form.max_code) | st.sampled_from(edges), min_size=size, max_size=size)


def tensor(values: Any, form: Fixed) -> ug.Tensor:
    """The tensor of given codes."""
    return ug.Tensor(np.array(values, dtype=form.storage), form)


def found(x: ug.Tensor) -> list[int]:
    return [int(v) for v in x.storage.reshape(-1)]


@st.composite
def calls(draw: st.DrawFn) -> tuple[Fixed, list[int], Fixed, list[int], dict[str, Any]]:
    """Two operands and a rule."""
    a = draw(forms())
    b = draw(forms() | st.just(a))
    rule = {
        "result": draw(forms()) if a is not b or draw(st.booleans()) else None,
        "rounding": draw(st.sampled_from(STEADY)),
        "overflow": draw(st.sampled_from(["saturate", "wrap"])),
    }
    return a, draw(codes(a)), b, draw(codes(b)), rule


def expected(values: list[Fraction], form: Fixed, rule: dict[str, Any]) -> list[int]:
    return [oracle.code(v, rule.get("result") or form, rule["rounding"], rule["overflow"]) for v in values]


BINARY = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul}


@pytest.mark.parametrize("name", BINARY)
@given(call=calls())
def test_arithmetic(name: str, call: Any) -> None:
    a, x, b, y, rule = call
    got = getattr(fixed, name)(tensor(x, a), tensor(y, b), **rule)
    assert got.dtype is (rule["result"] or a)
    exact = [BINARY[name](oracle.value(v, a), oracle.value(w, b)) for v, w in zip(x, y, strict=True)]
    assert found(got) == expected(exact, a, rule)


@given(call=calls())
def test_divide(call: Any) -> None:
    a, x, b, y, rule = call
    y = [w or 1 for w in y]
    got = fixed.divide(tensor(x, a), tensor(y, b), **rule)
    exact = [oracle.value(v, a) / oracle.value(w, b) for v, w in zip(x, y, strict=True)]
    assert found(got) == expected(exact, a, rule)


@given(call=calls(), by=st.integers(0, 70))
def test_one_operand(call: Any, by: int) -> None:
    a, x, _, _, rule = call
    values = [oracle.value(v, a) for v in x]
    halves = {"floor": "down", "ceil": "up", "trunc": "toward_zero", "round": "nearest_even"}
    cases: dict[str, list[Fraction]] = {
        "negative": [-v for v in values],
        "abs": [abs(v) for v in values],
        "square": [v * v for v in values],
        "relu": [max(v, Fraction(0)) for v in values],
        "sign": [Fraction((v > 0) - (v < 0)) for v in values],
        **{name: [Fraction(oracle.rounded(v, mode)) for v in values] for name, mode in halves.items()},
    }
    for name, exact in cases.items():
        assert found(getattr(fixed, name)(tensor(x, a), **rule)) == expected(exact, a, rule), name
    left, right = (getattr(fixed, f"bitwise_{d}_shift")(tensor(x, a), by, **rule) for d in ("left", "right"))
    assert found(left) == expected([v * 2**by for v in values], a, rule)
    assert found(right) == expected([v / 2**by for v in values], a, rule)


@given(call=calls(), amounts=st.lists(st.integers(0, 20), min_size=5, max_size=5))
def test_shifts_of_different_amounts(call: Any, amounts: list[int]) -> None:
    a, x, _, _, rule = call
    got = fixed.bitwise_right_shift(tensor(x, a), ug.asarray(amounts), **rule)
    assert found(got) == expected([oracle.value(v, a) / 2**k for v, k in zip(x, amounts, strict=True)], a, rule)


@given(call=calls(), bits=st.integers(1, 32), seed=st.integers(0, 2**40))
def test_stochastic_rounding_draws_one_word_per_value(call: Any, bits: int, seed: int) -> None:
    a, x, b, y, rule = call
    rule = {**rule, "rounding": "stochastic"}
    for name, op in {**BINARY, "divide": operator.truediv}.items():
        given_y = [w or 1 for w in y] if name == "divide" else y
        got = getattr(fixed, name)(
            tensor(x, a), tensor(given_y, b), generator=ug.Generator(seed), random_bits=bits, **rule
        )
        words = [int(w) >> (32 - bits) for w in ug.Generator(seed).words(5)]
        exact = [op(oracle.value(v, a), oracle.value(w, b)) for v, w in zip(x, given_y, strict=True)]
        form = rule["result"] or a
        want = [
            oracle.code(v, form, "stochastic", rule["overflow"], (w, bits)) for v, w in zip(exact, words, strict=True)
        ]
        assert found(got) == want, name


@given(call=calls())
def test_comparison_and_choice(call: Any) -> None:
    a, x, b, y, rule = call
    p, q = tensor(x, a), tensor(y, b)
    values = [(oracle.value(v, a), oracle.value(w, b)) for v, w in zip(x, y, strict=True)]
    result = rule["result"] or (Q(20, 20) if a is not b else None)
    for name, op in {
        "equal": operator.eq, "not_equal": operator.ne, "less": operator.lt, "less_equal": operator.le,
        "greater": operator.gt, "greater_equal": operator.ge,
    }.items():  # fmt: skip
        assert getattr(fixed, name)(p, q, result=result).numpy().tolist() == [op(v, w) for v, w in values], name
    try:
        fixed.maximum(p, q, result="full")
    except FormatError:
        return  # no 64 bits hold both
    rule["result"] = result
    assert found(fixed.maximum(p, q, **rule)) == expected([max(v) for v in values], a, rule)
    assert found(fixed.minimum(p, q, **rule)) == expected([min(v) for v in values], a, rule)
    picked = fixed.where(ug.asarray([True, False, True, False, True]), p, q, **rule)
    assert found(picked) == expected([v[i % 2] for i, v in enumerate(values)], a, rule)


@given(form=forms(widest=48), data=st.data())
def test_clip_and_extremes(form: Fixed, data: st.DataObject) -> None:
    x, (low, high) = data.draw(codes(form)), sorted(data.draw(codes(form, 2)))
    t = tensor(x, form)
    assert found(ug.clip(t, tensor(low, form), tensor(high, form))) == [min(max(v, low), high) for v in x]
    assert found(t.max()) == [max(x)]
    assert found(t.min()) == [min(x)]
    assert t.argmax().item() == x.index(max(x))
    assert t.argmin().item() == x.index(min(x))
    assert t.any().item() == any(x)


# Full precision


@given(a=forms(widest=40), b=forms(widest=40), data=st.data())
@example(a=Q(7, 8), b=Q(7, 8), data=None)
def test_full_precision_loses_nothing(a: Fixed, b: Fixed, data: Any) -> None:
    x = [a.min_code, a.max_code, a.min_code, 0, 1] if data is None else data.draw(codes(a))
    y = [b.min_code, b.max_code, b.max_code, 1, 0] if data is None else data.draw(codes(b))
    m, n = max(a.integer_bits, b.integer_bits), max(a.fraction_bits, b.fraction_bits)
    sign = a.signed or b.signed
    both = a.signed and b.signed
    grown = {
        "add": (m + 1, n, sign),
        "subtract": (m + 1, n, True),
        "multiply": (a.integer_bits + b.integer_bits + both, a.fraction_bits + b.fraction_bits, sign),
    }
    for name, (whole, fraction, signed) in grown.items():
        call = getattr(fixed, name)
        if whole + fraction + signed > 64:
            with pytest.raises(FormatError, match="the widest has 64"):
                call(tensor(x, a), tensor(y, b), result="full")
            continue
        got = call(tensor(x, a), tensor(y, b), result="full")
        assert got.dtype is Q(whole, fraction, signed), name
        exact = [BINARY[name](oracle.value(v, a), oracle.value(w, b)) for v, w in zip(x, y, strict=True)]
        assert [oracle.value(v, got.dtype) for v in found(got)] == exact
    opposite = fixed.negative(tensor(x, a), result="full")
    assert opposite.dtype is Q(a.integer_bits + a.signed, a.fraction_bits)
    assert [oracle.value(v, opposite.dtype) for v in found(opposite)] == [-oracle.value(v, a) for v in x]
    size = fixed.abs(tensor(x, a), result="full")
    assert size.dtype is (Q(a.integer_bits + 1, a.fraction_bits) if a.signed else a)
    assert [oracle.value(v, size.dtype) for v in found(size)] == [abs(oracle.value(v, a)) for v in x]


@given(form=forms(), by=st.integers(0, 100), data=st.data())
def test_full_shifts_move_the_point(form: Fixed, by: int, data: st.DataObject) -> None:
    x = tensor(data.draw(codes(form)), form)
    left = fixed.bitwise_left_shift(x, by, result="full")
    assert found(left) == found(x)
    assert left.dtype is Q(form.integer_bits + by, form.fraction_bits - by, form.signed)
    assert fixed.bitwise_right_shift(left, by, result="full").dtype is form


# The default, and numbers


def test_operators_keep_the_format() -> None:
    a, b = (ug.asarray(v).to("q7.8") for v in ([1.5, -2.25, 100.0], [0.5, 3.0, 2.0]))
    for got, want in [
        (a + b, [2.0, 0.75, 102.0]), (a - b, [1.0, -5.25, 98.0]), (a * b, [0.75, -6.75, 127.99609375]),
        (a / b, [3.0, -0.75, 50.0]), (-a, [-1.5, 2.25, -100.0]), (abs(a), [1.5, 2.25, 100.0]),
        (a << 1, [3.0, -4.5, 127.99609375]), (a >> 9, [0.00390625, -0.00390625, 0.1953125]),
        (2 * a, [3.0, -4.5, 127.99609375]), (a + 0.25, [1.75, -2.0, 100.25]), (1 - b, [0.5, -2.0, -1.0]),
    ]:  # fmt: skip
        assert got.dtype is Q(7, 8)
        assert got.numpy().tolist() == want
    assert (a > 1.25).numpy().tolist() == [True, False, True]
    assert (a == ug.asarray([1.5, 0.0, 0.0]).to("q7.8")).numpy().tolist() == [True, False, False]
    assert ug.isfinite(a).numpy().all()
    assert not ug.isnan(a).numpy().any()


def test_numbers_take_the_format_or_are_refused() -> None:
    a = ug.asarray([1.0]).to("q3.4")
    assert (a + 0.3).numpy().tolist() == [1.3125]  # 0.3 is 0.3125 here
    with pytest.raises(FormatError, match=r"8.* q3\.4|q3\.4.*8"):
        a + 8
    with pytest.raises(FormatError, match="NaN"):
        a + float("nan")


def test_scalars_columns_and_layouts() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-(2**15), 2**15, shape).astype(np.int16) for shape in ((6, 40, 8), (40, 1)))
    form = Q(7, 8)
    for a, b in [(x[::2, ::-1, 1::3], y), (x.T, y[0]), (x[0], y), (x[0, 0, 0], x)]:
        got = ug.Tensor(np.asarray(a), form) * ug.Tensor(np.asarray(b), form)
        exact = np.asarray(a).astype(np.int64) * b
        want = np.clip((exact + 127 + ((exact >> 8) & 1)) >> 8, -(2**15), 2**15 - 1)
        np.testing.assert_array_equal(got.storage, want)
    empty = ug.Tensor(np.zeros((0, 3), np.int16), form)
    assert (empty + empty).shape == (0, 3)
    assert (ug.Tensor(np.array(5, np.int16), form) * 2).numpy().item() == 10 / 256


@given(form=forms(), target=forms(), data=st.data())
def test_conversion_between_formats_stays_in_integers(form: Fixed, target: Fixed, data: st.DataObject) -> None:
    x = data.draw(codes(form))
    for rounding in STEADY:
        for overflow in ("saturate", "wrap"):
            got = tensor(x, form).to(target, rounding=rounding, overflow=overflow)
            want = [oracle.code(oracle.value(v, form), target, rounding, overflow) for v in x]
            assert (found(got) if target is not form else want) == want


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("form", [Q(3, 4), Q(7, 0), Q(0, 6), Q(4, 4, False)], ids=str)
def test_every_pair_of_8_bit_codes(form: Fixed, overflow: str) -> None:
    span = np.arange(form.min_code, form.max_code + 1)
    x, y = ug.Tensor(span.astype(form.storage)[:, None], form), ug.Tensor(span.astype(form.storage), form)
    wide = np.broadcast_to(x.storage, (span.size, span.size)).copy()
    low, size, n = form.min_code, span.size, form.fraction_bits
    for name, exact in {
        "add": span[:, None] + span,
        "subtract": span[:, None] - span,
        "multiply": np.rint(span[:, None] * span / 2.0**n).astype(np.int64),  # halves to even
    }.items():
        want = np.clip(exact, low, form.max_code) if overflow == "saturate" else (exact - low) % size + low
        call = getattr(fixed, name)
        np.testing.assert_array_equal(call(x, y, overflow=overflow).storage, want)
        whole = call(ug.Tensor(wide, form), ug.Tensor(np.ascontiguousarray(wide.T), form), overflow=overflow)
        np.testing.assert_array_equal(whole.storage, want)
        one = call(ug.Tensor(wide[:, 0].copy(), form), y[3], overflow=overflow)
        np.testing.assert_array_equal(one.storage, want[:, 3])


def test_16_bit_sums_at_the_ends() -> None:
    edges = np.array([-(2**15), -(2**15) + 1, -1, 0, 1, 2**15 - 2, 2**15 - 1])
    a = np.concatenate([np.repeat(edges, 7), np.random.default_rng(0).integers(-(2**15), 2**15, 1000)])
    b = np.concatenate([np.tile(edges, 7), np.random.default_rng(1).integers(-(2**15), 2**15, 1000)])
    x, y = (ug.Tensor(v.astype(np.int16), Q(7, 8)) for v in (a, b))
    np.testing.assert_array_equal((x + y).storage, np.clip(a + b, -(2**15), 2**15 - 1))
    np.testing.assert_array_equal((x - y).storage, np.clip(a - b, -(2**15), 2**15 - 1))
