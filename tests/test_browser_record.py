"""The record of the app's tests in a browser: what is kept of a run, and of which code."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import REPO

from benchmarks import browser
from fer_lib.evaluation.browser_record import CODE, RECORD, hash_app, list_tests, read_record

JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" tests="5">
<properties><property name="browser" value="Chromium 141.0"/></properties>
<testcase classname="tests.test_browser" name="test_photo" time="3.2"/>
<testcase classname="tests.test_browser" name="test_live"><failure message="no">trace</failure></testcase>
<testcase classname="tests.test_browser" name="test_live"><error message="after">trace</error></testcase>
<testcase classname="tests.test_browser" name="test_fits[dark]"><skipped message="why"/></testcase>
<testcase classname="tests.test_browser" name="test_video">
<system-out>said</system-out><error message="on teardown">trace</error></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "junit.xml"
    path.write_text(JUNIT)
    return path


def test_outcomes_are_those_of_the_report(report):
    assert browser.read_outcomes(report) == {
        "test_photo": "passed",
        "test_live": "failed",
        "test_fits[dark]": "skipped",
        "test_video": "failed",  # what fails after the test, such as the look at other computers, counts
    }


def test_record_names_browser_code_and_commit(report):
    record = browser.build_record(report, REPO)
    assert record["browser"] == "Chromium 141.0"
    assert record["code"] == hash_app(REPO)
    assert record["tests"] == browser.read_outcomes(report)
    assert record.keys() == {"browser", "code", "commit", "tests"}  # and no time


@pytest.mark.parametrize("has_browser", [True, False])
def test_record_is_written_where_a_test_has_run(tmp_path, monkeypatch, capsys, has_browser):
    skipped = JUNIT.replace("failure", "skipped").replace("error", "skipped")
    skipped = skipped.replace(' time="3.2"/>', "><skipped/></testcase>")

    def run(command, **_):
        path = Path(command[-1].removeprefix("--junitxml="))
        path.write_text(JUNIT if has_browser else skipped)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(browser, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(browser, "ROOT", tmp_path)
    assert browser.main() == 1
    assert (tmp_path / RECORD).is_file() == has_browser
    assert len(read_record(tmp_path)["tests"]) == (4 if has_browser else 0)
    assert ("no test ran" in capsys.readouterr().out) != has_browser


def test_hash_is_of_the_app_s_code_alone(tmp_path):
    for pattern in CODE:
        path = tmp_path / pattern.replace("*", "one")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    first = hash_app(tmp_path)
    (tmp_path / "app" / "web").mkdir()
    (tmp_path / "app" / "web" / "build.py").write_text("y = 1\n")  # of another page, without Streamlit
    assert hash_app(tmp_path) == first
    for pattern in CODE:
        path = tmp_path / pattern.replace("*", "one")
        path.write_text("x = 2\n")
        assert hash_app(tmp_path) != first
        path.write_text("x = 1  # a comment\n")
        assert hash_app(tmp_path) == first


def test_tests_are_listed_by_name():
    listed = list_tests(REPO)
    assert "test_live_offers_snapshots" in listed
    assert all(name.startswith("test_") for name in listed)


def test_recorded_tests_are_still_there():
    recorded = {name.partition("[")[0] for name in read_record(REPO)["tests"]}
    assert recorded <= list_tests(REPO), "run `make record`"
