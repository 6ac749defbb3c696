"""A number format is one row: a copy of the package gets a few more, and every op and kernel is tested in them there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ulpgrad
import ulpgrad.bench
import ulpgrad.kernels
from ulpgrad.errors import FormatError
from ulpgrad.formats import Float

TESTS = Path(__file__).resolve().parent
ROWS = """
e8m6 = Float("e8m6", 15, np.dtype(np.uint16), 8, 6)
float8_e5m2 = Float("float8_e5m2", 8, np.dtype(np.uint8), 5, 2)
e6m9 = Float("e6m9", 16, np.dtype(np.uint16), 6, 9)
e4m3 = Float("e4m3", 8, np.dtype(np.uint8), 4, 3)
e5m14 = Float("e5m14", 20, np.dtype(np.uint32), 5, 14)
"""
LAST_ROW = 'float64 = Float("float64", 64, np.dtype(np.float64), 11, 52)\n'
STAMPED = "(e8m6 or e5m2 or e6m9 or e4m3 or e5m14) and not reference"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the copy is imported. All of it but the table of formats is links."""
    root = tmp_path_factory.mktemp("more_formats")
    package, source = root / "ulpgrad", Path(ulpgrad.__file__).resolve().parent
    (package / "formats").mkdir(parents=True)
    rooms = [*source.iterdir(), *(Path(m.__file__ or "").resolve().parent for m in (ulpgrad.kernels, ulpgrad.bench))]
    for path in {p.name: p for p in rooms if p.name not in ("formats", "__pycache__")}.values():
        (package / path.name).symlink_to(path)
    for path in (source / "formats").glob("*.py"):
        if path.name != "__init__.py":
            (package / "formats" / path.name).symlink_to(path)
    table = (source / "formats" / "__init__.py").read_text()
    assert table.count(LAST_ROW) == 1
    (package / "formats" / "__init__.py").write_text(table.replace(LAST_ROW, LAST_ROW + ROWS))
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**outer, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])}


def run_pytest(environment: dict[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    out = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout[-6000:] + out.stderr[-2000:]


def test_codes_and_public_functions(environment: dict[str, str]) -> None:
    run_pytest(environment, str(TESTS / "new_formats.py"))


def test_every_op_and_claim(environment: dict[str, str]) -> None:
    """The tests of kernels, stamped out again: rungs in the new formats they claim, and what dispatch chooses for each op."""
    run_pytest(environment, str(TESTS / "test_kernels.py"), "-k", STAMPED)


@pytest.mark.parametrize(
    ("bits", "storage", "exponent", "mantissa"),
    [(8, np.uint8, 4, 4), (9, np.uint8, 5, 3), (8, np.int8, 4, 3), (4, np.uint8, 1, 2), (5, np.uint8, 4, 0),
     (32, np.uint32, 8, 23), (20, np.uint32, 10, 9)],
)  # fmt: skip
def test_rows_that_make_no_sense_are_refused(bits: int, storage: type, exponent: int, mantissa: int) -> None:
    with pytest.raises(FormatError, match=r"^odd: .*expected"):
        Float("odd", bits, np.dtype(storage), exponent, mantissa)
