"""Write and read the metrics of a stage: a tidy table, its headline numbers, and what they depend on.

Stage `evaluation` leaves three files in `reports/<dataset>/`: `tables/evaluation.csv` with every number,
`metrics/evaluation.json` with the few that DVC compares, and `provenance/evaluation.json`.
"""

import csv
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.intervals import Interval
from fer_lib.machine import describe_cpu
from fer_lib.params import Params
from fer_lib.paths import OutputDirs
from fer_lib.provenance import (
    find_stage,
    get_commit,
    hash_file,
    hash_inputs,
    hash_stage_code,
    hash_stage_params,
)

COLUMNS = ["stage", "model", "split", "metric", "class", "value", "lo", "hi", "n"]
"""Of a table. An empty cell means: all classes, no interval, the stage's own model."""

HEADLINES = {
    "test.accuracy": ("Accuracy", ".1%"),
    "test_dedup.accuracy": ("Accuracy, no duplicates", ".1%"),
    "test.macro.recall": ("Macro recall", ".1%"),
    "test_dedup.macro.recall": ("Macro recall, no duplicates", ".1%"),
    "test.macro.f1": ("Macro F1", ".1%"),
    "test.ece": ("Calibration error (ECE)", ".3f"),
}
"""What models are compared by: key of stage `evaluation` to its name, the same everywhere, and format."""

MAX_HEADLINE = 15

VOLATILE = ("commit", "cpu", "device", "wall_seconds", "table_sha256")
"""Provenance that differs between two runs with the same result."""


class Row(NamedTuple):
    """One number of a table, as in `COLUMNS` but for the stage."""

    model: str
    split: str
    metric: str
    of: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


def build_key(metric: str, model: str = "", split: str = "", of: str = "") -> str:
    """Return the name of a number: `<model>.<split>.<metric>.<class>` without the parts that are empty.

    The only place where keys are made: `b0.test.recall.angry` is found by its parts, in code and tables.
    """
    return ".".join(part for part in (model, split, metric, of) if part)


@dataclass
class Metrics(Mapping[str, Any]):
    """The numbers of one stage, `evaluation` or `recipes/b0`, by `build_key`.

    Beside them `facts`, plain values that are no measurement, such as the network that was chosen; and
    `provenance`, what the numbers depend on, empty until they are written.
    """

    stage: str
    facts: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    _rows: dict[str, Row] = field(default_factory=dict)

    def add(
        self,
        metric: str,
        value: float | Interval,
        *,
        model: str = "",
        split: str = "",
        of: str = "",
        n: int | None = None,
    ) -> None:
        """Add a number: of which network, on which faces, of which class, and how many faces it rests on.

        An undefined one, NaN, as of a class without images, is left out.
        """
        number, low, high = value if isinstance(value, Interval) else (float(value), None, None)
        if math.isnan(number):
            return
        row, key = Row(model, split, metric, of, number, low, high, n), build_key(metric, model, split, of)
        if not all(math.isfinite(each) for each in (number, low, high) if each is not None):
            raise FerError(f"{self.stage}: {metric}: expected finite numbers, found {row}")
        if key in self:
            raise FerError(f"{self.stage}: two numbers are called {key}; rename one")
        self._rows[key] = row

    def add_scores(
        self,
        scores: Mapping[str, float | Interval],
        *,
        model: str = "",
        split: str = "",
        n: int | None = None,
    ) -> None:
        """Add scores by name: `accuracy`, `macro.recall`, or with a class after the dot, `recall.angry`."""
        for name, value in scores.items():
            metric, _, of = name.partition(".")
            if metric == "macro":
                metric, of = name, ""
            self.add(metric, value, model=model, split=split, of=of, n=n)

    def describe(self, key: str, value: str | int | float | bool | Sequence[Any]) -> None:
        """Add what is no measurement. Raises FerError for a key that is taken."""
        if key in self:
            raise FerError(f"{self.stage}: expected a key for each fact, found {key} twice; rename one")
        self.facts[key] = value

    def interval(self, key: str) -> Interval:
        """Return a number with its interval. Raises KeyError when it is not there or has none."""
        row = self._rows[key]
        if row.low is None or row.high is None:
            raise KeyError(f"{self.stage}: {key} has no interval")
        return Interval(row.value, row.low, row.high)

    def count(self, key: str) -> int | None:
        """Return how many faces a number rests on, where that is known."""
        return self._rows[key].n

    def flatten(self) -> dict[str, Any]:
        """Return all by key, and the bounds of intervals as `<key>_lo` and `<key>_hi`."""
        flat = dict(self)
        for key, row in self._rows.items():
            if row.low is not None:
                flat |= {f"{key}_lo": row.low, f"{key}_hi": row.high}
        return flat

    def select(self, **parts: str) -> pd.DataFrame:
        """Return the rows whose `model`, `split`, `metric` or `class` are those given, as in `to_frame`."""
        frame = self.to_frame()
        for column, value in parts.items():
            frame = frame[frame["class" if column == "of" else column] == value]
        return frame

    def to_frame(self) -> pd.DataFrame:
        """Return the tidy table, `COLUMNS`, in the order in which numbers were added."""
        return pd.DataFrame([(self.stage, *row) for row in self._rows.values()], columns=COLUMNS)

    def __getitem__(self, key: str) -> Any:
        return self.facts[key] if key in self.facts else self._rows[key].value

    def __iter__(self) -> Iterator[str]:
        yield from self._rows
        yield from self.facts

    def __len__(self) -> int:
        return len(self._rows) + len(self.facts)


