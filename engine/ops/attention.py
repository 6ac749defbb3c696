"""Scaled dot-product attention in one kernel, which never holds the whole matrix of weights."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np

from ulpgrad import dispatch
from ulpgrad.autograd import is_grad_enabled
from ulpgrad.device import CPU, elsewhere
from ulpgrad.differentiable import Primitive, plain_calls
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import Format, as_format, bool_, float32, int32
from ulpgrad.formats.promotion import result_format
from ulpgrad.generator import Generator, generator_or_default
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.spec import Dropout
from ulpgrad.kernels.attention.visible import Window, check_lengths, local, visible
from ulpgrad.kernels.attention_float8 import spec as float8_spec
from ulpgrad.ops import elementwise as ew
from ulpgrad.ops.common import as_tensor, beside, broadcast_shapes
from ulpgrad.ops.creation import astype, ones
from ulpgrad.ops.dropout import dropped
from ulpgrad.ops.linalg import matmul
from ulpgrad.ops.manipulation import broadcast_to, matrix_transpose, reshape, stack
from ulpgrad.ops.reduction import max as largest, sum as total
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]


def _for_every_head(a: Tensor, q: Tensor) -> Tensor:
    """Keys or values, each head repeated for the heads of q that it serves."""
    if a.shape[:-2] == q.shape[:-2]:
        return a
    *lead, heads, length, size = a.shape
    share = q.shape[-3] // heads
    each = broadcast_to(reshape(a, (*lead, heads, 1, length, size)), (*lead, heads, share, length, size))
    return reshape(each, (*lead, heads * share, length, size))


def _near(q: Tensor, k: Tensor, window: tuple[int, int]) -> Tensor:
    """Which keys lie within a window of each query, as a mask beside them."""
    plain_calls.varies()  # a tensor that no operand is
    near: Tensor = Tensor(local(q.shape[-2], k.shape[-2], window), bool_).to(q.device)
    return near


def _visible(
    q: Tensor, k: Tensor, query_lengths: Tensor | None, key_lengths: Tensor | None, *, is_causal: bool, window: Window,
    lower_right: bool,
) -> Tensor | None:  # fmt: skip
    """Which keys each query sees by its place among them, beside the scores; None where it is all."""
    plain_calls.varies()
    lengths = [None if n is None else n.numpy() for n in (query_lengths, key_lengths)]
    seen = visible(
        q.storage, k.storage, lengths[0], lengths[1], is_causal=is_causal, window=window, lower_right=lower_right
    )
    return None if seen is None else Tensor(seen, bool_).to(q.device)


def _only(a: Tensor, lengths: Tensor | None) -> Tensor:
    """Zeros behind the length of each batch entry, and no gradient there."""
    if lengths is None:
        return a
    there = np.arange(a.shape[-2])[:, None] < lengths.numpy().reshape(*lengths.shape, *[1] * min(3, a.ndim))
    return ew.where(Tensor(there, bool_).to(a.device), a, 0.0)


def _composite(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, query_lengths: Tensor | None = None,
    key_lengths: Tensor | None = None, *, is_causal: bool, scale: float, window: Window = None, lower_right: bool = False,
    dropout: Dropout | None = None,
) -> Tensor:  # fmt: skip
    """The same, step by step. A row that attends to nothing gives zeros."""
    seen = _visible(q, k, query_lengths, key_lengths, is_causal=is_causal, window=window, lower_right=lower_right)
    q, k, v = _only(q, query_lengths), _only(k, key_lengths), _only(v, key_lengths)
    k, v = _for_every_head(k, q), _for_every_head(v, q)
    scores = matmul(q, matrix_transpose(k)) * scale
    if seen is not None:
        scores = ew.where(seen, scores, -math.inf)
    if mask is not None:
        scores = ew.where(mask, scores, -math.inf) if mask.dtype is bool_ else scores + mask
    top = largest(scores.detach(), axis=-1, keepdims=True)
    weights = ew.exp(scores - ew.where(ew.isinf(top), 0.0, top))
    norm = total(weights, axis=-1, keepdims=True)
    if dropout is not None:
        weights = dropped(weights, **dropout._asdict())
    return matmul(weights, v) / ew.where(norm == 0.0, 1.0, norm)


def _joint(
    g: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    query_lengths: Tensor | None,
    key_lengths: Tensor | None,
    y: Tensor,
    lse: Tensor,
    needed: tuple[bool, ...],
    params: dict[str, Any],
) -> tuple[Tensor | None, ...]:
    lengths = (query_lengths, key_lengths)[: len(needed) - 4]
    return (*_attention_gradient.every(g, q, k, v, mask, y, lse, *lengths, **params), *[None] * (len(needed) - 3))


_attention = Primitive(
    spec.attention, "q k v mask query_lengths key_lengths", "y lse", joint=_joint, composite=_composite
)
_attention_float8 = Primitive(float8_spec.attention_float8, "q k v mask scales")
_attention_gradient = Primitive(spec.attention_gradient, "g0 q k v mask y lse query_lengths key_lengths", "dq dk dv")


def _check_heads(name: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    for what, t in (("q", q), ("k", k), ("v", v)):
        if t.ndim < 3:
            raise ShapeError(f"{name}: {what} has shape {t.shape}: enable_gqa expects (heads, length, size) at the end")
    heads, shared = q.shape[-3], k.shape[-3]
    if k.shape[-3] != v.shape[-3] or shared == 0 or heads % shared:
        raise ShapeError(
            f"{name}: k has {shared} heads and v {v.shape[-3]}: expected the same number in both, a divisor of q's {heads}"
        )


def _window(name: str, given: Any) -> Window:
    """A window as kernels take it: None where it hides nothing."""
    if given is None:
        return None
    try:
        left, right = map(operator.index, given)
    except (TypeError, ValueError):
        left = right = -2
    if min(left, right) < -1:
        raise ArgumentError(f"{name}: window_size={given!r}: expected (left, right), numbers of keys, -1 for all")
    return None if left == right == -1 else (left, right)


def _dropout(name: str, p: float, generator: Generator | None, q: Tensor, k: Tensor) -> Dropout:
    """The next words of a generator, one for every weight."""
    plain_calls.varies()  # the next call takes others
    key, counter = generator_or_default(name, generator).reserve(math.prod(q.shape[:-1]) * k.shape[-2])
    return Dropout(float(p), key, counter)


def _lengths(name: str, what: str, given: Any, q: Tensor) -> Tensor | None:
    """Lengths as kernels take them, which look at their values."""
    if given is None:
        return None
    lengths = beside(q, as_tensor(given), given)
    if lengths.dtype not in spec.INTEGERS:
        raise FormatError(f"{name}: {what} are {lengths.dtype.name}: expected int32 or int64")
    check_lengths(name, q.storage, **{what: lengths.storage})
    return lengths


class _Factors(NamedTuple):
    """What q, k and v are multiplied by: numbers, and where heads have factors of their own tensors, of q's leading axes."""

    numbers: tuple[float, float, float] = (1.0, 1.0, 1.0)
    heads: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)

    @property
    def by_head(self) -> bool:
        return any(t is not None for t in self.heads)

    def bits(self, q: Tensor) -> Tensor | None:
        """The operand `scales` of kernels: for each head, what scores and results are multiplied by."""
        if not self.by_head:
            return None
        plain_calls.varies()  # memory that is read as another format
        one = ones(q.shape[:-2], dtype=float32, device=elsewhere(q.storage))
        of_q, of_k, of_v = (one if t is None else t for t in self.heads)
        both: Tensor = stack([of_q * of_k, of_v], axis=-1)
        return Tensor(both.storage.view(np.int32), int32)


