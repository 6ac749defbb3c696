"""One parallel loop per formula, written out and compiled for large arrays: operands are read once, no intermediate is
stored. Its limit: Numba calls the scalar exp of the C library, so nothing that is transcendental is vectorised.

Where NumPy has one ufunc for an op there is nothing to fuse, and no rung.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ulpgrad import settings
from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.elementwise import spec
from ulpgrad.kernels.elementwise.expression import called, to_scalar_python
from ulpgrad.kernels.elementwise.table import Row
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op

# The functions of the language over one float64, where Numba's math does not have them by the same name.
SCALAR = {
    "abs": "abs(x)",
    "maximum": "x if x > y or x != x else y",
    "minimum": "x if x < y or x != x else y",
    "normal_cdf": "0.5 * math.erfc(x * -0.7071067811865476)",
    "normal_density": "0.3989422804014327 * math.exp(-0.5 * x * x)",
    "sigmoid": "1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))",
}
TWO_OPERANDS = ("maximum", "minimum")


def source(formulas: dict[str, str], operands: tuple[str, ...], params: tuple[str, ...]) -> str:
    """A module with one jitted loop for each formula. Helpers stand in the same file, where Numba's cache sees them."""
    lines = ["import math", "", "from ulpgrad.kernels.numba_jit import jit, prange", ""]
    for name in sorted(set().union(*map(called, formulas.values())) - {"where"}):
        given = "x, y" if name in TWO_OPERANDS else "x"
        lines += ["", "@jit()", f"def _{name}({given}):", f"    return {SCALAR.get(name, f'math.{name}(x)')}", ""]
    for name, formula in formulas.items():
        arguments = [*(f"{o}_" for o in operands), "out", *params]
        values = ", ".join(f"float({o}_[i])" for o in operands)
        lines += ["", "@jit(parallel=True)", f"def {name}({', '.join(arguments)}):",
                  "    for i in prange(out.size):", f"        {', '.join(operands)} = {values}",
                  f"        out[i] = {to_scalar_python(formula)}", ""]  # fmt: skip
    return "\n".join(lines)


def _folder() -> Path:
    """Where generated loops lie, with Numba's cache beside them; a temporary folder if the cache cannot be written."""
    folder = Path(settings.get("ULPGRAD_CACHE") or Path.home() / ".cache" / "ulpgrad") / "numba"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="ulpgrad-"))


@cache
def load(name: str, text: str) -> ModuleType:
    """The module of a generated source, imported from a file, since only those can be cached by Numba."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = _folder() / f"{name}_{digest}.py"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".new", delete=False) as fresh:
            fresh.write(text)
        Path(fresh.name).replace(path)
    found = importlib.util.spec_from_file_location(f"ulpgrad_generated.{path.stem}", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


def is_small(request: Request) -> str | None:
    """Why a call is not worth compiling a loop for."""
    if spec.is_large(*request.arrays):
        return None
    return f"takes arrays from {spec.LARGE} elements, where a fused loop pays"


def register(row: Row, op: Op) -> None:
    """Enter the fused loop of a row."""
    text = source(row.formulas(), row.names(), row.params)
    # In double, the rounding of the argument of erfc is magnified; float32 is computed in double.
    inexact = set().union(*map(called, row.formulas().values())) & {"normal_cdf", "normal_density"}
    formats = [float32] if inexact else [float32, float64]

    @kernel(op, "cpu/numba-fused", rank=20, formats=formats, where=is_small, contiguous=True)
    def run(*arrays: Array, **params: Any) -> Array:
        variant = f"{row.name}_{params.pop(row.choice)}" if row.choice else row.name
        loop: Callable[..., None] = getattr(load(row.name, text), variant)
        out = np.empty(arrays[0].shape, arrays[0].dtype)
        loop(*(a.reshape(-1) for a in arrays), out.reshape(-1), *params.values())
        return out


for _row, _op in spec.rows():
    if _row.is_fused:
        register(_row, _op)
