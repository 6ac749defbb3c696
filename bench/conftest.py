"""Options of `pytest bench/`: the same that `ulpgrad bench` has."""

from __future__ import annotations

from typing import Any


def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("ulpgrad", "what is measured (as of `ulpgrad bench`)")
    group.addoption("--ops", default="", help="ops by name, with commas; all if not given")
    group.addoption(
        "--formats", default="", help='formats by name, with commas, or "all"; the standard one if not given'
    )
    group.addoption("--sizes", default="", help="of the standard problems, with commas")
    group.addoption("--peers", default="none", help="torch,numpy,jax,onnxruntime; none if not given")
    group.addoption("--rungs", default="all", help='"best", "all", or rungs by name; all if not given')
