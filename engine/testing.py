"""Tools for checking numbers and gradients: errors in units in the last place, and central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ulpgrad import autograd
from ulpgrad.device import moved_to
from ulpgrad.errors import FormatError, GradientError
from ulpgrad.formats import Array, Float, Format
from ulpgrad.kernels.gpu import to_host
from ulpgrad.tensor import Tensor


def ulp_error(got: Array, expected: Array, form: Format, magnitude: Array | None = None) -> Array:
    """|got - expected| in units in the last place of `form` at max(|expected|, |magnitude|), elementwise in float64.

    `got` is storage of `form`; `expected` and `magnitude` are exact values. Equal infinities and NaN with NaN count 0, any
    other mixture infinity; an expected value that overflows the format counts as the infinity it rounds to. Integers, fixed
    point and bools: 0 where equal, infinity elsewhere.
    """
    if not isinstance(form, Float):
        return np.where(form.exact(got) == np.asarray(expected), 0.0, np.inf)
    value = form.exact(got)
    rounded = form.exact(form.encode(np.asarray(expected, dtype=np.float64)))
    size = np.abs(rounded) if magnitude is None else np.fmax(np.abs(rounded), np.abs(magnitude))
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(value - expected) / form.spacing(np.where(np.isfinite(size), size, form.max))
    special = ~np.isfinite(rounded) | ~np.isfinite(value)
    same = (value == rounded) | (np.isnan(value) & np.isnan(rounded))
    return np.where(special, np.where(same, 0.0, np.inf), error)


def gradcheck(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    *,
    order: int = 1,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    seed: int = 0,
) -> bool:
    """Compare the gradients of `function(*inputs)` with central differences in float64.

    Every float64 input that requires a gradient is checked, along random directions of every output element for order 1,
    and the gradient itself, as a function, for order 2. Raises GradientError with the worst difference; returns True.
    """
    for i, x in enumerate(inputs):
        if x.requires_grad and x.dtype.name != "float64":
            raise FormatError(f"gradcheck: input {i} is {x.dtype.name}; central differences need float64")
    rng = np.random.default_rng(seed)
    _check_once(function, inputs, eps, rtol, atol, rng, "gradient")
    if order >= 2:
        first = function(*inputs)
        outs = [o for o in (first if isinstance(first, tuple) else (first,)) if o.requires_grad]
        seeds = [_random_like(o, rng) for o in outs]
        wanted = [i for i, x in enumerate(inputs) if x.requires_grad]

        def gradient(*args: Tensor) -> tuple[Tensor, ...]:
            results = function(*args[: len(inputs)])
            results = [o for o in (results if isinstance(results, tuple) else (results,)) if o.requires_grad]
            found = autograd.grad(
                results,
                [args[i] for i in wanted],
                list(args[len(inputs) :]),
                create_graph=True,
                allow_unused=True,
            )
            return tuple(g for g in found if g is not None and g._edge() is not None)

        _check_once(
            gradient,
            [*inputs, *(s.requires_grad_() for s in seeds)],
            eps * 10,
            rtol * 10,
            atol * 10,
            rng,
            "second gradient",
        )
    return True


def _random_like(x: Tensor, rng: np.random.Generator) -> Tensor:
    return Tensor(moved_to(rng.uniform(-1, 1, x.shape), x.device), x.dtype)


def _check_once(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    eps: float,
    rtol: float,
    atol: float,
    rng: np.random.Generator,
    what: str,
) -> None:
    def outputs(args: Sequence[Tensor]) -> list[Tensor]:
        result = function(*args)
        return [o for o in (result if isinstance(result, tuple) else (result,)) if o.dtype.kind == "float"]

    outs = outputs(inputs)
    weights = [_random_like(o, rng) for o in outs]
    live = [(o, w) for o, w in zip(outs, weights, strict=True) if o._edge() is not None]
    checked = [x for x in inputs if x.requires_grad]
    if not live:
        if what == "gradient":
            raise GradientError("gradcheck: no output depends on an input that requires a gradient")
        return
    analytic = autograd.grad([o for o, _ in live], checked, [w for _, w in live], allow_unused=True)

    def loss(which: int, shift: Array) -> float:
        args = list(inputs)
        values = np.asarray(to_host(inputs[which].storage) + shift)
        moved = Tensor(moved_to(values, inputs[which].device), inputs[which].dtype)
        args[which] = moved.requires_grad_()
        pairs = [(to_host(o.storage), to_host(w.storage)) for o, w in zip(outputs(args), weights, strict=True)]
        return float(sum((o * w).sum() for o, w in pairs))

    for (i, x), g in zip([(i, x) for i, x in enumerate(inputs) if x.requires_grad], analytic, strict=True):
        found = np.zeros(x.shape) if g is None else to_host(g.storage)
        for index in np.ndindex(x.shape):
            shift = np.zeros(x.shape)
            shift[index] = eps
            numeric = (loss(i, shift) - loss(i, -shift)) / (2 * eps)
            if not abs(numeric - found[index]) <= atol + rtol * abs(numeric):
                raise GradientError(
                    f"gradcheck: {what} for input {i} at {index} is {found[index]!r}, central differences say {numeric!r}"
                )