def _factors(name: str, descale: Any, *tensors: Tensor) -> _Factors:
    """What `descale` asks for. Heads of k and v that serve several of q's are repeated."""
    if descale is None:
        return _Factors()
    try:
        given = tuple(descale)
        numbers = tuple(1.0 if isinstance(value, Tensor) else float(value) for value in given)
        q_number, k_number, v_number = numbers
    except (TypeError, ValueError):
        raise ArgumentError(
            f"{name}: descale={descale!r}: expected three numbers, or tensors of a number for each head, for q, k and v"
        ) from None
    heads: list[Tensor | None] = []
    for what, value, t in zip("qkv", given, tensors, strict=True):
        if not isinstance(value, Tensor):
            heads.append(None)
            continue
        if value.dtype.kind != "float" or value.requires_grad:
            raise FormatError(f"{name}: descale of {what} is {value.dtype.name}: expected floats without a gradient")
        lead = t.shape[:-2]
        if broadcast_shapes(name, value.shape, lead) != lead:
            raise ShapeError(
                f"{name}: descale of {what} has shape {value.shape}: expected {lead}, or less that broadcasts to it"
            )
        wide = broadcast_to(astype(value, float32, copy=False), lead)
        heads.append(_for_every_head(reshape(wide, (*lead, 1, 1)), tensors[0])[..., 0, 0])
    return _Factors((q_number, k_number, v_number), (heads[0], heads[1], heads[2]))


