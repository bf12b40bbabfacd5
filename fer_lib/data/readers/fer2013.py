"""Read FER2013 in the layouts it is passed around in, and FER+: its pixels, relabelled by ten annotators.

Looked for in this order; the first one found is read and named in `layout`:

1. `parquet`: one `*.parquet` file with columns emotion (integer), usage (string), image (binary: an encoded
   image), perhaps ferplus_* (integer);
2. `fer2013.csv`: columns emotion, pixels, Usage;
3. `icml_face_data.csv`: the same columns in another order, with leading spaces in the header;
4. `folders`: folders of classes, `train/<class>/*` and `test/<class>/*`, the latter's file names starting
   with `PublicTest_` or `PrivateTest_`. Where no name does, test/ is the test split; `val/` or `validation/`,
   if there is one, is the validation split. What is missing of the three is cut from train.

A row's `source` is `file:row`: the line number in a CSV file (the header is line 1), the row number
counted from 0 in a parquet file. FER+: Barsoum et al. 2016, arXiv 1608.01041.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fer_lib.data.image_files import is_hidden, list_folders, pass_loose_files
from fer_lib.data.images import decode_image
from fer_lib.data.packed import SPLITS
from fer_lib.data.readers.base import (
    CsvFile,
    Face,
    RawDataset,
    build_layout_error,
    find_root,
    parse_int,
    read_rows,
)
from fer_lib.data.readers.folders import SPLIT_OF_NAME, ClassImages, find_splits, name_target
from fer_lib.data.readers.parquet import ParquetTable
from fer_lib.errors import DataError
from fer_lib.labels import EMOTIONS_7, EMOTIONS_8, VOTE_OF_LABEL, VOTES

SIDE = 48
_EXPECTED = "a *.parquet file, fer2013.csv, icml_face_data.csv or train/<class>/ and test/<class>/"
_LABELS = (0, len(EMOTIONS_7) - 1, "a label")
SPLIT_OF_USAGE = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
VOTES_FILE = "fer2013new.csv"
_CSV_COLUMNS = ("emotion", "pixels", "Usage")
_VOTES_COLUMNS = ("Usage", *VOTES[:-1], "NF")
_PARQUET_COLUMNS = {"emotion": "integer", "usage": "string", "image": "binary"}
_PARQUET_VOTES = tuple(f"ferplus_{vote}" for vote in VOTES)


def open_fer2013(raw_dir: Path, classes: Mapping[str, str | None] = MappingProxyType({})) -> RawDataset:
    """Return FER2013, 48x48 grey, in file order: Training is train, PublicTest is val, PrivateTest is test.

    FER+ votes, from the parquet file's own columns or from `fer2013new.csv` beside a CSV file (same row
    order), become factors `votes_neutral` ... `votes_nf`. Folders keep no row order, hence no votes.
    classes: what class folders stand for whose name does not say it. Raises DataError when no layout is
    recognised, a column is missing or of a wrong type, or the votes do not match.
    """
    return _open_pixels(raw_dir, classes)[0]


def open_ferplus(raw_dir: Path) -> RawDataset:
    """Return FER2013 relabelled by FER+'s votes, eight classes; for where it is read, see `find_pixels_dir`.

    Raises DataError as `open_fer2013`, and when there are no votes.
    """
    pixels_dir = find_pixels_dir(raw_dir)
    raw, has_votes = _open_pixels(pixels_dir, {})
    if not has_votes:
        raise DataError(
            f"{pixels_dir}: expected {VOTES_FILE} beside fer2013.csv, or a parquet file with ferplus_* "
            f"columns, found layout {raw.layout!r} without votes; see data/README.md"
        )
    rows = (_relabel(row) if isinstance(row, Face) else row for row in raw.rows)
    return replace(raw, emotions=EMOTIONS_8, rows=rows)


def find_pixels_dir(raw_dir: Path) -> Path:
    """Return the one folder FER+ is made from: `raw_dir` if it holds pixels, else `fer2013` beside it.

    Raises DataError for votes in a `raw_dir` without pixels. A second folder would be one that the pipeline
    does not watch: changed votes would go unnoticed.
    """
    pixels_dir = raw_dir.with_name("fer2013")
    if not raw_dir.is_dir() or all(is_hidden(path.name) for path in raw_dir.iterdir()):
        return pixels_dir
    root = find_root(raw_dir, _EXPECTED, SPLIT_OF_NAME)
    if _find_layout(root) is not None:
        return raw_dir
    if (root / VOTES_FILE).is_file():
        raise DataError(
            f"{raw_dir}: expected {VOTES_FILE} beside the pixels it labels, found it without them; "
            f"move it into {pixels_dir}"
        )
    return pixels_dir


def count_majority(votes: np.ndarray) -> tuple[int, np.ndarray] | None:
    """Return (label, soft label) for one face's votes, or None when FER+'s protocol leaves the face out.

    votes: integers (10,), in the order of `labels.VOTES`. The soft label is float32 (8,), summing to 1.

    The label follows mode `majority` of the reference code (github.com/microsoft/FERPlus, `src/ferplus.py`,
    `_process_data`): choices with a single vote count as outliers and are set to zero; the winner needs
    more than half of the votes that remain, those for `unknown` and `not a face` included; a face without
    such a winner, or whose winner is one of these two, is left out. The reference code then trains on the
    winner alone; the soft label here keeps the remaining votes for the eight emotions, normalised.
    """
    kept = np.where(votes > 1, votes, 0)
    winner = int(kept.argmax())
    if 2 * kept[winner] <= kept.sum() or winner not in VOTE_OF_LABEL:
        return None
    emotions = kept[list(VOTE_OF_LABEL)].astype(np.float32)
    return VOTE_OF_LABEL.index(winner), emotions / emotions.sum()


def _relabel(face: Face) -> Face | None:
    majority = count_majority(np.array(list(face.factors.values())))
    if majority is None:
        return None
    label, soft_label = majority
    return replace(face, label=label, soft_label=soft_label)


def _open_pixels(raw_dir: Path, classes: Mapping[str, str | None]) -> tuple[RawDataset, bool]:
    """Return FER2013, and whether its faces have votes."""
    raw_dir = find_root(raw_dir, _EXPECTED, SPLIT_OF_NAME)
    found = _find_layout(raw_dir)
    if found is None:
        raise build_layout_error(raw_dir, _EXPECTED)
    layout, path = found
    images = ClassImages(EMOTIONS_7, classes)
    if layout == "parquet":
        file = ParquetTable(path, _PARQUET_COLUMNS, dict.fromkeys(_PARQUET_VOTES, "integer"))
        n_rows, has_votes = file.n_rows, len(file.columns) > len(_PARQUET_COLUMNS)
        rows = read_rows(file, _read_record)
    elif layout == "folders":
        listed = _list_images(raw_dir, images)
        n_rows, has_votes = len(listed), False
        rows = read_rows(listed, partial(_read_image, raw_dir))
    else:
        table, votes_file = CsvFile(path, _CSV_COLUMNS), raw_dir / VOTES_FILE
        votes = CsvFile(votes_file, _VOTES_COLUMNS) if votes_file.is_file() else None
        n_rows, has_votes = table.count_rows(), votes is not None
        rows = read_rows(_pair_lines(table, votes), partial(_read_lines, table, votes))
    return RawDataset(EMOTIONS_7, layout, n_rows, rows, images.passed_over, images.names), has_votes


def _find_layout(raw_dir: Path) -> tuple[str, Path] | None:
    """Return the layout in `raw_dir` and the file or folder it is in; None when there is none.

    Raises DataError for several parquet files: which of them to read, and in which order, is not known.
    """
    # The names with a leading dot are what macOS leaves beside files on foreign disks.
    tables = sorted(path for path in raw_dir.glob("*.parquet") if not path.name.startswith("."))
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables[:5])
        raise DataError(
            f"{raw_dir}: expected one *.parquet file, found {len(tables)} ({names}); join them into one, "
            "rows in their original order, or take the others away"
        )
    if tables:
        return "parquet", tables[0]
    for name in ("fer2013.csv", "icml_face_data.csv"):
        if (raw_dir / name).is_file():
            return name, raw_dir / name
    splits = {SPLIT_OF_NAME.get(path.name.lower()) for path in list_folders(raw_dir)} & set(SPLITS)
    return ("folders", raw_dir) if "train" in splits and len(splits) > 1 else None


def _read_record(source: str, record: dict[str, Any]) -> Face:
    return Face(
        image=decode_image(record["image"] or b"", grey=True),
        label=parse_int(record["emotion"], *_LABELS),
        split=_parse_usage(record["usage"]),
        source=source,
        factors=_parse_votes([record[name] for name in _PARQUET_VOTES if name in record]),
    )


def _pair_lines(table: CsvFile, votes: CsvFile | None) -> Iterator[tuple[str, Any]]:
    """Yield each row's source, fields and votes (line, fields); DataError when one file ends early."""
    for count, (row, vote) in enumerate(zip_longest(table, () if votes is None else votes)):
        if votes is not None and (row is None or vote is None):
            more, fewer = (votes, table) if row is None else (table, votes)
            raise DataError(
                f"{fewer.path}: expected a row for every row of {more.path.name}, found only {count}; "
                "use the whole files, or take the votes file away"
            )
        line, fields = row
        yield f"{table.path.name}:{line}", (fields, vote)


