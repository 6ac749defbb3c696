"""What holds the whole together: imports run one way, nothing heavy happens at import, only `ulpgrad` is installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ulpgrad

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"ulpgrad": ROOT / "engine", "ulpgrad.kernels": ROOT / "kernels", "ulpgrad.bench": ROOT / "bench"}
PEERS = {"torch", "jax", "tensorflow"}

# Rooms from the ground up. A room may import from its own level and those below, at module level or inside functions.
LEVELS = [
    {"errors", "settings", "formats"},
    {"_native"},
    {"kernels"},
    {"device", "dispatch", "profile", "remembered"},
    {"autograd", "tensor", "differentiable", "function", "learning", "scaled"},
    {"cuda", "generator", "graphs", "ops", "random", "policy", "explain", "fixed", "fused"},
    {"nn", "optim", "io", "data", "testing", "quantization"},
    {"bench"},
    {"cli"},
]
LEVEL = {room: i for i, rooms in enumerate(LEVELS) for room in rooms}
# Where a lower room needs a higher one at call time (gradients are written with ops; a tensor offers ops as methods; the
# arithmetic of fixed point is loaded when first met).
LATE = {("autograd", "ops"), ("tensor", "ops"), ("function", "ops"), ("differentiable", "fixed")}


def modules() -> dict[str, Path]:
    found = {}
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([name, *parts]).removesuffix(".__init__")] = path
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "ulpgrad" and len(parts) > 1 else None


def imported(path: Path, late: bool) -> set[str]:
    """Modules imported at module level (not under TYPE_CHECKING), or with `late` anywhere else."""
    tree = ast.parse(path.read_text())
    top = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
    typing_only = [
        n
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for n in ast.walk(block)
    ]
    nodes = [n for n in ast.walk(tree) if n not in top and n not in typing_only] if late else top
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names.update(f"{base}.{a.name}" for a in node.names) if base == "ulpgrad" else names.add(base)
    return names


@pytest.mark.parametrize("late", [False, True], ids=["at import", "in functions"])
def test_imports_run_one_way(late: bool) -> None:
    wrong = []
    for module, path in modules().items():
        here = room(module)
        if here is None:  # the package itself shows everything
            continue
        for name in imported(path, late):
            there = room(name)
            if there is None or (late and (here, there) in LATE):
                continue
            if there not in LEVEL:
                if there.startswith("__"):
                    continue
                there = None if name.count(".") == 1 and hasattr(ulpgrad, there) else there
                if there is None:
                    wrong.append(f"{module} imports the package itself ({name})")
                    continue
            if LEVEL.get(there, -1) > LEVEL[here]:
                wrong.append(f"{module} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_other_framework_is_imported_anywhere_inside() -> None:
    for module, path in modules().items():
        for late in (False, True):
            found = {n.split(".")[0] for n in imported(path, late)} & PEERS
            assert not found or module.startswith("ulpgrad.bench"), f"{module} imports {found}"


def test_import_is_light() -> None:
    """Nothing is compiled, no Numba, GPU library or framework is loaded, and no second copy of a folder appears."""
    code = (
        "import sys, ulpgrad; import ulpgrad.kernels.registry\n"
        "heavy = {'numba', 'llvmlite', 'cupy', 'triton', 'torch', 'jax', 'tensorflow', 'scipy', 'sklearn', 'matplotlib'}\n"
        "own = {'engine', 'kernels', 'bench'}\n"
        "print(sorted((heavy | own) & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert out.stdout.strip() == "[]"


def test_own_folders_never_stand_in_sys_modules() -> None:
    assert not {"engine", "kernels", "bench"} & set(sys.modules)


def test_files_are_rooms() -> None:
    """No source file is longer than 500 lines."""
    files = [
        p
        for f in ("engine", "kernels", "bench", "csrc", "tests")
        for p in (ROOT / f).rglob("*")
        if p.suffix in (".py", ".cpp", ".h")
    ]
    long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > 500}
    assert not long
