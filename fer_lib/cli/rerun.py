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
from fer_lib.cli.verify import check_names
from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.params import load_params
from fer_lib.paths import PARAMS_FILE, ROOT, get_output_dirs
from fer_lib.provenance import find_commit, hash_values, run_git
from fer_lib.reporting.index_page import build_index
from fer_lib.reporting.results import RERUN

RERUN_DIR = ROOT / "rerun"
"""Second checkouts, which Git ignores: what another machine computes changes no committed file."""

BEGUN = Path(".git", "begun")
"""In a second checkout: the commit whose run has begun there and not ended."""

SCATTER = "scatter.csv"
"""Beside the pages: the headline numbers of trainings with other seeds, a column each."""

IDENTICAL, WITHIN, DIFFERENT = "identical", "within scatter", "different"

LEVEL = 0.999
"""Of the prediction interval for a training with another seed: of 40 numbers, one falls out in 25 reruns."""

MIN_SEEDS = 5
"""From fewer, the interval would hold nearly everything."""

SAME = ("data", "params")
"""Provenance that two runs must share, or one is no rerun of the other."""


class Results(NamedTuple):
    """What a run of the study wrote, by stage: `evaluation`; of provenance also `recipes/b0` and so on."""

    numbers: dict[str, dict[str, float]]
    provenance: dict[str, dict[str, Any]]


class Comparison(NamedTuple):
    """A headline number at the commit and now."""

    key: str  # `evaluation: test.accuracy`
    committed: float | None
    found: float | None
    verdict: str
    why: str


def rerun(dataset: str) -> int:
    """Run the commit that is checked out once more, in `rerun/<dataset>`, and compare; return the status.

    That is 1 when a number is different. Changes that are not committed are no part of it. Killed and started
    again, it goes on; ended, it begins anew. Raises FerError when the commit has no results to compare with.
    """
    commit, is_edited = find_commit()
    folder = RERUN_DIR / dataset
    check_names([dataset])
    read_commit(commit, dataset)
    if is_edited:
        print(
            f"this reruns {commit[:9]}; edits that are not committed are left out, `make results` runs them"
        )
    check_out(folder, commit, dataset)
    status = run_there(folder, "pipeline", dataset)
    if not status:
        status = report(commit, dataset, folder)
        (folder / BEGUN).unlink()
    return status


def measure_scatter(dataset: str, seed: int) -> Path:
    """Run the commit with another seed of every training; add its headline numbers to `scatter.csv`.

    The seed is 0 in `params.yaml`. Columns of another study, by `hash_study`, are dropped. Raises FerError
    when the commit has no results, and when a stage fails.
    """
    commit, _ = find_commit()
    check_names([dataset])
    committed, folder = read_commit(commit, dataset), RERUN_DIR / f"{dataset}-seed-{seed}"
    check_out(folder, commit, dataset)
    path = folder / PARAMS_FILE.name
    params = yaml.safe_load(path.read_text())
    sections, n_seeds = params["datasets"][dataset], len(load_params(dataset, path=path).ablations.seeds)
    sections["training"]["seed"] = seed
    sections["ablations"]["seeds"] = [n_seeds * seed + i for i in range(n_seeds)]
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    if run_there(folder, "pipeline", dataset):
        raise FerError(f"{folder}: a stage failed; its own message stands above")
    numbers = read_folder(folder, dataset).numbers
    flat = {(stage, key): value for stage, found in numbers.items() for key, value in found.items()}
    table = pd.Series(flat, name=f"seed_{seed}").rename_axis(["stage", "key"]).to_frame()
    file, study = get_output_dirs(dataset, ROOT).reports / SCATTER, hash_study(committed)
    if file.is_file():
        others = pd.read_csv(file, index_col=["stage", "key"])
        others = others[others.pop("study") == study].drop(columns=table.columns, errors="ignore")
        table = others.join(table, how="outer").dropna(axis="columns", how="all")
    table.insert(0, "study", study)
    write_atomically(file, table.to_csv().encode())
    shutil.rmtree(folder)
    return file.relative_to(ROOT)


