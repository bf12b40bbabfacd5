"""A network learns from a user's own faces: from folders and lists, with class names of their own."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from app_harness import open_page, read_page
from conftest import REPO, run_fer_lib
from PIL import Image

from demo_faces.clips import draw_scene
from fer_lib.data.packed import load_packed
from fer_lib.data.readers.demo import draw_faces
from fer_lib.errors import DataError, ModelError
from fer_lib.finetuning import finetune, own_faces
from fer_lib.inference import registry
from fer_lib.inference.recognizer import Recognizer
from fer_lib.labels import EMOTIONS_7
from fer_lib.models.build import create_model, save_checkpoint
from fer_lib.models.weights import load_class_weights
from fer_lib.params import load_params

MADE_UP = {"happy": "sunny", "sad": "cloudy"}
N_FACES = 200

START = {
    "architecture": "face_resnet_tiny",
    "emotions": list(EMOTIONS_7),
    "preprocessing": {"image_size": 48, "mean": [0.5] * 3, "std": [0.5] * 3},
}


@pytest.fixture(scope="module")
def weather(tmp_path_factory):
    """Return a folder of 200 drawn faces in two classes that are no emotions."""
    folder, n = tmp_path_factory.mktemp("own") / "weather", 0
    for number, face in enumerate(draw_faces(700, 64, 1)):
        name = MADE_UP.get(EMOTIONS_7[face.label])
        if name and n < N_FACES:
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(face.image).save(path)
            n += 1
    assert n == N_FACES
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a project with the released networks and settings with which one learns in seconds."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(REPO / "models" / "release" / "photographs", root / "models" / "release" / "photographs")
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    params["finetuning"]["training"] |= {"epochs": 3, "lr": 0.002, "warmup_steps": 4}  # takes seconds
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return root


@pytest.fixture(scope="module")
def trained(project, weather):
    done = run_fer_lib(project, "train", weather, "--from", "release")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_made_up_classes_are_learned(trained, project):
    accuracy = float(re.match(r"accuracy: ([\d.]+)%", trained).group(1))
    assert accuracy > 75  # of two classes, of which the commoner has 60% of the faces
    data = load_packed("weather", project / "data" / "packed" / "weather")
    assert data.emotions == ("cloudy", "sunny")
    assert len(data) == N_FACES
    sizes = {split: len(data.get_rows(split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 120, "val": 40, "test": 40}


def test_it_trains_nothing_when_nothing_has_changed(trained, project, weather):
    state = project / "models" / ".state" / "weather" / "finetuned" / "state.pt"
    before = state.stat().st_mtime_ns
    again = run_fer_lib(project, "train", weather, "--from", "release")
    assert again.stdout == trained
    assert state.stat().st_mtime_ns == before


def test_report_and_config_agree_with_the_network(trained, project):
    folder = project / "models" / "weather" / "finetuned"
    config = json.loads((folder / "config.json").read_text())
    data = load_packed("weather", project / "data" / "packed" / "weather")
    rows = data.get_rows("test")
    probabilities = Recognizer(folder).compute_probabilities(data.faces[rows])
    accuracy = np.mean(probabilities.argmax(axis=1) == data.labels[rows])
    assert config["metrics"]["test.accuracy"] == pytest.approx(accuracy)
    by_torch = Recognizer(folder, backend="torch").compute_probabilities(data.faces[rows])
    np.testing.assert_allclose(by_torch, probabilities, atol=1e-3)
    page = (folder / "report.html").read_text()
    assert f"It is right about {accuracy:.1%}" in page
    assert str(project) not in page + json.dumps(config)
    assert page.count("<img") == 2  # the figures: nobody's face


def test_app_shows_it_at_once(trained, project, monkeypatch):
    monkeypatch.setattr(registry, "MODELS_DIR", project / "models")
    assert "weather/finetuned" in registry.list_checkpoints()
    monkeypatch.setattr(registry, "RELEASE_DIR", project / "models" / "release")
    picker = open_page("about").selectbox(key="model")
    assert "weather/finetuned (your faces)" in picker.options
    about = read_page(picker.set_value("weather/finetuned").run())
    assert "tells 2 expressions apart: cloudy and sunny" in about


def test_command_line_names_made_up_classes(trained, project, tmp_path):
    Image.fromarray(draw_scene(1, 320, 240)[0]).save(tmp_path / "scene.png")
    done = run_fer_lib(project, "predict", tmp_path / "scene.png", "--model", "weather/finetuned", "--json")
    (face,) = json.loads(done.stdout)[0]["faces"]
    assert set(face["probabilities"]) == {"cloudy", "sunny"}
    assert face["group"] == "other"


@pytest.fixture
def small():
    """Return a recognizer whose framing the faces take."""
    return Recognizer(variant="tiny")


def pack(source, tmp_path, recognizer, monkeypatch):
    monkeypatch.setattr(own_faces, "pack", lambda name, raw, *_, **__: packed.extend(raw.rows))
    monkeypatch.setattr(own_faces, "load_packed", lambda name: None)
    packed = []
    return own_faces.pack_own_faces(source, "own", recognizer, load_params(None)), packed


def draw_folder(folder, names, n=6, first=0):
    rng = np.random.default_rng(first)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(n):
            Image.fromarray(rng.integers(0, 255, (48, 48), np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_folder_names_in_any_spelling_are_emotions_and_others_stay(tmp_path, small, monkeypatch):
    source = draw_folder(tmp_path / "faces", ["Bored", "Happiness", "0_angry"])
    (source / "Bored" / "broken.png").write_text("no image")
    (source / "notes.txt").write_text("")
    result, packed = pack(source, tmp_path, small, monkeypatch)
    assert {packed_face.label for packed_face in packed} == {0, 1, 2}
    by_label = {face.label: face.source for face in packed}
    assert ["angry" in by_label[0], "Happiness" in by_label[1], "Bored" in by_label[2]] == [True] * 3
    assert len(result.problems) == 1
    assert "broken.png" in result.problems[0]
    assert list(result.passed_over.values()) == [".txt"]


def test_persons_and_equal_images_stay_in_one_split(tmp_path, small, monkeypatch):
    source = draw_folder(tmp_path / "faces", ["a", "b"], n=30)
    for number in range(1, 30, 3):
        shutil.copy(source / "a" / "0.png", source / "a" / f"{number}.png")
    with open(tmp_path / "faces.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "person"])
        for path in sorted(source.rglob("*.png")):
            rows.writerow([path.relative_to(tmp_path), path.parent.name, f"p{int(path.stem) % 10}"])
    _, packed = pack(tmp_path / "faces.csv", tmp_path, small, monkeypatch)
    splits = {}
    for face in packed:
        splits.setdefault(face.factors["identity"], set()).add(face.split)
    assert set(map(len, splits.values())) == {1}
    assert {face.split for face in packed} == {"train", "val", "test"}
    _, packed = pack(source, tmp_path, small, monkeypatch)
    equal = {face.split for face in packed if face.source.endswith(("/a/0.png", "/a/1.png", "/a/4.png"))}
    assert len(equal) == 1


def test_list_may_name_the_splits(tmp_path, small, monkeypatch):
    source, splits = draw_folder(tmp_path / "faces", ["a", "b"]), ["train", "val", "test"]
    lines = [
        f"{path.relative_to(tmp_path)},{path.parent.name},{splits[int(path.stem) % 3]}"
        for path in sorted(source.rglob("*.png"))
    ]
    (tmp_path / "faces.csv").write_text("\n".join(["path,label,split", *lines]))
    _, packed = pack(tmp_path / "faces.csv", tmp_path, small, monkeypatch)
    assert [face.split for face in packed] == [line.rpartition(",")[2] for line in lines]


def read_shown(folder):
    draw_folder(folder, ["a", "b"])
    shutil.copy(folder / "a" / "0.png", folder / "b" / "0.png")
    return folder


def list_faces(folder, columns, describe):
    """Write a CSV of six faces in each of two classes, with what `describe` says of a class and a number."""
    draw_folder(folder / "faces", ["a", "b"])
    lines = [f"faces/{name}/{n}.png,{name},{describe(name, n)}" for name in "ab" for n in range(6)]
    return write(folder / "f.csv", "\n".join([f"path,label,{columns}", *lines]) + "\n")


SPLITS = ("train", "val", "test")

BAD_SOURCES = {
    "expected 2 to 100 classes, found one": lambda folder: draw_folder(folder, ["one"]),
    "in every class, of as many persons or images, found 2 ": lambda folder: draw_folder(
        folder, ["a", "b"], n=2
    ),
    "found train/, test/; give a CSV": lambda folder: draw_folder(folder, ["train", "test"]),
    "a class cannot be called 'label'": lambda folder: draw_folder(folder, ["a", "label"]),
    "a class cannot be called 'Unsure'": lambda folder: draw_folder(folder, ["a", "Unsure"]),
    "printable characters but $, found '$b$'": lambda folder: draw_folder(folder, ["a", "$b$"]),
    "names of classes of at most 40": lambda folder: draw_folder(folder, ["a", "x" * 50]),
    "shows the same, found 'b'; correct one of them": read_shown,
    "found 6 faces in the smallest class and 1 ": lambda folder: list_faces(
        folder, "person", lambda *_: "me"
    ),
    "expected faces of 'a' in train, val and test, found none in ": lambda folder: list_faces(
        folder, "person", lambda name, n: "a1" if name == "a" else f"b{n}"
    ),
    "in train, val and test, found none in val; add faces": lambda folder: list_faces(
        folder, "split", lambda name, n: "test" if n else "train"
    ),
    "f.csv:5: expected a value in the column split, found none": lambda folder: list_faces(
        folder, "split", lambda name, n: [*SPLITS, ""][n % 4]
    ),
    "expected the person 'a0' in one split, found it in test and train": lambda folder: list_faces(
        folder, "split,person", lambda name, n: f"{SPLITS[n % 3]},{name}{n % 2}"
    ),
    "f.csv:2: expected 2 fields, found 3": lambda folder: write(folder / "f.csv", "path,label\na.png,x,y\n"),
    "expected column 'path' in line 1, found file": lambda folder: write(folder / "f.csv", "file,label\n"),
    "f.csv:2: expected train, val or test in the column split": lambda folder: write(
        folder / "f.csv", "path,label,split\na,b,dev\n"
    ),
    "expected column 'path' in line 1, found none": lambda folder: write(folder / "f.csv", ""),
}


@pytest.mark.parametrize(("message", "make"), BAD_SOURCES.items(), ids=range(len(BAD_SOURCES)))
def test_faces_that_cannot_be_learned_from_give_one_line(tmp_path, small, monkeypatch, make, message):
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        pack(make(tmp_path), tmp_path, small, monkeypatch)
    assert "\n" not in str(caught.value)


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["fer2013", "..", "release", "a/b", "x" * 80])
def test_name_of_something_else_is_refused(name, tmp_path):
    with pytest.raises(ModelError, match="give another one with --name"):
        finetune.finetune(tmp_path, "photographs", name)


def test_release_starts_from_its_float_network(tmp_path):
    start = finetune._find_start("photographs")
    found = (start.name, start.recognizer.variant, start.weights.name)
    assert found == ("photographs", "float", "model.float.onnx")
    shutil.copytree(
        start.recognizer.folder, tmp_path / "small", ignore=shutil.ignore_patterns("*.float.onnx")
    )
    with pytest.raises(ModelError, match="expected a network in float, found int8 alone"):
        finetune._find_start(tmp_path / "small")


def test_known_classes_keep_their_weights(tmp_path):
    torch.manual_seed(0)
    known, model = create_model("face_resnet_tiny", 7), create_model("face_resnet_tiny", 3)
    save_checkpoint(tmp_path / "start", known, START)
    fresh = model.fc.weight[0].clone()
    load_class_weights(model, ("bored", "sad", "happy"), tmp_path / "start")
    assert torch.equal(model.fc.weight[0], fresh)
    for row, emotion in ((1, "sad"), (2, "happy")):
        place = EMOTIONS_7.index(emotion)
        assert torch.equal(model.fc.weight[row], known.fc.weight[place])
        assert torch.equal(model.fc.bias[row], known.fc.bias[place])


@pytest.fixture(scope="module")
def emotions(tmp_path_factory, project):
    """Fine-tune a small checkpoint on two emotions that it knows, of named persons; return the process."""
    root = tmp_path_factory.mktemp("known")
    torch.manual_seed(0)
    save_checkpoint(project / "models" / "demo" / "small", create_model("face_resnet_tiny", 7), START)
    lines = ["path,label,person"]
    for number, face in enumerate(draw_faces(120, 64, 2)):
        if EMOTIONS_7[face.label] in MADE_UP:
            Image.fromarray(face.image).save(root / f"{number}.png")
            lines.append(f"{number}.png,{EMOTIONS_7[face.label]},{face.factors['identity']}")
    (root / "broken.png").write_text("no image")
    (root / "faces.csv").write_text("\n".join([*lines, "broken.png,sad,1"]))
    return run_fer_lib(project, "train", root / "faces.csv", "--from", "demo/small", "--name", "known")


def test_classes_that_are_known_are_compared_with_the_start(emotions, project):
    assert emotions.returncode == 1
    (problem,) = [line for line in emotions.stderr.splitlines() if line.startswith("error: ")]
    assert "broken.png" in problem
    folder = project / "models" / "known" / "finetuned"
    config = json.loads((folder / "config.json").read_text())
    assert (config["finetuned_from"], config["emotions"]) == ("demo/small", ["happy", "sad"])
    page = " ".join((folder / "report.html").read_text().split())
    assert "demo/small, from which it started, is right about " in page
    assert "which knows happy and sad; their weights were kept as a start." in page
    assert "which draw all faces of a person together" in page
    assert "Nothing says whose faces these are" not in page
    data = load_packed("known", project / "data" / "packed" / "known")
    assert data.index.groupby("identity")["split"].nunique().max() == 1


def test_model_is_evaluated_on_classes_of_its_own(trained, project, weather):
    done = run_fer_lib(project, "evaluate", "--model", "weather/finetuned", "--data", weather)
    assert "recall of cloudy" in done.stdout, done.stderr


def test_curves_of_a_training_are_there_for_tensorboard(trained, project):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(project / "models" / ".state" / "weather" / "finetuned" / "curves"))
    curves.Reload()
    n_epochs = len(curves.Scalars("accuracy/validation"))
    assert n_epochs == 3
    steps = [event.step for event in curves.Scalars("loss/train")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) % n_epochs == 0
