"""The command `ulpgrad`: doctor, explain, ladder, study. Needs the extra `lab`."""

from __future__ import annotations

import importlib.util
import sys

NEEDS = ("typer", "rich")


def main() -> None:
    """Entry point of the console script."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        print(f"ulpgrad: {' and '.join(missing)} not installed: pip install 'ulpgrad[lab]'", file=sys.stderr)
        raise SystemExit(2)
    from ulpgrad.cli.app import app

    app(prog_name="ulpgrad")
