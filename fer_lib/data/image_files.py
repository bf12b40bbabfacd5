"""From what a user types to picture files: paths, folders and globs that no shell has expanded."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_lib.data.images import SUFFIXES

STDIN = "-"


def list_images(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the pictures that files, folders (with all below them) and globs stand for, each once, in order.

    What stands for nothing is yielded as it is, and so are folders that may not be read: who reads them will
    learn what is wrong. A link to a folder is not followed, so a loop ends. Hidden files are left out.
    """
    seen = set()
    for argument in arguments:
        matched = [argument] if argument == STDIN or os.path.exists(argument) else _match_glob(argument)
        found = [path for match in matched for path in _list_folder(match)]
        for path in found or [argument]:
            if path not in seen:
                seen.add(path)
                yield path


def _match_glob(pattern: str) -> list[str]:
    """Return what a glob stands for, sorted; `**` means any folders, and the pictures in them alone."""
    parts = Path(pattern).parts
    fixed = next((index for index, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
    if fixed == len(parts):
        return []
    base, rest = Path(*parts[:fixed]), Path(*parts[fixed:])
    try:
        # Not `glob.glob`: under `**` it follows links, and two that lead back take it for ever.
        found = sorted(base.glob(str(rest)))
    except (ValueError, OSError):  # `a**` is no pattern
        return []
    if not _is_hidden(rest):  # as in a shell, hidden ones are matched only where the pattern says so
        found = [path for path in found if not _is_hidden(path.relative_to(base))]
    return [str(path) for path in found if "**" not in parts or _is_picture(path)]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") and part != ".." for part in path.parts)


def _list_folder(path: str) -> list[str]:
    """Return the pictures in a folder and all below it, sorted; of anything else, itself."""
    if not os.path.isdir(path):
        return [path]
    unread: list[OSError] = []
    found = []
    for folder, below, names in os.walk(path, onerror=unread.append):
        below[:] = sorted(name for name in below if not name.startswith("."))
        found += [
            str(picture)
            for picture in map(Path(folder).joinpath, sorted(names))
            if _is_picture(picture) and not picture.name.startswith(".")
        ]
    return (found or [path] * (not unread)) + [str(error.filename) for error in unread]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
