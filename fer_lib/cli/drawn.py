"""The command that draws faces with known emotions, to try the others on."""

import itertools
import os
from pathlib import Path

import click

from fer_lib.errors import DataError

SIZE = 64
"""Pixels, of the side of a drawn face: other commands take images so small for faces that are cut out."""

SEED = 1
"""Not that of the data set `demo`: no network has learned from these faces."""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--faces", "n_faces", type=click.IntRange(1), default=200, help="How many are drawn.")
def draw(folder: Path, n_faces: int) -> None:
    """Draw faces into one folder per emotion.

    Each emotion has as many, to within one. The same number gives the same faces everywhere.
    """
    from functools import partial

    from PIL import Image

    from fer_lib.data.readers.demo import make_face
    from fer_lib.jobs import map_side_by_side
    from fer_lib.labels import EMOTIONS_7

    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder}: expected a new or an empty folder, found files; name another one")
    numbers = choose_numbers(n_faces)
    faces = map_side_by_side(partial(make_face, size=SIZE, seed=SEED), numbers, os.cpu_count() or 1)
    for number, face in zip(numbers, faces, strict=True):
        path = folder / EMOTIONS_7[face.label] / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face.image).save(path)
    print(f"written: {folder} ({n_faces:,} face{'' if n_faces == 1 else 's'})")


def choose_numbers(n_faces: int) -> list[int]:
    """Return the numbers of so many drawn faces, of which each emotion has its share, to within one face."""
    from demo_faces.factors import EMOTIONS, sample_factors

    share, rest = divmod(n_faces, len(EMOTIONS))
    left = {emotion: share + (place < rest) for place, emotion in enumerate(EMOTIONS)}
    numbers: list[int] = []
    candidates = itertools.count()
    while len(numbers) < n_faces:
        number = next(candidates)
        emotion = sample_factors(SEED, number).emotion
        if left[emotion]:
            left[emotion] -= 1
            numbers.append(number)
    return numbers
