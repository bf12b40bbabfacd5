"""Check the numbers in `reports/` against what they were made from: one line a file, for `fer verify`."""

import json
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

import pandas as pd

from fer_lib.cli.recompute import FROM_FACES, FROM_REPORTS
from fer_lib.cli.recompute.predictions import recompute_table
from fer_lib.cli.recompute.written import Numbers, Written
from fer_lib.deployment.card import build_card
from fer_lib.errors import FerError
from fer_lib.evaluation.browser_record import RECORD, TESTS, hash_app, list_tests, read_record
from fer_lib.inference.registry import CARD_NAME
from fer_lib.metrics_file import Metrics, read_metrics
from fer_lib.models.checkpoints import read_config
from fer_lib.params import load_params
from fer_lib.paths import ROOT, OutputDirs, get_output_dirs
from fer_lib.provenance import find_stage, hash_file, hash_stage_code, hash_stage_params, run_git

PRECISION = 1e-5
"""Relative; tables keep six significant digits."""

PRECISIONS = {"augmentation": 1e-3}
"""Of stages whose pixels another processor may round otherwise."""

ROUNDING = 1e-6
"""Absolute; what is left of a difference that is none, in single precision."""

Outcome = tuple[list[str], list[str]]
"""What does not hold of a file, and notes."""


def verify_reports(datasets: Sequence[str] = (), root: Path = ROOT) -> int:
    """Print a line for each provenance file, table of predictions, card of a release, and the record of the
    tests in a browser.

    Return 1 when one fails, else 0.

    `ok <file>`, perhaps with notes in brackets, or `FAILED <file>: <what>: expected ..., found ...`. A file
    that is not in this clone, such as a network's weights, is a note; so are code and parameters that have
    changed since.

    `datasets` are those of `reports/`; none stands for all. Raises FerError for one that has no reports.
    """
    datasets = check_names(datasets, root)
    n_failed, noted = 0, dict.fromkeys(_NOTES, 0)
    hash_dep = cache(lambda dep: (root / dep).exists() and hash_stage_code({"deps": [dep]}, root).get(dep))
    checks: dict[Path, Callable[[], Outcome]] = {}
    if (root / RECORD).is_file():
        checks[root / RECORD] = partial(_check_browser_record, root)
    for card in sorted((root / "models" / "release").glob(f"[!.]*/{CARD_NAME}")):
        checks[card] = partial(_check_card, card)
    for dataset in datasets:
        dirs = get_output_dirs(dataset, root)
        names = {
            path.relative_to(folder).with_suffix("").as_posix()
            for folder in (dirs.metrics, dirs.reports / "tables", dirs.reports / "provenance")
            for path in folder.rglob("*.*")
        }
        checks |= {
            dirs.get_provenance(name): partial(_check_stage, name, dirs, root, hash_dep)
            for name in sorted(names)
        }
        for kind in ("predictions", "compression", "ablations"):
            paths = sorted((dirs.reports / kind).glob("*.parquet"))
            checks |= {path: partial(_check_predictions, path, dirs) for path in paths}
    for path, check in checks.items():
        try:
            problems, notes = check()
        except (FerError, KeyError, TypeError, ValueError, OSError) as error:
            problems, notes = [f"{type(error).__name__}: {error}"], []
        name = path.relative_to(root).as_posix()
        shown = f" ({'; '.join(notes)})" if notes else ""
        print(f"FAILED {name}: {'; '.join(problems)}" if problems else f"ok {name}{shown}")
        n_failed += bool(problems)
        for note in _NOTES:
            noted[note] += any(note in each for each in notes)
    counts = ", ".join(f"{n} {words}" for n, words in zip(noted.values(), _NOTES.values(), strict=True))
    print(f"{len(checks)} files: {len(checks) - n_failed} ok, {n_failed} failed; {counts}")
    return 1 if n_failed else 0


def list_reports(root: Path = ROOT) -> list[str]:
    """Return the data sets that have reports."""
    return sorted(path.parent.name for path in (root / "reports").glob("*/provenance"))


def check_names(datasets: Sequence[str], root: Path = ROOT) -> Sequence[str]:
    """Return the data sets, or without one all that have reports. Raises FerError for one that has none."""
    known = list_reports(root)
    for dataset in datasets or known[:1] or [""]:
        if dataset not in known:
            raise FerError(
                f"{root / 'reports' / dataset}: expected files in provenance/, found none; "
                f"known: {', '.join(known) or 'none'}; run `make results`"
            )
    return datasets or known


_UNKNOWN = "no hash of code and parameters was kept"

_NOTES = {
    _UNKNOWN: "without a hash of code and parameters",
    "code changed since": "whose code has changed since",
    "are not here": "whose inputs are not in this clone",
}
"""What may be noted of a file whose numbers hold: part of the note, and how the summary puts it."""
_UNCOMMITTED = "computed with uncommitted changes"


def _check_browser_record(root: Path) -> Outcome:
    """Check that the recorded tests are still there."""
    record = read_record(root)
    lost = {name.partition("[")[0] for name in record["tests"]} - list_tests(root)
    problems = [f"{name}: expected in {TESTS}, found none" for name in sorted(lost)]
    if not record["tests"]:
        return problems, ["no test has been recorded"]
    commit, _, dirty = record["commit"].partition("-")
    notes = [_UNCOMMITTED] * bool(dirty)
    if record["code"] != hash_app(root):
        notes.append(f"code changed since {commit[:9]}")
    return problems, notes


