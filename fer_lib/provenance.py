"""Find out what a number depends on: files, code, parameters, the commit that computed it."""

import ast
import hashlib
import json
import re
import subprocess
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from fer_lib.errors import FerError
from fer_lib.paths import ROOT

CODE_FOLDERS = ("demo_faces", "fer_lib")
"""Where code stands among a stage's dependencies in `dvc.yaml`, beside the notebooks."""

VARIABLE = re.compile(r"\$\{[^}]*\}")
"""What `dvc.yaml` fills in: a data set, a network."""

RESULTS = (".npz", ".onnx", ".parquet", ".safetensors")
"""Files of a stage's dependencies that hold weights or predictions."""


def hash_file(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_code(paths: Iterable[Path]) -> str:
    """Return the sha256 (hex) over the syntax trees of Python files and of all such files in folders.

    Comments, docstrings and the layout of a line do not count; a file's name does.
    """
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.name.encode() + _dump_tree(file.read_text()).encode())
    return digest.hexdigest()


def hash_notebook(path: Path) -> str:
    """Return the sha256 (hex) over the sources of a notebook's cells; outputs and metadata do not count."""
    cells = [[cell["cell_type"], "".join(cell["source"])] for cell in json.loads(path.read_bytes())["cells"]]
    return hash_values(cells)


def hash_values(values: Any) -> str:
    """Return the sha256 (hex) of values as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def find_stage(name: str, root: Path = ROOT) -> dict[str, Any]:
    """Return the stage of `dvc.yaml` that writes `provenance/<name>.json`: its `deps`, `params` and `outs`.

    Raises FerError when no stage does.
    """
    wanted, found = f"reports/dataset/provenance/{name}.json", []
    for entry in yaml.safe_load((root / "dvc.yaml").read_text())["stages"].values():
        stage = entry.get("do", entry)
        for out in stage.get("outs", []):
            pattern = VARIABLE.sub("*", out if isinstance(out, str) else next(iter(out)))
            if fnmatch(wanted, pattern):
                found.append((pattern.count("*"), stage))
    if not found:
        raise FerError(f"{root / 'dvc.yaml'}: no stage writes provenance/{name}.json; add it to its outs")
    return min(found, key=lambda match: match[0])[1]  # a name spelled out before one that stands for any


def hash_stage_code(name: str, root: Path = ROOT) -> dict[str, str]:
    """Return the hash of each package, module and notebook that the stage of metrics `name` depends on."""
    hashes = {}
    for path in sorted(dep for dep in find_stage(name, root)["deps"] if isinstance(dep, str)):
        if path.startswith("notebooks/"):
            hashes[path] = hash_notebook(root / path)
        elif path.split("/")[0] in CODE_FOLDERS:
            hashes[path] = hash_code([root / path])
    return hashes


def hash_stage_params(name: str, params: dict[str, Any], root: Path = ROOT) -> str:
    """Return the hash of the parameters that the stage of metrics `name` reads.

    params: all of a data set, overrides applied, as plain values.
    """
    keys = [VARIABLE.sub(name.rsplit("/", 1)[-1], key) for key in find_stage(name, root).get("params", [])]
    return hash_values({key: _look_up(params, key) for key in keys if not key.startswith("datasets.")})


def hash_stage_inputs(name: str, dataset: str, base: Path, root: Path = ROOT) -> dict[str, str]:
    """Return the sha256 of each file of weights or predictions that the stage reads, by its path in `base`.

    base: the folder that holds `models/` and `reports/`.
    """
    hashes = {}
    for dep in find_stage(name, root)["deps"]:
        path = re.sub(r"\$\{(?:key|item\.dataset)\}", dataset, dep)
        folder = base / VARIABLE.sub(name.rsplit("/", 1)[-1], path)
        if not path.startswith(("models/", "reports/")):
            continue
        for file in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
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


def run_git(*arguments: str, cwd: Path = ROOT) -> str:
    """Return what a Git command prints, stripped; nothing when it fails or there is no Git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _dump_tree(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_bare_string(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_bare_string(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _look_up(content: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        content = content[part]
    return content
