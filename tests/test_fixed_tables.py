"""Table-driven functions on fixed-point tensors: their stated errors, and what happens at the edges."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import fixed
from ulpgrad.errors import FormatError
from ulpgrad.fixed import tables
from ulpgrad.formats import Fixed, Q

NAMES = ("exp", "sigmoid", "tanh")
WORDS = [Q(3, 4), Q(7, 8), Q(0, 15), Q(3, 4, False), Q(-2, 9), Q(15, 0)]
WIDE = [Q(15, 16), Q(7, 40), Q(31, 32), Q(5, 26, False), Q(0, 63), Q(30, -4), Q(-3, 30)]


def real(name: str, code: int, form: Fixed) -> Decimal:
    """The function's value to 50 digits."""
    x = Decimal(code) * Decimal(2) ** -form.fraction_bits
    if name == "exp":
        return x.exp()
    e = (-abs(x) * (2 if name == "tanh" else 1)).exp()
    value = (1 - e if name == "tanh" else Decimal(1)) / (1 + e)
    if name == "tanh":
        return -value if x < 0 else value
    return 1 - value if x < 0 else value


def clipped(value: Decimal, form: Fixed) -> Decimal:
    scale = Decimal(2) ** -form.fraction_bits
    return min(max(value, form.min_code * scale), form.max_code * scale)


def within(name: str, x: ug.Tensor, y: ug.Tensor, ulps: Decimal) -> None:
    """Every result within `ulps` of its last place and 2^-48 more of the value, or of the end of the range."""
    source, target = x.dtype, y.dtype
    assert isinstance(source, Fixed)
    assert isinstance(target, Fixed)
    unit = Decimal(2) ** -target.fraction_bits
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 50, 10**9, -(10**9)
        for code, got in zip(x.storage.reshape(-1), y.storage.reshape(-1), strict=True):
            exact = real(name, int(code), source)
            slack = Decimal(2) ** -48 * (exact if name == "exp" else 1)
            low, high = (clipped(exact + s * (ulps * unit + slack), target) for s in (-1, 1))
            assert low <= int(got) * unit <= high, (name, source, target, int(code), int(got))


@pytest.mark.parametrize("form", WORDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_narrow_words_are_within_half_a_unit(name: str, form: Fixed) -> None:
    span = np.arange(form.min_code, form.max_code + 1, max(1, 2**form.bits // 800))
    x = ug.Tensor(span.astype(form.storage), form)
    for target in (form, Q(1, 14), Q(0, 30), Q(20, 20)):
        within(name, x, getattr(fixed, name)(x, result=target), Decimal("0.5"))


@pytest.mark.parametrize("form", WIDE, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_wide_words_are_within_half_a_unit(name: str, form: Fixed) -> None:
    rng = np.random.default_rng(0)
    drawn = [int(v * 2.0**form.fraction_bits) for v in rng.normal(0, 3, 40) if form.min < v < form.max]
    edges = [form.min_code, form.max_code, 0, 1, form.min_code + 1]
    x = ug.Tensor(np.array([*drawn, *edges], dtype=form.storage), form)
    for target in (Q(7, 8), Q(1, 30), Q(20, 40)):
        within(name, x, getattr(fixed, name)(x, result=target), Decimal("0.5"))


@pytest.mark.parametrize("form", [Q(3, 4), Q(7, 8), Q(15, 24), Q(3, 60)], ids=str)
def test_softmax(form: Fixed) -> None:
    rng = np.random.default_rng(0)
    for terms in (1, 3, 10, 1000):
        values = rng.uniform(-4, 4, (2, terms))
        x = ug.asarray(values).to(form)
        for target in (Q(1, 14), Q(0, 31)):
            y = fixed.softmax(x, axis=1, result=target)
            exact = np.exp(x.to(ug.float64).numpy())
            exact /= exact.sum(1, keepdims=True)
            allowed = 0.5 * target.eps + (terms + 2) * 2.0 ** -tables.softmax_bits(target, terms) + 2e-16
            assert np.abs(y.numpy() - np.clip(exact, target.min, target.max)).max() <= allowed
    assert ug.softmax(ug.Tensor(np.zeros((0, 3), np.int16), Q(7, 8))).shape == (0, 3)
    assert ug.softmax(ug.asarray([-100.0, 100.0]).to(Q(7, 8)), axis=0).numpy().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", NAMES)
def test_directed_and_stochastic_roundings(name: str) -> None:
    for form in (Q(3, 4), Q(3, 16)):
        x = ug.asarray(np.linspace(-3, 2, 37)).to(form)
        coarse = Q(5, 3)
        down, up = (getattr(fixed, name)(x, result=coarse, rounding=r).storage for r in ("down", "up"))
        drawn = getattr(fixed, name)(x, result=coarse, rounding="stochastic", generator=ug.Generator(0)).storage
        assert ((down <= drawn) & (drawn <= up)).all()
        assert (up - down <= 1).all()
        assert (drawn > down).any()
        assert (drawn < up).any()
        within(name, x, getattr(fixed, name)(x, result=coarse, rounding="toward_zero"), Decimal(1))


def test_scalars_and_saturation() -> None:
    for form in (Q(7, 8), Q(7, 20)):
        x = ug.asarray(100.0).to(form)
        assert ug.exp(x).item() == form.max
        assert ug.tanh(x).item() == 1.0
        assert ug.sigmoid(-x).item() == 0.0
        with pytest.raises(FormatError, match=r"exp: the result is 2\.68.*e\+43, which does not fit"):
            fixed.exp(x, overflow="raise")
        y = x.detach().requires_grad_()
        fixed.exp(y).backward()
        assert y.grad is not None
        assert y.grad.item() == 0
    for name, why in (("exp", "an exponential"), ("softmax", "an exponential")):
        with pytest.raises(FormatError, match=f"{why} has no full precision"):
            getattr(fixed, name)(ug.asarray([1.0]).to("q7.8"), result="full")


def test_tables_are_kept() -> None:
    x: Any = ug.asarray([1.0]).to("q6.9")
    ug.tanh(x)
    before = tables.table_of.cache_info().hits
    ug.tanh(x)
    assert tables.table_of.cache_info().hits == before + 1
