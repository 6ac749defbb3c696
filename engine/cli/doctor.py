"""`ulpgrad doctor`: the machine, the installation, and which kernels run here."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from ulpgrad.bench import machine, peak
from ulpgrad.cli.screen import console, facts, progress, table, write_json


def run(json: Path | None, ceilings: bool) -> None:
    with progress(None) as step:
        step("looking at the machine and its kernels")
        found: dict[str, Any] = {
            "machine": machine.machine(),
            "instruction_sets": machine.instruction_sets(),
            "extension": machine.extension(),
            "threads": machine.threads(),
            "versions": machine.versions(),
            "gpu": machine.gpu(),
            "gpu_kernels": machine.gpu_kernels(),
            "variables": machine.variables(),
            "families": machine.families(),
        }
        if ceilings:
            step("measuring arithmetic")
            units = peak.arithmetic()
            step("measuring memory")
            found["ceilings"] = {
                "threads": found["threads"]["count"],
                "arithmetic": [dataclasses.asdict(unit) for unit in units],
                "memory": [level._asdict() for level in peak.memory()],
                "busy": machine.busy(),
            }
    write_json(json, found)
    show(found)
    if ceilings:
        show_ceilings(found["ceilings"])


def show(found: dict[str, Any]) -> None:
    """Print what was found, and what can be done about what is missing."""
    out = console()
    host, sets, built = found["machine"], found["instruction_sets"], found["extension"]
    threads, gpu = found["threads"], found["gpu"]
    size = host["memory_bytes"]
    out.print(facts("Machine", [
        ("processor", f"{host['cpu']} ({host['architecture']})"),
        ("cores", f"{host['cores']} of {host['cores_of_the_machine']}" if host["cores"] != host["cores_of_the_machine"]
         else host["cores"]),
        ("caches", ", ".join(f"{level} {size}" for level, size in host["caches"].items()) or "unknown"),
        ("memory", f"{size / 2**30:.1f} GiB" if size else "unknown"),
        ("system", host["system"]),
        ("instruction sets", " ".join(sets["present"]) or "unknown"),
    ]))  # fmt: skip
    limit = f", limited by ULPGRAD_ISA={sets['ULPGRAD_ISA']}" if sets["ULPGRAD_ISA"] else ""
    within = f", with {', '.join(sets['extensions'])}" if sets["extensions"] else ""
    layer = threads["numba_threading_layer"] or "workqueue (not safe from several threads at once)"
    out.print(facts("Kernels", [
        ("C++ extension", f"built by compiler {built['compiler']}" if built["usable"] else built["reason"]),
        ("flags", built["flags"] if built["usable"] else "-"),
        ("C++ kernels use", f"{sets['used']}, of {', '.join(sets['usable'])}{within}{limit}" if sets["used"] else "nothing"),
        ("threads", f"{threads['count']}; OpenMP in C++: {'yes' if threads['openmp'] else 'no'}; Numba: {layer}"),
        ("GPU", "; ".join([d["name"] for d in gpu["devices"]] or [gpu["driver"]])),
        ("GPU arrays", gpu["cuda"]),
        *((f"GPU: {road}", _road(road, kinds)) for road, kinds in found["gpu_kernels"].items()),
        ("versions", ", ".join(f"{name} {v}" for name, v in found["versions"].items() if v)),
        ("not installed", ", ".join(name for name, v in found["versions"].items() if not v) or "-"),
    ]))  # fmt: skip
    rows = []
    for family in found["families"]:
        reasons = Counter(family["unavailable"].values())
        rows.append((family["family"], len(family["ops"]), " ".join(map(_short, family["available"])),
                     "; ".join(f"{n}: {why}" for why, n in reasons.items()) or "-"))  # fmt: skip
    out.print(table("Families of ops", ("family", "ops", "kernels that run here", "others"), rows, right=("ops",)))
    set_here = [(v["name"], v["value"] if v["value"] is not None else "", v["meaning"]) for v in found["variables"]]
    out.print(table("Environment", ("variable", "set to", "meaning"), set_here))


def show_ceilings(found: dict[str, Any]) -> None:
    """Print what was measured: the limits that every share of the peak is a share of."""
    out, threads = console(), found["threads"]
    on_all = f"{threads} threads"
    rows = [(a["unit"], a["instruction"], f"{a['one']:.0f}", f"{a['all']:.0f}") for a in found["arithmetic"]]
    out.print(table("Arithmetic, G operations a second (a multiply-add is two)", ("unit", "measured with", "1 thread", on_all),
                    rows, right=("1 thread", on_all)))  # fmt: skip
    sweeps = list(found["memory"][0]["all"])
    lines = [
        (m["level"], _bytes(m["size"]), *(f"{m[on][s]:.0f}" for on in ("one", "all") for s in sweeps))
        for m in found["memory"]
    ]
    heads = [*(f"{s}, 1" for s in sweeps), *(f"{s}, {threads}" for s in sweeps)]
    out.print(table("Memory, GB a second read and written, on 1 thread and on all", ("level", "swept", *heads), lines,
                    right=("swept", *heads)))  # fmt: skip
    if found["busy"]:
        out.print(found["busy"])


def _road(name: str, found: dict[str, Any]) -> str:
    """How many kernels a road onto a GPU has, or why it is closed."""
    if found["reason"]:
        return str(found["reason"])
    return f"{found['rungs']} kernels of {found['ops']} ops"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 1 << 20 else f"{count / 2**10:.0f} KiB"


def _short(rung: str) -> str:
    return rung.removeprefix("cpu/")
