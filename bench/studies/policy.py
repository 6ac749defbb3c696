"""Any policy on the digits: named ones, or those given in words, each a row beside float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ulpgrad.bench.lab import Figures, Plot, Results, Row, Run, Study, bars, curves, diverged, percent, train
from ulpgrad.bench.lab.given import RECIPE, Chosen, given
from ulpgrad.errors import ArgumentError
from ulpgrad.policy import DelayedScaling, DynamicFixed, Policy, autocast

BASE = "float32"
WORD = "q5.10"


def words(options: dict[str, Any]) -> Callable[[int], Chosen]:
    """A Policy of these options for a seed."""
    return lambda seed: Policy(**options, seed=seed)


def everything(form: Any) -> dict[str, Any]:
    """One format in every role."""
    return {"weight": form, "activation": form, "gradient": form, "update": form}


# Name -> label, what makes the policy of a seed, meaning.
PRESETS: dict[str, tuple[str, Callable[[int], Chosen], str]] = {
    BASE: ("float32", lambda seed: None, "No policy: everything in float32, the yardstick."),
    "bfloat16": ("bfloat16, autocast", lambda seed: autocast("bfloat16"), "Products in bfloat16, the rest in float32."),
    "float16": ("float16, autocast", lambda seed: autocast("float16"), "Products in float16, without loss scaling."),
    "hybrid": ("hybrid, delayed scaling", lambda seed: DelayedScaling(seed=seed),
               "Operands of products in e4m3, gradients in e5m2, each with a scale from earlier steps."),
    "mxfp8": ("MXFP8 (e4m3)", lambda seed: autocast("mxfp8_e4m3"), "Operands of products in blocks of 32 with one scale."),
    "mxfp6": ("MXFP6 (e2m3)", lambda seed: autocast("mxfp6_e2m3"), "The same in 6 bits."),
    "mxfp4": ("MXFP4 (e2m1)", lambda seed: autocast("mxfp4_e2m1"), "The same in 4 bits."),
    "q16": ("Q(5, 10), stochastic updates",
            words({**everything(WORD), "rounding": {"update": "stochastic"}, "accumulate": "int64"}),
            "16-bit fixed point in every role, integer products summed in 64 bits, weights rounded stochastically."),
    "q16-nearest": ("Q(5, 10), nearest", words({**everything(WORD), "accumulate": "int64"}),
                    "The same with weights rounded to nearest: small updates are lost."),
    "dynamic": ("dynamic fixed point, 10 and 12 bits", words(everything(DynamicFixed(10, 12))),
                "Words of 10 bits, weights of 12, whose radix points follow the measured overflow."),
    "e6m9": ("sums in 1-6-9", words({"accumulate": "e6m9"}), "float32 operands, every sum of a product rounded to 16 bits."),
}  # fmt: skip


def run(run: Run) -> Figures:
    """Train under the row's policy."""
    return train(run, RECIPE, policy=run.setting(run.seed))


def beside(results: Results) -> str:
    """Every row beside float32."""
    base = results.mean(BASE)
    others = [f"{results.label(r)} {results.mean(r):.2%}" for r in results.rows if r != BASE]
    return f"float32 ends at {base:.2%} wrong" + (f"; {', '.join(others)}." if others else ".")


def study(texts: Sequence[str]) -> Study:
    """This study with float32 and the policies given, each in words or by the name of one of the rows here. ArgumentError and
    FormatError for those that cannot be."""
    rows = {BASE: STUDY.rows[BASE]}
    for text in texts:
        name = text.strip()
        if name in PRESETS:
            rows[name] = STUDY.rows[name]
        elif name and "=" not in name and ":" not in name:
            raise ArgumentError(
                f"--policy: {name!r}: expected roles, such as weight=q7.8, or one of {', '.join(PRESETS)}"
            )
        else:
            found = given(text)
            label = found.name or f"policy {len(rows)}"
            if label in [row.label for key, row in rows.items() if key != found.key]:
                raise ArgumentError(
                    f"--policy: two are called {label!r}: give each a name of its own, NAME: ROLE=FORMAT ..."
                )
            rows[found.key] = Row(label, found.make, found.text)
    return replace(STUDY, rows=rows, quick=None)


STUDY = Study(
    title="Policies side by side: what number formats do to a training",
    source="",
    claim="A policy says in which format each tensor of a network is kept, by its role. Here each trains the same network on the "
    "same images from the same weights.",
    note='Policies of your own: ulpgrad study policy --policy "weight=q5.10 activation=q5.10 rounding=stochastic".',
    first_column="policy",
    rows={name: Row(label, make, meaning) for name, (label, make, meaning) in PRESETS.items()},
    run=run,
    columns=[percent("test error", "test_error"), percent("best error", "best_error"), diverged()],
    plots=[
        Plot("Test error", bars("test error")),
        Plot("Training loss", curves("losses", "training loss")),
    ],
    see=[beside],
    short_see=[beside],
    quick=(BASE, "hybrid", "q16"),
    minutes=8,
)
