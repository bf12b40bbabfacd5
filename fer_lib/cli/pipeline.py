"""Run the whole study on one data set, around `dvc repro`, and tell the settings of its trainings."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import pandas as pd
import yaml

from fer_lib.data.readers.fer2013 import find_pixels_dir
from fer_lib.errors import DataError, FerError, ParamsError
from fer_lib.files import hold_lock, write_atomically
from fer_lib.jobs import Needs, run_jobs
from fer_lib.param_sections import Changes, Recipe
from fer_lib.params import apply_recipe, find_recipe, load_params
from fer_lib.params_file import read_params_file
from fer_lib.paths import PARAMS_FILE, ROOT, get_output_dirs, get_raw_dir
from fer_lib.provenance import find_commit, list_outs, list_stages
from fer_lib.reporting.index_page import build_index

N_LANES = min(2, os.cpu_count() or 1)
"""So many stages run at a time: a notebook keeps one core busy, and processes take a while to start."""

STAGES = "stages.csv"
"""Beside the pages: how long each stage took."""

DVC_DIR = ROOT / ".dvc" / "tmp"

ALONE = "latency"
"""The stage that measures times."""

DVC_SAYS = (
    "> ",
    "Stage '",
    "Updating lock file",
    "To track",
    "\tgit add",
    "To enable auto",
    "\tdvc config",
    "Use `dvc push`",
    "Data and pipelines",
)
"""How the lines of DVC begin that say nothing of the study."""


def run_pipeline(dataset: str) -> Path:
    """Run every stage of `dataset` whose inputs have changed; return its index page, as a path in `ROOT`.

    Before each stage a line says how long it took last time, and what comes next. How long the stages took is
    kept in `STAGES`.

    Raises FerError when there are no raw files, when `params.yaml` does not know the data set, outside of a
    Git checkout, and when a stage fails.
    """
    find_commit()  # without one, DVC fails and results belong to none
    check_overrides(dataset)
    if dataset != "demo":  # which is drawn by its own code and needs no files
        added = add_to_params(dataset, link_raw_dirs(dataset))
        if added:
            print(f"{PARAMS_FILE.name}: added {added!r} under pipeline.datasets", flush=True)
    with hold_lock(DVC_DIR / "pipeline.lock"):
        # A killed run leaves it behind, and DVC waits for a process of that number, whosever it is by now.
        (DVC_DIR / "rwlock").unlink(missing_ok=True)
        progress = _run_stale(dataset)
    if not progress.has_run:
        print(f"{dataset}: everything is up to date", flush=True)
    return build_index(dataset, ROOT).relative_to(ROOT)


def _run_stale(dataset: str) -> "Progress":
    needs = find_stale(find_needs(list_stages(dataset)))
    progress = Progress(needs, get_output_dirs(dataset, ROOT).reports / STAGES)
    jobs = {target: partial(progress.run, target) for target in progress.left}
    with ThreadPoolExecutor(N_LANES) as pool:
        for target, status in run_jobs(jobs, pool, N_LANES, needs, alone=[f"{ALONE}@{dataset}"]):
            progress.save()
            if status:
                raise FerError(f"stage {target} failed; its own message stands above")
    return progress


def find_needs(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return every stage with those that write what it reads."""
    outs = {target: list(map(Path, list_outs(stage))) for target, stage in stages.items()}
    deps = {target: list(map(Path, stage["deps"])) for target, stage in stages.items()}
    return {
        target: [other for other in stages if other != target and _overlap(deps[target], outs[other])]
        for target in stages
    }


def _overlap(paths: list[Path], others: list[Path]) -> bool:
    return any(a.is_relative_to(b) or b.is_relative_to(a) for a in paths for b in others)


