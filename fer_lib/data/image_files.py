"""Find image files: which names count as images, and a count of all that is passed over."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)

STDIN = "-"

PassedOver = dict[Path, str]
"""Files that are passed over, and of what kind they are."""

HIDDEN = "hidden or system"
"""What is passed over for names like these: `._face.jpg`, `.DS_Store`, `Thumbs.db`, `__MACOSX`."""

_SYSTEM_NAMES = re.compile(
    r"\..*|(eh)?thumbs\.db|desktop\.ini|__macosx|\$recycle\.bin|system volume information|@eadir|lost\+found",
    re.IGNORECASE,
)


def list_images(folder: Path, passed_over: PassedOver) -> list[Path]:
    """Return the image files in a folder and all below it, sorted by name, those of the folder itself first.

    What else is there is added to `passed_over`. A link to a folder is not followed, so a loop ends.
    Raises OSError for a folder that may not be read.
    """

    def fail(error: OSError) -> None:
        raise error

    return list(_walk(folder, passed_over, fail))


def list_folders(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, sorted, without those that operating systems leave behind."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def pass_loose_files(folder: Path, passed_over: PassedOver) -> None:
    """Add to `passed_over` what lies directly in a folder that should hold folders of images alone."""
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name):
            below = [Path(where, name) for where, _, names in os.walk(path) for name in names]
            passed_over |= dict.fromkeys(below if path.is_dir() else [path], HIDDEN)
        elif not path.is_dir() and _check_file(path, passed_over):
            passed_over[path] = "image outside a class folder"


def show_name(name: str | Path) -> str:
    """Return a file's name for a line of text: short, without what would break it or steer a terminal."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in str(name))
    return shown if len(shown) <= 200 else f"{shown[:100]}...{shown[-97:]}"


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or left behind by an operating system."""
    return _SYSTEM_NAMES.fullmatch(name) is not None


def describe_counts(counts: Mapping[str, int]) -> str:
    """Return how many of which kind, the commonest first: `12 (.txt: 7; .mp4: 5)`; `0` for none."""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = "; ".join(f"{kind}: {n:,}" for kind, n in order if n)
    return f"{sum(counts.values()):,}" + (f" ({kinds})" if kinds else "")


def expand_paths(arguments: Sequence[str], passed_over: PassedOver) -> Iterator[str]:
    """Yield the images that files, folders (with all below them) and globs stand for, each once, in order.

    What stands for nothing is yielded as it is, and so are folders that may not be read: who reads them will
    learn what is wrong. What is no image in a folder is added to `passed_over`.
    """
    seen = set()
    for argument in arguments:
        is_plain = argument == STDIN or os.path.exists(argument)
        matched = [argument] if is_plain else _match_glob(argument, passed_over)
        found = [path for match in matched for path in _expand_folder(match, passed_over)]
        for path in found or [argument]:
            if path not in seen:
                seen.add(path)
                yield path


def _match_glob(pattern: str, passed_over: PassedOver) -> list[str]:
    """Return what a glob stands for, sorted; `**` means any folders, and the images in them alone."""
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
    if not any(part.startswith(".") and part != ".." for part in rest.parts):
        # As in a shell, hidden ones are matched only where the pattern says so.
        found = [path for path in found if not any(map(is_hidden, path.relative_to(base).parts))]
    if "**" in parts:
        found = [path for path in found if path.is_file() and _check_file(path, passed_over)]
    return [str(path) for path in found]


def _expand_folder(path: str, passed_over: PassedOver) -> list[str]:
    """Return the images in a folder and all below it, sorted; of anything else, itself."""
    if not os.path.isdir(path):
        return [path]
    unread: list[OSError] = []
    found = list(map(str, _walk(Path(path), passed_over, unread.append)))
    return (found or [path] * (not unread)) + [str(error.filename) for error in unread]


def _walk(folder: Path, passed_over: PassedOver, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    for where, below, names in os.walk(folder, onerror=on_error):
        parent = Path(where)
        is_left = any(map(is_hidden, parent.relative_to(folder).parts))
        below.sort()
        for name in below:
            if (parent / name).is_symlink():
                passed_over[parent / name] = "link to a folder"
        for name in sorted(names):
            if is_left or is_hidden(name):
                passed_over[parent / name] = HIDDEN
            elif _check_file(parent / name, passed_over):
                yield parent / name


def _check_file(path: Path, passed_over: PassedOver) -> bool:
    """Return whether a file is an image by its name; where it is none, count it by its suffix."""
    if not path.is_file():
        passed_over[path] = "broken link or device"
    elif path.suffix.lower() in SUFFIXES:
        return True
    else:
        passed_over[path] = path.suffix.lower() or "without a suffix"
    return False
