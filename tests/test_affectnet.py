import re
import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_layouts import (
    build_params,
    write_affectnet_labels,
    write_affectnet_lists,
    write_affectnet_sets,
    write_image,
    write_yolo,
)

from fer_lib.data.images import read_image
from fer_lib.data.packed import load_packed
from fer_lib.data.prepare import prepare
from fer_lib.data.readers import open_raw
from fer_lib.data.readers.affectnet import crop_square_box, open_affectnet
from fer_lib.data.readers.base import BadRow, Face
from fer_lib.data.readers.listed import walk_folders
from fer_lib.errors import DataError, ParamsError
from fer_lib.labels import EMOTIONS_7, EMOTIONS_8

# AffectNet's codes 0..7 as labels: neutral happy sad surprise fear disgust anger contempt
LABELS_OF_CODES = [6, 3, 4, 5, 2, 1, 0, 7]

COMPRESSED = "Manually_Annotated_compressed/Manually_Annotated_Images"

NAMES = ["Anger", "Contempt", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]
WHOLE = "0.5 0.5 1 1"
FORMS = ["{split}/images", "images/{split}"]


def open_set(folder, **params):
    return open_raw("affectnet", build_params(**params), folder)


def get_bad_rows(raw):
    return [row for row in raw.rows if isinstance(row, BadRow)]


# --- as its authors give it --------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [7, 8])
@pytest.mark.parametrize("layout", ["lists", "annotations"])
def test_official_layouts(tmp_path, layout, n_classes):
    write = write_affectnet_lists if layout == "lists" else write_affectnet_sets
    write(tmp_path)
    raw = open_set(tmp_path, n_classes=n_classes)
    items = list(raw.rows)
    faces = [item for item in items if isinstance(item, Face)]
    assert raw.layout == layout
    assert raw.n_rows == len(items) == 22
    assert [face.label for face in faces] == 2 * LABELS_OF_CODES[:n_classes]
    assert [face.split for face in faces] == ["train|val"] * n_classes + ["test"] * n_classes
    assert items.count(None) == 2 * (11 - n_classes)
    assert faces[0].factors == {"valence": 0.5, "arousal": -0.25}
    assert faces[0].image.shape[0] == faces[0].image.shape[1]


@pytest.mark.parametrize("lists", ["", "Manually_Annotated_file_lists", "x/lists"])
@pytest.mark.parametrize(
    "images", [".", "Manually_Annotated/Manually_Annotated_Images", COMPRESSED, "a/b/c", "my images"]
)
def test_images_and_lists_are_found_wherever_they_lie(tmp_path, lists, images):
    write_affectnet_lists(tmp_path / "archive", lists=lists, images=images)
    raw = open_set(tmp_path, n_classes=8)
    first, *others = raw.rows
    assert first.source == f"{lists}/training.csv:2".lstrip("/")
    assert np.array_equal(
        first.image, crop_square_box(read_image(tmp_path / "archive" / images / "0/tr0.png"), 5, 6, 20, 16)
    )
    assert not any(isinstance(row, BadRow) for row in others)


def test_images_are_found_although_the_first_listed_are_missing(tmp_path):
    write_affectnet_lists(tmp_path, images=COMPRESSED)
    for code in range(11):
        (tmp_path / COMPRESSED / f"{code}/tr{code}.png").unlink()  # those of validation.csv are there
    raw = open_set(tmp_path, skip_bad=True)
    assert len(get_bad_rows(raw)) == 7


def test_the_numbered_image_folders_are_not_listed(tmp_path, monkeypatch):
    write_affectnet_lists(tmp_path, images=COMPRESSED)
    listed = []
    monkeypatch.setattr(
        "fer_lib.data.readers.listed._list_folders",
        lambda folder: listed.append(folder.name) or sorted(p for p in folder.iterdir() if p.is_dir()),
    )
    open_affectnet(tmp_path, 7)
    assert listed == [tmp_path.name, "Manually_Annotated_compressed"]


