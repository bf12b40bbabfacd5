"""Examine a data set before anything is trained on it: counts, mean faces, duplicates, non-face images.

`faces` is uint8 (N, H, W) or (N, H, W, 3), usually a memmap: it is read in chunks and never held in full.
`index` is the packed index, with at least the columns row, split, label, sha1 and duplicate_group.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd

from fer_lib.data.image_files import describe_counts
from fer_lib.data.packed import SPLITS

CHUNK_BYTES = 2**27
THUMBNAIL_SIZE = 16
THUMBNAIL_SLACK = 0.01
"""Averaging removes noise, so thumbnails correlate at least as well as the faces; this covers rounding."""


def describe_packing(meta: Mapping[str, Any]) -> str:
    """Return in a line what became of every file or row, and which classes had other names.

    meta: the content of `meta.json`.
    """
    splits = ", ".join(f"{split} {sum(of_class.values()):,}" for split, of_class in meta["counts"].items())
    parts = [
        f"packed {meta['n_faces']:,} ({splits})",
        f"passed over {describe_counts(meta['passed_over'])}",
        f"dropped {describe_counts(meta['dropped'])}",
    ]
    if meta["n_excluded"]:
        parts.append(f"without a label here {meta['n_excluded']:,}")
    renamed = {name: label for name, label in meta["classes"].items() if name != label}
    parts += [
        f"class {name} {f'as {emotion}' if emotion else 'left out'}" for name, emotion in renamed.items()
    ]
    return ", ".join(parts)


def count_classes(index: pd.DataFrame, emotions: Sequence[str]) -> pd.DataFrame:
    """Return int counts: one row per split that occurs (train, val, test), one column per emotion."""
    counts = pd.crosstab(index["split"], index["label"])
    splits = [name for name in SPLITS if name in counts.index]
    counts = counts.reindex(index=splits, columns=range(len(emotions)), fill_value=0)
    return counts.set_axis(list(emotions), axis="columns").rename_axis(index="split", columns=None)


def compute_mean_face(faces: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return float32 (H, W[, 3]), 0 to 255: the mean of the faces in `rows`, at least one."""
    total = np.zeros(faces.shape[1:])
    for chunk in _read_chunks(faces, rows):
        total += chunk.sum(axis=0, dtype=np.float64)
    return (total / len(rows)).astype(np.float32)


def compute_mean_faces(
    faces: np.ndarray, labels: np.ndarray, rows: np.ndarray, n_classes: int, min_faces: int
) -> np.ndarray:
    """Return float32 (n_classes, H, W[, 3]): the mean face per class over `rows`.

    A class with fewer than `min_faces` is NaN: the mean of very few faces shows who they are.
    """
    means = np.full((n_classes, *faces.shape[1:]), np.nan, dtype=np.float32)
    for label in range(n_classes):
        of_class = rows[labels[rows] == label]
        if len(of_class) >= max(1, min_faces):
            means[label] = compute_mean_face(faces, of_class)
    return means


def find_exact_duplicates(index: pd.DataFrame) -> pd.DataFrame:
    """Return one row per group of images with identical pixels, the largest group first.

    Columns: duplicate_group, n (images), splits and labels (tuples of distinct values), crosses_splits and
    conflicting_labels (bool). An index without duplicates gives an empty frame.
    """
    repeated = index[index["sha1"].duplicated(keep=False)]
    groups = repeated.groupby("sha1", sort=False)
    table = groups.agg(
        duplicate_group=("duplicate_group", "first"),
        n=("split", "size"),
        splits=("split", lambda found: tuple(name for name in SPLITS if name in set(found))),
        labels=("label", lambda found: tuple(sorted(set(found)))),
    )
    table["crosses_splits"] = table["splits"].map(len) > 1
    table["conflicting_labels"] = table["labels"].map(len) > 1
    return table.sort_values(["n", "duplicate_group"], ascending=[False, True], ignore_index=True)


