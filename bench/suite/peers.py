"""The libraries that others use: which are installed, and what they take part in a cell with.

A peer that is asked for and not installed is a row that says how to install it; one that has no function of an op, or not the
format, is a row that says so.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ulpgrad.bench.peers.others import imported
from ulpgrad.bench.suite import drawn, functions, gradients, recurrent, updates
from ulpgrad.bench.suite.cells import nearest
from ulpgrad.bench.suite.contenders import Contender, Refusal, Some, Task
from ulpgrad.bench.suite.prepared import Give, Makers, Prepared, given
from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Array, Format, as_format

NOBODY = "none"
NOTHING = "has no function that does the same"
TORCH: Makers = {**gradients.TORCH, **recurrent.TORCH, **updates.TORCH, **drawn.TORCH}
JAX: Makers = {**gradients.JAX, **recurrent.JAX, **drawn.JAX}


@dataclass(frozen=True)
class Peer:
    """`modules`: what it needs; `install`: how to get them; `make`: the contender of a task, or why it takes no part."""

    modules: tuple[str, ...]
    install: str
    make: Callable[[Task, int], Contender | str]


def chosen(names: str | None) -> list[str]:
    """Peers by name, with commas between them; None: all that are installed; "none": nobody. ArgumentError for another name."""
    if names is None:
        return [name for name in NAMES if name != "cupy" and not _missing(name)]
    asked = [name for part in names.split(",") if (name := part.strip()) and name != NOBODY]
    for name in asked:
        if name not in NAMES:
            raise ArgumentError(
                f"there is no peer {name!r}; did you mean {nearest(name, NAMES)}? `none` leaves all out"
            )
    return list(dict.fromkeys(asked))


def of(task: Task, names: list[str], threads: int) -> list[Contender | Refusal]:
    """Those asked for, in a cell."""
    found: list[Contender | Refusal] = []
    for name in names:
        if reason := skipped(name):
            found.append(Refusal(name, "missing", reason))
            continue
        made: Contender | str
        if task.form.routed:
            made = f"{name} has no {task.cell.format}"
        else:
            try:
                made = NAMES[name].make(task, threads)
            except Exception as error:  # a library that cannot be set up for a call takes no part in it
                made = f"{name}: {type(error).__name__}: {error}"[:300]
        found.append(Refusal(name, "refused", made) if isinstance(made, str) else made)
    return found


def skipped(name: str) -> str | None:
    """How to install a peer that is not there, or None."""
    missing = _missing(name)
    return f"{' and '.join(missing)} not installed: {NAMES[name].install}" if missing else None


def versions() -> dict[str, str | None]:
    """Of all peers; None where one is not installed."""
    found: dict[str, str | None] = {}
    for name in NAMES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _missing(name: str) -> list[str]:
    return [module for module in NAMES[name].modules if importlib.util.find_spec(module) is None]


def _ready(task: Task, library: Any, makers: Makers, function: Callable[..., Any] | None) -> Prepared | None:
    """What a library does for an op: made for it, or a function of the op's operands. None where it has nothing."""
    if task.op.name in makers:
        return makers[task.op.name](library, task)
    if function is None:
        return None
    return Prepared(partial(given, task.problem), partial(function, **task.params))


def _contender(
    name: str, ready: Prepared, give: Give, back: Callable[[Any], Array], counted: bool = False
) -> Contender:
    """A peer: its operands by `give`, the op's results by `back`."""

    def values(returned: Any) -> Some:
        found = tuple(None if r is None else back(r) for r in ready.results(returned))
        if ready.check is None:
            return found
        ready.check(*found)
        return ()

    return Contender(name, ready.call, partial(ready.operands, give), values, counted=counted)


def _unknown(task: Task, name: str, known: Callable[[str], Any]) -> str | None:
    """The first format of an operand, or of numbers that are drawn, that a library does not have."""
    of_numbers = () if task.problem.arrays else (task.params.get("dtype"),)
    for f in (*task.problem.formats, *of_numbers):
        if f is not None and known(f.name) is None:
            return f"{name} has no {f.name}"
    return None


