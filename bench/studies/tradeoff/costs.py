"""What a step costs in a scheme: bytes that are kept, sent and moved, operations, and energy by a stated model."""

from __future__ import annotations

from typing import Any

from ulpgrad.bench import energy
from ulpgrad.bench.ledger import Work, ring_all_reduce
from ulpgrad.bench.studies.tradeoff.schemes import Scheme

WORKERS = 8


def kept(scheme: Scheme, work: Work) -> dict[str, float]:
    """Bytes of each kind of tensor, in the bits of its format. Weights: those that are multiplied, and their master where that
    is another. Gradients: those of products' results on their way back and those of the weights."""
    master = energy.stored_bits(scheme.update) if scheme.update is not scheme.weight else 0
    return {
        "weight_bytes": work.weights * (energy.stored_bits(scheme.weight) + master) / 8,
        "activation_bytes": work.activations * energy.stored_bits(scheme.activation) / 8,
        "gradient_bytes": (work.errors + work.weights) * energy.stored_bits(scheme.gradient) / 8,
        "exchange_bytes": ring_all_reduce(work.weights * energy.stored_bits(scheme.gradient) / 8, WORKERS),
    }


def spent(scheme: Scheme, work: Work) -> energy.Energy:
    """Microjoules of a step.

    Arithmetic: each multiply-add of a product multiplies in its operands' formats and adds in the accumulator's; every other
    operation counts as an addition in the accumulator's format; the update multiplies and adds once for each weight in the
    format that weights are kept in. Memory: what is `moved`.
    """
    w, a, g, s, u = scheme.weight, scheme.activation, scheme.gradient, scheme.accumulate, scheme.update
    products = (
        work.forward * energy.multiply(w, a)
        + work.backward_x * energy.multiply(w, g)
        + work.backward_w * energy.multiply(a, g)
    )
    rest = (work.products + work.other) * energy.add(s) + work.weights * (energy.multiply(u, u) + energy.add(u))
    return energy.Energy((products + rest) * 1e-6, energy.move(8 * moved(scheme, work)) * 1e-6)


def moved(scheme: Scheme, work: Work) -> float:
    """Bytes that a step reads and writes: weights are read twice, and written once where there is a master; what is stepped is
    read and written; activations and gradients of results are written once and read twice, gradients of weights written and
    read."""
    w, a, g, u = (energy.stored_bits(f) / 8 for f in (scheme.weight, scheme.activation, scheme.gradient, scheme.update))
    return (
        work.weights * (w * (3 if scheme.update is not scheme.weight else 2) + 2 * u)
        + 3 * work.activations * a
        + (3 * work.errors + 2 * work.weights) * g
    )


def figures(scheme: Scheme, work: Work) -> dict[str, Any]:
    """All costs of a step, as plain numbers."""
    bytes_of, joules = kept(scheme, work), spent(scheme, work)
    return {
        **bytes_of,
        "bytes": bytes_of["weight_bytes"] + bytes_of["activation_bytes"] + bytes_of["gradient_bytes"],
        "energy": joules.total,
        "arithmetic_energy": joules.arithmetic,
        "memory_energy": joules.memory,
        "traffic": moved(scheme, work),
        "operations": work.operations,
        "multiply_adds": work.products,
    }


__all__ = ["WORKERS", "figures", "kept", "moved", "spent"]
