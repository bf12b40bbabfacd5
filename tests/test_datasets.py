import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_layouts import (
    build_params,
    encode_image,
    make_rows,
    write_csv,
    write_folders,
    write_icml,
    write_image,
    write_parquet,
    write_votes,
)

from fer_lib.cli import pipeline
from fer_lib.data.images import read_image
from fer_lib.data.readers import READERS, open_raw
from fer_lib.data.readers.base import BadRow, Face
from fer_lib.data.readers.fer2013 import count_majority, open_fer2013, open_ferplus
from fer_lib.data.readers.folders import open_folder
from fer_lib.errors import DataError, ParamsError
from fer_lib.labels import EMOTIONS_8, VOTES
from fer_lib.paths import ROOT, get_raw_dir

WRITERS = {
    "parquet": write_parquet,
    "fer2013.csv": write_csv,
    "icml_face_data.csv": write_icml,
    "folders": write_folders,
}


# --- FER2013 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", WRITERS)
def test_fer2013_layouts_give_the_same_faces(tmp_path, layout):
    rows = make_rows()
    WRITERS[layout](tmp_path, rows)
    raw = open_fer2013(tmp_path)
    faces = list(raw.rows)
    assert raw.layout == layout
    assert raw.n_rows == len(faces) == 12
    assert [face.label for face in faces] == rows.labels
    assert [face.split for face in faces] == rows.splits
    assert np.array_equal([face.image for face in faces], rows.images)


def test_fer2013_prefers_the_first_layout_of_the_documented_order(tmp_path):
    for layout in reversed(WRITERS):
        WRITERS[layout](tmp_path, make_rows())
        assert open_fer2013(tmp_path).layout == layout


def test_several_parquet_files_are_refused_and_named(tmp_path):
    path = write_parquet(tmp_path, make_rows())
    (tmp_path / "._fer2013.parquet").write_bytes(b"left by macOS")
    assert open_fer2013(tmp_path).layout == "parquet"
    path.rename(tmp_path / "b.parquet")
    write_parquet(tmp_path, make_rows()).rename(tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"expected one \*\.parquet file, found 2 \(a\.parquet, b\.parquet\); join"
    ):
        open_fer2013(tmp_path)


def test_fer2013_csv_source_is_the_line_an_editor_shows(tmp_path):
    path = write_csv(tmp_path, make_rows())
    face = list(open_fer2013(tmp_path).rows)[4]
    line = int(face.source.removeprefix("fer2013.csv:"))
    assert path.read_text().splitlines()[line - 1].startswith(f"{face.label},{face.image[0, 0]} ")


def test_fer2013_votes_come_from_either_file(tmp_path):
    rows = make_rows()
    write_parquet(tmp_path / "a", rows)
    write_csv(tmp_path / "b", rows)
    write_votes(tmp_path / "b", rows)
    for name in "ab":
        faces = list(open_fer2013(tmp_path / name).rows)
        assert list(faces[0].factors) == [f"votes_{vote}" for vote in VOTES]
        assert np.array_equal([list(face.factors.values()) for face in faces], rows.votes)


def test_fer2013_without_votes_has_no_factors(tmp_path):
    write_parquet(tmp_path, make_rows(), votes=False)
    assert all(face.factors == {} for face in open_fer2013(tmp_path).rows)


@pytest.mark.parametrize("more", ["pixels", "votes"])
def test_votes_with_another_row_count_are_refused(tmp_path, more):
    write_csv(tmp_path, make_rows(12 if more == "pixels" else 10))
    write_votes(tmp_path, make_rows(10 if more == "pixels" else 12))
    with pytest.raises(DataError, match=r"fer2013.*csv: expected a row for every row.*found only 10"):
        list(open_fer2013(tmp_path).rows)


def test_votes_in_another_order_are_refused(tmp_path):
    rows = make_rows()
    write_csv(tmp_path, rows)
    rows.usages[5] = "Training"
    write_votes(tmp_path, rows)
    with pytest.raises(DataError, match=r"fer2013new\.csv:7: expected the Usage of fer2013\.csv:7"):
        list(open_fer2013(tmp_path).rows)


def test_a_bad_vote_names_its_own_file(tmp_path):
    rows = make_rows()
    write_csv(tmp_path, rows)
    path = write_votes(tmp_path, rows)
    lines = path.read_text().splitlines()
    lines[3] = lines[3].rsplit(",", 1)[0] + ",many"
    path.write_text("\n".join(lines))
    bad = [item for item in open_fer2013(tmp_path).rows if isinstance(item, BadRow)]
    assert [(item.source, item.reason) for item in bad] == [
        ("fer2013.csv:4", "fer2013new.csv:4: expected a vote count 0 to 10, found 'many'")
    ]


