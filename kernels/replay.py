"""What a rung asks of a device, written down so that it can be asked again for other arrays of the same kind, without the rung.

A rung that is registered with `replays=True` does no more on a device than take memory (`gpu.empty`) and launch Triton kernels
(`launch`), and what it asks for hangs on nothing but its parameters and the operands' formats, shapes, strides and alignment. So
the memory and the launches of one call are those of the next. `Script.run` is that next call, in plain Python;
`csrc/cpu/remembered_script.cpp` makes it from C++.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ulpgrad import settings
from ulpgrad.kernels import gpu
from ulpgrad.kernels.triton_arguments import Described, Typed


class Launched(NamedTuple):
    """One launch; in a script, places stand where arrays were."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]


class Setting(NamedTuple):
    """A variable of `settings` that a launch hangs on beside the call."""

    name: str


def hangs_on(name: str) -> None:
    """Note that what is asked of the device hangs on a variable of `settings`."""
    if gpu.state.heard is not None:
        gpu.state.heard.append(Setting(name))


class Place(NamedTuple):
    """An array among those of a script, the operands first, then what it makes; and the type that its memory is read as."""

    number: int
    dtype: Any

    def of(self, arrays: Sequence[Any]) -> Any:
        array = arrays[self.number]
        return array if array.dtype == self.dtype else array.view(self.dtype)


class Script(NamedTuple):
    """The memory that is taken (shapes and types), the launches, and which arrays are the results."""

    made: tuple[tuple[tuple[int, ...], Any], ...]
    launches: tuple[Launched, ...]
    results: tuple[int, ...]
    several: bool
    settings: tuple[str, ...]

    def run(self, *operands: Any) -> Any:
        """The call on other operands of the same kind, on the current device; of kernels without descriptors."""
        from ulpgrad.kernels.triton_launch import launch

        arrays = [*operands, *(gpu.empty(shape, dtype) for shape, dtype in self.made)]
        for kernel, grid, arguments, constants in self.launches:
            launch(kernel, grid, *(_again(a, arrays) for a in arguments), **constants)
        results = tuple(arrays[i] for i in self.results)
        return results if self.several else results[0]


def _again(argument: Any, arrays: Sequence[Any]) -> Any:
    match argument:
        case Place():
            return argument.of(arrays)
        case Typed(Place() as place, form):
            return Typed(place.of(arrays), form)
    return argument


def written(heard: Sequence[Any], operands: Sequence[Any], results: Any) -> tuple[Script, list[Launched]] | None:
    """The script of a call on these operands, from what was heard of it (`gpu.state.heard`), and its launches as they were; None
    where something was launched on, or given back, that is neither an operand nor memory taken in the call."""
    made = [h for h in heard if not isinstance(h, (Launched, Setting))]
    launches = [h for h in heard if isinstance(h, Launched)]
    names = tuple({h.name for h in heard if isinstance(h, Setting)})
    arrays = [*operands, *made]
    try:
        given = tuple(
            h._replace(arguments=tuple(_placed(a, arrays, len(operands)) for a in h.arguments)) for h in launches
        )
        several = isinstance(results, tuple)
        places = tuple(_number(r, made) for r in (results if several else (results,)))
    except LookupError:
        return None
    found = tuple((tuple(a.shape), a.dtype.char) for a in made)  # CuPy is slower to look up a dtype than its letter
    return Script(found, given, tuple(len(operands) + i for i in places), several, names), launches


def _number(array: Any, arrays: Sequence[Any]) -> int:
    for i, one in enumerate(arrays):
        if one is array:
            return i
    raise LookupError


def _placed(argument: Any, arrays: Sequence[Any], operands: int) -> Any:
    """An argument with a Place for its array. Views that begin where an array does are that array."""
    match argument:
        case Described(array):
            if gpu.mode() == "emulated":  # whose descriptors are views, and not made again
                raise LookupError
            return argument._replace(array=_placed(array, arrays, operands))
        case Typed(array, form):
            return Typed(_placed(array, arrays, operands), form)
    if not isinstance(argument, gpu.xp().ndarray):
        return argument
    for i, one in enumerate(arrays):
        if one is argument:
            return Place(i, argument.dtype)
    begins = [i for i, one in enumerate(arrays) if one is not None and one.data.ptr == argument.data.ptr]
    if len(begins) != 1:
        raise LookupError
    return Place(begins[0], argument.dtype)


def in_steps(script: Script, launches: Sequence[Launched]) -> tuple[Any, ...]:
    """The script as `remembered_script.cpp` takes it: memory, launches, and results.

    A launch is what is called with three sizes of the grid, the stream, some constants and the arguments (all in one tuple if
    `together`), and what a launch past Triton needs to know, with a map for each descriptor. An argument is the number of an
    array and what makes the argument of it (None: its address is the argument), or -1 and a value.
    """
    steps = []
    for given, launched in zip(script.launches, launches, strict=True):
        if gpu.mode() == "emulated":
            steps.append(_emulated(given))
            continue
        from ulpgrad.kernels import triton_device

        (call, before, together, packed), fixed = triton_device.ready(*launched)
        arguments: list[tuple[int, Any]] = []
        for place, argument in zip(map(_plain, given.arguments), launched.arguments, strict=True):
            again = triton_device.described_again(argument) if isinstance(argument, Described) else None
            arguments.append((place.number, again) if isinstance(place, Place) else (-1, place))
        arguments += [(-1, value) for value in fixed]
        maps = () if packed is None else triton_device.maps(packed, launched.arguments)
        steps.append((call, triton_device.sizes(given.grid), before, tuple(arguments), together, packed, maps))
    return script.made, tuple(steps), script.results, tuple(map(settings.watched, script.settings))


def _plain(argument: Any) -> Any:
    return argument.array if isinstance(argument, (Typed, Described)) else argument


def _emulated(given: Launched) -> tuple[Any, ...]:
    from ulpgrad.kernels.triton_launch import launch

    def call(x: int, y: int, z: int, stream: Any, *arguments: Any) -> None:
        launch(given.kernel, given.grid, *arguments, **given.constants)

    def maker(argument: Any) -> Callable[[Any], Any]:
        place = _plain(argument)
        first = place._replace(number=0)
        again = Typed(first, argument.form) if isinstance(argument, Typed) else first
        return lambda array: _again(again, (array,))

    places = [(_plain(a).number, maker(a)) if isinstance(_plain(a), Place) else (-1, a) for a in given.arguments]
    return call, (1, 1, 1), (), tuple(places), False, None, ()


__all__ = ["Launched", "Place", "Script", "Setting", "hangs_on", "in_steps", "written"]
