"""Long sums in short accumulators: where they stall, and what chunks and stochastic rounding do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import ulpgrad as ug
from ulpgrad.bench.lab import (
    INK,
    Check,
    Column,
    Figures,
    Plot,
    Results,
    Row,
    Run,
    Study,
    colour,
    number,
    percent,
)
from ulpgrad.bench.lab.plots import dash, plain_ticks
from ulpgrad.formats import Array, as_format

LENGTHS = tuple(2**i for i in range(4, 17))
CHUNKS = tuple(2**i for i in range(0, 17, 2))
LONGEST = LENGTHS[-1]
DRAW = 1612  # the data of seed 0: their sum is 65,274 to the nearest whole number
SIDE, DEPTH = 64, 4096  # of the product: [64, 4096] @ [4096, 64]
FORMATS = {"e6m9": "1-6-9", "float16": "float16", "bfloat16": "bfloat16", "float8_e5m2": "e5m2"}
WAYS = {
    "running": ({}, "one running sum"),
    "chunk-64": ({"chunk": 64}, "chunks of 64"),
    "stochastic": ({"rounding": "stochastic"}, "one running sum, stochastic rounding"),
    "both": ({"chunk": 64, "rounding": "stochastic"}, "chunks of 64, stochastic rounding"),
}


def terms(seed: int) -> Array:
    """Wang et al.'s data: uniform with mean 1 and standard deviation 1, in float32."""
    spread = 3**0.5
    values = np.random.default_rng(DRAW + seed).uniform(1 - spread, 1 + spread, LONGEST)
    return np.asarray(values, dtype=np.float32)


def run(run: Run) -> Figures:
    """One accumulator: sums of the first n terms for growing n, and a product of matrices."""
    form, options = run.setting
    generator = ug.Generator(run.seed)

    def accumulator(**more: Any) -> ug.Accumulate:
        return ug.Accumulate(form, **{**options, **more}, overflow="saturate", generator=generator)

    x = terms(run.seed)
    exact = np.cumsum(x, dtype=np.float64)
    sums = [ug.sum(ug.asarray(x[:n]), accumulate=accumulator()).item() for n in LENGTHS]
    errors = [abs(found / exact[n - 1] - 1) for n, found in zip(LENGTHS, sums, strict=True)]
    run.told("a product of matrices")
    rng = np.random.default_rng(run.seed)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((SIDE, DEPTH), (DEPTH, SIDE)))
    wide = a.astype(np.float64) @ b
    product = ug.matmul(ug.asarray(a), ug.asarray(b), accumulate=accumulator()).numpy()
    figures: Figures = {
        "sum": sums[-1],
        "exact": float(exact[-1]),
        "error": errors[-1],
        "sums": sums,
        "errors": errors,
        "ratios": [found / exact[n - 1] for n, found in zip(LENGTHS, sums, strict=True)],
        "product_error": float(np.linalg.norm(product - wide) / np.linalg.norm(wide)),
    }
    if not options:
        run.told("chunks of every size")
        by_chunk = [ug.sum(ug.asarray(x), accumulate=accumulator(chunk=c)).item() for c in CHUNKS]
        figures["chunk_errors"] = [abs(found / exact[-1] - 1) for found in by_chunk]
    return figures


def stalls(runs: Sequence[Figures]) -> str:
    """Where the sum stands still: at the same value for all of the last three lengths."""
    values = {one["sums"][i] for one in runs for i in (-3, -2, -1)}
    return f"{values.pop():g}" if len(values) == 1 else "does not"


# What is shown


def growth(axes: Any, results: Results) -> None:
    """Sum over exact sum against the number of terms."""
    shown = [f"{form}-running" for form in FORMATS] + ["e6m9-chunk-64", "e6m9-stochastic"]
    shown = [row for row in shown if row in results.rows]
    axes.axhline(1, color=INK, linewidth=4, alpha=0.3, label="exact")
    for i, row in enumerate(shown, 1):
        axes.plot(LENGTHS, results.curve(row, "ratios"), color=colour(i), linestyle=dash(i), label=results.label(row))
    axes.set_xscale("log", base=2)
    axes.set(xlabel="terms", ylabel="sum / exact sum", ylim=(-0.05, 2), yticks=(0, 0.25, 0.5, 0.75, 1))
    axes.legend(loc="upper left")