def test_folders_without_prefixes_leave_val_to_be_cut_from_train(tmp_path):
    rows = make_rows()
    write_folders(tmp_path, rows, prefixes=False)
    expected = ["train|val" if usage == "Training" else "test" for usage in rows.usages]
    assert [face.split for face in open_fer2013(tmp_path).rows] == expected


def test_a_lone_file_without_its_prefix_is_a_bad_row(tmp_path):
    write_folders(tmp_path, make_rows())
    write_image(tmp_path / "test" / "sad" / "99.png", np.zeros((48, 48), np.uint8))
    assert list(open_fer2013(tmp_path).rows)[-1] == BadRow(
        "test/sad/99.png", "expected the prefix PublicTest_ or PrivateTest_"
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_csv_cut_anywhere_gives_whole_rows_and_at_most_one_bad_one(tmp_path_factory, data):
    rows = make_rows(3)
    folder = tmp_path_factory.mktemp("cut")
    path = write_csv(folder, rows)
    content = path.read_bytes()
    header = content.index(b"\n") + 1
    cut = data.draw(st.integers(header, len(content)))
    path.write_bytes(content[:cut])
    items = list(open_fer2013(folder).rows)
    faces = [item for item in items if isinstance(item, Face)]
    assert len(items) - len(faces) <= 1
    assert np.array_equal([face.image for face in faces], rows.images[: len(faces)].tolist())
    assert [face.split for face in faces] == rows.splits[: len(faces)]


# --- FER+ --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([10, 0, 0, 0, 0, 0, 0, 0, 0, 0], "neutral"),
        ([0, 0, 0, 0, 6, 2, 0, 2, 0, 0], "angry"),
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], None),  # half is no majority
        ([5, 1, 1, 1, 1, 1, 0, 0, 0, 0], "neutral"),  # single votes are outliers: 5 of 5 remain
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None),  # nothing remains
        ([2, 0, 0, 0, 0, 0, 0, 0, 8, 0], None),  # the winner is `unknown`
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], None),  # the winner is `not a face`
        ([4, 0, 0, 0, 0, 0, 0, 0, 4, 0], None),  # votes for `unknown` count against the majority
        ([0, 0, 0, 0, 0, 0, 2, 7, 0, 0], "contempt"),
    ],
)
def test_majority_follows_the_protocol_of_ferplus(votes, expected):
    result = count_majority(np.array(votes))
    assert (EMOTIONS_8[result[0]] if result else None) == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 10), min_size=10, max_size=10))
def test_soft_label_is_a_distribution_that_peaks_at_the_label(votes):
    result = count_majority(np.array(votes))
    if result is not None:
        label, soft_label = result
        assert soft_label.shape == (8,)
        assert soft_label.dtype == np.float32
        assert soft_label.sum() == pytest.approx(1, abs=1e-6)
        assert soft_label.argmax() == label
        assert (soft_label > 0).sum() == sum(count > 1 for count in votes[:8])


def test_ferplus_excludes_faces_without_majority_and_keeps_the_votes(tmp_path):
    rows = make_rows(3)
    rows.votes[:] = 0
    rows.votes[0, 1], rows.votes[1, 9], rows.votes[2, [3, 6]] = 10, 10, [7, 3]
    write_parquet(tmp_path, rows)
    happy, excluded, sad = open_ferplus(tmp_path).rows
    assert excluded is None
    assert EMOTIONS_8[happy.label] == "happy"
    assert EMOTIONS_8[sad.label] == "sad"
    # 7 votes for sadness, 3 for fear, in the order of EMOTIONS_8
    assert sad.soft_label.tolist() == pytest.approx([0, 0, 0.3, 0, 0.7, 0, 0, 0])
    assert sad.factors["votes_sadness"] == 7


@pytest.mark.parametrize("own_folder", [None, [], ["LICENSE", ".DS_Store"]])
def test_ferplus_without_pixels_of_its_own_takes_those_of_fer2013(tmp_path, monkeypatch, own_folder):
    rows = make_rows()
    write_csv(tmp_path / "fer2013", rows)
    write_votes(tmp_path / "fer2013", rows)
    if own_folder is not None:
        (tmp_path / "ferplus").mkdir()
        for name in own_folder:
            (tmp_path / "ferplus" / name).write_text("x")
    assert len(list(open_ferplus(tmp_path / "ferplus").rows)) == 12
    assert link_raw_dirs("ferplus", tmp_path, monkeypatch) == "fer2013"


