from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_lib.data.image_files import HIDDEN
from fer_lib.errors import DataError
from fer_lib.scale import sources
from fer_lib.scale.sources import ID, Place, list_parts


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a/c.JPG", "a/._c.jpg", ".trash/d.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def write_table(path, column, rows_per_group=3):
    pq.write_table(pa.table({"image": column}), path, row_group_size=rows_per_group)


def read_all(inputs, column="image", skipped=None):
    counter = Counter() if skipped is None else skipped
    parts = list(list_parts(list(map(str, inputs)), column, counter))
    blocks = [block for part in parts for block in part.read()]
    assert [part.n_images for part in parts] == list(map(len, blocks))
    return pa.concat_tables(blocks).to_pylist()


def test_folder_stands_for_its_images_once_and_counts_the_rest(folder):
    skipped = Counter()
    rows = read_all([folder, folder / "b.png", f"{folder}/*.png"], skipped=skipped)
    assert [row[ID].removeprefix(f"{folder}/") for row in rows] == ["a/c.JPG", "b.png"]
    assert all(row["path"] == row[ID] and row["image"] is None for row in rows)  # addresses
    assert skipped == {HIDDEN: 2, ".txt": 1}


@pytest.mark.parametrize(
    ("glob", "found"), [("*.png", ["b.png"]), ("**/*.JPG", ["a/c.JPG"]), ("[ab]*/?.*", ["a/c.JPG"])]
)
def test_globs(folder, glob, found):
    assert [row[ID] for row in read_all([f"{folder}/{glob}"])] == [f"{folder}/{name}" for name in found]


def test_addresses_are_followed_and_named_as_they_were_given(folder):
    names = [row[ID] for row in read_all([f"file://{folder}"])]
    assert names == [f"file://{folder}/a/c.JPG", f"file://{folder}/b.png"]
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/faces/one.png", b"1")
    assert [row[ID] for row in read_all(["memory://faces"])] == ["memory://faces/one.png"]


@pytest.mark.parametrize("block", [2, 3, 100])
def test_rows_of_a_table_keep_their_numbers_in_blocks_of_any_size(tmp_path, monkeypatch, block):
    monkeypatch.setattr(sources, "BLOCK", block)
    images = [bytes([number]) for number in range(8)]
    write_table(tmp_path / "faces.parquet", images)
    rows = read_all([tmp_path])
    assert [row[ID] for row in rows] == [f"{tmp_path}/faces.parquet:{number}" for number in range(8)]
    assert [row["image"] for row in rows] == images


def test_tables_of_hugging_face_and_of_paths(tmp_path):
    write_table(tmp_path / "hub.parquet", [{"bytes": b"1", "path": "one.png"}, {"bytes": None, "path": None}])
    write_table(tmp_path / "paths.parquet", ["s3://bucket/one.png", None])
    rows = read_all([tmp_path])
    assert [row["image"] for row in rows] == [b"1", None, None, None]
    assert [row["path"] for row in rows] == [None, None, "s3://bucket/one.png", None]


def test_no_image_is_listed_twice_whatever_the_block(folder, monkeypatch):
    rng = np.random.default_rng(0)
    for number in range(17):
        (folder / f"{number}.png").write_bytes(rng.bytes(3))
    whole = read_all([folder])
    monkeypatch.setattr(sources, "BLOCK", 5)
    assert read_all([folder]) == whole
    assert len(whole) == 19


@pytest.mark.parametrize(
    ("name", "column", "words"),
    [
        ("gone", "image", "expected images or parquet files, found none; check the address"),
        ("faces.parquet", "face", "expected column 'face', found image; name that of the images"),
        ("broken.parquet", "image", "expected a parquet file, found an unreadable one"),
        ("nowhere://faces", "image", "expected an address that can be opened"),
    ],
)
def test_what_cannot_be_listed_is_refused_in_a_line(tmp_path, name, column, words):
    write_table(tmp_path / "faces.parquet", [b"1"])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    address = name if "://" in name else str(tmp_path / name)
    with pytest.raises(DataError, match=words) as error:
        read_all([address], column)
    assert str(error.value).startswith(address)
    assert "\n" not in str(error.value)


def test_names_with_any_character_are_found_here_and_at_addresses(tmp_path):
    names = ["#1.jpg", "50%20.jpg", "a b.jpg", "photo[1].jpg", "what?.jpg", "ümlaut.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    for root in (str(tmp_path), f"file://{tmp_path}"):
        rows = read_all([root])
        assert sorted(row[ID].removeprefix(f"{root}/") for row in rows) == sorted(names)
        for row in rows:
            system, path = Place.parse(row["path"]).open()
            assert system.open_input_stream(path).read().decode() == row[ID].rpartition("/")[2]
    assert len(read_all([tmp_path / "photo[1].jpg"])) == 1  # a file that is there is no glob


def test_address_keeps_its_query_and_its_name_does_not():
    place = Place.parse("s3://bucket/a b/c#.jpg?region=eu&scheme=http")
    assert place == ("s3://bucket?region=eu&scheme=http", "a b/c#.jpg")
    assert str(place) == "s3://bucket/a b/c#.jpg"
    assert Place.parse(place.address) == place


def test_folder_that_links_to_itself_is_listed_once(folder):
    (folder / "a" / "again").symlink_to(folder)
    assert len(read_all([folder])) == 2


def test_tables_of_large_images_are_read_in_smaller_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 12_000)
    monkeypatch.setattr(sources, "FEWEST", 2)
    write_table(tmp_path / "large.parquet", [bytes([n]) * 3000 for n in range(20)], rows_per_group=20)
    parts = list(list_parts([str(tmp_path)], "image", Counter()))
    assert [part.n_images for part in parts] == [3, 3, 3, 3, 3, 3, 2]
    assert [row["image"][0] for row in read_all([tmp_path])] == list(range(20))


def test_columns_of_categories_are_addresses(tmp_path):
    column = pa.array(["one.png", "two.png", "one.png"]).dictionary_encode()
    write_table(tmp_path / "paths.PARQUET", column)
    assert [row["path"] for row in read_all([tmp_path])] == ["one.png", "two.png", "one.png"]
    write_table(tmp_path / "pixels.parquet", [[1, 2], [3]])
    with pytest.raises(DataError, match="expected images or addresses in 'image', found list"):
        read_all([tmp_path / "pixels.parquet"])


def test_a_page_keeps_the_query_that_is_part_of_its_name():
    place = Place.parse("https://host/faces/a.jpg?w=640")
    assert (place.root, place.path) == ("https://host", "faces/a.jpg?w=640")
    assert place.address == "https://host/faces/a.jpg?w=640"


def test_a_folder_that_may_not_be_read_is_told(folder, monkeypatch):
    def walk(top, onerror):
        onerror(PermissionError(13, "Permission denied", f"{top}/secret"))

    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(DataError, match=r"/secret: expected a folder that may be read: Permission denied"):
        read_all([folder])