@pytest.mark.parametrize("lists", ["", "Manually_Annotated_file_lists"])
def test_lists_without_images_are_one_error_that_says_where_they_were_looked_for(tmp_path, lists):
    write_affectnet_lists(tmp_path, lists=lists)
    shutil.rmtree(tmp_path / "Manually_Annotated_Images")
    for skip_bad in (False, True):
        with pytest.raises(DataError) as error:
            prepare("affectnet", build_params(skip_bad=skip_bad), tmp_path, tmp_path / "out", progress=False)
        message = str(error.value)
        assert message.startswith(f"{tmp_path}: expected the images of training.csv and validation.csv here")
        assert f"{tmp_path / '0/tr0.png'}" in message
        assert f"{tmp_path / lists / '0/tr0.png'}" in message
        assert message.endswith(f"; unpack the images below {tmp_path}")
        assert "skip_bad" not in message
        assert "\n" not in message


def test_of_many_searched_folders_eight_are_named(tmp_path):
    write_affectnet_lists(tmp_path, images="a/b/c/d")  # one folder too deep
    for i in range(20):
        (tmp_path / f"{i:02}").mkdir()
    n_searched = 1 + 20 + 3  # the root, the empty ones, and a to a/b/c
    with pytest.raises(DataError) as error:
        open_affectnet(tmp_path, 7)
    assert f" and {n_searched - 8} others; " in str(error.value)
    assert str(error.value).count("tr0.png") == 8


def test_lists_without_rows_ask_for_no_images(tmp_path):
    write_affectnet_lists(tmp_path)
    for name in ("training.csv", "validation.csv"):
        (tmp_path / name).write_text((tmp_path / name).read_text().splitlines()[0])
    assert list(open_affectnet(tmp_path, 7).rows) == []


def test_folders_come_nearest_first_and_links_in_a_circle_end(tmp_path):
    for name in ("b/x", "a/y/z/deep", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    found = [path.relative_to(tmp_path).as_posix() for path in walk_folders(tmp_path)]
    assert found == [".", "a", "b", "a/y", "b/x", "a/y/z"]
    (tmp_path / "b" / "x" / "back").symlink_to(tmp_path)
    assert len(list(walk_folders(tmp_path))) == len(found) + 1


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (0, "0/missing.png", "expected an image, found no file; check the path [0/missing.png]"),
        (1, "NULL", "expected a face box in pixels, found 'NULL'"),
        (1, "90", "expected a face box inside the image (40x30), found x=90 y=6 width=20 height=16"),
        (3, "0", "expected a face box inside the image (40x30), found x=5 y=6 width=0 height=16"),
        (6, "11", "expected an expression code 0 to 10, found '11'"),
        (7, "high", "expected valence as a number, found 'high'"),
    ],
)
def test_bad_rows_of_a_list(tmp_path, field, value, reason):
    write_affectnet_lists(tmp_path)
    path = tmp_path / "training.csv"
    lines = path.read_text().splitlines()
    fields = lines[1].split(",")
    fields[field] = value
    path.write_text("\n".join([lines[0], ",".join(fields), *lines[2:]]))
    assert get_bad_rows(open_affectnet(tmp_path, 8)) == [BadRow("training.csv:2", reason)]


def test_a_missing_annotation_is_a_bad_row(tmp_path):
    write_affectnet_sets(tmp_path)
    (tmp_path / "val_set" / "annotations" / "3_exp.npy").unlink()
    assert get_bad_rows(open_affectnet(tmp_path, 8)) == [
        BadRow(
            "val_set/images/3.jpg",
            "expected an annotation that can be read, found none; check annotations/3_exp.npy",
        )
    ]


