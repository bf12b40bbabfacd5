"""Draw the data set `demo`: faces whose every generating factor is known. It needs no download."""

import os
from collections.abc import Iterator
from functools import partial

from demo_faces.counterfactuals import SOURCE
from demo_faces.factors import get_split, sample_factors
from demo_faces.scene import draw_face
from fer_lib.data.readers.base import Face
from fer_lib.jobs import map_side_by_side
from fer_lib.labels import EMOTIONS_7

_SMALL_SET = 200  # below this, starting processes takes longer than drawing


def make_face(i: int, size: int, seed: int) -> Face:
    """Draw face `i` of the set with this seed; depends on nothing else."""
    factors = sample_factors(seed, i)
    image, regions = draw_face(factors, size)
    return Face(
        image=image,
        label=EMOTIONS_7.index(factors.emotion),
        split=get_split(factors.identity.id),
        source=f"{SOURCE}:{seed}:{i}",
        factors=factors.to_columns(),
        regions=regions,
    )


def draw_faces(n_faces: int, size: int, seed: int, workers: int | None = None) -> Iterator[Face]:
    """Draw faces 0 .. n_faces - 1 in order, `size` pixels square, as a stream.

    They do not depend on `workers`, the number of processes (by default one per CPU). Raises FerError as
    `map_side_by_side`, for a script without `if __name__ == "__main__":`.
    """
    if n_faces < _SMALL_SET:
        workers = 1
    draw = partial(make_face, size=size, seed=seed)
    return map_side_by_side(draw, range(n_faces), workers or os.cpu_count() or 1)
