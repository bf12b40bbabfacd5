import cv2
import numpy as np
import pytest
from conftest import run_fer_lib

from fer_lib import outside
from fer_lib.datasets.demo import make_face
from fer_lib.errors import DataError
from fer_lib.labels import EMOTIONS_7
from fer_lib.recognizer import Recognizer
from fer_lib.scenes import draw_scene


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.load()


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
    faces = outside.load_outside(recognizer, str(folder))
    table = faces.mapping.set_index("class")
    assert table["model's emotion"].to_dict() == {
        "happy": "happy",
        "sad": "sad",
        "Anger": "angry",
        "asleep": outside.LEFT_OUT,
    }
    assert table["pictures"].tolist() == [3, 3, 3, 3]
    assert sorted({EMOTIONS_7[label] for label in faces.labels}) == ["angry", "happy", "sad"]
    assert len(faces.crops) == 9
    framing = recognizer.framing
    assert all(crop.shape == (framing.size, framing.size) for crop in faces.crops)


def test_class_that_the_model_lacks_is_left_out():
    table = outside.map_classes(["contempt", "happiness"], EMOTIONS_7, ["contempt", "happiness", "happiness"])
    assert table["model's emotion"].tolist() == [outside.LEFT_OUT, "happy"]
    assert table["pictures"].tolist() == [1, 2]


def test_largest_face_is_cut_as_recognize_cuts_it(recognizer):
    picture, _ = draw_scene(2)
    largest = max(recognizer(picture), key=lambda face: face.box[2] * face.box[3])
    np.testing.assert_array_equal(outside.cut_largest(recognizer, picture, recognizer.detector), largest.crop)


@pytest.mark.parametrize("shape", [(48, 48), (48, 48, 3)])
def test_crop_is_taken_whole(recognizer, shape):
    crop = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = outside.cut_largest(recognizer, crop, recognizer.detector)
    assert found.shape == (48, 48)
    if len(shape) == 2:
        np.testing.assert_array_equal(found, crop)


def test_what_cannot_be_evaluated_is_told_in_a_line(recognizer, tmp_path):
    with pytest.raises(DataError, match="expected a packed data set or a folder"):
        outside.load_outside(recognizer, str(tmp_path / "none"))
    (tmp_path / "asleep").mkdir()
    with pytest.raises(DataError, match="expected faces of angry"):
        outside.load_outside(recognizer, str(tmp_path))


def test_commands_print_the_mapping_and_write_the_report(folder, tmp_path_factory):
    for path in (folder / "happy", folder / "sad"):  # an audit needs some faces
        for index in range(3, 10):
            (path / f"{index}.png").write_bytes((path / f"{index % 3}.png").read_bytes())
    root = tmp_path_factory.mktemp("outside")
    from conftest import REPO

    done = run_fer_lib(REPO, "evaluate", "--model", "fer2013-b0", "--form", "tiny", "--data", folder)
    assert done.returncode == 0, done.stderr
    assert "other spelling of angry" in done.stdout
    assert "accuracy" in done.stdout
    out = root / "audit"
    arguments = ("audit", "--form", "tiny", "--data", folder, "--out", out, "--faces", 5)
    done = run_fer_lib(REPO, *arguments)
    assert done.returncode == 0, done.stderr
    page = (out / "audit.html").read_text()
    assert 'id="figure-curves"' in page
    assert "no conclusion about persons" in page
    assert (out / "audit.json").is_file()
