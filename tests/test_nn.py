"""Modules: how they find their parts, save and load them; layers against functions; and a network that learns."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn
from ulpgrad.errors import ArgumentError, DataError, FormatError, GradientError, ShapeError


class Net(nn.Module):
    """A block, a shared parameter and a buffer."""

    def __init__(self) -> None:
        self.first = nn.Linear(4, 3)
        self.blocks = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
        self.scale = nn.Parameter(ug.ones(3))
        self.register_buffer("shift", ug.zeros(3))
        self.register_buffer("nothing", None)
        self.tied = self.blocks[0].weight

    shift: ug.Tensor

    def forward(self, x: ug.Tensor) -> ug.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = ug.relu(block(x))
        return x * self.scale + self.shift


NAMES = ["scale", "tied", "first.weight", "first.bias", "blocks.1.weight"]


def test_parts_are_found_in_order_and_once() -> None:
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [name for name, _ in net.named_modules()] == ["", "first", "blocks", "blocks.0", "blocks.1"]
    assert [name for name, _ in net.named_children()] == ["first", "blocks"]
    assert [name for name, _ in net.named_buffers()] == ["shift"]
    assert list(net.state_dict()) == ["scale", "shift", "tied", "first.weight", "first.bias", "blocks.0.weight",
                                      "blocks.1.weight"]  # fmt: skip
    assert sum(p.size for p in net.parameters()) == 3 + 9 + 15 + 9
    assert len(list(net.modules())) == 5
    assert len(list(net.buffers())) == 1


def test_parts_may_be_replaced_and_shared() -> None:
    net = Net()
    net.first = nn.Linear(4, 3, bias=False)
    assert "first.bias" not in dict(net.named_parameters())
    twice = nn.Sequential(net.first, net.first)
    assert [name for name, _ in twice.named_parameters()] == ["0.weight"]
    assert list(twice.state_dict()) == ["0.weight", "1.weight"]


def test_modes_and_apply() -> None:
    net = nn.Sequential(nn.Dropout(1.0), nn.Sequential(nn.Dropout(1.0)))
    assert not net(ug.ones(4)).numpy().any()
    assert net.eval() is net
    assert not net[1][0].training
    np.testing.assert_array_equal(net(ug.ones(4)).numpy(), np.ones(4))
    assert net.train()[1][0].training
    seen: list[str] = []
    net.apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Dropout", "Dropout", "Sequential", "Sequential"]


def test_gradients_are_forgotten_and_frozen() -> None:
    net = Net()
    net(ug.ones((2, 4))).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.numpy().any() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    assert not net(ug.ones((2, 4))).requires_grad


def test_conversion_in_place() -> None:
    net = Net()
    net.register_buffer("count", ug.asarray(3))
    weight = net.first.weight
    assert net.to(ug.bfloat16) is net
    assert net.first.weight is weight
    assert weight.dtype is ug.bfloat16
    assert net.shift.dtype is ug.bfloat16
    assert net.count.dtype is ug.int64  # type: ignore[attr-defined]
    assert net(ug.ones((2, 4), dtype=ug.bfloat16)).dtype is ug.bfloat16
    with pytest.raises(FormatError, match="floating"):
        net.to(ug.int8)


def test_repr_shows_the_tree() -> None:
    net = nn.Sequential(nn.Linear(4, 2), nn.Sequential(nn.ReLU()))
    assert repr(net) == (
        "Sequential(\n  (0): Linear(in_features=4, out_features=2, bias=True)\n"
        "  (1): Sequential(\n    (0): ReLU()\n  )\n)"
    )
    for layer in LAYERS:
        assert repr(layer).startswith(type(layer).__name__)


def test_parameters_copy_and_pickle() -> None:
    p = nn.Parameter(ug.asarray([1.0, 2.0]))
    p.grad = ug.ones(2)
    frozen = nn.Parameter(ug.ones(1), requires_grad=False)
    for q in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert isinstance(q, nn.Parameter)
        assert q.requires_grad
        assert q.grad is not None
        assert q.tolist() == [1.0, 2.0]
        q.storage[0] = 5.0
        assert p.tolist() == [1.0, 2.0]
    assert not copy.deepcopy(frozen).requires_grad
    assert "Parameter" in repr(p)
    with pytest.raises(GradientError, match="int64"):
        nn.Parameter(ug.asarray([1]))
    net = Net()
    other = copy.deepcopy(net)
    assert other.tied is other.blocks[0].weight
    assert other.first.weight is not net.first.weight
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(net))(ug.ones((1, 4))).detach().numpy(),
                                  net(ug.ones((1, 4))).detach().numpy())  # fmt: skip


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Module needs a forward"):
        nn.Module()(1)
    with pytest.raises(ArgumentError, match="attribute name"):
        nn.Module().register_buffer("a.b", None)
    with pytest.raises(ArgumentError, match="expected modules, got int"):
        nn.Sequential(nn.ReLU(), 3)  # type: ignore[arg-type]


# Saving and loading


def test_state_dict_round_trip() -> None:
    net, other = Net(), Net()
    mismatch = other.load_state_dict(net.state_dict())
    assert mismatch == ([], [])
    x = ug.ones((2, 4))
    np.testing.assert_array_equal(net(x).detach().numpy(), other(x).detach().numpy())
    other.load_state_dict({name: t.numpy().astype(np.float64) for name, t in net.state_dict().items()})
    assert other.first.weight.dtype is ug.float32


def test_state_that_does_not_fit_names_everything() -> None:
    net = Net()
    state: dict[str, Any] = net.state_dict()
    before = net.first.bias.tolist() if net.first.bias is not None else None
    del state["scale"]
    state["first.bias"] = ug.ones(7)
    state["extra"] = ug.ones(1)
    with pytest.raises(ArgumentError) as caught:
        net.load_state_dict(state)
    for words in ("'first.bias' has shape (7,), expected (3,)", "missing 'scale'", "unexpected 'extra'"):
        assert words in str(caught.value)
    with pytest.raises(ArgumentError, match=r"first\.bias"):
        net.load_state_dict(state, strict=False)
    assert net.first.bias is not None
    assert net.first.bias.tolist() == before
    del state["first.bias"]
    assert net.load_state_dict(state, strict=False) == (["scale", "first.bias"], ["extra"])


def test_writing_a_state_is_noticed_by_saved_tensors() -> None:
    net = nn.Linear(2, 2)
    loss = net(net(ug.ones((1, 2)))).sum()
    net.load_state_dict(net.state_dict())
    with pytest.raises(GradientError, match="written to in place"):
        loss.backward()


@pytest.mark.parametrize("form", [ug.float32, ug.bfloat16, ug.float64])
def test_safetensors_round_trip(tmp_path: Path, form: ug.Format) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(form)
    net(ug.ones((2, 1, 5, 5), dtype=form))
    nn.save(net, tmp_path / "net.safetensors", {"made": "here"})
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(form)
    nn.load(other, tmp_path / "net.safetensors")
    for (name, a), b in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.storage, b.storage, err_msg=name)
    with pytest.raises(ArgumentError, match="missing"):
        nn.load(nn.Linear(2, 2), tmp_path / "net.safetensors")
    (tmp_path / "net.safetensors").write_bytes(b"short")
    with pytest.raises(DataError):
        nn.load(other, tmp_path / "net.safetensors")


# Layers


IMAGE = ug.asarray(np.random.default_rng(1).standard_normal((2, 4, 6, 6)).astype(np.float32))
LAYERS: dict[nn.Module, Callable[[Any, ug.Tensor], ug.Tensor]] = {
    nn.Linear(6, 3): lambda m, x: ug.linear(x, m.weight, m.bias),
    nn.Linear(6, 3, bias=False): lambda m, x: x @ m.weight.T,
    nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2): lambda m, x: ug.conv2d(x, m.weight, m.bias, 2, 1, 1, 2),
    nn.Conv2d(4, 2, 3, padding="same", dilation=2, bias=False): lambda m, x: ug.conv2d(x, m.weight, None, 1, 2, 2),
    nn.MaxPool2d(2, dilation=2): lambda m, x: ug.max_pool2d(x, 2, dilation=2),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False): lambda m, x: ug.avg_pool2d(x, 3, 2, 1, False),
    nn.AdaptiveAvgPool2d((4, None)): lambda m, x: ug.adaptive_avg_pool2d(x, (4, 6)),
    nn.AdaptiveAvgPool2d(1): lambda m, x: ug.mean(x, axis=(2, 3), keepdims=True),
    nn.AdaptiveMaxPool2d(4): lambda m, x: ug.adaptive_max_pool2d(x, 4),
    nn.LayerNorm((6, 6)): lambda m, x: ug.layer_norm(x, (6, 6)),
    nn.LayerNorm(6, bias=False): lambda m, x: ug.layer_norm(x, 6, m.weight),
    nn.RMSNorm(6): lambda m, x: ug.rms_norm(x, 6),
    nn.BatchNorm2d(4): lambda m, x: ug.batch_norm(x, None, None, training=True),
    nn.Flatten(): lambda m, x: x.reshape(2, -1),
    nn.Flatten(0, 2): lambda m, x: x.reshape(-1, 6),
    nn.ReLU(): lambda m, x: ug.relu(x),
    nn.LeakyReLU(0.2): lambda m, x: ug.leaky_relu(x, 0.2),
    nn.GELU(): lambda m, x: ug.gelu(x),
    nn.GELU("tanh"): lambda m, x: ug.gelu(x, "tanh"),
    nn.Sigmoid(): lambda m, x: ug.sigmoid(x),
    nn.Tanh(): lambda m, x: ug.tanh(x),
    nn.SiLU(): lambda m, x: ug.silu(x),
    nn.Softmax(1): lambda m, x: ug.softmax(x, axis=1),
    nn.MSELoss("sum"): lambda m, x: ug.mse_loss(x, x * 2.0, "sum"),
}


@pytest.mark.parametrize("index", range(len(LAYERS)))
def test_layers_are_their_functions(index: int) -> None:
    layer, function = list(LAYERS.items())[index]
    got = layer(IMAGE, IMAGE * 2.0) if isinstance(layer, nn.MSELoss) else layer(IMAGE)
    np.testing.assert_allclose(got.detach().numpy(), function(layer, IMAGE).detach().numpy(), rtol=1e-5, atol=1e-6)


SIGNAL, VOLUME = IMAGE.reshape(2, 4, 36), IMAGE.reshape(2, 4, 3, 2, 6)
AXES: dict[nn.Module, Callable[[Any], tuple[ug.Tensor, ug.Tensor]]] = {
    nn.Conv1d(4, 6, 5, 2, 1, 2, groups=2): lambda m: (m(SIGNAL), ug.conv1d(SIGNAL, m.weight, m.bias, 2, 1, 2, 2)),
    nn.Conv3d(4, 2, (2, 1, 3), bias=False): lambda m: (m(VOLUME), ug.conv3d(VOLUME, m.weight)),
    nn.ConvTranspose3d(4, 6, 2, 2, bias=False): lambda m: (m(VOLUME), ug.conv_transpose3d(VOLUME, m.weight, stride=2)),
    nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2): lambda m: (
        m(IMAGE), ug.conv_transpose2d(IMAGE, m.weight, m.bias, 2, 1, 1, 2)),
    nn.ConvTranspose1d(4, 3, 4, 3, dilation=2): lambda m: (
        m(SIGNAL), ug.conv_transpose1d(SIGNAL, m.weight, m.bias, 3, dilation=2)),
}  # fmt: skip


@pytest.mark.parametrize("index", range(len(AXES)))
def test_convolutions_of_other_axes_are_their_functions(index: int) -> None:
    """Weights lie as torch's do, and begin within the bound of their fan in: in / groups, or of transposed ones out / groups."""
    layer, both = list(AXES.items())[index]
    got, expected = both(layer)
    np.testing.assert_array_equal(got.detach().numpy(), expected.detach().numpy())
    weight = layer.state_dict()["weight"].numpy()
    bound = 1 / np.sqrt(np.prod(weight.shape[1:]))
    assert 0.6 * bound < np.abs(weight).max() <= bound
    assert "kernel_size=" in repr(layer)