def summarise_duplicates(index: pd.DataFrame) -> pd.DataFrame:
    """Return per split n_images, and how many of them have an identical copy in train, val and test.

    A copy is another image: the diagonal counts the images that are repeated inside their own split.
    """
    hashes = {split: index.loc[index["split"] == split, "sha1"] for split in SPLITS}
    rows = {}
    for split, own in hashes.items():
        rows[split] = {"n_images": len(own)}
        for other, theirs in hashes.items():
            copied = own.duplicated(keep=False) if other == split else own.isin(theirs)
            rows[split][other] = int(copied.sum())
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("split")


def find_near_duplicates(faces: np.ndarray, min_correlation: float) -> pd.DataFrame:
    """Return the pairs of images that are almost, but not exactly, the same.

    Candidates are pairs whose 16x16 grey thumbnails correlate; a candidate counts when the full faces (grey)
    correlate at least `min_correlation` and their pixels are not identical. Columns: row_a < row_b (int64),
    correlation (float32), the closest pair first. Time grows with N^2, memory with N. Constant images pair
    with nothing.
    """
    pairs = _find_candidates(faces, min_correlation - THUMBNAIL_SLACK)
    kept, correlations = [], []
    step = max(1, CHUNK_BYTES // (8 * faces[:1].size))
    for start in range(0, len(pairs), step):
        some = pairs[start : start + step]
        a, b = faces[some[:, 0]], faces[some[:, 1]]
        correlation = np.einsum("ij,ij->i", _standardise(a), _standardise(b))
        is_near = (correlation >= min_correlation) & (a != b).any(axis=tuple(range(1, a.ndim)))
        kept.append(some[is_near])
        correlations.append(correlation[is_near])
    rows = np.concatenate(kept) if kept else np.empty((0, 2), dtype=np.int64)
    table = pd.DataFrame(rows, columns=["row_a", "row_b"])
    table["correlation"] = np.concatenate(correlations) if kept else np.empty(0, dtype=np.float32)
    return table.sort_values(["correlation", "row_a"], ascending=[False, True], ignore_index=True)


def find_blank_images(faces: np.ndarray, min_std: float) -> np.ndarray:
    """Return int64 rows of the images whose pixels vary less than `min_std` grey levels."""
    stds = [chunk.reshape(len(chunk), -1).std(axis=1, dtype=np.float32) for chunk in _read_chunks(faces)]
    return np.flatnonzero(np.concatenate(stds) < min_std)


def compute_similarity(faces: np.ndarray, mean_face: np.ndarray) -> np.ndarray:
    """Return each image's similarity to the mean face (H, W[, 3]): float32 (N,) correlations.

    A cheap screen for non-face images. The lowest scores are suspects to look at, not verdicts: strong side
    light or pose scores low as well. A constant image scores 0.
    """
    template = _standardise(mean_face[None])[0]
    return np.concatenate([_standardise(chunk) @ template for chunk in _read_chunks(faces)])


def _read_chunks(faces: np.ndarray, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield all faces or those of `rows`, so many at a time that as float32 they stay below `CHUNK_BYTES`."""
    step = max(1, CHUNK_BYTES // (4 * faces[:1].size))
    for start in range(0, len(faces) if rows is None else len(rows), step):
        span = slice(start, start + step)
        yield np.asarray(faces[span if rows is None else rows[span]])


def _standardise(images: np.ndarray) -> np.ndarray:
    """Return float32 (N, P) grey rows of mean 0 and length 1: their dot products correlate. 0 if constant."""
    grey = images.mean(axis=-1, dtype=np.float32) if images.ndim == 4 else images.astype(np.float32)
    rows = grey.reshape(len(grey), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _find_candidates(faces: np.ndarray, min_correlation: float) -> np.ndarray:
    """Return int64 (M, 2) pairs of rows a < b whose thumbnails correlate, by blocks of a matrix product."""
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    thumbnails = [cv2.resize(np.asarray(face), size, interpolation=cv2.INTER_AREA) for face in faces]
    rows = _standardise(np.stack(thumbnails))
    step = max(1, CHUNK_BYTES // (4 * len(rows)))
    found = []
    for start in range(0, len(rows), step):
        a, b = np.nonzero(rows[start : start + step] @ rows[start:].T >= min_correlation)
        found.append(np.column_stack([a, b])[b > a] + start)
    return np.concatenate(found)
