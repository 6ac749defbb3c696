"""Where the numbers of a network lie as it learns, and which formats reach there.

Beside that, what formats are: their values on a line, their spacing against magnitude, their range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ulpgrad import data, nn, ops
from ulpgrad.bench import pictures, report
from ulpgrad.bench.lab import (  # fmt: skip
    FAINT,
    INK,
    Check,
    Figures,
    Plot,
    Recipe,
    Results,
    Row,
    Run,
    Study,
    colour,
    percent,
    train,
)
from ulpgrad.bench.lab.study import Column
from ulpgrad.bench.studies.digits.training import MODELS
from ulpgrad.formats import Array, Format, as_format
from ulpgrad.tensor import Tensor

LOW, HIGH = -64, 16  # binades that are told apart; what lies outside is counted in the first and the last
KINDS = {"weights": "weights", "activations": "activations", "errors": "gradients of activations",
         "gradients": "gradients of weights"}  # fmt: skip
SHOWN = (-38, 17)  # binades that pictures show
MOMENTS = ("start", "middle", "end")
LOOKS: dict[str, dict[str, Any]] = {
    "start": {"color": INK, "linewidth": 1.2, "linestyle": ":"},
    "middle": {"color": INK, "linewidth": 1.2, "linestyle": "--"},
    "end": {"color": colour(2), "linewidth": 2},
}
PROBE = 256  # training images whose numbers are looked at
SHADED = ("float16", "bfloat16", "float8_e5m2", "float8_e4m3fn", "float6_e3m2fn", "float4_e2m1fn", "q7.8", "q0.15")
LINES = ("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e4m3fn", "float8_e5m2", "q3.4")
STAIRS = ("float16", "bfloat16", "float8_e5m2", "float8_e4m3fn", "float6_e3m2fn", "float4_e2m1fn", "q7.8")
FLOAT16_LOST = 2.0**-24  # Micikevicius et al. count what lies below


def run(run: Run) -> Figures:
    """Train in float32, and three times look at all numbers of one forward and backward pass."""
    probe = next(iter(data.DataLoader(data.digits("train"), PROBE, shuffle=True, seed=0)))
    steps = run.epochs * -(-len(data.digits("train")) // run.batch_size)
    due = dict(zip((0, steps // 2, steps - 1), MOMENTS, strict=False)) if steps > 2 else {steps - 1: "end"}
    seen: dict[str, dict[str, Any]] = {}

    def watch(model: nn.Module, step: int) -> None:
        if step in due:
            seen[due[step]] = {kind: histogram(values) for kind, values in numbers(model, *probe).items()}

    figures = train(run, run.setting, watch=watch)
    last = seen["end"]
    small = sum(last["gradients"]["counts"][: round(np.log2(FLOAT16_LOST)) - LOW])
    shares = {f"{kind}_zero": last[kind]["zeros"] for kind in KINDS}
    return {
        **figures,
        "numbers": seen,
        **shares,
        "gradients_below_float16": small / max(1, sum(last["gradients"]["counts"])),
        **{f"{kind}_span": span(last[kind]) for kind in KINDS},
    }


def numbers(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, list[Array]]:
    """All numbers of a forward and backward pass by kind, from a network of layers one after the other."""
    layers = list(model.children())
    kept = [p.grad for p in model.parameters()]
    model.zero_grad()
    h, outputs = x, []
    for layer in layers:
        h = layer(h)
        if not isinstance(layer, nn.Flatten):
            h.retain_grad()
            outputs.append(h)
    ops.cross_entropy(h, y).backward()
    parameters = list(model.parameters())
    found = {
        "weights": [p.storage for p in parameters],
        "activations": [x.storage, *(t.storage for t in outputs)],
        "errors": [t.grad.storage for t in outputs if t.grad is not None],
        "gradients": [p.grad.storage for p in parameters if p.grad is not None],
    }
    for p, grad in zip(parameters, kept, strict=True):
        p.grad = grad
    return found


def histogram(arrays: Sequence[Array]) -> dict[str, Any]:
    """How many values lie in each binade [2^k, 2^(k+1)), k from LOW to HIGH - 1, and the share of zeros."""
    values = np.concatenate([np.abs(a.astype(np.float64)).ravel() for a in arrays])
    exponents = np.frexp(values[values > 0])[1] - 1
    counts = np.bincount(np.clip(exponents, LOW, HIGH - 1) - LOW, minlength=HIGH - LOW)
    return {"counts": counts.tolist(), "zeros": float(np.mean(values == 0))}


def span(found: Mapping[str, Any], share: float = 0.99) -> float:
    """Binades in which the middle `share` of the values that are not zero lie."""
    total = np.cumsum(found["counts"]) / max(1, sum(found["counts"]))
    low, high = (int(np.searchsorted(total, q)) for q in ((1 - share) / 2, (1 + share) / 2))
    return float(high - low + 1)


def reach(found: Mapping[str, Any], form: Format) -> tuple[float, float, float]:
    """Shares of the values that are not zero: rounded to zero, on subnormal codes, beyond the largest value (by binades)."""
    low, high = pictures.extent(form)
    normal = form.smallest_normal if form.kind == "float" else low  # type: ignore[attr-defined]
    counts = np.asarray(found["counts"], dtype=np.float64)
    exponents = np.arange(LOW, HIGH)
    total = max(1.0, counts.sum())
    zero = exponents < np.log2(low) - 1
    over = exponents > np.floor(np.log2(high))
    return (
        float(counts[zero].sum() / total),
        float(counts[(exponents < np.log2(normal)) & ~zero].sum() / total) if normal > low else 0.0,
        float(counts[over].sum() / total),
    )


# What is shown


def mean_histogram(results: Results, row: str, moment: str, kind: str) -> Array:
    """Shares of a kind's values that are not zero by binade, over all seeds."""
    counts = np.sum([r["numbers"][moment][kind]["counts"] for r in results.of(row) if moment in r["numbers"]], axis=0)
    return np.asarray(counts / max(1, np.sum(counts)), dtype=np.float64)


