"""Precision policies: in which number formats a network computes, stores and learns."""

from ulpgrad.policy.casting import autocast as autocast
from ulpgrad.policy.scaler import GradScaler as GradScaler

__all__ = ["GradScaler", "autocast"]
