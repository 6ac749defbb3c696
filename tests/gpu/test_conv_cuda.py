"""The CUDA rungs of convolution beyond the registry's samples: layouts, groups, strides, what is not finite, bits that repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch, nn
from ulpgrad.errors import KernelError
from ulpgrad.formats import Format, bfloat16, float8_e4m3fn, float8_e5m2, float16, float32, float64
from ulpgrad.kernels import gpu, registry
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.conv import cuda_units, cuda_warpgroup, spec
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op

OPS = (spec.conv2d, spec.conv2d_input_gradient, spec.conv2d_weight_gradient)
RUNGS = [(op, r.name) for op in OPS for r in registry.ladder(op, "cuda") if r.name.startswith("cuda/cuda")]
RUNG = pytest.mark.parametrize(("op", "rung"), [pytest.param(*r, id=f"{r[0].name}-{r[1]}") for r in RUNGS])
SAME: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
UNIT = {float32: 2.0**-24, float64: 2.0**-53, bfloat16: 2.0**-8, float16: 2.0**-11}
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 16, 6, 7), (16, 16, 3, 3), {}),
    ((1, 72, 5, 4), (72, 72, 3, 3), {}),
    ((2, 32, 9, 8), (24, 16, 3, 3), {"groups": 2, "stride": (2, 3)}),
    ((1, 8, 7, 9), (40, 8, 2, 5), {"stride": (3, 1), "padding": (2, 4), "dilation": (2, 3)}),
    ((2, 8, 11, 9), (8, 8, 2, 2), {"stride": (4, 3), "padding": (0, 0)}),
]


def channels_last(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def on_device(a: np.ndarray) -> Any:
    """As it lies: CuPy itself would put any other layout than C's or Fortran's in C's order."""
    if a.ndim == 4 and a.strides[1] == a.itemsize:
        return gpu.xp().asarray(np.ascontiguousarray(a.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    return gpu.xp().asarray(a)


def problem(
    op: Op, x: tuple[int, ...], weight: tuple[int, ...], **given: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Exact operands in small eighths, and parameters."""
    random, params = np.random.default_rng(0), {**SAME, **given}
    images, filters = (random.integers(-8, 9, shape) / 8 for shape in (x, weight))
    positions = spec.conv2d.reference(images, filters, None, **params).shape
    g = random.integers(-8, 9, positions) / 8
    match op.name:
        case "conv2d":
            return (images, filters, random.integers(-8, 9, weight[0]) / 8), params
        case "conv2d_input_gradient":
            return (g, filters), {**params, "size": x[2:]}
    return (g, images), {**params, "size": weight[2:]}


def run(op: Op, rung: str, form: Format, arrays: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """By a rung, on the device; refused calls raise KernelError."""
    given = tuple(None if a is None else on_device(a) for a in arrays)
    formats = tuple(None if a is None else form for a in arrays)
    with dispatch.use(**{op.name: rung}):
        return dispatch.make_plan(op, "cuda:0", formats, given, params).run(*given, **params)


def stored(form: Format, values: np.ndarray, last: bool) -> np.ndarray:
    codes = np.asarray(form.encode(values))
    return channels_last(codes) if last and codes.ndim == 4 else codes


@RUNG
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize(("x", "weight", "given"), SHAPES)
def test_layouts_groups_and_strides(op: Op, rung: str, last: bool, x: Any, weight: Any, given: Any) -> None:
    for form in (float32, bfloat16):
        arrays, params = problem(op, x, weight, **given)
        if not can(op, rung, form, arrays, params):
            continue
        found = run(op, rung, form, tuple(stored(form, a, last) for a in arrays), params)
        want, size = op.reference(*arrays, **params), op.magnitude(*arrays, **params)  # type: ignore[misc]
        error = np.abs(form.exact(gpu.to_host(found)) - want)
        assert (error <= 8 * UNIT[float32] * size + UNIT[form] * np.abs(want)).all()
        if op is not spec.conv2d_weight_gradient:
            assert (found.strides[1] == found.itemsize) == last


def can(op: Op, rung: str, form: Format, arrays: tuple[Any, ...], params: dict[str, Any]) -> bool:
    given = tuple(gpu.xp().asarray(stored(form, a, False)) for a in arrays)
    entry = next(r for r in registry.ladder(op, "cuda") if r.name == rung)
    return entry.refusal(Request(op, "cuda", (form,) * len(arrays), given, params)) is None


@pytest.mark.parametrize(("rung", "form"), [("matrix", float16), ("tf32", float32), ("warpgroup", float16)])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_wide_tiles_give_the_bits_of_narrow_ones(
    op: Op, rung: str, form: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both add up in one order; wide ones are otherwise taken where there is more to do than tests have."""
    random = np.random.default_rng(3)
    arrays, params = problem(op, (2, 80, 7, 6), (72, 80, 3, 3))
    given = tuple(stored(form, random.normal(size=a.shape) / 16, True) for a in arrays)
    if (op, f"cuda/cuda-{rung}") not in RUNGS or not can(op, f"cuda/cuda-{rung}", form, arrays, params):
        pytest.skip(f"{rung} has no {op.name} here")
    narrow = run(op, f"cuda/cuda-{rung}", form, given, params)
    monkeypatch.setattr(cuda_units, "MANY", 0)
    monkeypatch.setattr(cuda_warpgroup, "MANY", 0)
    wide = run(op, f"cuda/cuda-{rung}", form, given, params)
    assert gpu.to_host(narrow).tobytes() == gpu.to_host(wide).tobytes()
    exact = tuple(map(form.exact, given))
    error = 2e-3 if form is float16 else 2e-6  # one TF32 product would be off by 5e-4
    np.testing.assert_allclose(form.exact(gpu.to_host(wide)), op.reference(*exact, **params), rtol=error, atol=error)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_infinities_in_parts_of_float32_stay_infinities(op: Op) -> None:
    """An infinite operand has a part that is NaN, and the largest one rounds to infinity."""
    arrays, params = problem(op, (2, 8, 6, 7), (8, 8, 3, 3))
    images = np.abs(arrays[0]) + 0.125
    images[0, 3, 2, 2] = np.inf
    for largest in (np.inf, np.finfo(np.float32).max):
        images[1, 2, 3, 3] = largest
        given = (images, np.abs(arrays[1]) / 32 + 0.03, *arrays[2:])
        want = op.reference(*(a.astype(np.float32) for a in given), **params)
        codes = tuple(stored(float32, a, True) for a in given)
        found = float32.exact(gpu.to_host(run(op, "cuda/cuda-tf32", float32, codes, params)))
        assert np.isinf(want).any()
        assert np.isfinite(want).any() or op is spec.conv2d_weight_gradient
        np.testing.assert_allclose(found, want.astype(np.float32), rtol=2e-5)


def test_winograd_errs_where_a_large_weight_meets_little() -> None:
    """A result has rounding errors of a filter's largest weight, also where that one meets padding. What is not finite is as
    the definition says."""
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(1, 4, 9, 8)), random.normal(size=(8, 4, 3, 3))
    worst = {}
    for large, pixel in ((1.0, 1.0), (2.0**12, 1.0), (1.0, np.inf)):
        images, filters = x.copy(), weight.copy()
        filters[:, :, 0, 0] *= large
        images[0, 1, 4, 4] *= pixel
        codes = tuple(stored(float32, a, False) for a in (images, filters))
        want, size = (f(*codes, None, **SAME) for f in (spec.conv2d.reference, spec.conv2d.magnitude))  # type: ignore[misc]
        for rung in ("direct", "winograd"):
            found = gpu.to_host(run(spec.conv2d, f"cuda/cuda-{rung}", float32, (*codes, None), SAME))
            is_finite = np.isfinite(want)
            np.testing.assert_array_equal(found[~is_finite], want[~is_finite])
            error = np.abs(found[is_finite] - want[is_finite]) / size[is_finite]
            worst[rung, large, pixel] = error.max() / UNIT[float32]
    assert max(error for (rung, large, _), error in worst.items() if rung == "direct" or large == 1) < 8
    assert worst["winograd", 2.0**12, 1.0] > 100


def test_a_user_may_ask_for_ordinary_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULPGRAD_FLOAT32_MATMUL", "ieee")
    arrays, params = problem(spec.conv2d, (2, 8, 6, 7), (8, 8, 3, 3))
    with pytest.raises(KernelError, match="ULPGRAD_FLOAT32_MATMUL=ieee asks for the ordinary units"):
        run(spec.conv2d, "cuda/cuda-tf32", float32, tuple(stored(float32, a, False) for a in arrays), params)


@pytest.mark.parametrize("rung", [name for op, name in RUNGS if op is spec.conv2d_input_gradient])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_weights_that_are_not_finite_meet_no_padding_in_the_input_gradient(rung: str, bad: float) -> None:
    op = spec.conv2d_input_gradient
    (g, weight), params = problem(op, (2, 16, 6, 7), (16, 16, 3, 3), stride=(1, 2))
    weight[3, 2, 0, 1], g[1, 5, 0, 0] = bad, np.inf
    with np.errstate(invalid="ignore"):
        want = op.reference(g, weight, **params)
    assert np.isfinite(want).any()
    assert not np.isfinite(want).all()
    form = float32 if can(op, rung, float32, (g, weight), params) else bfloat16
    if not can(op, rung, form, (g, weight), params):
        pytest.skip(f"{rung} cannot run here")
    found = run(op, rung, form, (stored(form, g, False), stored(form, weight, False)), params)
    np.testing.assert_array_equal(np.isfinite(form.exact(gpu.to_host(found))), np.isfinite(want))


@RUNG
def test_both_layouts_and_every_run_give_the_same_bits(op: Op, rung: str) -> None:
    random = np.random.default_rng(1)
    arrays, params = problem(op, (3, 16, 11, 13), (24, 16, 3, 3), stride=(2, 1))
    if rung in ("cuda/cuda-winograd", "cuda/cuda-warpgroup"):
        arrays, params = problem(op, (3, 16, 11, 13), (24, 16, 3, 3))
    arrays = tuple(random.normal(size=a.shape) for a in arrays)
    form = float32 if can(op, rung, float32, arrays, params) else bfloat16
    if not can(op, rung, form, arrays, params):
        pytest.skip(f"{rung} cannot run here")
    bits = {
        gpu.to_host(run(op, rung, form, tuple(stored(form, a, last) for a in arrays), params)).tobytes()
        for last in (False, True, True)
    }
    assert len(bits) == 1


def test_a_pooled_convolution_in_16_bits_is_rounded_once() -> None:
    """With an activation between rounding and result, the sums stay in float32."""
    random = np.random.default_rng(2)
    x, weight = random.normal(size=(2, 8, 6, 7)), random.normal(size=(16, 8, 3, 3)) / 4
    params = {k: v for k, v in SAME.items() if k != "groups"} | {"window": (2, 3), "activation": "gelu"}
    codes = tuple(stored(bfloat16, a, True) for a in (x, weight))
    y, places = run(spec.conv2d_max_pool, "cuda/cuda-pooled", bfloat16, (*codes, None), params)
    want, largest = spec.conv2d_max_pool.reference(*map(bfloat16.exact, codes), None, **params)
    np.testing.assert_array_equal(gpu.to_host(places), largest)
    np.testing.assert_allclose(bfloat16.exact(gpu.to_host(y)), want, rtol=2.0**-8, atol=1e-6)
    assert y.strides[1] == y.itemsize


ONES = np.ones((1, 4, 3, 3), "f")


@pytest.mark.parametrize(
    ("op", "rung", "arrays", "given", "reason"),
    [
        (spec.conv2d, "direct", (ONES, ONES, None), {"padding": (2**31 - 1, 0)}, "padded images of up to"),
        (spec.conv2d, "registers", (ONES, ONES[0, :, None], None), {"groups": 4}, "groups of at least 8"),
        (
            spec.conv2d_input_gradient,
            "tiles",
            (ONES[:, :, :1], ONES[:, :, :1, :1].transpose(1, 0, 2, 3)),
            {"stride": (70000, 1), "size": (70000, 3), "padding": (0, 0)},
            "groups times phases of the strides",
        ),
    ],
    ids=["coordinates", "groups", "phases"],
)
def test_a_rung_says_what_it_cannot_take(op: Op, rung: str, arrays: Any, given: Any, reason: str) -> None:
    with pytest.raises(KernelError, match=reason):
        run(op, f"cuda/cuda-{rung}", float32, arrays, {**SAME, **given})


FINISHED = [r.name for r in registry.ladder(spec.conv2d_finished, "cuda") if r.name.startswith("cuda/cuda")]
FINISHES: list[tuple[str, dict[str, Any]]] = [
    ("scale", {}),
    ("residual", {}),
    ("bias scale residual", {"activation": "relu", "residual_first": True}),
    ("bias scale residual", {"activation": "silu"}),
    ("bias residual", {"activation": "gelu", "residual_first": True}),
    ("bias scale", {"activation": "tanh"}),
    ("bias", {"activation": "sigmoid"}),
    ("", {}),
]


@pytest.mark.parametrize("rung", FINISHED)
@pytest.mark.parametrize("form", [float32, float16, bfloat16], ids=str)
@pytest.mark.parametrize("stored", [None, float32, float16, bfloat16], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_what_follows_a_convolution(rung: str, form: Format, stored: Format | None, last: bool) -> None:
    """Every part by itself and with others, rounded once to every format, residuals in either layout."""
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(2, 16, 6, 5)), random.normal(size=(24, 16, 3, 3)) / 12
    shapes = {"bias": (24,), "scale": (24,), "residual": (2, 24, 6, 5)}
    rest = {name: random.normal(size=shape) for name, shape in shapes.items()}
    for number, (names, finish) in enumerate(FINISHES):
        wanted = [rest[name] if name in names.split() else None for name in shapes]
        arrays = [None if a is None else np.asarray(form.encode(a)) for a in (x, weight, *wanted)]
        params = {**SAME, **finish, "dtype": stored}
        if not can_finish(rung, form, arrays, params):
            pytest.skip(f"{rung} takes no {form}")
        exact = [None if a is None else form.exact(a) for a in arrays]
        want = spec.conv2d_finished.reference(*exact, **params)
        size = spec.conv2d_finished.magnitude(*exact, **params)  # type: ignore[misc]
        laid = [a if a is None or a.ndim < 4 or not last else channels_last(a) for a in arrays]
        if laid[4] is not None and number % 2:
            laid[4] = np.ascontiguousarray(laid[4]) if last else channels_last(laid[4])  # the residual lies otherwise
        found = run(spec.conv2d_finished, rung, form, tuple(laid), params)
        out = form if stored is None else stored
        assert found.dtype == out.storage
        assert (found.strides[1] == found.itemsize) == last
        error = np.abs(out.exact(gpu.to_host(found)) - want)
        assert (error <= 8 * UNIT[float32] * size + UNIT[out] * np.abs(want)).all(), (names, finish)


EIGHT = pytest.mark.parametrize("eight", [float8_e4m3fn, float8_e5m2], ids=str)


@EIGHT
@pytest.mark.parametrize("rung", FINISHED)
@pytest.mark.parametrize("form", [float32, bfloat16], ids=str)
@pytest.mark.parametrize("outputs", [24, 13], ids=["packets", "odd channels"])
def test_results_in_float8_are_float32_results_converted(rung: str, form: Format, outputs: int, eight: Format) -> None:
    """By the same rule, in one rounding: from sums too small for the format to sums that are too large."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 16, 6, 5)) * 2.0 ** np.linspace(-12, 8, 30).reshape(6, 5)
    weight, bias = random.normal(size=(outputs, 16, 3, 3)) * 2.0 ** random.integers(-8, 9, (outputs, 1, 1, 1)), None
    residual = random.normal(size=(2, outputs, 6, 5)) / 64
    for last in (False, True):
        codes = [None if a is None else stored(form, a, last) for a in (x, weight, bias, None, residual)]
        found = []
        for dtype in (float32, eight):
            params = {**SAME, "activation": "silu", "dtype": dtype}
            if not can_finish(rung, form, codes, params):
                pytest.skip(f"{rung} takes no {form}")
            found.append(run(spec.conv2d_finished, rung, form, tuple(codes), params))
        wide, narrow = map(gpu.to_host, found)
        wanted = convert(np.ascontiguousarray(wide), float32, eight)
        assert 0 < np.isfinite(eight.exact(wanted)).sum() < wanted.size
        assert narrow.dtype == eight.storage
        assert (found[1].strides[1] == 1) == last
        np.testing.assert_array_equal(narrow, wanted)


@EIGHT
def test_every_midpoint_of_float8_is_rounded_as_a_cast_does(eight: Format) -> None:
    """By a filter of one, which leaves values as they are: all values of the format, halfway between them, and beside that."""
    values = np.sort(eight.exact(np.arange(256, dtype=np.uint8)))
    values = values[np.isfinite(values)]
    spots = np.concatenate(
        [values, (values[1:] + values[:-1]) / 2, values * 1.0625, values * 2, [2.0**-149, 1e-45, 3e38]]
    )
    spots = np.concatenate([spots, -spots]).astype(np.float32)
    spots = np.concatenate(
        [spots, np.nextafter(spots, np.inf), np.nextafter(spots, -np.inf), [np.inf, -np.inf, np.nan]]
    )
    x, one = spots.astype(np.float32).reshape(1, 1, 1, -1), np.ones((1, 1, 1, 1), np.float32)
    params = {**SAME, "padding": (0, 0), "dtype": eight}
    found = run(spec.conv2d_finished, "cuda/cuda-direct", float32, (x, one, None, None, None), params)
    np.testing.assert_array_equal(gpu.to_host(found), convert(x + 0, float32, eight))


@EIGHT
def test_a_result_in_float8_is_one_kernel(eight: Format) -> None:
    random = np.random.default_rng(0)
    x, weight = (random.normal(size=shape).astype("f4") for shape in ((2, 8, 6, 5), (16, 8, 3, 3)))
    with ug.no_grad():
        x_there, weight_there = (ug.asarray(a).to("cuda").to(ug.bfloat16) for a in (x, weight))
        calls = dispatch.calls_of(lambda: ug.conv2d(x_there, weight_there, padding=1, dtype=eight))
        found = ug.conv2d(x_there, weight_there, padding=1, dtype=eight)
        wide = ug.conv2d(x_there, weight_there, padding=1, dtype=ug.float32)
    assert [op.name for op, *_ in calls] == ["conv2d_finished"]
    assert found.dtype is eight
    np.testing.assert_array_equal(gpu.to_host(found.storage), gpu.to_host(wide.to(eight).storage))


def can_finish(rung: str, form: Format, arrays: list[Any], params: dict[str, Any]) -> bool:
    given = tuple(None if a is None else gpu.xp().asarray(a) for a in arrays)
    entry = next(r for r in registry.ladder(spec.conv2d_finished, "cuda") if r.name == rung)
    formats = tuple(None if a is None else form for a in arrays)
    return entry.refusal(Request(spec.conv2d_finished, "cuda", formats, given, params)) is None


@pytest.mark.parametrize(
    ("rung", "form"),
    [("matrix", bfloat16), ("warpgroup", bfloat16), ("tf32", float32), ("registers", float32), ("direct", float64)],
)
def test_nothing_that_follows_leaves_the_bits_of_the_convolution(rung: str, form: Format) -> None:
    random, name = np.random.default_rng(0), f"cuda/cuda-{rung}"
    x, weight, bias = random.normal(size=(2, 16, 6, 5)), random.normal(size=(24, 16, 3, 3)) / 12, random.normal(size=24)
    if not can(spec.conv2d, name, form, (x, weight, bias), SAME):
        pytest.skip(f"{name} cannot run here")
    codes = tuple(np.asarray(form.encode(a)) for a in (x, weight, bias))
    plain = run(spec.conv2d, name, form, codes, {**SAME, "activation": "relu"})
    found = run(spec.conv2d_finished, name, form, (*codes, None, None), {**SAME, "activation": "relu"})
    assert gpu.to_host(found).tobytes() == gpu.to_host(plain).tobytes()


def test_doubles_are_not_rounded_to_other_formats() -> None:
    arrays = (np.ones((1, 8, 4, 4)), np.ones((8, 8, 1, 1)), None, None, None)
    for rung in ("direct", "tiles", "registers"):
        with pytest.raises(KernelError, match="sums of float32"):
            run(spec.conv2d_finished, f"cuda/cuda-{rung}", float64, arrays, {**SAME, "dtype": float16})


def test_sequential_joins_batch_norm_on_a_gpu() -> None:
    ug.manual_seed(0)
    conv, norm = nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    random = np.random.default_rng(0)
    norm.running_mean[...] = ug.asarray(random.normal(size=16).astype("f4"))
    norm.running_var[...] = ug.asarray(random.uniform(0.5, 2, 16).astype("f4"))
    net, x = (
        nn.Sequential(conv, norm, nn.SiLU(), nn.Conv2d(16, 4, 1)),
        ug.asarray(random.normal(size=(2, 8, 6, 5)).astype("f4")),
    )
    net.eval()
    with ug.no_grad():
        want = net(x).numpy()
        net.to("cuda")
        on_gpu = x.to("cuda")
        ops = [op.name for op, *_ in dispatch.calls_of(lambda: net(on_gpu))]
        assert "conv2d_finished" in ops
        assert "silu" not in ops
        np.testing.assert_allclose(net(on_gpu).to("cpu").numpy(), want, rtol=2e-5, atol=2e-5)
        net.train()
        assert "conv2d_finished" not in [op.name for op, *_ in dispatch.calls_of(lambda: net(on_gpu))]
