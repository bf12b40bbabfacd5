"""Draw the data set `demo`: faces whose every generating factor is known. It needs no download."""

import os
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context

import cv2

from demo_faces.counterfactuals import SOURCE
from demo_faces.factors import get_split, sample_factors
from demo_faces.scene import draw_face
from fer_lib.data.readers.base import Face
from fer_lib.labels import EMOTIONS_7

_SMALL_SET = 200  # below this, starting processes takes longer than drawing
_CHUNK = 32


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


class DemoReader:
    """Draws faces 0 .. n_faces - 1 in order, `size` pixels square, as a stream.

    The faces do not depend on `workers`, the number of processes (by default one per CPU).
    """

    emotions: tuple[str, ...] = EMOTIONS_7
    layout = "demo"

    def __init__(self, n_faces: int, size: int, seed: int, workers: int | None = None) -> None:
        self.n_faces, self.size, self.seed = n_faces, size, seed
        self.workers = workers or os.cpu_count() or 1

    def __len__(self) -> int:
        return self.n_faces

    def __iter__(self) -> Iterator[Face]:
        draw = partial(make_face, size=self.size, seed=self.seed)
        if self.workers == 1 or self.n_faces < _SMALL_SET:
            yield from map(draw, range(self.n_faces))
            return
        # Spawned processes inherit no threads or locks from the caller, whatever it has loaded.
        with get_context("spawn").Pool(self.workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            yield from pool.imap(draw, range(self.n_faces), chunksize=_CHUNK)
