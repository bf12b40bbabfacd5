"""Run the whole study on one data set, around `dvc repro`, and tell the settings of its trainings."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from fer_lib.data.readers.fer2013 import find_pixels_dir
from fer_lib.errors import DataError, FerError, ParamsError
from fer_lib.files import write_atomically
from fer_lib.params import Changes, Params, Recipe, apply_recipe, find_recipe, load_params, read_params_file
from fer_lib.paths import PARAMS_FILE, ROOT, get_raw_dir
from fer_lib.provenance import list_stages
from fer_lib.reporting.index_page import build_index


def run_pipeline(dataset: str) -> Path:
    """Run every stage of `dataset` whose inputs have changed; return its index page, as a path in `ROOT`.

    Raises FerError when there are no raw files, when `params.yaml` does not know the data set, and when a
    stage fails.
    """
    check_overrides(dataset)
    if dataset != "demo":  # which is drawn by its own code and needs no files
        added = add_to_params(dataset, link_raw_dirs(dataset))
        if added:
            print(f"{PARAMS_FILE.name}: added {added!r} under pipeline.datasets", flush=True)
    command = [sys.executable, "-m", "dvc", "repro", *list_stages(dataset)]
    done = subprocess.run(command, cwd=ROOT, env=build_environment(), check=False)
    if done.returncode:
        raise FerError(f"{dataset}: a stage failed; its own message stands above")
    return build_index(dataset, ROOT).relative_to(ROOT)


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
    """Add `dataset` to `pipeline.datasets` and `pipeline.names`; return the former's line, if it was added.

    The file keeps its comments.
    """
    if dataset in (read_params_file().get("pipeline") or {}).get("datasets", {}):
        return None
    text, line = PARAMS_FILE.read_text(), f"{dataset}: data/raw/{raw_folder}"
    for key, entry in {"datasets": line, "names": f"- {dataset}"}.items():
        # The entries stand deeper than their key; the new one goes below the last of them.
        block = re.search(rf"^pipeline:.*\n(?: .*\n)*?  {key}:.*\n(?:    .*\n)*", text, re.MULTILINE)
        if not block:
            raise ParamsError(
                f"{PARAMS_FILE}: found no `{key}:` lines under `pipeline:`; add `{entry}` by hand"
            )
        text = f"{text[: block.end()]}    {entry}\n{text[block.end() :]}"
    write_atomically(PARAMS_FILE, text.encode())
    return line


def describe_settings(dataset: str, recipe: str, arm: str | None = None, smoke: bool = False) -> str:
    """Return the settings of a training as YAML; a comment says where in `params.yaml` each stands.

    `recipe` is one of `params.yaml`, or `baseline`: the sections as they are. `arm`, `<study>.<arm>`, stands
    in place of a recipe. Raises ParamsError for one that is not there.
    """
    params, content = load_params(dataset, smoke), read_params_file()
    changes: list[Changes] = [Recipe() if recipe == "baseline" else find_recipe(params, recipe)]
    names = [f"recipes.{recipe}"]
    if arm:
        study, _, name = arm.partition(".")
        found = params.ablations.studies.get(study, {}).get(name)
        if found is None:
            known = ", ".join(
                f"{s}.{a}" for s, arms in params.ablations.studies.items() for a in arms if arms[a]
            )
            raise ParamsError(f"{PARAMS_FILE}: ablations.studies: no arm {arm!r}; known: {known}")
        changes = [params.ablations.reference, found]
        names = ["ablations.reference", f"ablations.studies.{arm}"]
    for change in changes:
        params = apply_recipe(params, change)
    of_dataset = f"datasets.{dataset}."
    layers = ["", of_dataset, *["smoke."] * smoke]
    layers += [f"{prefix}{name}." for name in names for prefix in ("", of_dataset)]
    told = {"start": getattr(changes[0], "start", None), "teacher": getattr(changes[0], "teacher", None)}
    lines = [f"{key}: {value}" for key, value in told.items() if value]
    for section in ("training", "augmentation"):
        lines.append(f"{section}:")
        for key, value in getattr(params, section).model_dump(mode="json").items():
            places = [f"{layer}{section}" for layer in layers]
            place = [place for place in places if key in _find_mapping(content, place)][-1]
            lines.append(f"  {yaml.safe_dump({key: value}).strip():36}# {place}")
    return "\n".join(lines)


def _find_mapping(content: dict[str, Any], place: str) -> dict[str, Any]:
    for key in place.split("."):
        content = content.get(key) or {}
    return content


def build_environment() -> dict[str, str]:
    """Return the environment in which a stage's `python` is the one that runs now."""
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {**os.environ, "PATH": os.pathsep.join(paths)}