def by_chunk(axes: Any, results: Results) -> None:
    """Error of the whole sum against the size of chunks."""
    for i, (form, name) in enumerate(FORMATS.items(), 1):
        if f"{form}-running" in results.rows:
            axes.plot(CHUNKS, results.curve(f"{form}-running", "chunk_errors"), color=colour(i), linestyle=dash(i),
                      marker="o", markersize=4, label=name)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set(xlabel="terms in a chunk", ylabel="relative error of the sum", yscale="log")
    plain_ticks(axes.yaxis, share=True)
    axes.legend()


def products(axes: Any, results: Results) -> None:
    """Relative error of the product of matrices, by format and way."""
    for i, (way, (_, name)) in enumerate(WAYS.items(), 1):
        there = [(at, f"{form}-{way}") for at, form in enumerate(FORMATS) if f"{form}-{way}" in results.rows]
        axes.plot([at for at, _ in there], [results.mean(row, "product_error") for _, row in there], "o", color=colour(i),
                  label=name)  # fmt: skip
    axes.set_xticks(range(len(FORMATS)), list(FORMATS.values()))
    axes.set(ylabel="relative error (Frobenius norm)", yscale="log")
    plain_ticks(axes.yaxis, share=True)
    axes.legend()


def swallowed(results: Results) -> str:
    """The stall."""
    one = results.of("e6m9-running")[0]
    return (
        f"{LONGEST:,} terms between -0.73 and 2.73 add up to {one['exact']:,.0f}. In a 1-6-9 float the running sum gets to "
        f"{one['sum']:,.0f} and stays there for good: from 4,096 on, one step of the format is 8, and no term reaches half "
        "of it. Nothing overflows and nothing is reported; the terms are swallowed one by one."
    )


def others(results: Results) -> str:
    """Where the other formats stall."""
    at = {form: results.of(f"{form}-running")[0]["sum"] for form in FORMATS}
    return (
        f"float16 has one bit more than 1-6-9 and stalls at twice that, {at['float16']:,.0f}; bfloat16, with two bits less, at "
        f"{at['bfloat16']:,.0f}; e5m2 at {at['float8_e5m2']:g}. Range has no part in it."
    )


def chunked(results: Results) -> str:
    """What chunks do."""
    one, errors = results.of("e6m9-chunk-64")[0], results.curve("e6m9-running", "chunk_errors")
    best = CHUNKS[int(np.nanargmin(errors))]
    wide = max(e for c, e in zip(CHUNKS, errors, strict=True) if 64 <= c <= 1024)
    return (
        f"Summed in chunks of 64, the same terms give {one['sum']:,.0f} in the same format, {one['error']:.1%} off: partial "
        "sums stay small beside their terms, and the sums of chunks are large enough for the total. Both are needed: among the "
        f"sizes tried 1-6-9 does best with {best:,}, and those from 64 to 1,024 keep it within {wide:.1%}."
    )


def too_few(results: Results) -> str:
    """Where chunks of 64 are no help."""
    brain, worst = results.mean("bfloat16-chunk-64", "sum"), results.mean("float8_e5m2-chunk-64", "error")
    return (
        f"bfloat16 swallows even chunks of 64: at {brain:,.0f} a step is 256, and a chunk is less than half of it. It takes "
        f"chunks of 256. Two mantissa bits are too few for either sum: e5m2 stays {worst:.1%} off with any size."
    )


def drawn(results: Results) -> str:
    """What stochastic rounding does."""
    figures = [f"{results.mean(f'{form}-stochastic', 'error'):.1%} in {name}" for form, name in FORMATS.items()]
    return (
        f"Stochastic rounding needs no chunks: a term that is a thousandth of a step moves the sum one time in a thousand. The "
        f"running sum is right in the mean and off by {', '.join(figures)}. With chunks as well, 1-6-9 is off by "
        f"{results.mean('e6m9-both', 'error'):.2%}."
    )


