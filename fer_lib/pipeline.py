"""Run the whole study on one data set: what stands before and after `dvc repro`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from fer_lib.datasets.ferplus import find_pixels_dir
from fer_lib.errors import DataError, FerError, ParamsError
from fer_lib.files import write_atomically
from fer_lib.index_page import build_index
from fer_lib.params import Params, load_params, read_params_file
from fer_lib.paths import PARAMS_FILE, ROOT, get_raw_dir

DRAWN = "demo"
"""The data set that is drawn by its own code and needs no files."""


def run_pipeline(dataset: str) -> Path:
    """Run every stage of `dataset` whose inputs have changed; return the index page of its reports.

    Raises FerError when there are no raw files, when `params.yaml` does not know the data set, and when a
    stage fails.
    """
    check_overrides(dataset)
    if dataset != DRAWN:
        added = add_to_params(dataset, link_raw_dirs(dataset))
        if added:
            print(f"{PARAMS_FILE.name}: added {added!r} under pipeline.datasets", flush=True)
    targets = [f"{stage}@{dataset}" for stage in read_stages()]
    command = [sys.executable, "-m", "dvc", "repro", *targets]
    done = subprocess.run(command, cwd=ROOT, env=build_environment(), check=False)
    if done.returncode:
        raise FerError(f"{dataset}: a stage failed; its own message stands above")
    return build_index(dataset, ROOT)


def check_overrides(dataset: str) -> None:
    """Raise ParamsError unless `datasets.<dataset>` lists every section, which DVC needs to watch it."""
    load_params(dataset)
    listed = read_params_file()["datasets"][dataset] or {}
    missing = [name for name in Params.model_fields if name not in listed]
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
    _link_raw_dir(folder.name)
    return folder.name


def _link_raw_dir(name: str) -> None:
    raw_dir, expected = get_raw_dir(name).absolute(), ROOT / "data" / "raw" / name
    if expected.exists() and expected.samefile(raw_dir):
        return
    if expected.exists() and not expected.is_symlink():
        raise DataError(f"{expected}: exists, but FER_DATA_ROOT points to {raw_dir}; remove one of the two")
    expected.parent.mkdir(parents=True, exist_ok=True)
    expected.unlink(missing_ok=True)
    expected.symlink_to(raw_dir, target_is_directory=True)


def add_to_params(dataset: str, raw_folder: str) -> str | None:
    """Add `dataset` to `pipeline.datasets`, keeping the file's comments; return the added line, if any."""
    if dataset in (read_params_file().get("pipeline") or {}).get("datasets", {}):
        return None
    text, line = PARAMS_FILE.read_text(), f"{dataset}: data/raw/{raw_folder}"
    # The entries stand deeper than `datasets:`; the new one goes below the last of them.
    block = re.search(r"^pipeline:.*\n(?: .*\n)*?  datasets:.*\n(?:    .*\n)*", text, re.MULTILINE)
    if not block:
        raise ParamsError(
            f"{PARAMS_FILE}: found no `datasets:` lines under `pipeline:`; add `{line}` by hand"
        )
    write_atomically(PARAMS_FILE, f"{text[: block.end()]}    {line}\n{text[block.end() :]}".encode())
    return line


def read_stages() -> list[str]:
    """Return the names of the stages in `dvc.yaml`, in their order there."""
    return list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


def build_environment() -> dict[str, str]:
    """Return the environment in which a stage's `python` is the one that runs now."""
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {**os.environ, "PATH": os.pathsep.join(paths)}
