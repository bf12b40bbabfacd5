"""From what a user types to picture files: paths, patterns and folders."""

import os
from collections.abc import Iterator
from pathlib import Path

from fer_lib.errors import MediaError
from fer_lib.images import SUFFIXES

MAGIC = frozenset("*?[")


def find_pictures(name: str) -> Iterator[Path]:
    """Yield the files that a name stands for, sorted: itself, a folder's pictures, or what a pattern matches.

    A folder is searched with all folders in it, for files that end as pictures do; hidden ones are left out,
    and links to folders are not followed, so a loop of links ends. A pattern is one that a shell may have left
    unexpanded; `**` in it stands for any folders. A single file is yielded whatever its name or content.
    Raises MediaError when there is nothing, and, after the rest was yielded, for folders that may not be read.
    """
    path = Path(name)
    if os.path.isdir(path):
        yield from _search_folder(path)
    elif not MAGIC & set(name) or os.path.lexists(path):
        yield path
    else:
        yield from _match(name)


def _search_folder(folder: Path) -> Iterator[Path]:
    unread: list[OSError] = []
    n_found = 0
    for parent, folders, files in os.walk(folder, onerror=unread.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            # Only files: what else a folder may hold, such as a pipe, might never end.
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES and path.is_file():
                n_found += 1
                yield path
    if unread:
        names = ", ".join(str(error.filename) for error in unread[:3]) + (", ..." if len(unread) > 3 else "")
        raise MediaError(f"{names}: the folder may not be read; check its permissions")
    if not n_found:
        raise MediaError(
            f"{folder}: expected pictures in this folder, found none; their names end in {', '.join(SUFFIXES)}"
        )


def _match(pattern: str) -> Iterator[Path]:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if MAGIC & set(part))
    try:
        found = sorted(Path(*parts[:fixed]).glob(str(Path(*parts[fixed:]))))
    except (ValueError, OSError) as error:  # such as `a**`
        raise MediaError(
            f"{pattern}: not a pattern that can be searched for: {error}; use *, ? or **"
        ) from None
    # A pattern for whole trees matches folders too; their pictures are matched for themselves.
    deep = "**" in parts
    files = [path for path in found if path.is_file() and (not deep or path.suffix.lower() in SUFFIXES)]
    if not files and not any(path.is_dir() for path in found):
        raise MediaError(f"{pattern}: expected pictures, found nothing that matches; check the path")
    yield from files
    if not deep:
        for path in found:
            if path.is_dir():
                yield from _search_folder(path)
    elif not files:
        raise MediaError(f"{pattern}: expected pictures, found only folders; check the path")
