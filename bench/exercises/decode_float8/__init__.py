"""From eight bits to a value, by hand."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array, as_format

E4M3 = as_format("float8_e4m3fn")


def check(trial: Trial) -> None:
    codes = np.arange(256, dtype=np.uint8)
    exponent = codes >> 3 & 15
    judge(trial, codes[(exponent > 0) & (codes < 0x7F)], "positive normal codes")
    judge(trial, codes[(exponent > 0) & (codes >= 0x80) & (codes < 0xFF)], "negative normal codes")
    judge(trial, codes[(exponent == 0) & (codes < 0x80)], "exponent zero")
    judge(trial, codes, "all 256 codes")
    judge(trial, np.zeros(0, np.uint8), "no codes")


def judge(trial: Trial, codes: Array, name: str) -> None:
    trial.stage(name)
    codes = trial.rng.permutation(codes)
    values = trial.call("decode", codes)
    exponent, mantissa = (codes >> 3 & 15).astype(int), (codes & 7) / 8.0
    sign = np.where(codes >= 128, -1.0, 1.0)
    by_rule = sign * np.where(exponent > 0, (1 + mantissa) * 2.0 ** (exponent - 7), mantissa * 2.0**-6)
    bias = {
        f"The bias of four exponent bits is 7: every value is {word} what it should be.": factor * by_rule
        for word, factor in (("twice", 2), ("half of", 0.5)) if len(codes) and (exponent > 0).all()
    }  # fmt: skip
    trial.same(values, E4M3.exact(codes), what=f"the value of codes {', '.join(map(hex, codes[:3]))} ...", suspects={
        **bias,
        "With the exponent zero there is no hidden one, and the exponent counts as 1 - 7: these subnormal codes are "
        "the multiples "
        "of 2^-9 down to zero.": sign * (1 + mantissa) * 2.0 ** (exponent - 7),
        "With the exponent zero there is no hidden one, that is right; but its power is 2^-6, as for exponent 1, so "
        "that the subnormal numbers join the normal ones.":
            sign * np.where(exponent > 0, (1 + mantissa) * 2.0 ** (exponent - 7), mantissa * 2.0**-7),
        "0x7f and 0xff are NaN. This format has no infinities: all other codes of the largest exponent are numbers, "
        "up to 448.":
            by_rule,
        "Only 0x7f and 0xff are not numbers here. IEEE's rule, by which the largest exponent is kept for infinity and "
        "NaN, would waste 14 of 256 codes: the format's largest value is 448.":
            np.where(exponent == 15, np.where(mantissa > 0, np.nan, sign * np.inf), by_rule),
        "The first bit is the sign.": np.abs(by_rule),
    })  # fmt: skip


EXERCISE = Exercise(
    rank=110,
    title="Decode an 8-bit float",
    teaches="Sign, exponent, mantissa, bias, subnormals: any float format is these five and a rule for the rest.",
    asks=("decode",),
    check=check,
    forbids={"as_format": "Take the bits apart yourself.", "exact": "Take the bits apart yourself.",
             "ml_dtypes": "Take the bits apart yourself.", "FORMATS": "Take the bits apart yourself."},
    hints=(
        "`codes >> 3 & 15` is the exponent, `codes & 7` the mantissa in eighths, `codes >> 7` the sign.",
        "Exponent e from 1 to 15: (1 + mantissa / 8) * 2^(e - 7). Convert to a signed integer before you subtract: "
        "the codes are unsigned, and 3 - 7 is 252 there.",
        "Exponent 0: mantissa / 8 * 2^-6, without the one. `np.where` chooses element by element.",
        "0x7f and 0xff are NaN; nothing else is special.",
    ),
    mistakes=(
        Mistake("bias 8", {"(exponent - 7)": "(exponent - 8)"}, r"The bias of four exponent bits is 7: every value is "
                r"half"),
        Mistake("no subnormals", {"np.where(exponent > 0, (1 + mantissa) * 2.0 ** (exponent - 7), mantissa * 2.0**-6)":
                "(1 + mantissa) * 2.0 ** (exponent - 7)"}, r"no hidden one"),
        Mistake("subnormals at half their size", {"mantissa * 2.0**-6": "mantissa * 2.0**-7"}, r"join the normal ones"),
        Mistake("480 instead of NaN", {"np.where(codes & 127 == 127, np.nan, sign * size)": "sign * size"},
                r"0x7f and 0xff are NaN"),
        Mistake("infinities as in IEEE", {"codes & 127 == 127, np.nan,":
                "exponent == 15, np.where(mantissa > 0, np.nan, sign * np.inf),"}, r"IEEE's rule"),
        Mistake("loses the sign", {"np.where(codes >> 7, -1.0, 1.0)": "np.ones(codes.shape)"}, r"first bit is the "
                r"sign"),
    ),
)  # fmt: skip
