"""How well do networks learn handwritten digits in different number formats, and what does a step cost?

Every row of the table starts from the same weights and sees the same images in the same order; only the formats differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ulpgrad.bench import machine
from ulpgrad.bench.studies.digits.page import page, summary, tables
from ulpgrad.bench.studies.digits.training import MODELS, PRECISIONS, train
from ulpgrad.errors import ArgumentError, DataError
from ulpgrad.io.atomic import atomic_write
from ulpgrad.kernels.threads import get_num_threads, set_num_threads

QUICK_EPOCHS = 3


class Told(Protocol):
    """Hears what is going on; `done` with each run that is finished."""

    def __call__(self, text: str, *, done: bool = False) -> None: ...


@dataclass(frozen=True)
class Options:
    """What is trained. `epochs` None: each model's own."""

    models: tuple[str, ...] = tuple(MODELS)
    formats: tuple[str, ...] = tuple(PRECISIONS)
    seeds: int = 2
    epochs: int | None = None
    batch_size: int = 64

    @staticmethod
    def of(given: Mapping[str, Any], *, quick: bool) -> Options:
        """Options as the command line has them: lists with commas. ArgumentError for a name there is not."""
        values = dict(given)
        for key, known in (("models", MODELS), ("formats", PRECISIONS)):
            if key in values:
                asked = tuple(dict.fromkeys(part.strip() for part in values[key].split(",") if part.strip()))
                unknown = [name for name in asked if name not in known]
                if unknown or not asked:
                    named = repr(unknown[0]) if unknown else "nothing"
                    raise ArgumentError(f"--{key}: {named} given, expected some of {', '.join(known)}")
                values[key] = asked
        return Options(**({"epochs": QUICK_EPOCHS, "seeds": 1} if quick else {}) | values)

    def runs(self) -> list[dict[str, Any]]:
        """Arguments of `train` for every run, in the order of the table."""
        return [
            {"model_name": m, "precision_name": p, "seed": s, "epochs": self.epochs or MODELS[m].epochs,
             "batch_size": self.batch_size}
            for m in self.models for p in self.formats for s in range(self.seeds)
        ]  # fmt: skip


def run(options: Options, kept: Path, told: Told, *, fresh: bool = False) -> list[dict[str, Any]]:
    """Train everything that is not finished in the folder `kept`, and give all runs' figures.

    A finished run counts as long as nothing that decides its result has changed. One thread: networks this small gain
    nothing from more, and times are steadier.
    """
    results = []
    before = get_num_threads()
    set_num_threads(1)
    try:
        for arguments in options.runs():
            model, precision, seed = arguments["model_name"], arguments["precision_name"], arguments["seed"]
            name = f"{model} in {PRECISIONS[precision].label}, seed {seed}"
            path = kept / f"{model}-{precision}-{seed}-{_identity(arguments)}.json"
            result = None if fresh else _finished(path)
            if result is None:
                told(name)
                result = train(**arguments, told=partial(_epoch, told, name))
                kept.mkdir(parents=True, exist_ok=True)
                with atomic_write(path, text=True) as file:
                    json.dump(result, file)
                text = f"{name}: {result['test_error']:.1%} wrong, {result['seconds']:.1f} s"
            else:
                text = f"{name}: {result['test_error']:.1%} wrong, from an earlier call"
            told(text, done=True)
            results.append(result)
    finally:
        set_num_threads(before)
    return results


def _epoch(told: Told, name: str, epoch: int) -> None:
    told(f"{name}, epoch {epoch + 1}")


def _identity(arguments: Mapping[str, Any]) -> str:
    text = json.dumps({**arguments, "code": machine.fingerprint()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _finished(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a finished run ({error}); delete it, or use --fresh") from error


def as_data(options: Options, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that is printed and more, for a JSON file."""
    return {
        "study": "digits",
        "options": asdict(options),
        "meanings": {name: p.meaning for name, p in PRECISIONS.items() if name in options.formats},
        "summary": summary(results),
        "runs": results,
        "machine": machine.machine(),
        "versions": machine.versions(),
        "commit": machine.commit(),
    }


__all__ = ["Options", "as_data", "page", "run", "summary", "tables"]
