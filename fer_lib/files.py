"""Writing files so that a reader, or a process killed half-way, never sees half a file."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one step; missing parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers of one file apart; the rename is atomic within a folder.
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    os.replace(partial, path)
