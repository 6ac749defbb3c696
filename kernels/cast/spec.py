"""cast: the same values in another format. Floats round once, to nearest even, whatever they come from; overflow gives
infinity and NaN stays NaN. Floats become integers toward zero, and integers wrap, as in NumPy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ulpgrad.errors import FormatError
from ulpgrad.formats import ALL, FLOATS, Array, Format, Integer, bool_
from ulpgrad.kernels.spec import Op, Sample


def _reference(x: Array, dtype: Format) -> Array:
    if dtype is bool_:
        return x != 0
    if not (isinstance(dtype, Integer) and x.dtype.kind == "f"):
        return x
    if not ((np.trunc(x) >= float(dtype.min)) & (np.trunc(x) < float(dtype.max + 1))).all():
        raise FormatError(
            f"cast: NaN, an infinity or a value outside {dtype.min} to {dtype.max} given for {dtype.name}"
        )
    return np.trunc(x)


def _check(x: Array, *, dtype: Format) -> None:
    if not isinstance(dtype, Format):
        raise FormatError(f"cast: dtype={dtype!r}: expected a format, as as_format(...) gives it")


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 1e-46, 6e-8, 65504, 65519.99, 65520, 3.39e38, 1e300, 1 + 2**-8 + 2**-40,
               1 + 2**-11 + 2**-40, -1.5]  # fmt: skip
    for dtype in FLOATS:
        yield Sample((np.array(special),), {"dtype": dtype}, f"special values to {dtype}")
        yield Sample((rng.integers(-100, 100, (5, 7)),), {"dtype": dtype}, f"integers to {dtype}")
    for form in ALL:
        for shape in ((67,), (3, 5), (), (0,), (1,), (2, 0, 3)):
            values = rng.uniform(0 if form.name.startswith("uint") else -12, 12, shape)
            yield Sample((np.asarray(values),), {"dtype": form}, f"{shape} to {form}")
    for dtype in FLOATS:
        yield Sample(
            (np.array([-(2**62) - 1, 2**53 + 1, 255, -129, 0]),), {"dtype": dtype}, f"large integers to {dtype}"
        )


cast = Op(
    "cast",
    "(x: [...], *, dtype: Format) -> [...]",
    _reference,
    check=_check,
    result=lambda *_, dtype: dtype,
    samples=_samples,
    ulps=dict.fromkeys(FLOATS, 0.5),
    key=lambda x, *, dtype: dtype,
)
