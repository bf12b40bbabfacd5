"""The verdict on a rerun: what is the same, within scatter, different; and the checkout that it runs in."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import REPO, run_fer_lib
from scipy import stats

from fer_lib.cli import rerun
from fer_lib.cli.rerun import (
    BEGUN,
    DIFFERENT,
    IDENTICAL,
    SCATTER,
    WITHIN,
    check_out,
    hash_study,
    judge,
    predict_interval,
    read_commit,
    read_scatter,
    report,
    run_there,
)
from fer_lib.errors import FerError

GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
SEEDS = np.array([0.70, 0.72, 0.68, 0.71, 0.69, 0.70, 0.71, 0.69])

TIMES, OTHER = "reports/demo/stages.csv", "reports/other/findings.md"

STUB = """
import os, sys
from pathlib import Path
print(Path(__file__).parent.parent, *sys.argv[1:], os.environ.get("FER_ROOT"), os.environ["FER_DATA_ROOT"])
"""
"""Stands in for the command: says whose code it is and what it was told."""


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
        (0.7, 0.7, ["params of training"], None, IDENTICAL, ""),  # a parameter that decides nothing
        (0.7, 0.71, [], SEEDS, WITHIN, "seeds: "),
        (0.7, 0.9, [], SEEDS, DIFFERENT, "seeds: "),
        (0.9, 0.7, [], SEEDS, DIFFERENT, "seeds: "),  # what is committed is no result of the study
        (0.7, 0.71, ["data of training"], SEEDS, DIFFERENT, "other data of training"),
        (0.7, 0.71, ["data of a", "params of b", "params of c"], SEEDS, DIFFERENT, "data of a and 2 more"),
        (0.7, 0.71, [], SEEDS[:4], DIFFERENT, "not known"),
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
def project(tmp_path, monkeypatch):
    """Return a committed project with two headline numbers, one of which scatters."""
    root = tmp_path / "project"
    reports = root / "reports" / "demo"
    write(reports, {"test.accuracy": 0.7, "n_images": 100})
    (reports / "stages.csv").write_text("stage,seconds\ntrain,9")
    (root / OTHER).parent.mkdir()
    (root / OTHER).touch()
    (root / "dvc.lock").write_text("results")
    (root / "fer_lib").mkdir()
    (root / "fer_lib" / "__init__.py").touch()
    (root / "fer_lib" / "__main__.py").write_text(STUB)
    subprocess.run([*GIT, "init", "--quiet"], cwd=root, check=True)
    monkeypatch.setattr(rerun, "ROOT", root)
    commit(root)
    study = hash_study(read_commit("HEAD", "demo"))
    (reports / SCATTER).write_text(
        f"stage,key,study,{','.join(f'seed_{i}' for i in range(1, 9))}\n"
        f"evaluation,test.accuracy,{study},{','.join(map(str, SEEDS))}\n"
    )
    commit(root)
    return root


def commit(root):
    """Commit everything; return the commit."""
    subprocess.run([*GIT, "add", "--all"], cwd=root, check=True)
    subprocess.run([*GIT, "commit", "--quiet", "--message", "change"], cwd=root, check=True)
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write(reports, numbers, vendor="AMD", **changed):
    provenance = {"data": "d", "params": "p", "code": {}, "cpu": {"vendor": vendor}} | changed
    for kind, content in {"metrics": numbers, "provenance": provenance}.items():
        path = reports / kind / "evaluation.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def test_scatter_has_a_row_of_seeds_for_each_number_of_this_study(project):
    path = project / "reports" / "demo" / SCATTER
    found = read_scatter(path, hash_study(read_commit("HEAD", "demo")))
    assert {name: row.tolist() for name, row in found.items()} == {
        "evaluation: test.accuracy": SEEDS.tolist()
    }
    assert read_scatter(path, "another") == {}
    assert read_scatter(project / "none.csv", "another") == {}


def test_summary_counts_the_verdicts_and_names_both_machines(project, capsys):
    write(project / "reports" / "demo", {"test.accuracy": 0.71, "n_images": 100}, vendor="Intel")
    assert report("HEAD", "demo") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("within scatter evaluation: test.accuracy: committed 0.7, found 0.71 (seeds: ")
    assert told[-1] == (
        "demo reproduced: 1 identical, 1 within scatter, 0 different (Intel; committed on AMD)"
    )
    kept = project / "reports" / "demo" / "rerun.json"
    assert not kept.exists()  # the pages here may be committed ones
    report("HEAD", "demo", project)
    assert json.loads(kept.read_text())["summary"] == told[-1]
    assert told[-1] in (project / "reports" / "demo" / "index.html").read_text()


@pytest.mark.parametrize(
    ("numbers", "changed"),
    [
        ({"test.accuracy": 0.9, "n_images": 100}, {}),
        ({"test.accuracy": 0.71, "n_images": 100}, {"params": "other"}),  # another learning rate
        ({"test.accuracy": 0.71, "n_images": 100}, {"data": "other"}),  # a wrong label
        ({"test.accuracy": 0.7}, {}),
        ({"test.accuracy": 0.7, "n_images": 100, "new": 1}, {}),
        ({"test.accuracy": 0.7, "n_images": 101}, {}),  # which no seed decides
    ],
)
def test_fault_is_different_and_the_status_tells(project, capsys, numbers, changed):
    write(project / "reports" / "demo", numbers, **changed)
    assert report("HEAD", "demo") == 1
    assert " 1 different" in capsys.readouterr().out.splitlines()[-1]


def test_other_code_is_named(project, capsys):
    write(project / "reports" / "demo", {"test.accuracy": 0.7, "n_images": 100}, code={"fer_lib/data": "a"})
    commit(project)
    write(project / "reports" / "demo", {"test.accuracy": 0.7, "n_images": 100}, code={"fer_lib/data": "b"})
    assert report("HEAD", "demo") == 0
    assert "made by other code: fer_lib/data" in capsys.readouterr().out


def test_commit_without_metrics_is_one_line(project):
    with pytest.raises(FerError, match="expected metrics, found none; name another commit"):
        report("HEAD", "nope")


def list_files(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory):
    """Return the files of the project without Git, below a checkout of something else."""
    root = tmp_path_factory.mktemp("home") / "downloaded"
    shutil.copytree(REPO / "models" / "release", root / "models" / "release")
    shutil.copytree(REPO / "reports", root / "reports")
    for name in (
        "app",
        "claims.yaml",
        "demo_faces",
        "dvc.yaml",
        "fer_lib",
        "notebooks",
        "params.yaml",
        "tests",
    ):
        (root / name).symlink_to(REPO / name)
    (root.parent / "notes").touch()
    subprocess.run([*GIT, "init", "--quiet"], cwd=root.parent, check=True)
    subprocess.run([*GIT, "add", "notes"], cwd=root.parent, check=True)
    subprocess.run([*GIT, "commit", "--quiet", "--message", "notes"], cwd=root.parent, check=True)
    return root


@pytest.mark.parametrize(
    "command",
    [["rerun", "demo"], ["pipeline", "demo"], ["scatter", "demo", 1], ["verify", "--against", "HEAD"]],
)
def test_downloaded_project_is_told_to_be_cloned(downloaded, command):
    done = run_fer_lib(downloaded, *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"error: {downloaded}: expected a checkout that Git can read, found none; clone"
    )
    assert done.stderr.count("\n") == 1


def test_missing_git_is_told(downloaded, tmp_path):
    done = run_fer_lib(downloaded, "rerun", "demo", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "found no command `git`; install Git" in done.stderr
    assert done.stderr.count("\n") == 1


def test_downloaded_project_can_be_used_and_verified(downloaded):
    assert "photographs" in run_fer_lib(downloaded, "models").stdout
    done = run_fer_lib(downloaded, "verify", "demo")
    assert done.stderr == ""
    assert " 0 failed; " in done.stdout.splitlines()[-1]
    assert "is not in this clone" in done.stdout


def test_checkout_has_the_code_of_the_commit_and_no_result(project):
    first = commit_file(project, "first.py", "1")
    folder = project / "rerun" / "demo"
    check_out(folder, first, "demo")
    assert list_files(folder) == {"fer_lib/__init__.py", "fer_lib/__main__.py", "first.py", TIMES, OTHER}
    (folder / "result").touch()
    check_out(folder, first, "demo")  # a run has begun there
    assert (folder / "result").is_file()
    (project / "first.py").unlink()
    second = commit_file(project, "second.py", "2")
    check_out(folder, second, "demo")
    assert list_files(folder) == {"fer_lib/__init__.py", "fer_lib/__main__.py", "second.py", TIMES, OTHER}


def commit_file(root, name, content):
    (root / name).write_text(content)
    return commit(root)


@pytest.mark.parametrize("left", ["nothing", "no marker", "no Git", "no code"])
def test_checkout_that_was_broken_off_is_made_again(project, left):
    folder, head = project / "rerun" / "demo", commit_file(project, "code.py", "1")
    check_out(folder, head, "demo")
    if left == "nothing":
        shutil.rmtree(folder)
    elif left == "no marker":
        (folder / BEGUN).unlink()
        (folder / "code.py").write_text("half")
    elif left == "no Git":
        shutil.rmtree(folder / ".git")
    else:
        (folder / "code.py").unlink()
    check_out(folder, head, "demo")
    assert (folder / "code.py").read_text() == "1"
    assert (folder / BEGUN).read_text() == head


def test_code_of_the_checkout_runs_on_the_raw_data_of_this_one(project, capfd, monkeypatch):
    folder = project / "rerun" / "demo"
    check_out(folder, commit_file(project, "code.py", "1"), "demo")
    monkeypatch.setenv("FER_ROOT", str(project))
    monkeypatch.setenv("FER_DATA_ROOT", "../faces")
    assert run_there(folder, "pipeline", "demo") == 0
    assert capfd.readouterr().out.split() == [str(folder), "pipeline", "demo", "None", f"{project}/../faces"]


def test_rerun_goes_on_until_it_has_ended_and_then_begins_anew(project, monkeypatch, capsys):
    head, ended = commit_file(project, "code.py", "1"), []

    def pretend(folder, *_):
        ended.append((folder / "half").exists())
        (folder / "half").write_text("done")
        if len(ended) == 1:
            return 9
        write(folder / "reports" / "demo", {"test.accuracy": 0.7, "n_images": 100})
        return 0

    monkeypatch.setattr(rerun, "RERUN_DIR", project / "rerun")
    monkeypatch.setattr(rerun, "find_commit", lambda: (head, True))
    monkeypatch.setattr(rerun, "run_there", pretend)
    assert [rerun.rerun("demo") for _ in range(3)] == [9, 0, 0]
    assert ended == [False, True, False]
    told = capsys.readouterr().out
    assert f"this reruns {head[:9]}" in told
    assert "2 identical, 0 within scatter, 0 different" in told


def test_each_seed_is_a_column_of_its_study(project, monkeypatch):
    head = commit_file(
        project, "params.yaml", json.dumps({"datasets": {"demo": {"training": {}, "ablations": {}}}})
    )
    asked = []

    def pretend(folder, *_):
        asked.append(yaml.safe_load((folder / "params.yaml").read_text()))
        write(folder / "reports" / "demo", {"test.accuracy": 0.5, "n_images": 100})
        return 0

    monkeypatch.setattr(rerun, "RERUN_DIR", project / "rerun")
    monkeypatch.setattr(rerun, "find_commit", lambda: (head, False))
    monkeypatch.setattr(rerun, "run_there", pretend)
    monkeypatch.setattr(
        rerun, "load_params", lambda *_, **__: SimpleNamespace(ablations=SimpleNamespace(seeds=(0, 1)))
    )
    path = project / rerun.measure_scatter("demo", 9)
    assert asked == [{"datasets": {"demo": {"training": {"seed": 9}, "ablations": {"seeds": [18, 19]}}}}]
    study = hash_study(read_commit(head, "demo"))
    assert read_scatter(path, study)["evaluation: test.accuracy"].tolist() == [*SEEDS, 0.5]
    path.write_text(path.read_text().replace(study, "of other parameters"))
    rerun.measure_scatter("demo", 9)
    assert read_scatter(path, study)["evaluation: test.accuracy"].tolist() == [0.5]
