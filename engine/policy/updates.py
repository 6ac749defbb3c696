"""Updates: after the optimizer's step, parameters are rounded to the format that they are kept in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import beside
from ulpgrad.errors import DivergenceError
from ulpgrad.formats import Array, Format
from ulpgrad.ops.creation import values_of
from ulpgrad.policy.quantizers import Plain, Quantizer
from ulpgrad.policy.rounding import carrier
from ulpgrad.policy.settings import Settings, matching
from ulpgrad.tensor import Tensor

if TYPE_CHECKING:
    from ulpgrad.optim.optimizer import Optimizer
    from ulpgrad.policy.calls import Calls
    from ulpgrad.policy.scaler import GradScaler


class Updates:
    """A policy's `update` role."""

    def __init__(self, policy: Calls) -> None:
        self.policy = policy
        self.on_grid: dict[int, tuple[Tensor, int]] = {}  # parameters, and the version that was rounded
        self.nearest: dict[Format, Plain] = {}

    def step(self, optimizer: Optimizer, scaler: GradScaler | None) -> bool:
        """Step and round. See `Policy.step`."""
        moving = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        names = self._named(optimizer)
        for p in moving:
            known = self.on_grid.get(id(p))
            if known is None or known[0] is not p or known[1] != p._version_cell()[0]:
                self._round(p, names[id(p)], first=True)
        stepped = True
        if scaler is None:
            optimizer.step()
        else:
            stepped = bool(scaler.step(optimizer))
        for p in moving if stepped else ():
            values = values_of(p)
            with beside(values):
                if not np.isfinite(values).all():
                    self._refuse(values, names[id(p)])
            self._round(p, names[id(p)])
        return stepped

    def _named(self, optimizer: Optimizer) -> dict[int, str]:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        return {id(p): self.policy.name_of(p, f"parameter {i}") for i, p in enumerate(params)}

    def _settings(self, name: str) -> Settings | None:
        patterns = self.policy.patterns
        pattern = matching(patterns, name.rpartition(".")[0]) if patterns else None
        return self.policy.settings if pattern is None else patterns[pattern]

    def _round(self, p: Tensor, name: str, first: bool = False) -> None:
        chosen = self._settings(name)
        quantizer = None if chosen is None else self.policy.quantizer(chosen, "update", name)
        if quantizer is None or chosen is None:
            return
        form = chosen.update
        if first and isinstance(form, Format):  # the start is rounded to nearest, whatever updates are
            quantizer = self.nearest.setdefault(
                form, Plain(form, "nearest_even", chosen.overflow["update"], self.policy.generator)
            )
        with beside(p.storage):
            rounded = self._grid(quantizer, values_of(p), name)
            if p.storage.dtype != rounded.dtype:
                rounded = dispatch.convert(rounded, carrier(rounded), p.dtype)
            p.storage[...] = rounded
        p._written()
        self.on_grid[id(p)] = p, p._version_cell()[0]

    def _grid(self, quantizer: Quantizer, values: Array, name: str) -> Array:
        return self.policy.rounder(name)(quantizer, values, -1, "update").plain()

    def _refuse(self, values: Array, name: str) -> Any:
        bad = values[~np.isfinite(values)]
        step = self.policy.steps
        raise DivergenceError(
            f"step {step}: {name} is not finite after the optimizer's step: {bad.size} of {values.size} values, first "
            f"{float(bad[0])}; watch(model) finds where it began",
            step=step, where=name, role="update", value=float(bad[0]),
        )  # fmt: skip
