"""Metrics files: flat dotted keys, plain numbers, and where they come from."""

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.params import Params
from fer_lib.paths import OutputDirs
from fer_lib.provenance import get_code_commit

PROVENANCE_KEYS = ("data_hash", "dataset", "device", "git_commit", "params_hash", "seed", "wall_seconds")


def write_metrics(
    dirs: OutputDirs,
    name: str,
    values: dict[str, Any],
    meta: dict[str, Any],
    params: Params,
    seed: int,
    wall_seconds: float,
) -> None:
    """Write `metrics/<name>.json`: `values` under flat dotted keys, and where they come from.

    meta: of the packed data set, with `dataset` and `data_hash`. A value is a finite number or a string;
    anything else raises FerError naming its key. Floats keep six significant digits. A file that differs only
    in times (`wall_seconds`, keys that end in `.seconds` or begin with `time.`) is left as it is, so that a
    rerun which reproduces every number changes nothing in Git.
    """
    content = {key: _clean_value(key, value) for key, value in values.items()}
    content |= {
        "data_hash": meta["data_hash"],
        "dataset": meta["dataset"],
        "device": _get_device(),
        "git_commit": get_code_commit(),
        "params_hash": hashlib.sha256(params.model_dump_json().encode()).hexdigest(),
        "seed": seed,
        "wall_seconds": round(wall_seconds, 1),
    }
    path = dirs.metrics / f"{name}.json"
    if _differs(path, content):
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        write_atomically(path, f"{text}\n".encode())


def read_metrics(dirs: OutputDirs, name: str) -> dict[str, Any]:
    """Return the metrics that stage `name` wrote. Raises FerError when it has not run."""
    path = dirs.metrics / f"{name}.json"
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FerError(f"{path}: not found; run the notebook of stage {name!r} first") from None


def format_interval(metrics: dict[str, Any], key: str, spec: str = ".3f") -> str:
    """Return `metrics[key]` with its 95 % interval, as `0.652 [0.637, 0.668]`."""
    value, low, high = (format(metrics[name], spec) for name in (key, f"{key}_lo", f"{key}_hi"))
    return f"{value} [{low}, {high}]"


def flatten_interval(key: str, values: tuple[float, float, float]) -> dict[str, float]:
    """Return a value and its interval as they stand in a metrics file: `key`, `key_lo`, `key_hi`.

    Nothing for an undefined one, NaN, as of a class that is not there.
    """
    if not all(map(math.isfinite, values)):
        return {}
    return {f"{key}{end}": value for end, value in zip(("", "_lo", "_hi"), values, strict=True)}


def show_interval(values: tuple[float, float, float], spec: str = ".3f") -> str:
    """Return a value and its interval as text that does not break in a table; a dash for an undefined one."""
    if not all(map(math.isfinite, values)):
        return "–"
    value, low, high = (format(number, spec) for number in values)
    return f"{value} [{low}, {high}]".replace(" ", "\N{NO-BREAK SPACE}")


def _clean_value(key: str, value: Any) -> int | float | str:
    if key in PROVENANCE_KEYS:
        raise FerError(f"metrics: {key!r} is written by write_metrics itself; leave it out or rename it")
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, bool) or not isinstance(plain, int | float | str):
        found = type(plain).__name__
        raise FerError(
            f"metrics: {key}: expected a number or a string under a flat dotted key, found {found}"
        )
    if isinstance(plain, float):
        if not math.isfinite(plain):
            raise FerError(f"metrics: {key}: expected a finite number, found {plain}; leave the key out")
        return float(f"{plain:.6g}")
    return plain


def _get_device() -> str:
    # A stage that never imported torch ran on the CPU; importing it here only to ask would take seconds.
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else "cpu"


def _differs(path: Path, content: dict[str, Any]) -> bool:
    try:
        written = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return True
    return _drop_times(written) != _drop_times(content)


def _drop_times(metrics: dict[str, Any]) -> dict[str, Any]:
    kept = (k for k in metrics if not k.endswith(".seconds") and not k.startswith("time."))
    return {k: metrics[k] for k in kept if k != "wall_seconds"}
