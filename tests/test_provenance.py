import hashlib
import json
import subprocess
import sys

import pytest
import yaml

from fer_lib import provenance
from fer_lib.errors import FerError

GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return an empty Git checkout, and a function that commits a file there and returns the commit."""
    monkeypatch.setattr(provenance.run_git, "__kwdefaults__", {"cwd": tmp_path})
    subprocess.run([*GIT, "init", "--quiet"], cwd=tmp_path, check=True)

    def commit(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        subprocess.run([*GIT, "add", "--all"], cwd=tmp_path, check=True)
        subprocess.run([*GIT, "commit", "--quiet", "--message", "change"], cwd=tmp_path, check=True)
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True)
        return head.stdout.strip()

    return tmp_path, commit


def test_commit_is_that_of_the_checkout_and_changed_code_is_marked(checkout):
    root, commit = checkout
    head = commit("fer_lib/a.py", "x = 1\n")
    (root / "note.md").write_text("prose\n")
    assert provenance.get_commit() == head
    (root / "fer_lib" / "a.py").write_text("x = 2\n")
    assert provenance.get_commit() == f"{head}-dirty"


def test_outside_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance.run_git, "__kwdefaults__", {"cwd": tmp_path})
    assert provenance.get_commit() == "unknown"


def test_commit_of_a_checkout_around_the_project_is_not_its_own(checkout, monkeypatch):
    root, commit = checkout
    commit("project/params.yaml", "")
    monkeypatch.setattr(provenance.run_git, "__kwdefaults__", {"cwd": root / "project"})
    assert provenance.get_commit() == "unknown"


def test_hash_of_a_file_is_that_of_sha256sum(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(bytes(range(256)) * 1000)
    done = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert provenance.hash_file(path) == done.stdout.split()[0]
    assert provenance.hash_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_code_hash_is_the_same_under_every_python(tmp_path):
    """What newer versions write otherwise: type parameters of functions, empty strings in nested formats."""
    path = tmp_path / "a.py"
    path.write_text("class A:\n    def f(self, x):\n        return f'{x:{x}} {(lambda y: y)(x):.1%}'\n")
    assert provenance.hash_code([path])[:12] == "4409358dc5e6"


def test_code_hash_ignores_comments_and_docstrings_only(tmp_path):
    path = tmp_path / "a.py"
    path.write_text('"""One."""\n\ndef f():\n    """Two."""\n    return 1  # three\n')
    digest = provenance.hash_code([path])
    path.write_text("def f():\n    return 1\n")
    assert provenance.hash_code([path]) == digest
    path.write_text("def f():\n    return 2\n")
    assert provenance.hash_code([path]) != digest


def test_code_hash_of_a_package_sees_every_module_and_its_place(tmp_path):
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    (package / "a.py").write_text("x = 1\n")
    (package / "inner" / "b.py").write_text("y = 1\n")
    first = provenance.hash_code([package])
    (package / "style.css").write_text("colours are no code")
    assert provenance.hash_code([package]) == first
    (package / "inner" / "b.py").rename(package / "b.py")
    assert provenance.hash_code([package]) != first


def test_notebook_hash_sees_sources_alone(tmp_path):
    path = tmp_path / "n.ipynb"
    cell = {"cell_type": "code", "source": ["a = 1\n", "a"], "outputs": [], "metadata": {}}
    path.write_text(json.dumps({"cells": [cell], "metadata": {}}))
    first = provenance.hash_notebook(path)
    seen = {**cell, "source": "a = 1\na", "outputs": [1], "metadata": {"run": 2}}
    path.write_text(json.dumps({"cells": [seen], "metadata": {"kernel": "x"}}))
    assert provenance.hash_notebook(path) == first
    path.write_text(json.dumps({"cells": [{**cell, "source": "a = 2"}]}))
    assert provenance.hash_notebook(path) != first


@pytest.fixture
def project(tmp_path):
    """Return a project with a stage of each form that `dvc.yaml` has, and the code that they list."""
    kept = {"cache": False, "persist": True}
    stages = {
        "prepare": {
            "foreach": "${pipeline.datasets}",
            "do": {
                "cmd": "prepare ${key}",
                "deps": ["${item}", "fer_lib/data"],
                "outs": [{"data/packed/${key}": {"cache": False}}],
            },
        },
        "train": {
            "foreach": "${pipeline.datasets}",
            "do": {
                "cmd": "train ${key}",
                "deps": ["fer_lib/data/packed.py", "data/packed/${key}"],
                "params": ["training.lr", "recipes", "datasets.${key}.training"],
                "outs": ["models/${key}", {"reports/${key}/provenance/recipes": kept}],
            },
        },
        "privacy": {
            "foreach": {"demo": "demo_faces"},
            "do": {
                "cmd": "privacy ${key}",
                "deps": ["models/${key}/b0", "notebooks/n.ipynb"],
                "outs": [{"reports/${key}/provenance/privacy.json": kept}],
            },
        },
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"pipeline": {"datasets": {"demo": "demo_faces"}}}))
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (tmp_path / "fer_lib" / "data").mkdir(parents=True)
    (tmp_path / "fer_lib" / "data" / "packed.py").write_text("x = 1\n")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "n.ipynb").write_text('{"cells": []}')
    return tmp_path


def test_stages_are_those_of_dvc_with_variables_filled_in(project):
    stages = provenance.list_stages("demo", project)
    assert list(stages) == ["prepare@demo", "train@demo", "privacy@demo"]
    assert stages["prepare@demo"]["deps"] == ["demo_faces", "fer_lib/data"]
    assert stages["train@demo"]["cmd"] == "train demo"
    assert provenance.list_outs(stages["train@demo"]) == ["models/demo", "reports/demo/provenance/recipes"]
    other = provenance.list_stages("mine", project)
    assert list(other) == ["prepare@mine", "train@mine"]  # the third is demo's alone
    assert other["prepare@mine"]["deps"][0] == "data/raw/mine"


def test_stages_are_those_that_dvc_itself_knows():
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    listed = subprocess.run(command, capture_output=True, text=True, cwd=provenance.ROOT, check=True).stdout
    of_demo = [name for name in listed.split() if name.partition("@")[2] in ("", "demo")]
    assert sorted(provenance.list_stages("demo")) == sorted(of_demo)


def test_stage_is_found_by_the_file_it_writes(project):
    assert provenance.find_stage("recipes/b0", "demo", project)["cmd"] == "train demo"
    assert provenance.find_stage("recipes/my_own", "mine", project)["cmd"] == "train mine"
    assert provenance.find_stage("privacy", "demo", project)["cmd"] == "privacy demo"
    with pytest.raises(FerError, match=r"no stage writes provenance/nope\.json; add it"):
        provenance.find_stage("nope", "demo", project)


def test_hashes_of_a_stage_see_what_it_lists_and_nothing_else(project):
    params = {"training": {"lr": 1, "epochs": 2}, "recipes": {"b0": {}, "lite0": {}}}
    stage = provenance.find_stage("recipes/b0", "demo", project)
    assert provenance.hash_stage_code(stage, project).keys() == {"fer_lib/data/packed.py"}
    first = provenance.hash_stage_params("recipes/b0", stage, params)
    params["training"]["epochs"], params["recipes"]["lite0"] = 3, {"training": {"lr": 5}}
    assert provenance.hash_stage_params("recipes/b0", stage, params) == first
    assert provenance.hash_stage_params("recipes/lite0", stage, params) != first
    params["recipes"]["b0"] = {"training": {"lr": 5}}
    assert provenance.hash_stage_params("recipes/b0", stage, params) != first


def test_hash_of_a_study_sees_no_other_study():
    stage = {"params": ["ablations"]}
    section = {
        "seeds": [0],
        "reference": {"training": {"lr": 1}},
        "studies": {"loss": {"a": 1}, "head": {"b": 1}},
        "paper_reference": {"training": {"lr": 2}},
        "paper_studies": {"paper": {"c": 1}, "ensemble": {"d": 1}},
    }
    names = ("ablations/loss", "ablations/paper")

    def hash_after(**changes):
        changed = {"ablations": {**section, **changes}}
        return [provenance.hash_stage_params(name, stage, changed) for name in names]

    loss, paper = hash_after()
    assert hash_after(studies={**section["studies"], "head": {}}) == [loss, paper]
    assert hash_after(paper_studies={**section["paper_studies"], "ensemble": {}}) == [loss, paper]
    for changes, same in (
        ({"studies": {"loss": {"a": 2}}}, [False, True]),
        ({"reference": {}}, [False, True]),
        ({"paper_studies": {"paper": {"c": 2}}}, [True, False]),
        ({"paper_reference": {}}, [True, False]),
        ({"seeds": [1]}, [False, False]),
    ):
        assert [a == b for a, b in zip(hash_after(**changes), (loss, paper), strict=True)] == same


def test_inputs_are_weights_and_predictions_by_their_path(project):
    folder = project / "models" / "demo" / "b0"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    expected = {"models/demo/b0/model.safetensors": hashlib.sha256(b"weights").hexdigest()}
    for listed in (["models/demo/b0", "fer_lib"], ["models/demo"], [folder]):
        assert provenance.hash_inputs(listed, project) == expected
    assert provenance.hash_inputs(["models/demo/b0"], project / "elsewhere") == {}
