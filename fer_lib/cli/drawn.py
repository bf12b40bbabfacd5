"""The command that draws faces with known emotions, to try the others on."""

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
    """Draw faces into one folder per emotion. The same number gives the same faces everywhere."""
    from PIL import Image

    from fer_lib.data.readers.demo import draw_faces
    from fer_lib.labels import EMOTIONS_7

    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder}: expected a new or an empty folder, found files; name another one")
    for number, face in enumerate(draw_faces(n_faces, SIZE, SEED)):
        path = folder / EMOTIONS_7[face.label] / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face.image).save(path)
    print(f"written: {folder} ({n_faces:,} face{'' if n_faces == 1 else 's'})")
