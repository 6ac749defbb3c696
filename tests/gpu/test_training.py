"""Training on a GPU, end to end: the CPU's losses, mixed precision, and files that go from one device to the other."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import data, dispatch, io, nn, optim
from ulpgrad.errors import FormatError, HostFallbackWarning
from ulpgrad.kernels import gpu

pytestmark = pytest.mark.filterwarnings("ignore::ulpgrad.errors.HostFallbackWarning")
sklearn = pytest.importorskip("sklearn.datasets")
BOUND = 1e-4  # relative, of losses: sums are made in another order


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    found = sklearn.load_digits()
    images = (found.images[:48] / 16).astype(np.float32)[:, None]
    return images, found.target[:48].astype(np.int64)


def mlp() -> nn.Module:
    ug.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.LayerNorm(24), nn.Linear(24, 10))


def cnn() -> nn.Module:
    ug.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.1),
        nn.Linear(64, 10),
    )  # fmt: skip


def train(model: nn.Module, device: str, digits: tuple[Any, Any], make: Callable[..., Any], **how: Any) -> list[float]:
    """Losses of three steps, on batches from a loader. `autocast` and `scaler`: mixed precision."""
    model.to(device)
    optimizer = make(model.parameters())
    loader = data.DataLoader(data.ArrayDataset(*digits), 16, shuffle=True, seed=1, device=device)
    scaler = how.get("scaler")
    losses = []
    ug.manual_seed(3)
    for images, labels in loader:
        assert images.device == labels.device == ug.asarray(0, device=device).device
        optimizer.zero_grad()
        with ug.autocast(how["autocast"]) if "autocast" in how else contextlib.nullcontext():
            loss = ug.cross_entropy(model(images), labels)
        if scaler is None:
            loss.backward()
            optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            optim.clip_grad_norm_(model.parameters(), 1.0)
            assert scaler.step(optimizer)
            scaler.update()
        losses.append(loss.item())
    return losses


def sgd(parameters: Any) -> optim.Optimizer:
    return optim.SGD(parameters, lr=0.1, momentum=0.9)


def adamw(parameters: Any) -> optim.Optimizer:
    return optim.AdamW(parameters, lr=1e-2)


@pytest.mark.parametrize(("build", "make"), [(mlp, adamw), (cnn, sgd)], ids=["mlp", "cnn"])
def test_losses(build: Any, make: Any, digits: tuple[Any, Any]) -> None:
    """A model learns on the device what it learns on the CPU."""
    here, there = build(), build()
    expected = train(here, "cpu", digits, make)
    found = train(there, "cuda", digits, make)
    np.testing.assert_allclose(found, expected, rtol=BOUND)
    for name, value in there.state_dict().items():
        assert value.device.type == "cuda"
        np.testing.assert_allclose(value.numpy(), here.state_dict()[name].numpy(), rtol=0.02, atol=2e-3, err_msg=name)
    assert all(p.grad is not None and p.grad.device == p.device for p in there.parameters())


def test_mixed_precision(digits: tuple[Any, Any]) -> None:
    """float16 under a scaler, as on the CPU to what 11 bits allow."""
    runs = [train(mlp(), d, digits, adamw, autocast=ug.float16, scaler=ug.GradScaler(1024.0)) for d in ("cpu", "cuda")]
    np.testing.assert_allclose(runs[1], runs[0], rtol=5e-3)


def test_bfloat16_parameters(digits: tuple[Any, Any]) -> None:
    """Parameters in bfloat16 with masters in float32 on the device."""
    models = [mlp().to(ug.bfloat16), mlp().to(ug.bfloat16)]
    images, labels = digits
    for model, device in zip(models, ("cpu", "cuda"), strict=True):
        optimizer = adamw(model.to(device).parameters())
        ug.cross_entropy(
            model(ug.asarray(images, device=device).to(ug.bfloat16)), ug.asarray(labels, device=device)
        ).backward()
        optimizer.step()
        states = [v for s in optimizer.state_dict()["state"].values() for v in s.values() if isinstance(v, ug.Tensor)]
        assert states
        assert {v.device.type for v in states} == {device}
    for a, b in zip(models[1].parameters(), models[0].parameters(), strict=True):
        np.testing.assert_allclose(
            a.detach().to(ug.float32).numpy(), b.detach().to(ug.float32).numpy(), rtol=0.02, atol=0.02
        )


def test_files(tmp_path: Path, digits: tuple[Any, Any]) -> None:
    """A model saved on the GPU is loaded on the CPU and back again, bit for bit; so is an optimizer's state."""
    model, other = cnn().cuda(), cnn()
    optimizer = sgd(model.parameters())
    ug.cross_entropy(model(ug.asarray(digits[0], device="cuda")), ug.asarray(digits[1], device="cuda")).backward()
    optimizer.step()
    nn.save(model, tmp_path / "model.safetensors")
    nn.load(other, tmp_path / "model.safetensors")
    for name, value in other.state_dict().items():
        assert value.device.type == "cpu"
        assert value.numpy().tobytes() == model.state_dict()[name].numpy().tobytes()
    assert {t.device.type for t in io.load(tmp_path / "model.safetensors").values()} == {"cpu"}
    fresh = cnn().cuda()
    fresh.load_state_dict(other.state_dict())
    again = sgd(fresh.parameters())
    again.load_state_dict(optimizer.state_dict())
    for p, q in zip(model.parameters(), fresh.parameters(), strict=True):
        assert q.device.type == "cuda"
        assert p.detach().numpy().tobytes() == q.detach().numpy().tobytes()
        assert again.state[q].arrays[0].device == q.storage.device
        q.grad = ug.ones_like(q.detach())
    again.step()
    moved = fresh.cpu()  # the optimizer's state follows its parameters
    for p in moved.parameters():
        assert p.device.type == p.grad.device.type == "cpu"
    again.step()
    assert all(isinstance(s.arrays[0], np.ndarray) for s in again.state.values())


