"""Pack raw faces into the store that everything else reads, in one streaming pass and bounded memory."""

import csv
import hashlib
import json
import re
import shutil
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from fer_lib.data.framing import Framing, fit_image, fit_regions, measure_framing
from fer_lib.data.image_files import describe_counts
from fer_lib.data.packed import DROPPED_FILE, FACES_FILE, INDEX_FILE, META_FILE, REGIONS_FILE, SPLITS
from fer_lib.data.readers import open_raw
from fer_lib.data.readers.base import BadRow, Face, RawDataset
from fer_lib.errors import DataError, ParamsError
from fer_lib.files import hold_lock
from fer_lib.param_sections import PrepareParams
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
    a folder beside and swapped in at the end, so a failure leaves an older version as it was, and a second
    run is refused meanwhile. A class without a face is no error: one's own images may show fewer emotions,
    and the audit counts them.

    Parameters
    ----------
    dataset
        A name of `readers.READERS`, or any other for a plain folder of images.
    raw_dir, out_dir
        By default `paths.get_raw_dir` and `paths.get_packed_dir`.

    Raises
    ------
    DataError
        Naming file and row for the first bad row, unless `params.skip_bad`: then bad rows are listed in
        `dropped.csv`. Also when a split is left without a face.
    ParamsError
        For fractions that leave nothing to train on.
    FerError
        While another run packs the same data set.
    """
    if params.val_fraction + params.test_fraction >= 1:
        raise ParamsError("prepare: expected val_fraction + test_fraction below 1; lower one of them")
    return pack(dataset, open_raw(dataset, params, raw_dir), params, out_dir, progress=progress)


def pack(
    dataset: str,
    raw: RawDataset,
    params: PrepareParams,
    out_dir: str | Path | None = None,
    framing: Framing | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Pack an opened source as `prepare` does; return the content of its `meta.json`.

    framing: how its faces were cut; None: it is measured.
    """
    out_dir = Path(out_dir) if out_dir else get_packed_dir(dataset)
    with hold_lock(out_dir.with_name(f".{out_dir.name}.lock")):
        new, old = out_dir.with_name(f".{out_dir.name}.new"), out_dir.with_name(f".{out_dir.name}.old")
        if old.exists() and not out_dir.exists():  # a run was killed between the two renames
            old.rename(out_dir)
        for left_over in (new, old):
            shutil.rmtree(left_over, ignore_errors=True)
        new.mkdir()
        try:
            meta = _write_store(dataset, raw, params, new, framing, progress)
            if out_dir.exists():  # a folder cannot take the place of a full one in one step
                out_dir.rename(old)
            new.rename(out_dir)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return meta


def _write_store(
    dataset: str,
    raw: RawDataset,
    params: PrepareParams,
    folder: Path,
    framing: Framing | None,
    progress: bool,
) -> dict[str, Any]:
    n_excluded = 0
    rows = tqdm(
        raw.rows, total=raw.n_rows or None, desc=f"prepare {dataset}", unit="face", disable=not progress
    )
    with _StoreWriter(folder, raw.emotions, params.size, params.channels) as writer:
        for row in rows:
            if row is None:
                n_excluded += 1
            elif isinstance(row, Face):
                writer.add_face(row, choose_split(row, params))
            elif params.skip_bad:
                writer.add_dropped(row)
            else:
                raise DataError(
                    f"{dataset}: {row.source}: {row.reason}; correct it, or set prepare.skip_bad: true in "
                    "params.yaml to drop such rows"
                )
        if not writer.n_faces:
            passed_over = describe_counts(Counter(raw.passed_over.values()))
            raise DataError(
                f"{dataset}: expected faces, found none: passed over {passed_over}, dropped "
                f"{describe_counts(writer.n_dropped)}, without a label here {n_excluded:,}; "
                "see data/README.md"
            )
        content = writer.finish()
    _check_splits(dataset, content["counts"])
    framing = framing or measure_framing(_read_sample(folder))
    meta = {
        "dataset": dataset,
        "layout": raw.layout,
        **content,
        "framing": framing and framing.to_dict(),
        "n_excluded": n_excluded,
        "passed_over": dict(sorted(Counter(raw.passed_over.values()).items())),
        "classes": raw.classes,
        "seed": params.seed,
    }
    (folder / META_FILE).write_text(json.dumps(meta, indent=2) + "\n")
    return meta


