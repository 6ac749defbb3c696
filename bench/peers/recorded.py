"""Tables and pictures of documents, made of recorded runs (bench/results/), so that no figure is typed by hand.

In a document, what stands between `<!-- recorded: KIND WORDS -->` and `<!-- end -->` is replaced:

    peers WORDS       rows of peers-cpu.json with all these words in their name; several choices with | between them
    gpu WORDS         the same of gpu.json, which `make gpu-check` writes; or that nothing has been measured
    networks          the layers of networks in gpu.json; pictures are docs/pictures/gpu-NETWORK-FORMAT.svg
    errors WORDS      their errors against float64
    elsewhere NAME WORDS   rows of peers-NAME.json, recorded on another machine, their errors, and what that machine is
    ladder NAME       the rungs of ladder-NAME.json, in tables; its picture is docs/pictures/ladder-NAME.svg
    roofline NAME     which limit is nearer, and by how much
    rung NAME IDEA    what the rung native-IDEA (or any other, by its name) came to, in a line
    code FILE         what a file of csrc/cpu holds
    steps NAME        where the time of a training step goes, of steps-cpu.json
    behind            the points of sweep-cpu.json in which a peer was faster
    suite NAME WORDS  cells of suite-NAME.json, which `ulpgrad bench --json` wrote, with all these words; choices with | as above
    formats NAME OP   an op of suite-NAME.json in every format that was measured: speed, error, memory, traffic
    trial             trial-cpu.json, as `ulpgrad bench trial --json` writes it
    ceilings          ceilings-cpu.json, as `ulpgrad doctor --ceilings --json` writes it
    exercises         every exercise in its order; from the code, not from a run
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ulpgrad.bench import exercises
from ulpgrad.bench.gpu import shown as on_layers
from ulpgrad.bench.peers import page, profiled
from ulpgrad.bench.peers.work import Outcome
from ulpgrad.bench.pictures import Picture
from ulpgrad.bench.rungs import page as climbs, source
from ulpgrad.bench.suite import precision, record, sections
from ulpgrad.bench.suite.tables import Table, Value, text as shown
from ulpgrad.errors import DataError
from ulpgrad.io.atomic import atomic_write

RESULTS = Path(__file__).resolve().parent.parent / "results"
NOT_YET = "Nothing of this has been measured on a GPU yet.\n"
BLOCK = re.compile(r"(<!-- recorded: (\w+)(?: ([^\n]*?))? -->\n).*?(<!-- end -->)", re.DOTALL)


def read(name: str) -> Any:
    """A recorded file of bench/results. DataError if it is not there."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise DataError(f"{path.name} is not recorded: no such file in bench/results")
    return json.loads(path.read_text())


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """A table; `right` names columns of figures."""
    rule = ["---:" if name in right else "---" for name in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *rows)) + "\n"


def outcomes(rows: Sequence[Any]) -> list[Outcome]:
    return [Outcome.from_data(row) for row in rows]


def named(words: str, table: str = "peers-cpu") -> list[Outcome]:
    """Rows of a table that have all words of one of the choices in their name, in the table's order."""
    choices = [choice.lower().split() for choice in words.split("|")]
    found = outcomes(read(table)["rows"])
    kept = [o for o in found if any(all(word in o.work.lower() for word in choice) for choice in choices)]
    if not kept:
        raise DataError(f"{table}.json has no row with the words {words!r}")
    return kept


def peers(words: str, table: str = "peers-cpu") -> str:
    columns = ("work", "ours", "of the limit", "best peer", "ratio", "target", "came to")
    rows = []
    for o in named(words, table):
        best = f"{o.best} {page.rate(o.peers[o.best])}" if o.best else ""
        share = "" if o.share is None else f"{o.share:.0%}"
        facts = (o.work, f"{page.rate(o.rate)} {o.unit}", share, best, page.times(o.ratio))
        for i, v in enumerate(o.verdicts or (None,)):
            judged = (
                ("", "") if v is None else (v.target, f"{page.came_to(v.target, v.ratio)} {page.verdict(v)}".strip())
            )
            rows.append((*(facts if i == 0 else ("",) * len(facts)), *judged))
    return markdown(columns, rows, ("ours", "of the limit", "ratio"))


def on_gpu(words: str) -> str:
    if not (RESULTS / "gpu.json").exists():
        return NOT_YET
    return f"{peers(words, 'gpu')}\n{_made_on_gpu(read('gpu'))}\n"


def _made_on_gpu(found: Mapping[str, Any]) -> str:
    devices = ", ".join(device["name"] for device in found["gpu"]["devices"])
    versions = ", ".join(f"{name} {found['versions'].get(name)}" for name in ("triton", "cupy", "torch", "cudnn"))
    return f"{devices}; {versions}; commit {found['commit']}."