def test_losses_and_embedding_are_their_functions() -> None:
    logits, target, weight = IMAGE.reshape(-1, 6)[:5], ug.asarray([0, 2, 5, 1, 2]), ug.asarray([1.0, 2, 1, 1, 3, 1])
    pairs = [
        (nn.CrossEntropyLoss(weight, 2, "sum", 0.1)(logits, target), ug.cross_entropy(logits, target, weight, 2, "sum", 0.1)),
        (nn.NLLLoss(weight)(logits, target), ug.nll_loss(logits, target, weight)),
        (nn.BCEWithLogitsLoss(pos_weight=weight)(logits, logits), ug.bce_with_logits(logits, logits, None, weight)),
    ]  # fmt: skip
    table = nn.Embedding(6, 3)
    pairs.append((table(target), table.weight[target]))
    for got, expected in pairs:
        np.testing.assert_array_equal(got.detach().numpy(), expected.detach().numpy())
    assert list(nn.CrossEntropyLoss(weight).state_dict()) == ["weight"]


def test_batch_norm_follows_its_batches() -> None:
    norm, x = nn.BatchNorm1d(3, momentum=None), np.random.default_rng(0).standard_normal((4, 8, 3))
    for batch in x:
        norm(ug.asarray(batch.astype(np.float32)))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.num_batches_tracked.item() == 4
    np.testing.assert_allclose(norm.running_mean.numpy(), x.mean((0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), x.var(1, ddof=1).mean(0), rtol=1e-5)
    norm.eval()
    y = norm(ug.asarray(x[0].astype(np.float32)))
    expected = (x[0] - x.mean((0, 1))) / np.sqrt(x.var(1, ddof=1).mean(0) + 1e-5)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert norm.num_batches_tracked.item() == 4
    untracked = nn.BatchNorm2d(4, affine=False, track_running_stats=False).eval()
    assert not list(untracked.state_dict())
    np.testing.assert_allclose(untracked(IMAGE).numpy().mean((0, 2, 3)), 0, atol=1e-5)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: nn.BatchNorm2d(3)(IMAGE), "expected 3 channels"),
    (lambda: nn.BatchNorm1d(4)(IMAGE), "on axis 1 of 2 or 3"),
    (lambda: nn.Linear(5, 2)(IMAGE), "linear"),
])  # fmt: skip
def test_layers_explain_wrong_shapes(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        call()


def test_layers_explain_wrong_settings() -> None:
    with pytest.raises(ArgumentError, match="groups"):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(ArgumentError, match="Conv3d: kernel_size must be an integer of at least 1 or 3 of them, got"):
        nn.Conv3d(3, 4, (3, 3))
    with pytest.raises(ArgumentError, match="probability"):
        nn.Dropout(1.5)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Tanh(), nn.Sigmoid(),
                                        nn.LeakyReLU()])  # fmt: skip
