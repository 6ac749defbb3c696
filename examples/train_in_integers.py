"""A convolutional network that learns in integers alone: 16-bit words forwards, backwards and in the update.

The backward pass is written by hand, with the gradients of convolution as functions. Sums of products are exact and rounded
once; rounding is stochastic where small steps would get lost.

Run: python examples/train_in_integers.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import ulpgrad as ug
from ulpgrad import dispatch, fixed
from ulpgrad.nn import grad

WORD = ug.Q(3, 12)  # weights, activations and their gradients: 16 bits, steps of 1/4096
WIDE = ug.Q(
    7, 8
)  # logits, and sums over a batch: words of 3 integer bits end at 8, where logits stop saying which is largest
BATCH, EPOCHS, RATE = 32, 6, ug.asarray(1 / 128).to(WORD)

digits = load_digits()
rng = np.random.default_rng(0)
order = rng.permutation(len(digits.data))
images = ug.asarray((digits.data[order] / 16).reshape(-1, 1, 8, 8)).to(WORD)
wanted = ug.asarray(np.eye(10)[digits.target[order]]).to(WORD)
TRAIN = 1500


def weights(*shape: int) -> ug.Tensor:
    bound = float(np.sqrt(6 / np.prod(shape[1:])))
    return ug.asarray(rng.uniform(-bound, bound, shape)).to(WORD)


parameters = {
    "first": weights(8, 1, 3, 3), "second": weights(16, 8, 3, 3), "last": weights(10, 256),
    "bias": ug.zeros((10,), dtype=WORD),
}  # fmt: skip


def forward(x: ug.Tensor, p: dict[str, ug.Tensor]) -> tuple[ug.Tensor, ...]:
    a = ug.relu(ug.conv2d(x, p["first"], padding=1))
    b = ug.relu(ug.conv2d(a, p["second"], stride=2, padding=1))
    return a, b, fixed.linear(ug.reshape(b, (len(x), -1)), p["last"], p["bias"], result=WIDE)


def gradients(x: ug.Tensor, y: ug.Tensor, p: dict[str, ug.Tensor]) -> dict[str, ug.Tensor]:
    """Of the cross-entropy, summed over the batch."""
    a, b, z = forward(x, p)
    dz = fixed.softmax(z, axis=1, result=WORD) - y
    db = ug.where(b > 0, ug.reshape(dz @ p["last"], b.shape), ug.zeros_like(b))
    da = ug.where(a > 0, grad.conv2d_input(a.shape, p["second"], db, stride=2, padding=1), ug.zeros_like(a))
    with fixed.arithmetic(result=WIDE):
        return {
            "first": grad.conv2d_weight(x, p["first"].shape, da, padding=1),
            "second": grad.conv2d_weight(a, p["second"].shape, db, stride=2, padding=1),
            "last": ug.matrix_transpose(dz) @ ug.reshape(b, (len(x), -1)),
            "bias": dz.sum(axis=0),
        }


def step(x: ug.Tensor, y: ug.Tensor) -> None:
    for name, g in gradients(x, y, parameters).items():
        change = fixed.multiply(g, RATE, result=WORD, rounding="stochastic")
        parameters[name] = parameters[name] - change


def accuracy() -> float:
    z = forward(images[TRAIN:], parameters)[-1]
    return float(np.mean(z.storage.argmax(1) == digits.target[order][TRAIN:]))


ug.manual_seed(0)
calls: Any = dispatch.calls_of(lambda: step(images[:BATCH], wanted[:BATCH]))
print("kernels of a step:", ", ".join(sorted({op.name for op, *_ in calls})))
assert all(t.dtype is WORD and t.storage.dtype == np.int16 for t in parameters.values())
for epoch in range(EPOCHS):
    for i in range(0, TRAIN, BATCH):
        step(images[i : i + BATCH], wanted[i : i + BATCH])
    print(f"epoch {epoch + 1}: {accuracy():.1%} of digits that it has not seen")
