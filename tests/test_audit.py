import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lib.data import audit
from fer_lib.data.audit import (
    compute_mean_faces,
    compute_similarity,
    count_classes,
    find_blank_images,
    find_exact_duplicates,
    find_near_duplicates,
    summarise_duplicates,
)
from fer_lib.labels import EMOTIONS_7


def make_index(rows: list[tuple[str, int, str]]) -> pd.DataFrame:
    """(split, label, sha1) per image."""
    index = pd.DataFrame(rows, columns=["split", "label", "sha1"]).reset_index(names="row")
    return index.assign(duplicate_group=pd.factorize(index["sha1"])[0].astype("int64"))


def draw_faces(seed: int, n: int, shape: tuple[int, ...] = (48, 48)) -> np.ndarray:
    """Random images whose neighbouring pixels agree, as in photographs, so that thumbnails mean something."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, *shape[2:]), dtype=np.uint8)
    return coarse.repeat(shape[0] // 8, axis=1).repeat(shape[1] // 8, axis=2)


def test_class_counts_keep_the_order_of_splits_and_emotions():
    index = make_index([("test", 3, "a"), ("train", 0, "b"), ("train", 3, "c"), ("train", 3, "d")])
    counts = count_classes(index, EMOTIONS_7)
    assert counts.index.tolist() == ["train", "test"]
    assert counts.columns.tolist() == list(EMOTIONS_7)
    assert counts.loc["train", ["angry", "happy", "disgust"]].tolist() == [1, 2, 0]
    assert counts.to_numpy().sum() == 4


@pytest.mark.parametrize("shape", [(48, 48), (16, 16, 3)])
def test_mean_faces_agree_with_numpy_across_chunks(monkeypatch, shape):
    monkeypatch.setattr(audit, "CHUNK_BYTES", 7 * 4 * int(np.prod(shape)))  # chunks of 7, the last one short
    faces, labels = draw_faces(0, 24, shape), np.arange(24) % 3
    means = compute_mean_faces(faces, labels, np.arange(24), 4, min_faces=1)
    assert means.shape == (4, *shape)
    assert means.dtype == np.float32
    for label in range(3):
        np.testing.assert_allclose(means[label], faces[labels == label].mean(axis=0), rtol=1e-5)
    assert np.isnan(means[3]).all()


def test_mean_faces_read_a_memmap(tmp_path):
    faces = np.memmap(tmp_path / "faces.u8", dtype=np.uint8, mode="w+", shape=(10, 8, 8))
    faces[:] = 200
    means = compute_mean_faces(faces, np.zeros(10, dtype=int), np.arange(10), 1, min_faces=1)
    np.testing.assert_array_equal(means, np.full((1, 8, 8), 200))


def test_mean_of_too_few_faces_is_not_shown():
    faces, labels = draw_faces(0, 10, (8, 8)), np.array([0] * 7 + [1] * 3)
    means = compute_mean_faces(faces, labels, np.arange(1, 10), 2, min_faces=4)
    np.testing.assert_allclose(means[0], faces[1:7].mean(axis=0), rtol=1e-5)  # row 0 was not asked for
    assert np.isnan(means[1]).all()


def test_exact_duplicates_by_hand():
    rows = [("train", 0, "a"), ("test", 0, "a"), ("train", 1, "a")]
    rows += [("train", 2, "b"), ("train", 2, "b"), ("val", 3, "c")]
    table = find_exact_duplicates(make_index(rows))
    assert table["n"].tolist() == [3, 2]
    assert table["duplicate_group"].tolist() == [0, 1]
    assert table["splits"].tolist() == [("train", "test"), ("train",)]
    assert table["labels"].tolist() == [(0, 1), (2,)]
    assert table["crosses_splits"].tolist() == [True, False]
    assert table["conflicting_labels"].tolist() == [True, False]


def test_index_without_duplicates_gives_an_empty_table():
    table = find_exact_duplicates(make_index([("train", 0, "a"), ("test", 0, "b")]))
    assert len(table) == 0
    assert table["crosses_splits"].sum() == 0


def test_duplicate_summary_counts_images_not_groups():
    rows = [("train", 0, "a"), ("train", 0, "a"), ("test", 0, "a"), ("test", 0, "b"), ("val", 1, "b")]
    summary = summarise_duplicates(make_index(rows))
    assert summary["n_images"].to_dict() == {"train": 2, "val": 1, "test": 2}
    assert summary.loc["train"].tolist() == [2, 2, 0, 2]
    assert summary.loc["val"].tolist() == [1, 0, 0, 1]
    # `a` is once in test: it has a copy in train, none in its own split.
    assert summary.loc["test"].tolist() == [2, 1, 1, 0]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from(["train", "val", "test"]), st.integers(0, 6), st.sampled_from("abcde"))
    )
)
def test_exact_duplicates_agree_with_a_brute_force_count(rows):
    table = find_exact_duplicates(make_index(rows))
    hashes = [sha1 for _, _, sha1 in rows]
    assert table["n"].sum() == sum(hashes.count(sha1) > 1 for sha1 in hashes)
    in_train = {sha1 for split, _, sha1 in rows if split == "train"}
    leaked = sum(split == "test" and sha1 in in_train for split, _, sha1 in rows)
    assert summarise_duplicates(make_index(rows)).loc["test", "train"] == leaked


@pytest.mark.parametrize("shape", [(48, 48), (96, 96, 3)])
def test_near_duplicates_finds_noise_and_brightness_but_not_copies(monkeypatch, shape):
    monkeypatch.setattr(audit, "CHUNK_BYTES", 4 * 30 * 7)  # several blocks and single-pair confirmation
    faces = draw_faces(1, 30, shape)
    noise = np.random.default_rng(0).integers(-6, 7, shape)
    faces[20] = (faces[3].astype(int) + noise).clip(0, 255)
    faces[25] = (faces[4] * 0.6 + 20).astype(np.uint8)
    faces[29] = faces[5]
    faces[10] = faces[11] = 128
    pairs = find_near_duplicates(faces, 0.95)
    assert set(zip(pairs["row_a"], pairs["row_b"], strict=True)) == {(3, 20), (4, 25)}
    assert pairs["row_a"].dtype == np.int64
    assert pairs["correlation"].is_monotonic_decreasing


def test_near_duplicates_confirms_on_full_resolution():
    faces = draw_faces(2, 2)
    # A checkerboard vanishes in the thumbnail (3x3 means) but not in the face.
    checker = np.indices((48, 48)).sum(axis=0) % 2 * 120
    faces[0] = faces[0] // 2 + 1
    faces[1] = faces[0] + checker
    assert len(find_near_duplicates(faces, 0.97)) == 0


def test_near_duplicates_match_every_pair_checked_by_hand():
    rng = np.random.default_rng(3)
    faces = draw_faces(3, 40)
    for row in range(20, 40):
        level = rng.uniform(0, 60)
        faces[row] = (faces[row - 20] + rng.normal(0, level, (48, 48))).clip(0, 255)
    correlations = np.corrcoef(faces.reshape(40, -1).astype(float))
    expected = {(int(a), int(b)) for a, b in np.argwhere(np.triu(correlations >= 0.9, 1))}
    pairs = find_near_duplicates(faces, 0.9)
    assert 5 < len(expected) < 20  # some pairs lie on either side of the threshold
    assert set(zip(pairs["row_a"], pairs["row_b"], strict=True)) == expected
    np.testing.assert_allclose(pairs["correlation"], correlations[pairs["row_a"], pairs["row_b"]], atol=1e-5)


def test_blank_faces_are_found_and_faint_ones_kept():
    faces = draw_faces(4, 5)
    faces[1] = 0
    faces[3] = 90
    faces[3, 0, 0] = 91
    assert find_blank_images(faces, 1.0).tolist() == [1, 3]
    assert find_blank_images(faces, 0.0).tolist() == []


def test_similarity_is_the_correlation_with_the_mean_face():
    faces = draw_faces(5, 6)
    mean_face = faces[0].astype(np.float32)
    faces[1] = 255 - faces[0]
    faces[2] = 77
    scores = compute_similarity(faces, mean_face)
    assert scores[:3] == pytest.approx([1, -1, 0], abs=1e-5)
    expected = np.corrcoef(faces[3].ravel(), mean_face.ravel())[0, 1]
    assert scores[3] == pytest.approx(expected, abs=1e-5)
    colour = draw_faces(6, 3, (16, 16, 3))
    assert compute_similarity(colour, colour[1].astype(np.float32))[1] == pytest.approx(1, abs=1e-5)
