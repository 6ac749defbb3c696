"""A Jacobian that is never built."""

from __future__ import annotations

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.kernels.softmax.spec import softmax_reference

LONG = 700


def check(trial: Trial) -> None:
    for shape in ((1, 4), (3, 5), (4, 4), (2, 33)):
        trial.stage(f"{shape[0]} rows of {shape[1]}")
        y = softmax_reference(trial.rng.standard_normal(shape), axis=1)
        g = trial.rng.standard_normal(shape)
        inner = (g * y).sum(axis=1, keepdims=True)
        trial.against("softmax_gradient", (g, y), {"axis":
            1}, trial.call("backward", g, y), what="the gradient", suspects={
            "That is the diagonal of the Jacobian alone. All results of a row share one sum, so that each x changes "
            "every y: the "
            "derivative of y[i] by x[j] is -y[i] y[j] for i != j.": y * (1 - y) * g,
            "The sum runs over all rows; each row is a softmax of its own: axis=1, keepdims=True.":
                y * (g - (g * y).sum()),
            "The sum lacks the factor y: it is the mean of g weighted by y.": y * (g - g.sum(axis=1, keepdims=True)),
            "The factor y in front is missing.": g - inner,
            "The sum ran down the columns; softmax goes along rows.": y * (g - (g * y).sum(axis=0, keepdims=True)),
        })  # fmt: skip
    trial.stage(f"memory, for a row of {LONG}")
    y = softmax_reference(trial.rng.standard_normal((1, LONG)), axis=1)
    held = trial.peak("backward", trial.rng.standard_normal((1, LONG)), y)
    if held > 16 * y.nbytes:
        trial.wrong(
            f"The gradient is right, but {held / 1e6:.1f} MB were held for a row of {y.nbytes / 1e6:.4f} MB: that is "
            f"the Jacobian, {LONG} x {LONG}. Multiply it out on paper: J = diag(y) - y y^T, so J g = y g - y (y . g), "
            f"and only one number is left "
            "of the matrix."
        )


EXERCISE = Exercise(
    rank=240,
    title="Softmax's gradient without its Jacobian",
    teaches="A backward pass needs J^T g, never J: what is a matrix on paper is often one sum.",
    asks=("backward",),
    check=check,
    hints=(
        "dy[i]/dx[j] is y[i] (1 - y[i]) for i = j and -y[i] y[j] else: J = diag(y) - y y^T.",
        "J is symmetric. Apply it to g: diag(y) g is y * g; y y^T g is y times the number y . g.",
        "`y * (g - (g * y).sum(axis=1, keepdims=True))`.",
    ),
    mistakes=(
        Mistake("takes the diagonal alone", {"y * (g - (g * y).sum(axis=1, keepdims=True))": "y * (1 - y) * g"},
                r"diagonal"),
        Mistake("sums over everything", {"axis=1, keepdims=True": ""}, r"over all rows"),
        Mistake("forgets the weights of the sum", {"(g * y).sum": "g.sum"}, r"lacks the factor y"),
        Mistake("builds the Jacobian", {"y * (g - (g * y).sum(axis=1, keepdims=True))":
                "(((y[:, :, None] * np.eye(y.shape[1])) - y[:, :, None] * y[:, None]) @ g[:, :, None])[..., 0]"},
                        r"on paper"),
        Mistake("forgets the factor in front", {"y * (g -": "(g -"}, r"in front is missing"),
    ),
)  # fmt: skip