def check_out(folder: Path, commit: str, dataset: str) -> None:
    """Make `folder` a checkout of the commit, or leave it when a run of that has begun there.

    Of `dataset` it has no result, only how long the stages took; what others came to, claims may name. It is
    a clone that borrows the objects of this one: deleted, it leaves no trace, as a worktree would. Raises
    FerError when Git fails.
    """
    begun, code = folder / BEGUN, [".", f":!reports/{dataset}", ":!dvc.lock"]
    is_whole = begun.is_file() and not run_git("ls-files", "--deleted", "--", *code, cwd=folder)
    if is_whole and begun.read_text() == commit:
        return
    if folder.is_dir():
        shutil.rmtree(folder)
    for command in (
        ["clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(folder)],
        ["-C", str(folder), "reset", "--quiet", commit],
        ["-C", str(folder), "checkout", "--quiet", commit, "--", *code],
    ):
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FerError(f"git {' '.join(command)}: {' '.join(done.stderr.split())}")
    times = run_git("show", f"{commit}:reports/{dataset}/{STAGES}", cwd=ROOT)
    if times:  # by which the pipeline tells how long it will take
        write_atomically(get_output_dirs(dataset, folder).reports / STAGES, times.encode())
    begun.write_text(commit)  # last: what is killed before begins again


def run_there(folder: Path, *arguments: str) -> int:
    """Run a command of `fer` with the code of another checkout and this one's raw data; return its status."""
    environment = {name: value for name, value in os.environ.items() if name != "FER_ROOT"}
    environment["FER_DATA_ROOT"] = str(ROOT / (os.environ.get("FER_DATA_ROOT") or "data/raw"))
    environment["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-m", "fer_lib", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def read_commit(commit: str, dataset: str) -> Results:
    """Return the results of `dataset` as they are committed. Raises FerError when there are none."""
    reports = Path("reports", dataset)
    listed = run_git("ls-tree", "-r", "-z", "--name-only", commit, f"{reports.as_posix()}/", cwd=ROOT)
    names = [name for name in listed.split("\0") if name.endswith(".json")]
    texts = {Path(name): run_git("show", f"{commit}:{name}", cwd=ROOT) for name in names}
    results = _sort_results(reports, texts)
    if not results.numbers:
        find_commit()  # which tells, where that is the reason, that there is no Git here
        raise FerError(
            f"{reports.as_posix()} at {commit[:9]}: expected metrics, found none; "
            "name another commit, or run `make results` and commit"
        )
    return results


def read_folder(root: Path, dataset: str) -> Results:
    """Return the results of `dataset` as they lie in a checkout."""
    reports = root / "reports" / dataset
    return _sort_results(reports, {path: path.read_text() for path in reports.rglob("*.json")})


def _sort_results(reports: Path, texts: Mapping[Path, str]) -> Results:
    numbers, provenance = (
        {
            path.relative_to(reports / kind).with_suffix("").as_posix(): json.loads(text)
            for path, text in sorted(texts.items())
            if path.is_relative_to(reports / kind)
        }
        for kind in ("metrics", "provenance")
    )
    return Results(numbers, provenance)


def hash_study(results: Results) -> str:
    """Return a hash of all data and parameters that results were made with."""
    of_stages = {
        name: [written.get(what) for what in SAME] for name, written in sorted(results.provenance.items())
    }
    return hash_values(of_stages)[:16]


def compare(committed: Results, found: Results, scatter: Mapping[str, np.ndarray]) -> list[Comparison]:
    """Return the verdict on every headline number.

    *identical*: the same digits. *within scatter*: the same data and parameters in every stage, and the
    number lies where a training with another seed would put it. *different*: neither.

    scatter: as of `read_scatter`.
    """
    changed = find_changes(committed, found)
    verdicts = []
    for stage in dict.fromkeys([*committed.numbers, *found.numbers]):
        then, now = committed.numbers.get(stage, {}), found.numbers.get(stage, {})
        for key in dict.fromkeys([*then, *now]):
            name = f"{stage}: {key}"
            verdict, why = judge(then.get(key), now.get(key), changed, scatter.get(name))
            verdicts.append(Comparison(name, then.get(key), now.get(key), verdict, why))
    return verdicts


def find_changes(committed: Results, found: Results) -> list[str]:
    """Return which of `SAME` differ, and in which stages: `params of training`."""
    return [
        f"{what} of {name}"
        for name, before in committed.provenance.items()
        for what in SAME
        if name in found.provenance and found.provenance[name].get(what) != before.get(what)
    ]


def judge(
    committed: float | None, found: float | None, changed: list[str], seeds: np.ndarray | None
) -> tuple[str, str]:
    """Return the verdict on a number, and why.

    changed: as of `find_changes`.   seeds: float (n,), the number from trainings with other seeds.
    """
    if committed == found:
        return IDENTICAL, ""
    if committed is None or found is None:
        return DIFFERENT, "new" if committed is None else "missing"
    if changed:
        return DIFFERENT, f"other {changed[0]}" + (f" and {len(changed) - 1} more" if changed[1:] else "")
    if seeds is None or len(seeds) < MIN_SEEDS:
        return DIFFERENT, "how much it scatters is not known"
    low, high = predict_interval(seeds)
    inside = low <= min(committed, found) and max(committed, found) <= high
    return (WITHIN if inside else DIFFERENT), f"seeds: {low:.4g} to {high:.4g}"


def predict_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval in which one further value falls with probability `level` (Student's).

    values: float (n,), n >= 2. Source: Hahn & Meeker, Statistical Intervals (1991), section 4.7.
    """
    n, spread = len(values), float(np.std(values, ddof=1))
    reach = float(stats.t.ppf((1 + level) / 2, n - 1)) * spread * np.sqrt(1 + 1 / n)
    return float(np.mean(values) - reach), float(np.mean(values) + reach)


def read_scatter(path: Path, study: str) -> dict[str, np.ndarray]:
    """Return `<stage>: <key>` to the number of each seed, float (n,); nothing when none is known of `study`.

    The table has the columns stage, key, study (as of `hash_study`), and one per seed.
    """
    if not path.is_file():
        return {}
    table = pd.read_csv(path)
    table = table[table.pop("study") == study]
    names = table.pop("stage") + ": " + table.pop("key")
    return {name: row[~np.isnan(row)] for name, row in zip(names, table.to_numpy(np.float64), strict=True)}


def report(commit: str, dataset: str, folder: Path | None = None) -> int:
    """Print what `compare` finds; return 1 when a number is different.

    folder: the checkout of a rerun, whose index page shows it too; without it, the results here are compared.
    Raises FerError when the commit has no results.
    """
    committed, found = read_commit(commit, dataset), read_folder(folder or ROOT, dataset)
    scatter = read_scatter(get_output_dirs(dataset, ROOT).reports / SCATTER, hash_study(committed))
    verdicts = compare(committed, found, scatter)
    for one in verdicts:
        if one.verdict != IDENTICAL:
            why = f" ({one.why})" if one.why else ""
            print(f"{one.verdict} {one.key}: committed {one.committed}, found {one.found}{why}")
    edited = find_edited_code(committed, found)
    if edited:
        print(f"{dataset}: what is committed was made by other code: {', '.join(edited)}")
    counts = {name: sum(one.verdict == name for one in verdicts) for name in (IDENTICAL, WITHIN, DIFFERENT)}
    summary = (
        f"{dataset} reproduced: {', '.join(f'{n} {name}' for name, n in counts.items())} "
        f"({find_vendor(found)}; committed on {find_vendor(committed)})"
    )
    print(summary)
    if folder:
        content = {"commit": commit, "summary": summary, "numbers": [one._asdict() for one in verdicts]}
        path = get_output_dirs(dataset, folder).reports / RERUN
        write_atomically(path, json.dumps(content, indent=2).encode())
        build_index(dataset, folder)
    return 1 if counts[DIFFERENT] else 0


def find_edited_code(committed: Results, found: Results) -> list[str]:
    """Return the packages and notebooks that differ between two runs."""
    then, now = (
        {path: code for written in results.provenance.values() for path, code in written["code"].items()}
        for results in (committed, found)
    )
    return sorted(path for path in then.keys() & now.keys() if then[path] != now[path])


def find_vendor(results: Results) -> str:
    """Return the vendor of the processor that a run names first, or `unknown`."""
    return next(
        (written["cpu"]["vendor"] for written in results.provenance.values() if "cpu" in written), "unknown"
    )
