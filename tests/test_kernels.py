"""Every rung of every op, in every format it claims and every layout, against the reference: stamped out from the registry."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.errors import FormatError, KernelError
from ulpgrad.formats import ALL, Float, Format, Integer, as_format
from ulpgrad.kernels import registry
from ulpgrad.kernels.registry import Request, Rung
from ulpgrad.kernels.spec import Op, Sample
from ulpgrad.testing import ulp_error

OPS = registry.ops()
LAYOUTS = ("contiguous", "strided", "reversed", "transposed", "broadcast")


def takes_part(op: Op, position: int, array: np.ndarray) -> bool:
    """Whether an operand of a sample is given in the format under test (indices, masks and targets are not)."""
    if op.promote is True:
        return True
    return array.dtype.kind == "f" if op.promote is False else position in op.promote


def cast_sample(values: np.ndarray, form: Format) -> np.ndarray | None:
    """Sample values in a format, or None where they do not fit it."""
    if isinstance(form, Float):
        wide = values.astype(np.float64)
        if form.inf_code is None and (np.abs(wide) > form.max).any():
            return None  # infinity and what is beyond the range would become NaN, which is another sample
        return form.encode(wide)
    if isinstance(form, Integer):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return None
        return (
            np.clip(np.rint(values), form.min, form.max).astype(form.storage)
            if values.dtype.kind == "f"
            else values.astype(form.storage)
        )
    return values > 0 if values.dtype.kind == "f" else values.astype(np.bool_)


def lay_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same values (broadcast: the first slice repeated) in another memory layout."""
    if array.ndim == 0 or array.size == 0:
        return array
    if layout == "strided":
        wide = np.zeros((*array.shape[:-1], array.shape[-1] * 2), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if layout == "reversed":
        return np.flip(np.ascontiguousarray(np.flip(array)))
    if layout == "transposed":
        return np.asfortranarray(array)
    if layout == "broadcast":
        return np.broadcast_to(array[:1], array.shape)
    return np.ascontiguousarray(array)


def operands(
    op: Op, sample: Sample, form: Format, layout: str
) -> tuple[tuple[Any, ...], tuple[Format | None, ...]] | None:
    arrays: list[Any] = []
    formats: list[Format | None] = []
    for i, a in enumerate(sample.arrays):
        if a is None:
            arrays.append(None)
            formats.append(None)
            continue
        a = np.asarray(a)
        target = form if takes_part(op, i, a) else as_format(a.dtype)
        stored = cast_sample(a, target)
        if stored is None:
            return None
        stored = np.asarray(stored)
        mutable = i in op.mutates
        arrays.append(
            lay_out(stored, "contiguous" if mutable else layout).copy() if mutable else lay_out(stored, layout)
        )
        formats.append(target)
    return tuple(arrays), tuple(formats)


def meant(op: Op, arrays: tuple[Any, ...], formats: Any, params: dict[str, Any], form: Format) -> bool:
    """Whether the op takes this format in this place: `formats` of an op with indices, masks or codes lists theirs as well, and
    its check or result rule then refuses them elsewhere."""
    if op.promote is True or isinstance(form, Float):
        return True
    try:
        if op.check is not None:
            op.check(*arrays, **params)
        op.result_formats(dispatch._promoted(op, formats), params)
    except FormatError:
        return False
    return form in formats  # where samples are of integers alone, they have formats of their own


class Call(NamedTuple):
    """A sample as stored operands, their formats, and parameters."""

    sample: Sample
    layout: str
    arrays: tuple[Any, ...]
    formats: tuple[Format | None, ...]
    params: dict[str, Any]

    @property
    def name(self) -> Any:
        return self.sample.name or self.params


@contextlib.contextmanager
def named(call: Call, op: Op, rung: Rung | None = None) -> Iterator[None]:
    """An assertion that fails says of which call."""
    try:
        yield
    except AssertionError as error:
        by = f" by {rung.name}" if rung else ""
        raise AssertionError(f"{op.name}{by}, sample {call.name}, {call.layout}: {error}") from None


@functools.lru_cache(maxsize=1)
def samples_of(op: Op) -> tuple[Sample, ...]:
    """The samples of an op, made once while one op is tested."""
    return tuple(op.samples())


def calls(
    op: Op, form: Format, layouts: Sequence[str] = LAYOUTS[:1], samples: Iterable[Sample] | None = None
) -> Iterator[Call]:
    """The samples of an op that fit a format, where it takes it, in these layouts."""
    for sample in samples_of(op) if samples is None else samples:
        for layout in layouts:
            given, params = operands(op, sample, form, layout), dict(sample.params)
            if given is not None and meant(op, *given, params, form):
                yield Call(sample, layout, *given, params)


def listed_for_others(op: Op, form: Format) -> bool:
    """Whether a rung may claim this format for indices and masks alone, and take no values of it."""
    return op.promote is False and not isinstance(form, Float)


class Referee:
    """What the reference says, once for the same exact operands: rungs share it, and layouts and formats in which the values
    are the same. Of one op at a time."""

    def __init__(self) -> None:
        self.op: Op | None = None
        self.known: dict[Any, tuple[Any, Any, list[Any]]] = {}

    def __call__(self, op: Op, exact: list[np.ndarray | None], params: dict[str, Any]) -> tuple[Any, Any]:
        """The reference's results, and the magnitudes that errors are measured against; neither can be written to."""
        if self.op is not op:
            self.op, self.known = op, {}
        contents = [None if e is None else (e.dtype.str, e.shape, hashlib.blake2b(e.tobytes()).digest()) for e in exact]
        key = (*contents, *((name, id(value)) for name, value in params.items()))  # values are held, so ids stay theirs
        if key not in self.known:
            with np.errstate(all="ignore"):
                expected = op.reference(*[None if e is None else e.copy() for e in exact], **params)
                magnitude = None if op.magnitude is None else op.magnitude(*exact, **params)
            self.known[key] = (_read_only(expected), _read_only(magnitude), list(params.values()))
        return self.known[key][:2]


def _read_only(results: Any) -> Any:
    if isinstance(results, tuple):
        return tuple(map(_read_only, results))
    if results is not None:
        results = np.asarray(results).view()
        results.flags.writeable = False
    return results


referee = Referee()


def check(
    op: Op, arrays: tuple[Any, ...], formats: tuple[Format | None, ...], params: dict[str, Any], run: Any
) -> None:
    """Run, and compare each result with the reference within the op's allowance."""
    before = [None if a is None else a.copy() for a in arrays]
    exact = [a if a is None or f is None else f.exact(a.copy()) for a, f in zip(arrays, formats, strict=True)]
    common = dispatch._promoted(op, formats)
    outs = op.result_formats(common, params)
    expected, magnitude = referee(op, exact, params)
    got = run(*arrays, **params)
    single = len(outs) == 1
    gots, wants = ((got,), (expected,)) if single else (got, expected)
    sizes = (magnitude,) if single else (magnitude if isinstance(magnitude, tuple) else (magnitude,) * len(outs))
    for i, (g, w, form, size) in enumerate(zip(gots, wants, outs, sizes, strict=True)):
        g, w = np.asarray(g), np.asarray(w)
        assert g.shape == w.shape, f"result {i} has shape {g.shape}, reference {w.shape}"
        assert g.dtype == form.storage, f"result {i} is stored as {g.dtype}, expected {form.storage}"
        if form.kind in ("integer", "bool"):
            w = w.astype(form.storage)
        error = ulp_error(g, w, form, None if size is None or not isinstance(form, Float) else np.asarray(size))
        allowed = op.allowed_ulps(form) if isinstance(form, Float) else 0
        if error.size and not error.max() <= allowed:
            at = np.unravel_index(np.nanargmax(np.where(np.isnan(error), np.inf, error)), error.shape)
            found, wanted = form.exact(g)[at], w[at]
            raise AssertionError(
                f"result {i} at {tuple(map(int, at))}: {found!r}, reference {wanted!r}: {error[at]:.3g} ULP of {form}, "
                f"allowed {allowed}"
            )
    for i, (b, a) in enumerate(zip(before, arrays, strict=True)):
        if b is not None and i not in op.mutates:
            assert b.tobytes() == a.tobytes(), f"operand {i} was changed"


def claimed(op: Op, rung: Rung) -> Iterator[Format]:
    return (f for f in ALL if f in rung.formats and f in op.formats)


# Format by format: the rungs of one share what the reference says.
CASES = [
    pytest.param(op, rung, f, id=f"{op.name}-{rung.name}-{f.name}")
    for op in OPS.values()
    for f in ALL
    for rung in registry.ladder(op)
    if f in op.formats and f in rung.formats
]


@pytest.mark.parametrize(("op", "rung", "form"), CASES)
def test_rung(op: Op, rung: Rung, form: Format) -> None:
    """A rung on every sample and layout. It must take at least one of them (where the machine can run it at all)."""
    if rung.unavailable():
        pytest.skip(rung.unavailable())
    ran = fitting = 0
    for call in calls(op, form, LAYOUTS):
        fitting += 1
        _, _, arrays, formats, params = call
        common = dispatch._promoted(op, formats)
        request = Request(op, "cpu", common, arrays, params)
        if any(c is not f for c, f in zip(common, formats, strict=True)) or rung.refusal(request):
            continue
        ran += 1
        with named(call, op, rung), dispatch.use(**{op.name: rung.name}), np.errstate(all="ignore"):
            check(op, arrays, formats, params, dispatch.make_plan(op, "cpu", formats, arrays, params).run)
    assert ran > 0 or fitting == 0 or listed_for_others(op, form), (
        f"{rung.name} claims {form.name} but took none of {fitting} samples"
    )


@pytest.mark.parametrize(
    ("op", "form"), [pytest.param(o, f, id=f"{o.name}-{f.name}") for o in OPS.values() for f in o.formats]
)
def test_choice(op: Op, form: Format) -> None:
    """The rung that dispatch takes by itself, widening included, in every format of the op."""
    for call in calls(op, form):
        _, _, arrays, formats, params = call
        with named(call, op):
            check(op, arrays, formats, params, lambda *a, f=formats, **p: dispatch.call(op, f, a, p)[0])


def test_every_op_has_samples_and_a_document() -> None:
    for op in OPS.values():
        assert list(op.samples()), f"{op.name} has no samples"
        assert op.signature, f"{op.name} has no signature"
        for rung in registry.ladder(op):
            assert len(rung.idea) > 10, f"{op.name} {rung.name} does not say its idea"


def test_unknown_rung_is_named() -> None:
    with pytest.raises(KernelError, match=r"expected one of .*cpu/reference"), dispatch.use(add="cpu/nonsense"):
        pass
