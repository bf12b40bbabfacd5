"""Writing files so that a reader, or a process killed half-way, never sees half a file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fer_lib.errors import FerError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one step; missing parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers of one file apart; the rename is atomic within a folder.
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock file while the block runs; it falls with the process that holds it.

    Raises FerError at once when another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise FerError(f"{path}: another run is at work here; wait for it, or stop it") from None
