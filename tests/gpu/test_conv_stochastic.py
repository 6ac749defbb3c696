"""Results of convolutions rounded by random words inside the CUDA C++ kernels: bit for bit what `quantize` makes of the same
kernel's results in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import Format, as_format, bfloat16, float16, float32
from ulpgrad.kernels import gpu, registry
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.matmul.spec import drawn

RUNGS = {r.name: r for r in registry.ladder(spec.conv2d_stochastic, "cuda")}
TARGETS = [("bfloat16", 24), ("float16", 32), ("float8_e4m3fn", 3), ("float8_e5m2", 31)]
#         images           filters        stride  padding  dilation groups
SHAPES = (
    ((2, 16, 9, 7), (70, 16, 3, 3), (2, 1), (1, 2), (1, 1), 1),  # ragged tiles
    ((1, 32, 5, 6), (48, 16, 2, 3), (1, 1), (1, 1), (1, 2), 2),
)
WIDE = (((2, 64, 4, 3), (72, 64, 3, 3), (2, 1), (1, 2), (1, 1), 1),)  # what the units of sm_90 take


def called(op: Any, rung: str, form: Format, arrays: Any, **params: Any) -> Any:
    given = tuple(None if a is None else gpu.to_device(a) for a in arrays)
    with dispatch.use(**{op.name: rung}):
        return gpu.to_host(dispatch.call(op, tuple(None if a is None else form for a in arrays), given, params)[0])


@pytest.mark.parametrize(("to", "bits"), TARGETS)
@pytest.mark.parametrize(
    ("rung", "form"),
    [(name, f) for name, r in RUNGS.items() for f in (float32, bfloat16, float16) if f in r.formats],
    ids=str,
)
def test_bits(rung: str, form: Format, to: str, bits: int) -> None:
    """Values of all sizes, beyond the target's largest and below its least ones; words that carry within the counter."""
    target, stream = as_format(to), {"key": 0x299F31D0A4093822, "counter": 2**64 - 3, "random_bits": bits}
    for i, (x, weight, stride, padding, dilation, groups) in enumerate(WIDE if "warpgroup" in rung else SHAPES):
        rng = np.random.default_rng(i)
        filters = rng.standard_normal(weight) * 2.0 ** rng.integers(-9, 5, (weight[0], 1, 1, 1))
        rest = (
            rng.standard_normal(weight[0]) / 64,
            rng.standard_normal(weight[0]) * 2.0 ** rng.integers(-9, 5, weight[0]),
        )
        arrays = [form.encode(a) for a in (rng.standard_normal(x), filters, *rest)]
        if i:
            arrays[0] = np.ascontiguousarray(arrays[0].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        how["activation"] = (None, "relu")[i]
        y = called(spec.conv2d_finished, rung, form, (*arrays, None), **how, dtype=float32)
        found = called(spec.conv2d_stochastic, rung, form, arrays, **how, dtype=target, **stream)
        wanted = target.encode(drawn(y, target, **stream))
        np.testing.assert_array_equal(found.view(f"u{target.itemsize}"), wanted.view(f"u{target.itemsize}"))
        assert len(np.unique(found.view(f"u{target.itemsize}"))) > 40


def test_every_place_between_neighbours() -> None:
    """Values that are, lie between and lie beyond neighbours of each target, infinities and NaN among them: a filter of one."""
    exponents = (-149, -140, -133, -126, -27, -24, -15, -14, -9, -7, -6, 0, 8, 15, 16, 127)
    values = np.concatenate([np.ldexp(np.linspace(1, 1.99, 97), e) for e in exponents]).astype(np.float32)
    values = np.concatenate([values, -values, np.float32([0.0, np.inf, -np.inf, np.nan])])
    x, one = values.reshape(1, 1, 1, -1), np.ones((1, 1, 1, 1), np.float32)
    how = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    for to, bits in (*TARGETS, ("float16", 1), ("bfloat16", 16)):
        target, stream = as_format(to), {"key": 3, "counter": 2**128 - 9, "random_bits": bits}
        found = called(
            spec.conv2d_stochastic, "cuda/cuda-direct", float32, (x, one, None, None), **how, dtype=target, **stream
        )
        wanted = target.encode(drawn(x, target, **stream))
        as_bits = f"u{target.itemsize}"
        np.testing.assert_array_equal(found.view(as_bits), wanted.view(as_bits), err_msg=to)


@pytest.mark.parametrize("to", [t for t, _ in TARGETS])
def test_conv2d_draws_the_bits_of_the_cpu(to: str) -> None:
    """Sums of whole numbers, which are the same in any order; in one kernel, or in steps where a gradient is recorded."""
    rng = np.random.default_rng(0)
    x, w, b = (rng.integers(-50, 51, s).astype(np.float32) for s in ((2, 16, 6, 5), (10, 16, 3, 3), (10,)))
    s = np.exp2(rng.integers(-9, -4, 10)).astype(np.float32)

    def run(device: str, **options: Any) -> Any:
        given = [ug.asarray(a).to(device) for a in (x, w, b)]
        given[1].requires_grad = "recorded" in options
        return ug.conv2d(*given, padding=1, activation="relu", scale=ug.asarray(s).to(device), dtype=to,
                         rounding="stochastic", generator=ug.Generator(5))  # fmt: skip

    wanted, found = run("cpu"), []
    calls = dispatch.calls_of(lambda: found.append(run("cuda")))
    assert [op.name for op, *_ in calls] == ["conv2d_stochastic"]
    found.append(run("cuda", recorded=True))
    for y in found:
        np.testing.assert_array_equal(gpu.to_host(y.storage).view("u1"), wanted.storage.view("u1"))
    y.sum().backward()
    nearest = ug.conv2d(
        ug.asarray(x), ug.asarray(w), ug.asarray(b), padding=1, activation="relu", scale=ug.asarray(s), dtype=to
    )
    assert (nearest.storage != wanted.storage).any()


def test_a_graph_draws_anew() -> None:
    """Replays take the words that calls would have taken, which a kernel that has them as numbers could not."""
    x, w = (ug.rand(*size, generator=ug.Generator(1)).to("cuda") for size in ((2, 3, 6, 5), (4, 3, 3, 3)))
    found = []
    for captured in (True, False):
        generator = ug.Generator(5)

        def step(x: ug.Tensor, generator: ug.Generator = generator) -> ug.Tensor:
            return ug.conv2d(x, w, dtype="bfloat16", rounding="stochastic", generator=generator)

        call = ug.cuda.make_graphed(step) if captured else step
        found.append([(call(x).to("float32").numpy().tobytes(), generator.position) for _ in range(4)])
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


def test_what_is_refused() -> None:
    x, w = ug.ones((1, 2, 4, 4)), ug.ones((3, 2, 3, 3))
    with pytest.raises(ArgumentError, match="wants dtype="):
        ug.conv2d(x, w, rounding="stochastic")
    with pytest.raises(ArgumentError, match="expected 'nearest_even' or 'stochastic'"):
        ug.conv2d(x, w, rounding="up", dtype="bfloat16")
    with pytest.raises(FormatError, match="at most 16 bits"):
        ug.conv2d(x, w, rounding="stochastic", dtype=float32)
