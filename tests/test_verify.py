"""`fer verify` on a small reports folder: what holds is a line `ok`, and each thing that does not is told."""

import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPO, forge_numbers
from scipy.special import softmax

from fer_lib import metrics_file
from fer_lib.cli.recompute import FROM_FACES, FROM_REPORTS
from fer_lib.cli.verify import verify_reports
from fer_lib.deployment.card import build_card
from fer_lib.errors import FerError
from fer_lib.evaluation.browser_record import RECORD, hash_app
from fer_lib.evaluation.metrics import (
    compute_metrics,
    fit_temperature,
    group_labels,
    group_probabilities,
)
from fer_lib.inference.registry import DEFAULT_MODEL
from fer_lib.labels import GROUPS
from fer_lib.metrics_file import Metrics, read_metrics, write_metrics
from fer_lib.models.checkpoints import read_config
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.provenance import find_stage, hash_file, hash_stage_code, run_git

EMOTIONS = ("angry", "happy", "sad")
GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]


def write_parquet(path, frame):
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.attrs = {"data_hash": "da7a"}
    frame.to_parquet(path, index=False)


def describe_stage(name):
    """Return a stage of `dvc.yaml` that writes the metrics `name`."""
    kept, section = {"cache": False, "persist": True}, name.partition("/")[0]
    return {
        "foreach": "${pipeline.datasets}",
        "do": {
            "cmd": "python -m fer_lib ...",
            "deps": ["fer_lib/data", "reports/${key}/predictions"],
            "params": [section, f"datasets.${{key}}.{section}"],
            "outs": [{f"reports/${{key}}/provenance/{name}.json": kept}],
        },
    }


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a project whose every number was made by its code; a network with 3 in 4 faces correct."""
    (tmp_path / "params.yaml").write_bytes((REPO / "params.yaml").read_bytes())
    stages = {
        str(i): describe_stage(name) for i, name in enumerate(("evaluation", "compression", "ablations/loss"))
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / "fer_lib/data").mkdir(parents=True)
    (tmp_path / "fer_lib/data/packed.py").write_text("x = 1\n")
    for command in (["init"], ["add", "--all"], ["commit", "--message", "code"]):
        subprocess.run([*GIT, *command], cwd=tmp_path, check=True, capture_output=True)
    for name, function in {"hash_stage_code": hash_stage_code, "find_stage": find_stage}.items():
        monkeypatch.setattr(metrics_file, name, lambda *given, of=function: of(*given, root=tmp_path))
    monkeypatch.setattr(metrics_file, "get_commit", lambda: run_git("rev-parse", "HEAD", cwd=tmp_path))

    dirs = get_output_dirs("demo", tmp_path)
    labels = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    predicted = np.array([0, 1, 1, 1, 2, 2, 2, 0])
    logits = np.eye(3, dtype=np.float32)[predicted]
    probabilities = softmax(logits, axis=1)
    faces = pd.DataFrame({"row": np.arange(8), "split": "test", "label": labels})
    columns = {f"logit_{name}": logits[:, i] for i, name in enumerate(EMOTIONS)}
    columns |= {f"views_{name}": probabilities[:, i] for i, name in enumerate(EMOTIONS)}
    validation = faces.assign(split="val", row=faces["row"] + 8)
    both = pd.concat([part.assign(**columns) for part in (validation, faces)])
    write_parquet(dirs.reports / "predictions" / "baseline.parquet", both)
    variants = {f"float32/{name}": logits[:, i] for i, name in enumerate(EMOTIONS)}
    write_parquet(
        dirs.reports / "compression" / "tiny.parquet", faces.drop(columns="label").assign(**variants)
    )
    arms = {"focal_2.0.emotion": predicted, "focal_2.1.emotion": labels, "focal_2.0.group": 0}
    write_parquet(dirs.reports / "ablations" / "loss.parquet", faces.drop(columns="split").assign(**arms))

    recall = (1 / 2 + 1 + 3 / 4) / 3
    scored = [
        ("compression", "tiny.float32", "test", 3 / 4, recall),
        ("ablations/loss", "focal_2", "seed_0.test", 3 / 4, recall),
        ("ablations/loss", "focal_2", "seed_1.test", 1, 1),
    ]
    written = {stage: Metrics(stage) for stage in ("evaluation", *(stage for stage, *_ in scored))}
    evaluation, groups = written["evaluation"], group_labels(labels, EMOTIONS)
    for model in ("", "baseline", "tta", "ensemble", "ensemble_tta"):
        for split in ("val", "test") if model in ("", "baseline") else ("test",):
            evaluation.add_scores(compute_metrics(labels, probabilities, EMOTIONS), model=model, split=split)
        # A network's groups add up calibrated probabilities; validation and test are the same here.
        calibrated = softmax(logits / fit_temperature(logits, labels), axis=1)
        added = calibrated if model in ("", "baseline") else probabilities
        of_groups = compute_metrics(groups, group_probabilities(added, EMOTIONS), GROUPS)
        evaluation.add_scores(of_groups, model=model, split="test.group")
    evaluation.add("weight", 1.0, model="ensemble.baseline")
    evaluation.describe("selected", "baseline")
    written["compression"].describe("baseline", "tiny")
    for stage, model, split, accuracy, mean in scored:
        written[stage].add_scores({"accuracy": accuracy, "macro.recall": mean}, model=model, split=split)
    for stage, metrics in written.items():
        headline = ["test.accuracy"] if stage == "evaluation" else []
        meta = {"dataset": "demo", "data_hash": "da7a"}
        write_metrics(dirs, metrics, meta, load_params("demo"), 0, 1.0, headline)
    return tmp_path


def read_line(capsys, root, name):
    status = verify_reports([], root)
    lines = [line for line in capsys.readouterr().out.splitlines() if name in line.split()[1]]
    assert len(lines) == 1
    return status, lines[0]


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_numbers_as_they_were_written_hold(root, capsys):
    assert verify_reports([], root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * 6
    assert lines[-1].startswith("6 files: 6 ok, 0 failed; 0 without a hash of code and parameters")
    assert "ok reports/demo/predictions/baseline.parquet (2 numbers recomputed)" in lines
    assert "ok reports/demo/provenance/ablations/loss.json" in lines


def write_record(root, tests, **changes):
    """Write a record of the tests in a browser, of which there are two."""
    for path, text in {
        "tests/test_browser.py": "def test_photo(): ...\n\n\ndef test_fits(scheme): ...\n",
        "app/main.py": "x = 1\n",
    }.items():
        (root / path).parent.mkdir()
        (root / path).write_text(text)
    (root / RECORD).parent.mkdir()
    record = {"tests": tests, "code": hash_app(root), "commit": "c0ffee"}
    (root / RECORD).write_text(json.dumps(record | changes))


def test_record_of_tests_in_a_browser_holds_while_they_are_there(root, capsys):
    write_record(root, {"test_photo": "passed", "test_fits[dark]": "failed"})
    assert read_line(capsys, root, "browser.json") == (0, f"ok {RECORD}")
    edit(root / RECORD, tests={"test_photo": "passed", "test_lost[dark]": "passed"})
    status, line = read_line(capsys, root, "browser.json")
    assert status == 1
    assert line == f"FAILED {RECORD}: test_lost: expected in tests/test_browser.py, found none"


def test_card_of_a_release_says_what_its_config_says(root, capsys):
    folder = root / "models" / "release" / "family"
    folder.mkdir(parents=True)
    shutil.copy(REPO / "models" / "release" / DEFAULT_MODEL / "config.json", folder)
    card = folder / "README.md"
    card.write_text(build_card("family", read_config(folder)))
    assert read_line(capsys, root, "README.md") == (0, "ok models/release/family/README.md")
    card.write_text(card.read_text().replace("8.6", "6.8", 1))
    status, line = read_line(capsys, root, "README.md")
    assert status == 1
    assert line.endswith(": not what config.json says")


def test_record_of_other_code_or_without_a_test_is_noted(root, capsys):
    write_record(root, {"test_photo": "passed"}, code="other")
    assert read_line(capsys, root, "browser.json") == (0, f"ok {RECORD} (code changed since c0ffee)")
    (root / RECORD).write_text('{"tests": {}}')
    assert read_line(capsys, root, "browser.json") == (0, f"ok {RECORD} (no test has been recorded)")


def test_record_and_numbers_from_uncommitted_code_are_noted(root, capsys):
    write_record(root, {"test_photo": "passed"}, commit="c0ffee-dirty", code="other")
    note = "computed with uncommitted changes"
    line = f"ok {RECORD} ({note}; code changed since c0ffee)"
    assert read_line(capsys, root, "browser.json") == (0, line)
    provenance = root / "reports/demo/provenance/evaluation.json"
    commit = run_git("rev-parse", "HEAD", cwd=root)
    edit(provenance, commit=f"{commit}-dirty")
    status, line = read_line(capsys, root, "provenance/evaluation.json")
    assert (status, note in line) == (0, True)


def test_edited_table_is_told(root, capsys):
    path = root / "reports/demo/tables/evaluation.csv"
    path.write_text(path.read_text().replace("0.75", "0.85"))
    status, line = read_line(capsys, root, "provenance/evaluation.json")
    assert status == 1
    assert line.startswith("FAILED reports/demo/provenance/evaluation.json: table: expected ")
    assert hash_file(path) in line
    assert " test.accuracy: expected 0.75, found 0.85" in line  # the headline number beside it
    _, line = read_line(capsys, root, "predictions/baseline")
    assert "baseline.test.accuracy: expected 0.75, found 0.85" in line


@pytest.mark.parametrize("name", ["predictions/baseline", "compression/tiny", "ablations/loss"])
def test_predictions_that_give_another_score_are_told(root, capsys, name):
    path = root / f"reports/demo/{name}.parquet"
    frame = pd.read_parquet(path)
    column = next(column for column in frame if column.startswith(("logit_", "float32/", "focal_2.1")))
    write_parquet(path, frame.assign(**{column: 2}))
    status, line = read_line(capsys, root, f"{name}.parquet")
    assert status == 1
    assert "accuracy: expected" in line


def test_changed_parameter_is_a_note_and_one_that_no_commit_has_a_failure(root, capsys):
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["evaluation"]["n_resamples"] = 50
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    status, line = read_line(capsys, root, "provenance/evaluation.json")
    commit = run_git("rev-parse", "HEAD", cwd=root)[:9]
    assert (status, f"parameters changed since {commit}" in line) == (0, True)
    edit(root / "reports/demo/provenance/evaluation.json", params="0" * 64)
    status, line = read_line(capsys, root, "provenance/evaluation.json")
    assert (status, f"parameters at {commit}: expected {'0' * 64}, found" in line) == (1, True)


def test_other_data_are_told(root, capsys):
    (root / "data/packed/demo").mkdir(parents=True)
    (root / "data/packed/demo/meta.json").write_text('{"data_hash": "other"}')
    status, line = read_line(capsys, root, "ablations/loss.json")
    assert (status, "data: expected da7a, found other" in line) == (1, True)


def test_changed_input_is_told_and_one_that_is_not_here_is_a_note(root, capsys):
    path = root / "reports/demo/provenance/evaluation.json"
    read = json.loads(path.read_text())["inputs"]
    assert read.keys() == {"reports/demo/predictions/baseline.parquet"}
    edit(path, inputs=read | {"models/demo/b0/model.safetensors": "0"})
    status, line = read_line(capsys, root, "provenance/evaluation.json")
    assert (status, "1 of 2 inputs are not here" in line) == (0, True)
    edit(path, inputs=dict.fromkeys(read, "0"))
    status, line = read_line(capsys, root, "provenance/evaluation.json")
    assert status == 1
    assert "reports/demo/predictions/baseline.parquet: expected 0, found" in line


def test_code_that_changed_since_is_a_note_and_an_unknown_commit_a_failure(root, capsys):
    (root / "fer_lib/data/packed.py").write_text("x = 2\n")
    status, line = read_line(capsys, root, "provenance/evaluation.json")
    commit = run_git("rev-parse", "HEAD", cwd=root)
    assert (status, f"code changed since {commit[:9]}: fer_lib/data" in line) == (0, True)
    edit(root / "reports/demo/provenance/evaluation.json", commit="0" * 40)
    status, line = read_line(capsys, root, "provenance/evaluation.json")
    assert status == 1
    assert f"commit: expected {'0' * 40} in Git, found none" in line


def test_results_without_hashes_of_code_are_checked_as_far_as_they_go(root, capsys):
    edit(root / "reports/demo/provenance/evaluation.json", code={}, params=None, inputs={})
    status, line = read_line(capsys, root, "provenance/evaluation.json")
    assert (status, "no hash of code and parameters was kept" in line) == (0, True)


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("provenance/evaluation.json", "[]", "expected what stage 'evaluation' writes"),
        ("provenance/evaluation.json", None, "provenance/evaluation.json: not found"),
        ("tables/evaluation.csv", None, "tables/evaluation.csv: not found"),
    ],
)
def test_damaged_and_missing_files_are_told(root, capsys, file, content, found):
    path = root / "reports/demo" / file
    path.unlink() if content is None else path.write_text(content)
    status, line = read_line(capsys, root, "provenance/evaluation.json")
    assert (status, found in line) == (1, True)


def test_data_set_without_reports_is_one_error(root):
    with pytest.raises(FerError, match=r"reports/nope: expected files in provenance/, .*; known: demo; run"):
        verify_reports(["demo", "nope"], root)


FORGED = {
    "training": ["val.accuracy", "epoch_1.train_loss"],
    "evaluation": [
        "test.accuracy",
        "test.macro.recall",
        "test.ece",
        "test.group.accuracy",
        "baseline.test.accuracy",
        "ensemble_tta.test.accuracy",
    ],
    "ablations": [
        "paper.no_focal_loss.accuracy.gain",
        "paper.reference.accuracy",
        "propagation.flat.inherited",
    ],
    "compression": ["student.int8.baseline.gain", "student.int8.val.accuracy", "int8.test.accuracy"],
    "gradcam": ["chosen.deletion", "chosen.energy.gain_over_random", "gap.background", "mouth.density.happy"],
    "robustness": [
        "blur.3.accuracy",
        "perturbed.accuracy",
        "student.int8.noise.relative_area",
        "augmentation.accuracy.gain",
        "skin_tone.recall_ratio",
        "mitigation.b0.skin_tone.accuracy_change",
        "membership.auroc",
    ],
    "claims": ["n_claims", "measured.reproduced"],
    "scale": ["crops.workers_2.speedup", "server.per_second", "training.processes_2.speedup"],
}
"""Numbers of every page that needs no faces, by stage."""


def link_clone(root, *left_out):
    """Link what a clone has: neither packed faces nor networks of this machine, which may be others."""
    for path in [*REPO.iterdir(), *(REPO / "reports").iterdir(), REPO / "models/release"]:
        if path.name not in {"data", "models", "reports", *left_out}:
            (root / path.relative_to(REPO)).parent.mkdir(exist_ok=True)
            (root / path.relative_to(REPO)).symlink_to(path)


def test_forged_results_are_told_though_all_hashes_fit(tmp_path, capsys):
    """What README, the pages and the ledger show, changed in every file where it stands."""
    link_clone(tmp_path, "demo", "scale")
    for dataset in ("demo", "scale"):
        pages = shutil.ignore_patterns("*.html", "figures")
        shutil.copytree(REPO / "reports" / dataset, tmp_path / "reports" / dataset, ignore=pages)
    dirs = {stage: get_output_dirs("scale" if stage == "scale" else "demo", tmp_path) for stage in FORGED}
    for stage, keys in FORGED.items():
        forge_numbers(dirs[stage], stage, keys)
    for stage, changes in {"evaluation": {"selected": "lite0"}, "claims": {"verdict.S1": "forged"}}.items():
        facts = read_metrics(dirs[stage], stage).facts | changes
        edit(dirs[stage].get_provenance(stage), facts=facts)

    assert verify_reports(["demo", "scale"], tmp_path) == 1
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    for stage, keys in FORGED.items():
        told = lines[f"{dirs[stage].get_provenance(stage).relative_to(tmp_path)}:"].split("; ")
        forged = {problem.split(":")[-2].split()[-1] for problem in told if problem.endswith("found 0.99")}
        assert forged == {*keys}
    assert "selected: expected student, found lite0" in lines["reports/demo/provenance/evaluation.json:"]
    assert "verdict.S1: expected" in lines["reports/demo/provenance/claims.json:"]


def test_every_committed_number_holds_and_ten_of_each_page_are_recomputed(tmp_path, capsys):
    link_clone(tmp_path)
    status = verify_reports(root=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert status == 0, [line for line in lines if line.startswith("FAILED")]
    pages = {path.stem.partition("_")[2] for path in (REPO / "notebooks").glob("*.ipynb")}
    assert pages == FROM_FACES.keys() | FROM_REPORTS.keys()
    shown = {line.split()[1]: line for line in lines}
    for dataset in ("demo", "fer2013", "ferplus"):
        for stage in pages - {"scale"}:
            line = shown[f"reports/{dataset}/provenance/{stage}.json"]
            assert count_numbers(line) >= 10 or (stage in FROM_FACES and "(needs the packed faces" in line)
    assert count_numbers(shown["reports/scale/provenance/scale.json"]) >= 10


def count_numbers(line):
    found = re.search(r"\((\d+) numbers recomputed", line)
    return int(found[1]) if found else 0
