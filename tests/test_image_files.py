from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lib.data.image_files import (
    HIDDEN,
    SUFFIXES,
    describe_counts,
    expand_paths,
    list_images,
    pass_loose_files,
    show_name,
)


def fill(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_every_file_is_an_image_or_counted_by_kind(tmp_path):
    images = ["a.jpg", "b.JFIF", "c.heic", "deep/d.mpo", "deep/er/e.Jpe"]
    others = ["notes.txt", "NOTES.TXT", "Makefile", "deep/film.mp4"]
    left = ["._a.jpg", ".DS_Store", "Thumbs.db", "__MACOSX/deep/a.jpg", "deep/.cache/b.jpg", "@eaDir/c.jpg"]
    fill(tmp_path, images + others + left)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "again").symlink_to(tmp_path)
    passed_over = {}
    found = list_images(tmp_path, passed_over)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == images
    assert Counter(passed_over.values()) == {
        ".txt": 2,
        "without a suffix": 1,
        ".mp4": 1,
        HIDDEN: 6,
        "broken link or device": 1,
        "link to a folder": 1,
    }
    again = {}
    given = [str(tmp_path), str(tmp_path / "deep"), str(tmp_path / "**" / "*.*")]
    assert list(expand_paths(given, again)) == [str(path) for path in found]
    assert again == passed_over  # each once, however often it is met


@settings(max_examples=30, deadline=None)
@given(
    st.sets(
        st.tuples(
            st.sampled_from(["", "a/", "a/b/", ".c/", "__MACOSX/"]),
            st.sampled_from(["x", ".x", "._y", "Thumbs", "y"]),
            st.sampled_from([*SUFFIXES, ".PNG", ".txt", ".db", "", ".zip"]),
        ).map("".join),
        min_size=1,
    )
)
def test_no_file_is_lost(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("files")
    fill(folder, names)
    passed_over = {}
    assert len(list_images(folder, passed_over)) + len(passed_over) == len(names)


def test_files_beside_folders_are_counted(tmp_path):
    fill(tmp_path, ["a.png", "README.md", ".hidden", "__MACOSX/x/y.png", "happy/b.png"])
    passed_over = {}
    pass_loose_files(tmp_path, passed_over)
    assert Counter(passed_over.values()) == {"image outside a class folder": 1, ".md": 1, HIDDEN: 2}


def test_folder_that_may_not_be_read_is_no_empty_one(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(PermissionError):
        list_images(tmp_path, {})


def test_counts_are_named_the_commonest_first():
    assert describe_counts({}) == "0"
    counts = {".txt": 1200, "hidden": 3, ".db": 3, ".mp4": 0}
    assert describe_counts(counts) == "1,206 (.txt: 1,200; .db: 3; hidden: 3)"


def test_names_are_shown_in_a_short_line_that_steers_no_terminal():
    assert show_name("a\nb\x1b[31m.jpg") == "a?b?[31m.jpg"
    assert len(show_name("x" * 5000)) == 200
