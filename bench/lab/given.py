"""A policy in words, and a network trained under one: what `ulpgrad study policy --policy "..."` takes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ulpgrad.bench.lab.results import Figures
from ulpgrad.bench.lab.study import Run
from ulpgrad.bench.lab.training import Recipe, train
from ulpgrad.errors import ArgumentError, UlpgradError
from ulpgrad.kernels.integer.accumulator import Accumulator
from ulpgrad.ops.accumulate import Accumulate
from ulpgrad.policy import DynamicFixed, Policy, Scaled, autocast
from ulpgrad.policy.settings import ROUNDINGS
from ulpgrad.policy.tables import ROLES

Chosen = Policy | autocast | None
RECIPE = Recipe(standardize=True)
EPOCHS, BATCH_SIZE = 60, 32
KEYS = (*ROLES, *ROUNDINGS, "everywhere", "output")
WORDS = {"none": None, "true": True, "false": False}
CALLS: dict[str, Callable[..., Any]] = {
    "dynamic": DynamicFixed, "scaled": Scaled, "chunks": Accumulate, "integer": Accumulator,
}  # fmt: skip
GRAMMAR = (
    'such as "weight=q3.12 gradient=q3.12 update=q3.12 rounding.update=stochastic accumulate=int64"; formats, or none, '
    "dynamic(10,12), scaled(float8_e4m3fn), and for accumulate chunks(e6m9,64) or integer(24,8,saturate)"
)
_PART = re.compile(r"([\w.]+)=((?:[^\s()]|\([^()]*\))+)\s*")
_CALL = re.compile(r"(\w+)\(([^()]*)\)")
_NAMED = re.compile(r"\s*([^=:()]+?)\s*:(.*)", re.S)


@dataclass(frozen=True)
class Given:
    """A policy as it was given, and the name it was given, if any; `make(seed)` gives one that has seen nothing yet."""

    name: str
    text: str
    make: Callable[[int], Chosen]

    @property
    def key(self) -> str:
        """A name for files, another for every other text."""
        short = re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-")[:40]
        return f"{short or 'policy'}-{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"


def given(text: str) -> Given:
    """A policy from words: `role=format ...`, with `NAME:` in front if it is to have one.

    Roles and options are Policy's: weight, bias, activation, gradient, update, accumulate; rounding, overflow and estimator,
    also by role (`rounding.update=stochastic`); everywhere, output. Values are names of formats, `none`, and calls of `dynamic`
    (DynamicFixed), `scaled` (Scaled), `chunks` (Accumulate) and `integer` (Accumulator) with their arguments in order.
    ArgumentError for unknown roles and words, FormatError for unknown formats: all that Policy itself refuses.
    """
    named = _NAMED.fullmatch(text)
    name, words = (named[1], named[2]) if named else ("", text)
    options = _options(words.strip())
    made = Given(name, " ".join(words.split()), lambda seed: Policy(**options, seed=seed))
    made.make(0)
    return made


def _options(text: str) -> dict[str, Any]:
    """Keyword arguments of Policy."""
    found: dict[str, Any] = {}
    at = 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            raise ArgumentError(f"--policy: {text[at:]!r}: expected role=format, {GRAMMAR}")
        at = part.end()
        key, dot, role = part[1].partition(".")
        if key not in KEYS or (dot and (key not in ROUNDINGS or role not in ROLES)):
            options = ", ".join((*KEYS, *(f"{name}.ROLE" for name in ROUNDINGS)))
            raise ArgumentError(f"--policy: unknown role {part[1]!r}: expected some of {options}")
        if (
            part[1] in found
            or (dot and key in found and not isinstance(found[key], dict))
            or (not dot and key in found)
        ):
            raise ArgumentError(f"--policy: {part[1]} is given twice")
        if dot:
            found.setdefault(key, {})[role] = part[2]
        else:
            found[key] = _value(part[2])
    if not isinstance(found.get("everywhere", True), bool):
        raise ArgumentError(f"--policy: everywhere={found['everywhere']}: expected true or false")
    if not found:
        raise ArgumentError(f"--policy: nothing is given: expected role=format, {GRAMMAR}")
    return found


def _value(text: str) -> Any:
    if text in WORDS:
        return WORDS[text]
    call = _CALL.fullmatch(text)
    if call is None or call[1] not in CALLS:
        return text
    arguments = [_argument(a.strip()) for a in call[2].split(",") if a.strip()]
    try:
        return CALLS[call[1]](*arguments)
    except UlpgradError:
        raise
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"--policy: {text}: {error}") from None


def _argument(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def trial(
    policy: Chosen, *, epochs: int = EPOCHS, seed: int = 0, batch_size: int = BATCH_SIZE, data: str = "digits",
    recipe: Recipe = RECIPE,
) -> Figures:  # fmt: skip
    """Train the network of dense layers on digits under a policy, None for float32; the figures of `train`.

    trial(ug.policy.Policy(weight="q5.10", update="q5.10", rounding="stochastic"))["test_error"]
    """
    return train(Run("trial", None, seed, epochs, batch_size, data), recipe, policy=policy)


__all__ = ["Chosen", "Given", "RECIPE", "given", "trial"]
