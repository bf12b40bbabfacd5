"""Check the numbers in `reports/` against what they were made from: one line a file, for `fer verify`."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import accuracy_score, recall_score

from fer_lib.data.packed import load_packed
from fer_lib.deployment.card import build_card
from fer_lib.errors import FerError
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.browser_record import RECORD, TESTS, hash_app, list_tests, read_record
from fer_lib.evaluation.claims import judge_claim, load_claims, load_records
from fer_lib.evaluation.metrics import (
    compute_metrics,
    fit_temperature,
    group_labels,
    group_probabilities,
    score_predictions,
)
from fer_lib.inference.registry import CARD_NAME
from fer_lib.labels import GROUPS
from fer_lib.metrics_file import Metrics, build_key, read_metrics
from fer_lib.models.checkpoints import read_config
from fer_lib.params import load_params
from fer_lib.paths import ROOT, OutputDirs, get_output_dirs
from fer_lib.provenance import find_stage, hash_file, hash_stage_code, hash_stage_params, run_git
from fer_lib.training.voting import fit_weights, vote

PRECISION = 1e-5
"""Relative; tables keep six significant digits."""

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
    n_failed = n_partial = n_checked = 0
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
        n_checked, n_failed = n_checked + 1, n_failed + bool(problems)
        n_partial += _UNKNOWN in notes
    print(f"{n_checked} files: {n_checked - n_failed} ok, {n_failed} failed; of {n_partial} {_UNKNOWN}")
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


def _check_browser_record(root: Path) -> Outcome:
    """Check that the recorded tests are still there."""
    record = read_record(root)
    lost = {name.partition("[")[0] for name in record["tests"]} - list_tests(root)
    problems = [f"{name}: expected in {TESTS}, found none" for name in sorted(lost)]
    if not record["tests"]:
        return problems, ["no test has been recorded"]
    is_same = record["code"] == hash_app(root)
    return problems, [] if is_same else [f"code changed since {record['commit'][:9]}"]


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
    if name == "claims":
        records = load_records(dirs, root)
        for claim in load_claims(root / "claims.yaml"):
            verdict = judge_claim(claim, records)["verdict"]
            pairs[f"verdict of {claim.id}"] = (verdict, metrics.get(f"verdict.{claim.id}"))
    problems = [f"{what}: expected {old}, found {new}" for what, (old, new) in pairs.items() if old != new]
    notes = [] if written["code"] and written["params"] else [_UNKNOWN]
    if name == "evaluation":
        networks = list(metrics.select(metric="weight")["model"].str.removeprefix("ensemble."))
        selected = max(networks, key=lambda network: metrics[f"{network}.val.accuracy"])
        if metrics["selected"] != selected:
            problems.append(f"selected: expected {selected}, found {metrics['selected']}")
        is_same_data = "data" in pairs and pairs["data"][0] == pairs["data"][1]
        scores = dict(_score_evaluation(dirs, networks, selected, packed.parent if is_same_data else None))
        problems += _compare(scores, metrics)
        notes.append(f"{len(scores)} scores recomputed")
    missing = len(written["inputs"]) - len(here)
    notes += [f"{missing} of {len(written['inputs'])} inputs are not here"] * bool(missing)
    commit, _, dirty = written["commit"].partition("-")
    notes += ["computed with uncommitted changes"] * bool(dirty)
    changed = sorted(dep for dep, sha in written["code"].items() if hash_dep(dep) not in (sha, None))
    if changed:
        notes.append(f"code changed since {commit[:9]}: {', '.join(changed)}")
    if run_git("cat-file", "-t", commit, cwd=root) != "commit":
        is_whole = run_git("rev-parse", "--is-shallow-repository", cwd=root) == "false"
        if is_whole and commit != "unknown":
            problems.append(f"commit: expected {commit} in Git, found none")
        else:
            notes.append(f"commit {commit[:9]} is not in this clone")
    elif written["params"] and written["params"] != _hash_params(name, written["dataset"], root):
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


def _score_evaluation(
    dirs: OutputDirs, networks: Sequence[str], selected: str, packed: Path | None
) -> Iterator[tuple[str, float]]:
    """Yield what the networks' predictions score on test, alone and together, by key.

    With the packed data also without duplicates, and with intervals, for the selected network.
    """
    tables = [pd.read_parquet(dirs.reports / "predictions" / f"{name}.parquet") for name in networks]
    names = [str(column) for column in tables[0] if str(column).startswith("logit_")]
    emotions = [name.removeprefix("logit_") for name in names]
    chosen, found, temperatures = networks.index(selected), {}, np.ones(0)
    for split in ("val", "test"):
        faces = [table[table["split"] == split] for table in tables]
        labels = faces[0]["label"].to_numpy(np.int64)
        logits = np.stack([part[names].to_numpy(np.float64) for part in faces])
        alone = softmax(logits, axis=2)
        found = {"": alone[chosen], **dict(zip(networks, alone, strict=True))}
        if split == "val":
            weights = fit_weights(alone, labels)
            temperatures = np.array([fit_temperature(of_network, labels) for of_network in logits])
        else:
            calibrated = softmax(logits / temperatures[:, None, None], axis=2)
            in_groups = {"": calibrated[chosen], **dict(zip(networks, calibrated, strict=True))}
            seen = [column.replace("logit_", "views_") for column in names]
            views = np.stack([part[seen].to_numpy(np.float64) for part in faces])
            found |= {
                "tta": views[chosen],
                "ensemble": vote(alone, weights),
                "ensemble_tta": vote(views, weights),
            }
        for model, p in found.items():
            for score, value in compute_metrics(labels, p, emotions).items():
                yield build_key(score, model, split), value
            if split == "test":
                grouped = group_probabilities(in_groups.get(model, p), emotions)
                for score, value in compute_metrics(group_labels(labels, emotions), grouped, GROUPS).items():
                    yield build_key(score, model, "test.group"), value
    if packed:
        settings = load_params(packed.name).evaluation
        data = load_packed(packed.name, packed)
        unseen = np.isin(data.get_rows("test"), data.get_rows("test", drop_duplicates_of="train"))
        for split, kept in {"test": np.ones_like(unseen), "test_dedup": unseen}.items():
            persons = data.persons[data.get_rows("test")][kept]
            bootstrap = Bootstrap(len(persons), settings.n_resamples, settings.seed, persons)
            intervals = score_predictions(labels[kept], found[""][kept], emotions, bootstrap)
            for score, (value, low, high) in intervals.items():
                key = build_key(score, "", split)
                yield from ((key, value), (f"{key}_lo", low), (f"{key}_hi", high))


def _check_predictions(path: Path, dirs: OutputDirs) -> Outcome:
    """Check the scores of a table of predictions against its stage's table."""
    kind = path.parent.name
    stage = {"predictions": "evaluation", "compression": "compression"}.get(kind, f"ablations/{path.stem}")
    frame, metrics, problems = pd.read_parquet(path), read_metrics(dirs, stage), []
    data, expected = frame.attrs.get("data_hash"), metrics.provenance["data"]
    if data not in (None, expected):
        problems.append(f"data: expected {expected}, found {data}")
    scores = dict(_score_predictions(kind, path, frame))
    return problems + _compare(scores, metrics), [f"{len(scores)} scores recomputed"]


def _compare(scores: Mapping[str, float], metrics: Metrics) -> list[str]:
    known = metrics.flatten()
    return [
        f"{key}: expected {value:.6g}, found {known.get(key)}"
        for key, value in scores.items()
        if not math.isclose(value, known.get(key, math.nan), rel_tol=PRECISION, abs_tol=1e-9)
    ]


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
