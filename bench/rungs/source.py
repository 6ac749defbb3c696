"""The source of a rung, and what changed from the rung below: Python files, C++ and CUDA C++ of csrc/ (installed too)."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import ulpgrad
from ulpgrad.errors import KernelError
from ulpgrad.kernels.registry import Rung

ROOTS = (Path(__file__).resolve().parents[2], Path(ulpgrad.__file__).resolve().parent)  # a checkout, an installation
INCLUDE = re.compile(r'^#include "(?:ladder/)?([\w/]+\.h)"', re.MULTILINE)
HEADER = re.compile(r'^#include "(\w+\.cuh)"', re.MULTILINE)
KERNEL_FILE = re.compile(r'"(\w+\.cu)"')
BINDING = re.compile(r'm\.def\(\s*"(\w+)"')
COMMON = {"bind.h", "isa.h", "simd.h", "threads.h", "scratch.h", "memory.h", "device.cuh"}  # of every kernel


@dataclass(frozen=True)
class Source:
    """A file: its path as in the repository, the language (of pygments), the text."""

    path: str
    language: str
    text: str

    @property
    def body(self) -> str:
        """Without the comment on top, includes and the namespace: what a document shows of a C++ file."""
        lines = self.text.splitlines()
        if self.language != "cpp":
            return self.text
        start = next((i for i, line in enumerate(lines) if line.startswith("namespace")), -1) + 1
        end = next((i for i in range(len(lines) - 1, start, -1) if lines[i].startswith("}  // namespace")), len(lines))
        return "\n".join(lines[start:end]).strip("\n") + "\n"


@cache
def native_root() -> Path | None:
    """The folder csrc/cpu of the checkout or of the installation; None where neither has it."""
    return next((root / "csrc" / "cpu" for root in ROOTS if (root / "csrc" / "cpu").is_dir()), None)


def python_source(rung: Rung) -> Source:
    """The Python file that registers the rung; of the definition, the function alone."""
    module = import_module(rung.module)
    path = Path(inspect.getsourcefile(module) or "")
    name = "/".join(rung.module.removeprefix("ulpgrad.").split(".")) + ".py"
    text = path.read_text()
    if _is_definition(rung) and inspect.isfunction(rung.op.reference):
        text = inspect.cleandoc(inspect.getsource(rung.op.reference)).rstrip(",") + "\n"
    return Source(name, "python", text)


def _is_definition(rung: Rung) -> bool:
    return rung.name.endswith("/reference")


def ladder_file(rung: Rung) -> Path | None:
    """The C++ file of a rung that teaches (csrc/cpu/ladder), or None."""
    root, idea = native_root(), rung.name.partition("-")[2]
    if root is None or "/native-" not in rung.name:
        return None
    candidates = (root / "ladder" / f"{prefix}_{idea}.cpp" for prefix in (rung.op.name, rung.op.family))
    return next((path for path in candidates if path.exists()), None)


def sources(rung: Rung) -> list[Source]:
    """What makes the rung, the most telling file first: its C++ and the headers that belong to it, else its Python."""
    if "/cuda-" in rung.name:
        return [*cuda_sources(rung), python_source(rung)]
    main = ladder_file(rung)
    if main is None:
        return [python_source(rung)]
    found = [_native(main)]
    for name in INCLUDE.findall(found[0].text):
        path = main.parent / name
        if path.exists() and "ULPGRAD_TABLE" not in path.read_text():  # that header says what all rungs are given
            found.append(_native(path))
    return found


def cuda_sources(rung: Rung) -> list[Source]:
    """The files of csrc/cuda that a rung in CUDA C++ names, and the headers that they include beside the ones of every kernel."""
    folder = next((root / "csrc" / "cuda" for root in ROOTS if (root / "csrc" / "cuda").is_dir()), None)
    waiting = KERNEL_FILE.findall(python_source(rung).text)
    found: dict[str, Source] = {}
    while folder is not None and waiting:
        name = waiting.pop(0)
        if name in found or name in COMMON or not (folder / name).is_file():
            continue
        found[name] = Source(f"csrc/cuda/{name}", "cuda", (folder / name).read_text())
        waiting += HEADER.findall(found[name].text)
    return list(found.values())


def elsewhere(rung: Rung) -> list[str]:
    """Where the C++ of a rung stands that is spread over files of its own family: binding, headers, instruction sets."""
    root = native_root()
    if root is None or "/native-" not in rung.name or ladder_file(rung) is not None:
        return []
    called = _called(python_source(rung).text) or {
        name
        for path in Path(import_module(rung.module).__file__ or "").parent.glob("native_*.py")
        for name in _called(path.read_text())
    }
    bindings = [path for path in sorted(root.glob("*.cpp")) if called & set(BINDING.findall(path.read_text()))]
    headers = {name for path in bindings for name in INCLUDE.findall(path.read_text()) if "/" not in name} - COMMON
    words = {Path(name).stem.partition("_")[0] for name in (*headers, *(path.name for path in bindings))}
    versions = [path for path in sorted(root.glob("isa/*.cpp")) if path.stem.partition("_")[0] in words]
    files = [*bindings, *(root / name for name in sorted(headers) if (root / name).exists()), *versions]
    return [_shown(path) for path in files]


def _called(text: str) -> set[str]:
    """Functions of the extension that a Python file calls."""
    return set(re.findall(r"module\(\)\.(?!cpu_|build_)(\w+)", text))


def diff(upper: Rung, lower: Rung) -> str:
    """What changed from one rung to the other, as a unified diff of their sources; a new header is all additions. Empty
    where no line of one comes from the other: from the definition to a kernel, from C++ to the Python that calls it."""
    above, below = sources(upper), sources(lower)
    if _is_definition(lower) or above[0].language != below[0].language:
        return ""
    pairs: list[tuple[Source | None, Source]] = [(below[0], above[0])]
    old = {source.path: source for source in below[1:]}
    pairs += [(old.get(source.path), source) for source in above[1:]]
    return "".join(_one_diff(before, after) for before, after in pairs)


def named(rungs: Sequence[Rung], words: str) -> Rung:
    """The rung called that in full, without its device, or by its idea alone. KernelError with the nearest names."""
    for given in (words, words.removeprefix("cpu/").removeprefix("cuda/")):
        for rung in rungs:
            _, _, short = rung.name.partition("/")
            if given in (rung.name, short, short.partition("-")[2]):
                return rung
    names = [rung.name.partition("/")[2] for rung in rungs]
    near = difflib.get_close_matches(words, names, 3, 0.4) or names
    raise KernelError(f"{rungs[0].op.name} has no rung {words!r}; did you mean {', '.join(near)}?")


def _one_diff(before: Source | None, after: Source) -> str:
    if before is not None and before.text == after.text:
        return ""
    old = before.text.splitlines(keepends=True) if before else []
    lines = difflib.unified_diff(old, after.text.splitlines(keepends=True),
                                 before.path if before else "/dev/null", after.path)  # fmt: skip
    return "".join(lines)


def _native(path: Path) -> Source:
    return Source(_shown(path), "cpp", path.read_text())


def _shown(path: Path) -> str:
    root = native_root()
    assert root is not None
    return f"csrc/cpu/{path.relative_to(root)}"


__all__ = ["Source", "diff", "elsewhere", "ladder_file", "named", "native_root", "python_source", "sources"]
