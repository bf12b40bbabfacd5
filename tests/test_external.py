import json
import re
import shutil

import cv2
import numpy as np
import pytest
from conftest import REPO, run_fer_lib

from demo_faces.clips import draw_scene
from fer_lib.analysis import external
from fer_lib.data.packed import load_packed
from fer_lib.data.readers.demo import make_face
from fer_lib.errors import DataError
from fer_lib.inference.crops import cut_largest
from fer_lib.inference.recognizer import Recognizer
from fer_lib.labels import EMOTIONS_7


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer()


@pytest.fixture
def folder(tmp_path):
    """Return class folders: two names that are known, one other spelling, one that is no emotion."""
    for number, name in enumerate(("happy", "sad", "Anger", "asleep")):
        (tmp_path / name).mkdir()
        for index in range(3):
            picture = make_face(10 * number + index, 160, 0).image
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return tmp_path


def test_classes_are_mapped_by_name_and_what_is_unknown_is_left_out(recognizer, folder):
    faces = external.load_external(recognizer, str(folder))
    table = faces.mapping.set_index("class")
    assert table["model's emotion"].to_dict() == {
        "happy": "happy",
        "sad": "sad",
        "Anger": "angry",
        "asleep": external.LEFT_OUT,
    }
    assert table["images"].tolist() == [3, 3, 3, 3]
    assert sorted({EMOTIONS_7[label] for label in faces.labels}) == ["angry", "happy", "sad"]
    assert len(faces.crops) == 9
    framing = recognizer.framing
    assert all(crop.shape == (framing.size, framing.size) for crop in faces.crops)


def test_class_that_the_model_lacks_is_left_out():
    table = external.map_classes(
        ["contempt", "happiness"], EMOTIONS_7, ["contempt", "happiness", "happiness"]
    )
    assert table["model's emotion"].tolist() == [external.LEFT_OUT, "happy"]
    assert table["images"].tolist() == [1, 2]


def test_largest_face_is_cut_as_recognize_cuts_it(recognizer):
    picture, _ = draw_scene(2)
    largest = max(recognizer(picture), key=lambda face: face.box[2] * face.box[3])
    np.testing.assert_array_equal(cut_largest(recognizer, picture, recognizer.detector), largest.crop)


@pytest.mark.parametrize("shape", [(48, 48), (48, 48, 3)])
def test_crop_is_taken_whole(recognizer, shape):
    crop = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = cut_largest(recognizer, crop, recognizer.detector)
    assert found.shape == (48, 48)
    if len(shape) == 2:
        np.testing.assert_array_equal(found, crop)


def test_image_without_a_face_is_counted_and_not_scored(recognizer, folder):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "sad" / "noise.png"), noise)
    faces = external.load_external(recognizer, str(folder))
    assert len(faces.labels) == 9
    table = faces.mapping.set_index("class")
    assert table["no face"].to_dict() == {"happy": 0, "sad": 1, "Anger": 0, "asleep": 0}
    assert table.loc["sad", "images"] == 4


def test_what_is_no_image_is_passed_over(recognizer, folder):
    (folder / "happy" / "._0.png").write_bytes(b"of a file system")
    (folder / "happy" / "folder.png").mkdir()
    (folder / "happy" / "notes.txt").write_text("none")
    (folder / "surprise").mkdir()
    faces = external.load_external(recognizer, str(folder))
    table = faces.mapping.set_index("class")
    assert table.loc["happy", "images"] == 3
    assert table.loc["surprise", "images"] == 0


def test_own_faces_are_taken_as_they_are_and_others_are_cut(recognizer, tiny_project, monkeypatch):
    data = load_packed("demo", tiny_project / "data" / "packed" / "demo")
    monkeypatch.setattr(external, "load_packed", lambda _: data)
    monkeypatch.setattr(external, "get_packed_dir", lambda _: tiny_project / "data" / "packed" / "demo")
    rows = data.get_rows("test")
    other = external.load_external(recognizer, "demo")
    assert {crop.shape for crop in other.crops} == {(48, 48)}
    assert other.data_hash == data.data_hash
    assert "skin_tone" in other.factors
    assert len(other.factors) == len(other.persons) == len(other.labels) == len(other.crops)
    assert len(rows) == len(other.labels) + other.mapping["no face"].sum()
    monkeypatch.setattr(external, "read_config", lambda _: {"data_hash": data.data_hash})
    own = external.load_external(recognizer, "demo")
    np.testing.assert_array_equal(own.crops, data.faces[rows])
    np.testing.assert_array_equal(own.persons, data.persons[rows])


