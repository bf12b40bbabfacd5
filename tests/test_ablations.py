import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from conftest import build_command_environment, run_fer_lib, write_tiny_params

from fer_lib import jobs
from fer_lib.data.packed import load_packed
from fer_lib.errors import DataError, FerError, ModelError, ParamsError
from fer_lib.evaluation import ablations
from fer_lib.evaluation.ablations import (
    ENSEMBLE,
    ArmRun,
    find_arms,
    get_predictions_path,
    read_predictions,
    run_ablations,
    score_runs,
    set_seed,
    train_arm,
    vote_together,
)
from fer_lib.evaluation.metrics import compute_metrics, group_probabilities
from fer_lib.files import hold_lock
from fer_lib.labels import EMOTIONS_7, VOTES
from fer_lib.metrics_file import read_metrics
from fer_lib.param_sections import Changes
from fer_lib.params import apply_recipe, load_params
from fer_lib.params_file import read_params_file
from fer_lib.paths import get_output_dirs
from fer_lib.training import fit as training
from fer_lib.training.voting import vote

ARMS = ["reference", "b0", "resnet18", "lite0", "three_times", "soft_vote"]
SEEDS = [1, 0]  # those of the tiny parameters, in their order
SPLITS = ("val", "test")

STUDIES = (ENSEMBLE, "reference", "loss", "head", "duplicates")
"""Those that are run here, in their order."""


@pytest.fixture(scope="module")
def project(tiny_project, tmp_path_factory):
    """Return the tiny project with fewer studies."""
    root = tmp_path_factory.mktemp("studies")
    for path in tiny_project.iterdir():
        (root / path.name).symlink_to(path)
    (root / "params.yaml").unlink()
    ablations = load_params("demo", path=tiny_project / "params.yaml").ablations
    left_out = {
        kind: {study: dict.fromkeys(arms) for study, arms in studies.items() if study not in STUDIES}
        for kind, studies in (("paper_studies", ablations.paper_studies), ("studies", ablations.studies))
    }
    write_tiny_params(root / "params.yaml", ablations=left_out)
    return root


@pytest.fixture(scope="module")
def finished(project, tmp_path_factory):
    """Return the folders after the command, and its finished process."""
    out_dir = tmp_path_factory.mktemp("ablations")
    done = run_fer_lib(project, "ablate", "--dataset", "demo", "--out-dir", out_dir)
    assert done.returncode == 0, done.stderr
    return get_output_dirs("demo", out_dir), done


@pytest.fixture
def here(enter_project, project, monkeypatch):
    """Run studies on the project in this process: starting others takes most of a test's time."""
    enter_project(ablations, project)
    monkeypatch.setattr(jobs, "_start_pool", lambda *_: ThreadPoolExecutor(1))
    return project


def read_results(dirs):
    """Return the metrics and the table of predictions of the study `ensemble`."""
    return read_metrics(dirs, "ablations/ensemble"), pd.read_parquet(get_predictions_path(dirs, ENSEMBLE))


def drop_circumstances(metrics):
    """Return what does not depend on when the study ran, and in which repository."""
    ends = (".seconds", "trained_at_commit")
    return {key: value for key, value in metrics.items() if not key.endswith(ends)}


def load_tiny(root):
    return load_packed("demo", root / "data" / "packed" / "demo")


def test_command_names_the_studies_and_counts_runs_alone(finished, project):
    _, done = finished
    params = load_params("demo", path=project / "params.yaml")
    assert done.stdout == f"studies: {', '.join(params.ablations.list_studies())}\n"
    arms = {study: find_arms(params, study) for study in STUDIES}
    # `b0` of the ensemble and the reference of `duplicates` are references themselves, trained once.
    n_runs = len(SEEDS) * (sum(map(len, arms.values())) - 2)
    assert f"{n_runs}/{n_runs}" in done.stderr
    assert "epoch" not in done.stderr  # bars of the trainings would write over that of the study


