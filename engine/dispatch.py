"""From a call on stored arrays to the rung that runs it: promotion, selection (memoised), widening, pinning and logging."""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from ulpgrad import settings
from ulpgrad.device import as_array, device_of, out_of_memory, retried
from ulpgrad.errors import DeviceError, HostFallbackWarning, KernelError, ShapeError, UlpgradError
from ulpgrad.formats import Array, Format, compute_format
from ulpgrad.formats.promotion import result_format
from ulpgrad.kernels import capture, gpu, registry
from ulpgrad.kernels.copy import copied
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op

Formats = tuple[Format | None, ...]


class Plan(NamedTuple):
    """What a kind of call comes down to: one function over stored arrays, and the formats of its results."""

    run: Callable[..., Any]
    formats: tuple[Format, ...]
    rung: registry.Rung
    widened: bool
    replays: bool = False  # whether what it asks of a device can be asked again without it (`ulpgrad.kernels.replay`)

    def run_on(self, arrays: tuple[Any, ...]) -> Callable[..., Any]:
        """`run` for arrays of these layouts: contiguous ones need not be looked at again."""
        inner: Callable[..., Any] | None = getattr(self.run, "on_contiguous", None)
        contiguous = all(a is None or (a.__class__ is np.ndarray and a.flags.c_contiguous) for a in arrays)
        return inner if inner is not None and contiguous else self.run


MOST_PLANS = 4096  # affine formats are made with every scale; what is forgotten is planned again
_plans: dict[tuple[Any, ...], Plan] = {}
registry.on_change(_plans.clear)
_pins: ContextVar[Mapping[str, str]] = ContextVar("pins", default=MappingProxyType({}))


operand_policy: ContextVar[Callable[[str, tuple[Any, ...]], tuple[Any, ...]] | None] = ContextVar(
    "policy", default=None
)


class CallPolicy(Protocol):
    """What takes over whole calls: `call` runs a Primitive, `whole` a function made of several."""

    def call(self, primitive: Any, tensors: tuple[Any, ...], params: dict[str, Any]) -> tuple[Any, ...]: ...

    def whole(self, name: str, function: Callable[..., Any], args: Any, options: Any) -> Any: ...


call_policy: ContextVar[CallPolicy | None] = ContextVar("call policy", default=None)


class _State:
    """`special` is true while a pin, the log or a policy (autocast) is active anywhere; the fast roads look at nothing else.
    `log` is true while calls are printed or listened to."""

    def __init__(self) -> None:
        self.special = self.log = self.printed = False
        self.listeners = self.pinned = self.policies = 0

    def count(self, *, pinned: int = 0, policies: int = 0, listeners: int = 0) -> None:
        """Note pins, policies and listeners that begin (1) or end (-1)."""
        self.pinned += pinned
        self.policies += policies
        self.listeners += listeners
        self.log = self.printed or self.listeners > 0
        self.special = self.log or self.pinned > 0 or self.policies > 0


state = _State()


def is_pinned(name: str) -> bool:
    """Whether a rung of the op is pinned."""
    return state.pinned > 0 and name in _pins.get()


def convert(array: Any, source: Format, target: Format) -> Any:
    """Stored values of one format as those of another, where the array lies: `ulpgrad.kernels.cast.convert` for any device."""
    from ulpgrad.kernels import cast
    from ulpgrad.kernels.cast import spec

    if isinstance(array, (np.ndarray, np.generic)):
        return cast.convert(array, source, target)  # type: ignore[arg-type]
    return call(spec.cast, (source,), (array,), {"dtype": target})[0]


def device_type(arrays: tuple[Any, ...]) -> str:
    """The device that all arrays lie on: "cpu" or "cuda:N". DeviceError if they differ."""
    for a in arrays:
        if a is not None and a.__class__ is not np.ndarray:
            break
    else:
        return "cpu"
    devices = {device_of(a) for a in arrays if a is not None}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise DeviceError(f"operands lie on different devices ({names}): move them with .to(device)")
    return str(devices.pop())


