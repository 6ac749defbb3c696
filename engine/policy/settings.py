"""What a policy says for one op at one place: the roles, after overrides, each with its rounding."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ulpgrad.errors import ArgumentError, FormatError, KernelError
from ulpgrad.formats import Fixed, Float, Format
from ulpgrad.formats.fixed import OVERFLOWS as FIXED_OVERFLOWS
from ulpgrad.formats.floating import OVERFLOWS as FLOAT_OVERFLOWS
from ulpgrad.formats.rounding import check
from ulpgrad.kernels import registry
from ulpgrad.ops.quantize import Estimator
from ulpgrad.policy.accumulating import Accumulation, accumulation
from ulpgrad.policy.dynamic import DynamicFixed
from ulpgrad.policy.quantizers import Chooser, Plain, Quantizer, checked, estimator
from ulpgrad.policy.tables import LOSSES, LOW, ROLES, WIDE
from ulpgrad.random import Generator

# How each role is rounded, may overflow, and what its gradient is taken to be, if one name was not given for all.
ROUNDINGS = {"rounding": "nearest_even", "overflow": "saturate", "estimator": "straight_through"}
OPTIONS = (*ROLES, *ROUNDINGS)


@dataclass(frozen=True, eq=False)
class Settings:
    """A policy at one place. `None` in a role leaves those tensors alone."""

    weight: Any = None
    bias: Any = None
    activation: Any = None
    gradient: Any = None
    update: Any = None
    accumulate: Accumulation | None = None
    rounding: Mapping[str, str] = field(default_factory=dict)
    overflow: Mapping[str, str] = field(default_factory=dict)
    estimator: Mapping[str, Estimator | None] = field(default_factory=dict)
    made: dict[str, Quantizer | None] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Whether products are left alone."""
        return self.accumulate is None and all(
            given is None for given in (self.weight, self.bias, self.activation, self.gradient)
        )

    def quantizer(self, role: str, generator: Generator) -> Quantizer | None:
        """What rounds a role in one format; the same object for every place."""
        if role not in self.made:
            form = getattr(self, role)
            self.made[role] = (
                Plain(form, self.rounding[role], self.overflow[role], generator) if isinstance(form, Format) else None
            )
        return self.made[role]

    def function(self, role: str) -> Callable[..., Any] | None:
        """The function that stands in a role, if one does."""
        given = getattr(self, role)
        return given if callable(given) and not isinstance(given, Format | Chooser) else None


def settings(what: str, given: Mapping[str, Any], base: Settings | None = None) -> Settings:
    """Settings from a policy's arguments, or those of an override on the policy's own. Typed errors for what cannot be."""
    for name in given:
        if name not in OPTIONS:
            raise ArgumentError(f"{what}: unknown role {name!r}: expected some of {', '.join(OPTIONS)}")
    roles = {role: checked(given[role], role, what) for role in ROLES if role in given and role != "accumulate"}
    if roles.get("bias") == "weight":
        del roles["bias"]
    made = replace(base or Settings(), **roles, made={})
    if "accumulate" in given:
        made = replace(made, accumulate=accumulation(given["accumulate"], what))
    per_role = {
        name: _per_role(what, name, given.get(name), getattr(base, name) if base is not None else None)
        for name in ROUNDINGS
    }
    for mode in per_role["rounding"].values():
        check(mode)
    estimators = {role: estimator(chosen, what) for role, chosen in per_role["estimator"].items()}
    made = replace(made, rounding=per_role["rounding"], overflow=per_role["overflow"], estimator=estimators)
    _check_overflow(what, made)
    _check_accumulator(what, made)
    return made


def _per_role(what: str, name: str, given: Any, base: Mapping[str, Any] | None) -> dict[str, Any]:
    """One choice for each role, from one for all or a dict of some."""
    start = dict.fromkeys(ROLES, ROUNDINGS[name]) if base is None else dict(base)
    if name == "estimator":
        start = {role: "straight_through" if chosen is None else chosen for role, chosen in start.items()}
    if given is None:
        return start
    if not isinstance(given, Mapping):
        return dict.fromkeys(ROLES, given)
    for role in given:
        if role not in ROLES:
            raise ArgumentError(f"{what}: {name} of an unknown role {role!r}: expected some of {', '.join(ROLES)}")
    return start | dict(given)


def _check_overflow(what: str, made: Settings) -> None:
    for role in ROLES:
        form, mode = getattr(made, role), made.overflow[role]
        known = FLOAT_OVERFLOWS if isinstance(form, Float) else FIXED_OVERFLOWS
        if mode not in (known if isinstance(form, Float | Fixed) else {*FLOAT_OVERFLOWS, *FIXED_OVERFLOWS}):
            raise ArgumentError(
                f"{what}: overflow={mode!r} for {role}{f'={form.name}' if isinstance(form, Format) else ''}: expected one of "
                f"{', '.join(known)}"
            )


def _check_accumulator(what: str, made: Settings) -> None:
    """An integer accumulator adds products of codes: FormatError unless there are codes that its kernels take."""
    if made.accumulate is None or not made.accumulate.integer:
        return
    for role in ("weight", "activation"):
        form = getattr(made, role)
        bits = form.bits if isinstance(form, Fixed | DynamicFixed) else None
        if bits is None or bits > 16:
            raise FormatError(
                f"{what}: accumulate={made.accumulate.given!r} adds integers, and {role}={form!r}: expected a fixed-point format "
                "of at most 16 bits"
            )


def overridden(what: str, overrides: Mapping[str, Any] | None, base: Settings) -> dict[str, Settings | None]:
    """Settings by op name or module pattern; None where the policy is to leave ops alone."""
    found: dict[str, Settings | None] = {}
    for name, given in (overrides or {}).items():
        if given is not None and not isinstance(given, Mapping):
            raise ArgumentError(f"{what}: overrides[{name!r}]={given!r}: expected None, or a dict of roles")
        if given and "update" in given and is_op(name):
            raise ArgumentError(f"{what}: overrides[{name!r}]: updates belong to parameters: name a module, not an op")
        found[name] = None if given is None else settings(f"{what}: overrides[{name!r}]", given, base)
    return found


def is_op(name: str) -> bool:
    """Whether an override is for ops of this name; else it is a pattern of module names."""
    if name in LOW | WIDE | LOSSES:
        return True
    try:
        registry.find(name)
    except KernelError:
        return False
    return True


def matching(patterns: Mapping[str, Settings | None], module: str) -> str | None:
    """The pattern (with * and ?) that a module's name falls under: the longest one that fits it or a module around it."""
    parts = module.split(".")
    around = [".".join(parts[: i + 1]) for i in range(len(parts))]
    fits = [p for p in patterns if any(fnmatch.fnmatchcase(name, p) for name in around)]
    return max(fits, key=len) if fits else None
