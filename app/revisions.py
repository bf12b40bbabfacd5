"""Compare two versions of a study: settings and headline numbers of commits, experiments, and the files here.

Everything is read from Git's own store, without a checkout and without a network.
"""

import csv
import io
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import yaml

from app.number_titles import POINTS, name_number, show_key
from app.results_data import MISSING, get_interval, show_bounds, show_value
from fer_lib import paths
from fer_lib.errors import FerError
from fer_lib.intervals import Interval
from fer_lib.metrics_file import build_key

FILES_HERE = "The files as they are"
"""Name of the version that is no commit."""

N_COMMITS = 50

PARAMS = "params.yaml"

KINDS = {"refs/heads/": "branch", "refs/tags/": "tag", "refs/exps/": "experiment"}
"""Where Git and DVC keep names of commits."""

EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/")
"""Other names below `refs/exps` are DVC's own notes."""

Files = dict[str, bytes]


@dataclass(frozen=True)
class Version:
    """What is compared of one version."""

    settings: dict[str, str]
    """By path in words."""
    numbers: dict[tuple[str, str], Interval]
    """By stage and key. Bounds are NaN where a number has no interval."""


def list_revisions(dataset: str) -> dict[str, str]:
    """Return revision to title: commits that changed settings or headline numbers, then names of commits.

    Of each, the newest come first. {} where there is no Git or no history.
    """
    changed = ["--", PARAMS, f":(glob)reports/{dataset}/metrics/*.json"]
    try:
        commits = _run_git("log", f"--max-count={N_COMMITS}", "--format=%h\t%cs\t%s", *changed)
        shown = "--format=%(refname)\t%(committerdate:short)\t%(subject)"
        names = _run_git("for-each-ref", "--sort=-committerdate", shown, *KINDS)
    except (OSError, subprocess.CalledProcessError):
        return {}
    titles = {}
    for line in f"{commits}{names}".splitlines():
        name, date, subject = line.split("\t", 2)
        if title := _name_revision(name):
            titles[name] = f"{title} · {date} · {subject}"
    return titles


def _name_revision(name: str) -> str:
    for prefix, kind in KINDS.items():
        if name.startswith(prefix):
            if kind == "experiment" and not EXPERIMENT.match(name):
                return ""
            return f"{kind} {EXPERIMENT.sub('', name).removeprefix(prefix)}"
    return name


def read_version(revision: str, dataset: str) -> Version:
    """Return settings and headline numbers of a data set at a revision, or of `FILES_HERE`.

    Raises FerError for a revision that Git does not know, and for one whose files a partial clone lacks and
    cannot fetch.
    """
    if revision == FILES_HERE:
        return _parse(_read_files(paths.ROOT, dataset), dataset)
    # `cat-file` takes names on its standard input, where none can pass for an option.
    answer = _run_git("cat-file", "--batch-check", stdin=f"{revision}^{{commit}}\n".encode())
    commit, *kind = answer.split()
    if kind[:1] != ["commit"]:
        raise FerError(f"{revision}: expected a commit, branch, tag or experiment of this repository")
    return _read_commit(paths.ROOT, commit, dataset)


@lru_cache(maxsize=64)
def _read_commit(root: Path, commit: str, dataset: str) -> Version:
    """Return what a commit holds, which never changes."""
    folders = [f"reports/{dataset}/{kind}" for kind in ("metrics", "tables")]
    listed = _run_git("ls-tree", "-r", "-z", "--name-only", commit, PARAMS, *folders).split("\0")
    names = [name for name in listed if _is_compared(name)]
    asked = "".join(f"{commit}:./{name}\n" for name in names)
    try:
        stream = io.BytesIO(_run_git_raw("cat-file", "--batch", stdin=asked.encode()))
    except subprocess.CalledProcessError:  # a partial clone fetches what it lacks
        raise FerError(
            f"{commit[:9]}: expected its results in this clone, found a part of them, and the rest cannot be "
            "fetched; connect to the internet, or choose another version"
        ) from None
    files = {}
    for name in names:
        size = int(stream.readline().split()[-1])
        files[name] = stream.read(size)
        stream.readline()
    return _parse(files, dataset)


def _read_files(root: Path, dataset: str) -> Files:
    found = [root / PARAMS, *(root / "reports" / dataset).glob("*/*")]
    names = {path.relative_to(root).as_posix(): path for path in found if path.is_file()}
    return {name: path.read_bytes() for name, path in names.items() if _is_compared(name)}


