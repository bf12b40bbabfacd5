import shutil

import numpy as np
import pytest
from raw_layouts import build_params, write_image, write_rafdb

from fer_lib.data.prepare import prepare
from fer_lib.data.readers import open_raw
from fer_lib.data.readers.base import BadRow
from fer_lib.data.readers.rafdb import CODES
from fer_lib.errors import DataError, ParamsError
from fer_lib.labels import EMOTIONS_7

# RAF-DB's codes 1 to 7, from the readme of the set
EMOTIONS_OF_CODES = ["surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"]


def open_set(folder, **params):
    return open_raw("rafdb", build_params(**params), folder)


def write_copy(folder, names=tuple("1234567")):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in names:
            for i in range(3):
                write_image(folder / split / name / f"{i}.jpg", rng.integers(0, 256, (16, 16, 3), np.uint8))
    return folder


def test_codes_are_those_of_the_set():
    assert dict(zip("1234567", EMOTIONS_OF_CODES, strict=True)) == CODES


@pytest.mark.parametrize("lists", ["EmoLabel", "."])
@pytest.mark.parametrize("inside", ["", "RAF-DB/basic"])
def test_the_official_layout(tmp_path, lists, inside):
    write_rafdb(tmp_path / inside, range(1, 8), lists=lists)
    raw = open_set(tmp_path)
    faces = list(raw.rows)
    assert raw.layout == "list"
    assert raw.n_rows == 14
    assert [EMOTIONS_7[face.label] for face in faces] == 2 * EMOTIONS_OF_CODES
    assert [face.split for face in faces] == ["train|val"] * 7 + ["test"] * 7
    assert faces[1].source == f"{lists}/list_patition_label.txt:2".removeprefix("./")
    assert {face.image.shape for face in faces} == {(16, 16, 3)}  # the aligned ones, not the photographs


def test_the_name_of_the_list_may_be_spelled_correctly(tmp_path):
    path = write_rafdb(tmp_path, [1])
    path.rename(path.with_name("list_partition_label.txt"))
    assert [face.source for face in open_set(tmp_path).rows] == [
        "EmoLabel/list_partition_label.txt:1",
        "EmoLabel/list_partition_label.txt:2",
    ]


def test_the_basic_emotions_are_read_beside_the_compound_ones(tmp_path):
    write_rafdb(tmp_path / "basic", [3])
    (tmp_path / "compound/EmoLabel").mkdir(parents=True)
    (tmp_path / "compound/EmoLabel/list_patition_label.txt").write_text("train_0001.jpg 11\n")
    assert [face.label for face in open_set(tmp_path).rows] == [1, 1]


def test_original_images_serve_where_no_aligned_ones_are(tmp_path):
    write_rafdb(tmp_path, [4], kinds=["original"])
    assert {face.image.shape for face in open_set(tmp_path).rows} == {(32, 32, 3)}


@pytest.mark.parametrize("place", ["aligned", "Image/aligned/aligned", "elsewhere"])
def test_images_are_found_wherever_they_lie(tmp_path, place):
    write_rafdb(tmp_path, [4], kinds=["aligned"])
    (tmp_path / "Image").rename(tmp_path / "moved")
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "moved/aligned").rename(tmp_path / place)
    assert [face.label for face in open_set(tmp_path).rows] == [3, 3]


@pytest.mark.parametrize("with_folder", [False, True])
def test_a_list_without_images_is_one_error(tmp_path, with_folder):
    write_rafdb(tmp_path, [4], kinds=[])
    if with_folder:
        (tmp_path / "Image").mkdir()
    with pytest.raises(DataError) as error:
        open_set(tmp_path, skip_bad=True)
    message = str(error.value)
    assert message.startswith(
        f"{tmp_path}: expected the images of list_patition_label.txt, aligned or original"
    )
    assert (str(tmp_path / "Image/train_00000.jpg") in message) == with_folder
    assert message.endswith(f"unpack the images below {tmp_path}")
    assert "\n" not in message


