"""A transformer that generates tokens one by one with a cache of keys and values, and once more by computing everything anew.

Run: python examples/generate_tokens.py
"""

from __future__ import annotations

import ulpgrad as ug

BATCH, HEADS, SHARED, SIZE, VOCABULARY, LAYERS = 2, 4, 2, 16, 50, 2  # SHARED: heads of keys, each for two of queries
WIDTH, PROMPTS, STEPS = HEADS * SIZE, [6, 3], 20


class Layer(ug.nn.Module):
    """Attention and what is added to it; with a cache, x are the tokens that it does not hold yet."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = ug.nn.RMSNorm(WIDTH)
        self.queries, self.out = ug.nn.Linear(WIDTH, WIDTH), ug.nn.Linear(WIDTH, WIDTH)
        self.keys, self.values = (ug.nn.Linear(WIDTH, SHARED * SIZE) for _ in range(2))

    def forward(self, x: ug.Tensor, cache: ug.nn.KeyValueCache | None, lengths: list[int] | None) -> ug.Tensor:
        batch, length, _ = x.shape
        z = self.norm(x)
        q, k, v = (ug.permute_dims(ug.reshape(of(z), (batch, length, -1, SIZE)), (0, 2, 1, 3))
                   for of in (self.queries, self.keys, self.values))  # fmt: skip
        if cache is None:
            y = ug.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            cache.append(k, v, lengths)
            y = cache.attend(q)
        return x + self.out(ug.reshape(ug.permute_dims(y, (0, 2, 1, 3)), (batch, length, WIDTH)))


class Model(ug.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = ug.nn.Embedding(VOCABULARY, WIDTH)
        self.layers = ug.nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = ug.nn.Linear(WIDTH, VOCABULARY)

    def forward(
        self, tokens: ug.Tensor, caches: list[ug.nn.KeyValueCache] | None = None, lengths: list[int] | None = None
    ) -> ug.Tensor:
        x = self.embedding(tokens)
        for layer, cache in zip(self.layers, caches or [None] * LAYERS, strict=True):
            x = layer(x, cache, lengths)
        return self.head(x)


ug.manual_seed(0)
model = Model()
prompts = [[(7 * i + 3 * row) % VOCABULARY for i in range(n)] for row, n in enumerate(PROMPTS)]

with ug.no_grad():
    caches = [ug.nn.KeyValueCache(BATCH, SHARED, max(PROMPTS) + STEPS, SIZE) for _ in range(LAYERS)]
    padded = ug.asarray([p + [0] * (max(PROMPTS) - len(p)) for p in prompts])
    logits = model(padded, caches, PROMPTS)  # prompts of two lengths at once
    last = [logits[row, n - 1] for row, n in enumerate(PROMPTS)]
    cached = [list(p) for p in prompts]
    for _ in range(STEPS):
        new = [int(ug.argmax(scores)) for scores in last]
        for row, token in zip(cached, new, strict=True):
            row.append(token)
        logits = model(ug.asarray(new)[:, None], caches)  # one token of each
        last = [logits[row, 0] for row in range(BATCH)]

    anew = [list(p) for p in prompts]
    for row in anew:
        for _ in range(STEPS):
            row.append(int(ug.argmax(model(ug.asarray([row]))[0, -1])))  # every token again, in every step

for row in cached:
    print(row)
assert cached == anew
print(
    f"the same {BATCH * STEPS} tokens as without a cache; it holds {caches[0].lengths.tolist()} of {caches[0].capacity}"
)
