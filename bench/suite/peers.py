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
from ulpgrad.bench.suite import functions
from ulpgrad.bench.suite.cells import nearest
from ulpgrad.bench.suite.contenders import Contender, Refusal, Results, Task
from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Array, Format

NOBODY = "none"
NOTHING = "has no function that does the same"


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
            made = f"{name} has no {task.form.name}"
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


def _operands(task: Task, give: Callable[[Array, Format], Any]) -> Callable[[], tuple[Any, ...]]:
    """Each operand as the library's own array, new each time."""
    pairs = list(zip(task.problem.arrays, task.problem.formats, strict=True))
    return lambda: tuple(None if a is None or f is None else give(a.copy(order="K"), f) for a, f in pairs)


def _results(convert: Callable[[Any], Array]) -> Callable[[Any], Results]:
    return lambda returned: tuple(
        convert(r) for r in (returned if isinstance(returned, (tuple, list)) else (returned,))
    )


def _unknown(task: Task, name: str, known: Callable[[str], Any]) -> str | None:
    """The first format of an operand that a library does not have."""
    for f in task.problem.formats:
        if f is not None and known(f.name) is None:
            return f"{name} has no {f.name}"
    return None


def _numpy(task: Task, threads: int) -> Contender | str:
    del threads  # the variables that its BLAS reads were set when the process began
    function = functions.numpy(np, task.op.name, task.op.family)
    if function is None or task.op.mutates:
        return f"NumPy {NOTHING}"
    strange = next((f.name for f in task.problem.formats if f is not None and not f.is_native), None)
    if strange:
        return f"NumPy has no {strange}"
    return Contender("numpy", partial(function, **task.params), task.arrays, _results(_widened), counted=True)


def _widened(values: Any) -> Array:
    """Floats of any library that NumPy can read, in float64; the rest as it is."""
    a = np.asarray(values)
    return a if a.dtype.kind in "biu" else a.astype(np.float64)


def _torch(task: Task, threads: int) -> Contender | str:
    torch = imported("torch")
    torch.set_num_threads(threads)
    function = functions.torch(torch, task.op.name, task.op.family)
    if function is None or task.op.mutates:
        return f"torch {NOTHING}"
    if why := _unknown(task, "torch", lambda name: getattr(torch, name, None)):
        return why

    def give(a: Array, f: Format) -> Any:
        return torch.from_numpy(a if f.is_native else f.exact(a)).to(getattr(torch, f.name))

    def back(t: Any) -> Array:
        return np.asarray((t.double() if t.is_floating_point() else t).numpy())

    return Contender("torch", partial(function, **task.params), _operands(task, give), _results(back))


def _jax(task: Task, threads: int) -> Contender | str:
    del threads  # it takes the cores that the process is pinned to
    jax = imported("jax")
    jax.config.update("jax_enable_x64", True)
    function = functions.jax(jax, task.op.name, task.op.family)
    if function is None or task.op.mutates:
        return f"JAX {NOTHING}"
    if why := _unknown(task, "JAX", lambda name: getattr(jax.numpy, name, None)):
        return why
    run = jax.jit(partial(function, **task.params))

    def give(a: Array, f: Format) -> Any:
        return jax.numpy.asarray(f.exact(a), getattr(jax.numpy, f.name))

    return Contender("jax", lambda *a: jax.block_until_ready(run(*a)), _operands(task, give), _results(_widened))


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

    return Contender("onnxruntime", run, task.arrays, _results(_widened))


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
