"""Read the record of the app's tests in a real browser, which `make record` writes and a claim rests on."""

import ast
import json
from pathlib import Path
from typing import Any

from fer_lib.errors import FerError
from fer_lib.provenance import hash_code

RECORD, TESTS = Path("reports/app/browser.json"), Path("tests/test_browser.py")
"""The record, and the tests whose outcomes it holds, in the project's folder."""

CODE = ("app/*.py", "app/views/*.py", "fer_lib/data/*.py", "fer_lib/inference/*.py")
"""What the app is made of."""


def read_record(root: Path) -> dict[str, Any]:
    """Return `tests`, name to `passed`, `failed` or `skipped`, and their `browser`, `code` and `commit`.

    Before the first run there are no tests and nothing else. Raises FerError for a damaged file.
    """
    path = root / RECORD
    try:
        record = json.loads(path.read_bytes())
        dict.items(record["tests"])
    except FileNotFoundError:
        return {"tests": {}}
    except (ValueError, KeyError, TypeError) as error:
        raise FerError(f"{path}: expected what `make record` writes, found {error}; run it again") from None
    return dict(record)


def hash_app(root: Path) -> str:
    """Return the hash of the code of `CODE`, as of `provenance.hash_code`."""
    return hash_code(sorted(path for pattern in CODE for path in root.glob(pattern)))


def list_tests(root: Path) -> set[str]:
    """Return the names of the tests that there are, without the parameters of one that has some."""
    names = {getattr(part, "name", "") for part in ast.parse((root / TESTS).read_text()).body}
    return {name for name in names if name.startswith("test_")}