def zero_mean(results: Results) -> str:
    """Products, whose sums hardly grow."""
    lines = [f"{results.mean(f'{form}-running', 'product_error'):.1%} in {name}" for form, name in FORMATS.items()]
    noisy = results.mean("e6m9-stochastic", "product_error") / results.mean("e6m9-running", "product_error")
    return (
        f"A product of normal matrices ({DEPTH:,} terms a sum, of both signs) is kinder: sums grow with the square root of their "
        f"length. The running sums' errors are {', '.join(lines)}; chunks of 64 make that of 1-6-9 "
        f"{results.mean('e6m9-chunk-64', 'product_error'):.1%}. Here stochastic rounding costs: its noise makes the error of "
        f"1-6-9 {noisy:.1f} times as large."
    )


ROWS = {
    f"{form}-{way}": Row(
        f"{name}, {text}",
        (form, options),
        f"{as_format(form).mantissa_bits} mantissa bits; {text}.",  # type: ignore[attr-defined]
        tags={"format": form},
    )
    for form, name in FORMATS.items()
    for way, (options, text) in WAYS.items()
}

STUDY = Study(
    title="What does an accumulator swallow?",
    source="N. Wang, J. Choi, D. Brand, C.-Y. Chen and K. Gopalakrishnan, “Training deep neural networks with 8-bit floating "
    "point numbers”, NeurIPS 2018",
    claim="The format of the accumulator matters more than that of the terms. A running sum stalls where a term is less than "
    "half a step of the format; sums of chunks, or stochastic rounding, reach the end in the same bits.",
    setup=f"{LONGEST:,} values, uniform with mean 1 and standard deviation 1, are added in accumulators of several formats, each "
    "addition exact and rounded once, the largest value standing for what lies beyond (for float16 that is 65,504); then normal "
    f"matrices of {SIDE} x {DEPTH:,} and {DEPTH:,} x {SIDE} are multiplied.",
    first_column="accumulator",
    figure="error",
    rows={"float32-running": Row("float32, one running sum", ("float32", {}), "The yardstick."), **ROWS},
    run=run,
    columns=[
        number("sum", "sum", 6),
        percent("error", "error"),
        Column("stalls at", stalls),
        percent("error of a product", "product_error"),
    ],
    plots=[
        Plot("Sum against length", growth),
        Plot("Error against the size of chunks", by_chunk),
        Plot("Products of normal matrices", products),
    ],
    see=[swallowed, others, chunked, too_few, drawn, zero_mean],
    checks=[
        Check("A running 1-6-9 sum stalls at exactly 4096",
              lambda r: all(one["sum"] == 4096 for one in r.of("e6m9-running"))),
        Check("Seed 0 adds up to 65,274; in 1-6-9 with chunks of 64 to 65,472",
              lambda r: (round(r.of("e6m9-chunk-64")[0]["exact"]), r.of("e6m9-chunk-64")[0]["sum"]) == (65274, 65472)),
        Check("Chunks of 64 bring 1-6-9 and float16 from more than 80% off to less than 1%",
              lambda r: all(r.mean(f"{f}-running", "error") > 0.8 and r.mean(f"{f}-chunk-64", "error") < 0.01
                            for f in ("e6m9", "float16"))),
        Check("Stochastic rounding brings every 16-bit running sum to less than 10% off",
              lambda r: all(r.mean(f"{f}-stochastic", "error") < 0.1 for f in ("e6m9", "float16", "bfloat16"))),
        Check("Chunks do not save e5m2: more than half is lost",
              lambda r: r.mean("float8_e5m2-chunk-64", "error") > 0.5),
    ],
    quick=("float32-running", "e6m9-running", "e6m9-chunk-64", "e6m9-stochastic"),
    epochs=None,
    datasets=(),
    minutes=0.3,
)  # fmt: skip
