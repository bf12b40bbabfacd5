"""The pipeline as a user runs it, on a copy of the project with tiny parameters."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import yaml
from conftest import (
    MEASURED,
    REPO,
    build_command_environment,
    commit,
    forge_numbers,
    read_files,
    run_dvc,
    run_git,
    write_tiny_params,
)

from fer_lib.cli.verify import verify_reports
from fer_lib.evaluation.browser_record import RECORD
from fer_lib.paths import get_output_dirs
from fer_lib.provenance import list_stages
from fer_lib.reporting.results import SCALE

TRAINED = ("reference", "head")
"""Studies of the copy."""

STAGES = list(list_stages("demo"))
PLOTS = ("accuracy", "confusion", "reliability", "roc")
NOTEBOOKS = [name.removesuffix("@demo") for name in STAGES if name[0].isdigit()]


def build_copy(root):
    """Copy what Git would keep into a repository of its own, and make its parameters tiny."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        # Results of real runs stay behind: the copy makes its own, but for what it does not measure itself.
        is_result = name == "dvc.lock" or name.startswith("reports/")
        is_kept = name == RECORD.as_posix() or name.startswith(MEASURED)
        if (REPO / name).is_file() and (is_kept or not is_result):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, root / name)
    ablations = yaml.safe_load((REPO / "params.yaml").read_text())["ablations"]
    # Arms and networks of one kind do what others of it do, and each takes its seconds.
    left_out = {
        kind: {study: dict.fromkeys(arms) for study, arms in ablations[kind].items() if study not in TRAINED}
        for kind in ("paper_studies", "studies")
    }
    write_tiny_params(
        root / "params.yaml",
        ablations={**left_out, "members": []},
        recipes=dict.fromkeys(("lite0", "resnet18", "pruned_80", "pruned_50")),
        ensemble={"members": ["b0"]},
        compression={"networks": ["student"]},
    )
    run_git(root, "init", "--quiet")
    commit(root)


def start_pipeline(root):
    """Start `python -m fer_lib pipeline demo` in the copy, with the copy's code, in a group of its own."""
    environment = {**build_command_environment(root), "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-m", "fer_lib", "pipeline", "demo"],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run_pipeline(root):
    """Run the pipeline to its end; return its output and the names of the stages that ran."""
    process = start_pipeline(root)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    told = re.findall(r"^\d\d:\d\d:\d\d (\w+)", output, re.MULTILINE)
    targets = {target.partition("@")[0]: target for target in STAGES}
    return output, [targets[stage] for stage in told]


