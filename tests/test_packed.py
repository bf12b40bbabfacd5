import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from raw_layouts import (
    USAGES,
    build_params,
    encode_image,
    join_pixels,
    make_rows,
    read_folder,
    write_csv,
    write_folders,
    write_icml,
    write_image,
    write_parquet,
    write_votes,
)

from fer_lib.data import prepare as prepare_module
from fer_lib.data.framing import fit_image, fit_regions
from fer_lib.data.packed import SPLITS, load_packed
from fer_lib.data.prepare import choose_split, prepare
from fer_lib.data.readers.base import BadRow, Face, RawDataset
from fer_lib.data.readers.fer2013 import SPLIT_OF_USAGE
from fer_lib.errors import DataError, FerError, ParamsError
from fer_lib.files import hold_lock
from fer_lib.paths import ROOT

WRITERS = [write_parquet, write_csv, write_icml, write_folders]


def pack(raw: Path, out: Path, dataset: str = "fer2013", **changes) -> dict:
    return prepare(dataset, build_params(**changes), raw, out, progress=False)


@pytest.fixture
def raw(tmp_path) -> Path:
    write_csv(tmp_path / "raw", make_rows())
    return tmp_path / "raw"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "packed" / "fer2013"


# --- what is written ---------------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITERS)
def test_every_layout_packs_to_the_same_content(tmp_path, write):
    rows = make_rows()
    write(tmp_path / "raw", rows)
    meta = pack(tmp_path / "raw", tmp_path / "out")
    packed = load_packed("fer2013", tmp_path / "out")
    assert np.array_equal(packed.faces, rows.images)
    assert packed.labels.tolist() == rows.labels
    assert packed.index["split"].tolist() == rows.splits
    assert packed.soft_labels is None
    assert packed.regions(np.arange(2)) is None
    write_csv(tmp_path / "csv", rows)
    assert meta["data_hash"] == pack(tmp_path / "csv", tmp_path / "csv_out")["data_hash"]


def test_index_splits_and_meta_agree_with_the_pixels(raw, out):
    meta = pack(raw, out)
    packed = load_packed("fer2013", out)
    index = packed.index
    sha1 = [hashlib.sha1(face.tobytes()).hexdigest() for face in packed.faces]
    assert index["row"].tolist() == list(range(12))
    assert index["sha1"].tolist() == sha1
    assert index["source"].tolist() == [f"fer2013.csv:{i + 2}" for i in range(12)]
    assert [str(index[c].dtype) for c in ("row", "label", "duplicate_group")] == ["int32", "int8", "int64"]
    for split in ("train", "val", "test"):
        rows = packed.get_rows(split)
        lines = (out / "splits" / f"{split}.txt").read_text().splitlines()
        assert lines == [f"{row} {sha1[row]}" for row in rows]
        assert sum(meta["counts"][split].values()) == len(rows) == 4
    assert (out / "dropped.csv").read_text() == "source,reason\n"
    assert meta == json.loads((out / "meta.json").read_text()) == packed.meta
    assert meta["bytes_per_face"] == 48 * 48
    assert str(raw) not in (out / "meta.json").read_text()


def test_the_store_is_read_only(raw, out):
    pack(raw, out)
    with pytest.raises(ValueError, match="read-only"):
        load_packed("fer2013", out).faces[0] = 0


@pytest.mark.parametrize("write", WRITERS)
def test_equal_input_gives_equal_bytes(tmp_path, write):
    write(tmp_path / "raw", make_rows())
    pack(tmp_path / "raw", tmp_path / "a")
    pack(tmp_path / "raw", tmp_path / "b")
    assert read_folder(tmp_path / "a") == read_folder(tmp_path / "b")
    assert len(read_folder(tmp_path / "a")) == 7


def test_soft_labels_and_excluded_rows(tmp_path):
    rows = make_rows()
    rows.votes[:] = 0
    rows.votes[:, 0] = 7
    rows.votes[:, 7] = 3
    rows.votes[4] = [0] * 9 + [10]
    write_csv(tmp_path / "raw", rows)
    write_votes(tmp_path / "raw", rows)
    meta = pack(tmp_path / "raw", tmp_path / "out", "ferplus", n_classes=8)
    packed = load_packed("ferplus", tmp_path / "out")
    assert (meta["n_faces"], meta["n_excluded"], meta["n_dropped"]) == (11, 1, 0)
    assert packed.soft_labels.dtype == np.float32
    assert packed.soft_labels.shape == (11, 8)
    assert np.allclose(packed.soft_labels[:, [6, 7]], [0.7, 0.3])
    assert packed.emotions[packed.labels[0]] == "neutral"
    assert packed.index["votes_nf"].sum() == 0  # only the excluded row had votes for `not a face`
    rows.votes[0, [0, 7]] = [8, 2]  # the same label, another soft label
    write_votes(tmp_path / "raw", rows)
    assert pack(tmp_path / "raw", tmp_path / "b", "ferplus", n_classes=8)["data_hash"] != meta["data_hash"]


