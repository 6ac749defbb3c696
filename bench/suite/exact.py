"""How far a result is from float64: its norm, its worst digit, the whole distribution, and what left the format."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from ulpgrad.bench.suite.record import Error, Range
from ulpgrad.formats import Array, Fixed, Float, Format, compute_format

FINEST = 0.125  # units in the last place: the first step of the histogram above zero
ROUNDINGS, SUMS = (
    8,
    64,
)  # roundings of the result and of the sums, in their formats' eps, that a right result may be off by
DIGITS = 2  # units in the last place that each value may be off by, where most values are lost below the last place
MOST = 0.5  # of the result's norm; zeros are off by 1


def error(got: Array, expected: Array, whole: Array | None, form: Format, magnitude: Array | None = None) -> Error:
    """Of values `got` in a format, against the exact result, and against that of the operands before they were stored.

    `magnitude`: of what was added up, where sums may cancel (see `Op.magnitude`): units are those of its last place.
    """
    ulps = units(got, expected, form, magnitude)
    worst = float(ulps.max()) if ulps.size else 0.0
    lost = None if whole is None else relative(got, whole)
    return Error(relative(got, expected), lost, worst if math.isfinite(worst) else None, histogram(ulps))


def relative(got: Array, expected: Array) -> float | None:
    """Norm of the difference over the norm of what is expected; None where one is not finite and the other is something else."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    special = ~(np.isfinite(got) & np.isfinite(expected))
    if special.any():
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        if not same[special].all():
            return None
        got, expected = got[~special], expected[~special]
    size = float(np.linalg.norm(expected)) or 1.0
    found = float(np.linalg.norm(got - expected)) / size
    return found if math.isfinite(found) else None


def units(got: Array, expected: Array, form: Format, magnitude: Array | None = None) -> Array:
    """Differences in units in the last place of the format where the exact result lies; infinity where one is not finite and
    the other is something else. Of integers: differences."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    with np.errstate(all="ignore"):
        if isinstance(form, Float):
            rounded = np.asarray(form.exact(form.encode(expected)), np.float64)
            size = np.abs(rounded) if magnitude is None else np.fmax(np.abs(rounded), np.abs(magnitude))
            spacing = form.spacing(np.where(np.isfinite(size), size, form.max))
        else:
            rounded, spacing = expected, np.asarray(form.scale if isinstance(form, Fixed) else 1.0)
        found = np.abs(got - expected) / spacing
        special = ~(np.isfinite(got) & np.isfinite(rounded))
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.asarray(np.where(special, np.where(same, 0.0, np.inf), found))


def histogram(ulps: Array) -> tuple[tuple[float, float, int], ...]:
    """(low, high, count) for 0, then steps that double, up to the largest finite difference."""
    most = float(np.max(ulps, where=np.isfinite(ulps), initial=0.0))
    edges = [0.0, FINEST]
    while edges[-1] < most:
        edges.append(2 * edges[-1])
    below = [int(np.count_nonzero(ulps <= edge)) for edge in edges]
    counts = [below[0], *(high - low for low, high in itertools.pairwise(below))]
    return tuple(zip([0.0, *edges[:-1]], [0.0, *edges[1:]], counts, strict=True))


def left(got: Array, exact: Array, form: Format) -> Range:
    """Shares of values that are beyond the format at the top, or zero where the exact result is not."""
    got, exact = np.asarray(got, np.float64), np.asarray(exact, np.float64)
    finite = np.isfinite(exact)
    count = max(1, int(finite.sum()))
    most = getattr(form, "max", np.inf)
    beyond = finite & (~np.isfinite(got) | (np.abs(exact) > most))
    drowned = finite & (got == 0) & (exact != 0)
    return Range(float(beyond.sum()) / count, float(drowned.sum()) / count)


def wrong(got: Any, expected: Any, form: Format) -> str | None:
    """Why a result is not right, or None. Rounding is allowed to floats, nothing to integers; what leaves the format is as
    the format's own rounding makes it."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        return f"gives shape {got.shape} instead of {expected.shape}"
    if form.kind in ("integer", "bool"):
        count = int(np.count_nonzero(got != expected.astype(form.storage)))
        return f"{count} of {expected.size} values are not what they should be" if count else None
    within = allowed(form)
    off = relative(got, expected)
    if off is None or off > within:
        rounded = form.decode(form.encode(np.asarray(expected, np.float64)))
        again = relative(got, rounded)
        off = again if again is not None else off
        if off is not None and off > within and units(got, rounded, form).max() <= DIGITS:
            return None
    if off is None:
        return "not finite where the exact result is, or the other way round"
    return f"off by {off:.2g} of the result's norm; {within:.2g} is allowed" if off > within else None


def allowed(form: Format) -> float:
    """The largest error of a right result, relative to its norm."""
    if not isinstance(form, Float):
        return MOST
    eps, sums = (2.0**-f.mantissa_bits for f in (form, compute_format(form)) if isinstance(f, Float))
    return min(MOST, ROUNDINGS * eps + SUMS * sums)


__all__ = ["allowed", "error", "histogram", "left", "relative", "units", "wrong"]