def test_modules_move() -> None:
    """Parameters, gradients and buffers go along, and a module converts on the way."""
    model = cnn()
    model(ug.ones((2, 1, 8, 8))).sum().backward()
    model.to("cuda", ug.bfloat16)
    for tensor in (*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())):
        assert tensor.device.type == "cuda"
        assert tensor.dtype in (ug.bfloat16, ug.int64)
    model.zero_grad(set_to_none=False)
    assert all(p.grad.device.type == "cuda" for p in model.parameters())
    assert model.cpu() is model
    assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"cpu"}
    with pytest.raises(FormatError, match="expected a device"):
        model.to(ug.float32, "cuda")


def test_initialisation() -> None:
    """The same bits on every device."""
    for write in (nn.init.kaiming_uniform_, nn.init.ones_, lambda t, **_: nn.init.constant_(t, 0.3)):
        made = []
        for device in ("cpu", "cuda"):
            ug.manual_seed(5)
            made.append(write(ug.empty((6, 5), dtype=ug.bfloat16, device=device)))
        assert made[1].device.type == "cuda"
        assert made[0].numpy().tobytes() == made[1].numpy().tobytes()


@pytest.mark.parametrize("kind", [1.0, 2.0, 3.0, float("inf")])
def test_clipping(kind: float) -> None:
    norms = []
    for device in ("cpu", "cuda"):
        p = ug.zeros(5, device=device, requires_grad=True)
        p.grad = ug.asarray([1.0, -2.0, 3.0, 0.5, 4.0], device=device)
        norms.append(optim.clip_grad_norm_(p, 1.5, kind))
        optim.clip_grad_value_(p, 0.6)
        norms.append(p.grad.sum().item())
    np.testing.assert_allclose(norms[:2], norms[2:], rtol=1e-6)


def test_streams_and_memory() -> None:
    """The words that torch's users know."""
    cuda = ug.cuda
    assert cuda.is_available()
    assert cuda.get_device_capability() >= (7, 0)
    assert cuda.get_device_name()
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    side = cuda.Stream()
    x = ug.ones((64, 64), device="cuda")
    side.wait_stream(cuda.current_stream())
    with cuda.stream(side):
        assert cuda.current_stream() == side != cuda.Stream()
        start.record()
        y = x + x
        end.record()
    cuda.current_stream().wait_stream(side)
    end.synchronize()
    cuda.synchronize()
    assert end.query()
    assert side.query()
    assert start.elapsed_time(end) >= 0
    assert (y.numpy() == 2).all()
    free, total = cuda.mem_get_info()
    assert 0 < free <= total
    assert 0 <= cuda.memory_allocated() <= cuda.memory_reserved() <= cuda.max_memory_allocated()
    cuda.empty_cache()
    with pytest.raises(ug.errors.DeviceError, match="no GPU"):
        cuda.synchronize("cpu")
    assert gpu.count() == cuda.device_count() > 0


POLICIES = {
    "float8": lambda: ug.policy.Policy(weight="e4m3fn", activation="e4m3fn", gradient="e5m2"),
    "delayed scaling": lambda: ug.policy.DelayedScaling(),
    "blocks": lambda: ug.policy.Policy(weight="mxfp8_e4m3", activation="mxfp8_e4m3", gradient="mxfp8_e5m2"),
    "stochastic fixed point": lambda: ug.policy.Policy(
        weight=ug.Q(1, 10), activation=ug.Q(4, 8), rounding="stochastic", update=ug.Q(1, 12)
    ),
    "dynamic fixed point": lambda: ug.policy.Policy(
        weight=ug.policy.DynamicFixed(8), activation=ug.policy.DynamicFixed(8)
    ),
    "dorefa": lambda: ug.policy.Policy(
        weight=ug.policy.dorefa.weight(2),
        activation=ug.policy.dorefa.activation(3),
        gradient=ug.policy.dorefa.gradient(4),
    ),
    "integer accumulator": lambda: ug.policy.Policy(
        weight=ug.Q(1, 6), activation=ug.Q(3, 4), gradient=ug.Q(1, 14), accumulate="int64"
    ),
    "blocks of 4 bits": lambda: ug.policy.Policy(weight="mxfp4_e2m1", activation="mxfp6_e3m2", gradient="mxint8"),
    "accumulator": lambda: ug.policy.Policy(weight="e4m3fn", activation="e4m3fn", accumulate=ug.Accumulate("e6m9", 16)),
}


@pytest.mark.parametrize("name", POLICIES)
def test_policies(name: str, digits: tuple[Any, Any]) -> None:
    """A network in another number system, and under a watch, learns on the GPU what it learns on the CPU, without its help."""
    dispatch._plans.clear()  # plans that go through the CPU warn when they are made
    found = {}
    images, labels = digits
    for device in ("cpu", "cuda"):
        model, policy = mlp().to(device), POLICIES[name]()
        optimizer = sgd(model.parameters())
        ug.manual_seed(4)
        losses = found[device] = []
        with ug.policy.watch(model), warnings.catch_warnings():
            warnings.simplefilter("error", HostFallbackWarning)
            for rows in (slice(0, 16), slice(16, 32)):
                with policy:
                    x, y = ug.asarray(images[rows], device=device), ug.asarray(labels[rows], device=device)
                    loss = ug.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                assert policy.step(optimizer)
                losses.append(loss.item())
        assert all(p.device.type == device for p in model.parameters())
    np.testing.assert_allclose(found["cuda"], found["cpu"], rtol=2e-2)