@settings(deadline=None)
@given(x=st.integers(-20, 20), y=st.integers(-20, 15), width=st.integers(1, 40), height=st.integers(1, 40))
def test_square_box_repeats_the_border_outside_the_frame(x, y, width, height):
    image = np.random.default_rng(0).integers(0, 256, (16, 21, 3), np.uint8)
    if x >= 21 or y >= 16 or x + width <= 0 or y + height <= 0:
        with pytest.raises(ValueError, match=r"expected a face box inside the image \(21x16\)"):
            crop_square_box(image, x, y, width, height)
        return
    side = max(width, height)
    rows = np.clip(np.arange(side) + y + (height - side) // 2, 0, 15)
    columns = np.clip(np.arange(side) + x + (width - side) // 2, 0, 20)
    assert np.array_equal(crop_square_box(image, x, y, width, height), image[rows][:, columns])


# --- labels.csv --------------------------------------------------------------------------------------


def test_images_of_labels_may_lie_in_train_and_test(tmp_path):
    write_affectnet_labels(tmp_path, ["happy", "sad", "anger", "fear"], images="Train")
    (tmp_path / "Test" / "sad").mkdir(parents=True)
    (tmp_path / "Train" / "sad").rename(tmp_path / "Test" / "sad")
    raw = open_raw("affectnet", build_params(channels=3), tmp_path)
    assert [(EMOTIONS_7[face.label], face.split) for face in raw.rows] == [
        ("happy", "train|val"),
        ("sad", "test"),
        ("angry", "train|val"),
        ("fear", "train|val"),
    ]


@pytest.mark.parametrize("images", [".", "train", "a/b"])
def test_the_label_counts_not_the_folder(tmp_path, images):
    # Alone, a class folder would say anger for both.
    write_affectnet_labels(tmp_path / "archive (3)", ["surprise", "anger"], images, ["anger", "anger"])
    raw = open_set(tmp_path)
    surprise, angry = raw.rows
    assert raw.layout == "labels"
    assert raw.n_rows == 2
    assert raw.classes == {"anger": "angry", "surprise": "surprise"}
    assert [EMOTIONS_7[face.label] for face in (surprise, angry)] == ["surprise", "angry"]
    assert {face.split for face in (surprise, angry)} <= {"", "train|val|test"}  # which mean the same
    assert [face.source for face in (surprise, angry)] == ["labels.csv:2", "labels.csv:3"]
    assert surprise.factors == {"relFCs": 0.5}
    path = tmp_path / "archive (3)" / images / "anger" / "image0000000.png"
    assert np.array_equal(surprise.image, read_image(path))


def test_bad_rows_of_labels(tmp_path):
    path = write_affectnet_labels(tmp_path, ["sad", "bored", "happy", "fear"])
    (tmp_path / "happy" / "image0000002.png").unlink()
    path.write_text(path.read_text().replace(",fear,0.53", ",fear,much") + "4,fear\n")
    assert get_bad_rows(open_set(tmp_path)) == [
        BadRow("labels.csv:3", "expected an emotion as label, found 'bored'; name it under prepare.classes"),
        BadRow("labels.csv:4", "expected an image, found no file; check the path [happy/image0000002.png]"),
        BadRow("labels.csv:5", "expected relFCs as a number, found 'much'"),
        BadRow("labels.csv:6", "expected 4 fields, found 2 (is the file cut off here?)"),
    ]


def test_labels_without_images_are_one_error(tmp_path):
    write_affectnet_labels(tmp_path, ["sad", "happy"])
    for name in ("sad", "happy"):
        shutil.rmtree(tmp_path / name)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(DataError, match=r"expected the images of labels\.csv here.*unpack") as error:
        open_set(tmp_path)
    for folder in (tmp_path, tmp_path / "elsewhere"):
        assert str(folder / "sad/image0000000.png") in str(error.value)


def test_own_names_of_classes_are_taken_from_the_parameters(tmp_path):
    write_affectnet_labels(tmp_path, ["grin", "other", "sad"])
    raw = open_set(tmp_path, classes={"grin": "happy", "other": None})
    happy, left_out, sad = raw.rows
    assert (EMOTIONS_7[happy.label], left_out, EMOTIONS_7[sad.label]) == ("happy", None, "sad")
    assert raw.classes == {"grin": "happy", "other": None, "sad": "sad"}
    with pytest.raises(DataError, match=r"expected a class 'grim' as prepare\.classes .* says, found sad"):
        open_set(tmp_path, classes={"grim": "sad"})


def test_official_lists_come_before_a_table_that_someone_made_of_them(tmp_path):
    write_affectnet_lists(tmp_path)
    (tmp_path / "labels.csv").write_text("path,emotion\n")
    assert open_set(tmp_path).layout == "lists"


# --- YOLO --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("names", [NAMES, dict(enumerate(NAMES))])
def test_yolo_boxes_are_cropped_square(tmp_path, form, names):
    texts = {
        "train": [f"6 {WHOLE}\n", "4 0.25 0.5 0.5 0.6\n\n7 0.75 0.5 0.25 0.5\n"],
        "valid": [f"0 {WHOLE}"],
    }
    write_yolo(tmp_path / "YOLO_format", form, texts | {"test": [f"5 {WHOLE}"]}, names)
    raw = open_set(tmp_path)
    faces = list(raw.rows)
    labels = [form.format(split=split).replace("images", "labels") for split in ("train", "valid", "test")]
    assert raw.layout == "yolo"
    assert raw.n_rows == 5
    assert [face.source for face in faces] == [
        f"{labels[0]}/face_0.txt:1",
        f"{labels[0]}/face_1.txt:1",
        f"{labels[0]}/face_1.txt:3",
        f"{labels[1]}/face_0.txt:1",
        f"{labels[2]}/face_0.txt:1",
    ]
    assert [EMOTIONS_7[face.label] for face in faces] == ["sad", "happy", "surprise", "angry", "neutral"]
    assert [face.split for face in faces] == ["train", "train", "train", "val", "test"]
    assert raw.classes["Contempt"] is None
    # Of 40 x 20 pixels: 0 to 20 by 4 to 16, and 25 to 35 by 5 to 15
    image = read_image(tmp_path / "YOLO_format" / form.format(split="train") / "face_1.png")
    assert np.array_equal(faces[1].image, crop_square_box(image, 0, 4, 20, 12))
    assert np.array_equal(faces[2].image, image[5:15, 25:35])


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_fractions_give_back_the_pixels_they_were_made_from(tmp_path_factory, data):
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 20))
    x, y = data.draw(st.integers(0, 40 - width)), data.draw(st.integers(0, 20 - height))
    box = ((x + width / 2) / 40, (y + height / 2) / 20, width / 40, height / 20)
    folder = tmp_path_factory.mktemp("yolo")
    write_yolo(folder, "images", {"": [f"0 {' '.join(f'{value:.6f}' for value in box)}"]}, NAMES)
    (face,) = open_set(folder).rows
    image = read_image(folder / "images" / "face_0.png")
    assert np.array_equal(face.image, crop_square_box(image, x, y, width, height))