def test_bad_rows_of_the_list(tmp_path):
    path = write_rafdb(tmp_path, [1, 2])
    (tmp_path / "Image/aligned/test_00001_aligned.jpg").unlink()
    path.write_text(path.read_text() + "\ntrain_00000.jpg 8\ntrain_00000.jpg\nval_1.jpg 3\n")
    rows = list(open_set(tmp_path).rows)
    assert [(row.source, row.reason) for row in rows if isinstance(row, BadRow)] == [
        (
            "EmoLabel/list_patition_label.txt:4",
            "expected an image, found no file; check the path [test_00001_aligned.jpg]",
        ),
        ("EmoLabel/list_patition_label.txt:6", "expected an expression code 1 to 7, found '8'"),
        ("EmoLabel/list_patition_label.txt:7", "expected an image and its code, found 'train_00000.jpg'"),
        ("EmoLabel/list_patition_label.txt:8", "expected an image named train_ or test_, found 'val_1.jpg'"),
    ]


@pytest.mark.parametrize("names", [tuple("1234567"), tuple("123457"), EMOTIONS_OF_CODES])
def test_the_copy_in_class_folders(tmp_path, names):
    write_copy(tmp_path / "DATASET", names)
    (tmp_path / "train_labels.csv").write_text("image,label\n")
    raw = open_set(tmp_path)
    faces = list(raw.rows)
    assert raw.layout == "split folders"
    assert len(faces) == 2 * 3 * len(names)
    for face in faces:
        split, name, _ = face.source.split("/")
        assert face.split == {"train": "train|val", "test": "test"}[split]
        assert EMOTIONS_7[face.label] == CODES.get(name, name)


def test_own_codes_replace_those_of_the_set(tmp_path):
    own = dict(zip("1234567", EMOTIONS_7, strict=True))
    write_copy(tmp_path / "copy")
    assert [face.label for face in open_set(tmp_path / "copy", classes=own).rows][::3] == 2 * [*range(7)]
    write_rafdb(tmp_path / "official", [1, 7])
    left_out = {"7": None}
    assert [face and face.label for face in open_set(tmp_path / "official", classes=left_out).rows] == [
        *(5, None),
        *(5, None),
    ]


def test_eight_classes_are_refused(tmp_path):
    write_rafdb(tmp_path, [1])
    with pytest.raises(ParamsError, match=r"prepare\.n_classes: rafdb has 7, found 8"):
        open_set(tmp_path, n_classes=8)


def test_no_layout_is_an_error_that_names_what_is_expected(tmp_path):
    write_rafdb(tmp_path, [1])
    shutil.rmtree(tmp_path / "EmoLabel")
    (tmp_path / "notes.csv").write_bytes(b"x")
    with pytest.raises(DataError, match=r"expected list_patition_label\.txt and .*found Image, notes\.csv"):
        open_set(tmp_path)


@pytest.mark.parametrize("layout", ["list", "split folders"])
@pytest.mark.parametrize("inside", ["", "archive"])
def test_prepare_packs_each_layout(tmp_path, layout, inside):
    folder = tmp_path / "raw" / inside
    if layout == "list":
        write_rafdb(folder, 3 * [*range(1, 8)])
    else:
        write_copy(folder / "DATASET")
    params = build_params(val_fraction=0.3, channels=3)
    meta = prepare("rafdb", params, tmp_path / "raw", tmp_path / "packed", progress=False)
    assert (meta["layout"], meta["n_faces"], meta["n_dropped"]) == (layout, 42, 0)
    assert sum(meta["counts"]["test"].values()) == 21
    assert sum(meta["counts"]["val"].values()) > 0
    again = prepare("rafdb", params, tmp_path / "raw", tmp_path / "again", progress=False)
    assert again["data_hash"] == meta["data_hash"]