def replace_in(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return the copy after one whole, committed run."""
    root = tmp_path_factory.mktemp("pipeline")
    build_copy(root)
    _, ran = run_pipeline(root)
    assert sorted(ran) == sorted(STAGES)
    commit(root)
    return root


def test_one_run_leaves_every_output_and_nothing_unknown_to_git(project):
    for stage in NOTEBOOKS:
        short = stage.split("_", 1)[1]
        reports = project / "reports" / (SCALE if short == SCALE else "demo")
        assert (reports / f"{stage}.html").is_file()
        assert (reports / "metrics" / f"{short}.json").is_file()
        assert list((reports / "figures" / short).glob("*.webp"))
        assert (reports / "findings" / f"{short}.md").is_file()
    assert (project / "reports" / "demo" / "index.html").is_file()
    assert (project / "reports" / "demo" / "recipes" / "baseline.csv").is_file()
    assert (project / "models" / "demo" / "baseline" / "model.safetensors").is_file()
    assert (project / "reports" / "demo" / "predictions" / "baseline.parquet").is_file()
    assert (project / "models" / "demo" / "student" / "model.safetensors").is_file()
    assert (project / "reports" / "demo" / "ablations" / "head.parquet").is_file()
    tracked = run_git(project, "ls-files")
    assert "dvc.lock" in tracked
    assert "models/demo" not in tracked
    assert not any(path.startswith("data/packed") for path in tracked.splitlines())


def read_verified(root, capsys):
    """Run `fer verify` on a project; return its lines by file."""
    verify_reports(["demo", SCALE], root)
    return {line.split()[1].removesuffix(":"): line for line in capsys.readouterr().out.splitlines()}


def test_every_page_is_recomputed_and_forged_numbers_of_faces_are_told(project, tmp_path, capsys):
    for path in project.iterdir():
        if path.name != "reports":
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(project / "reports", tmp_path / "reports")
    lines = read_verified(tmp_path, capsys)
    for stage in NOTEBOOKS:
        short = stage.split("_", 1)[1]
        line = lines[f"reports/{SCALE if short == SCALE else 'demo'}/provenance/{short}.json"]
        assert re.match(r"ok \S+ \(\d\d+ numbers recomputed", line), line
    forged = {"data_audit": ["train.n.happy", "train.imbalance"], "augmentation": ["flip.change"]}
    for stage, keys in forged.items():
        forge_numbers(get_output_dirs("demo", tmp_path), stage, keys)
    lines = read_verified(tmp_path, capsys)
    for stage, keys in forged.items():
        _, _, told = lines[f"reports/demo/provenance/{stage}.json"].split(" ", 2)
        assert {problem.split(":")[0] for problem in told.split("; ")} == {*keys}


def test_second_run_runs_nothing_whatever_became_of_another_data_set(project):
    before = read_files(project / "reports")
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["datasets"]["fer2013"]["training"] = {"lr": 0.5}
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    output, ran = run_pipeline(project)
    assert ran == []
    assert "demo: everything is up to date" in output
    assert read_files(project / "reports") == before


def test_clone_that_pulls_draws_its_faces_and_runs_nothing_else(project, tmp_path):
    clone, remote = tmp_path / "clone", tmp_path / "remote"
    run_git(project, "clone", "--quiet", str(project), str(clone))
    for root, command in ((project, "push"), (clone, "pull")):
        run_dvc(root, "remote", "add", "--local", "--default", "shared", str(remote))
        run_dvc(root, command)
    pushed = read_files(remote).values()
    assert {*read_files(project / "models" / "demo").values()} <= {*pushed}
    assert not {*read_files(project / "data" / "packed").values()} & {*pushed}
    pulled = [*(clone / "models" / "demo").rglob("*.*"), *(clone / "models" / "compressed").rglob("*.*")]
    assert {path.suffix for path in pulled} == {".json", ".onnx", ".parquet", ".safetensors"}  # no image
    assert run_pipeline(clone)[1] == ["prepare@demo"]
    assert run_pipeline(clone)[1] == []


def test_reader_can_compare_metrics_and_history(project):
    assert "val.accuracy" in run_dvc(project, "metrics", "show", "--json")
    assert len(run_dvc(project, "metrics", "diff", "--all").splitlines()) < 15 * len(NOTEBOOKS)
    assert "metrics/training.json" in run_dvc(project, "metrics", "diff", "--all")
    plots = run_dvc(project, "plots", "diff", "--json")
    for name in ("recipes/baseline", *(f"plots/{name}" for name in PLOTS)):
        assert f"{name}.csv" in plots


def test_new_words_in_notebooks_rerun_their_stages_alone(project):
    models = read_files(project / "models" / "demo")
    edited = ("01_data_audit", "03_training")
    for stage in edited:
        replace_in(project / "notebooks" / f"{stage}.ipynb", "**Question.**", "**Question.** Again:")
    commit(project)
    # The numbers are the same, so who reads them stays; provenance names the notebook, not the commit alone.
    assert sorted(run_pipeline(project)[1]) == [f"{stage}@demo" for stage in edited]
    # The training finds its finished state: the page is written anew, the weights are the same bytes.
    assert read_files(project / "models" / "demo") == models
    assert (project / "reports" / "demo" / "index.html").read_text().count("Again:") == 2
    commit(project)


def test_parameter_reruns_its_stage_and_what_follows(project):
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["evaluation"]["seed"] = 7
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    assert run_pipeline(project)[1] == ["04_evaluation@demo", "09_claims@demo"]


def kill_with_children(process):
    """Kill at once everything that `process` started, as a reboot would."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=10)


def test_killed_training_goes_on_to_the_same_weights(project):
    baseline = project / "models" / "demo" / "baseline"
    state = project / "models" / ".state" / "demo" / "baseline" / "state.pt"
    unbroken = (baseline / "model.safetensors").read_bytes()
    shutil.rmtree(baseline)
    shutil.rmtree(state.parent)

    process = start_pipeline(project)
    while process.poll() is None and not state.is_file():  # written at the end of the first epoch
        time.sleep(0.02)
    assert process.poll() is None, f"the pipeline ended by itself: {process.stdout.read()}"
    kill_with_children(process)
    left = torch.load(state, weights_only=True)
    assert not left["finished"], "killed too late to show anything"
    assert left["epoch"] >= 1
    assert not baseline.exists()

    # The stage alone: the checkpoint names the commit that trained it, and who reads it would run again.
    run_dvc(project, "repro", "--single-item", "train@demo")
    assert (baseline / "model.safetensors").read_bytes() == unbroken
    assert not os.path.exists(state.with_name(f"{state.name}.partial"))
