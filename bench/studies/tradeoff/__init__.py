"""What does a number system bring, and what does it cost? Error, bytes, exchange, time and energy of a step, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from ulpgrad import nn, ops, optim
from ulpgrad.bench import energy, ledger, report
from ulpgrad.bench.lab import (
    FAINT,
    INK,
    Check,
    Column,
    Figures,
    Plot,
    Recipe,
    Results,
    Row,
    Run,
    Study,
    colour,
    diverged,
    percent,
    train,
)
from ulpgrad.bench.lab.plots import front, named, plain_ticks
from ulpgrad.bench.lab.training import DATA, network
from ulpgrad.bench.studies.tradeoff import costs
from ulpgrad.bench.studies.tradeoff.schemes import SCHEMES
from ulpgrad.bench.timing import readable
from ulpgrad.tensor import Tensor

RECIPE = Recipe(learning_rate=0.1, standardize=True)
BASE = "float32"
SETTLED = 0.2  # of the steps, after which times count


def run(run: Run) -> Figures:
    """Train in one scheme, and count what its steps cost."""
    scheme = SCHEMES[run.row]
    stepper = scheme.make(run.seed)
    times: list[float] = []

    def step(model: nn.Module, optimizer: optim.Optimizer, x: Tensor, y: Tensor) -> float:
        start = time.perf_counter()
        loss = stepper(model, optimizer, x, y)
        times.append(time.perf_counter() - start)
        return loss

    trained = train(run, RECIPE, policy=stepper.policy, step=step)
    steady = times[int(SETTLED * len(times)) :]
    return {
        **trained,
        **costs.figures(scheme, work(run.data, run.batch_size)),
        "step_seconds": statistics.median(steady),
    }


def work(dataset: str, batch_size: int) -> ledger.Work:
    """What a step of the network has to do, counted in its graph."""
    model = network(dataset)
    x, y = DATA[dataset]("train")[:batch_size]
    loss = ops.cross_entropy(model(x), y)
    return ledger.work(loss, model, optim.SGD(model.parameters(), lr=RECIPE.learning_rate))


def pareto(figure: str, label: str, unit: float) -> Any:
    """A drawing: test error against a cost, with intervals over seeds and the front."""

    def draw(axes: Any, results: Results) -> None:
        found = {row: (results.mean(row, figure) / unit, results.estimate(row)) for row in results.rows}
        best = front([(x, e.mean) for x, e in found.values()])
        axes.step([x for x, _ in best], [y for _, y in best], where="post", color=FAINT, linewidth=1, linestyle="--")
        for row, (x, error) in found.items():
            on_front = (x, error.mean) in best
            shade = INK if row == BASE else colour(1 if on_front else 2)
            half = error.half or 0.0
            axes.plot([x, x], [error.mean - min(half, 0.7 * error.mean), error.mean + half], color=shade, alpha=0.25)
            axes.plot([x], [error.mean], "o", markersize=7 if on_front else 5, color=shade)
        axes.set(xlabel=label, ylabel="test error", xscale="log", yscale="log")
        axes.margins(x=0.1, y=0.14)
        plain_ticks(axes.yaxis, share=True)
        plain_ticks(axes.xaxis)
        named(axes, [(x, e.mean, results.label(row)) for row, (x, e) in found.items()])

    return draw


def costs_beside_error(results: Results) -> list[str]:
    """Who is on the front, and what is saved."""
    base = {figure: results.mean(BASE, figure) for figure in ("energy", "bytes", "exchange_bytes", "step_seconds")}
    errors = {row: results.estimate(row) for row in results.rows}
    room = max(errors[BASE].half or 0.0, 0.01)
    good = [row for row in results.rows if errors[row].mean <= errors[BASE].mean + room]
    cheapest = min(good, key=lambda row: results.mean(row, "energy"))
    points = [(results.mean(row, "energy"), errors[row].mean) for row in results.rows]
    on_front = [results.label(row) for row, p in zip(results.rows, points, strict=True) if p in front(points)]
    lost = [f"{results.label(row)} {errors[row].mean:.1%}" for row in results.rows if row not in good]
    told = [
        f"Within {100 * room:.1f} points of float32's {errors[BASE].mean:.2%} wrong, the least energy goes to "
        f"{results.label(cheapest)}: {results.mean(cheapest, 'energy'):.0f} µJ a step against {base['energy']:.0f}, with "
        f"{results.mean(cheapest, 'exchange_bytes') / 1e3:.0f} kB to send instead of {base['exchange_bytes'] / 1e3:.0f}. "
        f"The front, where nothing is better in both: {', '.join(on_front)}.",
    ]
    if lost:
        told.append(f"What does not learn as well: {', '.join(lost)}. A byte that is saved this way is not saved.")
    arithmetic = results.mean(BASE, "arithmetic_energy") / base["energy"]
    told.append(
        f"In float32 {arithmetic:.0%} of the model's energy is arithmetic, the rest moves bytes. Multipliers shrink with the "
        "square of the digits, memory only with the bits, and the accumulator's additions not at all: below eight bits they are "
        "what is left. Integers add for a ninth of float32's price."
    )
    slow = max(results.rows, key=lambda row: results.mean(row, "step_seconds"))
    told.append(
        f"The measured time tells another story: {readable(base['step_seconds'])} a step in float32, up to "
        f"{readable(results.mean(slow, 'step_seconds'))} ({results.label(slow)}). This processor has no unit for most of these "
        "formats: values are rounded to the format's grid and multiplied in float32, so what is measured is the emulation."
    )
    return told


def about_energy(results: Results) -> tuple[str, str]:
    """The model, with its figures and its source."""
    rows = [
        (SCHEMES[row].label, *(f"{v:.3g} pJ" for v in (energy.multiply(SCHEMES[row].weight, SCHEMES[row].activation),
                                                        energy.add(SCHEMES[row].accumulate))),
         f"{energy.stored_bits(SCHEMES[row].weight):g}", f"{energy.stored_bits(SCHEMES[row].update):g}",
         f"{results.mean(row, 'arithmetic_energy'):.0f} µJ", f"{results.mean(row, 'memory_energy'):.0f} µJ")
        for row in results.rows
    ]  # fmt: skip
    columns = (
        "format",
        "multiply",
        "add",
        "bits of a weight",
        "bits as it is stepped",
        "arithmetic a step",
        "memory a step",
    )
    some = results.runs[0]
    multiply_adds, others = some["multiply_adds"], some["operations"] - 2 * some["multiply_adds"]
    published = (
        f"Published, for 45 nm at 0.9 V: {energy.SOURCE}. In pJ: integer addition 0.03 (8 bits) and 0.1 (32), multiplication "
        "0.2 and 3.1; floating addition 0.4 (16 bits) and 0.9 (32), multiplication 1.1 and 3.7; 64 bits from a 1 MB cache 100, "
        "from DRAM 1300 to 2600."
    )
    model = (
        "Our interpolation, not measured anywhere: a power law through each pair, in the bits of the word for integers and in "
        "those of the significand for floats; between two formats the geometric mean of the two. A multiply-add multiplies in "
        "its operands' formats and adds in the accumulator's. Memory is the 1 MB cache, 1.56 pJ a bit, which holds this "
        "network; from DRAM the memory's part would be 13 to 26 times as large. Conversions, scales and control are not counted."
    )
    counted = (
        f"A step takes {multiply_adds:,} multiply-adds and {others:,} other operations, counted in the graph. Weights are read "
        "twice, activations and gradients of results written once and read twice, gradients of weights written and read, "
        "masters read and written."
    )
    notes = "".join(f'<p class="note">{text}</p>' for text in (published, model, counted))
    return "The energy model", report.html_table(
        columns, rows, "Energy of one operation and of a step", columns[1:]
    ) + notes


def _as_well(row: str) -> Callable[[Results], bool]:
    return lambda r: r.mean(row) - r.mean(BASE) < 0.015


def kilobytes(name: str, figure: str) -> Column:
    """A cost in kB."""
    return Column(name, lambda runs: f"{runs[0][figure] / 1e3:.0f} kB")


STUDY = Study(
    title="What a number system brings, and what it costs",
    source="",
    claim="With a scale for each tensor or block, eight bits learn as well as float32, and on a task this small four nearly do, "
    "while bytes, exchange and energy fall to a quarter and less. What fails is two bits, a range without a scale, and rounding "
    "to nearest where updates are small.",
    setup="A network of dense layers (64-256-256-10) learns handwritten digits by plain stochastic gradient descent in eighteen "
    "number systems. Rows of one seed start from the same weights and see the same images in the same order.",
    first_column="format",
    rows={name: Row(s.label, name, s.meaning, tags={"format": name}) for name, s in SCHEMES.items()},
    run=run,
    columns=[
        percent("test error", "test_error"),
        Column("energy a step", lambda runs: f"{runs[0]['energy']:.0f} µJ"),
        kilobytes("weights", "weight_bytes"), kilobytes("activations", "activation_bytes"),
        kilobytes("gradients", "gradient_bytes"), kilobytes("exchange", "exchange_bytes"),
        Column("time a step", lambda runs: readable(statistics.fmean(r["step_seconds"] for r in runs))),
        diverged(),
    ],
    note=f"Bytes of a step in the bits of each format: weights with their master where there is one, activations kept for "
    f"backward, gradients of activations and weights. Exchange: what each of {costs.WORKERS} workers sends to sum the weights' "
    f"gradients in a ring, 2 (N - 1) / N times their bytes. Time: measured here, on one thread.",
    plots=[
        Plot("Test error against energy", pareto("energy", "energy of a step, µJ", 1.0), inches=(8.4, 4.6), wide=True,
             note="Dashed: the front, where nothing is better in both. Blue points lie on it."),
        Plot("Test error against bytes exchanged", pareto("exchange_bytes", "exchanged by each of 8 workers a step, kB", 1e3),
             inches=(8.4, 4.6), wide=True),
    ],
    see=[costs_beside_error],
    short_see=[costs_beside_error],
    sections=[about_energy],
    checks=[
        *(Check(f"{SCHEMES[row].label} learns as well as float32, to 1.5 points", _as_well(row))
          for row in ("bfloat16", "float16", "fp8-hybrid", "mxfp8", "int8", "q16")),
        Check("e4m3 without a scale learns worse than 8-bit floats with one",
              lambda r: r.mean("e4m3") > r.mean("fp8-hybrid")),
        Check("16-bit fixed point rounded to nearest learns worse than rounded stochastically, at the same cost",
              lambda r: r.mean("q16-nearest") > r.mean("q16") + 0.01),
        Check("2-bit integers do not learn as well as 4-bit ones", lambda r: r.mean("int2") > r.mean("int4") + 0.01),
        Check("8-bit floats take less than half of float32's energy",
              lambda r: r.mean("fp8-hybrid", "energy") < 0.5 * r.mean(BASE, "energy")),
    ],
    quick=("float32", "bfloat16", "float16", "fp8-hybrid", "e4m3", "mxfp8", "mxfp4", "int8", "int4", "int2", "q16",
           "q16-nearest"),
    quick_epochs=15,
    seeds=5,
    epochs=60,
    batch_size=100,
    minutes=4,
)  # fmt: skip
