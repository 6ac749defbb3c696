"""What README and the examples show, runs."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_python_of_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    code = "\n".join(blocks)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert out.returncode == 0, out.stderr
    assert "bfloat16" in out.stdout
    assert "cpu/" in out.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_example_runs(path: Path) -> None:
    out = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False, timeout=300)
    assert out.returncode == 0, out.stderr
    assert out.stdout


def test_console_of_numbers_says_what_it_shows() -> None:
    """Every `>>>` of docs/numbers.md, with its output."""
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    failed, tried = doctest.testfile(str(ROOT / "docs" / "numbers.md"), module_relative=False, optionflags=options)
    assert tried > 40
    assert failed == 0


def test_first_screen_of_readme_shows_the_two_commands() -> None:
    head = (ROOT / "README.md").read_text().splitlines()[:12]
    assert [line.split("#")[0].strip() for line in head if line.startswith("make ")] == ["make demo", "make test"]


def test_links_between_documents_lead_somewhere() -> None:
    for document in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
    ]:
        prose = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)  # C++ writes [&](...) too
        for target in re.findall(r"\]\(([^)#]+)\)", prose):
            assert target.startswith("http") or (document.parent / target).exists(), (
                f"{document.name} links to {target}"
            )
