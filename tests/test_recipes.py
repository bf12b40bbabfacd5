import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_tiny_params

from fer_lib.cli import main as cli
from fer_lib.data.packed import load_packed
from fer_lib.errors import ModelError, ParamsError
from fer_lib.labels import EMOTIONS_7
from fer_lib.metrics_file import Metrics, read_metrics, write_metrics
from fer_lib.models.build import load_checkpoint, save_checkpoint
from fer_lib.param_sections import TargetShares
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.training import fit as training
from fer_lib.training import recipes
from fer_lib.training.predict import Predictor
from fer_lib.training.recipes import (
    build_recipe,
    describe_origin,
    find_untrainable,
    get_metrics_name,
    list_trainings,
    read_or_train,
    read_time_curve,
    tabulate_settings,
    train_recipe,
    use_known_targets,
)
from fer_lib.training.targets import VOTE_COLUMNS

SURPRISE = EMOTIONS_7.index("surprise")


@pytest.fixture
def here(enter_project, tiny_project):
    """Train recipes on the tiny project in this process: starting others takes most of a test's time."""
    enter_project(recipes, tiny_project)
    return tiny_project


@pytest.fixture(scope="module")
def out_dir(tmp_path_factory):
    """Return the folder that the tests of this module share, so that `b0` is trained once."""
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture
def dirs(here, out_dir):
    """Return the output folders, with `b0` trained."""
    train_recipe("b0", "demo", out_dir)
    return get_output_dirs("demo", out_dir)


def get_body(folder):
    state = load_checkpoint(folder).model.state_dict()
    return {name: value for name, value in state.items() if not name.startswith("classifier.")}


def are_equal(a, b):
    return a.keys() == b.keys() and all(value.equal(b[name]) for name, value in a.items())


def write_teacher(dirs, root, probabilities):
    """Write a teacher that says the same (C,) `probabilities` of every training face."""
    rows = load_packed("demo", root / "data" / "packed" / "demo").get_rows("train")
    table = pd.DataFrame(
        np.tile(probabilities, (len(rows), 1)), columns=[f"probability_{name}" for name in EMOTIONS_7]
    )
    table.insert(0, "row", rows)
    dirs.models.mkdir(parents=True, exist_ok=True)
    table.to_parquet(dirs.models / "teacher.parquet", index=False)


def test_command_writes_checkpoint_metrics_and_history(here, out_dir, capsys):
    assert cli.main(["train-recipe", "b0", "--dataset", "demo", "--out-dir", str(out_dir)]) == 0
    folder = out_dir / "models" / "demo" / "b0"
    assert capsys.readouterr().out == f"checkpoint: {folder}\n"
    checkpoint = load_checkpoint(folder)
    reports = out_dir / "reports" / "demo"
    dirs = get_output_dirs("demo", out_dir)
    metrics = read_metrics(dirs, "recipes/b0")
    history = pd.read_csv(reports / "recipes" / "b0.csv")
    assert history.columns.tolist() == ["epoch", "lr", "train_loss", "val_loss", "val_accuracy"]  # no times
    assert history["epoch"].tolist() == [1]
    last = history.iloc[0]
    expected = {
        "val.accuracy": last.val_accuracy,
        "val.loss": last.val_loss,
        "train.loss": last.train_loss,
        "epoch_1.val_accuracy": last.val_accuracy,
        "epoch_1.train_loss": last.train_loss,
        "recipe.schedule": "cosine",
        "architecture": "test_efficientnet",
        "best_epoch": 1,
        "epochs": 1,
        "image_size": 32,
        "initial_weights": "none",
        "trained_at_commit": checkpoint.config["git_commit"],
        "n_parameters": sum(parameter.numel() for parameter in checkpoint.model.parameters()),
    }
    assert {key: metrics[key] for key in expected} == expected
    written = {"dataset": "demo", "seed": 0, "data": checkpoint.config["data_hash"]}
    assert {key: metrics.provenance[key] for key in written} == written
    seconds = metrics.provenance["wall_seconds"]
    assert metrics["epoch_1.seconds"] == pytest.approx(seconds, abs=0.1)
    curve = read_time_curve(dirs, "b0")
    assert curve.to_dict("list") == {
        "seconds": [metrics["epoch_1.seconds"]],
        "val_accuracy": [last.val_accuracy],
    }
    shown = tabulate_settings({"b0": checkpoint.config["params"]["training"]})["b0"]
    assert (shown["label smoothing"], shown["sampler"]) == ("0.1", "shuffle")
    assert shown["loss"] == "cross_entropy"
    # What the recipe names is in the checkpoint, and what it leaves open is the data set's.
    assert checkpoint.config["params"]["training"]["label_smoothing"] == 0.1
    own = load_params("demo", path=here / "params.yaml").training
    assert checkpoint.config["params"]["training"]["ema_decay"] == own.ema_decay
    assert checkpoint.config["params"]["augmentation"]["downscale"] == 0.4


