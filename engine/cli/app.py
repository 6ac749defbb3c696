"""The commands, their options, and how errors leave: one line and an exit status, no traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import ulpgrad
from ulpgrad.errors import UlpgradError


class Commands(TyperGroup):
    """Errors of ulpgrad's own leave as one line and status 1; wrong options, as everywhere, with status 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UlpgradError as error:
            print(f"ulpgrad: {error}", file=sys.stderr)
            raise typer.Exit(1) from None


class BestByDefault(TyperCommand):
    """--source and --diff may stand alone: they mean the best rung then."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for i in range(len(args) - 1, -1, -1):
            if args[i] in ("--source", "--diff") and (i + 1 == len(args) or args[i + 1].startswith("-")):
                args.insert(i + 1, "best")
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Commands,
    help="ulpgrad: a tensor engine in which every bit is accounted for.",
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write what is printed to FILE as JSON.")]
FormatName = Annotated[str | None, typer.Option("--format", "-f", metavar="FORMAT", help="float32, bfloat16, ...")]
Device = Annotated[str, typer.Option(help="Where: cpu, or cuda (the current GPU).")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page that needs nothing else.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape", "-s", metavar="SIZES", help="An operand's shape: 64,784. Once per operand; - leaves one out."
    ),
]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter of the op: axis=1.")
]


def version(asked: bool) -> None:
    if asked:
        print(f"ulpgrad {ulpgrad.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before any command."""


@app.command()
def doctor(
    ceilings: Annotated[
        bool, typer.Option("--ceilings", help="Measure what arithmetic and memory of this machine can do at most.")
    ] = False,
    json: Json = None,
) -> None:
    """Show the machine, its instruction sets, and which kernels it can run, and why not the others."""
    from ulpgrad.cli import doctor as command

    command.run(json, ceilings)


@app.command()
def explain(
    op: Annotated[str, typer.Argument(help="An op, such as matmul or softmax.")],
    shape: Shapes = None,
    format: FormatName = None,
    param: Parameters = None,
    json: Json = None,
) -> None:
    """Say which kernel runs a call, and why those above it were refused."""
    from ulpgrad.cli import explain as command

    command.run(op, shape or [], format, param or [], json)


@app.command(cls=BestByDefault)
def ladder(
    op: Annotated[str, typer.Argument(help="An op, such as matmul or softmax.")],
    size: Annotated[int | None, typer.Option(min=1, help="Size of the op's standard problem.")] = None,
    shape: Shapes = None,
    format: FormatName = None,
    param: Parameters = None,
    device: Device = "cpu",
    samples: Annotated[int, typer.Option(min=1, help="Timed samples of each rung, at most.")] = 20,
    source: Annotated[
        str | None,
        typer.Option(metavar="[RUNG]", help="Show a rung's source instead: tile, numba-tiled, all; best if none is named."),
    ] = None,
    diff: Annotated[
        str | None,
        typer.Option(metavar="[RUNG]", help="Show what changed in a rung from the one below it instead."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the climb to FILE, an SVG.")] = None,
    json: Json = None,
    html: Html = None,
) -> None:  # fmt: skip
    """Climb an op's kernels from the definition to the fastest: time, rate, gain, share of the peak, what limits each."""
    from ulpgrad.cli import ladder as command

    chosen = command.Chosen(op, size, tuple(shape or ()), format, tuple(param or ()), device)
    if source or diff:
        command.show_source(chosen, source, diff)
    else:
        command.run(chosen, samples, json, html, plot)


@app.command()
def formats(
    name: Annotated[
        str | None, typer.Argument(help="A format: float8_e4m3fn, e6m9, q7.8, binary8p3se, mxfp4_e2m1.")
    ] = None,
    at: Annotated[
        list[float] | None, typer.Option("--at", metavar="X", help="A value to round, in every mode.")
    ] = None,
    json: Json = None,
) -> None:
    """Show number systems side by side, or one in full: limits, every code, and what becomes of values."""
    from ulpgrad.cli import formats as command

    command.run(name, at or [], json)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="Which study.")] = "digits",
    list_: Annotated[bool, typer.Option("--list", help="Show all studies, and how long each takes.")] = False,
    rows: Annotated[str | None, typer.Option(help="Rows to run, by comma, as the JSON file names them.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Repetitions, each with initial weights of its own.")] = None,
    data: Annotated[str | None, typer.Option(help="What to learn: digits or mnist.")] = None,
    formats: Annotated[str | None, typer.Option(help="Only rows of these formats, by comma: float32,bfloat16.")] = None,
    models: Annotated[str | None, typer.Option(help="Only rows of these models, by comma: mlp,cnn.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images in a step.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORDS",
            help='For the study policy: a row of your own, "weight=q5.10 update=q5.10", or one by '
            "name; as often as you like.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report and of finished runs.")] = Path("reports"),
    quick: Annotated[bool, typer.Option("--quick", help="A few epochs of one seed, to see it work.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again what an earlier call has finished.")] = False,
    json: Json = None,
) -> None:
    """Run an experiment: networks in several number formats from the same seeds, and a report on what the numbers do."""
    from ulpgrad.cli import study as command

    if list_:
        return command.show(json)
    given = {"rows": rows, "epochs": epochs, "seeds": seeds, "data": data, "formats": formats, "models": models,
             "batch_size": batch_size}  # fmt: skip
    chosen = {key: value for key, value in given.items() if value is not None}
    return command.run(name, chosen, out, policies=policy or (), quick=quick, fresh=fresh, json=json)