def test_predictions_have_one_column_per_arm_seed_and_level(finished, tiny_project):
    _, table = read_results(finished[0])
    data = load_tiny(tiny_project)
    expected = [f"{arm}.{seed}.{level}" for arm in ARMS for seed in SEEDS for level in ("emotion", "group")]
    assert table.columns.tolist() == ["row", "label", *expected]
    assert table["row"].tolist() == data.get_rows("test").tolist()
    assert table["label"].tolist() == data.labels[data.get_rows("test")].tolist()
    assert set(table.dtypes.drop("row")) == {np.dtype(np.uint8)}
    assert table.filter(like=".emotion").to_numpy().max() < 7
    assert table.filter(like=".group").to_numpy().max() < 3


def test_metrics_have_the_keys_of_each_run_and_the_score_of_its_predictions(finished, tiny_project):
    metrics, table = read_results(finished[0])
    data = load_tiny(tiny_project)
    recalls = [f"recall.{emotion}" for emotion in EMOTIONS_7]  # the tiny set has every emotion everywhere
    kept = ["accuracy", "macro.recall", "nll", "ece", *recalls]
    keys = {f"{split}.{name}" for split in SPLITS for name in kept}
    voters = {f"weight.{arm}" for arm in ("b0", "resnet18", "lite0")}
    trained = {"seconds", "best_epoch", "trained_at_commit"}
    found = {key for key in metrics if ".seed_" in key}
    assert found == {
        f"{arm}.seed_{seed}.{key}"
        for arm in ARMS
        for seed in SEEDS
        for key in keys | (voters if arm == "soft_vote" else trained)
    }
    assert metrics.provenance["seed"] == SEEDS[0]
    assert metrics["seeds"] == ", ".join(map(str, SEEDS))
    seconds = sum(value for key, value in metrics.items() if key.endswith(".seconds"))
    assert metrics.provenance["wall_seconds"] == pytest.approx(seconds, abs=0.05)  # written to a tenth
    labels = data.labels[data.get_rows("test")]
    for arm in ARMS:
        for seed in SEEDS:
            accuracy = np.mean(table[f"{arm}.{seed}.emotion"] == labels)
            assert metrics[f"{arm}.seed_{seed}.test.accuracy"] == pytest.approx(accuracy, abs=1e-5)


def test_weights_of_the_soft_vote_sum_to_1(finished):
    metrics, _ = read_results(finished[0])
    for seed in SEEDS:
        weights = [metrics[f"soft_vote.seed_{seed}.weight.{arm}"] for arm in ("b0", "resnet18", "lite0")]
        assert min(weights) >= 0
        assert sum(weights) == pytest.approx(1, abs=1e-5)  # six digits each


def test_reader_gets_what_was_predicted_seed_by_seed(finished, tiny_project):
    _, table = read_results(finished[0])
    n = len(load_tiny(tiny_project).get_rows("test"))
    read = list(read_predictions(finished[0], ENSEMBLE, load_tiny(tiny_project)))
    assert [arm for arm, _, _ in read] == ARMS
    for arm, emotions, groups in read:
        assert emotions.shape == groups.shape == (len(SEEDS), n)
        assert np.issubdtype(emotions.dtype, np.signedinteger)  # labels are subtracted from it
        for row, seed in enumerate(SEEDS):
            assert emotions[row].tolist() == table[f"{arm}.{seed}.emotion"].tolist()
            assert groups[row].tolist() == table[f"{arm}.{seed}.group"].tolist()


def test_finished_study_is_not_trained_again_and_written_to_the_same_bytes(finished, here, monkeypatch):
    dirs, _ = finished
    paths = [dirs.get_table("ablations/ensemble"), get_predictions_path(dirs, ENSEMBLE)]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    monkeypatch.setattr(training, "train_on_batch", lambda *_: pytest.fail("trained again"))
    run_ablations("demo", dirs.reports.parents[1])
    assert [path.read_bytes() for path in paths] == before


