"""Two versions of a study, compared from the history of a real repository."""

import json
import math
import subprocess

import pytest
from conftest import REPO
from streamlit.testing.v1 import AppTest

from app.revisions import FILES_HERE, Version, compare_numbers, compare_settings, list_revisions, read_version
from fer_lib import paths
from fer_lib.errors import FerError
from fer_lib.inference import registry
from fer_lib.intervals import Interval

EXPERIMENT = f"refs/exps/{'a1' * 20}/brave-face".replace("a1", "a1/", 1)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return an empty project, which the page takes for its own."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(registry, "MODELS_DIR", tmp_path / "models")
    return tmp_path


@pytest.fixture
def history(project):
    """Return a project of two commits, a tag on the first, an experiment, and files that differ from both."""
    run_git(project, "init", "--quiet", "--initial-branch", "main")
    write(project, lr=0.1, accuracy=(0.70, 0.68, 0.72), table=False)
    commit(project, "First training")
    run_git(project, "tag", "v1")
    (project / "README.md").write_text("read")
    commit(project, "No results")
    write(project, lr=0.01, accuracy=(0.80, 0.78, 0.82))
    commit(project, "A lower rate")
    for name in (EXPERIMENT, "refs/exps/celery/stash"):
        run_git(project, "update-ref", name, "HEAD")
    write(project, lr=0.01, accuracy=(0.81, 0.79, 0.83))
    return project


def run_git(folder, *arguments):
    who = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


def commit(folder, subject):
    run_git(folder, "add", ".")
    run_git(folder, "commit", "--quiet", "--message", subject)


def write(project, lr, accuracy, table=True):
    """Write settings and an accuracy, whose interval is in the table or, as once, beside the value."""
    (project / "params.yaml").write_text(
        f"training: {{lr: {lr}, warmup_steps: 5}}\n"
        f"datasets: {{mine: {{training: {{lr: {lr}}}}}, other: {{training: {{lr: {lr}}}}}}}\n"
    )
    value, low, high = accuracy
    numbers = {"test.accuracy": value, "seconds": 1, "claims.n": 3 if table else 2}
    reports = project / "reports" / "mine"
    for folder in ("metrics", "tables"):
        (reports / folder).mkdir(parents=True, exist_ok=True)
    if table:
        row = f"evaluation,,test,accuracy,,{value},{low},{high},9\n"
        header = "stage,model,split,metric,class,value,lo,hi,n\n"
        (reports / "tables" / "evaluation.csv").write_text(header + row)
    else:
        numbers |= {"test.accuracy_lo": low, "test.accuracy_hi": high}
    (reports / "metrics" / "evaluation.json").write_text(json.dumps(numbers))


def test_commits_that_changed_results_are_listed_and_what_has_a_name(history):
    titles = list(list_revisions("mine").values())
    assert [title.split(" · ")[-1] for title in titles[:2]] == ["A lower rate", "First training"]
    named = {title.split(" · ")[0] for title in titles[2:]}
    assert named == {"branch main", "experiment brave-face", "tag v1"}


def test_settings_and_numbers_that_differ_are_shown_with_their_intervals(history):
    old, new = read_version("v1", "mine"), read_version("main", "mine")
    assert compare_settings(old, new).to_numpy().tolist() == [
        ["training: lr", "0.1", "0.01"],
        ["datasets: mine, training, lr", "0.1", "0.01"],
    ]
    assert compare_numbers(old, new).to_numpy().tolist() == [
        [
            *("Evaluation: accuracy", "70.0% [68.0%, 72.0%]", "80.0% [78.0%, 82.0%]"),
            *("+10.0 points", "do not overlap"),
        ],
        ["Evaluation: claims, n", "2", "3", "+1", "–"],
    ]
    here = read_version(FILES_HERE, "mine")
    [number] = compare_numbers(read_version(EXPERIMENT, "mine"), here).to_numpy().tolist()
    assert number[2:] == ["81.0% [79.0%, 83.0%]", "+1.0 points", "overlap"]
    assert compare_settings(new, here).empty


def test_numbers_that_differ_have_the_names_of_the_reports():
    gain, attack = ("robustness", "augmentation.accuracy.gain"), ("robustness", "membership.auroc")
    speed, distance = ("scale", "crops.workers_2.speedup"), ("privacy", "inversion.gain")
    old = {gain: Interval(0.02, 0.01, 0.03), attack: Interval(0.55, 0.5, 0.6)}
    new = {gain: Interval(-0.01, -0.02, 0.001), attack: Interval(0.57, 0.5, 0.6)}
    old |= dict.fromkeys((speed, distance), Interval(0.5, math.nan, math.nan))
    new |= dict.fromkeys((speed, distance), Interval(0.25, math.nan, math.nan))
    assert compare_numbers(Version({}, old), Version({}, new)).to_numpy()[:, :4].tolist() == [
        [
            "Robustness: accuracy gain by augmentation, corrupted faces",
            *("+2.0 points [+1.0, +3.0]", "-1.0 points [-2.0, +0.1]", "-3.0 points"),
        ],
        [
            "Robustness: AUROC of membership inference, 0.5 is guessing",
            *("0.550 [0.500, 0.600]", "0.570 [0.500, 0.600]", "+0.020"),
        ],
        ["Scale: speed-up by two workers, crops", "0.50", "0.25", "-0.25"],
        [
            "Privacy: correlation of an inverted image, training over unseen faces",
            *("+0.500", "+0.250", "-0.250"),
        ],
    ]


def test_version_that_a_partial_clone_lacks_gets_a_sentence(history, tmp_path, monkeypatch):
    run_git(history, "config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    run_git(history, "clone", "--quiet", "--filter=blob:none", history.as_uri(), str(clone))
    run_git(clone, "remote", "set-url", "origin", (tmp_path / "gone").as_uri())
    monkeypatch.setattr(paths, "ROOT", clone)
    assert read_version("main", "mine").numbers
    with pytest.raises(FerError, match="connect to the internet"):
        read_version("v1", "mine")


@pytest.mark.parametrize("name", ["nowhere", "--output=x", "", "HEAD:params.yaml"])
def test_what_is_no_commit_gets_a_sentence(history, name):
    with pytest.raises(FerError, match="expected a commit, branch, tag or experiment"):
        read_version(name, "mine")


def test_damaged_files_are_left_out(history):
    (history / "params.yaml").write_text("a: [1")
    (history / "reports" / "mine" / "metrics" / "evaluation.json").write_text("[1]")
    here = read_version(FILES_HERE, "mine")
    assert (here.settings, here.numbers) == ({}, {})


def open_versions():
    app = AppTest.from_file(REPO / "app" / "main.py", default_timeout=60)
    app.switch_page("views/results.py").run()
    assert not app.exception
    return app


def test_page_compares_the_last_change_with_the_files_here(history):
    app = open_versions()
    assert [table.value.columns[0] for table in (*app.table, *app.dataframe)] == ["Quantity", "Setting"]
    assert app.selectbox(key="after mine").value == FILES_HERE
    app.selectbox(key="before mine").set_value("refs/heads/main").run()
    assert "All settings are the same." in [text.value for text in app.markdown]


def test_copy_without_git_gets_a_sentence(project, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    write(project, lr=0.1, accuracy=(0.7, 0.6, 0.8))
    assert list_revisions("mine") == {}
    assert "no Git history" in open_versions().info[0].value
    monkeypatch.setenv("PATH", "")
    assert list_revisions("mine") == {}, "nor where Git is not installed"