def use_rows(monkeypatch, rows) -> None:
    """Let `prepare` read these rows, whatever it is asked for."""
    raw = RawDataset(("sad", "happy"), "fake", 0, rows)
    monkeypatch.setattr(prepare_module, "open_raw", lambda *_: raw)


def test_regions_round_trip(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 20, 20, 3), np.uint8)
    regions = rng.random((5, 20, 20)) < 0.3
    faces = [
        Face(image, 0, SPLITS[i % 3], str(i), regions=region, factors={"yaw": i / 4})
        for i, (image, region) in enumerate(zip(images, regions, strict=True))
    ]
    use_rows(monkeypatch, faces)
    pack(tmp_path, tmp_path / "out", "fake", size=20, channels=3)
    packed = load_packed("fake", tmp_path / "out")
    assert packed.packed_regions.shape == (5, 20, 3)  # 20 bits in 3 bytes
    assert np.array_equal(packed.faces, images)
    assert np.array_equal(packed.regions(np.array([3, 1])), regions[[3, 1]])
    assert packed.index["yaw"].tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_an_index_of_several_batches_is_whole(tmp_path, monkeypatch):
    n = 10_000  # an index batch is 4,096 rows; also, the row count grows to five digits in the array header
    faces = (Face(np.full((16, 16), i % 251, np.uint8), i % 2, SPLITS[i % 3], str(i)) for i in range(n))
    use_rows(monkeypatch, faces)
    pack(tmp_path, tmp_path / "out", "fake", size=16)
    packed = load_packed("fake", tmp_path / "out")
    assert packed.index["row"].tolist() == list(range(n))
    assert np.array_equal(packed.faces[:, 7, 7], np.arange(n) % 251)
    assert packed.index["duplicate_group"].nunique() == 251


# --- splits and duplicates ---------------------------------------------------------------------------


def test_duplicates_of_train_can_be_dropped_from_test(tmp_path):
    rows = make_rows()
    rows.images[5] = rows.images[0]  # row 5 is in test, row 0 in train
    rows.images[8] = rows.images[2]  # both are in test
    write_csv(tmp_path / "raw", rows)
    pack(tmp_path / "raw", tmp_path / "out")
    packed = load_packed("fer2013", tmp_path / "out")
    assert packed.get_rows("test").tolist() == [2, 5, 8, 11]
    assert packed.get_rows("test", drop_duplicates_of="train").tolist() == [2, 8, 11]
    with pytest.raises(ValueError, match="expected a split train, val, test, found 'dev'"):
        packed.get_rows("dev")


def test_exact_duplicates_never_cross_assigned_splits(tmp_path):
    rng = np.random.default_rng(0)
    for i, value in enumerate(rng.integers(0, 20, 120)):
        name = ("sad", "happy")[i % 2]
        write_image(tmp_path / "raw" / name / f"{i}.png", np.full((16, 16), value * 12, np.uint8))
    pack(tmp_path / "raw", tmp_path / "out", "mine", size=16, val_fraction=0.3, test_fraction=0.3)
    index = load_packed("mine", tmp_path / "out").index
    assert index["split"].nunique() == 3
    assert index["duplicate_group"].is_unique is False
    assert index.drop_duplicates(["duplicate_group", "split"])["duplicate_group"].is_unique


@settings(deadline=None)
@given(
    image=arrays(np.uint8, (8, 8)),
    seed=st.integers(0, 9),
    split=st.sampled_from(["", "train|val", "train|test"]),
)
def test_assigned_split_depends_on_the_pixels_alone(image, seed, split):
    params = build_params(seed=seed, val_fraction=0.4, test_fraction=0.4)
    first = choose_split(Face(image, 0, split, "a"), params)
    assert first == choose_split(Face(image.copy(), 5, split, "b"), params)
    assert first in (split.split("|") if split else ("train", "val", "test"))


def test_assigned_splits_have_the_asked_sizes():
    params = build_params(val_fraction=0.2, test_fraction=0.1)
    rng = np.random.default_rng(0)
    faces = [Face(rng.integers(0, 256, (8, 8), np.uint8), 0, "", "") for _ in range(4000)]
    shares = pd.Series([choose_split(face, params) for face in faces]).value_counts(normalize=True)
    # Three standard deviations of a binomial share at n = 4000, p = 0.2: 0.019
    assert shares["val"] == pytest.approx(0.2, abs=0.019)
    assert shares["test"] == pytest.approx(0.1, abs=0.019)


