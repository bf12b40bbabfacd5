"""Open the packed store that `prepare` writes: uint8 faces in a memory map, an index of one row per face."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from fer_lib.errors import DataError
from fer_lib.paths import get_packed_dir

SPLITS = ("train", "val", "test")

DROPPED_FILE = "dropped.csv"
FACES_FILE = "faces.npy"
INDEX_FILE = "index.parquet"
META_FILE = "meta.json"
REGIONS_FILE = "regions.npy"


@dataclass(frozen=True)
class PackedDataset:
    """A packed data set, opened read-only.

    Parameters
    ----------
    faces
        uint8 memmap (N, size, size) grey or (N, size, size, 3) RGB.
    index
        N rows with row, split, label, soft_label (if any), sha1, duplicate_group, source and the source's
        factors.
    meta
        The content of `meta.json`.
    packed_regions
        uint8 memmap (N, size, ceil(size / 8)), or None.
    """

    faces: np.ndarray
    index: pd.DataFrame
    meta: dict[str, Any]
    packed_regions: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def emotions(self) -> tuple[str, ...]:
        """The class names, in label order."""
        return tuple(self.meta["emotions"])

    @property
    def data_hash(self) -> str:
        """SHA-256 of size, channels, classes, and each row's pixels, label, split and soft label."""
        return self.meta["data_hash"]

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 (N,): indices into `emotions`."""
        return self.index["label"].to_numpy(np.int64)

    @cached_property
    def soft_labels(self) -> np.ndarray | None:
        """float32 (N, n_classes), rows summing to 1, or None where the source has none."""
        if "soft_label" not in self.index:
            return None
        return np.stack(self.index["soft_label"].to_list()).astype(np.float32)

    @property
    def persons(self) -> np.ndarray:
        """Who each face shows, (N,): its identity, or its number where the data set names nobody."""
        return self.index["identity"].to_numpy() if "identity" in self.index else np.arange(len(self))

    def regions(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the active facial regions of `rows` as bool (len(rows), size, size), or None."""
        if self.packed_regions is None:
            return None
        return np.unpackbits(self.packed_regions[rows], axis=-1, count=self.meta["size"]).astype(bool)

    def get_rows(self, split: str, drop_duplicates_of: str | None = None) -> np.ndarray:
        """Return the row numbers (int64, ascending) of a split; ValueError for a name that is none.

        drop_duplicates_of: leave out the faces whose exact pixels are also in this other split;
        `get_rows("test", drop_duplicates_of="train")` is the test split `test_dedup`.
        """
        chosen = self._is_split(split)
        if drop_duplicates_of is not None:
            groups = self.index["duplicate_group"].to_numpy()
            chosen = chosen & ~np.isin(groups, groups[self._is_split(drop_duplicates_of)])
        return np.flatnonzero(chosen)

    def take(self, rows: np.ndarray) -> "PackedDataset":
        """Return a data set of these rows alone, renumbered from 0, in memory."""
        index = self.index.iloc[rows].reset_index(drop=True).assign(row=np.arange(len(rows)))
        regions = None if self.packed_regions is None else self.packed_regions[rows]
        return PackedDataset(self.faces[rows], index, self.meta, regions)

    def _is_split(self, split: str) -> np.ndarray:
        if split not in SPLITS:
            raise ValueError(f"expected a split {', '.join(SPLITS)}, found {split!r}")
        return (self.index["split"] == split).to_numpy()


def load_packed(dataset: str, packed_dir: str | Path | None = None) -> PackedDataset:
    """Open the packed store of `dataset` (default folder: `paths.get_packed_dir(dataset)`).

    Raises
    ------
    DataError
        When there is none, a file is missing or truncated, or the files do not match.
    """
    folder = Path(packed_dir) if packed_dir else get_packed_dir(dataset)
    regions_file, repair = folder / REGIONS_FILE, f"run `make results DATASET={dataset}`"
    if not (folder / META_FILE).is_file():
        raise DataError(
            f"{folder}: expected the packed data set {dataset!r}, found none; {repair} for the whole study, "
            f"or `fer prepare --dataset {dataset}` for the faces alone"
        )
    try:
        meta = json.loads((folder / META_FILE).read_text())
        index = pd.read_parquet(folder / INDEX_FILE)
        faces = np.load(folder / FACES_FILE, mmap_mode="r")
        regions = np.load(regions_file, mmap_mode="r") if regions_file.is_file() else None
    except (OSError, ValueError, pa.ArrowException) as error:
        detail = " ".join(str(error).split())[:160]
        raise DataError(f"{folder}: expected a whole packed data set, found {detail}; {repair}") from None
    for name, rows in {FACES_FILE: faces, INDEX_FILE: index, REGIONS_FILE: regions}.items():
        if rows is not None and len(rows) != meta.get("n_faces"):
            raise DataError(
                f"{folder / name}: expected {meta.get('n_faces')} rows as {META_FILE} says, "
                f"found {len(rows)}; {repair}"
            )
    return PackedDataset(faces=faces, index=index, meta=meta, packed_regions=regions)