def _read_lines(table: CsvFile, votes: CsvFile | None, source: str, values: Any) -> Face:
    fields, vote = values
    label, pixels, usage = table.pick(fields)
    face = Face(_parse_pixels(pixels), parse_int(label, *_LABELS), _parse_usage(usage), source)
    return face if votes is None else _add_votes(face, votes, *vote)


def _add_votes(face: Face, votes: CsvFile, line: int, fields: list[str]) -> Face:
    try:
        usage, *counts = votes.pick(fields)
        factors = _parse_votes(counts)
    except ValueError as error:
        raise ValueError(f"{votes.path.name}:{line}: {error}") from None
    if SPLIT_OF_USAGE.get(usage.strip()) != face.split:
        raise DataError(
            f"{votes.path}:{line}: expected the Usage of {face.source}, found {usage.strip()[:20]!r}; "
            "the two files must list the same faces in the same order"
        )
    return replace(face, factors=factors)


def _parse_votes(counts: list) -> dict[str, int]:
    names = VOTES[: len(counts)]
    return {
        f"votes_{name}": parse_int(n, 0, 10, "a vote count") for name, n in zip(names, counts, strict=True)
    }


def _parse_usage(text: str | None) -> str:
    try:
        return SPLIT_OF_USAGE[(text or "").strip()]
    except KeyError:
        raise ValueError(f"expected Usage {', '.join(SPLIT_OF_USAGE)}, found {text!r:.30}") from None


