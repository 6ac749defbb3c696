"""A small transformer that learns to write a text letter by letter."""

from __future__ import annotations

import math

import numpy as np

from ulpgrad import autograd, data as datasets, nn, ops
from ulpgrad.bench.data import coriolanus
from ulpgrad.formats import Array
from ulpgrad.tensor import Tensor

CONTEXT = 64
WIDTH = 64
HEADS = 2
LAYERS = 2
HELD_OUT = 0.1  # the last tenth of the text


class Block(nn.Module):
    """Attention to what came before, then two dense layers, each beside the stream (Vaswani et al. 2017, norms first)."""

    def __init__(self, width: int) -> None:
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gather = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = ops.reshape(self.gather(self.norm1(x)), (n, length, 3, HEADS, width // HEADS))
        q, k, v = ops.unstack(ops.permute_dims(qkv, (2, 0, 3, 1, 4)), axis=0)
        heads = ops.permute_dims(ops.scaled_dot_product_attention(q, k, v, is_causal=True), (0, 2, 1, 3))
        x = x + self.join(ops.reshape(heads, (n, length, width)))
        wide: Tensor = ops.gelu(self.widen(self.norm2(x)))
        out: Tensor = x + self.narrow(wide)
        return out


class Writer(nn.Module):
    """Letters (n, length) as whole numbers -> scores (n, length, letters) of what comes next."""

    def __init__(self, letters: int) -> None:
        self.letters, self.places = nn.Embedding(letters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        for table in (self.letters, self.places):
            nn.init.normal_(table.weight, std=0.1)
        self.blocks = nn.ModuleList([Block(WIDTH) for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, letters, bias=False)

    def forward(self, text: Tensor) -> Tensor:
        x = self.letters(text) + self.places(ops.arange(text.shape[1]))
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.head(self.norm(x))
        return scores


def codes() -> tuple[Array, Array, list[str]]:
    """The text as whole numbers: what is learned from, what is held out, and the letters in order of their numbers."""
    text = coriolanus()
    letters = sorted(set(text))
    number = {letter: i for i, letter in enumerate(letters)}
    whole = np.array([number[letter] for letter in text], dtype=np.int64)
    cut = round(len(whole) * (1 - HELD_OUT))
    return whole[:cut], whole[cut:], letters


def windows(text: Array, first: int = 0) -> tuple[Array, Array]:
    """The text from `first` on in pieces of CONTEXT letters, and for each letter the one after it: both (n, CONTEXT)."""
    n = (len(text) - 1 - first) // CONTEXT
    given, wanted = (text[first + shift : first + shift + n * CONTEXT] for shift in (0, 1))
    return given.reshape(n, CONTEXT), wanted.reshape(n, CONTEXT)


def loss(model: Writer, given: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross-entropy of a batch of windows, in nats for a letter."""
    scores = model(given)
    return ops.cross_entropy(ops.reshape(scores, (-1, scores.shape[-1])), ops.reshape(wanted, (-1,)))


def bits(model: Writer, text: Array, batch: int = 256) -> float:
    """Cross-entropy on a text, in bits for a letter."""
    given, wanted = windows(text)
    total = 0.0
    with autograd.no_grad():
        for x, y in datasets.DataLoader(datasets.ArrayDataset(given, wanted), batch):
            total += loss(model, x, y).item() * len(x)
    return total / len(given) / math.log(2)


__all__ = ["CONTEXT", "Writer", "bits", "codes", "loss", "windows"]
