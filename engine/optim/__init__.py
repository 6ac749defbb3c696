"""Optimizers, learning rate schedules and gradient clipping, with torch's names and formulas."""

from ulpgrad.optim.adam import Adam, AdamW
from ulpgrad.optim.adaptive import Adagrad, RMSprop
from ulpgrad.optim.clip import clip_grad_norm_, clip_grad_value_
from ulpgrad.optim.optimizer import Optimizer
from ulpgrad.optim.schedule import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    ReduceLROnPlateau,
    StepLR,
)
from ulpgrad.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "Optimizer",
    "RMSprop",
    "ReduceLROnPlateau",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
]
