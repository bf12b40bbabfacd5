"""Keep what the benchmarks of scale measured on a machine: one JSON file each, which notebook 10 reads."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.machine import describe_machine
from fer_lib.paths import ROOT
from fer_lib.provenance import get_commit

FOLDER = Path("reports", "scale", "measurements")

NAMES = ("score", "serve", "distributed", "edge")
"""Each by the benchmark of that name."""


def write_measurements(name: str, content: Mapping[str, Any], root: Path = ROOT) -> Path:
    """Write what `benchmarks/<name>.py` measured, with the machine and the commit; return the file."""
    made_by = {"machine": describe_machine(), "cores": os.cpu_count(), "commit": get_commit()}
    path = root / FOLDER / f"{name}.json"
    write_atomically(path, f"{json.dumps({**made_by, **content}, indent=2)}\n".encode())
    return path


def read_measurements(name: str, root: Path = ROOT) -> dict[str, Any]:
    """Return what `write_measurements` wrote. Raises FerError when there is nothing, or nothing readable."""
    path = root / FOLDER / f"{name}.json"
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        raise FerError(f"{path}: expected measurements; run benchmarks/{name}.py") from None
