"""watch: step, place, role and format of the first value that is not finite, and of a loss that runs away."""

from __future__ import annotations

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch, nn
from ulpgrad.errors import ArgumentError, DivergenceError
from ulpgrad.policy import Policy, watch


def network() -> nn.Sequential:
    ug.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


X = ug.asarray(np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32))
Y = ug.zeros(6, dtype=int)


def steps(model: nn.Module, count: int, lr: float = 0.1, policy: Policy | None = None, wrong: int = -1) -> None:
    """Training with plain SGD; the gradient of one step is made NaN."""
    optimizer = ug.optim.SGD(model.parameters(), lr=lr)
    for i in range(count):
        if policy is None:
            loss = ug.cross_entropy(model(X), Y)
        else:
            with policy:
                loss = ug.cross_entropy(model(X), Y)
        model.zero_grad()
        loss.backward()
        if i == wrong:
            p = next(iter(model.parameters()))
            assert p.grad is not None
            p.grad.storage[...] = np.nan
        optimizer.step()


def test_nothing_happens_to_good_training() -> None:
    model = network()
    with watch(model) as w:
        steps(model, 5)
    assert (w.first, w.steps) == (None, 4)  # the fifth step's parameters were looked at when the block ended


@pytest.mark.parametrize("policy", [None, Policy(weight="bfloat16", activation="bfloat16")])
def test_a_bad_parameter_is_named_with_its_step(policy: Policy | None) -> None:
    model = network()
    with pytest.raises(DivergenceError, match=r"step 2: weight of 0\.weight") as caught, watch(model):
        steps(model, 5, policy=policy, wrong=2)
    assert (caught.value.step, caught.value.where, caught.value.role) == (2, "0.weight", "weight")
    assert np.isnan(caught.value.value)


def test_the_last_step_is_looked_at_too() -> None:
    model = network()
    with pytest.raises(DivergenceError, match=r"weight of 0\.weight"), watch(model):
        steps(model, 3, wrong=2)


def test_the_op_is_named() -> None:
    x = ug.asarray([[1.0, -1.0]])
    with watch():
        ug.log(x + 2.0)
        with pytest.raises(DivergenceError, match=r"activation of log@1 \(float32\): 1 of 2 values") as caught:
            ug.log(x)
    assert caught.value.format == "float32"


def test_gradients_are_looked_at_unless_told_otherwise() -> None:
    x = ug.asarray([0.0, 1.0], requires_grad=True)
    with pytest.raises(DivergenceError, match="gradient of") as caught, watch():
        ug.sqrt(x * 1.0).sum().backward()
    assert caught.value.role == "gradient"
    with watch(gradients=False):
        ug.sqrt(x * 1.0).sum().backward()


def test_training_goes_on_where_it_is_told_to() -> None:
    model = network()
    with watch(model, raises=False) as w:
        steps(model, 5, wrong=1)
    assert w.first is not None
    assert (w.first.step, w.first.where) == (1, "0.weight")
    assert isinstance(w.first.error(), DivergenceError)


def run_away(w: ug.Tensor) -> None:
    """Steps so long that the loss grows fourfold each time."""
    for _ in range(100):
        loss = ug.mse_loss(w, ug.zeros(1))
        w.grad = None
        loss.backward()
        assert w.grad is not None
        w.storage[...] -= 1.5 * w.grad.storage
        w._written()


def test_a_loss_that_runs_away() -> None:
    w = ug.asarray([1.0], requires_grad=True)
    with pytest.raises(DivergenceError, match="loss of mse_loss") as caught, watch(growth=100):
        run_away(w)
    assert 100 < caught.value.value < 1000


def test_a_policy_may_watch_itself_and_names_formats() -> None:
    policy = Policy(weight="float8_e5m2", activation="float8_e5m2", overflow="ieee", watch=True)
    x = ug.asarray([[1e6, 1.0]])
    with pytest.raises(DivergenceError, match="float8_e5m2") as caught, policy:
        ug.linear(x, ug.ones((2, 2)))
    assert (caught.value.role, caught.value.format) == ("activation", "float8_e5m2")


def test_a_policy_that_watches_itself_counts_steps() -> None:
    model = network()
    policy = Policy(watch=True).bind(model)
    with pytest.raises(DivergenceError, match=r"step 2: weight of 0\.weight"):
        steps(model, 5, policy=policy, wrong=2)
    with Policy(enabled=False):  # nothing of the policy is left behind
        assert np.isnan(model(X).detach().numpy()).any()
    assert np.isnan(model(X).detach().numpy()).any()


def test_watch_and_autocast_go_together() -> None:
    model = network()
    with watch(model), ug.autocast(ug.bfloat16):
        assert model(X).dtype is ug.bfloat16
        with Policy(enabled=False):
            assert model(X).dtype is ug.float32
    with ug.autocast(ug.bfloat16), watch(model):
        assert model(X).dtype is ug.bfloat16


def test_growth_is_checked() -> None:
    with pytest.raises(ArgumentError, match="growth"):
        watch(growth=1.0)


def test_a_block_that_is_not_entered_leaves_nothing_behind() -> None:
    model = nn.Linear(3, 2)
    for context in (Policy(weight="q3.4", watch=True).bind(model), watch(model)):
        with ug.no_grad():
            model.weight[0, 0] = float("nan")
        with pytest.raises(DivergenceError), context:
            raise AssertionError("not reached")
        assert dispatch.call_policy.get() is None
        assert dispatch.operand_policy.get() is None
        assert dispatch.state.policies == 0
        with ug.no_grad():
            model.weight[0, 0] = 0.0
