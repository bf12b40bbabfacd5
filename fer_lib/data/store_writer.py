"""Write the files of a packed store as faces come in, holding one batch of index rows in memory."""

import csv
import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_lib.data.packed import DROPPED_FILE, FACES_FILE, INDEX_FILE, REGIONS_FILE, SPLITS
from fer_lib.data.readers.base import BadRow, Face
from fer_lib.errors import DataError

_INDEX_BATCH = 4096
_TYPES = {"row": pa.int32(), "label": pa.int8(), "soft_label": pa.list_(pa.float32())}


class StoreWriter:
    """Writes faces, regions, index, split files and dropped rows into `folder`; a context manager.

    The faces are made `size` x `size` with 1 (grey) or 3 (RGB) channels by `fit_image`.
    """

    def __init__(self, folder: Path, emotions: tuple[str, ...], size: int, channels: int) -> None:
        self._emotions, self._size, self._channels = emotions, size, channels
        self._files = ExitStack()
        shape = (size, size, 3) if channels == 3 else (size, size)
        self._faces = self._files.enter_context(ArrayFile(folder / FACES_FILE, shape))
        self._index = self._files.enter_context(IndexFile(folder / INDEX_FILE))
        self._folder = folder
        self._regions: ArrayFile | None = None
        (folder / "splits").mkdir()
        self._splits = {split: self._open(folder / "splits" / f"{split}.txt") for split in SPLITS}
        self._dropped = csv.writer(self._open(folder / DROPPED_FILE), lineterminator="\n")
        self._dropped.writerow(["source", "reason"])
        self._n_dropped = 0
        self._counts = {split: dict.fromkeys(emotions, 0) for split in SPLITS}
        self._hash = hashlib.sha256(f"{size} {channels} {' '.join(emotions)}\n".encode())

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    def add_face(self, face: Face, split: str) -> None:
        """Append a face that belongs to `split`."""
        pixels = fit_image(face.image, self._size, self._channels)
        digest = hashlib.sha1(pixels)
        row = self._faces.append(pixels)
        self._add_regions(face, row)
        self._splits[split].write(f"{row} {digest.hexdigest()}\n")
        self._counts[split][self._emotions[face.label]] += 1
        self._hash.update(digest.digest() + f"{face.label} {split}\n".encode())
        columns = {"row": row, "split": split, "label": face.label}
        if face.soft_label is not None:
            soft_label = np.asarray(face.soft_label, "<f4")
            self._hash.update(soft_label.tobytes())
            columns["soft_label"] = soft_label.tolist()
        columns["sha1"] = digest.hexdigest()
        # Exact duplicates share the hash, hence the group; 64 of its bits stay unique for any real set.
        columns["duplicate_group"] = int.from_bytes(digest.digest()[:8], "big", signed=True)
        self._index.append(columns | {"source": face.source} | face.factors)

    def add_dropped(self, row: BadRow) -> None:
        """List a row that could not be read."""
        self._dropped.writerow([row.source, row.reason])
        self._n_dropped += 1

    def finish(self) -> dict[str, Any]:
        """Complete the files and return what `meta.json` says about them. Raises DataError without faces."""
        n_faces = self._faces.n_rows
        if n_faces == 0:
            raise DataError(f"expected faces, found none and {self._n_dropped} bad rows; see data/README.md")
        self._files.close()
        return {
            "emotions": list(self._emotions),
            "size": self._size,
            "channels": self._channels,
            "counts": self._counts,
            "n_faces": n_faces,
            "n_dropped": self._n_dropped,
            "bytes_per_face": self._size**2 * self._channels,
            "data_hash": self._hash.hexdigest(),
        }

    def _add_regions(self, face: Face, row: int) -> None:
        if face.regions is None:
            return
        if row == 0:
            shape = (self._size, (self._size + 7) // 8)
            self._regions = self._files.enter_context(ArrayFile(self._folder / REGIONS_FILE, shape))
        self._regions.append(np.packbits(fit_regions(face.regions, self._size), axis=-1))

    def _open(self, path: Path) -> TextIO:
        return self._files.enter_context(open(path, "w", encoding="utf-8", newline="\n"))


def fit_image(image: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Return a uint8 image as (size, size) grey or (size, size, 3) RGB.

    In this order: centre crop to a square; colour to grey by OpenCV's luma weights (ITU-R BT.601), or grey
    to three equal channels; resize with INTER_AREA when shrinking, INTER_CUBIC when enlarging.
    """
    image = _crop_square(image)
    if image.ndim == 3 and channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    elif image.ndim == 2 and channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return _resize(image, size)


def fit_regions(regions: np.ndarray, size: int) -> np.ndarray:
    """Return a bool mask cropped and resized as its image is, as bool (size, size)."""
    return _resize(_crop_square(regions).astype(np.uint8) * 255, size) > 127


def _crop_square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[0] == size:
        return image
    shrinking = image.shape[0] > size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)


class ArrayFile:
    """A `.npy` file of uint8 rows that grows row by row; a context manager."""

    def __init__(self, path: Path, row_shape: tuple[int, ...]) -> None:
        self.n_rows = 0
        self._row_shape = row_shape
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by __exit__
        self._write_header()

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, *exception: object) -> None:
        # NumPy pads the header so that the first dimension can grow in place.
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def append(self, values: np.ndarray) -> int:
        """Append one row of uint8 values and return its number."""
        self._file.write(np.ascontiguousarray(values))
        self.n_rows += 1
        return self.n_rows - 1

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.n_rows, *self._row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


class IndexFile:
    """A parquet file of index rows, written in batches; a context manager.

    The first batch settles the types of the source's own columns.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "IndexFile":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._rows:
            self._flush()
        if self._writer:
            self._writer.close()

    def append(self, row: dict[str, Any]) -> None:
        """Append one row; every row has the same columns."""
        self._rows.append(row)
        if len(self._rows) == _INDEX_BATCH:
            self._flush()

    def _flush(self) -> None:
        columns = {name: [row[name] for row in self._rows] for name in self._rows[0]}
        self._rows.clear()
        if self._writer is None:
            types = {name: _TYPES.get(name) or pa.array(v).type for name, v in columns.items()}
            self._writer = pq.ParquetWriter(self._path, pa.schema(types), compression="zstd")
        self._writer.write_table(pa.Table.from_pydict(columns, self._writer.schema))