def find_stale(needs: Needs) -> dict[str, Collection[str]]:
    """Return the changed stages and those that read what these write. Raises FerError where DVC fails.

    One look at all of them; DVC takes seconds to begin, and would for every stage that is up to date.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FerError(f"{' '.join(command[1:])}: {' '.join(done.stderr.split())}")
    stale = set(json.loads(done.stdout))
    for target in TopologicalSorter(needs).static_order():
        if not stale.isdisjoint(needs[target]):
            stale.add(target)
    return {target: others for target, others in needs.items() if target in stale}


def sort_by_urgency(needs: Needs, seconds: Mapping[str, float]) -> list[str]:
    """Return the jobs, that one first from which the way to the end is longest, in seconds."""
    order = [target for target in TopologicalSorter(needs).static_order() if target in needs]
    ways: dict[str, float] = {}
    for target in reversed(order):
        after = [ways[other] for other in ways if target in needs[other]]
        ways[target] = seconds.get(target, 1.0) + max(after, default=0.0)
    return sorted(order, key=lambda target: -ways[target])


class Progress:
    """Runs stages and tells of them, by how long they took last time.

    needs: as of `find_needs`.   path: of the table with a stage and its seconds in each row.
    left: the stages that have not begun, the most urgent first.
    """

    def __init__(self, needs: Needs, path: Path):
        self.has_run = False
        self._path = path
        self._seconds: dict[str, float] = {}
        if path.is_file():
            known = pd.read_csv(path)
            self._seconds = dict(zip(known["stage"], known["seconds"], strict=True))
        self.left = sort_by_urgency(
            needs, {target: self._seconds.get(_get_name(target), 1.0) for target in needs}
        )

    def run(self, target: str) -> int:
        """Let DVC run the stage if it is out of date; return its exit status."""
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", target]
        # One thread per process: two stages, and the processes of a stage, share the cores.
        threads = {} if _get_name(target) == ALONE else {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=build_environment() | threads, stdout=subprocess.PIPE, text=True
        )
        started = 0.0
        self.left.remove(target)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Running stage"):
                started, self.has_run = time.monotonic(), True
                # The bar of another stage may stand on this line: it is written over.
                width = get_terminal_size().columns - 1
                print(f"\r{self._describe(target):<{width}}", flush=True)
            elif not line.startswith(DVC_SAYS) and line.strip():
                print(line.rstrip(), flush=True)
        status = process.wait()
        if started and not status:
            self._seconds[_get_name(target)] = round(time.monotonic() - started, 1)
        return status

    def save(self) -> None:
        """Write how long the stages took."""
        table = pd.Series(self._seconds.copy(), name="seconds").rename_axis("stage")
        write_atomically(self._path, table.to_csv().encode())

    def _describe(self, target: str) -> str:
        names = [_get_name(name) for name in (target, *self.left)]
        known = [f"{name} ({self._seconds[name]:.0f} s)" if name in self._seconds else name for name in names]
        minutes = sum(self._seconds.get(name, 0.0) for name in names) / N_LANES / 60
        then = f"; then {known[1]}" if known[1:] else ""
        left = f"about {minutes:.0f} min" if minutes >= 1 else "less than a minute"
        return f"{time.strftime('%H:%M:%S')} {known[0]}{then}; {left} left"


def _get_name(target: str) -> str:
    return target.partition("@")[0]


def check_overrides(dataset: str) -> None:
    """Raise ParamsError unless `datasets.<dataset>` lists every section that DVC watches."""
    load_params(dataset)
    listed, prefix = read_params_file()["datasets"][dataset] or {}, f"datasets.{dataset}."
    watched = [key for stage in list_stages(dataset).values() for key in stage["params"]]
    names = dict.fromkeys(key.removeprefix(prefix) for key in watched if key.startswith(prefix))
    missing = [name for name in names if name not in listed]
    if missing:
        lines = ", ".join(f"{name}: {{}}" for name in missing)
        raise ParamsError(f"{PARAMS_FILE}: datasets.{dataset}: expected every section; add {lines}")


def link_raw_dirs(dataset: str) -> str:
    """Make sure that DVC finds the raw files under `data/raw/`, wherever they are; return the folder's name.

    With `FER_DATA_ROOT` set, that is a link to the folder there. FER+ may be made from FER2013's folder (see
    `find_pixels_dir`); one folder holds all that a data set is made from, and DVC watches that one. Raises
    DataError when there are no files.
    """
    folder = get_raw_dir(dataset)
    if dataset == "ferplus":
        folder = find_pixels_dir(folder)
    if not (folder.is_dir() and any(folder.iterdir())):
        raise DataError(f"{folder}: no files of {dataset!r}; put them there as data/README.md says")
    raw_dir, expected = folder.absolute(), ROOT / "data" / "raw" / folder.name
    if not (expected.exists() and expected.samefile(raw_dir)):
        if expected.exists() and not expected.is_symlink():
            raise DataError(
                f"{expected}: exists, but FER_DATA_ROOT points to {raw_dir}; remove one of the two"
            )
        expected.parent.mkdir(parents=True, exist_ok=True)
        expected.unlink(missing_ok=True)
        expected.symlink_to(raw_dir, target_is_directory=True)
    return folder.name


def add_to_params(dataset: str, raw_folder: str) -> str | None:
    """Add `dataset` to `pipeline.datasets`; return its line, if it was added. The file keeps its comments."""
    if dataset in (read_params_file().get("pipeline") or {}).get("datasets", {}):
        return None
    text, line = PARAMS_FILE.read_text(), f"{dataset}: data/raw/{raw_folder}"
    # The entries stand deeper than their key; the new one goes below the last of them.
    block = re.search(r"^pipeline:.*\n(?: .*\n)*?  datasets:.*\n(?:    .*\n)*", text, re.MULTILINE)
    if not block:
        raise ParamsError(
            f"{PARAMS_FILE}: found no `datasets:` lines under `pipeline:`; add `{line}` by hand"
        )
    write_atomically(PARAMS_FILE, f"{text[: block.end()]}    {line}\n{text[block.end() :]}".encode())
    return line


def describe_settings(dataset: str, recipe: str, arm: str | None = None, smoke: bool = False) -> str:
    """Return the settings of a training as YAML; a comment says where in `params.yaml` each stands.

    `recipe` is one of `params.yaml`, or `baseline`: the sections as they are. `arm`, `<study>.<arm>` of the
    ablations, stands in place of a recipe. Raises ParamsError for one that is not there.
    """
    params, content = load_params(dataset, smoke), read_params_file()
    changes: list[Changes] = [Recipe() if recipe == "baseline" else find_recipe(params, recipe)]
    names = [f"recipes.{recipe}"]
    if arm:
        study, _, name = arm.partition(".")
        studies = params.ablations.list_studies()
        found = studies.get(study)
        change = found.arms.get(name) if found else None
        if found is None or change is None:
            known = ", ".join(f"{s}.{a}" for s, one in studies.items() for a in one.arms if one.arms[a])
            raise ParamsError(f"{PARAMS_FILE}: ablations: no arm {arm!r}; known: {known}")
        changes = [found.reference, change]
        names = [found.place_of_reference, f"{found.place}.{name}"]
    for change in changes:
        params = apply_recipe(params, change)
    of_dataset = f"datasets.{dataset}."
    layers = ["", of_dataset, *["smoke."] * smoke]
    layers += [f"{prefix}{name}." for name in names for prefix in ("", of_dataset)]
    told = {"start": getattr(changes[0], "start", None)}
    told["teachers"] = ", ".join(getattr(changes[0], "teachers", ()))
    lines = [f"{key}: {value}" for key, value in told.items() if value]
    of_training = {"teachers", *(("weights", "weights_file") if told["start"] else ())}  # as told above
    for section, hidden in (("training", of_training), ("augmentation", set[str]())):
        lines.append(f"{section}:")
        settings = getattr(params, section).model_dump(mode="json", exclude_defaults=True, exclude=hidden)
        for key, value in settings.items():
            places = [f"{layer}{section}" for layer in layers]
            place = [place for place in places if key in _find_mapping(content, place)][-1]
            setting = f"{key}: {yaml.safe_dump([value], default_flow_style=True).strip()[1:-1]}"
            lines.append(f"  {setting:36}# {place}")
    return "\n".join(lines)


def _find_mapping(content: dict[str, Any], place: str) -> dict[str, Any]:
    for key in place.split("."):
        content = content.get(key) or {}
    return content


def build_environment() -> dict[str, str]:
    """Return the environment in which a stage's `python` is the one that runs now."""
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    # Unbuffered, for the lines are told as they come.
    return {**os.environ, "PATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
