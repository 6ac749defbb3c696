"""Conversion into any number system, and what its gradient is taken to be.

Rounding is flat almost everywhere, so its true gradient is zero. An estimator stands in for it: the straight-through one
(Bengio et al. 2013) hands the gradient on, the clipped one stops it where the value was out of range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import CPU, Device, beside, device_of, moved_to
from ulpgrad.differentiable import Primitive, through_host
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import (
    Affine,
    Array,
    Block,
    BlockArray,
    Counts,
    Fixed,
    Format,
    Random,
    as_format,
    float32,
    float64,
    int64,
    uint64,
)
from ulpgrad.formats.rounding import RANDOM_BITS, check, round_to_odd
from ulpgrad.function import Context, Function
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.copy import copied
from ulpgrad.kernels.fixed import spec as fixed_spec
from ulpgrad.kernels.quantize import spec
from ulpgrad.kernels.quantize.counts import counted
from ulpgrad.kernels.random.spec import random_bits as random_words
from ulpgrad.ops.common import as_tensor
from ulpgrad.ops.creation import values_of
from ulpgrad.tensor import Tensor

__all__ = ["decode", "encode", "fake_quantize", "quantize"]

Estimator = Callable[[Tensor, Tensor, Format], Tensor]


def straight_through(g: Tensor, x: Tensor, format: Format) -> Tensor:
    """The gradient as it comes."""
    return g


def clipped(g: Tensor, x: Tensor, format: Format) -> Tensor:
    """The gradient where x lies in the format's range, zero where it is outside (and so was saturated)."""
    from ulpgrad import ops

    if isinstance(format, Affine):
        low, high = (
            Tensor(
                np.asarray(format.along((code - format.zero_point) * format.scale, x.ndim, x.shape), np.float32),
                float32,
            ).to(x.device)
            for code in (format.min_code, format.max_code)
        )
        inside = ops.logical_and(x >= low, x <= high)
    else:
        low_, high_ = float(format.min), float(format.max)  # type: ignore[attr-defined]
        inside = ops.logical_and(x >= low_, x <= high_)
    return ops.where(inside, g, 0.0)


ESTIMATORS: dict[str, Estimator] = {"straight_through": straight_through, "clipped": clipped}


def estimator_of(given: Any, form: Format, overflow: str | None) -> Estimator:
    """The estimator asked for by name or function. By default clipped where values saturate: fixed point, affine formats and
    whatever `overflow="saturate"`; straight through otherwise."""
    if given is None:
        saturates = form.kind in ("fixed", "affine") or (overflow == "saturate" and form.kind == "float")
        return clipped if saturates and overflow != "wrap" else straight_through
    if callable(given):
        chosen: Estimator = given
        return chosen
    if given not in ESTIMATORS:
        raise ArgumentError(
            f"estimator={given!r}: expected one of {', '.join(ESTIMATORS)}, or a function (g, x, format) -> g"
        )
    return ESTIMATORS[given]