def test_labels_take_the_share_of_votes_where_nobody_voted(here):
    data = load_packed("demo", here / "data" / "packed" / "demo")
    params = load_params("demo")
    shares = TargetShares(label=0.2, votes=0.3, teacher=0.5)
    asked = params.model_copy(update={"training": params.training.model_copy(update={"targets": shares})})
    known = use_known_targets(asked, data).training.targets
    assert known == TargetShares(label=0.5, teacher=0.5)
    voted = replace(data, index=data.index.assign(**dict.fromkeys(VOTE_COLUMNS, 1)))
    assert use_known_targets(asked, voted) is asked


def test_finished_recipe_is_not_trained_again_and_written_to_the_same_bytes(dirs, out_dir, monkeypatch):
    files = [path for path in out_dir.rglob("*") if path.is_file() and ".state" not in path.parts]
    before = {path: path.read_bytes() for path in files}
    monkeypatch.setattr(training, "train_on_batch", lambda *_: pytest.fail("trained again"))
    train_recipe("b0", "demo", out_dir)
    assert {path: path.read_bytes() for path in files} == before


def test_recipe_is_what_it_names_over_the_data_sets_own():
    params = load_params("demo")
    dirs = get_output_dirs("demo", "out")
    plain = build_recipe("b0", params, dirs)
    named = params.recipes["b0"]
    assert plain.training.model_dump() == params.training.model_dump() | named.training | {"teachers": ()}
    assert plain.augmentation.model_dump() == params.augmentation.model_dump() | named.augmentation
    assert plain.evaluation == params.evaluation
    assert (plain.training.weights, plain.training.weights_file) == ("package", None)


def test_start_and_teachers_are_files_of_the_run():
    dirs = get_output_dirs("demo", "out")
    student = build_recipe("student", load_params("demo"), dirs).training
    assert (student.weights, student.weights_file) == ("file", dirs.models / "b0")
    assert student.teachers == (dirs.models / "teacher.parquet",)


def test_recipes_that_learn_from_votes_alone_and_those_that_need_them_need_votes():
    params, faces = load_params("fer2013"), pd.DataFrame({"row": [0]})
    blind = SimpleNamespace(index=faces)
    voted = SimpleNamespace(index=faces.assign(**dict.fromkeys(VOTE_COLUMNS, 1)))
    assert find_untrainable(params, blind) == {"votes_b0", "votes_lite0", "votes_tiny"}
    assert find_untrainable(params, voted) == set()
    recipes = params.recipes | {"later": params.recipes["b0"].model_copy(update={"start": "votes_tiny"})}
    assert "later" in find_untrainable(params.model_copy(update={"recipes": recipes}), blind)


def test_origin_names_what_a_network_started_from_and_whose_predictions_taught_it():
    params = load_params("demo")
    vote = "learned from the vote of `b0`, `unaugmented`"
    assert describe_origin("student", params) == f"`student` started from `b0` and {vote}"
    assert describe_origin("lite", load_params("fer2013")) == "`lite` learned from `student`"
    assert describe_origin("b0", params) == describe_origin("baseline", params) == ""
    released = "models/release/photographs/model.float.onnx"
    assert (
        describe_origin("student", load_params("ferplus"))
        == f"`student` started from the weights of `{released}`"
    )


def test_baseline_is_the_data_sets_own_parameters():
    params = load_params("demo")
    assert build_recipe("baseline", params, get_output_dirs("demo")) == params


def test_record_of_a_training_is_read_where_it_was_written_and_trained_elsewhere(here, tmp_path, monkeypatch):
    trained = read_or_train("baseline", "demo", tmp_path)
    checkpoint = load_checkpoint(tmp_path / "models" / "demo" / "baseline")
    assert trained.history["epoch"].tolist() == [1, 2, 3, 4]
    assert trained.history.columns[-1] == "seconds"
    for key in ("params", "device"):
        assert trained.config[key] == checkpoint.config[key]
    assert trained.config["initial_weights"].items() <= checkpoint.config["initial_weights"].items()
    # The pipeline's record needs neither the checkpoint nor the state.
    for folder in ("models/demo", "models/.state"):
        shutil.rmtree(tmp_path / folder)
    monkeypatch.setattr("fer_lib.training.fit.fit", lambda *_: pytest.fail("trained again"))
    read = read_or_train("baseline", "demo", tmp_path)
    assert read.history.equals(trained.history)
    assert (read.config, dict(read.metrics)) == (trained.config, dict(trained.metrics))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        read_or_train("baseline", "demo", tmp_path, smoke=True)


def test_trainings_behind_a_network_are_those_of_all_it_was_trained_from(tmp_path):
    dirs, params = get_output_dirs("demo", tmp_path), load_params("fer2013")
    trained = {"b0": 4.0, "lite0": 3.0, "resnet18": 2.0, "student": 1.0, "baseline": 5.0}
    for name, seconds in trained.items():
        metrics = Metrics(get_metrics_name(name), {"device": f"the device of {name}"})
        write_metrics(dirs, metrics, {"dataset": "demo", "data_hash": "a"}, params, 0, seconds)
    behind = list_trainings("student", params, dirs)
    assert behind == {
        name: (trained[name], f"the device of {name}") for name in ("b0", "lite0", "resnet18", "student")
    }
    of_release = list_trainings("student", load_params("ferplus"), dirs)
    assert {"student", "votes_b0"} < of_release.keys()
    assert list_trainings("lite0", params, dirs) == {"lite0": (3.0, "the device of lite0")}
    assert list_trainings("baseline", params, dirs) == {"baseline": (5.0, "the device of baseline")}