def placed(arrays: tuple[Any, ...]) -> tuple[tuple[Any, ...], str]:
    """`together` and `device_type` in one look, where all operands lie on one device already."""
    place, on_host = -1, False
    try:
        for a in arrays:
            if a.__class__ is np.ndarray:
                on_host = True
            elif a is not None:
                index = a.device.id
                on_host = on_host or (place >= 0 and index != place)
                place = index
    except (AttributeError, UlpgradError):  # an array of another kind
        on_host, place = True, 0
    if place < 0:
        return arrays, "cpu"
    if not on_host:
        return arrays, f"cuda:{place}"
    arrays = together(arrays)
    return arrays, device_type(arrays)


def together(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Operands of one call, single values of the host moved to where the others are: numbers in expressions are such."""
    places = {
        int(a.device.id) for a in arrays if a is not None and a.__class__ is not np.ndarray and hasattr(a, "device")
    }
    if len(places) != 1:
        return arrays
    index = places.pop()
    return tuple(constant(a, index) if a.__class__ is np.ndarray and a.ndim == 0 else a for a in arrays)


def constant(array: Array, index: int) -> Any:
    """A small array of the host in the memory of a GPU, where it is kept, and where nobody may write to it."""
    return capture.kept(_on_gpu(array.tobytes(), array.dtype, array.shape, *gpu.queue(index)))


@lru_cache(1024)
def _on_gpu(values: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], index: int, stream: int) -> Any:
    return capture.constant(np.frombuffer(values, dtype).reshape(shape), index)


def _promoted(op: Op, formats: Formats) -> Formats:
    """The formats operands are converted to before the kernel."""
    if op.promote is False:
        return formats
    chosen = range(len(formats)) if op.promote is True else op.promote
    part = [formats[i] for i in chosen if i < len(formats) and formats[i] is not None]
    if len(part) < 2 or all(f is part[0] for f in part):
        return formats
    target = result_format(*(f for f in part if f is not None))
    return tuple(target if f is not None and i in chosen else f for i, f in enumerate(formats))


def make_plan(op: Op, device: str, formats: Formats, arrays: tuple[Any, ...], params: dict[str, Any]) -> Plan:
    """Select a rung and wrap it with the conversions that the call needs, outermost first."""
    op.takes(formats)
    common = _promoted(op, formats)
    outs = op.result_formats(common, params)
    kind, _, index = device.partition(":")
    request, pinned = Request(op, kind, common, arrays, params), _pins.get().get(op.name)
    try:
        rung, widened = registry.select(request, pinned)
    except KernelError as error:
        if kind == "cpu" or (pinned is not None and not pinned.startswith("cpu/")):
            raise
        return _through_host(op, int(index), formats, arrays, params, error)
    wide = tuple(None if f is None else compute_format(f) for f in common) if widened else common
    run = rung.run(request.with_formats(wide)) if rung.build else rung.run
    if rung.contiguous:
        run = _contiguous(run)
    wide_outs, replays = op.result_formats(wide, params), rung.replays and not op.mutates
    if wide != formats or wide_outs != outs:
        run = _converting(run, tuple(zip(formats, wide, strict=True)), tuple(zip(wide_outs, outs, strict=True)))
        replays = False
    if kind != "cpu":
        run = _on_device(run, int(index), bool(op.mutates))
    return Plan(run, outs, rung, widened, replays)


def _on_device(run: Callable[..., Any], index: int, mutates: bool) -> Callable[..., Any]:
    """`run` on the device of its operands, whatever the current one is. What writes in place is not begun twice."""

    def call(*arrays: Any, **params: Any) -> Any:
        if current() == index:
            try:
                return run(*arrays, **params)
            except gpu.xp().cuda.memory.OutOfMemoryError:
                pass
        return retried(index, run, *arrays, **params)

    current = gpu.xp().cuda.runtime.getDevice

    def once(*arrays: Any, **params: Any) -> Any:
        with gpu.on_device(index):
            try:
                return run(*arrays, **params)
            except gpu.xp().cuda.memory.OutOfMemoryError as error:
                raise out_of_memory(index, error) from error

    return once if mutates else call


def note_fallback(name: str, reason: str) -> None:
    """Warn that a call runs on the CPU, between copies; KernelError where that is forbidden."""
    if settings.get("ULPGRAD_HOST_FALLBACK") == "0":
        raise KernelError(f"{reason}; ULPGRAD_HOST_FALLBACK=0 forbids running it on the CPU")
    warnings.warn(
        f"{name}: no GPU kernel takes this call; it runs on the CPU, between copies there and back "
        f"(ULPGRAD_HOST_FALLBACK=0 makes this an error; ulpgrad.explain says why)",
        HostFallbackWarning,
        stacklevel=6,
    )


def _through_host(
    op: Op, index: int, formats: Formats, arrays: tuple[Any, ...], params: dict[str, Any], error: KernelError
) -> Plan:
    """For a call that no kernel of the GPU takes: the plan of the CPU, between copies there and back."""
    host, reason = make_plan(op, "cpu", formats, tuple(map(gpu.to_host, arrays)), params), str(error)

    def call(*arrays: Any, **params: Any) -> Any:
        note_fallback(op.name, reason)
        given = [gpu.to_host(a) for a in arrays]
        results = host.run(*given, **params)
        if op.mutates:
            targets: tuple[Any, ...] = op.mutated(arrays)
            for target, new in zip(targets, op.mutated(given), strict=True):
                with gpu.on_device(index):
                    target.set(new)
            return targets[0] if len(targets) == 1 else targets
        several = isinstance(results, tuple)
        back = tuple(gpu.to_device(np.asarray(r), index) for r in (results if several else (results,)))
        return back if several else back[0]

    return Plan(call, host.formats, host.rung, host.widened)


def _contiguous(run: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arrays: Any, **params: Any) -> Any:
        for a in arrays:
            if a is not None and not a.flags.c_contiguous:
                return run(*[a if a is None or a.flags.c_contiguous else copied(a) for a in arrays], **params)
        return run(*arrays, **params)

    call.on_contiguous = run  # type: ignore[attr-defined]
    return call


def _converting(
    run: Callable[..., Any],
    ins: tuple[tuple[Format | None, Format | None], ...],
    outs: tuple[tuple[Format, Format], ...],
) -> Callable[..., Any]:
    def call(*arrays: Array | None, **params: Any) -> Any:
        given = [
            a if a is None or source is target or source is None or target is None else convert(a, source, target)
            for a, (source, target) in zip(arrays, ins, strict=True)
        ]
        results = run(*given, **params)
        if len(outs) == 1:
            return results if outs[0][0] is outs[0][1] else convert(as_array(results), *outs[0])
        return tuple(r if s is t else convert(as_array(r), s, t) for r, (s, t) in zip(results, outs, strict=True))

    return call


def plan(op: Op, formats: Formats, arrays: tuple[Any, ...], params: dict[str, Any], device: str | None = None) -> Plan:
    """The memoised plan of a call; `device` for one without operands, which elsewhere say where it runs."""
    device = device or device_type(arrays)
    key = (op, device, formats, None if op.key is None else op.key(*arrays, **params))
    if state.special and _pins.get():
        return make_plan(op, device, formats, arrays, params)
    found = _plans.get(key)
    if found is None:
        if len(_plans) >= MOST_PLANS:
            _plans.clear()
        found = _plans[key] = make_plan(op, device, formats, arrays, params)
    return found


def call(
    op: Op, formats: Formats, arrays: tuple[Any, ...], params: dict[str, Any], device: str | None = None
) -> tuple[Any, tuple[Format, ...]]:
    """Check the arguments, choose a rung, run it. Returns the stored result (a tuple for several) and the formats."""
    if device is None:
        device = "cpu"
        for a in arrays:
            if a is not None and a.__class__ is not np.ndarray:
                arrays, device = placed(arrays)
                break
    if op.check is not None:
        op.check(*arrays, **params)
    chosen = plan(op, formats, arrays, params, device)
    if state.log:
        return _logged(chosen, op, formats, arrays, params), chosen.formats
    try:
        return chosen.run(*arrays, **params), chosen.formats
    except (FloatingPointError, RuntimeWarning):  # the caller has made errors of NumPy's events; here they are values
        with np.errstate(all="ignore"):
            return chosen.run(*arrays, **params), chosen.formats
    except ValueError as error:  # what passes the check and still fails: results of more bytes than can be counted
        if isinstance(error, UlpgradError):
            raise
        shapes = ", ".join(str(a.shape) for a in arrays if a is not None)
        raise ShapeError(f"{op.name} of {shapes}: {error}") from error


Call = tuple[Op, Formats, tuple[Any, ...], dict[str, Any]]
Timer = Callable[["Plan", Call, Any, float, float], None]
_timer: ContextVar[Timer | None] = ContextVar("timer", default=None)


@contextlib.contextmanager
def timed(timer: Timer) -> Iterator[None]:
    """Let `timer` have every kernel call inside the block: its plan, the call, the results, and when it began and ended. A call
    that another one makes comes before that one. What runs on a GPU is waited for."""
    token = _timer.set(timer)
    state.count(listeners=1)
    try:
        yield
    finally:
        _timer.reset(token)
        state.count(listeners=-1)


def calls_of(run: Callable[[], Any]) -> list[Call]:
    """The kernel calls that a function makes, in the order in which they began; the function is run."""
    heard: list[tuple[float, Call]] = []
    with timed(lambda plan, call, out, start, end: heard.append((start, call))):
        run()
    return [call for _, call in sorted(heard, key=itemgetter(0))]


def _logged(chosen: Plan, op: Op, formats: Formats, arrays: tuple[Any, ...], params: dict[str, Any]) -> Any:
    timer = _timer.get()
    if not state.printed and timer is None:
        return chosen.run(*arrays, **params)
    start = time.perf_counter()
    out = chosen.run(*arrays, **params)
    if timer is not None:
        if chosen.rung.device != "cpu":
            gpu.xp().cuda.get_current_stream().synchronize()
        timer(chosen, (op, formats, arrays, params), out, start, time.perf_counter())
    if not state.printed:
        return out
    elapsed = (time.perf_counter() - start) * 1e6
    operands = " ".join(
        f"{f}{list(a.shape)}".replace(" ", "") for f, a in zip(formats, arrays, strict=True) if a is not None
    )
    wide = " widened" if chosen.widened else ""
    print(f"{op.name:<22} {chosen.rung.name:<22} {elapsed:9.1f} us  {operands}{wide}", file=sys.stderr)
    return out


@contextlib.contextmanager
def use(**pins: str) -> Iterator[None]:
    """Pin ops to rungs inside the block: `with use(matmul="cpu/numba-tiled"): ...`.

    Holds for this thread (context) only. Raises KernelError for an unknown op or rung at once, and at the call if the
    pinned rung cannot run it.
    """
    for name, rung in pins.items():
        op = registry.find(name)
        registry.scan(op.family, rung.split("/")[0])
        if not any(r.name == rung for r in registry.ladder(op, rung.split("/")[0])):
            registry.select(Request(op, "cpu", (), (), {}), rung)  # raises, with the names there are
    token = _pins.set({**_pins.get(), **pins})
    state.count(pinned=1)
    try:
        yield
    finally:
        _pins.reset(token)
        state.count(pinned=-1)


def log_kernels(on: bool = True) -> None:
    """Print a line per kernel call to standard error (also: ULPGRAD_LOG=kernels)."""
    state.printed = on
    state.count()


if settings.get("ULPGRAD_LOG") == "kernels":
    log_kernels()
elif settings.get("ULPGRAD_LOG"):
    raise UlpgradError(f"ULPGRAD_LOG={settings.get('ULPGRAD_LOG')!r}: expected 'kernels' or nothing")