class _Conversion(Function):
    """A change of format with an estimated gradient."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, run: Callable[[Tensor], Tensor], form: Format, estimator: Estimator) -> Tensor:
        ctx.save_for_backward(x)
        ctx.form, ctx.estimator = form, estimator  # type: ignore[attr-defined]
        return run(x)

    @staticmethod
    def backward(ctx: Context, *gradients: Tensor) -> Any:
        (x,), (g,) = ctx.saved_tensors, gradients
        if ctx.estimator is straight_through:  # type: ignore[attr-defined]
            return g, None, None, None
        plain = to_format(x.detach(), float32) if x.dtype.routed else x.detach()
        return ctx.estimator(g, plain, ctx.form), None, None, None  # type: ignore[attr-defined]


def quantize(
    x: Any,
    format: Any,
    /,
    *,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    subnormals: bool = True,
    generator: Any = None,
    random_bits: int = RANDOM_BITS,
    axis: int | None = None,
    report: bool = False,
    estimator: str | Estimator | None = None,
) -> Any:
    """`x` in another format, each value rounded once; what `Tensor.to` calls.

    - `rounding`: "nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd" or "stochastic".
    - `overflow`: floats "ieee" (default), "saturate", "raise"; fixed point "saturate" (default), "wrap", "raise"; affine
      "saturate", "raise"; elements of blocks are always clamped.
    - `subnormals=False` flushes subnormal results to zero.
    - stochastic rounding draws from `generator` (default: the global one); element i takes word i of what is reserved, so
      the bits hang on the generator's state alone. `random_bits`, 1 to 32, is how finely the fraction is resolved.
    - `axis`: which axis blocks lie on (default: the last). A last block that is not full is scaled by what it holds.
    - `estimator`: the gradient: "straight_through", "clipped" (zero outside the format's range), or a function
      (g, x, format) -> g. Default: clipped where values saturate, else straight through.
    - `report=True` gives (tensor, Counts): how many values overflowed, underflowed to zero, were flushed or NaN.

    FormatError for NaN into a format without it; ArgumentError for an option that is not there.
    """
    form, source = as_format(format), as_tensor(x)
    check(rounding, random_bits)
    if axis is not None and form.kind != "block":
        raise ArgumentError(f"axis={axis!r}: only block formats have one, not {form.name}")
    if form.kind in ("integer", "bool"):
        form.plain(rounding, overflow, subnormals)
    counts = Counts() if report else None
    key, counter = _reserved(rounding, source.size, generator)
    drawn = {"rounding": rounding, "overflow": overflow, "subnormals": subnormals, "key": key, "counter": counter,
             "random_bits": random_bits}  # fmt: skip

    def run(t: Tensor) -> Tensor:
        if t.device.type != "cpu" and counts is not None:
            out: Tensor = through_host("quantize", [t], convert_it)
            return out
        with beside(t.storage):
            return convert_it(t)

    def convert_it(t: Tensor) -> Tensor:
        return _converted(t, form, drawn, -1 if axis is None else axis, counts)

    if source.requires_grad and form.differentiable:
        out: Tensor = _Conversion.apply(source, run, form, estimator_of(estimator, form, overflow))
    else:
        out = run(source)
    return (out, counts) if report else out


def to_format(x: Tensor, form: Format) -> Tensor:
    """Plain conversion from or to a number system of its own kind, rounded to nearest even; differentiable."""
    out: Tensor = quantize(x, form)
    return out


def _reserved(rounding: str, size: int, generator: Any) -> tuple[int, int]:
    """Key and counter of the random words that a call takes."""
    if rounding != "stochastic":
        return 0, 0
    from ulpgrad.random import Generator, default_generator

    if generator is not None and not isinstance(generator, Generator):
        raise ArgumentError(f"generator={generator!r}: expected an ulpgrad.Generator")
    drawn: tuple[int, int] = (generator or default_generator).reserve(size)
    return drawn


def _converted(t: Tensor, form: Format, drawn: dict[str, Any], axis: int, counts: Counts | None) -> Tensor:
    """The conversion itself, by the fastest road there is."""
    plain = drawn["rounding"] == "nearest_even" and drawn["overflow"] is None and drawn["subnormals"]
    source = t.dtype
    whole = source in (int64, uint64) and counts is None and t.storage.__class__ is not np.ndarray
    if whole and isinstance(form, Fixed) and form.fraction_bits >= 0:
        source = Fixed(63, 0) if source is int64 else Fixed(64, 0, signed=False)  # float64 does not hold them
        t = Tensor(t.storage, source)
    if isinstance(source, Fixed) and isinstance(form, Fixed) and counts is None:
        return _between_fixed(t, form, drawn)
    if form.kind in ("integer", "bool") or (plain and counts is None and not form.routed and not source.routed):
        from ulpgrad.ops.creation import astype

        return astype(_plain(t), form) if source is not form else Tensor(copied(t.storage), form)
    if isinstance(form, Block):
        return _blocked(_plain(t), form, drawn, axis, counts)
    if counts is not None and not _counts_added(t, form, drawn, counts):
        words = _words(drawn, t.shape)
        with np.errstate(all="ignore"):
            return Tensor(
                form.encode(
                    source.exact(t.storage), drawn["rounding"], drawn["overflow"], drawn["subnormals"], words, counts
                ),
                form,
            )
    values = _plain(t, exactly=form is not float64)
    if values.dtype is form and values is not t and drawn["overflow"] is None and drawn["subnormals"]:
        return values  # exact there: nothing to round
    if plain and form.kind == "float" and values is not t:
        from ulpgrad.ops.creation import astype

        return astype(values, form)
    if values.dtype not in spec.SOURCES:
        wide = values_of(values)
        wide = wide.astype(np.int8) if wide.dtype == np.bool_ else wide
        values = Tensor(wide, as_format(wide.dtype))
    storage, forms = dispatch.call(spec.quantize, (values.dtype,), (values.storage,), {"dtype": form, **drawn})
    return Tensor(storage, forms[0])


def _counts_added(t: Tensor, form: Format, drawn: dict[str, Any], counts: Counts) -> bool:
    """Count by a kernel of its own, beside the one that converts; False if there is none for these formats."""
    kinds = {name: drawn[name] for name in ("rounding", "subnormals", "key", "counter", "random_bits")}
    found = None if t.dtype.routed else counted(t.dtype.decode(t.storage), form, **kinds)
    if found is None:
        return False
    for name, number in vars(found).items():
        setattr(counts, name, getattr(counts, name) + number)
    return True


def _words(drawn: dict[str, Any], shape: tuple[int, ...]) -> Random | None:
    """What a stochastic rounding of that shape draws from."""
    return spec.random_words(drawn["rounding"], drawn["key"], drawn["counter"], drawn["random_bits"], shape)


def _plain(t: Tensor, exactly: bool = True) -> Tensor:
    """The values in a format that kernels read: floats, integers and bools as they are, the rest in the float that holds
    them. Fixed point over 53 bits is rounded to odd, which one more rounding does not show, or if not `exactly`, to nearest."""
    form = t.dtype
    if not form.routed:
        return t
    if isinstance(form, (Affine, Fixed)) and t.storage.__class__ is not np.ndarray:
        return _plain_on_gpu(t, form, exactly)
    if isinstance(form, Affine):
        return Tensor(form.exact(t.storage), float64)
    if isinstance(form, Fixed) and form.bits > 53 and exactly:
        return Tensor(np.ldexp(round_to_odd(t.storage), -form.fraction_bits), float64)
    if isinstance(form, Block):
        return _unblocked(t.storage, form)
    if isinstance(form, Fixed) and form.bits <= 24:
        return Tensor(convert(t.storage, form, float32), float32)
    values = form.decode(t.storage)
    return Tensor(values, as_format(values.dtype))


def _plain_on_gpu(t: Tensor, form: Affine | Fixed, exactly: bool) -> Tensor:
    """The same where codes lie on a GPU: float64 holds them, and what they are multiplied by is rounded once."""
    if isinstance(form, Affine):
        scale, zero = (beside_codes(form.along(p, t.ndim, t.shape), t.storage) for p in (form.scale, form.zero_point))
        return Tensor((t.storage.astype(np.float64) - zero) * scale, float64)
    codes = round_to_odd(t.storage) if form.bits > 53 and exactly else t.storage.astype(np.float64)
    values = codes * form.scale
    if form.bits > 24:
        return Tensor(values, float64)
    return Tensor(dispatch.convert(values, float64, float32), float32)


def _near(t: Tensor, source: Fixed, form: Fixed) -> tuple[Any, Fixed]:
    """Codes on a GPU that are to saturate in another format, those of wide words brought near it, so that 64 bits hold what they
    meet on their way."""
    near = max(form.integer_bits, 1 - source.fraction_bits, 0) + 2
    if source.bits <= 32 or near + source.fraction_bits >= source.bits - 1:
        return t.storage, source
    kept = Fixed(near, source.fraction_bits)
    low = kept.min_code if source.signed else 0
    return t.storage.clip(low, kept.max_code).astype(kept.storage), kept


def beside_codes(parameter: Array, codes: Any) -> Any:
    """Scales, zero points, counts or places, which the host knows, where codes lie; on a GPU they are kept."""
    return (
        parameter if codes.__class__ is np.ndarray else dispatch.constant(np.asarray(parameter), device_of(codes).index)
    )


def _between_fixed(t: Tensor, form: Fixed, drawn: dict[str, Any]) -> Tensor:
    from ulpgrad.kernels.fixed import requantize

    assert isinstance(t.dtype, Fixed)
    rounding, overflow = drawn["rounding"], drawn["overflow"] or "saturate"
    if t.storage.__class__ is np.ndarray:
        return Tensor(requantize(t.storage, t.dtype, form, rounding, overflow, _words(drawn, t.shape)), form)
    words = None
    if rounding == "stochastic":
        stream = {"key": drawn["key"], "counter": drawn["counter"], "size": t.size}
        words = Random(dispatch.call(random_words, (), (), stream, str(t.device))[0], drawn["random_bits"])

    def run(codes: Any, words: Any, **params: Any) -> Any:
        return dispatch.call(fixed_spec.rescale, (fixed_spec.int_format(codes.dtype), None), (codes, words), params)[0]

    codes, source = _near(t, t.dtype, form) if overflow == "saturate" else (t.storage, t.dtype)
    return Tensor(requantize(codes, source, form, rounding, overflow, words, run), form)


def _blocked(t: Tensor, form: Block, drawn: dict[str, Any], axis: int, counts: Counts | None) -> Tensor:
    if t.ndim and not -t.ndim <= axis < t.ndim:
        raise ArgumentError(f"{form.name}: axis {axis} is outside a tensor of {t.ndim} dimensions")
    values = values_of(t)
    if counts is not None:
        with np.errstate(all="ignore"):
            return Tensor(form.encode(values, drawn["rounding"], drawn["overflow"], drawn["subnormals"],
                                      _words(drawn, t.shape), counts, axis), form)  # fmt: skip
    wide = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
    options = {"dtype": form, "axis": axis, **drawn}
    (codes, scales), _ = dispatch.call(spec.block_quantize, (as_format(wide.dtype),), (wide,), options)
    return Tensor(BlockArray(codes, scales, axis % t.ndim, form.size), form)


def _unblocked(stored: BlockArray, form: Block) -> Tensor:
    """The values of blocks, in float32."""
    kinds = as_format(stored.codes.dtype), as_format(stored.scales.dtype)
    values, _ = dispatch.call(
        spec.block_dequantize, kinds, (stored.codes, stored.scales), {"dtype": form, "axis": stored.axis}
    )
    return Tensor(values, float32)


def fake_quantize(
    x: Any,
    format: Any,
    /,
    *,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    subnormals: bool = True,
    generator: Any = None,
    random_bits: int = RANDOM_BITS,
    axis: int | None = None,
    estimator: str | Estimator | None = None,
) -> Tensor:
    """The values of `x` rounded to the grid of another format, in x's own: what `x.to(format).to(x.dtype)` gives, in one
    pass, with the estimated gradient of one rounding. `x` is float32 or float64; options as in `quantize`."""
    form, source = as_format(format), as_tensor(x)
    if source.dtype not in (float32, float64):
        raise FormatError(
            f"fake_quantize: x is {source.dtype.name}: expected float32 or float64, which carry the values"
        )
    key, counter = _reserved(check(rounding, random_bits), source.size, generator)
    drawn = {"rounding": rounding, "overflow": overflow, "subnormals": subnormals, "key": key, "counter": counter,
             "random_bits": random_bits}  # fmt: skip

    def run(t: Tensor) -> Tensor:
        if isinstance(form, Block):
            stored = _blocked(t, form, drawn, -1 if axis is None else axis, None).storage
            values = _unblocked(stored, form).storage if t.dtype is float32 else _exact_blocks(stored, form, t.device)
            return Tensor(values, t.dtype)
        if form is t.dtype:
            return Tensor(copied(t.storage), form)
        storage, _ = dispatch.call(spec.fake_quantize, (t.dtype,), (t.storage,), {"dtype": form, **drawn})
        return Tensor(storage, t.dtype)

    if source.requires_grad:
        out: Tensor = _Conversion.apply(source, run, form, estimator_of(estimator, form, overflow))
        return out
    return run(source)


def _exact_blocks(stored: BlockArray, form: Block, device: Device) -> Any:
    """The values of blocks in float64, which holds them all."""
    return moved_to(form.exact(moved_to(stored, CPU)), device)


def encode(x: Any, format: Any, /, **options: Any) -> Tensor:
    """The codes of `quantize(x, format)` as a tensor of unsigned integers (fixed point: of its signed storage)."""
    out = quantize(x, format, **options)
    if not isinstance(out, Tensor):
        raise ArgumentError("encode: report=True gives no codes alone; call quantize")
    if out.dtype.kind == "block":
        raise FormatError("encode: blocks have codes and scales; read x.storage.codes and x.storage.scales")
    bits = out.storage.view(f"u{out.dtype.itemsize}") if out.dtype.kind == "float" else out.storage
    return Tensor(bits, as_format(bits.dtype))


def decode(bits: Any, format: Any, /) -> Tensor:
    """The tensor of `format` whose codes are `bits`, integers of the format's width (no copy where they are stored so)."""
    form, given = as_format(format), as_tensor(bits)
    if form.kind == "block":
        raise FormatError(f"decode: {form.name} has scales beside its codes; make its BlockArray")
    if given.dtype.kind != "integer":
        raise FormatError(f"decode: bits of format {given.dtype.name}: expected integers")
    storage = given.storage
    if storage.dtype.itemsize == form.itemsize:
        return Tensor(storage.view(form.storage), form)
    low = form.min_code if isinstance(form, (Fixed, Affine)) else 0
    high = form.max_code if isinstance(form, (Fixed, Affine)) else 2**form.bits - 1
    if storage.size and (int(storage.min()) < low or int(storage.max()) > high):
        raise FormatError(
            f"decode: bits from {storage.min()} to {storage.max()}: expected {low} to {high}, codes of {form.name}"
        )
    return Tensor(storage.astype(f"u{form.itemsize}").view(form.storage), form)


def through_float32(
    primitive: Primitive, tensors: Sequence[Tensor | None], params: dict[str, Any]
) -> tuple[Tensor, ...]:
    """Arithmetic of affine and block tensors: their values in float32."""
    return primitive.every(
        *[t if t is None or not t.dtype.routed else to_format(t, float32) for t in tensors], **params
    )
