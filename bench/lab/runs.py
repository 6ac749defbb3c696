"""Runs that are made once: each finished one is a file, and a call goes on where an earlier one was stopped."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ulpgrad.bench import machine
from ulpgrad.bench.lab.results import Figures, Results, plain
from ulpgrad.bench.lab.study import Options, Run, Study, Told
from ulpgrad.errors import DataError
from ulpgrad.io.atomic import atomic_write
from ulpgrad.kernels.threads import get_num_threads, set_num_threads


def finish(name: str, study: Study, options: Options, kept: Path, told: Told, *, fresh: bool = False) -> Results:
    """Make every run that is not in the folder `kept`, and give all runs' figures.

    A finished run counts as long as nothing that decides its result has changed: its arguments, the package, the study,
    Python, NumPy, the processor. Whatever stops the call loses at most the run being made. One thread: networks this
    small gain nothing from more, and times are steadier.
    """
    results = []
    before = get_num_threads()
    set_num_threads(1)
    try:
        for run in study.runs(options):
            label = f"{study.rows[run.row].label}, seed {run.seed}"
            path = kept / f"{re.sub(r'[^A-Za-z0-9._-]', '_', run.row)}-{run.seed}-{_identity(name, study, run)}.json"
            result = None if fresh else _finished(path)
            note = "from an earlier call"
            if result is None:
                told(label)
                result, note = _made(study, replace(run, told=partial(_within, told, label))), "done"
                kept.mkdir(parents=True, exist_ok=True)
                with atomic_write(path, text=True) as file:
                    json.dump(result, file, allow_nan=False)
            told(f"{label}: {_main(study, result)}{note}", done=True)
            results.append({"row": run.row, "label": study.rows[run.row].label, "seed": run.seed, **result})
    finally:
        set_num_threads(before)
    return Results(results, whole=study.is_whole(options))


def _made(study: Study, run: Run) -> Figures:
    made: Figures = plain(study.run(run))
    return made


def _main(study: Study, result: Mapping[str, Any]) -> str:
    value = result.get(study.figure)
    words = study.figure.replace("_", " ")
    return f"{words} {value:.4g}, " if isinstance(value, (int, float)) else ""


def _within(told: Told, label: str, text: str) -> None:
    told(f"{label}, {text}")


def _identity(name: str, study: Study, run: Run) -> str:
    text = json.dumps(
        {"study": name, **run.arguments, "code": machine.fingerprint(study.run.__module__)}, sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _finished(path: Path) -> Figures | None:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a finished run ({error}); delete it, or use --fresh") from error


__all__ = ["finish"]