def test_study_from_the_start_in_another_process_gives_the_same_numbers(finished, here, tmp_path):
    dirs = get_output_dirs("demo", tmp_path)
    run_ablations("demo", tmp_path)
    paths = [get_predictions_path(folders, ENSEMBLE) for folders in (dirs, finished[0])]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    (again, _), (first, _) = read_results(dirs), read_results(finished[0])
    assert drop_circumstances(again) == drop_circumstances(first)


def test_table_is_what_the_networks_say_and_how_they_vote(finished, here):
    dirs, _ = finished
    metrics, table = read_results(dirs)
    data = load_tiny(here)
    arms = find_arms(load_params("demo", path=here / "params.yaml"), ENSEMBLE)
    states = {arm: f"{ENSEMBLE}/{arm}-0" for arm in ARMS[:5]}
    states["b0"] = states["reference"]  # the reference under another name
    folder = dirs.training_state / "ablations"
    trained = {
        arm: train_arm("demo", set_seed(arms[arm], 0), folder / state) for arm, state in states.items()
    }
    runs = [replace(run, arm=arm) for arm, run in trained.items()]  # from their finished states
    weights = [metrics[f"soft_vote.seed_0.weight.{arm}"] for arm in ("b0", "resnet18", "lite0")]
    voted = {
        split: vote(np.stack([run.probabilities[split] for run in runs[1:4]]), weights) for split in SPLITS
    }
    for run in [*runs, ArmRun("soft_vote", 0, voted)]:
        for split in SPLITS:
            probabilities, labels = run.probabilities[split], data.labels[data.get_rows(split)]
            expected = compute_metrics(
                labels, probabilities / probabilities.sum(1, keepdims=True), EMOTIONS_7
            )
            for name in ("accuracy", "nll", "ece"):
                found = metrics[f"{run.arm}.seed_0.{split}.{name}"]
                assert found == pytest.approx(
                    expected[name], rel=1e-4
                )  # six digits, times those of the weights
        emotions = run.probabilities["test"]
        assert table[f"{run.arm}.0.emotion"].tolist() == emotions.argmax(axis=1).tolist()
        groups = group_probabilities(emotions, EMOTIONS_7).argmax(axis=1)
        assert table[f"{run.arm}.0.group"].tolist() == groups.tolist()


def test_arm_is_the_reference_with_its_own_change_and_seed(here, tmp_path, monkeypatch):
    asked = {}

    def note(dataset, params, state):
        asked[state.parent.name, state.name] = params
        labels = load_tiny(here).get_rows
        return ArmRun(
            state.name,
            params.training.seed,
            {split: np.full((len(labels(split)), 7), 1 / 7) for split in SPLITS},
        )

    monkeypatch.setattr(ablations, "train_arm", note)
    run_ablations("demo", tmp_path)
    own = load_params("demo", path=here / "params.yaml")
    paper = own.training.model_dump() | own.ablations.paper_reference.training
    plain = own.training.model_dump() | own.ablations.reference.training
    first = SEEDS[0]
    assert asked[ENSEMBLE, f"reference-{first}"].training.model_dump() == paper | {"seed": first}
    resnet = asked[ENSEMBLE, f"resnet18-{first}"].training.model_dump()
    assert resnet == paper | {"architecture": "test_resnet", "seed": first}
    assert (ENSEMBLE, f"b0-{first}") not in asked  # the reference itself: trained once
    reference = asked["reference", f"reference-{first}"]
    assert reference.training.model_dump() == plain | {"seed": first}
    assert reference.augmentation == own.augmentation
    changed = asked["loss", f"cross_entropy_sampler-{first}"]
    assert changed.training.model_dump() == plain | {"sampler": "weighted", "seed": first}
    assert changed.augmentation == reference.augmentation
    assert ("duplicates", f"reference-{first}") not in asked  # the tiny reference has all faces: trained once


def test_two_runs_do_not_train_the_same_arm_at_once(here, tmp_path):
    dirs = get_output_dirs("demo", tmp_path)
    state = dirs.training_state / "ablations" / "head" / f"hierarchical-{SEEDS[0]}"
    with hold_lock(state / "lock"), pytest.raises(FerError, match="another run is at work here"):
        run_ablations("demo", tmp_path)
    # What was finished by then is written.
    assert [get_predictions_path(dirs, study).is_file() for study in (ENSEMBLE, "head")] == [True, False]


