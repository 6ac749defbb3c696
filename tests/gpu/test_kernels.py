"""Every rung of a GPU against the reference: every sample, every format that it claims, results that start as garbage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.errors import HostFallbackWarning
from ulpgrad.formats import Format
from ulpgrad.kernels import gpu, registry
from ulpgrad.kernels.registry import Request, Rung
from ulpgrad.kernels.spec import Op, Sample

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_kernels import (
    OPS,
    calls,
    check,
    claimed,
    listed_for_others,
    named,
)  # what the CPU's rungs are held to holds here

RUNGS = [(op, rung) for op in OPS.values() for rung in registry.ladder(op, "cuda")]
LARGEST = 1 << 15  # elements of an operand: an interpreter takes seconds for more
SMALL = 1 << 11
LAYOUTS = ("contiguous", "strided", "transposed")


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory is full of NaN (or large integers): what a kernel does not write is seen."""
    if gpu.mode() != "emulated":
        return
    from ulpgrad.kernels import emulated

    def empty(shape: Any, dtype: Any = float, *_: Any, **__: Any) -> Any:
        made = np.empty(shape, dtype)
        made.view(np.uint8 if made.dtype != bool else bool).fill(0xFE) if made.ndim else made.fill(1)
        return emulated.ndarray(made)

    def empty_like(array: Any, dtype: Any = None, order: str = "K", *_: Any, shape: Any = None, **__: Any) -> Any:
        if shape is not None:
            return empty(shape, dtype or array.dtype)
        made = np.empty_like(array.host, dtype, order)  # type: ignore[call-overload]
        made.fill(np.nan if made.dtype.kind == "f" else 1)
        return emulated.ndarray(made)

    monkeypatch.setattr(emulated, "empty", empty, raising=False)
    monkeypatch.setattr(emulated, "empty_like", empty_like, raising=False)


def on_host(run: Any) -> Any:
    """A run on a GPU as a function of NumPy arrays, so that it can be checked like one of the CPU."""

    def call(*arrays: Any, **params: Any) -> Any:
        given = [None if a is None else laid_out(a) for a in arrays]
        found = run(*given, **params)
        for a, b in zip(arrays, given, strict=True):
            if (
                a is not None
                and a.flags.writeable
                and not np.array_equal(gpu.to_host(b), a, equal_nan=a.dtype.kind == "f")
            ):
                a[...] = gpu.to_host(b)  # what was written in place
        return tuple(map(gpu.to_host, found)) if isinstance(found, tuple) else gpu.to_host(found)

    return call


def laid_out(array: Any) -> Any:
    """The array on the device in the same memory layout, as far as CuPy can have it."""
    xp = gpu.xp()
    if array.ndim and array.size and array.strides[-1] == 2 * array.itemsize and array.flags.writeable:
        wide = xp.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = xp.asarray(np.ascontiguousarray(array))
        return wide[..., ::2]
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return xp.array(np.asarray(array, order=order), order=order)


ALIKE = ("int16", "int32", "int64", "uint8", "uint16", "uint32")


def tried(op: Op, rung: Rung) -> list[Format]:
    """What a rung is tried in: on a GPU all that it claims. Elementwise kernels of integers differ by a pointer's type alone, so
    that without a GPU the narrowest and the widest speak for all."""
    is_brief = gpu.mode() and op.family == "elementwise"
    return [f for f in claimed(op, rung) if not (is_brief and f.name in ALIKE)]


CASES = [pytest.param(op, rung, f, id=f"{op.name}-{rung.name}-{f.name}") for op, rung in RUNGS for f in tried(op, rung)]


@pytest.mark.parametrize(("op", "rung", "form"), CASES)
def test_rung(op: Op, rung: Rung, form: Format) -> None:
    """A rung on every sample that is not too large, and at least one."""
    if rung.unavailable():
        pytest.skip(rung.unavailable())
    # An interpreter takes the larger samples in one format, and every layout of the smaller ones.
    forms = tried(op, rung)
    first = form is next((f for f in forms if f.is_floating), forms[0])
    samples = [s for s in op.samples() if _size(s) <= LARGEST]
    fitting, ran = _run(op, rung, form, [s for s in samples if first or not gpu.mode() or _size(s) <= SMALL], first)
    if not ran:  # a kernel for large operands only
        fitting, ran = _run(op, rung, form, samples, first)
    assert ran > 0 or fitting == 0 or listed_for_others(op, form), (
        f"{rung.name} claims {form.name} but took none of {fitting} samples"
    )


def _size(sample: Sample) -> int:
    return max((np.size(a) for a in sample.arrays if a is not None), default=0)


def _run(op: Op, rung: Rung, form: Format, samples: list[Sample], first: bool) -> tuple[int, int]:
    """How many of the samples fit the format, and how many of these the rung took; each is held against the reference."""
    ran = fitting = 0
    for sample in samples:
        size = _size(sample)
        for call in calls(op, form, LAYOUTS if first and (size <= SMALL or not gpu.mode()) else LAYOUTS[:1], [sample]):
            fitting += 1
            _, _, arrays, formats, params = call
            common = dispatch._promoted(op, formats)
            on_gpu = tuple(None if a is None else laid_out(a) for a in arrays)
            request = Request(op, "cuda", common, on_gpu, params)
            if any(c is not f for c, f in zip(common, formats, strict=True)) or rung.refusal(request):
                continue
            ran += 1
            with named(call, op, rung), dispatch.use(**{op.name: rung.name}), np.errstate(all="ignore"):
                check(
                    op, arrays, formats, params, on_host(dispatch.make_plan(op, "cuda:0", formats, on_gpu, params).run)
                )
    return fitting, ran


@pytest.mark.parametrize("op", [pytest.param(o, id=o.name) for o in OPS.values()])
def test_choice(op: Op) -> None:
    """What dispatch takes by itself on a GPU, the CPU's kernels between two copies where there is no other; in the op's first
    and narrowest formats."""
    forms = list(op.formats)
    for form in dict.fromkeys((forms[0], forms[-1])):
        samples = [s for s in list(op.samples())[:6] if _size(s) <= LARGEST // 8]
        for _, _, arrays, formats, params in calls(op, form, samples=samples):
            with pytest.MonkeyPatch.context() as patch:
                import warnings

                patch.setenv("ULPGRAD_HOST_FALLBACK", "1")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", HostFallbackWarning)
                    check(op, arrays, formats, params,
                          on_host(lambda *a, f=formats, **p: dispatch.call(op, f, a, p)[0]))  # fmt: skip