def _is_compared(name: str) -> bool:
    path = PurePosixPath(name)
    is_of_stage = len(path.parts) == 4 and f"{path.parts[2]}{path.suffix}" in ("metrics.json", "tables.csv")
    return name == PARAMS or is_of_stage


def _parse(files: Files, dataset: str) -> Version:
    settings: dict[str, str] = {}
    numbers: dict[tuple[str, str], Interval] = {}
    for name, content in files.items():
        path = PurePosixPath(name)
        try:
            if name == PARAMS:
                settings = _read_settings(yaml.safe_load(content), dataset)
            elif path.suffix == ".json":
                table = files.get(f"reports/{dataset}/tables/{path.stem}.csv", b"")
                numbers |= _read_numbers(path.stem, json.loads(content), table)
        except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
            continue  # damaged, or of a time when files had another layout: there is nothing to compare
    return Version(settings, numbers)


def _read_settings(params: dict[str, Any], dataset: str) -> dict[str, str]:
    """Return path in words to value; what is for other data sets alone is left out."""
    of_datasets = params.get("datasets") or {}
    ours = {name: settings for name, settings in of_datasets.items() if name == dataset}
    return {show_key(key): show_value(value) for key, value in _flatten(params | {"datasets": ours})}


def _flatten(params: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _read_numbers(stage: str, headlines: dict[str, Any], table: bytes) -> dict[tuple[str, str], Interval]:
    """Return stage and key to value; intervals stand in the table, and once stood beside the value."""
    bounds = _read_bounds(table)
    return {
        (stage, key): Interval(value, *(bounds.get(key) or get_interval(headlines, key)[1:]))
        for key, value in headlines.items()
        if isinstance(value, int | float) and not key.endswith(("_lo", "_hi"))
    }


def _read_bounds(table: bytes) -> dict[str, tuple[float, float]]:
    bounds = {}
    for row in csv.DictReader(io.StringIO(table.decode())):
        if row["lo"] and row["hi"]:
            key = build_key(row["metric"], row["model"], row["split"], row["class"])
            bounds[key] = (float(row["lo"]), float(row["hi"]))
    return bounds


def compare_settings(old: Version, new: Version) -> pd.DataFrame:
    """Return the settings that differ, columns Setting, Before, After, all text."""
    keys = dict.fromkeys([*new.settings, *old.settings])
    rows = [(key, old.settings.get(key, MISSING), new.settings.get(key, MISSING)) for key in keys]
    return pd.DataFrame([row for row in rows if row[1] != row[2]], columns=["Setting", "Before", "After"])


def compare_numbers(old: Version, new: Version) -> pd.DataFrame:
    """Return the numbers of both that differ, all text.

    The columns are Quantity, Before, After, Difference and Intervals.
    """
    rows = []
    for (stage, key), after in new.numbers.items():
        before = old.numbers.get((stage, key))
        if before is None or before.value == after.value:
            continue
        name, spec = name_number(key)
        name = name.replace(": ", ", ")  # after the stage's own colon
        if not name[:2].isupper():
            name = name[0].lower() + name[1:]
        rows.append(
            (
                f"{stage.replace('_', ' ').capitalize()}: {name}",
                _show(before, spec),
                _show(after, spec),
                _show_difference(after.value - before.value, spec),
                _compare_intervals(before, after),
            )
        )
    return pd.DataFrame(rows, columns=["Quantity", "Before", "After", "Difference", "Intervals"])


def _show(number: Interval, spec: str) -> str:
    value = show_value(number.value, spec)
    return f"{value} [{', '.join(show_bounds(number, spec))}]" if number.is_defined else value


def _show_difference(difference: float, spec: str) -> str:
    if spec == POINTS or spec.endswith("%"):
        return show_value(difference, POINTS)
    return f"{difference:+{spec.lstrip('+') or ',.4g'}}"


def _compare_intervals(old: Interval, new: Interval) -> str:
    if not (old.is_defined and new.is_defined):
        return MISSING
    return "overlap" if old.low <= new.high and new.low <= old.high else "do not overlap"


def _run_git(*arguments: str, stdin: bytes = b"") -> str:
    return _run_git_raw(*arguments, stdin=stdin).decode(errors="replace")


def _run_git_raw(*arguments: str, stdin: bytes = b"") -> bytes:
    command = ["git", "-C", str(paths.ROOT), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout
