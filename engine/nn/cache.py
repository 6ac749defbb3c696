"""The keys and values of tokens that were seen, for attention that generates one token after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.autograd import is_grad_enabled
from ulpgrad.errors import ArgumentError, CapacityError, DeviceError, FormatError, GradientError, ShapeError
from ulpgrad.formats import Format, get_default_dtype
from ulpgrad.ops.attention import scaled_dot_product_attention
from ulpgrad.ops.common import as_tensor
from ulpgrad.ops.creation import asarray, zeros
from ulpgrad.ops.manipulation import broadcast_to
from ulpgrad.tensor import Tensor


class KeyValueCache:
    """Keys and values in memory that is there from the beginning: new ones are written behind what there is, in place.

    `keys` (batch, heads, capacity, size) and `values` (batch, heads, capacity, value_size) are tensors of `dtype` (the default
    dtype unless given) on `device`; `lengths`, int64 of (batch,), says how many tokens each row of the batch holds. Queries may
    have more heads, a multiple of `heads`. `value_size` is `size` unless given.

        cache = ug.nn.KeyValueCache(batch, heads, capacity, size)
        with ug.no_grad():
            cache.append(k, v)         # (batch, heads, l, size): a prompt, or one token
            y = cache.attend(q)        # of the same tokens: what attention gives on all keys and values so far

    Gradients do not pass through a cache: appending tensors that require one raises GradientError.
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        capacity: int,
        size: int,
        value_size: int | None = None,
        *,
        dtype: Format | str | None = None,
        device: Any = None,
    ) -> None:
        for name, count in (("batch", batch), ("heads", heads), ("capacity", capacity), ("size", size)):
            if not isinstance(count, int) or count < 1:
                raise ArgumentError(f"KeyValueCache: {name}={count!r}: expected a positive integer")
        form = get_default_dtype() if dtype is None else dtype
        self.keys: Tensor = zeros((batch, heads, capacity, size), dtype=form, device=device)
        self.values: Tensor = zeros((batch, heads, capacity, value_size or size), dtype=form, device=device)
        if self.keys.dtype.kind != "float":
            raise FormatError(f"KeyValueCache: dtype {self.keys.dtype.name}: expected a float")
        self._filled = np.zeros(batch, np.int64)
        self._newest = np.zeros(batch, np.int64)  # tokens of the last append, of
        self._width = 0  # so many
        self._lengths: Tensor | None = None

    @property
    def capacity(self) -> int:
        """How many tokens a row of the batch can hold."""
        return int(self.keys.shape[2])

    @property
    def lengths(self) -> Tensor:
        """How many tokens each row of the batch holds: int64 of (batch,), beside the keys."""
        if self._lengths is None:
            self._lengths = asarray(self._filled.copy()).to(self.keys.device)
        return self._lengths

    def __repr__(self) -> str:
        batch, heads, capacity, size = self.keys.shape
        return (
            f"KeyValueCache(batch={batch}, heads={heads}, capacity={capacity}, size={size}, "
            f"value_size={self.values.shape[3]}, dtype={self.keys.dtype}, lengths={self._filled.tolist()})"
        )

    def append(self, k: Tensor, v: Tensor, lengths: Any = None) -> None:
        """Write the keys (batch, heads, l, size) and values (batch, heads, l, value_size) of l new tokens behind each row's last.

        `lengths` (integers of (batch,), 0 to l, or one for all) says how many of them each row has, the first ones, as in a batch
        of prompts that was padded on the right; a row that has ended takes 0. Nothing is written where an error is raised:
        CapacityError if a row would hold more than `capacity`, ShapeError, FormatError and DeviceError where k or v are not like
        the cache, GradientError if one requires a gradient.
        """
        k, v = as_tensor(k), as_tensor(v)
        self._check(k, v)
        width = k.shape[2]
        new = self._counts("append", lengths, width)
        end = self._filled + new
        if end.max() > self.capacity:
            row = int(end.argmax())
            raise CapacityError(
                f"KeyValueCache.append: row {row} holds {self._filled[row]} tokens and would take {new[row]} more: "
                f"expected {self.capacity} at most; make the cache larger, or truncate it"
            )
        for memory, given in ((self.keys, k.detach()), (self.values, v.detach())):
            self._write(memory, given, new)
        self._filled, self._newest, self._width, self._lengths = end, new, width, None

    def attend(
        self,
        q: Tensor,
        mask: Any = None,
        *,
        is_causal: bool = True,
        scale: float | None = None,
        window_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Attention of q (batch, query heads, l, size) over what each row holds -> (batch, query heads, l, value_size).

        q are the queries of the l tokens that were appended last: each sees the keys up to its own. Rows of q behind the
        lengths of that append give zeros. With `is_causal=False`, any queries see all keys that there are, as in attention to
        another sequence. `mask` broadcasts to (batch, query heads, l, capacity); `scale` and `window_size` are those of
        `ug.scaled_dot_product_attention`, which also says what is raised.
        """
        q = as_tensor(q)
        if q.ndim != 4 or q.shape[0] != self.keys.shape[0] or q.shape[3] != self.keys.shape[3]:
            raise ShapeError(
                f"KeyValueCache.attend: q has shape {q.shape}: expected ({self.keys.shape[0]}, heads, l, {self.keys.shape[3]})"
            )
        if not is_causal:
            return scaled_dot_product_attention(q, self.keys, self.values, mask, scale=scale, enable_gqa=True,
                                                window_size=window_size, key_lengths=self.lengths)  # fmt: skip
        if q.shape[2] != self._width:
            raise ShapeError(
                f"KeyValueCache.attend: {q.shape[2]} queries after {self._width} tokens were appended: expected one for each; "
                "is_causal=False takes any number"
            )
        whole = bool((self._newest == self._width).all())
        last = self._width == 1 and whole and window_size is None  # one query sees all
        newest = None if whole else asarray(self._newest).to(q.device)
        return scaled_dot_product_attention(
            q,
            self.keys,
            self.values,
            mask,
            is_causal=False if last else "lower_right",
            scale=scale,
            enable_gqa=True,
            window_size=window_size,
            query_lengths=newest,
            key_lengths=self.lengths,
        )

    def truncate(self, lengths: Any) -> None:
        """Forget the tokens of each row behind the first `lengths` (an integer for all rows, or integers of (batch,)); 0 begins
        anew. ArgumentError where a row does not hold as many."""
        counts = self._counts("truncate", lengths, None)
        if (counts > self._filled).any():
            row = int((counts - self._filled).argmax())
            raise ArgumentError(
                f"KeyValueCache.truncate: row {row} holds {self._filled[row]} tokens: expected as many at most, not {counts[row]}"
            )
        self._filled, self._lengths, self._width = counts, None, 0

    def _check(self, k: Tensor, v: Tensor) -> None:
        for name, t, memory in (("k", k, self.keys), ("v", v, self.values)):
            batch, heads, _, size = memory.shape
            if t.ndim != 4 or (t.shape[0], t.shape[1], t.shape[3]) != (batch, heads, size) or t.shape[2] != k.shape[2]:
                length = "l" if name == "k" or k.ndim != 4 else k.shape[2]
                raise ShapeError(
                    f"KeyValueCache.append: {name} has shape {t.shape}: expected ({batch}, {heads}, {length}, {size})"
                )
            if t.dtype is not memory.dtype:
                raise FormatError(
                    f"KeyValueCache.append: {name} is {t.dtype.name}: expected {memory.dtype.name}, the cache's; convert it "
                    "with .to(dtype)"
                )
            if t.device != memory.device:
                raise DeviceError(
                    f"KeyValueCache.append: {name} is on {t.device}: expected {memory.device}; move it with .to(device)"
                )
            if t.requires_grad and is_grad_enabled():
                raise GradientError(
                    f"KeyValueCache.append: {name} requires a gradient, which a cache would lose; call it inside "
                    "ulpgrad.no_grad(), or attend to concatenated tensors"
                )

    def _counts(self, where: str, given: Any, most: int | None) -> Any:
        """Counts of tokens, one for each row of the batch."""
        batch = self.keys.shape[0]
        if given is None:
            return np.full(batch, most, np.int64)
        counts = as_tensor(given)
        counts = broadcast_to(counts, (batch,)) if counts.ndim == 0 else counts
        if counts.dtype.kind != "integer" or counts.shape != (batch,):
            raise ShapeError(
                f"KeyValueCache.{where}: lengths are {counts.dtype.name} of {counts.shape}: expected integers of ({batch},)"
            )
        found = counts.numpy().astype(np.int64)
        if found.min() < 0 or (most is not None and found.max() > most):
            raise ArgumentError(
                f"KeyValueCache.{where}: lengths {found.tolist()}: expected 0 to {self.capacity if most is None else most}"
            )
        return found

    def _write(self, memory: Tensor, given: Tensor, new: Any) -> None:
        start = self._filled
        if (start == start[0]).all() and (new == given.shape[2]).all():
            memory[:, :, int(start[0]) : int(start[0]) + given.shape[2]] = given
        elif given.shape[2] == 1:
            rows = np.flatnonzero(new)
            memory[rows, :, start[rows]] = given[rows][:, :, 0]
        else:
            for row, (begin, count) in enumerate(zip(start.tolist(), new.tolist(), strict=True)):
                memory[row, :, begin : begin + count] = given[row, :, :count]


__all__ = ["KeyValueCache"]