def test_a_given_split_is_never_changed():
    params = build_params(val_fraction=0.5, test_fraction=0.4)
    for split in ("train", "val", "test"):
        assert choose_split(Face(np.zeros((8, 8), np.uint8), 0, split, ""), params) == split


def test_fractions_must_leave_something_to_train_on(raw, out):
    with pytest.raises(ParamsError, match=r"val_fraction \+ test_fraction below 1"):
        pack(raw, out, val_fraction=0.5, test_fraction=0.5)


# --- images ------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    height=st.integers(4, 40),
    width=st.integers(4, 40),
    colour=st.booleans(),
    size=st.integers(16, 32),
    channels=st.sampled_from([1, 3]),
)
def test_images_of_any_shape_fit(height, width, colour, size, channels):
    image = np.full((height, width, 3) if colour else (height, width), 77, np.uint8)
    fitted = fit_image(image, size, channels)
    assert fitted.shape == ((size, size, 3) if channels == 3 else (size, size))
    assert fitted.dtype == np.uint8
    assert (fitted == 77).all()  # an even grey face stays what it is


def test_fit_image_crops_the_centre_then_resizes_by_area_or_cubic():
    image = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    centre = image[:, 10:50]
    assert np.array_equal(fit_image(image, 40, 1), centre)
    assert np.array_equal(fit_image(image, 20, 1), cv2.resize(centre, (20, 20), interpolation=cv2.INTER_AREA))
    assert np.array_equal(
        fit_image(image, 80, 1), cv2.resize(centre, (80, 80), interpolation=cv2.INTER_CUBIC)
    )


def test_fit_image_takes_colours_as_rgb():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    assert fit_image(red, 16, 1)[0, 0] == 76  # 0.299 * 255, the weight of red in BT.601


def test_regions_follow_the_image():
    regions = np.zeros((40, 60), bool)
    regions[:20, 10:30] = True
    expected = np.zeros((20, 20), bool)
    expected[:10, :10] = True
    assert np.array_equal(fit_regions(regions, 20), expected)


# --- bad input ---------------------------------------------------------------------------------------


def replace_field(path: Path, line: int, field: int, value: str) -> None:
    lines = path.read_text().splitlines()
    fields = lines[line - 1].split(",")
    fields[field] = value
    lines[line - 1] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")


def cut_last_line(raw: Path) -> None:
    path = raw / "fer2013.csv"
    path.write_bytes(path.read_bytes()[:-5000])


def corrupt_jpeg(raw: Path) -> None:
    (raw / "fer2013.csv").unlink()
    write_folders(raw, make_rows())
    (raw / "train" / "angry" / "Training_99.jpg").write_bytes(
        encode_image(np.zeros((48, 48), np.uint8), "JPEG")[:200]
    )