def test_one_study_can_be_run_alone(here, tmp_path):
    assert run_ablations("demo", tmp_path, "head") == ["head"]
    dirs = get_output_dirs("demo", tmp_path)
    assert [path.stem for path in get_predictions_path(dirs, "head").parent.iterdir()] == ["head"]
    with pytest.raises(ParamsError, match="no study 'heads'; known: paper, ensemble"):
        run_ablations("demo", tmp_path, "heads")


def test_what_two_studies_share_has_one_place_whichever_is_run(here, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(ablations, "run_side_by_side", lambda jobs, *_, **__: asked.extend(jobs))
    run_ablations("demo", tmp_path, "duplicates")
    assert set(asked) == {
        f"{place}-{seed}" for place in ("reference/reference", "duplicates/dropped") for seed in SEEDS
    }


def test_killed_study_leaves_no_worker_behind(project, tmp_path):
    command = [sys.executable, "-m", "fer_lib", "ablate", "--dataset", "demo", "--out-dir", tmp_path]
    environment = build_command_environment(project)
    study = subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.DEVNULL)
    locks = tmp_path / "models" / ".state" / "demo" / "ablations" / ENSEMBLE
    try:
        until = time.monotonic() + 120
        while study.poll() is None and not list(locks.glob("*/lock")):  # until a worker trains
            assert time.monotonic() < until
            time.sleep(0.05)
        workers = psutil.Process(study.pid).children(recursive=True)
        assert workers
    finally:
        study.kill()
        study.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    for lock in locks.glob("*/lock"):
        with hold_lock(lock):  # what it trained can be trained on
            pass


def test_soft_vote_is_of_one_seed_and_of_the_members_alone():
    # Two faces each; `a` knows both classes, `b` is wrong, `c` is no member and `a` of seed 1 is another's.
    data = SimpleNamespace(
        labels=np.array([0, 1]), emotions=("happy", "sad"), get_rows=lambda _: np.array([0, 1])
    )
    good, bad = np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[0.4, 0.6], [0.6, 0.4]])
    predicted = (("a", 0, good), ("b", 0, bad), ("c", 0, bad), ("a", 1, bad))
    runs = [ArmRun(arm, seed, {"val": table, "test": table[::-1]}) for arm, seed, table in predicted]
    voted = vote_together(runs, ("a", "b"), 0, data)
    assert (voted.arm, voted.seed) == ("soft_vote", 0)
    assert voted.numbers == {"weight.a": pytest.approx(1, abs=0.01), "weight.b": pytest.approx(0, abs=0.01)}
    metrics = score_runs("ablations/ensemble", [voted], data)
    assert metrics["soft_vote.seed_0.val.accuracy"] == 1.0
    # The weights are validation's, also where they do not fit.
    assert metrics["soft_vote.seed_0.test.accuracy"] == 0.0
    assert voted.probabilities["test"] == pytest.approx(good[::-1], abs=0.01)


@pytest.mark.parametrize(
    "dataset", [name for name in read_params_file()["datasets"] if find_arms(load_params(name), ENSEMBLE)]
)
def test_longest_arm_sees_as_many_faces_as_the_members_together(dataset):
    params = load_params(dataset)
    epochs = {arm: resolved.training.epochs for arm, resolved in find_arms(params, ENSEMBLE).items()}
    assert epochs["three_times"] == sum(epochs[member] for member in params.ablations.members)


def test_arm_that_is_null_is_left_out_and_others_change_their_kind_s_reference():
    params = load_params("fer2013")
    studies = {"only": {"plain": Changes(), "gone": None}}
    for kind, reference in (("studies", "reference"), ("paper_studies", "paper_reference")):
        own = params.model_copy(update={"ablations": params.ablations.model_copy(update={kind: studies})})
        assert find_arms(own, "only") == {"plain": apply_recipe(own, getattr(own.ablations, reference))}