def _read_sample(folder: Path) -> np.ndarray:
    """Return up to `N_FRAMED` training faces, evenly spread."""
    split = pd.read_parquet(folder / INDEX_FILE, columns=["split"])["split"]
    rows = np.flatnonzero(split == "train")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(N_FRAMED, len(rows))).astype(int))]
    # One map per face: a map keeps in memory whatever was read through it.
    return np.stack([np.array(np.load(folder / FACES_FILE, mmap_mode="r")[row]) for row in rows])


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


class _StoreWriter:
    """Writes faces, regions, index, split files and dropped rows as they come; a context manager."""

    def __init__(self, folder: Path, emotions: tuple[str, ...], size: int, channels: int) -> None:
        self._folder, self._emotions, self._size, self._channels = folder, emotions, size, channels
        self._files = ExitStack()
        self._arrays: dict[str, tuple[BinaryIO, tuple[int, ...]]] = {}  # file and shape of a row
        self._index: pq.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []  # of the index, until there are enough for a batch
        (folder / "splits").mkdir()
        self._splits = {split: self._open(folder / "splits" / f"{split}.txt") for split in SPLITS}
        self._dropped = csv.writer(self._open(folder / DROPPED_FILE), lineterminator="\n")
        self._dropped.writerow(["source", "reason"])
        self.n_faces = 0
        self.n_dropped: Counter[str] = Counter()  # by reason
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
        row = self.n_faces
        self.n_faces += 1
        self._append(FACES_FILE, pixels)
        if face.regions is not None:
            self._append(REGIONS_FILE, np.packbits(fit_regions(face.regions, self._size), axis=-1))
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
        """List a row that could not be read, and count it by what is the same in all such reasons."""
        self._dropped.writerow([row.source, row.reason])
        reason = re.sub(r"^\S+:\d+: ", "", row.reason)  # of votes, which have a file of their own
        self.n_dropped[re.split(r"; | [(\[]|, found ['\"\d]", reason)[0]] += 1

    def finish(self) -> dict[str, Any]:
        """Complete the files and return what `meta.json` says about them."""
        self._write_rows()
        for file, shape in self._arrays.values():
            file.seek(0)
            _write_header(file, (self.n_faces, *shape))
        self._files.close()
        return {
            "emotions": list(self._emotions),
            "size": self._size,
            "channels": self._channels,
            "counts": self._counts,
            "n_faces": self.n_faces,
            "n_dropped": self.n_dropped.total(),
            "dropped": dict(self.n_dropped),
            "bytes_per_face": self._size**2 * self._channels,
            "data_hash": self._hash.hexdigest(),
        }

    def _append(self, name: str, values: np.ndarray) -> None:
        """Append a row of uint8 values to a `.npy` file."""
        if name not in self._arrays:
            file = self._files.enter_context(open(self._folder / name, "wb"))  # noqa: SIM115 - as the others
            self._arrays[name] = file, values.shape
            _write_header(file, (0, *values.shape))
        self._arrays[name][0].write(values.tobytes())

    def _write_rows(self) -> None:
        """Write a batch of the index; the first settles the types of the source's own columns."""
        if not self._rows:
            return
        if self._index is None:
            found = pa.Table.from_pylist(self._rows).schema
            schema = pa.schema([each.with_type(_TYPES.get(each.name, each.type)) for each in found])
            writer = pq.ParquetWriter(self._folder / INDEX_FILE, schema, compression="zstd")
            self._index = self._files.enter_context(writer)
        self._index.write_table(pa.Table.from_pylist(self._rows, self._index.schema))
        self._rows.clear()

    def _open(self, path: Path) -> TextIO:
        return self._files.enter_context(open(path, "w", encoding="utf-8", newline="\n"))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write the header of a `.npy` file; NumPy pads it so that the number of rows can grow in place."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
