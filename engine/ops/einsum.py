"""einsum: sums of products by index letters, contracted from left to right by batched matmul."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.ops import elementwise as ew
from ulpgrad.ops.common import as_tensor
from ulpgrad.ops.linalg import matmul
from ulpgrad.ops.manipulation import permute_dims, reshape
from ulpgrad.ops.reduction import sum as total
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = [
    "einsum",
]


@remembered
def einsum(equation: str, /, *operands: Any) -> Tensor:
    """Einstein summation: `einsum("bij,bjk->bik", a, b)`.

    Each letter names an axis; letters missing on the right are summed; `...` stands for leading axes that broadcast; a
    letter repeated in one operand takes its diagonal. Without "->" the result has the letters that occur once, sorted.
    """
    tensors = [as_tensor(t) for t in operands]
    terms, result = _parse(equation, tensors)
    current, letters = _own(tensors[0], terms[0])
    for i in range(1, len(tensors)):
        other, other_letters = _own(tensors[i], terms[i])
        later = set(result).union(*terms[i + 1 :])
        current, letters = _contract(current, letters, other, other_letters, later)
    current, letters = _sum_out(current, letters, set(result))
    return permute_dims(current, [letters.index(c) for c in result]) if current.ndim else current


def _parse(equation: str, tensors: Sequence[Tensor]) -> tuple[list[str], str]:
    """Letters per operand and of the result (axes under `...` get letters of their own), and the size of each letter."""
    if not isinstance(equation, str):
        raise ArgumentError(f"einsum: the equation must be a string such as 'ij,jk->ik', got {equation!r}")
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors) or not tensors:
        raise ArgumentError(f"einsum: {equation!r} names {len(terms)} operands, {len(tensors)} were given")
    extra = 0
    for term, t in zip(terms, tensors, strict=True):
        plain = term.replace("...", "", 1)
        if not (plain == "" or (plain.isascii() and plain.isalpha())):
            raise ArgumentError(f"einsum: {term!r} may hold letters and one '...', nothing else")
        missing = t.ndim - len(plain)
        if missing < 0 or (missing > 0 and "..." not in term):
            raise ShapeError(f"einsum: {term!r} names {len(plain)} axes of an operand of shape {t.shape}")
        extra = max(extra, missing)
    stars = "".join(chr(0x2460 + i) for i in range(extra))
    spelled = [
        t.replace("...", stars[extra - (x.ndim - len(t) + 3) :] if "..." in t else "")
        for t, x in zip(terms, tensors, strict=True)
    ]
    every = "".join(spelled)
    if arrow:
        result = right.replace("...", stars)
    else:
        result = stars + "".join(sorted(c for c in set(every) if every.count(c) == 1 and c not in stars))
    unknown = sorted(set(result) - set(every))
    if unknown or len(set(result)) != len(result):
        raise ArgumentError(f"einsum: the result {right!r} must name axes of the operands, each once")
    sizes: dict[str, int] = {}
    for term, t in zip(spelled, tensors, strict=True):
        own: dict[str, int] = {}
        for c, s in zip(term, t.shape, strict=True):
            if own.setdefault(c, s) != s:
                raise ShapeError(f"einsum: axis {c!r} of {equation!r} has sizes {own[c]} and {s} in one operand")
            known = sizes.setdefault(c, s)
            if known != s and 1 not in (known, s):
                raise ShapeError(f"einsum: axis {c!r} of {equation!r} has sizes {known} and {s}")
            sizes[c] = max(known, s) if 0 not in (known, s) else 0
    return spelled, result


def _own(x: Tensor, letters: str) -> tuple[Tensor, str]:
    """Repeated letters of one operand replaced by its diagonal."""
    for c in dict.fromkeys(letters):
        while letters.count(c) > 1:
            i = letters.index(c)
            j = letters.index(c, i + 1)
            order = [k for k in range(x.ndim) if k not in (i, j)]
            n = x.shape[i]
            square = reshape(permute_dims(x, (*order, i, j)), (*(x.shape[k] for k in order), n * x.shape[j]))
            x = square[..., :: n + 1] if n else reshape(square, (*square.shape[:-1], 0))
            letters = "".join(letters[k] for k in order) + c
    return x, letters


def _sum_out(x: Tensor, letters: str, keep: set[str]) -> tuple[Tensor, str]:
    gone = tuple(i for i, c in enumerate(letters) if c not in keep)
    if not gone:
        return x, letters
    return total(x, axis=gone, dtype=x.dtype), "".join(c for c in letters if c in keep)


def _contract(a: Tensor, a_letters: str, b: Tensor, b_letters: str, later: set[str]) -> tuple[Tensor, str]:
    """Both operands as one batched product: batch letters, then those of a or b alone; shared letters not needed later
    are summed."""
    a, a_letters = _sum_out(a, a_letters, later | set(b_letters))
    b, b_letters = _sum_out(b, b_letters, later | set(a_letters))
    own = [dict(zip(letters, x.shape, strict=True)) for x, letters in ((a, a_letters), (b, b_letters))]
    shared = [c for c in a_letters if c in b_letters]
    if any(own[0][c] != own[1][c] for c in shared):
        return _broadcasting_product(a, a_letters, b, b_letters, later)
    sizes = {**own[0], **own[1]}
    summed = [c for c in shared if c not in later]
    batch = [c for c in shared if c in later]
    only_a = [c for c in a_letters if c not in shared]
    only_b = [c for c in b_letters if c not in shared]

    def arrange(x: Tensor, letters: str, *groups: list[str]) -> Tensor:
        x = permute_dims(x, [letters.index(c) for group in groups for c in group])
        return reshape(x, tuple(math.prod(sizes[c] for c in group) for group in groups))

    product = matmul(arrange(a, a_letters, batch, only_a, summed), arrange(b, b_letters, batch, summed, only_b))
    out = "".join((*batch, *only_a, *only_b))
    return reshape(product, tuple(sizes[c] for c in out)), out


def _broadcasting_product(a: Tensor, a_letters: str, b: Tensor, b_letters: str, later: set[str]) -> tuple[Tensor, str]:
    """Where a letter has size 1 in one operand and more in the other: multiply with broadcasting, then sum."""
    out = "".join(dict.fromkeys(a_letters + b_letters))

    def align(x: Tensor, letters: str) -> Tensor:
        x = permute_dims(x, [letters.index(c) for c in out if c in letters])
        found = iter(x.shape)
        return reshape(x, tuple(next(found) if c in letters else 1 for c in out))

    return _sum_out(ew.multiply(align(a, a_letters), align(b, b_letters)), out, later)
