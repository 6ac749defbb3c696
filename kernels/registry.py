"""The registry is the ladder: every rung of every op, and the choice among them.

A rung is registered once, in its own file, by `@kernel`. An op's folder is scanned when the op is first used; the file's
name says what it runs on (`numba_tiled.py`, `native.py`, `triton_fused.py`), and files for a device that is not asked for
are not imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from ulpgrad.errors import KernelError
from ulpgrad.formats import Array, Family, Format, compute_format
from ulpgrad.kernels import capabilities
from ulpgrad.kernels.spec import Op

ON_GPU = ("triton", "cuda", "cupy")
# The capabilities of a machine that a road asks for: the first word of a rung's name, and of its file's.
ROADS = {"native": ("native",), "numba": ("numba",), "cupy": ("cuda",), "cuda": ("cuda", "cuda_compile"),
         "triton": ("cuda", "triton")}  # fmt: skip


class Request(NamedTuple):
    """What selection sees of a call."""

    op: Op
    device: str
    formats: tuple[Format | None, ...]
    arrays: tuple[Any, ...]
    params: dict[str, Any]

    def with_formats(self, formats: tuple[Format | None, ...]) -> Request:
        return Request(self.op, self.device, formats, self.arrays, self.params)


class Rung(NamedTuple):
    """One kernel of an op: a pure function over raw arrays, and what it can take.

    `run(*arrays, **params)` returns new arrays. With `build`, `run` is instead called once per selection with the Request
    and returns that function. `where(request)` returns a reason for refusal, or None.
    """

    op: Op
    name: str
    run: Callable[..., Any]
    rank: int
    formats: Sequence[Format]
    requires: tuple[str, ...]
    where: Callable[[Request], str | None] | None
    contiguous: bool
    build: bool
    idea: str
    module: str
    replays: bool = False

    @property
    def device(self) -> str:
        return self.name.split("/")[0]

    def unavailable(self) -> str | None:
        """Why this machine cannot run the rung at all, or None."""
        for capability in self.requires:
            reason = capabilities.missing(capability)
            if reason:
                return reason
        return None

    def refusal(self, request: Request) -> str | None:
        """Why the rung cannot take this call in its own formats, or None."""
        if self.device != request.device:
            return f"runs on {self.device}, not on {request.device}"
        reason = self.unavailable()
        if reason:
            return reason
        for f in request.formats:
            if f is not None and f not in self.formats:
                return f"takes {', '.join(g.name for g in self.formats)}, not {f.name}"
        return self.where(request) if self.where is not None else None

    def choose(self, request: Request) -> tuple[bool, str | None]:
        """(widened, refusal): whether the rung takes the call only after narrow floats are widened."""
        reason = self.refusal(request)
        if reason is None:
            return False, None
        wide = tuple(None if f is None else compute_format(f) for f in request.formats)
        if wide != request.formats and not request.op.mutates and self.refusal(request.with_formats(wide)) is None:
            return True, None
        return False, reason


_ops: dict[str, Op] = {}
_rungs: dict[str, list[Rung]] = {}
_forgetting: list[Callable[[], object]] = []


def on_change(forget: Callable[[], object]) -> None:
    """Have `forget` called when a rung is registered: who keeps choices made before chooses anew."""
    _forgetting.append(forget)


def enter(op: Op) -> None:
    """Called by Op itself. Its reference becomes the lowest rung."""
    _ops[op.name] = op
    _rungs.setdefault(op.name, [])

    def build_reference(request: Request) -> Callable[..., Any]:
        run = op.run_reference_in_place if op.mutates else op.run_reference
        return lambda *arrays, **params: run(arrays, request.formats, params)

    _rungs[op.name].insert(0, Rung(op, "cpu/reference", build_reference, 0, op.formats, (), None, False, True,
                                   "The definition, in float64 NumPy.", op.reference.__module__))  # fmt: skip


def kernel(
    op: Op,
    name: str,
    *,
    rank: int,
    formats: Sequence[Format],
    requires: Sequence[str] = (),
    where: Callable[[Request], str | None] | None = None,
    contiguous: bool = False,
    build: bool = False,
    idea: str | None = None,
    replays: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as a rung of `op`.

    `name` is "device/road-idea"; `rank` its height on the ladder; `requires` capabilities of the machine; `contiguous`
    asks for C-contiguous operands (copies are made above); `idea` defaults to the first paragraph of the file's docstring;
    `replays` says that what it asks of a device can be asked again without it (`kernels/replay.py`).
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if any(r.name == name for r in _rungs[op.name]):
            raise KernelError(f"{op.name}: a rung called {name!r} exists already")
        module = inspect.getmodule(function)
        text = idea or inspect.cleandoc((module.__doc__ if module else "") or "").split("\n\n")[0].replace("\n", " ")
        road = name.split("/")[1].split("-")[0]
        needs = tuple(requires) or ROADS.get(road, ())
        _rungs[op.name].append(Rung(op, name, function, rank, _kept(formats), needs, where, contiguous, build, text,
                                    function.__module__, replays))  # fmt: skip
        _rungs[op.name].sort(key=lambda r: r.rank)
        for forget in _forgetting:
            forget()
        return function

    return register


def _kept(formats: Sequence[Format]) -> Sequence[Format]:
    """A family as it is, since it holds formats made later too; else the formats themselves."""
    return formats if isinstance(formats, Family) else tuple(formats)


@cache
def scan(family: str, device: str) -> None:
    """Import the rungs of a family's folder that run on a device."""
    import pkgutil

    package = importlib.import_module(f"ulpgrad.kernels.{family}")
    for info in pkgutil.iter_modules(package.__path__):
        road = info.name.split("_")[0]
        if info.name == "spec" or info.ispkg or (road in ON_GPU) != (device != "cpu"):
            continue
        if road != "triton" or capabilities.missing("triton") is None:
            importlib.import_module(f"{package.__name__}.{info.name}")