def test_unknown_recipe_is_one_line_with_the_known_ones(capsys):
    assert cli.main(["train-recipe", "b1", "--dataset", "demo"]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.endswith("recipes: no 'b1'; known: " + ", ".join(load_params("demo").recipes) + "\n")
    with pytest.raises(ParamsError):
        build_recipe("b1", load_params("demo"), get_output_dirs("demo"))


@pytest.fixture
def write_recipe(enter_project, tiny_project, tmp_path):
    """Return a function that gives the tiny project a recipe `other` and makes it the one in use."""

    def write(**recipe):
        (tmp_path / "data").symlink_to(tiny_project / "data")
        write_tiny_params(tmp_path / "params.yaml", recipes={"other": recipe})
        enter_project(recipes, tmp_path)

    return write


def test_start_brings_the_body_and_its_normalisation(dirs, out_dir, write_recipe):
    write_recipe(start="start", training={"epochs": 1, "warmup_steps": 0, "lr": 1e-12, "ema_decay": 0})
    # Another normalisation than a random network's, so that it can only come from the checkpoint.
    start = load_checkpoint(dirs.models / "b0")
    mean = (0.1, 0.2, 0.3)
    preprocessing = replace(start.preprocessing, mean=mean).to_dict()
    save_checkpoint(dirs.models / "start", start.model, start.config | {"preprocessing": preprocessing})
    folder = train_recipe("other", "demo", out_dir)
    trained = load_checkpoint(folder)
    assert trained.preprocessing.mean == mean
    assert trained.config["initial_weights"]["source"] == "file"
    assert read_metrics(dirs, "recipes/other")["initial_weights"] == "file"
    # With next to no learning rate the weights stay where they began; batch norm's statistics move.
    begun, ended = get_body(dirs.models / "start"), get_body(folder)
    learned = [name for name in begun if name in dict(trained.model.named_parameters())]
    assert len(learned) > 10
    assert all(torch.allclose(begun[name], ended[name], atol=1e-6) for name in learned)
    # The head begins anew: it is no copy of the one that `start` had learned.
    head = [checkpoint.model.classifier.weight for checkpoint in (start, trained)]
    assert not torch.allclose(*head, atol=1e-3)


def test_start_that_was_not_trained_is_one_line(here, tmp_path):
    with pytest.raises(ModelError, match=r"expected .* a checkpoint .*, found .*models/demo/b0$"):
        train_recipe("student", "demo", tmp_path)


def test_missing_teacher_is_one_line(dirs, out_dir, capsys):
    capsys.readouterr()
    assert cli.main(["train-recipe", "student", "--dataset", "demo", "--out-dir", str(out_dir)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: training.teachers: ")
    assert "teacher.parquet: expected a teacher's probabilities" in message
    assert message.count("\n") == 1
    assert not (dirs.models / "student").exists()


def test_student_learns_what_its_teacher_says(tmp_path, tiny_project, write_recipe):
    # A teacher that says `surprise` of every face, against one that has no opinion: the student of the first
    # says so more often of faces it has not seen. At the usual step size 14 batches would show nothing yet.
    training = {"epochs": 2, "warmup_steps": 0, "lr": 0.01, "ema_decay": 0}
    write_recipe(teachers=["ensemble"], training=training | {"targets": {"label": 0.5, "teacher": 0.5}})
    data = load_packed("demo", tiny_project / "data" / "packed" / "demo")
    predicted = {}
    for name, probabilities in (("sure", np.eye(7)[SURPRISE]), ("unsure", np.full(7, 1 / 7))):
        dirs = get_output_dirs("demo", tmp_path / name)
        write_teacher(dirs, tiny_project, probabilities)
        checkpoint = load_checkpoint(train_recipe("other", "demo", tmp_path / name))
        predictor = Predictor(checkpoint.model, checkpoint.preprocessing)
        predicted[name] = predictor.predict(data.faces, data.get_rows("test"))[:, SURPRISE].mean()
    # Half of the first one's targets are `surprise`, and a seventh of the other's.
    assert predicted["sure"] > predicted["unsure"] + 0.1


def test_another_teacher_under_the_same_name_is_learned_from_anew(dirs, out_dir, here):
    bodies = []
    for emotion in (0, 1, 0):
        write_teacher(dirs, here, np.eye(7)[emotion])
        bodies.append(get_body(train_recipe("student", "demo", out_dir)))
    (dirs.models / "teacher.parquet").unlink()
    assert not are_equal(bodies[0], bodies[1])
    assert are_equal(bodies[0], bodies[2])