def _parse_pixels(text: str) -> np.ndarray:
    values = text.split()
    try:
        # `bytes` and `int` refuse every wrong value; np.fromstring, though faster, reads `12 9.5` as 12 9.
        pixels = bytes(map(int, values))
    except ValueError:
        wrong = next(value for value in values if not (value.isdecimal() and int(value) < 256))
        raise ValueError(f"expected pixel values 0 to 255, found {wrong[:20]!r}") from None
    if len(pixels) != SIDE * SIDE:
        hint = " (is the file cut off here?)" if len(pixels) < SIDE * SIDE else ""
        raise ValueError(f"expected {SIDE * SIDE} pixels, found {len(pixels)}{hint}")
    return np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE)


def _list_images(raw_dir: Path, images: ClassImages) -> list[tuple[str, tuple[int, str]]]:
    """List (source, (label, split)) by the number in the name, then by name: close to the original order.

    The split is empty where a test image lacks the prefix that the others have.
    """
    splits = find_splits(raw_dir)
    listed = {split: images.list(folder) for split, folder in splits.items()}
    pass_loose_files(raw_dir, images.passed_over)
    # Some copies have lost the prefixes.
    prefixes = {_get_prefix_split(path) for path, _ in listed.get("test", [])} & {"val", "test"}
    given = {*splits, *prefixes}
    items = [
        (path, label, _get_prefix_split(path) if prefixes and split == "test" else name_target(split, given))
        for split, found in listed.items()
        for path, label in found
    ]

    def get_order(item: tuple[Path, int, str]) -> tuple[int, str, Path]:
        digits = re.search(r"\d+", item[0].stem)
        return int(digits.group()) if digits else -1, item[0].name, item[0]

    items.sort(key=get_order)
    return [(path.relative_to(raw_dir).as_posix(), (label, split)) for path, label, split in items]


def _read_image(raw_dir: Path, source: str, values: tuple[int, str]) -> Face:
    label, split = values
    if not split:
        raise ValueError("expected the prefix PublicTest_ or PrivateTest_")
    return Face(decode_image(raw_dir / source, grey=True), label, split, source)


def _get_prefix_split(path: Path) -> str:
    """Return the split of a file in test/ by its name, empty where that says none that can be there."""
    split = SPLIT_OF_USAGE.get(path.name.split("_")[0], "")
    return "" if split == "train" else split
