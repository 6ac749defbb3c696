"""Sizes of tiles, warps and pipeline stages, as data: by architecture and kind of product, from the largest tile to the smallest.

A problem gets the first whose tiles are not wider than the problem and are at least as many as the multiprocessors; what was
measured on this machine (`triton_tune`) comes first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

from ulpgrad.formats import Format, float16, float32, float64
from ulpgrad.kernels import gpu, triton_tuned


class Config(NamedTuple):
    """A tile of m x n results, k summed at a time; `group` rows of tiles share what they read of b."""

    m: int
    n: int
    k: int
    warps: int
    stages: int
    group: int = 8

    @property
    def blocks(self) -> dict[str, int]:
        """The sizes as constexprs of a kernel, and Triton's options."""
        return {
            "BLOCK_M": self.m, "BLOCK_N": self.n, "BLOCK_K": self.k, "num_warps": self.warps, "num_stages": self.stages,
        }  # fmt: skip


# Kinds: "half" (float16, bfloat16), "float8" (with a second set of sums), "float8, unpromoted", "bytes" (8-bit integers), "words"
# (16-bit ones by bytes), "exact" (the same in 64 bits), "single" (float32 as three products of tf32), "ieee" (float32 on the
# ordinary units), "double", "integer" (whole numbers on the ordinary units), "blocks" (elements that share powers of two, which
# are applied to the sum of each block: `k` is the block's size), "blocks, float8" (the same without widening elements), "blocks,
# scaled" (by units that take the powers themselves).
TABLE: dict[tuple[int, str], tuple[Config, ...]] = {
    (90, "half"): (
        Config(128, 256, 64, 8, 3), Config(128, 128, 64, 8, 4), Config(64, 128, 64, 4, 4), Config(64, 64, 64, 4, 4),
        Config(32, 64, 64, 4, 4), Config(16, 64, 64, 4, 4), Config(32, 32, 32, 4, 3), Config(16, 16, 32, 2, 3),
    ),
    (80, "half"): (
        Config(128, 256, 32, 8, 3), Config(128, 128, 32, 4, 4), Config(64, 128, 32, 4, 4), Config(64, 64, 32, 4, 4),
        Config(32, 64, 32, 4, 4), Config(16, 64, 32, 4, 4), Config(32, 32, 32, 4, 3), Config(16, 16, 32, 2, 3),
    ),
    (90, "float8, unpromoted"): (
        Config(128, 256, 128, 8, 3), Config(128, 128, 128, 8, 4), Config(64, 128, 128, 4, 4), Config(64, 64, 64, 4, 4),
        Config(32, 32, 64, 4, 3), Config(16, 32, 32, 2, 3),
    ),
    (90, "float8"): (
        Config(128, 128, 128, 8, 4), Config(64, 128, 128, 4, 4), Config(64, 64, 64, 4, 4),
        Config(32, 32, 64, 4, 3), Config(16, 32, 32, 2, 3),
    ),
    (80, "float8"): (
        Config(128, 128, 64, 8, 3), Config(64, 128, 64, 4, 4), Config(64, 64, 64, 4, 4), Config(32, 32, 64, 4, 3),
        Config(16, 32, 32, 2, 3),
    ),
    (90, "single"): (
        Config(128, 128, 32, 8, 3), Config(64, 128, 32, 4, 3), Config(64, 64, 32, 4, 3), Config(32, 32, 32, 4, 3),
        Config(16, 32, 32, 2, 3),
    ),
    (80, "single"): (
        Config(128, 64, 32, 8, 3), Config(64, 64, 32, 4, 3), Config(32, 32, 32, 4, 3), Config(16, 32, 32, 2, 3),
    ),
    (80, "ieee"): (Config(128, 64, 16, 8, 3), Config(64, 64, 16, 8, 3), Config(32, 32, 16, 4, 3), Config(16, 16, 16, 2, 2)),
    (80, "double"): (Config(64, 64, 16, 8, 3), Config(32, 32, 16, 4, 3), Config(16, 16, 16, 4, 2)),
    (80, "integer"): (Config(64, 64, 1, 8, 2), Config(32, 32, 1, 4, 2), Config(8, 32, 1, 2, 2)),
    (90, "bytes"): (
        Config(128, 256, 128, 8, 3), Config(128, 128, 128, 8, 4), Config(64, 64, 64, 4, 4), Config(32, 32, 64, 4, 3),
        Config(16, 32, 32, 2, 3),
    ),
    (80, "words"): (
        Config(64, 128, 32, 8, 3), Config(64, 64, 32, 4, 3), Config(64, 64, 32, 8, 3), Config(32, 32, 64, 4, 3),
        Config(16, 32, 32, 2, 3),
    ),
    (80, "exact"): (
        Config(64, 64, 32, 8, 3), Config(32, 64, 32, 4, 3), Config(32, 32, 32, 4, 3), Config(16, 32, 32, 2, 3),
    ),
    (90, "blocks, float8"): (
        Config(128, 128, 32, 8, 6), Config(64, 128, 32, 4, 6), Config(64, 64, 32, 4, 6), Config(32, 64, 32, 4, 6),
        Config(16, 32, 32, 2, 4),
    ),
    (80, "blocks, float8"): (Config(64, 64, 32, 4, 5), Config(32, 64, 32, 4, 5), Config(16, 32, 32, 2, 4)),
    (90, "blocks"): (
        Config(64, 128, 32, 4, 6), Config(64, 64, 32, 4, 6), Config(32, 64, 32, 4, 6),
        Config(16, 32, 32, 2, 4),
    ),
    (80, "blocks"): (
        Config(64, 64, 32, 4, 5), Config(32, 64, 32, 4, 5), Config(16, 32, 32, 2, 4),
    ),
    (100, "blocks, scaled"): (
        Config(128, 256, 128, 8, 3), Config(128, 128, 128, 4, 4), Config(128, 64, 128, 4, 4),
    ),
    (80, "bytes"): (
        Config(128, 128, 64, 8, 3), Config(64, 64, 64, 4, 4), Config(32, 32, 64, 4, 3), Config(16, 32, 32, 2, 3),
    ),
}  # fmt: skip