PIXELS = join_pixels(np.full(2304, 9, np.uint8))
BAD_ROWS = {
    "truncated": (cut_last_line, "fer2013.csv:13", "expected 3 fields, found 2 (is the file cut off here?)"),
    "2303 pixels": (
        lambda raw: replace_field(raw / "fer2013.csv", 5, 1, PIXELS[2:]),
        "fer2013.csv:5",
        "expected 2304 pixels, found 2303",
    ),
    "2305 pixels": (
        lambda raw: replace_field(raw / "fer2013.csv", 5, 1, PIXELS + " 9"),
        "fer2013.csv:5",
        "expected 2304 pixels, found 2305",
    ),
    "pixel 256": (
        lambda raw: replace_field(raw / "fer2013.csv", 2, 1, "256" + PIXELS[1:]),
        "fer2013.csv:2",
        "expected pixel values 0 to 255, found '256'",
    ),
    "pixel x": (
        lambda raw: replace_field(raw / "fer2013.csv", 2, 1, PIXELS[:-1] + "9.5"),
        "fer2013.csv:2",
        "expected pixel values 0 to 255, found '9.5'",
    ),
    "label 7": (
        lambda raw: replace_field(raw / "fer2013.csv", 9, 0, "7"),
        "fer2013.csv:9",
        "expected a label 0 to 6, found '7'",
    ),
    "label x": (
        lambda raw: replace_field(raw / "fer2013.csv", 9, 0, ""),
        "fer2013.csv:9",
        "expected a label 0 to 6, found ''",
    ),
    "usage": (
        lambda raw: replace_field(raw / "fer2013.csv", 9, 2, "Trai"),
        "fer2013.csv:9",
        "expected Usage Training, PublicTest, PrivateTest, found 'Trai'",
    ),
    "jpeg": (corrupt_jpeg, "train/angry/Training_99.jpg", "the image is damaged"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_stops_with_one_line_and_leaves_nothing(raw, out, case):
    spoil, source, reason = BAD_ROWS[case]
    spoil(raw)
    with pytest.raises(DataError) as error:
        pack(raw, out)
    message = str(error.value)
    assert f"{source}: {reason}" in message
    assert "set prepare.skip_bad: true in params.yaml" in message
    assert "\n" not in message
    assert [path.name for path in out.parent.iterdir()] == [".fer2013.lock"]


@pytest.mark.parametrize("case", BAD_ROWS)
def test_skip_bad_drops_counts_and_lists_the_row(raw, out, case):
    spoil, source, reason = BAD_ROWS[case]
    spoil(raw)
    meta = pack(raw, out, skip_bad=True)
    with open(out / "dropped.csv", newline="") as file:
        (dropped,) = csv.DictReader(file)
    assert dropped["source"] == source
    assert dropped["reason"].startswith(reason)
    assert meta["n_dropped"] == 1
    assert meta["n_faces"] == len(load_packed("fer2013", out)) == (12 if case == "jpeg" else 11)


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"fer2013\.csv: expected column 'emotion' in line 1, found none"),
        ("emotion,Usage\n0,Training\n", r"fer2013\.csv: expected column 'pixels' in line 1"),
        ("emotion,pixels,Usage\n", "expected faces, found none: passed over 0, dropped 0"),
        ("emotion,pixels,Usage", "expected faces, found none: passed over 0, dropped 0"),
    ],
)
def test_structural_errors_cannot_be_skipped(raw, out, content, message, skip_bad):
    (raw / "fer2013.csv").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        pack(raw, out, skip_bad=skip_bad)
    assert "\n" not in str(error.value)
    assert not out.exists()


def test_all_rows_bad_is_an_error_even_when_skipping(raw, out):
    (raw / "fer2013.csv").write_text("emotion,pixels,Usage\n0,1 2,Training\n0,1 2,Training\n")
    with pytest.raises(DataError, match=r"found none: passed over 0, dropped 2 \(expected 2304 pixels: 2\)"):
        pack(raw, out, skip_bad=True)


@pytest.mark.parametrize("split", SPLITS)
def test_an_empty_split_is_an_error_and_the_older_store_stays(raw, out, split):
    pack(raw, out)
    before = read_folder(out)
    rows = make_rows()
    other = next(usage for usage in USAGES if SPLIT_OF_USAGE[usage] != split)
    rows.usages = [other if SPLIT_OF_USAGE[usage] == split else usage for usage in rows.usages]
    write_csv(raw, rows)
    with pytest.raises(DataError, match=rf"fer2013: .*found none in {split} \(.*{split} 0.*params\.yaml"):
        pack(raw, out)
    assert read_folder(out) == before


def test_an_emotion_may_be_absent(raw, out):
    rows = make_rows()
    rows.labels = [max(label, 1) for label in rows.labels]
    write_csv(raw, rows)
    assert all(counts["angry"] == 0 for counts in pack(raw, out)["counts"].values())


# --- failures and interruptions ----------------------------------------------------------------------


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError("disk full"), BadRow("x:3", "broken")])
def test_an_older_store_survives_a_failed_prepare(raw, out, monkeypatch, failure):
    pack(raw, out)
    before = read_folder(out)

    def read_and_fail():
        yield Face(np.zeros((48, 48), np.uint8), 0, "train", "x:2")
        if isinstance(failure, BadRow):
            yield failure
        else:
            raise failure

    use_rows(monkeypatch, read_and_fail())
    with pytest.raises(DataError if isinstance(failure, BadRow) else type(failure)):
        pack(raw, out)
    assert read_folder(out) == before
    assert {path.name for path in out.parent.iterdir()} == {"fer2013", ".fer2013.lock"}


def test_a_new_store_replaces_the_old_one(raw, out):
    old = pack(raw, out)
    (out / "stray.txt").write_text("x")
    write_csv(raw, make_rows(seed=1))
    new = pack(raw, out)
    assert new["data_hash"] != old["data_hash"]
    assert load_packed("fer2013", out).data_hash == new["data_hash"]
    assert not (out / "stray.txt").exists()
    assert {path.name for path in out.parent.iterdir()} == {"fer2013", ".fer2013.lock"}