def test_ferplus_with_pixels_of_its_own_reads_nothing_else(tmp_path, monkeypatch):
    write_csv(tmp_path / "fer2013", make_rows())
    write_csv(tmp_path / "ferplus", make_rows(9))
    write_votes(tmp_path / "ferplus", make_rows(9))
    assert len(list(open_ferplus(tmp_path / "ferplus").rows)) == 9
    assert link_raw_dirs("ferplus", tmp_path, monkeypatch) == "ferplus"


@pytest.mark.parametrize("beside", [[], ["LICENSE"]])
def test_votes_in_another_folder_than_the_pixels_are_refused(tmp_path, monkeypatch, beside):
    rows = make_rows()
    write_csv(tmp_path / "fer2013", rows)
    path = write_votes(tmp_path / "ferplus", rows)
    for name in beside:
        (path.parent / name).write_text("x")
    for read in (open_ferplus, lambda _: link_raw_dirs("ferplus", tmp_path, monkeypatch)):
        with pytest.raises(
            DataError, match=r"ferplus: expected fer2013new\.csv beside .*move it into .*fer2013$"
        ):
            read(tmp_path / "ferplus")
    path.rename(tmp_path / "fer2013" / path.name)  # what the message asks for
    assert len(list(open_ferplus(tmp_path / "ferplus").rows)) == 12


def link_raw_dirs(dataset: str, raw_root: Path, monkeypatch) -> str:
    """Return the folder that the pipeline, in a project of its own, watches for `dataset`."""
    monkeypatch.setattr(pipeline, "ROOT", raw_root / "project")
    monkeypatch.setattr(pipeline, "get_raw_dir", lambda name: raw_root / name)
    name = pipeline.link_raw_dirs(dataset)
    assert (raw_root / "project" / "data" / "raw" / name).samefile(raw_root / name)
    return name


@pytest.mark.parametrize("layout", ["parquet", "fer2013.csv", "folders"])
def test_ferplus_without_votes_is_an_error(tmp_path, layout):
    if layout == "parquet":
        write_parquet(tmp_path, make_rows(), votes=False)
    else:
        WRITERS[layout](tmp_path, make_rows())
    with pytest.raises(DataError, match=r"expected fer2013new\.csv beside fer2013\.csv"):
        open_ferplus(tmp_path)


# --- plain folders -----------------------------------------------------------------------------------