def _check_card(path: Path) -> Outcome:
    """Check that a release's card says what its config says."""
    expected = build_card(path.parent.name, read_config(path.parent)).splitlines()
    found = path.read_text().splitlines()
    changed = [line for line in found if line not in expected] or ["fewer lines"] * (found != expected)
    return [f"{shorten(line, 80)}: not what config.json says" for line in changed[:1]], []


def _check_stage(name: str, dirs: OutputDirs, root: Path, hash_dep: Any) -> Outcome:
    """Check a stage's table and headline numbers, and all that its provenance names."""
    metrics = read_metrics(dirs, name)
    written = metrics.provenance
    pairs: dict[str, tuple[Any, Any]] = {"table": (written["table_sha256"], hash_file(dirs.get_table(name)))}
    packed = root / "data" / "packed" / written["dataset"] / "meta.json"
    if packed.is_file():
        pairs["data"] = (written["data"], json.loads(packed.read_bytes())["data_hash"])
    here = {file: sha for file, sha in written["inputs"].items() if (root / file).is_file()}
    pairs |= {file: (sha, hash_file(root / file)) for file, sha in here.items()}
    headline = dirs.metrics / f"{name}.json"
    if headline.is_file():
        pairs |= {key: (value, metrics.get(key)) for key, value in json.loads(headline.read_bytes()).items()}
    problems = [f"{what}: expected {old}, found {new}" for what, (old, new) in pairs.items() if old != new]
    notes = [] if written["code"] and written["params"] else [_UNKNOWN]
    is_same_data = "data" in pairs and pairs["data"][0] == pairs["data"][1]
    hash_now = _hash_params(name, written["dataset"], root) if written["params"] else None
    is_same_params = hash_now is not None and hash_now == written["params"]
    if name in FROM_FACES and not is_same_data:
        notes.append("needs the packed faces")
    elif recompute := (FROM_FACES | FROM_REPORTS).get(name):
        params = load_params(written["dataset"], path=root / "params.yaml") if is_same_params else None
        stage = Written(root, dirs, metrics, packed.parent if is_same_data else None, params)
        wrong, note = _compare(recompute(stage), metrics, PRECISIONS.get(name, PRECISION))
        problems += wrong
        notes.append(note)
    missing = len(written["inputs"]) - len(here)
    notes += [f"{missing} of {len(written['inputs'])} inputs are not here"] * bool(missing)
    commit, _, dirty = written["commit"].partition("-")
    notes += [_UNCOMMITTED] * bool(dirty)
    changed = sorted(dep for dep, sha in written["code"].items() if hash_dep(dep) not in (sha, None))
    if changed:
        notes.append(f"code changed since {commit[:9]}: {', '.join(changed)}")
    if run_git("cat-file", "-t", commit, cwd=root) != "commit":
        is_whole = run_git("rev-parse", "--is-shallow-repository", cwd=root) == "false"
        if is_whole and commit != "unknown":
            problems.append(f"commit: expected {commit} in Git, found none")
        else:
            notes.append(f"commit {commit[:9]} is not in this clone")
    elif written["params"] and not is_same_params:
        then = _hash_params_at(commit, name, written["dataset"], root)
        if then is None:
            notes.append(f"parameters at {commit[:9]} cannot be read by this code")
        elif then == written["params"] or dirty:
            notes.append(f"parameters changed since {commit[:9]}")
        else:
            problems.append(f"parameters at {commit[:9]}: expected {written['params']}, found {then}")
    return problems, notes


def _hash_params(name: str, dataset: str, root: Path) -> str:
    params = load_params(dataset, path=root / "params.yaml").model_dump(mode="json")
    return hash_stage_params(name, find_stage(name, dataset, root), params)


def _hash_params_at(commit: str, name: str, dataset: str, root: Path) -> str | None:
    """Return the hash of a stage's parameters as they were at a commit; None where they cannot be read."""
    with TemporaryDirectory() as folder:
        for file in ("params.yaml", "dvc.yaml"):
            (Path(folder) / file).write_text(run_git("show", f"{commit}:{file}", cwd=root))
        try:
            return _hash_params(name, dataset, Path(folder))
        except (FerError, KeyError, TypeError):
            return None


def _check_predictions(path: Path, dirs: OutputDirs) -> Outcome:
    """Check the scores of a table of predictions against its stage's table."""
    kind = path.parent.name
    stage = {"predictions": "evaluation", "compression": "compression"}.get(kind, f"ablations/{path.stem}")
    frame, metrics, problems = pd.read_parquet(path), read_metrics(dirs, stage), []
    data, expected = frame.attrs.get("data_hash"), metrics.provenance["data"]
    if data not in (None, expected):
        problems.append(f"data: expected {expected}, found {data}")
    wrong, note = _compare(recompute_table(kind, path, frame), metrics)
    return problems + wrong, [note]


def _compare(numbers: Numbers, metrics: Metrics, precision: float = PRECISION) -> tuple[list[str], str]:
    """Return which numbers are not what was written, and how many there are."""
    known, expected = metrics.flatten(), {key: value for key, value in numbers if value == value}  # no NaN
    wrong = []
    for key, value in expected.items():
        found = known.get(key, math.nan)
        is_text = isinstance(value, str) or isinstance(found, str)
        if value != found and (
            is_text or not math.isclose(value, found, rel_tol=precision, abs_tol=ROUNDING)
        ):
            shown = value if isinstance(value, str) else f"{value:.6g}"
            wrong.append(f"{key}: expected {shown}, found {known.get(key)}")
    return wrong, f"{len(expected)} numbers recomputed"
