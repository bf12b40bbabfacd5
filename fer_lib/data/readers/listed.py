"""Find the images that a list names, wherever below the raw folder they were unpacked."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from fer_lib.data.image_files import is_hidden
from fer_lib.data.images import decode_image
from fer_lib.data.readers.base import CsvFile
from fer_lib.errors import DataError

N_TRIED = 20
"""Of a list's images, so many are looked for: some may be missing where the others lie."""

_MAX_DEPTH = 3
_N_SHOWN = 8


def walk_folders(root: Path, depth: int = _MAX_DEPTH) -> Iterator[Path]:
    """Yield `root` and the folders up to `depth` levels below it, the nearest first, each level by path.

    A folder is listed only after its whole level was yielded: who stops there never lists its content.
    """
    level = [root]
    for _ in range(depth):
        yield from level
        level = [path for folder in level for path in _list_folders(folder)]
    yield from level


def _list_folders(folder: Path) -> list[Path]:
    # Not `image_files.list_folders`: it asks the disk about every file, and here may be 400,000 images.
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry) for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    except OSError:  # what may not be read cannot be what is looked for
        return []


def find_file(root: Path, *names: str) -> Path | None:
    """Return the nearest folder, up to two levels below `root`, that holds files of all these names."""
    return next(
        (path for path in walk_folders(root, 2) if all((path / name).is_file() for name in names)), None
    )


def search_images(root: Path, names: Sequence[str]) -> Path | None:
    """Return the nearest folder at or below `root` that one of the paths `names` starts from, or None."""
    return next(
        (path for path in walk_folders(root) if any(os.path.isfile(path / name) for name in names)), None
    )


def find_images(root: Path, names: Sequence[str], listed_in: str) -> Path:
    """Return what `search_images` does; raise DataError with the full paths that were searched for none."""
    found = search_images(root, names)
    if found or not names:  # an empty list needs no images: who reads it says that there are no faces
        return found or root
    searched = [str(folder / names[0]) for folder in walk_folders(root)]
    others = f" and {len(searched) - _N_SHOWN:,} others" if len(searched) > _N_SHOWN else ""
    raise DataError(
        f"{root}: expected the images of {listed_in} here or up to {_MAX_DEPTH} folders down, found none at "
        f"{', '.join(searched[:_N_SHOWN])}{others}; unpack the images below {root}"
    )


def read_listed(folder: Path, name: str) -> np.ndarray:
    """Return an image that a list names. Raises ValueError, with the name at the end."""
    try:
        return decode_image(folder / name)
    except ValueError as error:
        raise ValueError(f"{error} [{name}]") from None


def pick_rows(table: CsvFile) -> Iterator[list[str]]:
    """Yield the values of the named columns, without the rows that are short or long."""
    for _, fields in table:
        with suppress(ValueError):
            yield table.pick(fields)
