"""copy: the same values in C order, from any layout."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ulpgrad.formats import ALL, Array
from ulpgrad.kernels.spec import Op, Sample


def _copy(x: Array) -> Array:
    return np.array(x, order="C")


def _samples() -> Iterator[Sample]:
    """Shapes around the sides of tiles and the lengths of pieces; axes in other orders, reversed, spread and repeated."""
    rng = np.random.default_rng(0)
    for shape in (
        (),
        (1,),
        (0, 3),
        (7,),
        (3, 5),
        (16, 16),
        (33, 65),
        (1, 64, 1),
        (4, 17, 3),
        (130, 131),
        (3, 2, 50, 40),
    ):
        yield Sample((np.asarray(rng.normal(0, 9, shape)),), name=f"{shape}")
    cube = rng.normal(0, 9, (36, 20, 34))
    for axes in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        yield Sample((cube.transpose(axes),), name=f"axes {axes}")
    yield Sample((cube[::-1, :, ::-2].transpose(2, 0, 1),), name="axes in another order, reversed and spread")
    yield Sample((np.broadcast_to(cube[:, :1], cube.shape),), name="repeated")
    yield Sample((rng.normal(0, 9, (3, 20000)).T,), name="long rows")
    yield Sample((rng.normal(0, 9, 40001)[::-1],), name="reversed")


copy = Op(
    "copy",
    signature="(x: [...]) -> [...]",
    doc="A C-contiguous copy.",
    reference=_copy,
    formats=ALL,
    samples=_samples,
    ulps=dict.fromkeys(ALL, 0),
)