def networks(words: str) -> str:
    """A line for each network and format, then a table and a picture of the layers of each."""
    del words
    found = _networks()
    if not found:
        return NOT_YET
    columns, lines = on_layers.summary(found)
    parts = [markdown(columns, lines, columns[1:])]
    for entry in found:
        name, (columns, lines) = on_layers.name(entry), on_layers.table(entry)
        title = f"{entry['network']} in {entry['format']}, batches of {entry['images']}"
        parts.append(f"{title}:\n\n![{title}](pictures/{name}.svg)\n\n{markdown(columns, lines, columns[1:])}")
    return "\n".join((*parts, f"{on_layers.LEGEND} {_made_on_gpu(read('gpu'))}\n"))


def _networks() -> list[dict[str, Any]]:
    """What gpu.json has of networks."""
    found: list[dict[str, Any]] = read("gpu").get("networks", []) if (RESULTS / "gpu.json").exists() else []
    return [entry for entry in found if entry["layers"]]


def errors(words: str, table: str = "peers-cpu") -> str:
    return markdown(page.ERRORS, page.errors(named(words, table)), page.RIGHT)


def elsewhere(words: str) -> str:
    name, _, rest = words.partition(" ")
    table = f"peers-{name}"
    return f"{peers(rest, table)}\n{errors(rest, table)}\n{_made_on(read(table))}\n"


def _made_on(found: Mapping[str, Any]) -> str:
    """The machine of a record, what of it was used, and the commit."""
    machine, used = found["machine"], found["instruction_sets"]
    caches = ", ".join(f"{level} {size}" for level, size in machine["caches"].items())
    units = ", ".join((used["used"], *used["extensions"]))
    return f"{machine['cpu']}, {machine['cores']} cores, {caches}; kernels for {units}; commit {found['commit']}."


def ladder(name: str) -> str:
    data = read(f"ladder-{name}")
    columns = ("rung", "time", "rate", "gain", "of the peak", "error", "idea")
    parts = []
    for title, rungs in climbs.flights(data):
        ran = [rung for rung in rungs if rung.get("seconds") is not None]
        lines = [climbs.cells(rung, climbs.unit(data)) for rung in ran]
        rows = [(f"`{name}`", time, *rest, _first(rung["idea"]))
                for rung, (name, time, _, *rest) in zip(ran, lines, strict=True)]  # fmt: skip
        if rows:
            parts.append(f"{title}:\n\n{markdown(columns, rows, columns[1:6])}\n")
    return f"{''.join(parts)}`{data['call']}`, {data['instruction_set']}. {climbs.roofline(data)}\n"


def roofline(name: str) -> str:
    data = read(f"ladder-{name}")
    return f"`{data['call']}`: {climbs.roofline(data)}\n"


def rung(words: str) -> str:
    name, _, wanted = words.partition(" ")
    data = read(f"ladder-{name}")
    for found in data["rungs"]:
        if found["rung"].partition("/")[2] in (wanted, f"native-{wanted}") and found.get("seconds") is not None:
            _, time, spread, rate, gain, share, error = climbs.cells(found, climbs.unit(data))
            over = f", **{gain}** over `{found['below']}`" if gain else ""
            loop = f" Inner loop: {found['loop']['text']}." if found["loop"] else ""
            off = f" Error {error}." if error else ""
            return (
                f"> Measured, `{found['rung']}`: **{time}** ({spread}), {rate}, {share} of the peak{over}.{loop}{off}\n"
            )
    raise DataError(f"ladder-{name}.json has no measured rung {wanted!r}")


def code(name: str) -> str:
    root = source.native_root()
    path = None if root is None else root / name
    if path is None or not path.exists():
        raise DataError(f"{name}: there is no such file in csrc/cpu")
    return f"```cpp\n{source.Source(name, 'cpp', path.read_text()).body}```\n"


def _first(text: str) -> str:
    """The first sentence, or what comes before a colon."""
    return re.split(r"(?<=[.;:]) (?=[A-Z])", text)[0].rstrip(".")


def behind(words: str) -> str:
    del words
    data = read("sweep-cpu")
    found = {name: outcomes(rows) for name, rows in data["sweeps"].items()}
    points = sum(map(len, found.values()))
    rows = page.behind(found)
    head = f"{points - len(page.worst(found))} of {points} points are not slower than the fastest peer, beyond the noise of both."
    if rows:
        table = markdown(("sweep", "size", "ours", "peer", "ratio"), rows, ("ours", "ratio"))
        head += f" The others, the worst first:\n\n{table}"
    return f"{head}\n{_made_on(data)}\n"


def steps(words: str) -> str:
    (found,) = (profiled.Step.from_data(data) for data in read("steps-cpu")["steps"] if data["name"] == words)
    return markdown(profiled.COLUMNS, profiled.rows(found), profiled.RIGHT)