def kind(form: Format) -> str:
    """The row of the table for operands of a float format, on tensor cores where they have units for it."""
    if form is float64:
        return "double"
    if form is float32:
        return "single"
    return "half" if form.bits == 16 or form is float16 else "float8"


def table(name: str) -> tuple[Config, ...]:
    """The configurations of a kind on the current device: those of the newest architecture that is not newer than it."""
    newest = max((arch for arch, row in TABLE if row == name and arch <= gpu.generation()), default=80)
    return TABLE[newest, name]


class Question(NamedTuple):
    """What a configuration is asked for: by which rung, for which kind, for `matrices` products of m x k by k x n."""

    rung: str
    kind: str
    m: int
    n: int
    k: int
    matrices: int
    finished: bool = False  # whether an activation or a residual wants registers beside the sums
    scattered: bool = False  # whether operands pass through registers, value by value, on their way to shared memory

    def __str__(self) -> str:
        end = ", finished" * self.finished + ", scattered" * self.scattered
        return f"{self.rung}, {self.kind}, {self.matrices} x {self.m} x {self.n} x {self.k}{end}"

    def has_room(self, config: Config) -> bool:
        """Whether a thread's registers hold its sums, what follows them, and operands that do not stay in shared memory."""
        from_shared = gpu.generation() >= 90 and self.kind != "single"
        if self.finished and config.m * config.n > config.warps * (2048 if from_shared else 1024):
            return False
        sums = 4 if self.kind == "words" else 1  # high and low bytes of both operands have sums of their own
        operands = 2 * (config.m + config.n) * config.k  # each value with its address
        most = SCATTERED_BYTES if self.kind in BY_BYTES else SCATTERED
        return not self.scattered or sums * config.m * config.n + operands <= config.warps * 32 * most


SHORT = 32  # steps of k at a time for operands that pass through registers
# Registers of a thread for sums, values and their addresses: more were seen to spill. Packing bytes takes as many again.
SCATTERED, SCATTERED_BYTES = 192, 96
BY_BYTES = ("bytes", "words", "float8")

_forced: ContextVar[Config | None] = ContextVar("forced configuration", default=None)
_heard: ContextVar[list[Question] | None] = ContextVar("heard questions", default=None)


@contextlib.contextmanager
def forced(config: Config) -> Iterator[None]:
    """Inside the block this is the answer to every question."""
    token = _forced.set(config)
    try:
        yield
    finally:
        _forced.reset(token)


@contextlib.contextmanager
def heard() -> Iterator[list[Question]]:
    """The questions that are asked inside the block."""
    questions: list[Question] = []
    token = _heard.set(questions)
    try:
        yield questions
    finally:
        _heard.reset(token)


def choose(question: Question) -> Config:
    """The configuration for a product: what was tuned, else by its size."""
    listener = _heard.get()
    if listener is not None:
        listener.append(question)
    known = triton_tuned.known()
    return _forced.get() or (known and _tuned(known.get(str(question)))) or by_size(question)


def _tuned(answer: list[int] | None) -> Config | None:
    return Config(*answer) if answer is not None and len(answer) == len(Config._fields) else None


def by_size(question: Question) -> Config:
    """The first configuration of the table whose tiles are not wider than the problem, and enough for all multiprocessors."""
    m, n, count = question.m, question.n, question.matrices
    row = list(table(question.kind))
    if question.scattered:
        row = [c._replace(k=min(c.k, SHORT)) for c in row]
    row = [c for c in row if question.has_room(c)] or row[-1:]
    fitting = [c for c in row if c.m < 2 * max(m, 1) and c.n < 2 * max(n, 1)] or [row[-1]]
    enough = gpu.processors()
    return next((c for c in fitting if count * -(-m // c.m) * -(-n // c.n) >= enough), fitting[-1])
