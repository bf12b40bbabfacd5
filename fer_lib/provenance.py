"""Find out what a number depends on: files, code, parameters, the commit that computed it."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from functools import lru_cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

from fer_lib.errors import FerError
from fer_lib.paths import ROOT

CODE_FOLDERS = ("demo_faces", "fer_lib")
"""Where code stands among a stage's dependencies in `dvc.yaml`, beside the notebooks."""

PAGES = "fer_lib/reporting"

VARIABLE = re.compile(r"\$\{([^}]*)\}")
"""What `dvc.yaml` fills in: a data set, a network."""

RESULTS = (".npz", ".onnx", ".parquet", ".safetensors")
"""Files of a stage's dependencies that hold weights or predictions."""


def hash_file(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_code(paths: Iterable[Path]) -> str:
    """Return the sha256 (hex) over the syntax trees of Python files and of all such files in folders.

    Comments, docstrings and the layout of a line do not count; a file's name in its folder does. Every
    version of Python that the project supports gives the same hash.
    """
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = file.relative_to(path.parent).as_posix()
            digest.update(f"{name}\n{_dump_source(file.read_text())}\n".encode())
    return digest.hexdigest()


def hash_notebook(path: Path) -> str:
    """Return the sha256 (hex) over the sources of a notebook's cells; outputs and metadata do not count."""
    cells = [[cell["cell_type"], "".join(cell["source"])] for cell in json.loads(path.read_bytes())["cells"]]
    return hash_values(cells)


def hash_values(values: Any) -> str:
    """Return the sha256 (hex) of values as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def list_stages(dataset: str, root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Return the stages of `dvc.yaml` for a data set, by target (`train@demo`), variables filled in."""
    params, stages = _parse_yaml((root / "params.yaml").read_text()), {}
    pipeline = params["pipeline"]
    known = {"key": dataset, "item": pipeline["datasets"].get(dataset, f"data/raw/{dataset}")}
    known |= {f"pipeline.{name}": str(value) for name, value in pipeline.items()}
    for name, stage in _parse_yaml((root / "dvc.yaml").read_text())["stages"].items():
        if "foreach" not in stage:  # it is about none of them
            stages[name] = stage
        # A stage that spells its data sets out is for these alone.
        elif isinstance(stage["foreach"], str) or dataset in stage["foreach"]:
            stages[f"{name}@{dataset}"] = _fill(stage["do"], known)
    return stages


def find_stage(name: str, dataset: str, root: Path = ROOT) -> dict[str, Any]:
    """Return the stage of `list_stages` that writes `provenance/<name>.json`: its `deps`, `params`, `outs`.

    Raises FerError when there is none.
    """
    wanted = Path(f"reports/{dataset}/provenance/{name}.json")
    for stage in list_stages(dataset, root).values():
        if any(wanted.is_relative_to(out) for out in list_outs(stage)):
            return stage
    raise FerError(f"{root / 'dvc.yaml'}: no stage writes provenance/{name}.json; add it to its outs")


def list_outs(stage: Mapping[str, Any]) -> list[str]:
    """Return the paths that a stage writes."""
    outs = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    # An out with settings is a mapping, its path the only key.
    return [out if isinstance(out, str) else next(iter(out)) for out in outs]


def hash_stage_code(stage: Mapping[str, Any], root: Path = ROOT) -> dict[str, str]:
    """Return the hash of each package, module and notebook that a stage's numbers depend on.

    What draws figures and pages decides no number and is left out.
    """
    hashes = {}
    for path in sorted(stage["deps"]):
        if path.startswith("notebooks/"):
            hashes[path] = hash_notebook(root / path)
        elif path.split("/")[0] in CODE_FOLDERS and path != PAGES:
            hashes[path] = hash_code([root / path])
    return hashes


def hash_stage_params(name: str, stage: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Return the hash of the parameters that the numbers `name` of a stage depend on.

    Those of `recipes/b0` depend on no other recipe, those of `ablations/loss` on no other study.

    params: all of the data set, overrides applied, as plain values.
    """
    # `datasets.<name>.<section>` is in them already.
    keys = [key for key in stage.get("params", []) if not key.startswith("datasets.")]
    values = {key: _look_up(params, key) for key in keys}
    kind, _, entry = name.partition("/")
    if kind == "recipes":
        values[kind] = {entry: values[kind].get(entry)}
    elif kind == "ablations":
        section = dict(values[kind])
        # Its own kind of study alone, with that one's reference; the rest is shared.
        paper = {key: section.pop(f"paper_{key}") for key in ("reference", "studies")}
        section |= paper if entry in paper["studies"] else {}
        values[kind] = section | {"studies": section["studies"].get(entry)}
    return hash_values(values)


def hash_inputs(paths: Iterable[str | Path], base: Path) -> dict[str, str]:
    """Return the sha256 of each file of weights or predictions among `paths`, by its path in `base`.

    paths: files and folders; those outside of `models/` and `reports/` in `base` are passed over.
    """
    hashes = {}
    for path in sorted(base / path for path in paths):
        if path.is_relative_to(base / "models") or path.is_relative_to(base / "reports"):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.suffix in RESULTS and file.is_file():
                    hashes[file.relative_to(base).as_posix()] = hash_file(file)
    return hashes


def get_commit() -> str:
    """Return the commit that is checked out, with `-dirty` appended when its code has changed since.

    Returns `unknown` outside a Git checkout.
    """
    commit = run_git("rev-parse", "HEAD")
    if not commit:
        return "unknown"
    changed = run_git("status", "--porcelain", "--", *CODE_FOLDERS, "notebooks", "params.yaml", "dvc.yaml")
    return f"{commit}-dirty" if changed else commit


def find_commit() -> tuple[str, bool]:
    """Return the commit that is checked out, and whether its code or parameters have been edited since.

    Raises FerError where there is none, as in a downloaded ZIP.
    """
    commit, _, dirty = get_commit().partition("-")
    if commit == "unknown":
        found = "none; " if shutil.which("git") else "no command `git`; install Git, and "
        raise FerError(
            f"{ROOT}: expected a checkout that Git can read, found {found}clone the repository instead of "
            "downloading a ZIP: results belong to a commit and are compared with it"
        )
    return commit, bool(dirty)


def run_git(*arguments: str, cwd: Path = ROOT) -> str:
    """Return what a Git command prints, stripped; nothing when it fails or `cwd` is no checkout's root."""
    # A checkout around the folder, such as one of a whole home directory, knows nothing of its commits.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(cwd.parent)}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


@lru_cache(maxsize=256)  # a run writes many provenance files, all of the same code
def _dump_source(source: str) -> str:
    return _dump(ast.parse(source))


def _dump(node: Any) -> str:
    """Return a syntax tree as text, without strings that stand alone and without empty fields.

    `ast.dump` would do, but for the fields and the empty strings in f-strings that Python 3.12 added.
    """
    if isinstance(node, list):
        return f"[{', '.join(_dump(item) for item in node if not _is_string(item))}]"
    if isinstance(node, ast.JoinedStr):
        node.values = [part for part in node.values if getattr(part, "value", None) != ""]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [f"{name}={_dump(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({', '.join(fields)})"


def _is_string(node: Any) -> bool:
    """Return whether a statement is a docstring, or another string that stands alone."""
    return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)


def _look_up(content: Mapping[str, Any], key: str) -> Any:
    return reduce(getitem, key.split("."), content)


@lru_cache(maxsize=4)
def _parse_yaml(text: str) -> Any:
    return yaml.safe_load(text)


def _fill(content: Any, values: Mapping[str, str]) -> Any:
    """Return `content`, lists and mappings, with the variables of `dvc.yaml` filled in."""
    if isinstance(content, dict):
        return {_fill(key, values): _fill(value, values) for key, value in content.items()}
    if isinstance(content, list):
        return [_fill(part, values) for part in content]
    return VARIABLE.sub(lambda match: values[match[1]], content) if isinstance(content, str) else content