@pytest.mark.parametrize(
    ("given_splits", "expected"),
    [
        (["train"], ["train|val|test"]),
        (["train", "test"], ["train|val", "test"]),
        (["training", "dev"], ["train|test", "val"]),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_yolo_leaves_missing_splits_to_train(tmp_path, form, given_splits, expected):
    write_yolo(tmp_path, form, {split: [f"0 {WHOLE}"] for split in given_splits}, NAMES)
    assert [face.split for face in open_set(tmp_path).rows] == expected


def test_yolo_without_split_folders(tmp_path):
    write_yolo(tmp_path, "images", {"": [f"0 {WHOLE}", f"1 {WHOLE}"]}, NAMES)
    face, left_out = open_set(tmp_path).rows
    assert (face.source, face.split, left_out) == ("labels/face_0.txt:1", "", None)


def test_yolo_counts_images_and_labels_without_a_counterpart(tmp_path):
    write_yolo(tmp_path, "train/images", {"train": [f"0 {WHOLE}", "\n", f"3 {WHOLE}"]}, NAMES)
    labels = tmp_path / "train" / "labels"
    (labels / "face_2.txt").rename(labels / "faces_2.txt")
    (labels / "classes.txt").write_text("anger\n")
    raw = open_set(tmp_path)
    assert len(list(raw.rows)) == 1
    assert Counter(raw.passed_over.values()) == {"image without a label": 2, "label without an image": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("8 0.5 0.5 1 1", "expected a class id of data.yaml, found '8'"),
        ("anger 0.5 0.5 1 1", "expected a class id of data.yaml, found 'anger'"),
        ("0 0.5 0.5 1", "expected a class id and a box in 5 fields, found 4"),
        ("0 0.5 0.5 1 96", "expected a box in fractions of the image, found '96'"),
        ("0 nan 0.5 1 1", "expected a box in fractions of the image, found 'nan'"),
        ("0 0.5 0.5 1 all", "expected a side of the box as a number, found 'all'"),
        ("0 0.5 0.5 0 1", "expected a face box inside the image (40x20), found x=20 y=0 width=0 height=20"),
    ],
)
def test_bad_rows_of_yolo(tmp_path, line, reason):
    write_yolo(tmp_path, "images/train", {"train": [f"0 {WHOLE}", line]}, NAMES)
    assert get_bad_rows(open_set(tmp_path)) == [BadRow("labels/train/face_1.txt:1", reason)]


def test_a_damaged_image_of_yolo_is_named(tmp_path):
    write_yolo(tmp_path, "images", {"": [f"0 {WHOLE}"]}, NAMES)
    (tmp_path / "images" / "face_0.png").write_bytes(b"x")
    (bad,) = open_set(tmp_path).rows
    assert bad.reason.startswith("expected an image, found a file that is none; ")
    assert bad.reason.endswith("[images/face_0.png]")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda d: (d / "data.yaml").unlink(),
            r"expected data\.yaml with the class names .*, found no YAML file; add them",
        ),
        (
            lambda d: (d / "data.yaml").write_text("nc: 8"),
            r"expected data\.yaml with .*`names: \[anger, contempt\]`, found no names in data\.yaml; add",
        ),
        (
            lambda d: (d / "data.yaml").write_text("names: [a"),
            r"data\.yaml: expected YAML, found an error \(.*\); correct it",
        ),
        (
            lambda d: (d / "data.yaml").write_text("names: [anger, contemp]"),
            r"data\.yaml: expected emotions under `names`, found 'contemp'; .*`classes: {contemp: contempt}`",
        ),
        (
            lambda d: shutil.rmtree(d / "test/labels"),
            r"test/labels: expected the labels of .*test/images, found no folder; unpack them there",
        ),
        (
            lambda d: (d / "test/images/face_0.png").unlink(),
            r"test/images: expected images, found none; fill the folder or remove it",
        ),
        (
            lambda d: shutil.rmtree(d / "train"),
            r"expected images to train on beside test/images, found none; add them",
        ),
        (
            lambda d: [path.unlink() for path in d.glob("*/labels/*")],
            r"expected label files named as the images are, found none with a box for 2 images; unpack",
        ),
        (
            lambda d: (d / "others").mkdir(),
            r"expected split folders alone .*, found test/, train/ and beside it others/",
        ),
    ],
)
def test_yolo_errors(tmp_path, spoil, message):
    write_yolo(tmp_path, "{split}/images", {"train": [f"0 {WHOLE}"], "test": [f"0 {WHOLE}"]}, NAMES)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        open_set(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_yolo_takes_other_yaml_files_and_own_names(tmp_path):
    write_yolo(tmp_path, "images", {"": [f"0 {WHOLE}", f"1 {WHOLE}"]}, ["smile", "blank"])
    (tmp_path / "data.yaml").rename(tmp_path / "faces.yml")
    (tmp_path / "._data.yaml").write_bytes(b"left by macOS")
    (tmp_path / "args.yaml").write_text("epochs: 3")
    face, left_out = open_set(tmp_path, classes={"smile": "happy", "blank": None}).rows
    assert (EMOTIONS_7[face.label], left_out) == ("happy", None)


# --- seven or eight classes, and all the way to the store --------------------------------------------


@pytest.mark.parametrize("layout", ["labels", "yolo"])
def test_repacks_with_and_without_contempt(tmp_path, layout):
    def write(folder, names):
        if layout == "labels":
            write_affectnet_labels(folder, names)
        else:
            write_yolo(folder, "images", {"": [f"{i} {WHOLE}" for i in range(len(names))]}, names)
        return folder

    with_it = write(tmp_path / "8", NAMES)
    without = write(tmp_path / "7", [name for name in NAMES if name != "Contempt"])
    found = [face and EMOTIONS_8[face.label] for face in open_set(with_it, n_classes=8).rows]
    assert found == ["angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    assert list(open_set(with_it, n_classes=7).rows)[1] is None
    assert None not in list(open_set(without, n_classes=7).rows)
    with pytest.raises(
        ParamsError, match=r"expected contempt among 8 classes, found .*prepare\.n_classes: 7"
    ):
        open_set(without, n_classes=8)


def write_compressed_lists(folder):
    write_affectnet_lists(folder, "Manually_Annotated_file_lists", COMPRESSED)


def write_table(folder):
    write_affectnet_labels(folder, 10 * NAMES)


def write_boxes(folder):
    texts = [f"{i % 8} {WHOLE}" for i in range(80)]
    write_yolo(folder, "{split}/images", {"train": texts, "valid": texts[:8], "test": texts[8:16]}, NAMES)


@pytest.mark.parametrize(
    ("write", "n_faces", "n_excluded"),
    [
        (write_compressed_lists, 14, 8),
        (write_affectnet_sets, 14, 8),
        (write_table, 70, 10),
        (write_boxes, 84, 12),
    ],
)
@pytest.mark.parametrize("inside", ["", "archive/AffectNet"])
def test_prepare_packs_each_layout(tmp_path, write, n_faces, n_excluded, inside):
    write(tmp_path / "raw" / inside)
    params = build_params(val_fraction=0.3, test_fraction=0.2, channels=3)
    meta = prepare("affectnet", params, tmp_path / "raw", tmp_path / "packed", progress=False)
    assert (meta["n_faces"], meta["n_excluded"], meta["n_dropped"]) == (n_faces, n_excluded, 0)
    assert all(sum(of_class.values()) for of_class in meta["counts"].values())
    again = prepare("affectnet", params, tmp_path / "raw", tmp_path / "again", progress=False)
    assert again["data_hash"] == meta["data_hash"]


def test_relfcs_is_a_column_of_the_index(tmp_path):
    write_table(tmp_path / "raw")
    params = build_params(val_fraction=0.3, test_fraction=0.2)
    prepare("affectnet", params, tmp_path / "raw", tmp_path / "packed", progress=False)
    index = load_packed("affectnet", tmp_path / "packed").index
    lines = index["source"].str.removeprefix("labels.csv:").astype(int)
    assert index["relFCs"].to_numpy() == pytest.approx(0.5 + (lines.to_numpy() - 2) / 100)


def test_missing_images_are_dropped_under_one_reason(tmp_path):
    write_affectnet_lists(tmp_path / "raw")
    for code in (0, 1, 2):
        (tmp_path / "raw/Manually_Annotated_Images" / f"{code}/tr{code}.png").unlink()
    params = build_params(val_fraction=0.5, skip_bad=True)
    meta = prepare("affectnet", params, tmp_path / "raw", tmp_path / "packed", progress=False)
    assert meta["dropped"] == {"expected an image, found no file": 3}
    with pytest.raises(DataError, match=re.escape("found no file; check the path [0/tr0.png]; correct it")):
        prepare("affectnet", build_params(), tmp_path / "raw", tmp_path / "packed", progress=False)


def test_no_layout_names_all_that_are_known(tmp_path):
    write_image(tmp_path / "faces" / "a.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        DataError, match=r"training\.csv .*train_set/ .*labels\.csv.*images/.*found faces, no"
    ):
        open_set(tmp_path)
