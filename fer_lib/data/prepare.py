"""Pack raw faces into the store that everything else reads, in one streaming pass and bounded memory."""

import csv
import hashlib
import json
import operator
import os
import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from fer_lib.data.framing import fit_image, fit_regions, measure_framing
from fer_lib.data.packed import (
    DROPPED_FILE,
    FACES_FILE,
    INDEX_FILE,
    META_FILE,
    REGIONS_FILE,
    SPLITS,
)
from fer_lib.data.readers import open_reader
from fer_lib.data.readers.base import BadRow, Excluded, Face, Reader
from fer_lib.errors import DataError, ParamsError
from fer_lib.params import PrepareParams
from fer_lib.paths import get_packed_dir

N_FRAMED = 400
"""Training faces in which landmarks are looked for: the medians then vary by less than half a pixel of 48."""

_INDEX_BATCH = 4096
_TYPES = {"row": pa.int32(), "label": pa.int8(), "soft_label": pa.list_(pa.float32())}


def prepare(
    dataset: str,
    params: PrepareParams,
    raw_dir: str | Path | None = None,
    out_dir: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Pack a data set and return the content of its `meta.json`.

    Written: `faces.npy`, `index.parquet`, `regions.npy` (where faces have regions), `splits/<split>.txt`
    (`row sha1` a line), `dropped.csv`, `meta.json`. The same input gives the same bytes. All is written to
    a folder beside and swapped in at the end, so a failure leaves an older version as it was. A class without
    a face is no error: one's own images may show fewer emotions, and the audit counts them.

    Parameters
    ----------
    dataset
        A name of `readers.READERS`, or any other for a plain folder of images.
    params
        Section `prepare` of the parameters.
    raw_dir, out_dir
        By default `paths.get_raw_dir` and `paths.get_packed_dir`.
    progress
        Show a progress bar.

    Raises
    ------
    DataError
        Naming file and row for the first bad row, unless `params.skip_bad`: then bad rows are listed in
        `dropped.csv`. Also when a split is left without a face.
    ParamsError
        For fractions that leave nothing to train on.
    """
    if params.val_fraction + params.test_fraction >= 1:
        raise ParamsError("prepare: expected val_fraction + test_fraction below 1; lower one of them")
    out_dir = Path(out_dir) if out_dir else get_packed_dir(dataset)
    reader = open_reader(dataset, params, raw_dir)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    _clean_up_after_killed_runs(out_dir)
    temporary = out_dir.with_name(f".{out_dir.name}.new-{os.getpid()}")
    temporary.mkdir()
    try:
        meta = _pack(dataset, reader, params, temporary, progress)
        _swap_in(temporary, out_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return meta


def _pack(
    dataset: str, reader: Reader, params: PrepareParams, folder: Path, progress: bool
) -> dict[str, Any]:
    n_excluded = 0
    total = operator.length_hint(reader) or None
    with StoreWriter(folder, reader.emotions, params.size, params.channels) as writer:
        for item in tqdm(reader, total=total, desc=f"prepare {dataset}", unit="face", disable=not progress):
            if isinstance(item, Face):
                writer.add_face(item, choose_split(item, params))
            elif isinstance(item, Excluded):
                n_excluded += 1
            elif params.skip_bad:
                writer.add_dropped(item)
            else:
                raise DataError(
                    f"{dataset}: {item.source}: {item.reason}; correct it, or set prepare.skip_bad: true in "
                    "params.yaml to drop such rows"
                )
        content = writer.finish()
    _check_splits(dataset, content["counts"])
    framing = measure_framing(_read_sample(folder))
    meta = {
        "dataset": dataset,
        "layout": reader.layout,
        **content,
        "framing": framing and framing.to_dict(),
        "n_excluded": n_excluded,
        "seed": params.seed,
    }
    (folder / META_FILE).write_text(json.dumps(meta, indent=2) + "\n")
    return meta


def _read_sample(folder: Path) -> np.ndarray:
    """Return up to `N_FRAMED` training faces, evenly spread.

    They are read one by one: a memory map would keep whatever it touched.
    """
    split = pd.read_parquet(folder / INDEX_FILE, columns=["split"])["split"]
    rows = np.flatnonzero(split == "train")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(N_FRAMED, len(rows))).astype(int))]
    faces = np.load(folder / FACES_FILE, mmap_mode="r")
    shape, offset, size = faces.shape[1:], faces.offset, int(np.prod(faces.shape[1:]))
    with open(folder / FACES_FILE, "rb") as file:
        return np.stack(
            [np.fromfile(file, np.uint8, size, offset=offset + row * size - file.tell()) for row in rows]
        ).reshape(-1, *shape)


def _check_splits(dataset: str, counts: dict[str, dict[str, int]]) -> None:
    sizes = {split: sum(of_class.values()) for split, of_class in counts.items()}
    empty = [split for split, size in sizes.items() if not size]
    if empty:
        found = ", ".join(f"{split} {size:,}" for split, size in sizes.items())
        raise DataError(
            f"{dataset}: expected faces in every split, found none in {' and '.join(empty)} ({found}); "
            "add faces to it or, where it is cut from train, change prepare.val_fraction or "
            "prepare.test_fraction in params.yaml"
        )


def choose_split(face: Face, params: PrepareParams) -> str:
    """Return the split of a face; where the source leaves it open, by a hash of (seed, source pixels).

    The hash makes exact duplicates fall into the same split, and keeps every face where it is when the
    packed size or the rest of the source changes.
    """
    candidates = face.split.split("|") if face.split else SPLITS
    if len(candidates) == 1:
        return candidates[0]
    pixels = hashlib.sha1(face.image.tobytes()).digest()
    digest = hashlib.sha256(f"{params.seed} {face.image.shape} ".encode() + pixels).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if "test" in candidates:
        if position < params.test_fraction:
            return "test"
        position -= params.test_fraction
    return "val" if "val" in candidates and position < params.val_fraction else "train"


def _swap_in(new: Path, out_dir: Path) -> None:
    """Put `new` in the place of `out_dir`: two renames, since a folder cannot replace a full one in one."""
    old = out_dir.with_name(f".{out_dir.name}.old-{os.getpid()}")
    if out_dir.exists():
        out_dir.rename(old)
    new.rename(out_dir)
    shutil.rmtree(old, ignore_errors=True)


def _clean_up_after_killed_runs(out_dir: Path) -> None:
    """Remove what runs that are no longer alive left behind; restore a version caught between two renames."""
    for path in sorted(out_dir.parent.glob(f".{out_dir.name}.*")):
        left_over = re.fullmatch(r"\.(new|old)-(\d+)", path.name.removeprefix(f".{out_dir.name}"))
        if left_over is None or _is_other_process(int(left_over[2])):
            continue
        if left_over[1] == "old" and not out_dir.exists():
            path.rename(out_dir)
        else:
            shutil.rmtree(path)


def _is_other_process(pid: int) -> bool:
    """Tell whether `pid` is alive and not this process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # alive, and another user's
        pass
    return pid != os.getpid()


class StoreWriter:
    """Writes faces, regions, index, split files and dropped rows as they come; a context manager."""

    def __init__(self, folder: Path, emotions: tuple[str, ...], size: int, channels: int) -> None:
        self._folder, self._emotions, self._size, self._channels = folder, emotions, size, channels
        self._files = ExitStack()
        shape = (size, size, 3) if channels == 3 else (size, size)
        self._faces = self._files.enter_context(_ArrayFile(folder / FACES_FILE, shape))
        self._regions: _ArrayFile | None = None
        self._index: pq.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []  # of the index, until there are enough for a batch
        (folder / "splits").mkdir()
        self._splits = {split: self._open(folder / "splits" / f"{split}.txt") for split in SPLITS}
        self._dropped = csv.writer(self._open(folder / DROPPED_FILE), lineterminator="\n")
        self._dropped.writerow(["source", "reason"])
        self._n_dropped = 0
        self._counts = {split: dict.fromkeys(emotions, 0) for split in SPLITS}
        self._hash = hashlib.sha256(f"{size} {channels} {' '.join(emotions)}\n".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    def add_face(self, face: Face, split: str) -> None:
        """Append a face that belongs to `split`."""
        pixels = fit_image(face.image, self._size, self._channels)
        digest = hashlib.sha1(pixels.tobytes())
        row = self._faces.append(pixels)
        if face.regions is not None:
            self._add_regions(face.regions)
        self._splits[split].write(f"{row} {digest.hexdigest()}\n")
        self._counts[split][self._emotions[face.label]] += 1
        self._hash.update(digest.digest() + f"{face.label} {split}\n".encode())
        columns: dict[str, Any] = {"row": row, "split": split, "label": face.label}
        if face.soft_label is not None:
            soft_label = np.asarray(face.soft_label, "<f4")
            self._hash.update(soft_label.tobytes())
            columns["soft_label"] = soft_label.tolist()
        columns["sha1"] = digest.hexdigest()
        # Exact duplicates share the hash, hence the group; 64 of its bits stay unique for any real set.
        columns["duplicate_group"] = int.from_bytes(digest.digest()[:8], "big", signed=True)
        self._rows.append(columns | {"source": face.source} | face.factors)
        if len(self._rows) == _INDEX_BATCH:
            self._write_rows()

    def add_dropped(self, row: BadRow) -> None:
        """List a row that could not be read."""
        self._dropped.writerow([row.source, row.reason])
        self._n_dropped += 1

    def finish(self) -> dict[str, Any]:
        """Complete the files and return what `meta.json` says about them. Raises DataError without faces."""
        n_faces = self._faces.n_rows
        if n_faces == 0:
            raise DataError(f"expected faces, found none and {self._n_dropped} bad rows; see data/README.md")
        self._write_rows()
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

    def _add_regions(self, regions: np.ndarray) -> None:
        if self._regions is None:
            shape = (self._size, (self._size + 7) // 8)
            self._regions = self._files.enter_context(_ArrayFile(self._folder / REGIONS_FILE, shape))
        self._regions.append(np.packbits(fit_regions(regions, self._size), axis=-1))

    def _write_rows(self) -> None:
        """Write a batch of the index; the first settles the types of the source's own columns."""
        if not self._rows:
            return
        columns = {name: [row[name] for row in self._rows] for name in self._rows[0]}
        self._rows.clear()
        if self._index is None:
            types = {name: _TYPES.get(name) or pa.array(v).type for name, v in columns.items()}
            writer = pq.ParquetWriter(self._folder / INDEX_FILE, pa.schema(types), compression="zstd")
            self._index = self._files.enter_context(writer)
        self._index.write_table(pa.Table.from_pydict(columns, self._index.schema))

    def _open(self, path: Path) -> TextIO:
        return self._files.enter_context(open(path, "w", encoding="utf-8", newline="\n"))


class _ArrayFile:
    """A `.npy` file of uint8 rows that grows row by row; a context manager."""

    def __init__(self, path: Path, row_shape: tuple[int, ...]) -> None:
        self.n_rows = 0
        self._row_shape = row_shape
        self._file = open(path, "wb")  # noqa: SIM115 - closed by __exit__
        self._write_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        # NumPy pads the header so that the first dimension can grow in place.
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def append(self, values: np.ndarray) -> int:
        """Append one row of uint8 values and return its number."""
        self._file.write(values.tobytes())
        self.n_rows += 1
        return self.n_rows - 1

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.n_rows, *self._row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
