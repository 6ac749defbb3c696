"""Precision policies: in which number formats a network computes, stores and learns."""

from ulpgrad.policy import dorefa as dorefa
from ulpgrad.policy.casting import autocast as autocast
from ulpgrad.policy.delayed import DelayedScaling as DelayedScaling, Scaled as Scaled
from ulpgrad.policy.dynamic import DynamicFixed as DynamicFixed
from ulpgrad.policy.network import Policy as Policy
from ulpgrad.policy.scaler import GradScaler as GradScaler
from ulpgrad.policy.watching import watch as watch

__all__ = ["DelayedScaling", "DynamicFixed", "GradScaler", "Policy", "Scaled", "autocast", "dorefa", "watch"]