def test_what_cannot_be_evaluated_is_told_in_a_line(recognizer, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"expected a packed data set .* or a folder .*; check the path"):
        external.load_external(recognizer, str(tmp_path / "none"))
    (tmp_path / "train" / "happy").mkdir(parents=True)
    with pytest.raises(DataError, match=r"found split folders \(train\); give one of them, such as .*train"):
        external.load_external(recognizer, str(tmp_path))
    monkeypatch.setattr(external, "get_packed_dir", lambda _: tmp_path / "nothing")
    with pytest.raises(DataError, match="fer_lib prepare --dataset demo"):
        external.load_external(recognizer, "demo")
    shutil.rmtree(tmp_path / "train")
    (tmp_path / "xyz").mkdir()
    with pytest.raises(DataError, match=r"found xyz; give the folder that holds the classes"):
        external.load_external(recognizer, str(tmp_path))
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "cut.png").write_bytes(b"\x89PNG cut off")
    with pytest.raises(DataError, match=r"none in 1 images; 0 show none and 1 cannot be read.*cut\.png"):
        external.load_external(recognizer, str(tmp_path))


@pytest.mark.parametrize("count", ["0", "-1", "few"])
def test_number_of_faces_is_checked(count):
    done = run_fer_lib(REPO, "audit", f"--faces={count}")
    assert done.returncode == 2
    assert "--faces" in done.stderr


def test_commands_print_the_mapping_and_write_the_report(folder, tiny_project, tmp_path_factory):
    out = tmp_path_factory.mktemp("external") / "audit"
    given = ("--model", "photographs", "--variant", "tiny", "--data", folder)
    done = run_fer_lib(tiny_project, "evaluate", *given)
    assert done.returncode == 0, done.stderr
    assert "other spelling of angry" in done.stdout
    assert "accuracy" in done.stdout
    done = run_fer_lib(tiny_project, "audit", *given, "--out", out, "--faces", 5)
    assert done.returncode == 0, done.stderr
    page = (out / "audit.html").read_text()
    assert 'id="figure-accuracy"' in page
    assert "nothing here describes persons" in page
    assert "Privacy leakage" not in page  # of the study's own networks
    found = json.loads((out / "audit.json").read_text())
    assert found["n_faces"] == 9
    assert found["n_perturbed"] == 5
    wanted = {"blur.3.macro_recall_lo", "external.accuracy_hi", "group.luminance.gap", "git_commit"}
    assert wanted <= set(found)


def test_broken_image_is_listed_and_the_rest_is_scored(folder):
    (folder / "sad" / "cut.png").write_bytes((folder / "sad" / "0.png").read_bytes()[:900])
    (folder / "sad" / "notes.txt").write_text("none")
    done = run_fer_lib(REPO, "evaluate", "--variant", "tiny", "--data", folder)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"error: {folder / 'sad' / 'cut.png'}: the image is damaged" in done.stderr
    found = "9 faces of 3 of 7 classes, passed over 1 (.txt: 1), of classes left out 3 (asleep: 3), "
    assert f"{found}without a face 0, unreadable 1" in done.stdout


def test_one_face_gets_no_interval_of_width_zero(folder):
    for name in ("sad", "Anger", "asleep"):
        shutil.rmtree(folder / name)
    for name in ("1.png", "2.png"):
        (folder / "happy" / name).unlink()
    done = run_fer_lib(REPO, "evaluate", "--data", folder)
    assert done.returncode == 0, done.stderr
    found = [re.split(r"  +", line) for line in done.stdout.splitlines()[3:]]
    shown = {title: value.replace("\N{NO-BREAK SPACE}", " ") for title, value in found[1:]}
    assert found[0][0].startswith(f"{folder}: 1 face of 1 of 7 classes, passed over 0, ")
    # Wilson's interval of 1 of 1, or of 0 of 1; a face of the demo set may be named wrongly.
    assert shown["accuracy"] in ("1.000 [0.207, 1.000]", "0.000 [0.000, 0.793]")
    assert shown["recall of happy"] == shown["accuracy"]
    assert "the same in every resample" in shown["macro recall, 1 of 7 classes"]
    assert "the same in every resample" in shown["ECE"]


def test_folder_of_a_packed_data_set_is_taken_for_it(recognizer, tiny_project):
    faces = external.load_external(recognizer, str(tiny_project / "data" / "packed" / "demo"))
    assert faces.name == "the test split of demo"
    assert len(faces.labels) > 0


def test_few_faces_are_not_audited(recognizer, folder):
    with pytest.raises(DataError, match=r"expected at least 100 faces .*, found 9; give more"):
        external.load_external(recognizer, str(folder), min_faces=100)
