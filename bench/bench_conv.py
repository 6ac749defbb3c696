"""Convolution and its gradients beside torch's, from both layouts, in GFLOP/s.

    python -m ulpgrad.bench.bench_conv [--format bfloat16] [--threads 1]    # the table; `pytest bench` keeps the same figures

Samples are taken in turns, so that both meet the same machine; medians are compared. torch's own layouts are both in the table:
its kernels are faster channels last, and called channels first by most programs.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.bench.timing import measure, seconds
from ulpgrad.formats import Array, Format, as_format
from ulpgrad.kernels.conv import spec

SAMPLES = 9
SAMPLE = 5e-3  # seconds that one sample lasts about
FORMATS = ("float32", "bfloat16")
LAYOUTS = ("NCHW", "channels last")

Call = Callable[[], Any]


@dataclass(frozen=True)
class Shape:
    """Images [n, c, s, s] through filters [o, c / groups, k, k]; padding keeps their size where stride is 1."""

    name: str
    n: int
    c: int
    s: int
    o: int
    k: int
    stride: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        return self.k // 2

    @property
    def size(self) -> int:
        """Height and width of the result."""
        return (self.s + 2 * self.padding - self.k) // self.stride + 1

    @property
    def flops(self) -> float:
        return 2.0 * self.n * self.o * self.size**2 * (self.c // self.groups) * self.k**2

    @property
    def params(self) -> dict[str, Any]:
        pairs = {"stride": self.stride, "padding": self.padding, "dilation": 1}
        return {**{name: (value, value) for name, value in pairs.items()}, "groups": self.groups}


SHAPES = (
    Shape("64 channels, 56x56", 1, 64, 56, 64, 3),
    Shape("256 channels, 14x14", 2, 256, 14, 256, 3),
    Shape("512 channels, 7x7", 8, 512, 7, 512, 3),
    Shape("first layer, 7x7 filters", 1, 3, 224, 64, 7, stride=2),
    Shape("1x1, 256 to 64 channels", 1, 256, 56, 64, 1),
    Shape("stride 2, 128 to 256 channels", 2, 128, 28, 256, 3, stride=2),
    Shape("depthwise, 64 channels, 56x56", 4, 64, 56, 64, 3, groups=64),
    Shape("16 to 32 channels, 14x14, batch 64", 64, 16, 14, 32, 3),
)
PARTS = ("forward", "input gradient", "weight gradient")
TASKS = [(shape, layout, part) for shape in SHAPES for layout in LAYOUTS for part in PARTS]


def operands(shape: Shape) -> tuple[Array, Array, Array]:
    """Images, filters and the gradient of the result, at random."""
    random = np.random.default_rng(0)
    x, w = (shape.n, shape.c, shape.s, shape.s), (shape.o, shape.c // shape.groups, shape.k, shape.k)
    return random.normal(size=x), random.normal(size=w), random.normal(size=(shape.n, shape.o, shape.size, shape.size))


def laid(a: Array, layout: str) -> Array:
    """Images [n, c, h, w] in a layout of memory."""
    return a if layout == "NCHW" else np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def own(shape: Shape, layout: str, part: str, form: Format) -> Call:
    """The op as dispatch calls it."""
    x, w, g = (np.asarray(form.encode(a)) for a in operands(shape))
    x, g = laid(x, layout), laid(g, layout)
    image, kernel = {"size": (shape.s, shape.s)}, {"size": (shape.k, shape.k)}
    op, arrays, more = {
        "forward": (spec.conv2d, (x, w, None), {}),
        "input gradient": (spec.conv2d_input_gradient, (g, w), image),
        "weight gradient": (spec.conv2d_weight_gradient, (g, x), kernel),
    }[part]
    formats = tuple(None if a is None else form for a in arrays)
    return lambda: dispatch.call(op, formats, arrays, {**more, **shape.params})


def theirs(shape: Shape, layout: str, part: str, form: Format) -> Call | None:
    """The same in torch, on as many threads; None without torch."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    torch.set_num_threads(ug.get_num_threads())
    memory = torch.contiguous_format if layout == "NCHW" else torch.channels_last
    x, w, g = (
        torch.from_numpy(a).to(getattr(torch, form.name)).contiguous(memory_format=memory) for a in operands(shape)
    )
    pairs = [[value, value] for value in (shape.stride, shape.padding, 1)]
    if part == "forward":
        return lambda: torch.conv2d(x, w, None, *pairs, shape.groups)
    wanted = [part == "input gradient", part == "weight gradient", False]
    return lambda: torch.ops.aten.convolution_backward(
        g, x, w, None, *pairs, False, [0, 0], shape.groups, wanted
    )  # fmt: skip


def rates(shape: Shape, layout: str, part: str, form: Format) -> dict[str, float]:
    """GFLOP/s of all contenders: medians of samples in turns."""
    found = {"ulpgrad": own(shape, layout, part, form), "torch": theirs(shape, layout, part, form)}
    calls = {who: call for who, call in found.items() if call is not None}
    repeats = {who: max(1, round(SAMPLE / measure(call, 3).median)) for who, call in calls.items()}
    samples: dict[str, list[float]] = {who: [] for who in calls}
    for _ in range(SAMPLES):
        for who, call in calls.items():
            samples[who].append(seconds(call, repeats[who]) / repeats[who])
    return {who: shape.flops / statistics.median(times) / 1e9 for who, times in samples.items()}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: ", ".join((task[0].name, *task[1:])))
def test_convolution(benchmark: Any, task: tuple[Shape, str, str], form: str) -> None:
    benchmark.group = task[0].name
    benchmark.extra_info["gflops"] = benchmark.pedantic(lambda: rates(*task, as_format(form)), rounds=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Convolutions in GFLOP/s, and how many times as fast as torch.")
    parser.add_argument("--threads", type=int, default=ug.get_num_threads())
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0])
    given = parser.parse_args()
    ug.set_num_threads(given.threads)
    print(f"{'GFLOP/s, ' + given.format:<70}{'ulpgrad':>9}{'torch':>9}")
    for shape, layout, part in TASKS:
        found = rates(shape, layout, part, as_format(given.format))
        own_rate, peer = found["ulpgrad"], found.get("torch", float("nan"))
        print(
            f"{f'{shape.name}, {layout}, {part}':<70}{own_rate:>9.1f}{peer:>9.1f}{own_rate / peer:>7.2f}x", flush=True
        )


if __name__ == "__main__":
    main()