def test_sequential_fuses_only_without_gradients(activation: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    net, x = nn.Sequential(nn.Linear(6, 3), activation, nn.Linear(3, 2)), IMAGE
    recorded = net(x)
    assert recorded.requires_grad
    ug.log_kernels()
    try:
        with ug.no_grad():
            fused = net(x)
    finally:
        ug.log_kernels(False)
    names = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    apart = isinstance(activation, nn.LeakyReLU) or repr(activation) == "GELU(approximate='tanh')"
    assert names == (["linear", names[1], "linear"] if apart else ["linear", "linear"])
    np.testing.assert_allclose(fused.numpy(), recorded.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_sequences_are_indexed_and_sliced() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert len(net) == 3
    assert isinstance(net[-1], nn.Linear)
    assert [type(m).__name__ for m in net[:2]] == ["Linear", "ReLU"]
    assert isinstance(net[:2], nn.Sequential)
    net.append(nn.Tanh())
    assert [name for name, _ in net.named_children()] == ["0", "1", "2", "3"]


# Initial values


@pytest.mark.parametrize(("fill", "low", "high", "deviation"), [
    (lambda w: nn.init.uniform_(w, -2, 3), -2, 3, 5 / math.sqrt(12)),
    (lambda w: nn.init.normal_(w, 0, 0.5), -5, 5, 0.5),
    (lambda w: nn.init.xavier_uniform_(w, 2.0), -2 * math.sqrt(6 / 300), 2 * math.sqrt(6 / 300), 2 * math.sqrt(2 / 300)),
    (lambda w: nn.init.xavier_normal_(w), -1, 1, math.sqrt(2 / 300)),
    (lambda w: nn.init.kaiming_uniform_(w), -math.sqrt(6 / 200), math.sqrt(6 / 200), math.sqrt(2 / 200)),
    (lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)), -1 / math.sqrt(200), 1 / math.sqrt(200), 1 / math.sqrt(600)),
    (lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"), -1.5, 1.5, math.sqrt(2 / 100)),
])  # fmt: skip
@pytest.mark.parametrize("shape", [(100, 200), (10, 20, 10)])  # fans 200 and 100 in both
def test_initial_values(
    fill: Callable[[ug.Tensor], ug.Tensor], low: float, high: float, deviation: float, shape: tuple[int, ...]
) -> None:
    weight = ug.empty(shape)
    ug.random.manual_seed(1)
    assert fill(weight) is weight
    values = weight.numpy()
    assert low <= values.min()
    assert values.max() <= high
    assert values.std() == pytest.approx(deviation, rel=0.05)
    again = fill(ug.empty(shape))
    assert (again.numpy() != values).any()
    ug.random.manual_seed(1)
    np.testing.assert_array_equal(fill(ug.empty(shape)).numpy(), values)


def test_plain_initial_values_and_errors() -> None:
    weight = ug.empty((2, 3), dtype=ug.bfloat16)
    assert nn.init.constant_(weight, 0.5).tolist() == [[0.5] * 3] * 2
    assert nn.init.zeros_(weight).tolist() == [[0.0] * 3] * 2
    assert nn.init.ones_(weight).tolist() == [[1.0] * 3] * 2
    with pytest.raises(ShapeError, match="fans"):
        nn.init.xavier_uniform_(ug.empty(3))
    with pytest.raises(ArgumentError, match="mode"):
        nn.init.kaiming_normal_(weight, mode="both")
    with pytest.raises(ArgumentError, match="nonlinearity"):
        nn.init.kaiming_normal_(weight, nonlinearity="relu6")


def test_layers_start_within_torchs_bounds() -> None:
    ug.random.manual_seed(0)
    for layer, fan in ((nn.Linear(50, 40), 50), (nn.Conv2d(4, 30, 5), 100)):
        bound = 1 / math.sqrt(fan)
        for p in layer.parameters():
            values = p.detach().numpy()
            assert abs(values).max() <= bound
            assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.25)


# Training


@pytest.mark.parametrize("low", [None, ug.bfloat16])
def test_a_network_learns_digits(low: ug.Format | None) -> None:
    data, held_out = ug.data.digits("train"), ug.data.digits("test")
    ug.random.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = ug.optim.Adam(net.parameters(), lr=3e-3)
    loss = ug.asarray(math.inf)
    for _ in range(15):
        for images, labels in ug.data.DataLoader(data, 64, shuffle=True, seed=0):
            with ug.autocast(low or ug.bfloat16, enabled=low is not None):
                loss = ug.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert loss.item() < 0.1
    images, labels = held_out[slice(0, 500)]
    with ug.no_grad():
        right = ug.argmax(net(ug.as_tensor(images)), axis=1).numpy() == np.asarray(labels)
    assert right.mean() > 0.93
