"""Test the app in a real browser, and keep which tests passed: reports/app/browser.json.

    make record

A claim about the app rests on that file. It names no time: a run of the same code with the same outcomes
changes nothing. Where there is no browser every test is skipped, and nothing is written. The exit status is
that of pytest.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from fer_lib.evaluation.browser_record import RECORD, TESTS, hash_app
from fer_lib.files import write_atomically
from fer_lib.paths import ROOT
from fer_lib.provenance import run_git


def read_outcomes(report: Path) -> dict[str, str]:
    """Return test to `passed`, `failed` or `skipped`, from a JUnit report; an error is a failure."""
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        marks, name = {mark.tag for mark in case}, case.attrib["name"]
        outcome = "failed" if marks & {"failure", "error"} else "skipped" if "skipped" in marks else "passed"
        # One that fails and cannot be cleared up stands there twice.
        outcomes[name] = "failed" if "failed" in (outcome, outcomes.get(name)) else outcome
    return outcomes


def build_record(report: Path, root: Path = ROOT) -> dict[str, Any]:
    """Return what is kept of a run: tests with their outcomes, the browser, and the code that was tested."""
    browser = ElementTree.parse(report).find(".//property[@name='browser']")
    changed = run_git("status", "--porcelain", "--", "app", "fer_lib", "tests", cwd=root)
    return {
        "browser": None if browser is None else browser.attrib["value"],
        "code": hash_app(root),
        "commit": run_git("rev-parse", "HEAD", cwd=root) + ("-dirty" if changed else ""),
        "tests": read_outcomes(report),
    }


def main() -> int:
    with TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", str(TESTS), f"--junitxml={report}"]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        record = build_record(report)
    if not set(record["tests"].values()) - {"skipped"}:
        print(f"error: no test ran, and {RECORD} is as it was; `make browser` installs Chromium")
        return 1
    write_atomically(ROOT / RECORD, f"{json.dumps(record, indent=2, sort_keys=True)}\n".encode())
    print(f"record: {RECORD}")
    return status


if __name__ == "__main__":
    sys.exit(main())