def test_folders_accept_other_spellings_and_image_formats(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_image(tmp_path / "Anger" / "b.PNG", image)
    write_image(tmp_path / "Anger" / "a.bmp", image)
    write_image(tmp_path / "happiness" / "c.webp", image)
    (tmp_path / "Anger" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    faces = list(open_raw("mine", build_params(), tmp_path).rows)
    assert [(face.source, face.label, face.split) for face in faces] == [
        ("Anger/a.bmp", 0, ""),
        ("Anger/b.PNG", 0, ""),
        ("happiness/c.webp", 3, ""),
    ]
    assert np.array_equal(faces[0].image, image)  # RGB, not BGR


@pytest.mark.parametrize(
    ("given", "train"),
    [(["train"], "train|val|test"), (["train", "test"], "train|val"), (["train", "val"], "train|test")],
)
def test_split_folders_leave_the_missing_splits_to_train(tmp_path, given, train):
    for split in given:
        write_image(tmp_path / split / "sad" / "a.png", np.zeros((8, 8), np.uint8))
    faces = list(open_folder(tmp_path, 7).rows)
    assert [face.split for face in faces] == [train, *given[1:]]


def test_an_upright_image_is_read_from_a_turned_file(tmp_path):
    image = np.zeros((10, 20, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    (tmp_path / "sad").mkdir()
    (tmp_path / "sad" / "a.jpg").write_bytes(encode_image(image, "JPEG", exif=exif))
    assert next(iter(open_folder(tmp_path, 7).rows)).image.shape == (20, 10, 3)


def test_sixteen_bits_and_transparency_are_read_as_everywhere_else(tmp_path):
    grey = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)
    write_image(tmp_path / "sad" / "deep.png", grey.astype(np.uint16) * 257)
    write_image(tmp_path / "sad" / "open.png", np.dstack([grey, np.full_like(grey, 0)]), "PNG")
    (tmp_path / "sad" / "._deep.png").write_bytes(b"left by macOS")
    deep, see_through = open_folder(tmp_path, 7).rows
    assert np.array_equal(deep.image, np.dstack([grey] * 3))
    assert (see_through.image == 255).all()
    for face in (deep, see_through):
        assert np.array_equal(face.image, read_image(tmp_path / face.source))


@pytest.mark.parametrize(
    ("keep", "reason"),
    [(0, "expected an image"), (100, "the image is damaged"), (0.5, "the image is damaged")],
)
def test_a_corrupt_jpeg_is_a_bad_row(tmp_path, keep, reason):
    whole = encode_image(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "JPEG")
    (tmp_path / "sad").mkdir()
    (tmp_path / "sad" / "a.jpg").write_bytes(whole[: keep if keep != 0.5 else len(whole) // 2])
    (bad,) = open_folder(tmp_path, 7).rows
    assert bad.source == "sad/a.jpg"
    assert bad.reason.startswith(reason)


# 7: the cut falls into the TIFF header's magic number, 10: into its offset. Pillow raises SyntaxError and
# struct.error. The resolution keeps it from reading EXIF for that when it opens the file.
@pytest.mark.parametrize("keep", [7, 10])
def test_a_cut_exif_block_is_a_bad_row(tmp_path, keep):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode_image(np.zeros((8, 8, 3), np.uint8), "JPEG", exif=exif.tobytes()[:keep], dpi=(72, 72))
    (tmp_path / "sad").mkdir()
    (tmp_path / "sad" / "a.jpg").write_bytes(data)
    (bad,) = open_folder(tmp_path, 7).rows
    assert bad.source == "sad/a.jpg"
    assert bad.reason.startswith("the image is damaged")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda d: (d / "bored").mkdir(),
            r"bored: .*7 classes \(angry, .*found 'bored'; rename it, or say what it shows in params\.yaml",
        ),
        (lambda d: (d / "contempt").mkdir(), r"contempt: expected a folder named after one of the 7 classes"),
        (lambda d: (d / "sad").mkdir(), r"sad: expected images, found none; fill the folder or remove it"),
        (lambda d: (d / "a.jpg").write_bytes(b"x"), r"expected one folder per emotion .*found none"),
        (lambda d: (d / "test").mkdir(), r"expected a folder train/ beside test/, found none"),
        (lambda d: None, r"found an empty folder"),
        (lambda d: d.rmdir(), r"expected a folder with one folder of images per emotion, found none"),
    ],
)
def test_folder_structure_errors(tmp_path, make, message):
    folder = tmp_path / "raw"
    folder.mkdir()
    make(folder)
    with pytest.raises(DataError, match=message) as error:
        open_folder(folder, 7)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


# --- structural errors, and the number of classes ----------------------------------------------------


@pytest.mark.parametrize("dataset", ["fer2013", "affectnet"])
def test_unknown_layouts_are_errors(tmp_path, dataset):
    with pytest.raises(DataError, match=r"found none; see data/README\.md"):
        open_raw(dataset, build_params(), tmp_path / "missing")
    with pytest.raises(DataError, match=r"found an empty folder; see data/README\.md"):
        open_raw(dataset, build_params(), tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"expected .*, found notes\.txt; see data/README\.md"):
        open_raw(dataset, build_params(), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected column 'emotion' in line 1, found none"),
        ("emotion,pixels\n", "expected column 'Usage' in line 1, found emotion, pixels"),
        ("x" * (csv.field_size_limit() + 1), "expected column 'emotion' in line 1, found none"),
    ],
    ids=["empty", "column missing", "no CSV"],
)
def test_csv_header_errors(tmp_path, content, message):
    (tmp_path / "fer2013.csv").write_text(content)
    with pytest.raises(DataError, match=rf"fer2013\.csv: {message}"):
        open_fer2013(tmp_path)


def test_a_csv_cut_off_in_its_header_has_no_rows(tmp_path):
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage")
    raw = open_fer2013(tmp_path)
    assert raw.n_rows == 0
    assert list(raw.rows) == []


def test_parquet_errors(tmp_path):
    path = write_parquet(tmp_path, make_rows())
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(
        DataError, match=r"fer2013\.parquet: expected a parquet file, found an unreadable one"
    ):
        open_fer2013(tmp_path)
    # Wreck the data pages, keep the footer: the damage shows only when the rows are read.
    path.write_bytes(b"\xff" * (len(content) // 2) + content[len(content) // 2 :])
    with pytest.raises(DataError, match=r"fer2013\.parquet: expected a parquet file"):
        list(open_fer2013(tmp_path).rows)


def test_parquet_without_a_column_is_an_error(tmp_path):
    path = write_parquet(tmp_path, make_rows())
    pq.write_table(pq.read_table(path).drop_columns("usage"), path)
    with pytest.raises(DataError, match=r"fer2013\.parquet: expected column 'usage', found emotion, image"):
        open_fer2013(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("emotion", [3.7], "integer, found double"),
        ("emotion", ["3"], "integer, found string"),
        ("usage", [0], "string, found int64"),
        ("image", [{"bytes": b"", "path": ""}], "binary, found struct<bytes: binary, path: string>"),
        ("ferplus_nf", [0.5], "integer, found double"),
    ],
)
def test_parquet_columns_of_a_wrong_type_are_named(tmp_path, column, values, found):
    path = write_parquet(tmp_path, make_rows(1))
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(column), column, pa.array(values)), path)
    with pytest.raises(DataError) as error:
        open_fer2013(tmp_path)
    assert str(error.value).endswith(f"expected column {column!r} of type {found}; convert the column")


