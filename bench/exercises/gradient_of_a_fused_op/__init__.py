"""Forward and backward of a gated unit, each in one expression."""

from __future__ import annotations

import numpy as np

import ulpgrad as ug
from ulpgrad.bench.classroom import Exercise, Mistake, Trial


def check(trial: Trial) -> None:
    for shape, scale, name in (((7,), 1.0, "a vector"), ((3, 5), 1.0, "a matrix"), ((40,), 30.0, "large values")):
        a, b, g = trial.rng.standard_normal((3, *shape))
        a = a * scale
        x, y = ug.asarray(a, requires_grad=True), ug.asarray(b, requires_grad=True)
        out = x * ug.sigmoid(x) * y
        out.backward(ug.asarray(g))
        assert x.grad is not None
        assert y.grad is not None
        trial.stage(f"forward, {name}")
        made = trial.call("forward", a, b)
        trial.near(made, out.detach().numpy(), ulps=16, what="y", suspects={
            "That is sigmoid(a) b: silu(a) is a sigmoid(a).": out.detach().numpy() / a,
            "The gate b is missing.": out.detach().numpy() / b,
        })  # fmt: skip
        trial.stage(f"backward, {name}")
        found = trial.call("backward", g, a, b)
        if not (isinstance(found, tuple) and len(found) == 2):
            trial.wrong("backward returns two gradients, that of a and that of b")
        s = 1 / (1 + np.exp(-a))
        size = np.abs(g * b) * (1 + np.abs(a))
        trial.near(found[0], x.grad.numpy(), ulps=32, magnitude=size, what="the gradient of a", suspects={
            "a stands in silu(a) = a sigmoid(a) twice: the product rule gives two terms, and the derivative of the "
            "sigmoid is missing.":
                g * b * s,
            "a stands in silu(a) = a sigmoid(a) twice: the term in which a itself is differentiated, sigmoid(a), is "
            "missing.":
                g * b * a * s * (1 - s),
            "The derivative of the sigmoid s is s (1 - s).": g * b * (s + a * s),
            "The incoming gradient g is missing: a gradient rule passes on, it does not begin.":
                b * (s + a * s * (1 - s)),
            "The factor b is missing: y is linear in silu(a), with slope b.": g * (s + a * s * (1 - s)),
            "The two gradients are in the wrong order: a's first.": g * a * s,
        })  # fmt: skip
        trial.near(found[1], y.grad.numpy(), ulps=32, magnitude=np.abs(g * a), what="the gradient of b", suspects={
            "y is b times silu(a), so the gradient of b is g silu(a); sigmoid(a) alone lacks the factor a.": g * s,
            "The incoming gradient g is missing.": a * s,
            "That does not depend on b's factor: y = silu(a) b is linear in b, with slope silu(a).": g * b,
        })  # fmt: skip


EXERCISE = Exercise(
    rank=230,
    title="The gradient of a fused op",
    teaches="A fused op needs a rule of its own; recomputing what is cheap spares memory.",
    asks=("forward", "backward"),
    check=check,
    hints=(
        "y = silu(a) b. For b, silu(a) is a constant: the gradient of b is g silu(a).",
        "For a: g b silu'(a). silu(a) = a s with s = sigmoid(a), so silu'(a) = s + a s'.",
        "s' = s (1 - s). Together: g b (s + a s (1 - s)) = g b s (1 + a (1 - s)).",
    ),
    mistakes=(
        Mistake("forgets the product rule", {"g * b * s * (1 + a * (1 - s))": "g * b * s"}, r"derivative of the "
                r"sigmoid is missing"),
        Mistake("takes s for its own derivative", {"(1 + a * (1 - s))": "(1 + a)"}, r"s \(1 - s\)"),
        Mistake("forgets the incoming gradient", {"g * b * s * (1": "b * s * (1"}, r"incoming gradient"),
        Mistake("exchanges the gradients", {"return g * b * s * (1 + a * (1 - s)), g * a * s": "return g * a * s, g * "
                "b * s * (1 + a * (1 - s))"},
                r"wrong order"),
        Mistake("forgets a in b's gradient", {"g * a * s": "g * s"}, r"lacks the factor a"),
    ),
)  # fmt: skip
