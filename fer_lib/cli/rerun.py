"""Rerun the committed study beside its results, and tell of every number whether it came out again."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from fer_lib.cli.pipeline import STAGES
from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.params import load_params
from fer_lib.paths import PARAMS_FILE, ROOT, get_output_dirs
from fer_lib.provenance import run_git
from fer_lib.reporting.index_page import RERUN, build_index

RERUN_DIR = ROOT / "rerun"
"""A second checkout, which Git ignores: what another machine computes changes no committed file."""

SCATTER = "scatter.csv"
"""Beside the pages: the headline numbers of trainings with other seeds, a column each."""

IDENTICAL, WITHIN, DIFFERENT = "identical", "within scatter", "different"

LEVEL = 0.999
"""Of the prediction interval for a training with another seed: one of 40 numbers falls out in 25 reruns."""

SAME = ("data", "params")
"""Provenance that two runs must share, or one is no rerun of the other."""


class Comparison(NamedTuple):
    """A headline number at the commit and now."""

    key: str  # `evaluation: test.accuracy`
    committed: float | None
    found: float | None
    verdict: str
    why: str


def rerun(dataset: str) -> int:
    """Run the commit that is checked out in `rerun/`, and compare; return 1 when a number is different.

    Changes that are not committed are no part of it. Killed and started again, it goes on.
    """
    commit = check_out(RERUN_DIR, dataset)
    if run_git("status", "--porcelain", "--untracked-files=no", cwd=ROOT):
        print(f"changes that are not committed are left out: this reruns {commit[:9]}; `dvc repro` runs them")
    return run_there(RERUN_DIR, "pipeline", dataset) or report(commit, dataset, RERUN_DIR, on_page=True)


def measure_scatter(dataset: str, seed: int) -> Path:
    """Run the commit with another seed of every training; add its headline numbers to `scatter.csv`.

    The seed is 0 in `params.yaml`. Raises FerError when a stage fails.
    """
    folder = RERUN_DIR.with_name("rerun-seed")
    check_out(folder, dataset)
    path = folder / PARAMS_FILE.name
    params = yaml.safe_load(path.read_text())
    sections = params["datasets"][dataset]
    sections["training"]["seed"] = seed
    n_seeds = len(load_params(dataset).ablations.seeds)
    sections["ablations"]["seeds"] = [n_seeds * seed + i for i in range(n_seeds)]
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    if run_there(folder, "pipeline", dataset):
        raise FerError(f"{folder}: a stage failed; its own message stands above")
    files = sorted(get_output_dirs(dataset, folder).metrics.glob("*.json"))
    numbers = {(file.stem, key): value for file in files for key, value in _read_json(file).items()}
    column = pd.Series(numbers, name=f"seed_{seed}").rename_axis(["stage", "key"]).to_frame()
    table = get_output_dirs(dataset, ROOT).reports / SCATTER
    if table.is_file():
        others = pd.read_csv(table, index_col=["stage", "key"]).drop(columns=column.columns, errors="ignore")
        column = others.join(column, how="outer")
    write_atomically(table, column.to_csv().encode())
    return table.relative_to(ROOT)


def check_out(folder: Path, dataset: str) -> str:
    """Bring a second checkout to this commit, but for the results of `dataset` there; return the commit.

    Raises FerError outside a Git checkout.
    """
    commit = run_git("rev-parse", "HEAD", cwd=ROOT)
    if not commit:
        raise FerError(f"{ROOT}: expected a Git checkout, found none; clone the repository")
    if not (folder / ".git").exists():
        run_git("worktree", "prune", cwd=ROOT)
        run_git("worktree", "add", "--detach", str(folder), commit, cwd=ROOT)
        _remove_results(folder, dataset)
    elif run_git("rev-parse", "HEAD", cwd=folder) != commit:
        run_git("reset", "--quiet", commit, cwd=folder)
        run_git("checkout", "--", ".", f":!reports/{dataset}", ":!dvc.lock", cwd=folder)
    if run_git("rev-parse", "HEAD", cwd=folder) != commit:
        raise FerError(f"{folder}: expected a checkout of {commit[:9]}, found none; delete the folder")
    return commit


def _remove_results(folder: Path, dataset: str) -> None:
    """Delete what was committed as a result, so that none of it is taken for the rerun's own."""
    (folder / "dvc.lock").unlink(missing_ok=True)
    for path in get_output_dirs(dataset, folder).reports.glob("*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (SCATTER, STAGES):
            path.unlink()


def run_there(folder: Path, *arguments: str) -> int:
    """Run a command of `fer` with the code of another checkout and this one's raw data; return its status."""
    raw = os.environ.get("FER_DATA_ROOT") or str(ROOT / "data" / "raw")
    environment = {**os.environ, "PYTHONPATH": str(folder), "FER_DATA_ROOT": raw}
    command = [sys.executable, "-m", "fer_lib", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def compare_with(commit: str, dataset: str, root: Path = ROOT) -> list[Comparison]:
    """Return every headline number of `dataset` as the commit has it and as it stands in `root`.

    *identical*: the same digits. *within scatter*: the same data and parameters, and the number lies where a
    training with another seed would, by `scatter.csv`. *different*: neither.
    """
    reports = get_output_dirs(dataset, root).reports.relative_to(root)
    scatter = read_scatter(root / reports / SCATTER)
    files = run_git("ls-tree", "-r", "--name-only", commit, f"{reports}/metrics/", cwd=root).split()
    found = []
    for file in map(Path, files):
        stage = file.stem
        then, now = _read_commit(commit, file, root), _read_json(root / file)
        provenance = Path(reports, "provenance", file.name)
        before, after = _read_commit(commit, provenance, root), _read_json(root / provenance)
        changed = [name for name in SAME if before.get(name) != after.get(name)]
        for key in dict.fromkeys([*then, *now]):
            name = f"{stage}: {key}"
            verdict, why = judge(then.get(key), now.get(key), changed, scatter.get(name))
            found.append(Comparison(name, then.get(key), now.get(key), verdict, why))
    if not found:
        raise FerError(f"{reports} at {commit[:9]}: expected metrics, found none; name another commit")
    return found


def judge(
    committed: float | None, found: float | None, changed: list[str], seeds: np.ndarray | None
) -> tuple[str, str]:
    """Return the verdict on a number, and why.

    changed: what of `SAME` differs.   seeds: float (n,), the number from trainings with other seeds.
    """
    if committed == found:
        return IDENTICAL, ""
    if committed is None or found is None:
        return DIFFERENT, "new" if committed is None else "missing"
    if changed:
        return DIFFERENT, f"other {' and '.join(changed)}"
    if seeds is None or len(seeds) < 2:
        return DIFFERENT, "how much it scatters is not known"
    low, high = predict_interval(np.append(seeds, committed))
    inside = low <= found <= high
    return (WITHIN if inside else DIFFERENT), f"seeds: {low:.4g} to {high:.4g}"


def predict_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval in which one further value falls with probability `level` (Student's).

    values: float (n,), n >= 2. Source: Hahn & Meeker, Statistical Intervals (1991), section 4.7.
    """
    n, spread = len(values), float(np.std(values, ddof=1))
    reach = float(stats.t.ppf((1 + level) / 2, n - 1)) * spread * np.sqrt(1 + 1 / n)
    return float(np.mean(values) - reach), float(np.mean(values) + reach)


def read_scatter(path: Path) -> dict[str, np.ndarray]:
    """Return `<stage>: <key>` to the number of each seed, float (n,); nothing when there is no file.

    The table has the columns stage, key, and one per seed.
    """
    if not path.is_file():
        return {}
    table = pd.read_csv(path)
    names = table["stage"] + ": " + table["key"]
    values = table.drop(columns=["stage", "key"]).to_numpy(np.float64)
    return {name: row[~np.isnan(row)] for name, row in zip(names, values, strict=True)}


def report(commit: str, dataset: str, root: Path = ROOT, on_page: bool = False) -> int:
    """Print what `compare_with` finds; return 1 when a number is different.

    on_page: the index page shows it too. Not where the committed pages lie: it would change one of them.
    """
    found = compare_with(commit, dataset, root)
    for one in found:
        if one.verdict != IDENTICAL:
            why = f" ({one.why})" if one.why else ""
            print(f"{one.verdict} {one.key}: committed {one.committed}, found {one.found}{why}")
    counts = {name: sum(one.verdict == name for one in found) for name in (IDENTICAL, WITHIN, DIFFERENT)}
    reports = get_output_dirs(dataset, root).reports.relative_to(root)
    provenance = reports / "provenance" / "evaluation.json"
    here, there = _read_json(root / provenance), _read_commit(commit, provenance, root)
    vendors = [one.get("cpu", {}).get("vendor", "unknown") for one in (here, there)]
    summary = (
        f"reproduced: {', '.join(f'{n} {name}' for name, n in counts.items())} "
        f"({vendors[0]}; committed on {vendors[1]})"
    )
    print(summary)
    if on_page:
        content = {"commit": commit, "summary": summary, "numbers": [one._asdict() for one in found]}
        write_atomically(root / reports / RERUN, json.dumps(content, indent=2).encode())
        build_index(dataset, root)
    return 1 if counts[DIFFERENT] else 0


def _read_commit(commit: str, path: Path, root: Path) -> Mapping[str, Any]:
    return json.loads(run_git("show", f"{commit}:{path.as_posix()}", cwd=root) or "{}")


def _read_json(path: Path) -> Mapping[str, Any]:
    return json.loads(path.read_bytes()) if path.is_file() else {}
