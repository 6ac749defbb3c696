"""The array API standard (2024.12): its names, signatures, methods and constants."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ArgumentError
from ulpgrad.formats import FORMATS


def words(text: str) -> list[str]:
    return text.split()


# The standard's signatures, without annotations. What we add stands behind: more keywords are
# allowed, different names, orders or defaults are not.
UNARY = words(
    "abs acos acosh asin asinh atan atanh bitwise_invert ceil conj cos cosh exp expm1 floor imag isfinite isinf isnan log "
    "log1p log2 log10 logical_not negative positive real reciprocal round sign signbit sin sinh square sqrt tan tanh trunc"
)
BINARY = words(
    "add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign divide equal "
    "floor_divide greater greater_equal hypot less less_equal logaddexp logical_and logical_or logical_xor maximum "
    "minimum multiply "
    "nextafter not_equal pow remainder subtract"
)
SIGNATURES = {
    **dict.fromkeys(UNARY, "(x, /)"),
    **dict.fromkeys(BINARY, "(x1, x2, /)"),
    "clip": "(x, /, min=None, max=None)",
    "where": "(condition, x1, x2, /)",
    "arange": "(start, /, stop=None, step=1, *, dtype=None, device=None)",
    "asarray": "(obj, /, *, dtype=None, device=None, copy=None)",
    "empty": "(shape, *, dtype=None, device=None)",
    "empty_like": "(x, /, *, dtype=None, device=None)",
    "eye": "(n_rows, n_cols=None, /, *, k=0, dtype=None, device=None)",
    "from_dlpack": "(x, /, *, device=None, copy=None)",
    "full": "(shape, fill_value, *, dtype=None, device=None)",
    "full_like": "(x, /, fill_value, *, dtype=None, device=None)",
    "linspace": "(start, stop, /, num, *, dtype=None, device=None, endpoint=True)",
    "meshgrid": "(*arrays, indexing='xy')",
    "ones": "(shape, *, dtype=None, device=None)",
    "ones_like": "(x, /, *, dtype=None, device=None)",
    "tril": "(x, /, *, k=0)",
    "triu": "(x, /, *, k=0)",
    "zeros": "(shape, *, dtype=None, device=None)",
    "zeros_like": "(x, /, *, dtype=None, device=None)",
    "astype": "(x, dtype, /, *, copy=True, device=None)",
    "can_cast": "(from_, to, /)",
    "finfo": "(type, /)",
    "iinfo": "(type, /)",
    "isdtype": "(dtype, kind)",
    "result_type": "(*arrays_and_dtypes)",
    "take": "(x, indices, /, *, axis=None)",
    "take_along_axis": "(x, indices, /, *, axis=-1)",
    "matmul": "(x1, x2, /)",
    "matrix_transpose": "(x, /)",
    "tensordot": "(x1, x2, /, *, axes=2)",
    "vecdot": "(x1, x2, /, *, axis=-1)",
    "broadcast_arrays": "(*arrays)",
    "broadcast_to": "(x, /, shape)",
    "concat": "(arrays, /, *, axis=0)",
    "expand_dims": "(x, /, axis=0)",
    "flip": "(x, /, *, axis=None)",
    "moveaxis": "(x, source, destination, /)",
    "permute_dims": "(x, /, axes)",
    "repeat": "(x, repeats, /, *, axis=None)",
    "reshape": "(x, /, shape, *, copy=None)",
    "roll": "(x, /, shift, *, axis=None)",
    "squeeze": "(x, /, axis)",
    "stack": "(arrays, /, *, axis=0)",
    "tile": "(x, repetitions, /)",
    "unstack": "(x, /, *, axis=0)",
    "argmax": "(x, /, *, axis=None, keepdims=False)",
    "argmin": "(x, /, *, axis=None, keepdims=False)",
    "count_nonzero": "(x, /, *, axis=None, keepdims=False)",
    "nonzero": "(x, /)",
    "searchsorted": "(x1, x2, /, *, side='left', sorter=None)",
    "unique_all": "(x, /)",
    "unique_counts": "(x, /)",
    "unique_inverse": "(x, /)",
    "unique_values": "(x, /)",
    "argsort": "(x, /, *, axis=-1, descending=False, stable=True)",
    "sort": "(x, /, *, axis=-1, descending=False, stable=True)",
    "cumulative_prod": "(x, /, *, axis=None, dtype=None, include_initial=False)",
    "cumulative_sum": "(x, /, *, axis=None, dtype=None, include_initial=False)",
    "max": "(x, /, *, axis=None, keepdims=False)",
    "mean": "(x, /, *, axis=None, keepdims=False)",
    "min": "(x, /, *, axis=None, keepdims=False)",
    "prod": "(x, /, *, axis=None, dtype=None, keepdims=False)",
    "std": "(x, /, *, axis=None, correction=0.0, keepdims=False)",
    "sum": "(x, /, *, axis=None, dtype=None, keepdims=False)",
    "var": "(x, /, *, axis=None, correction=0.0, keepdims=False)",
    "all": "(x, /, *, axis=None, keepdims=False)",
    "any": "(x, /, *, axis=None, keepdims=False)",
    "diff": "(x, /, *, axis=-1, n=1, prepend=None, append=None)",
    "__array_namespace_info__": "()",
}  # fmt: skip
METHODS = words(
    "abs add and bool contains eq float floordiv ge getitem gt index int invert le len lshift lt matmul mod mul ne "
    "neg or "
    "pos pow radd rand rfloordiv rlshift rmatmul rmod rmul ror rpow rrshift rshift rsub rtruediv rxor setitem sub "
    "truediv xor array_namespace dlpack dlpack_device"
)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    function = getattr(ug, name)
    expected = eval(f"lambda {SIGNATURES[name][1:-1]}: None")
    wanted = list(inspect.signature(expected).parameters.values())
    given = list(inspect.signature(function).parameters.values())
    shape = [(p.name, p.kind, p.default) for p in given]
    assert [(p.name, p.kind, p.default) for p in wanted] == shape[: len(wanted)]
    assert all(p.default is not inspect.Parameter.empty for p in given[len(wanted) :]), "an addition must be optional"


def test_methods_attributes_and_constants() -> None:
    x = ug.ones((2, 3))
    for name in METHODS:
        assert callable(getattr(x, f"__{name}__")), name
    assert (x.ndim, x.shape, x.size, x.dtype, str(x.device)) == (2, (2, 3), 6, ug.float32, "cpu")
    assert x.T.shape == x.mT.shape == (3, 2)
    assert (ug.e, ug.pi, ug.inf, ug.newaxis) == (np.e, np.pi, np.inf, None)
    assert ug.nan != ug.nan
    assert ug.__array_api_version__ == "2024.12"
    assert x.__array_namespace__() is ug
    assert x.to_device("cpu") is x is ug.conj(x) is ug.real(x)
    assert not ug.imag(x).any()
    with pytest.raises(ArgumentError, match="stream=1: expected None"):
        x.to_device(x.device, stream=1)
    assert [*inspect.signature(x.__dlpack__).parameters] == ["stream", "max_version", "dl_device", "copy"]
    for name in ("bool", *FORMATS):
        assert getattr(ug, name) is FORMATS[name]


def test_no_other_array_function_is_public() -> None:
    """What is added to ulpgrad.ops' array modules is either the standard's or named here."""
    from ulpgrad.ops import creation, dtypes, elementwise, indexing, linalg, manipulation, reduction, sorting, triangle

    public = {
        n
        for m in (creation, dtypes, elementwise, indexing, linalg, manipulation, reduction, sorting, triangle)
        for n in m.__all__
    }
    ours = {
        "copy",
        "flatten",
        "topk",
        "logsumexp",
        "outer",
        "e",
        "pi",
        "inf",
        "nan",
        "newaxis",
    }  # compared, not in the standard
    layers = {
        "erf",
        "gelu",
        "leaky_relu",
        "relu",
        "sigmoid",
        "silu",
        "softplus",
        "linear",
    }  # in test_gradients and the kernel tests
    assert public - ours - layers == set(SIGNATURES)