@cache
def families() -> tuple[str, ...]:
    """Names of all families: the folders of `kernels` that have a spec."""
    import pkgutil

    import ulpgrad.kernels as root

    return tuple(
        info.name for info in pkgutil.iter_modules(root.__path__)
        if info.ispkg and importlib.util.find_spec(f"ulpgrad.kernels.{info.name}.spec") is not None
    )  # fmt: skip


def ops() -> dict[str, Op]:
    """Every op there is, by name."""
    for family in families():
        importlib.import_module(f"ulpgrad.kernels.{family}.spec")
    return dict(_ops)


def find(name: str) -> Op:
    """The op of that name; KernelError with the nearest names otherwise."""
    found = _ops.get(name) or ops().get(name)
    if found is None:
        import difflib

        near = difflib.get_close_matches(name, _ops, 3) or sorted(_ops)[:8]
        raise KernelError(f"there is no op {name!r}; did you mean {', '.join(near)}?")
    return found


def ladder(op: Op, device: str = "cpu") -> list[Rung]:
    """The rungs of an op on a device, lowest first."""
    scan(op.family, device)
    return [r for r in _rungs[op.name] if r.device == device]


class Choice(NamedTuple):
    """One rung's verdict on a call, for `explain`."""

    rung: Rung
    widened: bool
    refusal: str | None
    taken: bool


def explain(request: Request, pinned: str | None = None) -> list[Choice]:
    """Every rung's verdict on a call, highest first; the first that accepts is taken."""
    verdicts: list[Choice] = []
    taken = False
    for rung in reversed(ladder(request.op, request.device)):
        widened, refusal = rung.choose(request)
        if refusal is None and pinned is not None and rung.name != pinned:
            refusal = f"{pinned} is pinned"
        verdicts.append(Choice(rung, widened, refusal, refusal is None and not taken))
        taken = taken or refusal is None
    return verdicts


def select(request: Request, pinned: str | None = None) -> tuple[Rung, bool]:
    """The highest rung that accepts the call, and whether operands are widened for it. KernelError if there is none."""
    rungs = ladder(request.op, request.device)
    if pinned is not None:
        rungs = [r for r in rungs if r.name == pinned]
        if not rungs:
            names = ", ".join(r.name for r in ladder(request.op, request.device))
            raise KernelError(f"{request.op.name} has no rung {pinned!r}: expected one of {names}")
    reasons = []
    for rung in reversed(rungs):
        widened, refusal = rung.choose(request)
        if refusal is None:
            return rung, widened
        reasons.append(f"{rung.name}: {refusal}")
    pin = f"pinned rung {pinned!r} cannot run" if pinned else f"no rung runs on {request.device}"
    raise KernelError(f"{request.op.name}: {pin} this call ({'; '.join(reasons) or 'it has no rungs there'})")


__all__ = [
    "Array",
    "Choice",
    "Request",
    "Rung",
    "explain",
    "families",
    "find",
    "kernel",
    "ladder",
    "ops",
    "scan",
    "select",
]
