"""What a push brings to a remote, what a clone gets from it, and how it gets a released model."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import REPO, commit, read_files, run_command, run_dvc, run_git
from shared_study import DATASETS, FACE, MODEL, build_study, list_cached, write_line

from fer_lib.provenance import list_stages

GRAPH = yaml.safe_load((REPO / "dvc.yaml").read_text())
RELEASES = sorted(path.name for path in (REPO / "models" / "release").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    build_study(root)
    return root


@pytest.fixture(scope="module")
def remote(study, tmp_path_factory):
    """Return the folder to which the study was pushed."""
    folder = tmp_path_factory.mktemp("remote")
    run_dvc(study, "remote", "add", "--default", "shared", str(folder))
    commit(study)
    run_dvc(study, "push")
    return folder


@pytest.mark.parametrize("dataset", DATASETS)
def test_of_no_data_set_more_than_models_is_cached(dataset):
    # What is cached can be pushed. Pages and tables are in Git; faces are in neither.
    cached = [path for stage in list_stages(dataset).values() for path in list_cached(stage)]
    assert cached == [f"models/{dataset}", f"models/compressed/{dataset}"]


def test_no_face_is_pushed(study, remote):
    assert len(list(study.glob("data/packed/*/student/file"))) == len(DATASETS)
    pushed = read_files(remote).values()
    assert any(MODEL.encode() in content for content in pushed)
    assert not [content for content in pushed if FACE.encode() in content]


def test_no_face_is_committed(study):
    assert not re.search(r"^data/", run_git(study, "log", "--name-only", "--format="), re.MULTILINE)


@pytest.mark.parametrize("folder", ["data/packed", "data/raw"])
def test_faces_cannot_be_added_to_dvc_by_hand(study, folder):
    write_line(study / folder / "mine" / "file", FACE)
    command = [sys.executable, "-m", "dvc", "add", f"{folder}/mine"]
    done = subprocess.run(command, cwd=study, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "is git-ignored" in done.stderr


def test_clone_that_pulls_packs_its_faces_and_runs_nothing_else(study, remote, tmp_path):
    clone = tmp_path / "clone"
    run_git(study, "clone", "--quiet", str(study), str(clone))
    shutil.copytree(study / "data" / "raw", clone / "data" / "raw")  # each brings those it has
    run_dvc(clone, "pull")
    assert read_files(clone / "models") == read_files(study / "models")
    ran = re.findall(r"^Running stage '(.+)'", run_dvc(clone, "repro"), re.MULTILINE)
    assert sorted(ran) == sorted(f"prepare@{dataset}" for dataset in DATASETS)
    assert run_dvc(clone, "status").startswith("Data and pipelines are up to date")
    assert run_git(clone, "status", "--porcelain") == ""


def test_every_release_is_an_artifact():
    paths = {name: artifact["path"] for name, artifact in GRAPH["artifacts"].items()}
    assert paths == {name: f"models/release/{name}" for name in RELEASES}


def test_version_of_a_model_can_be_registered_and_fetched(tmp_path):
    root = tmp_path / "project"
    write_line(root / "dvc.yaml", yaml.safe_dump({"artifacts": GRAPH["artifacts"]}))
    run_git(tmp_path, "init", "--quiet", str(root))
    run_dvc(root, "init", "--quiet")
    for version in ("v1.0.0", "v1.1.0"):
        for name in RELEASES:
            write_line(root / "models" / "release" / name / "config.json", version)
        commit(root)
        run_command(root, "gto", "register", "photographs", "--version", version)
    for options, expected in (([], "v1.1.0"), (["--rev", "v1.0.0"], "v1.0.0")):
        out = tmp_path / expected
        run_dvc(tmp_path, "artifacts", "get", str(root), "photographs", "--out", str(out), *options)
        assert (out / "config.json").read_text().strip() == expected