def histograms(row: str, kind: str) -> Any:
    """A drawing: the kind's values by binade at each moment, over the range of each format."""

    def draw(axes: Any, results: Results) -> None:
        shares = {m: mean_histogram(results, row, m, kind) for m in MOMENTS if m in results.of(row)[0]["numbers"]}
        top = max(float(np.max(s)) for s in shares.values())
        edges = np.arange(LOW, HIGH + 1)
        for moment, share in shares.items():
            axes.stairs(share, edges, label=moment, **LOOKS[moment])
        axes.stairs(shares[list(shares)[-1]], edges, fill=True, color=colour(2), alpha=0.25, linewidth=0)
        forms = [as_format(name) for name in SHADED]
        height = top / len(forms) * 0.9
        pictures.range_bars(axes, forms, -height, -height)
        for i, form in enumerate(forms):
            axes.text(
                SHOWN[1] + 0.5, -height * (i + 1), form.name, va="center", color=FAINT, fontsize=8.5, clip_on=False
            )
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.set(xlim=SHOWN, yticks=[], xlabel="magnitude", ylim=(-height * (len(forms) + 0.8), 1.08 * top))
        pictures.powers_of_two(axes.xaxis)
        axes.legend(loc="upper left")

    return draw


def drawing(picture: pictures.Picture, title: str = "") -> Plot:
    """A picture of formats as a plot of the page."""
    return Plot(title or picture.title, lambda axes, results: picture.draw(axes), inches=picture.inches, wide=True)


def fits(results: Results) -> tuple[str, str]:
    """What each format loses of each kind at the end of training."""
    columns = ("format", *KINDS.values())
    parts = []
    for row in results.rows:
        lines = []
        for name in SHADED:
            cells = []
            for kind in KINDS:
                found = {"counts": mean_histogram(results, row, "end", kind)}
                low, _, high = reach(found, as_format(name))
                cells.append(f"{low:.1%} + {high:.1%}")
            lines.append((name, *cells))
        parts.append(report.html_table(columns, lines, results.label(row), columns[1:]))
    note = (
        "Shares of the values that are not zero: first those below half the smallest value of the format, which become "
        "zero, then those in binades above its largest. A scale, for the whole network or for each tensor, moves the numbers "
        "along; it does not make a format wider."
    )
    return "What each format would lose, unscaled", "".join(parts) + f'<p class="note">{note}</p>'