def _result(name: str, dtype: Any, *tensors: Tensor) -> Format:
    """The format of the result where one is asked for, or operands have factors."""
    out = as_format(dtype) if dtype is not None else result_format(*(t.dtype for t in tensors))
    if out not in float8_spec.RESULTS:
        names = ", ".join(f.name for f in float8_spec.RESULTS)
        raise FormatError(f"{name}: dtype={out.name}: expected one of {names}")
    return out


def _in_float8(*tensors: Tensor) -> bool:
    """Whether kernels of 8-bit floats take these operands: no policy is active, no gradient recorded."""
    recorded = is_grad_enabled() and any(t.requires_grad for t in tensors)
    return not recorded and not dispatch.state.policies and all(t.dtype in float8_spec.FORMATS for t in tensors)


@remembered
def scaled_dot_product_attention(q: Any, k: Any, v: Any, mask: Any = None, is_causal: bool | str = False,
                                 scale: float | None = None, enable_gqa: bool = False,
                                 window_size: tuple[int, int] | None = None, dropout_p: float = 0.0, training: bool = True,
                                 generator: Generator | None = None, query_lengths: Any = None, key_lengths: Any = None,
                                 dtype: Any = None,
                                 descale: tuple[Any, Any, Any] | None = None) -> Tensor:  # fmt: skip
    """softmax(scale q kᵀ + mask) v over the last two axes (Vaswani et al. 2017).

    q (..., l, d), k (..., s, d), v (..., s, e) -> (..., l, e), usually with (batch, heads) in front; leading axes
    broadcast. `mask` broadcasts to (..., l, s): bool (True: attend) or a float added to the scores. `is_causal` lets
    row i attend to columns 0 to i. `scale` is 1 / sqrt(d) unless given. A row that may attend to nothing gives zeros.
    With `enable_gqa` (Ainslie et al. 2023), k and v may have fewer heads (axis -3) than q, each for as many heads of q
    in a row. With `window_size` = (left, right) (Beltagy et al. 2020), row i attends to columns i - left to i + right, -1
    for all on that side: time and memory of a GPU grow with the window; on the CPU it becomes a mask.

    `query_lengths` and `key_lengths`, int32 or int64 of q's shape without its last three axes (heads, l, d), say how many of
    the l and s there are in each batch entry: what lies behind is not read, gives zeros, and has a gradient of zero.
    `is_causal="lower_right"` counts rows from the end, as where queries are the last tokens of what the keys hold: row i
    stands where row i + s - l does otherwise, with lengths in place of s and l; a window moves with it.

    In training, each weight of the softmax is dropped with probability `dropout_p`, or divided by 1 - dropout_p, by the
    next words of `generator` (or of ulpgrad.random's default one): those that `dropout` of all weights, (..., l, s),
    would take. They are never all in memory, and backward draws them again.

    `descale`: numbers that q, k and v stand for a multiple of, as tensors of 8-bit floats do that were scaled to their range; or
    tensors of a number for each head, that broadcast to (batch, heads). `dtype`: the result's format, one of float32, bfloat16
    and float16. Both are for 8-bit floats, which a GPU then multiplies as they are (8-bit scores, weights and values in float16;
    causal, bool masks and grouped heads); with float masks, windows, lengths, dropout or a gradient, and for wider operands, they
    are converted to `dtype` first, or with numbers for heads to float32.

    Raises ShapeError where shapes do not fit, FormatError for lengths that are no integers, ArgumentError for a window that
    is none, for dropout_p outside [0, 1) and, on the CPU, for lengths below 0 or beyond l or s; on a GPU, which would have to
    be waited for, they count as 0 and as all.
    """
    q, k, v = as_tensor(q), as_tensor(k), as_tensor(v)
    mask = None if mask is None else as_tensor(mask)
    name = "scaled_dot_product_attention"
    for what, t in (("q", q), ("k", k), ("v", v)):
        if t.ndim < 2:
            raise ShapeError(f"{name}: {what} has shape {t.shape}: expected at least (length, size)")
    if not 0 <= dropout_p < 1:
        raise ArgumentError(f"{name}: dropout_p={dropout_p!r}: expected a probability of at least 0 and below 1")
    own = 3 if enable_gqa else 2  # axes at the end that are not broadcast
    if enable_gqa:
        _check_heads(name, q, k, v)
    if not q.shape[:-own] == k.shape[:-own] == v.shape[:-own]:
        lead = broadcast_shapes(name, q.shape[:-own], k.shape[:-own], v.shape[:-own])
        q, k, v = (broadcast_to(t, (*lead, *t.shape[-own:])) for t in (q, k, v))
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0
    if isinstance(is_causal, str) and is_causal != "lower_right":
        raise ArgumentError(f"{name}: is_causal={is_causal!r}: expected True, False or 'lower_right'")
    factors = _factors(name, descale, q, k, v)
    scale = float(scale) * factors.numbers[0] * factors.numbers[1]
    params: dict[str, Any] = {"is_causal": bool(is_causal), "scale": scale}
    if dtype is not None or descale is not None:
        out = _result(name, dtype, q, k, v)
        plain = (
            (mask is None or mask.dtype is bool_)
            and window_size is None
            and query_lengths is None
            and key_lengths is None
        )
        if plain and not (dropout_p and training) and _in_float8(q, k, v):
            lower_right = is_causal == "lower_right"
            y: Tensor = _attention_float8(q, k, v, mask, factors.bits(q), **params, factor=factors.numbers[2],
                                          lower_right=lower_right, dtype=out)  # fmt: skip
            return y
        q, k, v = (astype(t, float32 if factors.by_head else out, copy=False) for t in (q, k, v))
        of_q, of_k, of_v = factors.heads
        for t in (of_q, of_k):  # scores' factors, which all are q's here
            q = q if t is None else q * reshape(t, (*t.shape, 1, 1))
        y = scaled_dot_product_attention(q, k, v, mask, is_causal, scale, enable_gqa, window_size, dropout_p, training,
                                         generator, query_lengths, key_lengths)  # fmt: skip
        y = y if of_v is None else y * reshape(of_v, (*of_v.shape, 1, 1))
        return astype(y if factors.numbers[2] == 1.0 else y * factors.numbers[2], out, copy=False)
    if dropout_p and training:
        params["dropout"] = _dropout(name, dropout_p, generator, q, k)
    lengths: tuple[Tensor | None, ...] = ()
    if query_lengths is not None or key_lengths is not None:
        lengths = (_lengths(name, "query_lengths", query_lengths, q),
                   _lengths(name, "key_lengths", key_lengths, q))  # fmt: skip
    if is_causal == "lower_right":
        params["lower_right"] = True
    window = _window(name, window_size)
    if window is not None and (q.device != CPU or lengths or is_causal == "lower_right"):
        params["window"] = window
    elif window is not None:  # the CPU's fast kernels know none
        near = _near(q, k, window)
        mask = near if mask is None else mask & near if mask.dtype is bool_ else ew.where(near, mask, -math.inf)
    if mask is not None and mask.requires_grad and is_grad_enabled():  # the fused gradient gives none for the mask
        return _composite(q, k, v, mask, *lengths, **params)
    return _attention(q, k, v, mask, *lengths, **params)