def test_what_a_killed_run_left_is_removed(raw, out):
    pack(raw, out)
    other = out.with_name(".fer2013.notes")
    for folder in (out.with_name(".fer2013.new"), out.with_name(".fer2013.old"), other):
        folder.mkdir()
        (folder / "faces.npy").write_bytes(b"half")
    pack(raw, out)
    assert {path.name for path in out.parent.iterdir()} == {"fer2013", ".fer2013.lock", other.name}


def test_a_second_run_is_refused_while_the_first_is_at_work(raw, out):
    with hold_lock(out.with_name(".fer2013.lock")), pytest.raises(FerError, match="another run is at work"):
        pack(raw, out)
    pack(raw, out)


def test_a_store_caught_between_the_two_renames_is_restored(raw, out):
    pack(raw, out)
    before = read_folder(out)
    out.rename(out.with_name(".fer2013.old"))
    (raw / "fer2013.csv").write_text("emotion,pixels,Usage\n")
    with pytest.raises(DataError):
        pack(raw, out)
    assert read_folder(out) == before


# --- the hash of the content -------------------------------------------------------------------------


def change_pixel(rows):
    rows.images[3, 10, 10] ^= 1


def change_label(rows):
    rows.labels[3] = (rows.labels[3] + 1) % 7


def change_split(rows):
    rows.usages[3] = "PrivateTest"


def change_order(rows):
    rows.images[[0, 3]] = rows.images[[3, 0]]


@pytest.mark.parametrize("change", [change_pixel, change_label, change_split, change_order])
def test_data_hash_changes_with_the_content(raw, out, change):
    before = pack(raw, out)["data_hash"]
    rows = make_rows()
    change(rows)
    write_csv(raw, rows)
    assert pack(raw, out)["data_hash"] != before


def test_data_hash_changes_with_size_and_channels(raw, out):
    hashes = [pack(raw, out, **c)["data_hash"] for c in ({}, {"size": 32}, {"channels": 3})]
    assert len(set(hashes)) == 3


# --- opening a store ---------------------------------------------------------------------------------


def test_a_missing_store_says_how_to_make_it(tmp_path):
    with pytest.raises(DataError, match="found none; run `make results DATASET=fer2013`"):
        load_packed("fer2013", tmp_path)


def cut_file(name: str):
    return lambda out: (out / name).write_bytes((out / name).read_bytes()[:-100])


def drop_index_row(out: Path) -> None:
    pd.read_parquet(out / "index.parquet").iloc[:-1].to_parquet(out / "index.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_file("faces.npy"), "expected a whole packed data set"),
        (cut_file("index.parquet"), "expected a whole packed data set"),
        (cut_file("meta.json"), "expected a whole packed data set"),
        (lambda out: (out / "faces.npy").unlink(), "expected a whole packed data set"),
        (
            lambda out: np.save(out / "faces.npy", np.zeros((9, 48, 48), np.uint8)),
            "faces.npy: expected 12 rows",
        ),
        (drop_index_row, r"index\.parquet: expected 12 rows as meta\.json says, found 11"),
    ],
)
def test_a_damaged_store_is_refused(raw, out, damage, message):
    pack(raw, out)
    damage(out)
    with pytest.raises(DataError, match=message) as error:
        load_packed("fer2013", out)
    assert "make results DATASET=fer2013" in str(error.value)
    assert "\n" not in str(error.value)


# --- memory ------------------------------------------------------------------------------------------

MEASURE_PEAK = """
import re, sys
from pathlib import Path
from fer_lib.params import load_params
from fer_lib.data.prepare import prepare
prepare("fer2013", load_params("fer2013").prepare, sys.argv[1], sys.argv[2], progress=False)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_does_not_grow_with_the_rows(tmp_path):
    peaks = {}
    for n_rows in (5_000, 12_000):
        raw = tmp_path / str(n_rows)
        raw.mkdir()
        with open(raw / "fer2013.csv", "w") as file:
            file.write("emotion,pixels,Usage\n")
            file.writelines(f"{i % 7},{PIXELS},{USAGES[i % 3]}\n" for i in range(n_rows))
        # The peak of the child's own memory: `ru_maxrss` would start at this process's size.
        command = [sys.executable, "-c", MEASURE_PEAK, str(raw), str(tmp_path / f"out{n_rows}")]
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        peaks[n_rows] = int(run.stdout) / 1024
    # MiB. Keeping the 7,000 further faces would take 15, their CSV text 31. Both runs fill an index batch
    # (4,096 rows), so only the allocator's slack may differ.
    assert peaks[12_000] - peaks[5_000] < 8
