"""Which code made a number: the commit, and the hash of the modules that decide it."""

import ast
import hashlib
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from fer_lib.paths import ROOT

CODE_PATHS = ("fer_lib", "notebooks", "dvc.yaml", "requirements.lock")


@cache
def get_code_commit() -> str:
    """Return the last commit that changed the code, with `-dirty` appended when the code has changed since.

    Commits of reports or prose do not count, so that a rerun of the same code records the same commit.
    Returns `unknown` outside a Git checkout.
    """
    commit = _run_git("log", "-1", "--format=%H", "--", *CODE_PATHS)
    if not commit:
        return "unknown"
    return f"{commit}-dirty" if _run_git("status", "--porcelain", "--", *CODE_PATHS) else commit


def hash_files(paths: Iterable[Path]) -> str:
    """Return the sha256 (hex) over the contents of `paths`, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def hash_code(paths: Iterable[Path]) -> str:
    """Return the sha256 (hex) over the syntax trees of Python files: comments and docstrings do not count."""
    digest = hashlib.sha256()
    for path in paths:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(getattr(node, "body", None), list):
                node.body = [part for part in node.body if not _is_bare_string(part)]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _is_bare_string(node: ast.AST) -> bool:
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


def _run_git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