def _numpy(task: Task, threads: int) -> Contender | str:
    del threads  # the variables that its BLAS reads were set when the process began
    if why := _unknown(task, "NumPy", lambda name: as_format(name).is_native or None):
        return why
    ready = _ready(task, np, drawn.NUMPY, functions.numpy(np, task.op.name, task.op.family))
    return f"NumPy {NOTHING}" if ready is None else _contender("numpy", ready, lambda a, f: a, _widened, counted=True)


def _widened(values: Any) -> Array:
    """Floats of any library that NumPy can read, in float64; the rest as it is."""
    a = np.asarray(values)
    return a if a.dtype.kind in "biu" else a.astype(np.float64)


def _torch(task: Task, threads: int) -> Contender | str:
    torch = imported("torch")
    torch.set_num_threads(threads)
    if why := _unknown(task, "torch", lambda name: getattr(torch, name, None)):
        return why
    ready = _ready(task, torch, TORCH, functions.torch(torch, task.op.name, task.op.family))
    if ready is None:
        return f"torch {NOTHING}"

    def give(a: Array, f: Format) -> Any:
        return torch.from_numpy(a if f.is_native else f.exact(a)).to(getattr(torch, f.name))

    def back(t: Any) -> Array:
        return np.asarray((t.double() if t.is_floating_point() else t).numpy())

    return _contender("torch", ready, give, back)


def _jax(task: Task, threads: int) -> Contender | str:
    del threads  # it takes the cores that the process is pinned to
    jax = imported("jax")
    jax.config.update("jax_enable_x64", True)
    if why := _unknown(task, "JAX", lambda name: getattr(jax.numpy, name, None)):
        return why
    function = functions.jax(jax, task.op.name, task.op.family)
    ready = _ready(task, jax, JAX, None if function is None else _compiled(jax, function))
    if ready is None:
        return f"JAX {NOTHING}"

    def give(a: Array, f: Format) -> Any:
        return jax.numpy.asarray(f.exact(a), getattr(jax.numpy, f.name))

    return _contender("jax", ready, give, _widened)


def _compiled(jax: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as a whole program, and what it gives when it is there."""

    def run(*arrays: Any, **params: Any) -> Any:
        if not made:
            made.append(jax.jit(partial(function, **params)))
        return jax.block_until_ready(made[0](*arrays))

    made: list[Any] = []
    return run


def _onnxruntime(task: Task, threads: int) -> Contender | str:
    runtime, onnx = imported("onnxruntime"), imported("onnx")
    node = functions.ONNX.get(task.op.name)
    if node is None:
        return f"ONNX Runtime {NOTHING}"
    if any(f is not None and not f.is_native for f in task.problem.formats):
        return f"{task.form.name} cannot be given to ONNX Runtime from Python"
    make, names = onnx.helper, [f"x{i}" for i, a in enumerate(task.problem.arrays) if a is not None]
    kind = make.np_dtype_to_tensor_dtype
    inputs = [make.make_tensor_value_info(name, kind(a.dtype), None)
              for name, a in zip(names, task.problem.arrays, strict=True)]  # fmt: skip
    output = make.make_tensor_value_info("y", kind(task.formats[0].storage), None)
    attributes = {k: v for k, v in task.params.items() if k in functions.ATTRIBUTES}
    graph = make.make_graph([make.make_node(node, names, ["y"], **attributes)], task.op.name, inputs, [output])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # its threads would spin in others' turns
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(*arrays: Array) -> Any:
        return session.run(None, dict(zip(names, arrays, strict=True)))

    ready = Prepared(partial(given, task.problem), run)
    return _contender("onnxruntime", ready, lambda a, f: a, _widened)


def _cupy(task: Task, threads: int) -> Contender | str:
    del threads
    return f"CuPy computes on a GPU; these cells are on {task.cell.device}"


NAMES: dict[str, Peer] = {
    "torch": Peer(("torch",), "pip install torch", _torch),
    "numpy": Peer(("numpy",), "pip install numpy", _numpy),
    "jax": Peer(("jax",), "pip install jax", _jax),
    "onnxruntime": Peer(("onnxruntime", "onnx"), "pip install onnxruntime onnx", _onnxruntime),
    "cupy": Peer(("cupy",), "pip install 'ulpgrad[cuda]'", _cupy),
}

__all__ = ["NAMES", "chosen", "of", "skipped", "versions"]
