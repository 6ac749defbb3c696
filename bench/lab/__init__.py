"""The laboratory: what a study is, how it is run, kept, summed up and shown.

A study is one file, `bench/studies/<name>.py` (or a package of that name), which holds a `Study` called STUDY. It is found
by its file; `ulpgrad study <name>` runs it, `ulpgrad study --list` shows it. The smallest that says something:

    def run(run: Run) -> Figures:                       # one row, one seed -> figures that fit JSON
        return train(run, Recipe(learning_rate=0.1), policy=run.setting)

    STUDY = Study(
        title="Does stochastic rounding help?",
        source="Gupta et al., 'Deep learning with limited numerical precision', ICML 2015",
        claim="16-bit fixed point trains with stochastic rounding, not with nearest.",     # a paragraph: what to see
        rows={
            "float32": Row("float32", None, "Everything in float32: the yardstick."),
            "q5.10-nearest": Row("Q(5, 10), nearest", Policy(...), "...", tags={"format": "q5.10"}),
        },
        run=run,
        columns=[percent("test error", "test_error"), diverged()],
        plots=[Plot("Test error", curves("test_errors", "test error"))],
        checks=[Check("nearest rounding fails", lambda r: r.mean("q5.10-nearest") > 5 * r.mean("float32"))],
        expected={"float32": {"test_error": 0.0202}},                                      # the dry run's figures
        epochs=60, minutes=4,
    )

- A run's figures are a dict of numbers, lists and dicts of them; what is not finite becomes None. `row`, `label` and `seed`
  are added. `test_error` is the main figure unless the study names another.
- `Results` gives them back by row: `results.of(row)` a list of runs, `results.estimate(row, figure)` mean and 95 % interval
  over seeds, `results.mean(row, figure)`. Asking for a row that was not run raises `NotRun`: a check is then left open, and
  a paragraph of `see` left out.
- `see` is a sequence of functions Results -> paragraph, or list of them, under "What to see": they state figures. They,
  `checks` and `expected` hold for the whole study; calls with other epochs (--quick), batches or data show `short_see`.
- Plots draw on matplotlib axes in `colour(i)`, INK, FAINT (text) and RULE (lines), which follow the page in light and dark.
- `sections` adds HTML of one's own: functions Results -> (heading, html).
- Finished runs are kept in `<out>/<name>-runs` under their arguments and a digest of the code, and are not made again.
- Studies that train nothing give `epochs=None` and `datasets=()`: --epochs and --data are then refused.

`train` is the loop that the studies of published results share; it says in its docstring what it measures.
`trial(policy)` trains its network under any Policy, without a study.
"""

from ulpgrad.bench.lab.given import trial
from ulpgrad.bench.lab.plots import FAINT, INK, PAPER, RULE, Plot, bars, colour, curves
from ulpgrad.bench.lab.results import Estimate, Figures, NotRun, Results
from ulpgrad.bench.lab.study import Check, Column, Options, Row, Run, Study, diverged, number, percent, span
from ulpgrad.bench.lab.training import Recipe, divide_gradients, network, train

__all__ = ["FAINT", "INK", "PAPER", "RULE", "Check", "Column", "Estimate", "Figures", "NotRun", "Options", "Plot", "Recipe",
           "Results", "Row", "Run", "Study", "bars", "colour", "curves", "diverged", "divide_gradients", "network", "number",
           "percent", "span", "train", "trial"]  # fmt: skip