def write_metrics(
    dirs: OutputDirs,
    metrics: Metrics,
    meta: Mapping[str, Any],
    params: Params,
    seed: int,
    wall_seconds: float,
    headline: Sequence[str] = (),
    inputs: Sequence[Path] | None = None,
) -> None:
    """Write the table, the headline numbers where there are any, and the provenance.

    Floats keep six significant digits. Files whose numbers and provenance are the same but for times, commit
    and device are left as they are: a rerun that reproduces every number changes nothing in Git.

    `meta` is of the packed data set, with `dataset` and `data_hash`; `headline` are at most `MAX_HEADLINE`
    keys, of which those without a number are left out; `inputs` are the weights or predictions behind the
    numbers, where those are not all that the stage reads. Raises FerError for too many headline numbers, and
    when no stage of `dvc.yaml` writes the metrics.
    """
    if len(headline) > MAX_HEADLINE:
        raise FerError(
            f"{metrics.stage}: expected at most {MAX_HEADLINE} headline numbers, found {len(headline)}"
        )
    table, stage = _to_csv(metrics.to_frame()), find_stage(metrics.stage, meta["dataset"])
    provenance = {
        "stage": metrics.stage,
        "dataset": meta["dataset"],
        "code": hash_stage_code(stage),
        "params": hash_stage_params(metrics.stage, stage, params.model_dump(mode="json")),
        "data": meta["data_hash"],
        "inputs": hash_inputs(stage["deps"] if inputs is None else inputs, dirs.reports.parents[1]),
        "seed": seed,
        "commit": get_commit(),
        "device": _get_device(),
        "cpu": describe_cpu(),
        "wall_seconds": round(wall_seconds, 1),
        "table_sha256": "",
        "facts": metrics.facts,
    }
    path, provenance_path = dirs.get_table(metrics.stage), dirs.get_provenance(metrics.stage)
    if _is_same(path, table, provenance_path, provenance):
        metrics = read_metrics(dirs, metrics.stage)  # with the times that stand there
    else:
        write_atomically(path, table.encode())
        provenance["table_sha256"] = hash_file(path)
        _write_json(provenance_path, provenance)
    if headline:
        shown = {key: _round(metrics[key]) for key in headline if key in metrics}
        _write_json(dirs.metrics / f"{metrics.stage}.json", shown)


def read_metrics(dirs: OutputDirs, name: str) -> Metrics:
    """Return what stage `name` wrote. Raises FerError when it has not run or a file is damaged."""
    table, path = dirs.get_table(name), dirs.get_provenance(name)
    try:
        frame = pd.read_csv(table, keep_default_na=False, dtype=str, usecols=COLUMNS)
        provenance = json.loads(path.read_bytes())
        metrics = Metrics(name, provenance["facts"], provenance)
        for _, model, split, metric, of, value, *bounds, n in frame.itertuples(index=False):
            low, high = (float(text) if text else None for text in bounds)
            row = Row(model, split, metric, of, float(value), low, high, int(n) if n else None)
            metrics._rows[build_key(metric, model, split, of)] = row
    except FileNotFoundError as error:
        raise FerError(f"{error.filename}: not found; run stage {name!r} first") from None
    except (ValueError, TypeError, KeyError) as error:
        found = " ".join(str(error).split())
        raise FerError(
            f"{table}, {path}: expected what stage {name!r} writes, found {found}; run it again"
        ) from error
    return metrics


def _to_csv(frame: pd.DataFrame) -> str:
    shown = frame.copy()
    for column in ("value", "lo", "hi", "n"):
        shown[column] = ["" if pd.isna(number) else str(_round(number)) for number in frame[column]]
    return shown.to_csv(index=False, lineterminator="\n")


def _round(value: Any) -> Any:
    """Return a float with six significant digits; whole numbers, such as bytes, keep all of theirs."""
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else float(f"{value:.6g}")


def _write_json(path: Path, content: Any) -> None:
    shown = f"{json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)}\n".encode()
    if not path.is_file() or path.read_bytes() != shown:
        write_atomically(path, shown)


def _get_device() -> str:
    # A stage that never imported torch ran on the CPU; importing it here only to ask would take seconds.
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else "cpu"


def _is_same(path: Path, table: str, provenance_path: Path, provenance: dict[str, Any]) -> bool:
    try:
        written, before = path.read_text(), json.loads(provenance_path.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    if before.get("table_sha256") != hash_file(path):
        return False
    kept, now = ({k: v for k, v in p.items() if k not in VOLATILE} for p in (before, provenance))
    return _drop_times(written) == _drop_times(table) and kept == json.loads(json.dumps(now))


def _drop_times(table: str) -> list[list[str]]:
    """Return the rows of a table without those of times: metrics `seconds` and `time.*`."""
    rows = list(csv.reader(table.splitlines()))
    return [row for row in rows if len(row) < 4 or not row[3].startswith(("seconds", "time."))]