def test_parquet_types_of_other_writers_are_read(tmp_path):
    rows = make_rows(4)
    path = write_parquet(tmp_path, rows, votes=False)
    table = pq.read_table(path)
    columns = {
        "emotion": table["emotion"].cast(pa.uint64()),
        "usage": table["usage"].dictionary_encode(),
        "image": table["image"].cast(pa.large_binary()),
    }
    pq.write_table(pa.table(columns), path)
    assert [(face.label, face.split) for face in open_fer2013(tmp_path).rows] == list(
        zip(rows.labels, rows.splits, strict=True)
    )


def test_parquet_bad_rows_are_named(tmp_path):
    rows = make_rows(4)
    rows.labels[1], rows.usages[2] = 7, "Test"
    write_parquet(tmp_path, rows)
    bad = [item for item in open_fer2013(tmp_path).rows if isinstance(item, BadRow)]
    assert bad == [
        BadRow("fer2013.parquet:1", "expected a label 0 to 6, found '7'"),
        BadRow("fer2013.parquet:2", "expected Usage Training, PublicTest, PrivateTest, found 'Test'"),
    ]


def test_a_stray_quote_that_swallows_the_file_is_an_error(tmp_path):
    path = write_csv(tmp_path, make_rows(30))
    path.write_text(path.read_text().replace("\n1,", '\n1,"', 1))
    assert path.stat().st_size > csv.field_size_limit()
    with pytest.raises(DataError, match=r"fer2013\.csv:\d+: expected a CSV row"):
        list(open_fer2013(tmp_path).rows)


@pytest.mark.parametrize(("dataset", "n_classes"), [("fer2013", 8), ("ferplus", 7), ("demo", 8)])
def test_a_wrong_number_of_classes_is_named(tmp_path, dataset, n_classes):
    write_parquet(tmp_path, make_rows(1))
    with pytest.raises(ParamsError, match=rf"prepare\.n_classes: {dataset} has {15 - n_classes}"):
        open_raw(dataset, build_params(n_classes=n_classes), tmp_path)


def test_an_entry_makes_a_data_set_known(tmp_path, monkeypatch):
    monkeypatch.setitem(READERS, "mine", lambda raw_dir, _: open_folder(raw_dir / "deep", 7))
    write_image(tmp_path / "deep" / "sad" / "a.png", np.zeros((8, 8), np.uint8))
    (face,) = open_raw("mine", build_params(), tmp_path).rows
    assert face.source == "sad/a.png"
    with pytest.raises(ParamsError, match="mine has 7, found 8"):
        open_raw("mine", build_params(n_classes=8), tmp_path)


def test_readers_of_files_load_no_drawing_code():
    code = "import sys, fer_lib.data.readers; sys.exit('demo_faces' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- where the raw files are -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", ROOT / "data/raw/mine"), ("sets", ROOT / "sets/mine"), ("/sets", Path("/sets/mine"))],
)
def test_raw_dir_does_not_depend_on_the_working_directory(tmp_path, monkeypatch, value, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FER_DATA_ROOT", value)
    assert get_raw_dir("mine") == expected


@pytest.mark.parametrize(("value", "expected"), [("", "."), ("tests", "tests")])
def test_project_folder_does_not_depend_on_the_working_directory(tmp_path, value, expected):
    checkout = Path(__file__).resolve().parent.parent
    run = subprocess.run(
        [sys.executable, "-c", "from fer_lib.paths import ROOT; print(ROOT)"],
        cwd=tmp_path,
        env={**os.environ, "FER_ROOT": value, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(run.stdout.strip()) == checkout / expected