def ceilings(words: str) -> str:
    del words
    found = read("ceilings-cpu")["ceilings"]
    both = f"{found['threads']} threads"
    units = [(a["unit"], a["instruction"], f"{a['one']:.0f}", f"{a['all']:.0f}") for a in found["arithmetic"]]
    sweeps = list(found["memory"][0]["all"])
    levels = [
        (m["level"], *(f"{m['one'][s]:.0f}, {m['all'][s]:.0f}" for s in sweeps))
        for m in found["memory"]
    ]  # fmt: skip
    return (
        "G operations a second, a multiply-add counted as two:\n\n"
        + markdown(("unit", "measured with", "1 thread", both), units, ("1 thread", both))
        + f"\nGB a second read and written, on 1 thread and on {found['threads']}:\n\n"
        + markdown(("level", *sweeps), levels, sweeps)
    )


def listed(words: str) -> str:
    del words
    rows = [
        (str(number), f"`{name}`", exercise.title, exercise.teaches)
        for number, (name, exercise) in enumerate(exercises.every().items(), 1)
    ]
    return markdown(("", "name", "task", "idea"), rows, ("",))


def suite(words: str) -> str:
    """Speed of the cells that have all words of one of the choices in their name."""
    name, _, rest = words.partition(" ")
    choices = [choice.lower().split() for choice in rest.split("|")]
    (made,) = sections.speed(_run(name)).parts
    assert isinstance(made, Table)
    rows = [row for row in made.rows if any(set(choice) <= _words(row) for choice in choices)]
    if not rows:
        raise DataError(f"suite-{name}.json has no cell with the words {rest!r}")
    return replace(made, rows=rows, note="").markdown(titled=False)


def _words(row: Sequence[Value]) -> set[str]:
    """Of a line's op, format and size."""
    return set(" ".join(shown(cell) for cell in row[:3]).lower().split())


def formats(words: str) -> str:
    """One op across formats."""
    name, _, op = words.partition(" ")
    for found, cells in precision.by_format(_run(name)):
        if op in (found, cells[0].op):
            rows = [row for cell in cells for row in (cell.ours, *cell.peers) if row is not None]
            return precision.side_by_side(found, rows).markdown(titled=False)
    raise DataError(f"suite-{name}.json has no op {op!r} in several formats")


def _run(name: str) -> record.Record:
    return record.read(RESULTS / f"suite-{name}.json")


def trial(words: str) -> str:
    del words
    found = read("trial-cpu")
    columns = [str(name) for name in found["columns"]]
    cpu, cores, commit = found["machine"]["cpu"], found["machine"]["cores"], found["commit"] or "unknown"
    return f"""{markdown(columns, found["lines"], columns[1:])}
{cpu}, {found["threads"]} of {cores} cores, commit {commit}. `planted`: rows that wait until they take {found["factor"]:g}
times as long; `fine enough`: those of which the comparison said that it could see as much; `false`: rows accused although nothing
changed; `needed`: the factor that a change must have to be told, for half of the rows and for all.
"""


KINDS: dict[str, Callable[[str], str]] = {
    "peers": peers, "errors": errors, "elsewhere": elsewhere, "ladder": ladder, "roofline": roofline, "rung": rung, "code": code,
    "behind": behind, "ceilings": ceilings, "exercises": listed, "suite": suite, "formats": formats, "gpu": on_gpu,
    "networks": networks, "steps": steps, "trial": trial,
}  # fmt: skip


def filled(text: str) -> str:
    """A document with its tables made anew. DataError for a kind or a record that does not exist."""

    def made(found: re.Match[str]) -> str:
        head, kind, words, end = found.groups()
        if kind not in KINDS:
            raise DataError(f"recorded: {kind!r}: expected one of {', '.join(KINDS)}")
        return f"{head}\n{KINDS[kind](words or '')}\n{end}"

    return BLOCK.sub(made, text)


def pictures() -> list[Picture]:
    """One of each recorded sweep, of each ladder, and of each network on a GPU."""
    sweeps = [
        Picture(f"sweep-{re.sub(r'[^a-z0-9]+', '-', name)}", f"{name}: {rows[0]['unit']} over sizes",
                page.drawing(name, outcomes(rows)), page.BROAD)
        for name, rows in read("sweep-cpu")["sweeps"].items()
    ]  # fmt: skip
    ladders = [climbs.picture(read(path.stem), path.stem) for path in sorted(RESULTS.glob("ladder-*.json"))]
    return sweeps + ladders + [on_layers.picture(entry) for entry in _networks()]


def documents(root: Path) -> list[Path]:
    """Those that hold recorded tables."""
    candidates = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [path for path in candidates if path.exists() and "<!-- recorded:" in path.read_text()]


def write(root: Path) -> list[Path]:
    """Make all tables and pictures of a checkout anew; the files that changed."""
    changed = []
    wanted = {path: filled(path.read_text()) for path in documents(root)}
    wanted |= {root / "docs" / "pictures" / f"{p.name}.svg": p.file() for p in pictures()}
    for path, text in wanted.items():
        if not path.exists() or path.read_text() != text:
            with atomic_write(path, text=True) as file:
                file.write(text)
            changed.append(path)
    return changed


__all__ = ["documents", "filled", "pictures", "write"]