def what_lies_where(results: Results) -> list[str]:
    """The findings, in figures."""
    found = []
    for row in results.rows:
        one = {kind: results.mean(row, f"{kind}_span") for kind in KINDS}
        found.append(
            f"{results.label(row)}: at the end of training 99% of the weights lie within {one['weights']:.0f} binades, of the "
            f"activations within {one['activations']:.0f}, of their gradients within {one['errors']:.0f} and of the weights' "
            f"gradients within {one['gradients']:.0f} (zeros left out: {results.mean(row, 'activations_zero'):.0%} of the "
            f"activations are exactly zero, the work of ReLU). float16 has 40 binades, e5m2 32, e4m3 18, Q(7, 8) 15."
        )
    shares = [f"{results.mean(row, 'gradients_below_float16'):.1%} ({results.label(row)})" for row in results.rows]
    found.append(
        f"Of the weights' gradients that are not zero {' and '.join(shares)} lie below 2⁻²⁴, where float16 ends; Micikevicius et "
        "al. report about 5% for a speech network. Gradients move down as the loss falls: compare the dotted line (first step) "
        "with the filled one (last). Multiplying the loss moves them up again, which is loss scaling."
    )
    return found


def _end(name: str, kind: str) -> Column:
    return Column(name, lambda runs: f"{np.mean([r[f'{kind}_span'] for r in runs]):.0f} binades")


STUDY = Study(
    title="Where a network's numbers lie, and which formats reach there",
    source="P. Micikevicius and others, “Mixed precision training”, ICLR 2018, figure 3, and the formats' own definitions",
    claim="Weights and activations keep to a few binades around one. Gradients lie far below, spread wider, and move down while "
    "the network learns: they decide how much exponent a format needs, and why one scale or another must move them up.",
    setup="Two networks learn handwritten digits by plain stochastic gradient descent, in float32. At the first step, in the "
    f"middle and at the last one, {PROBE} training images are sent forward and backward, and every number is counted by binade.",
    rows={
        "dense": Row("dense layers", Recipe(), "64-256-256-10 with ReLU, SGD with learning rate 0.1."),
        "convolutions": Row(
            "convolutions", Recipe(learning_rate=0.05, network=lambda _: MODELS["cnn"].make()),
            "Two convolutions 3 × 3 with 16 and 48 filters, dense layers 768-96-10, SGD with learning rate 0.05.", epochs=15,
        ),
    },
    run=run,
    columns=[
        percent("test error", "test_error"),
        *(_end(name, kind) for kind, name in KINDS.items()),
        percent("weight gradients below 2⁻²⁴", "gradients_below_float16"),
    ],
    plots=[
        *(Plot(f"{label}: {name}", histograms(row, kind), inches=(5.4, 3.9))
          for row, label in (("dense", "Dense layers"), ("convolutions", "Convolutions")) for kind, name in KINDS.items()),
        drawing(pictures.dynamic_range(("float32", *SHADED)), "Range of each format"),
        drawing(pictures.spacing(STAIRS), "Spacing against magnitude"),
        *(drawing(pictures.number_line(name)) for name in LINES),
    ],
    see=[what_lies_where],
    short_see=[what_lies_where],
    checks=[
        Check("1% to 15% of the dense network's weight gradients lie below 2⁻²⁴ (published: about 5%)",
              lambda r: 0.01 < r.mean("dense", "gradients_below_float16") < 0.15),
        Check("gradients spread over twice as many binades as weights",
              lambda r: min(r.mean(row, "gradients_span") / r.mean(row, "weights_span") for row in r.rows) > 1.9),
    ],
    sections=[fits],
    note="Binades: the width of the middle 99% of the values that are not zero, in powers of two, at the last step. "
    f"Gradients are those of the mean loss over {PROBE} images.",
    datasets=("digits",),
    minutes=0.4,
)  # fmt: skip
