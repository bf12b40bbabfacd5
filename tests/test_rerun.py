"""The verdict on a rerun: what counts as the same, as scatter, and as different."""

import json
import subprocess

import numpy as np
import pytest
from scipy import stats

from fer_lib.cli.rerun import (
    DIFFERENT,
    IDENTICAL,
    SCATTER,
    WITHIN,
    compare_with,
    judge,
    predict_interval,
    read_scatter,
    report,
)
from fer_lib.errors import FerError

GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
SEEDS = np.array([0.70, 0.72, 0.68, 0.71, 0.69, 0.70, 0.71, 0.69])


def test_prediction_interval_by_hand():
    # Mean 2, standard deviation 1, n = 3: 2 +- t * sqrt(4/3).
    reach = stats.t.ppf(0.975, 2) * np.sqrt(4 / 3)
    assert predict_interval(np.array([1.0, 2.0, 3.0]), 0.95) == pytest.approx((2 - reach, 2 + reach))


def test_prediction_interval_holds_a_further_value_as_often_as_it_says():
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(4000, 6))
    inside = [low <= row[5] <= high for row in drawn for low, high in [predict_interval(row[:5], 0.9)]]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(
    ("committed", "found", "changed", "seeds", "verdict", "why"),
    [
        (0.7, 0.7, [], None, IDENTICAL, ""),
        (0.7, 0.7, ["params"], None, IDENTICAL, ""),  # a parameter that decides nothing
        (0.7, 0.71, [], SEEDS, WITHIN, "seeds: "),
        (0.7, 0.9, [], SEEDS, DIFFERENT, "seeds: "),
        (0.7, 0.71, ["data", "params"], SEEDS, DIFFERENT, "other data and params"),
        (0.7, 0.71, [], None, DIFFERENT, "not known"),
        (0.7, None, [], SEEDS, DIFFERENT, "missing"),
        (None, 0.7, [], SEEDS, DIFFERENT, "new"),
    ],
)
def test_verdict(committed, found, changed, seeds, verdict, why):
    told = judge(committed, found, changed, seeds)
    assert told[0] == verdict
    assert why in told[1]


@pytest.fixture
def project(tmp_path):
    """Return a committed project with two headline numbers, one of which scatters."""
    reports = tmp_path / "reports" / "demo"
    write(reports, {"test.accuracy": 0.7, "n_images": 100})
    (reports / SCATTER).write_text(
        f"stage,key,{','.join(f'seed_{i}' for i in range(1, 9))}\n"
        f"evaluation,test.accuracy,{','.join(map(str, SEEDS))}\n"
    )
    subprocess.run([*GIT, "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run([*GIT, "add", "--all"], cwd=tmp_path, check=True)
    subprocess.run([*GIT, "commit", "--quiet", "--message", "first"], cwd=tmp_path, check=True)
    return tmp_path


def write(reports, numbers, vendor="AMD", **changed):
    provenance = {"data": "d", "params": "p", "code": {}, "cpu": {"vendor": vendor}} | changed
    for kind, content in {"metrics": numbers, "provenance": provenance}.items():
        path = reports / kind / "evaluation.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def test_scatter_has_a_row_of_seeds_for_each_number(project):
    found = read_scatter(project / "reports" / "demo" / SCATTER)
    assert {name: row.tolist() for name, row in found.items()} == {
        "evaluation: test.accuracy": SEEDS.tolist()
    }
    assert read_scatter(project / "none.csv") == {}


def test_summary_counts_the_verdicts_and_names_both_machines(project, capsys):
    write(project / "reports" / "demo", {"test.accuracy": 0.71, "n_images": 100}, vendor="Intel")
    assert report("HEAD", "demo", project) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("within scatter evaluation: test.accuracy: committed 0.7, found 0.71 (seeds: ")
    assert told[-1] == ("reproduced: 1 identical, 1 within scatter, 0 different (Intel; committed on AMD)")
    kept = project / "reports" / "demo" / "rerun.json"
    assert not kept.exists()  # the pages here may be committed ones
    report("HEAD", "demo", project, on_page=True)
    assert json.loads(kept.read_text())["summary"] == told[-1]
    assert told[-1] in (project / "reports" / "demo" / "index.html").read_text()


@pytest.mark.parametrize(
    ("numbers", "changed"),
    [
        ({"test.accuracy": 0.9, "n_images": 100}, {}),
        ({"test.accuracy": 0.71, "n_images": 100}, {"params": "other"}),  # another learning rate
        ({"test.accuracy": 0.71, "n_images": 100}, {"data": "other"}),  # a wrong label
        ({"test.accuracy": 0.7}, {}),
        ({"test.accuracy": 0.7, "n_images": 101}, {}),  # which no seed decides
    ],
)
def test_fault_is_different_and_the_status_tells(project, capsys, numbers, changed):
    write(project / "reports" / "demo", numbers, **changed)
    assert report("HEAD", "demo", project) == 1
    assert "1 different" in capsys.readouterr().out.splitlines()[-1]


def test_commit_without_metrics_is_one_line(project):
    with pytest.raises(FerError, match="expected metrics, found none; name another commit"):
        compare_with("HEAD", "nope", project)
