"""How many products fit into an accumulator, whatever comes?"""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial


def most(a: int, b: int, accumulator: int) -> int:
    """Terms whose sum fits for any codes: the largest product is that of the two most negative ones."""
    return ((1 << accumulator - 1) - 1) // (1 << a + b - 2)


def check(trial: Trial) -> None:
    trial.stage("how many terms are safe")
    cases = [(8, 8, 16), (8, 8, 32), (4, 4, 16), (4, 8, 16), (2, 2, 8)]
    cases += [(int(a), int(b), int(a + b + c)) for a, b, c in trial.rng.integers(2, 12, (6, 3))]
    for a, b, accumulator in cases:
        got, want = trial.call("safe_terms", a, b, accumulator), most(a, b, accumulator)
        if got != want:
            largest, limit = 2 ** (a + b - 2), 2 ** (accumulator - 1) - 1
            why = f"{got + 1} of them still fit" if got < want else f"{got} of them make {got * largest}"
            trial.wrong(
                f"safe_terms({a}, {b}, {accumulator}) is {got}; right is {want}. The largest product of codes of {a} "
                f"and {b} bits is ({-(2 ** (a - 1))}) * ({-(2 ** (b - 1))}) = {largest}, since two's complement "
                f"reaches one step further down than up, and the accumulator ends at {limit}: {why}."
            )
    for n, bits, terms, extreme in ((40, 4, 7, False), (41, 4, 8, False), (5, 4, 8, False), (1100, 4, most(4, 4, 16), True),
                                    (9, 8, 1, True)):  # fmt: skip
        trial.stage(
            f"{n} products of {bits}-bit codes, {terms} to an "
            f"accumulator{', all as large as can be' if extreme else ''}"
        )
        low = -(2 ** (bits - 1))
        a, b = (np.full((2, n), low) if extreme else trial.rng.integers(low, -low, (2, n))).astype(np.int8)
        if extreme:
            a[trial.rng.integers(n)] = trial.rng.integers(low, 0)
        narrow, out = trial.blank(-(-n // terms), np.int16), trial.blank(1, np.int64)
        trial.call("dot", a, b, terms, narrow, out, writes=[2, 3, 4])
        products = a.astype(np.int64) * b
        parts = np.add.reduceat(products, np.arange(0, n, terms))
        whole = n // terms
        trial.same(narrow, parts.astype(np.int16), what="narrow", suspects={
            "A part begins where the one before it ended: set the accumulator to zero for each part.":
                np.cumsum(parts).astype(np.int16),
        })  # fmt: skip
        trial.same(out, parts.sum(keepdims=True), what="out", suspects={
            "The last part, which is shorter, is missing.": parts[:whole].sum(keepdims=True),
            "The parts were added up in 16 bits: their sum needs the wide accumulator.":
                parts.astype(np.int16).sum(dtype=np.int16, keepdims=True),
        })  # fmt: skip


EXERCISE = Exercise(
    rank=180,
    title="Accumulators that do not overflow",
    teaches="Narrow sums are fast and wrap in silence: know how many terms fit, then widen.",
    asks=("safe_terms", "dot"),
    check=check,
    requires=("numba",),
    forbids={"sum": "Write the loops.", "reduceat": "Write the loops."},
    hints=(
        "Codes of 8 bits go from -128 to 127. Which two of them have the largest product? It is not 127 * 127.",
        "The accumulator's largest value, 2^(bits - 1) - 1, divided by that product, without the rest: `//`.",
        "dot: for each part, set narrow[part] to 0 and add up to `terms` products into it. The last part may be "
        "shorter.",
        "Then add narrow[part] to out[0], which holds 64 bits. `a[i]` and `b[i]` have 8 bits: their product needs "
        "`int(a[i]) * int(b[i])`, or it is formed in 8.",
    ),
    mistakes=(
        Mistake("thinks of 127 * 127", {"2 ** (a_bits + b_bits - 2)": "((2 ** (a_bits - 1) - 1) * (2 ** (b_bits - 1) "
                "- 1))"},
                r"one step further down than up"),
        Mistake("counts the sign bit as room", {"2 ** (bits - 1) - 1": "2**bits - 1"}, r"the accumulator ends at"),
        Mistake("does not begin at zero", {"        narrow[part] = 0\n": "        narrow[part] = narrow[part - 1] if "
                "part else 0\n"},
                r"set the accumulator to zero"),
        Mistake("leaves out the last part", {"        out[0] += narrow[part]": "        if (part + 1) * terms <= "
                "len(a):\n            out[0] += narrow[part]"},
                r"last part, which is shorter"),
        Mistake("whole parts only", {"for part in range(len(narrow)):": "for part in range(len(a) // terms):"},
                r"never written|nothing was"),
    ),
)  # fmt: skip
