"""Precision policies: in which number formats a network computes, stores and learns.

What only some programs need is imported when it is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ulpgrad.policy.casting import autocast as autocast
from ulpgrad.policy.scaler import GradScaler as GradScaler

if TYPE_CHECKING:
    from ulpgrad.policy import dorefa as dorefa
    from ulpgrad.policy.delayed import DelayedScaling as DelayedScaling, Scaled as Scaled
    from ulpgrad.policy.dynamic import DynamicFixed as DynamicFixed
    from ulpgrad.policy.network import Policy as Policy
    from ulpgrad.policy.watching import watch as watch

_LAZY = {
    "DelayedScaling": "delayed", "DynamicFixed": "dynamic", "Policy": "network", "Scaled": "delayed", "dorefa": "",
    "watch": "watching",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ulpgrad.policy' has no attribute {name!r}")
    module = importlib.import_module(f"ulpgrad.policy.{_LAZY[name] or name}")
    return getattr(module, name) if _LAZY[name] else module


__all__ = ["DelayedScaling", "DynamicFixed", "GradScaler", "Policy", "Scaled", "autocast", "dorefa", "watch"]