def test_arm_that_trains_as_a_recipe_does_takes_its_state(here, tmp_path, monkeypatch):
    states = {}

    def note(dataset, params, state):
        states[params.training.seed] = state
        rows = load_tiny(here).get_rows
        uniform = {split: np.full((len(rows(split)), 7), 1 / 7) for split in SPLITS}
        return ArmRun(state.name, params.training.seed, uniform)

    params = load_params("demo", path=here / "params.yaml")
    studies = {"paper_studies": {"paper": {"reference": Changes()}}, "studies": {}}
    own = params.ablations.model_copy(update={"paper_reference": Changes(), **studies})
    monkeypatch.setattr(ablations, "train_arm", note)
    monkeypatch.setattr(ablations, "load_params", lambda _: params.model_copy(update={"ablations": own}))
    run_ablations("demo", tmp_path)
    folder = get_output_dirs("demo", tmp_path).training_state
    # The paper's recipe trains with seed 0; with another seed it is a training of its own.
    assert states == {0: folder / "baseline", 1: folder / "ablations" / "paper" / "reference-1"}


def test_arms_that_need_votes_are_trained_where_there_are_votes(here, tmp_path, monkeypatch):
    trained = []

    def note(dataset, params, state):
        trained.append(state.name)
        raise FerError("stopped")

    monkeypatch.setattr(ablations, "train_arm", note)
    params = load_params("fer2013")  # the tiny parameters leave such arms out
    targets = {"targets": params.ablations.studies["targets"]}
    of_targets = params.ablations.model_copy(update={"paper_studies": {}, "studies": targets})
    monkeypatch.setattr(
        ablations, "load_params", lambda _: params.model_copy(update={"ablations": of_targets})
    )
    drawn = load_tiny(here)  # nobody voted on drawn faces
    voted = replace(drawn, index=drawn.index.assign(**{f"votes_{name}": 1 for name in VOTES}))
    for data, first in ((drawn, "smoothing-0"), (voted, "majority-0")):
        monkeypatch.setattr(ablations, "load_packed", lambda _, data=data: data)
        with pytest.raises(FerError, match="stopped"):
            run_ablations("demo", tmp_path)
        assert trained.pop(0) == first
        trained.clear()


def test_unknown_study_is_one_line_with_the_known_ones():
    with pytest.raises(ParamsError, match=r"ablations: no study 'nope'; known: paper, ensemble, reference, "):
        find_arms(load_params("demo"), "nope")


def test_arm_that_fails_ends_the_study_with_its_own_line(here, tmp_path, monkeypatch):
    def fail(dataset, params, state):
        raise ModelError(f"{state.name} cannot be")

    monkeypatch.setattr(ablations, "train_arm", fail)
    with pytest.raises(ModelError, match=r"^reference-[01] cannot be$"):
        run_ablations("demo", tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


def test_predictions_of_other_faces_are_refused(finished, tiny_project):
    data = load_tiny(tiny_project)
    data = replace(data, meta=data.meta | {"data_hash": "e" * 64})
    with pytest.raises(DataError, match=r"expected predictions on data hash e{12}, found "):
        list(read_predictions(finished[0], ENSEMBLE, data))


def test_study_that_has_not_run_says_what_to_run(tiny_project, tmp_path):
    with pytest.raises(DataError, match=r"loss\.parquet: .*; run `python -m fer_lib ablate --dataset demo"):
        list(read_predictions(get_output_dirs("demo", tmp_path), "loss", load_tiny(tiny_project)))


def test_tiny_parameters_are_tiny(tiny_project):
    # Where an arm is added that names an architecture of its own, the tests above would train that.
    params = yaml.safe_load((tiny_project / "params.yaml").read_text())
    assert params["datasets"]["demo"]["ablations"]["seeds"] == SEEDS
    studies = load_params("demo", path=tiny_project / "params.yaml").ablations.list_studies().values()
    named = {
        arm.training.get("architecture", "test_") for study in studies for arm in study.arms.values() if arm
    }
    assert all(name.startswith("test_") for name in named)