class WithDefault(TyperGroup):
    """Arguments that name none of its commands are given to the command `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


bench = typer.Typer(
    cls=WithDefault,
    help="Measure ulpgrad beside its peers: `ulpgrad bench matmul,softmax` is `ulpgrad bench run matmul,softmax`.",
)
app.add_typer(bench, name="bench")

Words = Annotated[str, typer.Argument(help="Only rows with all these words in their name: 'matmul float32'.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of rows that are not per core; all cores if not given.")
]
Quick = Annotated[bool, typer.Option("--quick", help="Few samples, to see it work.")]


@bench.command("run")
def bench_run(
    ops: Annotated[
        list[str] | None, typer.Argument(help="Ops by name: matmul softmax, or matmul,softmax. All if none is given.")
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            help='By name, with commas: float32,bfloat16,e6m9,q7.8,mxfp4_e2m1,affine_int8; "all" that an op is tested in.'
        ),
    ] = "",
    sizes: Annotated[str, typer.Option(help="Of the ops' standard problems, with commas: 128,1024.")] = "",
    device: Device = "cpu",
    peers: Annotated[
        str | None,
        typer.Option(help="torch,numpy,jax,onnxruntime,cupy, or none. Those that are installed if not given."),
    ] = None,
    rungs: Annotated[str, typer.Option(help='"best" (what dispatch takes), "all", or rungs by name.')] = "best",
    threads: Threads = None,
    samples: Annotated[int, typer.Option(min=3, help="Timed samples of each contender, at most.")] = 40,
    rounds: Annotated[
        int, typer.Option(min=1, help="Times that all is gone through, in new processes, which share the samples.")
    ] = 8,
    limit: Annotated[float, typer.Option(min=1, help="Seconds without an answer after which one is given up.")] = 180,
    file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A Python file that registers rungs or ops of your own; more than once."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Keep the record; the same command goes on where it was stopped."),
    ] = None,
    html: Html = None,
    quick: Quick = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Show all ops, their standard sizes and what they count.")
    ] = False,
) -> None:
    """Any op in any format, size and rung: time, rate, share of the limit, memory, error, beside the peers.

    [bold]ulpgrad bench matmul,softmax --formats float32,bfloat16 --peers torch,numpy --json run.json[/bold]
    """
    from ulpgrad.cli import bench_run as command

    if list_:
        return command.listed()
    settings = command.Settings(
        ",".join(ops or ()), formats, command.sizes(sizes), device, peers, rungs, command.threads(threads),
        min(samples, command.QUICK) if quick else samples, 1 if quick else rounds, limit, tuple(map(str, file or ())),
    )  # fmt: skip
    return command.bench(settings, json, html)


@bench.command("peers")
def bench_peers(
    words: Words = "", device: Device = "cpu", threads: Threads = None, json: Json = None, html: Html = None,
    quick: Quick = False,
) -> None:  # fmt: skip
    """Rates of kernels, steps and conversions beside torch, NumPy, JAX, ONNX Runtime and others that are installed."""
    from ulpgrad.cli import bench as command

    command.peers(words, device, threads, json, html, quick=quick)


@bench.command("sweep")
def bench_sweep(
    words: Words = "", device: Device = "cpu", threads: Threads = None, json: Json = None, html: Html = None,
    quick: Quick = False,
) -> None:  # fmt: skip
    """The same kernels at sizes from 8 to 4096, odd, prime, thin and stacked ones: where is there a cliff?"""
    from ulpgrad.cli import bench as command

    command.sweep(words, device, threads, json, html, quick=quick)


@bench.command("profile")
def bench_profile(words: Words = "", threads: Threads = None, json: Json = None, quick: Quick = False) -> None:
    """Where the time of a training step goes: each kernel, what the machine's limits allow it, and what lies between.

    Of a program of your own: [bold]with ulpgrad.profile() as found: ...; print(found)[/bold]
    """
    from ulpgrad.cli import bench as command

    command.profile(words, threads, json, quick=quick)


@bench.command("table")
def bench_table() -> None:
    """Write the tables and pictures of README and docs anew from bench/results: no figure there is typed by hand."""
    from ulpgrad.cli import bench as command

    command.tables()


@bench.command("report")
def bench_report(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Files that --json wrote, or names of some in bench/results, for one page."
        ),
    ],
    html: Html = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="The same in words and tables.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Every row and every figure of it.")] = None,
) -> None:
    """Show a recorded run: who is faster beyond noise, the roofline, sizes, errors, ranges."""
    from ulpgrad.cli import bench_report as command

    command.report(names, html, markdown, csv)


@bench.command("compare")
def bench_compare(
    names: Annotated[
        list[str],
        typer.Argument(metavar="BEFORE... AFTER", help="Files that --json wrote, or names of some in bench/results."),
    ],
    json: Json = None,
    html: Html = None,
    fail: Annotated[bool, typer.Option("--fail", help="Leave with status 1 if anything became slower.")] = False,
) -> None:
    """Say what became faster or slower between runs of different times; `against` measures both in turns, and sees finer."""
    from ulpgrad.cli import bench_report as command

    command.compare(names, json, html, fail=fail)


@bench.command("against")
def bench_against(
    before: Annotated[
        str,
        typer.Argument(
            metavar="BEFORE", help="A revision of this checkout (HEAD, a tag), or a folder with another one."
        ),
    ],
    ops: Annotated[
        list[str] | None, typer.Argument(help="Ops by name: matmul softmax, or matmul,softmax. All if none is given.")
    ] = None,
    formats: Annotated[str, typer.Option(help="By name, with commas: float32,bfloat16,q7.8.")] = "",
    sizes: Annotated[str, typer.Option(help="Of the ops' standard problems, with commas: 128,1024.")] = "",
    find: Annotated[float, typer.Option(help="Go on until a change by this factor could not be missed.")] = 1.1,
    rounds: Annotated[int, typer.Option(min=6, help="At most: new processes of both versions.")] = 24,
    threads: Threads = None,
    limit: Annotated[float, typer.Option(min=1, help="Seconds without an answer after which one is given up.")] = 180,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="A Python file with rungs of your own, for the version that runs here alone."
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Keep both records; the same command goes on where it was stopped."
        ),
    ] = None,
    html: Html = None,
    fail: Annotated[bool, typer.Option("--fail", help="Leave with status 1 if anything became slower.")] = False,
) -> None:
    """Say what became faster or slower since another version: both are measured in turns, milliseconds apart.

    [bold]ulpgrad bench against HEAD matmul,softmax[/bold]   your changes beside the last commit
    """
    from ulpgrad.cli import bench_against as command, bench_run

    settings = bench_run.Settings(
        ",".join(ops or ()), formats, bench_run.sizes(sizes), "cpu", "none", "best", bench_run.threads(threads),
        rounds=rounds, limit=limit, files=tuple(map(str, file or ())),
    )  # fmt: skip
    command.against(before, settings, find, json, html, fail=fail)


@bench.command("trial")
def bench_trial(
    folder: Annotated[Path, typer.Argument(help="Where the runs are kept: a trial that was stopped goes on.")],
    same: Annotated[int, typer.Option(min=0, help="Runs of the same code, which must not be told apart.")] = 10,
    planted: Annotated[int, typer.Option(min=0, help="Runs with ops a fifth slower, which must be found.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Of each run.")] = 1,
    rounds: Annotated[int, typer.Option(min=6, help="Of each run, at most.")] = 40,
    json: Json = None,
) -> None:
    """Try `against` on this machine: the same code against itself, and against itself with a planted slow-down of a fifth."""
    from ulpgrad.cli import bench_trial as command

    command.run(folder, same, planted, threads, rounds, json)


@bench.command("network")
def bench_network(
    systems: Annotated[
        str, typer.Argument(help="Number systems by comma: float32,fp8-hybrid,mxfp4. All if none is given.")
    ] = "",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a step.")] = 100,
    samples: Annotated[int, typer.Option(min=1, help="Timed steps of each system.")] = 20,
    outcome: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `ulpgrad study tradeoff` wrote: reports/tradeoff.json.")
    ] = None,
    json: Json = None,
    html: Html = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="The same in words and tables.")
    ] = None,
) -> None:
    """One network in every number system: speed, error, memory and traffic of a step, and what training came to."""
    from ulpgrad.cli import bench_network as command

    command.run(systems, batch_size, samples, outcome, json, html, markdown)


exercise = typer.Typer(no_args_is_help=True, help="Write kernels and number systems yourself, and have them checked.",
                       cls=TyperGroup)  # fmt: skip
app.add_typer(exercise, name="exercise")

Name = Annotated[str, typer.Argument(metavar="NAME", help="An exercise, as `ulpgrad exercise list` names it.")]


@exercise.command("list")
def exercise_list(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where your answers are.")] = Path("exercises"),
    json: Json = None,
) -> None:
    """Show all exercises, in their order, and which of your answers have passed."""
    from ulpgrad.cli import exercise as command

    command.show(folder, json)


@exercise.command("start")
def exercise_start(
    name: Name,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the file is written.")] = Path("exercises"),
) -> None:
    """Write the file to begin with, and show the task."""
    from ulpgrad.cli import exercise as command

    command.start(name, to)


@exercise.command("check")
def exercise_check(
    which: Annotated[
        str | None,
        typer.Argument(metavar="[FILE|NAME|FOLDER]", help="An answer, or a folder of them: exercises, if not given."),
    ] = None,
    exercise: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="The exercise, if the file is not called after it.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draw the same values as an earlier check.")] = None,
    limit: Annotated[float, typer.Option(min=1, help="Seconds an answer may take.")] = 60,
    json: Json = None,
) -> None:
    """Run an answer on fresh values, and say what is wrong with it; where speed is the point, time it as well."""
    from ulpgrad.cli import exercise as command

    command.check(which, exercise, seed, limit, json)


@exercise.command("hint")
def exercise_hint(
    name: Name, step: Annotated[int, typer.Argument(metavar="[STEP]", min=1, help="How many hints to show.")] = 1
) -> None:
    """Show the first hint, or the first few."""
    from ulpgrad.cli import exercise as command

    command.hint(name, step)


@exercise.command("solution")
def exercise_solution(name: Name) -> None:
    """Show a worked solution."""
    from ulpgrad.cli import exercise as command

    command.solution(name)
