"""Check the numbers in `reports/` against what they were made from: one line a file, for `fer verify`."""

import json
import math
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.metrics import accuracy_score, recall_score

from fer_lib.errors import FerError
from fer_lib.metrics_file import build_key, read_metrics
from fer_lib.params import load_params
from fer_lib.paths import ROOT, OutputDirs, get_output_dirs
from fer_lib.provenance import find_stage, hash_file, hash_stage_code, hash_stage_params, run_git

PRECISION = 1e-5
"""Relative; tables keep six significant digits."""


def verify_reports(datasets: Sequence[str] = (), root: Path = ROOT) -> int:
    """Print a line for each provenance file and table of predictions; return 1 when one fails, else 0.

    `ok <file>`, perhaps with notes in brackets, or `FAILED <file>: <what>: expected ..., found ...`. A file
    that is not in this clone, such as a network's weights, is a note; so is code that has changed since.

    `datasets` are those of `reports/`; none stands for all. Raises FerError when there is nothing to check.
    """
    found = datasets or sorted(path.parent.name for path in (root / "reports").glob("*/provenance"))
    n_failed = n_checked = 0
    hash_dep = cache(lambda dep: (root / dep).exists() and hash_stage_code({"deps": [dep]}, root)[dep])
    for dataset in found:
        dirs = get_output_dirs(dataset, root)
        paths = sorted((dirs.reports / "provenance").rglob("*.json"))
        checks = {path: partial(_check_provenance, path, dirs, root, hash_dep) for path in paths}
        for kind in ("predictions", "compression", "ablations"):
            paths = sorted((dirs.reports / kind).glob("*.parquet"))
            checks |= {path: partial(_check_predictions, path, dirs) for path in paths}
        for path, check in checks.items():
            try:
                problems, notes = check()
            except (FerError, KeyError, ValueError, OSError) as error:
                problems, notes = [f"{type(error).__name__}: {error}"], []
            name = path.relative_to(root).as_posix()
            shown = f" ({'; '.join(notes)})" if notes else ""
            print(f"FAILED {name}: {'; '.join(problems)}" if problems else f"ok {name}{shown}")
            n_checked, n_failed = n_checked + 1, n_failed + bool(problems)
    if not n_checked:
        raise FerError(
            f"{root / 'reports'}: expected files in <dataset>/provenance/, found none; run `make repro`"
        )
    return 1 if n_failed else 0


def _check_provenance(path: Path, dirs: OutputDirs, root: Path, hash_dep: Any) -> tuple[list[str], list[str]]:
    """Return what does not hold of a provenance file, and notes."""
    written = json.loads(path.read_bytes())
    name = path.relative_to(dirs.reports / "provenance").with_suffix("").as_posix()
    pairs = {"table": (written["table_sha256"], hash_file(dirs.get_table(name)))}
    if written["params"]:
        params = load_params(written["dataset"], path=root / "params.yaml")
        stage = find_stage(name, written["dataset"], root)
        pairs["params"] = (written["params"], hash_stage_params(stage, params.model_dump(mode="json")))
    packed = root / "data" / "packed" / written["dataset"] / "meta.json"
    if packed.is_file():
        pairs["data"] = (written["data"], json.loads(packed.read_bytes())["data_hash"])
    here = {file: sha for file, sha in written["inputs"].items() if (root / file).is_file()}
    pairs |= {file: (sha, hash_file(root / file)) for file, sha in here.items()}
    headline = dirs.metrics / f"{name}.json"
    if headline.is_file():
        metrics = read_metrics(dirs, name)
        pairs |= {key: (value, metrics.get(key)) for key, value in json.loads(headline.read_bytes()).items()}
    problems = [f"{what}: expected {old}, found {new}" for what, (old, new) in pairs.items() if old != new]
    notes = [] if written["code"] and written["params"] else ["no hash of the code or parameters was kept"]
    missing = len(written["inputs"]) - len(here)
    notes += [f"{missing} of {len(written['inputs'])} inputs are not here"] * bool(missing)
    commit, _, dirty = written["commit"].partition("-")
    if run_git("cat-file", "-t", commit, cwd=root) != "commit":
        is_whole = run_git("rev-parse", "--is-shallow-repository", cwd=root) == "false"
        if is_whole and commit != "unknown":
            problems.append(f"commit: expected {commit} in Git, found none")
        else:
            notes.append(f"commit {commit[:9]} is not in this clone")
    notes += ["computed with uncommitted changes"] * bool(dirty)
    changed = sorted(dep for dep, sha in written["code"].items() if hash_dep(dep) != sha)
    if changed:
        notes.append(f"code changed since {commit[:9]}: {', '.join(changed)}")
    return problems, notes


def _check_predictions(path: Path, dirs: OutputDirs) -> tuple[list[str], list[str]]:
    """Return which scores of a table of predictions are not those in its stage's table."""
    kind = path.parent.name
    stage = {"predictions": "evaluation", "compression": "compression"}.get(kind, f"ablations/{path.stem}")
    frame, metrics, problems = pd.read_parquet(path), read_metrics(dirs, stage), []
    data, expected = frame.attrs.get("data_hash"), metrics.provenance["data"]
    if data not in (None, expected):
        problems.append(f"data: expected {expected}, found {data}")
    scores = dict(_score_predictions(kind, path, frame))
    for key, value in scores.items():
        if not math.isclose(value, metrics.get(key, math.nan), rel_tol=PRECISION):
            problems.append(f"{key}: expected {metrics.get(key)}, found {value:.6g}")
    return problems, [f"{len(scores)} scores recomputed"]


def _score_predictions(kind: str, path: Path, frame: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Yield accuracy and macro recall on test by their key, of every network, variant, or arm and seed."""
    if kind == "ablations":
        for column in frame.filter(regex=r"\.emotion$"):
            arm, seed, _ = str(column).rsplit(".", 2)
            yield from _score(arm, f"seed_{seed}.test", frame["label"], frame[column])
        return
    test = frame[frame["split"] == "test"]
    if kind == "predictions":
        classes = test.filter(regex="^logit_").to_numpy().argmax(axis=1)
        yield from _score(path.stem, "test", test["label"], classes)
        return
    known = pd.read_parquet(path.parents[1] / "predictions" / "baseline.parquet", columns=["row", "label"])
    labels = test["row"].map(known.set_index("row")["label"])
    for variant in dict.fromkeys(str(column).partition("/")[0] for column in test if "/" in str(column)):
        classes = test.filter(regex=f"^{variant}/").to_numpy().argmax(axis=1)
        yield from _score(f"{path.stem}.{variant}", "test", labels, classes)


def _score(model: str, split: str, labels: pd.Series, predicted: Any) -> Iterator[tuple[str, float]]:
    yield build_key("accuracy", model, split), accuracy_score(labels, predicted)
    recall = recall_score(labels, predicted, labels=labels.unique(), average="macro", zero_division=0)
    yield build_key("macro.recall", model, split), recall
